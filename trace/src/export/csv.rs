//! Exports to CSV (RFC 4180), with a line of column names first.

use std::io::{Read, Seek, Write};

use crate::error::TraceError;
use crate::export::{COLUMNS, Row, Rows};
use crate::reader::Reader;

/// Writes all events of `reader` to `out`; returns how many. Memory holds one block.
///
/// Rows and their numbers begin with event 0: `reader` must be at its start.
///
/// # Errors
/// If the trace cannot be read or `out` cannot be written; `name` is what messages call it.
pub fn export<R: Read + Seek>(
    reader: &mut Reader<R>,
    out: impl Write,
    name: &str,
) -> Result<u64, TraceError> {
    let failed =
        |error: csv::Error| TraceError::Export { name: name.to_owned(), what: error.to_string() };
    let mut out = csv::Writer::from_writer(out);
    out.write_record(COLUMNS).map_err(failed)?;
    let (mut rows, mut events, mut written) = (Rows::new(), Vec::new(), 0);
    while reader.next_block(&mut events)? {
        for event in &events {
            write(&mut out, &rows.row(event)).map_err(failed)?;
        }
        written += events.len() as u64;
    }
    out.flush().map_err(TraceError::io("write", name))?;
    Ok(written)
}

fn write(out: &mut csv::Writer<impl Write>, row: &Row) -> csv::Result<()> {
    let wide = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    let narrow = |value: Option<u32>| wide(value.map(u64::from));
    out.write_record([
        &row.event.to_string(),
        &narrow(row.thread),
        &narrow(row.process),
        row.kind,
        &wide(row.page),
        &wide(row.count),
        &wide(row.instructions),
        &wide(row.start),
        &wide(row.bytes),
        &narrow(row.prot),
        &wide(row.flags),
        &narrow(row.file),
        &wide(row.offset),
        row.detail.as_deref().unwrap_or_default(),
    ])
}
