//! CLOCK-Pro: what LIRS does, with a bit a page.
//!
//! All pages stand in one circle in order of their last known use: *hot* ones, which stay; *cold*
//! ones, which are evicted; and cold ones that are evicted already (ghosts). A cold page starts
//! with a test period. If it is used before that ends, resident or not, it was used again sooner
//! than the oldest hot page, and becomes hot.
//!
//! ```text
//!          hot hand: demotes hot pages not used, ends tests, drops ghosts that it passes
//!             ▼
//!     ⋯ newest│oldest  H  g  C  H  g  C ⋯      turns towards the newest
//!                         ▲     ▲
//!                 test hand     cold hand: evicts cold pages not used
//!                 ends tests, so that there are no more ghosts than frames
//! ```
//!
//! How many frames cold pages get adapts: one more for each page that is used in its test, one less
//! for each test that ends without a use. A page is loaded without its bit; hardware loads it with
//! its bit, so that on a machine every page looks used in its test, and turns hot.
//!
//! 26 bytes a frame and up to 37 for each of one ghost a frame. Over many evictions, each hand
//! takes a step for each page that came or was used.

use alloc::boxed::Box;
use alloc::vec;

use super::board::{Board, Member};
use super::ghosts::Ghosts;
use super::queues::share;
use super::{About, PageId, Parameters, Policy, Registered, Setting, Witness};
use crate::addr::Frame;
use crate::ring::Rings;

/// The page stays.
const HOT: u8 = 1;
/// The page is cold, and hot if it is used now.
const TEST: u8 = 2;

const COLD: Setting = Setting {
    name: "cold",
    line: "share of cold pages to begin with, percent of memory",
    default: 100,
    range: 1..=100,
};

/// CLOCK-Pro. The paper leaves open with how many cold pages to begin: with as many as there are
/// frames.
///
/// S. Jiang, F. Chen, X. Zhang, "CLOCK-Pro: An Effective Improvement of the CLOCK Replacement",
/// USENIX ATC 2005.
pub struct ClockPro {
    rings: Rings,
    hot_hand: Option<Frame>, // at the oldest: new pages enter just behind it
    cold_hand: Option<Frame>,
    test_hand: Option<Frame>,
    states: Box<[u8]>, // by number: HOT or TEST; nothing for a cold page without a test
    pages: Box<[PageId]>, // by frame
    ghosts: Ghosts,
    first: Frame,
    hot_len: usize,
    cold_len: usize,   // resident ones
    cold_share: usize, // how many of the frames cold pages should have
}

impl Registered for ClockPro {
    const ABOUT: About = About {
        name: "clock-pro",
        line: "tells hot pages from cold ones by whether they are used again soon, from bits",
        paper: "S. Jiang, F. Chen, X. Zhang, CLOCK-Pro, USENIX ATC 2005",
        settings: &[COLD],
    };

    fn new(parameters: &Parameters) -> ClockPro {
        let Parameters { first, frames, settings, .. } = *parameters;
        // The victim is remembered before the test hand looks for a ghost to forget: one more.
        let ghosts = frames + 1;
        ClockPro {
            rings: Rings::new(first, frames + ghosts),
            hot_hand: None,
            cold_hand: None,
            test_hand: None,
            states: vec![0; frames + ghosts].into_boxed_slice(),
            pages: vec![PageId(0); frames].into_boxed_slice(),
            ghosts: Ghosts::new(parameters, ghosts),
            first,
            hot_len: 0,
            cold_len: 0,
            cold_share: share(frames, settings.get(&COLD)),
        }
    }
}

impl ClockPro {
    #[inline]
    fn index_of(&self, number: Frame) -> usize {
        (number.0 - self.first.0) as usize
    }

    #[inline]
    fn is_ghost(&self, number: Frame) -> bool {
        self.index_of(number) >= self.pages.len()
    }

