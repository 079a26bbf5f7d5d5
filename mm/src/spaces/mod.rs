//! Address spaces: which ranges of pages a program may use, what each promises, and one file for each
//! verb that changes them.

pub mod advise;
pub mod areas;
pub mod fork;
pub mod layout;
pub mod lock;
pub mod map;
pub mod protect;
pub mod remap;
pub mod space;
pub mod unmap;
pub mod vma;

pub use space::AddressSpace;
