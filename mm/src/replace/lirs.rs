//! LIRS: keeps the pages whose last two uses were close together.
//!
//! LRU asks how long ago a page was used. LIRS asks how many other pages were used between its last
//! two uses. Pages for which that was few (LIR) hold almost all of memory; the others (HIR) pass
//! through a short queue Q, even if they were used just now. A stack S, in order of last use, tells
//! who is which: it reaches down to the LIR page that was used longest ago. A HIR page that is used
//! while it is in the stack was used again sooner than that one: the two change roles.
//!
//! ```text
//!     S, top ▸ h5  L2  L7  g9  L4  h1  L3 ◂ bottom, always LIR     Q ▸ h8  h1  h5 ◂
//!              └─ L: LIR   h: HIR   g: HIR, evicted (a ghost)           evicted first
//! ```
//!
//! The paper's stack has no bound. Here there are at most as many ghosts as the user says; the
//! lowest is forgotten first.
//!
//! 26 bytes a frame and up to 45 a ghost. Constant time, but for pruning the bottom of the stack,
//! where each step takes away an entry that a reference made.

use alloc::boxed::Box;
use alloc::vec;

use super::board::{Board, Member};
use super::ghosts::Ghosts;
use super::queues::share;
use super::{About, Observe, PageId, Parameters, Policy, Registered, Setting, Witness};
use crate::addr::Frame;
use crate::ring::Rings;

const HIR: Setting = Setting {
    name: "hir",
    line: "share of resident HIR pages, percent of memory; at least two pages",
    default: 1,
    range: 1..=99,
};
const GHOSTS: Setting = Setting {
    name: "ghosts",
    line: "evicted pages that the stack remembers, percent of memory",
    default: 200,
    range: 1..=2000,
};

/// Low inter-reference recency set.
///
/// S. Jiang, X. Zhang, "LIRS: An Efficient Low Inter-reference Recency Set Replacement Policy to
/// Improve Buffer Cache Performance", SIGMETRICS 2002.
pub struct Lirs {
    stack: Rings,          // frames and ghosts
    bottom: Option<Frame>, // the last use longest ago; towards the top by `next`
    queues: Rings,         // Q, and the ghosts in the order in which they were made
    hirs: Option<Frame>,   // front of Q
    buried: Option<Frame>, // the oldest ghost: the lowest of the stack
    is_lir: Box<[bool]>,   // by frame
    pages: Box<[PageId]>,  // by frame
    ghosts: Ghosts,
    first: Frame,
    lir_len: usize,
    lir_share: usize,
    len: usize,
}

impl Registered for Lirs {
    const ABOUT: About = About {
        name: "lirs",
        line: "keeps pages whose last two uses were close together, whenever they were",
        paper: "S. Jiang, X. Zhang, LIRS, SIGMETRICS 2002",
        settings: &[HIR, GHOSTS],
    };
    const READS_BITS: bool = false;

    fn new(parameters: &Parameters) -> Lirs {
        let Parameters { first, frames, settings, .. } = *parameters;
        let ghosts = share(frames, settings.get(&GHOSTS));
        // Two, as in the paper, as long as that leaves a frame for the others.
        let hirs = share(frames, settings.get(&HIR)).max(2).min(frames.saturating_sub(1)).max(1);
        Lirs {
            stack: Rings::new(first, frames + ghosts),
            bottom: None,
            queues: Rings::new(first, frames + ghosts),
            hirs: None,
            buried: None,
            is_lir: vec![false; frames].into_boxed_slice(),
            pages: vec![PageId(0); frames].into_boxed_slice(),
            ghosts: Ghosts::new(parameters, ghosts),
            first,
            lir_len: 0,
            lir_share: frames.saturating_sub(hirs),
            len: 0,
        }
    }
}

impl Lirs {
    #[inline]
    fn index_of(&self, frame: Frame) -> usize {
        let index = frame.0.wrapping_sub(self.first.0) as usize;
        let count = self.pages.len();
        assert!(index < count, "{frame:?} is not among the {count} frames from {:?}", self.first);
        index
    }

    #[inline]
    fn is_ghost(&self, number: Frame) -> bool {
        (number.0 - self.first.0) as usize >= self.pages.len()
    }

    #[inline]
    fn is_lir(&self, number: Frame) -> bool {
        self.is_lir.get((number.0 - self.first.0) as usize).is_some_and(|&is_lir| is_lir)
    }

