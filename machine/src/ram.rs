//! RAM of any size, of which the host holds only the page tables.
//!
//! A simulated terabyte must not need a real one. What a program keeps in its frames never decides
//! anything, so it is not kept at all; but the memory manager stores its page tables, page-cache
//! nodes and reverse-map links in frames, and processors read them there. Those frames, the ones
//! lent by [`Memory::table`], are real memory: a *slot* each in an arena that grows by chunks.
//!
//! ```text
//!   frame ──> index (4 bytes a frame,      ──> chunk 0 │ 512 slots of 4 KiB
//!             zero pages until touched)        chunk 1 │ 512
//!                                              chunk 2 │ 512 …    a chunk is made when needed
//! ```
//!
//! A frame gives its slot back when it becomes data: by [`Memory::zero`], as the target of
//! [`Memory::copy`], by [`Ram::fill`] (a disk wrote it) or by [`Ram::retire`]. Nothing is lost by
//! that in `zero`: a frame that is a table again afterwards gets a slot of zeros. So the arena
//! holds the live tables, and the freed ones that have not become data since. An allocator that
//! hands out recently freed frames first keeps the latter few; a world that retires the frames it
//! sees freed has none of them, and the arena then never exceeds the largest number of tables live
//! at once.
//!
//! Invariant: a slot belongs to at most one frame. Otherwise two page tables would share their
//! words.
//!
//! Knows nothing of: what the words mean, which frames are allocated.

use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use thiserror::Error;
use vellum_mm::addr::Frame;
use vellum_mm::machine::{Memory, Table};

/// Slots of a chunk: 2 MiB. All are of one length, so that a table is found without a search.
const CHUNK_SLOTS: usize = 512;

type Chunk = [Table; CHUNK_SLOTS];

/// Why a machine cannot have that much RAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum RamError {
    /// No frames were asked for.
    #[error("a machine needs at least one frame of memory")]
    Empty,
    /// The host refuses even the index: 4 bytes a frame of address space, 8 more with contents.
    #[error("the host has no room for the index of {0} frames")]
    Host(u32),
}

/// Simulated RAM. All methods may be called from several threads.
pub struct Ram {
    index: Box<[AtomicU32]>, // by frame: the slot + 1, or 0 if the frame is not lent as a table
    chunks: Box<[OnceLock<Box<Chunk>>]>, // room for as many slots as frames
    slots: Mutex<Slots>,
    stamps: Option<Box<[AtomicU64]>>, // by frame, if contents are kept
}

/// Which slots of the arena are in use.
#[derive(Default)]
struct Slots {
    free: Vec<u32>,
    /// Slots ever used; those from here on are still zero.
    fresh: u32,
}

impl Ram {
    /// RAM of `frames` frames, all zero. Contents other than those of tables are not kept.
    pub fn new(frames: u32) -> Result<Ram, RamError> {
        if frames == 0 {
            return Err(RamError::Empty);
        }
        // Zeroed by the host on first touch, so that untouched frames cost nothing.
        let index =
            bytemuck::try_zeroed_slice_box(frames as usize).map_err(|()| RamError::Host(frames))?;
        let chunks = (0..(frames as usize).div_ceil(CHUNK_SLOTS)).map(|_| OnceLock::new());
        let chunks = chunks.collect();
        Ok(Ram { index, chunks, slots: Mutex::default(), stamps: None })
    }

    /// RAM that also keeps a stamp of 64 bits for each frame in place of its 4096 bytes.
    ///
    /// Tests give every page a stamp of its own and find it again after copy-on-write, swap and
    /// file I/O, or have found a bug.
    pub fn with_contents(frames: u32) -> Result<Ram, RamError> {
        let mut ram = Ram::new(frames)?;
        let stamps = bytemuck::try_zeroed_slice_box(frames as usize);
        ram.stamps = Some(stamps.map_err(|()| RamError::Host(frames))?);
        Ok(ram)
    }

    /// Number of frames.
    pub fn frames(&self) -> u32 {
        self.index.len() as u32
    }

    /// Number of frames that are real memory of the host now: those lent as tables.
    pub fn tables(&self) -> u32 {
        let slots = self.slots();
        slots.fresh - slots.free.len() as u32
    }

    /// The most that [`tables`](Self::tables) has ever been: the arena holds 4 KiB for each.
    pub fn tables_max(&self) -> u32 {
        self.slots().fresh
    }

    /// The stamp that stands for the contents of `frame`; 0 if zeroed, or if contents are not kept.
    pub fn stamp(&self, frame: Frame) -> u64 {
        self.stamps.as_ref().map_or(0, |stamps| stamps[frame.index()].load(Relaxed))
    }

    /// Changes the stamp of `frame`, as a program's store changes its contents.
    pub fn set_stamp(&self, frame: Frame, stamp: u64) {
        if let Some(stamps) = &self.stamps {
            stamps[frame.index()].store(stamp, Relaxed);
        }
    }

    /// Replaces the whole of `frame`, as a disk does that reads into it.
    pub fn fill(&self, frame: Frame, stamp: u64) {
        self.retire(frame);
        self.set_stamp(frame, stamp);
    }

