//! Small objects on frames: the heap of a kernel.
//!
//! The buddy allocator gives frames; most of what a kernel makes is much smaller. A [`cache`] cuts runs
//! of frames, its *slabs*, into objects of one size. A [`magazine`] keeps a few free objects of each size
//! for one processor, so that most allocations touch nothing shared. The [`heap`] has a cache for each
//! class of sizes and gives whole frames above.
//!
//! ```text
//!     alloc(60 bytes) ─▶ class of 64 ─▶ magazine of this processor ─▶ an object
//!                                            │ empty: half of it from
//!                                       cache of 64 ─▶ slab ▮▮▯▮▯▯▯▮ (one bit an object)
//!                                            │ all full: a run from
//!                                       buddy
//! ```
//!
//! Nothing here touches the memory that it hands out: which objects are free is kept beside them, in a
//! bitmap for each slab. So a program that writes to what it has freed destroys its own data at worst.
//!
//! J. Bonwick, "The Slab Allocator: An Object-Caching Kernel Memory Allocator", USENIX Summer 1994;
//! J. Bonwick and J. Adams, "Magazines and Vmem", USENIX Annual Technical Conference 2001.

pub mod cache;
pub mod heap;
pub mod magazine;

pub use heap::{Heap, Usage};
pub use magazine::Magazines;
