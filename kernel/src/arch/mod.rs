//! The machine: x86-64 as QEMU's `q35` has it, under safe functions.
//!
//! The only folder of the kernel with unsafe code. What it hands out cannot break Rust's promises:
//! frames are copied or lent as atomic words, devices are values, ring 3 is a function call.
//!
//! ```text
//!   boot loader start hardware acpi    from the loader to `crate::start`
//!   paging memory heap functions       the kernel's half of addresses; frames; its own memory
//!   cpu trap user probe samples reach  a processor, what stops it, ring 3
//!   apic timer ipi smp                 interrupts, time, the other processors
//!   pci virtio disk input console port devices
//! ```
//!
//! The kernel runs with interrupts off, always; they arrive in ring 3 and in [`cpu::idle`] only. So
//! there is no code that must expect to be interrupted, and a trap of the kernel itself is a bug.
//!
//! Knows nothing of: processes, system calls, address spaces, what memory is for.
#![allow(unsafe_code)]
#![allow(clippy::cast_ptr_alignment, reason = "alignment is argued where pointers are used")]

mod acpi;
mod apic;
mod boot;
#[macro_use]
pub(crate) mod console;
pub(crate) mod cpu;
pub(crate) mod disk;
mod functions;
mod hardware;
mod heap;
pub(crate) mod input;
pub(crate) mod ipi;
mod loader;
mod memory;
pub(crate) mod paging;
mod pci;
mod port;
pub(crate) mod probe;
pub(crate) mod reach;
pub(crate) mod samples;
pub(crate) mod smp;
mod start;
pub(crate) mod timer;
mod trap;
pub(crate) mod user;
mod virtio;

pub(crate) use hardware::Hardware;
pub(crate) use heap::has_room as heap_has_room;
pub(crate) use memory::PhysicalMemory;
