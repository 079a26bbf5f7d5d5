//! Linux's two lists: an inactive one on probation, and an active one.
//!
//! A page that is loaded starts on the inactive list. When reclaim comes to it and it was used, it
//! gets another round and is marked; if it was used again by the next time, it moves to the active
//! list. Unused, it is evicted. The active list is not evicted from: when the inactive list is too
//! short, the oldest active pages move back to it, used or not.
//!
//! ```text
//!     loaded ──▶ inactive ──used twice──▶ active    inactive list low, or refaults: 32 go back
//!                │    ▲ └─used once─┘       │
//!                ▼    └─────────────────────┘
//!             evicted; comes back before as many others left as are active ──▶ active
//! ```
//!
//! An evicted page leaves a *shadow*: how far a counter of evictions and activations was. If it
//! comes back and the counter went on by no more than the active list is long (the *refault
//! distance*), it would have stayed if the active list had been inactive: it challenges the active
//! pages, becomes one, and lets the next round of reclaim deactivate.
//!
//! The kernel reclaims in rounds of 32 pages and looks at the balance of the lists every 32 pages
//! that it scans. Asked for one page at a time, this policy counts rounds and scans across calls;
//! below 1024 frames, rounds are a 32nd of memory. It sees exact lengths, where the kernel's can be
//! seconds old. Left out: files beside anonymous memory, and executable pages, which the kernel
//! spares.
//!
//! 18 bytes a frame and up to 41 for each of one ghost a frame; over many evictions, a few steps
//! each.

use alloc::boxed::Box;
use alloc::vec;

use super::board::{Board, Held, Member};
use super::queues::Directory;
use super::{About, PageId, Parameters, Policy, Registered, Witness};
use crate::addr::Frame;

const ACTIVE: usize = 0;
const INACTIVE: usize = 1;
const SHADOW: usize = 2;

/// Pages that the kernel scans, and reclaims, at a time.
const BATCH: usize = 32;

/// log2 of the frames of a gigabyte.
const GIGABYTE_SHIFT: u32 = 18;

/// The active and the inactive list, with refault distances, for one kind of pages.
///
/// Linux 6.18, `mm/vmscan.c` and `mm/workingset.c`; J. Weiner, "mm: thrash detection-based file
/// cache sizing", Linux 3.15, 2014.
pub struct Linux {
    directory: Directory<3>,
    referenced: Box<[bool]>, // by frame: was used when it was scanned last
    ages: Box<[u32]>,        // by ghost: the age when it left
    age: u32,                // evictions and activations so far, modulo 2^32
    first: Frame,
    frames: usize,
    batch: usize,
    scanned: usize,     // inactive pages since the balance was looked at
    reclaimed: usize,   // in this round
    has_refaults: bool, // pages came back active before this round
    comes_active: bool, // since this round began
}

impl Registered for Linux {
    const ABOUT: About = About {
        name: "linux",
        line: "two lists, second chances and refault distances, as Linux reclaims without MGLRU",
        paper: "Linux 6.18, mm/vmscan.c and mm/workingset.c",
        settings: &[],
    };

    fn new(parameters: &Parameters) -> Linux {
        let Parameters { first, frames, .. } = *parameters;
        Linux {
            // No distance beyond the frames is small: older shadows are of no use.
            directory: Directory::new(parameters, frames),
            referenced: vec![false; frames].into_boxed_slice(),
            ages: vec![0; frames].into_boxed_slice(),
            age: 0,
            first,
            frames,
            batch: (frames / BATCH).clamp(1, BATCH),
            scanned: 0,
            reclaimed: 0,
            has_refaults: false,
            comes_active: false,
        }
    }
}

impl Linux {
    #[inline]
    fn index_of(&self, frame: Frame) -> usize {
        (frame.0 - self.first.0) as usize
    }

    /// Whether too few pages are on probation: below one in two, and in large memories less.
    fn is_inactive_low(&self) -> bool {
        let queues = &self.directory.queues;
        let (active, inactive) = (queues.len(ACTIVE), queues.len(INACTIVE));
        let gigabytes = (active + inactive) >> GIGABYTE_SHIFT;
        inactive * (10 * gigabytes).isqrt().max(1) < active
    }

    /// Moves the oldest active pages to the inactive list, where they must be used anew to stay.
    fn deactivate(&mut self, witness: &mut dyn Witness) {
        for _ in 0..self.batch {
            let Some(oldest) = self.directory.queues.front(ACTIVE) else { return };
            witness.take_accessed(oldest);
            self.directory.queues.requeue(INACTIVE, oldest);
        }
    }

