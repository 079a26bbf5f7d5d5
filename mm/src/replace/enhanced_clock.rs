//! Enhanced clock: the hand looks for the cheapest victim, by use and by change.
//!
//! A clean frame can be had at once, a changed one must be written first; so of two frames that
//! nobody uses, the clean one goes. With R for *used* and D for *changed* there are four classes:
//!
//! ```text
//!     (R,D)   (0,0)       ▶   (0,1)              ▶   (1,0)      ▶   (1,1)
//!             free to take    write back first       in use         in use, and a write
//! ```
//!
//! The victim is the first frame from the hand on that is of the lowest class there is. The hand
//! finds it in laps:
//!
//! 1. Look for (0,0), changing no R. A (0,1) that is passed is laundered: it has until the hand
//!    comes round to become clean, and is saved if it is used before.
//! 2. Look for R=0, changing no R: what the first lap laundered, or could not.
//! 3. Every R is cleared. (1,0) is (0,0) now, and (1,1) is (0,1): on with lap 1.
//!
//! To look without clearing is more than [`Witness::take_accessed`] offers, so R is kept here: the
//! hardware's bit is collected into a flag, and it is the flag that lap 3 clears.
//!
//! A lap that found nothing is not walked again at the next fault: frames cannot fall into a class
//! that the hand has exhausted but by lap 3, or by being laundered, which lap 2 takes care of. So
//! each lap is walked once for all the victims found on it, and a victim costs a constant number of
//! steps as long as every lap finds its share. Walking anew for each victim would cost a lap each
//! in a memory of changed pages. 9 bytes a frame.

use alloc::boxed::Box;
use alloc::vec;

use super::board::{Board, Member};
use super::{About, PageId, Parameters, Policy, Registered, Setting, Witness};
use crate::addr::Frame;
use crate::ring::Rings;

const LAUNDER: Setting = Setting {
    name: "launder",
    line: "1: unused dirty pages that the hand passes are written back in advance",
    default: 1,
    range: 0..=1,
};

/// Used since its bit was cleared last: R.
const USED: u8 = 1;
/// Passed on a lap of odd number, or loaded behind the hand in one.
const PASSED: u8 = 2;

/// What the hand does on a lap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lap {
    SeekClean,
    SeekUnused,
    Clear,
}

/// Enhanced second chance, as A. Silberschatz and P. B. Galvin tell it in "Operating System
/// Concepts", after the virtual memory of the Macintosh.
///
/// P. Goldman, "Mac VM Revealed", Byte, November 1989.
pub struct EnhancedClock {
    rings: Rings,
    hand: Option<Frame>, // the next frame to judge
    len: usize,
    flags: Box<[u8]>,
    first: Frame,
    lap: Lap,
    passed: u8, // the value of PASSED in frames that the hand has passed on this lap
    launder: bool,
}

impl Registered for EnhancedClock {
    const ABOUT: About = About {
        name: "enhanced-clock",
        line: "like clock, in four classes by use and change: clean pages before dirty ones",
        paper: "P. Goldman, Mac VM Revealed, Byte, November 1989",
        settings: &[LAUNDER],
    };

    fn new(parameters: &Parameters) -> EnhancedClock {
        EnhancedClock {
            rings: Rings::new(parameters.first, parameters.frames),
            hand: None,
            len: 0,
            flags: vec![0; parameters.frames].into_boxed_slice(),
            first: parameters.first,
            lap: Lap::Clear, // just over: there is nothing to clear
            passed: PASSED,
            launder: parameters.settings.get(&LAUNDER) == 1,
        }
    }
}

impl EnhancedClock {
    /// Turns the hand to the frame to be evicted.
    fn turn(&mut self, witness: &mut dyn Witness) -> Option<Frame> {
        let start = self.hand?;
        // On a quiet machine five laps find a victim: the one begun, those that remain until all
        // bits are cleared, and two to look again. On a busy one every bit may be set again behind
        // the hand; then the search ends where it began.
        for _ in 0..5 {
            if let Some(victim) = self.walk(witness) {
                return Some(victim);
            }
            self.passed ^= PASSED; // all were judged: all are in front of the hand again
            // The first from the hand is meant, and the hand was at the start; but laundered frames
            // come in the order in which they were passed, which begins where that lap ends.
            if self.lap != Lap::SeekClean || !self.launder {
                self.hand = Some(start);
            }
            self.lap = match self.lap {
                Lap::SeekClean => Lap::SeekUnused,
                Lap::SeekUnused => Lap::Clear,
                Lap::Clear => Lap::SeekClean,
            };
        }
        self.hand
    }

