//! What happened: the log from which scenarios, counters and teaching output are made.
//!
//! The core reports each event to [`Machine::happened`](crate::machine::Machine::happened) and counts
//! it in the [`Counters`] of the processor that it happened on. An event names frames, pages and
//! slots, never contents.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::addr::{FileRef, Frame, Page, Slot};
use crate::machine::SpaceId;

/// One thing that the memory manager did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A read of untouched anonymous memory mapped the shared zero frame.
    ZeroPage {
        /// Where.
        space: SpaceId,
        /// Which page.
        page: Page,
    },
    /// A write to untouched anonymous memory got a zeroed frame.
    ZeroFill {
        /// Where.
        space: SpaceId,
        /// Which page.
        page: Page,
        /// The frame.
        frame: Frame,
    },
    /// A page of a file was mapped from the page cache, with `around` neighbours.
    FileMap {
        /// Where.
        space: SpaceId,
        /// Which page.
        page: Page,
        /// The frame.
        frame: Frame,
        /// Pages mapped besides.
        around: u32,
        /// Whether the fault had to read the page from its disk first.
        read: bool,
    },
    /// A page came back from a swap slot, from the disk (`read`) or from the swap cache.
    SwapIn {
        /// Where.
        space: SpaceId,
        /// Which page.
        page: Page,
        /// The slot.
        slot: Slot,
        /// The frame.
        frame: Frame,
        /// Whether the fault had to read it.
        read: bool,
    },
    /// A write to a shared frame copied it.
    Copy {
        /// Where.
        space: SpaceId,
        /// Which page.
        page: Page,
        /// The frame that stays with the others.
        from: Frame,
        /// The writer's own.
        to: Frame,
        /// Whether the fault had to read the original from a disk.
        read: bool,
    },
    /// A write to a frame that nobody else maps any more kept it.
    Reuse {
        /// Where.
        space: SpaceId,
        /// Which page.
        page: Page,
        /// The frame.
        frame: Frame,
    },
    /// The first write to a clean page of a shared file.
    MakeDirty {
        /// Where.
        space: SpaceId,
        /// Which page.
        page: Page,
        /// The frame.
        frame: Frame,
    },
    /// A fault that found the entry already right.
    Spurious {
        /// Where.
        space: SpaceId,
        /// Which page.
        page: Page,
    },
    /// An access that breaks the promise of its area, or falls in none.
    Violation {
        /// Where.
        space: SpaceId,
        /// Which page.
        page: Page,
    },
    /// A stack grew down to include `page`.
    StackGrown {
        /// Where.
        space: SpaceId,
        /// Which page.
        page: Page,
    },
    /// A frame was taken from its page, which a later fault must bring back.
    Evict {
        /// The frame.
        frame: Frame,
        /// Where its contents are kept now.
        to: Kept,
    },
    /// A request for a disk was made.
    Io {
        /// What is read or written.
        target: Target,
        /// The first frame.
        frame: Frame,
        /// Number of pages.
        pages: u32,
        /// Whether memory is written to the disk.
        write: bool,
    },
    /// A frame was given back to its zone.
    Free {
        /// The frame.
        frame: Frame,
    },
}

/// Where the contents of an evicted page are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kept {
    /// In a swap slot.
    Swap(Slot),
    /// In the file it came from.
    File(FileRef, u64),
    /// Nowhere: the program had said that it no longer needs them (`MADV_FREE`).
    Nowhere,
}

/// What a disk request reads or writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Consecutive swap slots from this one.
    Swap(Slot),
    /// Consecutive pages of a file from this one.
    File(FileRef, u64),
}

impl Target {
    /// The place so many pages further on.
    #[must_use]
    pub fn up(self, pages: u64) -> Target {
        match self {
            Target::Swap(first) => Target::Swap(Slot(first.0 + pages as u32)),
            Target::File(file, first) => Target::File(file, first + pages),
        }
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counts of what happened on one processor, or their sum.
        ///
        /// Only its own processor writes a `Counters`, so counting is a plain load and store.
        #[derive(Default, Debug)]
        #[repr(align(64))] // neighbours would otherwise share a cache line
        pub struct Counters { $($(#[$doc])* pub $name: Count,)* }

        /// The counts at one moment.
        #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
        pub struct Counts { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            /// Adds these counts to `sum`.
            pub fn add_to(&self, sum: &mut Counts) {
                $(sum.$name += self.$name.get();)*
            }
        }
    };
}

counters! {
    /// Reads that mapped the zero frame.
    zero_page,
    /// Writes that got a zeroed frame.
    zero_fill,
    /// File pages mapped from the page cache without I/O.
    file_map,
    /// File pages that had to be read: major faults.
    file_fill,
    /// Pages that had to be read from swap: major faults.
    swap_in,
    /// Pages found in the swap cache, without I/O: minor faults.
    swap_cached,
    /// Writes that copied a shared frame.
    copy_on_write,
    /// Writes that kept a frame no longer shared.
    reuse,
    /// First writes to clean shared file pages.
    make_dirty,
    /// Faults that needed nothing.
    spurious,
    /// Accesses refused.
    violation,
    /// All faults that needed a read of their own.
    major,
    /// All other faults that were satisfied.
    minor,
    /// Frames that a policy proposed.
    scanned,
    /// Pages evicted.
    evicted,
    /// Pages written to files.
    written,
    /// Pages read from files.
    file_read,
    /// Pages read from swap, read-ahead included.
    swapped_in,
    /// Pages written to swap.
    swapped_out,
    /// Neighbours mapped by fault-around.
    around,
    /// Allocations that had to reclaim themselves.
    direct_reclaims,
    /// Frames taken from their zone.
    allocated,
    /// Frames given back.
    freed,
}

/// One counter of a [`Counters`].
#[derive(Default, Debug)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`. Not an atomic addition: one processor writes.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed) + n, Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
