//! OPT: evicts the page whose next use is farthest away.
//!
//! No policy can fault less on a string that it must serve page by page, so it is the bound by which
//! the others are judged. It needs the future: it can be driven on a recorded string only. Like LRU it
//! is a stack algorithm.
//!
//! The frames lie in a binary heap with the farthest next use on top. 24 bytes a frame; every operation
//! takes at most log2 of their number in steps. Where only the number of faults is wanted, there is a
//! faster way that needs no future at all: see the curves of the lab.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use super::board::{Board, Member};
use super::{About, Foresee, PageId, Parameters, Policy, Registered, Witness};
use crate::addr::Frame;

/// A frame that is in no heap.
const NOWHERE: u32 = u32::MAX;

/// Bélády's MIN. Pages that are never used again go first; of several, the one with the
/// highest number: an order that depends on frames would make it no stack algorithm.
///
/// L. A. Belady, "A Study of Replacement Algorithms for a Virtual-Storage Computer", IBM Systems
/// Journal 5(2), 1966.
pub struct Opt {
    heap: Vec<u32>,     // indices of frames; no child is used later than its parent
    places: Box<[u32]>, // by frame: where it is in the heap
    next: Box<[u64]>,   // by frame: time of its next use
    pages: Box<[PageId]>,
    first: Frame,
}

impl Registered for Opt {
    const ABOUT: About = About {
        name: "opt",
        line: "evicts the page used again last, from the future: the least faults possible",
        paper: "L. A. Belady, A Study of Replacement Algorithms for a Virtual-Storage Computer, 1966",
        settings: &[],
    };
    const READS_BITS: bool = false;

    fn new(parameters: &Parameters) -> Opt {
        let Parameters { first, frames, .. } = *parameters;
        assert!(frames < (u32::MAX - first.0) as usize, "frames are numbered in 32 bits");
        Opt {
            heap: Vec::with_capacity(frames),
            places: vec![NOWHERE; frames].into_boxed_slice(),
            next: vec![0; frames].into_boxed_slice(),
            pages: vec![PageId(0); frames].into_boxed_slice(),
            first,
        }
    }
}

impl Opt {
    fn index_of(&self, frame: Frame) -> u32 {
        let index = frame.0.wrapping_sub(self.first.0);
        let count = self.places.len();
        assert!(
            (index as usize) < count,
            "{frame:?} is not among the {count} frames from {:?}",
            self.first
        );
        index
    }

    /// By what frames are ordered: those with a higher key go first.
    fn key(&self, index: u32) -> (u64, PageId) {
        (self.next[index as usize], self.pages[index as usize])
    }

    /// Whether `a` goes before `b`.
    fn goes_first(&self, a: u32, b: u32) -> bool {
        self.key(a) > self.key(b)
    }

    fn put(&mut self, place: usize, index: u32) {
        self.heap[place] = index;
        self.places[index as usize] = place as u32;
    }

    /// Moves the frame at `place` to where it belongs.
    fn settle(&mut self, mut place: usize) {
        let index = self.heap[place];
        // Ends: each step halves or doubles the place.
        while place > 0 && self.goes_first(index, self.heap[(place - 1) / 2]) {
            self.put(place, self.heap[(place - 1) / 2]);
            place = (place - 1) / 2;
        }
        loop {
            let children = 2 * place + 1..(2 * place + 3).min(self.heap.len());
            let first = children
                .reduce(|a, b| if self.goes_first(self.heap[b], self.heap[a]) { b } else { a });
            match first {
                Some(child) if self.goes_first(self.heap[child], index) => {
                    self.put(place, self.heap[child]);
                    place = child;
                }
                _ => break,
            }
        }
        self.put(place, index);
    }
}

impl Policy for Opt {
    fn insert(&mut self, frame: Frame, page: PageId) {
        let index = self.index_of(frame);
        assert_eq!(self.places[index as usize], NOWHERE, "{frame:?} is evictable already");
        self.next[index as usize] = u64::MAX;
        self.pages[index as usize] = page;
        self.heap.push(index);
        self.settle(self.heap.len() - 1);
    }

    fn remove(&mut self, frame: Frame) {
        let index = self.index_of(frame);
        let place = self.places[index as usize];
        assert_ne!(place, NOWHERE, "{frame:?} is not evictable");
        self.places[index as usize] = NOWHERE;
        self.heap.swap_remove(place as usize);
        if (place as usize) < self.heap.len() {
            self.settle(place as usize);
        }
    }

    fn evict(&mut self, _witness: &mut dyn Witness) -> Option<Frame> {
        let victim = Frame(self.first.0 + self.heap.first()?);
        self.remove(victim);
        Some(victim)
    }

    fn show(&self, board: &mut dyn Board) {
        let mut frames = self.heap.clone();
        frames.sort_unstable_by_key(|&index| core::cmp::Reverse(self.key(index)));
        let mut members = frames.iter().map(|&index| {
            let member = Member::frame(Frame(self.first.0 + index));
            match self.next[index as usize] {
                u64::MAX => member.with_label("never"),
                next => member.with_count(next),
            }
        });
        board.list("next use", &mut members);
    }

    fn len(&self) -> usize {
        self.heap.len()
    }
}

impl Foresee for Opt {
    fn foretell(&mut self, frame: Frame, next: u64) {
        let index = self.index_of(frame) as usize;
        let place = self.places[index];
        if place != NOWHERE {
            self.next[index] = next;
            self.settle(place as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::POLICIES;
    use super::super::testing::{BELADY, TEXTBOOK, faults, includes};
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64Mcg;

    #[test]
    fn the_textbook_string_faults_nine_times() {
        assert_eq!(faults("opt", 3, TEXTBOOK), 9);
        assert_eq!(faults("opt", 3, BELADY), 7);
        assert_eq!(faults("opt", 4, BELADY), 6);
    }

    #[test]
    fn what_it_holds_in_less_memory_it_holds_in_more() {
        includes("opt");
    }

    /// The least faults of any sequence of victims, by trying all of them.
    fn least(frames: usize, held: &mut Vec<u64>, refs: &[u64]) -> usize {
        let Some((&page, rest)) = refs.split_first() else { return 0 };
        if held.contains(&page) {
            return least(frames, held, rest);
        }
        if held.len() < frames {
            held.push(page);
            let faults = 1 + least(frames, held, rest);
            held.pop();
            return faults;
        }
        let faults = (0..frames).map(|victim| {
            let old = core::mem::replace(&mut held[victim], page);
            let faults = 1 + least(frames, held, rest);
            held[victim] = old;
            faults
        });
        faults.min().expect("a frame")
    }

    #[test]
    fn no_sequence_of_victims_faults_less() {
        for code in 0..4_u32.pow(8) {
            let refs: Vec<u64> = (0..8).map(|at| u64::from(code >> (2 * at) & 3)).collect();
            for frames in 1..=3 {
                let expected = least(frames, &mut Vec::new(), &refs);
                assert_eq!(faults("opt", frames, &refs), expected, "{refs:?} in {frames}");
            }
        }
    }

    #[test]
    fn no_policy_faults_less() {
        for seed in 0..300 {
            let mut rng = Pcg64Mcg::seed_from_u64(seed);
            let pages = rng.random_range(1..30);
            let refs: Vec<u64> = (0..300)
                .map(|_| rng.random_range(0..pages) * rng.random_range(0..pages) / pages)
                .collect();
            let frames = rng.random_range(1..12);
            let bound = faults("opt", frames, &refs);
            for entry in POLICIES {
                let name = entry.about.name;
                assert!(faults(name, frames, &refs) >= bound, "{name}, seed {seed}");
            }
        }
    }
}
