//! Swap slots: which places of a swap device are taken, by how many entries, and what is in memory.
//!
//! A slot holds the contents of one page. A page that is evicted takes a slot; each entry that
//! names it is one *use*, and a fork duplicates uses. Pages evicted one after another are often
//! needed one after another, so they should be neighbours on the device: slots are handed out
//! upwards through a cluster of 256, and a new cluster is a wholly free one as long as there is
//! any (Linux fills swap clusters in the same way).
//!
//! ```text
//!     cluster 0            cluster 1            cluster 2            cluster 3
//!     ████████████████     ██ █  ███    █       ██████
//!     full                 freed here and       next ──┘ slots go    next cluster,
//!                          there: last resort   here one by one      wholly free
//! ```
//!
//! The *swap cache* tells which frame has the contents of a slot just now: one that is being
//! written out, or was read in, perhaps ahead of need. Faults of several programs on one slot meet
//! there.
//!
//! Invariant: a slot is handed out again only when it has no uses and no cached frame. Otherwise a
//! write still under way could land in a slot that is by then somebody else's page.
//!
//! Costs: 8 bytes a slot (4 for uses, 4 for the cached frame, or how a read of the slot failed) and less than 3 bytes a cluster. The
//! arrays begin as untouched zeros, so an empty device costs next to no memory. Nothing allocates
//! after construction. `alloc` looks at no more than one cluster and a few words; the rest is O(1).
//!
//! Knows nothing of: devices, I/O, which page or file a slot's contents belong to.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use super::failed_io::FailedIo;
use crate::addr::{Frame, Slot};

/// Slots of a cluster, which are filled in order.
pub const CLUSTER_SLOTS: u32 = 256;

/// Instead of a cached frame: a read among others has failed.
const FAILED_AMONG: u32 = u32::MAX - 1;
/// Instead of a cached frame: a read of it alone has failed.
const FAILED_ALONE: u32 = u32::MAX;

/// The slots of one swap device. A number that is not below [`total`](Self::total) is a bug of the
/// caller's, and every method panics on it.
#[derive(Debug)]
pub struct Slots {
    uses: Box<[u32]>,    // entries that name the slot
    cached: Box<[u32]>,  // the frame with its contents, plus 1; 0 if none, or a failed read
    free_in: Box<[u16]>, // free slots, by cluster
    whole: Bits,         // the clusters with free slots only
    open: Bits,          // the clusters with free slots
    current: Range<u32>, // slots of a cluster that `alloc` has not passed yet
    used: u32,
}

impl Slots {
    /// A device of `total` free slots.
    pub fn new(total: u32) -> Slots {
        let clusters = total.div_ceil(CLUSTER_SLOTS);
        let free_in = (0..clusters).map(|cluster| slots_of(cluster, total).len() as u16).collect();
        Slots {
            uses: vec![0; total as usize].into(),
            cached: vec![0; total as usize].into(),
            free_in,
            whole: Bits::ones(clusters),
            open: Bits::ones(clusters),
            current: 0..0,
            used: 0,
        }
    }

    /// Number of slots.
    pub const fn total(&self) -> u32 {
        self.uses.len() as u32
    }

    /// Number of slots that have uses or a cached frame.
    pub const fn used(&self) -> u32 {
        self.used
    }

    /// Takes a free slot, which has one use then; `None` if there is none.
    ///
    /// The next free slot of the cluster that the last one came from; then the first of the next
    /// wholly free cluster, upwards and around; then the first of the next that has any.
    pub fn alloc(&mut self) -> Option<Slot> {
        let slot = self.pass_to_free().or_else(|| {
            let from = self.current.end / CLUSTER_SLOTS;
            let cluster = self.whole.next_around(from).or_else(|| self.open.next_around(from))?;
            self.current = slots_of(cluster, self.total());
            self.pass_to_free()
        })?;
        self.uses[slot as usize] = 1;
        self.used += 1;
        let cluster = slot / CLUSTER_SLOTS;
        let free = &mut self.free_in[cluster as usize];
        *free -= 1;
        self.whole.clear(cluster);
        if *free == 0 {
            self.open.clear(cluster);
        }
        Some(Slot(slot))
    }

