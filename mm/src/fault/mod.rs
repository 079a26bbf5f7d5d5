//! Page faults, in the six steps of every textbook.
//!
//! ```text
//!  1  the MMU raises a fault            the world calls `fault`
//!  2  why?                              `classify`: the area is the promise, the entry today's truth
//!  3  find a free frame                 from the zone, or `reclaim` evicts a page
//!  4  load the page                     zeros, a copy, the page cache, or a disk: then `Wait`
//!  5  update the page table             `resolve`
//!  6  restart the instruction           `Done`: the world lets it try again
//! ```
//!
//! Nothing here blocks: a fault that needs a disk answers [`Outcome::Wait`], and the world calls again
//! when the request has ended.

pub mod classify;
pub mod cow;
pub mod file;
pub mod resolve;

pub use classify::{Fault, Violation, classify};
pub use resolve::{Attempt, Cause, Outcome, Resolved, fault};
