//! x86-64 page tables: four levels of 512 entries, in frames of the machine.
//!
//! Intel SDM volume 3A, chapter 4.5 (4-level paging). The bits are those of the hardware, so that the
//! simulated MMU and a real one read the same tables:
//!
//! ```text
//!      63  62 ── 52  51 ───────────── 12  11 10  9   8  7   6  5  4 3 2 1 0
//!      NX  software   frame               soft  old  -  PS  D  A  - - U W P
//!
//!  P = 0, rest = 0    nothing here
//!  P = 0, rest ≠ 0    bits 12.. hold a swap slot, bit 1 is set
//! ```
//!
//! A page whose area grants no access at all stays present without U: a user access then faults, and
//! the frame keeps its place in the reverse map.
//!
//! A leaf table's descriptor names its space and its 2 MiB region, so the place of an entry tells its
//! page. A table is freed when no area is left in its region: then no entry can be.

use core::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use crate::addr::{Frame, PAGE_SHIFT, Page, Pages, Slot, TABLE_ENTRIES};
use crate::frames::rmap::EntryAt;
use crate::frames::table::Kind;
use crate::frames::{Frames, NoMemory, zone::Reserve};
use crate::machine::{At, Machine, Memory, SpaceId};

/// The entry maps something.
pub const PRESENT: u64 = 1;
/// Writes are allowed.
pub const WRITE: u64 = 1 << 1;
/// Programs may use it.
pub const USER: u64 = 1 << 2;
/// Set by the processor at the first use.
pub const ACCESSED: u64 = 1 << 5;
/// Set by the processor at the first write.
pub const DIRTY: u64 = 1 << 6;
/// In a table of level 2 or 3: the entry maps a large page.
pub const LARGE: u64 = 1 << 7;
/// Software: uses of this page say nothing of the next (`MADV_RANDOM`, `MADV_SEQUENTIAL`), so that
/// replacement ignores its accessed bit, as Linux does.
pub const NO_RECENCY: u64 = 1 << 9;
/// Instruction fetches fault.
pub const NO_EXECUTE: u64 = 1 << 63;
/// The bits of the frame.
pub const FRAME_MASK: u64 = 0x000f_ffff_ffff_f000;

/// A swap entry: not present, but not empty.
const SWAPPED: u64 = 1 << 1;
/// Where a swap entry holds its slot.
const SLOT_SHIFT: u32 = 12;

const INDEX_BITS: u32 = 9;
/// Levels of tables: the root is level 4, a leaf level 1.
pub const LEVELS: u32 = 4;
/// Pages below one entry of a level-2 table: 2 MiB.
pub const LEAF_PAGES: u64 = TABLE_ENTRIES as u64;
/// The first entry of a root that belongs to the kernel's half.
pub const KERNEL_HALF: usize = TABLE_ENTRIES / 2;

/// The value of a page-table entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry(pub u64);

/// What an entry says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holds {
    /// Nothing.
    Empty,
    /// This frame.
    Frame(Frame),
    /// The contents are in this swap slot.
    Swapped(Slot),
}

impl Entry {
    /// An entry that maps `frame` with these bits.
    #[inline]
    pub const fn of(frame: Frame, bits: u64) -> Entry {
        Entry(((frame.0 as u64) << PAGE_SHIFT) | bits | PRESENT)
    }

    /// An entry that remembers a swap slot.
    pub const fn swapped(slot: Slot) -> Entry {
        Entry(((slot.0 as u64) << SLOT_SHIFT) | SWAPPED)
    }

    /// What it says.
    #[inline]
    pub const fn holds(self) -> Holds {
        if self.0 & PRESENT != 0 {
            Holds::Frame(self.frame())
        } else if self.0 == 0 {
            Holds::Empty
        } else {
            Holds::Swapped(Slot((self.0 >> SLOT_SHIFT) as u32))
        }
    }

    /// The frame of a present entry.
    #[inline]
    pub const fn frame(self) -> Frame {
        Frame(((self.0 & FRAME_MASK) >> PAGE_SHIFT) as u32)
    }

    /// Whether all of `bits` are set.
    #[inline]
    pub const fn has(self, bits: u64) -> bool {
        self.0 & bits == bits
    }
}

