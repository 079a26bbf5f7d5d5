//! Exports to Apache Parquet, compressed by zstd. A row group takes the rows of eight full blocks.
//!
//! The columns of a row group follow each other in the file, but events come row by row. So each
//! column is encoded into a buffer of its own, a batch of rows at a time, and a full group is the
//! buffers one after the other.

use std::io::{Read, Seek, Write};
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::column::writer::{
    ColumnCloseResult, ColumnWriter, get_column_writer, get_typed_column_writer_mut,
};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedPageWriter, TrackedWrite};
use parquet::schema::types::{ColumnDescPtr, Type};

use crate::error::TraceError;
use crate::export::{COLUMNS, Row, Rows};
use crate::format::BLOCK_EVENTS_MAX;
use crate::reader::Reader;

/// Rows of a row group: more compress better, and must be held at once, encoded. A group ends with
/// the block that fills it.
const GROUP_ROWS: usize = 8 * BLOCK_EVENTS_MAX as usize;

/// Rows that pass through all columns together, so few that they stay in the processor's cache.
const BATCH_ROWS: usize = 1 << 10;

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
    let mut out = open(out).map_err(failed)?;
    let (mut rows, mut events, mut written) = (Rows::new(), Vec::new(), 0);
    let mut more = reader.next_block(&mut events)?;
    while more {
        let mut buffers = CELLS.map(|_| TrackedWrite::new(Vec::new()));
        let mut columns = columns(&out, &mut buffers);
        let mut group_rows = 0;
        while more && group_rows < GROUP_ROWS {
            for events in events.chunks(BATCH_ROWS) {
                let batch: Vec<Row> = events.iter().map(|event| rows.row(event)).collect();
                write(&mut columns, &batch).map_err(failed)?;
            }
            group_rows += events.len();
            more = reader.next_block(&mut events)?;
        }
        let closed: Result<_, _> = columns.into_iter().map(ColumnWriter::close).collect();
        append(&mut out, buffers, closed.map_err(failed)?).map_err(failed)?;
        written += group_rows as u64;
    }
    out.close().map_err(failed)?;
    Ok(written)
}

/// Begins a file.
fn open<W: Write + Send>(out: W) -> Result<SerializedFileWriter<W>, ParquetError> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_created_by(concat!("vellum ", env!("CARGO_PKG_VERSION")).to_owned())
        // Traces are read as a whole, so no page needs to be short, and long ones compress better.
        .set_data_page_row_count_limit(BLOCK_EVENTS_MAX as usize)
        // No number comes twice, so a dictionary would be in vain; but every difference is 1.
        .set_column_dictionary_enabled("event".into(), false)
        .set_column_encoding("event".into(), Encoding::DELTA_BINARY_PACKED)
        .build();
    SerializedFileWriter::new(out, Arc::new(schema()?), Arc::new(properties))
}

/// The types of [`COLUMNS`].
fn schema() -> Result<Type, ParquetError> {
    let unsigned = |bits| LogicalType::integer(bits, false);
    let mut fields = Vec::new();
    for (name, cell) in COLUMNS.into_iter().zip(CELLS) {
        let (physical, logical) = match cell {
            Cell::Wide(_) => (Physical::INT64, unsigned(64)),
            Cell::Narrow(_) => (Physical::INT32, unsigned(32)),
            Cell::Text(_) => (Physical::BYTE_ARRAY, LogicalType::String),
        };
        let repetition = match name {
            "event" | "kind" => Repetition::REQUIRED,
            _ => Repetition::OPTIONAL,
        };
        let field = Type::primitive_type_builder(name, physical)
            .with_logical_type(Some(logical))
            .with_repetition(repetition)
            .build()?;
        fields.push(Arc::new(field));
    }
    Type::group_type_builder("events").with_fields(fields).build()
}

/// What a column shows of a row, and of which type it is.
enum Cell {
    Wide(fn(&Row) -> Option<u64>),
    Narrow(fn(&Row) -> Option<u32>),
    Text(fn(&Row) -> Option<ByteArray>),
}

/// The cells of [`COLUMNS`].
const CELLS: [Cell; COLUMNS.len()] = [
    Cell::Wide(|row| Some(row.event)),
    Cell::Narrow(|row| row.thread),
    Cell::Narrow(|row| row.process),
    // Every row has a kind, so its text is not copied.
    Cell::Text(|row| Some(Bytes::from_static(row.kind.as_bytes()).into())),
    Cell::Wide(|row| row.page),
    Cell::Wide(|row| row.count),
    Cell::Wide(|row| row.instructions),
    Cell::Wide(|row| row.start),
    Cell::Wide(|row| row.bytes),
    Cell::Narrow(|row| row.prot),
    Cell::Wide(|row| row.flags),
    Cell::Narrow(|row| row.file),
    Cell::Wide(|row| row.offset),
    Cell::Text(|row| row.detail.as_deref().map(ByteArray::from)),
];

/// Begins the columns of a row group of `out`, each in its buffer.
fn columns<'a>(
    out: &SerializedFileWriter<impl Write + Send>,
    buffers: &'a mut [TrackedWrite<Vec<u8>>],
) -> Vec<ColumnWriter<'a>> {
    let begin = |(column, buffer): (&ColumnDescPtr, _)| {
        let pages = Box::new(SerializedPageWriter::new(buffer));
        get_column_writer(column.clone(), out.properties().clone(), pages)
    };
    out.schema_descr().columns().iter().zip(buffers).map(begin).collect()
}

/// Writes every cell of `rows` to its column.
fn write(columns: &mut [ColumnWriter], rows: &[Row]) -> Result<(), ParquetError> {
    for (column, cell) in columns.iter_mut().zip(CELLS) {
        match cell {
            Cell::Wide(cell) => {
                fill::<Int64Type>(column, rows, |row| cell(row).map(u64::cast_signed))?;
            }
            Cell::Narrow(cell) => {
                fill::<Int32Type>(column, rows, |row| cell(row).map(u32::cast_signed))?;
            }
            Cell::Text(cell) => fill::<ByteArrayType>(column, rows, cell)?,
        }
    }
    Ok(())
}

/// Writes a cell of each of `rows` to `column`. A null has level 0 and no value, all else level 1.
fn fill<T: DataType>(
    column: &mut ColumnWriter,
    rows: &[Row],
    cell: impl Fn(&Row) -> Option<T::T>,
) -> Result<(), ParquetError> {
    let mut values = Vec::with_capacity(rows.len());
    let mut levels = Vec::with_capacity(rows.len());
    for row in rows {
        let value = cell(row);
        levels.push(i16::from(value.is_some()));
        values.extend(value);
    }
    get_typed_column_writer_mut::<T>(column).write_batch(&values, Some(&levels), None)?;
    Ok(())
}

/// Appends a row group, whose columns are in `buffers` and described by `closed`.
fn append(
    out: &mut SerializedFileWriter<impl Write + Send>,
    buffers: [TrackedWrite<Vec<u8>>; COLUMNS.len()],
    closed: Vec<ColumnCloseResult>,
) -> Result<(), ParquetError> {
    let mut group = out.next_row_group()?;
    for (buffer, closed) in buffers.into_iter().zip(closed) {
        group.append_column(&Bytes::from(buffer.into_inner()?), closed)?;
    }
    group.close()?;
    Ok(())
}
