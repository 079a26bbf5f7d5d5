//! The format: what is written is read, and what is not a trace never hurts.

mod events;

use std::io::Cursor;

use events::{CALLS, Chance, meta};
use vellum_trace::event::{Access, Call, Event, Kind, Meta};
use vellum_trace::format::{BLOCK_EVENTS_MAX, BLOCK_RAW_MAX};
use vellum_trace::{Block, BlockDecoder, Notes, Reader, Trace, TraceError, Writer};

/// The bytes of a trace; a block is closed after every `block` events.
fn written(events: &[Event], block: usize) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &meta()).expect("memory takes everything");
    for events in events.chunks(block) {
        for event in events {
            writer.push(event).expect("memory takes everything");
        }
        writer.flush_block().expect("memory takes everything");
    }
    let warnings = vec!["a warning".to_owned()];
    writer.finish(Notes { warnings, ..Notes::default() }).expect("memory takes everything");
    file
}

fn read(file: &[u8]) -> Result<Vec<Event>, TraceError> {
    Reader::new(Cursor::new(file))?.events().collect()
}

/// The events that a reader yields before it fails, and how it fails.
fn read_until(file: &[u8]) -> (Vec<Event>, Option<TraceError>) {
    let mut reader = match Reader::new(Cursor::new(file)) {
        Ok(reader) => reader,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let (mut all, mut events) = (Vec::new(), Vec::new());
    loop {
        match reader.next_block(&mut events) {
            Ok(true) => all.append(&mut events),
            Ok(false) => return (all, None),
            Err(error) => return (all, Some(error)),
        }
    }
}

fn access(page: u64) -> Event {
    Event::Access(Access { page, thread: 0, count: 1, instructions: 0, kind: Kind::Load })
}

#[test]
fn an_event_takes_24_bytes_of_memory() {
    assert_eq!(size_of::<Event>(), 24);
}

#[test]
fn every_event_comes_back() {
    let mut chance = Chance::new(1);
    for which in 0..CALLS {
        let events: Vec<Event> =
            (0..200).map(|_| Event::Call(Box::new(chance.call(which)))).collect();
        assert_eq!(read(&written(&events, 64)).expect("a good file"), events, "call {which}");
    }
    let events = chance.events(200_000);
    assert_eq!(read(&written(&events, usize::MAX)).expect("a good file"), events);
    assert_eq!(read(&written(&events[..999], 1)).expect("a good file"), events[..999]);
    assert_eq!(read(&written(&[], 1)).expect("a good file"), []);
}

#[test]
fn more_threads_than_tags_come_back() {
    let events: Vec<Event> = (0..100_000u32)
        .map(|i| {
            let (page, thread) = (u64::from(i / 3), i.wrapping_mul(77) % 200);
            let kind = Kind::Store;
            Event::Access(Access { page, thread, count: 1, instructions: i, kind })
        })
        .collect();
    assert_eq!(read(&written(&events, usize::MAX)).expect("a good file"), events);
}

#[test]
fn metadata_and_summary_come_back() {
    let file = written(&[access(1)], 1);
    let reader = Reader::new(Cursor::new(&file)).expect("a good file");
    assert_eq!(reader.meta(), &meta());
    assert_eq!(reader.warnings(), ["a warning"]);
    let summary = reader.summary().expect("a whole file");
    assert_eq!((summary.events, summary.references, summary.pages), (1, 1, 1));
}

#[test]
fn every_block_decodes_alone() {
    let all = Chance::new(2).events(5_000);
    let file = written(&all, 700);
    let mut reader = Reader::new(Cursor::new(&file)).expect("a good file");
    let mut blocks = Vec::new();
    let mut block = Block::new();
    while reader.next_packed(&mut block).expect("a good file") {
        blocks.push(block.clone());
    }
    assert_eq!(blocks.len(), 8);
    // Backwards, so that no block profits from the one before it.
    for block in blocks.iter().rev() {
        let mut events = Vec::new();
        BlockDecoder::new().unwrap().decode(block, &mut events).expect("a good block");
        let first = block.event_first() as usize;
        assert_eq!(events, all[first..first + block.events() as usize]);
    }
}

#[test]
fn any_event_can_be_sought() {
    let all = Chance::new(3).events(3_000);
    let file = written(&all, 400);
    let cut = &file[..file.len() - 1];
    for file in [&file[..], cut] {
        let mut reader = Reader::new(Cursor::new(file)).expect("its start is good");
        reader.make_lenient();
        for number in [0, 1, 399, 400, 401, 2_999, 1_234, 800, 3_000, 7] {
            reader.seek_event(number).expect("an event");
            assert_eq!(reader.position(), number);
            let first = reader.events().next().map(|event| event.expect("a good file"));
            assert_eq!(first.as_ref(), all.get(number as usize), "event {number}");
        }
        let error = reader.seek_event(3_001).expect_err("there is none");
        assert!(matches!(error, TraceError::NoEvent { event: 3_001, events: 3_000, .. }));
    }
}

#[test]
fn a_writer_closes_full_blocks() {
    let count = BLOCK_EVENTS_MAX as usize * 2 + 1;
    let all: Vec<Event> = (0..count as u64).map(access).collect();
    let file = written(&all, usize::MAX);
    let mut reader = Reader::new(Cursor::new(&file)).expect("a good file");
    let (mut events, mut sizes) = (Vec::new(), Vec::new());
    while reader.next_block(&mut events).expect("a good file") {
        sizes.push(events.len());
    }
    assert_eq!(sizes, [65_536, 65_536, 1]);
}

#[test]
fn a_call_as_large_as_a_block_is_written_and_a_larger_one_refused() {
    let mark = |bytes| {
        let text = "x".repeat(bytes);
        Event::Call(Box::new(Call::Mark { thread: 0, text }))
    };
    let largest = BLOCK_RAW_MAX as usize - 7; // tags, thread, length
    let all = [access(1), mark(largest), access(2)];
    assert_eq!(read(&written(&all, usize::MAX)).expect("a good file"), all);
    let mut writer = Writer::new(Vec::new(), &Meta::default()).expect("memory takes everything");
    let error = writer.push(&mark(largest + 1)).expect_err("too large");
    assert!(matches!(error, TraceError::TooLarge { .. }), "{error}");
    writer.push(&access(1)).expect("a refused event changes nothing");
}

#[test]
fn a_file_cut_anywhere_yields_the_blocks_before_the_cut() {
    let all = Chance::new(4).events(60);
    let file = written(&all, 7);
    let mut longest = 0;
    for length in 0..file.len() {
        let (events, error) = read_until(&file[..length]);
        let error = error.unwrap_or_else(|| panic!("cut at {length}, and nobody noticed"));
        assert_eq!(events, all[..events.len()], "cut at {length}");
        assert!(events.len() >= longest, "a longer file has fewer events");
        longest = events.len();
        let at = match &error {
            TraceError::Cut { offset, events: before, .. }
            | TraceError::Damaged { offset, events: before, .. } => {
                assert_eq!(*before as usize, events.len());
                *offset
            }
            TraceError::NotATrace { .. } if length == 0 => continue,
            other => panic!("cut at {length}: {other}"),
        };
        assert!(at <= length as u64 && error.to_string().contains(&at.to_string()));
        if let Ok(reader) = Reader::new(Cursor::new(&file[..length])) {
            let (trace, warnings) = Trace::read(reader).expect("memory can be read");
            assert_eq!(trace.events, events);
            assert!(warnings.iter().any(|text| text.contains(&at.to_string())), "{warnings:?}");
            assert!(trace.summary.interrupted && trace.summary.events == events.len() as u64);
        }
    }
    assert_eq!(longest, all.len(), "only the footer was missing");
}

#[test]
fn every_changed_byte_is_noticed() {
    let all = Chance::new(5).events(40);
    let file = written(&all, 9);
    for at in 0..file.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut bad = file.clone();
            bad[at] ^= change;
            let (events, error) = read_until(&bad);
            // A changed tail is known once the blocks are read; all else before.
            let noticed = error.is_some();
            assert!(noticed, "byte {at} changed by {change:#x}, and nobody noticed");
            assert_eq!(events, all[..events.len()], "byte {at}");
        }
    }
}

