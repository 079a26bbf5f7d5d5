//! Writes a trace, block by block, to a file or to anything that takes bytes.
//!
//! Invariant: what has been written is readable without what has not. A recorder may be killed at
//! any time; its file then ends without a footer, and all but its last, unfinished block is there.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::calls;
use crate::coding::{self, Encoder};
use crate::error::TraceError;
use crate::event::{Access, Call, Event, Meta, Summary};
use crate::format::{
    BLOCK_EVENTS_MAX, BLOCK_RAW_FULL, BLOCK_RAW_MAX, BlockHeader, Entry, FooterHeader, Header,
    META_BYTES_MAX, SUMMARY_BYTES_MAX, Trailer, VERSION, ZSTD_LEVEL,
};
use crate::tally::{Notes, Tally};

/// The compression of a writer in a hurry. See `hurry`.
const ZSTD_LEVEL_HURRIED: i32 = 1;

/// Writes events to a `.vtrace` file.
///
/// Dropped without [`finish`](Writer::finish), it leaves what it has written so far, which a
/// lenient reader reads; [`abandon`](Writer::abandon) removes it.
pub struct Writer<W: Write> {
    sink: W,
    name: String,
    offset: u64, // bytes written, which is where the next block begins
    encoder: Encoder,
    raw: Vec<u8>,  // the events of the open block
    call: Vec<u8>, // one call, to see its size before it joins a block
    events: u32,   // of the open block
    packer: zstd::bulk::Compressor<'static>,
    packed: Vec<u8>,
    index: Vec<Entry>,
    tally: Tally,
    place: Option<Place>,
}

/// A file that is written under another name until it is complete.
struct Place {
    file: File, // for its `sync_all`
    part: PathBuf,
    path: PathBuf,
}

impl Writer<BufWriter<File>> {
    /// Begins a trace at `path`. Until [`finish`](Writer::finish) renames it, the file is called
    /// `path` with `.part` at the end, in the same directory.
    ///
    /// # Errors
    /// If the file cannot be created, something other than a regular file is there (renaming would
    /// replace it: a device, a link), or the metadata is too large.
    pub fn create(path: &Path, meta: &Meta) -> Result<Writer<BufWriter<File>>, TraceError> {
        if fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
            let no_file = std::io::Error::other("it is not a regular file; name one, or a new one");
            return Err(TraceError::io("replace", &path.display().to_string())(no_file));
        }
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let name = part.display().to_string();
        let file = File::create(&part).map_err(TraceError::io("create", &name))?;
        let copy = file.try_clone().map_err(TraceError::io("create", &name))?;
        let mut writer = Writer::start(BufWriter::with_capacity(1 << 18, file), name, meta)?;
        writer.place = Some(Place { file: copy, part, path: path.to_owned() });
        Ok(writer)
    }
}

impl<W: Write> Writer<W> {
    /// Begins a trace in `sink`, which should be buffered: blocks are written in two pieces.
    ///
    /// # Errors
    /// If `sink` refuses or the metadata is too large.
    pub fn new(sink: W, meta: &Meta) -> Result<Writer<W>, TraceError> {
        Writer::start(sink, "the trace".to_owned(), meta)
    }

    fn start(sink: W, name: String, meta: &Meta) -> Result<Writer<W>, TraceError> {
        let packer =
            zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(TraceError::io("compress", &name))?;
        let mut writer = Writer {
            sink,
            name,
            offset: 0,
            encoder: Encoder::new(),
            raw: Vec::with_capacity(BLOCK_RAW_FULL),
            call: Vec::new(),
            events: 0,
            packer,
            packed: Vec::new(),
            index: Vec::new(),
            tally: Tally::new(),
            place: None,
        };
        let meta = json(meta, "the metadata", META_BYTES_MAX)?;
        let meta_crc = crc32fast::hash(&meta);
        let header = Header { version: VERSION, meta_bytes: meta.len() as u32, meta_crc };
        writer.write(&header.bytes())?;
        writer.write(&meta)?;
        Ok(writer)
    }

