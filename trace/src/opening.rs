//! Reads what surrounds the blocks of a trace: header and metadata before them, and after them the
//! summary, the index and the trailer that leads to both.
//!
//! Without the former there is no trace. Without the latter there is one whose end nobody knows, so
//! what is wrong with it is kept as a value, to be told when the blocks are read.

use std::io::{self, Read, Seek, SeekFrom};

use crate::error::TraceError;
use crate::event::{Meta, Summary};
use crate::format::{
    BLOCK_EVENTS_MAX, ENTRY_BYTES, Entry, FOOTER_HEADER_BYTES, FooterHeader, HEADER_BYTES, Header,
    MAGIC, TRAILER_BYTES, Trailer, VERSION, Wrong,
};

/// Where everything is, according to the end of the file.
pub(crate) struct Tail {
    pub(crate) footer: u64,
    pub(crate) events: u64,
    pub(crate) index: Vec<Entry>,
}

/// What is wrong, and where.
#[derive(Clone)]
pub(crate) struct Damage {
    pub(crate) offset: u64,
    pub(crate) what: String,
    pub(crate) cut: bool,
}

impl Damage {
    pub(crate) fn new(offset: u64, what: impl Into<String>) -> Damage {
        Damage { offset, what: what.into(), cut: false }
    }

    pub(crate) fn cut(offset: u64, what: impl Into<String>) -> Damage {
        Damage { offset, what: what.into(), cut: true }
    }

    pub(crate) fn wrong(offset: u64, part: &str, wrong: Wrong) -> Damage {
        Damage::new(offset, describe(part, wrong))
    }
}

fn describe(part: &str, wrong: Wrong) -> String {
    match wrong {
        Wrong::Magic => format!("{part} expected, something else found"),
        Wrong::Checksum => format!("{part} does not match its checksum"),
        Wrong::Bound(what) => format!("{what} is out of bounds"),
    }
}

/// Either the operating system failed, or the file is not what it should be.
pub(crate) enum Failure {
    Io(io::Error),
    Damage(Damage),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Io(error)
    }
}

impl From<Damage> for Failure {
    fn from(damage: Damage) -> Failure {
        Failure::Damage(damage)
    }
}

/// Reads header and metadata; returns where the blocks begin.
pub(crate) fn read_meta<R: Read + Seek>(
    source: &mut R,
    name: &str,
    length: u64,
) -> Result<(Meta, u64), TraceError> {
    let io = || TraceError::io("read", name);
    let damaged = |offset, what: String| {
        Err(TraceError::Damaged { name: name.to_owned(), offset, what, events: 0 })
    };
    source.seek(SeekFrom::Start(0)).map_err(io())?;
    if length < HEADER_BYTES as u64 {
        let mut bytes = Vec::new();
        source.take(HEADER_BYTES as u64).read_to_end(&mut bytes).map_err(io())?;
        if !bytes.is_empty() && MAGIC.starts_with(&bytes[..bytes.len().min(8)]) {
            let what = "the header is incomplete".to_owned();
            return Err(TraceError::Cut { name: name.to_owned(), offset: 0, what, events: 0 });
        }
        return Err(TraceError::NotATrace { name: name.to_owned() });
    }
    let mut bytes = [0; HEADER_BYTES];
    source.read_exact(&mut bytes).map_err(io())?;
    let header = match Header::parse(&bytes) {
        Ok(header) => header,
        Err(Wrong::Magic) => return Err(TraceError::NotATrace { name: name.to_owned() }),
        Err(wrong) => return damaged(0, describe("the header", wrong)),
    };
    if header.version != VERSION {
        let (found, known) = (header.version, VERSION);
        return Err(TraceError::Version { name: name.to_owned(), found, known });
    }
    let at = HEADER_BYTES as u64;
    if length - at < u64::from(header.meta_bytes) {
        let what = "the metadata is incomplete".to_owned();
        return Err(TraceError::Cut { name: name.to_owned(), offset: at, what, events: 0 });
    }
    let mut meta = Vec::new();
    source.take(u64::from(header.meta_bytes)).read_to_end(&mut meta).map_err(io())?;
    if crc32fast::hash(&meta) != header.meta_crc {
        return damaged(at, describe("the metadata", Wrong::Checksum));
    }
    match serde_json::from_slice(&meta) {
        Ok(meta) => Ok((meta, at + u64::from(header.meta_bytes))),
        Err(error) => damaged(at, format!("the metadata is not what it should be: {error}")),
    }
}

