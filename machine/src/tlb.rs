//! The TLBs of one processor.
//!
//! ```text
//!                 4 KiB          2 MiB
//!   data L1       64 x 4-way     32 x 4-way  ┐
//!                                            ├──> L2, both sizes: 1536 x 12-way ──> structures
//!   code L1      128 x 8-way      8 x 8-way  ┘                    (sizes are the profile's)
//! ```
//!
//! Entries carry a *context*: a number that stands for one address space since its last flush. The
//! processor remembers the contexts of a few spaces (x86: PCIDs, of which Linux uses six), so that
//! a switch back finds its entries still there; the space that is pushed out gets a new context
//! next time. Flushing a space is therefore one store, whatever the TLB holds: its entries keep a
//! context that nobody has any more, and are the first to be replaced.
//!
//! What is cached follows chapter 4.10 of Intel's manual, volume 3A: a translation together with
//! the rights of all its levels, and the dirty bit if it is known to be set; and, beside the TLB,
//! the entries of level 2 that name a table (the *paging-structure cache*), so that most walks read
//! one entry. Invalidating a page drops all cached paging structures of its space, as `invlpg`
//! does. A page fault drops what was cached for its page, so that the retried access walks.
//!
//! Like Linux, a range above the profile's ceiling flushes the whole space, and so does any range
//! of a space that is not the current one: it is flushed when it is switched to, not before.
//!
//! Only one thread at a time drives a processor. Others may invalidate, but an invalidation that
//! runs *during* an access may be overtaken by what that access caches; a world with threads holds
//! its processors between two accesses while it invalidates, as the interrupt of a shootdown does.
//!
//! Invariant: an entry is only ever found under the context it was inserted with. Otherwise one
//! program would read another's memory.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use vellum_mm::addr::{Frame, Page, Pages};
use vellum_mm::machine::{Access, SpaceId};

use crate::assoc::{Found, Sets};
use crate::cached::{Answer, DIRTY, EXECUTABLE, WRITABLE, judge, rights};
use crate::counts::Counters;
use crate::mmu::{Leaf, Start};
use crate::profile::TlbProfile;

// A tag, from bit 0: page number 36, size 1, then the context: address-space slot 4, generation 23.
// A context is kept shifted into its place.
const PAGE_MASK: u64 = (1 << 36) - 1;
const LARGE: u64 = 1 << 36;
const SLOT_SHIFT: u32 = 37;
const GENERATION_SHIFT: u32 = 41;
const GENERATION_MAX: u64 = (1 << (64 - GENERATION_SHIFT)) - 1;
const CONTEXT_MASK: u64 = !((1 << SLOT_SHIFT) - 1);
/// Address spaces that a tag can tell apart.
pub(crate) const SLOTS_MAX: u32 = 16;

const NO_SPACE: u64 = u64::MAX;
/// Pages of a 2 MiB entry, log2.
const LARGE_SHIFT: u32 = 9;

/// A remembered address space.
struct Slot {
    space: AtomicU64,
    context: AtomicU64,    // of its translations; 0 if none can be cached
    structures: AtomicU64, // of its paging structures
}

/// A first-level TLB: one array a page size.
struct First {
    small: Sets,
    large: Sets,
}

/// The TLBs of one processor, and its counters.
pub(crate) struct CpuTlb {
    current: AtomicU64, // the space whose context follows
    context: AtomicU64,
    has_large: AtomicBool, // whether a 2 MiB entry was ever inserted; spares the search for them
    missed: AtomicU64, // the tag last found nowhere, until the next insertion: a fault is retried
    data: First,
    code: First,
    second: Sets,
    structures: Sets,
    slots: [Slot; SLOTS_MAX as usize], // the first `spaces` are in use
    spaces: usize,
    slot_next: AtomicU64,
    generation: AtomicU64,
    epoch: AtomicU64, // changes whenever a context of translations goes out of use
    flush_ceiling: u64,
    pub(crate) counts: Counters,
}

impl CpuTlb {
    pub(crate) fn new(profile: &TlbProfile) -> CpuTlb {
        let slot = || Slot {
            space: AtomicU64::new(NO_SPACE),
            context: AtomicU64::new(0),
            structures: AtomicU64::new(0),
        };
        CpuTlb {
            current: AtomicU64::new(NO_SPACE),
            context: AtomicU64::new(0),
            has_large: AtomicBool::new(false),
            missed: AtomicU64::new(0),
            data: First { small: Sets::new(profile.l1_data), large: Sets::new(profile.l1_data_2m) },
            code: First { small: Sets::new(profile.l1_code), large: Sets::new(profile.l1_code_2m) },
            second: Sets::new(profile.l2),
            structures: Sets::new(profile.structures),
            slots: std::array::from_fn(|_| slot()),
            spaces: profile.spaces.get() as usize,
            slot_next: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            flush_ceiling: profile.flush_ceiling_pages,
            counts: Counters::default(),
        }
    }

