//! The summary that a writer computes, and the checks that protect who believes a trace.

use vellum_trace::check::{Checked, Checker, IDS_AHEAD_MAX, PAGES_MAX};
use vellum_trace::event::{Access, Area, Call, Event, Exit, File, Kind, Meta, Role, Summary};
use vellum_trace::{Notes, Trace, TraceError};

fn call(call: Call) -> Event {
    Event::Call(Box::new(call))
}

fn access(thread: u32, page: u64, count: u32, kind: Kind) -> Event {
    Event::Access(Access { page, thread, count, instructions: 3, kind })
}

fn start() -> Event {
    call(Call::Start { thread: 0, process: 0, pid: 100 })
}

fn exec(thread: u32, process: u32, argument: &str, areas: Vec<Area>) -> Event {
    call(Call::Exec {
        thread,
        process,
        path: "/bin/x".to_owned(),
        arguments: vec!["x".to_owned(), argument.to_owned()],
        brk: 0,
        areas,
        touched: vec![9],
    })
}

fn area(page: u64, pages: u64, file: Option<(u32, u64)>) -> Area {
    Area { page, pages, prot: 3, shared: false, file, role: Role::Other }
}

fn file(id: u32) -> Event {
    call(Call::File(File { id, path: format!("/f{id}"), bytes: 5, memory: false }))
}

fn fork(thread: u32, process: u32, child: u32) -> Event {
    call(Call::Fork { thread, process, child, pid: process.wrapping_add(100), flags: 0 })
}

fn summary(events: Vec<Event>, notes: Notes) -> Summary {
    Trace::new(Meta::default(), events, notes).summary
}

#[test]
fn a_summary_counts_what_went_by() {
    let events = vec![
        start(),
        exec(0, 0, "one", vec![]), // touches page 9
        access(0, 9, 1, Kind::Load),
        access(0, 10, 5, Kind::Store), // four more loads of page 9, then this store
        fork(0, 1, 1),
        access(1, 10, 1, Kind::Fetch), // page 10 of another process
        exec(1, 1, "two", vec![]),
        call(Call::Touch { thread: 1, page: 8, pages: 3, write: true }), // 8, 9 and 10
        call(Call::Thread { thread: 1, child: 2 }),
        access(2, 77, 1, Kind::Fetch),
        file(1),
        file(0),
        call(Call::Tick { thread: 0, count: 7, instructions: 70 }), // of stores: its last kind
        call(Call::Exit { thread: 1, process: 1, exit: Exit::Signal(9) }),
    ];
    let found = summary(events, Notes::default());
    assert_eq!((found.loads, found.stores, found.fetches), (5, 8, 2));
    assert_eq!((found.references, found.instructions, found.events), (15, 82, 14));
    assert_eq!(found.pages, 2 + 4, "9 and 10 of the first; 8, 9, 10 and 77 of the second");
    assert_eq!(found.threads, 3);
    assert_eq!(found.files.iter().map(|file| file.id).collect::<Vec<_>>(), [0, 1]);
    let [first, second] = &found.processes[..] else { panic!("{:?}", found.processes) };
    assert_eq!((&first.command[..], first.parent, first.exit), ("x one", None, Exit::Unknown));
    assert_eq!((&second.command[..], second.pid), ("x two", 101));
    assert_eq!((second.parent, second.exit), (Some(0), Exit::Signal(9)));
}

#[test]
fn a_fork_has_its_parents_command() {
    let events = vec![start(), exec(0, 0, "one", vec![]), fork(0, 1, 1)];
    assert_eq!(summary(events, Notes::default()).processes[1].command, "x one");
}

#[test]
fn what_the_recorder_counted_is_believed() {
    let notes = Notes {
        loads: Some(11),
        warnings: vec!["w".to_owned()],
        interrupted: true,
        ..Notes::default()
    };
    let found = summary(vec![start(), access(0, 1, 4, Kind::Store)], notes);
    assert_eq!((found.loads, found.stores), (11, 4));
    assert_eq!((&found.warnings[..], found.interrupted), (&["w".to_owned()][..], true));
}

/// What a checker says about the last of these events; the others must pass.
fn verdict(events: &[Event]) -> Result<(), String> {
    let mut checker = Checker::new();
    let (last, before) = events.split_last().expect("at least one event");
    checker.block(before).expect("only the last event is bad");
    checker.event(last).map_err(|error| match error {
        TraceError::Impossible { event, what } => {
            assert_eq!(event, before.len() as u64);
            what
        }
        other => panic!("{other}"),
    })
}

