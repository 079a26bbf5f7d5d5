//! The exports: every event is a row, and every field is in its cell.

mod events;

use std::io::Cursor;

use events::{CALLS, Chance, meta};
use vellum_trace::event::{Access, Call, Event, Kind};
use vellum_trace::export::{self, COLUMNS, Row, Rows};
use vellum_trace::{Notes, Reader, Writer};

fn events() -> Vec<Event> {
    let mut chance = Chance::new(21);
    let mut events: Vec<Event> =
        (0..CALLS).map(|which| Event::Call(Box::new(chance.call(which)))).collect();
    events.extend(chance.events(3_000));
    events
}

fn file(events: &[Event]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &meta()).expect("memory takes everything");
    for (number, event) in events.iter().enumerate() {
        writer.push(event).expect("memory takes everything");
        if number % 1_000 == 999 {
            writer.flush_block().expect("memory takes everything");
        }
    }
    writer.finish(Notes::default()).expect("memory takes everything");
    file
}

/// The rows as texts, empty where a cell means nothing.
fn cells(row: &Row) -> Vec<String> {
    let text = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    vec![
        row.event.to_string(),
        text(row.thread.map(u64::from)),
        text(row.process.map(u64::from)),
        row.kind.to_owned(),
        text(row.page),
        text(row.count),
        text(row.instructions),
        text(row.start),
        text(row.bytes),
        text(row.prot.map(u64::from)),
        text(row.flags),
        text(row.file.map(u64::from)),
        text(row.offset),
        row.detail.clone().unwrap_or_default(),
    ]
}

fn expected(events: &[Event]) -> Vec<Vec<String>> {
    let mut rows = Rows::new();
    events.iter().map(|event| cells(&rows.row(event))).collect()
}

#[test]
fn a_row_has_what_its_event_has() {
    let mut rows = Rows::new();
    rows.row(&Event::Call(Box::new(Call::Start { thread: 4, process: 2, pid: 9 })));
    rows.row(&Event::Call(Box::new(Call::Thread { thread: 4, child: 5 })));
    let access = Access { page: 77, thread: 5, count: 3, instructions: 8, kind: Kind::Store };
    let found = cells(&rows.row(&Event::Access(access)));
    assert_eq!(found, ["2", "5", "2", "store", "77", "3", "8", "", "", "", "", "", "", ""]);
    let map = Call::Map {
        thread: 4,
        start: 4096,
        bytes: 8192,
        prot: 1,
        flags: 2,
        file: Some(3),
        offset: 0,
    };
    let found = cells(&rows.row(&Event::Call(Box::new(map))));
    assert_eq!(found, ["3", "4", "2", "map", "", "", "", "4096", "8192", "1", "2", "3", "0", ""]);
}

#[test]
fn csv_rows_equal_the_events() {
    let events = events();
    let mut reader = Reader::new(Cursor::new(file(&events))).expect("a good file");
    let mut out = Vec::new();
    let rows = export::csv::export(&mut reader, &mut out, "a.csv").expect("memory is enough");
    assert_eq!(rows, events.len() as u64);
    let mut table = csv::Reader::from_reader(&out[..]);
    assert_eq!(table.headers().expect("a first line").iter().collect::<Vec<_>>(), COLUMNS);
    let found: Vec<Vec<String>> = table
        .records()
        .map(|record| record.expect("a record").iter().map(str::to_owned).collect())
        .collect();
    assert!(found == expected(&events));
}

#[cfg(feature = "parquet")]
mod parquet_file {
    use arrow_array::{Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
    use bytes::Bytes;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    fn cell(batch: &RecordBatch, column: usize, row: usize) -> String {
        let array = batch.column(column).as_any();
        if batch.column(column).is_null(row) {
            return String::new();
        }
        if let Some(array) = array.downcast_ref::<UInt64Array>() {
            return array.value(row).to_string();
        }
        if let Some(array) = array.downcast_ref::<UInt32Array>() {
            return array.value(row).to_string();
        }
        let array = array.downcast_ref::<StringArray>().expect("numbers or text");
        array.value(row).to_owned()
    }

    #[test]
    fn parquet_rows_equal_the_events() {
        let events = events();
        let mut reader = Reader::new(Cursor::new(file(&events))).expect("a good file");
        let mut out = Vec::new();
        let rows = export::parquet::export(&mut reader, &mut out, "a").expect("memory is enough");
        assert_eq!(rows, events.len() as u64);
        let table = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(out))
            .expect("a Parquet file")
            .build()
            .expect("a readable one");
        let mut found = Vec::new();
        for batch in table {
            let batch = batch.expect("a good row group");
            let names: Vec<_> =
                batch.schema().fields().iter().map(|field| field.name().clone()).collect();
            assert_eq!(names, COLUMNS);
            for row in 0..batch.num_rows() {
                found.push((0..COLUMNS.len()).map(|column| cell(&batch, column, row)).collect());
            }
        }
        let found: Vec<Vec<String>> = found;
        assert!(found == expected(&events));
    }
}
