//! Reading pages of files into the page cache: which at once, into which frames, and by what request.
//!
//! ```text
//!     window:      ░░░░░░██▓▓▓N▓▓▓▓▓██░░░   N is needed, ░ lies beyond what is missing around it
//!     the request:         └────────┘       ▓ is missing; █ is cached, or is to be read alone
//! ```
//!
//! The needed page gets its frame first, its neighbours only while memory is plentiful: nobody waits
//! for them. All frames are in the index, marked READING, before the request exists, so that whoever
//! looks for one of these pages finds what to wait for.
//!
//! Knows nothing of: how large a window is (see [`readahead`](super::readahead)), who asks.

use core::ops::Range;

use super::failed_io::FailedIo;
use super::file::{FileObject, Medium};
use super::index::Cached;
use super::io::{Direction, IO_PAGES_MAX};
use super::page_cache::{Find, remove, take_frame};
use super::store::Store;
use crate::addr::{FileRef, Frame, Slot};
use crate::event::{Event, Target};
use crate::frames::NoMemory;
use crate::frames::table::Flags;
use crate::frames::zone::Level;
use crate::machine::{At, Machine, Operation};

/// Starts to read what is missing of `pages`, as far as memory and the queue allow; waits for nothing.
pub fn prefetch<M: Machine>(store: &Store, at: At, machine: &M, file: FileRef, pages: Range<u64>) {
    let object = store.files.get(file);
    let mut object = object.lock();
    if object.medium == Medium::Memory {
        return;
    }
    let end = pages.end.min(object.pages());
    let mut next = pages.start;
    // Ends: each turn asks for one window more, up to the end or to the first refusal.
    while next < end {
        let window = next..end.min(next + IO_PAGES_MAX as u64);
        next = window.end;
        match read(store, at, machine, file, &mut object, &window, None) {
            Find::Wait { own: true, .. } | Find::Beyond | Find::Ready(_) => {}
            // No memory, no room in the queue, or no disk: the rest would meet the same.
            Find::Wait { .. } | Find::NoMemory | Find::Failed => return,
        }
    }
}

/// Reads the pages of `window` that are on disk, those next to `needed` if one is; else from the first
/// that is missing.
pub(super) fn read<'a, M: Machine>(
    store: &'a Store,
    at: At,
    machine: &M,
    file: FileRef,
    object: &mut FileObject,
    window: &Range<u64>,
    needed: Option<u64>,
) -> Find<'a> {
    let missing = |object: &FileObject, index| {
        object.index.get(machine, index) == Cached::Nothing && !object.is_warm(index)
    };
    let Some(first) = needed.or_else(|| window.clone().find(|&i| missing(object, i))) else {
        return Find::Beyond;
    };
    // Ends: a turn without an answer means that other processors have ended requests meanwhile.
    loop {
        if store.is_full_of_requests() {
            match wait_for_room(store) {
                Some(wait) => return wait,
                None => continue,
            }
        }
        if !machine.permits(Operation::Io) {
            return Find::Failed;
        }
        // Downwards first, as far as pages are missing, then upwards: one run around the needed page.
        let mut start = first;
        while start > window.start && missing(object, start - 1) {
            start -= 1;
        }
        let mut end = first + 1;
        while end < window.end && missing(object, end) {
            end += 1;
        }
        if end - start > IO_PAGES_MAX as u64 {
            start = first;
            end = end.min(start + IO_PAGES_MAX as u64);
        }
        let was = object.index.get(machine, first);
        let reserved = reserve_run(store, at, machine, file, object, first, start..end);
        let Ok(run) = reserved else { return Find::NoMemory };
        if let Some(found) = submit_read(store, at, machine, file, object, run, was) {
            return found;
        }
    }
}