    /// Scans the inactive list for a victim, which stays there, and leaves its shadow.
    #[inline]
    fn choose(&mut self, witness: &mut dyn Witness) -> Option<Frame> {
        if self.reclaimed == 0 {
            self.has_refaults = core::mem::take(&mut self.comes_active);
        }
        self.reclaimed = (self.reclaimed + 1) % self.batch;
        // A page is spared at most twice, then deactivated and spared no more. On a busy machine
        // one goes although it is used.
        let mut spared = 0;
        let spared_max = 3 * self.len();
        loop {
            if self.scanned == 0 && (self.has_refaults || self.is_inactive_low()) {
                self.deactivate(witness);
            }
            if self.directory.queues.len(INACTIVE) == 0 {
                self.deactivate(witness);
            }
            self.scanned = (self.scanned + 1) % self.batch;
            let oldest = self.directory.queues.front(INACTIVE)?;
            if spared == spared_max || !witness.take_accessed(oldest) {
                self.leave_shadow(oldest);
                return Some(oldest);
            }
            spared += 1;
            let index = self.index_of(oldest);
            if core::mem::replace(&mut self.referenced[index], true) {
                self.directory.queues.requeue(ACTIVE, oldest);
                self.age = self.age.wrapping_add(1);
            } else {
                self.directory.queues.requeue(INACTIVE, oldest);
            }
        }
    }

    #[inline]
    fn leave_shadow(&mut self, frame: Frame) {
        if let Some(ghost) = self.directory.remember(SHADOW, frame) {
            let index = self.index_of(ghost) - self.frames;
            self.ages[index] = self.age;
        }
        self.age = self.age.wrapping_add(1);
    }

    /// Forgets the shadow of `page`, and says whether it comes back soon enough to be active.
    #[inline]
    fn refault(&mut self, page: PageId) -> bool {
        let Some(ghost) = self.directory.ghost_of(page) else { return false };
        let distance = self.age.wrapping_sub(self.ages[self.index_of(ghost) - self.frames]);
        self.directory.recall(page);
        distance as usize <= self.directory.queues.len(ACTIVE)
    }

    /// The list that `page` enters in `frame`.
    #[inline]
    fn entrance(&mut self, frame: Frame, page: PageId) -> usize {
        let index = self.index_of(frame);
        self.referenced[index] = false;
        if !self.refault(page) {
            return INACTIVE;
        }
        self.age = self.age.wrapping_add(1);
        self.comes_active = true;
        ACTIVE
    }
}

impl Policy for Linux {
    #[inline]
    fn insert(&mut self, frame: Frame, page: PageId) {
        let list = self.entrance(frame, page);
        self.directory.admit(list, frame, page);
    }

    #[inline]
    fn remove(&mut self, frame: Frame) {
        self.directory.queues.remove(frame);
    }

    fn evict(&mut self, witness: &mut dyn Witness) -> Option<Frame> {
        if self.is_empty() {
            return None;
        }
        let victim = self.choose(witness)?;
        self.directory.queues.remove(victim);
        Some(victim)
    }

    #[inline]
    fn replace(&mut self, page: PageId, witness: &mut dyn Witness) -> Option<Frame> {
        if self.is_empty() {
            return None;
        }
        // The kernel frees a frame before it looks at the page that comes.
        let victim = self.choose(witness)?;
        let list = self.entrance(victim, page);
        self.directory.reuse(list, victim, page);
        Some(victim)
    }

    fn show(&self, board: &mut dyn Board) {
        let referenced = |member: Member| match member.held {
            Held::Frame(frame) if self.referenced[self.index_of(frame)] => member.with_label("ref"),
            _ => member,
        };
        board.list("inactive", &mut self.directory.members(INACTIVE).map(referenced));
        board.list("active", &mut self.directory.members(ACTIVE));
        board.list("shadows", &mut self.directory.members(SHADOW));
    }

    #[inline]
    fn peek(&self, page: PageId) -> u32 {
        self.directory.peek(page)
    }

