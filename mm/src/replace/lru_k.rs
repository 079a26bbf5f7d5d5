//! LRU-K: evicts the frame whose K-th last use is longest ago.
//!
//! One use says little: a page of a scan is used once, and LRU keeps it as long as any other. The
//! time of the K-th last use tells how often a page is used *now*: neither once only, nor only long
//! ago. A page that was not used K times goes before all others, the first loaded first.
//!
//! ```text
//!     now = 20           uses at          2nd last
//!     f0                 5, 17, 19        17
//!     f1                 3,  4, 18         4          goes before f0
//!     f2                 16               none        goes first of all
//! ```
//!
//! Two refinements of the paper. A page that comes back would always be one used once: so the uses
//! of evicted pages are remembered for some time (*retained information*), and a page that comes
//! back takes them up again. And several uses in short sequence, by one transaction say, are one
//! use (*correlated references*): they neither count one by one, nor may the page go in their
//! midst.
//!
//! A use writes the page's times and moves nothing. The order is looked after when a victim is
//! needed: pages without K uses wait in the ring of the young, the others in a calendar under the
//! time of the K-th last use that was true when they were put there (`calendar.rs`).
//! A time only grows, so no page is filed later than it belongs; the calendar moves a page on when
//! its day comes, at most once for each use. Over many evictions, a few steps each. 38 + 8 K bytes a
//! frame; and 28 to 36 + 8 K a remembered page; and 8 a frame for correlated references.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use super::board::{Board, Member};
use super::calendar::Calendar;
use super::ghosts::Ghosts;
use super::{About, Observe, PageId, Parameters, Policy, Registered, Setting, Witness};
use crate::addr::Frame;
use crate::ring::Rings;

const K: Setting =
    Setting { name: "k", line: "uses that are looked back", default: 2, range: 1..=8 };

const CORRELATED: Setting = Setting {
    name: "correlated",
    line: "references after a use within which the next one does not count",
    default: 0,
    range: 0..=u64::MAX,
};

const RETAIN: Setting = Setting {
    name: "retain",
    line: "evicted pages whose uses are remembered, in percent of frames",
    default: 100,
    range: 0..=1000,
};

/// The most uses that are looked back.
const K_MAX: usize = 8;
/// The times of the last uses of a page, the latest first, at which virtual time 0 means none.
type History = [u64; K_MAX];

/// LRU-K.
///
/// E. J. O'Neil, P. E. O'Neil, G. Weikum, "The LRU-K Page Replacement Algorithm For Database Disk
/// Buffering", SIGMOD 1993.
pub struct LruK {
    rings: Rings,         // frames, and ghosts behind them
    young: Option<Frame>, // ring in order of loading; who is seen to have K uses leaves it
    grown: Calendar,      // by the time of the K-th last use
    times: Box<[u64]>,    // by frame and ghost: k, the latest first; 0 first if it is none
    last: Box<[u64]>,     // by frame: its last use, correlated or not; empty if none are
    pages: Box<[PageId]>, // by frame; empty if none are remembered
    ghosts: Ghosts,
    forgotten: Option<Frame>, // ring of ghosts in order of eviction; the head is forgotten next
    first: Frame,
    frames: usize,
    len: usize,
    k: usize,
    correlated: u64,
    now: u64, // references so far
}

impl Registered for LruK {
    const ABOUT: About = About {
        name: "lru-k",
        line: "evicts the page whose K-th last use is longest ago; pages used less go first",
        paper: "E. J. O'Neil, P. E. O'Neil, G. Weikum, The LRU-K Page Replacement Algorithm, 1993",
        settings: &[K, CORRELATED, RETAIN],
    };
    const READS_BITS: bool = false;

