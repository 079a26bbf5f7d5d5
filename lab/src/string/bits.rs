//! Accessed and dirty bits of frames, as hardware would keep them, and the time.
//!
//! Bits of one kind lie together, 64 frames a word, and a word is only ever read and written as a
//! whole. So those of ten thousand frames are a kilobyte, a hand passes a run of used frames in one
//! step whose length nobody has to predict, and no load has to wait until narrower stores before it,
//! which are queued behind others that miss the cache, have reached memory.
//!
//! A quarter of a byte a frame.

use vellum_mm::addr::Frame;
use vellum_mm::replace::Witness;

/// The witness of a simulation.
pub(super) struct Bits {
    accessed: Vec<u64>,
    dirty: Vec<u64>,
    /// References so far.
    pub(super) now: u64,
    /// Frames that were written in advance.
    pub(super) laundered: u64,
}

impl Bits {
    /// Of so many frames, none used or dirty.
    pub(super) fn new(frames: usize) -> Bits {
        let words = frames.div_ceil(64);
        Bits { accessed: vec![0; words], dirty: vec![0; words], now: 0, laundered: 0 }
    }

    /// `frame` is used.
    #[inline(always)]
    pub(super) fn access(&mut self, frame: Frame) {
        self.accessed[frame.index() >> 6] |= bit(frame);
    }

    /// `frame` is used, and this says whether by a write.
    #[inline(always)]
    pub(super) fn dirty_if(&mut self, frame: Frame, write: bool) {
        self.dirty[frame.index() >> 6] |= u64::from(write) << (frame.0 & 63);
    }

    /// The accessed bit of `frame` is this.
    #[inline(always)]
    pub(super) fn set_accessed(&mut self, frame: Frame, accessed: bool) {
        let word = &mut self.accessed[frame.index() >> 6];
        *word = (*word & !bit(frame)) | (u64::from(accessed) << (frame.0 & 63));
    }

    /// `frame` is clean.
    #[inline(always)]
    pub(super) fn clean(&mut self, frame: Frame) {
        self.dirty[frame.index() >> 6] &= !bit(frame);
    }

    /// [`take_accessed_run`](Witness::take_accessed_run) where the run does not end in its first word.
    #[cold]
    fn take_words(&mut self, first: usize, most: usize) -> usize {
        let mut taken = 0;
        // Ends: each round but the last passes a word.
        while taken < most {
            let at = first + taken;
            let here = (64 - (at & 63)).min(most - taken);
            let asked = (u64::MAX >> (64 - here)) << (at & 63);
            let word = &mut self.accessed[at >> 6];
            let unused = !*word & asked;
            // Those below the lowest that is unused, or all. What was not asked for keeps its bits.
            *word &= !(asked & (unused & unused.wrapping_neg()).wrapping_sub(1));
            if unused != 0 {
                return taken + unused.trailing_zeros() as usize - (at & 63);
            }
            taken += here;
        }
        most
    }
}

/// The bit of a frame in its word.
#[inline(always)]
const fn bit(frame: Frame) -> u64 {
    1 << (frame.0 & 63)
}

impl Witness for Bits {
    #[inline(always)]
    fn take_accessed(&mut self, frame: Frame) -> bool {
        let word = &mut self.accessed[frame.index() >> 6];
        let accessed = *word & bit(frame) != 0;
        *word &= !bit(frame);
        accessed
    }

    #[inline(always)]
    fn take_accessed_run(&mut self, frame: Frame, most: usize) -> usize {
        let word = &mut self.accessed[frame.index() >> 6];
        let used = (!*word >> (frame.0 & 63)).trailing_zeros() as usize; // 64 if all up to its end
        if used < 64 && used < most {
            // The carry runs through the ones from `frame` on, and clears them.
            *word &= word.wrapping_add(bit(frame));
            return used;
        }
        self.take_words(frame.index(), most)
    }

    #[inline(always)]
    fn is_dirty(&self, frame: Frame) -> bool {
        self.dirty[frame.index() >> 6] & bit(frame) != 0
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        self.now
    }

    fn launder(&mut self, frame: Frame) {
        self.laundered += u64::from(self.is_dirty(frame));
        self.clean(frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn a_run_is_taken_as_frame_by_frame() {
        const FRAMES: usize = 300;
        let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(1);
        for round in 0..20_000 {
            let (mut run, mut each) = (Bits::new(FRAMES), Bits::new(FRAMES));
            let unused = rng.random_range(1..200);
            for frame in (0..FRAMES as u32).map(Frame) {
                if rng.random_range(0..unused) > 0 {
                    run.access(frame);
                    each.access(frame);
                }
            }
            let first = rng.random_range(0..FRAMES);
            let most = rng.random_range(0..=FRAMES - first);
            let taken = run.take_accessed_run(Frame(first as u32), most);
            let expected = (first..first + most)
                .take_while(|&at| each.take_accessed(Frame(at as u32)))
                .count();
            assert_eq!(taken, expected, "round {round}: {most} from {first}");
            assert_eq!(run.accessed, each.accessed, "round {round}: {most} from {first}");
        }
    }

    #[test]
    fn bits_are_set_and_cleared_one_by_one() {
        let mut bits = Bits::new(65);
        bits.dirty_if(Frame(64), true);
        assert!(bits.is_dirty(Frame(64)) && !bits.is_dirty(Frame(0)));
        bits.clean(Frame(64));
        bits.set_accessed(Frame(64), true);
        assert!(!bits.is_dirty(Frame(64)) && bits.take_accessed(Frame(64)));
        bits.access(Frame(64));
        bits.set_accessed(Frame(64), false);
        assert!(!bits.take_accessed(Frame(64)));
        bits.dirty_if(Frame(64), true);
        bits.dirty_if(Frame(64), false);
        bits.launder(Frame(64));
        bits.launder(Frame(64));
        assert_eq!((bits.laundered, bits.is_dirty(Frame(64))), (1, false));
    }
}
