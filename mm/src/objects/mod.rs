//! What backs a mapping: files and shared memory in the page cache, swap slots, and the I/O between.

pub mod complete;
pub mod detach;
pub mod failed_io;
pub mod file;
pub mod flush;
pub mod groups;
pub mod index;
pub mod io;
pub mod page_cache;
pub mod read;
pub mod readahead;
pub mod slots;
pub mod store;
pub mod swap;
pub mod writeback;

pub use crate::addr::{FileRef, Slot};
pub use flush::Flush;
pub use store::Store;