/// The word of `page` in a leaf table.
#[inline]
pub fn word<M: Memory>(machine: &M, leaf: Frame, page: Page) -> &AtomicU64 {
    &machine.table(leaf)[index(page, 1)]
}

/// The words of `part`, which lies in the region of `leaf`.
///
/// # Panics
/// If it does not.
#[inline]
pub fn words<M: Memory>(machine: &M, leaf: Frame, part: Pages) -> &[AtomicU64] {
    let first = index(part.start, 1);
    &machine.table(leaf)[first..first + part.count() as usize]
}

/// The value of `word`.
#[inline]
pub fn load(word: &AtomicU64) -> Entry {
    Entry(word.load(Acquire))
}

/// Stores an entry where none was present, so that no processor can be changing it.
#[inline]
pub fn store(word: &AtomicU64, entry: Entry) {
    word.store(entry.0, Release);
}

/// Replaces an entry that processors may be using, and returns it with its last accessed and dirty
/// bits.
#[inline]
pub fn swap(word: &AtomicU64, entry: Entry) -> Entry {
    Entry(word.swap(entry.0, AcqRel))
}

/// Clears and sets bits of an entry that processors may be using; returns it as it was.
#[inline]
pub fn change(word: &AtomicU64, clear: u64, set: u64) -> Entry {
    Entry(
        word.fetch_update(AcqRel, Acquire, |old| Some((old & !clear) | set))
            .unwrap_or_else(|same| same),
    )
}

/// Clears bits of an entry that processors may be using.
#[inline]
pub fn clear(word: &AtomicU64, bits: u64) {
    word.fetch_and(!bits, AcqRel);
}

/// Replaces the entry `old` by `new`, unless it has changed.
///
/// # Errors
/// Gives the entry that is there instead.
#[inline]
pub fn exchange(word: &AtomicU64, old: Entry, new: Entry) -> Result<(), Entry> {
    word.compare_exchange(old.0, new.0, AcqRel, Acquire).map(|_| ()).map_err(Entry)
}

/// The place of the entry of `page` in `leaf`.
#[inline]
pub const fn entry_at(leaf: Frame, page: Page) -> EntryAt {
    EntryAt::new(leaf, index(page, 1))
}

/// The word at a place.
#[inline]
pub fn word_at<M: Memory>(machine: &M, at: EntryAt) -> &AtomicU64 {
    &machine.table(at.table())[at.index()]
}

/// The space and page that a place of a leaf entry translates.
#[inline]
pub fn page_of(frames: &Frames, at: EntryAt) -> (SpaceId, Page) {
    let owner = frames.table.peek_owner(at.table());
    let region = owner & 0xffff_ffff;
    (SpaceId((owner >> 32) as u32), Page((region << INDEX_BITS) | at.index() as u64))
}

/// The index of `page` in a table of `level` (1 is a leaf).
#[inline]
const fn index(page: Page, level: u32) -> usize {
    (page.0 >> (INDEX_BITS * (level - 1))) as usize % TABLE_ENTRIES
}

/// Pages below one entry of a table of `level`.
const fn span(level: u32) -> u64 {
    1 << (INDEX_BITS * (level - 1))
}

/// A new root, with the kernel's half of `kernel` if there is one.
pub fn new_root<M: Machine>(
    frames: &Frames,
    at: At,
    machine: &M,
    kernel: Option<Frame>,
) -> Result<Frame, NoMemory> {
    let root = new_table(frames, at, machine, 0)?;
    if let Some(kernel) = kernel {
        let (from, to) = (machine.table(kernel), machine.table(root));
        for i in KERNEL_HALF..TABLE_ENTRIES {
            to[i].store(from[i].load(Relaxed), Relaxed);
        }
    }
    Ok(root)
}

/// Builds a root whose kernel half maps the `count` frames of RAM from `0xffff_8000_0000_0000` up, by
/// pages of 1 GiB. Every space copies this half, so all share the tables below it.
pub fn new_kernel_root<M: Machine>(
    frames: &Frames,
    at: At,
    machine: &M,
    count: u32,
) -> Result<Frame, NoMemory> {
    let root = new_table(frames, at, machine, 0)?;
    let gibs = u64::from(count).div_ceil(span(3));
    for (slot, first) in (0..gibs).step_by(TABLE_ENTRIES).enumerate() {
        let table = new_table(frames, at, machine, 0)?;
        for gib in first..gibs.min(first + TABLE_ENTRIES as u64) {
            let frame = Frame((gib * span(3)) as u32);
            machine.table(table)[(gib - first) as usize]
                .store(Entry::of(frame, WRITE | LARGE | NO_EXECUTE).0, Relaxed);
        }
        machine.table(root)[KERNEL_HALF + slot].store(Entry::of(table, WRITE).0, Relaxed);
    }
    Ok(root)
}

