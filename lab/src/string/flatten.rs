//! From a trace to a string: which page each access uses, whatever its address.
//!
//! The trace is replayed on the full system, in more memory than it can use. There a page keeps its
//! frame for as long as it lives, so frames tell pages apart through `fork`, `mremap`, shared mappings,
//! the page cache and copy-on-write; a frame that was freed and given out again is another page.
//!
//! Memory that was never written reads as the one frame of zeros, which is never evicted. In the string
//! such a page is a page all the same, by its address until its first write gives it a frame: traces of
//! other tools, which know only loads, would be empty otherwise.

use std::path::Path;

use rustc_hash::FxHashMap;
use vellum_machine::sim::Sim;
use vellum_mm::Vm;
use vellum_mm::addr::{Frame, Page};
use vellum_mm::frames::table::{Flags, Kind};
use vellum_mm::machine::SpaceId;
use vellum_trace::Reader;
use vellum_trace::event::{Meta, ProcessId};

use super::{Holds, PageNumber, RefString};
use crate::experiment::{Experiment, LabError, Progress};
use crate::report::Report;

/// No page.
const NONE: PageNumber = PageNumber::MAX;

/// A trace as a string, and what the replay that made it found.
#[derive(Debug)]
pub struct Flat {
    /// The string.
    pub string: RefString,
    /// The replay in unlimited memory.
    pub report: Report,
    /// What is known of the recording.
    pub meta: Meta,
}

/// Flattens the trace in `path`. `progress` is called from time to time.
///
/// # Errors
/// If the trace cannot be read or replayed, or has more than [`PAGES_MAX`](super::PAGES_MAX) pages.
pub fn flatten(path: &Path, progress: impl FnMut(Progress)) -> Result<Flat, LabError> {
    let recorder = Reader::open(path)?.meta().recorder.clone();
    let tape = Tape { is_requests: recorder.starts_with("import "), ..Tape::default() };
    let (report, tape, meta) = Experiment::default().run_recorded(path, tape, progress)?;
    let mut string = tape.finish()?;
    string.set_references(report.trace.references);
    Ok(Flat { string, report, meta })
}

/// Writes down which frames a replay uses.
#[derive(Debug, Default)]
pub(crate) struct Tape {
    string: RefString,
    page_in: Vec<PageNumber>,                          // by frame
    unwritten: FxHashMap<(SpaceId, Page), PageNumber>, // read as zeros so far
    freed: Vec<Frame>,
    overflow: bool,
    /// Whether each reference is a request of its own, as in the traces of caches. A program's next
    /// references to the page that it is at are one use.
    is_requests: bool,
    last: Option<(PageNumber, bool)>,
}

impl Tape {
    /// The last reference was made `count` times more.
    pub(crate) fn repeat(&mut self, count: u32) {
        if let Some((page, write)) = self.last.filter(|_| self.is_requests) {
            (0..count).for_each(|_| self.string.push(page, write));
        }
    }

    /// A use of a frame by a process, at a place in an address space if not through a file.
    pub(crate) fn reference(
        &mut self,
        vm: &Vm,
        sim: &Sim,
        process: ProcessId,
        place: Option<(SpaceId, Page)>,
        frame: Frame,
        write: bool,
    ) {
        self.forget_freed(sim);
        if let Some(page) = self.page_of(vm, place, frame) {
            self.string.push_switch(process);
            self.string.push(page, write);
            self.last = Some((page, write));
        }
    }

    /// The page that is used, a new one if need be; `None` for memory of the kernel.
    fn page_of(
        &mut self,
        vm: &Vm,
        place: Option<(SpaceId, Page)>,
        frame: Frame,
    ) -> Option<PageNumber> {
        let index = frame.index();
        if self.page_in.len() <= index {
            self.page_in.resize(index + 1, NONE);
        }
        if self.page_in[index] != NONE {
            return Some(self.page_in[index]);
        }
        let state = vm.store().frames.table.peek(frame);
        let holds = match state.kind() {
            Kind::Anon => Holds::Anonymous,
            Kind::File if state.has(Flags::MEMORY) => Holds::Anonymous,
            Kind::File => Holds::File,
            _ if frame == vm.store().zero => Holds::Anonymous,
            _ => return None,
        };
        if self.string.pages() == super::PAGES_MAX {
            self.overflow = true;
            return None;
        }
        let next = self.string.pages();
        let page = if frame == vm.store().zero {
            // Its frame is everybody's: the page goes by its address.
            return Some(*self.unwritten.entry(place?).or_insert(next));
        } else if holds == Holds::Anonymous {
            place.and_then(|place| self.unwritten.remove(&place)).unwrap_or(next)
        } else {
            next
        };
        self.page_in[index] = page;
        self.string.set_holds(page, holds);
        Some(page)
    }

    fn forget_freed(&mut self, sim: &Sim) {
        sim.take_freed(&mut self.freed);
        for frame in &self.freed {
            let Some(page) = self.page_in.get_mut(frame.index()) else { continue };
            let page = std::mem::replace(page, NONE);
            if page != NONE {
                self.string.push_free(page);
            }
        }
    }

    fn finish(self) -> Result<RefString, LabError> {
        if self.overflow { Err(LabError::TooManyPages) } else { Ok(self.string) }
    }
}
