//! LFU: evicts the frame used least often.
//!
//! Right for a popularity that does not change; a page that was popular once stays for long after.
//! Of several pages with the same count, the one that reached it first goes: the one whose last use is
//! longest ago.
//!
//! Uses are counted since the page was loaded: the count goes with the page, and one that comes back
//! starts again at 1. With `keep=1` counts survive (*perfect* LFU). Then pages are ranked by uses and
//! times that are the same in every memory, whatever its size, which makes it a stack algorithm: what
//! a small memory holds, a larger one holds as well. The common LFU is none, and can fault more with
//! more frames.
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
//! 40 bytes a frame; every operation takes constant time, but that a page with a kept count looks for
//! its ring from the fewest up. It was among the fewest when it went, so that is seldom far. Kept
//! counts take 8 bytes a frame, and 28 to 36 for each page that is gone.

use alloc::boxed::Box;
use alloc::vec;

use super::board::{Board, Member};
use super::ghosts::Ghosts;
use super::{About, Observe, PageId, Parameters, Policy, Registered, Setting, Witness};
use crate::addr::Frame;
use crate::ring::Rings;

const KEEP: Setting = Setting {
    name: "keep",
    line: "1: counts survive eviction; of all pages where these are known, else of 10 a frame",
    default: 0,
    range: 0..=1,
};

/// Evicted pages whose counts are kept, for each frame, where it is not known how many pages there are.
const KEPT_PER_FRAME: usize = 10;

/// The frames with one count. Numbered like frames, by which their own ring links them.
#[derive(Clone, Copy)]
struct Equals {
    count: u64,
    longest: Option<Frame>, // ring in order of reaching the count
}

/// Least frequently used, in constant time.
///
/// K. Shah, A. Mitra, D. Matani, "An O(1) algorithm for implementing the LFU cache eviction
/// scheme", 2010. With kept counts, the LFU of R. L. Mattson, J. Gecsei, D. R. Slutz, I. L. Traiger,
/// "Evaluation techniques for storage hierarchies", IBM Systems Journal 9(2), 1970.
pub struct Lfu {
    rings: Rings,           // frames, and ghosts behind them
    groups: Rings,          // links of the rings
    equals: Box<[Equals]>,  // by number of the group
    fewest: Option<Frame>,  // ring of groups in order of count
    spare: Option<Frame>,   // groups that are not in use
    group_of: Box<[Frame]>, // by frame
    pages: Box<[PageId]>,   // by frame; empty if no counts are kept
    ghosts: Ghosts,
    kept: Box<[u64]>,         // counts by ghost
    forgotten: Option<Frame>, // ring of ghosts in order of eviction; the head is forgotten next
    first: Frame,
    len: usize,
}

impl Registered for Lfu {
    const ABOUT: About = About {
        name: "lfu",
        line: "evicts the page used least often since it was loaded",
        paper: "K. Shah, A. Mitra, D. Matani, An O(1) algorithm for implementing LFU, 2010",
        settings: &[KEEP],
    };
    const READS_BITS: bool = false;

