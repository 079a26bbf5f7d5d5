//! Watches a real program: records what it does to its memory, under QEMU's user mode.
//!
//! [`record`] runs an unmodified x86-64 Linux command, and every process and thread that it starts,
//! as an ordinary user, and writes a trace. The crate is built twice: as the library that QEMU
//! loads into each recorded process, and as the library that the `vellum` command calls. Between
//! them lies a file in shared memory, with a ring for each thread:
//!
//! ```text
//!     qemu-x86_64 + program (one process)            vellum
//!     ┌────────────────────────────────────┐        ┌──────────────────────────────────┐
//!     │ thread ─ references ─ filter ─┐    │  ring  │                                  │
//!     │        ─ system calls ────────┴────┼───────►│ merge ─ translate ─ trace writer │
//!     │ thread … ──────────────────────────┼───────►│                                  │
//!     └──────────────┬─────────────────────┘        │                                  │
//!         fork, exec ▼                              │                                  │
//!     ┌────────────────────────────────────┐        │                                  │
//!     │ child, with slots of its own ──────┼───────►│                                  │
//!     └────────────────────────────────────┘        └──────────────────────────────────┘
//! ```
//!
//! **Order.** Each reported event takes a ticket from one shared counter. The collector merges the
//! rings by ticket, so the trace has one total order over all threads and processes, and a fork
//! comes before whatever its child does. Calls that change the address space hold a lock of their
//! process from entry to return; `munmap`, `madvise` and `fork` take their ticket at entry, `mmap`
//! at return.
//!
//! **Filter.** A thread reports a reference only if its page is not among those that it has
//! reported lately; the others are counted, and the next event tells how many they were. The filter
//! is emptied after K = 128 events, after 2^18 blocks, and when the address space changes. So
//! replays hold for memories of **4·K frames and more** (512 frames, 2 MiB, by default); the trace
//! says so. The rule behind it is in the module `filter`. The exact mode drops nothing but
//! repetitions.
//!
//! **What shaped the design**, beside speed:
//!
//! - A program may die at any instruction. So events, and even the counters, live in shared memory,
//!   and a thread that dies between taking a ticket and using it is found out and reported.
//! - Programs close and reuse any descriptor, and `fork` copies no other thread. So the plugin
//!   keeps no file open and starts no thread.
//! - `execve` under QEMU runs the new program natively. So the plugin starts QEMU again in its
//!   place, and resolves `#!` lines, which QEMU does not.
//! - `vfork` under QEMU is `fork`: the child has a copy. The trace keeps the flags that were asked
//!   for.
//! - QEMU 7.2 mixes up callbacks for loads and stores unless both are asked for, shrinks no heap,
//!   ignores most advice, and shows other rights in `/proc` than the program's: events come from
//!   the arguments and results of calls, never from the look of the host's memory. Only the layout
//!   at `exec` is read.
//! - The emulated machine differs: addresses are packed from the bottom and the same in each run,
//!   there is no vdso, no rseq, no `io_uring`; a page count is exact, the alignment of a heap is
//!   not.
//!
//! Not recorded: 32-bit programs and those for other processors (the trace has a warning), pages
//! that QEMU touches to deliver a signal, and `ioctl` buffers. Programs with set-user-id run
//! without it.

mod collect;
mod error;
mod filter;
mod host;
mod plugin;
mod program;
mod qemu;
mod record;
mod shared;
mod shared_file;
mod sys;
mod tree;
mod wire;

pub use collect::Counters;
pub use error::RecordError;
pub use plugin::ffi::{qemu_plugin_install, qemu_plugin_version};
pub use record::{Options, Outcome, Progress, Recorded, record, record_into};