    /// Adds a use, as when a fork copies an entry that names `slot`.
    ///
    /// A count that reaches 2^32 - 1 stays there and the slot is never free again: that wastes a
    /// slot, whereas a count that wrapped would give away one in use.
    ///
    /// # Panics
    /// If the slot is free.
    pub fn duplicate(&mut self, slot: Slot) {
        self.assert_used(slot);
        let uses = &mut self.uses[slot.0 as usize];
        *uses = uses.saturating_add(1);
    }

    /// Removes a use; whether it was the last.
    ///
    /// The slot is free then, unless a frame is cached: it is kept until that is cleared.
    ///
    /// # Panics
    /// If the slot has no uses.
    pub fn free(&mut self, slot: Slot) -> bool {
        let uses = &mut self.uses[slot.0 as usize];
        assert!(*uses > 0, "{slot:?} has no use to remove");
        if *uses == u32::MAX {
            return false;
        }
        *uses -= 1;
        let last = *uses == 0;
        if last && self.cached(slot).is_none() {
            self.release(slot);
        }
        last
    }

    /// Number of uses.
    pub fn count(&self, slot: Slot) -> u32 {
        self.uses[slot.0 as usize]
    }

    /// The frame that has the contents of `slot`.
    pub fn cached(&self, slot: Slot) -> Option<Frame> {
        match self.cached[slot.0 as usize] {
            0 | FAILED_AMONG.. => None,
            frame => Some(Frame(frame - 1)),
        }
    }

    /// How the last read of `slot` failed, if it did; forgotten when a frame is cached.
    pub fn failed(&self, slot: Slot) -> Option<FailedIo> {
        match self.cached[slot.0 as usize] {
            FAILED_AMONG => Some(FailedIo::Among),
            FAILED_ALONE => Some(FailedIo::Alone),
            _ => None,
        }
    }

    /// Records that a read of `slot` has failed; no frame is cached then. A slot without uses is free.
    pub fn set_failed(&mut self, slot: Slot, how: FailedIo) {
        self.clear_cached(slot);
        if self.count(slot) == 0 {
            return;
        }
        self.cached[slot.0 as usize] = match how {
            FailedIo::Among => FAILED_AMONG,
            FailedIo::Alone => FAILED_ALONE,
        };
    }

    /// Records that `frame` has the contents of `slot`, or will when its I/O is done.
    ///
    /// # Panics
    /// If the slot is free, or has a cached frame already, or `frame` is one of the last three numbers.
    pub fn set_cached(&mut self, slot: Slot, frame: Frame) {
        self.assert_used(slot);
        let before = self.cached(slot);
        assert!(before.is_none(), "{slot:?} is cached in {before:?} and not in {frame:?}");
        assert!(frame.0 < FAILED_AMONG - 1, "the frame number leaves room for what else there is");
        self.cached[slot.0 as usize] = frame.0 + 1;
    }

    /// Forgets the frame that has the contents of `slot`, and returns it. The slot is free then if
    /// it has no uses.
    pub fn clear_cached(&mut self, slot: Slot) -> Option<Frame> {
        let frame = self.cached(slot)?;
        self.cached[slot.0 as usize] = 0;
        if self.count(slot) == 0 {
            self.release(slot);
        }
        Some(frame)
    }

    /// The numbers of the aligned group of 2^`page_cluster` slots around `slot`, as far as there
    /// are so many: what is worth reading together (Linux: `vm.page-cluster`).
    ///
    /// Free slots and cached ones are among them; the caller passes them over.
    pub fn cluster(&self, slot: Slot, page_cluster: u32) -> Range<u32> {
        let total = u64::from(self.total());
        let count = 1_u64 << page_cluster.min(u32::BITS);
        let start = u64::from(slot.0) / count * count;
        start.min(total) as u32..(start + count).min(total) as u32
    }

    /// Checks every count against the slots themselves. O(n), for tests.
    ///
    /// # Panics
    /// If one is wrong.
    pub fn check_invariants(&self) {
        let mut used = 0;
        for (cluster, &free) in (0..).zip(&self.free_in) {
            let slots = slots_of(cluster, self.total());
            let len = slots.len();
            let found = slots.filter(|&slot| !self.is_used(Slot(slot))).count();
            assert_eq!(usize::from(free), found, "free slots of cluster {cluster}");
            assert_eq!(self.whole.contains(cluster), found == len, "cluster {cluster} is whole");
            assert_eq!(self.open.contains(cluster), found > 0, "cluster {cluster} is open");
            used += len - found;
        }
        assert_eq!(self.used as usize, used, "used slots");
        self.whole.check_invariants();
        self.open.check_invariants();
    }

