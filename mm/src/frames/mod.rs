//! Physical memory: who owns a frame, who maps it, and which are free.
//!
//! [`Frames`] joins the parts: the [`table`] says what each frame is, the [`zone`] knows which are
//! free and when that is too few, [`rmap`] finds the entries that map a frame. Allocating here never
//! reclaims: it gives a frame or refuses at once, so it may be called with locks held.

pub mod buddy;
pub mod census;
mod nodes;
pub mod percpu;
pub mod rmap;
pub mod table;
pub mod zone;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::ops::Range;

use self::buddy::Buddy;
use self::nodes::Nodes;
pub use self::nodes::{NODES_PER_FRAME, Partial};
use self::table::{FrameTable, Kind};
use self::zone::{Reserve, Watermarks, Zone};
use crate::addr::{Frame, TABLE_ENTRIES};
use crate::event::{Counters, Counts, Event};
use crate::machine::{At, Machine, Operation};

/// No frame is free for this purpose now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMemory;

/// All physical memory of a machine.
pub struct Frames {
    /// What each frame is.
    pub table: FrameTable,
    zone: Zone,
    nodes: Nodes,
    counters: Box<[Counters]>,
}

impl Frames {
    /// The frames of `memory`, which are all free, and per-CPU lists for `cpus` processors. Numbers
    /// below the last that are in no range are holes.
    ///
    /// # Panics
    /// If ranges overlap, or the watermarks do not [fit](Watermarks::fit).
    pub fn new(memory: &[Range<Frame>], cpus: u32, watermarks: Watermarks) -> Frames {
        let count = memory.iter().map(|range| range.end.index()).max().unwrap_or(0);
        let first = memory.iter().map(|range| range.start).min().unwrap_or_default();
        let mut buddy = Buddy::new(first, count - first.index());
        // Memory is filled in this order. Short ranges come last: long runs begin in the others, and
        // what lies low may be all that some devices reach.
        let mut ranges: Vec<_> = memory.to_vec();
        ranges.sort_by_key(|range| Reverse(range.end.0 - range.start.0));
        for range in ranges {
            buddy.add(range);
        }
        Frames {
            table: FrameTable::new(count),
            zone: Zone::new(buddy, cpus, watermarks),
            nodes: Nodes::new(),
            counters: (0..cpus).map(|_| Counters::default()).collect(),
        }
    }

    /// The zone, for its numbers.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The counters of the processor that asks.
    #[inline]
    pub fn counters(&self, at: At) -> &Counters {
        &self.counters[at.cpu as usize]
    }

    /// The sum of all processors' counters.
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for counters in &self.counters {
            counters.add_to(&mut sum);
        }
        sum
    }

    /// Checks the frames that hold links of the reverse map and have room, and counts them; for
    /// tests.
    ///
    /// # Panics
    /// If their ring is broken or a count is wrong.
    pub fn check_links<M: Machine>(&self, machine: &M) -> Partial {
        self.nodes.check_invariants(&self.table, machine)
    }

    /// Takes a free frame; its descriptor is still that of a free one.
    ///
    /// # Errors
    /// If none is left above what `reserve` keeps back.
    #[inline(always)] // every fault comes here
    pub fn alloc<M: Machine>(
        &self,
        at: At,
        machine: &M,
        reserve: Reserve,
    ) -> Result<Frame, NoMemory> {
        if !machine.permits(Operation::AllocFrame) {
            return Err(NoMemory);
        }
        let frame = self.zone.alloc(at.cpu, reserve).ok_or(NoMemory)?;
        self.counters(at).allocated.add(1);
        Ok(frame)
    }

    /// Takes a frame for words of the core: zeroed, of kind `Words`. It may dip into the reserve, since
    /// the memory that it serves is about to be accounted or freed.
    pub fn alloc_words<M: Machine>(&self, at: At, machine: &M) -> Result<Frame, NoMemory> {
        let frame = self.alloc(at, machine, Reserve::Dip)?;
        self.table.lock(frame).begin(Kind::Words);
        machine.zero(frame);
        debug_assert!(machine.table(frame).len() == TABLE_ENTRIES);
        Ok(frame)
    }

    /// Gives back a frame whose descriptor has [ended](table::Locked::end).
    #[inline]
    pub fn free<M: Machine>(&self, at: At, machine: &M, frame: Frame) {
        self.free_each(at, machine, &[frame]);
    }

    /// Gives back frames whose descriptors have ended, in this order.
    #[inline]
    pub fn free_each<M: Machine>(&self, at: At, machine: &M, frames: &[Frame]) {
        debug_assert!(frames.iter().all(|&frame| self.table.peek(frame).kind() == Kind::Free));
        self.zone.free_each(at.cpu, frames);
        self.counters(at).freed.add(frames.len() as u64);
        for &frame in frames {
            machine.happened(Event::Free { frame });
        }
    }
}
