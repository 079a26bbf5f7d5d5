//! A set-associative array of tagged words: the stuff of which TLBs are made.
//!
//! ```text
//!   number ──(low bits)──> head: state │ scrubbed │ 8 signatures a word     (a cache line)
//!                          entries: tag, value │ tag, value │ …
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

/// What is known of a set without a look at its entries.
#[derive(Default)]
#[repr(align(64))]
struct Head {
    state: AtomicU64,    // a bit a way: held << 32 | used
    scrubbed: AtomicU64, // the epoch in which it was last rid of stale entries
    signatures: [AtomicU64; 32 / LANES],
}

/// What a way holds; a tag of 0 is no entry's.
#[derive(Default)]
struct Entry {
    tag: AtomicU64,
    value: AtomicU64,
}

/// An array of sets, each of the same number of ways.
pub(crate) struct Sets {
    heads: Box<[Head]>,
    entries: Box<[Entry]>, // by set; those beyond its ways, which fill up the last lanes, are empty
    ways_shift: u32,       // log2 of the entries of a set
    signature_words: usize,
    ways: usize,
    set_mask: usize,
    set_bits: u32,
}

/// An entry that was found, until the next insertion.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    /// Its value.
    pub(crate) value: u64,
    way: usize,
}

impl Sets {
    /// An empty array.
    pub(crate) fn new(geometry: Geometry) -> Sets {
        let ways = geometry.ways() as usize;
        let sets = geometry.sets() as usize;
        let ways_room = ways.next_multiple_of(LANES).next_power_of_two();
        Sets {
            heads: (0..sets).map(|_| Head::default()).collect(),
            entries: (0..sets * ways_room).map(|_| Entry::default()).collect(),
            ways_shift: ways_room.trailing_zeros(),
            signature_words: ways.div_ceil(LANES),
            ways,
            set_mask: sets - 1,
            set_bits: sets.trailing_zeros(),
        }
    }

    #[inline(always)]
    fn head(&self, number: u64) -> &Head {
        &self.heads[number as usize & self.set_mask]
    }

    #[inline(always)]
    fn entry(&self, number: u64, way: usize) -> &Entry {
        &self.entries[((number as usize & self.set_mask) << self.ways_shift) + way]
    }

    /// Eight bits that differ between neighbours in a set, and between the upper parts of tags.
    #[inline(always)]
    fn signature(&self, tag: u64) -> u64 {
        ((tag >> self.set_bits) ^ (tag >> 37)) & 0xff
    }

    /// The way that holds `tag` in the set that `number` picks.
    #[inline(always)]
    fn way_of(&self, tag: u64, number: u64) -> Option<usize> {
        let wanted = self.signature(tag) * LANES_LOW;
        let signatures = &self.head(number).signatures;
        for (word, signatures) in signatures[..self.signature_words].iter().enumerate() {
            let differ = signatures.load(Relaxed) ^ wanted;
            // The highest bit of each lane that is zero; also, at times, of one above such a lane.
            let mut fits = differ.wrapping_sub(LANES_LOW) & !differ & LANES_HIGH;
            while fits != 0 {
                let way = word * LANES + fits.trailing_zeros() as usize / 8;
                if self.entry(number, way).tag.load(Relaxed) == tag {
                    return Some(way);
                }
                fits &= fits - 1;
            }
        }
        None
    }

    /// Notes a use of `way` in a set of this state.
    #[inline(always)]
    fn touched(&self, state: u64, way: usize) -> u64 {
        let after = state | 1 << way;
        let all_used = after as u32 == u32::MAX >> (32 - self.ways);
        if all_used { after >> 32 << 32 | 1 << way } else { after }
    }

    /// The entry under `tag`, which must not be 0, in the set that `number` picks. Counts as a use.
    #[inline(always)]
    pub(crate) fn find(&self, tag: u64, number: u64) -> Option<Found> {
        let way = self.way_of(tag, number)?;
        let head = self.head(number);
        let state = head.state.load(Relaxed);
        if state & 1 << way == 0 {
            head.state.store(self.touched(state, way), Relaxed);
        }
        Some(Found { value: self.entry(number, way).value.load(Relaxed), way })
    }

    /// The value under `tag`; otherwise as [`find`](Self::find).
    #[inline(always)]
    pub(crate) fn get(&self, tag: u64, number: u64) -> Option<u64> {
        Some(self.find(tag, number)?.value)
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
        let head = self.head(number);
        if head.scrubbed.load(Relaxed) != epoch {
            self.scrub(number, stale);
            head.scrubbed.store(epoch, Relaxed);
        }
        let state = head.state.load(Relaxed);
        let way = self.victim(state);
        let entry = self.entry(number, way);
        // The tag last: a thread that removes compares tags.
        entry.value.store(value, Relaxed);
        let signatures = &head.signatures[way / LANES];
        let shift = way % LANES * 8;
        let others = signatures.load(Relaxed) & !(0xff << shift);
        signatures.store(others | self.signature(tag) << shift, Relaxed);
        entry.tag.store(tag, Relaxed);
        head.state.store(self.touched(state | 1 << (32 + way), way), Relaxed);
    }

    /// The first empty way, else the first one not used lately.
    #[inline(always)]
    fn victim(&self, state: u64) -> usize {
        let empty = (state >> 32).trailing_ones() as usize;
        if empty < self.ways {
            return empty;
        }
        let unused = (state as u32).trailing_ones() as usize;
        // Never all used, except where there is but one way.
        if unused < self.ways { unused } else { 0 }
    }

    #[cold]
    #[inline(never)]
    fn scrub(&self, number: u64, stale: impl Fn(u64) -> bool) {
        for way in 0..self.ways {
            let tag = self.entry(number, way).tag.load(Relaxed);
            if tag != 0 && stale(tag) {
                self.vacate(number, way);
            }
        }
    }

    #[inline(always)]
    fn vacate(&self, number: u64, way: usize) {
        self.entry(number, way).tag.store(0, Relaxed);
        let head = self.head(number);
        let bits = 1 << way | 1 << (32 + way);
        head.state.store(head.state.load(Relaxed) & !bits, Relaxed);
    }

    /// Forgets `tag`.
    #[inline]
    pub(crate) fn remove(&self, tag: u64, number: u64) {
        if let Some(way) = self.way_of(tag, number) {
            self.vacate(number, way);
        }
    }

    /// Forgets what was found in the set that `number` picks, and spares a second search for it.
    #[inline]
    pub(crate) fn remove_found(&self, found: Found, number: u64) {
        self.vacate(number, found.way);
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for head in &self.heads {
            head.state.store(0, Relaxed);
            head.scrubbed.store(0, Relaxed);
        }
        self.entries.iter().for_each(|entry| entry.tag.store(0, Relaxed));
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
