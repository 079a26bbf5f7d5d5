//! Bélády's anomaly: strings on which one frame more costs more faults.
//!
//! In a given string, every number of frames is tried. Without one, a shortest string is searched:
//! first all strings over a few pages, shorter ones first; then, if none of those will do, long
//! random ones, each reduced to a shortest part of it. Strings that differ only by the names of
//! pages are one: pages are numbered in order of first use.
//!
//! A stack algorithm has no anomaly: what it holds in n frames it also holds in n + 1. The search
//! is run for those too, and finding something would refute the proof, or the code.
//!
//! R. L. Mattson, J. Gecsei, D. R. Slutz, I. L. Traiger, "Evaluation Techniques for Storage
//! Hierarchies", IBM Systems Journal 9(2), 1970.

use serde::Serialize;
use vellum_mm::replace::Settings;

use super::memory::Memory;
use super::twister::Twister;
use super::{FRAMES_MAX, Homework, Lesson, LessonError, Refs, Subject};

/// How far to look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Pages of the strings that are tried one by one.
    pub pages: u32,
    /// Strings tried one by one.
    pub strings: u64,
    /// Random strings tried after them.
    pub random: u64,
    /// What chance starts from.
    pub seed: u64,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { pages: 5, strings: 300_000, random: 20_000, seed: 0 }
    }
}

/// Pages and references of the random strings.
const RANDOM_PAGES: u64 = 8;
const RANDOM_LENGTH: u64 = 48;

/// A string and a number of frames, where one frame more costs more faults.
#[derive(Serialize, Clone, Debug)]
pub struct Anomaly {
    /// With fewer frames.
    pub fewer: Lesson,
    /// With one more.
    pub more: Lesson,
    /// Faults of each.
    pub faults: (u64, u64),
}

/// What a search came to.
#[derive(Clone, Debug)]
pub enum Search {
    /// No shorter string over as few pages has one.
    Shortest(Box<Anomaly>),
    /// Chance found it; a shorter one may exist.
    Some(Box<Anomaly>),
    /// There is none among those looked at.
    None {
        /// All strings up to this length, over as many pages as the bounds say.
        length: usize,
        /// Random strings besides.
        random: u64,
    },
}

/// Whether what the policy holds in n frames is proved to be a part of what it holds in n + 1.
///
/// LRU and OPT are the ones of the textbooks. MRU and UNOPT are stack algorithms as well: both
/// order pages by something that does not depend on how many frames there are.
pub fn is_stack(subject: &Subject) -> bool {
    matches!(subject.name(), "lru" | "opt" | "mru" | "UNOPT")
}

/// Whether a reference to the page that was referenced just before changes nothing, so that a
/// shortest string has none: the search can leave them out.
fn ignores_repeats(subject: &Subject) -> bool {
    match subject {
        Subject::Vellum(choice) => match choice.entry.about.name {
            "fifo" | "lru" | "mru" | "opt" => true,
            // The bit is set already, unless a load leaves it clear.
            "clock" => choice.settings == Settings::NONE,
            _ => false,
        },
        Subject::Homework(homework) => !matches!(homework, Homework::Clock { .. }),
    }
}

/// Every number of frames with an anomaly in the lesson's string, fewest first.
pub fn all_in(lesson: &Lesson) -> Vec<Anomaly> {
    let most = (lesson.refs().pages() as u64).min(FRAMES_MAX.into());
    let mut found = Vec::new();
    let mut fewer: Option<(Lesson, u64)> = None;
    for frames in 1..=most {
        let Ok(more) = lesson.with_frames(frames) else { break };
        let faults = more.counts().faults;
        if let Some((fewer, before)) = fewer
            && faults > before
        {
            found.push(Anomaly { fewer, more: more.clone(), faults: (before, faults) });
        }
        fewer = Some((more, faults));
    }
    found
}

/// Looks for a shortest string with an anomaly.
///
/// # Errors
/// None that a policy which is there can cause.
pub fn search(subject: Subject, bounds: Bounds) -> Result<Search, LessonError> {
    let pages = bounds.pages.max(1);
    let mut left = bounds.strings;
    let mut length = 1;
    let mut whole = 0;
    while left > 0 {
        let mut string = Canonical::new(length, pages, ignores_repeats(&subject));
        loop {
            if left == 0 {
                break;
            }
            left -= 1;
            if let Some(found) = look(&string.pages, subject, bounds.seed) {
                let found = anomaly(&string.pages, found, subject, bounds.seed)?;
                return Ok(Search::Shortest(Box::new(found)));
            }
            if !string.advance() {
                whole = length;
                break;
            }
        }
        length += 1;
    }
    let mut chance = Twister::new(bounds.seed);
    for _ in 0..bounds.random {
        let pages = 3 + chance.below(RANDOM_PAGES - 2);
        let length = 8 + chance.below(RANDOM_LENGTH - 7);
        let drawn: Vec<u32> = (0..length).map(|_| chance.below(pages) as u32).collect();
        let string = renamed(&drawn);
        if look(&string, subject, bounds.seed).is_some() {
            let reduced = reduce(string, subject, bounds.seed)?;
            return Ok(Search::Some(Box::new(reduced)));
        }
    }
    Ok(Search::None { length: whole, random: bounds.random })
}

