//! A small memory under any policy, and the comparison of policies with plain models of their papers.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::{Choice, PageId, Parameters, Replacement, Witness};
use crate::addr::Frame;

/// The string that operating-system textbooks print.
pub(super) const TEXTBOOK: &[u64] = &[7, 0, 1, 2, 0, 3, 0, 4, 2, 3, 0, 3, 2, 1, 2, 0, 1, 7, 0, 1];
/// Bélády's string, on which FIFO loses by more frames.
pub(super) const BELADY: &[u64] = &[1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5];

/// Accessed and dirty bits without a machine, and the time in references.
pub(super) struct Bits {
    pub(super) accessed: Vec<bool>,
    pub(super) dirty: Vec<bool>,
    pub(super) now: u64,
    /// How often somebody asked for an accessed bit.
    pub(super) asked: usize,
}

impl Bits {
    /// All frames below `frames` used and clean.
    pub(super) fn new(frames: usize) -> Bits {
        Bits { accessed: vec![true; frames], dirty: vec![false; frames], now: 0, asked: 0 }
    }
}

impl Witness for Bits {
    fn take_accessed(&mut self, frame: Frame) -> bool {
        self.asked += 1;
        core::mem::take(&mut self.accessed[frame.index()])
    }

    fn is_dirty(&self, frame: Frame) -> bool {
        self.dirty[frame.index()]
    }

    fn now(&self) -> u64 {
        self.now
    }

    fn launder(&mut self, frame: Frame) {
        self.dirty[frame.index()] = false;
    }
}

/// What happens to memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// A reference that reads.
    Use(u64),
    /// A reference that writes.
    Write(u64),
    /// The page is freed or pinned, if it is resident.
    Drop(u64),
}

impl Step {
    fn page(self) -> u64 {
        match self {
            Step::Use(page) | Step::Write(page) | Step::Drop(page) => page,
        }
    }
}

/// A few frames under a policy. Free frames are filled from the lowest.
pub(super) struct Memory {
    pub(super) policy: Replacement,
    pub(super) holds: Vec<Option<u64>>,
    pub(super) bits: Bits,
}

impl Memory {
    /// Empty frames under the policy that users call `spec`.
    pub(super) fn new(spec: &str, frames: usize) -> Memory {
        Memory::of_pages(spec, frames, None)
    }

    /// As `new`; the pages are the numbers below `pages`, if that is known.
    fn of_pages(spec: &str, frames: usize, pages: Option<u32>) -> Memory {
        let choice = Choice::parse(spec).expect("a registered policy");
        let policy = choice.make(&Parameters { pages, ..Parameters::new(frames) });
        Memory { policy, holds: vec![None; frames], bits: Bits::new(frames) }
    }

    /// Does a step, after which the page is used again at time `next`, and returns the pages that
    /// left memory, the victim of a fault first.
    pub(super) fn step(&mut self, step: Step, next: u64) -> Vec<u64> {
        let page = step.page();
        let resident = self.holds.iter().position(|&held| held == Some(page));
        if matches!(step, Step::Drop(_)) {
            if let Some(frame) = resident {
                self.policy.as_policy_mut().remove(Frame(frame as u32));
                self.holds[frame] = None;
            }
            return Vec::new();
        }
        self.bits.now += 1;
        let mut left = Vec::new();
        let used = resident.is_some() || self.policy.as_policy().load_is_use();
        let index = resident.unwrap_or_else(|| self.load(page, &mut left));
        let frame = Frame(index as u32);
        if used {
            self.bits.accessed[index] = true;
        }
        if resident.is_some() {
            self.policy.touch(frame);
        }
        self.bits.dirty[index] |= matches!(step, Step::Write(_));
        match &mut self.policy {
            Replacement::Foreseen(policy) => policy.foretell(frame, next),
            Replacement::Sizing(policy) => {
                if resident.is_some() {
                    policy.touch(frame, self.bits.now);
                }
                while let Some(gone) = policy.release(resident.is_none(), &mut self.bits) {
                    left.extend(self.holds[gone.index()].take());
                }
            }
            _ => {}
        }
        let period = self.policy.as_policy().period();
        if period > 0 && self.bits.now.is_multiple_of(period) {
            self.policy.as_policy_mut().tick(&mut self.bits);
        }
        let held = self.holds.iter().flatten().count();
        assert_eq!(self.policy.as_policy().len(), held, "evictable frames");
        left
    }

    fn load(&mut self, page: u64, left: &mut Vec<u64>) -> usize {
        let policy = self.policy.as_policy_mut();
        let free = self.holds.iter().position(Option::is_none);
        let index = if let Some(free) = free {
            policy.insert(Frame(free as u32), PageId(page));
            free
        } else {
            let victim = policy.replace(PageId(page), &mut self.bits);
            victim.expect("every frame is evictable").index()
        };
        left.extend(self.holds[index].replace(page));
        self.bits.accessed[index] = false;
        self.bits.dirty[index] = false;
        index
    }
}

