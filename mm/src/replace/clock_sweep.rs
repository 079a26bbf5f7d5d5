//! Clock sweep: the hand counts a page's uses down, and takes the first that has none left.
//!
//! Clock remembers of a page whether it was used. Here it remembers how often, up to a small
//! maximum: a popular page survives several laps, and a page of a scan, used once, goes before it.
//! `PostgreSQL` manages its buffers so: a buffer starts at 1, each use adds 1, each pass of the
//! hand takes 1.
//!
//! ```text
//!              hand
//!               ▼
//!     f0   f1   f2   f3   f4        the circle is the array of frames itself
//!      3    0    2    0    1        f2 is counted down to 1, f3 goes
//! ```
//!
//! A use raises one byte, and the hand counts eight down at once: 1 byte a frame. A frame that is not
//! evictable keeps its place and is skipped, so that `evict` takes, at worst, an eighth as many steps
//! as there are frames times the maximum; over many evictions, at most as many as there are uses, and
//! frames that are skipped.

use alloc::boxed::Box;
use alloc::vec;

use super::board::{Board, Member};
use super::{About, Observe, PageId, Parameters, Policy, Registered, Setting, Witness};
use crate::addr::Frame;

const MAX: Setting =
    Setting { name: "max", line: "uses that are counted at most", default: 5, range: 1..=254 };

/// The state of a frame that is not evictable; others have their count of uses + 1.
const ABSENT: u8 = 0;
/// The state of an evictable frame with no uses left.
const UNUSED: u8 = 1;
/// A one in each byte of a word.
const EACH: u64 = u64::from_le_bytes([1; 8]);

/// Generalized clock with counts, as in `PostgreSQL` (`src/backend/storage/buffer/README` there).
///
/// A. J. Smith, "Sequentiality and Prefetching in Database Systems", ACM TODS 3(3), 1978; analysed
/// by V. F. Nicola, A. Dan, D. M. Dias, "Analysis of the Generalized Clock Buffer Replacement
/// Scheme for Database Transaction Processing", SIGMETRICS 1992.
pub struct ClockSweep {
    /// Eight frames a word, which is read and written as a whole: a load of what narrower stores have
    /// just written would wait for them.
    states: Box<[u64]>,
    frames: usize,
    hand: usize, // the index of the next frame to judge
    len: usize,
    full: u8, // the state that uses no longer raise
    first: Frame,
}

impl Registered for ClockSweep {
    const ABOUT: About = About {
        name: "clock-sweep",
        line: "counts a page's uses up to five, and down with each pass of the hand (PostgreSQL)",
        paper: "A. J. Smith, Sequentiality and Prefetching in Database Systems, 1978",
        settings: &[MAX],
    };
    const READS_BITS: bool = false;

    fn new(parameters: &Parameters) -> ClockSweep {
        let Parameters { first, frames, .. } = *parameters;
        assert!(
            frames <= (u32::MAX - first.0) as usize,
            "{frames} frames from {first:?} are more than 32 bits number"
        );
        let max = parameters.settings.get(&MAX);
        ClockSweep {
            states: vec![u64::from_le_bytes([ABSENT; 8]); frames.div_ceil(8)].into_boxed_slice(),
            frames,
            hand: 0,
            len: 0,
            full: max.min(254) as u8 + UNUSED,
            first,
        }
    }
}

impl ClockSweep {
    /// The index of what must be a frame of these.
    fn index_checked(&self, frame: Frame) -> usize {
        let (index, count) = (frame.0.wrapping_sub(self.first.0) as usize, self.frames);
        assert!(index < count, "{frame:?} is not among the {count} frames from {:?}", self.first);
        index
    }

    #[inline]
    fn state(&self, index: usize) -> u8 {
        (self.states[index / 8] >> (8 * (index % 8))) as u8
    }

    #[inline]
    fn set(&mut self, index: usize, state: u8) {
        let shift = 8 * (index % 8);
        let word = &mut self.states[index / 8];
        *word = (*word & !(0xff << shift)) | (u64::from(state) << shift);
    }

    /// Sweeps to a frame without uses, moves on, and returns its index.
    #[inline]
    fn sweep(&mut self) -> Option<usize> {
        if self.len == 0 {
            return None;
        }
        // Ends: some frame is evictable, and each lap takes a use from it.
        loop {
            let word = &mut self.states[self.hand / 8];
            let ahead = u64::MAX << (8 * (self.hand % 8));
            let unused = zeros(*word ^ (EACH * u64::from(UNUSED))) & ahead;
            // Those before the first that is unused, or all: a use from each that is evictable.
            let before = (unused & unused.wrapping_neg()).wrapping_sub(1);
            *word -= EACH & !zeros(*word) & ahead & before;
            let begin = self.hand / 8 * 8;
            let at = begin + unused.trailing_zeros() as usize / 8;
            self.hand = if unused == 0 { begin + 8 } else { at + 1 };
            if self.hand >= self.frames {
                self.hand = 0;
            }
            if unused != 0 {
                return Some(at);
            }
        }
    }
}

/// A one in each byte that is zero.
#[inline]
const fn zeros(word: u64) -> u64 {
    // The lower bits of a byte carry into its highest unless they are zero.
    const LOWER: u64 = EACH * 0x7f;
    (!(((word & LOWER) + LOWER) | word) >> 7) & EACH
}