/// The fewest frames at which one frame more costs more faults on this string, whose pages are
/// numbered in order of first use.
fn look(string: &[u32], subject: Subject, seed: u64) -> Option<u32> {
    let pages = string.iter().max().map_or(0, |most| most + 1);
    let next = next_uses(string, pages as usize);
    let mut before = u64::MAX;
    // With one frame every change of page is a fault, and with one a page none but the first uses.
    for frames in 1..=pages {
        let mut memory = Memory::new(subject.make(frames, seed, 0), frames, pages as usize);
        let fault = |(&page, &next)| u64::from(memory.reference(page, false, next).fault);
        let faults = string.iter().zip(&next).map(fault).sum();
        if faults > before {
            return Some(frames - 1);
        }
        before = faults;
    }
    None
}

fn next_uses(string: &[u32], pages: usize) -> Vec<u64> {
    let mut coming = vec![u64::MAX; pages];
    let mut next = vec![u64::MAX; string.len()];
    for (at, &page) in string.iter().enumerate().rev() {
        next[at] = std::mem::replace(&mut coming[page as usize], at as u64 + 1);
    }
    next
}

/// The string with its lessons.
fn anomaly(
    string: &[u32],
    frames: u32,
    subject: Subject,
    seed: u64,
) -> Result<Anomaly, LessonError> {
    // Pages have numbers from 1, as people count.
    let refs = Refs::of_reads(string.iter().map(|&page| u64::from(page) + 1));
    let fewer = Lesson::new(refs, frames.into(), subject, seed)?;
    let more = fewer.with_frames(u64::from(frames) + 1)?;
    let faults = (fewer.counts().faults, more.counts().faults);
    Ok(Anomaly { fewer, more, faults })
}

/// Leaves references out as long as an anomaly remains.
fn reduce(mut string: Vec<u32>, subject: Subject, seed: u64) -> Result<Anomaly, LessonError> {
    // Ends: each round makes the string shorter.
    loop {
        let without = |left_out: usize| {
            let kept = (0..string.len()).filter(|&at| at != left_out);
            renamed(&kept.map(|at| string[at]).collect::<Vec<u32>>())
        };
        let mut parts = (0..string.len()).map(without);
        match parts.find(|part| look(part, subject, seed).is_some()) {
            Some(part) => string = part,
            None => break,
        }
    }
    let frames = look(&string, subject, seed).expect("a string is kept only with its anomaly");
    anomaly(&string, frames, subject, seed)
}

/// The string with its pages numbered in order of first use.
fn renamed(string: &[u32]) -> Vec<u32> {
    let mut seen = Vec::new();
    let number = |page: &u32| {
        let known = seen.iter().position(|held| held == page);
        known.unwrap_or_else(|| {
            seen.push(*page);
            seen.len() - 1
        }) as u32
    };
    string.iter().map(number).collect()
}

/// The strings of one length whose pages are numbered in order of first use, in order.
struct Canonical {
    pages: Vec<u32>,
    limit: u32,
    /// Whether to leave out those in which a page follows itself.
    skips_repeats: bool,
}

impl Canonical {
    fn new(length: usize, limit: u32, skips_repeats: bool) -> Canonical {
        let mut string = Canonical { pages: vec![0; length], limit, skips_repeats };
        string.reset(1);
        string
    }

    /// The lowest pages from `at` on.
    fn reset(&mut self, at: usize) {
        for at in at..self.pages.len() {
            let repeats = self.skips_repeats && self.pages[at - 1] == 0;
            self.pages[at] = u32::from(repeats && self.limit > 1);
        }
    }

    /// Goes to the next one; false if this was the last.
    fn advance(&mut self) -> bool {
        for at in (1..self.pages.len()).rev() {
            // A page may be one that occurs before, or the next new one.
            let new = self.pages[..at].iter().max().map_or(0, |most| most + 1);
            let most = new.min(self.limit - 1);
            let repeat = self.skips_repeats.then_some(self.pages[at - 1]);
            let next = (self.pages[at] + 1..=most).find(|&page| Some(page) != repeat);
            if let Some(next) = next {
                self.pages[at] = next;
                self.reset(at + 1);
                return true;
            }
        }
        false
    }
}
