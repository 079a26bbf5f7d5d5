//! The importers: what they read, what they refuse, and that no input hurts them.

mod events;

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use events::Chance;
use vellum_trace::check::Checker;
use vellum_trace::event::{Access, Area, Call, Event, Kind, Role};
use vellum_trace::import::{self, Format, Imported, Options};
use vellum_trace::{Place, Trace, TraceError};

const LACKEY: &[u8] = b"\
==4019== Lackey, an example Valgrind tool
==4019== Command: ls /
==4019==
I  0401aff0,3
 S 1fff000698,8
 S 1fff000ffc,8
I  0401aff3,5
 L 0401aff8,8
 M 1fff000698,4
I  0401affe,4
==4019==
==4019== Counted 1 call to main()
";

fn imported(
    format: Format,
    input: &[u8],
    options: &Options,
) -> Result<(Vec<Event>, Imported), TraceError> {
    let mut events = Vec::new();
    let imported = import::import(format, Cursor::new(input), options, &mut events)?;
    Checker::new().block(&events).expect("an importer makes sound traces");
    Ok((events, imported))
}

fn good(format: Format, input: &[u8]) -> (Vec<Event>, Imported) {
    imported(format, input, &Options::default()).expect("a good input")
}

/// The accesses as (kind, page, count, instructions).
fn accesses(events: &[Event]) -> Vec<(Kind, u64, u32, u32)> {
    let accesses = events.iter().filter_map(|event| match event {
        Event::Access(Access { page, count, instructions, kind, .. }) => {
            Some((*kind, *page, *count, *instructions))
        }
        Event::Call(_) => None,
    });
    accesses.collect()
}

fn areas(events: &[Event]) -> &[Area] {
    for event in events {
        if let Event::Call(call) = event
            && let Call::Exec { areas, .. } = &**call
        {
            return areas;
        }
    }
    panic!("no exec in {events:?}");
}

/// The `Tick` at the end, if any.
fn tick(events: &[Event]) -> Option<(u64, u64)> {
    events.iter().find_map(|event| match event {
        Event::Call(call) => match **call {
            Call::Tick { count, instructions, .. } => Some((count, instructions)),
            _ => None,
        },
        Event::Access(_) => None,
    })
}

#[test]
fn lackey_lines_become_accesses() {
    let (events, imported) = good(Format::Lackey, LACKEY);
    let (code, stack) = (0x401a, 0x01ff_f000);
    assert_eq!(
        accesses(&events),
        [
            (Kind::Fetch, code, 1, 1),
            (Kind::Store, stack, 1, 0),
            // The second store is on the same page, then on the next.
            (Kind::Store, stack + 1, 2, 0),
            (Kind::Fetch, code, 1, 1),
            (Kind::Load, code, 1, 0),
            (Kind::Load, stack, 1, 0),
            (Kind::Store, stack, 1, 0),
            (Kind::Fetch, code, 1, 1),
            (Kind::Fetch, code + 1, 1, 0),
        ]
    );
    assert_eq!(tick(&events), None);
    assert_eq!(imported.records, 7);
    let Event::Call(exec) = &events[1] else { panic!("{:?}", events[1]) };
    let Call::Exec { arguments, areas, .. } = &**exec else { panic!("{exec:?}") };
    assert_eq!(arguments, &["ls", "/"]);
    let shown: Vec<_> =
        areas.iter().map(|area| (area.page, area.pages, area.prot, area.role)).collect();
    assert_eq!(shown, [(code, 2, 5, Role::Program), (stack, 2, 3, Role::Stack)]);
    let Event::Call(start) = &events[0] else { panic!("{:?}", events[0]) };
    assert_eq!(**start, Call::Start { thread: 0, process: 0, pid: 4019 });
}

#[test]
fn lackey_without_fetches_still_counts_instructions() {
    let options = Options { fetches: false, ..Options::default() };
    let (events, _) = imported(Format::Lackey, LACKEY, &options).expect("a good input");
    let stack = 0x01ff_f000;
    assert_eq!(
        accesses(&events),
        [
            (Kind::Store, stack, 1, 1),
            (Kind::Store, stack + 1, 2, 0),
            (Kind::Load, 0x401a, 1, 1),
            (Kind::Load, stack, 1, 0),
            (Kind::Store, stack, 1, 0),
        ]
    );
    assert_eq!(tick(&events), Some((0, 1)), "the last instruction touches nothing");
}

#[test]
fn a_run_on_one_page_is_counted_by_what_follows() {
    let (events, _) = good(Format::Pages, b"1\n1\n1\n2\n2 w\n2 w\n");
    let base = 0x10000;
    assert_eq!(
        accesses(&events),
        [(Kind::Load, base + 1, 1, 0), (Kind::Load, base + 2, 3, 0), (Kind::Store, base + 2, 1, 0)]
    );
    assert_eq!(tick(&events), Some((1, 0)));
}

