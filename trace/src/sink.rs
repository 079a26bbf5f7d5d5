//! Where events go, and a trace that is held in memory.

use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::error::TraceError;
use crate::event::{Access, Event, Meta, Summary};
use crate::reader::Reader;
use crate::tally::{Notes, Tally};
use crate::writer::Writer;

/// Takes the events that an importer or a generator makes.
///
/// A [`Writer`] is one, a `Vec<Event>` is one, and so is any closure that takes an event.
pub trait Sink {
    /// Takes an event.
    ///
    /// # Errors
    /// Whatever keeps it from taking more: the maker of events then stops and passes it on.
    fn event(&mut self, event: Event) -> Result<(), TraceError>;

    /// Takes an access.
    ///
    /// # Errors
    /// As [`event`](Sink::event).
    fn access(&mut self, access: Access) -> Result<(), TraceError> {
        self.event(Event::Access(access))
    }
}

impl<W: Write> Sink for Writer<W> {
    fn event(&mut self, event: Event) -> Result<(), TraceError> {
        self.push(&event)
    }

    fn access(&mut self, access: Access) -> Result<(), TraceError> {
        Writer::access(self, access)
    }
}

impl Sink for Vec<Event> {
    fn event(&mut self, event: Event) -> Result<(), TraceError> {
        self.push(event);
        Ok(())
    }
}

impl<F: FnMut(Event) -> Result<(), TraceError>> Sink for F {
    fn event(&mut self, event: Event) -> Result<(), TraceError> {
        self(event)
    }
}

/// A whole trace in memory, for tests and small things: 24 bytes an access.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Trace {
    /// What was known before the first event.
    pub meta: Meta,
    /// The events.
    pub events: Vec<Event>,
    /// What is known after the last.
    pub summary: Summary,
}

impl Trace {
    /// Makes a trace of events; the summary is computed from them.
    pub fn new(meta: Meta, events: Vec<Event>, notes: Notes) -> Trace {
        let mut tally = Tally::new();
        for event in &events {
            tally.event(event);
        }
        Trace { meta, events, summary: tally.finish(notes) }
    }

    /// Reads a whole file: its trace, and the warnings. Of a damaged file, the trace is what comes
    /// before the damage, its summary computed anew.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn open(path: &Path) -> Result<(Trace, Vec<String>), TraceError> {
        Trace::read(Reader::open_lenient(path)?)
    }

    /// Reads what is left of a reader, leniently: the trace, and the warnings.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read<R: Read + Seek>(mut reader: Reader<R>) -> Result<(Trace, Vec<String>), TraceError> {
        reader.make_lenient();
        let whole = reader.position() == 0;
        let (mut events, mut block) = (Vec::new(), Vec::new());
        while reader.next_block(&mut block)? {
            events.append(&mut block);
        }
        let warnings = reader.warnings().to_vec();
        let meta = reader.meta().clone();
        let trace = match reader.summary() {
            Some(summary) if whole && summary.events == events.len() as u64 => {
                Trace { meta, events, summary: summary.clone() }
            }
            _ => {
                let interrupted = true;
                let notes = Notes { interrupted, warnings: warnings.clone(), ..Notes::default() };
                Trace::new(meta, events, notes)
            }
        };
        Ok((trace, warnings))
    }

    /// Writes a file.
    ///
    /// # Errors
    /// As [`Writer::create`] and [`Writer::push`]; the unfinished file is removed.
    pub fn write(&self, path: &Path) -> Result<Summary, TraceError> {
        let mut writer = Writer::create(path, &self.meta)?;
        for event in &self.events {
            if let Err(error) = writer.push(event) {
                writer.abandon();
                return Err(error);
            }
        }
        let Summary { loads, stores, fetches, ref warnings, interrupted, .. } = self.summary;
        writer.finish(Notes {
            loads: Some(loads),
            stores: Some(stores),
            fetches: Some(fetches),
            warnings: warnings.clone(),
            interrupted,
        })
    }
}
