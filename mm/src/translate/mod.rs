//! Address translation: one file a kind of hardware.

pub mod x86_64;
