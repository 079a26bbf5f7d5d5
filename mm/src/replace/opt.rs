//! OPT: evicts the page whose next use is farthest away.
//!
//! No policy can fault less on a string that it must serve page by page, so it is the bound by which
//! the others are judged. It needs the future: it can be driven on a recorded string only. Like LRU it
//! is a stack algorithm.
//!
//! The frames lie in a heap with the farthest next use on top. 36 bytes a frame; every operation takes at
//! most a few times log4 of their number in steps. Where only the number of faults is wanted, there is a
//! faster way that needs no future at all: see the curves of the lab.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use super::board::{Board, Member};
use super::heap::Heap;
use super::{About, Foresee, PageId, Parameters, Policy, Registered, Witness};
use crate::addr::Frame;

/// Bélády's MIN. Pages that are never used again go first; of several, the one with the
/// highest number: an order that depends on frames would make it no stack algorithm.
///
/// L. A. Belady, "A Study of Replacement Algorithms for a Virtual-Storage Computer", IBM Systems
/// Journal 5(2), 1966.
pub struct Opt {
    heap: Heap,       // those to go first on top
    next: Box<[u64]>, // by frame: time of its next use, `u64::MAX` for never
    pages: Box<[PageId]>,
    len: usize,
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
            heap: Heap::new(frames),
            next: vec![0; frames].into_boxed_slice(),
            pages: vec![PageId(0); frames].into_boxed_slice(),
            len: 0,
            first,
        }
    }
}

impl Opt {
    fn index_of(&self, frame: Frame) -> u32 {
        let index = frame.0.wrapping_sub(self.first.0);
        let count = self.next.len();
        assert!(
            (index as usize) < count,
            "{frame:?} is not among the {count} frames from {:?}",
            self.first
        );
        index
    }

    /// The key of a frame in the heap. Times of next uses differ and are far below 2^63; what is never
    /// used again has a lower key than all that is, the highest page the lowest.
    fn key(&self, index: u32) -> u64 {
        const HALF: u64 = u64::MAX >> 1;
        match self.next[index as usize] {
            u64::MAX => HALF - (self.pages[index as usize].0 & HALF),
            next => u64::MAX - next,
        }
    }
}

impl Policy for Opt {
    fn insert(&mut self, frame: Frame, page: PageId) {
        let index = self.index_of(frame);
        assert!(!self.heap.contains(index), "{frame:?} is evictable already");
        self.next[index as usize] = u64::MAX;
        self.pages[index as usize] = page;
        self.heap.insert(index, self.key(index));
        self.len += 1;
    }

    fn remove(&mut self, frame: Frame) {
        let index = self.index_of(frame);
        assert!(self.heap.contains(index), "{frame:?} is not evictable");
        self.heap.remove(index);
        self.len -= 1;
    }

    fn evict(&mut self, _witness: &mut dyn Witness) -> Option<Frame> {
        let (_, index) = self.heap.top()?;
        let victim = Frame(self.first.0 + index);
        self.remove(victim);
        Some(victim)
    }

    fn show(&self, board: &mut dyn Board) {
        let all = 0..self.next.len() as u32;
        let mut frames: Vec<u32> = all.filter(|&index| self.heap.contains(index)).collect();
        frames.sort_unstable_by_key(|&index| self.key(index));
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
        self.len
    }
}

impl Foresee for Opt {
    fn foretell(&mut self, frame: Frame, next: u64) {
        let index = self.index_of(frame);
        if self.heap.contains(index) {
            self.next[index as usize] = next;
            self.heap.remove(index);
            self.heap.insert(index, self.key(index));
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