    #[inline]
    fn is(&self, number: Frame, state: u8) -> bool {
        self.states[self.index_of(number)] == state
    }

    /// Adds a number as the newest.
    #[inline]
    fn enter(&mut self, number: Frame, state: u8) {
        self.rings.insert_before(&mut self.hot_hand, number);
        self.cold_hand = self.cold_hand.or(Some(number));
        self.test_hand = self.test_hand.or(Some(number));
        let index = self.index_of(number);
        self.states[index] = state;
    }

    /// Takes a number out. A hand that is there goes on to the next.
    #[inline]
    fn leave(&mut self, number: Frame) {
        let next = self.rings.next(number);
        let next = (next != number).then_some(next);
        for hand in [&mut self.cold_hand, &mut self.test_hand] {
            if *hand == Some(number) {
                *hand = next;
            }
        }
        self.rings.remove(&mut self.hot_hand, number);
    }

    #[inline]
    fn move_to_newest(&mut self, number: Frame, state: u8) {
        self.leave(number);
        self.enter(number, state);
    }

    #[inline]
    fn forget(&mut self, ghost: Frame) {
        self.leave(ghost);
        self.ghosts.remove(ghost);
    }

    /// Ends the test of a cold page, resident or not, at which a hand is.
    #[inline]
    fn end_test(&mut self, number: Frame) {
        if self.is(number, TEST) {
            self.cold_share = (self.cold_share - 1).max(1);
            let index = self.index_of(number);
            self.states[index] = 0;
        }
        if self.is_ghost(number) {
            self.forget(number);
        }
    }

    /// A page was used in its test: cold pages deserve a frame more.
    #[inline]
    fn learn(&mut self) {
        self.cold_share = (self.cold_share + 1).min(self.pages.len());
    }

    /// Turns the hot hand until no more pages are hot than should be.
    #[inline]
    fn run_hot(&mut self, witness: &mut dyn Witness) {
        // One lap clears the bits of all hot pages; on a busy machine one goes although it is used.
        let mut spared = 0;
        while self.hot_len > self.pages.len().saturating_sub(self.cold_share) {
            let Some(oldest) = self.hot_hand else { return };
            if !self.is(oldest, HOT) {
                let was_alone = self.rings.next(oldest) == oldest;
                self.end_test(oldest);
                if self.hot_hand == Some(oldest) && !was_alone {
                    self.rings.rotate(&mut self.hot_hand);
                }
                continue;
            }
            self.rings.rotate(&mut self.hot_hand);
            if spared < self.hot_len && witness.take_accessed(oldest) {
                spared += 1;
                continue;
            }
            let index = self.index_of(oldest);
            self.states[index] = 0;
            self.hot_len -= 1;
            self.cold_len += 1;
        }
    }

    /// Turns the test hand until there are no more ghosts than frames.
    #[inline]
    fn run_test(&mut self) {
        // Ends: the hand comes to the ghosts that are too many.
        while self.ghosts.len() > self.pages.len() {
            let Some(number) = self.test_hand else { return };
            self.rings.rotate(&mut self.test_hand);
            if !self.is(number, HOT) {
                self.end_test(number);
            }
        }
    }

    /// Turns the cold hand to a victim and takes that out.
    #[inline]
    fn run_cold(&mut self, witness: &mut dyn Witness) -> Option<Frame> {
        // A page is spared at most twice: for a test, and to become hot. On a busy machine one goes
        // although it is used.
        let mut spared = 0;
        let spared_max = 2 * self.len();
        loop {
            if self.cold_len == 0 {
                self.demote_oldest()?;
            }
            let number = self.cold_hand?;
            let state = self.states[self.index_of(number)];
            if state == HOT || self.is_ghost(number) {
                self.rings.rotate(&mut self.cold_hand);
                continue;
            }
            if spared == spared_max || !witness.take_accessed(number) {
                self.cold_len -= 1;
                self.bury(number, state);
                return Some(number);
            }
            spared += 1;
            if state == TEST {
                self.learn();
                self.move_to_newest(number, HOT);
                self.cold_len -= 1;
                self.hot_len += 1;
                self.run_hot(witness);
            } else {
                self.move_to_newest(number, TEST);
            }
        }
    }

