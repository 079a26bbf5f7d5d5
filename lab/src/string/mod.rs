//! Reference strings: a trace as policies see it, in arrays.
//!
//! A replay of the full system answers everything and costs tens of nanoseconds an event. Most
//! questions about *replacement* need only the order in which pages are used. [`flatten`](flatten())
//! resolves a trace once, on a machine with more memory than it can use, to a [`RefString`]: each page
//! that ever held contents of its own has a dense number, whichever processes and addresses it was
//! mapped at. Policies then run over arrays: no hashing, no pointers, no page tables.
//!
//! ```text
//!     trace ──▶ full system, memory unlimited ──▶ RefString ──┬─▶ simulate   any policy, one size
//!               which frame does this access use?             ├─▶ distances  LRU, every size
//!                                                             ├─▶ intervals  OPT, one size
//!                                                             └─▶ loads      FIFO, one size
//! ```
//!
//! What is lost: page tables and kernel memory take none of the frames, reclaim works page by page and
//! at once, nothing is read ahead. A fault of the string is a page that must be brought in; the first
//! use of a page is one, too (*cold*), though a kernel may serve it without I/O.

mod bits;
pub mod distances;
mod flatten;
pub mod intervals;
pub mod loads;
mod sample;
pub mod simulate;
pub mod sizing;
mod times;

pub(crate) use flatten::Tape;
pub use flatten::{Flat, flatten};
pub use sample::{PARTS, Sample};

use vellum_trace::event::ProcessId;

/// A page of a [`RefString`]: dense, from 0 in order of first use.
pub type PageNumber = u32;

/// The bit of an entry that says that the reference writes.
pub(crate) const WRITE: u32 = 1 << 31;
/// The most pages that a string can have.
pub const PAGES_MAX: u32 = 1 << 30;
/// How many references the loops take together. Before a block, a short loop looks at what its pages
/// have in the tables, and throws the values away: so many cache misses are under way at once that
/// each costs little, and the loop that needs them finds them in the nearest cache.
pub(crate) const BLOCK: usize = 64;

/// A page whose contents were dropped: its frame is free for another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Free {
    /// Number of references before it.
    pub at: u64,
    /// The page, which is never used again.
    pub page: PageNumber,
}

/// From some reference on, another process runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Switch {
    /// Number of references before it.
    pub at: u64,
    /// The process that makes the following ones.
    pub process: ProcessId,
}

/// What a page holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Holds {
    /// Memory of a process (or shared memory), which goes to swap.
    Anonymous,
    /// A page of a file.
    File,
}

/// A sequence of references to pages, with the pages that are freed in between.
#[derive(Clone, Default, Debug)]
pub struct RefString {
    entries: Vec<u32>, // page | WRITE
    pages: u32,
    writes: u64,
    frees: Vec<Free>,
    switches: Vec<Switch>,
    holds: Vec<Holds>, // by page; empty if all are anonymous
    weight: u64,
}

impl RefString {
    /// An empty string.
    pub fn new() -> RefString {
        RefString::default()
    }

    /// The string of these reads, whose pages may have any numbers.
    pub fn of_reads(pages: impl IntoIterator<Item = u64>) -> RefString {
        let mut dense = std::collections::HashMap::new();
        let mut string = RefString::new();
        for page in pages {
            let next = dense.len() as PageNumber;
            string.push(*dense.entry(page).or_insert(next), false);
        }
        string
    }

    /// Adds a reference.
    ///
    /// # Panics
    /// If `page` is neither used before nor the next new one, or there are too many pages.
    #[inline]
    pub fn push(&mut self, page: PageNumber, write: bool) {
        assert!(page <= self.pages, "page {page} before page {}", self.pages);
        if page == self.pages {
            assert!(page < PAGES_MAX, "more than {PAGES_MAX} pages");
            self.pages += 1;
        }
        self.entries.push(page | if write { WRITE } else { 0 });
        self.writes += u64::from(write);
        self.weight += 1;
    }

    /// Says that `page` is free from here on.
    pub fn push_free(&mut self, page: PageNumber) {
        self.frees.push(Free { at: self.len() as u64, page });
    }

    /// Says that `process` makes the references from here on.
    pub fn push_switch(&mut self, process: ProcessId) {
        if self.switches.last().is_none_or(|last| last.process != process) {
            self.switches.push(Switch { at: self.len() as u64, process });
        }
    }

    /// Says how many references the program made, those to pages that every memory holds included.
    pub fn set_references(&mut self, references: u64) {
        self.weight = references;
    }

    /// Says what a page holds; anonymous memory unless said.
    pub fn set_holds(&mut self, page: PageNumber, holds: Holds) {
        if self.holds.len() <= page as usize {
            self.holds.resize(page as usize + 1, Holds::Anonymous);
        }
        self.holds[page as usize] = holds;
    }

    /// Number of references in the string.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// References that the program made: the recorder's filter leaves most out of the string, all of
    /// them to pages that any memory of the least valid size holds.
    pub fn references(&self) -> u64 {
        self.weight
    }

    /// Number of distinct pages: as many faults take place however much memory there is.
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// Whether any reference writes.
    pub fn has_writes(&self) -> bool {
        self.writes > 0
    }

    /// The references: page, and whether it is written.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (PageNumber, bool)> + ExactSizeIterator {
        self.entries.iter().map(|&entry| (entry & !WRITE, entry & WRITE != 0))
    }

    /// The references: page | [`WRITE`].
    pub(crate) fn entries(&self) -> &[u32] {
        &self.entries
    }

    /// Pages that were freed, in order.
    pub fn frees(&self) -> &[Free] {
        &self.frees
    }

    /// Who runs from when on, in order; empty if that is not known.
    pub fn switches(&self) -> &[Switch] {
        &self.switches
    }

    /// What a page holds.
    pub fn holds(&self, page: PageNumber) -> Holds {
        self.holds.get(page as usize).copied().unwrap_or(Holds::Anonymous)
    }

    /// Bytes of host memory that it takes.
    pub fn host_bytes(&self) -> usize {
        size_of_val(&*self.entries)
            + size_of_val(&*self.frees)
            + size_of_val(&*self.switches)
            + size_of_val(&*self.holds)
    }

    /// Calls `each` with every reference and every freed page in order.
    pub(crate) fn for_each(&self, mut each: impl FnMut(Item)) {
        let mut frees = self.frees.iter().peekable();
        for (at, &entry) in self.entries.iter().enumerate() {
            while let Some(free) = frees.next_if(|free| free.at <= at as u64) {
                each(Item::Free(free.page));
            }
            each(Item::Reference(entry & !WRITE, entry & WRITE != 0));
        }
        frees.for_each(|free| each(Item::Free(free.page)));
    }
}

/// One thing in a string.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Item {
    /// A reference to a page, and whether it writes.
    Reference(PageNumber, bool),
    /// A page is freed.
    Free(PageNumber),
}

/// What a policy's run over a string counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Pages brought in, the first time included.
    pub faults: u64,
    /// Pages brought in for the first time.
    pub cold: u64,
    /// Pages that were evicted dirty, or cleaned in advance.
    pub writebacks: u64,
}
