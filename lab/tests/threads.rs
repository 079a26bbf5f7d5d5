//! A process with several threads: replays must end, and always with the same counts.
//!
//! The shipped recordings are of one thread a process. This one is made here: a main thread and four
//! workers that sort, each a part of one array, with buffers that they map and unmap among each
//! other's accesses, and a child that is forked in their midst. Calls that change the address space
//! keep their place among the accesses of all threads, so in a small memory whoever comes to one
//! waits for threads that wait for the disk.

use std::path::PathBuf;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use vellum_lab::{Experiment, Memory, Report};
use vellum_trace::event::{Access, Area, Call, Event, Exit, Kind, Meta, Role};
use vellum_trace::{Notes, Writer};

const WORKERS: u32 = 4;
/// Pages of the array that all threads have.
const ARRAY: u64 = 256;
/// Where it is, and where the stack, the buffers of the workers and those of their calls are.
const ARRAY_PAGE: u64 = 0x1000;
const BUFFER_PAGE: u64 = 0x10_0000;
const BUFFER_PAGES: u64 = 24;

const PROT_RW: u32 = 3;
const MAP_PRIVATE_ANONYMOUS_FIXED: u32 = 0x32;
const FORK: u64 = 0;

/// Events on their way to a trace.
struct Program {
    events: Vec<Event>,
    random: Pcg64Mcg,
}

impl Program {
    fn call(&mut self, call: Call) {
        self.events.push(Event::Call(Box::new(call)));
    }

    fn access(&mut self, thread: u32, page: u64, kind: Kind) {
        let access = Access { page, thread, count: 3, instructions: 40, kind };
        self.events.push(Event::Access(access));
    }

    /// One round of a worker: it looks at its part of the array and writes to its buffer.
    fn work(&mut self, thread: u32) {
        let part = ARRAY / u64::from(WORKERS);
        let start = ARRAY_PAGE + part * u64::from(thread - 1);
        for _ in 0..self.random.random_range(1..12) {
            let page = start + self.random.random_range(0..part);
            self.access(thread, page, Kind::Load);
            let page = buffer(thread) + self.random.random_range(0..BUFFER_PAGES);
            self.access(thread, page, Kind::Store);
        }
    }

    fn map(&mut self, thread: u32) {
        let (start, bytes) = (buffer(thread) << 12, BUFFER_PAGES << 12);
        let flags = MAP_PRIVATE_ANONYMOUS_FIXED;
        let prot = PROT_RW;
        self.call(Call::Map { thread, start, bytes, prot, flags, file: None, offset: 0 });
    }

    fn unmap(&mut self, thread: u32) {
        self.call(Call::Unmap { thread, start: buffer(thread) << 12, bytes: BUFFER_PAGES << 12 });
    }
}

fn buffer(thread: u32) -> u64 {
    BUFFER_PAGE + 0x100 * u64::from(thread)
}

/// What happens, in the order in which it was seen.
fn program() -> Vec<Event> {
    let mut program = Program { events: Vec::new(), random: Pcg64Mcg::seed_from_u64(11) };
    let area =
        |page, pages, role| Area { page, pages, prot: PROT_RW, shared: false, file: None, role };
    program.call(Call::Start { thread: 0, process: 0, pid: 100 });
    program.call(Call::Exec {
        thread: 0,
        process: 0,
        path: "/bin/psort".to_owned(),
        arguments: vec!["psort".to_owned()],
        brk: 0x80_0000_0000,
        areas: vec![area(ARRAY_PAGE, ARRAY, Role::Bss), area(0x7fff_ff00, 0x80, Role::Stack)],
        touched: vec![0x7fff_ff7f],
    });
    for page in ARRAY_PAGE..ARRAY_PAGE + ARRAY {
        program.access(0, page, Kind::Store);
    }
    for child in 1..=WORKERS {
        program.call(Call::Thread { thread: 0, child });
        program.map(child);
    }
    for round in 0..600 {
        // The order in which the recorder saw them is chance's.
        let thread = 1 + program.random.random_range(0..WORKERS);
        program.work(thread);
        if round % 7 == 0 {
            program.unmap(thread);
            program.map(thread);
        }
        if round == 300 {
            let (child, pid) = (WORKERS + 1, 101);
            program.call(Call::Fork { thread: 1, process: 1, child, pid, flags: FORK });
        }
        if round > 300 {
            program.access(WORKERS + 1, ARRAY_PAGE + round % ARRAY, Kind::Store);
        }
    }
    let exit = Exit::Code(0);
    program.call(Call::Exit { thread: WORKERS + 1, process: 1, exit });
    program.call(Call::Reap { thread: 1, process: 1 });
    for thread in 1..=WORKERS {
        program.call(Call::ThreadExit { thread });
    }
    program.call(Call::Exit { thread: 0, process: 0, exit });
    program.events
}