    /// The first question of every access: its tag, and what the first level holds for its 4 KiB
    /// page. `page` is canonical.
    #[inline(always)]
    pub(crate) fn quick(&self, space: SpaceId, page: Page, access: Access) -> (u64, Option<u64>) {
        self.counts.lookups.add(1);
        if self.current.load(Relaxed) != u64::from(space.0) {
            self.activate(space);
        }
        let tag = self.context.load(Relaxed) | page.0 & PAGE_MASK;
        (tag, self.first(access).small.get(tag, page.0))
    }

    /// Everything else that is cached for the page of `tag`, if [`quick`](Self::quick) did not do.
    #[inline]
    pub(crate) fn ask(&self, tag: u64, held: Option<u64>, page: Page, access: Access) -> Answer {
        if let Some(value) = held {
            return judge(value, access, value as u32, true);
        }
        if self.missed.load(Relaxed) == tag {
            self.counts.l1_misses.add(1);
            return Answer::Miss;
        }
        let first = self.first(access);
        let has_large = self.has_large.load(Relaxed);
        if has_large {
            let large = LargePage::of(tag, page);
            if let Some(value) = first.large.get(large.tag, large.number) {
                return judge(value, access, value as u32 + large.offset, true);
            }
        }
        self.counts.l1_misses.add(1);
        if let Some(value) = self.second.get(tag, page.0) {
            self.add(&first.small, tag, page.0, value);
            return judge(value, access, value as u32, false);
        }
        if has_large {
            let large = LargePage::of(tag, page);
            if let Some(value) = self.second.get(large.tag, large.number) {
                self.add(&first.large, large.tag, large.number, value);
                return judge(value, access, value as u32 + large.offset, false);
            }
        }
        self.missed.store(tag, Relaxed);
        Answer::Miss
    }

    /// The path to the last table of `page`, if it is cached.
    #[inline]
    pub(crate) fn structure(&self, space: SpaceId, page: Page) -> Option<Structure> {
        let number = (page.0 & PAGE_MASK) >> LARGE_SHIFT;
        let found = self.structures.find(self.structures_context(space) | number, number)?;
        Some(Structure { found, number })
    }

    /// Caches what a walk found after [`Answer::Miss`].
    #[inline]
    pub(crate) fn insert(&self, space: SpaceId, tag: u64, page: Page, access: Access, leaf: &Leaf) {
        self.missed.store(0, Relaxed);
        let first = self.first(access);
        let dirty = if leaf.dirty { DIRTY } else { 0 };
        let rights = rights(leaf.writable, leaf.executable) | dirty;
        if leaf.level == 1 {
            let value = u64::from(leaf.frame.0) | rights;
            self.add(&first.small, tag, page.0, value);
            self.add(&self.second, tag, page.0, value);
            if leaf.entries_read > 1 {
                self.insert_structure(space, page, leaf.last);
            }
        } else {
            // 1 GiB is cached in pieces of 2 MiB, as processors do that have no TLB for it.
            self.has_large.store(true, Relaxed);
            let large = LargePage::of(tag, page);
            let value = u64::from(leaf.frame.0 - large.offset) | rights;
            self.add(&first.large, large.tag, large.number, value);
            self.add(&self.second, large.tag, large.number, value);
        }
    }

    /// Caches what a walk found after [`Answer::Clean`].
    pub(crate) fn replace(
        &self,
        space: SpaceId,
        tag: u64,
        page: Page,
        access: Access,
        leaf: &Leaf,
    ) {
        self.forget(tag, page);
        self.insert(space, tag, page, access, leaf);
    }

    #[inline(always)]
    fn add(&self, sets: &Sets, tag: u64, number: u64, value: u64) {
        let is_stale = |tag| self.slot_of(tag).context.load(Relaxed) != tag & CONTEXT_MASK;
        sets.add(tag, number, value, self.epoch.load(Relaxed), is_stale);
    }

    /// Caches the path to a last table.
    fn insert_structure(&self, space: SpaceId, page: Page, last: Start) {
        let number = (page.0 & PAGE_MASK) >> LARGE_SHIFT;
        let tag = self.structures_context(space) | number;
        let value = u64::from(last.table.0) | rights(last.writable, last.executable);
        let is_stale = |tag| self.slot_of(tag).structures.load(Relaxed) != tag & CONTEXT_MASK;
        self.structures.add(tag, number, value, self.generation.load(Relaxed), is_stale);
    }

    #[inline(always)]
    fn first(&self, access: Access) -> &First {
        if access == Access::Execute { &self.code } else { &self.data }
    }

