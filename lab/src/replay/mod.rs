//! A replay: the events of a trace, executed on a simulated machine by its processors.
//!
//! A discrete-event simulation. Each processor has a clock; the one that is furthest behind runs next,
//! for a time slice at most. A thread that must wait for a disk gives its processor up, and the others
//! go on. All times are in picoseconds inside, so that single instructions can be added.
//!
//! ```text
//!     [schedule]  whose event is next             [memory]  access, fault, disks, background reclaim
//!     [calls]     system calls on the core        [tasks]   threads, processes, address spaces
//!     [jobs]      traces that begin and end       [control] who may run, how the machine is doing
//! ```

mod calls;
pub mod control;
mod jobs;
mod look;
pub mod measured;
mod memory;
mod schedule;
pub mod source;
mod tasks;

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use vellum_machine::disk::Disk;
use vellum_machine::events::Events;
use vellum_machine::profile::Profile;
use vellum_machine::sim::Sim;
use vellum_mm::Vm;
use vellum_mm::addr::{FileRef, PAGE_BYTES};
use vellum_mm::machine::At;
use vellum_mm::objects::file::Warmth;
use vellum_mm::objects::io::{IoOutcome, RequestId};
use vellum_trace::event::{FileId, ProcessId, ThreadId};
use vellum_trace::{Reader, TraceError};

use self::control::{Control, Controls, JobSettings};
use self::measured::Measured;
use self::memory::Pause;
use self::schedule::Cpu;
use self::source::{Feed, Ids, Source};
use self::tasks::{Process, Space, Thread};
use crate::experiment::Experiment;
use crate::report::{
    ByKind, Faults, MachineReport, MemoryReport, OomKill, ProcessReport, Reclaim, Report, Time,
    TlbReport, TraceReport,
};
use crate::string::Tape;

/// Picoseconds of a nanosecond.
const PS: u64 = 1000;

/// A replay under way.
pub struct Replay<'a> {
    vm: &'a Vm,
    sim: &'a Sim,
    profile: &'a Profile,
    warmth: Warmth,
    /// Whether anybody wants to know of each use of a frame.
    watched: bool,
    tape: Option<Tape>,

    threads: Vec<Thread>,
    processes: Vec<Process>,
    spaces: Vec<Space>,
    files: BTreeMap<FileId, FileRef>,
    /// Files that may have dirty pages, and since when.
    dirty: BTreeMap<FileRef, u64>,

    cpus: Vec<Cpu>,
    ready: std::collections::VecDeque<ThreadId>,
    sources: Vec<Source>,
    ids: Ids,
    /// Jobs to come.
    arrivals: Events<usize>,
    /// Jobs that may have nobody left who can run.
    doubtful: Vec<usize>,
    /// Nothing happens from this time on.
    until_ps: u64,
    /// The furthest that any processor has come.
    latest_ps: u64,
    /// Of several jobs; a single replay has none, and pays nothing for it.
    control: Option<Box<Control>>,

    swap_disk: Option<Disk>,
    file_disk: Disk,
    completions: Events<RequestId>,
    /// By request: who waits for it.
    waiters: Vec<Vec<ThreadId>>,
    /// By request: whether a disk is at it.
    under_way: Vec<bool>,
    pause: Pause,
    next_flush_ps: u64,
    next_beat_ps: u64,

    tables: u64,
    stats: Stats,
    kills: Vec<OomKill>,
    measured: Option<Measured>,
}

/// What the replay itself counts.
#[derive(Default)]
struct Stats {
    references: u64,
    kernel_ps: u64,
    io_wait_ps: u64,
    peak_used: u64,
    peak_tables: u64,
    peak_swap: u64,
    violations: u64,
}

