//! ARC: recency and frequency share memory, and ghosts tell which needs more of it.
//!
//! Pages used once lie in T1, pages used again in T2, both in LRU order. What T1 evicts is
//! remembered in B1, what T2 evicts in B2. A page that comes back from B1 says that T1 was too
//! small, and one from B2 that T2 was: the target size of T1 moves by what the ghosts are worth. No
//! number is tuned.
//!
//! ```text
//!      ghosts      pages used once │ used again    ghosts
//!     [   B1   |         T1        │      T2     |     B2   ]
//!                           target ┆ ◀─ B2 ── B1 ─▶
//! ```
//!
//! T1 and B1 together hold at most as many pages as memory, all four at most twice as many.
//!
//! 17 bytes a frame and up to 37 for each of one ghost a frame; every operation takes constant
//! time.

use super::board::Board;
use super::queues::Directory;
use super::{About, Observe, PageId, Parameters, Policy, Registered, Witness};
use crate::addr::Frame;

pub(super) const T1: usize = 0;
pub(super) const T2: usize = 1;
pub(super) const B1: usize = 2;
pub(super) const B2: usize = 3;

/// How much of memory T1 should have: a real number of frames.
pub(super) struct Target(pub(super) f64);

impl Target {
    /// Learns from a page that comes back from `ghosts`, which remembered `mine` pages, while the
    /// other ghost queue remembers `others`.
    #[inline]
    pub(super) fn learn(&mut self, ghosts: usize, mine: usize, others: usize, frames: usize) {
        // The smaller a ghost queue, the more a hit in it says.
        let step = (others as f64 / mine as f64).max(1.0);
        self.0 = if ghosts == B1 {
            (self.0 + step).min(frames as f64)
        } else {
            (self.0 - step).max(0.0)
        };
    }
}

/// The adaptive replacement cache.
///
/// N. Megiddo, D. S. Modha, "ARC: A Self-Tuning, Low Overhead Replacement Cache", FAST 2003.
pub struct Arc {
    directory: Directory<4>,
    target: Target,
    frames: usize,
}

impl Registered for Arc {
    const ABOUT: About = About {
        name: "arc",
        line: "balances pages used once against pages used again by what it evicted too early",
        paper: "N. Megiddo, D. S. Modha, ARC: A Self-Tuning Replacement Cache, FAST 2003",
        settings: &[],
    };
    const READS_BITS: bool = false;

    fn new(parameters: &Parameters) -> Arc {
        let frames = parameters.frames;
        Arc { directory: Directory::new(parameters, frames), target: Target(0.0), frames }
    }
}

impl Arc {
    /// Notes that `page` comes back, if it is a ghost: the queue that remembered it.
    #[inline]
    fn recall(&mut self, page: PageId) -> Option<usize> {
        let from = self.directory.recall(page)?;
        let queues = &self.directory.queues;
        let others = queues.len(B1 + B2 - from);
        self.target.learn(from, queues.len(from) + 1, others, self.frames);
        Some(from)
    }

    /// Makes room in the directory for a page that it does not know. Whether T1 alone is as large
    /// as memory, so that there is no ghost to forget but the victim's.
    #[inline]
    fn forget_one(&mut self) -> bool {
        let queues = &self.directory.queues;
        let once = queues.len(T1) + queues.len(B1);
        let all = once + queues.len(T2) + queues.len(B2);
        if once >= self.frames {
            return !self.directory.forget(B1);
        }
        if all >= 2 * self.frames {
            self.directory.forget(B2);
        }
        false
    }

    /// The step that the paper calls REPLACE: chooses a victim, which stays in its queue, and
    /// remembers it. `from` is the ghost queue that knew the page that comes.
    #[inline]
    fn choose(&mut self, from: Option<usize>) -> Option<Frame> {
        let queues = &self.directory.queues;
        let once = queues.len(T1) as f64;
        let is_large = once > self.target.0 || from == Some(B2) && once >= self.target.0;
        // Pages that were freed can leave T2 empty below the target.
        let queue = if queues.len(T1) > 0 && is_large || queues.len(T2) == 0 { T1 } else { T2 };
        let victim = queues.front(queue)?;
        self.directory.remember(if queue == T1 { B1 } else { B2 }, victim);
        Some(victim)
    }
}

impl Policy for Arc {
    #[inline]
    fn insert(&mut self, frame: Frame, page: PageId) {
        let from = self.recall(page);
        if from.is_none() {
            self.forget_one();
        }
        self.directory.admit(if from.is_some() { T2 } else { T1 }, frame, page);
    }

    #[inline]
    fn remove(&mut self, frame: Frame) {
        self.directory.queues.remove(frame);
    }

    /// As for a page that is not known. The directory makes room when that comes, or before if many
    /// are evicted together.
    fn evict(&mut self, _witness: &mut dyn Witness) -> Option<Frame> {
        let is_alone = self.directory.is_full() && self.forget_one();
        let victim = if is_alone { self.directory.queues.front(T1) } else { self.choose(None) }?;
        self.directory.queues.remove(victim);
        Some(victim)
    }

    #[inline]
    fn replace(&mut self, page: PageId, _witness: &mut dyn Witness) -> Option<Frame> {
        if self.is_empty() {
            return None;
        }
        let from = self.recall(page);
        let is_alone = from.is_none() && self.forget_one();
        let victim = if is_alone { self.directory.queues.front(T1) } else { self.choose(from) }?;
        self.directory.reuse(if from.is_some() { T2 } else { T1 }, victim, page);
        Some(victim)
    }

