//! SIEVE: a queue that a hand sifts, keeping what was used where it is.
//!
//! Like Clock, it asks one bit a page. Unlike Clock, it does not move the page that it spares: new
//! pages enter at one end, and the hand walks from the oldest to them, clearing bits and evicting
//! the first page without one. So pages that are used gather behind the hand, and new ones are
//! judged soon after they come: most are not worth keeping, and they leave before they cost a
//! better page.
//!
//! ```text
//!     oldest ▸ f4  f1  f7  f2  f9 ◂ newest
//!                       ▲ hand ──▶        f7 used: bit cleared, stays; f2 not used: evicted
//! ```
//!
//! A page is loaded without its bit where bits are kept in software. Hardware loads it with its
//! bit, which gives every page one more pass of the hand.
//!
//! 8 bytes a frame; constant time, but for the walk, which clears a bit with every step.

use super::board::{Board, Member};
use super::{About, PageId, Parameters, Policy, Registered, Witness};
use crate::addr::Frame;
use crate::ring::Rings;

/// SIEVE.
///
/// Y. Zhang, J. Yang, Y. Yue, Y. Vigfusson, K. V. Rashmi, "SIEVE is Simpler than LRU: an Efficient
/// Turn-Key Eviction Algorithm for Web Caches", NSDI 2024.
pub struct Sieve {
    rings: Rings,
    oldest: Option<Frame>, // ring in order of insertion
    hand: Option<Frame>,   // the next to judge; if none, the oldest
    len: usize,
}

impl Registered for Sieve {
    const ABOUT: About = About {
        name: "sieve",
        line: "sifts pages from old to new and evicts the first one unused, moving none",
        paper: "Y. Zhang et al., SIEVE is Simpler than LRU, NSDI 2024",
        settings: &[],
    };

    fn new(parameters: &Parameters) -> Sieve {
        let rings = Rings::new(parameters.first, parameters.frames);
        Sieve { rings, oldest: None, hand: None, len: 0 }
    }
}

impl Sieve {
    /// The next newer frame, where the hand goes from `frame`; from the newest it starts anew, with
    /// whichever is the oldest then.
    #[inline]
    fn newer(&self, frame: Frame) -> Option<Frame> {
        let next = self.rings.next(frame);
        (Some(next) != self.oldest).then_some(next)
    }

    /// The frame where the hand comes to rest: one that is not in use.
    #[inline(always)]
    fn sift(&self, witness: &mut dyn Witness) -> Option<Frame> {
        let mut candidate = self.hand.or(self.oldest)?;
        // One lap clears every bit. On a busy machine the frame where it started may be in use
        // again; it goes anyway, so that the search ends.
        for _ in 0..self.len {
            if !witness.take_accessed(candidate) {
                break;
            }
            candidate = self.rings.next(candidate);
        }
        Some(candidate)
    }
}

impl Policy for Sieve {
    #[inline]
    fn insert(&mut self, frame: Frame, _page: PageId) {
        self.rings.insert_before(&mut self.oldest, frame);
        self.len += 1;
    }

    #[inline]
    fn remove(&mut self, frame: Frame) {
        if self.hand == Some(frame) {
            self.hand = self.newer(frame);
        }
        self.rings.remove(&mut self.oldest, frame);
        self.len -= 1;
    }

    fn evict(&mut self, witness: &mut dyn Witness) -> Option<Frame> {
        let victim = self.sift(witness)?;
        self.hand = Some(victim);
        self.remove(victim);
        Some(victim)
    }

    #[inline(always)]
    fn replace(&mut self, _page: PageId, witness: &mut dyn Witness) -> Option<Frame> {
        let victim = self.sift(witness)?;
        let hand = self.newer(victim);
        self.rings.make_last(&mut self.oldest, victim);
        self.hand = hand;
        Some(victim)
    }

    fn load_is_use(&self) -> bool {
        false
    }

    fn show(&self, board: &mut dyn Board) {
        let hand = self.hand.or(self.oldest);
        let member = |frame| Member::frame(frame).with_hand("hand", hand == Some(frame));
        board.list("queue", &mut self.rings.iter(self.oldest).map(member));
    }

    fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bits, Model, Step, TEXTBOOK, agrees_with, faults};
    use super::*;
    use alloc::boxed::Box;
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn the_textbook_string_faults_eleven_times() {
        assert_eq!(faults("sieve", 3, TEXTBOOK), 11);
    }

    #[test]
    fn it_keeps_pages_that_are_used_from_new_ones_that_are_not() {
        // Each of five pages is used twice, again after ten new ones that are used once.
        let refs: Vec<u64> =
            (0..300).flat_map(|at| [at % 5, at % 5, 100 + at, 1000 + at]).collect();
        assert_eq!(faults("lru", 8, &refs), 900, "it forgets the five each time");
        assert_eq!(faults("sieve", 8, &refs), 605, "each of the five faults once");
    }

    #[test]
    fn a_spared_frame_keeps_its_place() {
        let mut sieve = Sieve::new(&Parameters::new(4));
        (0..4).for_each(|frame| sieve.insert(Frame(frame), PageId(0)));
        let mut bits = Bits::new(4);
        bits.accessed = vec![true, false, true, false];
        assert_eq!(sieve.evict(&mut bits), Some(Frame(1)));
        assert_eq!(sieve.evict(&mut bits), Some(Frame(3)), "f2 was used, and the hand passed it");
        sieve.insert(Frame(1), PageId(0));
        assert_eq!(sieve.evict(&mut bits), Some(Frame(0)), "at the newest, the hand starts anew");
    }

    /// A row of pages with bits, the newest first, as the paper draws it.
    struct Row {
        frames: usize,
        row: Vec<(u64, bool)>,
        hand: Option<u64>, // a page
    }

    impl Row {
        fn place(&self, page: u64) -> Option<usize> {
            self.row.iter().position(|&(held, _)| held == page)
        }

        /// Moves the hand from the page at `place` on, and takes that page out.
        fn take(&mut self, place: usize) -> u64 {
            self.hand = place.checked_sub(1).map(|newer| self.row[newer].0);
            self.row.remove(place).0
        }
    }

    impl Model for Row {
        fn step(&mut self, step: Step) -> Vec<u64> {
            let (Step::Use(page) | Step::Write(page) | Step::Drop(page)) = step;
            let place = self.place(page);
            if matches!(step, Step::Drop(_)) {
                if self.hand == Some(page) {
                    self.take(place.expect("the hand is at a page that is held"));
                } else {
                    self.row.retain(|&(held, _)| held != page);
                }
                return Vec::new();
            }
            if let Some(place) = place {
                self.row[place].1 = true;
                return Vec::new();
            }
            let mut left = Vec::new();
            if self.row.len() == self.frames {
                let last = self.row.len() - 1;
                let mut at = self.hand.map_or(last, |hand| self.place(hand).expect("held"));
                while self.row[at].1 {
                    self.row[at].1 = false;
                    at = at.checked_sub(1).unwrap_or(last);
                }
                left.push(self.take(at));
            }
            self.row.insert(0, (page, false));
            left
        }
    }

    #[test]
    fn it_is_a_row_with_a_hand() {
        agrees_with("sieve", |frames| Box::new(Row { frames, row: Vec::new(), hand: None }));
    }
}
