//! LFU: evicts the frame used least often since it was loaded.
//!
//! Right for a popularity that does not change; a page that was popular once stays for long after.
//! The count goes with the page: one that comes back starts again at 1. Of several pages with the
//! same count, the one that reached it first goes.
//!
//! Frames with the same count hang in a ring, and the rings in a ring, in order of count, so that
//! nothing is ever sorted: a use moves a frame to the next ring.
//!
//! ```text
//!     fewest ──▶ (1) ────▶ (2) ────▶ (5)
//!                 f4        f0        f2         a use of f0 makes a ring (3) between
//!                 f1        f3
//! ```
//!
//! 40 bytes a frame; every operation takes constant time.

use alloc::boxed::Box;
use alloc::vec;

use super::board::{Board, Member};
use super::{About, Observe, PageId, Parameters, Policy, Registered, Witness};
use crate::addr::Frame;
use crate::ring::Rings;

/// The frames with one count. Numbered like frames, by which their own ring links them.
#[derive(Clone, Copy)]
struct Equals {
    count: u64,
    longest: Option<Frame>, // ring in order of reaching the count
}

/// Least frequently used, in constant time.
///
/// K. Shah, A. Mitra, D. Matani, "An O(1) algorithm for implementing the LFU cache eviction
/// scheme", 2010.
pub struct Lfu {
    rings: Rings,
    groups: Rings,          // links of the rings
    equals: Box<[Equals]>,  // by number of the group
    fewest: Option<Frame>,  // ring of groups in order of count
    spare: Option<Frame>,   // groups that are not in use
    group_of: Box<[Frame]>, // by frame
    first: Frame,
    len: usize,
}

impl Registered for Lfu {
    const ABOUT: About = About {
        name: "lfu",
        line: "evicts the page used least often since it was loaded",
        paper: "K. Shah, A. Mitra, D. Matani, An O(1) algorithm for implementing LFU, 2010",
        settings: &[],
    };
    const READS_BITS: bool = false;

    fn new(parameters: &Parameters) -> Lfu {
        let Parameters { first, frames, .. } = *parameters;
        // One more than frames: a frame finds its next group before it leaves the last one.
        let mut groups = Rings::new(Frame(0), frames + 1);
        let mut spare = None;
        (0..=frames as u32).for_each(|group| groups.insert_before(&mut spare, Frame(group)));
        Lfu {
            rings: Rings::new(first, frames),
            groups,
            equals: vec![Equals { count: 0, longest: None }; frames + 1].into_boxed_slice(),
            fewest: None,
            spare,
            group_of: vec![Frame(0); frames].into_boxed_slice(),
            first,
            len: 0,
        }
    }
}

impl Lfu {
    /// Makes an empty group for `count`, in front of the group `next` in the ring of groups, or as
    /// the last of it.
    #[inline]
    fn add_group(&mut self, next: Option<Frame>, count: u64) -> Frame {
        let group = self.spare.expect("there are more groups than frames");
        self.groups.remove(&mut self.spare, group);
        // Behind the last of a ring is in front of the first.
        let mut at = next.or(self.fewest);
        self.groups.insert_before(&mut at, group);
        if self.fewest.is_none() {
            self.fewest = Some(group);
        }
        self.equals[group.index()] = Equals { count, longest: None };
        group
    }

    #[inline]
    fn join(&mut self, group: Frame, frame: Frame) {
        self.rings.insert_before(&mut self.equals[group.index()].longest, frame);
        self.group_of[(frame.0 - self.first.0) as usize] = group;
    }

    /// Takes `frame` out of its group, which ends with its last frame.
    #[inline]
    fn leave(&mut self, frame: Frame) {
        // A frame outside is found out by the rings below, which name it.
        let index = frame.0.wrapping_sub(self.first.0) as usize;
        let group = self.group_of.get(index).copied().unwrap_or_default();
        self.rings.remove(&mut self.equals[group.index()].longest, frame);
        if self.equals[group.index()].longest.is_none() {
            self.groups.remove(&mut self.fewest, group);
            self.groups.insert_before(&mut self.spare, group);
        }
    }
}

impl Policy for Lfu {
    fn insert(&mut self, frame: Frame, _page: PageId) {
        let group = match self.fewest {
            Some(fewest) if self.equals[fewest.index()].count == 1 => fewest,
            fewest => {
                let group = self.add_group(fewest, 1);
                self.fewest = Some(group);
                group
            }
        };
        self.join(group, frame);
        self.len += 1;
    }

    fn remove(&mut self, frame: Frame) {
        self.leave(frame);
        self.len -= 1;
    }

    #[inline]
    fn evict(&mut self, _witness: &mut dyn Witness) -> Option<Frame> {
        let fewest = self.fewest?;
        let victim = self.equals[fewest.index()].longest.expect("a group in use has a frame");
        self.remove(victim);
        Some(victim)
    }