    fn show(&self, board: &mut dyn Board) {
        for (queue, name) in [(T1, "T1"), (T2, "T2"), (B1, "B1"), (B2, "B2")] {
            board.list(name, &mut self.directory.members(queue));
        }
        board.number("p", self.target.0);
    }

    #[inline]
    fn peek(&self, page: PageId) -> u32 {
        self.directory.peek(page)
    }

    #[inline]
    fn len(&self) -> usize {
        self.directory.queues.len(T1) + self.directory.queues.len(T2)
    }
}

impl Observe for Arc {
    #[inline]
    fn touch(&mut self, frame: Frame) {
        if self.directory.queues.queue_of(frame).is_some() {
            self.directory.queues.requeue(T2, frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{BELADY, Model, Step, TEXTBOOK, agrees_with, faults};
    use super::*;
    use alloc::boxed::Box;
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn the_textbook_string_faults_thirteen_times() {
        assert_eq!(faults("arc", 3, TEXTBOOK), 13);
    }

    #[test]
    fn pages_used_once_are_lru_among_themselves() {
        assert_eq!(faults("arc", 3, BELADY), faults("lru", 3, BELADY));
    }

    #[test]
    fn a_scan_passes_by_the_pages_used_twice() {
        let mut refs: Vec<u64> = (0..5).chain(0..5).collect();
        refs.extend((100..200).chain(0..5));
        assert_eq!(faults("arc", 10, &refs), 5 + 100);
        assert_eq!(faults("lru", 10, &refs), 5 + 100 + 5);
    }

    #[test]
    fn the_target_follows_the_ghosts_that_are_hit() {
        let mut target = Target(0.0);
        target.learn(B1, 2, 6, 10);
        assert!((target.0 - 3.0).abs() < 1e-9, "a hit in a third of the ghosts counts three times");
        target.learn(B2, 6, 2, 10);
        assert!((target.0 - 2.0).abs() < 1e-9);
        (0..20).for_each(|_| target.learn(B1, 1, 1, 10));
        assert!((target.0 - 10.0).abs() < 1e-9, "not more than memory");
    }

    /// Figure 4 of the paper, its lists with the MRU end last.
    struct Figure {
        c: usize,
        p: f64,
        t: [Vec<u64>; 2],
        b: [Vec<u64>; 2],
    }

    impl Figure {
        fn replace(&mut self, in_b2: bool) -> u64 {
            let t1 = self.t[0].len() as f64;
            let first = !self.t[0].is_empty() && (t1 > self.p || in_b2 && t1 >= self.p);
            let side = usize::from(!first && !self.t[1].is_empty());
            let page = self.t[side].remove(0);
            self.b[side].push(page);
            page
        }
    }

    impl Model for Figure {
        fn step(&mut self, step: Step) -> Vec<u64> {
            let (Step::Use(page) | Step::Write(page) | Step::Drop(page)) = step;
            let was_held = self.t.iter().any(|list| list.contains(&page));
            if was_held || matches!(step, Step::Drop(_)) {
                self.t.iter_mut().for_each(|list| list.retain(|&held| held != page));
                if !matches!(step, Step::Drop(_)) {
                    self.t[1].push(page);
                }
                return Vec::new();
            }
            let is_full = self.t[0].len() + self.t[1].len() == self.c;
            let (b1, b2) = (self.b[0].len() as f64, self.b[1].len() as f64);
            let ghost = self.b.iter().position(|list| list.contains(&page));
            if let Some(side) = ghost {
                self.p = match side {
                    0 => (self.p + (b2 / b1).max(1.0)).min(self.c as f64),
                    _ => (self.p - (b1 / b2).max(1.0)).max(0.0),
                };
                self.b[side].retain(|&other| other != page);
                let left = if is_full { vec![self.replace(side == 1)] } else { Vec::new() };
                self.t[1].push(page);
                return left;
            }
            let l1 = self.t[0].len() + self.b[0].len();
            let l2 = self.t[1].len() + self.b[1].len();
            let left = if l1 == self.c && self.t[0].len() == self.c {
                vec![self.t[0].remove(0)]
            } else {
                if l1 == self.c {
                    self.b[0].remove(0);
                } else if l1 + l2 == 2 * self.c {
                    self.b[1].remove(0);
                }
                if is_full { vec![self.replace(false)] } else { Vec::new() }
            };
            self.t[0].push(page);
            left
        }
    }

    #[test]
    fn it_is_the_papers_figure() {
        agrees_with("arc", |c| {
            Box::new(Figure { c, p: 0.0, t: Default::default(), b: Default::default() })
        });
    }

    #[test]
    fn the_directory_is_never_larger_than_the_paper_allows() {
        let mut arc = Arc::new(&Parameters::new(6));
        let mut bits = super::super::testing::Bits::new(6);
        let mut free: Vec<u32> = (0..6).collect();
        let mut state = 1_u64;
        for _ in 0..5000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Batches: several leave, then several come.
            if state >> 61 < 3 || free.is_empty() {
                free.extend((0..state >> 40 & 7).filter_map(|_| arc.evict(&mut bits)).map(|f| f.0));
            } else {
                let frame = free.pop().expect("one is free");
                arc.insert(Frame(frame), PageId(state >> 50 & 15));
            }
            let queues = &arc.directory.queues;
            let [t1, t2, b1, b2] = [T1, T2, B1, B2].map(|queue| queues.len(queue));
            assert!(t1 + b1 <= 6 && t1 + t2 + b1 + b2 <= 12 && b1 + b2 <= 6);
            assert_eq!(arc.len() + free.len(), 6);
        }
    }
}
