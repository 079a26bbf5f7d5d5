//! All that the memory manager asks of a machine.
//!
//! Small traits. A machine is passed as a value: it is never a global and never a `cfg`, so a
//! thousand simulated machines can live in one process beside each other, and a middleware (one that
//! fails the N-th operation, one that counts) can wrap any of them.
//!
//! Knows nothing of: disks (I/O is data, see [`objects::io`](crate::objects::io)), time (a parameter), CPUs (a number).

use core::sync::atomic::AtomicU64;

use crate::addr::{Frame, Pages, TABLE_ENTRIES};
use crate::event::Event;

/// A frame lent as 512 words: a page table, a node of a page cache, links of the reverse map.
///
/// The words are atomic because processors set accessed and dirty bits in them at any time.
pub type Table = [AtomicU64; TABLE_ENTRIES];

/// Identifies an address space to TLBs and to the reverse map; reused only after the space is gone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SpaceId(pub u32);

/// What holds the contents of frames.
pub trait Memory {
    /// Borrows `frame` as 512 words.
    ///
    /// The words are those last stored through this method, or zeros after [`zero`](Self::zero).
    fn table(&self, frame: Frame) -> &Table;

    /// Fills `frame` with zeros.
    fn zero(&self, frame: Frame);

    /// Copies the contents of `from` over `to`. Never called for frames lent as tables.
    fn copy(&self, from: Frame, to: Frame);
}

/// What caches translations.
///
/// Both methods return when no processor can use a stale translation any more. A world with several
/// processors does its shootdown inside; the core hands over ranges so that one interrupt serves many
/// pages.
pub trait Tlb {
    /// Forgets the translations of `pages` of `space`.
    fn invalidate(&self, space: SpaceId, pages: Pages);

    /// Forgets every translation of `space`.
    fn invalidate_space(&self, space: SpaceId);
}

/// A whole machine, as the core sees it.
pub trait Machine: Memory + Tlb {
    /// Called after each [`Event`]; does nothing unless somebody listens.
    #[inline(always)]
    fn happened(&self, _event: Event) {}

    /// Whether `operation` may succeed. Asked before each allocation of a frame and each I/O request,
    /// so that a middleware can let the N-th one fail; a refusal is treated as "none left".
    #[inline(always)]
    fn permits(&self, _operation: Operation) -> bool {
        true
    }
}

/// What can fail on a machine without any program being at fault.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operation {
    /// Taking a frame from its zone.
    AllocFrame,
    /// Handing a request to a disk.
    Io,
}

/// What a processor wants to do at an address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// A data read.
    Read,
    /// A data write.
    Write,
    /// An instruction fetch.
    Execute,
}

/// Which processor asks, and when: everything a decision may depend on besides its arguments.
#[derive(Clone, Copy, Debug, Default)]
pub struct At {
    /// Virtual time in nanoseconds.
    pub now: crate::addr::Nanos,
    /// The processor, numbered from 0; picks per-CPU lists and counters.
    pub cpu: u32,
}
