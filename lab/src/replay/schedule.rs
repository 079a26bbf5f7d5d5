//! Whose event is next.
//!
//! A trace is one order of all events, found while the program ran under a recorder. On another
//! machine threads wait at other places, so the replay keeps of that order what the program relies on
//! and lets the rest move:
//!
//! - the events of a thread stay in order;
//! - a child begins at its fork, a parent that reaped a child waits for its end, and one that made it
//!   by `vfork` until it has ended or made a space of its own;
//! - in a process with several threads, calls that change the address space keep their place among
//!   all accesses of the process.
//!
//! The thread that runs reads the trace. Events of others go to their queues; who is further ahead than
//! [`AHEAD_MAX`] events waits for the others. All these conditions point to earlier events, so the
//! oldest event not yet executed can always be, once the disk that it may wait for is done.

use vellum_trace::TraceError;
use vellum_trace::event::{Call, Event, ThreadId};

use super::memory::Step;
use super::source::Feeds;
use super::tasks::{State, Work};
use super::{PS, Replay};

/// Events that the threads' queues may hold before who reads the trace must wait for the others.
const AHEAD_MAX: usize = 1 << 16;
/// Events between two reports of progress.
const PROGRESS_EVENTS: u64 = 1 << 20;

/// A processor of the replay.
#[derive(Default)]
pub(super) struct Cpu {
    /// Its clock.
    pub(super) now_ps: u64,
    /// Time that it did not idle.
    pub(super) busy_ps: u64,
    /// Who ran here last.
    last: Option<ThreadId>,
}

/// What became of a processor without anybody to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Idle {
    /// Its clock went on to the next thing that happened.
    Went,
    /// Nothing will happen by itself.
    Nothing,
    /// The time of the run is over.
    Over,
}

/// Why a thread gives its processor up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stop {
    /// Its time slice is over.
    Slice,
    /// It waits for something that will wake it.
    Blocked,
    /// It must let others come first, but nothing will wake it.
    Behind,
    /// It is dead.
    Ended,
}