#[test]
fn an_error_names_line_and_expectation() {
    for bad in
        ["hello", "I 0401,3", "I  0401ag,3", " S 12,", " S ,4", " L 12345678901234567,8", " S 1,0"]
    {
        let text = format!("==1== x\nI  04001000,4\n{bad}\nI  04001000,4\n");
        let error = imported(Format::Lackey, text.as_bytes(), &Options::default());
        let error = error.expect_err(bad);
        let TraceError::Import { place, .. } = &error else { panic!("{error}") };
        assert_eq!(*place, Place::Line(3), "{bad}");
        assert!(error.to_string().contains("I  0401ab70,3"), "{error}");
    }
    for bad in ["x", "-1", "+1", "1 x", "1 r 2", "0x", "0xg", "1.5", "99999999999999999999"] {
        let text = format!("# a comment\n\n 5 \n{bad}\n");
        let error = imported(Format::Pages, text.as_bytes(), &Options::default());
        let TraceError::Import { place, .. } = error.expect_err(bad) else { panic!("{bad}") };
        assert_eq!(place, Place::Line(4), "{bad}");
    }
    let far = (1u64 << 35) - 0x10000;
    assert!(imported(Format::Pages, far.to_string().as_bytes(), &Options::default()).is_err());
    assert!(imported(Format::Pages, (far - 1).to_string().as_bytes(), &Options::default()).is_ok());
}

#[test]
fn an_endless_line_is_refused() {
    let long = vec![b'7'; 1 << 20];
    for format in [Format::Lackey, Format::Pages] {
        let error = imported(format, &long, &Options::default()).expect_err("no line");
        assert!(matches!(error, TraceError::Import { place: Place::Line(1), .. }), "{error}");
    }
}

#[test]
fn page_lists_take_comments_bases_and_hexadecimal() {
    let text = b"# Belady\n1\n0x2 w # two\n\n\t3 r\r\n0";
    let options = Options { page_base: 5, ..Options::default() };
    let (events, imported) = imported(Format::Pages, text, &options).expect("a good input");
    let pages: Vec<_> = accesses(&events).iter().map(|(kind, page, ..)| (*kind, *page)).collect();
    assert_eq!(pages, [(Kind::Load, 6), (Kind::Store, 7), (Kind::Load, 8), (Kind::Load, 5)]);
    assert_eq!((imported.records, &imported.warnings[..]), (4, &[][..]));
    let Event::Call(map) = &events[2] else { panic!("{:?}", events[2]) };
    let Call::Map { start, bytes, file: None, .. } = **map else { panic!("{map:?}") };
    assert_eq!((start, bytes), (5 << 12, 4 << 12));
}

fn oracle(requests: &[(u64, u32)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (object, size) in requests {
        out.extend(9u32.to_le_bytes());
        out.extend(object.to_le_bytes());
        out.extend(size.to_le_bytes());
        out.extend((-1i64).to_le_bytes());
    }
    out
}

#[test]
fn objects_are_numbered_by_appearance() {
    let mut input = oracle(&[(900, 1), (u64::MAX, 4096), (5, 0), (900, 7), (3, 1)]);
    let (events, imported) = good(Format::OracleGeneral, &input);
    let pages: Vec<u64> = accesses(&events).iter().map(|access| access.1 - 0x10000).collect();
    assert_eq!(pages, [0, 1, 0, 2]);
    assert!(imported.warnings.iter().any(|text| text.contains("1 requests of size 0")));
    input.truncate(input.len() - 1);
    let (events, imported) = good(Format::OracleGeneral, &input);
    assert_eq!(accesses(&events).len(), 3);
    assert!(imported.warnings[0].contains("byte 96 is cut"), "{:?}", imported.warnings);
}

fn champsim(cloudsuite: bool) -> Vec<u8> {
    let (bytes, written, read) = if cloudsuite { (96, 24, 56) } else { (64, 16, 32) };
    let mut out = vec![0u8; bytes * 2];
    for (record, ip) in [0x40_1ffc_u64, 0x40_2000].into_iter().enumerate() {
        let at = record * bytes;
        out[at..at + 8].copy_from_slice(&ip.to_le_bytes());
        out[at + 8] = 1;
    }
    out[written..written + 8].copy_from_slice(&0x7fff_0008_u64.to_le_bytes());
    out[read..read + 8].copy_from_slice(&0x50_0000_u64.to_le_bytes());
    let last = read + 24;
    out[last..last + 8].copy_from_slice(&0xffff_8000_0000_1000_u64.to_le_bytes());
    out
}

#[test]
fn an_instruction_is_fetched_then_reads_then_writes() {
    for cloudsuite in [false, true] {
        let options = Options { cloudsuite, ..Options::default() };
        let mut input = champsim(cloudsuite);
        input.extend([0; 10]);
        let (events, imported) =
            imported(Format::ChampSim, &input, &options).expect("a good input");
        assert_eq!(
            accesses(&events),
            [
                (Kind::Fetch, 0x401, 1, 1),
                (Kind::Load, 0x500, 1, 0),
                (Kind::Store, 0x7fff0, 1, 0),
                (Kind::Fetch, 0x402, 1, 1),
            ]
        );
        let all = imported.warnings.join("\n");
        assert!(all.contains("is cut") && all.contains("1 references beyond"), "{all}");
        assert_eq!(areas(&events).len(), 3);
    }
    let mut input = champsim(false);
    input[64 + 9] = 2;
    let error = imported(Format::ChampSim, &input, &Options::default()).expect_err("no flag");
    assert!(matches!(error, TraceError::Import { place: Place::Byte(72), .. }), "{error}");
}

/// Packs `bytes` by each method, and returns the names of the files.
fn packed(folder: &Path, bytes: &[u8]) -> Vec<std::path::PathBuf> {
    let zst = zstd::encode_all(bytes, 3).expect("memory is enough");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(bytes).expect("memory takes everything");
    let gz = gz.finish().expect("memory takes everything");
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(bytes).expect("memory takes everything");
    let xz = xz.finish().expect("memory takes everything");
    [("a", bytes.to_vec()), ("a.zst", zst), ("a.gz", gz), ("a.xz", xz)]
        .into_iter()
        .map(|(name, bytes)| {
            let path = folder.join(name);
            fs::write(&path, bytes).expect("room on the disk");
            path
        })
        .collect()
}

#[test]
fn compressed_inputs_are_the_same_inputs() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let out = folder.path().join("out.vtrace");
    let text: Vec<u8> =
        (0..20_000u32).flat_map(|i| format!("{}\n", i * i % 977).into_bytes()).collect();
    let mut traces = Vec::new();
    for path in packed(folder.path(), &text) {
        import::file(Format::Pages, &path, &Options::default(), &out).expect("a good input");
        assert_eq!(import::detect(&path).expect("a readable file"), Some(Format::Pages));
        let (trace, _) = Trace::open(&out).expect("a good trace");
        traces.push(trace.events);
        // And cut in the middle: its beginning, with a warning.
        let bytes = fs::read(&path).expect("a file");
        fs::write(&path, &bytes[..bytes.len() / 2]).expect("room on the disk");
        import::file(Format::Pages, &path, &Options::default(), &out).expect("a cut input");
        let (trace, warnings) = Trace::open(&out).expect("a good trace");
        assert!(trace.events.len() > 10 || path.extension().is_some());
        let cut = warnings.iter().any(|text| text.contains("compressed input is cut"));
        assert_eq!(cut, path.extension().is_some(), "{}", path.display());
    }
    assert!(traces.windows(2).all(|pair| pair[0] == pair[1]));
    // Neighbours have the same square modulo 977 if twice the lower one is 976: 20 times.
    assert_eq!(accesses(&traces[0]).len(), 20_000 - 20);
}

