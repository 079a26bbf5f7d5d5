//! The half of the recorder that runs in the `vellum` command: reads every thread's ring while the
//! program runs, and makes one trace of them.
//!
//! ```text
//!     slot 0  ──ring──┐
//!     slot 1  ──ring──┼── merge by ticket ── translate ids ── sink
//!     slot 2  ──ring──┘
//! ```
//!
//! Memory is bounded: an event waits in its ring for its turn, and a thread whose ring is full
//! waits with it. A thread that dies leaves its ring behind; what is in it is read like any
//! other's.

mod counting;
mod life;
mod merge;
mod stream;
mod translate;

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use vellum_trace::event::{Call, Event, Exit, ProcessId, ThreadId};
use vellum_trace::{Sink, TraceError};

use crate::shared::{ACTIVE, DONE, FREE, Mapping};
use crate::sys;
use crate::wire::Record;
pub(crate) use counting::Counting;
pub(crate) use life::{children_that_map, is_process_alive};
use merge::{Merge, Rings};
use stream::{Item, Stream};
use translate::Translator;
pub(crate) use translate::exit_of;

impl Rings for Vec<Option<Stream<'_>>> {
    #[inline]
    fn peek(&mut self, index: usize) -> Option<u64> {
        self[index].as_mut()?.peek()
    }
}

/// What a recording came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events in the trace.
    pub events: u64,
    /// References that they stand for.
    pub references: u64,
    /// Data reads, recorded or filtered.
    pub loads: u64,
    /// Data writes.
    pub stores: u64,
    /// Translation blocks executed, and pages that blocks ran into.
    pub fetches: u64,
    /// Events whose threads were killed between counting and reporting them.
    pub lost: u64,
    /// Threads that found no free slot and ran unrecorded.
    pub threads_unrecorded: u64,
}

/// Reads all rings of a shared file.
pub(crate) struct Collector<'a> {
    mapping: &'a Mapping,
    streams: Vec<Option<Stream<'a>>>,
    merge: Merge,
    translator: Translator,
    pub(crate) counters: Counters,
    claims_seen: u64,
    /// Since when the next ticket is missing, and which one it is.
    stalled: Option<(u64, Instant)>,
}

impl<'a> Collector<'a> {
    /// A collector of what threads write into `mapping`.
    pub(crate) fn new(mapping: &'a Mapping) -> Self {
        let streams = (0..mapping.slots()).map(|_| None).collect();
        Self {
            mapping,
            streams,
            merge: Merge::default(),
            translator: Translator::default(),
            counters: Counters::default(),
            claims_seen: 0,
            stalled: None,
        }
    }

    /// Moves every event that is in order to `sink`; how many.
    ///
    /// # Errors
    /// Those of `sink`.
    pub(crate) fn pump(&mut self, sink: &mut impl Sink) -> Result<u64, TraceError> {
        /// Events after which a caller gets a look at the world, and a thread its room.
        const TURN: u64 = 1 << 16;
        self.discover();
        let mut taken = 0;
        while taken < TURN {
            let Some(index) = self.merge.find(&mut self.streams) else { break };
            taken += self.run(index, sink)?;
            self.merge.add(index, &mut self.streams);
        }
        Ok(taken)
    }

    /// Finds slots that were taken since the last look.
    fn discover(&mut self) {
        let claims = self.mapping.header().claims.load(Acquire);
        if claims == self.claims_seen {
            return;
        }
        self.claims_seen = claims;
        for index in 0..self.streams.len() {
            let slot = self.mapping.slot(index);
            let state = slot.control().state.load(Acquire);
            if self.streams[index].is_none() && matches!(state, ACTIVE | DONE) {
                self.streams[index] = Some(Stream::new(slot));
                self.merge.add(index, &mut self.streams);
            }
        }
    }

    /// Takes events from one ring as long as it is that ring's turn.
    fn run(&mut self, index: usize, sink: &mut impl Sink) -> Result<u64, TraceError> {
        /// Events after which the thread is told of its new room.
        const COMMIT: u64 = 1 << 10;
        let mut taken = 0;
        // Nearly everything: references of a thread that the trace knows.
        if let Some(stream) = &mut self.streams[index]
            && let (Some(thread), false) = (stream.thread, stream.silent)
        {
            let mut turn = self.merge.next();
            while taken < COMMIT
                && let Some((ticket, reference)) = stream.take_reference(turn)
            {
                turn = turn.max(ticket.wrapping_add(1));
                sink.access(reference.by(thread))?;
                taken += 1;
            }
            self.merge.advance(turn);
        }
        while taken < COMMIT
            && let Some(stream) = &mut self.streams[index]
            && let Some(ticket) = stream.peek()
            && ticket <= self.merge.next()
        {
            let item = stream.take();
            self.merge.took(ticket);
            self.item(index, item, sink)?;
            taken += 1;
        }
        if let Some(stream) = &self.streams[index] {
            stream.commit();
        }
        Ok(taken)
    }