fn replay(file: &std::path::Path, memory: &str, policy: &str, cpus: u32) -> Report {
    let memory = match memory {
        "unlimited" => Memory::Unlimited,
        size => Memory::Size(size.parse().expect("a size")),
    };
    let cpus = Some(cpus);
    let experiment =
        Experiment { memory, policy: policy.to_owned(), cpus, ..Experiment::default() };
    match experiment.run(file, |_| ()) {
        Ok(report) => report,
        Err(error) => panic!("{memory:?}, {policy}: {error}"),
    }
}

/// Memory, policy, processors; minor faults, major faults, pages swapped out. A failure prints what
/// they are now.
const COUNTS: &[(&str, &str, u32, [u64; 3])] = &[
    ("unlimited", "clock", 1, [2002, 0, 0]),
    ("unlimited", "clock", 2, [2002, 0, 0]),
    ("unlimited", "clock", 8, [2002, 0, 0]),
    ("unlimited", "lru", 1, [2002, 0, 0]),
    ("unlimited", "lru", 2, [2002, 0, 0]),
    ("unlimited", "lru", 8, [2002, 0, 0]),
    ("1M", "clock", 1, [3117, 1400, 1054]),
    ("1M", "clock", 2, [3054, 1439, 1012]),
    ("1M", "clock", 8, [3051, 1490, 1064]),
    ("1M", "lru", 1, [2777, 1518, 907]),
    ("1M", "lru", 2, [2770, 1495, 868]),
    ("1M", "lru", 8, [2735, 1509, 894]),
    ("400k", "clock", 1, [2650, 3776, 2614]),
    ("400k", "clock", 2, [2687, 3758, 2639]),
    ("400k", "clock", 8, [2720, 3794, 2719]),
    ("400k", "lru", 1, [2568, 3731, 2468]),
    ("400k", "lru", 2, [2650, 3751, 2552]),
    ("400k", "lru", 8, [2609, 3745, 2507]),
];

#[test]
fn replays_of_threads_that_wait_for_each_other_end_as_before() {
    let directory = tempfile::tempdir().expect("a directory for the trace");
    let file: PathBuf = directory.path().join("psort.vtrace");
    let mut writer = Writer::create(&file, &Meta::new("a test")).expect("a new file");
    for event in program() {
        writer.push(&event).expect("an event of a program");
    }
    writer.finish(Notes::default()).expect("room on the disk");
    let mut counts = Vec::new();
    for memory in ["unlimited", "1M", "400k"] {
        for policy in ["clock", "lru"] {
            for cpus in [1, 2, 8] {
                let report = replay(&file, memory, policy, cpus);
                assert!(report.oom_kills.is_empty(), "{memory}, {policy}, {cpus}");
                assert!(report.processes.iter().all(|process| process.exit == "exit 0"));
                let found = [report.faults.minor, report.faults.major, report.reclaim.swapped_out];
                counts.push((memory, policy, cpus, found));
            }
        }
    }
    let lines: Vec<String> = counts.iter().map(|line| format!("    {line:?},\n")).collect();
    assert!(counts == COUNTS, "now\n{}", lines.concat());
}
