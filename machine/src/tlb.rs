//! The TLBs of one processor.
//!
//! ```text
//!                 4 KiB          2 MiB
//!   data L1       64 x 4-way     32 x 4-way  ┐
//!                                            ├──> L2, both sizes: 1536 x 12-way ──> paging structures
//!   code L1      128 x 8-way      8 x 8-way  ┘                    (sizes are the profile's)
//! ```
//!
//! Entries carry a *context*: a number that stands for one address space since its last flush. The
//! processor remembers the contexts of a few spaces (x86: PCIDs, of which Linux uses six), so that a
//! switch back finds its entries still there; the space that is pushed out gets a new context next
//! time. Flushing a space is therefore one store, whatever the TLB holds: its entries keep a context
//! that nobody has any more, and are the first to be replaced.
//!
//! What is cached follows chapter 4.10 of Intel's manual, volume 3A: a translation together with the
//! rights of all its levels, and the dirty bit if it is known to be set; and, beside the TLB, the
//! entries of level 2 that name a table (the *paging-structure cache*), so that most walks read one
//! entry. Invalidating a page drops all cached paging structures of its space, as `invlpg` does. A
//! page fault drops what was cached for its page, so that the retried access walks.
//!
//! Like Linux, a range above the profile's ceiling flushes the whole space, and so does any range of a
//! space that is not the current one: it is flushed when it is switched to, not before.
//!
//! Only one thread at a time drives a processor. Others may invalidate, but an invalidation that
//! runs *during* an access may be overtaken by what that access caches; a world with threads holds
//! its processors between two accesses while it invalidates, as the interrupt of a shootdown does.
//!
//! Invariant: an entry is only ever found under the context it was inserted with. Otherwise one
//! program would read another's memory.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use vellum_mm::addr::{Frame, Page, Pages};
use vellum_mm::event::Count;
use vellum_mm::machine::{Access, SpaceId};

use crate::assoc::Sets;
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

// A value, from bit 0: frame 32, then the rights.
const WRITABLE: u64 = 1 << 32;
const EXECUTABLE: u64 = 1 << 33;
const DIRTY: u64 = 1 << 34;

const NO_SPACE: u64 = u64::MAX;
/// Pages of a 2 MiB entry, log2.
const LARGE_SHIFT: u32 = 9;

/// What an entry must carry so that `access` can use it without a walk.
#[inline(always)]
const fn needs(access: Access) -> u64 {
    match access {
        Access::Read => 0,
        Access::Write => WRITABLE | DIRTY,
        Access::Execute => EXECUTABLE,
    }
}

/// What a TLB says to an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// The translation, from the first level or the second.
    Frame(Frame, bool),
    /// The cached rights forbid the access.
    Forbidden,
    /// The page is cached, but its dirty bit is not known to be set.
    Clean,
    /// Nothing is cached.
    Miss,
}

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
    data: First,
    code: First,
    second: Sets,
    structures: Sets,
    slots: Box<[Slot]>,
    slot_next: AtomicU64,
    generation: AtomicU64,
    flush_ceiling: u64,
    pub(crate) counts: TlbCounters,
}

