//! A change of translations that no processor may miss.
//!
//! Entries are cleared first, then every TLB forgets them, then the frames behind them are free. In
//! any other order a processor could still write through a stale translation to a frame that is
//! already someone else's. A [`Flush`] collects the frames of many entries, so that one invalidation
//! serves them all. Pages of files outlive their mappings; they are pinned until the invalidation
//! instead, so that no eviction frees them too early.

use super::store::{Store, file_page};
use crate::addr::{Frame, Page, Pages};
use crate::frames::table::Kind;
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

    /// Frees `frame`, whose descriptor has ended, or unpins it if it is a page of a file, after the
    /// invalidation.
    #[inline]
    pub fn after<M: Machine>(&mut self, store: &Store, at: At, machine: &M, frame: Frame) {
        if self.count == BATCH {
            self.flush(store, at, machine);
        }
        self.frames[self.count] = frame;
        self.count += 1;
    }

    /// Invalidates, then frees and unpins.
    pub fn finish<M: Machine>(mut self, store: &Store, at: At, machine: &M) {
        self.flush(store, at, machine);
    }

    fn flush<M: Machine>(&mut self, store: &Store, at: At, machine: &M) {
        if let Some(pages) = self.pages.take() {
            machine.invalidate(self.space, pages);
        }
        for &frame in &self.frames[..self.count] {
            if store.frames.table.peek(frame).kind() == Kind::Free {
                store.frames.free(at, machine, frame);
                continue;
            }
            let mut locked = store.frames.table.lock(frame);
            locked.unpin();
            let page = file_page(locked.owner());
            store.list(&mut locked, page);
        }
        self.count = 0;
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        debug_assert!(self.pages.is_none() && self.count == 0, "a flush was not finished");
    }
}
