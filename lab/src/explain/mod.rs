//! Explaining: a policy on a short reference string, step by step, as textbooks draw it.
//!
//! A [`Lesson`] is a string, a number of frames and a policy. Its [`steps`](Lesson::steps) are plain
//! data: what the reference was, whether it hit, who went and why, what the frames hold, which bits are
//! set, and the lists that the policy keeps, written by the policy itself on a board. They are
//! made one at a time, so that a string of a million references needs no more memory than one of ten;
//! who wants a table of all collects them.
//!
//! ```text
//!     "7,0,1w" ──▶ Refs ──▶ Lesson ──▶ Step, Step, … ──┬─▶ text      a table, for people
//!                                                      ├─▶ json      for programs
//!                                                      └─▶ quiz      the table without its answers
//! ```
//!
//! The policies are those that run everywhere else, and a table's counts are those of
//! [`simulate`](fn@crate::string::simulate::simulate) on the same string; a test compares them.
//!
//! Knows nothing of: terminals, arguments, files.

pub mod anomaly;
mod homework;
mod memory;
pub mod quiz;
mod refs;
mod table;
mod twister;
mod why;

pub use homework::Homework;
pub use refs::{NAME_MAX, REFS_MAX, Reference, Refs, RefsError};
pub use table::{Style, Table};

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};
use thiserror::Error;
use vellum_mm::replace::board::{Board, Held, Member};
use vellum_mm::replace::{
    Choice, Foresee, Observe, Parameters, Registered, Replacement, SettingError, Sizing, Visitor,
    visit,
};

use memory::{Gone, Memory, Resident};

/// The most frames that are explained: nobody reads a wider table.
pub const FRAMES_MAX: u32 = 1024;

/// Why there is no such lesson.
#[derive(Error, Debug)]
pub enum LessonError {
    /// The reference string.
    #[error(transparent)]
    Refs(#[from] RefsError),
    /// The policy.
    #[error("policy `{0}`: {1}; see `vellum policies`")]
    Policy(String, SettingError),
    /// The number of frames.
    #[error("{0} frames: an explanation takes from 1 to {FRAMES_MAX}")]
    Frames(u64),
    /// More random references than a string may have.
    #[error("{0} random references: an explanation takes from 1 to {REFS_MAX}")]
    Count(u64),
}

/// A policy to be explained.
#[derive(Clone, Copy, Debug)]
pub enum Subject {
    /// One of Vellum's.
    Vellum(Choice),
    /// One that only the OSTEP homework has.
    Homework(Homework),
}

impl Subject {
    /// The policy that `text` names, with its settings (`lru-k:k=3`), or a name of the OSTEP homework in
    /// capitals: FIFO, LRU, MRU and OPT are Vellum's, UNOPT, RAND and CLOCK the homework's own.
    /// `clock_bits` is the largest use count of the latter's CLOCK.
    ///
    /// # Errors
    /// If there is none, or it has no such setting.
    pub fn parse(text: &str, clock_bits: u64) -> Result<Subject, LessonError> {
        let known = match text {
            "UNOPT" => return Ok(Subject::Homework(Homework::Unopt)),
            "RAND" => return Ok(Subject::Homework(Homework::Rand)),
            "CLOCK" => return Ok(Subject::Homework(Homework::Clock { bits: clock_bits })),
            "FIFO" => "fifo",
            "LRU" => "lru",
            "MRU" => "mru",
            "OPT" => "opt",
            other => other,
        };
        let choice = Choice::parse(known);
        choice.map(Subject::Vellum).map_err(|error| LessonError::Policy(text.to_owned(), error))
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Subject::Vellum(choice) => choice.entry.about.name,
            Subject::Homework(homework) => homework.name(),
        }
    }