fn new_table<M: Machine>(
    frames: &Frames,
    at: At,
    machine: &M,
    owner: u64,
) -> Result<Frame, NoMemory> {
    let frame = frames.alloc(at, machine, Reserve::Dip)?;
    let mut locked = frames.table.lock(frame);
    locked.begin(Kind::Table);
    locked.set_owner(owner);
    drop(locked);
    machine.zero(frame);
    Ok(frame)
}

/// The leaf table that holds the entry of `page`, if there is one.
#[inline]
pub fn find_leaf<M: Memory>(machine: &M, root: Frame, page: Page) -> Option<Frame> {
    let mut table = root;
    for level in (2..=LEVELS).rev() {
        let entry = load(&machine.table(table)[index(page, level)]);
        if !entry.has(PRESENT) {
            return None;
        }
        table = entry.frame();
    }
    Some(table)
}

/// As [`find_leaf`], but makes the tables that are missing; `made` counts them.
///
/// # Errors
/// If no frame is free; tables made before that stay, and are freed with their region.
#[inline]
pub fn make_leaf<M: Machine>(
    frames: &Frames,
    at: At,
    machine: &M,
    space: SpaceId,
    root: Frame,
    page: Page,
    made: &mut u64,
) -> Result<Frame, NoMemory> {
    let mut table = root;
    for level in (2..=LEVELS).rev() {
        let word = &machine.table(table)[index(page, level)];
        let entry = load(word);
        table = if entry.has(PRESENT) {
            entry.frame()
        } else {
            let owner = u64::from(space.0) << 32 | page.0 >> INDEX_BITS;
            let below = new_table(frames, at, machine, owner)?;
            *made += 1;
            store(word, Entry::of(below, WRITE | USER | ACCESSED));
            below
        };
    }
    Ok(table)
}

/// Calls `each` with every leaf table that holds entries of `pages`, and the part of `pages` in it.
pub fn for_leaves<M: Memory>(
    machine: &M,
    root: Frame,
    pages: Pages,
    mut each: impl FnMut(Frame, Pages),
) {
    let mut page = pages.start;
    // Ends: `page` grows by at least one entry's span of the level where a table was missing.
    while page < pages.end {
        let mut table = root;
        let mut missing = None;
        for level in (2..=LEVELS).rev() {
            let entry = load(&machine.table(table)[index(page, level)]);
            if !entry.has(PRESENT) {
                missing = Some(level);
                break;
            }
            table = entry.frame();
        }
        let next = Page((page.0 | (span(missing.unwrap_or(2)) - 1)) + 1);
        if missing.is_none() {
            each(table, Pages::new(page, next.min(pages.end)));
        }
        page = next;
    }
}

/// Takes out the tables whose whole region lies in `hole`, a range of pages in which no area is left,
/// as far as they are near `pages`. Hands each to `freed`, its descriptor ended, with the part of
/// `pages` that it translated: the caller invalidates that before it frees the frame.
pub fn free_tables<M: Machine>(
    frames: &Frames,
    machine: &M,
    root: Frame,
    hole: Pages,
    pages: Pages,
    freed: impl FnMut(Frame, Pages),
) {
    FreeTables { frames, machine, hole, pages, freed }.level(root, LEVELS, Page(0));
}

struct FreeTables<'a, M, F> {
    frames: &'a Frames,
    machine: &'a M,
    hole: Pages,
    pages: Pages,
    freed: F,
}