impl<'a> Replay<'a> {
    /// A replay on `vm` and `sim`, which have just been made for `experiment`.
    pub fn new(experiment: &'a Experiment, vm: &'a Vm, sim: &'a Sim) -> Replay<'a> {
        let disks = &experiment.profile.disk;
        Replay {
            vm,
            sim,
            profile: &experiment.profile,
            warmth: experiment.warmth,
            watched: vm.is_observed(),
            tape: None,
            threads: Vec::new(),
            processes: Vec::new(),
            spaces: Vec::new(),
            files: BTreeMap::new(),
            dirty: BTreeMap::new(),
            cpus: (0..sim.cpus()).map(|_| Cpu::default()).collect(),
            ready: std::collections::VecDeque::new(),
            sources: Vec::new(),
            ids: Ids::default(),
            arrivals: Events::new(),
            doubtful: Vec::new(),
            until_ps: u64::MAX,
            latest_ps: 0,
            control: None,
            swap_disk: experiment.swap.disk.map(|kind| Disk::new(kind, disks)),
            file_disk: Disk::new(experiment.disk, disks),
            completions: Events::new(),
            waiters: Vec::new(),
            under_way: Vec::new(),
            pause: Pause::default(),
            next_flush_ps: memory::FLUSH_PERIOD_PS,
            next_beat_ps: if vm.has_beats() { memory::BEAT_PERIOD_PS } else { u64::MAX },
            tables: 0,
            stats: Stats::default(),
            kills: Vec::new(),
            measured: None,
        }
    }

    /// Has every use of a frame written down, from now on; see [`take_tape`](Self::take_tape). The
    /// machine must keep what is freed ([`Sim::keep_freed`]).
    pub(crate) fn record_on(&mut self, tape: Tape) {
        self.tape = Some(tape);
        self.watched = true;
    }

    /// What was written down.
    pub(crate) fn take_tape(&mut self) -> Option<Tape> {
        self.tape.take()
    }

    /// Events executed or read so far.
    pub fn events(&self) -> u64 {
        self.sources.iter().map(|job| job.events_before + job.read.events).sum()
    }

    /// Replays all events that `reader` yields. `progress` is told now and then how many were read.
    ///
    /// # Errors
    /// If the trace holds an event that cannot have happened.
    pub fn run<R: Read + Seek>(
        &mut self,
        reader: &mut Reader<R>,
        progress: impl FnMut(u64),
    ) -> Result<(), TraceError> {
        self.add_job(0, false);
        self.schedule(&mut [reader], progress)?;
        self.finish();
        Ok(())
    }

    /// Runs several jobs at once under `controls`; each has its feed in `feeds`.
    ///
    /// # Errors
    /// If a trace holds an event that cannot have happened.
    ///
    /// # Panics
    /// If there are not as many feeds as jobs.
    pub fn run_jobs(
        &mut self,
        controls: &Controls,
        jobs: &[JobSettings],
        feeds: &mut [&mut dyn Feed],
        progress: impl FnMut(u64),
    ) -> Result<(), TraceError> {
        assert_eq!(jobs.len(), feeds.len(), "a job needs a feed");
        let mut control = Control::new(controls, self.sim.cpus());
        self.until_ps = controls.until_ns.map_or(u64::MAX, |until| until.saturating_mul(PS));
        for job in jobs {
            self.add_job(job.start_ns, job.repeats);
            control.add(*job);
        }
        self.control = Some(Box::new(control));
        self.schedule(feeds, progress)?;
        self.measured = self.take_measure();
        self.finish();
        Ok(())
    }

    /// Ends what is still alive, and the I/O still under way.
    fn finish(&mut self) {
        for id in 0..self.processes.len() as ProcessId {
            if self.processes[id as usize].is_alive() {
                self.end_process(0, id, "not seen".to_owned());
            }
        }
        self.pump(0);
        while let Some((at_ns, request)) = self.completions.pop() {
            self.complete(0, at_ns * PS, request);
        }
    }

    fn at(&self, cpu: usize) -> At {
        At { now: self.cpus[cpu].now_ps / PS, cpu: cpu as u32 }
    }

    /// A request is done: frames are usable or free, and who waited goes on.
    fn complete(&mut self, cpu: usize, now_ps: u64, request: RequestId) {
        let at = At { now: now_ps / PS, cpu: cpu as u32 };
        self.vm.completed(at, self.sim, request, IoOutcome::Done);
        self.set_under_way(request, false);
        self.pause = Pause::default();
        let slot = request.0 as usize;
        let Some(waiters) = self.waiters.get_mut(slot) else { return };
        let mut waiters = std::mem::take(waiters);
        for thread in waiters.drain(..) {
            self.wake(thread, now_ps);
        }
        // The next request of this number has waiters too: their list is not made anew.
        self.waiters[slot] = waiters;
    }

    /// The report, after the run.
    pub fn report(
        self,
        mut trace: TraceReport,
        machine: MachineReport,
        warnings: Vec<String>,
    ) -> Report {
        let counts = self.vm.counts();
        let tlb = self.sim.counts_total();
        if trace.references == 0 {
            trace.references = self.stats.references;
        }
        let processes = self.processes.iter().filter(|process| process.was_born());
        let processes: Vec<_> = processes.map(Process::report).collect();
        trace.processes = trace.processes.max(processes.len());
        let end_ps = self.cpus.iter().map(|cpu| cpu.now_ps).max().unwrap_or(0);
        Report {
            vellum: env!("CARGO_PKG_VERSION").to_owned(),
            trace,
            machine,
            faults: Faults {
                minor: counts.minor,
                major: counts.major,
                by_kind: ByKind {
                    zero_page: counts.zero_page,
                    zero_fill: counts.zero_fill,
                    file_map: counts.file_map,
                    file_fill: counts.file_fill,
                    swap_in: counts.swap_in + counts.swap_cached,
                    copy_on_write: counts.copy_on_write,
                    reuse: counts.reuse,
                    make_dirty: counts.make_dirty,
                    spurious: counts.spurious,
                    violation: counts.violation,
                },
            },
            reclaim: Reclaim {
                scanned: counts.scanned,
                evicted: counts.evicted,
                written: counts.written,
                swapped_in: counts.swapped_in,
                swapped_out: counts.swapped_out,
                file_read: counts.file_read,
                direct: counts.direct_reclaims,
            },
            tlb: TlbReport {
                // References that the recorder collapsed or filtered fell on translated pages.
                lookups: self.stats.references.max(tlb.lookups),
                misses: tlb.walks - tlb.assists,
                l1_misses: tlb.l1_misses,
            },
            memory: MemoryReport {
                peak_resident_bytes: self.stats.peak_used * PAGE_BYTES,
                peak_page_table_bytes: self.stats.peak_tables * PAGE_BYTES,
                peak_swap_bytes: self.stats.peak_swap * PAGE_BYTES,
            },
            time: Time {
                virtual_ns: end_ps / PS,
                cpu_ns: self.cpus.iter().map(|cpu| cpu.busy_ps).sum::<u64>() / PS,
                kernel_ns: self.stats.kernel_ps / PS,
                io_wait_ns: self.stats.io_wait_ps / PS,
            },
            processes,
            oom_kills: self.kills,
            warnings,
        }
    }
}

impl Process {
    fn report(&self) -> ProcessReport {
        ProcessReport {
            pid: self.pid,
            command: self.command.clone(),
            minor: self.minor,
            major: self.major,
            peak_resident_bytes: self.peak_pages * PAGE_BYTES,
            exit: self.exit.clone(),
        }
    }
}
