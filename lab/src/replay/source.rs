//! Where events come from: traces and generators, each with numbers of its own.
//!
//! A machine runs *jobs*: a recording or a pattern, with all processes in it. Every job counts its
//! threads, processes and files from 0, so they get other numbers here as they are read. With a single
//! job these are the same, so that a replay is the case of one.

use std::io::{Read, Seek};

use vellum_trace::check::Checker;
use vellum_trace::event::{Access, Event, FileId, ProcessId, ThreadId};
use vellum_trace::generate::Stream;
use vellum_trace::{Numbering, Reader, TraceError};

/// Something that yields the events of one job, block by block.
pub trait Feed {
    /// Puts the next events into `events`, in place of what is there; false at the end.
    ///
    /// # Errors
    /// If the trace cannot be read.
    fn next_block(&mut self, events: &mut Vec<Event>) -> Result<bool, TraceError>;

    /// Goes back to the first event.
    ///
    /// # Errors
    /// If the trace cannot be read.
    fn rewind(&mut self) -> Result<(), TraceError>;
}

impl<R: Read + Seek> Feed for Reader<R> {
    fn next_block(&mut self, events: &mut Vec<Event>) -> Result<bool, TraceError> {
        Reader::next_block(self, events)
    }

    fn rewind(&mut self) -> Result<(), TraceError> {
        self.seek_event(0)
    }
}

impl Feed for Stream {
    fn next_block(&mut self, events: &mut Vec<Event>) -> Result<bool, TraceError> {
        Ok(Stream::next_block(self, events))
    }

    fn rewind(&mut self) -> Result<(), TraceError> {
        Stream::rewind(self);
        Ok(())
    }
}

/// The feeds of all jobs, by job.
pub(super) type Feeds<'f> = [&'f mut dyn Feed];

/// What stands in a block where an event was taken out.
const TAKEN: Event = Event::Access(Access {
    page: 0,
    thread: 0,
    count: 1,
    instructions: 0,
    kind: vellum_trace::event::Kind::Load,
});

/// Where a trace is being read.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) block: Vec<Event>,
    pub(super) next: usize,
    pub(super) checker: Checker,
    /// Events handed out so far: the number of the next one.
    pub(super) events: u64,
    pub(super) ended: bool,
}

impl Reading {
    /// The next event, checked; `None` at the end.
    pub(super) fn next(&mut self, feed: &mut dyn Feed) -> Result<Option<Event>, TraceError> {
        while self.next == self.block.len() {
            if self.ended || !feed.next_block(&mut self.block)? {
                self.ended = true;
                self.block.clear();
                self.next = 0;
                return Ok(None);
            }
            self.next = 0;
        }
        let event = std::mem::replace(&mut self.block[self.next], TAKEN);
        self.checker.event(&event)?;
        self.next += 1;
        self.events += 1;
        Ok(Some(event))
    }
}

/// The numbers that the machine has given out to all jobs.
#[derive(Default)]
pub(super) struct Ids {
    threads: u32,
    processes: u32,
    files: u32,
}

/// The numbers of one job's threads, processes and files on the machine, by those in its trace.
#[derive(Default)]
pub(super) struct Names {
    threads: Vec<ThreadId>,
    processes: Vec<ProcessId>,
    files: Vec<FileId>,
}

impl Names {
    /// The job begins again: its processes will be others, its files the same.
    pub(super) fn forget_processes(&mut self) {
        self.threads.clear();
        self.processes.clear();
    }

    /// The number in its trace of a thread that has one on the machine.
    pub(super) fn local(&self, thread: ThreadId) -> ThreadId {
        let found = self.threads.binary_search(&thread);
        found.expect("a thread has its number before its place") as ThreadId
    }

    /// Gives `event` the machine's numbers, new ones to what appears for the first time.
    pub(super) fn rename(&mut self, ids: &mut Ids, event: &mut Event) {
        match event {
            Event::Access(access) => access.thread = Naming(self, ids).thread(access.thread),
            Event::Call(call) => call.renumber(&mut Naming(self, ids)),
        }
    }
}

struct Naming<'a>(&'a mut Names, &'a mut Ids);

/// The number at `local`; those before it that have none get theirs first. The checker bounds how far
/// a number may run ahead.
fn named(names: &mut Vec<u32>, given: &mut u32, local: u32) -> u32 {
    while names.len() <= local as usize {
        names.push(*given);
        *given += 1;
    }
    names[local as usize]
}

impl Numbering for Naming<'_> {
    fn thread(&mut self, id: ThreadId) -> ThreadId {
        named(&mut self.0.threads, &mut self.1.threads, id)
    }

    fn process(&mut self, id: ProcessId) -> ProcessId {
        named(&mut self.0.processes, &mut self.1.processes, id)
    }

    fn file(&mut self, id: FileId) -> FileId {
        named(&mut self.0.files, &mut self.1.files, id)
    }
}

/// How far a job has come.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Stage {
    /// It will begin, or begin again.
    #[default]
    ToCome,
    /// Its first event has been reached.
    Begun,
    /// It will do nothing more.
    Over,
}

/// A job on the machine.
#[derive(Default)]
pub(super) struct Source {
    pub(super) read: Reading,
    pub(super) names: Names,
    /// Events read but not executed, of all its threads.
    pub(super) queued: usize,
    /// Its threads of this run, dead ones included.
    pub(super) threads: Vec<ThreadId>,
    pub(super) stage: Stage,
    /// Whether it begins again when it ends.
    pub(super) repeats: bool,
    /// Whether a process of it was killed because memory ran out.
    pub(super) killed: bool,
    /// When this run began, in picoseconds.
    pub(super) begun_ps: u64,
    /// Runs that came to their end.
    pub(super) runs: u64,
    /// Events of runs that are over.
    pub(super) events_before: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use vellum_trace::event::{Call, Kind};

    fn access(thread: ThreadId) -> Event {
        Event::Access(Access { page: 1, thread, count: 1, instructions: 1, kind: Kind::Load })
    }

    #[test]
    fn a_single_job_keeps_its_numbers_and_a_second_one_gets_others() {
        let (mut ids, mut first, mut second) = (Ids::default(), Names::default(), Names::default());
        for thread in [0, 3, 1] {
            let mut event = access(thread);
            first.rename(&mut ids, &mut event);
            assert_eq!(event, access(thread));
        }
        let mut event = access(0);
        second.rename(&mut ids, &mut event);
        assert_eq!(event, access(4));
        let mut fork = Event::Call(Box::new(Call::Thread { thread: 0, child: 1 }));
        second.rename(&mut ids, &mut fork);
        assert_eq!(fork, Event::Call(Box::new(Call::Thread { thread: 4, child: 5 })));
    }

    #[test]
    fn a_job_that_begins_again_has_new_processes() {
        let (mut ids, mut names) = (Ids::default(), Names::default());
        let mut event = access(1);
        names.rename(&mut ids, &mut event);
        names.forget_processes();
        let mut event = access(0);
        names.rename(&mut ids, &mut event);
        assert_eq!(event, access(2));
    }
}