    fn is_used(&self, slot: Slot) -> bool {
        self.count(slot) > 0 || self.cached(slot).is_some()
    }

    fn assert_used(&self, slot: Slot) {
        assert!(self.is_used(slot), "{slot:?} is free");
    }

    /// Passes over the slots of the current cluster up to and with the next free one.
    fn pass_to_free(&mut self) -> Option<u32> {
        let uses = &self.uses;
        let cached = &self.cached;
        self.current.find(|&slot| uses[slot as usize] == 0 && cached[slot as usize] == 0)
    }

    /// Makes a slot free that has neither uses nor a cached frame any more.
    fn release(&mut self, slot: Slot) {
        self.cached[slot.0 as usize] = 0;
        self.used -= 1;
        let cluster = slot.0 / CLUSTER_SLOTS;
        let len = slots_of(cluster, self.total()).len();
        let free = &mut self.free_in[cluster as usize];
        *free += 1;
        self.open.set(cluster);
        if usize::from(*free) == len {
            self.whole.set(cluster);
        }
    }
}

/// The slots of a cluster; the last cluster may be shorter than the others.
fn slots_of(cluster: u32, total: u32) -> Range<u32> {
    let start = cluster * CLUSTER_SLOTS;
    start..start.saturating_add(CLUSTER_SLOTS).min(total)
}

/// A set of numbers below a bound that finds its next member in a few steps.
///
/// Level 0 has a bit for each number; each level above has a bit for each word below that is not 0.
#[derive(Debug)]
struct Bits {
    levels: Vec<Box<[u64]>>,
}

impl Bits {
    /// All numbers below `len`.
    fn ones(len: u32) -> Bits {
        let mut levels = Vec::new();
        let mut bits = len as usize;
        loop {
            let mut words = vec![u64::MAX; bits.div_ceil(64)].into_boxed_slice();
            if let (Some(last), rest @ 1..) = (words.last_mut(), bits % 64) {
                *last = (1 << rest) - 1;
            }
            bits = words.len();
            levels.push(words);
            if bits <= 1 {
                return Bits { levels };
            }
        }
    }

    fn contains(&self, number: u32) -> bool {
        self.levels[0][number as usize / 64] >> (number % 64) & 1 == 1
    }

    fn set(&mut self, number: u32) {
        let mut at = number as usize;
        for words in &mut self.levels {
            words[at / 64] |= 1 << (at % 64);
            at /= 64;
        }
    }

    fn clear(&mut self, number: u32) {
        let mut at = number as usize;
        for words in &mut self.levels {
            words[at / 64] &= !(1 << (at % 64));
            if words[at / 64] != 0 {
                return;
            }
            at /= 64;
        }
    }

    /// The lowest member at or above `from`; if there is none, the lowest of all.
    fn next_around(&self, from: u32) -> Option<u32> {
        self.next(from).or_else(|| self.next(0))
    }

    /// The lowest member at or above `from`.
    fn next(&self, from: u32) -> Option<u32> {
        // Climbs until a word has a bit at or above `at`, then descends along lowest bits.
        let mut at = from as usize;
        for (level, words) in self.levels.iter().enumerate() {
            let word = words.get(at / 64).map_or(0, |word| word & (u64::MAX << (at % 64)));
            if word != 0 {
                let found = at / 64 * 64 + word.trailing_zeros() as usize;
                let number = self.levels[..level]
                    .iter()
                    .rev()
                    .fold(found, |at, words| at * 64 + words[at].trailing_zeros() as usize);
                return Some(number as u32);
            }
            at = at / 64 + 1;
        }
        None
    }

