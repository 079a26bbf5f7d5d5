//! A set-associative array of tagged words: the stuff of which TLBs are made.
//!
//! ```text
//!   number ──(low bits)──> set: state │ scrubbed │ 8 signatures a word │ tag, value │ …
//! ```
//!
//! Comparing a tag with twelve ways one by one costs the host more than all the rest of a simulated
//! access. So each way also has a *signature*, eight bits of its tag; one word holds eight of them
//! and is compared at once, and only ways whose signature fits are compared in full.
//!
//! Victims are chosen by one bit of use a way: a lookup sets its way's bit, and when all are set
//! the others are cleared; the victim is the first way without. That approximates LRU about as well
//! as the trees of bits in hardware do, and for any number of ways.
//!
//! One processor looks up and inserts; any thread may remove. A removal that races with the
//! processor may lose the entry just inserted, or the bits of use; it never brings one back,
//! because an entry is only ever found by its full tag.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::profile::Geometry;

/// Signatures in a word.
const LANES: usize = 8;
/// The lowest bit of every lane.
const LANES_LOW: u64 = 0x0101_0101_0101_0101;
/// The highest bit of every lane.
const LANES_HIGH: u64 = LANES_LOW << 7;

/// Words of a set before its signatures: the state (a bit a way: held << 32 | used), and the epoch
/// in which it was last rid of stale entries.
const STATE: usize = 0;
const SCRUBBED: usize = 1;
const SIGNATURES: usize = 2;

/// An array of sets, each of the same number of ways.
pub(crate) struct Sets {
    words: Box<[AtomicU64]>,
    set_shift: u32, // log2 of the words of a set
    signature_words: usize,
    ways: usize,
    set_mask: usize,
    set_bits: u32,
    lanes_last: u64, // the highest bits of the lanes in use of the last signature word
}

impl Sets {
    /// An empty array.
    pub(crate) fn new(geometry: Geometry) -> Sets {
        let ways = geometry.ways() as usize;
        let sets = geometry.sets() as usize;
        let signature_words = ways.div_ceil(LANES);
        let set_words = (SIGNATURES + signature_words + 2 * ways).next_power_of_two();
        let lanes_unused = (signature_words * LANES - ways) as u32;
        Sets {
            words: (0..sets * set_words).map(|_| AtomicU64::new(0)).collect(),
            set_shift: set_words.trailing_zeros(),
            signature_words,
            ways,
            set_mask: sets - 1,
            set_bits: sets.trailing_zeros(),
            lanes_last: LANES_HIGH >> (8 * lanes_unused),
        }
    }

    #[inline(always)]
    fn set(&self, number: u64) -> &[AtomicU64] {
        let start = (number as usize & self.set_mask) << self.set_shift;
        &self.words[start..start + (1 << self.set_shift)]
    }

    /// Eight bits that differ between neighbours in a set, and between the upper parts of tags.
    #[inline(always)]
    fn signature(&self, tag: u64) -> u64 {
        ((tag >> self.set_bits) ^ (tag >> 37)) & 0xff
    }

    /// Where the tag of `way` is in its set; the value follows.
    #[inline(always)]
    fn place(&self, way: usize) -> usize {
        SIGNATURES + self.signature_words + 2 * way
    }

    /// The way of `set` that holds `tag`.
    #[inline(always)]
    fn find(&self, set: &[AtomicU64], tag: u64) -> Option<usize> {
        let wanted = self.signature(tag) * LANES_LOW;
        for word in 0..self.signature_words {
            let differ = set[SIGNATURES + word].load(Relaxed) ^ wanted;
            // The highest bit of each lane that is zero; also, at times, of one above such a lane.
            let mut fits = differ.wrapping_sub(LANES_LOW) & !differ & LANES_HIGH;
            if word + 1 == self.signature_words {
                fits &= self.lanes_last;
            }
            while fits != 0 {
                let way = word * LANES + fits.trailing_zeros() as usize / 8;
                if set[self.place(way)].load(Relaxed) == tag {
                    return Some(way);
                }
                fits &= fits - 1;
            }
        }
        None
    }

    /// Notes a use of `way`.
    #[inline(always)]
    fn touch(&self, set: &[AtomicU64], way: usize) {
        let before = set[STATE].load(Relaxed);
        let after = before | 1 << way;
        if after != before {
            let all_used = after as u32 == u32::MAX >> (32 - self.ways);
            let state = if all_used { after >> 32 << 32 | 1 << way } else { after };
            set[STATE].store(state, Relaxed);
        }
    }

    /// The value held under `tag`, which must not be 0, in the set that `number` picks.
    #[inline(always)]
    pub(crate) fn get(&self, tag: u64, number: u64) -> Option<u64> {
        let set = self.set(number);
        let way = self.find(set, tag)?;
        self.touch(set, way);
        Some(set[self.place(way) + 1].load(Relaxed))
    }