    /// Handles everything but the common access.
    fn item(&mut self, index: usize, item: Item, sink: &mut impl Sink) -> Result<(), TraceError> {
        let Some(stream) = &mut self.streams[index] else { return Ok(()) };
        if stream.silent {
            return Ok(());
        }
        let thread = if let Some(thread) = stream.thread {
            thread
        } else {
            let first = if let Item::Call(record) = &item { Some(record) } else { None };
            let thread = self.translator.meet(stream.pid, stream.tid, first, sink)?;
            stream.thread = Some(thread);
            thread
        };
        let tid = stream.tid;
        match item {
            Item::Access(reference) => sink.access(reference.by(thread)),
            Item::Broken => {
                let warning =
                    format!("thread {tid} overwrote its ring: some of its events are lost");
                self.translator.warnings.push(warning);
                Ok(())
            }
            Item::Call(record @ Record::Exec { .. }) => {
                let process = self.translator.process_of(thread);
                settle(&mut self.streams, &self.translator, process, Some(index), sink)?;
                let thread = self.translator.exec(thread, record, sink)?;
                if let Some(stream) = &mut self.streams[index] {
                    stream.thread = Some(thread);
                }
                Ok(())
            }
            Item::Call(Record::ThreadExit { code }) => {
                if self.translator.end_thread(thread, tid) {
                    sink.event(Event::Call(Box::new(Call::ThreadExit { thread })))
                } else {
                    let exit = Exit::Code((code & 0xff) as i32);
                    self.end(self.translator.process_of(thread), Some(thread), exit, sink)
                }
            }
            Item::Call(Record::Exit { code }) => {
                let exit = Exit::Code((code & 0xff) as i32);
                self.end(self.translator.process_of(thread), Some(thread), exit, sink)
            }
            Item::Call(Record::Reap { pid, status }) => {
                let Some(process) = self.translator.process_by_pid(pid as u32) else {
                    return Ok(());
                };
                let exit = status.map_or(Exit::Unknown, |status| exit_of(status as i32));
                self.end(process, None, exit, sink)?;
                self.translator.reap(thread, process, sink)
            }
            Item::Call(record) => self.translator.record(thread, record, sink),
        }
    }

    /// Ends a process in the trace: what its threads have not reported, then its exit.
    fn end(
        &mut self,
        process: ProcessId,
        thread: Option<ThreadId>,
        exit: Exit,
        sink: &mut impl Sink,
    ) -> Result<(), TraceError> {
        if self.translator.has_exited(process) {
            return Ok(());
        }
        settle(&mut self.streams, &self.translator, process, None, sink)?;
        self.translator.end_process(process, thread, exit, sink)
    }

    /// Frees the slots of threads that have ended, and gives up events that can no longer come.
    ///
    /// To be called when [`pump`](Self::pump) finds nothing. `thorough` looks whether the owners of
    /// quiet slots live, which costs a file in `/proc` each.
    ///
    /// # Errors
    /// Those of `sink`.
    pub(crate) fn tidy(&mut self, thorough: bool, sink: &mut impl Sink) -> Result<(), TraceError> {
        if self.give_up_lost() {
            return Ok(());
        }
        let quiet: Vec<usize> = self.merge.empty().to_vec();
        for index in quiet {
            let Some(stream) = &mut self.streams[index] else { continue };
            let control = stream.slot.control();
            if thorough && control.state.load(Acquire) == ACTIVE && !life::is_alive(control) {
                // The owner may just have let go itself; all that counts is that it is done.
                let _ = control.state.compare_exchange(ACTIVE, DONE, AcqRel, Relaxed);
            }
            // The state first: whatever the owner wrote before it is visible then.
            if control.state.load(Acquire) == DONE && stream.peek().is_none() {
                self.retire(index, sink)?;
            }
        }
        Ok(())
    }

    /// Frees a slot whose ring was read to the end.
    fn retire(&mut self, index: usize, sink: &mut impl Sink) -> Result<(), TraceError> {
        self.merge.remove(index);
        let Some(stream) = self.streams[index].take() else { return Ok(()) };
        let [loads, stores, fetches] = stream.references();
        self.counters.loads += loads;
        self.counters.stores += stores;
        self.counters.fetches += fetches;
        tick(&stream, sink)?;
        stream.slot.control().state.store(FREE, Release);
        Ok(())
    }

