//! Why a trace could not be read, written, imported or exported.
//!
//! Every message starts lower-case, names the file and the place in it, and ends with what to do
//! where there is something to do.

use std::fmt;
use std::io;

/// What went wrong with a trace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The operating system refused.
    #[error("cannot {action} {name}: {source}")]
    Io {
        /// The verb: `open`, `read`, `write`, `rename`.
        action: &'static str,
        /// The file.
        name: String,
        /// The reason.
        source: io::Error,
    },
    /// The file is no `.vtrace`.
    #[error(
        "{name}: not a .vtrace file: it does not begin with `VTRACE`; \
         import traces of other formats first"
    )]
    NotATrace {
        /// The file.
        name: String,
    },
    /// The file is of another version of the format.
    #[error(
        "{name}: format version {found}, but only version {known} is known; \
             use the release of Vellum that wrote it"
    )]
    Version {
        /// The file.
        name: String,
        /// The version in the file.
        found: u32,
        /// The version that this crate reads.
        known: u32,
    },
    /// Bytes that no writer wrote, or that have changed since.
    #[error(
        "{name}: damaged at byte {offset}: {what}; \
         the {events} events before it are intact, read it leniently to use them"
    )]
    Damaged {
        /// The file.
        name: String,
        /// Where the damaged part begins.
        offset: u64,
        /// What is wrong with it.
        what: String,
        /// Events before it.
        events: u64,
    },
    /// The file ends too early: its writer died, or a copy was cut short.
    #[error(
        "{name}: cut at byte {offset}: {what}; \
         the {events} events before it are intact, read it leniently to use them"
    )]
    Cut {
        /// The file.
        name: String,
        /// Where the cut part begins.
        offset: u64,
        /// What is missing.
        what: String,
        /// Events before it.
        events: u64,
    },
    /// A well-formed event that cannot have happened.
    #[error("event {event}: {what}; the trace was not made by a sound recorder or importer")]
    Impossible {
        /// The number of the event.
        event: u64,
        /// What contradicts what.
        what: String,
    },
    /// There is no event of this number.
    #[error("{name}: there is no event {event}: the trace has {events} events")]
    NoEvent {
        /// The file.
        name: String,
        /// The number asked for.
        event: u64,
        /// The number of events that can be read.
        events: u64,
    },
    /// One event, or the metadata, is larger than the format permits.
    #[error("{what} takes {bytes} bytes, more than the {bytes_max} that the format permits")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The largest size.
        bytes_max: u64,
    },
    /// The input of an importer is not what its format says.
    #[error("{name}: {place}: expected {expected}, found {found}")]
    Import {
        /// The file.
        name: String,
        /// Where.
        place: Place,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A parameter out of its range.
    #[error("{name} must be {expected}, not {found}")]
    Parameter {
        /// The parameter.
        name: &'static str,
        /// Its range.
        expected: String,
        /// The value given.
        found: String,
    },
    /// An export could not be made.
    #[error("cannot export to {name}: {what}")]
    Export {
        /// The file.
        name: String,
        /// The reason.
        what: String,
    },
    /// The receiver of events refused one, for a reason of its own.
    #[error("{0}")]
    Sink(Box<dyn std::error::Error + Send + Sync>),
}

impl TraceError {
    /// Makes [`TraceError::Io`] of what an operation on `name` returned.
    pub(crate) fn io(action: &'static str, name: &str) -> impl FnOnce(io::Error) -> TraceError {
        let name = name.to_owned();
        move |source| TraceError::Io { action, name, source }
    }
}

/// A place in the input of an importer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// A line of text, counted from 1.
    Line(u64),
    /// A byte of a binary file (after decompression), counted from 0.
    Byte(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(line) => write!(f, "line {line}"),
            Place::Byte(byte) => write!(f, "byte {byte}"),
        }
    }
}
