//! PFF: page-fault frequency decides how many frames a process holds.
//!
//! Faults far apart mean that it holds more than it needs: it gives up every page that it has not
//! used since its last fault. Faults that follow each other closely mean that it needs more: it
//! keeps all, and the new page besides.
//!
//! ```text
//!     fault ──────── longer than the threshold ────────▶ fault     unused ones leave
//!     fault ──── shorter ────▶ fault                               it grows
//! ```
//!
//! Work is done at faults alone, which is its charm beside the working set. Its weakness is a
//! change of phase: the pages of the old one stay while the faults of the new one come quickly.
//!
//! A bit that every fault clears is the number of the fault since which it counts. So a use writes
//! one number, and no bit is ever cleared by hand. Under a full memory a fault takes the first
//! frame from the hand that was not used since the last fault, or the one at the hand if all were.
//! 12 bytes a frame; a victim passes only frames used since the last fault, and a release looks at
//! all of them.

use alloc::boxed::Box;
use alloc::vec;

use super::board::{Board, Member};
use super::{About, PageId, Parameters, Policy, Registered, Setting, Sizing, Witness};
use crate::addr::Frame;
use crate::ring::Rings;

const THRESHOLD: Setting = Setting {
    name: "threshold",
    line: "references between two faults above which unused pages leave",
    default: 1000,
    range: 0..=u64::MAX,
};

/// Page-fault frequency.
///
/// W. W. Chu, H. Opderbeck, "The Page Fault Frequency Replacement Algorithm", AFIPS Fall Joint
/// Computer Conference 1972; "Program Behavior and the Page-Fault-Frequency Replacement Algorithm",
/// IEEE Computer 9(11), 1976.
pub struct Pff {
    rings: Rings,
    hand: Option<Frame>, // the next frame to judge
    used_in: Box<[u32]>, // by frame: the number of the last fault when it was used
    first: Frame,
    len: usize,
    fault: u32,     // the number of the last fault
    fault_at: u64,  // its time
    unseen: usize,  // frames that the release in progress has not judged
    in_fault: bool, // whether this fault's release has begun
    threshold: u64,
}

impl Registered for Pff {
    const ABOUT: About = About {
        name: "pff",
        line: "gives up pages unused since the last fault if that is long ago, else grows",
        paper: "W. W. Chu, H. Opderbeck, The Page Fault Frequency Replacement Algorithm, 1972",
        settings: &[THRESHOLD],
    };
    const READS_BITS: bool = false;

    fn new(parameters: &Parameters) -> Pff {
        Pff {
            rings: Rings::new(parameters.first, parameters.frames),
            hand: None,
            used_in: vec![0; parameters.frames].into_boxed_slice(),
            first: parameters.first,
            len: 0,
            fault: 1,
            fault_at: 0,
            unseen: 0,
            in_fault: false,
            threshold: parameters.settings.get(&THRESHOLD),
        }
    }
}

impl Pff {
    #[inline]
    fn used_in(&mut self, frame: Frame) -> &mut u32 {
        &mut self.used_in[(frame.0 - self.first.0) as usize]
    }

    /// Whether `frame` was used since the last fault, or is loaded by the one that is going on.
    #[inline]
    fn is_used(&mut self, frame: Frame) -> bool {
        let fault = self.fault;
        let used_in = *self.used_in(frame);
        used_in == fault || used_in == fault.wrapping_add(1)
    }

    /// Turns the hand to the frame to be evicted.
    #[inline]
    fn turn(&mut self) -> Option<Frame> {
        let start = self.hand;
        for _ in 0..self.len {
            if !self.is_used(self.hand?) {
                return self.hand;
            }
            self.rings.rotate(&mut self.hand);
        }
        start
    }
}

impl Policy for Pff {
    fn insert(&mut self, frame: Frame, _page: PageId) {
        self.rings.insert_before(&mut self.hand, frame);
        // Its load is a use since the fault that loads it, which ends with the release.
        *self.used_in(frame) = self.fault.wrapping_add(1);
        self.len += 1;
    }

    fn remove(&mut self, frame: Frame) {
        self.rings.remove(&mut self.hand, frame);
        self.len -= 1;
    }

    fn evict(&mut self, _witness: &mut dyn Witness) -> Option<Frame> {
        let victim = self.turn()?;
        self.remove(victim);
        Some(victim)
    }

    fn show(&self, board: &mut dyn Board) {
        let member = |frame: Frame| {
            let used_in = self.used_in[(frame.0 - self.first.0) as usize];
            let member = Member::frame(frame).with_hand("hand", self.hand == Some(frame));
            if used_in == self.fault { member.with_label("used") } else { member }
        };
        board.list("circle", &mut self.rings.iter(self.hand).map(member));
    }

