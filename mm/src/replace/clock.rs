//! Clock, or second chance: FIFO that spares a frame used since the hand last passed it.
//!
//! The frames lie in a circle with a hand. To find a victim the hand walks: a frame whose accessed bit
//! is set loses the bit and is passed, one without it is evicted. It needs no more than hardware
//! gives, so it and its descendants run real machines.
//!
//! ```text
//!          hand
//!           ▼
//!     ⋯ f4  f1  f7  f2 ⋯      f1 used: spared, bit cleared; f7 not used: evicted; next: f2
//! ```
//!
//! If all frames are used between two evictions, it is FIFO. A page is loaded with its bit set, so it
//! outlives the first pass of the hand in any case.
//!
//! 8 bytes a frame; constant time, but for `evict`, whose walk clears a bit with every step: over many
//! evictions it takes as many steps as frames were used.

use super::board::{Board, Member};
use super::{About, PageId, Parameters, Policy, Registered, Setting, Witness};
use crate::addr::Frame;
use crate::ring::Rings;

const R: Setting = Setting {
    name: "r",
    line: "accessed bit of a page when it is loaded, where bits are kept in software",
    default: 1,
    range: 0..=1,
};

/// Clock, or second chance.
///
/// F. J. Corbató, "A Paging Experiment with the Multics System", MIT Project MAC, 1968.
pub struct Clock {
    rings: Rings,
    hand: Option<Frame>, // the next frame to judge
    len: usize,
    first: Frame,
    /// Whether the ring is the frames from `first` on in order of their numbers, as it is while
    /// memory is filled from below and pages replace each other in place.
    in_order: bool,
    load_is_use: bool,
}

impl Registered for Clock {
    const ABOUT: About = About {
        name: "clock",
        line: "evicts in order of loading, but spares a page used since the hand last passed it",
        paper: "F. J. Corbató, A Paging Experiment with the Multics System, 1968",
        settings: &[R],
    };

    fn new(parameters: &Parameters) -> Clock {
        Clock {
            rings: Rings::new(parameters.first, parameters.frames),
            hand: None,
            len: 0,
            first: parameters.first,
            in_order: true,
            load_is_use: parameters.settings.get(&R) == 1,
        }
    }
}

impl Clock {
    /// The frame to be evicted, to which the hand turns, and the one after it.
    ///
    /// One lap clears every bit, so on a quiet machine the hand ends on an unused frame. On a busy one
    /// that frame may be in use again; it goes anyway, so that the search ends.
    #[inline(always)]
    fn turn(&self, hand: Frame, witness: &mut dyn Witness) -> [Frame; 2] {
        if !self.in_order {
            return self.walk(hand, witness);
        }
        // The frames ahead of the hand have the next numbers: their bits are taken in runs.
        let (first, ahead) = (self.first, self.len - (hand.0 - self.first.0) as usize);
        let used = witness.take_accessed_run(hand, ahead);
        if used < ahead {
            let victim = Frame(hand.0 + used as u32);
            return [victim, if used + 1 == ahead { first } else { Frame(victim.0 + 1) }];
        }
        // Around: if all are used, it is the one where the lap began.
        let used = witness.take_accessed_run(first, self.len - ahead);
        let victim = Frame(first.0 + used as u32);
        [victim, self.rings.next(victim)]
    }

    /// The same along the ring.
    #[cold]
    fn walk(&self, hand: Frame, witness: &mut dyn Witness) -> [Frame; 2] {
        let mut victim = hand;
        for _ in 0..self.len {
            if !witness.take_accessed(victim) {
                break;
            }
            victim = self.rings.next(victim);
        }
        [victim, self.rings.next(victim)]
    }
}

impl Policy for Clock {
    fn insert(&mut self, frame: Frame, _page: PageId) {
        // Just behind the hand: a newcomer has one full lap to be used before it is judged.
        self.rings.insert_before(&mut self.hand, frame);
        self.in_order &= frame.0 == self.first.0 + self.len as u32 && self.hand == Some(self.first);
        self.len += 1;
    }

    fn remove(&mut self, frame: Frame) {
        self.rings.remove(&mut self.hand, frame);
        self.len -= 1;
        self.in_order = self.len == 0;
    }

    fn evict(&mut self, witness: &mut dyn Witness) -> Option<Frame> {
        let [victim, _] = self.turn(self.hand?, witness);
        self.hand = Some(victim);
        self.remove(victim);
        Some(victim)
    }

