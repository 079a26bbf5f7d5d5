//! 2Q: a FIFO for new pages, and LRU for those that come back.
//!
//! LRU believes that a page used just now will be used again; after a scan, memory is full of pages
//! for which that was wrong. 2Q does not believe a first use, nor the burst of uses that often
//! follows it: new pages pass through a FIFO, and are remembered when they leave it. Only a page
//! that comes back while remembered enters the main queue, which is LRU.
//!
//! ```text
//!     new ──▶ A1in ──▶ A1out (ghosts) ──comes back──▶ Am
//!             FIFO      FIFO                          LRU ──▶ out, not remembered
//! ```
//!
//! 17 bytes a frame and up to 37 for each of half a ghost a frame; every operation takes constant
//! time.

use super::board::Board;
use super::queues::{Directory, share};
use super::{About, Observe, PageId, Parameters, Policy, Registered, Setting, Witness};
use crate::addr::Frame;

const A1_IN: usize = 0;
const A1_OUT: usize = 1;
const AM: usize = 2;

const IN: Setting = Setting {
    name: "in",
    line: "share of the queue of new pages (Kin), percent of memory",
    default: 25,
    range: 1..=99,
};
const OUT: Setting = Setting {
    name: "out",
    line: "pages remembered after it (Kout), percent of memory",
    default: 50,
    range: 1..=1000,
};

/// 2Q, the full version.
///
/// T. Johnson, D. Shasha, "2Q: A Low Overhead High Performance Buffer Management Replacement
/// Algorithm", VLDB 1994. A page that comes back leaves `A1out` before the victim enters it.
pub struct TwoQ {
    directory: Directory<3>,
    a1_in_share: usize,
}

impl Registered for TwoQ {
    const ABOUT: About = About {
        name: "2q",
        line: "keeps new pages in a FIFO, and those that come back soon after it in LRU order",
        paper: "T. Johnson, D. Shasha, 2Q, VLDB 1994",
        settings: &[IN, OUT],
    };
    const READS_BITS: bool = false;

    fn new(parameters: &Parameters) -> TwoQ {
        let Parameters { frames, settings, .. } = *parameters;
        TwoQ {
            directory: Directory::new(parameters, share(frames, settings.get(&OUT))),
            a1_in_share: share(frames, settings.get(&IN)),
        }
    }
}

impl TwoQ {
    /// Chooses a victim, which stays in its queue, and remembers it if it is new.
    #[inline]
    fn choose(&mut self) -> Option<Frame> {
        let queues = &self.directory.queues;
        let coldest = queues.front(AM);
        if queues.len(A1_IN) <= self.a1_in_share && coldest.is_some() {
            // Not remembered: it was used for the last time long ago.
            return coldest;
        }
        let oldest = queues.front(A1_IN)?;
        self.directory.remember(A1_OUT, oldest);
        Some(oldest)
    }
}

impl Policy for TwoQ {
    #[inline]
    fn insert(&mut self, frame: Frame, page: PageId) {
        let queue = self.directory.recall(page).map_or(A1_IN, |_| AM);
        self.directory.admit(queue, frame, page);
    }

    #[inline]
    fn remove(&mut self, frame: Frame) {
        self.directory.queues.remove(frame);
    }

    fn evict(&mut self, _witness: &mut dyn Witness) -> Option<Frame> {
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
        let queue = self.directory.recall(page).map_or(A1_IN, |_| AM);
        let victim = self.choose()?;
        self.directory.reuse(queue, victim, page);
        Some(victim)
    }

    fn show(&self, board: &mut dyn Board) {
        board.list("A1in", &mut self.directory.members(A1_IN));
        board.list("Am", &mut self.directory.members(AM));
        board.list("A1out", &mut self.directory.members(A1_OUT));
    }

    #[inline]
    fn peek(&self, page: PageId) -> u32 {
        self.directory.peek(page)
    }

    #[inline]
    fn len(&self) -> usize {
        self.directory.queues.len(A1_IN) + self.directory.queues.len(AM)
    }
}

impl Observe for TwoQ {
    #[inline]
    fn touch(&mut self, frame: Frame) {
        if self.directory.queues.queue_of(frame) == Some(AM) {
            self.directory.queues.requeue(AM, frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Model, Step, TEXTBOOK, agrees_with, faults};
    use alloc::boxed::Box;
    use alloc::collections::VecDeque;
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn the_textbook_string_faults_fourteen_times() {
        assert_eq!(faults("2q", 3, TEXTBOOK), 14);
    }

    #[test]
    fn a_burst_of_uses_is_one_use() {
        // In A1in, uses change nothing: 1 leaves it first, however often it was used.
        assert_eq!(faults("2q", 4, &[1, 1, 1, 1, 2, 3, 4, 5, 1]), 6);
    }

    #[test]
    fn a_scan_costs_no_page_that_came_back() {
        // 1 and 2 leave A1in, come back and are in Am; a scan of any length passes through A1in.
        let mut refs = vec![1, 2, 3, 4, 5, 6, 1, 2];
        refs.extend(100..200);
        let before = faults("2q", 4, &refs);
        refs.extend([1, 2]);
        assert_eq!(faults("2q", 4, &refs), before);
    }

    /// The queues of the paper, the head in front.
    struct Paper {
        frames: usize,
        k_in: usize,
        k_out: usize,
        a1_in: VecDeque<u64>,
        a1_out: VecDeque<u64>,
        am: VecDeque<u64>,
    }

    impl Paper {
        fn new(frames: usize, k_in: usize, k_out: usize) -> Paper {
            let (a1_in, a1_out, am) = Default::default();
            Paper { frames, k_in: k_in.max(1), k_out: k_out.max(1), a1_in, a1_out, am }
        }

        fn reclaim(&mut self) -> Vec<u64> {
            if self.a1_in.len() + self.am.len() < self.frames {
                return Vec::new();
            }
            if self.a1_in.len() > self.k_in || self.am.is_empty() {
                let tail = self.a1_in.pop_back().expect("it holds a page");
                self.a1_out.push_front(tail);
                self.a1_out.truncate(self.k_out);
                return vec![tail];
            }
            vec![self.am.pop_back().expect("it holds a page")]
        }
    }

    impl Model for Paper {
        fn step(&mut self, step: Step) -> Vec<u64> {
            let (Step::Use(page) | Step::Write(page) | Step::Drop(page)) = step;
            if matches!(step, Step::Drop(_)) {
                self.a1_in.retain(|&held| held != page);
                self.am.retain(|&held| held != page);
            } else if self.am.contains(&page) {
                self.am.retain(|&held| held != page);
                self.am.push_front(page);
            } else if self.a1_out.contains(&page) {
                self.a1_out.retain(|&held| held != page);
                let left = self.reclaim();
                self.am.push_front(page);
                return left;
            } else if !self.a1_in.contains(&page) {
                let left = self.reclaim();
                self.a1_in.push_front(page);
                return left;
            }
            Vec::new()
        }
    }

    #[test]
    fn it_is_the_papers_three_queues() {
        agrees_with("2q", |frames| Box::new(Paper::new(frames, frames / 4, frames / 2)));
        agrees_with("2q:in=50:out=200", |frames| {
            Box::new(Paper::new(frames, frames / 2, 2 * frames))
        });
    }
}