    fn len(&self) -> usize {
        self.len
    }
}

impl Sizing for Pff {
    #[inline]
    fn touch(&mut self, frame: Frame, _now: u64) {
        let fault = self.fault;
        if let Some(used_in) = self.used_in.get_mut(frame.0.wrapping_sub(self.first.0) as usize) {
            *used_in = fault; // of a pinned frame, too: to insert it will overwrite this
        }
    }

    #[inline]
    fn release(&mut self, fault: bool, witness: &mut dyn Witness) -> Option<Frame> {
        if !fault {
            return None;
        }
        if !self.in_fault {
            let now = witness.now();
            let apart = now.saturating_sub(self.fault_at) > self.threshold;
            self.in_fault = true;
            self.fault_at = now;
            self.unseen = if apart { self.len } else { 0 };
        }
        // Ends: one lap of the hand over all frames.
        while self.unseen > 0 {
            self.unseen -= 1;
            let frame = self.hand?;
            if !self.is_used(frame) {
                self.remove(frame);
                return Some(frame);
            }
            self.rings.rotate(&mut self.hand);
        }
        self.in_fault = false;
        self.fault = self.fault.wrapping_add(1); // clears the bits of all but the new page
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Memory, Model, Step, TEXTBOOK, agrees_with, faults, run};
    use super::*;
    use alloc::collections::VecDeque;
    use alloc::vec::Vec;

    #[test]
    fn a_late_fault_takes_all_that_was_not_used_since_the_one_before() {
        let steps: Vec<Step> = [1, 2, 3, 3, 1, 3, 3, 3, 4].map(Step::Use).into();
        // Pages 1 and 3 were used since the fault of page 3, six references before; page 2 was not.
        let left = run("pff:threshold=5", 10, &steps);
        assert_eq!(left.concat(), [2]);
        assert_eq!(left[8], [2]);
        assert!(run("pff:threshold=6", 10, &steps).concat().is_empty());
    }

    #[test]
    fn quick_faults_let_it_grow() {
        let mut memory = Memory::new("pff:threshold=2", 30);
        (0..30).for_each(|page| assert!(memory.step(Step::Use(page), 0).is_empty()));
        assert_eq!(memory.policy.as_policy().len(), 30);
    }

    #[test]
    fn a_threshold_of_nothing_keeps_what_was_used_between_two_faults() {
        // 2 faults after 1, and releases nothing: page 1 was used since its own fault. 3 releases
        // 1.
        let left = run("pff:threshold=0", 9, &[1, 2, 3].map(Step::Use));
        assert_eq!(left, [vec![], vec![], vec![1]]);
    }

    #[test]
    fn a_full_memory_is_a_clock() {
        assert_eq!(faults("pff", 3, TEXTBOOK), 13);
    }

    /// A circle of pages with use bits.
    struct Frequency {
        frames: usize,
        threshold: u64,
        now: u64,
        fault_at: u64,
        circle: VecDeque<(u64, bool)>, // the hand is at the front
    }

    impl Frequency {
        fn boxed(frames: usize, threshold: u64) -> Box<dyn Model> {
            Box::new(Frequency { frames, threshold, now: 0, fault_at: 0, circle: VecDeque::new() })
        }
    }

    impl Model for Frequency {
        fn step(&mut self, step: Step) -> Vec<u64> {
            let (Step::Use(page) | Step::Write(page) | Step::Drop(page)) = step;
            if matches!(step, Step::Drop(_)) {
                self.circle.retain(|held| held.0 != page);
                return Vec::new();
            }
            self.now += 1;
            if let Some(held) = self.circle.iter_mut().find(|held| held.0 == page) {
                held.1 = true;
                return Vec::new();
            }
            let mut left = Vec::new();
            if self.circle.len() == self.frames {
                let at = self.circle.iter().position(|held| !held.1).unwrap_or(0);
                self.circle.rotate_left(at);
                left.extend(self.circle.pop_front().map(|held| held.0));
            }
            if self.now - self.fault_at > self.threshold {
                left.extend(self.circle.iter().filter(|held| !held.1).map(|held| held.0));
                self.circle.retain(|held| held.1);
            }
            self.circle.iter_mut().for_each(|held| held.1 = false);
            self.circle.push_back((page, true));
            self.fault_at = self.now;
            left
        }
    }

    #[test]
    fn it_follows_the_distance_of_faults() {
        agrees_with("pff:threshold=3", |frames| Frequency::boxed(frames, 3));
        agrees_with("pff:threshold=0", |frames| Frequency::boxed(frames, 0));
        agrees_with("pff", |frames| Frequency::boxed(frames, 1000));
    }
}
