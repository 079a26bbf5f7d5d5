//! A set-associative array of tagged words: the stuff of which TLBs are made.
//!
//! ```text
//!   number ──(low bits)──> set ──> quad: 4 tags │ 4 values     one host cache line
//!                                  quad: 4 tags │ 4 values     … as many as the ways need
//! ```
//!
//! A lookup compares all ways of one set and leaves without a loop that depends on what it found, so
//! that the host predicts its branches. Victims are chosen by one bit of use a way: a lookup sets its
//! way's bit, and when all are set the others are cleared; the victim is the first way without. That
//! approximates LRU about as well as the trees of bits in hardware do, and for any number of ways.
//!
//! One processor looks up and inserts; any thread may remove.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::profile::Geometry;

/// Ways in a [`Quad`].
const QUAD: usize = 4;

/// Four ways, as one cache line of the host.
#[derive(Default)]
#[repr(align(64))]
struct Quad {
    tags: [AtomicU64; QUAD], // 0 is no entry
    values: [AtomicU64; QUAD],
}

/// An array of sets, each of the same number of ways.
pub(crate) struct Sets {
    quads: Box<[Quad]>,
    used: Box<[AtomicU32]>, // by set: one bit a way
    quads_per_set: usize,
    ways_all: u32, // one bit a way
    set_mask: usize,
}

impl Sets {
    /// An empty array.
    pub(crate) fn new(geometry: Geometry) -> Sets {
        let ways = geometry.ways() as usize;
        let sets = geometry.sets() as usize;
        let quads_per_set = ways.div_ceil(QUAD);
        Sets {
            quads: (0..sets * quads_per_set).map(|_| Quad::default()).collect(),
            used: (0..sets).map(|_| AtomicU32::new(0)).collect(),
            quads_per_set,
            ways_all: u32::MAX >> (u32::BITS - geometry.ways()),
            set_mask: sets - 1,
        }
    }

    #[inline(always)]
    fn set(&self, number: u64) -> (usize, &[Quad]) {
        let set = number as usize & self.set_mask;
        let start = set * self.quads_per_set;
        (set, &self.quads[start..start + self.quads_per_set])
    }

    /// One bit for each way of `quads` that holds `tag`. Ways beyond the last one are always empty.
    #[inline(always)]
    fn matches(quads: &[Quad], tag: u64) -> u32 {
        let mut found = 0;
        for (q, quad) in quads.iter().enumerate() {
            for (w, held) in quad.tags.iter().enumerate() {
                found |= u32::from(held.load(Relaxed) == tag) << (q * QUAD + w);
            }
        }
        found
    }

    /// Notes a use of `way`.
    #[inline(always)]
    fn touch(&self, set: usize, way: u32) {
        let used = &self.used[set];
        let before = used.load(Relaxed);
        let after = before | 1 << way;
        if after != before {
            used.store(if after == self.ways_all { 1 << way } else { after }, Relaxed);
        }
    }

    /// The value held under `tag`, which must not be 0, in the set that `number` picks.
    #[inline(always)]
    pub(crate) fn get(&self, tag: u64, number: u64) -> Option<u64> {
        let (set, quads) = self.set(number);
        let found = Self::matches(quads, tag);
        if found == 0 {
            return None;
        }
        let way = found.trailing_zeros();
        self.touch(set, way);
        Some(quads[way as usize / QUAD].values[way as usize % QUAD].load(Relaxed))
    }

    /// Holds `value` under `tag`, in place of the value held so far, of an entry whose tag is
    /// `stale`, or of one not used for long.
    pub(crate) fn insert(&self, tag: u64, number: u64, value: u64, stale: impl Fn(u64) -> bool) {
        let (set, quads) = self.set(number);
        let mut way = Self::matches(quads, tag).trailing_zeros();
        if way == u32::BITS {
            way = self.victim(set, quads, stale);
        }
        let quad = &quads[way as usize / QUAD];
        // The value first: a thread that removes compares tags.
        quad.values[way as usize % QUAD].store(value, Relaxed);
        quad.tags[way as usize % QUAD].store(tag, Relaxed);
        self.touch(set, way);
    }

    fn victim(&self, set: usize, quads: &[Quad], stale: impl Fn(u64) -> bool) -> u32 {
        let tags = quads.iter().flat_map(|quad| &quad.tags).map(|tag| tag.load(Relaxed));
        let ways = self.ways_all.count_ones() as usize;
        match tags.take(ways).position(|tag| tag == 0 || stale(tag)) {
            Some(way) => way as u32,
            // Never all set, except where there is but one way.
            None => self.used[set].load(Relaxed).trailing_ones() % ways as u32,
        }
    }

    /// Forgets `tag`.
    pub(crate) fn remove(&self, tag: u64, number: u64) {
        let (_, quads) = self.set(number);
        let found = Self::matches(quads, tag);
        if found != 0 {
            let way = found.trailing_zeros() as usize;
            quads[way / QUAD].tags[way % QUAD].store(0, Relaxed);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for tag in self.quads.iter().flat_map(|quad| &quad.tags) {
            tag.store(0, Relaxed);
        }
        for used in &self.used {
            used.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(entries: u32, ways: u32) -> Sets {
        Sets::new(Geometry::new(entries, ways).expect("a valid geometry"))
    }

    fn fresh(_: u64) -> bool {
        false
    }

    #[test]
    fn only_its_own_set_can_push_an_entry_out() {
        let sets = sets(8, 2);
        sets.insert(100, 0, 1, fresh);
        for number in (1..100).filter(|n| n % 4 != 0) {
            sets.insert(100 + number, number, 2, fresh);
        }
        assert_eq!(sets.get(100, 0), Some(1));
    }

    #[test]
    fn the_entry_just_used_is_not_the_victim() {
        for ways in 2..=32 {
            let sets = sets(ways, ways);
            for tag in 1..=100 {
                sets.insert(tag, 0, tag, fresh);
                sets.insert(tag + 1, 0, tag + 1, fresh);
                assert_eq!(sets.get(tag, 0), Some(tag), "{ways} ways");
            }
        }
    }

    #[test]
    fn empty_and_stale_ways_go_before_live_ones() {
        let sets = sets(4, 4);
        (1..=4).for_each(|tag| sets.insert(tag, 0, tag, fresh));
        sets.insert(5, 0, 5, |tag| tag == 2);
        assert_eq!(sets.get(2, 0), None);
        sets.remove(3, 0);
        sets.insert(6, 0, 6, fresh);
        assert!([1, 4, 5, 6].iter().all(|&tag| sets.get(tag, 0) == Some(tag)));
    }

    #[test]
    fn a_cyclic_scan_of_one_more_than_fits_is_not_helped_by_a_use_bit() {
        // LRU would miss always; the approximation may hit, but must lose at least one a lap.
        let sets = sets(4, 4);
        let mut misses = 0;
        for tag in (1..=5).cycle().take(500) {
            if sets.get(tag, 0).is_none() {
                misses += 1;
                sets.insert(tag, 0, tag, fresh);
            }
        }
        assert!((100..=500).contains(&misses), "{misses}");
    }

    #[test]
    fn one_way_holds_the_last_entry() {
        let sets = sets(4, 1);
        sets.insert(1, 0, 1, fresh);
        sets.insert(2, 0, 2, fresh);
        assert_eq!((sets.get(1, 0), sets.get(2, 0)), (None, Some(2)));
    }
}
