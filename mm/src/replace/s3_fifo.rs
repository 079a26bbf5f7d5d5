//! S3-FIFO: three queues, of which the smallest filters what is used once.
//!
//! Most pages of a skewed string are used once in the time that they could stay. S3-FIFO lets a
//! page prove itself in a small queue first. If it was used twice there, it goes on to the main
//! queue; if not, it goes, and is remembered. A page that comes back while it is remembered was
//! judged too early: it enters the main queue at once. There, each use saves it for one more round,
//! up to three.
//!
//! ```text
//!     new ──▶ small ──used twice──▶ main ──unused──▶ out
//!               │                   ▲  └─used─┘
//!               └──▶ ghost ─────────┘ comes back
//! ```
//!
//! Ghosts are as many as the main queue has places, the oldest forgotten first. While memory fills
//! for the first time, pages that the small queue has no place for enter the main one.
//!
//! 18 bytes a frame and up to 37 for each of 0.9 ghosts a frame. A use adds to a counter; eviction
//! takes as many steps as pages are spared.

use alloc::boxed::Box;
use alloc::vec;

use super::board::{Board, Held, Member};
use super::queues::{Directory, share};
use super::{About, Observe, PageId, Parameters, Policy, Registered, Setting, Witness};
use crate::addr::Frame;

const SMALL: usize = 0;
const MAIN: usize = 1;
const GHOST: usize = 2;

/// What the counter of uses stops at.
const USES_MAX: u8 = 3;
/// Uses in the small queue that take a page to the main one.
const USES_TO_STAY: u8 = 2;

const SMALL_SHARE: Setting = Setting {
    name: "small",
    line: "share of the small queue, percent of memory",
    default: 10,
    range: 1..=99,
};

/// S3-FIFO, with the details of its authors' implementation.
///
/// J. Yang, Y. Zhang, Z. Qiu, Y. Yue, K. V. Rashmi, "FIFO Queues Are All You Need for Cache
/// Eviction", SOSP 2023.
pub struct S3Fifo {
    directory: Directory<3>,
    uses: Box<[u8]>, // by frame: uses since it entered its queue, or was spared
    first: Frame,
    small: usize, // places of each queue
    main: usize,
    has_evicted: bool,
}

impl Registered for S3Fifo {
    const ABOUT: About = About {
        name: "s3-fifo",
        line: "lets a page prove itself in a small queue before it may stay in the main one",
        paper: "J. Yang et al., FIFO Queues Are All You Need for Cache Eviction, SOSP 2023",
        settings: &[SMALL_SHARE],
    };
    const READS_BITS: bool = false;

    fn new(parameters: &Parameters) -> S3Fifo {
        let Parameters { first, frames, settings, .. } = *parameters;
        let percent = settings.get(&SMALL_SHARE);
        let small = share(frames, percent);
        let ghosts = (frames as u64 * (100 - percent) / 100) as usize;
        S3Fifo {
            directory: Directory::new(parameters, ghosts),
            uses: vec![0; frames].into_boxed_slice(),
            first,
            small,
            main: frames.saturating_sub(small),
            has_evicted: false,
        }
    }
}

impl S3Fifo {
    #[inline]
    fn uses_of(&mut self, frame: Frame) -> &mut u8 {
        &mut self.uses[(frame.0 - self.first.0) as usize]
    }

    /// Chooses a victim, which stays in its queue, and remembers it.
    #[inline]
    fn choose(&mut self) -> Option<Frame> {
        self.has_evicted = true;
        if self.directory.queues.len(MAIN) <= self.main {
            // Ends: each step takes a page out of the queue.
            while let Some(frame) = self.directory.queues.front(SMALL) {
                if core::mem::take(self.uses_of(frame)) < USES_TO_STAY {
                    self.directory.remember(GHOST, frame);
                    return Some(frame);
                }
                self.directory.queues.requeue(MAIN, frame);
            }
        }
        // The main queue has more than its share, or the small one is empty now.
        loop {
            // Ends: each step takes a use from a counter.
            let frame = self.directory.queues.front(MAIN)?;
            let uses = self.uses_of(frame);
            if *uses == 0 {
                return Some(frame);
            }
            *uses -= 1;
            self.directory.queues.requeue(MAIN, frame);
        }
    }

    /// The queue that a page enters.
    #[inline]
    fn entrance(&self, is_known: bool) -> usize {
        let warms_up = !self.has_evicted && self.directory.queues.len(SMALL) >= self.small;
        if is_known || warms_up { MAIN } else { SMALL }
    }
}

impl Policy for S3Fifo {
    #[inline]
    fn insert(&mut self, frame: Frame, page: PageId) {
        let is_known = self.directory.recall(page).is_some();
        self.directory.admit(self.entrance(is_known), frame, page);
        *self.uses_of(frame) = 0;
    }

    #[inline]
    fn remove(&mut self, frame: Frame) {
        self.directory.queues.remove(frame);
    }

    fn evict(&mut self, _witness: &mut dyn Witness) -> Option<Frame> {
        if self.is_empty() {
            return None;
        }
        let victim = self.choose()?;
        self.directory.queues.remove(victim);
        Some(victim)
    }