    #[inline]
    fn replace(&mut self, page: PageId, witness: &mut dyn Witness) -> Option<Frame> {
        let fewest = self.fewest?;
        let equals = &mut self.equals[fewest.index()];
        if equals.count == 1 {
            // The one that has been at 1 longest becomes the one that is there most recently.
            let victim = equals.longest;
            self.rings.rotate(&mut equals.longest);
            return victim;
        }
        let victim = self.evict(witness)?;
        self.insert(victim, page);
        Some(victim)
    }

    fn show(&self, board: &mut dyn Board) {
        let mut members = self.groups.iter(self.fewest).flat_map(|group| {
            let Equals { count, longest } = self.equals[group.index()];
            self.rings.iter(longest).map(move |frame| Member::frame(frame).with_count(count))
        });
        board.list("uses", &mut members);
    }

    fn len(&self) -> usize {
        self.len
    }
}

impl Observe for Lfu {
    #[inline]
    fn touch(&mut self, frame: Frame) {
        if !self.rings.is_linked(frame) {
            return;
        }
        let group = self.group_of[(frame.0 - self.first.0) as usize];
        let count = self.equals[group.index()].count + 1;
        let next = self.groups.next(group);
        // Behind the last group comes the first one again, with no higher a count.
        let next = (Some(next) != self.fewest).then_some(next);
        if let Some(next) = next.filter(|next| self.equals[next.index()].count == count) {
            self.leave(frame);
            self.join(next, frame);
        } else if self.rings.next(frame) == frame {
            // Alone with its count: the group rises with it.
            self.equals[group.index()].count = count;
        } else {
            let between = self.add_group(next, count);
            self.leave(frame);
            self.join(between, frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bits, Model, Step, TEXTBOOK, agrees_with, faults};
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn the_textbook_string_faults_eleven_times() {
        assert_eq!(faults("lfu", 3, TEXTBOOK), 11);
    }

    #[test]
    fn a_scan_does_not_drive_out_what_was_used_twice() {
        let refs: Vec<u64> = [0, 1, 0, 1].into_iter().chain(2..50).chain([0, 1]).collect();
        assert_eq!(faults("lfu", 3, &refs), 50);
        assert_eq!(faults("lru", 3, &refs), 52);
    }

    #[test]
    fn the_count_goes_with_the_page() {
        // Page 1, used four times, is driven out by pages used more, and comes back with 1: it is
        // the first to go.
        let refs = [1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 1, 3];
        assert_eq!(faults("lfu", 2, &refs), 5);
        let mut lfu = Lfu::new(&Parameters::new(2));
        let mut bits = Bits::new(2);
        lfu.insert(Frame(0), PageId(1));
        (0..3).for_each(|_| lfu.touch(Frame(0)));
        lfu.insert(Frame(1), PageId(2));
        lfu.touch(Frame(1));
        lfu.remove(Frame(0));
        lfu.insert(Frame(0), PageId(1));
        assert_eq!(lfu.evict(&mut bits), Some(Frame(0)));
    }

    #[test]
    fn a_touch_of_a_pinned_frame_is_ignored() {
        let mut lfu = Lfu::new(&Parameters::new(2));
        (0..2).for_each(|frame| lfu.insert(Frame(frame), PageId(0)));
        lfu.remove(Frame(0));
        lfu.touch(Frame(0));
        let mut bits = Bits::new(2);
        assert_eq!(lfu.evict(&mut bits), Some(Frame(1)));
        assert_eq!(lfu.evict(&mut bits), None);
    }

    /// Pages with their counts, in order of reaching them.
    struct Counts {
        frames: usize,
        pages: Vec<(u64, u64)>,
    }

    impl Model for Counts {
        fn step(&mut self, step: Step) -> Vec<u64> {
            let (Step::Use(page) | Step::Write(page) | Step::Drop(page)) = step;
            let held = self.pages.iter().position(|held| held.0 == page);
            let count = held.map_or(0, |at| self.pages.remove(at).1);
            let mut left = Vec::new();
            if !matches!(step, Step::Drop(_)) {
                if self.pages.len() == self.frames {
                    let fewest = self.pages.iter().map(|held| held.1).min();
                    let at = self.pages.iter().position(|held| Some(held.1) == fewest);
                    left.push(self.pages.remove(at.expect("memory is full")).0);
                }
                self.pages.push((page, count + 1));
            }
            left
        }
    }

    #[test]
    fn it_takes_the_lowest_count_and_of_several_the_one_reached_first() {
        agrees_with("lfu", |frames| Box::new(Counts { frames, pages: Vec::new() }));
    }
}
