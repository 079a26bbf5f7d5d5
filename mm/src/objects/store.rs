//! The store: everything physical that all address spaces share.
//!
//! Frames, the order in which they are evicted, files, swap, requests, and how much of each address
//! space is resident. All of it is used through `&self`, with small locks; the order in which they may
//! nest is told in [`table`](crate::frames::table).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use spin::Mutex;

use super::Flush;
use super::complete::swapped_page;
use super::file::Files;
use super::groups::{GroupId, Groups};
use super::io::{Direction, Request, RequestId, Requests};
use super::swap::Swap;
use crate::addr::{Frame, Page, Slot};
use crate::event::{Counters, Target};
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
    /// Orders of its own for each group, where replacement is local.
    pub groups: Option<Groups>,
    /// Files and shared memory objects.
    pub files: Files,
    /// The swap device.
    pub swap: Swap,
    /// I/O under way; changed only by what this type does with them.
    pub requests: Mutex<Requests>,
    /// How many of them no disk has taken yet; stored by who holds the lock.
    requests_queued: AtomicUsize,
    /// Whether no further one fits; stored by who holds the lock.
    requests_full: AtomicBool,
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
            groups: None,
            files: Files::new(),
            swap,
            requests: Mutex::new(requests),
            requests_queued: AtomicUsize::new(0),
            requests_full: AtomicBool::new(false),
            tunables,
            zero,
            resident: bytemuck::zeroed_slice_box(SPACES_MAX as usize),
            gone: bytemuck::zeroed_slice_box(SPACES_MAX as usize),
            space_ids: Mutex::new(SpaceIds { unused: 0, free: Vec::new() }),
        }
    }

    /// Queues a request; as [`Requests::submit`].
    pub(crate) fn submit(
        &self,
        direction: Direction,
        target: Target,
        frames: &[Frame],
    ) -> Option<RequestId> {
        self.with_requests(|requests| requests.submit(direction, target, frames))
    }

    /// Queues a write of one page; as [`Requests::add_write`].
    #[inline]
    pub(crate) fn add_write(&self, target: Target, frame: Frame) -> Option<RequestId> {
        self.with_requests(|requests| requests.add_write(target, frame))
    }

    /// The oldest request that the world has not taken yet. One that another processor submits this
    /// very moment may be missed; that one will ask.
    #[inline]
    pub(crate) fn next_request(&self) -> Option<Request> {
        // Asked after every fault, few of which submit anything.
        if self.requests_queued.load(Relaxed) == 0 {
            return None;
        }
        self.with_requests(Requests::take)
    }

    /// Ends a request that was taken; as [`Requests::end`].
    #[inline]
    pub(crate) fn end_request(&self, id: RequestId) -> Request {
        self.with_requests(|requests| requests.end(id))
    }

    /// Whether no further request fits until one is completed; a hint while others submit.
    #[inline]
    pub(crate) fn is_full_of_requests(&self) -> bool {
        self.requests_full.load(Relaxed)
    }

    /// Changes the requests and publishes what is asked of them most.
    #[inline(always)]
    fn with_requests<T>(&self, work: impl FnOnce(&mut Requests) -> T) -> T {
        let mut requests = self.requests.lock();
        let result = work(&mut requests);
        self.requests_queued.store(requests.queued(), Relaxed);
        self.requests_full.store(requests.is_full(), Relaxed);
        result
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
        if let Some(groups) = &self.groups {
            groups.set_space(id, GroupId(0));
        }
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

    /// Counts `more` pages of a space.
    pub(crate) fn resident_up_by(&self, space: SpaceId, more: Resident) {
        let counts = &self.resident[space.0 as usize];
        for (count, more) in counts.iter().zip([more.anon, more.file, more.swapped]) {
            count.fetch_add(more, Relaxed);
        }
    }

    /// Counts `gone` pages less of a space.
    pub(crate) fn resident_down_by(&self, space: SpaceId, gone: Resident) {
        let counts = &self.resident[space.0 as usize];
        for (count, gone) in counts.iter().zip([gone.anon, gone.file, gone.swapped]) {
            let before = count.fetch_sub(gone, Relaxed);
            debug_assert!(before >= gone, "{space:?} has fewer pages than none");
        }
    }

    /// Takes a frame for contents of programs: `kind`, no flags. Keeps the reserve, never reclaims.
    #[inline(always)] // its result is large
    pub(crate) fn alloc<M: Machine>(
        &self,
        at: At,
        machine: &M,
        kind: Kind,
    ) -> Result<Locked<'_>, NoMemory> {
        let frame = self.frames.alloc(at, machine, Reserve::Keep)?;
        let mut locked = self.frames.table.lock(frame);
        locked.begin(kind);
        if let Some(groups) = &self.groups {
            groups.set_owner(frame, GroupId(0));
        }
        Ok(locked)
    }

    /// The order of eviction that a frame is in, or would be.
    #[inline]
    pub(crate) fn order_of(&self, frame: Frame) -> &Mutex<Replacement> {
        match &self.groups {
            None => &self.order,
            Some(groups) => groups.order(groups.owner(frame)).unwrap_or(&self.order),
        }
    }

    /// The order of eviction of a group.
    pub(crate) fn order_for(&self, group: GroupId) -> &Mutex<Replacement> {
        self.groups.as_ref().and_then(|groups| groups.order(group)).unwrap_or(&self.order)
    }

    /// Number of evictable frames.
    pub(crate) fn evictable(&self) -> usize {
        let common = self.order.lock().as_policy().len();
        common + self.groups.as_ref().map_or(0, Groups::held_by_all)
    }

    /// Whose frames go if anybody's may.
    #[inline]
    pub(crate) fn donor(&self) -> GroupId {
        match &self.groups {
            None => GroupId(0),
            Some(groups) => groups.donor(self.order.lock().as_policy().len()),
        }
    }

    /// Makes a frame that `space` maps the property of its group, if it is nobody's.
    #[inline]
    pub(crate) fn own(&self, frame: &mut Locked<'_>, space: SpaceId, page: PageId) {
        if let Some(groups) = &self.groups {
            self.own_in(groups, frame, space, page);
        }
    }

    #[cold]
    fn own_in(&self, groups: &Groups, frame: &mut Locked<'_>, space: SpaceId, page: PageId) {
        let group = groups.of_space(space);
        if groups.owner(frame.frame()) != GroupId(0) || group == GroupId(0) {
            return;
        }
        let listed = frame.state().has(Flags::LISTED);
        self.unlist(frame);
        groups.set_owner(frame.frame(), group);
        if listed {
            self.list(frame, page);
        }
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
        self.order_of(frame.frame()).lock().as_policy_mut().insert(frame.frame(), page);
        frame.set(Flags::LISTED);
    }

    /// Takes a frame out of the order of eviction, if it is in it.
    #[inline]
    pub(crate) fn unlist(&self, frame: &mut Locked<'_>) {
        if frame.take(Flags::LISTED) {
            self.order_of(frame.frame()).lock().as_policy_mut().remove(frame.frame());
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