    /// Says that the words of `frame` are of no more use, so that its slot can serve another table.
    ///
    /// For a frame that has just been freed. If it is lent as a table again, its words are zero.
    pub fn retire(&self, frame: Frame) {
        let index = &self.index[frame.index()];
        if index.load(Relaxed) == 0 {
            return;
        }
        let mut slots = self.slots();
        // Looked at again under the lock: another thread may have been faster.
        let slot = index.swap(0, Relaxed);
        if slot != 0 {
            slots.free.push(slot - 1);
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // Nothing between two changes of `Slots` can panic, so a poisoned lock is still consistent.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives `frame` a slot of zeros, unless it has got one meanwhile.
    #[cold]
    #[inline(never)]
    fn lend(&self, frame: Frame) -> &Table {
        let index = &self.index[frame.index()];
        let mut slots = self.slots();
        let slot = index.load(Relaxed);
        if slot != 0 {
            return self.words(slot - 1);
        }
        let slot = if let Some(slot) = slots.free.pop() {
            for word in self.words(slot) {
                word.store(0, Relaxed);
            }
            slot
        } else {
            slots.fresh += 1;
            slots.fresh - 1
        };
        let words = self.words(slot);
        // Release: whoever finds the slot finds its words zeroed.
        index.store(slot + 1, Release);
        words
    }

    /// The words of a slot; makes its chunk if nobody has.
    #[inline]
    fn words(&self, slot: u32) -> &Table {
        let chunk = &self.chunks[slot as usize / CHUNK_SLOTS];
        let chunk = chunk.get_or_init(|| {
            let tables: Box<[Table]> = bytemuck::zeroed_slice_box(CHUNK_SLOTS);
            tables.try_into().expect("a chunk has as many tables as asked for")
        });
        &chunk[slot as usize % CHUNK_SLOTS]
    }
}

impl Memory for Ram {
    /// # Panics
    /// If `frame` is beyond the end of RAM; likewise the other two methods.
    #[inline]
    fn table(&self, frame: Frame) -> &Table {
        match self.index[frame.index()].load(Acquire) {
            0 => self.lend(frame),
            slot => self.words(slot - 1),
        }
    }

    fn zero(&self, frame: Frame) {
        self.fill(frame, 0);
    }

    fn copy(&self, from: Frame, to: Frame) {
        self.fill(to, self.stamp(from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ram(frames: u32) -> Ram {
        Ram::with_contents(frames).expect("a small machine fits")
    }

    #[test]
    fn a_table_keeps_its_words_until_the_frame_is_zeroed() {
        let ram = ram(8);
        ram.table(Frame(3))[511].store(7, Relaxed);
        ram.table(Frame(4))[511].store(8, Relaxed);
        assert_eq!(ram.table(Frame(3))[511].load(Relaxed), 7);
        ram.zero(Frame(3));
        assert_eq!(ram.table(Frame(3))[511].load(Relaxed), 0);
        assert_eq!(ram.table(Frame(4))[511].load(Relaxed), 8);
    }

    #[test]
    fn a_copy_carries_the_stamp_and_takes_the_slot() {
        let ram = ram(8);
        ram.table(Frame(1))[0].store(1, Relaxed);
        ram.set_stamp(Frame(0), 42);
        ram.copy(Frame(0), Frame(1));
        assert_eq!((ram.stamp(Frame(1)), ram.tables()), (42, 0));
        ram.zero(Frame(1));
        assert_eq!(ram.stamp(Frame(1)), 0);
    }

    #[test]
    fn tables_that_come_and_go_need_no_more_slots_than_live_at_once() {
        let ram = ram(10_000);
        for round in 0..100 {
            let frames = (0..100).map(|i| Frame(round * 100 + i));
            frames.clone().for_each(|f| ram.table(f)[5].store(u64::from(f.0), Relaxed));
            assert!(frames.clone().all(|f| ram.table(f)[5].load(Relaxed) == u64::from(f.0)));
            frames.for_each(|f| ram.retire(f));
        }
        assert_eq!((ram.tables(), ram.tables_max()), (0, 100));
    }

    #[test]
    fn a_recycled_slot_is_lent_as_zeros() {
        let ram = ram(8);
        ram.table(Frame(0))[9].store(9, Relaxed);
        ram.retire(Frame(0));
        assert_eq!(ram.table(Frame(5))[9].load(Relaxed), 0);
        assert_eq!(ram.tables_max(), 1);
    }

    #[test]
    fn slots_of_every_chunk_are_distinct() {
        let ram = Ram::new(1000).expect("a small machine fits");
        (0..1000).for_each(|f| ram.table(Frame(f))[0].store(u64::from(f) + 1, Relaxed));
        assert!((0..1000).all(|f| ram.table(Frame(f))[0].load(Relaxed) == u64::from(f) + 1));
        assert_eq!(ram.tables(), 1000);
    }

    #[test]
    fn no_frames_are_refused() {
        assert_eq!(Ram::new(0).err(), Some(RamError::Empty));
    }
}
