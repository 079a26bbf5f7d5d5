//! The store: everything physical that all address spaces share.
//!
//! Frames, the order in which they are evicted, files, swap, requests, and how much of each address
//! space is resident. All of it is used through `&self`, with small locks; the order in which they may
//! nest is told in [`table`](crate::frames::table).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use spin::Mutex;

use super::Flush;
use super::complete::swapped_page;
use super::file::Files;
use super::io::Requests;
use super::swap::Swap;
use crate::addr::{Frame, Page, Slot};
use crate::event::Counters;
use crate::frames::table::{Flags, Kind, Locked};
use crate::frames::zone::Reserve;
use crate::frames::{Frames, NoMemory, rmap};
use crate::machine::{At, Machine, SpaceId};
use crate::replace::{PageId, Replacement};
use crate::translate::x86_64 as x86;

/// Numbers that an administrator may turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tunables {
    /// Pages mapped at once around a read fault on a file, a power of two (`fault_around_bytes`).
    pub fault_around_pages: u64,
    /// Largest read-ahead window of a file in pages, at most 32 (`read_ahead_kb`).
    pub read_ahead_pages: u32,
}

impl Default for Tunables {
    /// 16 pages of fault-around and 32 of read-ahead, as Linux.
    fn default() -> Tunables {
        Tunables { fault_around_pages: 16, read_ahead_pages: 32 }
    }
}

/// Resident pages of one address space, kept up by whoever maps and unmaps, evictions included.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Resident {
    /// Anonymous pages.
    pub anon: u64,
    /// Pages of files and shared memory.
    pub file: u64,
    /// Pages in swap slots.
    pub swapped: u64,
}

impl Resident {
    /// Pages in frames.
    pub const fn pages(self) -> u64 {
        self.anon + self.file
    }
}

/// What is counted of an address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resides {
    Anon,
    File,
    Swapped,
}

impl From<Kind> for Resides {
    fn from(kind: Kind) -> Resides {
        if kind == Kind::Anon { Resides::Anon } else { Resides::File }
    }
}

/// The physical side of memory.
pub struct Store {
    /// Physical frames.
    pub frames: Frames,
    /// The order of eviction.
    pub order: Mutex<Replacement>,
    /// Files and shared memory objects.
    pub files: Files,
    /// The swap device.
    pub swap: Swap,
    /// I/O under way.
    pub requests: Mutex<Requests>,
    /// Settings.
    pub tunables: Tunables,
    /// The frame of zeros that reads of untouched anonymous memory map.
    pub zero: Frame,
    resident: Box<[[AtomicU64; 3]]>,
    /// By space: pages used since its working set was last measured, and evicted since.
    gone: Box<[AtomicU64]>,
    space_ids: Mutex<SpaceIds>,
}

struct SpaceIds {
    unused: u32,
    free: Vec<u32>,
}

/// Address spaces that can exist at once.
pub const SPACES_MAX: u32 = 1 << 16;

impl Store {
    /// Joins the parts; `zero` must be a frame of zeros of kind `Reserved`.
    pub fn new(
        frames: Frames,
        order: Replacement,
        swap: Swap,
        requests: Requests,
        tunables: Tunables,
        zero: Frame,
    ) -> Store {
        Store {
            frames,
            order: Mutex::new(order),
            files: Files::new(),
            swap,
            requests: Mutex::new(requests),
            tunables,
            zero,
            resident: bytemuck::zeroed_slice_box(SPACES_MAX as usize),
            gone: bytemuck::zeroed_slice_box(SPACES_MAX as usize),
            space_ids: Mutex::new(SpaceIds { unused: 0, free: Vec::new() }),
        }
    }

    /// The counters of the processor that asks.
    #[inline]
    pub fn counters(&self, at: At) -> &Counters {
        self.frames.counters(at)
    }

    /// A number for a new address space; `None` if 65,536 exist.
    pub fn new_space_id(&self) -> Option<SpaceId> {
        let mut ids = self.space_ids.lock();
        if let Some(id) = ids.free.pop() {
            return Some(SpaceId(id));
        }
        if ids.unused == SPACES_MAX {
            return None;
        }
        ids.unused += 1;
        Some(SpaceId(ids.unused - 1))
    }

    /// Gives the number of a dead address space back.
    ///
    /// # Panics
    /// If pages of it are still counted as resident: something was not unmapped.
    pub fn end_space_id(&self, id: SpaceId) {
        assert_eq!(self.resident(id), Resident::default(), "{id:?} ended with pages");
        self.gone[id.0 as usize].store(0, Relaxed);
        self.space_ids.lock().free.push(id.0);
    }