    fn check_invariants(&self) {
        for pair in self.levels.windows(2) {
            for (at, &word) in pair[0].iter().enumerate() {
                let bit = pair[1][at / 64] >> (at % 64) & 1;
                assert_eq!(bit == 1, word != 0, "summary of word {at}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64Mcg;

    use super::*;

    fn alloc_many(slots: &mut Slots, count: u32) -> Vec<u32> {
        (0..count).map(|_| slots.alloc().expect("slots are left").0).collect()
    }

    #[test]
    fn pages_evicted_one_after_another_are_neighbours() {
        let mut slots = Slots::new(1000);
        assert_eq!(alloc_many(&mut slots, 300), (0..300).collect::<Vec<_>>());
        // A slot freed behind the cursor waits: reusing it would scatter the pages that follow.
        assert!(slots.free(Slot(7)));
        assert_eq!(alloc_many(&mut slots, 2), [300, 301]);
    }

    #[test]
    fn a_wholly_free_cluster_is_preferred_to_scattered_slots() {
        let mut slots = Slots::new(3 * CLUSTER_SLOTS);
        alloc_many(&mut slots, 2 * CLUSTER_SLOTS);
        for scattered in [3, 5, 250] {
            slots.free(Slot(scattered));
        }
        let third = alloc_many(&mut slots, CLUSTER_SLOTS);
        assert_eq!(third, (512..768).collect::<Vec<_>>());
        assert_eq!(alloc_many(&mut slots, 3), [3, 5, 250], "the last resort");
        assert_eq!(slots.alloc(), None);
        assert_eq!(slots.used(), slots.total());
        // The search goes around, past a cluster with one free slot to a wholly free one.
        for slot in 512..768 {
            slots.free(Slot(slot));
        }
        slots.free(Slot(300));
        assert_eq!(alloc_many(&mut slots, 257), (512..768).chain([300]).collect::<Vec<_>>());
    }

    #[test]
    fn a_forked_entry_keeps_the_slot_until_the_last_use() {
        let mut slots = Slots::new(1);
        let slot = slots.alloc().expect("the device is empty");
        slots.duplicate(slot);
        assert_eq!(slots.count(slot), 2);
        assert!(!slots.free(slot));
        assert_eq!(slots.alloc(), None);
        assert!(slots.free(slot));
        assert_eq!(slots.alloc(), Some(slot));
    }

    #[test]
    fn a_count_of_uses_that_is_full_keeps_the_slot_for_ever() {
        let mut slots = Slots::new(1);
        let slot = slots.alloc().expect("the device is empty");
        slots.uses[0] = u32::MAX - 1;
        slots.duplicate(slot);
        slots.duplicate(slot);
        assert_eq!(slots.count(slot), u32::MAX);
        assert!(!slots.free(slot));
        assert_eq!(slots.count(slot), u32::MAX, "nobody knows how many uses there are");
    }

    #[test]
    fn a_slot_under_io_is_not_handed_out_again() {
        let mut slots = Slots::new(1);
        let slot = slots.alloc().expect("the device is empty");
        slots.set_cached(slot, Frame(0));
        assert!(slots.free(slot), "the program has ended");
        assert_eq!(slots.alloc(), None, "its page is still being written");
        assert_eq!(slots.used(), 1);
        assert_eq!(slots.clear_cached(slot), Some(Frame(0)));
        assert_eq!(slots.clear_cached(slot), None);
        assert_eq!(slots.used(), 0);
        assert_eq!(slots.alloc(), Some(slot));
    }

    #[test]
    fn a_failed_io_is_remembered_until_a_frame_is_cached_or_the_slot_is_free() {
        let mut slots = Slots::new(1);
        let slot = slots.alloc().unwrap();
        slots.set_failed(slot, FailedIo::Alone);
        assert_eq!((slots.cached(slot), slots.failed(slot)), (None, Some(FailedIo::Alone)));
        slots.set_cached(slot, Frame(7));
        assert_eq!(slots.failed(slot), None);

        slots.set_failed(slot, FailedIo::Among);
        assert!(slots.free(slot));
        assert_eq!((slots.alloc(), slots.failed(slot)), (Some(slot), None));
    }

    #[test]
    fn a_cached_slot_may_get_uses_again() {
        let mut slots = Slots::new(1);
        let slot = slots.alloc().expect("the device is empty");
        slots.set_cached(slot, Frame(9));
        slots.free(slot);
        slots.duplicate(slot);
        slots.clear_cached(slot);
        assert_eq!((slots.used(), slots.count(slot)), (1, 1));
    }

    #[test]
    #[should_panic(expected = "Slot(0) has no use to remove")]
    fn a_slot_freed_twice_is_noticed() {
        let mut slots = Slots::new(1);
        let slot = slots.alloc().expect("the device is empty");
        slots.free(slot);
        slots.free(slot);
    }

    #[test]
    fn read_ahead_is_aligned_and_ends_with_the_device() {
        let slots = Slots::new(20);
        let group = |slot, order| slots.cluster(Slot(slot), order);
        assert_eq!(group(13, 3), 8..16);
        assert_eq!(group(17, 3), 16..20);
        assert_eq!(group(17, 0), 17..18);
        assert_eq!(group(17, 99), 0..20);
    }

    #[test]
    fn a_device_may_have_no_slots() {
        let mut slots = Slots::new(0);
        assert_eq!(slots.alloc(), None);
        slots.check_invariants();
    }

    #[test]
    fn the_next_member_is_found_across_words_and_levels() {
        for len in [0, 1, 63, 64, 65, 4096, 4097, 300_000] {
            let mut bits = Bits::ones(len);
            let members = [0, 1, 63, 64, 4095, 4096, 262_143, 262_144, 299_999];
            let set: BTreeSet<u32> = members.into_iter().filter(|&m| m < len).collect();
            (0..len).filter(|number| !set.contains(number)).for_each(|number| bits.clear(number));
            bits.check_invariants();
            for from in members.into_iter().flat_map(|m| [m, m + 1]) {
                let next = set.range(from..).next().copied();
                assert_eq!(bits.next(from), next, "from {from} below {len}");
                assert_eq!(bits.next_around(from), next.or(set.first().copied()));
            }
        }
    }

    /// What a slot of the model has: uses, cached frame, how a read failed.
    type Model = Vec<(u32, Option<Frame>, Option<FailedIo>)>;

    fn step(slots: &mut Slots, model: &mut Model, random: &mut Pcg64Mcg, filling: bool) {
        let free = |slot: &(u32, Option<Frame>, _)| slot.0 == 0 && slot.1.is_none();
        let at = random.random_range(0..model.len());
        let slot = Slot(at as u32);
        let (uses, cached, _) = model[at];
        match random.random_range(0..11) {
            0..3 if !filling => {
                if uses > 0 {
                    model[at].0 -= 1;
                    assert_eq!(slots.free(slot), uses == 1);
                }
            }
            3 if !free(&model[at]) => {
                model[at].0 += 1;
                slots.duplicate(slot);
            }
            4 if cached.is_none() && uses > 0 => {
                let frame = Frame(random.random_range(0..1 << 31));
                (model[at].1, model[at].2) = (Some(frame), None);
                slots.set_cached(slot, frame);
            }
            5 => {
                let how = FailedIo::of(random.random_range(1..3));
                (model[at].1, model[at].2) = (None, Some(how));
                slots.set_failed(slot, how);
            }
            6..8 => {
                model[at].1 = None;
                assert_eq!(slots.clear_cached(slot), cached);
            }
            _ => {
                let whole = model.chunks(256).any(|slots| slots.iter().all(free));
                let leaves = !slots.current.clone().any(|slot| free(&model[slot as usize]));
                let Some(Slot(taken)) = slots.alloc() else {
                    assert!(!model.iter().any(free), "a free slot was not found");
                    return;
                };
                let taken = taken as usize;
                assert!(free(&model[taken]), "slot {taken} is taken twice");
                if whole && leaves {
                    let start = taken / 256 * 256;
                    let end = model.len().min(start + 256);
                    assert!(model[start..end].iter().all(free), "a whole cluster was passed over");
                }
                model[taken].0 = 1;
            }
        }
        if free(&model[at]) {
            model[at].2 = None;
        }
        let used = model.iter().filter(|slot| !free(slot)).count();
        assert_eq!(slots.used() as usize, used);
        assert_eq!(slots.count(slot), model[at].0);
        assert_eq!(slots.cached(slot), model[at].1);
        assert_eq!(slots.failed(slot), model[at].2);
        slots.check_invariants();
    }

    #[test]
    fn random_operations_agree_with_an_array_of_slots() {
        for (seed, total) in [(1, 1), (2, 40), (3, 256), (4, 257), (5, 700)] {
            let mut random = Pcg64Mcg::seed_from_u64(seed);
            let (mut slots, mut model) = (Slots::new(total), vec![(0, None, None); total as usize]);
            for turn in 0..8000 {
                // Phases that fill the device and phases that empty it.
                step(&mut slots, &mut model, &mut random, turn / 2000 % 2 == 0);
            }
        }
    }
}
