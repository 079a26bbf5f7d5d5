//! What small objects cost: `cargo bench -p vellum-mm --bench slab`.
//!
//! A host's program pays nothing for interrupts that a kernel turns off, and the objects are not touched.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_pcg::Pcg64Mcg;
use vellum_mm::addr::Frame;
use vellum_mm::slab::{Heap, Magazines};

/// What is allocated at once.
const BULK_BYTES: usize = 64 << 20;

fn heap() -> Heap {
    let frames = Frame(0)..Frame(1 << 15);
    let heap = Heap::new(frames.clone());
    heap.add(frames);
    heap
}

fn pairs(c: &mut Criterion) {
    let mut group = c.benchmark_group("pair");
    let (heap, mut local) = (heap(), Magazines::new());
    for bytes in [64, 256, 8192, 16_384] {
        group.bench_function(BenchmarkId::from_parameter(bytes), |b| {
            b.iter(|| {
                let at = heap.alloc(&mut local, black_box(bytes), 8).expect("memory is free");
                heap.free(&mut local, black_box(at), black_box(bytes), 8);
            });
        });
    }
    group.finish();
}

fn all(heap: &Heap, local: &mut Magazines, bytes: usize) -> Vec<u64> {
    let mut found = Vec::with_capacity(BULK_BYTES / bytes);
    found.extend((0..BULK_BYTES / bytes).map(|_| heap.alloc(local, bytes, 8).expect("it fits")));
    found
}

fn bulk(c: &mut Criterion) {
    let mut group = c.benchmark_group("bulk");
    group.sample_size(10);
    for bytes in [64, 256] {
        group.throughput(Throughput::Elements((BULK_BYTES / bytes) as u64));
        group.bench_function(BenchmarkId::new("alloc", bytes), |b| {
            b.iter_batched_ref(
                || (heap(), Magazines::new()),
                |(heap, local)| all(heap, local, bytes),
                BatchSize::PerIteration,
            );
        });
        let mut free = |name: &str, shuffled: bool, other: bool| {
            group.bench_function(BenchmarkId::new(name, bytes), |b| {
                b.iter_batched_ref(
                    || {
                        let (heap, mut local) = (heap(), Magazines::new());
                        let mut found = all(&heap, &mut local, bytes);
                        if shuffled {
                            found.shuffle(&mut Pcg64Mcg::seed_from_u64(1));
                        }
                        let local = if other { Magazines::new() } else { local };
                        (heap, local, found)
                    },
                    |(heap, local, found)| {
                        for &at in found.iter() {
                            heap.free(local, at, bytes, 8);
                        }
                    },
                    BatchSize::PerIteration,
                );
            });
        };
        free("free, shuffled", true, false);
        free("free, on another processor", false, true);
    }
    group.finish();
}

criterion_group!(benches, pairs, bulk);
criterion_main!(benches);
