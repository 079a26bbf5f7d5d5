//! The walk of x86-64 page tables, as the processor does it for a user-mode access.
//!
//! ```text
//!   page number   35 ────── 27 26 ────── 18 17 ─────── 9 8 ──────── 0
//!                   level 4  ──>  level 3  ──>  level 2  ──>  level 1  ──>  frame
//!                                   PS: 1 GiB     PS: 2 MiB
//! ```
//!
//! Written from Intel's Software Developer's Manual, volume 3A, chapter 4 (4.5 for the format, 4.6
//! for rights, 4.8 for accessed and dirty), and on purpose not from the memory manager's own table
//! code: where the two differ, one of them has a bug.
//!
//! Rights are judged over all levels together, and only a permitted access leaves marks: the
//! accessed bit in every entry used, the dirty bit in the last one on a write. Real processors may
//! set accessed bits in upper levels on the way to a fault; no software can rely on that.
//!
//! Invariant: a bit is set only in the very entry that was read. Otherwise a walk that races with
//! an eviction would mark an entry that already names a swap slot.
//!
//! Knows nothing of: TLBs, protection keys, supervisor mode, the global bit.

use std::sync::atomic::Ordering::{Acquire, Relaxed};

use vellum_mm::addr::{Frame, Page, TABLE_ENTRIES};
use vellum_mm::machine::{Access, Memory};

use crate::ram::Ram;

/// The entry maps something.
pub const PRESENT: u64 = 1 << 0;
/// Writes are allowed.
pub const WRITABLE: u64 = 1 << 1;
/// User mode may use it.
pub const USER: u64 = 1 << 2;
/// The processor has used the entry.
pub const ACCESSED: u64 = 1 << 5;
/// The processor has written through the entry.
pub const DIRTY: u64 = 1 << 6;
/// At level 2 or 3: the entry maps 2 MiB or 1 GiB instead of a table.
pub const HUGE: u64 = 1 << 7;
/// Instructions may not be fetched.
pub const NO_EXECUTE: u64 = 1 << 63;
/// The bits that hold the frame number: the simulated processor has 44 physical address bits, as
/// many as a [`Frame`] can number.
pub const FRAME_BITS: u64 = ((1 << 44) - 1) & !0xfff;
/// Address bits that this processor does not have; set, they fault.
const RESERVED_BITS: u64 = ((1 << 52) - 1) & !((1 << 44) - 1);

/// Where a walk begins: at the root, or at the last table if the levels above are cached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// The table to read first.
    pub table: Frame,
    /// Its level: 4 for a root, 1 for a table of single pages.
    pub level: u32,
    /// Whether all levels above allow writes.
    pub writable: bool,
    /// Whether all levels above allow instruction fetches.
    pub executable: bool,
}

impl Start {
    /// The start of a whole walk.
    #[inline]
    pub const fn root(table: Frame) -> Start {
        Start { table, level: 4, writable: true, executable: true }
    }
}

/// What a walk found for a permitted access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// The frame of the page asked for, even in the middle of a huge mapping.
    pub frame: Frame,
    /// The level of the last entry: 1 for 4 KiB, 2 for 2 MiB, 3 for 1 GiB.
    pub level: u32,
    /// Whether all levels allow writes.
    pub writable: bool,
    /// Whether all levels allow instruction fetches.
    pub executable: bool,
    /// Whether the dirty bit of the last entry is set by now.
    pub dirty: bool,
    /// The table of the last entry, and the rights of the levels above it.
    pub last: Start,
    /// Entries read.
    pub entries_read: u32,
}

/// Why a walk ended in a page fault; the bits of its error code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// An entry maps nothing (error-code bit P clear).
    Absent,
    /// All entries are there, but one withholds the right (P set).
    Forbidden,
    /// A bit is set that must not be (RSVD set): the tables are corrupt.
    Reserved,
}

/// A walk that ended in a page fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Why.
    pub cause: Cause,
    /// Entries read until then.
    pub entries_read: u32,
}

/// Whether the upper 17 bits of the address of `page` all equal bit 47.
#[inline]
pub const fn is_canonical(page: Page) -> bool {
    let high = page.0 >> 35;
    high == 0 || high == 0x1_ffff
}

