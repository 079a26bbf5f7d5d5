//! The memory manager of Vellum: everything an operating system decides about memory.
//!
//! `no_std`, no `unsafe`, no `cfg`: the same code runs in the lab, which replays recorded programs on
//! a simulated machine, in the kernel, which handles real page faults, and as a library.
//!
//! Folders are layers; a module uses only those above it in this list:
//!
//! ```text
//! addr  ring  event  machine      typed numbers, index-linked rings, what happened, what hardware does
//! frames/                         physical memory: who owns a frame, who maps it, which are free
//! slab/                           small objects on frames: a kernel's own heap
//! translate/                      x86-64 page tables
//! replace/                        which frame to evict next; one file a policy
//! account/                        whom to kill when nothing is left
//! objects/                        what backs a mapping: files, shared memory, swap; I/O as data
//! spaces/                         address spaces; one file a verb
//! reclaim/                        when to evict and how
//! fault/                          why an access was refused, and how to satisfy it
//! config                          what a memory manager is made for
//! vm                              the façade
//! check                           whether all records agree, for tests
//! ```
//!
//! Code that only decides (buddy, policies, areas, classification) takes numbers and gives numbers.
//! Code that acts takes the [`machine`] as a value. Nothing allocates from the heap while it handles a
//! fault or reclaims; page tables, nodes of the page cache and links of the reverse map live in frames.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod account;
pub mod addr;
pub mod check;
pub mod config;
pub mod event;
pub mod fault;
pub mod frames;
pub mod machine;
pub mod objects;
pub mod reclaim;
pub mod replace;
pub mod ring;
pub mod slab;
pub mod spaces;
pub mod translate;
pub mod vm;

pub use config::Config;
pub use vm::Vm;

#[cfg(test)]
extern crate std;

#[cfg(test)]
mod testing;