    /// Puts `frame` on top of the stack, wherever it was.
    #[inline]
    fn raise(&mut self, frame: Frame) {
        if self.bottom == Some(frame) {
            self.stack.rotate(&mut self.bottom);
            return;
        }
        if self.stack.is_linked(frame) {
            self.stack.remove(&mut self.bottom, frame);
        }
        self.stack.insert_before(&mut self.bottom, frame);
    }

    /// Takes away what lies below the lowest LIR page.
    #[inline]
    fn prune(&mut self) {
        // Ends: each step takes an entry away.
        while let Some(lowest) = self.bottom.filter(|&lowest| !self.is_lir(lowest)) {
            if self.is_ghost(lowest) {
                self.forget(lowest);
            } else {
                self.stack.remove(&mut self.bottom, lowest);
            }
        }
    }

    #[inline]
    fn forget(&mut self, ghost: Frame) {
        self.stack.remove(&mut self.bottom, ghost);
        self.queues.remove(&mut self.buried, ghost);
        self.ghosts.remove(ghost);
    }

    /// Forgets the ghost of `page`, as the page comes back; whether it had one.
    #[inline]
    fn recall(&mut self, page: PageId) -> bool {
        let ghost = self.ghosts.find(page);
        if let Some(ghost) = ghost {
            self.forget(ghost);
            self.prune();
        }
        ghost.is_some()
    }

    /// Makes the lowest LIR page the last of Q.
    #[inline]
    fn demote(&mut self) {
        let Some(lowest) = self.bottom else { return };
        let index = self.index_of(lowest);
        self.is_lir[index] = false;
        self.lir_len -= 1;
        self.stack.remove(&mut self.bottom, lowest);
        self.queues.insert_before(&mut self.hirs, lowest);
        self.prune();
    }

    /// Makes a page that is on top of the stack and not in Q a LIR page.
    #[inline]
    fn promote(&mut self, frame: Frame) {
        let index = self.index_of(frame);
        self.is_lir[index] = true;
        self.lir_len += 1;
        if self.lir_len > self.lir_share {
            self.prune();
            self.demote();
        }
    }

    /// Chooses the first of Q, which stays there; if it is in the stack, its ghost takes its place.
    #[inline]
    fn choose(&mut self) -> Option<Frame> {
        if self.hirs.is_none() {
            // Only after pages were freed: the LIR page used longest ago goes.
            self.demote();
        }
        let victim = self.hirs?;
        if self.stack.is_linked(victim) {
            self.bury(victim);
        }
        Some(victim)
    }

    #[inline]
    fn bury(&mut self, victim: Frame) {
        let page = self.pages[self.index_of(victim)];
        let ghost = if self.ghosts.len() < self.ghosts.capacity() {
            let ghost = self.ghosts.insert(page);
            self.queues.insert_before(&mut self.buried, ghost);
            ghost
        } else {
            // The new ghost has the number of the oldest, so their ring turns.
            let oldest = self.buried.expect("there are ghosts");
            self.stack.remove(&mut self.bottom, oldest);
            self.ghosts.remove(oldest);
            self.queues.rotate(&mut self.buried);
            self.ghosts.insert(page)
        };
        // Above a LIR page, as the stack is pruned: the bottom stays.
        let mut place = Some(victim);
        self.stack.insert_before(&mut place, ghost);
        self.stack.remove(&mut self.bottom, victim);
    }

    /// Whether a page that comes is LIR at once: one that comes back, or while there are too few.
    #[inline]
    fn is_lir_at_once(&self, is_known: bool) -> bool {
        is_known || self.lir_len < self.lir_share
    }
}

impl Policy for Lirs {
    #[inline]
    fn insert(&mut self, frame: Frame, page: PageId) {
        let index = self.index_of(frame);
        assert!(!self.queues.is_linked(frame) && !self.is_lir[index], "{frame:?} is evictable");
        let is_known = self.recall(page);
        self.pages[index] = page;
        self.len += 1;
        self.stack.insert_before(&mut self.bottom, frame);
        if self.is_lir_at_once(is_known) {
            self.promote(frame);
        } else {
            self.queues.insert_before(&mut self.hirs, frame);
            // Without a LIR page, the stack is empty.
            self.prune();
        }
    }

