//! The lab: what would this program have done on another machine?
//!
//! An [`Experiment`] is a trace and a machine; [`Experiment::run`] replays the one on the other and
//! gives a [`Report`], which is plain data. Every reference goes through a simulated TLB, page tables
//! in simulated RAM, and the memory manager of `vellum-mm`, the same code that runs in a kernel.
//!
//! ```text
//!     trace ──▶ schedule ──▶ access ──▶ TLB ──▶ walk ──▶ fault ──▶ vellum-mm
//!               who is next,  (most end here)              │
//!               who waits                                  └─▶ disks, virtual time
//! ```
//!
//! The same trace, machine and seed give the same report, to the byte.
#![forbid(unsafe_code)]

pub mod advise;
pub mod curve;
pub mod experiment;
pub mod explain;
pub mod plot;
pub mod replay;
pub mod report;
pub mod run;
pub mod scenario;
pub mod size;
pub mod sizes;
pub mod string;

pub use experiment::{Experiment, LabError, Memory, SwapChoice};
pub use report::Report;