    fn new(parameters: &Parameters) -> Lfu {
        let Parameters { first, frames, pages, settings, .. } = *parameters;
        let keeps = settings.get(&KEEP) == 1;
        let numbers = (u32::MAX - first.0) as usize - frames; // that ghosts can have
        let all = pages.map_or(frames * KEPT_PER_FRAME, |pages| pages as usize);
        let kept = if keeps { all.min(numbers) } else { 0 };
        // One more than frames: a frame finds its next group before it leaves the last one.
        let mut groups = Rings::new(Frame(0), frames + 1);
        let mut spare = None;
        (0..=frames as u32).for_each(|group| groups.insert_before(&mut spare, Frame(group)));
        Lfu {
            rings: Rings::new(first, frames + kept),
            groups,
            equals: vec![Equals { count: 0, longest: None }; frames + 1].into_boxed_slice(),
            fewest: None,
            spare,
            group_of: vec![Frame(0); frames].into_boxed_slice(),
            pages: vec![PageId(0); if keeps { frames } else { 0 }].into_boxed_slice(),
            ghosts: Ghosts::new(parameters, kept),
            kept: vec![0; kept].into_boxed_slice(),
            forgotten: None,
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

    /// The group for `count`, made if there is none.
    #[inline]
    fn group_for(&mut self, count: u64) -> Frame {
        let mut next = self.fewest;
        // Ends: after the last group.
        while let Some(group) = next.filter(|group| self.equals[group.index()].count < count) {
            let after = self.groups.next(group);
            next = (Some(after) != self.fewest).then_some(after);
        }
        if let Some(group) = next.filter(|group| self.equals[group.index()].count == count) {
            return group;
        }
        let made = self.add_group(next, count);
        if next.is_some() && next == self.fewest {
            self.fewest = Some(made);
        }
        made
    }

    /// Puts a page that has now been used `count` times into a frame.
    #[inline]
    fn load(&mut self, frame: Frame, page: PageId, count: u64) {
        let group = self.group_for(count);
        self.join(group, frame);
        if let Some(kept) = self.pages.get_mut((frame.0 - self.first.0) as usize) {
            *kept = page;
        }
        self.len += 1;
    }

    /// How often a page that comes has been used, as far as that was kept.
    #[inline]
    fn recall(&mut self, page: PageId) -> u64 {
        if self.pages.is_empty() {
            return 0;
        }
        let Some(ghost) = self.ghosts.find(page) else { return 0 };
        let count = self.kept[self.kept_at(ghost)];
        self.forget(ghost);
        count
    }

    /// Keeps the count of the page in a frame that is evicted.
    fn remember(&mut self, frame: Frame, count: u64) {
        let page = self.pages[(frame.0 - self.first.0) as usize];
        // A world may hold a page twice by accident: the later count is kept.
        if let Some(ghost) = self.ghosts.find_older(page) {
            self.forget(ghost);
        }
        if self.ghosts.len() == self.ghosts.capacity() {
            self.forget(self.forgotten.expect("as many ghosts as can be are some"));
        }
        let ghost = self.ghosts.insert(page);
        self.rings.insert_before(&mut self.forgotten, ghost);
        let at = self.kept_at(ghost);
        self.kept[at] = count;
    }

    fn forget(&mut self, ghost: Frame) {
        self.rings.remove(&mut self.forgotten, ghost);
        self.ghosts.remove(ghost);
    }

    /// Where the count of a ghost is.
    fn kept_at(&self, ghost: Frame) -> usize {
        (ghost.0 - self.first.0) as usize - self.group_of.len()
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
    fn insert(&mut self, frame: Frame, page: PageId) {
        let count = self.recall(page) + 1;
        self.load(frame, page, count);
    }

    fn remove(&mut self, frame: Frame) {
        self.leave(frame);
        self.len -= 1;
    }

    #[inline]
    fn evict(&mut self, _witness: &mut dyn Witness) -> Option<Frame> {
        let fewest = self.fewest?;
        let Equals { count, longest } = self.equals[fewest.index()];
        let victim = longest.expect("a group in use has a frame");
        if !self.pages.is_empty() {
            self.remember(victim, count);
        }
        self.remove(victim);
        Some(victim)
    }

    #[inline]
    fn replace(&mut self, page: PageId, witness: &mut dyn Witness) -> Option<Frame> {
        let fewest = self.fewest?;
        let equals = &mut self.equals[fewest.index()];
        if equals.count == 1 && self.pages.is_empty() {
            // The one that has been at 1 longest becomes the one that is there most recently.
            let victim = equals.longest;
            self.rings.rotate(&mut equals.longest);
            return victim;
        }
        // First: the ghost of the victim may push out the one of the page that comes.
        let count = self.recall(page) + 1;
        let victim = self.evict(witness)?;
        self.load(victim, page, count);
        Some(victim)
    }

    fn show(&self, board: &mut dyn Board) {
        let mut members = self.groups.iter(self.fewest).flat_map(|group| {
            let Equals { count, longest } = self.equals[group.index()];
            self.rings.iter(longest).map(move |frame| Member::frame(frame).with_count(count))
        });
        board.list("uses", &mut members);
        if !self.pages.is_empty() {
            let count = |ghost| self.kept[self.kept_at(ghost)];
            let ghosts = self.rings.iter(self.forgotten);
            let page = |ghost| Member::page(self.ghosts.page(ghost)).with_count(count(ghost));
            board.list("uses of pages gone", &mut ghosts.map(page));
        }
    }

    #[inline]
    fn peek(&self, page: PageId) -> u32 {
        if self.pages.is_empty() { 0 } else { self.ghosts.peek(page) }
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
    use super::super::Choice;
    use super::super::testing::{Bits, Model, Step, TEXTBOOK, agrees_with, faults, includes};
    use super::*;
    use alloc::collections::BTreeMap;
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
    fn a_kept_count_is_taken_up_again() {
        let mut bits = Bits::new(2);
        let choice = Choice::parse("lfu:keep=1").unwrap();
        let mut lfu = Lfu::new(&Parameters { settings: choice.settings, ..Parameters::new(2) });
        lfu.insert(Frame(0), PageId(7));
        (0..3).for_each(|_| lfu.touch(Frame(0)));
        assert_eq!(lfu.evict(&mut bits), Some(Frame(0)));
        lfu.insert(Frame(1), PageId(8));
        lfu.touch(Frame(1));
        lfu.insert(Frame(0), PageId(7));
        assert_eq!(lfu.evict(&mut bits), Some(Frame(1)), "used twice, the other five times");
    }

    #[test]
    fn where_pages_are_not_known_the_oldest_counts_are_forgotten() {
        let choice = Choice::parse("lfu:keep=1").unwrap();
        let mut lfu = Lfu::new(&Parameters { settings: choice.settings, ..Parameters::new(1) });
        let mut bits = Bits::new(1);
        for page in 0..12 {
            lfu.insert(Frame(0), PageId(page));
            lfu.touch(Frame(0));
            lfu.evict(&mut bits);
        }
        assert_eq!([1, 2, 11].map(|page| lfu.recall(PageId(page))), [0, 2, 2], "ten are left");
    }

    #[test]
    fn perfect_lfu_has_the_inclusion_property_and_the_common_one_has_not() {
        includes("lfu:keep=1");
        let refs = [0, 2, 3, 3, 0, 2, 1, 3, 1, 3];
        assert_eq!([2, 3].map(|frames| faults("lfu", frames, &refs)), [6, 7]);
        assert_eq!([2, 3].map(|frames| faults("lfu:keep=1", frames, &refs)), [8, 6]);
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

    /// Pages with their counts, in order of reaching them, and the counts of pages that are gone.
    struct Counts {
        frames: usize,
        pages: Vec<(u64, u64)>,
        keeps: bool,
        gone: BTreeMap<u64, u64>,
    }

    impl Counts {
        fn boxed(frames: usize, keeps: bool) -> Box<dyn Model> {
            Box::new(Counts { frames, pages: Vec::new(), keeps, gone: BTreeMap::new() })
        }
    }

    impl Model for Counts {
        fn step(&mut self, step: Step) -> Vec<u64> {
            let (Step::Use(page) | Step::Write(page) | Step::Drop(page)) = step;
            let held = self.pages.iter().position(|held| held.0 == page);
            let resident = held.map(|at| self.pages.remove(at).1);
            let mut left = Vec::new();
            if !matches!(step, Step::Drop(_)) {
                let count = resident.or_else(|| self.gone.remove(&page)).unwrap_or(0);
                if self.pages.len() == self.frames {
                    let fewest = self.pages.iter().map(|held| held.1).min();
                    let at = self.pages.iter().position(|held| Some(held.1) == fewest);
                    let (victim, uses) = self.pages.remove(at.expect("memory is full"));
                    left.push(victim);
                    if self.keeps {
                        self.gone.insert(victim, uses);
                    }
                }
                self.pages.push((page, count + 1));
            }
            left
        }
    }

    #[test]
    fn it_takes_the_lowest_count_and_of_several_the_one_reached_first() {
        agrees_with("lfu", |frames| Counts::boxed(frames, false));
        agrees_with("lfu:keep=1", |frames| Counts::boxed(frames, true));
    }
}