    /// Whether the next ticket is missing; gives it up once nobody can hold it any more.
    fn give_up_lost(&mut self) -> bool {
        const PATIENCE: Duration = Duration::from_millis(5);
        let next = self.merge.next();
        let end = self.mapping.header().ticket.0.load(Acquire);
        if end <= next {
            self.stalled = None;
            return false;
        }
        match self.stalled {
            Some((ticket, since)) if ticket == next && since.elapsed() >= PATIENCE => {}
            Some((ticket, _)) if ticket == next => return true,
            _ => {
                self.stalled = Some((next, Instant::now()));
                return true;
            }
        }
        self.stalled = None;
        self.discover();
        // In this order: whoever held the ticket at the first look and is idle at the second has
        // put its event into its ring before the third.
        let held = self.streams.iter().flatten().any(|stream| {
            let control = stream.slot.control();
            control.outbox.0.busy.load(Acquire) != 0
                && control.state.load(Acquire) == ACTIVE
                && life::is_alive(control)
        });
        if held {
            return true;
        }
        if let Some(index) = self.merge.find(&mut self.streams) {
            self.merge.add(index, &mut self.streams);
        } else {
            self.counters.lost += self.merge.skip(end);
        }
        true
    }

    /// Whether every ring is read and every slot free.
    pub(crate) fn is_idle(&self) -> bool {
        let header = self.mapping.header();
        self.streams.iter().all(Option::is_none)
            && header.claims.load(Acquire) == self.claims_seen
            && header.ticket.0.load(Acquire) <= self.merge.next()
    }

    /// Takes the ends of orphans that this process inherited, and says which processes still run.
    pub(crate) fn reap_orphans(&mut self) -> Vec<u32> {
        let pids: Vec<u32> = self.translator.running().map(|(_, pid)| pid).collect();
        for &pid in &pids {
            if let Some(status) = sys::reap(pid) {
                self.translator.reaped(pid, status);
            }
        }
        pids.into_iter().filter(|&pid| is_process_alive(pid)).collect()
    }

    /// Notes how a process ended that the caller reaped itself.
    pub(crate) fn reaped(&mut self, pid: u32, status: i32) {
        self.translator.reaped(pid, status);
    }

    /// Ends the processes whose end nobody reported, and returns what the reader of the trace
    /// should know.
    ///
    /// # Errors
    /// Those of `sink`.
    pub(crate) fn finish(&mut self, sink: &mut impl Sink) -> Result<Vec<String>, TraceError> {
        for index in 0..self.streams.len() {
            if self.streams[index].is_some() {
                self.retire(index, sink)?;
            }
        }
        let running: Vec<_> = self.translator.running().map(|(process, _)| process).collect();
        for process in running {
            self.translator.end_process(process, None, Exit::Unknown, sink)?;
        }
        let unrecorded = self.mapping.header().unrecorded.load(Relaxed);
        self.counters.threads_unrecorded = unrecorded;
        let mut warnings = std::mem::take(&mut self.translator.warnings);
        if self.counters.lost > 0 {
            let lost = self.counters.lost;
            warnings.push(format!("{lost} events of threads that were killed are lost"));
        }
        if unrecorded > 0 {
            let slots = self.mapping.slots();
            warnings.push(format!(
                "{unrecorded} threads ran unrecorded: more than {slots} ran at the same time"
            ));
        }
        Ok(warnings)
    }
}

/// Reports what a thread counted and nobody has told.
fn tick(stream: &Stream<'_>, sink: &mut impl Sink) -> Result<(), TraceError> {
    let (count, instructions) = stream.untold();
    match stream.thread {
        Some(thread) if !stream.silent && (count > 0 || instructions > 0) => {
            sink.event(Event::Call(Box::new(Call::Tick { thread, count, instructions })))
        }
        _ => Ok(()),
    }
}

/// Takes leave of the threads of `process`, but for the one in slot `except`.
fn settle(
    streams: &mut [Option<Stream<'_>>],
    translator: &Translator,
    process: ProcessId,
    except: Option<usize>,
    sink: &mut impl Sink,
) -> Result<(), TraceError> {
    for (index, stream) in streams.iter_mut().enumerate() {
        let Some(stream) = stream else { continue };
        let theirs = stream.thread.is_some_and(|t| translator.process_of(t) == process);
        if theirs && except != Some(index) {
            tick(stream, sink)?;
            stream.silent = true;
        }
    }
    Ok(())
}