    fn new(parameters: &Parameters) -> LruK {
        let Parameters { first, frames, settings, .. } = *parameters;
        assert!(frames < (u32::MAX - first.0) as usize, "frames are numbered in 32 bits");
        let k = settings.get(&K) as usize;
        let correlated = settings.get(&CORRELATED);
        let numbers = u64::from(u32::MAX - first.0) - frames as u64; // that ghosts can have
        let retained = (frames as u64 * settings.get(&RETAIN) / 100).min(numbers) as usize;
        LruK {
            rings: Rings::new(first, frames + retained),
            young: None,
            grown: Calendar::new(first, frames),
            times: vec![0; (frames + retained) * k].into_boxed_slice(),
            last: vec![0; if correlated > 0 { frames } else { 0 }].into_boxed_slice(),
            pages: vec![PageId(0); if retained > 0 { frames } else { 0 }].into_boxed_slice(),
            ghosts: Ghosts::new(parameters, retained),
            forgotten: None,
            first,
            frames,
            len: 0,
            k,
            correlated,
            now: 0,
        }
    }
}

impl LruK {
    #[inline]
    fn index_of(&self, frame: Frame) -> usize {
        frame.0.wrapping_sub(self.first.0) as usize
    }

    /// The index of what must be a frame of these, and no ghost.
    fn index_checked(&self, frame: Frame) -> usize {
        let (index, count) = (self.index_of(frame), self.frames);
        assert!(index < count, "{frame:?} is not among the {count} frames from {:?}", self.first);
        index
    }

    /// The times of a frame or ghost.
    #[inline]
    fn times_of(&mut self, index: usize) -> &mut [u64] {
        &mut self.times[index * self.k..][..self.k]
    }

    /// The time of the K-th last use; 0 if there is none.
    #[inline]
    fn kth(&self, index: usize) -> u64 {
        self.times[index * self.k + self.k - 1]
    }

    /// Whether the last use of a frame is so long ago that the next would count.
    #[inline]
    fn is_settled(&self, index: usize) -> bool {
        // The reference that needs a frame is under way, and the next to be counted.
        self.correlated == 0 || self.now + 1 - self.last[index] > self.correlated
    }

    /// Takes the history of `page` from its ghost.
    fn recall(&mut self, page: PageId) -> History {
        let mut history = [0; K_MAX];
        if self.ghosts.capacity() > 0
            && let Some(ghost) = self.ghosts.find(page)
        {
            let index = self.index_of(ghost);
            history[..self.k].copy_from_slice(self.times_of(index));
            self.forget(ghost);
        }
        history
    }

    fn forget(&mut self, ghost: Frame) {
        self.rings.remove(&mut self.forgotten, ghost);
        self.ghosts.remove(ghost);
    }

    /// Leaves a ghost of the page in a frame that is evicted.
    fn remember(&mut self, index: usize) {
        if self.ghosts.capacity() == 0 {
            return;
        }
        let page = self.pages[index];
        // A world may hold a page twice by accident: the later history counts.
        if let Some(ghost) = self.ghosts.find_older(page) {
            self.forget(ghost);
        }
        if self.ghosts.len() == self.ghosts.capacity() {
            self.forget(self.forgotten.expect("as many ghosts as can be are some"));
        }
        let ghost = self.ghosts.insert(page);
        self.rings.insert_before(&mut self.forgotten, ghost);
        let at = index * self.k;
        let to = self.index_of(ghost) * self.k;
        self.times.copy_within(at..at + self.k, to);
    }

    /// Puts a page that has this history, and is used now, into a frame.
    fn load(&mut self, frame: Frame, page: PageId, history: &History) {
        let index = self.index_of(frame);
        self.now += 1;
        let (now, k) = (self.now, self.k);
        let times = self.times_of(index);
        times[0] = now;
        times[1..].copy_from_slice(&history[..k - 1]);
        let kth = times[k - 1];
        if kth > 0 {
            self.grown.insert(&mut self.rings, frame, kth);
        } else {
            self.rings.insert_before(&mut self.young, frame);
        }
        if self.correlated > 0 {
            self.last[index] = now;
        }
        if self.ghosts.capacity() > 0 {
            self.pages[index] = page;
        }
        self.len += 1;
    }

