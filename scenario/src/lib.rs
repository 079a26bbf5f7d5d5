//! Scenarios: a script of what processes do, and the log of what the memory manager must do then.
//!
//! ```text
//! # cow.scn: a forked page is copied once, and the last owner keeps the original
//! frames 64
//! a: mmap 0x10000 1 rw private
//! a: write 0x10000     => zero-fill f0
//! a: fork b
//! b: write 0x10000     => copy f0 f1
//! a: write 0x10000     => reuse f0
//! check no-leaks
//! ```
//!
//! One statement a line. `#` begins a line of comment; an indented line continues the one above.
//! After `=>` stands everything that the statement makes happen, in order, with commas. The log is
//! exact: where none stands, nothing may happen. Addresses are in bytes, lengths in pages, both
//! decimal or, after `0x`, hexadecimal.
//!
//! # The machine
//!
//! Settings come first: `frames N` (64), `swap SLOTS [page-cluster N]` (none; 0), `policy NAME`
//! (clock), `fault-around PAGES` (16), `read-ahead PAGES` (32).
//!
//! # Statements
//!
//! | statement | what it does |
//! |---|---|
//! | `file NAME PAGES [cold\|warm]` | a file on a disk; a warm one is cached at first use |
//! | `memory NAME PAGES` | makes a shared memory object |
//! | `fread NAME PAGE`, `fwrite NAME PAGE` | `read` or `write` of one whole page |
//! | `sync NAME` | `fsync`: dirty pages are written |
//! | `truncate NAME PAGES` | sets the length |
//! | `forget NAME` | `unlink`: nothing is kept once the last mapping is gone |
//! | `reclaim N` | evicts N pages in the policy's order |
//! | `pressure` | background reclaim, if fewer frames than the low watermark are free |
//! | `hold` | disks leave requests alone from now on, and the log names them `r0`, `r1`, … |
//! | `complete rN` | a disk performs this request; who waits for it goes on |
//! | `fail [rN]` | a disk fails at this request, or at all it has; it stays held |
//! | `complete` | disks perform all requests, and later ones at once again |
//! | `check no-leaks` | if no process is left, only caches of files are |
//! | `check resident P N` | process P has N pages in frames |
//!
//! A process begins with its first statement, in an address space of its own:
//!
//! ```text
//! P: mmap ADDR|any N RIGHTS private|shared [file NAME PAGE] [FLAG …]
//!                                          FLAG: growsdown, noreserve, locked or fixed
//! P: munmap ADDR N
//! P: mremap ADDR N NEW [maymove | to ADDR]
//! P: mprotect ADDR N RIGHTS                RIGHTS: none, or some of rwx
//! P: brk ADDR
//! P: madvise ADDR N WHAT                   WHAT: normal, random, sequential, willneed, dontneed,
//!                                          free, cold, pageout, remove, dontfork, wipeonfork
//! P: mlock ADDR N, P: munlock ADDR N
//! P: read|write|exec ADDR [N]              uses N pages, one after the other, until a signal
//! P: fork Q
//! P: vfork Q                               Q shares P's space; P waits for its exec or exit
//! P: exec                                  runs another program: a new space
//! P: exit
//! ```
//!
//! # The log
//!
//! | item | what happened |
//! |---|---|
//! | `zero-page` | a read of untouched memory maps the frame of zeros |
//! | `zero-fill F` | a write to it gets a zeroed frame |
//! | `file-map F [around N]` | a page of a file is mapped, and N neighbours |
//! | `swap-in S F` | a page is back from its slot |
//! | `copy F G` | the writer of F gets the copy G |
//! | `reuse F` | the writer is alone and keeps F |
//! | `make-dirty F` | first write to a clean page of a shared file |
//! | `spurious`, `stack-grown` | nothing was needed; a stack grew first |
//! | `read WHERE F`, `write WHERE F` | a disk request: slots, or a file and its pages |
//! | `evict F swap S`, `… file NAME PAGE`, `… nowhere` | where the page is instead |
//! | `free F` | a frame with contents is free |
//! | `wait R`, `done R`, `failed R` | with held disks |
//! | `SIGSEGV unmapped\|forbidden`, `SIGBUS beyond-file\|io` | the access is given up |
//! | `out-of-memory` | the same; whom to kill is not the script's business |
//! | `refused WHY` | `invalid`, `occupied`, `no-room`, `too-many`, `no-memory`, `hole` |
//! | `at ADDR` | where `mmap any` or `mremap … maymove` has put the pages |
//! | `exhausted` | background reclaim found nothing more to evict |
//!
//! A process that gets a signal lives on, as one that handles it. ` major` follows the item of a
//! fault that waited for a read of its own. Frames, slots and requests are numbered by their first
//! appearance; a frame that is freed and comes back keeps its number.
//!
//! A script knows nothing of where it runs. [`Hardware`] is what differs: the lab simulates a machine,
//! the kernel uses the one that it is on. [`run`] plays the processes, and audits all records of the
//! memory manager after each step. The same script must give the same log everywhere.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod call;
mod hardware;
mod log;
mod parse;
mod run;
mod script;
mod task;
mod words;
mod world;

pub use hardware::Hardware;
pub use parse::ParseError;
pub use run::{Mismatch, bless, run};
pub use script::{Action, Call, MapCall, Script, Step};
