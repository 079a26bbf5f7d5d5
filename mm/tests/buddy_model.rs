//! The buddy allocator and the zone against a bitmap: whatever is handed out must be free, aligned and
//! whole, a refusal must be justified, and everything must come back as it was.
//!
//! Every message names the seed; a failing case is replayed by running it alone.

use std::ops::Range;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use vellum_mm::addr::{Frame, Order};
use vellum_mm::frames::buddy::{Buddy, ORDER_MAX};
use vellum_mm::frames::zone::{Reserve, Watermarks, Zone};

/// One bit a frame, and no idea of orders.
#[derive(Clone)]
struct Bitmap {
    first: u32,
    free: Vec<bool>,
}

impl Bitmap {
    fn new(first: u32, count: usize, ranges: &[Range<u32>]) -> Bitmap {
        let free = (first..first + count as u32)
            .map(|frame| ranges.iter().any(|range| range.contains(&frame)))
            .collect();
        Bitmap { first, free }
    }

    fn count(&self) -> usize {
        self.free.iter().filter(|&&free| free).count()
    }

    /// The aligned runs of this order that are free as a whole.
    fn whole_runs(&self, order: Order) -> usize {
        let length = 1 << order;
        let aligned = (self.first as usize).next_multiple_of(length) - self.first as usize;
        let body = self.free.get(aligned..).unwrap_or(&[]);
        body.chunks_exact(length).filter(|run| run.iter().all(|&free| free)).count()
    }

    fn set(&mut self, run: Frame, order: Order, free: bool) {
        let start = (run.0 - self.first) as usize;
        for frame in &mut self.free[start..start + (1 << order)] {
            assert_ne!(*frame, free, "a frame of {run:?} of order {order}");
            *frame = free;
        }
    }
}

/// A buddy over `count` frames from `first`, with these ranges added.
fn buddy_of(first: u32, count: usize, ranges: &[Range<u32>]) -> Buddy {
    let mut buddy = Buddy::new(Frame(first), count);
    for range in ranges {
        buddy.add(Frame(range.start)..Frame(range.end));
    }
    buddy
}

/// A memory map of one range.
fn only(range: Range<u32>) -> Vec<Range<u32>> {
    std::iter::once(range).collect()
}

/// Disjoint ranges within `first..first + count`, in random order.
fn random_ranges(rng: &mut Pcg64Mcg, first: u32, count: usize) -> Vec<Range<u32>> {
    let limit = first + count as u32;
    let mut cuts: Vec<u32> = (0..6).map(|_| rng.random_range(first..=limit)).collect();
    cuts.extend([first, limit]);
    cuts.sort_unstable();
    let mut ranges: Vec<_> = cuts.windows(2).map(|pair| pair[0]..pair[1]).collect();
    ranges.retain(|_| rng.random_bool(0.7));
    for at in (1..ranges.len()).rev() {
        ranges.swap(at, rng.random_range(0..=at));
    }
    ranges
}

/// What must hold of a buddy whose free frames are those of `model`.
fn check(buddy: &Buddy, model: &Bitmap, context: &str) {
    buddy.check_invariants();
    assert_eq!(buddy.free_frames(), model.count(), "{context}");
    let listed: usize = (0..=ORDER_MAX).map(|order| buddy.free_runs(order) << order).sum();
    assert_eq!(listed, model.count(), "{context}: the free runs hold all free frames");
}

#[test]
fn random_operations_agree_with_a_bitmap() {
    for seed in 0..300 {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let first = rng.random_range(0..3000);
        let count = rng.random_range(1..3000);
        let ranges = random_ranges(&mut rng, first, count);
        let mut buddy = buddy_of(first, count, &ranges);
        let mut model = Bitmap::new(first, count, &ranges);
        let mut used: Vec<(Frame, Order)> = Vec::new();
        // Lean towards filling, then towards emptying, so that both ends are reached.
        for step in 0..400 {
            let context = format!("seed {seed}, step {step}");
            let filling = step / 100 % 2 == 0;
            if used.is_empty() || rng.random_bool(if filling { 0.7 } else { 0.3 }) {
                let order = rng.random_range(0..=ORDER_MAX).min(rng.random_range(0..=ORDER_MAX));
                match buddy.alloc(order) {
                    Some(run) => {
                        assert_eq!(run.0 % (1 << order), 0, "{context}: {run:?}, order {order}");
                        model.set(run, order, false);
                        used.push((run, order));
                    }
                    None => assert_eq!(model.whole_runs(order), 0, "{context}: order {order}"),
                }
            } else {
                let (run, order) = used.swap_remove(rng.random_range(0..used.len()));
                if order > 0 && rng.random_bool(0.2) {
                    let into = rng.random_range(0..order);
                    buddy.split(run, order, into);
                    let parts = (0..1 << order).step_by(1 << into);
                    used.extend(parts.map(|part| (Frame(run.0 + part), into)));
                } else {
                    buddy.free(run, order);
                    model.set(run, order, true);
                }
            }
            if step % 16 == 0 {
                check(&buddy, &model, &context);
            }
        }
        check(&buddy, &model, &format!("seed {seed}"));
    }
}