impl Policy for ClockSweep {
    fn insert(&mut self, frame: Frame, _page: PageId) {
        let index = self.index_checked(frame);
        assert_eq!(self.state(index), ABSENT, "{frame:?} is evictable already");
        self.set(index, UNUSED + 1);
        self.len += 1;
    }

    fn remove(&mut self, frame: Frame) {
        let index = self.index_checked(frame);
        assert_ne!(self.state(index), ABSENT, "{frame:?} is not evictable");
        self.set(index, ABSENT);
        self.len -= 1;
    }

    fn evict(&mut self, _witness: &mut dyn Witness) -> Option<Frame> {
        let index = self.sweep()?;
        self.set(index, ABSENT);
        self.len -= 1;
        Some(Frame(self.first.0 + index as u32))
    }

    #[inline]
    fn replace(&mut self, _page: PageId, _witness: &mut dyn Witness) -> Option<Frame> {
        let index = self.sweep()?;
        self.set(index, UNUSED + 1);
        Some(Frame(self.first.0 + index as u32))
    }

    fn show(&self, board: &mut dyn Board) {
        let circle = (self.hand..self.frames).chain(0..self.hand);
        let mut members = circle.filter(|&at| self.state(at) != ABSENT).map(|at| {
            let frame = Frame(self.first.0 + at as u32);
            let uses = u64::from(self.state(at) - UNUSED);
            Member::frame(frame).with_hand("hand", at == self.hand).with_count(uses)
        });
        board.list("circle", &mut members);
    }

    fn len(&self) -> usize {
        self.len
    }
}

impl Observe for ClockSweep {
    #[inline]
    fn touch(&mut self, frame: Frame) {
        let index = frame.0.wrapping_sub(self.first.0) as usize;
        if let Some(word) = self.states.get_mut(index / 8) {
            // A sum instead of a branch, which nobody could predict.
            let counts = (UNUSED..self.full).contains(&((*word >> (8 * (index % 8))) as u8));
            *word += u64::from(counts) << (8 * (index % 8));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bits, Model, Step, TEXTBOOK, agrees_with, faults};
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn the_textbook_string_faults_thirteen_times() {
        assert_eq!(faults("clock-sweep", 3, TEXTBOOK), 13);
    }

    #[test]
    fn a_popular_page_outlives_a_scan() {
        let hot = core::iter::repeat_n(0, 6);
        let refs: Vec<u64> = hot.chain(1..10).chain([0]).collect();
        // Four frames: two laps of the hand load three pages of the scan, and take two uses of page
        // 0.
        assert_eq!(faults("clock-sweep", 4, &refs), 10);
        assert_eq!(faults("clock-sweep:max=1", 4, &refs), 11);
    }

    #[test]
    fn uses_beyond_the_maximum_do_not_count() {
        let mut sweep = ClockSweep::new(&Parameters::new(2));
        (0..2).for_each(|frame| sweep.insert(Frame(frame), PageId(0)));
        (0..4).for_each(|_| sweep.touch(Frame(1)));
        (0..300).for_each(|_| sweep.touch(Frame(0)));
        // Both have five: the first in the circle is the first to be counted down.
        assert_eq!(sweep.evict(&mut Bits::new(2)), Some(Frame(0)));
    }

    #[test]
    fn a_touch_of_a_pinned_frame_is_ignored() {
        let mut sweep = ClockSweep::new(&Parameters::new(2));
        sweep.touch(Frame(1));
        (0..2).for_each(|frame| sweep.insert(Frame(frame), PageId(0)));
        sweep.remove(Frame(0));
        sweep.touch(Frame(0));
        assert_eq!(sweep.evict(&mut Bits::new(2)), Some(Frame(1)));
        assert!(sweep.is_empty());
    }

    /// An array of buffers, the lowest free one filled first, with a hand.
    struct Buffers {
        buffers: Vec<Option<(u64, u64)>>, // page, count
        next: usize,
        max: u64,
    }

    impl Buffers {
        fn boxed(frames: usize, max: u64) -> Box<dyn Model> {
            Box::new(Buffers { buffers: vec![None; frames], next: 0, max })
        }
    }

    impl Model for Buffers {
        fn step(&mut self, step: Step) -> Vec<u64> {
            let (Step::Use(page) | Step::Write(page) | Step::Drop(page)) = step;
            let held = self.buffers.iter().position(|held| held.is_some_and(|held| held.0 == page));
            if matches!(step, Step::Drop(_)) {
                if let Some(at) = held {
                    self.buffers[at] = None;
                }
                return Vec::new();
            }
            if let Some(at) = held {
                let count = self.buffers[at].expect("it was found").1;
                self.buffers[at] = Some((page, self.max.min(count + 1)));
                return Vec::new();
            }
            if let Some(free) = self.buffers.iter().position(Option::is_none) {
                self.buffers[free] = Some((page, 1));
                return Vec::new();
            }
            loop {
                let at = self.next;
                self.next = (at + 1) % self.buffers.len();
                let (held, count) = self.buffers[at].expect("memory is full");
                if count == 0 {
                    self.buffers[at] = Some((page, 1));
                    return vec![held];
                }
                self.buffers[at] = Some((held, count - 1));
            }
        }
    }

    #[test]
    fn it_sweeps_an_array_of_buffers() {
        agrees_with("clock-sweep", |frames| Buffers::boxed(frames, 5));
        agrees_with("clock-sweep:max=1", |frames| Buffers::boxed(frames, 1));
    }
}
