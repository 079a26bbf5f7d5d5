//! MGLRU, the multi-generational LRU of Linux: two to four generations of pages.
//!
//! Two lists say of a page that it was used, not when. Generations say when, roughly: a page
//! belongs to the youngest generation in which it was found used. *Aging* scans all accessed bits,
//! moves the pages that were used to the youngest generation and begins a new one. *Eviction*
//! empties the oldest; a page found used on the way goes to the youngest instead.
//!
//! ```text
//!     oldest (min)                       youngest (max)
//!     [ f4 f1 f9 ] [ f7 f2 ] [ f3 f8 f5 ] [ f6 ]  ◂ loaded
//!       └▶ evicted   └──── found used ────▶ ┘
//! ```
//!
//! Aging is lazy: it waits until two generations are left, or three of which the youngest holds
//! more than half of the pages or the oldest less than a quarter.
//!
//! Left out, as no frame number tells it: the neighbours in the page table that the kernel looks at
//! on the way, and the *tiers* of pages read through file descriptors, with the controller that
//! compares how often each comes back: pages used through page tables alone are all of the first
//! tier. A scan goes by frame number, where the kernel goes by virtual address.
//!
//! 9 bytes a frame. Eviction takes as many steps as pages are spared; aging looks at every frame.

use super::board::{Board, Member};
use super::queues::Queues;
use super::{About, PageId, Parameters, Policy, Registered, Witness};
use crate::addr::Frame;

/// The most generations, and the fewest.
const GENERATIONS_MAX: usize = 4;
const GENERATIONS_MIN: usize = 2;
/// New generations that one eviction can need: two until the fewest are behind the oldest page, one
/// to spread the pages.
const AGINGS_MAX: usize = 3;

/// The multi-generational LRU.
///
/// Yu Zhao, "Multi-Gen LRU Framework", Linux 6.1, 2022: `Documentation/mm/multigen_lru.rst`.
pub struct Mglru {
    generations: Queues<GENERATIONS_MAX>, // generation n is queue n modulo their number
    oldest: usize,
    youngest: usize,
    first: Frame,
    frames: usize,
    len: usize,
}

impl Registered for Mglru {
    const ABOUT: About = About {
        name: "mglru",
        line: "sorts pages into generations by scanning accessed bits and evicts the oldest",
        paper: "Yu Zhao, Multi-Gen LRU Framework, Linux 6.1, 2022",
        settings: &[],
    };

    fn new(parameters: &Parameters) -> Mglru {
        let Parameters { first, frames, .. } = *parameters;
        let (oldest, youngest) = (0, GENERATIONS_MAX - 1);
        Mglru { generations: Queues::new(first, frames), oldest, youngest, first, frames, len: 0 }
    }
}

impl Mglru {
    /// The queue of a generation.
    #[inline]
    fn queue(generation: usize) -> usize {
        generation % GENERATIONS_MAX
    }

    /// Pages of a generation.
    #[inline]
    fn population(&self, generation: usize) -> usize {
        self.generations.len(Mglru::queue(generation))
    }

    /// Gives up generations that are empty, as long as the fewest are left.
    #[inline]
    fn retire(&mut self) {
        while self.oldest + GENERATIONS_MIN <= self.youngest && self.population(self.oldest) == 0 {
            self.oldest += 1;
        }
    }

    /// Whether a new generation is due.
    #[inline]
    fn is_aging_due(&self) -> bool {
        let count = self.youngest - self.oldest + 1;
        if count != GENERATIONS_MIN + 1 {
            return count <= GENERATIONS_MIN;
        }
        // Three: the pages should be spread over them evenly.
        self.population(self.youngest) * GENERATIONS_MIN > self.len
            || self.population(self.oldest) * (GENERATIONS_MIN + 2) < self.len
    }

    /// Moves every page that was used since its bit was last looked at to the youngest generation.
    fn scan(&mut self, witness: &mut dyn Witness) {
        let youngest = Mglru::queue(self.youngest);
        for index in 0..self.frames as u32 {
            let frame = Frame(self.first.0 + index);
            let Some(queue) = self.generations.queue_of(frame) else { continue };
            if witness.take_accessed(frame) && queue != youngest {
                self.generations.requeue(youngest, frame);
            }
        }
    }
}

impl Policy for Mglru {
    #[inline]
    fn insert(&mut self, frame: Frame, _page: PageId) {
        self.generations.append(Mglru::queue(self.youngest), frame);
        self.len += 1;
    }

    #[inline]
    fn remove(&mut self, frame: Frame) {
        self.generations.remove(frame);
        self.len -= 1;
    }

    #[inline]
    fn evict(&mut self, witness: &mut dyn Witness) -> Option<Frame> {
        let (mut agings, mut spared) = (0, 0);
        loop {
            self.retire();
            if agings < AGINGS_MAX && self.is_aging_due() {
                if agings == 0 {
                    // Later, in the same eviction, nothing was used since.
                    self.scan(witness);
                }
                self.youngest += 1;
                agings += 1;
                continue;
            }
            let mut generations = self.oldest..=self.youngest;
            let victim = generations.find_map(|at| self.generations.front(Mglru::queue(at)))?;
            // On a busy machine, one goes although it is used.
            if spared == self.len || !witness.take_accessed(victim) {
                self.remove(victim);
                return Some(victim);
            }
            spared += 1;
            self.generations.requeue(Mglru::queue(self.youngest), victim);
        }
    }

