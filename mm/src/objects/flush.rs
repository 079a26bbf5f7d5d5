//! A change of translations that no processor may miss.
//!
//! Entries are cleared first, then every TLB forgets them, then the frames behind them are free. In
//! any other order a processor could still write through a stale translation to a frame that is
//! already someone else's. A [`Flush`] collects the frames of many entries, so that one invalidation
//! serves them all. A frame that others can still find, through the page cache or the swap cache, is
//! *held* until then: evictions pass over it, and who would free it leaves that to the flush.

use super::complete::release_doomed;
use super::store::{Store, identity};
use super::swap;
use crate::addr::{Frame, Page, Pages};
use crate::frames::table::{Flags, Kind, Locked};
use crate::machine::{At, Machine, SpaceId};

/// Frames that wait for one invalidation at the most.
const BATCH: usize = 64;

/// Cleared entries of one address space that TLBs may still hold, and the frames behind them.
#[must_use = "stale translations stay in TLBs until `finish`"]
pub struct Flush {
    space: SpaceId,
    pages: Option<Pages>,
    frames: [Frame; BATCH],
    count: usize,
}

impl Flush {
    /// Nothing to flush yet.
    pub const fn new(space: SpaceId) -> Flush {
        Flush { space, pages: None, frames: [Frame(0); BATCH], count: 0 }
    }

    /// The entry of `page` has changed.
    #[inline]
    pub fn page(&mut self, page: Page) {
        self.range(Pages::at(page, 1));
    }

    /// Entries of `pages` have changed, or a table above them was taken out.
    #[inline]
    pub fn range(&mut self, pages: Pages) {
        self.pages = Some(match self.pages {
            None => pages,
            Some(old) => Pages::new(old.start.min(pages.start), old.end.max(pages.end)),
        });
    }

    /// Frees `frame` after the invalidation if its descriptor has ended; else it is held, and this
    /// flush lets it go then.
    #[inline]
    pub fn after<M: Machine>(&mut self, store: &Store, at: At, machine: &M, frame: Frame) {
        if self.count == BATCH {
            self.flush(store, at, machine);
        }
        self.frames[self.count] = frame;
        self.count += 1;
    }

    /// Invalidates, then frees and lets go.
    #[inline(always)] // else the frames' room is copied into a call
    pub fn finish<M: Machine>(mut self, store: &Store, at: At, machine: &M) {
        self.flush(store, at, machine);
    }

    fn flush<M: Machine>(&mut self, store: &Store, at: At, machine: &M) {
        if let Some(pages) = self.pages.take() {
            machine.invalidate(self.space, pages);
        }
        let table = &store.frames.table;
        let mut frames = &self.frames[..self.count];
        // Ends: each turn but the last deals with a held frame, and those ended before it.
        while !frames.is_empty() {
            let is_ended = |&&frame: &&Frame| table.peek(frame).kind() == Kind::Free;
            let (ended, others) = frames.split_at(frames.iter().take_while(is_ended).count());
            store.frames.free_each(at, machine, ended);
            let Some((&held, rest)) = others.split_first() else { break };
            let mut locked = table.lock(held);
            if locked.unhold() {
                settle(store, at, machine, locked);
            }
            frames = rest;
        }
        self.count = 0;
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        debug_assert!(self.pages.is_none() && self.count == 0, "a flush was not finished");
    }
}

/// Decides what becomes of a frame that has lost mappings, now that no TLB knows them.
pub(crate) fn settle<M: Machine>(store: &Store, at: At, machine: &M, mut frame: Locked<'_>) {
    let state = frame.state();
    let under_io = state.has_any(Flags::READING | Flags::WRITING);
    if state.mapped() == 0 {
        frame.unpin_all();
        let wanted = match state.kind() {
            // A page of a file stays in the page cache, unless it was truncated meanwhile.
            Kind::File => !state.has(Flags::DOOMED),
            Kind::Anon => {
                state.has(Flags::IN_SWAP) && store.swap.references(swap::slot_of(&frame)) > 0
            }
            kind => panic!("a frame of kind {kind:?} was mapped"),
        };
        if !wanted {
            store.unlist(&mut frame);
            if under_io {
                frame.set(Flags::DOOMED);
                return;
            }
            frame.clear(Flags::DOOMED);
            if state.kind() == Kind::File {
                release_doomed(store, at, machine, frame);
                return;
            }
            swap::leave_cache(store, &mut frame);
            store.release(at, machine, frame);
            return;
        }
    }
    // The mapping that went may have been the last that pinned it.
    let page = identity(store, machine, &frame);
    store.list(&mut frame, page);
}