    /// The index of the frame to go, which is where it was.
    fn choose(&mut self) -> Option<usize> {
        let mut unsettled = None; // the first that may not go
        let mut next = self.young;
        // Ends: after the last of the ring. Without correlated references the first that is young
        // goes.
        while let Some(frame) = next {
            let after = self.rings.next(frame);
            next = (Some(after) != self.young).then_some(after);
            let index = self.index_of(frame);
            let kth = self.kth(index);
            if kth > 0 {
                self.rings.remove(&mut self.young, frame);
                self.grown.insert(&mut self.rings, frame, kth);
            } else if self.is_settled(index) {
                return Some(index);
            } else {
                unsettled = unsettled.or(Some(index));
            }
        }
        let mut aside = None; // a ring of those that may not go
        let mut victim = None;
        // Ends: each round finds one or takes one out.
        while let Some(frame) = self.first_grown() {
            let index = self.index_of(frame);
            if self.is_settled(index) {
                victim = Some(index);
                break;
            }
            unsettled = unsettled.or(Some(index));
            self.grown.remove(&mut self.rings, frame);
            self.rings.insert_before(&mut aside, frame);
        }
        while let Some(frame) = aside {
            self.rings.remove(&mut aside, frame);
            let kth = self.kth(self.index_of(frame));
            self.grown.insert(&mut self.rings, frame, kth);
        }
        victim.or(unsettled)
    }

    /// The frame whose K-th last use is longest ago, of those seen to have one.
    #[inline]
    fn first_grown(&mut self) -> Option<Frame> {
        let (times, k) = (&self.times, self.k);
        self.grown.first(&mut self.rings, |index| times[index * k + k - 1])
    }

    /// Takes a frame out of the order.
    fn take(&mut self, frame: Frame, index: usize) {
        if self.grown.contains(frame) {
            self.grown.remove(&mut self.rings, frame);
        } else {
            self.rings.remove(&mut self.young, frame);
        }
        self.times_of(index)[0] = 0;
        self.len -= 1;
    }
}

impl Policy for LruK {
    fn insert(&mut self, frame: Frame, page: PageId) {
        self.index_checked(frame);
        assert!(!self.grown.contains(frame), "{frame:?} is evictable already");
        let history = self.recall(page);
        self.load(frame, page, &history);
    }

    fn remove(&mut self, frame: Frame) {
        let index = self.index_checked(frame);
        self.take(frame, index);
    }

    fn evict(&mut self, _witness: &mut dyn Witness) -> Option<Frame> {
        let index = self.choose()?;
        let victim = Frame(self.first.0 + index as u32);
        self.remember(index);
        self.take(victim, index);
        Some(victim)
    }

    fn replace(&mut self, page: PageId, witness: &mut dyn Witness) -> Option<Frame> {
        // First: the ghost of the victim may push out the one of the page that comes.
        let history = self.recall(page);
        let victim = self.evict(witness)?;
        self.load(victim, page, &history);
        Some(victim)
    }

    fn show(&self, board: &mut dyn Board) {
        let kth = |frame: &Frame| self.kth(self.index_of(*frame));
        let young = self.rings.iter(self.young).filter(|frame| kth(frame) == 0);
        board.list("used less than k", &mut young.map(Member::frame));
        let frames = (0..self.frames).filter(|&index| self.times[index * self.k] != 0);
        let frames = frames.map(|index| Frame(self.first.0 + index as u32));
        let mut grown: Vec<Frame> = frames.filter(|frame| kth(frame) > 0).collect();
        grown.sort_by_key(kth);
        let mut grown = grown.iter().map(|frame| Member::frame(*frame).with_count(kth(frame)));
        board.list("k-th last use", &mut grown);
        let ghosts = self.rings.iter(self.forgotten).map(|ghost| self.ghosts.page(ghost));
        board.list("history", &mut ghosts.map(Member::page));
    }

    #[inline]
    fn peek(&self, page: PageId) -> u32 {
        self.ghosts.peek(page)
    }

    fn len(&self) -> usize {
        self.len
    }
}