    #[inline]
    fn len(&self) -> usize {
        self.directory.queues.len(ACTIVE) + self.directory.queues.len(INACTIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bits, Model, Step, TEXTBOOK, agrees_with, faults};
    use super::*;
    use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
    use alloc::vec::Vec;

    fn linux_of(frames: u32) -> Linux {
        let mut linux = Linux::new(&Parameters::new(frames as usize));
        (0..frames).for_each(|frame| linux.insert(Frame(frame), PageId(frame.into())));
        linux
    }

    #[test]
    fn the_textbook_string_faults_twelve_times() {
        assert_eq!(faults("linux", 3, TEXTBOOK), 12);
    }

    #[test]
    fn a_page_used_at_two_scans_is_active() {
        let mut linux = linux_of(3);
        let mut bits = Bits::new(3);
        bits.accessed = vec![true, false, false];
        assert_eq!(linux.evict(&mut bits), Some(Frame(1)));
        assert_eq!(linux.directory.queues.queue_of(Frame(0)), Some(INACTIVE), "used once");
        bits.accessed[0] = true;
        assert_eq!(linux.evict(&mut bits), Some(Frame(2)));
        linux.insert(Frame(1), PageId(7));
        bits.accessed[1] = false;
        assert_eq!(linux.evict(&mut bits), Some(Frame(1)));
        assert_eq!(linux.directory.queues.queue_of(Frame(0)), Some(ACTIVE), "used twice");
        assert_eq!(linux.evict(&mut bits), Some(Frame(0)), "the last page goes, active or not");
    }

    #[test]
    fn a_page_that_comes_back_soon_is_active_at_once() {
        let mut linux = linux_of(4);
        let mut bits = Bits::new(4);
        bits.accessed = vec![false, true, true, false];
        for frame in [1, 2] {
            linux.directory.queues.requeue(ACTIVE, Frame(frame));
        }
        assert_eq!(linux.evict(&mut bits), Some(Frame(0)));
        assert_eq!(linux.evict(&mut bits), Some(Frame(3)));
        linux.insert(Frame(3), PageId(3));
        assert_eq!(linux.directory.queues.queue_of(Frame(3)), Some(ACTIVE), "distance 1 of 1");
        linux.insert(Frame(0), PageId(0));
        assert_eq!(linux.directory.queues.queue_of(Frame(0)), Some(INACTIVE), "distance 3 of 2");
    }

    #[test]
    fn the_larger_memory_is_the_less_of_it_is_on_probation() {
        let mut linux = linux_of(10);
        (0..5).for_each(|frame| linux.directory.queues.requeue(ACTIVE, Frame(frame)));
        assert!(!linux.is_inactive_low());
        linux.directory.queues.requeue(ACTIVE, Frame(5));
        assert!(linux.is_inactive_low(), "four inactive, six active");
        // A gigabyte: the root of 10 is 3.
        let mut linux = linux_of(1 << GIGABYTE_SHIFT);
        (0..190_000).for_each(|frame| linux.directory.queues.requeue(ACTIVE, Frame(frame)));
        assert!(!linux.is_inactive_low());
        (190_000..200_000).for_each(|frame| linux.directory.queues.requeue(ACTIVE, Frame(frame)));
        assert!(linux.is_inactive_low());
    }

    /// The lists of the kernel with their pages, the head in front, for memories below 64 frames:
    /// rounds are one page long.
    struct Lists {
        frames: usize,
        active: VecDeque<u64>,
        inactive: VecDeque<u64>,
        accessed: BTreeSet<u64>,
        referenced: BTreeSet<u64>,
        nonresident_age: usize,
        shadows: BTreeMap<u64, usize>,
        left: Vec<u64>, // in order, for as many shadows as frames
        activated: bool,
    }

    impl Lists {
        fn reclaim(&mut self) -> u64 {
            let activated = core::mem::take(&mut self.activated);
            loop {
                let is_low = self.inactive.len() < self.active.len();
                for _ in 0..usize::from(activated || is_low) {
                    self.deactivate();
                }
                if self.inactive.is_empty() {
                    self.deactivate();
                }
                let page = self.inactive.pop_back().expect("there is a page");
                if !self.accessed.remove(&page) {
                    self.referenced.remove(&page);
                    self.shadows.insert(page, self.nonresident_age);
                    self.nonresident_age += 1;
                    self.left.push(page);
                    if self.left.len() > self.frames {
                        let forgotten = self.left.remove(0);
                        self.shadows.remove(&forgotten);
                    }
                    return page;
                }
                if self.referenced.insert(page) {
                    self.inactive.push_front(page);
                } else {
                    self.active.push_front(page);
                    self.nonresident_age += 1;
                }
            }
        }

        fn deactivate(&mut self) {
            if let Some(page) = self.active.pop_back() {
                self.accessed.remove(&page);
                self.inactive.push_front(page);
            }
        }
    }

    impl Model for Lists {
        fn step(&mut self, step: Step) -> Vec<u64> {
            let (Step::Use(page) | Step::Write(page) | Step::Drop(page)) = step;
            let is_resident = self.active.contains(&page) || self.inactive.contains(&page);
            if matches!(step, Step::Drop(_)) {
                self.active.retain(|&held| held != page);
                self.inactive.retain(|&held| held != page);
                self.referenced.remove(&page);
                self.accessed.remove(&page);
                return Vec::new();
            }
            self.accessed.insert(page);
            if is_resident {
                return Vec::new();
            }
            self.accessed.remove(&page);
            let is_full = self.active.len() + self.inactive.len() == self.frames;
            let left = if is_full { vec![self.reclaim()] } else { Vec::new() };
            let shadow = self.shadows.remove(&page);
            self.left.retain(|&gone| gone != page);
            match shadow {
                Some(age) if self.nonresident_age - age <= self.active.len() => {
                    self.active.push_front(page);
                    self.nonresident_age += 1;
                    self.activated = true;
                }
                _ => self.inactive.push_front(page),
            }
            self.accessed.insert(page);
            left
        }
    }

    #[test]
    fn it_is_the_kernels_two_lists() {
        agrees_with("linux", |frames| {
            let (active, inactive, left) = Default::default();
            let (accessed, referenced, shadows) = Default::default();
            let (nonresident_age, activated) = (0, false);
            Box::new(Lists {
                frames,
                active,
                inactive,
                accessed,
                referenced,
                nonresident_age,
                shadows,
                left,
                activated,
            })
        });
    }
}