    /// Holds `value` under `tag`, which must not be held yet: in an empty way, or in that of an
    /// entry not used for long. (Held twice, it would survive its removal.)
    ///
    /// `epoch` is a number that changes whenever entries become stale, `stale` tells which tags
    /// are; such entries are removed from the set before any other is replaced.
    #[inline]
    pub(crate) fn add(
        &self,
        tag: u64,
        number: u64,
        value: u64,
        epoch: u64,
        stale: impl Fn(u64) -> bool,
    ) {
        let set = self.set(number);
        if set[SCRUBBED].load(Relaxed) != epoch {
            self.scrub(set, stale);
            set[SCRUBBED].store(epoch, Relaxed);
        }
        let way = self.victim(set);
        // The tag last: a thread that removes compares tags.
        set[self.place(way) + 1].store(value, Relaxed);
        let signatures = &set[SIGNATURES + way / LANES];
        let shift = way % LANES * 8;
        let others = signatures.load(Relaxed) & !(0xff << shift);
        signatures.store(others | self.signature(tag) << shift, Relaxed);
        set[self.place(way)].store(tag, Relaxed);
        set[STATE].store(set[STATE].load(Relaxed) | 1 << (32 + way), Relaxed);
        self.touch(set, way);
    }

    /// The first empty way, else the first one not used lately.
    #[inline(always)]
    fn victim(&self, set: &[AtomicU64]) -> usize {
        let state = set[STATE].load(Relaxed);
        let empty = (state >> 32).trailing_ones() as usize;
        if empty < self.ways {
            return empty;
        }
        // Never all used, except where there is but one way.
        (state as u32).trailing_ones() as usize % self.ways
    }

    #[cold]
    #[inline(never)]
    fn scrub(&self, set: &[AtomicU64], stale: impl Fn(u64) -> bool) {
        for way in 0..self.ways {
            let tag = set[self.place(way)].load(Relaxed);
            if tag != 0 && stale(tag) {
                self.vacate(set, way);
            }
        }
    }

    fn vacate(&self, set: &[AtomicU64], way: usize) {
        set[self.place(way)].store(0, Relaxed);
        let bits = 1 << way | 1 << (32 + way);
        set[STATE].store(set[STATE].load(Relaxed) & !bits, Relaxed);
    }

    /// Forgets `tag`.
    #[inline]
    pub(crate) fn remove(&self, tag: u64, number: u64) {
        let set = self.set(number);
        if let Some(way) = self.find(set, tag) {
            self.vacate(set, way);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.words.iter().for_each(|word| word.store(0, Relaxed));
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
        sets.add(100, 0, 1, 0, fresh);
        for number in (1..100).filter(|n| n % 4 != 0) {
            sets.add(100 + number, number, 2, 0, fresh);
        }
        assert_eq!(sets.get(100, 0), Some(1));
    }

    #[test]
    fn the_entry_just_used_is_not_the_victim() {
        for ways in 2..=32 {
            let sets = sets(ways, ways);
            for tag in 1..=100 {
                sets.add(2 * tag, 0, tag, 0, fresh);
                sets.add(2 * tag + 1, 0, tag, 0, fresh);
                assert_eq!(sets.get(2 * tag, 0), Some(tag), "{ways} ways");
            }
        }
    }

    #[test]
    fn empty_and_stale_ways_go_before_live_ones() {
        let sets = sets(4, 4);
        (1..=4).for_each(|tag| sets.add(tag, 0, tag, 0, fresh));
        sets.add(5, 0, 5, 1, |tag| tag == 2);
        assert_eq!(sets.get(2, 0), None);
        sets.remove(3, 0);
        sets.add(6, 0, 6, 1, fresh);
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
                sets.add(tag, 0, tag, 0, fresh);
            }
        }
        assert!((100..=500).contains(&misses), "{misses}");
    }

    #[test]
    fn tags_of_the_same_signature_are_told_apart() {
        let sets = sets(32, 32);
        let tags = (0..32_u64).map(|i| 1 + (i << 8));
        tags.clone().for_each(|tag| sets.add(tag, 0, tag, 0, fresh));
        assert!(tags.clone().all(|tag| sets.get(tag, 0) == Some(tag)));
        assert!(tags.clone().all(|tag| sets.get(tag + (32 << 8), 0).is_none()));
        sets.remove(1, 0);
        assert_eq!(tags.filter(|&tag| sets.get(tag, 0).is_some()).count(), 31);
    }

    #[test]
    fn one_way_holds_the_last_entry() {
        let sets = sets(4, 1);
        sets.add(1, 0, 1, 0, fresh);
        sets.add(2, 0, 2, 0, fresh);
        assert_eq!((sets.get(1, 0), sets.get(2, 0)), (None, Some(2)));
    }
}
