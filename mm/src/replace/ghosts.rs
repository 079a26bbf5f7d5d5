//! Ghosts: pages that are gone, and remembered.
//!
//! A policy that learns from its mistakes recognises a page that it evicted too early. It remembers
//! the identities of evicted pages, without their frames: *ghosts*. Each has a number beyond those of
//! the frames, so that rings over frames and ghosts can hold both.
//!
//! An open-addressed table with linear probing finds a ghost by its page; removal closes the gap, so
//! that a search never passes dead places. (D. E. Knuth, The Art of Computer Programming 3, 6.4,
//! algorithm R.)
//!
//! Invariant: all arrays are made at construction. At most half the table is in use, so that a search
//! looks at one or two places.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use super::PageId;
use crate::addr::Frame;

/// A set of at most `capacity` remembered pages: 20 to 28 bytes each.
pub(super) struct Ghosts {
    table: Box<[u32]>, // ghost's index + 1, or 0
    pages: Box<[PageId]>,
    free: Vec<u32>,
    first: Frame, // the number of the ghost with index 0
}

impl Ghosts {
    /// None yet; they will have the `capacity` numbers from `first` on.
    pub(super) fn new(first: Frame, capacity: usize) -> Ghosts {
        assert!(capacity <= (u32::MAX - first.0) as usize, "ghosts are numbered in 32 bits");
        let places = (capacity * 2).next_power_of_two();
        Ghosts {
            table: vec![0; places].into_boxed_slice(),
            pages: vec![PageId(0); capacity].into_boxed_slice(),
            free: (0..capacity as u32).rev().collect(),
            first,
        }
    }

    /// How many there can be.
    pub(super) fn capacity(&self) -> usize {
        self.pages.len()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.pages.len() - self.free.len()
    }

    /// The ghost of `page`.
    #[inline]
    pub(super) fn find(&self, page: PageId) -> Option<Frame> {
        let mask = self.table.len() - 1;
        let mut place = self.home(page);
        // Ends: half the places are empty.
        loop {
            match self.table[place] {
                0 => return None,
                entry if self.pages[entry as usize - 1] == page => {
                    return Some(Frame(self.first.0 + entry - 1));
                }
                _ => place = (place + 1) & mask,
            }
        }
    }

    /// The page of a ghost.
    #[inline]
    pub(super) fn page(&self, ghost: Frame) -> PageId {
        self.pages[(ghost.0 - self.first.0) as usize]
    }

    /// Remembers `page`, which has no ghost.
    ///
    /// # Panics
    /// If there are as many ghosts as there can be.
    pub(super) fn insert(&mut self, page: PageId) -> Frame {
        debug_assert!(self.find(page).is_none(), "{page:?} has a ghost already");
        let index =
            self.free.pop().expect("the caller forgets a ghost before it adds one too many");
        self.pages[index as usize] = page;
        let mask = self.table.len() - 1;
        let mut place = self.home(page);
        while self.table[place] != 0 {
            place = (place + 1) & mask;
        }
        self.table[place] = index + 1;
        Frame(self.first.0 + index)
    }

    /// Forgets a ghost.
    ///
    /// # Panics
    /// If there is no such ghost.
    pub(super) fn remove(&mut self, ghost: Frame) {
        let index = ghost.0 - self.first.0;
        let mask = self.table.len() - 1;
        let mut gap = self.home(self.page(ghost));
        while self.table[gap] != index + 1 {
            assert_ne!(self.table[gap], 0, "{ghost:?} is no ghost");
            gap = (gap + 1) & mask;
        }
        // Whoever stands behind the gap and could stand in it moves there, and leaves a gap.
        let mut place = gap;
        loop {
            place = (place + 1) & mask;
            let entry = self.table[place];
            if entry == 0 {
                break;
            }
            let home = self.home(self.pages[entry as usize - 1]);
            if (place.wrapping_sub(home) & mask) >= (place.wrapping_sub(gap) & mask) {
                self.table[gap] = entry;
                gap = place;
            }
        }
        self.table[gap] = 0;
        self.free.push(index);
    }

    /// Where the search for `page` begins: Fibonacci hashing, the upper bits of a product.
    #[inline]
    fn home(&self, page: PageId) -> usize {
        let product = page.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (product >> 32) as usize & (self.table.len() - 1)
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
