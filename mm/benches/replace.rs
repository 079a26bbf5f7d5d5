//! What a policy costs a fault or a reference: `cargo bench -p vellum-mm --bench replace`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use vellum_mm::addr::Frame;
use vellum_mm::replace::lru::Lru;
use vellum_mm::replace::{Observe, POLICIES, PageId, Parameters, Policy, Registered, Witness};

struct Bits(Vec<bool>);

impl Witness for Bits {
    fn take_accessed(&mut self, frame: Frame) -> bool {
        std::mem::take(&mut self.0[frame.index()])
    }

    fn is_dirty(&self, _frame: Frame) -> bool {
        false
    }

    fn now(&self) -> u64 {
        0
    }
}

/// Every frame is evictable and in an order as random as after a long run.
fn fill(policy: &mut dyn Policy, frames: usize) {
    let mut rng = Pcg64Mcg::seed_from_u64(1);
    let mut order: Vec<u32> = (0..frames as u32).collect();
    for at in (1..frames).rev() {
        order.swap(at, rng.random_range(0..=at));
    }
    for frame in order {
        policy.insert(Frame(frame), PageId(0));
    }
}

/// Evict one, insert it again: the policy's share of a major fault.
fn evict(c: &mut Criterion) {
    for frames in [1 << 12, 1 << 18] {
        let mut group = c.benchmark_group(format!("evict and insert, {frames} frames"));
        for entry in POLICIES {
            let mut replacement = (entry.make)(&Parameters::new(frames));
            let policy = replacement.as_policy_mut();
            fill(policy, frames);
            let mut bits = Bits(vec![false; frames]);
            group.bench_function(entry.about.name, |b| {
                b.iter(|| {
                    let frame = policy.evict(&mut bits).expect("memory is full");
                    bits.0[frame.index()] = true; // as the restarted access leaves it
                    policy.insert(black_box(frame), PageId(0));
                });
            });
        }
        group.finish();
    }
}

/// A reference: what exact LRU pays and hardware does not.
fn touch(c: &mut Criterion) {
    let mut group = c.benchmark_group("touch");
    for frames in [1 << 12, 1 << 18] {
        let mut lru = Lru::new(&Parameters::new(frames));
        fill(&mut lru, frames);
        let mut rng = Pcg64Mcg::seed_from_u64(2);
        let refs: Vec<Frame> =
            (0..1 << 16).map(|_| Frame(rng.random_range(0..frames as u32))).collect();
        let mut at = 0;
        group.bench_function(format!("lru, {frames} frames"), |b| {
            b.iter(|| {
                at = (at + 1) % refs.len();
                lru.touch(refs[at]);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, evict, touch);
criterion_main!(benches);