#[test]
fn many_changed_bytes_never_hurt() {
    let mut chance = Chance::new(6);
    let file = written(&chance.events(300), 50);
    for _ in 0..3_000 {
        let mut bad = file.clone();
        for _ in 0..=chance.below(8) {
            let at = chance.below(bad.len() as u32) as usize;
            bad[at] = chance.below(256) as u8;
        }
        if chance.below(3) == 0 {
            bad.truncate(chance.below(bad.len() as u32) as usize);
        }
        let _ = read_until(&bad);
        if let Ok(mut reader) = Reader::new(Cursor::new(&bad)) {
            let _ = reader.seek_event(u64::from(chance.below(400)));
            let _ = reader.events().count();
        }
    }
}

/// A file of one block whose payload is `raw`, with every checksum right.
fn forged(raw: &[u8], raw_bytes: u32, events: u32) -> Vec<u8> {
    let mut file = Vec::new();
    Writer::new(&mut file, &meta()).expect("memory takes everything");
    let packed = zstd::bulk::compress(raw, 3).expect("memory is enough");
    let mut header = Vec::from(*b"VBLK");
    header.extend(raw_bytes.to_le_bytes());
    header.extend((packed.len() as u32).to_le_bytes());
    header.extend(events.to_le_bytes());
    header.extend(0u64.to_le_bytes());
    header.extend(crc32fast::hash(&packed).to_le_bytes());
    header.extend(crc32fast::hash(&header).to_le_bytes());
    file.extend(header);
    file.extend(packed);
    file
}

