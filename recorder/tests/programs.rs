//! Records small programs that do known things, and looks for these things in the events.
//!
//! Needs gcc and a qemu-x86_64 that takes plugins; says `SKIP` and passes without them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use vellum_recorder::{Options, Outcome, RecordError, record_into};
use vellum_trace::check::Checker;
use vellum_trace::event::{Call, Event, Exit, Kind, Meta, ProcessId, ThreadId};

const PAGE: u64 = 4096;

/// A directory with the compiled test programs.
struct Lab {
    directory: tempfile::TempDir,
}

impl Lab {
    /// `None`, with a line that says so, if the tests cannot run here.
    fn new() -> Option<Lab> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for name in ["memory", "processes"] {
            let source =
                Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/programs/{name}.c"));
            let output = directory.path().join(name);
            let compiled = Command::new("gcc")
                .args(["-O1", "-pthread", "-o"])
                .args([output.as_path(), source.as_path()])
                .status();
            match compiled {
                Ok(status) => assert!(status.success(), "gcc refused {name}.c"),
                Err(error) => {
                    eprintln!("SKIP: no gcc: {error}");
                    return None;
                }
            }
        }
        Some(Lab { directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn record(&self, command: &[&str]) -> Option<Recording> {
        self.record_with(command, Options::default(), &AtomicBool::new(false))
    }

    fn record_with(
        &self,
        command: &[&str],
        options: Options,
        interrupted: &AtomicBool,
    ) -> Option<Recording> {
        let mut command: Vec<OsString> = command.iter().map(Into::into).collect();
        if !command[0].to_string_lossy().contains('/') {
            command[0] = self.path(&command[0].to_string_lossy()).into();
        }
        let options = Options { command, ..options };
        let mut events: Vec<Event> = Vec::new();
        match record_into(&options, interrupted, &mut events) {
            Ok((meta, outcome)) => {
                let mut checker = Checker::new();
                checker.block(&events).expect("the events make sense");
                Some(Recording { meta, outcome, events })
            }
            Err(
                error @ (RecordError::QemuMissing { .. } | RecordError::QemuWithoutPlugins { .. }),
            ) => {
                eprintln!("SKIP: {error}");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }
}

struct Recording {
    meta: Meta,
    outcome: Outcome,
    events: Vec<Event>,
}

impl Recording {
    fn calls(&self) -> impl Iterator<Item = &Call> {
        self.events.iter().filter_map(|event| match event {
            Event::Call(call) => Some(&**call),
            Event::Access(_) => None,
        })
    }

    fn count(&self, wanted: impl Fn(&Call) -> bool) -> usize {
        self.calls().filter(|call| wanted(call)).count()
    }

    fn position(&self, wanted: impl Fn(&Call) -> bool) -> usize {
        let is = |event: &Event| matches!(event, Event::Call(call) if wanted(call));
        self.events.iter().position(is).expect("the call is in the trace")
    }

    /// The distinct pages of `range` that were stored to in `events`, by the program or the kernel.
    fn written(&self, events: std::ops::Range<usize>, range: std::ops::Range<u64>) -> usize {
        let mut pages = BTreeSet::new();
        for event in &self.events[events] {
            match event {
                Event::Access(access) if access.kind == Kind::Store => {
                    pages.insert(access.page);
                }
                Event::Call(call) => {
                    if let Call::Touch { page, pages: count, write: true, .. } = **call {
                        pages.extend(page..page + count);
                    }
                }
                Event::Access(_) => {}
            }
        }
        pages.range(range).count()
    }

    /// The pages of the first private anonymous mapping of that many.
    fn area(&self, pages: u64) -> std::ops::Range<u64> {
        let found = self.calls().find_map(|call| match call {
            Call::Map { start, bytes, file: None, .. } if *bytes == pages * PAGE => Some(*start),
            _ => None,
        });
        let first = found.expect("the mapping is in the trace") / PAGE;
        first..first + pages
    }

    /// The process of each thread.
    fn processes(&self) -> BTreeMap<ThreadId, ProcessId> {
        let mut map = BTreeMap::new();
        for call in self.calls() {
            match *call {
                Call::Start { thread, process, .. } => drop(map.insert(thread, process)),
                Call::Fork { child, process, .. } => drop(map.insert(child, process)),
                Call::Thread { thread, child } => drop(map.insert(child, map[&thread])),
                _ => {}
            }
        }
        map
    }
}

#[test]
fn every_first_touch_of_a_known_program_is_seen() {
    let Some(lab) = Lab::new() else { return };
    let file = lab.path("data");
    let file = file.to_str().expect("a plain name");
    let Some(seen) = lab.record(&["memory", file]) else { return };
    assert_eq!(seen.outcome.exit, 42);
    assert_eq!(seen.outcome.warnings, Vec::<String>::new());
    assert!(seen.meta.filter.is_some());

    let area = seen.area(1000);
    let start = area.start * PAGE;
    let drop = seen.position(|call| matches!(call, Call::Advise { start: s, .. } if *s == start));
    let unmap = seen.position(|call| matches!(call, Call::Unmap { start: s, .. } if *s == start));
    assert_eq!(seen.written(0..drop, area.clone()), 1000);
    assert_eq!(seen.written(drop..unmap, area.clone()), 600, "after MADV_DONTNEED");
    let protect =
        |call: &Call| matches!(call, Call::Protect { start: s, prot: 1, .. } if *s == start);
    assert!(seen.position(protect) < unmap);

    let fresh = seen.area(64);
    assert_eq!(seen.written(0..seen.events.len(), fresh), 64, "by the kernel, in pread");

    let heap = |call: &Call| matches!(call, Call::Brk { .. });
    assert!(seen.count(heap) >= 1);
    let failed = |call: &Call| matches!(call, Call::Failed { call: 11, errno: 22, .. });
    assert_eq!(seen.count(failed), 1, "munmap of an odd address is EINVAL");
}

#[test]
fn what_happens_to_files_is_seen() {
    let Some(lab) = Lab::new() else { return };
    let name = lab.path("data");
    let name = name.to_str().expect("a plain name");
    let Some(seen) = lab.record(&["memory", name]) else { return };
    let id = seen.calls().find_map(|call| match call {
        Call::File(file) if file.path == name => Some(file.id),
        _ => None,
    });
    let id = id.expect("the file was introduced");
    let is = |wanted: &dyn Fn(&Call) -> bool| seen.count(wanted);
    let all = (id, 64 * PAGE);
    let read = |call: &Call| match call {
        Call::Read { file, offset: 0, bytes, .. } => (*file, *bytes) == all,
        _ => false,
    };
    assert_eq!(is(&read), 1);
    let wrote = |call: &Call| {
        matches!(call, Call::Write { file, offset, bytes, .. }
            if (*file, *offset, *bytes) == (id, 8 * PAGE, 32 * PAGE))
    };
    assert_eq!(is(&wrote), 1);
    let grown =
        |call: &Call| matches!(call, Call::Truncate { file, bytes, .. } if (*file, *bytes) == all);
    assert_eq!(is(&grown), 1);
    let mapped = |call: &Call| {
        matches!(call, Call::Map { file: Some(file), offset, bytes, .. }
            if (*file, *offset, *bytes) == (id, 4 * PAGE, 16 * PAGE))
    };
    assert_eq!(is(&mapped), 1);
    assert_eq!(is(&|call| matches!(call, Call::FileSync { file, .. } if *file == id)), 1);
    assert_eq!(is(&|call| matches!(call, Call::Sync { .. })), 1);
    assert_eq!(is(&|call| matches!(call, Call::Unlink { file, .. } if *file == id)), 1);
    let shared =
        |call: &Call| matches!(call, Call::File(file) if file.path == "shared:0" && file.memory);
    assert_eq!(is(&shared), 1);
    let moved =
        |call: &Call| matches!(call, Call::Remap { new_bytes, .. } if *new_bytes == 400 * PAGE);
    assert_eq!(is(&moved), 1);
}

#[test]
fn an_exec_has_a_program_a_linker_a_stack_and_a_heap() {
    use vellum_trace::event::Role;
    let Some(lab) = Lab::new() else { return };
    let Some(seen) = lab.record(&["processes", "nothing"]) else { return };
    let exec = seen.calls().find_map(|call| match call {
        Call::Exec { areas, brk, arguments, touched, .. } => Some((areas, brk, arguments, touched)),
        _ => None,
    });
    let (areas, brk, arguments, touched) = exec.expect("an exec");
    assert_eq!(arguments[1], "nothing");
    let with = |role| areas.iter().filter(move |area| area.role == role);
    let stack = with(Role::Stack).next().expect("a stack");
    assert_eq!((stack.pages, stack.prot & 3), (2048, 3));
    assert!(with(Role::Program).any(|area| area.prot == 5), "text");
    assert!(with(Role::Program).any(|area| area.prot == 3), "data");
    assert!(with(Role::Interpreter).any(|area| area.prot == 5), "the linker's text");
    let last = with(Role::Program).chain(with(Role::Bss)).map(|area| area.page + area.pages).max();
    assert_eq!(Some(*brk), last.map(|page| page * PAGE));
    assert!(touched.contains(&(stack.page + stack.pages - 1)), "arguments on the stack");
}

#[test]
fn a_forked_child_begins_after_its_fork_and_copies_what_it_writes() {
    let Some(lab) = Lab::new() else { return };
    let Some(seen) = lab.record(&["processes", "fork"]) else { return };
    assert_eq!(seen.outcome.exit, 3);
    let fork = seen.position(|call| matches!(call, Call::Fork { .. }));
    let processes = seen.processes();
    let child = |event: &Event| match event {
        Event::Access(access) => processes[&access.thread] == 1,
        Event::Call(_) => false,
    };
    assert!(!seen.events[..fork].iter().any(child));
    let area = seen.area(500);
    let of = |wanted: ProcessId| {
        let pages: BTreeSet<u64> = seen.events[fork..]
            .iter()
            .filter_map(|event| match event {
                Event::Access(a) if a.kind == Kind::Store && processes[&a.thread] == wanted => {
                    Some(a.page).filter(|page| area.contains(page))
                }
                _ => None,
            })
            .collect();
        pages.len()
    };
    assert_eq!((of(0), of(1)), (200, 150));
    let exit =
        seen.position(|call| matches!(call, Call::Exit { process: 1, exit: Exit::Code(3), .. }));
    let reap = seen.position(|call| matches!(call, Call::Reap { process: 1, .. }));
    assert!(fork < exit && exit < reap);
}

#[test]
fn a_vforked_child_keeps_its_flags_and_its_exec() {
    const BOTH: u64 = 0x4100; // CLONE_VM and CLONE_VFORK
    let Some(lab) = Lab::new() else { return };
    let Some(seen) = lab.record(&["processes", "vfork"]) else { return };
    assert_eq!(seen.outcome.exit, 0);
    let vfork = |call: &Call| matches!(call, Call::Fork { flags, .. } if flags & BOTH == BOTH);
    assert_eq!(seen.count(vfork), 1);
    assert_eq!(seen.count(|call| matches!(call, Call::Exec { process: 1, .. })), 1);
}

#[test]
fn threads_that_reuse_addresses_touch_only_what_is_mapped() {
    let Some(lab) = Lab::new() else { return };
    let Some(seen) = lab.record(&["processes", "threads"]) else { return };
    assert_eq!(seen.outcome.exit, 0);
    assert_eq!(seen.count(|call| matches!(call, Call::Thread { .. })), 4);
    assert_eq!(seen.count(|call| matches!(call, Call::ThreadExit { .. })), 4);
    // Replays the maps: a store must fall into an area, and after each drop be seen again.
    let mut mapped: BTreeMap<u64, bool> = BTreeMap::new(); // page, and whether it is there
    let (mut outside, mut faults) = (0, 0);
    for event in &seen.events {
        match event {
            Event::Access(access) if access.kind == Kind::Store => {
                match mapped.get_mut(&access.page) {
                    Some(there) => {
                        faults += u32::from(!std::mem::replace(there, true));
                    }
                    None => outside += 1,
                }
            }
            Event::Access(_) => {}
            Event::Call(call) => match **call {
                Call::Exec { ref areas, .. } => {
                    for area in areas {
                        mapped.extend((area.page..area.page + area.pages).map(|page| (page, true)));
                    }
                }
                Call::Map { start, bytes, .. } => {
                    let pages = start / PAGE..(start + bytes).div_ceil(PAGE);
                    mapped.extend(pages.map(|page| (page, bytes > 7 * PAGE)));
                }
                Call::Brk { end, .. } => {
                    let pages = end / PAGE - 100..end.div_ceil(PAGE);
                    mapped.extend(pages.map(|page| (page, true)));
                }
                Call::Unmap { start, bytes, .. } => {
                    for page in start / PAGE..(start + bytes).div_ceil(PAGE) {
                        mapped.remove(&page);
                    }
                }
                Call::Advise { start, bytes, advice: 4, .. } => {
                    for page in start / PAGE..(start + bytes).div_ceil(PAGE) {
                        mapped.insert(page, bytes > 7 * PAGE);
                    }
                }
                _ => {}
            },
        }
    }
    let each: u32 =
        (0..4).map(|seed| (0..300).map(|round| 1 + (seed + round) % 7).sum::<u32>()).sum();
    assert_eq!(outside, 0);
    // Two first touches a page; the loader's few small mappings add theirs.
    assert!((2 * each..2 * each + 40).contains(&faults), "{faults} of {}", 2 * each);
}

#[test]
fn threads_beyond_the_slots_run_on_and_are_reported() {
    let Some(lab) = Lab::new() else { return };
    let Some(seen) = lab.record(&["processes", "crowd"]) else { return };
    assert_eq!(seen.outcome.exit, 0);
    let counters = seen.outcome.counters;
    assert!(counters.threads_unrecorded >= 19, "531 threads, 512 slots: {counters:?}");
    assert_eq!(counters.lost, 0);
    assert!(seen.outcome.warnings.iter().any(|warning| warning.contains("ran unrecorded")));
}

#[test]
fn a_program_killed_by_a_signal_leaves_all_it_did() {
    let Some(lab) = Lab::new() else { return };
    let Some(seen) = lab.record(&["processes", "segv"]) else { return };
    assert_eq!(seen.outcome.exit, 128 + 11);
    assert_eq!(seen.written(0..seen.events.len(), seen.area(500)), 400);
    let exit = |call: &Call| matches!(call, Call::Exit { exit: Exit::Signal(11), .. });
    assert_eq!(seen.count(exit), 1);

    let Some(seen) = lab.record(&["processes", "abort"]) else { return };
    assert_eq!(seen.outcome.exit, 128 + 6);

    let Some(seen) = lab.record(&["processes", "kill"]) else { return };
    assert_eq!(seen.outcome.exit, 9);
    assert_eq!(seen.written(0..seen.events.len(), seen.area(500)), 333);
    let exit = |call: &Call| matches!(call, Call::Exit { process: 1, exit: Exit::Signal(9), .. });
    assert_eq!(seen.count(exit), 1);
}

#[test]
fn a_process_that_outlives_its_parent_is_recorded_to_its_end() {
    let Some(lab) = Lab::new() else { return };
    let Some(seen) = lab.record(&["processes", "orphan"]) else { return };
    assert_eq!(seen.outcome.exit, 0);
    assert_eq!(seen.written(0..seen.events.len(), seen.area(500)), 377);
    let exit = |call: &Call| matches!(call, Call::Exit { process: 1, exit: Exit::Code(5), .. });
    assert_eq!(seen.count(exit), 1);
}

#[test]
fn a_script_is_followed_through_its_interpreter_and_its_children() {
    use std::os::unix::fs::PermissionsExt;
    let Some(lab) = Lab::new() else { return };
    let script = lab.path("script");
    std::fs::write(&script, "#!/bin/sh -e\n/bin/true\n/bin/echo $1 | cat >/dev/null\nexit 7\n")
        .expect("written");
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("set");
    let Some(seen) = lab.record(&["script", "word"]) else { return };
    assert_eq!(seen.outcome.exit, 7);
    let programs: Vec<_> = seen
        .calls()
        .filter_map(|call| match call {
            Call::Exec { arguments, .. } => Some(arguments.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(programs[0][1..], ["-e", script.to_str().expect("a plain name"), "word"]);
    let mut rest: Vec<_> = programs[1..].iter().map(|arguments| arguments[0].as_str()).collect();
    rest.sort_unstable();
    assert_eq!(rest, ["/bin/echo", "/bin/true", "cat"]);
    assert!(seen.calls().all(|call| !matches!(call, Call::Exit { exit: Exit::Unknown, .. })));
}

#[test]
fn without_a_filter_only_repetitions_are_dropped() {
    let Some(lab) = Lab::new() else { return };
    let filtered = lab.record(&["processes", "nothing"]);
    let options = Options { exact: true, ..Options::default() };
    let exact = lab.record_with(&["processes", "nothing"], options, &AtomicBool::new(false));
    let (Some(filtered), Some(exact)) = (filtered, exact) else { return };
    assert!(exact.meta.filter.is_none());
    assert!(exact.events.len() > 10 * filtered.events.len());
    let mut last = None;
    let mut repetitions = 0;
    for event in &exact.events {
        let Event::Access(access) = event else { continue };
        repetitions += usize::from(last.replace((access.page, access.kind)) == last);
    }
    // A system call empties even this filter, and not every call is an event.
    assert!(repetitions < 100, "{repetitions}");
    // Every reference is in an event's count, whichever way; addresses may differ by a few.
    for seen in [&filtered, &exact] {
        let counters = seen.outcome.counters;
        assert_eq!(counters.references, counters.loads + counters.stores + counters.fetches);
    }
}

#[test]
fn an_interrupted_recording_keeps_what_it_has() {
    let Some(lab) = Lab::new() else { return };
    let interrupted = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let recording = scope
            .spawn(|| lab.record_with(&["processes", "hang"], Options::default(), &interrupted));
        std::thread::sleep(std::time::Duration::from_millis(700));
        interrupted.store(true, std::sync::atomic::Ordering::Relaxed);
        let Some(seen) = recording.join().expect("the recording ended") else { return };
        assert!(seen.outcome.interrupted);
        assert_eq!(seen.outcome.exit, 128 + 2);
        assert_eq!(seen.written(0..seen.events.len(), seen.area(500)), 300);
    });
}

#[test]
fn commands_that_cannot_be_recorded_are_refused_in_one_line() {
    let mut events: Vec<Event> = Vec::new();
    let mut refusal = |command: &[&str]| {
        let command = command.iter().map(OsString::from).collect();
        let options = Options { command, ..Options::default() };
        let result = record_into(&options, &AtomicBool::new(false), &mut events);
        let message = result.expect_err("refused").to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    };
    assert!(refusal(&[]).contains("no command"));
    assert_eq!(
        refusal(&["no-such-command-anywhere"]),
        "no-such-command-anywhere: command not found"
    );
    assert!(refusal(&["/etc/passwd"]).contains("not executable"));
    assert!(refusal(&["/"]).contains("directory"));
}
