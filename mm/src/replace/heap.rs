//! A heap of frames by key, the lowest on top.
//!
//! Four children a node instead of two: half the levels, and siblings lie in one line of the
//! processor's cache. Each frame knows its place, so that it can leave from the middle.
//!
//! 20 bytes a frame, made at construction; every change takes at most log4 of their number in
//! steps.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

/// A frame's index that is in no heap.
const NOWHERE: u32 = u32::MAX;
/// Children of a node.
const CHILDREN: usize = 4;

/// Indices of frames, each with a key. Of equal keys the lower index is above.
pub(super) struct Heap {
    entries: Vec<(u64, u32)>, // no child is less than its parent
    places: Box<[u32]>,       // by index: where it is in the heap
}

impl Heap {
    /// An empty one for the indices below `count`.
    pub(super) fn new(count: usize) -> Heap {
        assert!(count < NOWHERE as usize, "frames are numbered in 32 bits");
        Heap { entries: Vec::with_capacity(count), places: vec![NOWHERE; count].into_boxed_slice() }
    }

    /// Whether it has `index`.
    #[inline]
    pub(super) fn contains(&self, index: u32) -> bool {
        self.places[index as usize] != NOWHERE
    }

    /// The lowest key and its index.
    #[inline]
    pub(super) fn top(&self) -> Option<(u64, u32)> {
        self.entries.first().copied()
    }

    /// Adds `index`, which it does not have.
    #[inline]
    pub(super) fn insert(&mut self, index: u32, key: u64) {
        debug_assert!(!self.contains(index), "{index} is in the heap already");
        self.entries.push((key, index));
        self.climb(self.entries.len() - 1, (key, index));
    }

    /// Gives the top a higher key.
    #[inline]
    pub(super) fn raise_top(&mut self, key: u64) {
        let (old, index) = self.entries[0];
        debug_assert!(old <= key, "a key falls from {old} to {key}");
        self.sink(0, (key, index));
    }

    /// Takes `index` out, which it has.
    #[inline]
    pub(super) fn remove(&mut self, index: u32) {
        let place = self.places[index as usize] as usize;
        let last = self.entries.pop().expect("the heap has the index");
        self.places[index as usize] = NOWHERE;
        if last.1 != index {
            self.sink(place, last);
            self.climb(self.places[last.1 as usize] as usize, last);
        }
    }

    #[inline]
    fn put(&mut self, place: usize, entry: (u64, u32)) {
        self.entries[place] = entry;
        self.places[entry.1 as usize] = place as u32;
    }

    /// Puts `entry` at `place`, or above as long as its parent is more.
    #[inline]
    fn climb(&mut self, mut place: usize, entry: (u64, u32)) {
        // Ends: the place falls.
        while place > 0 {
            let parent = (place - 1) / CHILDREN;
            if self.entries[parent] <= entry {
                break;
            }
            self.put(place, self.entries[parent]);
            place = parent;
        }
        self.put(place, entry);
    }

    /// Puts `entry` at `place`, or below as long as a child is less.
    #[inline]
    fn sink(&mut self, mut place: usize, entry: (u64, u32)) {
        // Ends: the place grows.
        loop {
            let begin = place * CHILDREN + 1;
            let Some(children) = self.entries.get(begin..) else { break };
            let least = if let Some(children) = children.first_chunk() {
                begin + least_of(children)
            } else {
                let end = self.entries.len();
                let Some(least) = (begin..end).min_by_key(|&child| self.entries[child]) else {
                    break;
                };
                least
            };
            if self.entries[least] >= entry {
                break;
            }
            self.put(place, self.entries[least]);
            place = least;
        }
        self.put(place, entry);
    }
}

/// Which of a node's children is least: a tournament whose results are added up, since nobody could
/// predict the branches.
#[inline]
fn least_of(children: &[(u64, u32); CHILDREN]) -> usize {
    let rank = |at: usize| u128::from(children[at].0) << 32 | u128::from(children[at].1);
    let left = usize::from(rank(1) < rank(0));
    let right = 2 + usize::from(rank(3) < rank(2));
    core::hint::select_unpredictable(rank(right) < rank(left), right, left)
}

#[cfg(test)]
mod tests {
    use super::super::chance::SplitMix;
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn the_lowest_is_always_on_top() {
        for seed in 0..200 {
            let mut chance = SplitMix::new(seed);
            let mut heap = Heap::new(30);
            let mut model: BTreeSet<(u64, u32)> = BTreeSet::new();
            for _ in 0..400 {
                let (index, key) = (chance.below(30), chance.below(20).into());
                let held = model.iter().find(|entry| entry.1 == index).copied();
                assert_eq!(heap.contains(index), held.is_some());
                match (held, heap.top()) {
                    (Some(entry), Some(top)) if chance.below(2) == 0 && top.0 <= key => {
                        assert!(model.contains(&entry) && model.remove(&top));
                        model.insert((key, top.1));
                        heap.raise_top(key);
                    }
                    (Some(entry), _) => {
                        model.remove(&entry);
                        heap.remove(index);
                    }
                    (None, _) => {
                        model.insert((key, index));
                        heap.insert(index, key);
                    }
                }
                assert_eq!(heap.top(), model.first().copied(), "seed {seed}");
                assert_eq!(heap.entries.len(), model.len());
            }
        }
    }
}