/// Reads trailer, summary and index.
pub(crate) fn read_tail<R: Read + Seek>(
    source: &mut R,
    length: u64,
    blocks_at: u64,
) -> Result<(Tail, Summary), Failure> {
    let Some(trailer_at) = length.checked_sub(TRAILER_BYTES as u64).filter(|at| *at >= blocks_at)
    else {
        return Err(Damage::cut(blocks_at, "the end of the trace is missing").into());
    };
    source.seek(SeekFrom::Start(trailer_at))?;
    let mut bytes = [0; TRAILER_BYTES];
    source.read_exact(&mut bytes)?;
    let trailer = match Trailer::parse(&bytes) {
        Ok(trailer) => trailer,
        // Where the file ends, and so what is missing, the blocks will tell.
        Err(Wrong::Magic) => return Err(Damage::cut(trailer_at, "no trailer").into()),
        Err(wrong) => return Err(Damage::wrong(trailer_at, "the trailer", wrong).into()),
    };
    let at = trailer.footer;
    let room = trailer_at.checked_sub(at).filter(|_| at >= blocks_at);
    let Some(room) = room.and_then(|room| room.checked_sub(FOOTER_HEADER_BYTES as u64)) else {
        let what = format!("the trailer names {at} as the offset of the footer");
        return Err(Damage::new(trailer_at, what).into());
    };
    source.seek(SeekFrom::Start(at))?;
    let mut bytes = [0; FOOTER_HEADER_BYTES];
    source.read_exact(&mut bytes)?;
    let footer =
        FooterHeader::parse(&bytes).map_err(|wrong| Damage::wrong(at, "the footer", wrong))?;
    if footer.body_bytes() != room {
        return Err(Damage::new(at, "the footer is not as long as it says").into());
    }
    let mut body = Vec::new();
    source.take(room).read_to_end(&mut body)?;
    if crc32fast::hash(&body) != footer.crc {
        return Err(Damage::wrong(at, "the footer", Wrong::Checksum).into());
    }
    let (summary, entries) = body.split_at(footer.summary_bytes as usize);
    let summary = serde_json::from_slice(summary)
        .map_err(|error| Damage::new(at, format!("the summary is no summary: {error}")))?;
    let index: Vec<Entry> = entries.chunks_exact(ENTRY_BYTES).map(Entry::parse).collect();
    check_index(&index, blocks_at, &trailer).map_err(|what| Damage::new(at, what))?;
    Ok((Tail { footer: at, events: trailer.events, index }, summary))
}

/// Whether blocks of an index follow each other, from the first event on.
fn check_index(index: &[Entry], blocks_at: u64, trailer: &Trailer) -> Result<(), &'static str> {
    let first = index.first().copied();
    if first.is_some_and(|first| first != Entry { offset: blocks_at, event_first: 0 }) {
        return Err("the index does not begin with the first block");
    }
    let end = Entry { offset: trailer.footer, event_first: trailer.events };
    let ordered = index.iter().zip(index.iter().skip(1).chain([&end])).all(|(low, high)| {
        // The bound on events also keeps their numbers far from the end of 64 bits.
        low.offset < high.offset
            && low.event_first < high.event_first
            && high.event_first - low.event_first <= u64::from(BLOCK_EVENTS_MAX)
    });
    if ordered { Ok(()) } else { Err("the index is not in order") }
}
