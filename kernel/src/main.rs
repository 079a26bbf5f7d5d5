//! Vellum's memory manager as the kernel of an x86-64 machine.
//!
//! The machine is `arch`, the only place with unsafe code: it boots, and from then on offers the
//! hardware as values and safe functions. It calls `start` on the first processor when everything
//! works, and `secondary` on each other one.
//!
//! `VELLUM_IMAGE=1 cargo build -p vellum-kernel --profile kernel --target-dir target/image` builds
//! the image, and so does any build for `x86_64-unknown-none`; built in any other way this is a program
//! that says so.
#![cfg_attr(image, no_std, no_main)]
#![deny(unsafe_code)]

#[cfg(all(image, not(any(panic = "abort", doc))))]
compile_error!("the image is built with `--profile kernel`, which aborts on panic");

#[cfg(image)]
extern crate alloc;

#[cfg(image)]
#[macro_use]
mod arch;
#[cfg(image)]
mod arguments;
#[cfg(image)]
mod by_tid;
#[cfg(image)]
mod calls;
#[cfg(image)]
mod disks;
#[cfg(image)]
mod elf;
#[cfg(image)]
mod exec;
#[cfg(image)]
mod fault;
#[cfg(image)]
mod files;
#[cfg(image)]
mod handlers;
#[cfg(image)]
mod input;
#[cfg(image)]
mod kernel;
#[cfg(image)]
mod memory_map;
#[cfg(image)]
mod options;
#[cfg(image)]
mod pc;
#[cfg(image)]
mod report;
#[cfg(image)]
mod run;
#[cfg(image)]
mod scenario;
#[cfg(image)]
mod selftest;
#[cfg(image)]
mod signals;
#[cfg(image)]
mod tasks;
#[cfg(image)]
mod words;

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
fn start(mut hardware: arch::Hardware) -> ! {
    if selftest::asked(&hardware, "selftest") {
        selftest::run(hardware);
    }
    if selftest::asked(&hardware, "scenario") {
        scenario::run(&hardware);
    }
    let options = options::Options::parse(hardware.command_line).and_then(|mut options| {
        options.take_arguments(&mut hardware.archive)?;
        hardware.check_swap().map(|()| options)
    });
    let mut options = match options {
        Ok(options) => options,
        Err(why) => report::refuse(&why),
    };
    hardware.cpus.truncate(options.cpus.unwrap_or(u32::MAX) as usize);
    // Arguments may be long: they are kept once.
    let (path, start) = arguments::Start::of(&core::mem::take(&mut options.program));
    let mut kernel = match kernel::Kernel::new(&mut hardware, options) {
        Ok(kernel) => kernel,
        Err(why) => report::refuse(&why),
    };
    if let Err(why) = kernel.start_first(&path, &start) {
        report::refuse_program(&why);
    }
    // The program may end, and its tables with it, on those that start while this one starts others.
    kernel.pc.load(arch::cpu::id(), None, kernel.vm.kernel_root());
    kernel::install(kernel);
    arch::smp::start_all(&hardware);
    run::serve()
}

/// Called on each other processor when it is ready.
#[cfg(image)]
fn secondary(cpu: u32) -> ! {
    if kernel::is_installed() {
        run::serve()
    }
    selftest::secondary(cpu)
}