    /// What it evicts, in one line.
    pub fn line(&self) -> &'static str {
        match self {
            Subject::Vellum(choice) => choice.entry.about.line,
            Subject::Homework(homework) => homework.line(),
        }
    }

    /// Whether it asks for accessed bits.
    pub fn reads_bits(&self) -> bool {
        match self {
            Subject::Vellum(choice) => visit(choice.entry.about.name, ReadsBits).unwrap_or(true),
            Subject::Homework(_) => false,
        }
    }

    fn make(&self, frames: u32, seed: u64, drawn: u64) -> Replacement {
        match self {
            Subject::Vellum(choice) => {
                choice.make(&Parameters { seed, ..Parameters::new(frames as usize) })
            }
            Subject::Homework(homework) => Replacement::Foreseen(homework.make(seed, drawn)),
        }
    }
}

struct ReadsBits;

impl Visitor for ReadsBits {
    type Output = bool;

    fn blind<P: Registered + 'static>(self) -> bool {
        P::READS_BITS
    }

    fn observed<P: Registered + Observe + 'static>(self) -> bool {
        P::READS_BITS
    }

    fn foreseen<P: Registered + Foresee + 'static>(self) -> bool {
        P::READS_BITS
    }

    fn sizing<P: Registered + Sizing + 'static>(self) -> bool {
        P::READS_BITS
    }
}

/// A string, a memory and a policy.
#[derive(Clone, Debug)]
pub struct Lesson {
    refs: Refs,
    frames: u32,
    subject: Subject,
    seed: u64,
    drawn: u64, // numbers that chance gave to make the string
}

impl Lesson {
    /// The policy on these references.
    ///
    /// # Errors
    /// If there are no frames or more than [`FRAMES_MAX`].
    pub fn new(
        refs: Refs,
        frames: u64,
        subject: Subject,
        seed: u64,
    ) -> Result<Lesson, LessonError> {
        let frames = frames_of(frames)?;
        Ok(Lesson { refs, frames, subject, seed, drawn: 0 })
    }

    /// The policy on `count` reads of pages below `pages`, by the chance of the OSTEP homework: the same
    /// seed gives the same string.
    ///
    /// # Errors
    /// If there are no references or more than [`REFS_MAX`], or the same of frames and [`FRAMES_MAX`].
    pub fn drawn(
        count: u64,
        pages: u64,
        frames: u64,
        subject: Subject,
        seed: u64,
    ) -> Result<Lesson, LessonError> {
        if !(1..=REFS_MAX as u64).contains(&count) {
            return Err(LessonError::Count(count));
        }
        let refs = Refs::of_reads(homework::draw(seed, count as usize, pages));
        Ok(Lesson { refs, frames: frames_of(frames)?, subject, seed, drawn: count })
    }

    /// The same with another number of frames.
    ///
    /// # Errors
    /// If there are no frames or more than [`FRAMES_MAX`].
    pub fn with_frames(&self, frames: u64) -> Result<Lesson, LessonError> {
        Ok(Lesson { frames: frames_of(frames)?, ..self.clone() })
    }

    /// The string.
    pub fn refs(&self) -> &Refs {
        &self.refs
    }

    /// How many frames there are.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// The policy.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// What chance started from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Every step in turn, from empty frames on.
    pub fn steps(&self) -> Steps<'_> {
        let policy = self.subject.make(self.frames, self.seed, self.drawn);
        let mut steps = Steps {
            lesson: self,
            memory: Memory::new(policy, self.frames, self.refs.pages()),
            next: self.refs.next_uses(),
            left_at: vec![0; self.refs.pages()],
            at: 0,
            lists: Vec::new(),
        };
        steps.lists = steps.shown().lists;
        steps
    }

    /// What all steps come to, without a look at each.
    pub fn counts(&self) -> Counts {
        let policy = self.subject.make(self.frames, self.seed, self.drawn);
        let mut memory = Memory::new(policy, self.frames, self.refs.pages());
        let mut counts = Counts { pages: self.refs.pages() as u64, ..Counts::default() };
        for (reference, next) in self.refs.iter().zip(self.refs.next_uses()) {
            let event = memory.reference(reference.page, reference.write, next);
            let gone = event.victim.iter().chain(&event.released);
            counts.references += 1;
            counts.faults += u64::from(event.fault);
            counts.evictions += gone.clone().count() as u64;
            counts.writebacks += gone.filter(|gone| gone.written_back).count() as u64;
            counts.writebacks += event.laundered.len() as u64;
        }
        counts
    }
}

