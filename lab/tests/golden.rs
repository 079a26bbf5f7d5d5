//! Golden reports: replays of the recordings in `traces/` give the same bytes as when they were
//! last looked at.
//!
//! A change that moves a number shows here which, and for what programs. If it is meant to,
//! `VELLUM_BLESS=1 cargo test -p vellum-lab --test golden` writes the reports again, and the
//! difference is reviewed with the change.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use vellum_lab::report::OomKill;
use vellum_lab::{Experiment, Memory, Report};

/// Memory, and what it is called in names of files. The footprint counts the pages of each process:
/// that of many short processes is far above what they hold at once.
const MEMORIES: [(&str, Option<&str>); 2] = [("unlimited", None), ("25", Some("25%"))];
const SCARCE: [(&str, Option<&str>); 3] =
    [("unlimited", None), ("25", Some("25%")), ("10", Some("10%"))];

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn replay(trace: &str, memory: Option<&str>, policy: &str) -> Report {
    let memory = match memory {
        None => Memory::Unlimited,
        Some(size) => Memory::Size(size.parse().expect("the sizes above are sizes")),
    };
    let experiment = Experiment { memory, policy: policy.to_owned(), ..Experiment::default() };
    let file = directory("../traces").join(format!("{trace}.vtrace"));
    match experiment.run(&file, |_| ()) {
        Ok(report) => report,
        Err(error) => panic!("{trace} on {memory:?} with {policy}: {error}"),
    }
}

/// The line on which two texts begin to differ.
fn first_difference(golden: &str, now: &str) -> String {
    let (mut golden, mut now) = (golden.lines(), now.lines());
    for number in 1.. {
        match (golden.next(), now.next()) {
            (None, None) => break,
            (golden, now) if golden != now => {
                let show = |line: Option<&str>| line.unwrap_or("the end").trim().to_owned();
                return format!("line {number}: was {}, is {}", show(golden), show(now));
            }
            _ => {}
        }
    }
    "the ends of lines".to_owned()
}

fn check(trace: &str, memories: &[(&str, Option<&str>)]) {
    let mut moved = Vec::new();
    for &(name, memory) in memories {
        for policy in ["clock", "lru"] {
            let report = replay(trace, memory, policy);
            let mut text = serde_json::to_string_pretty(&report).expect("a report is plain data");
            text.push('\n');
            let file = format!("{trace}-{name}-{policy}.json");
            let path = directory("tests/golden").join(&file);
            if std::env::var_os("VELLUM_BLESS").is_some() {
                fs::write(&path, text).expect("the golden report can be written");
                continue;
            }
            let golden = fs::read_to_string(&path).unwrap_or_default();
            if golden != text {
                moved.push(format!("{file}, {}", first_difference(&golden, &text)));
            }
        }
    }
    let advice = "if that is meant, VELLUM_BLESS=1 cargo test -p vellum-lab --test golden";
    assert!(moved.is_empty(), "reports have changed:\n{}\n{advice}", moved.join("\n"));
}

#[test]
fn sort_is_replayed_as_before() {
    check("sort", &MEMORIES);
}

#[test]
fn python_is_replayed_as_before() {
    check("python", &MEMORIES);
}

#[test]
fn gcc_is_replayed_as_before() {
    check("gcc", &MEMORIES);
}

#[test]
fn a_shell_and_its_children_are_replayed_as_before() {
    check("shell", &SCARCE);
}

#[test]
fn an_exact_recording_is_replayed_as_before() {
    check("ls-exact", &MEMORIES);
}

/// The fields of a report: scripts read them by these names. `[]` stands for each element.
const FIELDS: &str = "
    vellum
    trace.file trace.command trace.events trace.references trace.pages trace.processes
    trace.filter.pages trace.filter.events trace.filter.blocks trace.filter.frames_min
    machine.memory_bytes machine.frames machine.limited machine.policy machine.swap
    machine.swap_bytes machine.page_cache machine.cpus machine.profile machine.seed
    faults.minor faults.major
    faults.by_kind.zero_page faults.by_kind.zero_fill faults.by_kind.file_map
    faults.by_kind.file_fill faults.by_kind.swap_in faults.by_kind.copy_on_write
    faults.by_kind.reuse faults.by_kind.make_dirty faults.by_kind.spurious
    faults.by_kind.violation
    reclaim.scanned reclaim.evicted reclaim.written reclaim.swapped_in reclaim.swapped_out
    reclaim.file_read reclaim.direct
    tlb.lookups tlb.misses tlb.l1_misses
    memory.peak_resident_bytes memory.peak_page_table_bytes memory.peak_swap_bytes
    time.virtual_ns time.cpu_ns time.kernel_ns time.io_wait_ns
    processes[].pid processes[].command processes[].minor processes[].major
    processes[].peak_resident_bytes processes[].exit
    oom_kills[].at_ns oom_kills[].pid oom_kills[].command oom_kills[].resident_bytes
    oom_kills[].swap_bytes
    warnings[]
";

fn collect(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let dot = if path.is_empty() { "" } else { "." };
            for (name, value) in fields {
                collect(value, &format!("{path}{dot}{name}"), found);
            }
        }
        Value::Array(elements) => {
            for element in elements {
                collect(element, &format!("{path}[]"), found);
            }
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

#[test]
fn a_report_has_exactly_the_documented_fields() {
    // Filtered, with a size at which a warning is due.
    let mut report = replay("sort", Some("512k"), "fifo");
    assert!(!report.warnings.is_empty(), "the filter's limit is 1 MiB");
    report.oom_kills.push(OomKill {
        at_ns: 1,
        pid: 2,
        command: "sort".to_owned(),
        resident_bytes: 3,
        swap_bytes: 4,
    });
    let mut found = BTreeSet::new();
    collect(&serde_json::to_value(&report).expect("a report is plain data"), "", &mut found);
    let documented: BTreeSet<String> = FIELDS.split_whitespace().map(str::to_owned).collect();
    let missing: Vec<_> = documented.difference(&found).collect();
    let unknown: Vec<_> = found.difference(&documented).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing {missing:?}, unknown {unknown:?}");
}
