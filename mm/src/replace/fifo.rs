//! FIFO: evicts the frame that has been resident longest, however much it is used.
//!
//! The simplest order there is, and the yardstick of the others. It is no stack algorithm: more memory
//! can cost it more faults (Bélády's anomaly).
//!
//! 8 bytes a frame; every operation takes constant time.

use super::board::{Board, Member};
use super::{About, PageId, Parameters, Policy, Registered, Witness};
use crate::addr::Frame;
use crate::ring::Rings;

/// First in, first out.
///
/// L. A. Belady, R. A. Nelson, G. S. Shedler, "An Anomaly in Space-Time Characteristics of Certain
/// Programs Running in a Paging Machine", Communications of the ACM 12(6), 1969.
pub struct Fifo {
    rings: Rings,
    oldest: Option<Frame>,
    len: usize,
}

impl Registered for Fifo {
    const ABOUT: About = About {
        name: "fifo",
        line: "evicts the page that was loaded first, used or not",
        paper: "L. A. Belady, A Study of Replacement Algorithms for a Virtual-Storage Computer, 1966",
        settings: &[],
    };
    const READS_BITS: bool = false;

    fn new(parameters: &Parameters) -> Fifo {
        Fifo { rings: Rings::new(parameters.first, parameters.frames), oldest: None, len: 0 }
    }
}

impl Policy for Fifo {
    fn insert(&mut self, frame: Frame, _page: PageId) {
        self.rings.insert_before(&mut self.oldest, frame);
        self.len += 1;
    }

    fn remove(&mut self, frame: Frame) {
        self.rings.remove(&mut self.oldest, frame);
        self.len -= 1;
    }

    fn evict(&mut self, _witness: &mut dyn Witness) -> Option<Frame> {
        let victim = self.oldest?;
        self.remove(victim);
        Some(victim)
    }

    #[inline]
    fn replace(&mut self, _page: PageId, _witness: &mut dyn Witness) -> Option<Frame> {
        // The oldest becomes the youngest: the ring turns, and no link changes.
        let victim = self.oldest;
        self.rings.rotate(&mut self.oldest);
        victim
    }

    fn show(&self, board: &mut dyn Board) {
        board.list("queue", &mut self.rings.iter(self.oldest).map(Member::frame));
    }

    fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{BELADY, Model, Step, TEXTBOOK, agrees_with, faults};
    use alloc::boxed::Box;
    use alloc::collections::VecDeque;
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn the_textbook_string_faults_fifteen_times() {
        assert_eq!(faults("fifo", 3, TEXTBOOK), 15);
    }

    #[test]
    fn more_memory_can_mean_more_faults() {
        assert_eq!(faults("fifo", 3, BELADY), 9);
        assert_eq!(faults("fifo", 4, BELADY), 10);
    }

    #[test]
    fn use_does_not_save_a_page() {
        assert_eq!(faults("fifo", 2, &[1, 2, 1, 1, 3, 1]), 4);
    }

    struct Queue {
        frames: usize,
        pages: VecDeque<u64>,
    }

    impl Model for Queue {
        fn step(&mut self, step: Step) -> Vec<u64> {
            match step {
                Step::Drop(page) => self.pages.retain(|&held| held != page),
                Step::Use(page) | Step::Write(page) if self.pages.contains(&page) => {}
                Step::Use(page) | Step::Write(page) => {
                    self.pages.push_back(page);
                    if self.pages.len() > self.frames {
                        return vec![self.pages.pop_front().expect("memory is full")];
                    }
                }
            }
            Vec::new()
        }
    }

    #[test]
    fn it_is_a_queue() {
        agrees_with("fifo", |frames| Box::new(Queue { frames, pages: VecDeque::new() }));
    }
}
