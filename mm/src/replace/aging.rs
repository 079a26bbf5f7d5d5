//! Aging: evicts the frame with the lowest counter, into which each beat shifts its accessed bit.
//!
//! LRU for hardware that keeps one bit. A beat of the timer halves every counter and puts the
//! accessed bit on top, so that counters compare like histories, the latest beat first:
//!
//! ```text
//!     beat           1      2      3
//!     f0 used?       yes    no     yes      counter 101…
//!     f1 used?       yes    yes    no       counter 011…     goes before f0
//! ```
//!
//! Within a beat it does not know who was first, and what is shifted out is forgotten, though of
//! frames with the same counter the one with the older history still goes first. A page that is
//! loaded counts as used in the beat before and never else: 100….
//!
//! Frames of the same counter lie in a ring, and the rings in an array by counter. A beat deals
//! every frame anew, in time proportional to frames and counters; between two beats all victims
//! together pass each counter once. 10 bytes a frame, and 16 a value of the counter.

use alloc::boxed::Box;
use alloc::vec;

use super::board::{Board, Member};
use super::{About, PageId, Parameters, Policy, Registered, Setting, Witness};
use crate::addr::Frame;
use crate::ring::Rings;

const PERIOD: Setting = Setting {
    name: "period",
    line: "references between two beats that shift the counters; 0: as many as frames",
    default: 0,
    range: 0..=u64::MAX,
};

const BITS: Setting =
    Setting { name: "bits", line: "beats that a counter remembers", default: 8, range: 1..=16 };

/// Aging, or not frequently used with shifted counters.
///
/// A. S. Tanenbaum, "Modern Operating Systems", section "Simulating LRU in Software".
pub struct Aging {
    rings: Rings,
    lowest: usize,                // no frame has a lower counter
    equals: Box<[Option<Frame>]>, // by counter: ring of frames, those with the older history first
    dealt: Box<[Option<Frame>]>,  // where a beat deals to; empty else
    counters: Box<[u16]>,         // by frame
    first: Frame,
    len: usize,
    top: usize, // the bit for use in the beat before
    period: u64,
}

impl Registered for Aging {
    const ABOUT: About = About {
        name: "aging",
        line: "evicts the page with the lowest counter, which beats fill with its accessed bits",
        paper: "A. S. Tanenbaum, Modern Operating Systems, 1992",
        settings: &[PERIOD, BITS],
    };

    fn new(parameters: &Parameters) -> Aging {
        let Parameters { first, frames, .. } = *parameters;
        let period = parameters.settings.get(&PERIOD);
        let top = 1 << (parameters.settings.get(&BITS) - 1);
        Aging {
            rings: Rings::new(first, frames),
            lowest: 0,
            equals: vec![None; 2 * top].into_boxed_slice(),
            dealt: vec![None; 2 * top].into_boxed_slice(),
            counters: vec![0; frames].into_boxed_slice(),
            first,
            len: 0,
            top,
            period: if period == 0 { frames.max(1) as u64 } else { period },
        }
    }
}

impl Policy for Aging {
    fn insert(&mut self, frame: Frame, _page: PageId) {
        self.rings.insert_before(&mut self.equals[self.top], frame);
        self.counters[(frame.0 - self.first.0) as usize] = self.top as u16;
        self.lowest = self.lowest.min(self.top);
        self.len += 1;
    }

    fn remove(&mut self, frame: Frame) {
        // A frame outside is found out by the rings below, which name it.
        let index = frame.0.wrapping_sub(self.first.0) as usize;
        let counter = self.counters.get(index).copied().unwrap_or_default();
        self.rings.remove(&mut self.equals[usize::from(counter)], frame);
        self.len -= 1;
    }

    fn evict(&mut self, _witness: &mut dyn Witness) -> Option<Frame> {
        // Ends: what is looked for is in one of the rings from `lowest` on, or in none.
        while self.lowest < self.equals.len() {
            if let Some(victim) = self.equals[self.lowest] {
                self.remove(victim);
                return Some(victim);
            }
            self.lowest += 1;
        }
        None
    }

    fn tick(&mut self, witness: &mut dyn Witness) {
        for counter in self.lowest..self.equals.len() {
            // Ends: the ring gets empty. The order of dealing keeps older histories in order.
            while let Some(frame) = self.equals[counter] {
                let used = witness.take_accessed(frame);
                let shifted = counter >> 1 | if used { self.top } else { 0 };
                self.rings.remove(&mut self.equals[counter], frame);
                self.rings.insert_before(&mut self.dealt[shifted], frame);
                self.counters[(frame.0 - self.first.0) as usize] = shifted as u16;
            }
        }
        core::mem::swap(&mut self.equals, &mut self.dealt);
        self.lowest = 0;
    }