/// Takes frames for the pages of `run`, for `first` before all. Returns those that memory sufficed for.
fn reserve_run<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    file: FileRef,
    object: &mut FileObject,
    first: u64,
    mut run: Range<u64>,
) -> Result<Range<u64>, NoMemory> {
    let mut take = |index| -> Result<(), NoMemory> {
        let mut locked = take_frame(store, at, machine, file, object, index)?;
        locked.set(Flags::READING);
        Ok(())
    };
    take(first)?;
    let plenty = || store.frames.zone().level() == Level::Plenty;
    for index in first + 1..run.end {
        if !plenty() || take(index).is_err() {
            run.end = index;
            break;
        }
    }
    for index in (run.start..first).rev() {
        if !plenty() || take(index).is_err() {
            run.start = index + 1;
            break;
        }
    }
    Ok(run)
}

/// Starts to read the pages of `run`, for which there are frames and of which `was` was known before;
/// `None` if there was no room in the queue, and now there is.
fn submit_read<'a, M: Machine>(
    store: &'a Store,
    at: At,
    machine: &M,
    file: FileRef,
    object: &mut FileObject,
    run: Range<u64>,
    was: Cached,
) -> Option<Find<'a>> {
    let mut frames = [Frame(0); IO_PAGES_MAX];
    let count = (run.end - run.start) as usize;
    for (place, index) in frames.iter_mut().zip(run.clone()) {
        let Cached::Frame(frame) = object.index.get(machine, index) else {
            unreachable!("the run was reserved under the same lock")
        };
        *place = frame;
    }
    let target = Target::File(file, run.start);
    let submitted = store.submit(Direction::Read, target, &frames[..count]);
    let Some(request) = submitted else {
        // Other processors took the last room: as if nothing had been begun.
        for (index, frame) in run.zip(frames) {
            remove(store, at, machine, object, index, was);
            let mut locked = store.frames.table.lock(frame);
            locked.clear(Flags::READING);
            store.release(at, machine, locked);
        }
        return wait_for_room(store);
    };
    for &frame in &frames[..count] {
        store.frames.table.lock(frame).set_rmap(u64::from(request.0));
    }
    store.counters(at).file_read.add(count as u64);
    machine.happened(Event::Io { target, frame: frames[0], pages: count as u32, write: false });
    Some(Find::Wait { request, own: true })
}

/// All requests are under way: any of them makes room when it ends. `None` if all have ended since that
/// was found, so that there is room.
pub(crate) fn wait_for_room(store: &Store) -> Option<Find<'_>> {
    let some = store.requests.lock().some();
    some.map(|request| Find::Wait { request, own: false })
}

/// Brings a page of shared memory back from its slot.
pub(super) fn read_swapped<'a, M: Machine>(
    store: &'a Store,
    at: At,
    machine: &M,
    file: FileRef,
    object: &mut FileObject,
    index: u64,
    slot: Slot,
) -> Find<'a> {
    if store.swap.take_failed(slot) == Some(FailedIo::Alone) {
        return Find::Failed;
    }
    // Ends: a turn without an answer means that other processors have ended requests meanwhile.
    loop {
        if !machine.permits(Operation::Io) {
            return Find::Failed;
        }
        let Ok(mut locked) = take_frame(store, at, machine, file, object, index) else {
            return Find::NoMemory;
        };
        let frame = locked.frame();
        locked.set(Flags::READING);
        // The end of the request looks at what kind of frame it was for: that must be known by then.
        drop(locked);
        let target = Target::Swap(slot);
        let submitted = store.submit(Direction::Read, target, &[frame]);
        let mut locked = store.frames.table.lock(frame);
        if let Some(request) = submitted {
            locked.set_rmap(u64::from(request.0));
            store.counters(at).swapped_in.add(1);
            machine.happened(Event::Io { target, frame, pages: 1, write: false });
            return Find::Wait { request, own: true };
        }
        remove(store, at, machine, object, index, Cached::Swapped(slot));
        locked.clear(Flags::READING);
        store.release(at, machine, locked);
        if let Some(wait) = wait_for_room(store) {
            return wait;
        }
    }
}
