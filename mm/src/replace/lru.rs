//! LRU: evicts the frame that was used least recently, exactly.
//!
//! It needs the order of all references, which no hardware keeps: what kernels call LRU is one of its
//! approximations. Exact LRU is what they are measured against. It is a stack algorithm: the pages
//! held in less memory are always among those held in more, so more memory never costs faults.
//!
//! 8 bytes a frame; every operation takes constant time.

use alloc::boxed::Box;

use super::{Entry, Observe, PageId, Parameters, Policy, Replacement, Witness};
use crate::addr::Frame;
use crate::ring::Rings;

/// LRU in the registry.
pub const ENTRY: Entry = Entry {
    name: "lru",
    line: "evicts the page used least recently, from a record of every reference",
    paper: "R. L. Mattson et al., Evaluation Techniques for Storage Hierarchies, 1970",
    make: |parameters| Replacement::Observed(Box::new(Lru::new(parameters))),
};

/// Least recently used, exactly.
///
/// R. L. Mattson, J. Gecsei, D. R. Slutz, I. L. Traiger, "Evaluation Techniques for Storage
/// Hierarchies", IBM Systems Journal 9(2), 1970.
pub struct Lru {
    rings: Rings,
    coldest: Option<Frame>, // ring in order of last use
    len: usize,
}

impl Lru {
    /// An empty order for these frames.
    ///
    /// # Panics
    /// If their numbers do not fit in 32 bits.
    pub fn new(parameters: &Parameters) -> Lru {
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

    fn len(&self) -> usize {
        self.len
    }
}

impl Observe for Lru {
    fn touch(&mut self, frame: Frame) {
        if self.rings.is_linked(frame) {
            self.rings.remove(&mut self.coldest, frame);
            self.rings.insert_before(&mut self.coldest, frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{BELADY, Bits, TEXTBOOK, faults};
    use super::*;
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
        let mut bits = Bits(Vec::new());
        let out: Vec<_> = core::iter::from_fn(|| lru.evict(&mut bits)).collect();
        assert_eq!(out, [Frame(2), Frame(0)]);
    }
}