    fn show(&self, board: &mut dyn Board) {
        for (after, name) in ["oldest", "2nd", "3rd", "4th"].into_iter().enumerate() {
            let generation = self.oldest + after;
            let queue = Mglru::queue(generation);
            let there = generation <= self.youngest;
            let mut frames = self.generations.iter(queue).filter(|_| there).map(Member::frame);
            board.list(name, &mut frames);
        }
    }

    #[inline]
    fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bits, Model, Step, TEXTBOOK, agrees_with, faults};
    use super::*;
    use alloc::boxed::Box;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;

    #[test]
    fn the_textbook_string_faults_thirteen_times() {
        assert_eq!(faults("mglru", 3, TEXTBOOK), 13);
    }

    #[test]
    fn aging_moves_used_pages_ahead_of_the_others() {
        let mut mglru = Mglru::new(&Parameters::new(4));
        (0..4).for_each(|frame| mglru.insert(Frame(frame), PageId(0)));
        let mut bits = Bits::new(4);
        bits.accessed = alloc::vec![true, false, true, false];
        mglru.youngest += 1;
        mglru.oldest += 1;
        mglru.scan(&mut bits);
        let generation = |frame| mglru.generations.queue_of(Frame(frame));
        let (old, young) = (Some(Mglru::queue(3)), Some(Mglru::queue(4)));
        assert_eq!([0, 1, 2, 3].map(generation), [young, old, young, old]);
        assert!(bits.accessed.iter().all(|&accessed| !accessed));
    }

    #[test]
    fn there_are_two_to_four_generations() {
        let mut mglru = Mglru::new(&Parameters::new(9));
        let mut bits = Bits::new(9);
        let mut free: Vec<u32> = (0..9).collect();
        let mut state = 1_u64;
        for _ in 0..10_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bits.accessed[(state >> 36) as usize % 9] = true;
            if state >> 61 < 3 || free.is_empty() {
                free.extend((0..state >> 40 & 7).filter_map(|_| Some(mglru.evict(&mut bits)?.0)));
            } else {
                mglru.insert(Frame(free.pop().expect("one is free")), PageId(0));
            }
            let count = mglru.youngest - mglru.oldest + 1;
            assert!((GENERATIONS_MIN..=GENERATIONS_MAX).contains(&count), "{count}");
            assert_eq!(mglru.len() + free.len(), 9);
        }
    }

    /// Generations as rows of pages, the youngest last; frames are known by the pages in them.
    struct Generations {
        rows: Vec<Vec<u64>>,
        frames: Vec<Option<u64>>,
        accessed: BTreeSet<u64>,
    }

    impl Generations {
        fn promote(&mut self, page: u64) {
            self.rows.iter_mut().for_each(|row| row.retain(|&held| held != page));
            self.rows.last_mut().expect("a row").push(page);
        }

        fn needs_aging(&self) -> bool {
            let total: usize = self.rows.iter().map(Vec::len).sum();
            match &self.rows[..] {
                [_, _] => true,
                [old, _, young] => young.len() * 2 > total || old.len() * 4 < total,
                _ => false,
            }
        }

        fn age(&mut self) {
            for page in self.frames.clone().into_iter().flatten() {
                if self.accessed.remove(&page) && !self.rows[self.rows.len() - 1].contains(&page) {
                    self.promote(page);
                }
            }
            self.rows.push(Vec::new());
        }

        fn evict(&mut self) -> u64 {
            loop {
                while self.rows.len() > 2 && self.rows[0].is_empty() {
                    self.rows.remove(0);
                }
                if self.needs_aging() {
                    self.age();
                    continue;
                }
                let page = self.rows[0][0];
                if !self.accessed.remove(&page) {
                    self.rows[0].remove(0);
                    return page;
                }
                self.promote(page);
            }
        }
    }

    impl Model for Generations {
        fn step(&mut self, step: Step) -> Vec<u64> {
            let (Step::Use(page) | Step::Write(page) | Step::Drop(page)) = step;
            let place = self.frames.iter().position(|&held| held == Some(page));
            if matches!(step, Step::Drop(_)) {
                if let Some(place) = place {
                    self.frames[place] = None;
                    self.rows.iter_mut().for_each(|row| row.retain(|&held| held != page));
                    self.accessed.remove(&page);
                }
                return Vec::new();
            }
            let mut left = Vec::new();
            if place.is_none() {
                let free = self.frames.iter().position(Option::is_none);
                let place = free.unwrap_or_else(|| {
                    let victim = self.evict();
                    left.push(victim);
                    let held = self.frames.iter().position(|&held| held == Some(victim));
                    held.expect("the victim is in a frame")
                });
                self.frames[place] = Some(page);
                self.rows.last_mut().expect("a row").push(page);
            }
            self.accessed.insert(page);
            left
        }
    }

    #[test]
    fn it_is_rows_of_pages_that_age() {
        agrees_with("mglru", |frames| {
            let rows = alloc::vec![Vec::new(); 4];
            Box::new(Generations {
                rows,
                frames: alloc::vec![None; frames],
                accessed: BTreeSet::new(),
            })
        });
    }
}