    /// Makes the oldest hot page cold, where none is: cold pages were freed.
    fn demote_oldest(&mut self) -> Option<()> {
        // Ends: all resident pages are hot. Ghosts stay for the hands whose business they are.
        let oldest = self.rings.iter(self.hot_hand).find(|&number| self.is(number, HOT))?;
        let index = self.index_of(oldest);
        self.states[index] = 0;
        self.hot_len -= 1;
        self.cold_len += 1;
        Some(())
    }

    /// Takes a cold page out. If it is in its test, its ghost stands where it stood.
    #[inline]
    fn bury(&mut self, number: Frame, state: u8) {
        if state == TEST {
            let page = self.pages[self.index_of(number)];
            let ghost = self.ghosts.insert(page);
            let index = self.index_of(ghost);
            self.states[index] = TEST;
            let mut place = Some(number);
            self.rings.insert_before(&mut place, ghost);
            for hand in [&mut self.hot_hand, &mut self.test_hand] {
                if *hand == Some(number) {
                    *hand = Some(ghost);
                }
            }
        }
        self.leave(number);
        self.run_test();
    }

    /// Forgets the ghost of `page`, as the page comes back in its test; whether it had one.
    #[inline]
    fn recall(&mut self, page: PageId) -> bool {
        let ghost = self.ghosts.find(page);
        if let Some(ghost) = ghost {
            self.forget(ghost);
            self.learn();
        }
        ghost.is_some()
    }

    #[inline]
    fn admit(&mut self, frame: Frame, page: PageId, is_known: bool) {
        let (index, count) = (frame.0.wrapping_sub(self.first.0) as usize, self.pages.len());
        assert!(index < count, "{frame:?} is not among the {count} frames from {:?}", self.first);
        self.pages[index] = page;
        if is_known {
            self.enter(frame, HOT);
            self.hot_len += 1;
        } else {
            self.enter(frame, TEST);
            self.cold_len += 1;
        }
    }
}

impl Policy for ClockPro {
    /// Without a witness the hot hand waits: the next eviction turns it.
    #[inline]
    fn insert(&mut self, frame: Frame, page: PageId) {
        let is_known = self.recall(page);
        self.admit(frame, page, is_known);
    }

    fn remove(&mut self, frame: Frame) {
        let index = frame.0.wrapping_sub(self.first.0) as usize;
        assert!(index < self.pages.len(), "{frame:?} is not evictable");
        self.leave(frame);
        if self.states[index] == HOT {
            self.hot_len -= 1;
        } else {
            self.cold_len -= 1;
        }
    }

    fn evict(&mut self, witness: &mut dyn Witness) -> Option<Frame> {
        self.run_hot(witness);
        self.run_cold(witness)
    }

    #[inline]
    fn replace(&mut self, page: PageId, witness: &mut dyn Witness) -> Option<Frame> {
        // First, so that no hand forgets the page that comes.
        let is_known = !self.is_empty() && self.recall(page);
        let victim = self.evict(witness)?;
        self.admit(victim, page, is_known);
        self.run_hot(witness);
        Some(victim)
    }

    fn load_is_use(&self) -> bool {
        false
    }

    fn show(&self, board: &mut dyn Board) {
        let member = |number: Frame| {
            let is_ghost = self.is_ghost(number);
            let member = if is_ghost {
                Member::page(self.ghosts.page(number))
            } else {
                Member::frame(number)
            };
            let label = match self.states[self.index_of(number)] {
                _ if is_ghost => "gone",
                HOT => "hot",
                TEST => "test",
                _ => "cold",
            };
            member
                .with_label(label)
                .with_hand("hot", self.hot_hand == Some(number))
                .with_hand("cold", self.cold_hand == Some(number))
                .with_hand("test", self.test_hand == Some(number))
        };
        board.list("circle", &mut self.rings.iter(self.hot_hand).map(member));
        board.number("cold share", self.cold_share as f64);
    }

