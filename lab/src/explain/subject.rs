//! The policies that can be explained: all of Vellum's, and three that only a homework has.

use vellum_mm::replace::{
    About, Choice, Foresee, Observe, Parameters, Registered, Replacement, Setting, Sizing, Visitor,
    visit,
};

use super::{Homework, LessonError};

/// A policy to be explained.
#[derive(Clone, Copy, Debug)]
pub enum Subject {
    /// One of Vellum's.
    Vellum(Choice),
    /// One that only the OSTEP homework has.
    Homework(Homework),
}

impl Subject {
    /// The policy that `text` names, with its settings (`lru-k:k=3`), or a name of the OSTEP
    /// homework in capitals: FIFO, LRU, MRU and OPT are Vellum's, UNOPT, RAND and CLOCK the
    /// homework's own. `clock_bits` is the largest use count of the latter's CLOCK.
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

    /// Its name, and the settings that are not at their defaults, as users type them.
    pub fn spec(&self) -> String {
        match self {
            Subject::Vellum(choice) => {
                let About { name, settings, .. } = *choice.entry.about;
                let value = |setting: &Setting| choice.settings.get(setting);
                let set = settings.iter().filter(|setting| value(setting) != setting.default);
                let set = set.map(|setting| format!(":{}={}", setting.name, value(setting)));
                set.fold(name.to_owned(), |spec, setting| spec + &setting)
            }
            Subject::Homework(Homework::Clock { bits }) => format!("CLOCK -b {bits}"),
            Subject::Homework(homework) => homework.name().to_owned(),
        }
    }

    /// Whether it plays: another seed gives other victims.
    pub fn plays(&self) -> bool {
        matches!(self.name(), "random" | "nru" | "RAND" | "CLOCK")
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

    /// One with no frame in it. Chance starts from `seed`; the homework's, which made the string
    /// before, after `drawn` numbers.
    pub(super) fn make(&self, frames: u32, seed: u64, drawn: u64) -> Replacement {
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
