//! The end of a request: what becomes of the frames it moved.
//!
//! | request | done | failed |
//! |---|---|---|
//! | read of a file | usable, evictable | out of the cache, and noted there ([`FailedIo`]) |
//! | read of swap | in the swap cache, evictable | out of the cache, and noted with its slot |
//! | write of a file | clean; free if it was leaving and nobody came back | dirty again |
//! | write of swap | as a file's | dirty again, and stays; to be written alone if it was not |
//!
//! A frame doomed meanwhile, because what it belonged to is gone, is freed in every case. Whoever waits
//! tries again in every case: what it finds tells it what to do.

use super::failed_io::FailedIo;
use super::file::{Medium, owner_of};
use super::index::Cached;
use super::io::{Direction, IoOutcome, Request, RequestId};
use super::page_cache;
use super::store::{Store, file_page};
use super::swap::{self, slot_of};
use crate::addr::Slot;
use crate::event::Target;
use crate::frames::table::{Flags, Kind, Locked};
use crate::machine::{At, Machine};
use crate::replace::PageId;

/// Ends a request that the world has performed. Returns it, for who waited for it.
///
/// # Panics
/// If the request is not under way.
pub fn completed<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    id: RequestId,
    outcome: IoOutcome,
) -> Request {
    let request = store.end_request(id);
    let failed = (outcome == IoOutcome::Failed).then(|| FailedIo::of(request.frames().len()));
    for (i, &frame) in request.frames().iter().enumerate() {
        // A file's frame shows what it is before its request exists. One that is read from swap may not
        // yet: who reads keeps it locked until the request has its number.
        let file = match store.frames.table.peek(frame).kind() {
            Kind::File => Some(owner_of(store.frames.table.peek_owner(frame))),
            _ => None,
        };
        match (request.direction, file) {
            (Direction::Read, None) => read_anon(store, at, machine, failed, frame),
            (Direction::Write, None) => written_anon(store, at, machine, failed, frame),
            (direction, Some((file, index))) => {
                let object = store.files.get(file);
                let mut object = object.lock();
                let locked = store.frames.table.lock(frame);
                let slot = match request.target {
                    Target::Swap(first) => Some(Slot(first.0 + i as u32)),
                    Target::File(..) => None,
                };
                let mut end = FileEnd { store, at, machine, object: &mut object, index, slot };
                match direction {
                    Direction::Read => end.read(failed, locked),
                    Direction::Write => end.written(failed, locked),
                }
            }
        }
    }
    request
}

fn read_anon<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    failed: Option<FailedIo>,
    frame: crate::addr::Frame,
) {
    let mut locked = store.frames.table.lock(frame);
    let slot = slot_of(&locked);
    if locked.take(Flags::DOOMED) && store.swap.references(slot) == 0 {
        swap::give_up(store, at, machine, locked);
        return;
    }
    if let Some(how) = failed {
        swap::give_up_failed(store, at, machine, locked, how);
        return;
    }
    locked.clear(Flags::READING);
    locked.set_rmap(0);
    // Spared once: who waits for it has yet to run.
    locked.set(Flags::REFERENCED);
    store.list(&mut locked, swapped_page(slot));
}

fn written_anon<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    failed: Option<FailedIo>,
    frame: crate::addr::Frame,
) {
    let mut locked = store.frames.table.lock(frame);
    locked.clear(Flags::WRITING);
    let slot = slot_of(&locked);
    let unmapped = locked.state().mapped() == 0 && locked.state().holds() == 0;
    if locked.take(Flags::DOOMED) && unmapped && store.swap.references(slot) == 0 {
        swap::leave_cache(store, &mut locked);
        store.release(at, machine, locked);
        return;
    }
    let leaving = locked.take(Flags::LEAVING);
    if let Some(how) = failed {
        not_written(&mut locked, how);
    } else if leaving && unmapped && !locked.state().has_any(Flags::DIRTY | Flags::REFERENCED) {
        swap::leave_cache(store, &mut locked);
        store.release(at, machine, locked);
        return;
    }
    store.list(&mut locked, swapped_page(slot));
}

/// A write has failed: what is in the frame is nowhere else. One bad place must not keep its neighbours.
fn not_written(frame: &mut Locked<'_>, how: FailedIo) {
    frame.set(Flags::DIRTY);
    if how == FailedIo::Among {
        frame.set(Flags::ALONE);
    }
}

/// The identity of a page that only its slot names.
pub(crate) fn swapped_page(slot: Slot) -> PageId {
    PageId(0b11 << 62 | u64::from(slot.0))
}

/// Frees a frame that has left the index of its file, which may be gone with it.
pub(crate) fn release_doomed<M: Machine>(store: &Store, at: At, machine: &M, frame: Locked<'_>) {
    let (file, _) = owner_of(frame.owner());
    store.release(at, machine, frame);
    store.files.let_go(file);
}

/// One page of a file at the end of a request, with its file locked.
struct FileEnd<'a, M> {
    store: &'a Store,
    at: At,
    machine: &'a M,
    object: &'a mut super::file::FileObject,
    index: u64,
    /// The slot, if the request was for swap.
    slot: Option<Slot>,
}

impl<M: Machine> FileEnd<'_, M> {
    fn read(&mut self, failed: Option<FailedIo>, mut locked: Locked<'_>) {
        let store = self.store;
        locked.clear(Flags::READING);
        locked.set_rmap(0);
        if locked.take(Flags::DOOMED) {
            // Truncated or forgotten: it is out of the index already.
            if let Some(slot) = self.slot {
                store.swap.release_of_file(slot);
            }
            release_doomed(store, self.at, self.machine, locked);
            return;
        }
        if let Some(how) = failed {
            let instead = match self.slot {
                Some(slot) => {
                    store.swap.set_failed(slot, how);
                    Cached::Swapped(slot)
                }
                None => Cached::Failed(how),
            };
            self.take_out(instead, locked);
            return;
        }
        if let Some(slot) = self.slot {
            store.swap.release_of_file(slot);
            locked.set(Flags::DIRTY);
        }
        locked.set(Flags::REFERENCED);
        let page = file_page(locked.owner());
        store.list(&mut locked, page);
    }

    fn written(&mut self, failed: Option<FailedIo>, mut locked: Locked<'_>) {
        let store = self.store;
        locked.clear(Flags::WRITING);
        let leaving = locked.take(Flags::LEAVING);
        if locked.take(Flags::DOOMED) {
            if let Some(slot) = self.slot {
                store.swap.release_of_file(slot);
            }
            if locked.state().holds() > 0 {
                // A flush is under way: it frees the frame.
                locked.set(Flags::DOOMED);
                return;
            }
            release_doomed(store, self.at, self.machine, locked);
            return;
        }
        let state = locked.state();
        let wanted = state.mapped() > 0
            || state.holds() > 0
            || state.has_any(Flags::DIRTY | Flags::REFERENCED);
        if failed.is_none() && leaving && !wanted {
            self.take_out(self.slot.map_or(Cached::Nothing, Cached::Swapped), locked);
            return;
        }
        if let Some(slot) = self.slot {
            store.swap.release_of_file(slot);
        }
        if let Some(how) = failed {
            not_written(&mut locked, how);
        }
        if self.object.medium == Medium::Memory {
            locked.set(Flags::DIRTY);
        }
        let page = file_page(locked.owner());
        store.list(&mut locked, page);
    }

    fn take_out(&mut self, instead: Cached, locked: Locked<'_>) {
        let (store, at, machine) = (self.store, self.at, self.machine);
        page_cache::remove(store, at, machine, self.object, self.index, instead);
        store.release(at, machine, locked);
    }
}