    fn period(&self) -> u64 {
        self.period
    }

    fn show(&self, board: &mut dyn Board) {
        let counters = self.equals.iter().zip(0..);
        let mut members = counters.flat_map(|(&head, counter)| {
            self.rings.iter(head).map(move |frame| Member::frame(frame).with_count(counter))
        });
        board.list("counters", &mut members);
    }

    fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bits, Memory, Model, Step, agrees_with};
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn six_frames_age_as_in_the_book() {
        // Tanenbaum's figure: six pages and their accessed bits in five beats.
        let mut aging = Aging::new(&Parameters::new(6));
        (0..6).for_each(|frame| aging.insert(Frame(frame), PageId(0)));
        aging.counters.fill(0);
        aging.equals.swap(0, aging.top);
        aging.lowest = 0;
        let mut bits = Bits::new(6);
        for beat in ["101011", "110010", "110101", "100010", "011000"] {
            bits.accessed = beat.chars().map(|bit| bit == '1').collect();
            aging.tick(&mut bits);
        }
        let expected =
            [0b0111_1000, 0b1011_0000, 0b1000_1000, 0b0010_0000, 0b0101_1000, 0b0010_1000];
        assert_eq!(*aging.counters, expected);
        assert_eq!(aging.evict(&mut bits), Some(Frame(3)), "as the book says");
    }

    #[test]
    fn of_two_frames_used_as_often_the_one_used_later_stays() {
        let mut aging = Aging::new(&Parameters::new(2));
        (0..2).for_each(|frame| aging.insert(Frame(frame), PageId(0)));
        let mut bits = Bits::new(2);
        bits.accessed = vec![false, true];
        aging.tick(&mut bits);
        bits.accessed = vec![true, false];
        aging.tick(&mut bits);
        assert_eq!(aging.evict(&mut bits), Some(Frame(1)));
    }

    #[test]
    fn a_beat_without_use_after_another_makes_all_equal_in_the_end() {
        let mut aging = Aging::new(&Parameters::new(3));
        (0..3).for_each(|frame| aging.insert(Frame(frame), PageId(0)));
        let mut bits = Bits::new(3);
        (0..20).for_each(|_| aging.tick(&mut bits));
        assert!(aging.counters.iter().all(|&counter| counter == 0));
        assert_eq!(Memory::new("aging:period=5", 3).policy.as_policy().period(), 5);
    }

    /// Pages with counters and bits, sorted by counter at each beat.
    struct Counters {
        frames: usize,
        bits: u32,
        period: u64,
        now: u64,
        pages: Vec<(u64, u64, bool)>, // page, counter, used
    }

    impl Counters {
        fn boxed(frames: usize, bits: u32, period: u64) -> Box<dyn Model> {
            Box::new(Counters { frames, bits, period, now: 0, pages: Vec::new() })
        }
    }

    impl Model for Counters {
        fn step(&mut self, step: Step) -> Vec<u64> {
            let (Step::Use(page) | Step::Write(page) | Step::Drop(page)) = step;
            if matches!(step, Step::Drop(_)) {
                self.pages.retain(|held| held.0 != page);
                return Vec::new();
            }
            self.now += 1;
            let mut left = Vec::new();
            if let Some(held) = self.pages.iter_mut().find(|held| held.0 == page) {
                held.2 = true;
            } else {
                if self.pages.len() == self.frames {
                    left.push(self.pages.remove(0).0);
                }
                self.pages.push((page, 1 << (self.bits - 1), true));
                self.pages.sort_by_key(|held| held.1); // is stable
            }
            if self.now.is_multiple_of(self.period) {
                for (_, counter, used) in &mut self.pages {
                    *counter += u64::from(core::mem::take(used)) << self.bits;
                    *counter >>= 1;
                }
                self.pages.sort_by_key(|held| held.1);
            }
            left
        }
    }

    #[test]
    fn it_takes_the_lowest_counter() {
        agrees_with("aging", |frames| Counters::boxed(frames, 8, frames as u64));
        agrees_with("aging:period=3:bits=2", |frames| Counters::boxed(frames, 2, 3));
    }
}