fn refused(events: &[Event], why: &str) {
    let what = verdict(events).expect_err(why);
    assert!(what.contains(why), "`{what}` does not say `{why}`");
}

#[test]
fn an_identifier_begins_before_it_is_used() {
    refused(&[access(0, 1, 1, Kind::Load)], "thread 0 has not begun");
    refused(&[start(), access(1, 1, 1, Kind::Load)], "thread 1 has not begun");
    refused(&[start(), access(u32::MAX, 1, 1, Kind::Load)], "has not begun");
    refused(&[start(), start()], "process 0 begins twice");
    refused(&[start(), fork(0, 1, 0)], "thread 0 begins twice");
    refused(&[start(), fork(5, 1, 1)], "thread 5 has not begun");
    refused(&[start(), fork(0, u32::MAX, 1)], "no identifier");
    refused(&[start(), call(Call::Reap { thread: 0, process: 3 })], "process 3");
    refused(&[start(), exec(0, 1, "", vec![])], "belongs to process 0");
    refused(&[start(), file(2), file(2)], "file 2 begins twice");
    refused(&[start(), call(Call::Unlink { thread: 0, file: 0 })], "file 0");
    let far = IDS_AHEAD_MAX as u32 + 2;
    refused(&[start(), call(Call::Thread { thread: 0, child: far })], "is new");
    let near = IDS_AHEAD_MAX as u32 + 1;
    assert_eq!(verdict(&[start(), call(Call::Thread { thread: 0, child: near })]), Ok(()));
}

#[test]
fn numbers_stay_within_the_address_space() {
    refused(&[start(), access(0, PAGES_MAX, 1, Kind::Load)], "beyond the address space");
    refused(&[start(), access(0, 1, 0, Kind::Load)], "counts 0");
    assert_eq!(verdict(&[start(), access(0, PAGES_MAX - 1, 1, Kind::Load)]), Ok(()));
    let touch = |page, pages| call(Call::Touch { thread: 0, page, pages, write: false });
    refused(&[start(), touch(PAGES_MAX - 1, 2)], "beyond the address space");
    refused(&[start(), touch(0, u64::MAX)], "touches");
    let unmap = |start, bytes| call(Call::Unmap { thread: 0, start, bytes });
    refused(&[start(), unmap(4096, u64::MAX)], "beyond the address space");
    refused(&[start(), unmap(4097, 1)], "begins no page");
    let map = |bytes, file| {
        let (thread, prot, flags, offset) = (0, 3, 2, u64::MAX - 4095);
        call(Call::Map { thread, start: 0, bytes, prot, flags, file, offset })
    };
    refused(&[start(), map(0, None)], "length of 0");
    refused(&[start(), map(1, Some(0))], "file 0 was not introduced");
    refused(&[start(), file(0), map(4096, Some(0))], "beyond the address space");
    assert_eq!(verdict(&[start(), map(4096, None)]), Ok(()));
}

#[test]
fn the_areas_of_an_exec_lie_apart() {
    let areas = |areas: Vec<Area>| [start(), file(0), exec(0, 0, "", areas)];
    refused(&areas(vec![area(5, 3, None), area(1, 5, None)]), "overlap");
    refused(&areas(vec![area(5, 0, None)]), "length of 0");
    refused(&areas(vec![area(PAGES_MAX, 1, None)]), "beyond");
    refused(&areas(vec![area(1, 2, Some((0, u64::MAX)))]), "beyond");
    refused(&areas(vec![area(1, 2, Some((1, 0)))]), "file 1");
    assert_eq!(verdict(&areas(vec![area(5, 3, Some((0, 1))), area(1, 4, None)])), Ok(()));
}

#[test]
fn a_checked_iterator_ends_at_the_first_bad_event() {
    let events = [start(), access(9, 1, 1, Kind::Load), access(0, 1, 1, Kind::Load)];
    let mut checked = Checked::new(events.into_iter().map(Ok));
    assert!(checked.next().is_some_and(|event| event.is_ok()));
    let error = checked.next().expect("an error").expect_err("thread 9");
    assert!(error.to_string().starts_with("event 1: thread 9"), "{error}");
    assert!(checked.next().is_none());
}
