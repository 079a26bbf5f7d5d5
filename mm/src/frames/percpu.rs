//! A processor's own stack of free frames, so that most allocations touch no shared memory.
//!
//! Frames move between it and the buddy a batch at a time: an empty stack is refilled with `batch`
//! frames, and one that has grown to `high` gives its `batch` oldest back. The frame freed last is
//! handed out first, as its contents are the likeliest to be in this processor's data cache.
//!
//! ```text
//!     0 ──── batch ──────────────────────── high
//!       refill ▲           put, take          └▶ drain the oldest batch
//! ```
//!
//! Invariant: the stack never holds more than `high` frames, the room made at construction; putting a
//! frame allocates nothing.
//!
//! Knows nothing of: locks and watermarks ([`zone`](super::zone)), and whether a frame is put twice:
//! the frame table, which knows the owner of every frame, does not let that happen.

use alloc::vec::Vec;

use crate::addr::Frame;
use crate::frames::buddy::Buddy;

/// Frames moved at a time where memory is plentiful; Linux moves as many on most machines.
pub const BATCH: usize = 31;
/// Batches that a stack holds before it gives one back.
pub const HIGH_BATCHES: usize = 6;

/// Free frames kept by one processor.
#[derive(Clone, Debug)]
pub struct FrameCache {
    frames: Vec<Frame>, // a stack; the oldest frame is first
    batch: usize,
    high: usize,
}

impl Default for FrameCache {
    fn default() -> FrameCache {
        FrameCache::new(BATCH, BATCH * HIGH_BATCHES)
    }
}

impl FrameCache {
    /// An empty cache that moves `batch` frames at a time and holds `high` at most.
    ///
    /// # Panics
    /// If `batch` is zero or above `high`.
    pub fn new(batch: usize, high: usize) -> FrameCache {
        assert!(0 < batch && batch <= high, "a batch of {batch} frames, and {high} at most");
        FrameCache { frames: Vec::with_capacity(high), batch, high }
    }

    /// Takes the frame that was put last.
    #[inline]
    pub fn take(&mut self) -> Option<Frame> {
        self.frames.pop()
    }

    /// Puts a free frame, and says whether the cache is full now and must be
    /// [drained](Self::drain) before the next.
    ///
    /// # Panics
    /// If the cache was full before.
    #[inline]
    #[must_use]
    pub fn put(&mut self, frame: Frame) -> bool {
        assert!(self.frames.len() < self.high, "{frame:?} put over the {} held", self.high);
        self.frames.push(frame);
        self.frames.len() == self.high
    }

    /// Takes up to a batch of frames from `buddy`, and returns how many there were.
    ///
    /// They are handed out in the order in which `buddy` gave them: upwards, while memory is whole.
    pub fn refill(&mut self, buddy: &mut Buddy) -> usize {
        let held = self.frames.len();
        let room = self.batch.min(self.high - held);
        let taken = buddy.alloc_frames(room, |frame| self.frames.push(frame));
        self.frames[held..].reverse();
        taken
    }

    /// Gives the batch that has been held longest back to `buddy`.
    pub fn drain(&mut self, buddy: &mut Buddy) {
        let batch = self.batch.min(self.frames.len());
        buddy.free_each(&self.frames[..batch]);
        self.frames.drain(..batch);
    }

    /// Gives every frame back to `buddy`.
    pub fn drain_all(&mut self, buddy: &mut Buddy) {
        buddy.free_each(&self.frames);
        self.frames.clear();
    }

    /// Number of frames held.
    #[inline]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buddy(frames: u32) -> Buddy {
        let mut buddy = Buddy::new(Frame(0), frames as usize);
        buddy.add(Frame(0)..Frame(frames));
        buddy
    }

    #[test]
    fn the_frame_freed_last_is_handed_out_first() {
        let mut cache = FrameCache::default();
        assert!(!cache.put(Frame(7)) && !cache.put(Frame(3)));
        assert_eq!(
            [cache.take(), cache.take(), cache.take()],
            [Some(Frame(3)), Some(Frame(7)), None]
        );
    }

    #[test]
    fn refilled_frames_come_upwards() {
        let mut buddy = buddy(8);
        let mut cache = FrameCache::new(3, 6);
        assert_eq!(cache.refill(&mut buddy), 3);
        assert_eq!(buddy.free_frames(), 5);
        assert_eq!([cache.take(), cache.take(), cache.take()], [0, 1, 2].map(|f| Some(Frame(f))));
    }

    #[test]
    fn a_refill_takes_what_there_is() {
        let mut buddy = buddy(2);
        let mut cache = FrameCache::new(3, 6);
        assert_eq!(cache.refill(&mut buddy), 2);
        assert_eq!(cache.refill(&mut buddy), 0);
        assert_eq!(cache.len(), 2);
    }

    #[test]
    fn a_full_cache_gives_its_oldest_batch_back() {
        let mut buddy = buddy(4);
        let mut cache = FrameCache::new(2, 4);
        let frames = [0, 1, 2, 3].map(|_| buddy.alloc(0).expect("four"));
        assert_eq!(frames.map(|frame| cache.put(frame)), [false, false, false, true]);
        cache.drain(&mut buddy);
        assert_eq!((cache.len(), buddy.free_runs(1)), (2, 1), "f0 and f1 are a run again");
        assert_eq!(cache.take(), Some(Frame(3)));
        cache.drain_all(&mut buddy);
        assert!(cache.is_empty());
        assert_eq!(buddy.free_frames(), 3);
    }

    #[test]
    #[should_panic(expected = "f9 put over the 2 held")]
    fn a_full_cache_takes_no_more() {
        let mut cache = FrameCache::new(1, 2);
        assert!(!cache.put(Frame(1)));
        assert!(cache.put(Frame(2)));
        let _ = cache.put(Frame(9));
    }
}