    /// Walks to the end of the lap, or to a victim.
    #[inline]
    fn walk(&mut self, witness: &mut dyn Witness) -> Option<Frame> {
        // Ends: each step marks a frame that was not marked on this lap.
        loop {
            let frame = self.hand?;
            let flags = &mut self.flags[(frame.0 - self.first.0) as usize];
            if *flags & PASSED == self.passed {
                return None;
            }
            let used = witness.take_accessed(frame) || *flags & USED != 0;
            *flags = self.passed | u8::from(used && self.lap != Lap::Clear);
            match self.lap {
                Lap::SeekClean if !used && !witness.is_dirty(frame) => return Some(frame),
                Lap::SeekClean if !used && self.launder => witness.launder(frame),
                Lap::SeekUnused if !used => return Some(frame),
                _ => {}
            }
            self.rings.rotate(&mut self.hand);
        }
    }
}

impl Policy for EnhancedClock {
    fn insert(&mut self, frame: Frame, _page: PageId) {
        // Just behind the hand, among those that it has passed.
        self.rings.insert_before(&mut self.hand, frame);
        self.flags[(frame.0 - self.first.0) as usize] = self.passed;
        self.len += 1;
    }

    fn remove(&mut self, frame: Frame) {
        self.rings.remove(&mut self.hand, frame);
        self.len -= 1;
    }

    fn evict(&mut self, witness: &mut dyn Witness) -> Option<Frame> {
        let victim = self.turn(witness)?;
        self.remove(victim);
        Some(victim)
    }

    #[inline]
    fn replace(&mut self, _page: PageId, witness: &mut dyn Witness) -> Option<Frame> {
        // The new page takes the place of the old one: just behind the hand, once that moves on.
        let victim = self.turn(witness)?;
        self.flags[(victim.0 - self.first.0) as usize] = self.passed;
        self.rings.rotate(&mut self.hand);
        Some(victim)
    }

    fn show(&self, board: &mut dyn Board) {
        let member = |frame: Frame| {
            let flags = self.flags[(frame.0 - self.first.0) as usize];
            let member = Member::frame(frame).with_hand("hand", self.hand == Some(frame));
            if flags & USED == 0 { member } else { member.with_label("R") }
        };
        board.list("circle", &mut self.rings.iter(self.hand).map(member));
    }

    fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bits, Model, Step, TEXTBOOK, agrees_with, faults};
    use super::*;
    use alloc::collections::VecDeque;
    use alloc::vec::Vec;

    /// The order of eviction of four frames with these bits (R, D), and whether the first victim
    /// was still dirty when it was taken.
    fn order(classes: [(bool, bool); 4], launder: bool) -> (Vec<u32>, bool) {
        let mut clock = EnhancedClock::new(&Parameters::new(4));
        clock.launder = launder;
        (0..4).for_each(|frame| clock.insert(Frame(frame), PageId(0)));
        let mut bits = Bits::new(4);
        (bits.accessed, bits.dirty) = classes.into_iter().unzip();
        let first = clock.evict(&mut bits).expect("four frames").0;
        let dirty = bits.dirty[first as usize];
        let rest = core::iter::from_fn(|| clock.evict(&mut bits)).map(|frame| frame.0);
        (core::iter::once(first).chain(rest).collect(), dirty)
    }

    #[test]
    fn the_classes_go_cheapest_first() {
        let classes = [(true, true), (true, false), (false, true), (false, false)];
        assert_eq!(order(classes, false).0, [3, 2, 1, 0]);
        assert_eq!(order(classes, true).0, [3, 2, 1, 0]);
    }

    #[test]
    fn an_unused_dirty_page_is_written_back_before_it_is_taken() {
        let classes = [(true, false), (false, true), (true, false), (true, false)];
        assert_eq!(order(classes, true), ([1, 2, 3, 0].into(), false));
        assert_eq!(order(classes, false), ([1, 2, 3, 0].into(), true));
    }

    #[test]
    fn looking_for_a_clean_page_costs_the_others_no_second_chance() {
        let mut clock = EnhancedClock::new(&Parameters::new(3));
        (0..3).for_each(|frame| clock.insert(Frame(frame), PageId(0)));
        let mut bits = Bits::new(3);
        bits.accessed = [true, false, false].into();
        assert_eq!(clock.replace(PageId(3), &mut bits), Some(Frame(1)));
        bits.accessed[1] = true;
        assert_eq!(clock.replace(PageId(4), &mut bits), Some(Frame(2)));
        bits.accessed[2] = true;
        // All three were used: f0's use, collected on the way, is as good as the others'.
        assert_eq!(clock.replace(PageId(5), &mut bits), Some(Frame(0)));
    }

    #[test]
    fn without_writes_it_is_a_clock_that_clears_all_bits_at_once() {
        assert_eq!(faults("enhanced-clock", 3, TEXTBOOK), 14);
    }

    #[test]
    fn a_frame_that_is_always_in_use_still_goes_in_the_end() {
        struct Busy;
        impl Witness for Busy {
            fn take_accessed(&mut self, _frame: Frame) -> bool {
                true
            }
            fn is_dirty(&self, _frame: Frame) -> bool {
                true
            }
            fn now(&self) -> u64 {
                0
            }
        }
        let mut clock = EnhancedClock::new(&Parameters::new(2));
        (0..2).for_each(|frame| clock.insert(Frame(frame), PageId(0)));
        assert!(clock.evict(&mut Busy).is_some() && clock.evict(&mut Busy).is_some());
        assert_eq!(clock.evict(&mut Busy), None);
    }

    #[test]
    fn a_memory_of_dirty_pages_does_not_cost_a_lap_a_victim() {
        let mut clock = EnhancedClock::new(&Parameters::new(1000));
        clock.launder = false;
        let mut bits = Bits::new(1000);
        (0..1000).for_each(|frame| clock.insert(Frame(frame), PageId(0)));
        bits.dirty.fill(true);
        for _ in 0..1000 {
            let frame = clock.replace(PageId(0), &mut bits).expect("memory is full");
            bits.accessed[frame.index()] = true;
        }
        assert!(bits.asked <= 6000, "{} bits for 1000 victims", bits.asked);
    }

    /// The classes, computed anew for each victim over all pages in the order of the circle.
    struct Classes {
        frames: usize,
        launder: bool,
        circle: VecDeque<(u64, bool, bool)>, // page, R, D; the hand is at the front
    }

    impl Classes {
        fn victim(&mut self) -> u64 {
            type Page = (u64, bool, bool);
            let class = |&(_, used, dirty): &Page| 2 * u8::from(used) + u8::from(dirty);
            let mut lowest = self.circle.iter().map(class).min().expect("memory is full");
            if lowest >= 2 {
                self.circle.iter_mut().for_each(|page| page.1 = false);
                lowest -= 2;
            }
            let at = self.circle.iter().position(|page| class(page) == lowest);
            let at = at.expect("some page is of the lowest class");
            if self.launder {
                let passed = if lowest == 0 { at } else { self.circle.len() };
                let unused = self.circle.iter_mut().take(passed).filter(|page| !page.1);
                unused.for_each(|page| page.2 = false);
            }
            self.circle.rotate_left(at);
            self.circle.pop_front().expect("memory is full").0
        }
    }

    impl Model for Classes {
        fn step(&mut self, step: Step) -> Vec<u64> {
            let (Step::Use(page) | Step::Write(page) | Step::Drop(page)) = step;
            let written = matches!(step, Step::Write(_));
            if matches!(step, Step::Drop(_)) {
                self.circle.retain(|held| held.0 != page);
                return Vec::new();
            }
            if let Some(held) = self.circle.iter_mut().find(|held| held.0 == page) {
                *held = (page, true, held.2 || written);
                return Vec::new();
            }
            let full = self.circle.len() == self.frames;
            let left = if full { vec![self.victim()] } else { Vec::new() };
            self.circle.push_back((page, true, written));
            left
        }
    }

    #[test]
    fn it_takes_the_first_page_of_the_lowest_class() {
        agrees_with("enhanced-clock:launder=0", |frames| {
            Box::new(Classes { frames, launder: false, circle: VecDeque::new() })
        });
        agrees_with("enhanced-clock", |frames| {
            Box::new(Classes { frames, launder: true, circle: VecDeque::new() })
        });
    }
}
