//! What a replay costs on the host: an event that finds its page, a minor fault, an eviction with
//! swap-out and swap-in. Traces are made here; each figure is the time of a whole replay divided by
//! what it is named for.
//!
//! `cargo bench -p vellum-lab`; for exact instruction counts, `valgrind --tool=callgrind` on
//! `vellum replay` of such a trace.

use std::hint::black_box;
use std::path::{Path, PathBuf};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use tempfile::TempDir;
use vellum_lab::{Experiment, Memory, SwapChoice};
use vellum_machine::disk::DiskKind;
use vellum_trace::event::{Access, Area, Call, Event, Exit, Kind, Meta, Role};
use vellum_trace::{Notes, Writer};

const FIRST_PAGE: u64 = 0x10000;
/// More pages than the second-level TLB has entries.
const RESIDENT_PAGES: u64 = 16384;
const EVENTS: u64 = 4_000_000;
const FRESH_PAGES: u64 = 1_000_000;
const CYCLE_PAGES: u64 = 40_000;
const ROUNDS: u64 = 20;

/// Writes a trace of one process with one area of `pages` pages and these accesses.
fn trace(
    directory: &TempDir,
    name: &str,
    pages: u64,
    accesses: impl Iterator<Item = (u64, Kind)>,
) -> PathBuf {
    let path = directory.path().join(name);
    let mut writer = Writer::create(&path, &Meta::new("bench")).expect("the directory is writable");
    let call = |writer: &mut Writer<_>, call| {
        writer.push(&Event::Call(Box::new(call))).expect("there is room on the disk");
    };
    call(&mut writer, Call::Start { thread: 0, process: 0, pid: 1 });
    let area =
        Area { page: FIRST_PAGE, pages, prot: 3, shared: false, file: None, role: Role::Other };
    let exec = Call::Exec {
        thread: 0,
        process: 0,
        path: "bench".to_owned(),
        arguments: vec!["bench".to_owned()],
        brk: 0x20_0000,
        areas: vec![area],
        touched: Vec::new(),
    };
    call(&mut writer, exec);
    for (page, kind) in accesses {
        let access = Access { page: FIRST_PAGE + page, thread: 0, count: 1, instructions: 4, kind };
        writer.access(access).expect("there is room on the disk");
    }
    call(&mut writer, Call::Exit { thread: 0, process: 0, exit: Exit::Code(0) });
    writer.finish(Notes::default()).expect("there is room on the disk");
    path
}

fn replay(experiment: &Experiment, path: &Path) -> u64 {
    let report = experiment.run(path, |_| {}).expect("the trace is sound");
    report.faults.minor + report.faults.major
}

fn resident(c: &mut Criterion) {
    let directory = TempDir::new().expect("there is a temporary directory");
    let mut random = Pcg64::seed_from_u64(1);
    // A hot page, which every TLB holds, then one of 16,384, which hardly any does.
    let accesses = (0..EVENTS).map(|i| {
        let page = if i % 2 == 0 { 0 } else { random.random_range(0..RESIDENT_PAGES) };
        (page, Kind::Store)
    });
    let path = trace(&directory, "resident", RESIDENT_PAGES, accesses);
    let experiment = Experiment { cpus: Some(1), ..Experiment::default() };
    let mut group = c.benchmark_group("replay");
    group.sample_size(10).throughput(Throughput::Elements(EVENTS));
    group.bench_function("event, resident, every second one misses the TLB", |b| {
        b.iter(|| black_box(replay(&experiment, &path)));
    });
    group.finish();
}

fn minor_fault(c: &mut Criterion) {
    let directory = TempDir::new().expect("there is a temporary directory");
    let path =
        trace(&directory, "fresh", FRESH_PAGES, (0..FRESH_PAGES).map(|page| (page, Kind::Store)));
    let experiment = Experiment { cpus: Some(1), ..Experiment::default() };
    let mut group = c.benchmark_group("replay");
    group.sample_size(10).throughput(Throughput::Elements(FRESH_PAGES));
    group.bench_function("minor fault: zero-fill, map, and free at exit", |b| {
        b.iter(|| black_box(replay(&experiment, &path)));
    });
    group.finish();
}

fn eviction(c: &mut Criterion) {
    let directory = TempDir::new().expect("there is a temporary directory");
    let accesses = (0..CYCLE_PAGES * ROUNDS).map(|i| (i % CYCLE_PAGES, Kind::Store));
    let path = trace(&directory, "cyclic", CYCLE_PAGES, accesses);
    let mut group = c.benchmark_group("replay");
    // All but the first round fault, evict, write and read.
    group.sample_size(10).throughput(Throughput::Elements(CYCLE_PAGES * (ROUNDS - 1)));
    for (name, disk) in [("zram", DiskKind::Zram), ("nvme", DiskKind::Nvme)] {
        let experiment = Experiment {
            cpus: Some(1),
            memory: Memory::Frames(20_000),
            swap: SwapChoice { disk: Some(disk), size: None },
            page_cluster: 0,
            ..Experiment::default()
        };
        let id = BenchmarkId::new("eviction, swap-out and swap-in", name);
        group
            .bench_with_input(id, &path, |b, path| b.iter(|| black_box(replay(&experiment, path))));
    }
    group.finish();
}

criterion_group!(benches, resident, minor_fault, eviction);
criterion_main!(benches);
