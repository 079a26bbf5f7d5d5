//! Replacement policies against obvious ones: a queue of pages, searched from end to end.
//!
//! Policies and models see the same references and the same pages leaving in between, and must evict
//! the same pages; random strings with the seed in every message, and all short ones.

use std::collections::VecDeque;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use vellum_mm::addr::Frame;
use vellum_mm::replace::{PageId, Parameters, Replacement, Witness, by_name};

struct Bits(Vec<bool>);

impl Witness for Bits {
    fn take_accessed(&mut self, frame: Frame) -> bool {
        std::mem::take(&mut self.0[frame.index()])
    }

    fn is_dirty(&self, _frame: Frame) -> bool {
        false
    }
}

/// What happens to memory.
#[derive(Clone, Copy, Debug)]
enum Step {
    Use(u64),
    /// The page is freed or pinned, if it is resident.
    Drop(u64),
}

/// A few frames under a policy.
struct Memory {
    policy: Replacement,
    holds: Vec<Option<u64>>,
    bits: Bits,
}

impl Memory {
    fn new(name: &str, frames: usize) -> Memory {
        let entry = by_name(name).expect("a registered policy");
        let policy = (entry.make)(&Parameters::new(frames));
        Memory { policy, holds: vec![None; frames], bits: Bits(vec![false; frames]) }
    }

    fn frame_of(&self, page: u64) -> Option<usize> {
        self.holds.iter().position(|&held| held == Some(page))
    }

    /// Does a step and returns the page that was evicted for it.
    fn step(&mut self, step: Step) -> Option<u64> {
        let mut evicted = None;
        match step {
            Step::Use(page) => {
                let frame = if let Some(frame) = self.frame_of(page) {
                    self.policy.touch(Frame(frame as u32));
                    frame
                } else {
                    let free = self.holds.iter().position(Option::is_none);
                    let policy = self.policy.as_policy_mut();
                    let frame = free.unwrap_or_else(|| {
                        policy.evict(&mut self.bits).expect("every frame is evictable").index()
                    });
                    evicted = self.holds[frame].replace(page);
                    policy.insert(Frame(frame as u32), PageId(page));
                    frame
                };
                self.bits.0[frame] = true;
            }
            Step::Drop(page) => {
                if let Some(frame) = self.frame_of(page) {
                    self.policy.as_policy_mut().remove(Frame(frame as u32));
                    self.holds[frame] = None;
                }
            }
        }
        let held = self.holds.iter().flatten().count();
        assert_eq!(self.policy.as_policy().len(), held, "evictable frames");
        evicted
    }

    fn resident(&self) -> Vec<u64> {
        let mut pages: Vec<u64> = self.holds.iter().flatten().copied().collect();
        pages.sort_unstable();
        pages
    }
}

/// A policy as textbooks tell it: a queue of pages, the next victim in front, each with its bit.
struct Model {
    name: &'static str,
    frames: usize,
    queue: VecDeque<(u64, bool)>,
}

impl Model {
    fn step(&mut self, step: Step) -> Option<u64> {
        match step {
            Step::Drop(page) => {
                self.queue.retain(|&(held, _)| held != page);
                None
            }
            Step::Use(page) => {
                let at = self.queue.iter().position(|&(held, _)| held == page);
                let mut evicted = None;
                match (self.name, at) {
                    ("lru", Some(at)) => {
                        let used = self.queue.remove(at).expect("it was found there");
                        self.queue.push_back(used);
                    }
                    (_, Some(at)) => self.queue[at].1 = true,
                    (_, None) => {
                        if self.queue.len() == self.frames {
                            evicted = Some(self.evict());
                        }
                        self.queue.push_back((page, true));
                    }
                }
                evicted
            }
        }
    }

    fn evict(&mut self) -> u64 {
        loop {
            let (page, used) = self.queue.pop_front().expect("memory is full");
            if self.name != "clock" || !used {
                return page;
            }
            self.queue.push_back((page, false));
        }
    }
}

const MODELLED: [&str; 3] = ["fifo", "clock", "lru"];

fn agree(name: &'static str, frames: usize, steps: &[Step], context: &str) {
    let mut memory = Memory::new(name, frames);
    let mut model = Model { name, frames, queue: VecDeque::new() };
    for (at, &step) in steps.iter().enumerate() {
        let (got, expected) = (memory.step(step), model.step(step));
        assert_eq!(got, expected, "{name}, {frames} frames, {context}, step {at}: {steps:?}");
    }
}

#[test]
fn random_strings_with_pages_leaving_agree_with_a_queue() {
    for seed in 0..3000 {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let frames = rng.random_range(1..12);
        let pages = rng.random_range(1..2 * frames as u64 + 2);
        let drops = [0.0, 0.05, 0.4][rng.random_range(0..3)];
        let steps: Vec<Step> = (0..200)
            .map(|_| {
                let page = rng.random_range(0..pages);
                if rng.random_bool(drops) { Step::Drop(page) } else { Step::Use(page) }
            })
            .collect();
        for name in MODELLED {
            agree(name, frames, &steps, &format!("seed {seed}"));
        }
    }
}

#[test]
fn all_strings_of_eight_over_four_pages_agree() {
    for code in 0..4_u32.pow(8) {
        let steps: Vec<Step> =
            (0..8).map(|at| Step::Use(u64::from(code >> (2 * at) & 3))).collect();
        for name in MODELLED {
            agree(name, 3, &steps, "exhaustively");
        }
    }
}

#[test]
fn all_short_strings_with_pages_leaving_agree() {
    // Each step uses or drops one of three pages, in two frames: 6^6 strings.
    for mut code in 0..6_u64.pow(6) {
        let mut steps = [Step::Use(0); 6];
        for step in &mut steps {
            let page = code % 3;
            *step = if code % 6 < 3 { Step::Use(page) } else { Step::Drop(page) };
            code /= 6;
        }
        for name in MODELLED {
            agree(name, 2, &steps, "exhaustively");
        }
    }
}

#[test]
fn what_lru_holds_in_less_memory_it_holds_in_more() {
    for seed in 0..500 {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let pages = rng.random_range(2..20);
        let mut sizes: Vec<Memory> = (1..10).map(|frames| Memory::new("lru", frames)).collect();
        for at in 0..200 {
            // Squaring makes low pages hot, as programs have hot pages.
            let page = rng.random_range(0..pages) * rng.random_range(0..pages) / pages;
            for memory in &mut sizes {
                memory.step(Step::Use(page));
            }
            for pair in sizes.windows(2) {
                let (small, large) = (pair[0].resident(), pair[1].resident());
                let included = small.iter().all(|page| large.contains(page));
                assert!(included, "seed {seed}, reference {at}: {small:?} not in {large:?}");
            }
        }
    }
}

#[test]
fn random_never_evicts_what_is_not_there() {
    // No model knows its choice; the assertions of `step` and the count of pages hold all the same.
    for seed in 0..300 {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let mut memory = Memory::new("random", 7);
        for _ in 0..300 {
            let page = rng.random_range(0..15);
            if rng.random_bool(0.2) {
                memory.step(Step::Drop(page));
            } else {
                let before = memory.resident();
                let evicted = memory.step(Step::Use(page));
                let full = before.len() == 7 && !before.contains(&page);
                assert_eq!(evicted.is_some(), full, "seed {seed}");
                assert!(evicted.is_none_or(|page| before.contains(&page)), "seed {seed}");
                assert!(memory.resident().contains(&page), "seed {seed}");
            }
        }
    }
}
