//! Eviction of one page: from the policy's choice to a free frame, or to a write that will free it.
//!
//! ```text
//!     policy ── victim ──▶ lock, check ──▶ unmap everywhere ─┬─ clean ──▶ free
//!                                                            └─ dirty ──▶ write ··▶ free
//! ```
//!
//! The policy's word is not trusted: a victim must be a frame that is listed, unpinned and not under
//! I/O at the moment it is locked. A policy may waste memory, never corrupt it.
//!
//! Invariant: a frame leaves the policy before its translations are removed, and its translations
//! before it is free. Otherwise a fault could map a frame that is already someone else's.

use crate::addr::{Frame, Pages};
use crate::event::{Event, Kept, Target};
use crate::frames::rmap;
use crate::frames::table::{Flags, FrameTable, Kind, Locked};
use crate::machine::{At, Machine, Operation};
use crate::objects::complete::swapped_page;
use crate::objects::detach::unmap_everywhere;
use crate::objects::file::{Medium, owner_of};
use crate::objects::groups::{GroupId, Groups};
use crate::objects::index::Cached;
use crate::objects::io::Direction;
use crate::objects::store::identity;
use crate::objects::{Store, page_cache, swap};
use crate::replace::{PageId, Witness};
use crate::spaces::AddressSpace;
use crate::spaces::advise::resident_frames;
use crate::spaces::map::Refused;
use crate::spaces::vma::VmaFlags;
use crate::translate::x86_64::{self as x86, ACCESSED, DIRTY, Entry, NO_RECENCY, WRITE};

/// What became of a victim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evicted {
    /// Its frame is free.
    Freed,
    /// Its frame will be free when a write ends.
    Queued,
    /// It stays: swap is full, the disk's queue is full, or somebody was at it.
    Stuck,
    /// The policy has no victim.
    NoVictim,
}

/// Evicts the page that the policy of `group` chooses, unless it is `keep`.
pub(super) fn evict_one<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    keep: Option<Frame>,
    group: GroupId,
) -> Evicted {
    store.counters(at).scanned.add(1);
    let mut victim = {
        let mut order = store.order_for(group).lock();
        let policy = order.as_policy_mut();
        let mut look = Look { table: &store.frames.table, machine, now: at.now };
        let Some(frame) = policy.evict(&mut look) else { return Evicted::NoVictim };
        let Some(locked) = store.frames.table.try_lock(frame) else {
            // In use this very moment, so not the coldest.
            policy.insert(frame, PageId(u64::from(frame.0)));
            return Evicted::Stuck;
        };
        locked
    };
    victim.clear(Flags::LISTED);
    if Some(victim.frame()) == keep {
        return stuck(store, machine, victim);
    }
    evict(store, at, machine, victim)
}

/// A beat of the timer, for policies that look at the accessed bits from time to time.
pub(crate) fn beat<M: Machine>(store: &Store, at: At, machine: &M) {
    let groups = store.groups.iter().flat_map(Groups::orders);
    for order in core::iter::once(&store.order).chain(groups) {
        let mut look = Look { table: &store.frames.table, machine, now: at.now };
        order.lock().as_policy_mut().tick(&mut look);
    }
}

/// Evicts the page in `frame` if it is evictable, without asking the policy.
pub(super) fn evict_this<M: Machine>(store: &Store, at: At, machine: &M, frame: Frame) -> Evicted {
    let mut victim = store.frames.table.lock(frame);
    if !victim.state().has(Flags::LISTED) {
        return Evicted::Stuck;
    }
    store.unlist(&mut victim);
    evict(store, at, machine, victim)
}

/// Evicts the page in a locked frame that is in no order of eviction; lists it again if it must stay.
fn evict<M: Machine>(store: &Store, at: At, machine: &M, mut frame: Locked<'_>) -> Evicted {
    let state = frame.state();
    let busy = Flags::READING | Flags::WRITING | Flags::KEPT;
    if state.pins() > 0 || state.holds() > 0 || state.has_any(busy) {
        return Evicted::Stuck;
    }
    match state.kind() {
        Kind::Anon if state.has(Flags::LAZY) => evict_lazy(store, at, machine, frame),
        Kind::Anon => evict_anon(store, at, machine, frame),
        Kind::File => evict_file(store, at, machine, frame),
        kind => {
            // A policy that names such a frame lies; it is not made evictable again.
            debug_assert!(false, "the policy chose {:?}, a frame of kind {kind:?}", frame.frame());
            frame.clear(Flags::REFERENCED);
            Evicted::Stuck
        }
    }
}

