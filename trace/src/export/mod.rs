//! Exports: events as rows of a table, for `DuckDB`, pandas, Polars and spreadsheets.
//!
//! | column | unit | of |
//! |---|---|---|
//! | event | number, from 0 | every event |
//! | thread, process | number | every event but `file` |
//! | kind | `load`, `store`, `fetch` or the name of a call, in lower case | every event |
//! | page | page number | accesses, touch |
//! | count, instructions | references, instructions | accesses, tick |
//! | start, bytes | address or length in bytes | calls on ranges, files |
//! | prot, flags | as in the system call | calls that have them |
//! | file | number | calls on files |
//! | offset | bytes in the file | calls on files |
//! | detail | text | whatever else a call has |
//!
//! A cell that means nothing is empty (CSV) or null (Parquet).

pub mod csv;
#[cfg(feature = "parquet")]
pub mod parquet;
mod row;

pub use row::{COLUMNS, Row, Rows};
