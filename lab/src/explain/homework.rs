//! The policies of the OSTEP homework that have no sister in Vellum.
//!
//! "Operating Systems: Three Easy Pieces" comes with exercises on replacement, of which thousands
//! of answer sheets exist. FIFO, LRU, MRU and OPT mean the same here. Three do not, and are run as
//! the homework defines them:
//!
//! | name | there | nearest here |
//! |---|---|---|
//! | UNOPT | the page needed soonest goes: the worst that can be done on purpose | none |
//! | RAND | one draw picks the victim, by its place in order of loading | `random`, other draws |
//! | CLOCK | *draws* pages; a look lowers a use count, 0 goes | `clock`: a circle, one bit |
//!
//! The draws continue those that made the string, if chance made it, as there one generator does
//! both.

use vellum_mm::addr::Frame;
use vellum_mm::replace::board::{Board, Member};
use vellum_mm::replace::{Foresee, PageId, Policy, Witness};

use super::twister::Twister;

/// Which of the homework's own policies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Homework {
    /// Evicts the page that is needed soonest.
    Unopt,
    /// Evicts by chance.
    Rand,
    /// Draws pages by chance until one has a use count of 0.
    Clock {
        /// The largest use count.
        bits: u64,
    },
}

impl Homework {
    /// Its name there.
    pub fn name(self) -> &'static str {
        match self {
            Homework::Unopt => "UNOPT",
            Homework::Rand => "RAND",
            Homework::Clock { .. } => "CLOCK",
        }
    }

    /// What it evicts, in one line.
    pub fn line(self) -> &'static str {
        match self {
            Homework::Unopt => "evicts the page that is needed soonest, from the future: the worst",
            Homework::Rand => "evicts any page, by the chance of the OSTEP homework",
            Homework::Clock { .. } => {
                "draws pages by chance, lowers their use counts, evicts at 0 (OSTEP homework; the \
                 textbooks' circle with one bit is `clock`)"
            }
        }
    }

    /// One with no frame in it, whose chance goes on after `drawn` numbers from `seed`.
    pub(super) fn make(self, seed: u64, drawn: u64) -> Box<dyn Foresee> {
        let mut twister = Twister::new(seed);
        for _ in 0..drawn {
            let _ = twister.unit();
        }
        Box::new(Play { which: self, pages: Vec::new(), twister })
    }
}

/// References to the pages below `pages` that the homework makes from a seed.
pub(super) fn draw(seed: u64, count: usize, pages: u64) -> Vec<u64> {
    let mut twister = Twister::new(seed);
    (0..count).map(|_| twister.below(pages)).collect()
}

struct Entry {
    frame: Frame,
    count: Option<u64>, // none before the first use
    next: u64,
}

struct Play {
    which: Homework,
    pages: Vec<Entry>, // in order of loading
    twister: Twister,
}

impl Play {
    fn draw(&mut self) -> usize {
        self.twister.below(self.pages.len() as u64) as usize
    }

    fn choose(&mut self) -> Option<usize> {
        if self.pages.is_empty() {
            return None;
        }
        match self.which {
            Homework::Unopt => (0..self.pages.len()).min_by_key(|&at| self.pages[at].next),
            Homework::Rand => Some(self.draw()),
            Homework::Clock { .. } => loop {
                // Ends with certainty, for no chance is against it for ever: counts only fall.
                let at = self.draw();
                match &mut self.pages[at].count {
                    Some(count) if *count > 0 => *count -= 1,
                    _ => break Some(at),
                }
            },
        }
    }
}

impl Policy for Play {
    fn insert(&mut self, frame: Frame, _page: PageId) {
        self.pages.push(Entry { frame, count: None, next: u64::MAX });
    }

    fn remove(&mut self, frame: Frame) {
        self.pages.retain(|entry| entry.frame != frame);
    }

    fn evict(&mut self, _witness: &mut dyn Witness) -> Option<Frame> {
        let at = self.choose()?;
        Some(self.pages.remove(at).frame)
    }

    fn show(&self, board: &mut dyn Board) {
        let which = self.which;
        let members = self.pages.iter().map(|entry| {
            let member = Member::frame(entry.frame);
            match (which, entry.next) {
                (Homework::Rand, _) => member,
                (Homework::Clock { .. }, _) => member.with_count(entry.count.unwrap_or(0)),
                (Homework::Unopt, u64::MAX) => member.with_label("never"),
                (Homework::Unopt, next) => member.with_count(next),
            }
        });
        let name = match which {
            Homework::Unopt => "next use",
            Homework::Rand => "drawn from",
            Homework::Clock { .. } => "use counts",
        };
        board.list(name, &mut { members });
    }

    fn len(&self) -> usize {
        self.pages.len()
    }
}

impl Foresee for Play {
    fn foretell(&mut self, frame: Frame, next: u64) {
        let Some(entry) = self.pages.iter_mut().find(|entry| entry.frame == frame) else {
            return;
        };
        entry.next = next;
        if let Homework::Clock { bits } = self.which {
            // The use that loads a page counts whatever the limit is, as there.
            entry.count = Some(entry.count.map_or(1, |count| (count + 1).min(bits)));
        }
    }
}
