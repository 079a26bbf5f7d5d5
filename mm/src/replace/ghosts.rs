//! Ghosts: pages that are gone, and remembered.
//!
//! A policy that learns from its mistakes recognises a page that it evicted too early. It remembers
//! the identities of evicted pages, without their frames: *ghosts*. Each has a number beyond those
//! of the frames, so that rings over frames and ghosts can hold both.
//!
//! A table of chains finds a ghost by its page: each place holds the first ghost of a chain, and
//! each ghost the next. There are two to four places a ghost, so that most chains are empty or have
//! one member, and adding to one needs no search: the branches of a longer search would cost more
//! than everything else that a policy does. Where pages are numbered densely, as in a reference
//! string, each has a place of its own, which names its latest ghost. Nobody clears it when the ghost
//! is forgotten: a place is believed only if the ghost has the page, so forgetting does not have to
//! touch a place that is in no cache.
//!
//! Invariant: all arrays are made at construction. Links are indices + 1, so that zero bytes are an
//! empty table.

use alloc::boxed::Box;
use alloc::vec;

use super::{PageId, Parameters};
use crate::addr::Frame;

/// No page: the numbers of dense ones are less.
const NOBODY: PageId = PageId(u64::MAX);

/// A set of at most `capacity` remembered pages: 20 to 28 bytes each, or 12 and 4 a dense page.
pub(super) struct Ghosts {
    places: Box<[u32]>, // the first of a chain
    is_dense: bool,     // a page's number is its place
    next: Box<[u32]>,   // by ghost: the next of its chain, or of those that are free
    pages: Box<[PageId]>,
    free: u32,  // the first that was a ghost and is none now
    fresh: u32, // all from this index on have never been ghosts
    len: usize,
    first: Frame, // the number of the ghost with index 0
}

impl Ghosts {
    /// None yet; they will have the `capacity` numbers behind those of the frames.
    pub(super) fn new(parameters: &Parameters, capacity: usize) -> Ghosts {
        let first = Frame(parameters.first.0 + parameters.frames as u32);
        assert!(capacity <= (u32::MAX - first.0) as usize, "ghosts are numbered in 32 bits");
        let dense = parameters.pages.filter(|_| capacity > 0);
        let places =
            dense.map_or_else(|| (capacity * 2).next_power_of_two(), |pages| pages as usize);
        Ghosts {
            is_dense: dense.is_some(),
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

    /// The ghost of `page`; of several the latest, and where pages are dense no other.
    #[inline]
    pub(super) fn find(&self, page: PageId) -> Option<Frame> {
        let mut link = self.places[self.place_of(page)];
        if self.is_dense {
            let index = link.checked_sub(1)?;
            let is_true = self.pages[index as usize] == page;
            return is_true.then_some(Frame(self.first.0 + index));
        }
        // Ends: chains have ends.
        while let Some(index) = link.checked_sub(1) {
            if self.pages[index as usize] == page {
                return Some(Frame(self.first.0 + index));
            }
            link = self.next[index as usize];
        }
        None
    }

    /// A ghost of `page` that would still be found once a later one is forgotten: none where pages are
    /// dense.
    #[inline]
    pub(super) fn find_older(&self, page: PageId) -> Option<Frame> {
        if self.is_dense { None } else { self.find(page) }
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
        if !self.is_dense {
            self.next[index as usize] = self.places[place];
        }
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
        if self.is_dense {
            let page = core::mem::replace(&mut self.pages[index as usize], NOBODY);
            assert_ne!(page, NOBODY, "{ghost:?} is no ghost");
        } else {
            self.unchain(ghost, index);
        }
        self.next[index as usize] = self.free;
        self.free = index + 1;
        self.len -= 1;
    }

    /// Takes a ghost out of its chain.
    #[inline]
    fn unchain(&mut self, ghost: Frame, index: u32) {
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
    }

    /// A look at what is known of `page`, for its cache line alone.
    #[inline]
    pub(super) fn peek(&self, page: PageId) -> u32 {
        self.places.get(self.place_of(page)).copied().unwrap_or(0)
    }

    /// The chain of `page`: its own, or by Fibonacci hashing, the upper bits of a product.
    #[inline]
    fn place_of(&self, page: PageId) -> usize {
        if self.is_dense {
            return page.0 as usize;
        }
        let product = page.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (product >> 32) as usize & (self.places.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;

    fn ghosts_of(capacity: usize, pages: Option<u32>) -> Ghosts {
        let parameters = Parameters { first: Frame(6), pages, ..Parameters::new(4) };
        Ghosts::new(&parameters, capacity)
    }

    #[test]
    fn they_are_found_as_long_as_they_are_remembered() {
        for mut ghosts in [ghosts_of(7, None), ghosts_of(7, Some(16))] {
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
                    assert!(found.is_none_or(|ghost| ghost >= Frame(10)));
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "is no ghost")]
    fn a_dense_ghost_is_forgotten_once() {
        let mut ghosts = ghosts_of(2, Some(3));
        let ghost = ghosts.insert(PageId(1));
        ghosts.remove(ghost);
        ghosts.remove(ghost);
    }

    #[test]
    #[should_panic(expected = "forgets a ghost before")]
    fn there_are_no_more_than_room_was_made_for() {
        let mut ghosts = ghosts_of(1, None);
        ghosts.insert(PageId(1));
        ghosts.insert(PageId(2));
    }
}
