//! What an access costs the host, by where its translation is found.
//!
//! Each measurement is a lap of 4096 accesses in a shuffled order, so that neither the host's
//! branch predictor nor its prefetchers know the next page; divide the times by 4096, or read
//! `thrpt`.

use std::hint::black_box;
use std::sync::atomic::Ordering::Relaxed;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use vellum_machine::profile::Profile;
use vellum_machine::sim::{Sim, Translation};
use vellum_mm::addr::{Frame, Page, Pages, TABLE_ENTRIES};
use vellum_mm::machine::{Access, Memory, SpaceId, Tlb};

const LAP: u64 = 4096;
const SPACE: SpaceId = SpaceId(1);
const ROOT: Frame = Frame(0);

/// A machine with each of `pages` mapped to some frame, user, writable, accessed and dirty.
fn machine(pages: &[Page]) -> Sim {
    let sim = Sim::with_frames(&Profile::default(), 1 << 20).expect("4 GiB fit");
    let mut tables = 1;
    for page in pages {
        let mut table = ROOT;
        for level in (2..=4).rev() {
            let index = (page.0 >> (9 * (level - 1))) as usize % TABLE_ENTRIES;
            let entry = &sim.table(table)[index];
            if entry.load(Relaxed) == 0 {
                entry.store(tables << 12 | 0x67, Relaxed);
                tables += 1;
            }
            table = Frame((entry.load(Relaxed) >> 12) as u32);
        }
        let frame = 0x8_0000 + page.0 % 0x8_0000;
        sim.table(table)[page.0 as usize % TABLE_ENTRIES].store(frame << 12 | 0x67, Relaxed);
    }
    sim
}

/// `count` pages, each `stride` pages and a bit behind the one before, visited over and over.
fn laps(count: u64, stride: u64) -> Vec<Page> {
    let mut random = Pcg64::seed_from_u64(1);
    let mut pages: Vec<_> = (0..count)
        .map(|i| Page(0x1_0000_0000 + i * stride + random.random_range(0..stride)))
        .collect();
    let mut lap = Vec::new();
    while (lap.len() as u64) < LAP {
        pages.shuffle(&mut random);
        lap.extend_from_slice(&pages);
    }
    lap.truncate(LAP as usize);
    lap
}

fn lap(sim: &Sim, pages: &[Page], access: Access) -> u32 {
    let frames = pages.iter().map(|&page| sim.access(0, SPACE, ROOT, page, access).frame());
    frames.fold(0, |sum, frame| sum ^ frame.map_or(0, |frame| frame.0))
}

fn accesses(c: &mut Criterion) {
    let mut group = c.benchmark_group("access");
    group.throughput(Throughput::Elements(LAP));
    // What a lap is expected to find: the first level, the second, one entry read, four entries
    // read.
    for (name, count, stride, entries_read) in [
        ("l1-hit", 48, 1, 0),
        ("l2-hit", 1024, 1, 0),
        ("walk-structures-cached", 4096, 1, 1),
        ("walk-whole", 4096, 512, 4),
    ] {
        let pages = laps(count, stride);
        let sim = machine(&pages);
        lap(&sim, &pages, Access::Write);
        let before = sim.counts(0);
        lap(&sim, &pages, Access::Write);
        let after = sim.counts(0);
        let l1_hits = LAP - (after.l1_misses - before.l1_misses);
        let walks = after.walks - before.walks;
        let read = after.entries_read - before.entries_read;
        println!(
            "{name}: of {LAP} accesses {l1_hits} hit L1, {walks} walk, reading {read} entries"
        );
        assert_eq!(walks == 0, entries_read == 0, "{name} does not measure what it says");
        for access in [Access::Read, Access::Write] {
            let id = BenchmarkId::new(name, format!("{access:?}"));
            group.bench_function(id, |b| b.iter(|| lap(&sim, black_box(&pages), access)));
        }
    }
    group.finish();
}

fn faults(c: &mut Criterion) {
    let mut group = c.benchmark_group("other");
    let pages = laps(4096, 1);
    let sim = machine(&pages);
    group.throughput(Throughput::Elements(LAP));
    group.bench_function("fault", |b| {
        let absent = |page: &Page| sim.access(0, SPACE, ROOT, page.up(1 << 20), Access::Read);
        b.iter(|| pages.iter().filter(|page| absent(page) == Translation::Fault).count());
    });
    group.bench_function("invalidate-one-page", |b| {
        b.iter(|| pages.iter().for_each(|&page| sim.invalidate(SPACE, Pages::at(page, 1))));
    });
    group.bench_function("table", |b| {
        b.iter(|| (0..4).cycle().take(4096).map(|f| sim.table(Frame(f)).len()).sum::<usize>());
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("flush-space", |b| b.iter(|| sim.invalidate_space(SPACE)));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = accesses, faults
}
criterion_main!(benches);