    /// Makes `space` the current one, remembering the one before if there are slots enough.
    #[cold]
    #[inline(never)]
    pub(crate) fn activate(&self, space: SpaceId) {
        let wanted = u64::from(space.0);
        if self.current.load(Relaxed) == wanted {
            return;
        }
        self.counts.switches.add(1);
        let index = self.slot_index(space).unwrap_or_else(|| {
            // Round robin, as Linux does: which of the others will run next is anybody's guess.
            let next = self.slot_next.load(Relaxed);
            self.slot_next.store(next + 1, Relaxed);
            let index = (next % self.spaces as u64) as usize;
            self.slots[index].space.store(wanted, Relaxed);
            self.renew(index);
            index
        });
        self.current.store(wanted, Relaxed);
        self.context.store(self.slots[index].context.load(Relaxed), Relaxed);
    }

    /// Forgets `pages` of `space`.
    pub(crate) fn invalidate(&self, space: SpaceId, pages: Pages) {
        if pages.is_empty() {
            return;
        }
        let is_current = self.current.load(Relaxed) == u64::from(space.0);
        if !is_current || pages.count() > self.flush_ceiling {
            self.flush(space);
            return;
        }
        self.counts.pages_invalidated.add(pages.count());
        for page in pages.iter() {
            self.forget(self.context.load(Relaxed) | page.0 & PAGE_MASK, page);
        }
        let index = slot_number(self.context.load(Relaxed));
        self.slots[index].structures.store(self.generate(index), Relaxed);
    }

    /// Forgets everything about `space`.
    pub(crate) fn flush(&self, space: SpaceId) {
        let Some(index) = self.slot_index(space) else {
            return;
        };
        self.counts.flushes.add(1);
        if self.current.load(Relaxed) == u64::from(space.0) {
            self.renew(index);
            self.context.store(self.slots[index].context.load(Relaxed), Relaxed);
        } else {
            // Nobody finds the slot under this space again, so the next switch to it starts anew.
            self.slots[index].space.store(NO_SPACE, Relaxed);
            self.slots[index].context.store(0, Relaxed);
            self.slots[index].structures.store(0, Relaxed);
            self.epoch.store(self.epoch.load(Relaxed) + 1, Relaxed);
        }
    }

    /// Forgets the path to the last table of a page of the current space.
    pub(crate) fn forget_structure(&self, space: SpaceId, page: Page) {
        let number = (page.0 & PAGE_MASK) >> LARGE_SHIFT;
        self.structures.remove(self.structures_context(space) | number, number);
    }

    /// Forgets a path that was just found.
    #[inline]
    pub(crate) fn forget_found(&self, structure: Structure) {
        self.structures.remove_found(structure.found, structure.number);
    }

    /// Forgets one page of the current space, whatever its size.
    pub(crate) fn forget(&self, tag: u64, page: Page) {
        for sets in [&self.data.small, &self.code.small, &self.second] {
            sets.remove(tag, page.0);
        }
        if self.has_large.load(Relaxed) {
            let large = LargePage::of(tag, page);
            for sets in [&self.data.large, &self.code.large, &self.second] {
                sets.remove(large.tag, large.number);
            }
        }
    }

    /// Gives a slot new contexts, and with that nothing cached.
    fn renew(&self, index: usize) {
        self.slots[index].context.store(self.generate(index), Relaxed);
        self.slots[index].structures.store(self.generate(index), Relaxed);
        self.epoch.store(self.epoch.load(Relaxed) + 1, Relaxed);
    }

    /// A context never used before; starts over with empty arrays when all have been.
    fn generate(&self, index: usize) -> u64 {
        let mut generation = self.generation.load(Relaxed) + 1;
        if generation > GENERATION_MAX {
            let First { small, large } = &self.data;
            let First { small: code, large: code_large } = &self.code;
            for sets in [small, large, code, code_large, &self.second, &self.structures] {
                sets.clear();
            }
            // Contexts that slots still hold could be generated again one day: renew them all.
            for (slot, state) in self.slots[..self.spaces].iter().enumerate() {
                let slot = (slot as u64) << SLOT_SHIFT;
                state.context.store(slot | 1 << GENERATION_SHIFT, Relaxed);
                state.structures.store(slot | 1 << GENERATION_SHIFT, Relaxed);
            }
            let current = self.slot_of(self.context.load(Relaxed));
            self.context.store(current.context.load(Relaxed), Relaxed);
            generation = 2;
        }
        self.generation.store(generation, Relaxed);
        generation << GENERATION_SHIFT | (index as u64) << SLOT_SHIFT
    }

    fn slot_index(&self, space: SpaceId) -> Option<usize> {
        let slots = &self.slots[..self.spaces];
        slots.iter().position(|slot| slot.space.load(Relaxed) == u64::from(space.0))
    }

