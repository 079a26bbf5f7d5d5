//! Traces: what a program did to its memory, in a file that Vellum replays.
//!
//! A trace is a sequence of [events](event): runs of accesses, and every call that changes an
//! address space. It is written once, by a recorder, an [importer](import) or a
//! [generator](generate), and replayed often, so its [format](mod@format) is made for reading: small, fast to
//! decode, in blocks that stand alone.
//!
//! ```text
//!     header | metadata | block | block | … | summary, index | trailer
//!      version  what ran    up to 65,536 events     what it came to
//! ```
//!
//! A [`Writer`] appends; what it has written is readable if it dies. A [`Reader`] yields blocks,
//! from the start or from any event, and treats the file as hostile: it is bounded in memory, finds
//! every changed byte, and reads what comes before it. Whether events make sense is for a
//! [`Checker`](check::Checker) to say, who must stand between a file and whoever indexes tables by
//! its numbers.
//!
//! ```
//! use std::io::Cursor;
//! use vellum_trace::event::{Access, Event, Kind, Meta};
//! use vellum_trace::{Notes, Reader, Writer};
//!
//! let mut file = Vec::new();
//! let mut writer = Writer::new(&mut file, &Meta::new("an example"))?;
//! for page in [7, 0, 1, 2, 0, 3] {
//!     writer.access(Access { page, thread: 0, count: 1, instructions: 10, kind: Kind::Load })?;
//! }
//! let summary = writer.finish(Notes::default())?;
//! assert_eq!((summary.events, summary.pages), (6, 5));
//!
//! let mut reader = Reader::new(Cursor::new(&file))?;
//! reader.seek_event(3)?;
//! let pages: Vec<u64> = reader
//!     .events()
//!     .map(|event| match event {
//!         Ok(Event::Access(access)) => access.page,
//!         other => panic!("{other:?}"),
//!     })
//!     .collect();
//! assert_eq!(pages, [2, 0, 3]);
//! # Ok::<(), vellum_trace::TraceError>(())
//! ```
//!
//! Generated traces and those of other tools go into any [`Sink`]; [`export`] makes tables of them.
//!
//! Knows nothing of: memory management. A trace says what was asked of the system, not what it did.

#![forbid(unsafe_code)]

mod block;
mod bytes;
mod calls;
pub mod check;
mod coding;
mod error;
pub mod event;
pub mod export;
pub mod format;
pub mod generate;
pub mod import;
mod opening;
mod page_set;
mod reader;
mod renumber;
mod sink;
mod tally;
mod writer;

pub use block::{Block, BlockDecoder};
pub use error::{Place, TraceError};
pub use reader::{Events, Reader};
pub use renumber::Numbering;
pub use sink::{Sink, Trace};
pub use tally::Notes;
pub use writer::Writer;