/// For each step: the time of the next reference to its page, `u64::MAX` if there is none before the
/// page is dropped.
fn next_uses(steps: &[Step]) -> Vec<u64> {
    let mut time = steps.iter().filter(|step| !matches!(step, Step::Drop(_))).count() as u64;
    let mut coming = BTreeMap::new();
    let mut next: Vec<u64> = steps
        .iter()
        .rev()
        .map(|step| match step {
            Step::Drop(page) => coming.remove(page).map_or(u64::MAX, |_| u64::MAX),
            Step::Use(page) | Step::Write(page) => {
                let next = coming.insert(*page, time).unwrap_or(u64::MAX);
                time -= 1;
                next
            }
        })
        .collect();
    next.reverse();
    next
}

/// The pages that leave memory at each step.
pub(super) fn run(spec: &str, frames: usize, steps: &[Step]) -> Vec<Vec<u64>> {
    let mut memory = Memory::new(spec, frames);
    let next = next_uses(steps);
    steps.iter().zip(next).map(|(&step, next)| memory.step(step, next)).collect()
}

/// Faults of the policy `spec` on `frames` frames, all free at first, for a string of reads.
pub(super) fn faults(spec: &str, frames: usize, refs: &[u64]) -> usize {
    let steps: Vec<Step> = refs.iter().map(|&page| Step::Use(page)).collect();
    let mut memory = Memory::new(spec, frames);
    let mut faults = 0;
    for (&step, next) in steps.iter().zip(next_uses(&steps)) {
        faults += usize::from(!memory.holds.contains(&Some(step.page())));
        memory.step(step, next);
    }
    faults
}

/// A policy as its paper tells it, in the plainest way.
pub(super) trait Model {
    /// Does a step and returns the pages that left memory, the victim of a fault first.
    fn step(&mut self, step: Step) -> Vec<u64>;
}

/// Compares the policy `spec` with a model, made for a number of frames: thousands of random strings
/// with writes and with pages leaving in between, and all short ones.
pub(super) fn agrees_with(spec: &str, model: fn(usize) -> Box<dyn Model>) {
    for seed in 0..3000 {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let frames = rng.random_range(1..12);
        let pages = rng.random_range(1..3 * frames as u64 + 2);
        let drops = [0.0, 0.03, 0.3][rng.random_range(0..3)];
        let skewed = rng.random_bool(0.5);
        let steps: Vec<Step> = (0..200)
            .map(|_| {
                let any = rng.random_range(0..pages);
                // Multiplying makes low pages hot, as programs have hot pages.
                let page = if skewed { any * rng.random_range(0..pages) / pages } else { any };
                match rng.random_bool(drops) {
                    true => Step::Drop(page),
                    false if rng.random_bool(0.3) => Step::Write(page),
                    false => Step::Use(page),
                }
            })
            .collect();
        agree(spec, frames, &steps, model(frames), &format!("seed {seed}"));
    }
    for code in 0..4_u32.pow(8) {
        let steps: Vec<Step> =
            (0..8).map(|at| Step::Use(u64::from(code >> (2 * at) & 3))).collect();
        agree(spec, 3, &steps, model(3), "exhaustively");
    }
    // Each step uses or drops one of three pages, in two frames: 6^6 strings.
    for mut code in 0..6_u64.pow(6) {
        let mut steps = [Step::Use(0); 6];
        for step in &mut steps {
            let page = code % 3;
            *step = if code % 6 < 3 { Step::Use(page) } else { Step::Drop(page) };
            code /= 6;
        }
        agree(spec, 2, &steps, model(2), "exhaustively");
    }
}

fn agree(spec: &str, frames: usize, steps: &[Step], mut model: Box<dyn Model>, context: &str) {
    let left = run(spec, frames, steps);
    for (at, (&step, got)) in steps.iter().zip(left).enumerate() {
        let expected = model.step(step);
        assert_eq!(got, expected, "{spec}, {frames} frames, {context}, step {at}: {steps:?}");
    }
}

/// The pages that a policy holds in some frames it holds in more, after every reference of many random
/// strings.
pub(super) fn includes(spec: &str) {
    for seed in 0..500 {
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let pages = rng.random_range(2..20_u32);
        let mut below = || u64::from(rng.random_range(0..pages));
        let steps: Vec<Step> =
            (0..200).map(|_| Step::Use(below() * below() / u64::from(pages))).collect();
        let memory = |frames| Memory::of_pages(spec, frames, Some(pages));
        let mut sizes: Vec<Memory> = (1..10).map(memory).collect();
        for (at, (&step, next)) in steps.iter().zip(next_uses(&steps)).enumerate() {
            for memory in &mut sizes {
                memory.step(step, next);
            }
            for pair in sizes.windows(2) {
                let held = |memory: &Memory, page| memory.holds.contains(&Some(page));
                let small = pair[0].holds.iter().flatten();
                let lost: Vec<_> = small.filter(|&&page| !held(&pair[1], page)).collect();
                assert!(lost.is_empty(), "{spec}, seed {seed}, step {at}: {lost:?} only in less");
            }
        }
    }
}
