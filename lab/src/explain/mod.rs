//! Explaining: a policy on a short reference string, step by step, as textbooks draw it.
//!
//! A [`Lesson`] is a string, a number of frames and a policy. Its [`steps`](Lesson::steps) are
//! plain data: what the reference was, whether it hit, who went and why, what the frames hold,
//! which bits are set, and the lists that the policy keeps, written by the policy itself on a
//! board. They are made one at a time, so that a string of a million references needs no more
//! memory than one of ten; who wants a table of all collects them.
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
mod steps;
mod subject;
mod table;
mod twister;
mod why;

pub use homework::Homework;
pub use refs::{NAME_MAX, REFS_MAX, Reference, Refs, RefsError};
pub use steps::{Content, Departure, Entry, List, Number, Outcome, Step, Steps};
pub use subject::Subject;
pub use table::{Style, Table, write_counts, write_title};

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};
use thiserror::Error;
use vellum_mm::replace::SettingError;

use memory::Memory;

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

    /// The policy on `count` reads of pages below `pages`, by the chance of the OSTEP homework: the
    /// same seed gives the same string.
    ///
    /// # Errors
    /// If there are no references or more than [`REFS_MAX`], or the same of frames and
    /// [`FRAMES_MAX`].
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
        Steps::new(self)
    }

    fn memory(&self) -> Memory {
        let policy = self.subject.make(self.frames, self.seed, self.drawn);
        Memory::new(policy, self.frames, self.refs.pages())
    }

    /// What all steps come to, without a look at each.
    pub fn counts(&self) -> Counts {
        let mut memory = self.memory();
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