/// What the TLB of one processor has done.
#[derive(Default)]
pub(crate) struct TlbCounters {
    pub(crate) lookups: Count,
    pub(crate) l1_misses: Count,
    pub(crate) walks: Count,
    pub(crate) entries_read: Count,
    pub(crate) assists: Count,
    pub(crate) faults: Count,
    pub(crate) switches: Count,
    pub(crate) pages_invalidated: Count,
    pub(crate) flushes: Count,
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
            data: First { small: Sets::new(profile.l1_data), large: Sets::new(profile.l1_data_2m) },
            code: First { small: Sets::new(profile.l1_code), large: Sets::new(profile.l1_code_2m) },
            second: Sets::new(profile.l2),
            structures: Sets::new(profile.structures),
            slots: (0..profile.spaces.get()).map(|_| slot()).collect(),
            slot_next: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            flush_ceiling: profile.flush_ceiling_pages,
            counts: TlbCounters::default(),
        }
    }

    /// The first question of every access: its tag, and the translation if the first level holds it
    /// for a 4 KiB page with all rights. `page` is canonical.
    #[inline(always)]
    pub(crate) fn quick(&self, space: SpaceId, page: Page, access: Access) -> (u64, Option<Frame>) {
        self.counts.lookups.add(1);
        if self.current.load(Relaxed) != u64::from(space.0) {
            self.activate(space);
        }
        let tag = self.context.load(Relaxed) | page.0 & PAGE_MASK;
        let first = if access == Access::Execute { &self.code } else { &self.data };
        let needs = needs(access);
        match first.small.get(tag, page.0) {
            Some(value) if value & needs == needs => (tag, Some(Frame(value as u32))),
            _ => (tag, None),
        }
    }

    /// Everything that is cached for the page of `tag`, once [`quick`](Self::quick) gave no frame.
    pub(crate) fn ask(&self, tag: u64, page: Page, access: Access) -> Answer {
        let first = if access == Access::Execute { &self.code } else { &self.data };
        let large = LargePage::of(tag, page);
        if let Some(value) = first.small.get(tag, page.0) {
            return judge(value, access, value as u32, true);
        }
        let has_large = self.has_large.load(Relaxed);
        if has_large && let Some(value) = first.large.get(large.tag, large.number) {
            return judge(value, access, value as u32 + large.offset, true);
        }
        self.counts.l1_misses.add(1);
        if let Some(value) = self.second.get(tag, page.0) {
            first.small.insert(tag, page.0, value, |tag| self.is_stale(tag));
            return judge(value, access, value as u32, false);
        }
        if has_large && let Some(value) = self.second.get(large.tag, large.number) {
            first.large.insert(large.tag, large.number, value, |tag| self.is_stale(tag));
            return judge(value, access, value as u32 + large.offset, false);
        }
        Answer::Miss
    }

    /// Where the walk for the page of `tag` begins: at its last table, if that is cached.
    #[inline]
    pub(crate) fn start(&self, space: SpaceId, root: Frame, page: Page) -> Start {
        let number = (page.0 & PAGE_MASK) >> LARGE_SHIFT;
        match self.structures.get(self.structures_context(space) | number, number) {
            Some(value) => Start {
                table: Frame(value as u32),
                level: 1,
                writable: value & WRITABLE != 0,
                executable: value & EXECUTABLE != 0,
            },
            None => Start::root(root),
        }
    }

    /// Caches what a walk found.
    pub(crate) fn insert(&self, space: SpaceId, tag: u64, page: Page, access: Access, leaf: &Leaf) {
        let first = if access == Access::Execute { &self.code } else { &self.data };
        let stale = |tag| self.is_stale(tag);
        let dirty = if leaf.dirty { DIRTY } else { 0 };
        let rights = rights(leaf.writable, leaf.executable) | dirty;
        if leaf.level == 1 {
            let value = u64::from(leaf.frame.0) | rights;
            first.small.insert(tag, page.0, value, stale);
            self.second.insert(tag, page.0, value, stale);
            if leaf.entries_read > 1 {
                let context = self.structures_context(space);
                let number = (page.0 & PAGE_MASK) >> LARGE_SHIFT;
                let above = rights_above(leaf.last);
                self.structures.insert(context | number, number, above, |tag| {
                    self.slot_of(tag).structures.load(Relaxed) != tag & CONTEXT_MASK
                });
            }
        } else {
            // 1 GiB is cached in pieces of 2 MiB, as processors do that have no TLB for it.
            self.has_large.store(true, Relaxed);
            let large = LargePage::of(tag, page);
            let value = u64::from(leaf.frame.0 - large.offset) | rights;
            first.large.insert(large.tag, large.number, value, stale);
            self.second.insert(large.tag, large.number, value, stale);
        }
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
        let found = self.slots.iter().position(|slot| slot.space.load(Relaxed) == wanted);
        let index = found.unwrap_or_else(|| {
            // Round robin, as Linux does: which of the others will run next is anybody's guess.
            let next = self.slot_next.load(Relaxed);
            self.slot_next.store(next + 1, Relaxed);
            let index = (next % self.slots.len() as u64) as usize;
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
        if let Some(index) = self.slot_index(space) {
            self.slots[index].structures.store(self.generate(index), Relaxed);
        }
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
        }
    }

    /// Forgets all that led to a fault on a page of the current space, so that its retry walks anew.
    pub(crate) fn forget_faulting(&self, space: SpaceId, tag: u64, page: Page) {
        self.forget(tag, page);
        let number = (page.0 & PAGE_MASK) >> LARGE_SHIFT;
        self.structures.remove(self.structures_context(space) | number, number);
    }

    /// Forgets one page of the current space, whatever its size.
    fn forget(&self, tag: u64, page: Page) {
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
            for (slot, state) in self.slots.iter().enumerate() {
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
        self.slots.iter().position(|slot| slot.space.load(Relaxed) == u64::from(space.0))
    }

    /// The slot that a tag's context belongs to.
    #[inline(always)]
    fn slot_of(&self, tag: u64) -> &Slot {
        &self.slots[(tag >> SLOT_SHIFT) as usize % SLOTS_MAX as usize]
    }

    /// Whether nobody can find the entry under `tag` any more.
    #[inline(always)]
    fn is_stale(&self, tag: u64) -> bool {
        self.slot_of(tag).context.load(Relaxed) != tag & CONTEXT_MASK
    }

    /// The context of the paging structures of the current space.
    #[inline]
    fn structures_context(&self, space: SpaceId) -> u64 {
        debug_assert_eq!(self.current.load(Relaxed), u64::from(space.0));
        self.slot_of(self.context.load(Relaxed)).structures.load(Relaxed)
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

#[inline(always)]
fn rights(writable: bool, executable: bool) -> u64 {
    u64::from(writable) << WRITABLE.trailing_zeros()
        | u64::from(executable) << EXECUTABLE.trailing_zeros()
}

/// A last table and the rights above it, as a value.
#[inline(always)]
fn rights_above(last: Start) -> u64 {
    u64::from(last.table.0) | rights(last.writable, last.executable)
}

#[inline(always)]
fn judge(value: u64, access: Access, frame: u32, is_first: bool) -> Answer {
    let lacks = needs(access) & !value;
    if lacks == 0 {
        Answer::Frame(Frame(frame), is_first)
    } else if lacks == DIRTY {
        Answer::Clean
    } else {
        Answer::Forbidden
    }
}