fn damage(file: &[u8]) -> String {
    match read_until(file) {
        (events, Some(TraceError::Damaged { what, .. })) if events.is_empty() => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn forged_blocks_are_refused() {
    let access = [194, 2, 5, 0x00]; // a thread nobody named
    let thread = [193, 0];
    let good = [&thread[..], &[0x10, 4]].concat(); // thread 0 loads page 2
    let (events, error) = read_until(&forged(&good, 4, 1));
    assert_eq!(events.len(), 1);
    assert!(matches!(error, Some(TraceError::Cut { .. })), "only the end is missing");

    assert!(damage(&forged(&good, 3, 1)).contains("decompress"));
    assert!(damage(&forged(&good, 5, 1)).contains("another size"));
    assert!(damage(&forged(&good, BLOCK_RAW_MAX + 1, 1)).contains("out of bounds"));
    assert!(damage(&forged(&good, 4, 0)).contains("out of bounds"));
    assert!(damage(&forged(&good, 4, 5)).contains("out of bounds"));
    assert!(damage(&forged(&good, 4, 2)).contains("differ in length"));
    assert!(damage(&forged(&access, 4, 1)).contains("before its number"));
    assert!(damage(&forged(&[0x10, 4], 2, 1)).contains("before its thread"));
    assert!(damage(&forged(&[192, 23, 0], 3, 1)).contains("unknown kind"));
    assert!(damage(&forged(&[192, 27, 0], 3, 1)).contains("unknown kind"));
    // A mark whose text claims 2^60 bytes.
    let long = [&[192, 26, 0][..], &[0x80; 8], &[0x10]].concat();
    assert!(damage(&forged(&long, long.len() as u32, 1)).contains("longer than its block"));
    // More events than the payload has: zero bytes beyond its end would be accesses.
    let short = [&thread[..], &[0x00, 0, 0x10]].concat();
    assert!(damage(&forged(&short, 5, 2)).contains("differ in length"));
}

#[test]
fn what_claims_to_be_large_takes_no_memory() {
    // One MiB of zeros claims, rightly, to be 8 MiB; the block still holds no event.
    let raw = vec![192; BLOCK_RAW_MAX as usize];
    assert!(damage(&forged(&raw, BLOCK_RAW_MAX, 1)).contains("unknown kind"));
    let mut header = Vec::from(*b"VTRACE\n\0");
    header.extend(1u32.to_le_bytes());
    header.extend((16u32 << 20).to_le_bytes());
    header.extend(0u32.to_le_bytes());
    header.extend(crc32fast::hash(&header).to_le_bytes());
    let (_, error) = read_until(&header);
    assert!(matches!(error, Some(TraceError::Cut { offset: 24, .. })), "{error:?}");
    header[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let crc = crc32fast::hash(&header[..20]);
    header[20..24].copy_from_slice(&crc.to_le_bytes());
    let (_, error) = read_until(&header);
    assert!(matches!(error, Some(TraceError::Damaged { offset: 0, .. })), "{error:?}");
}

#[test]
fn other_files_and_other_versions_are_named_as_such() {
    let (_, error) = read_until(b"==4019== Lackey, an example Valgrind tool\n");
    assert!(matches!(error, Some(TraceError::NotATrace { .. })));
    let mut file = written(&[], 1);
    file[8] = 2;
    let crc = crc32fast::hash(&file[..20]);
    file[20..24].copy_from_slice(&crc.to_le_bytes());
    let (_, error) = read_until(&file);
    assert!(matches!(error, Some(TraceError::Version { found: 2, known: 1, .. })), "{error:?}");
}

#[test]
fn a_device_or_a_link_is_not_replaced() {
    let directory = tempfile::tempdir().expect("a directory");
    let (file, link) = (directory.path().join("file"), directory.path().join("link"));
    std::fs::write(&file, "kept").expect("room");
    std::os::unix::fs::symlink(&file, &link).expect("a link");
    for path in [link.as_path(), directory.path()] {
        let Err(error) = Writer::create(path, &meta()) else { panic!("{path:?} was replaced") };
        assert!(error.to_string().contains("it is not a regular file"), "{error}");
    }
    assert_eq!(std::fs::read(&file).expect("it is there"), b"kept");
}

#[test]
fn a_file_gets_its_name_when_it_is_complete() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("a.vtrace");
    let part = folder.path().join("a.vtrace.part");
    let mut writer = Writer::create(&path, &meta()).expect("a new file");
    writer.push(&access(1)).expect("room on the disk");
    assert!(part.exists() && !path.exists());
    writer.finish(Notes::default()).expect("room on the disk");
    assert!(!part.exists() && path.exists());
    let (trace, warnings) = Trace::open(&path).expect("a good file");
    assert_eq!((trace.events, warnings), (vec![access(1)], vec![]));

    let writer = Writer::create(&path, &meta()).expect("a new file");
    writer.abandon();
    assert!(!part.exists(), "an abandoned trace leaves nothing");
    let mut writer = Writer::create(&path, &meta()).expect("a new file");
    writer.push(&access(2)).expect("room on the disk");
    writer.flush_block().expect("room on the disk");
    drop(writer);
    let (trace, warnings) = Trace::open(&part).expect("its start is good");
    assert_eq!(trace.events, [access(2)]);
    assert!(warnings[0].contains("cut at byte"), "{warnings:?}");
    let text = Reader::open(&part).unwrap().next_block(&mut Vec::new());
    assert!(text.is_ok(), "a strict reader reads what is there too");
}

#[test]
fn an_error_stays_until_the_reader_moves_away() {
    let all = Chance::new(8).events(30);
    let mut file = written(&all, 10);
    let mut reader = Reader::new(Cursor::new(&file)).expect("a good file");
    let mut block = Block::new();
    reader.next_packed(&mut block).expect("a good block");
    reader.next_packed(&mut block).expect("a good block");
    let middle = block.offset() as usize + 40;
    file[middle] ^= 1;
    let mut reader = Reader::new(Cursor::new(&file)).expect("a good start");
    let mut events = Vec::new();
    assert!(reader.next_block(&mut events).expect("the first block is good"));
    for _ in 0..2 {
        let error = reader.next_block(&mut events).expect_err("the second is not");
        assert!(matches!(error, TraceError::Damaged { events: 10, .. }), "{error}");
    }
    reader.seek_event(25).expect("the index leads beyond the damage");
    assert!(reader.next_block(&mut events).expect("the third block is good"));
    assert_eq!(events, all[25..]);
}