    #[inline]
    fn peek(&self, page: PageId) -> u32 {
        self.ghosts.peek(page)
    }

    #[inline]
    fn len(&self) -> usize {
        self.hot_len + self.cold_len
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bits, Model, Step, TEXTBOOK, agrees_with, faults};
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;

    #[test]
    fn the_textbook_string_faults_ten_times() {
        assert_eq!(faults("clock-pro", 3, TEXTBOOK), 10);
    }

    #[test]
    fn a_loop_larger_than_memory_does_not_always_miss() {
        let refs: Vec<u64> = (0..24).cycle().take(2400).collect();
        assert_eq!(faults("clock", 20, &refs), 2400);
        assert!(faults("clock-pro", 20, &refs) < 1800);
    }

    #[test]
    fn a_page_used_in_its_test_becomes_hot() {
        let mut clock = ClockPro::new(&Parameters::new(3));
        clock.cold_share = 1;
        (0..3).for_each(|frame| clock.insert(Frame(frame), PageId(frame.into())));
        let mut bits = Bits::new(3);
        bits.accessed = alloc::vec![true, false, false];
        assert_eq!(clock.evict(&mut bits), Some(Frame(1)));
        assert!(clock.is(Frame(0), HOT) && clock.is(Frame(2), TEST));
        assert_eq!(clock.cold_share, 2);
        // The page that was in f1 comes back while it is remembered.
        clock.insert(Frame(1), PageId(1));
        assert!(clock.is(Frame(1), HOT));
    }

    #[derive(Clone, Copy, PartialEq, Debug)]
    struct Entry {
        page: u64,
        hot: bool,
        test: bool,
        resident: bool,
    }

    /// The paper's circle as a row, the oldest first: the hot hand is always at the start, and the
    /// row is turned when that moves. The other hands are pages.
    struct Circle {
        frames: usize,
        cold_share: usize,
        row: Vec<Entry>,
        cold: Option<u64>,
        test: Option<u64>,
        used: BTreeSet<u64>,
    }

    impl Circle {
        fn count(&self, what: fn(&Entry) -> bool) -> usize {
            self.row.iter().filter(|&entry| what(entry)).count()
        }

        fn place(&self, page: u64) -> usize {
            self.row.iter().position(|entry| entry.page == page).expect("in the circle")
        }

        fn after(&self, page: u64) -> u64 {
            self.row[(self.place(page) + 1) % self.row.len()].page
        }

        fn take(&mut self, page: u64) -> Entry {
            let next = Some(self.after(page)).filter(|&next| next != page);
            for hand in [&mut self.cold, &mut self.test] {
                if *hand == Some(page) {
                    *hand = next;
                }
            }
            let place = self.place(page);
            self.row.remove(place)
        }

        fn push(&mut self, entry: Entry) {
            self.cold.get_or_insert(entry.page);
            self.test.get_or_insert(entry.page);
            self.row.push(entry);
        }

        fn end_test(&mut self, page: u64) {
            let place = self.place(page);
            if core::mem::take(&mut self.row[place].test) && self.cold_share > 1 {
                self.cold_share -= 1;
            }
            if !self.row[place].resident {
                self.take(page);
            }
        }

        fn run_hot(&mut self) {
            while self.count(|entry| entry.hot) > self.frames - self.cold_share {
                let oldest = self.row[0];
                if oldest.hot {
                    self.row[0].hot = self.used.remove(&oldest.page);
                    self.row.rotate_left(1);
                } else {
                    self.end_test(oldest.page);
                    if oldest.resident {
                        self.row.rotate_left(1);
                    }
                }
            }
        }

