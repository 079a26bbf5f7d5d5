//! CAR: ARC with clocks, so that accessed bits are all it needs.
//!
//! The four queues are ARC's, but T1 and T2 are clocks: a use sets a bit and moves nothing. A hand
//! finds the victim in T1 or T2, whichever is too large. A page of T1 that was used goes to T2, one
//! of T2 goes round once more.
//!
//! ```text
//!     new ──▶ T1 ──used──▶ T2 ◀─┐ used
//!             │            │└───┘
//!             ▼ unused     ▼ unused
//!             B1 ────▶ T2 ◀──── B2       comes back, and moves the target of T1
//! ```
//!
//! A page is loaded without its bit. Hardware loads it with its bit, so that on a machine each page
//! looks used when it is first judged, and T1 filters nothing unless the world clears that first
//! bit.
//!
//! 17 bytes a frame and up to 37 for each of one ghost a frame; constant time, but for the walk of
//! the hand, which clears a bit with every step.

use super::arc::{B1, B2, T1, T2, Target};
use super::board::Board;
use super::queues::Directory;
use super::{About, PageId, Parameters, Policy, Registered, Witness};
use crate::addr::Frame;

/// CLOCK with adaptive replacement.
///
/// S. Bansal, D. S. Modha, "CAR: Clock with Adaptive Replacement", FAST 2004.
pub struct Car {
    directory: Directory<4>,
    target: Target,
    frames: usize,
}

impl Registered for Car {
    const ABOUT: About = About {
        name: "car",
        line: "balances as ARC does, with clocks: needs no more than accessed bits",
        paper: "S. Bansal, D. S. Modha, CAR: Clock with Adaptive Replacement, FAST 2004",
        settings: &[],
    };

    fn new(parameters: &Parameters) -> Car {
        let frames = parameters.frames;
        // The victim is remembered before the page that comes leaves the ghosts: one more.
        Car { directory: Directory::new(parameters, frames + 1), target: Target(0.0), frames }
    }
}

impl Car {
    /// Forgets a ghost if the directory is too large for another page that it does not know, once
    /// the victim has left the queue that it is still in.
    #[inline]
    fn forget_one(&mut self, leaves: Option<usize>) {
        let queues = &self.directory.queues;
        let once = queues.len(T1) + queues.len(B1);
        let all = once + queues.len(T2) + queues.len(B2) - usize::from(leaves.is_some());
        let once = once - usize::from(leaves == Some(T1));
        if once >= self.frames && queues.len(B1) > 0 {
            self.directory.forget(B1);
        } else if all >= 2 * self.frames {
            self.directory.forget(B2);
        }
    }

    /// The queue that `page` enters, and what that teaches.
    #[inline]
    fn entrance(&mut self, page: PageId, leaves: Option<usize>) -> usize {
        let Some(from) = self.directory.recall(page) else {
            self.forget_one(leaves);
            return T1;
        };
        let queues = &self.directory.queues;
        let others = queues.len(B1 + B2 - from);
        self.target.learn(from, queues.len(from) + 1, others, self.frames);
        T2
    }

    /// The step that the paper calls `replace()`: chooses a victim, which stays in its queue, and
    /// remembers it.
    #[inline]
    fn choose(&mut self, witness: &mut dyn Witness) -> Option<Frame> {
        let queues = &mut self.directory.queues;
        // One lap through T1 and one through T2 clear every bit. On a busy machine a page goes in
        // use.
        let mut steps = 2 * (queues.len(T1) + queues.len(T2));
        loop {
            let is_large = queues.len(T1) as f64 >= self.target.0.max(1.0);
            // Pages that were freed can leave T2 empty below the target.
            let queue = if is_large || queues.len(T2) == 0 { T1 } else { T2 };
            let candidate = queues.front(queue)?;
            if steps == 0 || !witness.take_accessed(candidate) {
                self.directory.remember(if queue == T1 { B1 } else { B2 }, candidate);
                return Some(candidate);
            }
            queues.requeue(T2, candidate);
            steps -= 1;
        }
    }
}

impl Policy for Car {
    #[inline]
    fn insert(&mut self, frame: Frame, page: PageId) {
        let queue = self.entrance(page, None);
        self.directory.admit(queue, frame, page);
    }

    #[inline]
    fn remove(&mut self, frame: Frame) {
        self.directory.queues.remove(frame);
    }

    fn evict(&mut self, witness: &mut dyn Witness) -> Option<Frame> {
        if self.directory.is_full() {
            // Only if many are evicted together.
            self.forget_one(None);
        }
        let victim = self.choose(witness)?;
        self.directory.queues.remove(victim);
        Some(victim)
    }

    #[inline]
    fn replace(&mut self, page: PageId, witness: &mut dyn Witness) -> Option<Frame> {
        if self.directory.is_full() {
            self.forget_one(None);
        }
        // The paper replaces before it looks at the page that comes.
        let victim = self.choose(witness)?;
        let leaves = self.directory.queues.queue_of(victim);
        let queue = self.entrance(page, leaves);
        self.directory.reuse(queue, victim, page);
        Some(victim)
    }

    fn load_is_use(&self) -> bool {
        false
    }