impl Replay<'_> {
    pub(super) fn schedule(
        &mut self,
        feeds: &mut Feeds<'_>,
        mut progress: impl FnMut(u64),
    ) -> Result<(), TraceError> {
        let mut reported = 0;
        let mut behind = 0;
        loop {
            let cpu = self.slowest_cpu();
            self.deliver(cpu);
            self.renew_jobs(feeds)?;
            if behind == 0 {
                self.earliest_first(cpu);
            }
            let Some(&thread) = self.ready.front() else {
                match self.idle_on(cpu, feeds)? {
                    Idle::Went => continue,
                    Idle::Over => return Ok(()),
                    Idle::Nothing => {}
                }
                // Nobody can run and no disk works: the first thread, or the end.
                if !self.adopt_any(feeds)? {
                    return Ok(());
                }
                continue;
            };
            if self.threads[thread as usize].state != State::Ready {
                self.ready.pop_front();
                continue;
            }
            let cpu = self.cpu_for(thread, cpu);
            let start_ps = self.cpus[cpu].now_ps.max(self.threads[thread as usize].ready_ps);
            if self.disk_comes_first(cpu, start_ps) {
                continue;
            }
            if self.timer_ps().is_some_and(|timer_ps| timer_ps <= start_ps) {
                self.fire(feeds)?;
                continue;
            }
            self.ready.pop_front();
            if start_ps >= self.until_ps || self.is_parked(thread) {
                continue;
            }
            let stop = self.charged_slice(cpu, thread, feeds, behind > self.ready.len())?;
            self.threads[thread as usize].ready_ps = self.cpus[cpu].now_ps;
            match stop {
                Stop::Slice => {
                    behind = 0;
                    self.ready.push_back(thread);
                }
                Stop::Behind => {
                    behind += 1;
                    self.ready.push_back(thread);
                    // All who could run are ahead of somebody who waits for a disk.
                    if behind > self.ready.len() && self.idle(cpu) {
                        behind = 0;
                    }
                }
                Stop::Blocked | Stop::Ended => behind = 0,
            }
            let events = self.events();
            if events - reported >= PROGRESS_EVENTS {
                reported = events;
                progress(reported);
            }
        }
    }

    /// Puts the thread first that can run first; of several, one that has waited for a disk, as
    /// schedulers do that give sleepers their due. A time slice is executed at once, so that who is
    /// queued may be ahead of who is woken after it. Not while threads are found to be behind others of
    /// their recording: then each has its turn, or the one that is earliest would be tried for ever.
    fn earliest_first(&mut self, cpu: usize) {
        let now_ps = self.cpus[cpu].now_ps;
        let key = |thread: ThreadId| {
            let slot = &self.threads[thread as usize];
            let slept = !matches!(slot.work, Work::None);
            (slot.ready_ps.max(now_ps), !slept, slot.ready_ps)
        };
        let queued = self.ready.iter().enumerate();
        let first = queued.min_by_key(|&(_, &thread)| key(thread));
        if let Some((place, &thread)) = first
            && place > 0
        {
            self.ready.remove(place);
            self.ready.push_front(thread);
        }
    }

    /// Whether a request ends before anybody runs on: then a processor that has nothing to do goes on
    /// with it, instead of falling behind.
    fn disk_comes_first(&mut self, cpu: usize, start_ps: u64) -> bool {
        let Some(at_ns) = self.completions.next_at() else { return false };
        if at_ns * PS >= start_ps {
            return false;
        }
        for other in &mut self.cpus {
            other.now_ps = other.now_ps.max(at_ns * PS);
        }
        self.deliver(cpu);
        true
    }

    pub(super) fn slowest_cpu(&self) -> usize {
        let clocks = self.cpus.iter().enumerate();
        clocks.min_by_key(|(_, cpu)| cpu.now_ps).map_or(0, |(index, _)| index)
    }

    /// Where `thread` runs: where it ran last, whose TLB knows it, unless it would start later there.
    fn cpu_for(&self, thread: ThreadId, slowest: usize) -> usize {
        let slot = &self.threads[thread as usize];
        let start_ps = self.cpus[slowest].now_ps.max(slot.ready_ps);
        match slot.last_cpu {
            Some(last) if self.cpus[last].now_ps <= start_ps => last,
            _ => slowest,
        }
    }

    /// Ends the requests that are done by now, and begins the write-back that is due.
    #[inline]
    pub(super) fn deliver(&mut self, cpu: usize) {
        let now_ps = self.cpus[cpu].now_ps;
        while self.completions.next_at().is_some_and(|at| at * PS <= now_ps) {
            let (at_ns, request) = self.completions.pop().expect("it was seen");
            self.complete(cpu, at_ns * PS, request);
        }
        if now_ps >= self.next_flush_ps {
            self.flush_old_files(cpu);
        }
        if now_ps >= self.next_beat_ps {
            self.beat(cpu);
        }
    }

    /// Lets the processor's clock go on to the next thing that will happen; false if nothing will.
    pub(super) fn idle(&mut self, cpu: usize) -> bool {
        let Some(at_ns) = self.completions.next_at() else { return false };
        // No processor has anything to do before: they all go on together.
        for other in &mut self.cpus {
            other.now_ps = other.now_ps.max(at_ns * PS);
        }
        self.deliver(cpu);
        true
    }

    /// The next event of a job, with its number. Files are nobody's: they are known at once.
    pub(super) fn next_event(
        &mut self,
        source: usize,
        feeds: &mut Feeds<'_>,
    ) -> Result<Option<(u64, Event)>, TraceError> {
        loop {
            let slot = &mut self.sources[source];
            let Some(mut event) = slot.read.next(&mut *feeds[source])? else { return Ok(None) };
            slot.names.rename(&mut self.ids, &mut event);
            let number = slot.read.events - 1;
            match &event {
                Event::Call(call) => match &**call {
                    Call::File(file) => self.introduce_file(file),
                    call => {
                        self.introduce(source, call);
                        return Ok(Some((number, event)));
                    }
                },
                Event::Access(_) => return Ok(Some((number, event))),
            }
        }
    }

    /// Gives new threads their places, so that their events can be queued before they are made.
    fn introduce(&mut self, source: usize, call: &Call) {
        match *call {
            Call::Start { thread, process, .. } => self.thread_slot(source, thread, process),
            Call::Fork { child, process, thread, .. } => {
                self.thread_slot(source, child, process);
                if self.threads[thread as usize].state == State::Dead {
                    self.unborn_forever(&Event::Call(Box::new(call.clone())));
                }
            }
            Call::Thread { thread, child } => {
                let process = self.threads[thread as usize].process;
                self.thread_slot(source, child, process);
                if self.threads[thread as usize].state == State::Dead {
                    self.end_thread(child);
                }
            }
            _ => {}
        }
    }

    /// Keeps an event until its thread runs; that of a dead thread is passed over.
    pub(super) fn enqueue(&mut self, thread: ThreadId, number: u64, event: Event) {
        if self.threads[thread as usize].state == State::Dead {
            return;
        }
        if let Event::Call(call) = &event
            && call.changes_space()
        {
            let process = self.threads[thread as usize].process;
            let process = &mut self.processes[process as usize];
            if process.threads.len() > 1 {
                process.calls.push_back(number);
            }
        }
        let slot = &mut self.threads[thread as usize];
        slot.queue.push_back((number, event));
        self.sources[slot.source].queued += 1;
    }

    /// As [`slice`](Self::slice); tells who measures what it cost.
    fn charged_slice(
        &mut self,
        cpu: usize,
        thread: ThreadId,
        feeds: &mut Feeds<'_>,
        alone: bool,
    ) -> Result<Stop, TraceError> {
        let before = (self.cpus[cpu].busy_ps, self.stats.references);
        if self.control.is_some() {
            let slot = &mut self.threads[thread as usize];
            slot.last_cpu = Some(cpu);
            let start_ps = self.cpus[cpu].now_ps.max(slot.ready_ps);
            self.note(thread, start_ps);
        }
        let stop = self.slice(cpu, thread, feeds, alone)?;
        let job = self.threads[thread as usize].source;
        if self.control.is_some() {
            let busy_ps = self.cpus[cpu].busy_ps - before.0;
            let references = self.stats.references - before.1;
            self.ran(job, thread, busy_ps, references);
        }
        if !matches!(self.threads[thread as usize].state, State::Ready | State::Waiting(_)) {
            self.doubtful.push(job);
        }
        Ok(stop)
    }

    /// Runs `thread` on `cpu` for a time slice at most. `alone` if no other thread can go on, so that
    /// this one may read as far ahead as it must.
    fn slice(
        &mut self,
        cpu: usize,
        thread: ThreadId,
        feeds: &mut Feeds<'_>,
        alone: bool,
    ) -> Result<Stop, TraceError> {
        let ready_ps = self.threads[thread as usize].ready_ps;
        self.threads[thread as usize].last_cpu = Some(cpu);
        let clock = &mut self.cpus[cpu];
        clock.now_ps = clock.now_ps.max(ready_ps);
        if clock.last != Some(thread) {
            clock.last = Some(thread);
            self.spend_kernel(cpu, self.profile.cpu.context_switch_ns * PS);
        }
        let quantum_ps = self.profile.cpu.quantum_ns.get() * PS;
        let end_ps = (self.cpus[cpu].now_ps + quantum_ps).min(self.until_ps);
        if !self.finish_work(cpu, thread) {
            return Ok(Stop::Blocked);
        }
        loop {
            // Accesses of the block, as long as they are this thread's and nobody else is waiting.
            if self.threads[thread as usize].queue.is_empty() {
                self.run_ahead(cpu, thread, end_ps);
            }
            match self.threads[thread as usize].state {
                State::Dead => return Ok(Stop::Ended),
                State::Ready => {}
                _ => return Ok(Stop::Blocked),
            }
            if self.cpus[cpu].now_ps >= end_ps {
                return Ok(Stop::Slice);
            }
            if self.completions.next_at().is_some_and(|at| at * PS <= self.cpus[cpu].now_ps) {
                self.deliver(cpu);
            }
            if let Some(stop) = self.step(cpu, thread, feeds, alone)? {
                return Ok(stop);
            }
        }
    }

    /// Executes one event of `thread`.
    fn step(
        &mut self,
        cpu: usize,
        thread: ThreadId,
        feeds: &mut Feeds<'_>,
        alone: bool,
    ) -> Result<Option<Stop>, TraceError> {
        let source = self.threads[thread as usize].source;
        while self.threads[thread as usize].queue.is_empty() {
            if self.sources[source].queued >= AHEAD_MAX && !alone {
                return Ok(Some(Stop::Behind));
            }
            let Some((number, event)) = self.next_event(source, feeds)? else {
                // The trace ends before the thread does.
                self.threads[thread as usize].state = State::Dead;
                return Ok(Some(Stop::Ended));
            };
            self.enqueue(event.thread(), number, event);
        }
        if !self.may_execute_next(thread) {
            return Ok(Some(Stop::Behind));
        }
        let slot = &mut self.threads[thread as usize];
        let (number, event) = slot.queue.pop_front().expect("it is not empty");
        self.sources[source].queued -= 1;
        match event {
            Event::Access(access) => {
                if self.access(cpu, thread, &access) == Step::Blocked {
                    return Ok(Some(Stop::Blocked));
                }
            }
            Event::Call(call) => {
                let process = self.threads[thread as usize].process as usize;
                if self.processes[process].calls.front() == Some(&number) {
                    self.processes[process].calls.pop_front();
                }
                self.call(cpu, thread, *call);
                if !self.finish_work(cpu, thread) {
                    return Ok(Some(Stop::Blocked));
                }
            }
        }
        Ok(None)
    }

    /// Whether the first queued event of `thread` may be executed before what other threads of its
    /// process still have to do.
    fn may_execute_next(&self, thread: ThreadId) -> bool {
        let slot = &self.threads[thread as usize];
        let process = &self.processes[slot.process as usize];
        let Some(&call) = process.calls.front() else { return true };
        let Some(&(number, _)) = slot.queue.front() else { return true };
        if number < call {
            return true;
        }
        if number > call {
            return false;
        }
        process.threads.iter().all(|&other| {
            other == thread
                || self.threads[other as usize].queue.front().is_none_or(|&(n, _)| n > call)
        })
    }

    /// Executes accesses straight from the block that was read: the common case of one busy thread.
    fn run_ahead(&mut self, cpu: usize, thread: ThreadId, end_ps: u64) {
        let slot = &self.threads[thread as usize];
        if !self.processes[slot.process as usize].calls.is_empty() {
            return;
        }
        let (source, local) = (slot.source, slot.local);
        let mut read = std::mem::take(&mut self.sources[source].read);
        let start = read.next;
        while let Some(Event::Access(access)) = read.block.get(read.next) {
            if access.thread != local
                || self.cpus[cpu].now_ps >= end_ps
                || read.checker.event(&read.block[read.next]).is_err()
            {
                break;
            }
            read.next += 1;
            if self.access(cpu, thread, access) == Step::Blocked {
                break;
            }
        }
        read.events += (read.next - start) as u64;
        self.sources[source].read = read;
    }
}
