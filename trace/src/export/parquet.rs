//! Exports to Apache Parquet, compressed by zstd. A row group takes the rows of eight full blocks.

use std::io::{Read, Seek, Write};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::error::TraceError;
use crate::export::{COLUMNS, Row, Rows};
use crate::format::BLOCK_EVENTS_MAX;
use crate::reader::Reader;

/// Rows of a row group: more compress better, and must be held at once.
const GROUP_ROWS: usize = 8 * BLOCK_EVENTS_MAX as usize;

/// Writes all events of `reader` to `out`; returns how many. Memory holds one row group.
///
/// Rows and their numbers begin with event 0: `reader` must be at its start.
///
/// # Errors
/// If the trace cannot be read or `out` cannot be written; `name` is what messages call it.
pub fn export<R: Read + Seek>(
    reader: &mut Reader<R>,
    out: impl Write + Send,
    name: &str,
) -> Result<u64, TraceError> {
    let failed =
        |error: ParquetError| TraceError::Export { name: name.to_owned(), what: error.to_string() };
    let level = ZstdLevel::try_new(3).map_err(failed)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_created_by(concat!("vellum ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let schema = Arc::new(schema());
    let mut out = ArrowWriter::try_new(out, schema.clone(), Some(properties)).map_err(failed)?;
    let (mut rows, mut events, mut written) = (Rows::new(), Vec::new(), 0);
    while reader.next_block(&mut events)? {
        let table: Vec<Row> = events.iter().map(|event| rows.row(event)).collect();
        let batch = RecordBatch::try_new(schema.clone(), columns(&table))
            .map_err(|error| failed(error.into()))?;
        out.write(&batch).map_err(failed)?;
        written += events.len() as u64;
    }
    out.close().map_err(failed)?;
    Ok(written)
}

/// The types of [`COLUMNS`].
fn schema() -> Schema {
    let fields = COLUMNS.map(|name| {
        let kind = match name {
            "kind" | "detail" => DataType::Utf8,
            "thread" | "process" | "prot" | "file" => DataType::UInt32,
            _ => DataType::UInt64,
        };
        Field::new(name, kind, !matches!(name, "event" | "kind"))
    });
    Schema::new(fields.to_vec())
}

/// The columns of these rows, in the order of [`COLUMNS`].
fn columns(rows: &[Row]) -> Vec<ArrayRef> {
    let wide = |field: fn(&Row) -> Option<u64>| -> ArrayRef {
        Arc::new(rows.iter().map(field).collect::<UInt64Array>())
    };
    let narrow = |field: fn(&Row) -> Option<u32>| -> ArrayRef {
        Arc::new(rows.iter().map(field).collect::<UInt32Array>())
    };
    vec![
        wide(|row| Some(row.event)),
        narrow(|row| row.thread),
        narrow(|row| row.process),
        Arc::new(rows.iter().map(|row| Some(row.kind)).collect::<StringArray>()),
        wide(|row| row.page),
        wide(|row| row.count),
        wide(|row| row.instructions),
        wide(|row| row.start),
        wide(|row| row.bytes),
        narrow(|row| row.prot),
        wide(|row| row.flags),
        narrow(|row| row.file),
        wide(|row| row.offset),
        Arc::new(rows.iter().map(|row| row.detail.as_deref()).collect::<StringArray>()),
    ]
}
