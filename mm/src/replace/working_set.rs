//! Working set: a page stays as long as it was used among the last Δ references.
//!
//! What a program needs at time t is what it used lately: the set W(t, Δ) of the pages referenced
//! within (t-Δ, t]. The policy keeps exactly that set, neither less nor more: the resident set
//! breathes with the program, and a page leaves when Δ references have gone by without it, whether
//! or not somebody else wants its frame. As many programs run together as their working sets fit in
//! memory.
//!
//! ```text
//!     coldest ──▶ f3 ⇄ f0 ⇄ f7 ⇄ f2      by last use
//!      t - Δ  │ ▲ leaves                 all that are older stand in front
//! ```
//!
//! Under a full memory a fault takes the page unused longest, as LRU. 16 bytes a frame; every
//! operation takes constant time.

use alloc::boxed::Box;
use alloc::vec;

use super::board::{Board, Member};
use super::{About, PageId, Parameters, Policy, Registered, Setting, Sizing, Witness};
use crate::addr::Frame;
use crate::ring::Rings;

const DELTA: Setting = Setting {
    name: "delta",
    line: "the window: references without a use after which a page leaves",
    default: 100_000,
    range: 1..=u64::MAX,
};

/// The working set.
///
/// P. J. Denning, "The Working Set Model for Program Behavior", Communications of the ACM 11(5),
/// 1968.
pub struct WorkingSet {
    rings: Rings,
    coldest: Option<Frame>, // ring in order of last use
    used_at: Box<[u64]>,    // by frame: time of the last use
    first: Frame,
    len: usize,
    delta: u64,
    now: u64, // the latest time that was heard of
}

impl Registered for WorkingSet {
    const ABOUT: About = About {
        name: "ws",
        line: "keeps the pages used within a window of the last references, and no others",
        paper: "P. J. Denning, The Working Set Model for Program Behavior, 1968",
        settings: &[DELTA],
    };
    const READS_BITS: bool = false;

    fn new(parameters: &Parameters) -> WorkingSet {
        WorkingSet {
            rings: Rings::new(parameters.first, parameters.frames),
            coldest: None,
            used_at: vec![0; parameters.frames].into_boxed_slice(),
            first: parameters.first,
            len: 0,
            delta: parameters.settings.get(&DELTA),
            now: 0,
        }
    }
}

impl WorkingSet {
    #[inline]
    fn used_at(&mut self, frame: Frame) -> &mut u64 {
        &mut self.used_at[(frame.0 - self.first.0) as usize]
    }
}

impl Policy for WorkingSet {
    fn insert(&mut self, frame: Frame, _page: PageId) {
        self.rings.insert_before(&mut self.coldest, frame);
        *self.used_at(frame) = self.now;
        self.len += 1;
    }

    fn remove(&mut self, frame: Frame) {
        self.rings.remove(&mut self.coldest, frame);
        self.len -= 1;
    }

    fn evict(&mut self, _witness: &mut dyn Witness) -> Option<Frame> {
        let victim = self.coldest?;
        self.remove(victim);
        Some(victim)
    }

    #[inline]
    fn replace(&mut self, _page: PageId, witness: &mut dyn Witness) -> Option<Frame> {
        // The coldest becomes the hottest: the ring turns, and no link changes.
        let victim = self.coldest?;
        self.rings.rotate(&mut self.coldest);
        *self.used_at(victim) = witness.now();
        Some(victim)
    }

    fn show(&self, board: &mut dyn Board) {
        let member = |frame: Frame| {
            let used_at = self.used_at[(frame.0 - self.first.0) as usize];
            Member::frame(frame).with_count(used_at)
        };
        board.list("by last use", &mut self.rings.iter(self.coldest).map(member));
    }

    fn len(&self) -> usize {
        self.len
    }
}

impl Sizing for WorkingSet {
    #[inline]
    fn touch(&mut self, frame: Frame, now: u64) {
        if self.rings.is_linked(frame) {
            self.rings.remove(&mut self.coldest, frame);
            self.rings.insert_before(&mut self.coldest, frame);
            *self.used_at(frame) = now;
        }
    }

    #[inline]
    fn release(&mut self, fault: bool, witness: &mut dyn Witness) -> Option<Frame> {
        let coldest = self.coldest?;
        self.now = witness.now();
        if fault {
            // The page was inserted without a word of the time: it is the hottest.
            let hottest = self.rings.prev(coldest);
            *self.used_at(hottest) = self.now;
        }
        if self.now.saturating_sub(*self.used_at(coldest)) < self.delta {
            return None;
        }
        self.remove(coldest);
        Some(coldest)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bits, Memory, Model, Step, TEXTBOOK, agrees_with, faults, run};
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn the_textbook_string_faults_ten_times_with_a_window_of_four() {
        assert_eq!(faults("ws:delta=4", 20, TEXTBOOK), 10);
    }

    #[test]
    fn a_page_leaves_when_the_window_has_gone_by() {
        let steps: Vec<Step> = [1, 2, 2, 2, 2].map(Step::Use).into();
        let left = run("ws:delta=3", 10, &steps);
        assert_eq!(left, [vec![], vec![], vec![], vec![1], vec![]]);
    }

    #[test]
    fn it_holds_exactly_the_pages_of_the_window() {
        for delta in [1, 2, 3, 5, 8] {
            let mut memory = Memory::new(&alloc::format!("ws:delta={delta}"), 20);
            for (at, &page) in TEXTBOOK.iter().enumerate() {
                memory.step(Step::Use(page), u64::MAX);
                let mut held: Vec<u64> = memory.holds.iter().flatten().copied().collect();
                let mut window = TEXTBOOK[(at + 1).saturating_sub(delta)..=at].to_vec();
                held.sort_unstable();
                window.sort_unstable();
                window.dedup();
                assert_eq!(held, window, "window {delta}, reference {at}");
            }
        }
    }

    #[test]
    fn a_touch_of_a_pinned_frame_is_ignored() {
        let mut set = WorkingSet::new(&Parameters::new(2));
        (0..2).for_each(|frame| set.insert(Frame(frame), PageId(0)));
        set.remove(Frame(0));
        Sizing::touch(&mut set, Frame(0), 5);
        assert_eq!(set.evict(&mut Bits::new(2)), Some(Frame(1)));
        assert_eq!(set.evict(&mut Bits::new(2)), None);
    }

    /// Pages with the time of their last use, the coldest first.
    struct Window {
        frames: usize,
        delta: u64,
        now: u64,
        pages: Vec<(u64, u64)>,
    }

    impl Model for Window {
        fn step(&mut self, step: Step) -> Vec<u64> {
            let (Step::Use(page) | Step::Write(page) | Step::Drop(page)) = step;
            self.pages.retain(|held| held.0 != page);
            if matches!(step, Step::Drop(_)) {
                return Vec::new();
            }
            self.now += 1;
            let mut left = Vec::new();
            if self.pages.len() == self.frames {
                left.push(self.pages.remove(0).0);
            }
            self.pages.push((page, self.now));
            let stays = |held: &(u64, u64)| held.1 + self.delta > self.now;
            left.extend(self.pages.iter().filter(|held| !stays(held)).map(|held| held.0));
            self.pages.retain(stays);
            left
        }
    }

    #[test]
    fn it_is_a_window_over_the_string() {
        agrees_with("ws:delta=7", |frames| {
            Box::new(Window { frames, delta: 7, now: 0, pages: Vec::new() })
        });
        agrees_with("ws:delta=2", |frames| {
            Box::new(Window { frames, delta: 2, now: 0, pages: Vec::new() })
        });
    }
}
