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
    use bytes::Bytes;
    use parquet::file::metadata::RowGroupMetaData;
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::{Field, RowAccessor};
    use parquet::schema::parser::parse_message_type;

    use super::*;

    const SCHEMA: &str = "message events {
        REQUIRED INT64 event (INTEGER(64, false));
        OPTIONAL INT32 thread (INTEGER(32, false));
        OPTIONAL INT32 process (INTEGER(32, false));
        REQUIRED BYTE_ARRAY kind (STRING);
        OPTIONAL INT64 page (INTEGER(64, false));
        OPTIONAL INT64 count (INTEGER(64, false));
        OPTIONAL INT64 instructions (INTEGER(64, false));
        OPTIONAL INT64 start (INTEGER(64, false));
        OPTIONAL INT64 bytes (INTEGER(64, false));
        OPTIONAL INT32 prot (INTEGER(32, false));
        OPTIONAL INT64 flags (INTEGER(64, false));
        OPTIONAL INT32 file (INTEGER(32, false));
        OPTIONAL INT64 offset (INTEGER(64, false));
        OPTIONAL BYTE_ARRAY detail (STRING);
    }";

    /// Exports `events`; returns a reader of the table.
    fn table(events: &[Event]) -> SerializedFileReader<Bytes> {
        let mut reader = Reader::new(Cursor::new(file(events))).expect("a good file");
        let mut out = Vec::new();
        let rows = export::parquet::export(&mut reader, &mut out, "a").expect("memory is enough");
        assert_eq!(rows, events.len() as u64);
        SerializedFileReader::new(Bytes::from(out)).expect("a Parquet file")
    }

    /// The row with the types of the table, null where a cell means nothing.
    fn fields(row: Row) -> Vec<Field> {
        let wide = |value: Option<u64>| value.map_or(Field::Null, Field::ULong);
        let narrow = |value: Option<u32>| value.map_or(Field::Null, Field::UInt);
        vec![
            Field::ULong(row.event),
            narrow(row.thread),
            narrow(row.process),
            Field::Str(row.kind.to_owned()),
            wide(row.page),
            wide(row.count),
            wide(row.instructions),
            wide(row.start),
            wide(row.bytes),
            narrow(row.prot),
            wide(row.flags),
            narrow(row.file),
            wide(row.offset),
            row.detail.map_or(Field::Null, Field::Str),
        ]
    }

    #[test]
    fn parquet_columns_have_their_names_and_types() {
        let table = table(&events());
        let schema = parse_message_type(SCHEMA).expect("a good schema");
        assert_eq!(table.metadata().file_metadata().schema(), &schema);
        let names: Vec<_> = schema.get_fields().iter().map(|field| field.name()).collect();
        assert_eq!(names, COLUMNS);
    }

    #[test]
    fn parquet_rows_equal_the_events() {
        let events = events();
        let mut rows = Rows::new();
        let mut found = 0;
        for row in table(&events).get_row_iter(None).expect("a readable table") {
            let row = row.expect("a good row group");
            let row: Vec<Field> = row.into_columns().into_iter().map(|(_, field)| field).collect();
            assert_eq!(row, fields(rows.row(&events[found])), "row {found}");
            found += 1;
        }
        assert_eq!(found, events.len());
    }

    #[test]
    fn an_empty_trace_is_a_table_without_rows() {
        let table = table(&[]);
        assert_eq!(table.metadata().num_row_groups(), 0);
        assert_eq!(table.get_row_iter(None).expect("a readable table").count(), 0);
    }

    #[test]
    fn a_row_group_ends_with_the_block_that_fills_it() {
        let access = Access { page: 77, thread: 5, count: 3, instructions: 8, kind: Kind::Store };
        let table = table(&vec![Event::Access(access); 530_000]);
        let rows = table.metadata().row_groups().iter().map(RowGroupMetaData::num_rows);
        assert_eq!(rows.collect::<Vec<_>>(), [525_000, 5_000]);
        let group = table.get_row_group(1).expect("it was counted");
        let first = group.get_row_iter(None).expect("a readable group").next();
        let first = first.expect("5,000 rows").expect("a good row");
        assert_eq!(first.get_ulong(0).expect("a number"), 525_000);
    }
}
