//! LRU: evicts the frame that was used least recently, exactly.
//!
//! It needs the order of all references, which no hardware keeps: what kernels call LRU is one of its
//! approximations. Exact LRU is what they are measured against. It is a stack algorithm: the pages
//! held in less memory are always among those held in more, so more memory never costs faults.
//!
//! 8 bytes a frame; every operation takes constant time.

use super::board::{Board, Member};
use super::{About, Observe, PageId, Parameters, Policy, Registered, Witness};
use crate::addr::Frame;
use crate::ring::Rings;

/// Least recently used, exactly.
///
/// R. L. Mattson, J. Gecsei, D. R. Slutz, I. L. Traiger, "Evaluation Techniques for Storage
/// Hierarchies", IBM Systems Journal 9(2), 1970.
pub struct Lru {
    rings: Rings,
    coldest: Option<Frame>, // ring in order of last use
    len: usize,
}

impl Registered for Lru {
    const ABOUT: About = About {
        name: "lru",
        line: "evicts the page used least recently, from a record of every reference",
        paper: "R. L. Mattson et al., Evaluation Techniques for Storage Hierarchies, 1970",
        settings: &[],
    };
    const READS_BITS: bool = false;

    fn new(parameters: &Parameters) -> Lru {
        Lru { rings: Rings::new(parameters.first, parameters.frames), coldest: None, len: 0 }
    }
}

impl Policy for Lru {
    fn insert(&mut self, frame: Frame, _page: PageId) {
        self.rings.insert_before(&mut self.coldest, frame);
        self.len += 1;
    }

    fn remove(&mut self, frame: Frame) {
        self.rings.remove(&mut self.coldest, frame);
        self.len -= 1;
    }

    fn evict(&mut self, _witness: &mut dyn Witness) -> Option<Frame> {
        let victim = self.coldest?;
        self.remove(victim);
        Some(victim)
    }

    #[inline]
    fn replace(&mut self, _page: PageId, _witness: &mut dyn Witness) -> Option<Frame> {
        // The coldest becomes the hottest: the ring turns, and no link changes.
        let victim = self.coldest;
        self.rings.rotate(&mut self.coldest);
        victim
    }

    fn show(&self, board: &mut dyn Board) {
        board.list("by last use", &mut self.rings.iter(self.coldest).map(Member::frame));
    }

    fn len(&self) -> usize {
        self.len
    }
}

impl Observe for Lru {
    #[inline]
    fn touch(&mut self, frame: Frame) {
        if self.rings.is_linked(frame) {
            self.rings.make_last(&mut self.coldest, frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{
        BELADY, Bits, Model, Step, TEXTBOOK, agrees_with, faults, includes,
    };
    use super::*;
    use alloc::boxed::Box;
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn the_textbook_string_faults_twelve_times() {
        assert_eq!(faults("lru", 3, TEXTBOOK), 12);
    }

    #[test]
    fn more_memory_never_means_more_faults() {
        assert_eq!(faults("lru", 3, BELADY), 10);
        assert_eq!(faults("lru", 4, BELADY), 8);
        assert_eq!(faults("lru", 5, BELADY), 5);
    }

    #[test]
    fn what_it_holds_in_less_memory_it_holds_in_more() {
        includes("lru");
    }

    #[test]
    fn a_loop_one_page_larger_than_memory_always_misses() {
        let refs: Vec<u64> = (0..5).cycle().take(50).collect();
        assert_eq!(faults("lru", 4, &refs), 50);
        assert_eq!(faults("lru", 5, &refs), 5);
    }

    #[test]
    fn a_touch_moves_a_frame_to_the_end_and_ignores_pinned_ones() {
        let mut lru = Lru::new(&Parameters::new(3));
        (0..3).for_each(|frame| lru.insert(Frame(frame), PageId(0)));
        lru.touch(Frame(0));
        lru.remove(Frame(1));
        lru.touch(Frame(1));
        let mut bits = Bits::new(3);
        let out: Vec<_> = core::iter::from_fn(|| lru.evict(&mut bits)).collect();
        assert_eq!(out, [Frame(2), Frame(0)]);
    }

    /// Pages in order of last use, the coldest first.
    struct Stack {
        frames: usize,
        pages: Vec<u64>,
    }

    impl Model for Stack {
        fn step(&mut self, step: Step) -> Vec<u64> {
            let (Step::Use(page) | Step::Write(page) | Step::Drop(page)) = step;
            self.pages.retain(|&held| held != page);
            if !matches!(step, Step::Drop(_)) {
                self.pages.push(page);
            }
            if self.pages.len() > self.frames { vec![self.pages.remove(0)] } else { Vec::new() }
        }
    }

    #[test]
    fn it_is_a_stack_in_order_of_last_use() {
        agrees_with("lru", |frames| Box::new(Stack { frames, pages: Vec::new() }));
    }
}
