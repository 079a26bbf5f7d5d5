//! The format cannot change silently: a small file of every event is checked in.
//!
//! If this fails, old traces became unreadable or new ones different. Either undo that, or raise
//! `format::VERSION` and bless the new file with `VELLUM_BLESS=1 cargo test -p vellum-trace --test
//! golden`.

mod events;

use std::path::Path;
use std::{env, fs};

use events::{CALLS, Chance, meta};
use vellum_trace::event::Event;
use vellum_trace::{Notes, Trace, Writer};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden.vtrace");

fn events() -> Vec<Event> {
    let mut chance = Chance::new(31);
    let mut events = Vec::new();
    for which in 0..CALLS {
        events.push(Event::Call(Box::new(chance.call(which))));
        events.extend((0..20).map(|_| Event::Access(chance.access())));
    }
    events
}

fn bytes() -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &meta()).expect("memory takes everything");
    for event in events() {
        writer.push(&event).expect("memory takes everything");
        if writer.events().is_multiple_of(200) {
            writer.flush_block().expect("memory takes everything");
        }
    }
    writer.finish(Notes::default()).expect("memory takes everything");
    file
}

#[test]
fn the_golden_file_is_read_as_it_was_written() {
    if env::var_os("VELLUM_BLESS").is_some() {
        fs::write(GOLDEN, bytes()).expect("the tests are writable");
    }
    let (trace, warnings) = Trace::open(Path::new(GOLDEN)).expect("a checked-in trace");
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(trace.meta, meta());
    assert_eq!(trace.events, events());
    assert_eq!(trace, Trace::new(meta(), events(), Notes::default()));
}

#[test]
fn the_golden_file_is_what_is_written_today() {
    if env::var_os("VELLUM_BLESS").is_some() {
        return; // the other test is writing it
    }
    // The payloads are zstd's, whose next release may pack the same bytes otherwise. Then only this
    // test fails: bless it, the version stays.
    assert!(bytes() == fs::read(GOLDEN).expect("a checked-in trace"));
}
