//! Reads a trace, block by block, from its start or from any event.
//!
//! A file is not trusted: every size is checked against its bound and against what the file still
//! holds before memory is taken for it, every part against its checksum before it is decoded. What
//! comes before damage is always read. A strict reader then returns an error; a lenient one ends as
//! if the trace did, with a warning.
//!
//! Knows nothing of: whether the events make sense; see [`check`](crate::check).

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crate::block::{Block, BlockDecoder};
use crate::error::TraceError;
use crate::event::{Event, Meta, Summary};
use crate::format::{BLOCK_HEADER_BYTES, BlockHeader, FooterHeader, Wrong};
use crate::opening::{Damage, Failure, Tail, read_meta, read_tail};

/// Reads events from a `.vtrace` file.
pub struct Reader<R> {
    source: R,
    name: String,
    length: u64,
    meta: Meta,
    blocks_at: u64, // offset of the first block
    tail: Result<Tail, Damage>,
    summary: Option<Summary>,
    lenient: bool,
    warnings: Vec<String>,
    position: u64, // offset of the next block
    next: u64,     // number of its first event
    skip: usize,   // events at its start that were not asked for
    ended: bool,   // a lenient reader has met damage
    block: Block,  // its buffer is reused
    decoder: BlockDecoder,
}

impl Reader<BufReader<File>> {
    /// Opens a trace. What comes before damage is read, then an error is returned.
    ///
    /// # Errors
    /// If the file cannot be read, is no trace or one of another version, or if its header or
    /// metadata is damaged: without them, events mean nothing.
    pub fn open(path: &Path) -> Result<Reader<BufReader<File>>, TraceError> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(TraceError::io("open", &name))?;
        Reader::start(BufReader::with_capacity(1 << 18, file), name, false)
    }

    /// Opens a trace that may be damaged: it ends where the damage begins, and
    /// [`warnings`](Reader::warnings) says so.
    ///
    /// # Errors
    /// As [`open`](Reader::open).
    pub fn open_lenient(path: &Path) -> Result<Reader<BufReader<File>>, TraceError> {
        let mut reader = Reader::open(path)?;
        reader.make_lenient();
        Ok(reader)
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Reads a trace from anything; `source` should be buffered.
    ///
    /// # Errors
    /// As [`open`](Reader::open).
    pub fn new(source: R) -> Result<Reader<R>, TraceError> {
        Reader::start(source, "the trace".to_owned(), false)
    }

    fn start(mut source: R, name: String, lenient: bool) -> Result<Reader<R>, TraceError> {
        let length = source.seek(SeekFrom::End(0)).map_err(TraceError::io("read", &name))?;
        let (meta, blocks_at) = read_meta(&mut source, &name, length)?;
        let (tail, summary) = match read_tail(&mut source, length, blocks_at) {
            Ok((tail, summary)) => (Ok(tail), Some(summary)),
            Err(Failure::Damage(damage)) => (Err(damage), None),
            Err(Failure::Io(source)) => {
                return Err(TraceError::Io { action: "read", name, source });
            }
        };
        source.seek(SeekFrom::Start(blocks_at)).map_err(TraceError::io("read", &name))?;
        let warnings = summary.as_ref().map_or(Vec::new(), |summary| summary.warnings.clone());
        let block = Block { name: name.clone(), ..Block::default() };
        Ok(Reader {
            source,
            name,
            length,
            meta,
            blocks_at,
            tail,
            summary,
            lenient,
            warnings,
            position: blocks_at,
            next: 0,
            skip: 0,
            ended: false,
            block,
            decoder: BlockDecoder::new()?,
        })
    }

    /// From now on, damage ends the trace with a warning instead of an error.
    pub fn make_lenient(&mut self) {
        self.lenient = true;
    }

    /// What was known before the first event.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// What was known after the last event; `None` if the end of the file is missing or damaged.
    pub fn summary(&self) -> Option<&Summary> {
        self.summary.as_ref()
    }

    /// What the recorder warned of and, once a lenient reader has met it, the damage.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The number of the event that is read next.
    pub fn position(&self) -> u64 {
        self.next + self.skip as u64
    }

    /// Replaces `events` by those of the next block; `false` at the end of the trace.
    ///
    /// # Errors
    /// If the file cannot be read, or is damaged here and the reader is not lenient. The same error
    /// comes again until [`seek_event`](Reader::seek_event) moves elsewhere.
    pub fn next_block(&mut self, events: &mut Vec<Event>) -> Result<bool, TraceError> {
        events.clear();
        let mut block = std::mem::take(&mut self.block);
        let result = self.next_into(&mut block, events);
        self.block = block;
        result
    }

    fn next_into(
        &mut self,
        block: &mut Block,
        events: &mut Vec<Event>,
    ) -> Result<bool, TraceError> {
        let (position, next) = (self.position, self.next);
        if !self.next_packed(block)? {
            return Ok(false);
        }
        let skip = std::mem::take(&mut self.skip);
        match self.decoder.decode(block, events) {
            Ok(()) => {
                events.drain(..skip);
                Ok(true)
            }
            Err(TraceError::Damaged { offset, what, .. }) => {
                (self.position, self.next) = (position, next);
                self.damaged(&Damage::new(offset, what)).map(|()| false)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the next block without decoding it; `false` at the end of the trace.
    ///
    /// After [`seek_event`](Reader::seek_event) it is the whole block that holds the event.
    ///
    /// # Errors
    /// As [`next_block`](Reader::next_block).
    pub fn next_packed(&mut self, block: &mut Block) -> Result<bool, TraceError> {
        if self.ended {
            return Ok(false);
        }
        match self.read_block(block) {
            Ok(found) => Ok(found),
            Err(Failure::Damage(damage)) => self.damaged(&damage).map(|()| false),
            Err(Failure::Io(source)) => {
                Err(TraceError::Io { action: "read", name: self.name.clone(), source })
            }
        }
    }

    /// Makes an error of damage, or a warning if the reader is lenient.
    fn damaged(&mut self, damage: &Damage) -> Result<(), TraceError> {
        let (name, events) = (self.name.clone(), self.next);
        let Damage { offset, what, cut } = damage.clone();
        if self.lenient {
            let how = if cut { "cut" } else { "damaged" };
            self.warnings.push(format!(
                "{name}: {how} at byte {offset}: {what}; only the {events} events before are used"
            ));
            self.ended = true;
            return Ok(());
        }
        Err(if cut {
            TraceError::Cut { name, offset, what, events }
        } else {
            TraceError::Damaged { name, offset, what, events }
        })
    }

    fn read_block(&mut self, block: &mut Block) -> Result<bool, Failure> {
        let at = self.position;
        if let Ok(tail) = &self.tail
            && at == tail.footer
        {
            if self.next != tail.events {
                let what = format!(
                    "the file says that it has {} events, its blocks have {}",
                    tail.events, self.next
                );
                return Err(Damage::new(at, what).into());
            }
            return Ok(false);
        }
        let header = self.read_block_header(at)?;
        // The payload, no more than what was declared, and no more than there is.
        block.packed.clear();
        let bytes = u64::from(header.packed_bytes);
        if self.length - at - (BLOCK_HEADER_BYTES as u64) < bytes {
            return Err(Damage::cut(at, "its last block is incomplete").into());
        }
        (&mut self.source).take(bytes).read_to_end(&mut block.packed)?;
        if crc32fast::hash(&block.packed) != header.packed_crc {
            return Err(Damage::new(at, "a block does not match its checksum").into());
        }
        block.offset = at;
        block.raw_bytes = header.raw_bytes;
        block.events = header.events;
        block.event_first = header.event_first;
        if block.name != self.name {
            block.name.clone_from(&self.name);
        }
        self.position = at + BLOCK_HEADER_BYTES as u64 + bytes;
        self.next += u64::from(header.events);
        Ok(true)
    }

    /// Reads the header at `at`. At the end of the blocks of a file whose end is no good, the error
    /// is what is wrong with the end.
    fn read_block_header(&mut self, at: u64) -> Result<BlockHeader, Failure> {
        if self.source.stream_position()? != at {
            self.source.seek(SeekFrom::Start(at))?;
        }
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        let left = self.length - at;
        if left < BLOCK_HEADER_BYTES as u64 {
            return Err(self.end_damage(at).into());
        }
        self.source.read_exact(&mut bytes)?;
        let header = match BlockHeader::parse(&bytes) {
            Ok(header) => header,
            Err(Wrong::Magic) if FooterHeader::begins(&bytes) => {
                return Err(self.end_damage(at).into());
            }
            Err(wrong) => return Err(Damage::wrong(at, "the header of a block", wrong).into()),
        };
        if header.event_first != self.next {
            let what = format!(
                "a block begins with event {}, but event {} is next",
                header.event_first, self.next
            );
            return Err(Damage::new(at, what).into());
        }
        Ok(header)
    }

    /// What is wrong where the blocks end and no good footer follows.
    fn end_damage(&self, at: u64) -> Damage {
        match &self.tail {
            Err(damage) if !damage.cut => damage.clone(),
            _ => Damage::cut(at, "the end of the trace is missing"),
        }
    }

    /// Makes event `number` the next to be read; `number` may be one beyond the last.
    ///
    /// # Errors
    /// [`TraceError::NoEvent`] if there is none; otherwise as [`next_block`](Reader::next_block),
    /// for a file without index is searched from its start.
    pub fn seek_event(&mut self, number: u64) -> Result<(), TraceError> {
        if let Ok(tail) = &self.tail
            && number > tail.events
        {
            return Err(self.no_event(number, tail.events));
        }
        (self.position, self.next, self.skip, self.ended) = (self.blocks_at, 0, 0, false);
        if let Ok(tail) = &self.tail {
            let index = tail.index.partition_point(|entry| entry.event_first <= number);
            if let Some(entry) = index.checked_sub(1).map(|index| tail.index[index]) {
                (self.position, self.next) = (entry.offset, entry.event_first);
            }
            if number == tail.events {
                (self.position, self.next) = (tail.footer, tail.events);
            }
        }
        let mut block = std::mem::take(&mut self.block);
        let found = self.walk_to(number, &mut block);
        self.block = block;
        found
    }

    /// Goes forward to the block that holds event `number`. Each turn reads a block, so it ends.
    fn walk_to(&mut self, number: u64, block: &mut Block) -> Result<(), TraceError> {
        while self.next < number {
            let (position, next) = (self.position, self.next);
            if !self.next_packed(block)? {
                return Err(self.no_event(number, self.next));
            }
            if number < self.next {
                (self.position, self.next) = (position, next);
                self.skip = (number - next) as usize;
                return Ok(());
            }
        }
        Ok(())
    }

    fn no_event(&self, event: u64, events: u64) -> TraceError {
        TraceError::NoEvent { name: self.name.clone(), event, events }
    }

    /// The events from here on, one by one. Slower than [`next_block`](Reader::next_block): each is
    /// moved once more.
    pub fn events(&mut self) -> Events<'_, R> {
        Events { reader: self, block: Vec::new().into_iter(), ended: false }
    }
}

/// An iterator over the events of a [`Reader`]; after an error it ends.
pub struct Events<'a, R> {
    reader: &'a mut Reader<R>,
    block: std::vec::IntoIter<Event>,
    ended: bool,
}

impl<R: Read + Seek> Iterator for Events<'_, R> {
    type Item = Result<Event, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.block.next() {
                return Some(Ok(event));
            }
            if self.ended {
                return None;
            }
            let mut events = Vec::new();
            match self.reader.next_block(&mut events) {
                Ok(true) => self.block = events.into_iter(),
                Ok(false) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
    }
}
