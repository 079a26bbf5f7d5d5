//! Decides whether this is the image that boots, and if so links it as one.
//!
//! The image is built for the host's own target, so that it needs nothing but a plain Rust
//! toolchain; `VELLUM_IMAGE=1` says that it is wanted. A target without an operating system always
//! gives an image. Everything else (`cargo clippy`, `cargo doc`) sees a program that says how to
//! build one.

use std::env;

/// For the linker itself. The image is at fixed addresses, its note is aligned as PVH asks, and
/// nothing in it is for a dynamic linker or an unwinder.
const LINKER: [&[&str]; 6] = [
    &["-z", "max-page-size=0x1000"],
    &["-z", "norelro"],
    &["-z", "noexecstack"],
    &["--build-id=none"],
    &["--gc-sections"],
    &["--no-eh-frame-hdr"],
];

fn main() {
    println!("cargo:rustc-check-cfg=cfg(image)");
    println!("cargo:rerun-if-env-changed=VELLUM_IMAGE");
    println!("cargo:rerun-if-changed=image.ld");
    let hosted = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system != "none");
    if hosted && env::var_os("VELLUM_IMAGE").is_none_or(|wanted| wanted != "1") {
        return;
    }
    println!("cargo:rustc-cfg=image");
    let folder = env::var("CARGO_MANIFEST_DIR").expect("cargo names the folder");
    let script = format!("{folder}/image.ld");
    let mut options = vec![vec!["-T", &script]];
    options.extend(LINKER.iter().map(|option| option.to_vec()));
    if hosted {
        // The linker is called by a C compiler, which must add nothing of its own.
        for option in ["-nostartfiles", "-nostdlib", "-static", "-no-pie"] {
            println!("cargo:rustc-link-arg-bins={option}");
        }
        for option in options {
            println!("cargo:rustc-link-arg-bins=-Wl,{}", option.join(","));
        }
    } else {
        println!("cargo:rustc-link-arg-bins=--no-pie");
        for word in options.concat() {
            println!("cargo:rustc-link-arg-bins={word}");
        }
    }
}
