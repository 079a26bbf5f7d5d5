//! Accounting: who is to blame when memory runs out.

pub mod oom;
