//! FIFO at one size of memory, without a queue.
//!
//! FIFO evicts pages in the order in which they were loaded. So what is in memory is what the latest
//! loads brought in, and it is enough to keep the number of the load that brought each page in last,
//! and the number of the oldest load that is still in memory:
//!
//! ```text
//!     loads       1  2  3  4  5  6  7        in 3 frames, 5 is the oldest in memory
//!     of page     a  b  c  d  a  e  f        a reference to a finds 5: it is there;
//!                          └─ gone ┘         one to d finds 4: it is a fault, and load 8
//! ```
//!
//! Nobody has to find the victim or to tell its page; a fault only raises two numbers. Hit and fault
//! are the same instructions with other values, so there is no branch to foresee, and the cache
//! misses of many references are under way at once.
//!
//! *Freed* pages leave a frame free: the next load takes it and lets the oldest be. Their loads are
//! kept in a heap until they would be the oldest, and are passed over then.
//!
//! *Writes*: who comes back or is left at the end and is dirty has been written when it was evicted.
//!
//! 4 bytes a page, and 1 more if the string has writes. Several sizes in one pass, their numbers side
//! by side, take longer than as many passes: a table of one size fits in a cache of a few megabytes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;

use super::{BLOCK, Counts, RefString, WRITE};

/// No load.
const NONE: u32 = u32::MAX;

/// The faults of FIFO in a memory of `frames` frames.
///
/// # Panics
/// If `frames` is 0, or the string has 2^32 - 1 references or more.
pub fn fifo(string: &RefString, frames: u32) -> Counts {
    assert!(frames > 0, "a memory of 0 frames");
    assert!(u32::try_from(string.len()).is_ok_and(|len| len < NONE), "loads are 32 bits");
    let memory = Memory {
        loads: vec![0; string.pages() as usize],
        dirty: vec![0; if string.has_writes() { string.pages() as usize } else { 0 }],
        latest: 0,
        oldest: 1,
        free: frames,
        freed: BinaryHeap::new(),
        passed: NONE,
        writebacks: 0,
    };
    if string.has_writes() { memory.run::<true>(string) } else { memory.run::<false>(string) }
}

struct Memory {
    loads: Vec<u32>, // by page: the number of its last load, from 1
    dirty: Vec<u8>,  // by page: 1 if it was written since
    latest: u32,
    oldest: u32, // of the loads whose pages are in memory; more than the latest if none is
    free: u32,   // frames
    /// Loads from the oldest on whose pages were freed.
    freed: BinaryHeap<Reverse<u32>>,
    passed: u32, // the first of those
    writebacks: u64,
}

impl Memory {
    fn run<const WRITES: bool>(mut self, string: &RefString) -> Counts {
        let (entries, total) = (string.entries(), string.len());
        let mut frees = string.frees().iter().peekable();
        let mut at = 0;
        while at < total {
            while let Some(free) = frees.next_if(|free| free.at <= at as u64) {
                self.free_page(free.page);
            }
            let end = frees.peek().map_or(total, |free| total.min(free.at as usize));
            for block in entries[at..end].chunks(BLOCK) {
                if self.free > 0 {
                    self.block::<WRITES, true>(block);
                } else {
                    self.block::<WRITES, false>(block);
                }
            }
            at = end;
        }
        frees.for_each(|free| self.free_page(free.page));
        let left = self.loads.iter().zip(&self.dirty);
        let gone = left.filter(|&(&load, &dirty)| dirty == 1 && load < self.oldest).count() as u64;
        Counts {
            faults: self.latest.into(),
            cold: string.pages().into(),
            writebacks: self.writebacks + gone,
        }
    }

    /// At most [`BLOCK`] references. If not `FILLS`, no frame is free.
    fn block<const WRITES: bool, const FILLS: bool>(&mut self, entries: &[u32]) {
        let seen = entries.iter().fold(0, |seen, &entry| seen ^ self.loads[page_of(entry)]);
        black_box(seen);
        // Numbers that stay in registers.
        let (mut latest, mut oldest, mut passed) = (self.latest, self.oldest, self.passed);
        for &entry in entries {
            let load = &mut self.loads[page_of(entry)];
            let fault = *load < oldest;
            latest += u32::from(fault);
            *load = if fault { latest } else { *load };
            if WRITES {
                // Numbers again, of which a compiler makes no branches.
                let dirty = &mut self.dirty[page_of(entry)];
                let gone = *dirty & u8::from(fault);
                self.writebacks += u64::from(gone);
                *dirty = (*dirty ^ gone) | (entry >> 31) as u8;
            }
            let fills = FILLS && fault && self.free > 0;
            self.free -= u32::from(fills);
            oldest += u32::from(fault && !fills);
            if oldest == passed {
                (oldest, passed) = self.pass();
            }
        }
        (self.latest, self.oldest, self.passed) = (latest, oldest, passed);
    }

    /// Passes over the loads whose pages were freed: the oldest behind them, and the next to be passed.
    #[cold]
    fn pass(&mut self) -> (u32, u32) {
        let Reverse(mut oldest) = self.freed.pop().expect("a load to be passed");
        // Ends: the heap gets empty.
        loop {
            oldest += 1;
            match self.freed.peek() {
                Some(&Reverse(load)) if load == oldest => self.freed.pop(),
                next => return (oldest, next.map_or(NONE, |load| load.0)),
            };
        }
    }

    /// The page is gone for good; so is its frame's dirt.
    fn free_page(&mut self, page: u32) {
        let load = self.loads[page as usize];
        if load >= self.oldest {
            self.freed.push(Reverse(load));
            self.passed = self.passed.min(load);
            self.free += 1;
            self.loads[page as usize] = 0;
            if let Some(dirty) = self.dirty.get_mut(page as usize) {
                *dirty = 0;
            }
        }
    }
}

/// The page of an entry, as an index.
const fn page_of(entry: u32) -> usize {
    (entry & !WRITE) as usize
}

const _: () = assert!(WRITE >> 31 == 1);