    fn show(&self, board: &mut dyn Board) {
        for (queue, name) in [(T1, "T1"), (T2, "T2"), (B1, "B1"), (B2, "B2")] {
            board.list(name, &mut self.directory.members(queue));
        }
        board.number("p", self.target.0);
    }

    #[inline]
    fn peek(&self, page: PageId) -> u32 {
        self.directory.peek(page)
    }

    #[inline]
    fn len(&self) -> usize {
        self.directory.queues.len(T1) + self.directory.queues.len(T2)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bits, Model, Step, TEXTBOOK, agrees_with, faults};
    use super::*;
    use alloc::boxed::Box;
    use alloc::collections::{BTreeSet, VecDeque};
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn the_textbook_string_faults_eleven_times() {
        assert_eq!(faults("car", 3, TEXTBOOK), 11);
    }

    #[test]
    fn a_scan_passes_by_the_pages_used_twice() {
        let mut refs: Vec<u64> = (0..5).chain(0..5).collect();
        refs.extend((100..200).chain(0..5));
        assert_eq!(faults("car", 10, &refs), 5 + 100);
        assert_eq!(faults("clock", 10, &refs), 5 + 100 + 5);
    }

    #[test]
    fn a_used_page_goes_from_the_first_clock_to_the_second() {
        let mut car = Car::new(&Parameters::new(2));
        let mut bits = Bits::new(2);
        bits.accessed = vec![true, false];
        (0..2).for_each(|frame| car.insert(Frame(frame), PageId(frame.into())));
        assert_eq!(car.evict(&mut bits), Some(Frame(1)));
        assert_eq!(car.directory.queues.queue_of(Frame(0)), Some(T2));
    }

    /// Figure 2 of the paper, heads in front.
    struct Figure {
        c: usize,
        p: f64,
        t: [VecDeque<u64>; 2],
        b: [VecDeque<u64>; 2],
        used: BTreeSet<u64>,
    }

    impl Figure {
        fn replace(&mut self) -> u64 {
            loop {
                let first = self.t[0].len() as f64 >= self.p.max(1.0) || self.t[1].is_empty();
                let side = usize::from(!first);
                let page = self.t[side].pop_front().expect("the cache is full");
                if !self.used.remove(&page) {
                    self.b[side].push_back(page);
                    return page;
                }
                self.t[1].push_back(page);
            }
        }
    }

    impl Model for Figure {
        fn step(&mut self, step: Step) -> Vec<u64> {
            let (Step::Use(page) | Step::Write(page) | Step::Drop(page)) = step;
            if matches!(step, Step::Drop(_)) {
                self.t.iter_mut().for_each(|clock| clock.retain(|&held| held != page));
                self.used.remove(&page);
                return Vec::new();
            }
            if self.t.iter().any(|clock| clock.contains(&page)) {
                self.used.insert(page);
                return Vec::new();
            }
            let is_full = self.t[0].len() + self.t[1].len() == self.c;
            let left = if is_full { vec![self.replace()] } else { Vec::new() };
            let [t1, t2, b1, b2] =
                [&self.t[0], &self.t[1], &self.b[0], &self.b[1]].map(VecDeque::len);
            match self.b.iter().position(|list| list.contains(&page)) {
                None => {
                    if t1 + b1 == self.c {
                        self.b[0].pop_front();
                    } else if t1 + t2 + b1 + b2 == 2 * self.c {
                        self.b[1].pop_front();
                    }
                    self.t[0].push_back(page);
                }
                Some(side) => {
                    self.p = match side {
                        0 => (self.p + (b2 as f64 / b1 as f64).max(1.0)).min(self.c as f64),
                        _ => (self.p - (b1 as f64 / b2 as f64).max(1.0)).max(0.0),
                    };
                    self.b[side].retain(|&other| other != page);
                    self.t[1].push_back(page);
                }
            }
            left
        }
    }

    #[test]
    fn it_is_the_papers_figure() {
        agrees_with("car", |c| {
            let (t, b, used) = Default::default();
            Box::new(Figure { c, p: 0.0, t, b, used })
        });
    }

    #[test]
    fn the_directory_is_never_larger_than_the_paper_allows() {
        let mut car = Car::new(&Parameters::new(6));
        let mut bits = Bits::new(6);
        let mut free: Vec<u32> = (0..6).collect();
        let mut state = 1_u64;
        for _ in 0..5000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bits.accessed[(state >> 36) as usize % 6] = true;
            if state >> 61 < 3 || free.is_empty() {
                free.extend((0..state >> 40 & 7).filter_map(|_| car.evict(&mut bits)).map(|f| f.0));
            } else {
                let frame = free.pop().expect("one is free");
                car.insert(Frame(frame), PageId(state >> 50 & 15));
            }
            let queues = &car.directory.queues;
            let [t1, t2, b1, b2] = [T1, T2, B1, B2].map(|queue| queues.len(queue));
            assert!(t1 + t2 + b1 + b2 <= 12 && b1 + b2 <= 7, "{t1} {t2} {b1} {b2}");
            assert_eq!(car.len() + free.len(), 6);
        }
    }
}