fn frames_of(frames: u64) -> Result<u32, LessonError> {
    let known = u32::try_from(frames).ok().filter(|frames| (1..=FRAMES_MAX).contains(frames));
    known.ok_or(LessonError::Frames(frames))
}

/// The parameters, all steps and what they come to, written one step at a time.
impl Serialize for Lesson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct All<'a>(&'a Lesson);
        impl Serialize for All<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.0.steps())
            }
        }
        let mut lesson = serializer.serialize_struct("Lesson", 7)?;
        let settings = match &self.subject {
            Subject::Vellum(choice) => {
                let settings = choice.entry.about.settings.iter();
                settings.map(|setting| (setting.name, choice.settings.get(setting))).collect()
            }
            Subject::Homework(Homework::Clock { bits }) => vec![("bits", *bits)],
            Subject::Homework(_) => Vec::new(),
        };
        let settings: std::collections::BTreeMap<_, _> = settings.into_iter().collect();
        lesson.serialize_field("vellum", env!("CARGO_PKG_VERSION"))?;
        lesson.serialize_field("policy", self.subject.name())?;
        lesson.serialize_field("settings", &settings)?;
        lesson.serialize_field("frames", &self.frames)?;
        lesson.serialize_field("seed", &self.seed)?;
        lesson.serialize_field("steps", &All(self))?;
        lesson.serialize_field("counts", &self.counts())?;
        lesson.end()
    }
}

/// What all references came to.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// References.
    pub references: u64,
    /// Those that did not find their page.
    pub faults: u64,
    /// Pages in the string: as many faults as even endless memory costs.
    pub pages: u64,
    /// Pages that left memory.
    pub evictions: u64,
    /// Pages written back because they were dirty.
    pub writebacks: u64,
}

impl Counts {
    /// References that found their page.
    pub fn hits(&self) -> u64 {
        self.references - self.faults
    }
}

/// Whether a reference found its page.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// In memory.
    Hit,
    /// Not in memory: loaded.
    Fault,
}

/// A page that left memory.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct Departure {
    /// Its name.
    pub page: String,
    /// The frame that it left.
    pub frame: u32,
    /// Whether it was dirty, and written back first.
    pub written_back: bool,
}

/// What a frame holds.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct Content {
    /// The page's name.
    pub page: String,
    /// R: used since a policy last cleared the bit.
    pub referenced: bool,
    /// D: written since it was loaded or last written back.
    pub dirty: bool,
}

/// Who is in a list of a policy, as names.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The page.
    pub page: String,
    /// The frame that holds it; none if it is only remembered.
    pub frame: Option<u32>,
    /// The policy's hands that point at it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hands: Vec<&'static str>,
    /// The policy's word for its state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<&'static str>,
    /// A number that the policy keeps of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// A list of a policy, as it shows it.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct List {
    /// The policy's name for it.
    pub name: &'static str,
    /// In the policy's order.
    pub members: Vec<Entry>,
}

/// A number that a policy steers by.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
pub struct Number {
    /// The policy's name for it.
    pub name: &'static str,
    /// It.
    pub value: u64,
}

/// A reference and what it did.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Which, from 1.
    pub time: u64,
    /// The page's name.
    pub page: String,
    /// Whether it writes.
    pub write: bool,
    /// Whether the page was there.
    pub outcome: Outcome,
    /// Where it is now.
    pub frame: u32,
    /// Who made room for it.
    pub victim: Option<Departure>,
    /// Pages that the policy gave up unasked.
    pub released: Vec<Departure>,
    /// Pages that were written back and stay.
    pub laundered: Vec<String>,
    /// What the frames hold afterwards.
    pub frames: Vec<Option<Content>>,
    /// The policy's lists afterwards.
    pub lists: Vec<List>,
    /// The policy's numbers afterwards.
    pub numbers: Vec<Number>,
    /// Why, in a short sentence; empty where nothing needs a reason.
    pub why: String,
}

