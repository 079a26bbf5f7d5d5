//! The heap against a list of byte ranges: whatever is handed out must be free, aligned and inside, a
//! refusal must be justified, and everything must come back as it was.
//!
//! Every message names the seed; a failing case is replayed by running it alone.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::mpsc;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use vellum_mm::addr::Frame;
use vellum_mm::slab::{Heap, Magazines};

/// Where memory is in use: its end and its alignment, by its first byte.
type InUse = BTreeMap<u64, (u64, usize)>;

/// Checks that a range is free and inside, and notes it.
fn note(in_use: &mut InUse, all: &Range<u64>, range: &Range<u64>, align: usize, context: &str) {
    assert!(all.start <= range.start && range.end <= all.end, "{context}: {range:?}");
    assert_eq!(range.start % align as u64, 0, "{context}: {range:?} aligned to {align}");
    let below = in_use.range(..range.end).next_back();
    assert!(below.is_none_or(|(_, &(end, _))| end <= range.start), "{context}: {range:?} is used");
    in_use.insert(range.start, (range.end, align));
}

/// Mostly small sizes, some pages, now and then a long run.
fn random_size(random: &mut Pcg64Mcg) -> (usize, usize) {
    let bytes = match random.random_range(0..20) {
        0 => random.random_range(8193..60_000),
        1..4 => random.random_range(1024..=8192),
        _ => random.random_range(1..1024),
    };
    let align = 1 << if random.random_bool(0.9) { 3 } else { random.random_range(0..15) };
    (bytes, align)
}

#[test]
fn a_heap_hands_out_what_is_free_and_gets_all_back() {
    for seed in 0..30 {
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let start = random.random_range(0..3000);
        let frames = Frame(start)..Frame(start + random.random_range(64..600));
        let heap = Heap::new(Frame(frames.start.0 / 2)..Frame(frames.end.0 + 5));
        heap.add(frames.clone());
        let free = heap.usage().free_frames;
        let all = frames.start.address().0..frames.end.address().0;
        let mut locals = [const { Magazines::new() }; 3];
        let mut in_use = InUse::new();
        for step in 0..2000 {
            let context = format!("seed {seed}, step {step}");
            let local = &mut locals[random.random_range(0..3)];
            // Filled for a while, then emptied for a while, twice.
            let fills = random.random_bool(if step / 500 % 2 == 0 { 0.8 } else { 0.3 });
            if fills {
                let (bytes, align) = random_size(&mut random);
                match heap.alloc(local, bytes, align) {
                    Some(at) => {
                        note(&mut in_use, &all, &(at..at + bytes as u64), align, &context);
                    }
                    // Slabs of small objects are single frames: any that is free would do.
                    None if bytes <= 256 && align <= 16 => {
                        assert_eq!(heap.usage().free_frames, 0, "{context}: {bytes} bytes");
                    }
                    None => {}
                }
            } else if !in_use.is_empty() {
                let nth = random.random_range(0..in_use.len());
                let (&at, &(end, align)) = in_use.iter().nth(nth).expect("there are so many");
                in_use.remove(&at);
                heap.free(local, at, (end - at) as usize, align);
            }
            if step % 50 == 0 {
                heap.check_invariants();
            }
        }
        for (at, (end, align)) in in_use {
            heap.free(&mut locals[0], at, (end - at) as usize, align);
        }
        for local in &mut locals {
            heap.drain(local);
        }
        assert!(locals.iter().all(Magazines::is_empty));
        heap.check_invariants();
        assert_eq!(heap.usage().free_frames, free, "seed {seed}");
    }
}

#[test]
fn threads_free_what_others_have_allocated() {
    const THREADS: usize = 4;
    let heap = Heap::new(Frame(0)..Frame(4096));
    heap.add(Frame(0)..Frame(4096));
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..THREADS).map(|_| mpsc::channel::<(u64, usize)>()).unzip();
    std::thread::scope(|scope| {
        for (seed, receiver) in (0u64..).zip(receivers) {
            let (heap, senders) = (&heap, senders.clone());
            scope.spawn(move || {
                let mut random = Pcg64Mcg::seed_from_u64(seed);
                let mut local = Magazines::new();
                for _ in 0..5000 {
                    let bytes = random.random_range(1..2000);
                    let at = heap.alloc(&mut local, bytes, 8).expect("16 MiB are enough");
                    let to = random.random_range(0..THREADS);
                    senders[to].send((at, bytes)).expect("it takes until all have sent");
                    while let Ok((at, bytes)) = receiver.try_recv() {
                        heap.free(&mut local, at, bytes, 8);
                    }
                }
                drop(senders);
                for (at, bytes) in receiver {
                    heap.free(&mut local, at, bytes, 8);
                }
                heap.drain(&mut local);
            });
        }
        drop(senders);
    });
    heap.check_invariants();
    assert_eq!(heap.usage().free_frames, 4096);
}
