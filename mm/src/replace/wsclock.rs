//! Working-set clock: a clock that takes pages which have left the working set.
//!
//! Exact working sets need every reference. Here a page's last use is known as of the last pass of
//! the hand: a frame whose accessed bit is set loses it and gets the time; one without it that was
//! used no later than Δ ago is still needed and passed; an older one goes. If it is dirty, it is
//! laundered and passed: it will be clean when the hand comes round.
//!
//! ```text
//!     hand ▶  f4 used        f1, 3 ago      f7, 90 ago, dirty      f2, 80 ago, clean
//!             now: 0 ago     passed         laundered, passed      evicted        (Δ = 50)
//! ```
//!
//! If nothing on a lap is old and clean, the working sets do not fit. The paper then looks to the
//! load; who must have a frame gets the oldest clean one that the hand passed, or else the oldest.
//!
//! Memory that is too small would cost a lap for every victim. So a search ends after a number of
//! frames that users can set; a smaller memory is searched in full. 16 bytes a frame; a victim
//! costs at most that number of steps.

use alloc::boxed::Box;
use alloc::vec;

use super::board::{Board, Member};
use super::{About, PageId, Parameters, Policy, Registered, Setting, Witness};
use crate::addr::Frame;
use crate::ring::Rings;

const DELTA: Setting = Setting {
    name: "delta",
    line: "the window: references (nanoseconds on a machine) without a use that make a page old",
    default: 100_000,
    range: 1..=u64::MAX,
};

const STEPS: Setting = Setting {
    name: "steps",
    line: "frames that the hand looks at for a victim, at most",
    default: 16,
    range: 1..=u32::MAX as u64,
};

/// The clock of working sets.
///
/// R. W. Carr, J. L. Hennessy, "WSCLOCK - A Simple and Effective Algorithm for Virtual Memory
/// Management", SOSP 1981.
pub struct WsClock {
    rings: Rings,
    hand: Option<Frame>, // the next frame to judge
    used_at: Box<[u64]>, // by frame: when it was seen used
    first: Frame,
    len: usize,
    delta: u64,
    steps: usize,
    now: u64, // the latest time that was heard of
}

impl Registered for WsClock {
    const ABOUT: About = About {
        name: "wsclock",
        line: "like clock, but takes pages unused for a window of time, clean before dirty",
        paper: "R. W. Carr, J. L. Hennessy, WSCLOCK - A Simple and Effective Algorithm, 1981",
        settings: &[DELTA, STEPS],
    };

    fn new(parameters: &Parameters) -> WsClock {
        let steps = parameters.settings.get(&STEPS);
        WsClock {
            rings: Rings::new(parameters.first, parameters.frames),
            hand: None,
            used_at: vec![0; parameters.frames].into_boxed_slice(),
            first: parameters.first,
            len: 0,
            delta: parameters.settings.get(&DELTA),
            steps: usize::try_from(steps).unwrap_or(usize::MAX),
            now: 0,
        }
    }
}

impl WsClock {
    /// Turns the hand past the frame to be evicted, or past as many as may be looked at.
    fn turn(&mut self, witness: &mut dyn Witness) -> Option<Frame> {
        self.now = self.now.max(witness.now());
        let mut best = None;
        for _ in 0..self.len.min(self.steps) {
            let frame = self.hand?;
            self.rings.rotate(&mut self.hand);
            let used_at = &mut self.used_at[(frame.0 - self.first.0) as usize];
            if witness.take_accessed(frame) {
                *used_at = self.now;
            }
            let used_at = *used_at;
            let mut dirty = witness.is_dirty(frame);
            if self.now - used_at > self.delta {
                if !dirty {
                    return Some(frame);
                }
                witness.launder(frame);
                dirty = witness.is_dirty(frame); // some worlds write at once
            }
            // Of all passed the oldest clean one, or the oldest; of equals the first.
            let cost = (dirty, used_at);
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, frame));
            }
        }
        best.map(|(_, frame)| frame)
    }
}

impl Policy for WsClock {
    fn insert(&mut self, frame: Frame, _page: PageId) {
        // Just behind the hand. Its accessed bit will tell the time at the first pass, if it is
        // used.
        self.rings.insert_before(&mut self.hand, frame);
        self.used_at[(frame.0 - self.first.0) as usize] = self.now;
        self.len += 1;
    }

    fn remove(&mut self, frame: Frame) {
        self.rings.remove(&mut self.hand, frame);
        self.len -= 1;
    }

    fn evict(&mut self, witness: &mut dyn Witness) -> Option<Frame> {
        let victim = self.turn(witness)?;
        self.remove(victim);
        Some(victim)
    }

    fn show(&self, board: &mut dyn Board) {
        let member = |frame: Frame| {
            let used_at = self.used_at[(frame.0 - self.first.0) as usize];
            let hand = self.hand == Some(frame);
            Member::frame(frame).with_hand("hand", hand).with_count(used_at)
        };
        board.list("circle", &mut self.rings.iter(self.hand).map(member));
    }

    fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bits, Model, Step, TEXTBOOK, agrees_with, faults};
    use super::*;
    use alloc::collections::VecDeque;
    use alloc::vec::Vec;

    fn clock_of(frames: u32, spec: &[(&'static Setting, u64)]) -> WsClock {
        let mut parameters = Parameters::new(frames as usize);
        for &(setting, value) in spec {
            parameters.settings.set(setting, value).expect("in its range");
        }
        let mut clock = WsClock::new(&parameters);
        (0..frames).for_each(|frame| clock.insert(Frame(frame), PageId(0)));
        clock
    }

    #[test]
    fn a_page_inside_the_window_stays_although_it_was_not_used_since_the_last_pass() {
        let mut clock = clock_of(3, &[(&DELTA, 50)]);
        let mut bits = Bits::new(3);
        bits.now = 60;
        bits.accessed = vec![true, false, true];
        assert_eq!(clock.replace(PageId(3), &mut bits), Some(Frame(1)), "loaded 60 ago");
        bits.now = 100;
        // f2 was never passed: its bit says now. f0 was seen used 40 ago, f1 was loaded then.
        assert_eq!(clock.evict(&mut bits), Some(Frame(0)), "the oldest, as none is old");
        bits.now = 120;
        assert_eq!(clock.evict(&mut bits), Some(Frame(1)), "60 ago");
    }

    #[test]
    fn an_old_dirty_page_is_written_while_a_clean_one_goes() {
        let mut clock = clock_of(3, &[(&DELTA, 50)]);
        let mut bits = Bits::new(3);
        bits.now = 60;
        bits.accessed = vec![false; 3];
        bits.dirty[0] = true;
        assert_eq!(clock.evict(&mut bits), Some(Frame(1)));
        assert!(!bits.dirty[0], "it was laundered");
        assert_eq!(clock.evict(&mut bits), Some(Frame(2)));
        assert_eq!(clock.evict(&mut bits), Some(Frame(0)));
    }

    #[test]
    fn a_search_ends_after_the_steps_that_were_set() {
        let mut clock = clock_of(100, &[(&STEPS, 5)]);
        let mut bits = Bits::new(100);
        bits.now = 10;
        assert_eq!(clock.evict(&mut bits), Some(Frame(0)));
        assert_eq!(bits.asked, 5);
        assert_eq!(clock.evict(&mut bits), Some(Frame(5)), "the hand goes on from there");
    }

    #[test]
    fn the_textbook_string_faults_ten_times_with_a_window_of_three() {
        assert_eq!(faults("wsclock:delta=3", 3, TEXTBOOK), 10);
    }

    /// A circle of pages, judged in full laps.
    struct Circle {
        frames: usize,
        delta: u64,
        now: u64,
        heard: u64,
        pages: VecDeque<Held>, // the hand is at the front
    }

    #[derive(Clone, Copy)]
    struct Held {
        page: u64,
        used: bool,
        dirty: bool,
        used_at: u64,
    }

    impl Circle {
        fn boxed(frames: usize, delta: u64) -> Box<dyn Model> {
            Box::new(Circle { frames, delta, now: 0, heard: 0, pages: VecDeque::new() })
        }

        fn victim(&mut self) -> u64 {
            self.heard = self.now;
            for at in 0..self.pages.len() {
                let held = &mut self.pages[at];
                if core::mem::take(&mut held.used) {
                    held.used_at = self.now;
                }
                if self.now - held.used_at > self.delta {
                    if !held.dirty {
                        let page = held.page;
                        self.pages.remove(at);
                        self.pages.rotate_left(at);
                        return page;
                    }
                    held.dirty = false;
                }
            }
            let oldest = self.pages.iter().min_by_key(|held| (held.dirty, held.used_at));
            let page = oldest.expect("memory is full").page;
            // The hand has gone round to the frame it began with, or to its successor.
            self.pages.retain(|held| held.page != page);
            page
        }
    }

    impl Model for Circle {
        fn step(&mut self, step: Step) -> Vec<u64> {
            let (Step::Use(page) | Step::Write(page) | Step::Drop(page)) = step;
            let written = matches!(step, Step::Write(_));
            if matches!(step, Step::Drop(_)) {
                self.pages.retain(|held| held.page != page);
                return Vec::new();
            }
            self.now += 1;
            if let Some(held) = self.pages.iter_mut().find(|held| held.page == page) {
                *held = Held { used: true, dirty: held.dirty || written, ..*held };
                return Vec::new();
            }
            let full = self.pages.len() == self.frames;
            let left = if full { vec![self.victim()] } else { Vec::new() };
            self.pages.push_back(Held { page, used: true, dirty: written, used_at: self.heard });
            left
        }
    }

    #[test]
    fn it_judges_a_circle_by_age() {
        agrees_with("wsclock:delta=6", |frames| Circle::boxed(frames, 6));
        agrees_with("wsclock", |frames| Circle::boxed(frames, 100_000));
    }
}