    /// Compresses in less time from here on, to a file that is some percent larger.
    ///
    /// For who writes while something else waits, such as a recorder.
    ///
    /// # Errors
    /// If the compressor refuses.
    pub fn hurry(&mut self) -> Result<(), TraceError> {
        self.packer
            .set_compression_level(ZSTD_LEVEL_HURRIED)
            .map_err(TraceError::io("compress", &self.name))
    }

    /// Events written so far.
    pub fn events(&self) -> u64 {
        self.tally.events()
    }

    /// Bytes written so far; those of the open block are not among them.
    pub fn bytes(&self) -> u64 {
        self.offset
    }

    /// Appends an event.
    ///
    /// # Errors
    /// If the sink refuses, or if one call takes more than 8 MiB.
    pub fn push(&mut self, event: &Event) -> Result<(), TraceError> {
        let call = match event {
            Event::Access(access) => return self.access(*access),
            Event::Call(call) => call,
        };
        self.call.clear();
        calls::put(call, &mut self.call);
        let bytes_max = u64::from(BLOCK_RAW_MAX) - 1; // the tag before the call
        if self.call.len() as u64 > bytes_max {
            let bytes = self.call.len() as u64;
            return Err(TraceError::TooLarge { what: "one call", bytes, bytes_max });
        }
        if self.raw.len() + self.call.len() > BLOCK_RAW_FULL {
            self.flush_block()?;
        }
        coding::put_call(&self.call, &mut self.raw);
        if matches!(**call, Call::Start { .. } | Call::Fork { .. } | Call::Thread { .. }) {
            self.encoder.doubt();
        }
        self.tally.call(call);
        self.pushed()
    }

    /// Appends an access; the fast way to do so.
    ///
    /// # Errors
    /// If the sink refuses.
    #[inline(always)]
    pub fn access(&mut self, access: Access) -> Result<(), TraceError> {
        if self.encoder.access(&access, &mut self.raw) {
            self.tally.access_again(&access);
        } else {
            self.tally.access(&access);
        }
        self.pushed()
    }

    /// Closes the block if it is full.
    #[inline]
    fn pushed(&mut self) -> Result<(), TraceError> {
        self.events += 1;
        if self.events == BLOCK_EVENTS_MAX || self.raw.len() >= BLOCK_RAW_FULL {
            return self.flush_block();
        }
        Ok(())
    }

    /// Writes the open block, however full it is, so that a reader of the unfinished file sees it.
    /// Each block restarts the coding: a block of few events is a large one.
    ///
    /// # Errors
    /// If the sink refuses.
    pub fn flush_block(&mut self) -> Result<(), TraceError> {
        if self.events == 0 {
            return Ok(());
        }
        self.packed.clear();
        self.packed.reserve(zstd::zstd_safe::compress_bound(self.raw.len()));
        self.packer
            .compress_to_buffer(&self.raw, &mut self.packed)
            .map_err(TraceError::io("compress", &self.name))?;
        let event_first = self.tally.events() - u64::from(self.events);
        let header = BlockHeader {
            raw_bytes: self.raw.len() as u32,
            packed_bytes: self.packed.len() as u32,
            events: self.events,
            event_first,
            packed_crc: crc32fast::hash(&self.packed),
        };
        self.index.push(Entry { offset: self.offset, event_first });
        self.write(&header.bytes())?;
        let packed = std::mem::take(&mut self.packed);
        self.write(&packed)?;
        self.packed = packed;
        self.raw.clear();
        self.events = 0;
        self.encoder.reset();
        Ok(())
    }

