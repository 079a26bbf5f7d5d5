//! Accounting: who is to blame when memory runs out, and what its want costs.

pub mod crawl;
pub mod oom;
pub mod pressure;