    fn remove(&mut self, frame: Frame) {
        let index = self.index_of(frame);
        if self.is_lir[index] {
            self.is_lir[index] = false;
            self.lir_len -= 1;
            self.stack.remove(&mut self.bottom, frame);
            self.prune();
        } else {
            self.queues.remove(&mut self.hirs, frame);
            if self.stack.is_linked(frame) {
                self.stack.remove(&mut self.bottom, frame);
            }
        }
        self.len -= 1;
    }

    fn evict(&mut self, _witness: &mut dyn Witness) -> Option<Frame> {
        let victim = self.choose()?;
        self.queues.remove(&mut self.hirs, victim);
        self.len -= 1;
        Some(victim)
    }

    #[inline]
    fn replace(&mut self, page: PageId, _witness: &mut dyn Witness) -> Option<Frame> {
        // First, so that the victim's ghost does not push out that of the page that comes.
        let is_known = self.recall(page);
        let victim = self.choose()?;
        let index = self.index_of(victim);
        self.pages[index] = page;
        self.stack.insert_before(&mut self.bottom, victim);
        if self.is_lir_at_once(is_known) {
            self.queues.remove(&mut self.hirs, victim);
            self.promote(victim);
        } else {
            // The first of Q becomes its last: the ring turns.
            self.queues.rotate(&mut self.hirs);
            self.prune();
        }
        Some(victim)
    }

    fn show(&self, board: &mut dyn Board) {
        let is_ghost = |number: &Frame| (number.0 - self.first.0) as usize >= self.pages.len();
        let member = |number: Frame| {
            if is_ghost(&number) {
                Member::page(self.ghosts.page(number)).with_label("gone")
            } else {
                let is_lir = self.is_lir[self.index_of(number)];
                Member::frame(number).with_label(if is_lir { "LIR" } else { "HIR" })
            }
        };
        board.list("S", &mut self.stack.iter(self.bottom).map(member));
        board.list("Q", &mut self.queues.iter(self.hirs).map(Member::frame));
    }

    #[inline]
    fn peek(&self, page: PageId) -> u32 {
        self.ghosts.peek(page)
    }

    #[inline]
    fn len(&self) -> usize {
        self.len
    }
}