/// The steps of a lesson, made one at a time.
pub struct Steps<'a> {
    lesson: &'a Lesson,
    memory: Memory,
    next: Vec<u64>,    // by reference
    left_at: Vec<u64>, // by page: the reference at which it last left memory, or 0
    at: usize,
    lists: Vec<List>, // before the reference in hand
}

impl Iterator for Steps<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let refs = &self.lesson.refs;
        let reference = refs.get(self.at)?;
        let before = self.memory.frames().to_vec();
        let event = self.memory.reference(reference.page, reference.write, self.next[self.at]);
        let Shown { lists, numbers } = self.shown();
        let time = self.at as u64 + 1;
        let why = why::Scene {
            refs,
            subject: self.lesson.subject.name(),
            reference,
            event: &event,
            left_at: self.left_at[reference.page as usize],
            frames: &before,
            next: &self.next,
            lists_before: &self.lists,
            lists_after: &lists,
        };
        let why = why.sentence();
        for gone in event.victim.iter().chain(&event.released) {
            self.left_at[gone.page as usize] = time;
        }
        self.at += 1;
        self.lists.clone_from(&lists);
        Some(Step {
            time,
            page: refs.name(reference.page).to_owned(),
            write: reference.write,
            outcome: if event.fault { Outcome::Fault } else { Outcome::Hit },
            frame: event.frame,
            victim: event.victim.as_ref().map(|gone| departure(refs, gone)),
            released: event.released.iter().map(|gone| departure(refs, gone)).collect(),
            laundered: event.laundered.iter().map(|&page| refs.name(page).to_owned()).collect(),
            frames: self.memory.frames().iter().map(|held| content(refs, held.as_ref())).collect(),
            lists,
            numbers,
            why,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.lesson.refs.len() - self.at;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Steps<'_> {}

impl Steps<'_> {
    /// What the policy shows now.
    fn shown(&self) -> Shown {
        let mut notes = Notes {
            refs: &self.lesson.refs,
            frames: self.memory.frames(),
            shown: Shown::default(),
        };
        self.memory.policy().as_policy().show(&mut notes);
        notes.shown
    }
}

fn departure(refs: &Refs, gone: &Gone) -> Departure {
    let page = refs.name(gone.page).to_owned();
    Departure { page, frame: gone.frame, written_back: gone.written_back }
}

fn content(refs: &Refs, held: Option<&Resident>) -> Option<Content> {
    let Resident { page, accessed, dirty, .. } = *held?;
    Some(Content { page: refs.name(page).to_owned(), referenced: accessed, dirty })
}

/// What a policy wrote.
#[derive(Default)]
struct Shown {
    lists: Vec<List>,
    numbers: Vec<Number>,
}

/// A board that gives frames and pages their names.
struct Notes<'a> {
    refs: &'a Refs,
    frames: &'a [Option<Resident>],
    shown: Shown,
}

impl Board for Notes<'_> {
    fn list(&mut self, name: &'static str, members: &mut dyn Iterator<Item = Member>) {
        let entry = |member: Member| {
            let (page, frame) = match member.held {
                Held::Frame(frame) => {
                    let held = self.frames.get(frame.index()).and_then(Option::as_ref)?;
                    (held.page, Some(frame.0))
                }
                Held::Page(page) => (u32::try_from(page.0).ok()?, None),
            };
            Some(Entry {
                page: self.refs.name(page).to_owned(),
                frame,
                hands: member.hands.into_iter().flatten().collect(),
                label: member.label,
                count: member.count,
            })
        };
        let members = members.filter_map(entry).collect();
        self.shown.lists.push(List { name, members });
    }

    fn number(&mut self, name: &'static str, value: u64) {
        self.shown.numbers.push(Number { name, value });
    }
}
