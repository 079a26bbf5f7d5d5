//! MRU: evicts the frame that was used last.
//!
//! Absurd for most programs, and right for one: a loop over more pages than memory holds. What was
//! used just now will be wanted again last. LRU misses every page of such a loop, MRU only those
//! that do not fit. It is LRU turned round, and like it a stack algorithm.
//!
//! 8 bytes a frame; every operation takes constant time.

use super::board::{Board, Member};
use super::{About, Observe, PageId, Parameters, Policy, Registered, Witness};
use crate::addr::Frame;
use crate::ring::Rings;

/// Most recently used.
///
/// H.-T. Chou, D. J. `DeWitt`, "An Evaluation of Buffer Management Strategies for Relational
/// Database Systems", VLDB 1985.
pub struct Mru {
    rings: Rings,
    hottest: Option<Frame>, // a stack: each frame was used later than those behind it
    len: usize,
}

impl Registered for Mru {
    const ABOUT: About = About {
        name: "mru",
        line: "evicts the page used last: the best for a loop that does not fit, bad for the rest",
        paper: "H.-T. Chou, D. J. DeWitt, An Evaluation of Buffer Management Strategies, 1985",
        settings: &[],
    };
    const READS_BITS: bool = false;

    fn new(parameters: &Parameters) -> Mru {
        Mru { rings: Rings::new(parameters.first, parameters.frames), hottest: None, len: 0 }
    }
}

impl Policy for Mru {
    fn insert(&mut self, frame: Frame, _page: PageId) {
        self.rings.push(&mut self.hottest, frame);
        self.len += 1;
    }

    fn remove(&mut self, frame: Frame) {
        self.rings.remove(&mut self.hottest, frame);
        self.len -= 1;
    }

    fn evict(&mut self, _witness: &mut dyn Witness) -> Option<Frame> {
        let victim = self.hottest?;
        self.remove(victim);
        Some(victim)
    }

    #[inline]
    fn replace(&mut self, _page: PageId, _witness: &mut dyn Witness) -> Option<Frame> {
        // The hottest goes, and the new page is the hottest.
        self.hottest
    }

    fn show(&self, board: &mut dyn Board) {
        board.list("by last use", &mut self.rings.iter(self.hottest).map(Member::frame));
    }

    fn len(&self) -> usize {
        self.len
    }
}

impl Observe for Mru {
    #[inline]
    fn touch(&mut self, frame: Frame) {
        if self.hottest != Some(frame) && self.rings.is_linked(frame) {
            self.rings.remove(&mut self.hottest, frame);
            self.rings.push(&mut self.hottest, frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bits, Model, Step, TEXTBOOK, agrees_with, faults, includes};
    use super::*;
    use alloc::boxed::Box;
    use alloc::vec::Vec;

    #[test]
    fn the_textbook_string_faults_sixteen_times() {
        assert_eq!(faults("mru", 3, TEXTBOOK), 16);
    }

    #[test]
    fn of_a_loop_it_misses_what_does_not_fit() {
        let refs: Vec<u64> = (0..5).cycle().take(50).collect();
        // After the first lap, one page in four is missed: 4 + 1 faults, then every fourth
        // reference.
        assert_eq!(faults("mru", 4, &refs), 5 + 45 / 4);
        assert_eq!(faults("lru", 4, &refs), 50);
    }

    #[test]
    fn what_it_holds_in_less_memory_it_holds_in_more() {
        includes("mru");
    }

    #[test]
    fn a_touch_of_a_pinned_frame_is_ignored() {
        let mut mru = Mru::new(&Parameters::new(3));
        (0..3).for_each(|frame| mru.insert(Frame(frame), PageId(0)));
        mru.touch(Frame(0));
        mru.remove(Frame(1));
        mru.touch(Frame(1));
        let mut bits = Bits::new(3);
        let out: Vec<_> = core::iter::from_fn(|| mru.evict(&mut bits)).collect();
        assert_eq!(out, [Frame(0), Frame(2)]);
    }

    /// Pages in order of last use, the hottest last.
    struct Stack {
        frames: usize,
        pages: Vec<u64>,
    }

    impl Model for Stack {
        fn step(&mut self, step: Step) -> Vec<u64> {
            let (Step::Use(page) | Step::Write(page) | Step::Drop(page)) = step;
            self.pages.retain(|&held| held != page);
            let mut left = Vec::new();
            if !matches!(step, Step::Drop(_)) {
                if self.pages.len() == self.frames {
                    left.extend(self.pages.pop());
                }
                self.pages.push(page);
            }
            left
        }
    }

    #[test]
    fn it_is_a_stack_popped_at_the_hot_end() {
        agrees_with("mru", |frames| Box::new(Stack { frames, pages: Vec::new() }));
    }
}