#[test]
fn all_frames_come_back_as_the_runs_they_were() {
    for seed in 0..100 {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let first = rng.random_range(0..2000);
        let count = rng.random_range(1..5000);
        let ranges = random_ranges(&mut rng, first, count);
        let mut buddy = buddy_of(first, count, &ranges);
        let whole = Bitmap::new(first, count, &ranges);
        let orders: Vec<Order> = (0..=ORDER_MAX).rev().collect();

        let mut used = Vec::new();
        while buddy.free_frames() > 0 {
            let order = orders[rng.random_range(0..orders.len())];
            used.extend(buddy.alloc(order).map(|run| (run, order)));
        }
        while !used.is_empty() {
            let (run, order) = used.swap_remove(rng.random_range(0..used.len()));
            buddy.free(run, order);
        }
        check(&buddy, &whole, &format!("seed {seed}"));
        // The longest runs that alignment and holes allow, each counted in the longer ones too.
        let mut runs = 0;
        for order in orders {
            runs = 2 * runs + buddy.free_runs(order);
            assert_eq!(runs, whole.whole_runs(order), "seed {seed}, order {order}");
        }
    }
}

/// Visits every state that allocations of orders 0, 1 and 2 and frees can reach within `depth` steps.
fn explore(buddy: &Buddy, model: &Bitmap, used: &[(Frame, Order)], depth: usize) -> usize {
    check(buddy, model, &format!("in use: {used:?}"));
    if depth == 0 {
        return 1;
    }
    let mut visited = 1;
    for order in 0..=2 {
        let (mut buddy, mut model) = (buddy.clone(), model.clone());
        if let Some(run) = buddy.alloc(order) {
            model.set(run, order, false);
            let used = [used, &[(run, order)]].concat();
            visited += explore(&buddy, &model, &used, depth - 1);
        } else {
            assert_eq!(model.whole_runs(order), 0, "order {order}, in use: {used:?}");
        }
    }
    for at in 0..used.len() {
        let (mut buddy, mut model) = (buddy.clone(), model.clone());
        let mut used = used.to_vec();
        let (run, order) = used.remove(at);
        buddy.free(run, order);
        model.set(run, order, true);
        visited += explore(&buddy, &model, &used, depth - 1);
    }
    visited
}

#[test]
fn small_scopes_agree_exhaustively() {
    // Whole, misaligned at both ends, cut, and with a hole.
    for ranges in [only(0..8), only(1..7), vec![0..3, 3..8], vec![4..8, 0..4], vec![0..2, 3..8]] {
        let model = Bitmap::new(0, 8, &ranges);
        let visited = explore(&buddy_of(0, 8, &ranges), &model, &[], 8);
        assert!(visited > 10_000, "only {visited} states of {ranges:?}");
    }
}

#[test]
fn many_frames_at_once_are_those_that_one_by_one_would_be() {
    for seed in 0..200 {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let first = rng.random_range(0..3000);
        let count = rng.random_range(1..3000);
        let ranges = random_ranges(&mut rng, first, count);
        let mut single = buddy_of(first, count, &ranges);
        let mut batch = single.clone();
        let mut used: Vec<Frame> = Vec::new();
        for step in 0..100 {
            let context = format!("seed {seed}, step {step}");
            let many = rng.random_range(0..100);
            if rng.random_bool(0.5) {
                let one_by_one: Vec<_> = (0..many).map_while(|_| single.alloc(0)).collect();
                let held = used.len();
                let taken = batch.alloc_frames(many, |frame| used.push(frame));
                assert_eq!(
                    (taken, &used[held..]),
                    (one_by_one.len(), &one_by_one[..]),
                    "{context}"
                );
            } else {
                // From anywhere, mostly in order: some make runs and some do not.
                let start = rng.random_range(0..=used.len());
                let end = used.len().min(start + many);
                let mut freed: Vec<_> = used.drain(start..end).collect();
                match rng.random_range(0..4) {
                    0 => freed.reverse(),
                    1 if freed.len() > 1 => freed.swap(0, 1),
                    _ => freed.sort_unstable(),
                }
                for &frame in &freed {
                    single.free(frame, 0);
                }
                batch.free_each(&freed);
            }
            for order in 0..=ORDER_MAX {
                let runs = (batch.free_runs(order), single.free_runs(order));
                assert_eq!(runs.0, runs.1, "{context}: order {order}");
            }
            batch.check_invariants();
        }
        // Whatever is taken from now on is the same: the lists are in the same order.
        loop {
            let order = rng.random_range(0..3);
            let (one, other) = (single.alloc(order), batch.alloc(order));
            assert_eq!(one, other, "seed {seed}: order {order}");
            if order == 0 && one.is_none() {
                break;
            }
        }
    }
}