impl Observe for Lirs {
    #[inline]
    fn touch(&mut self, frame: Frame) {
        if self.is_lir(frame) {
            let was_lowest = self.bottom == Some(frame);
            self.raise(frame);
            if was_lowest {
                self.prune();
            }
        } else if self.queues.is_linked(frame) {
            let was_close = self.stack.is_linked(frame);
            self.raise(frame);
            if was_close {
                self.queues.remove(&mut self.hirs, frame);
                self.promote(frame);
            } else {
                self.queues.remove(&mut self.hirs, frame);
                self.queues.insert_before(&mut self.hirs, frame);
                self.prune();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Model, Step, TEXTBOOK, agrees_with, faults};
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn the_textbook_string_faults_thirteen_times() {
        assert_eq!(faults("lirs", 3, TEXTBOOK), 13);
    }

    #[test]
    fn a_loop_one_page_larger_than_memory_costs_a_few_pages_only() {
        let refs: Vec<u64> = (0..11).cycle().take(1100).collect();
        assert_eq!(faults("lru", 10, &refs), 1100);
        // Eight LIR pages stay; the other three pass through the two HIR frames.
        assert_eq!(faults("lirs", 10, &refs), 8 + 3 * 100);
    }

    #[test]
    fn a_page_used_again_while_in_the_stack_changes_roles_with_the_lowest() {
        let mut lirs = Lirs::new(&Parameters::new(4));
        (0..4).for_each(|frame| lirs.insert(Frame(frame), PageId(frame.into())));
        assert_eq!(lirs.is_lir[..], [true, true, false, false]);
        lirs.touch(Frame(3));
        assert_eq!(lirs.is_lir[..], [false, true, false, true]);
        assert_eq!(lirs.bottom, Some(Frame(1)));
    }

    #[derive(Clone, Copy, PartialEq)]
    enum State {
        Lir,
        Hir,
        Gone,
    }

    /// The stack and the queue of the paper, the top of the stack last, found by search.
    struct Paper {
        frames: usize,
        lir_share: usize,
        ghosts: usize,
        stack: Vec<(u64, State)>,
        queue: Vec<u64>,
    }

    impl Paper {
        fn lirs(&self) -> usize {
            self.stack.iter().filter(|entry| entry.1 == State::Lir).count()
        }

        fn prune(&mut self) {
            let lowest = self.stack.iter().position(|entry| entry.1 == State::Lir);
            self.stack.drain(..lowest.unwrap_or(self.stack.len()));
        }

        fn demote_lowest(&mut self) {
            self.prune();
            let (page, _) = self.stack.remove(0);
            self.queue.push(page);
            self.prune();
        }

        fn evict(&mut self) -> u64 {
            if self.queue.is_empty() {
                self.demote_lowest();
            }
            let page = self.queue.remove(0);
            if let Some(entry) = self.stack.iter_mut().find(|entry| entry.0 == page) {
                entry.1 = State::Gone;
            }
            let gone = |entry: &(u64, State)| entry.1 == State::Gone;
            if self.stack.iter().filter(|entry| gone(entry)).count() > self.ghosts {
                let oldest = self.stack.iter().position(gone).expect("there are too many");
                self.stack.remove(oldest);
            }
            page
        }

        /// Puts a page on top, and makes it a LIR page if it deserves that.
        fn load(&mut self, page: u64, is_close: bool) {
            if is_close || self.lirs() < self.lir_share {
                self.stack.push((page, State::Lir));
                if self.lirs() > self.lir_share {
                    self.demote_lowest();
                }
            } else {
                self.stack.push((page, State::Hir));
                self.queue.push(page);
            }
            self.prune();
        }
    }

    impl Model for Paper {
        fn step(&mut self, step: Step) -> Vec<u64> {
            let (Step::Use(page) | Step::Write(page) | Step::Drop(page)) = step;
            let place = self.stack.iter().position(|entry| entry.0 == page);
            let state = place.map(|place| self.stack[place].1);
            let is_resident = self.queue.contains(&page) || state == Some(State::Lir);
            if matches!(step, Step::Drop(_)) {
                if is_resident {
                    self.stack.retain(|entry| entry.0 != page);
                    self.queue.retain(|&held| held != page);
                    self.prune();
                }
                return Vec::new();
            }
            self.stack.retain(|entry| entry.0 != page);
            self.queue.retain(|&held| held != page);
            let mut left = Vec::new();
            if !is_resident && self.queue.len() + self.lirs() == self.frames {
                self.prune();
                left.push(self.evict());
            }
            match state {
                Some(State::Lir) => self.stack.push((page, State::Lir)),
                Some(_) => self.load(page, true),
                None if is_resident => {
                    self.stack.push((page, State::Hir));
                    self.queue.push(page);
                }
                None => self.load(page, false),
            }
            self.prune();
            left
        }
    }

    fn paper(frames: usize, hirs: usize, ghosts: usize) -> Paper {
        let hirs = if frames == 1 { 1 } else { hirs.max(2).min(frames - 1) };
        let (lir_share, ghosts) = (frames - hirs, ghosts.max(1));
        Paper { frames, lir_share, ghosts, stack: Vec::new(), queue: Vec::new() }
    }

    #[test]
    fn it_is_the_papers_stack_and_queue() {
        agrees_with("lirs", |frames| Box::new(paper(frames, 0, 2 * frames)));
        agrees_with("lirs:hir=40:ghosts=50", |frames| {
            Box::new(paper(frames, frames * 40 / 100, frames / 2))
        });
    }

    #[test]
    fn pages_that_leave_in_batches_leave_a_stack_that_ends_in_a_lir_page() {
        let mut lirs = Lirs::new(&Parameters::new(7));
        let mut bits = super::super::testing::Bits::new(7);
        let mut free: Vec<u32> = (0..7).collect();
        let mut state = 1_u64;
        for _ in 0..10_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            match state >> 61 {
                0 => {
                    free.extend(
                        (0..state >> 40 & 7).filter_map(|_| Some(lirs.evict(&mut bits)?.0)),
                    );
                }
                1 | 2 => lirs.touch(Frame((state >> 40) as u32 % 7)),
                _ => {
                    if let Some(frame) = free.pop() {
                        lirs.insert(Frame(frame), PageId(state >> 50 & 15));
                    }
                }
            }
            assert!(lirs.bottom.is_none_or(|lowest| lirs.is_lir(lowest)));
            assert_eq!(lirs.lir_len, lirs.is_lir.iter().filter(|&&is_lir| is_lir).count());
            assert!(lirs.lir_len <= 5);
            assert_eq!(lirs.len() + free.len(), 7);
        }
    }
}