/// Puts a frame back that cannot go now.
fn stuck<M: Machine>(store: &Store, machine: &M, mut frame: Locked<'_>) -> Evicted {
    let page = identity(store, machine, &frame);
    store.list(&mut frame, page);
    Evicted::Stuck
}

fn freed<M: Machine>(store: &Store, at: At, machine: &M, frame: Locked<'_>, to: Kept) -> Evicted {
    store.counters(at).evicted.add(1);
    machine.happened(Event::Evict { frame: frame.frame(), to });
    store.release(at, machine, frame);
    Evicted::Freed
}

/// A page given up by `MADV_FREE`: its contents go, unless it was written since.
fn evict_lazy<M: Machine>(store: &Store, at: At, machine: &M, mut frame: Locked<'_>) -> Evicted {
    // First no more writes, then look whether there was one: none can come between.
    for entry_at in rmap::entries(machine, &frame) {
        let old = x86::change(x86::word_at(machine, entry_at), WRITE, 0);
        let (space, page) = x86::page_of(&store.frames, entry_at);
        machine.invalidate(space, Pages::at(page, 1));
        if old.has(DIRTY) {
            frame.set(Flags::DIRTY);
        }
    }
    if frame.state().has(Flags::DIRTY) {
        frame.clear(Flags::LAZY);
        if !store.swap.exists() {
            return Evicted::Stuck;
        }
        return evict_anon(store, at, machine, frame);
    }
    unmap_everywhere(store, at, machine, &mut frame, Entry(0));
    freed(store, at, machine, frame, Kept::Nowhere)
}

fn evict_anon<M: Machine>(store: &Store, at: At, machine: &M, mut frame: Locked<'_>) -> Evicted {
    let number = frame.frame();
    let had_slot = frame.state().has(Flags::IN_SWAP);
    let clean = had_slot && !is_dirty(machine, &frame);
    if !clean && (store.is_full_of_requests() || !machine.permits(Operation::Io)) {
        return stuck(store, machine, frame);
    }
    let (slot, uses) = if had_slot {
        (swap::slot_of(&frame), 0)
    } else {
        match store.swap.reserve(number) {
            Some(slot) => (slot, 1),
            None => return stuck(store, machine, frame),
        }
    };
    // The slot is counted before an entry names it, so that it cannot be freed in between.
    for _ in uses..frame.state().mapped() {
        store.swap.duplicate(slot);
    }
    frame.set(Flags::IN_SWAP);
    frame.set_owner(u64::from(slot.0));
    unmap_everywhere(store, at, machine, &mut frame, Entry::swapped(slot));
    // A write may have come between the look and the unmapping.
    if clean && !frame.state().has(Flags::DIRTY) {
        swap::leave_cache(store, &mut frame);
        return freed(store, at, machine, frame, Kept::Swap(slot));
    }
    let queued = submit_write(store, at, machine, &mut frame, Target::Swap(slot));
    if queued == Evicted::Queued {
        store.counters(at).swapped_out.add(1);
        machine.happened(Event::Evict { frame: number, to: Kept::Swap(slot) });
        return queued;
    }
    frame.set(Flags::DIRTY);
    store.list(&mut frame, swapped_page(slot));
    Evicted::Stuck
}