        fn run_test(&mut self) {
            while self.count(|entry| !entry.resident) > self.frames {
                let at = self.test.expect("the circle is not empty");
                self.test = Some(self.after(at));
                if !self.row[self.place(at)].hot {
                    self.end_test(at);
                }
            }
        }

        fn run_cold(&mut self) -> u64 {
            loop {
                if self.count(|entry| entry.resident && !entry.hot) == 0 {
                    self.row.iter_mut().find(|entry| entry.hot).expect("a page").hot = false;
                }
                let at = self.cold.expect("the circle is not empty");
                let place = self.place(at);
                let entry = self.row[place];
                if entry.hot || !entry.resident {
                    self.cold = Some(self.after(at));
                } else if self.used.remove(&at) {
                    self.take(at);
                    if entry.test {
                        self.cold_share = (self.cold_share + 1).min(self.frames);
                    }
                    let (hot, test) = (entry.test, !entry.test);
                    self.push(Entry { hot, test, ..entry });
                    if hot {
                        self.run_hot();
                    }
                } else {
                    self.cold = Some(self.after(at));
                    if entry.test {
                        self.row[place].resident = false;
                    } else {
                        self.take(at);
                    }
                    self.run_test();
                    return at;
                }
            }
        }
    }

    impl Model for Circle {
        fn step(&mut self, step: Step) -> Vec<u64> {
            let (Step::Use(page) | Step::Write(page) | Step::Drop(page)) = step;
            let known = self.row.iter().find(|entry| entry.page == page).copied();
            let is_ghost = known.is_some_and(|entry| !entry.resident);
            if known.is_some_and(|entry| entry.resident) {
                self.used.insert(page);
                if matches!(step, Step::Drop(_)) {
                    self.take(page);
                    self.used.remove(&page);
                }
                return Vec::new();
            }
            if matches!(step, Step::Drop(_)) {
                return Vec::new();
            }
            if is_ghost {
                self.take(page);
                self.cold_share = (self.cold_share + 1).min(self.frames);
            }
            let is_full = self.count(|entry| entry.resident) == self.frames;
            let mut left = Vec::new();
            if is_full {
                self.run_hot();
                left.push(self.run_cold());
            }
            let (hot, test) = (is_ghost, !is_ghost);
            self.push(Entry { page, hot, test, resident: true });
            if is_full {
                self.run_hot();
            }
            left
        }
    }

    fn circle(frames: usize, cold_share: usize) -> Circle {
        let (row, used) = Default::default();
        Circle { frames, cold_share, row, cold: None, test: None, used }
    }

    #[test]
    fn it_is_the_papers_circle_with_three_hands() {
        agrees_with("clock-pro", |frames| Box::new(circle(frames, frames)));
        agrees_with("clock-pro:cold=20", |frames| Box::new(circle(frames, (frames / 5).max(1))));
    }

    #[test]
    fn a_machine_that_uses_every_page_all_the_time_gets_its_frames() {
        struct Busy;
        impl Witness for Busy {
            fn take_accessed(&mut self, _frame: Frame) -> bool {
                true
            }
            fn is_dirty(&self, _frame: Frame) -> bool {
                false
            }
            fn now(&self) -> u64 {
                0
            }
        }
        let mut clock = ClockPro::new(&Parameters::new(7));
        let mut free: Vec<u32> = (0..7).collect();
        let mut state = 1_u64;
        for _ in 0..5000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if state >> 61 < 3 || free.is_empty() {
                for _ in 0..state >> 40 & 7 {
                    free.extend(clock.evict(&mut Busy).map(|frame| frame.0));
                }
            } else {
                let frame = free.pop().expect("one is free");
                clock.insert(Frame(frame), PageId(state >> 50 & 15));
            }
            assert_eq!(clock.len() + free.len(), 7);
            assert!(clock.ghosts.len() <= 7);
        }
    }
}