impl<M: Machine, F: FnMut(Frame, Pages)> FreeTables<'_, M, F> {
    /// Takes out what hangs below `table`, which translates from page `base` up.
    fn level(&mut self, table: Frame, level: u32, base: Page) {
        let span = span(level);
        let last_index = if level == LEVELS { KERNEL_HALF - 1 } else { TABLE_ENTRIES - 1 };
        let first = self.pages.start.0.saturating_sub(base.0) / span;
        let last = ((self.pages.end.0 - 1 - base.0) / span).min(last_index as u64);
        for i in first..=last {
            let word = &self.machine.table(table)[i as usize];
            let entry = load(word);
            if !entry.has(PRESENT) {
                continue;
            }
            let region = Pages::at(base.up(i * span), span);
            let below = entry.frame();
            if level > 2 {
                self.level(below, level - 1, region.start);
            }
            if region.intersect(self.hole) == region {
                debug_assert!(
                    self.machine.table(below).iter().all(|w| w.load(Relaxed) == 0),
                    "a table is freed with entries in it"
                );
                store(word, Entry(0));
                self.frames.table.lock(below).end();
                (self.freed)(below, region.intersect(self.pages));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Access;
    use crate::testing::{AT, Bench};

    #[test]
    fn entries_have_the_bits_of_the_manual() {
        let entry = Entry::of(Frame(0x1234), WRITE | USER | NO_EXECUTE);
        assert_eq!(entry.0, 0x8000_0000_0123_4007);
        assert_eq!((entry.frame(), entry.has(WRITE | USER)), (Frame(0x1234), true));
        assert_eq!(Entry(0).holds(), Holds::Empty);
        // Slot 0 too: what is swapped is never mistaken for empty, nor for present.
        for slot in [Slot(0), Slot(u32::MAX)] {
            let entry = Entry::swapped(slot);
            assert!(!entry.has(PRESENT));
            assert_eq!(entry.holds(), Holds::Swapped(slot));
        }
    }

    #[test]
    fn an_address_is_four_indexes_of_nine_bits() {
        let page = Page(0x7_ffff_ffff & !(0x1ff << 18) | 5 << 18);
        assert_eq!([4, 3, 2, 1].map(|level| index(page, level)), [255, 5, 511, 511]);
        assert_eq!([1, 2, 3].map(span), [1, 512, 512 * 512]);
    }

    #[test]
    fn a_table_lives_as_long_as_an_area_in_its_region() {
        let bench = Bench::new(64, 0);
        let mut space = bench.space();
        // Two areas in one region of 2 MiB, a third in the next.
        let [a, b, c] = [0x1000, 0x1008, 0x1200].map(|start| bench.map(&mut space, Page(start), 2));
        for pages in [a, b, c] {
            bench.touch(&mut space, pages.start, Access::Write).unwrap();
        }
        assert_eq!(space.tables(), 5, "a root, two tables above, two leaves");
        let expected = [(a, 5), (b, 4), (c, 1)];
        for (pages, tables) in expected {
            bench.vm.unmap(AT, &bench.ram, &mut space, pages).unwrap();
            assert_eq!(space.tables(), tables, "{pages:?} unmapped");
            bench.check(&[&space]);
        }
    }

    #[test]
    fn the_uppermost_tables_go_as_well() {
        let bench = Bench::new(64, 0);
        let mut space = bench.space();
        let boot = bench.vm.census();
        let top = Page(crate::spaces::layout::USER_END.page().0 - 1);
        let pages = bench.map(&mut space, top, 1);
        bench.touch(&mut space, top, Access::Write).unwrap();
        bench.vm.unmap(AT, &bench.ram, &mut space, pages).unwrap();
        assert_eq!(bench.vm.census(), boot);
    }

    #[test]
    fn all_spaces_share_one_kernel_half_and_programs_may_not_use_it() {
        let bench = Bench::new(64, 0);
        let (a, b) = (bench.space(), bench.space());
        let half = |root| &bench.ram.table(root)[KERNEL_HALF..];
        let used = half(a.root()).iter().zip(half(b.root()));
        let entries: std::vec::Vec<_> = used
            .inspect(|(a, b)| assert_eq!(a.load(Relaxed), b.load(Relaxed)))
            .map(|(a, _)| load(a))
            .filter(|entry| entry.0 != 0)
            .collect();
        assert_eq!(entries.len(), 1, "64 frames need one table of 1 GiB pages");
        assert!(entries[0].has(PRESENT) && !entries[0].has(USER));
        let gib = load(&bench.ram.table(entries[0].frame())[0]);
        assert!(gib.has(PRESENT | LARGE | WRITE | NO_EXECUTE) && !gib.has(USER));
        assert_eq!(gib.frame(), Frame(0), "all of RAM, from its first frame");
    }
}