impl Observe for LruK {
    #[inline]
    fn touch(&mut self, frame: Frame) {
        let index = self.index_of(frame);
        if index >= self.frames || self.times[index * self.k] == 0 {
            return;
        }
        self.now += 1;
        let now = self.now;
        let mut lasted = 0; // how long the uses that count as one have lasted
        if self.correlated > 0 {
            let last = core::mem::replace(&mut self.last[index], now);
            if now - last <= self.correlated {
                return;
            }
            lasted = last - self.times[index * self.k];
        }
        let times = self.times_of(index);
        for at in (1..times.len()).rev() {
            // Earlier uses come nearer by that time: it counts as no time at all. None stays none.
            times[at] = if times[at - 1] > 0 { times[at - 1] + lasted } else { 0 };
        }
        times[0] = now;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{BELADY, Bits, Model, Step, TEXTBOOK, agrees_with, faults};
    use super::*;
    use alloc::collections::VecDeque;
    use alloc::vec::Vec;

    fn lru_k_of(frames: u32, settings: &str) -> LruK {
        let settings = super::super::Settings::parse(settings, LruK::ABOUT.settings);
        let settings = settings.expect("valid settings");
        let mut lru_k = LruK::new(&Parameters { settings, ..Parameters::new(frames as usize) });
        (0..frames).for_each(|frame| lru_k.insert(Frame(frame), PageId(frame.into())));
        lru_k
    }

    #[test]
    fn with_one_use_it_is_lru() {
        for refs in [TEXTBOOK, BELADY] {
            for frames in 1..6 {
                assert_eq!(faults("lru-k:k=1", frames, refs), faults("lru", frames, refs));
            }
        }
    }

    #[test]
    fn the_second_last_use_decides() {
        let mut lru_k = lru_k_of(3, "");
        // f0 at 1, 5, 6; f1 at 2, 4; f2 at 3, 7: the second last are 5, 2, 3.
        for frame in [1, 0, 0, 2] {
            lru_k.touch(Frame(frame));
        }
        let mut bits = Bits::new(3);
        let out: Vec<_> = core::iter::from_fn(|| lru_k.evict(&mut bits)).map(|f| f.0).collect();
        assert_eq!(out, [1, 2, 0]);
    }

    #[test]
    fn a_page_that_comes_back_takes_up_its_history() {
        // Page 0 comes back with a second last use, which pages 2 to 4 do not have: they go before
        // it.
        let refs = [0, 1, 2, 0, 3, 4, 0];
        assert_eq!(faults("lru-k", 2, &refs), 6);
        assert_eq!(faults("lru-k:retain=0", 2, &refs), 7);
    }

    #[test]
    fn uses_in_short_sequence_count_as_one_and_hold_the_page() {
        let mut lru_k = lru_k_of(2, "correlated=2");
        lru_k.touch(Frame(0));
        lru_k.touch(Frame(0));
        let mut bits = Bits::new(2);
        // f0 was used three times, at 1, 3 and 4: as it counts, never a second time. It was loaded
        // first, but its uses are not over.
        assert_eq!(lru_k.kth(0), 0);
        assert_eq!(lru_k.evict(&mut bits), Some(Frame(1)));
        assert_eq!(lru_k.evict(&mut bits), Some(Frame(0)), "there is no other");
    }

    #[test]
    fn a_scan_does_not_drive_out_what_was_used_twice() {
        let refs: Vec<u64> = [0, 1, 0, 1].into_iter().chain(2..50).chain([0, 1]).collect();
        assert_eq!(faults("lru-k", 3, &refs), 50);
    }

    #[test]
    fn a_touch_of_a_pinned_frame_is_ignored() {
        let mut lru_k = lru_k_of(2, "");
        lru_k.remove(Frame(0));
        lru_k.touch(Frame(0));
        lru_k.touch(Frame(7));
        let mut bits = Bits::new(2);
        assert_eq!(lru_k.evict(&mut bits), Some(Frame(1)));
        assert_eq!(lru_k.evict(&mut bits), None);
    }

    #[test]
    fn a_page_that_is_there_twice_leaves_one_ghost() {
        let mut lru_k = lru_k_of(3, "");
        let mut bits = Bits::new(3);
        lru_k.remove(Frame(1));
        lru_k.insert(Frame(1), PageId(0));
        while lru_k.evict(&mut bits).is_some() {}
        assert_eq!(lru_k.ghosts.len(), 2, "pages 0 and 2");
    }

    /// Pages with their histories as in the paper's figure, in order of loading.
    struct Paper {
        frames: usize,
        k: usize,
        correlated: u64,
        retained: usize,
        now: u64,
        held: Vec<Held>,
        gone: VecDeque<(u64, Vec<u64>)>,
    }

    struct Held {
        page: u64,
        frame: usize,
        hist: Vec<u64>,
        last: u64,
    }

    impl Paper {
        fn boxed(frames: usize, k: usize, correlated: u64, retain: usize) -> Box<dyn Model> {
            let retained = frames * retain / 100;
            let (held, gone) = (Vec::new(), VecDeque::new());
            Box::new(Paper { frames, k, correlated, retained, now: 0, held, gone })
        }

        fn victim(&mut self) -> u64 {
            let settled = |held: &Held| self.now - held.last > self.correlated;
            let some = self.held.iter().any(settled);
            // The minimum is the first of equals: of those without a K-th use, the first loaded.
            // Moving times by correlated uses can make others equal: of those, the lowest frame.
            let order = |&at: &usize| {
                let held = &self.held[at];
                let kth = held.hist[self.k - 1];
                (kth, if kth > 0 { held.frame } else { 0 })
            };
            let may = (0..self.held.len()).filter(|&at| !some || settled(&self.held[at]));
            let at = may.min_by_key(order).expect("memory is full");
            let Held { page, hist, .. } = self.held.remove(at);
            self.gone.push_back((page, hist));
            if self.gone.len() > self.retained {
                self.gone.pop_front();
            }
            page
        }
    }

    impl Model for Paper {
        fn step(&mut self, step: Step) -> Vec<u64> {
            let (Step::Use(page) | Step::Write(page) | Step::Drop(page)) = step;
            if matches!(step, Step::Drop(_)) {
                self.held.retain(|held| held.page != page);
                return Vec::new();
            }
            self.now += 1;
            let now = self.now;
            if let Some(held) = self.held.iter_mut().find(|held| held.page == page) {
                if now - held.last > self.correlated {
                    let period = held.last - held.hist[0];
                    held.hist.iter_mut().filter(|time| **time > 0).for_each(|time| *time += period);
                    held.hist.insert(0, now);
                    held.hist.pop();
                }
                held.last = now;
                return Vec::new();
            }
            let known = self.gone.iter().position(|gone| gone.0 == page);
            let known = known.and_then(|at| self.gone.remove(at));
            let mut hist = known.map_or(vec![0; self.k], |(_, hist)| hist);
            hist.insert(0, now);
            hist.pop();
            let full = self.held.len() == self.frames;
            let left = if full { vec![self.victim()] } else { Vec::new() };
            let taken = |frame: &usize| self.held.iter().any(|held| held.frame == *frame);
            let frame = (0..self.frames).find(|frame| !taken(frame)).expect("one is free");
            self.held.push(Held { page, frame, hist, last: now });
            left
        }
    }

    #[test]
    fn it_looks_k_uses_back() {
        agrees_with("lru-k:retain=0", |frames| Paper::boxed(frames, 2, 0, 0));
        agrees_with("lru-k:k=3:retain=0", |frames| Paper::boxed(frames, 3, 0, 0));
    }

    #[test]
    fn it_remembers_and_correlates_as_the_paper_does() {
        agrees_with("lru-k", |frames| Paper::boxed(frames, 2, 0, 100));
        agrees_with("lru-k:correlated=3", |frames| Paper::boxed(frames, 2, 3, 100));
        agrees_with("lru-k:k=3:correlated=2:retain=50", |frames| Paper::boxed(frames, 3, 2, 50));
    }
}