    /// How much of an address space is resident.
    pub fn resident(&self, space: SpaceId) -> Resident {
        let [anon, file, swapped] = &self.resident[space.0 as usize];
        Resident {
            anon: anon.load(Relaxed),
            file: file.load(Relaxed),
            swapped: swapped.load(Relaxed),
        }
    }

    /// Counts one page more of a space; returns how many are resident now of that sort.
    #[inline]
    pub(crate) fn resident_up(&self, space: SpaceId, what: Resides) -> u64 {
        self.resident[space.0 as usize][what as usize].fetch_add(1, Relaxed) + 1
    }

    /// Counts one page less of a space.
    #[inline]
    pub(crate) fn resident_down(&self, space: SpaceId, what: Resides) {
        let before = self.resident[space.0 as usize][what as usize].fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "{space:?} has fewer pages than none");
    }

    /// Counts a page of a space that was used and is being evicted.
    #[inline]
    pub(crate) fn used_then_gone(&self, space: SpaceId) {
        self.gone[space.0 as usize].fetch_add(1, Relaxed);
    }

    /// Takes the count of pages that were used and are gone.
    pub(crate) fn take_gone(&self, space: SpaceId) -> u64 {
        self.gone[space.0 as usize].swap(0, Relaxed)
    }

    /// Takes a frame for contents of programs: `kind`, no flags. Keeps the reserve, never reclaims.
    #[inline]
    pub(crate) fn alloc<M: Machine>(
        &self,
        at: At,
        machine: &M,
        kind: Kind,
    ) -> Result<Locked<'_>, NoMemory> {
        let frame = self.frames.alloc(at, machine, Reserve::Keep)?;
        let mut locked = self.frames.table.lock(frame);
        locked.begin(kind);
        Ok(locked)
    }

    /// Makes a frame evictable, unless it is pinned or must be kept.
    #[inline]
    pub(crate) fn list(&self, frame: &mut Locked<'_>, page: PageId) {
        let state = frame.state();
        let out = Flags::LISTED | Flags::KEPT;
        if state.has_any(out) || state.pins() > 0 || state.holds() > 0 {
            return;
        }
        // An anonymous page without swap has nowhere to go, unless its program gave it up.
        if state.kind() == Kind::Anon && !self.swap.exists() && !state.has(Flags::LAZY) {
            return;
        }
        self.order.lock().as_policy_mut().insert(frame.frame(), page);
        frame.set(Flags::LISTED);
    }

    /// Takes a frame out of the order of eviction, if it is in it.
    #[inline]
    pub(crate) fn unlist(&self, frame: &mut Locked<'_>) {
        if frame.take(Flags::LISTED) {
            self.order.lock().as_policy_mut().remove(frame.frame());
        }
    }

    /// Frees a frame that nothing maps and no I/O uses.
    #[inline]
    pub(crate) fn release<M: Machine>(&self, at: At, machine: &M, mut frame: Locked<'_>) {
        self.unlist(&mut frame);
        frame.unpin_all();
        frame.end();
        let number = frame.frame();
        drop(frame);
        self.frames.free(at, machine, number);
    }

    /// As [`release`](Self::release), but TLBs may still hold a translation to the frame until `flush`
    /// is finished.
    #[inline]
    pub(crate) fn release_after<M: Machine>(
        &self,
        at: At,
        machine: &M,
        mut frame: Locked<'_>,
        flush: &mut Flush,
    ) {
        self.unlist(&mut frame);
        frame.unpin_all();
        frame.end();
        let number = frame.frame();
        drop(frame);
        flush.after(self, at, machine, number);
    }
}

/// The identity of an anonymous page, for policies that remember evicted pages.
#[inline]
pub(crate) fn anon_page(space: SpaceId, page: Page) -> PageId {
    PageId(1 << 63 | u64::from(space.0) << 36 | page.0 & ((1 << 36) - 1))
}

/// The identity of a page of a file.
#[inline]
pub(crate) fn file_page(owner_word: u64) -> PageId {
    PageId(owner_word)
}

/// The identity of the page in a frame in use.
pub(crate) fn identity<M: Machine>(store: &Store, machine: &M, frame: &Locked<'_>) -> PageId {
    if frame.state().kind() == Kind::File {
        return file_page(frame.owner());
    }
    match rmap::entries(machine, frame).next() {
        Some(entry_at) => {
            let (space, page) = x86::page_of(&store.frames, entry_at);
            anon_page(space, page)
        }
        None => swapped_page(Slot(frame.owner() as u32)),
    }
}
