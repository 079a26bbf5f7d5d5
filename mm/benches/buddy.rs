//! What handing out frames costs: `cargo bench -p vellum-mm --bench buddy`.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use vellum_mm::addr::Frame;
use vellum_mm::frames::buddy::Buddy;
use vellum_mm::frames::zone::{Reserve, Watermarks, Zone};

const FRAMES: usize = 1 << 18; // 1 GiB

fn whole() -> Buddy {
    let mut buddy = Buddy::new(Frame(0), FRAMES);
    buddy.add(Frame(0)..Frame(FRAMES as u32));
    buddy
}

fn zone(cpus: u32) -> Zone {
    Zone::new(whole(), cpus, Watermarks::for_frames(FRAMES))
}

fn pairs(c: &mut Criterion) {
    let mut group = c.benchmark_group("pair");
    let zone = zone(2);
    group.bench_function("frame, from the cache", |b| {
        b.iter(|| {
            let frame = zone.alloc(0, Reserve::Keep).expect("memory is free");
            zone.free(0, black_box(frame));
        });
    });
    group.bench_function("frame, and is it time to reclaim", |b| {
        b.iter(|| {
            let frame = zone.alloc(0, Reserve::Keep).expect("memory is free");
            zone.free(0, black_box(frame));
            zone.below_low()
        });
    });
    group.bench_function("run of order 9", |b| {
        b.iter(|| {
            let run = zone.alloc_run(9, Reserve::Keep).expect("memory is free");
            zone.free_run(black_box(run), 9);
        });
    });
    let mut buddy = whole();
    group.bench_function("frame, from the buddy alone", |b| {
        b.iter(|| {
            let frame = buddy.alloc(0).expect("memory is free");
            buddy.free(black_box(frame), 0);
        });
    });
    group.finish();
}

/// 256 frames out and back in: beyond the cache's batch, so that refills and drains are paid.
fn bursts(c: &mut Criterion) {
    let mut group = c.benchmark_group("burst");
    group.throughput(Throughput::Elements(256));
    let zone = zone(2);
    let mut frames = Vec::with_capacity(256);
    group.bench_function("256 frames out and in", |b| {
        b.iter(|| {
            frames.extend((0..256).map_while(|_| zone.alloc(0, Reserve::Keep)));
            frames.drain(..).for_each(|frame| zone.free(0, frame));
        });
    });
    group.finish();
}

fn bulk(c: &mut Criterion) {
    const COUNT: usize = FRAMES / 8 * 7;
    let mut group = c.benchmark_group("bulk");
    group.sample_size(20);
    group.throughput(Throughput::Elements(COUNT as u64));
    let take = |zone: &Zone| -> Vec<Frame> {
        (0..COUNT).map(|_| zone.alloc(0, Reserve::Keep).expect("memory is free")).collect()
    };
    let used_zone = || {
        // Fresh memory would measure the host's page faults as well.
        let zone = zone(1);
        for frame in take(&zone) {
            zone.free(0, frame);
        }
        zone.drain();
        zone
    };
    group.bench_function("alloc 7/8 of memory", |b| {
        b.iter_batched(used_zone, |zone| (take(&zone), zone), BatchSize::LargeInput);
    });
    group.bench_function("alloc 7/8 of fresh memory", |b| {
        b.iter_batched(|| zone(1), |zone| (take(&zone), zone), BatchSize::LargeInput);
    });
    let mut rng = Pcg64Mcg::seed_from_u64(1);
    group.bench_function("free it in random order", |b| {
        let full = || {
            let zone = used_zone();
            let mut frames = take(&zone);
            for at in (1..COUNT).rev() {
                frames.swap(at, rng.random_range(0..=at));
            }
            (zone, frames)
        };
        let free = |(zone, frames): (Zone, Vec<Frame>)| {
            for &frame in &frames {
                zone.free(0, frame);
            }
            (zone, frames)
        };
        b.iter_batched(full, free, BatchSize::LargeInput);
    });
    group.finish();
}

fn boot(c: &mut Criterion) {
    const TIB: usize = 1 << 28;
    c.bench_function("boot 1 TiB and take a frame", |b| {
        b.iter(|| {
            let mut buddy = Buddy::new(Frame(0), TIB);
            buddy.add(Frame(0)..Frame(TIB as u32));
            let zone = Zone::new(buddy, 2, Watermarks::for_frames(TIB));
            (zone.alloc(0, Reserve::Keep), zone)
        });
    });
}

criterion_group!(benches, pairs, bursts, bulk, boot);
criterion_main!(benches);
