//! Threads, processes and address spaces of a replay.

use std::collections::VecDeque;

use vellum_mm::addr::{FileRef, Frame};
use vellum_mm::machine::SpaceId;
use vellum_mm::objects::io::RequestId;
use vellum_mm::spaces::AddressSpace;
use vellum_trace::event::{Event, Kind, ProcessId, ThreadId};

/// What a thread is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Its first event has not been reached, or its parent has not made it yet.
    Unborn,
    /// It can run, or runs.
    Ready,
    /// It waits for a disk, since this time in picoseconds.
    Waiting(u64),
    /// It waits until this process has ended.
    Reaping(ProcessId),
    /// It waits until this child, which runs in its address space, has ended or made its own.
    Vfork(ProcessId),
    /// It is gone; events of it are passed over.
    Dead,
}

/// What a thread must finish before its next event: work on pages that may have to wait.
#[derive(Clone, Debug, Default)]
pub(super) enum Work {
    /// Nothing.
    #[default]
    None,
    /// An access to this page.
    Access(u64, Kind),
    /// Accesses by the kernel to the pages from the first up to, without, the second. Pages that
    /// cannot be touched are passed over.
    Touch { next: u64, end: u64, write: bool },
    /// As `Touch`, but of these pages, the last first.
    TouchEach(Vec<u64>),
    /// Reading pages of a file.
    Read { file: FileRef, next: u64, end: u64 },
    /// Writing bytes of a file.
    Write { file: FileRef, next: u64, end: u64 },
    /// Waiting until this write has ended.
    Flush(RequestId),
}

/// A thread of the trace.
pub(super) struct Thread {
    pub(super) process: ProcessId,
    /// Its job.
    pub(super) source: usize,
    /// Its number in its own trace.
    pub(super) local: ThreadId,
    pub(super) state: State,
    /// Events that were read while others ran, with their numbers.
    pub(super) queue: VecDeque<(u64, Event)>,
    pub(super) work: Work,
    /// Whether the processor has refused the access that is the work: no need to try it again first.
    pub(super) refused: bool,
    /// Whether the work has waited for a read that it started itself.
    pub(super) own: bool,
    /// How often the work has waited.
    pub(super) waits: u32,
    /// Not before this time, in picoseconds.
    pub(super) ready_ps: u64,
    /// Where it ran last.
    pub(super) last_cpu: Option<usize>,
}

impl Thread {
    pub(super) fn unborn(process: ProcessId) -> Thread {
        Thread {
            process,
            source: 0,
            local: 0,
            state: State::Unborn,
            queue: VecDeque::new(),
            work: Work::None,
            refused: false,
            own: false,
            waits: 0,
            ready_ps: 0,
            last_cpu: None,
        }
    }
}

/// A process of the trace.
#[derive(Default)]
pub(super) struct Process {
    /// Its job.
    pub(super) source: usize,
    pub(super) pid: u32,
    pub(super) command: String,
    /// Its address space while it lives.
    pub(super) space: Option<usize>,
    pub(super) born: bool,
    pub(super) dead: bool,
    pub(super) exit: String,
    pub(super) minor: u64,
    pub(super) major: u64,
    pub(super) peak_pages: u64,
    /// Its threads, dead ones included.
    pub(super) threads: Vec<ThreadId>,
    /// Numbers of its calls read but not executed, while it has several threads: nobody in it may
    /// overtake such a call, nor may the call overtake anybody.
    pub(super) calls: VecDeque<u64>,
}

impl Process {
    pub(super) fn is_alive(&self) -> bool {
        self.born && !self.dead
    }

    pub(super) fn was_born(&self) -> bool {
        self.born
    }
}

/// An address space, which several processes may share (`CLONE_VM`).
pub(super) struct Space {
    /// The job that it belongs to.
    pub(super) source: usize,
    pub(super) space: Option<AddressSpace>,
    pub(super) users: u32,
    /// As the machine knows it, without a look into `space`.
    pub(super) id: SpaceId,
    pub(super) root: Frame,
    /// Page tables that were counted for it.
    pub(super) tables: u64,
}