    /// Completes the trace; a file gets its name.
    ///
    /// # Errors
    /// If the sink refuses. A file then keeps its temporary name.
    pub fn finish(mut self, notes: Notes) -> Result<Summary, TraceError> {
        self.flush_block()?;
        let trailer = Trailer { footer: self.offset, events: self.tally.events() };
        let summary = std::mem::replace(&mut self.tally, Tally::new()).finish(notes);
        let mut body = json(&summary, "the summary", SUMMARY_BYTES_MAX)?;
        let summary_bytes = body.len() as u32;
        for entry in &self.index {
            body.extend_from_slice(&entry.bytes());
        }
        let crc = crc32fast::hash(&body);
        let footer = FooterHeader { summary_bytes, blocks: self.index.len() as u32, crc };
        self.write(&footer.bytes())?;
        self.write(&body)?;
        self.write(&trailer.bytes())?;
        self.sink.flush().map_err(TraceError::io("write", &self.name))?;
        if let Some(place) = self.place {
            place.file.sync_all().map_err(TraceError::io("write", &self.name))?;
            fs::rename(&place.part, &place.path).map_err(TraceError::io("rename", &self.name))?;
        }
        Ok(summary)
    }

    /// Gives the trace up; a file is removed.
    pub fn abandon(self) {
        if let Some(place) = &self.place {
            // There is nobody to tell: the caller has an error already, or wants no trace.
            let _ = fs::remove_file(&place.part);
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), TraceError> {
        self.sink.write_all(bytes).map_err(TraceError::io("write", &self.name))?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

/// `value` as JSON, if that is not too large.
fn json(
    value: &impl serde::Serialize,
    what: &'static str,
    bytes_max: u32,
) -> Result<Vec<u8>, TraceError> {
    let text = serde_json::to_vec(value).expect("plain data with text keys is always JSON");
    if text.len() as u64 > u64::from(bytes_max) {
        let (bytes, bytes_max) = (text.len() as u64, u64::from(bytes_max));
        return Err(TraceError::TooLarge { what, bytes, bytes_max });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Kind;
    use crate::sink::Trace;

    #[test]
    fn a_page_of_two_processes_counts_twice_even_within_a_block() {
        let load = |thread, page| {
            Event::Access(Access { page, thread, count: 1, instructions: 1, kind: Kind::Load })
        };
        let call = |call| Event::Call(Box::new(call));
        let events = vec![
            call(Call::Start { thread: 0, process: 0, pid: 1 }),
            load(0, 0),
            load(0, 7),
            load(0, 7),
            call(Call::Fork { thread: 0, process: 1, child: 1, pid: 2, flags: 0 }),
            load(1, 7),
            load(1, 7),
            load(0, 7),
            // Thread 0 is said to be another process's now; a writer believes its events.
            call(Call::Fork { thread: 1, process: 2, child: 0, pid: 3, flags: 0 }),
            load(0, 7),
        ];
        let meta = Meta::new("test");
        let mut writer = Writer::new(Vec::new(), &meta).expect("a vector takes everything");
        writer.hurry().expect("there is such a level");
        for event in &events {
            writer.push(event).expect("a vector takes everything");
        }
        let summary = writer.finish(Notes::default()).expect("a vector takes everything");
        assert_eq!(summary.pages, 4, "page 0, and page 7 in three processes");
        assert_eq!(summary, Trace::new(meta, events, Notes::default()).summary);
    }

    #[test]
    fn a_thread_that_changes_its_process_touches_its_pages_anew() {
        let load = Event::Access(Access {
            page: 7,
            thread: 0,
            count: 1,
            instructions: 0,
            kind: Kind::Load,
        });
        let moved = Call::Start { thread: 0, process: 5, pid: 1 };
        let mut writer = Writer::new(Vec::new(), &Meta::new("test")).expect("a vector");
        for event in [&load, &load, &Event::Call(Box::new(moved)), &load] {
            writer.push(event).expect("a vector takes everything");
        }
        let summary = writer.finish(Notes::default()).expect("a vector takes everything");
        assert_eq!(summary.pages, 2);
    }
}
