//! Ghosts: pages that are gone, and remembered.
//!
//! A policy that learns from its mistakes recognises a page that it evicted too early. It remembers
//! the identities of evicted pages, without their frames: *ghosts*. Each has a number beyond those
//! of the frames, so that rings over frames and ghosts can hold both.
//!
//! A table of chains finds a ghost by its page: each place holds the first ghost of a chain, and
//! each ghost the next. There are two to four places a ghost, so that most chains are empty or have
//! one member, and adding to one needs no search: the branches of a longer search would cost more
//! than everything else that a policy does.
//!
//! Invariant: all arrays are made at construction. Links are indices + 1, so that zero bytes are an
//! empty table.

use alloc::boxed::Box;
use alloc::vec;

use super::PageId;
use crate::addr::Frame;

/// A set of at most `capacity` remembered pages: 20 to 28 bytes each.
pub(super) struct Ghosts {
    places: Box<[u32]>, // the first of a chain
    next: Box<[u32]>,   // by ghost: the next of its chain, or of those that are free
    pages: Box<[PageId]>,
    free: u32,  // the first that was a ghost and is none now
    fresh: u32, // all from this index on have never been ghosts
    len: usize,
    first: Frame, // the number of the ghost with index 0
}

impl Ghosts {
    /// None yet; they will have the `capacity` numbers from `first` on.
    pub(super) fn new(first: Frame, capacity: usize) -> Ghosts {
        assert!(capacity <= (u32::MAX - first.0) as usize, "ghosts are numbered in 32 bits");
        let places = (capacity * 2).next_power_of_two();
        Ghosts {
            places: vec![0; places].into_boxed_slice(),
            next: vec![0; capacity].into_boxed_slice(),
            pages: vec![PageId(0); capacity].into_boxed_slice(),
            free: 0,
            fresh: 0,
            len: 0,
            first,
        }
    }

    /// How many there can be.
    #[inline]
    pub(super) fn capacity(&self) -> usize {
        self.pages.len()
    }

    /// How many there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The ghost of `page`; of several, the latest.
    #[inline]
    pub(super) fn find(&self, page: PageId) -> Option<Frame> {
        let mut link = self.places[self.place_of(page)];
        // Ends: chains have ends.
        while let Some(index) = link.checked_sub(1) {
            if self.pages[index as usize] == page {
                return Some(Frame(self.first.0 + index));
            }
            link = self.next[index as usize];
        }
        None
    }

    /// The page of a ghost.
    #[inline]
    pub(super) fn page(&self, ghost: Frame) -> PageId {
        self.pages[(ghost.0 - self.first.0) as usize]
    }

    /// Remembers `page`.
    ///
    /// # Panics
    /// If there are as many ghosts as there can be.
    #[inline]
    pub(super) fn insert(&mut self, page: PageId) -> Frame {
        let index = if let Some(index) = self.free.checked_sub(1) {
            self.free = self.next[index as usize];
            index
        } else {
            self.fresh += 1;
            self.fresh - 1
        };
        let place = self.place_of(page);
        assert!(
            (index as usize) < self.pages.len(),
            "the caller forgets a ghost before it adds one too many"
        );
        self.pages[index as usize] = page;
        self.next[index as usize] = self.places[place];
        self.places[place] = index + 1;
        self.len += 1;
        Frame(self.first.0 + index)
    }

    /// Forgets a ghost.
    ///
    /// # Panics
    /// If there is no such ghost.
    #[inline]
    pub(super) fn remove(&mut self, ghost: Frame) {
        let index = ghost.0 - self.first.0;
        let place = self.place_of(self.page(ghost));
        let next = self.next[index as usize];
        if self.places[place] == index + 1 {
            self.places[place] = next;
        } else {
            let mut before = self.places[place];
            // Ends: chains have ends.
            loop {
                assert_ne!(before, 0, "{ghost:?} is no ghost");
                let link = &mut self.next[before as usize - 1];
                if *link == index + 1 {
                    *link = next;
                    break;
                }
                before = *link;
            }
        }
        self.next[index as usize] = self.free;
        self.free = index + 1;
        self.len -= 1;
    }

    /// The chain of `page`: Fibonacci hashing, the upper bits of a product.
    #[inline]
    fn place_of(&self, page: PageId) -> usize {
        let product = page.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (product >> 32) as usize & (self.places.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;

    #[test]
    fn they_are_found_as_long_as_they_are_remembered() {
        let mut ghosts = Ghosts::new(Frame(10), 7);
        let mut model: BTreeMap<u64, Frame> = BTreeMap::new();
        let mut state = 1_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let page = state >> 60; // few pages, so that they meet
            match model.remove(&page) {
                Some(ghost) => ghosts.remove(ghost),
                None if model.len() < ghosts.capacity() => {
                    model.insert(page, ghosts.insert(PageId(page)));
                }
                None => {}
            }
            assert_eq!(ghosts.len(), model.len());
            for page in 0..16 {
                let found = ghosts.find(PageId(page));
                assert_eq!(found, model.get(&page).copied());
                assert!(found.is_none_or(|ghost| ghosts.page(ghost) == PageId(page)));
            }
        }
    }

    #[test]
    #[should_panic(expected = "forgets a ghost before")]
    fn there_are_no_more_than_room_was_made_for() {
        let mut ghosts = Ghosts::new(Frame(0), 1);
        ghosts.insert(PageId(1));
        ghosts.insert(PageId(2));
    }
}