    #[inline]
    fn replace(&mut self, page: PageId, _witness: &mut dyn Witness) -> Option<Frame> {
        if self.is_empty() {
            return None;
        }
        // First, so that the victim's ghost does not push out that of the page that comes.
        let is_known = self.directory.recall(page).is_some();
        let victim = self.choose()?;
        self.directory.reuse(self.entrance(is_known), victim, page);
        *self.uses_of(victim) = 0;
        Some(victim)
    }

    fn show(&self, board: &mut dyn Board) {
        let uses = |member: Member| match member.held {
            Held::Frame(frame) => {
                member.with_count(self.uses[(frame.0 - self.first.0) as usize].into())
            }
            Held::Page(_) => member,
        };
        board.list("small", &mut self.directory.members(SMALL).map(uses));
        board.list("main", &mut self.directory.members(MAIN).map(uses));
        board.list("ghosts", &mut self.directory.members(GHOST));
    }

    #[inline]
    fn peek(&self, page: PageId) -> u32 {
        self.directory.peek(page)
    }

    #[inline]
    fn len(&self) -> usize {
        self.directory.queues.len(SMALL) + self.directory.queues.len(MAIN)
    }
}

impl Observe for S3Fifo {
    #[inline]
    fn touch(&mut self, frame: Frame) {
        // Counted for frames that are pinned, too: insertion starts at zero.
        let uses = self.uses_of(frame);
        *uses = (*uses + 1).min(USES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Model, Step, TEXTBOOK, agrees_with, faults};
    use super::*;
    use alloc::collections::VecDeque;
    use alloc::vec::Vec;

    #[test]
    fn the_textbook_string_faults_twelve_times() {
        assert_eq!(faults("s3-fifo", 3, TEXTBOOK), 12);
    }

    #[test]
    fn a_scan_does_not_reach_the_main_queue() {
        let mut refs: Vec<u64> = (0..9).chain(0..9).collect();
        refs.extend((0..9).chain(100..150).chain(0..9));
        assert_eq!(faults("s3-fifo", 10, &refs), 9 + 50);
        assert_eq!(faults("lru", 10, &refs), 9 + 50 + 9);
    }

    #[test]
    fn a_page_that_comes_back_enters_the_main_queue() {
        let mut policy = S3Fifo::new(&Parameters::new(2));
        let mut bits = super::super::testing::Bits::new(2);
        policy.insert(Frame(0), PageId(1));
        policy.insert(Frame(1), PageId(2));
        assert_eq!(policy.replace(PageId(3), &mut bits), Some(Frame(0)));
        assert_eq!(policy.directory.queues.queue_of(Frame(0)), Some(SMALL));
        assert_eq!(policy.replace(PageId(1), &mut bits), Some(Frame(0)), "3 goes, unused");
        assert_eq!(policy.directory.queues.queue_of(Frame(0)), Some(MAIN));
    }

    /// The queues of the paper, new pages at the back; counters are not capped, but count as
    /// capped.
    struct Three {
        small: VecDeque<(u64, u32)>,
        main: VecDeque<(u64, u32)>,
        ghost: VecDeque<u64>,
        small_places: usize,
        main_places: usize,
        ghost_places: usize,
        evicted: bool,
    }

    fn three(frames: usize, percent: usize) -> Three {
        let small_places = (frames * percent / 100).max(1);
        Three {
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghost: VecDeque::new(),
            small_places,
            main_places: frames - small_places,
            ghost_places: frames * (100 - percent) / 100,
            evicted: false,
        }
    }

    impl Three {
        fn evict_small(&mut self) -> Option<u64> {
            while let Some((page, freq)) = self.small.pop_front() {
                if freq > 1 {
                    self.main.push_back((page, 0));
                    continue;
                }
                self.ghost.push_back(page);
                if self.ghost.len() > self.ghost_places {
                    self.ghost.pop_front();
                }
                return Some(page);
            }
            None
        }

        fn evict_main(&mut self) -> Option<u64> {
            while let Some((page, freq)) = self.main.pop_front() {
                if freq == 0 {
                    return Some(page);
                }
                self.main.push_back((page, freq.min(3) - 1));
            }
            None
        }
    }

    impl Model for Three {
        fn step(&mut self, step: Step) -> Vec<u64> {
            let (Step::Use(page) | Step::Write(page) | Step::Drop(page)) = step;
            if matches!(step, Step::Drop(_)) {
                self.small.retain(|entry| entry.0 != page);
                self.main.retain(|entry| entry.0 != page);
                return Vec::new();
            }
            let mut held = self.small.iter_mut().chain(&mut self.main);
            if let Some(entry) = held.find(|entry| entry.0 == page) {
                entry.1 += 1;
                return Vec::new();
            }
            let known = self.ghost.contains(&page);
            self.ghost.retain(|&ghost| ghost != page);
            let mut left = Vec::new();
            if self.small.len() + self.main.len() == self.small_places + self.main_places {
                self.evicted = true;
                while left.is_empty() {
                    let from_main = self.main.len() > self.main_places || self.small.is_empty();
                    left.extend(if from_main { self.evict_main() } else { self.evict_small() });
                }
            }
            if known || !self.evicted && self.small.len() >= self.small_places {
                self.main.push_back((page, 0));
            } else {
                self.small.push_back((page, 0));
            }
            left
        }
    }

    #[test]
    fn it_is_three_queues() {
        agrees_with("s3-fifo", |frames| Box::new(three(frames, 10)));
        agrees_with("s3-fifo:small=40", |frames| Box::new(three(frames, 40)));
    }
}