impl super::Replay<'_> {
    /// Makes sure that a thread of this number can be named.
    pub(super) fn thread_slot(&mut self, source: usize, thread: ThreadId, process: ProcessId) {
        while self.threads.len() <= thread as usize {
            self.threads.push(Thread::unborn(ProcessId::MAX));
        }
        let job = &mut self.sources[source];
        let slot = &mut self.threads[thread as usize];
        slot.process = process;
        slot.source = source;
        slot.local = job.names.local(thread);
        job.threads.push(thread);
        self.process_slot(process);
        self.processes[process as usize].source = source;
        self.processes[process as usize].threads.push(thread);
    }

    fn process_slot(&mut self, process: ProcessId) {
        while self.processes.len() <= process as usize {
            self.processes.push(Process::default());
        }
    }

    /// A process begins, in this space.
    pub(super) fn begin_process(
        &mut self,
        process: ProcessId,
        pid: u32,
        command: String,
        space: Option<usize>,
    ) {
        self.process_slot(process);
        let slot = &mut self.processes[process as usize];
        slot.pid = pid;
        slot.command = command;
        slot.space = space;
        slot.born = true;
    }

    /// A thread can run from `now_ps` on, unless its process is dead.
    pub(super) fn begin_thread(&mut self, thread: ThreadId, now_ps: u64) {
        let slot = &mut self.threads[thread as usize];
        if slot.state == State::Unborn {
            slot.state = State::Ready;
            slot.ready_ps = now_ps;
            self.ready.push_back(thread);
            self.note(thread, now_ps);
        }
    }

    /// A thread is gone, with all its events.
    pub(super) fn end_thread(&mut self, thread: ThreadId) {
        let slot = &mut self.threads[thread as usize];
        slot.state = State::Dead;
        slot.work = Work::None;
        self.sources[slot.source].queued -= slot.queue.len();
        let queue = std::mem::take(&mut slot.queue);
        self.note(thread, self.latest_ps);
        // What only it could have begun will never be.
        for (_, event) in queue {
            self.unborn_forever(&event);
        }
    }

    /// An event will not be executed: a process that it would have made is dead before it lives.
    pub(super) fn unborn_forever(&mut self, event: &Event) {
        use vellum_trace::event::Call;
        let Event::Call(call) = event else { return };
        match **call {
            Call::Fork { process, .. } => {
                self.process_slot(process);
                self.processes[process as usize].dead = true;
                for thread in self.processes[process as usize].threads.clone() {
                    if self.threads[thread as usize].state != State::Dead {
                        self.end_thread(thread);
                    }
                }
                self.wake_reapers(process, 0);
            }
            Call::Thread { child, .. } if self.threads[child as usize].state != State::Dead => {
                self.end_thread(child);
            }
            _ => {}
        }
    }

    /// Ends a process and gives back its memory.
    pub(super) fn end_process(&mut self, cpu: usize, process: ProcessId, exit: String) {
        let slot = &mut self.processes[process as usize];
        self.doubtful.push(slot.source);
        slot.exit = exit;
        slot.dead = true;
        slot.calls.clear();
        self.leave_space(cpu, process);
        for thread in self.processes[process as usize].threads.clone() {
            if self.threads[thread as usize].state != State::Dead {
                self.end_thread(thread);
            }
        }
        let now_ps = self.cpus[cpu].now_ps;
        self.wake_reapers(process, now_ps);
        self.wake_vforker(process, now_ps);
    }

    /// The process no longer uses its space; the last user's memory is freed.
    pub(super) fn leave_space(&mut self, cpu: usize, process: ProcessId) {
        let Some(index) = self.processes[process as usize].space.take() else { return };
        let at = self.at(cpu);
        let slot = &mut self.spaces[index];
        slot.users -= 1;
        if let Some(space) = &slot.space {
            let peak = &mut self.processes[process as usize].peak_pages;
            *peak = space.resident_peak().max(*peak);
        }
        if slot.users == 0
            && let Some(space) = slot.space.take()
        {
            self.tables -= slot.tables;
            self.vm.destroy(at, self.sim, space);
        }
    }

    fn wake_reapers(&mut self, process: ProcessId, now_ps: u64) {
        self.wake_all(State::Reaping(process), now_ps);
    }

    /// A child has ended or has a space of its own: its parent goes on.
    pub(super) fn wake_vforker(&mut self, child: ProcessId, now_ps: u64) {
        self.wake_all(State::Vfork(child), now_ps);
    }

    fn wake_all(&mut self, state: State, now_ps: u64) {
        for thread in 0..self.threads.len() {
            if self.threads[thread].state == state {
                let slot = &mut self.threads[thread];
                slot.state = State::Ready;
                slot.ready_ps = slot.ready_ps.max(now_ps);
                self.ready.push_back(thread as ThreadId);
                self.note(thread as ThreadId, now_ps);
            }
        }
    }

    /// A disk is done for this thread.
    pub(super) fn wake(&mut self, thread: ThreadId, now_ps: u64) {
        let slot = &mut self.threads[thread as usize];
        if let State::Waiting(since) = slot.state {
            self.stats.io_wait_ps += now_ps.saturating_sub(since);
            slot.state = State::Ready;
            slot.ready_ps = now_ps;
            self.ready.push_back(thread);
            self.note(thread, now_ps);
        }
    }
}
