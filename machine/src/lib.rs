//! The simulated machine: RAM, MMU, TLBs, disks and virtual time, and middleware that wraps any
//! machine.
//!
//! The memory manager of `vellum-mm` asks two small traits of the hardware it runs on; this crate
//! plays that hardware in ordinary user space, deterministically and as a value: a process may hold
//! a thousand machines. Page tables are those of x86-64, bit for bit, in simulated RAM, and the
//! walk in [`mmu`] is written from Intel's manual rather than from the memory manager's own table
//! code, so that each checks the other.
//!
//! ```text
//!   access ──> L1 TLB ──> L2 TLB ──> paging-structure cache ──> walk of the tables in Ram
//!               0 ns       l2_hit                               walk_entry for each entry read
//! ```
//!
//! [`sim::Sim`] is RAM and processors; [`disk`] and [`events`] are the parts of which a world
//! builds the rest; [`profile`] says what everything costs, with a source for each number;
//! [`middleware`] refuses the N-th operation, counts, or logs.
//!
//! Knows nothing of: processes, areas, policies, traces. It translates addresses and tells the
//! time.
#![forbid(unsafe_code)]

mod assoc;
mod cached;
mod counts;
pub mod disk;
pub mod events;
pub mod middleware;
pub mod mmu;
pub mod profile;
pub mod ram;
pub mod sim;
pub mod tlb;
