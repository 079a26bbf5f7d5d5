//! Vellum's kernel from outside: what it starts with, and what it says.
//!
//! ```text
//!     kernel/user/*.c ──gcc──▶ programs ──▶ archive ──▶ QEMU ──▶ console ──▶ output, notes, events
//!                                busybox ──▶                kernel image
//!                                                  input ──▶
//! ```
#![forbid(unsafe_code)]

pub mod archive;
pub mod boot;
pub mod console;
pub mod image;
pub mod input;
pub mod programs;
pub mod qemu;
pub mod system;
