//! What all importers share: references become accesses, and wait until the areas are known.
//!
//! References to the page and of the kind of the reference before are no events of their own; the
//! next access counts them (see [`Access::count`]), and what is left at the end a `Tick`.

use std::fs::File;
use std::io::{BufReader, BufWriter};

use crate::error::TraceError;
use crate::event::{Access, Area, Call, Event, Exit, Kind, Meta, Role};
use crate::import::areas::Touched;
use crate::reader::Reader;
use crate::sink::Sink;
use crate::tally::Notes;
use crate::writer::Writer;

/// Pages of a process: the lower half of 48-bit addresses. What is above belongs to the kernel.
pub(crate) const USER_PAGES: u64 = 1 << 35;

const THREAD: u32 = 0;
const PROCESS: u32 = 0;
const PROT_READ_WRITE: u32 = 3;
const MAP_PRIVATE_ANONYMOUS_FIXED: u32 = 0x32;

/// How an importer makes up the address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// Areas around the pages that were touched, built by the exec.
    Inferred,
    /// One anonymous private area from the lowest to the highest page touched.
    OneArea,
}

/// Who ran, as far as the input says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Program {
    pub(crate) pid: u32,
    pub(crate) arguments: Vec<String>,
}

/// Collects references, then hands over events.
pub(crate) struct Spool {
    writer: Writer<BufWriter<File>>,
    file: File,
    layout: Layout,
    touched: Touched, // filled if the layout is inferred
    lowest: u64,
    highest: u64,
    last: Option<(u64, Kind)>,
    count: u32, // references since the last access
    instructions: u64,
    kernel: u64, // references that were left out
}

impl Spool {
    pub(crate) fn new(layout: Layout) -> Result<Spool, TraceError> {
        let io = || TraceError::io("create", "a temporary file");
        let file = tempfile::tempfile().map_err(io())?;
        let copy = file.try_clone().map_err(io())?;
        Ok(Spool {
            writer: Writer::new(BufWriter::with_capacity(1 << 18, copy), &Meta::default())?,
            file,
            layout,
            touched: Touched::default(),
            lowest: u64::MAX,
            highest: 0,
            last: None,
            count: 0,
            instructions: 0,
            kernel: 0,
        })
    }

    /// An instruction was executed.
    #[inline]
    pub(crate) fn instruction(&mut self) {
        self.instructions += 1;
    }

    /// A reference was made.
    #[inline]
    pub(crate) fn reference(&mut self, page: u64, kind: Kind) -> Result<(), TraceError> {
        if self.last == Some((page, kind)) && self.count < u32::MAX - 1 {
            self.count += 1;
            return Ok(());
        }
        self.access(page, kind)
    }

    fn access(&mut self, page: u64, kind: Kind) -> Result<(), TraceError> {
        if page >= USER_PAGES {
            self.kernel += 1;
            return Ok(());
        }
        match self.layout {
            Layout::Inferred => self.touched.insert(page, kind),
            Layout::OneArea => {
                self.lowest = self.lowest.min(page);
                self.highest = self.highest.max(page);
            }
        }
        let instructions = u32::try_from(self.instructions).unwrap_or(u32::MAX);
        let excess = self.instructions - u64::from(instructions);
        if excess > 0 {
            let tick = Call::Tick { thread: THREAD, count: 0, instructions: excess };
            self.writer.push(&Event::Call(Box::new(tick)))?;
        }
        let count = self.count + 1;
        self.writer.access(Access { page, thread: THREAD, count, instructions, kind })?;
        self.last = Some((page, kind));
        (self.count, self.instructions) = (0, 0);
        Ok(())
    }

    /// Hands all events over, the address space first; adds to `warnings` what was guessed.
    pub(crate) fn finish(
        self,
        program: &Program,
        sink: &mut impl Sink,
        warnings: &mut Vec<String>,
    ) -> Result<(), TraceError> {
        if self.kernel > 0 {
            warnings.push(format!(
                "{} references beyond the addresses of a process were left out",
                self.kernel
            ));
        }
        let calls = self.address_space(program, warnings);
        for call in calls {
            sink.event(Event::Call(Box::new(call)))?;
        }
        self.writer.finish(Notes::default())?;
        let mut reader = Reader::new(BufReader::with_capacity(1 << 18, self.file))?;
        let mut events = Vec::new();
        while reader.next_block(&mut events)? {
            for event in events.drain(..) {
                match event {
                    Event::Access(access) => sink.access(access)?,
                    call @ Event::Call(_) => sink.event(call)?,
                }
            }
        }
        if self.count > 0 || self.instructions > 0 {
            let (count, instructions) = (u64::from(self.count), self.instructions);
            let tick = Call::Tick { thread: THREAD, count, instructions };
            sink.event(Event::Call(Box::new(tick)))?;
        }
        let exit = Call::Exit { thread: THREAD, process: PROCESS, exit: Exit::Unknown };
        sink.event(Event::Call(Box::new(exit)))
    }

    /// The calls that build the address space.
    fn address_space(&self, program: &Program, warnings: &mut Vec<String>) -> Vec<Call> {
        let areas = match self.layout {
            Layout::Inferred => self.touched.areas(),
            Layout::OneArea => Vec::new(),
        };
        if self.layout == Layout::Inferred {
            warnings.push(format!(
                "the format tells no system calls: {} anonymous areas were inferred from the pages \
                 touched",
                areas.len()
            ));
        }
        let one = (self.layout == Layout::OneArea && self.lowest <= self.highest)
            .then(|| self.highest + 1 - self.lowest);
        begin(program, areas, one.map(|pages| (self.lowest, pages)))
    }
}

/// The calls that begin the only process of a trace: with these areas, or with one anonymous area
/// of so many pages from a page on.
pub(crate) fn begin(
    program: &Program,
    areas: Vec<Area>,
    anonymous: Option<(u64, u64)>,
) -> Vec<Call> {
    // A heap nobody moves: it begins where the areas below the stack end.
    let below = areas.iter().take_while(|area| area.role != Role::Stack).last();
    let brk = below.or(areas.last()).map_or(0, |area| (area.page + area.pages) << 12);
    let mut calls = vec![
        Call::Start { thread: THREAD, process: PROCESS, pid: program.pid },
        Call::Exec {
            thread: THREAD,
            process: PROCESS,
            path: program.arguments.first().cloned().unwrap_or_default(),
            arguments: program.arguments.clone(),
            brk,
            areas,
            touched: Vec::new(),
        },
    ];
    if let Some((page, pages)) = anonymous {
        calls.push(Call::Map {
            thread: THREAD,
            start: page << 12,
            bytes: pages << 12,
            prot: PROT_READ_WRITE,
            flags: MAP_PRIVATE_ANONYMOUS_FIXED,
            file: None,
            offset: 0,
        });
    }
    calls
}