fn evict_file<M: Machine>(store: &Store, at: At, machine: &M, mut frame: Locked<'_>) -> Evicted {
    let (file, index) = owner_of(frame.owner());
    let object = store.files.get(file);
    // Against the order of locks, so it only tries.
    let Some(mut object) = object.try_lock() else { return stuck(store, machine, frame) };
    let memory = object.medium == Medium::Memory;
    let dirty = (memory || is_dirty(machine, &frame)) && !object.gone;
    if dirty && (store.is_full_of_requests() || !machine.permits(Operation::Io)) {
        return stuck(store, machine, frame);
    }
    let slot = if memory && dirty {
        match store.swap.reserve_for_file() {
            Some(slot) => Some(slot),
            None => return stuck(store, machine, frame),
        }
    } else {
        None
    };
    unmap_everywhere(store, at, machine, &mut frame, Entry(0));
    if !dirty && !frame.state().has(Flags::DIRTY) || object.gone {
        page_cache::remove(store, at, machine, &mut object, index, Cached::Nothing);
        return freed(store, at, machine, frame, Kept::File(file, index));
    }
    let (target, kept) = match slot {
        Some(slot) => (Target::Swap(slot), Kept::Swap(slot)),
        None => (Target::File(file, index), Kept::File(file, index)),
    };
    let number = frame.frame();
    if submit_write(store, at, machine, &mut frame, target) == Evicted::Queued {
        let counters = store.counters(at);
        if slot.is_some() {
            counters.swapped_out.add(1);
        } else {
            counters.written.add(1);
        }
        machine.happened(Event::Evict { frame: number, to: kept });
        return Evicted::Queued;
    }
    if let Some(slot) = slot {
        store.swap.release_of_file(slot);
    }
    frame.set(Flags::DIRTY);
    stuck(store, machine, frame)
}

/// Starts to write a frame that is unmapped, to be freed when that is done.
fn submit_write<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    frame: &mut Locked<'_>,
    target: Target,
) -> Evicted {
    let number = frame.frame();
    let submitted = if frame.take(Flags::ALONE) {
        store.submit(Direction::Write, target, &[number])
    } else {
        store.add_write(target, number)
    };
    if submitted.is_none() {
        return Evicted::Stuck;
    }
    frame.clear(Flags::DIRTY | Flags::REFERENCED);
    frame.set(Flags::WRITING | Flags::LEAVING);
    store.counters(at).evicted.add(1);
    machine.happened(Event::Io { target, frame: number, pages: 1, write: true });
    Evicted::Queued
}

/// Whether the frame's contents differ from what backs them.
fn is_dirty<M: Machine>(machine: &M, frame: &Locked<'_>) -> bool {
    frame.state().has(Flags::DIRTY)
        || rmap::entries(machine, frame)
            .any(|entry_at| x86::load(x86::word_at(machine, entry_at)).has(DIRTY))
}

/// What policies are shown of frames: the bits of all entries that map one.
struct Look<'a, M> {
    table: &'a FrameTable,
    machine: &'a M,
    now: u64,
}

impl<M: Machine> Witness for Look<'_, M> {
    fn take_accessed(&mut self, frame: Frame) -> bool {
        // The policy is locked, so a frame may only be tried. One that is locked is in use.
        let Some(mut locked) = self.table.try_lock(frame) else { return true };
        let mut accessed = locked.take(Flags::REFERENCED);
        for entry_at in rmap::entries(self.machine, &locked) {
            let word = x86::word_at(self.machine, entry_at);
            // No TLB is told: a cached translation hides later uses until it is replaced, which is
            // soon; Linux takes the same chance on x86.
            let entry = x86::load(word);
            if entry.has(ACCESSED) && !entry.has(NO_RECENCY) {
                x86::change(word, ACCESSED, 0);
                locked.set(Flags::SEEN);
                accessed = true;
            }
        }
        accessed
    }

    fn now(&self) -> u64 {
        self.now
    }

    fn is_dirty(&self, frame: Frame) -> bool {
        match self.table.try_lock(frame) {
            Some(locked) => is_dirty(self.machine, &locked),
            None => true,
        }
    }
}

/// Evicts the pages of `pages` that only this space maps (`MADV_PAGEOUT`). Returns how many left or
/// are leaving.
///
/// # Errors
/// `Invalid` if an area is locked: pages below it have been evicted then; `Hole` if some pages are in no
/// area: all others have been.
pub fn page_out<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    space: &AddressSpace,
    pages: Pages,
) -> Result<u64, Refused> {
    let mut count = 0;
    for area in space.areas().iter_range(pages) {
        if area.flags.contains(VmaFlags::LOCKED) {
            return Err(Refused::Invalid);
        }
        let part = area.pages.intersect(pages);
        resident_frames(machine, space, part, |_, frame| {
            let state = store.frames.table.peek(frame);
            if state.mapped() == 1 && state.has(Flags::LISTED) {
                let evicted = evict_this(store, at, machine, frame);
                count += u64::from(matches!(evicted, Evicted::Freed | Evicted::Queued));
            }
        });
    }
    space.areas().covered(pages).map_err(Refused::Hole)?;
    Ok(count)
}