/// Translates `page` for a user-mode `access`, setting accessed and dirty bits if it is permitted.
///
/// # Panics
/// If an entry names a table beyond the end of `ram`.
#[inline]
pub fn walk(ram: &Ram, start: Start, page: Page, access: Access) -> Result<Leaf, Refused> {
    loop {
        // Each failed attempt means that somebody else changed an entry, so somebody makes
        // progress.
        if let Some(outcome) = attempt(ram, start, page, access) {
            return outcome;
        }
    }
}

/// One attempt to walk; `None` if an entry changed under it.
#[inline]
fn attempt(ram: &Ram, start: Start, page: Page, access: Access) -> Option<Result<Leaf, Refused>> {
    let (mut table, mut level) = (start.table, start.level);
    // The bits that all levels above have, and those that any has: rights are judged at the end.
    let mut all = if start.writable { !0 } else { !WRITABLE };
    let mut any = if start.executable { 0 } else { NO_EXECUTE };
    let mut path = [(Frame(0), 0); 4]; // the tables passed, and the entries found in them
    let mut entries_read = 0;
    loop {
        let value = ram.table(table)[index(page, level)].load(Acquire);
        path[entries_read as usize & 3] = (table, value);
        entries_read += 1;
        let refuse = |cause| Some(Err(Refused { cause, entries_read }));
        if value & (PRESENT | RESERVED_BITS) != PRESENT {
            return refuse(if value & PRESENT == 0 { Cause::Absent } else { Cause::Reserved });
        }
        let frame = ((value & FRAME_BITS) >> 12) as u32;
        if level > 1 && value & HUGE == 0 {
            all &= value;
            any |= value;
            table = Frame(frame);
            level -= 1;
            continue;
        }
        if level > 1 && is_misplaced(value, level) {
            return refuse(Cause::Reserved);
        }
        let last = Start {
            table,
            level,
            writable: all & WRITABLE != 0,
            executable: any & NO_EXECUTE == 0,
        };
        all &= value;
        any |= value;
        let (writable, executable) = (all & WRITABLE != 0, any & NO_EXECUTE == 0);
        let is_permitted = all & USER != 0
            && match access {
                Access::Read => true,
                Access::Write => writable,
                Access::Execute => executable,
            };
        if !is_permitted {
            return refuse(Cause::Forbidden);
        }
        let wants_dirty = access == Access::Write && value & DIRTY == 0;
        if (all & ACCESSED == 0 || wants_dirty)
            && !mark(ram, start.level, &path[..entries_read as usize], page, access)
        {
            return None;
        }
        let offset = page.0 as u32 & (pages(level) - 1);
        return Some(Ok(Leaf {
            // Bit 12 of a huge entry is its PAT bit, not part of the address.
            frame: Frame(if level == 1 { frame } else { (frame & !1) + offset }),
            level,
            writable,
            executable,
            dirty: value & DIRTY != 0 || access == Access::Write,
            last,
            entries_read,
        }));
    }
}

/// Where the entry for `page` is in a table of `level`.
#[inline(always)]
fn index(page: Page, level: u32) -> usize {
    (page.0 >> (9 * (level - 1))) as usize & (TABLE_ENTRIES - 1)
}

/// Pages that an entry of `level` spans.
#[inline(always)]
fn pages(level: u32) -> u32 {
    1 << (9 * (level - 1))
}

/// Whether an entry of this level maps something huge that cannot be: nothing is that large, or its
/// frame is not aligned.
#[inline(always)]
fn is_misplaced(value: u64, level: u32) -> bool {
    level == 4 || (value & FRAME_BITS) >> 13 & (u64::from(pages(level)) - 1) >> 1 != 0
}

/// Sets the accessed bit in every entry of a path that starts at `level` and, for a write, the
/// dirty bit in its last; `false` if one of them is no longer what it was.
#[cold]
#[inline(never)]
fn mark(ram: &Ram, level: u32, path: &[(Frame, u64)], page: Page, access: Access) -> bool {
    let last = path.len() - 1;
    path.iter().zip((1..=level).rev()).enumerate().all(|(i, (&(table, value), level))| {
        let dirty = if i == last && access == Access::Write { DIRTY } else { 0 };
        let marked = value | ACCESSED | dirty;
        let entry = &ram.table(table)[index(page, level)];
        marked == value || entry.compare_exchange(value, marked, Relaxed, Relaxed).is_ok()
    })
}