#[test]
fn a_zone_is_a_counter_with_a_mark() {
    for seed in 0..200 {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let count: usize = rng.random_range(8..4000);
        let cpus = rng.random_range(1..5);
        let marks = Watermarks::for_frames(count);
        let zone = Zone::new(buddy_of(0, count, &only(0..count as u32)), cpus, marks);
        let mut model = Bitmap::new(0, count, &only(0..count as u32));
        let mut used: Vec<Frame> = Vec::new();
        for step in 0..2 * count {
            let cpu = rng.random_range(0..cpus);
            let filling = (step / count).is_multiple_of(2);
            if rng.random_bool(if filling { 0.9 } else { 0.1 }) {
                let reserve = if rng.random_bool(0.1) { Reserve::Dip } else { Reserve::Keep };
                let kept = if reserve == Reserve::Keep { marks.min } else { 0 };
                let expected = count - used.len() > kept;
                let got = zone.alloc(cpu, reserve);
                // Wherever the free frames lie, only their number decides.
                assert_eq!(got.is_some(), expected, "seed {seed}, step {step}");
                if let Some(frame) = got {
                    model.set(frame, 0, false);
                    used.push(frame);
                }
            } else if !used.is_empty() {
                let frame = used.swap_remove(rng.random_range(0..used.len()));
                zone.free(cpu, frame);
                model.set(frame, 0, true);
            }
            let free = count - used.len();
            assert_eq!(zone.free_frames(), free, "seed {seed}, step {step}");
            assert_eq!(zone.below_low(), free < marks.low, "seed {seed}, step {step}");
            assert_eq!(zone.reached_high(), free >= marks.high, "seed {seed}, step {step}");
        }
        zone.check_invariants();
        for frame in used {
            zone.free(0, frame);
        }
        zone.drain();
        zone.check_invariants();
        assert_eq!(zone.free_runs(ORDER_MAX), count >> ORDER_MAX, "seed {seed}");
    }
}

#[test]
fn processors_at_once_never_share_a_frame() {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    const FRAMES: usize = 4096;
    const CPUS: u32 = 4;
    let owned: Vec<AtomicBool> = (0..FRAMES).map(|_| AtomicBool::new(false)).collect();
    let zone = Zone::new(buddy_of(0, FRAMES, &only(0..FRAMES as u32)), CPUS, Watermarks::default());
    std::thread::scope(|scope| {
        for cpu in 0..CPUS {
            let (zone, owned) = (&zone, &owned);
            scope.spawn(move || {
                let mut rng = Pcg64Mcg::seed_from_u64(u64::from(cpu));
                let mut used = Vec::new();
                for step in 0..40_000 {
                    // Together they want more than there is, so that they steal from each other.
                    if used.len() < FRAMES / 3 && rng.random_bool(0.55) {
                        if let Some(frame) = zone.alloc(cpu, Reserve::Keep) {
                            let was = owned[frame.index()].swap(true, SeqCst);
                            assert!(!was, "{frame:?} was handed out twice");
                            used.push(frame);
                        }
                    } else if !used.is_empty() {
                        let frame = used.swap_remove(rng.random_range(0..used.len()));
                        assert!(
                            owned[frame.index()].swap(false, SeqCst),
                            "{frame:?} was taken away"
                        );
                        zone.free(cpu, frame);
                    }
                    if step % 4096 == 0 {
                        zone.drain();
                    }
                }
                for frame in used {
                    owned[frame.index()].store(false, SeqCst);
                    zone.free(cpu, frame);
                }
            });
        }
    });
    assert_eq!(zone.free_frames(), FRAMES);
    zone.drain();
    zone.check_invariants();
    assert_eq!(zone.free_runs(ORDER_MAX), FRAMES >> ORDER_MAX);
}