    /// The slot that a tag's context belongs to.
    #[inline(always)]
    fn slot_of(&self, tag: u64) -> &Slot {
        &self.slots[slot_number(tag)]
    }

    /// The context of the paging structures of the current space.
    #[inline]
    fn structures_context(&self, space: SpaceId) -> u64 {
        debug_assert_eq!(self.current.load(Relaxed), u64::from(space.0));
        self.slot_of(self.context.load(Relaxed)).structures.load(Relaxed)
    }
}

/// The number of the slot that a tag's context belongs to.
#[inline(always)]
const fn slot_number(tag: u64) -> usize {
    (tag >> SLOT_SHIFT) as usize % SLOTS_MAX as usize
}

/// A cached path to a last table.
#[derive(Clone, Copy)]
pub(crate) struct Structure {
    found: Found,
    number: u64,
}

impl Structure {
    /// Where a walk begins that uses it.
    #[inline(always)]
    pub(crate) fn start(self) -> Start {
        let value = self.found.value;
        Start {
            table: Frame(value as u32),
            level: 1,
            writable: value & WRITABLE != 0,
            executable: value & EXECUTABLE != 0,
        }
    }
}

/// The 2 MiB page that holds a page.
struct LargePage {
    tag: u64,
    number: u64,
    offset: u32, // of the page in it
}

impl LargePage {
    #[inline(always)]
    fn of(tag: u64, page: Page) -> LargePage {
        let number = (page.0 & PAGE_MASK) >> LARGE_SHIFT;
        LargePage {
            tag: tag & CONTEXT_MASK | LARGE | number,
            number,
            offset: (page.0 & ((1 << LARGE_SHIFT) - 1)) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    const PAGE: Page = Page(77);

    /// A processor in space 1 that has cached `PAGE`.
    fn cached() -> CpuTlb {
        let tlb = CpuTlb::new(&Profile::default().tlb);
        let (tag, held) = tlb.quick(SpaceId(1), PAGE, Access::Read);
        assert_eq!(held, None);
        let leaf = Leaf {
            frame: Frame(5),
            level: 1,
            writable: false,
            executable: false,
            dirty: false,
            last: Start { table: Frame(6), level: 1, writable: false, executable: false },
            entries_read: 4,
        };
        tlb.insert(SpaceId(1), tag, PAGE, Access::Read, &leaf);
        assert!(tlb.quick(SpaceId(1), PAGE, Access::Read).1.is_some());
        tlb
    }

    #[test]
    fn generations_that_start_over_find_nothing_of_the_first_time() {
        let tlb = cached();
        tlb.generation.store(GENERATION_MAX, Relaxed);
        tlb.activate(SpaceId(2));
        // Space 1 has the very context again that its entries of before were tagged with.
        let (tag, held) = tlb.quick(SpaceId(1), PAGE, Access::Read);
        assert_eq!(tag >> GENERATION_SHIFT, 1);
        assert_eq!(held, None);
        assert_eq!(tlb.ask(tag, held, PAGE, Access::Read), Answer::Miss);
        assert!(tlb.structure(SpaceId(1), PAGE).is_none());
    }

    #[test]
    fn a_page_that_was_missed_is_found_once_it_is_cached() {
        let tlb = cached();
        let other = Page(PAGE.0 + 1);
        let (tag, held) = tlb.quick(SpaceId(1), other, Access::Read);
        for _ in 0..2 {
            assert_eq!(tlb.ask(tag, held, other, Access::Read), Answer::Miss);
        }
        assert_eq!(tlb.counts.get().l1_misses, 2, "a retry misses as well");
        let last = Start { table: Frame(6), level: 1, writable: false, executable: false };
        let leaf = Leaf {
            frame: Frame(7),
            level: 1,
            writable: false,
            executable: false,
            dirty: false,
            last,
            entries_read: 1,
        };
        tlb.insert(SpaceId(1), tag, other, Access::Read, &leaf);
        // The second level holds it for instruction fetches as well.
        let (tag, held) = tlb.quick(SpaceId(1), other, Access::Execute);
        assert_eq!(tlb.ask(tag, held, other, Access::Read), Answer::Frame(Frame(7), false));
    }

    #[test]
    fn the_current_context_starts_over_with_its_slot() {
        let tlb = cached();
        tlb.flush(SpaceId(1)); // so that its context is no longer the very first
        tlb.generation.store(GENERATION_MAX, Relaxed);
        tlb.invalidate(SpaceId(1), Pages::at(PAGE, 1));
        let slot = tlb.slots[0].context.load(Relaxed);
        assert_eq!(tlb.context.load(Relaxed), slot, "what it inserts now would be stale at once");
    }
}
