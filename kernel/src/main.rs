//! Vellum's memory manager as the kernel of an x86-64 machine.
//!
//! The machine is [`arch`], the only place with unsafe code: it boots, and from then on offers the
//! hardware as values and safe functions. It calls [`start`] on the first processor when everything
//! works, and [`secondary`] on each other one.
//!
//! `VELLUM_IMAGE=1 cargo build -p vellum-kernel --profile kernel --target-dir target/image` builds the
//! image; built in any other way this is a program that says so.
#![cfg_attr(image, no_std, no_main)]
#![deny(unsafe_code)]

#[cfg(all(image, not(panic = "abort")))]
compile_error!("the image is built with `--profile kernel`, which aborts on panic");

#[cfg(image)]
extern crate alloc;

#[cfg(image)]
#[macro_use]
mod arch;
#[cfg(image)]
mod selftest;

#[cfg(not(image))]
fn main() {
    eprintln!(
        "this is the placeholder for Vellum's kernel; its image is built by\n  VELLUM_IMAGE=1 cargo \
         build -p vellum-kernel --profile kernel --target-dir target/image"
    );
    std::process::exit(2);
}

/// Called on the first processor when the machine is ready.
#[cfg(image)]
fn start(hardware: arch::Hardware) -> ! {
    if selftest::asked(&hardware, "selftest") {
        selftest::run(hardware);
    }
    panic!("nothing to run: the command line asks for no `selftest`");
}

/// Called on each other processor when it is ready.
#[cfg(image)]
fn secondary(cpu: u32) -> ! {
    selftest::secondary(cpu)
}