    #[inline(always)]
    fn replace(&mut self, _page: PageId, witness: &mut dyn Witness) -> Option<Frame> {
        // The new page takes the place of the old one: just behind the hand, once that moves on.
        let [victim, next] = self.turn(self.hand?, witness);
        self.hand = Some(next);
        Some(victim)
    }

    #[inline]
    fn load_is_use(&self) -> bool {
        self.load_is_use
    }

    fn show(&self, board: &mut dyn Board) {
        let hand = |frame| Member::frame(frame).with_hand("hand", self.hand == Some(frame));
        board.list("circle", &mut self.rings.iter(self.hand).map(hand));
    }

    fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{BELADY, Bits, Model, Step, TEXTBOOK, agrees_with, faults};
    use super::*;
    use alloc::boxed::Box;
    use alloc::collections::VecDeque;
    use alloc::vec;
    use alloc::vec::Vec;

    fn clock_of(frames: u32) -> Clock {
        let mut clock = Clock::new(&Parameters::new(frames as usize));
        (0..frames).for_each(|frame| clock.insert(Frame(frame), PageId(0)));
        clock
    }

    #[test]
    fn the_textbook_string_faults_between_lru_and_fifo() {
        assert_eq!(faults("clock", 3, TEXTBOOK), 14);
    }

    #[test]
    fn it_inherits_the_anomaly_of_fifo() {
        assert_eq!(faults("clock", 3, BELADY), 9);
        assert_eq!(faults("clock", 4, BELADY), 10);
    }

    #[test]
    fn the_hand_spares_a_used_frame_once() {
        let mut clock = clock_of(3);
        let mut bits = Bits::new(3);
        bits.accessed[1] = false;
        assert_eq!(clock.evict(&mut bits), Some(Frame(1)));
        assert_eq!(bits.accessed, [false, false, true], "the hand stopped before f2");
        // f2 is spared for its bit; f0 has had its chance.
        assert_eq!(clock.evict(&mut bits), Some(Frame(0)));
        assert_eq!(clock.evict(&mut bits), Some(Frame(2)));
    }

    #[test]
    fn a_frame_that_is_always_in_use_still_goes_in_the_end() {
        struct Busy(usize);
        impl Witness for Busy {
            fn take_accessed(&mut self, _frame: Frame) -> bool {
                self.0 += 1;
                true
            }
            fn is_dirty(&self, _frame: Frame) -> bool {
                false
            }
            fn now(&self) -> u64 {
                0
            }
        }
        let mut busy = Busy(0);
        assert_eq!(clock_of(5).evict(&mut busy), Some(Frame(0)));
        assert_eq!(busy.0, 5, "one lap and no more");
    }

    #[test]
    fn the_hand_passes_on_when_its_frame_is_removed() {
        let mut clock = clock_of(3);
        clock.remove(Frame(0));
        let mut bits = Bits::new(3);
        bits.accessed.fill(false);
        assert_eq!(clock.evict(&mut bits), Some(Frame(1)));
    }

    /// A queue of pages with bits: the front goes, or to the back without its bit.
    struct SecondChance {
        frames: usize,
        loaded: bool,
        queue: VecDeque<(u64, bool)>,
    }

    impl Model for SecondChance {
        fn step(&mut self, step: Step) -> Vec<u64> {
            let page = match step {
                Step::Drop(page) => {
                    self.queue.retain(|&(held, _)| held != page);
                    return Vec::new();
                }
                Step::Use(page) | Step::Write(page) => page,
            };
            if let Some(held) = self.queue.iter_mut().find(|(held, _)| *held == page) {
                held.1 = true;
                return Vec::new();
            }
            let mut left = Vec::new();
            while left.is_empty() && self.queue.len() == self.frames {
                match self.queue.pop_front().expect("memory is full") {
                    (page, true) => self.queue.push_back((page, false)),
                    (page, false) => left = vec![page],
                }
            }
            self.queue.push_back((page, self.loaded));
            left
        }
    }

    #[test]
    fn it_is_a_queue_with_second_chances() {
        agrees_with("clock", |frames| {
            Box::new(SecondChance { frames, loaded: true, queue: VecDeque::new() })
        });
        agrees_with("clock:r=0", |frames| {
            Box::new(SecondChance { frames, loaded: false, queue: VecDeque::new() })
        });
    }
}