#[test]
fn a_failed_import_leaves_no_file() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (path, out) = (folder.path().join("a"), folder.path().join("out.vtrace"));
    fs::write(&path, "1\ntwo\n").expect("room on the disk");
    let error = import::file(Format::Pages, &path, &Options::default(), &out).expect_err("two");
    assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!("oracle-general".parse::<Format>().unwrap(), Format::OracleGeneral);
    assert!("csv".parse::<Format>().is_err());
}

#[test]
fn lackey_is_detected() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("log");
    for (text, expected) in [
        (LACKEY, Some(Format::Lackey)),
        (b" L 04001000,8\n", Some(Format::Lackey)),
        (b"1 r\n", Some(Format::Pages)),
        (b"\x00\x01", None),
        (b"", None),
    ] {
        fs::write(&path, text).expect("room on the disk");
        assert_eq!(import::detect(&path).expect("a readable file"), expected);
    }
}

#[test]
fn no_input_hurts_an_importer() {
    let mut chance = Chance::new(11);
    let oracle = oracle(&[(1, 1), (2, 2), (3, 0), (1, 1)]);
    let champsim = champsim(false);
    let inputs: [(Format, &[u8]); 4] = [
        (Format::Lackey, LACKEY),
        (Format::Pages, b"# c\n1\n0x2 w\n3 r\n12345678\n"),
        (Format::OracleGeneral, &oracle),
        (Format::ChampSim, &champsim),
    ];
    let mut refused = 0;
    for (format, input) in inputs {
        for _ in 0..1_500 {
            let mut bad = input.to_vec();
            for _ in 0..=chance.below(4) {
                let at = chance.below(bad.len() as u32) as usize;
                match chance.below(3) {
                    0 => bad[at] = chance.below(256) as u8,
                    1 => bad.insert(at, b"0 ,\nIx=#\xff"[chance.below(9) as usize]),
                    _ => bad.truncate(at.max(1)),
                }
            }
            refused += u32::from(imported(format, &bad, &Options::default()).is_err());
        }
    }
    assert!(refused > 1_000, "mutations are rarely harmless: {refused} refused");
}

#[test]
fn a_sink_that_refuses_stops_the_import() {
    let mut left = 3;
    let mut sink = |_: Event| {
        left -= 1;
        if left == 0 { Err(TraceError::Sink("enough".into())) } else { Ok(()) }
    };
    let error = import::import(Format::Lackey, LACKEY, &Options::default(), &mut sink);
    assert_eq!(error.expect_err("the sink refuses").to_string(), "enough");
    assert_eq!(left, 0, "nothing came after the refusal");
}
