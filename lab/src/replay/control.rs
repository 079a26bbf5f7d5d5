//! Several jobs under control: who may run, how the machine is doing, what is written down of it.
//!
//! Now and then, in virtual time, the control looks at the machine: it measures working sets and fault
//! rates, asks [`LoadControl`] who is to be suspended or resumed, and takes a sample for the timeline.
//! What it decides is decided in `vellum-mm`; here it is measured and done.
//!
//! A suspended job's threads are parked when their turn comes, and its pages are written out at once:
//! its frames are the first to become free.

use vellum_machine::disk::Service;
use vellum_mm::account::pressure::{Lost, Pressure, Task};
use vellum_mm::event::Target;
use vellum_mm::objects::io::{Direction, Request, RequestId};
use vellum_mm::reclaim::load_control::{Detector, LoadControl, Settings, State as Phase};
use vellum_trace::event::ThreadId;

use super::source::Stage;
use super::tasks::State;
use super::{PS, Replay};

/// Whose pages a fault may evict.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Scope {
    /// Anybody's.
    #[default]
    Global,
    /// The job's own, once it has as many frames as every other.
    LocalEqual,
    /// The job's own, once it has its part of memory, by working sets.
    LocalWorkingSet,
}

/// How a run is controlled and measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Controls {
    /// Who may run.
    pub load: Settings,
    /// Whose pages a fault may evict.
    pub scope: Scope,
    /// The window of working sets, in a job's own processor time.
    pub window_ns: u64,
    /// Time between two looks at the machine.
    pub period_ns: u64,
    /// Thrashing is suspected below this use of the processors.
    pub utilisation_max_percent: u64,
    /// And it is thrashing when that has lasted for so long.
    pub sustain_ns: u64,
    /// When the run ends, if it does not end by itself.
    pub until_ns: Option<u64>,
}

impl Default for Controls {
    /// No control: global replacement, working sets over 50 ms, a look every 50 ms.
    fn default() -> Controls {
        Controls {
            load: Settings::default(),
            scope: Scope::Global,
            window_ns: 50_000_000,
            period_ns: 50_000_000,
            utilisation_max_percent: 50,
            sustain_ns: 250_000_000,
            until_ns: None,
        }
    }
}

/// A job, for who adds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JobSettings {
    /// When it arrives.
    pub start_ns: u64,
    /// Whether it begins again when it ends.
    pub repeats: bool,
    /// Pages that it is expected to need, until that is measured.
    pub expected_pages: u64,
}

/// Samples that a timeline may have; then every second one is joined with its neighbour.
const SAMPLES_MAX: usize = 512;

/// What the control knows of a job.
#[derive(Clone, Debug)]
pub(super) struct Tracked {
    pub(super) phase: Phase,
    pub(super) since_ns: u64,
    /// When its turn began, if it has just come to its end.
    pub(super) turn_ns: Option<u64>,
    pub(super) parked: Vec<ThreadId>,
    /// Processor time and references so far.
    pub(super) cpu_ps: u64,
    pub(super) references: u64,
    /// Its processor time when the window began.
    pub(super) window_ps: u64,
    pub(super) needs: u64,
    pub(super) expected: u64,
    pub(super) measured: bool,
    /// At the last look.
    pub(super) looked_cpu_ps: u64,
    pub(super) looked_major: u64,
    pub(super) fault_rate: u64,
    /// Major faults of about the last ten looks.
    pub(super) faults_lately: u64,
    pub(super) suspensions: u64,
    pub(super) suspended_ns: u64,
}

/// Sums at one moment, of which a sample is the difference.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Sums {
    pub(super) at_ns: u64,
    pub(super) busy_ns: u64,
    pub(super) kernel_ns: u64,
    pub(super) references: u64,
    pub(super) minor: u64,
    pub(super) major: u64,
    pub(super) swap_busy_ns: u64,
    pub(super) stalled_ns: u64,
}

/// What happened between two looks.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Sample {
    /// Its end.
    pub at_ns: u64,
    /// Its length.
    pub elapsed_ns: u64,
    /// Processor time, in sum.
    pub busy_ns: u64,
    /// Of that, in the kernel.
    pub kernel_ns: u64,
    /// References made.
    pub references: u64,
    /// Faults without a read of their own.
    pub minor: u64,
    /// Faults that had to read.
    pub major: u64,
    /// Time that the swap disk worked.
    pub swap_busy_ns: u64,
    /// Time that threads waited for memory, in sum.
    pub stalled_ns: u64,
    /// Jobs that may run, at its end.
    pub active: u32,
    /// Jobs that are suspended.
    pub suspended: u32,
    /// Jobs that were not let in yet.
    pub waiting: u32,
    /// Free frames.
    pub free: u64,
    /// Whether the machine thrashes.
    pub thrashing: bool,
}

impl Sample {
    /// This and the next as one.
    fn joined(self, next: Sample) -> Sample {
        Sample {
            elapsed_ns: self.elapsed_ns + next.elapsed_ns,
            busy_ns: self.busy_ns + next.busy_ns,
            kernel_ns: self.kernel_ns + next.kernel_ns,
            references: self.references + next.references,
            minor: self.minor + next.minor,
            major: self.major + next.major,
            swap_busy_ns: self.swap_busy_ns + next.swap_busy_ns,
            stalled_ns: self.stalled_ns + next.stalled_ns,
            ..next
        }
    }
}

/// The state of control and measurement.
pub(super) struct Control {
    pub(super) controls: Controls,
    pub(super) load: LoadControl,
    pub(super) detector: Detector,
    pub(super) pressure: Pressure,
    pub(super) jobs: Vec<Tracked>,
    pub(super) next_tick_ps: u64,
    pub(super) looked: Sums,
    /// By thread: where and as what it is counted, and whether it waits for memory.
    pub(super) places: Vec<Option<(u32, Task)>>,
    /// By request: whether who waits for it waits for memory.
    pub(super) for_memory: Vec<bool>,
    /// Threads that wait for memory, since when, and for how long in sum.
    pub(super) stalled: u64,
    pub(super) stalled_since_ns: u64,
    pub(super) stalled_ns: u64,
    pub(super) swap_residence_ns: u64,
    pub(super) file_residence_ns: u64,
    pub(super) samples: Vec<Sample>,
    /// Looks that a sample covers, and how many the last has.
    pub(super) stride: u32,
    pub(super) covered: u32,
    /// Times at which thrashing began and ended.
    pub(super) episodes: Vec<(u64, Option<u64>)>,
}

impl Tracked {
    /// For how long it has been suspended, until `now_ns`.
    pub(super) fn suspended_until(&self, now_ns: u64) -> u64 {
        let goes_on = self.phase == Phase::Suspended;
        self.suspended_ns + if goes_on { now_ns.saturating_sub(self.since_ns) } else { 0 }
    }
}

impl Control {
    pub(super) fn new(controls: &Controls, cpus: u32) -> Control {
        Control {
            controls: *controls,
            load: LoadControl::new(controls.load),
            detector: Detector::new(controls.utilisation_max_percent, controls.sustain_ns),
            pressure: Pressure::new(cpus, 0),
            jobs: Vec::new(),
            next_tick_ps: controls.period_ns * PS,
            looked: Sums::default(),
            places: Vec::new(),
            for_memory: Vec::new(),
            stalled: 0,
            stalled_since_ns: 0,
            stalled_ns: 0,
            swap_residence_ns: 0,
            file_residence_ns: 0,
            samples: Vec::new(),
            stride: 1,
            covered: 0,
            episodes: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, job: JobSettings) {
        self.jobs.push(Tracked {
            phase: Phase::Absent,
            since_ns: 0,
            turn_ns: None,
            parked: Vec::new(),
            cpu_ps: 0,
            references: 0,
            window_ps: 0,
            needs: job.expected_pages,
            expected: job.expected_pages,
            measured: false,
            looked_cpu_ps: 0,
            looked_major: 0,
            fault_rate: 0,
            faults_lately: 0,
            suspensions: 0,
            suspended_ns: 0,
        });
    }

    /// The pressure at the end of the run.
    pub(super) fn pressure(&mut self, now_ns: u64) -> (Lost, Lost) {
        (self.pressure.some(now_ns), self.pressure.full(now_ns))
    }

    /// Time that threads waited for memory, in sum.
    pub(super) fn stalled_ns(&mut self, now_ns: u64) -> u64 {
        let passed = now_ns.saturating_sub(self.stalled_since_ns);
        self.stalled_ns += passed * self.stalled;
        self.stalled_since_ns = self.stalled_since_ns.max(now_ns);
        self.stalled_ns
    }

    /// A request has been handed to a disk.
    pub(super) fn submitted(&mut self, request: &Request, service: Service, now: u64, warm: bool) {
        let slot = request.id.0 as usize;
        if self.for_memory.len() <= slot {
            self.for_memory.resize(slot + 1, false);
        }
        let residence = service.done.saturating_sub(now);
        let read = request.direction == Direction::Read;
        self.for_memory[slot] = match request.target {
            Target::Swap(_) => {
                self.swap_residence_ns += residence;
                true
            }
            // All files were cached at first: who reads had it evicted. Who waits for a write waits
            // for its frame.
            Target::File(..) => {
                self.file_residence_ns += residence;
                warm || !read
            }
        };
    }

    /// Counts a thread as what it does now.
    fn place(&mut self, thread: ThreadId, place: Option<(u32, Task)>, now_ns: u64) {
        let slot = thread as usize;
        if self.places.len() <= slot {
            self.places.resize(slot + 1, None);
        }
        if self.places[slot] == place {
            return;
        }
        let stalled = |place: Option<(u32, Task)>| {
            u64::from(place.is_some_and(|(_, task)| task == Task::Stalled))
        };
        self.stalled_ns(now_ns);
        self.stalled = self.stalled + stalled(place) - stalled(self.places[slot]);
        if let Some((cpu, task)) = self.places[slot] {
            self.pressure.leave(cpu, task, now_ns);
        }
        if let Some((cpu, task)) = place {
            self.pressure.enter(cpu, task, now_ns);
        }
        self.places[slot] = place;
    }

    pub(super) fn push_sample(&mut self, sample: Sample) {
        if self.covered > 0 && self.covered < self.stride {
            let last = self.samples.last_mut().expect("it is being covered");
            *last = last.joined(sample);
            self.covered += 1;
            return;
        }
        if self.samples.len() == SAMPLES_MAX {
            let pairs = self.samples.chunks(2).map(|pair| pair[0].joined(pair[1]));
            self.samples = pairs.collect();
            self.stride *= 2;
        }
        self.samples.push(sample);
        self.covered = 1;
    }
}

impl Replay<'_> {
    /// When the control looks next.
    #[inline]
    pub(super) fn tick_ps(&self) -> Option<u64> {
        let control = self.control.as_ref()?;
        let some = self.sources.iter().any(|job| job.stage == Stage::Begun);
        let kept = control.jobs.iter().any(|job| job.phase == Phase::Waiting);
        (some || kept).then_some(control.next_tick_ps)
    }

    /// A thread has run, at this cost.
    pub(super) fn ran(&mut self, job: usize, thread: ThreadId, busy_ps: u64, references: u64) {
        if let Some(control) = &mut self.control {
            control.jobs[job].cpu_ps += busy_ps;
            control.jobs[job].references += references;
        }
        let slot = &self.threads[thread as usize];
        let now_ps = slot.last_cpu.map_or(0, |cpu| self.cpus[cpu].now_ps);
        self.latest_ps = self.latest_ps.max(now_ps);
        self.note(thread, now_ps);
    }

    /// Counts a thread anew, after its state or its processor has changed.
    #[inline]
    pub(super) fn note(&mut self, thread: ThreadId, now_ps: u64) {
        if self.control.is_some() {
            self.note_task(thread, now_ps, Task::Stalled);
        }
    }

    /// A thread begins to wait for `request`.
    pub(super) fn note_wait(&mut self, thread: ThreadId, now_ps: u64, request: RequestId) {
        let Some(control) = &self.control else { return };
        let for_memory = control.for_memory.get(request.0 as usize).copied().unwrap_or(false);
        let task = if for_memory { Task::Stalled } else { Task::Waiting };
        self.note_task(thread, now_ps, task);
    }

    /// A thread waits, but for what it asked to be written.
    pub(super) fn note_sync(&mut self, thread: ThreadId, now_ps: u64) {
        if self.control.is_some() {
            self.note_task(thread, now_ps, Task::Waiting);
        }
    }

    fn note_task(&mut self, thread: ThreadId, now_ps: u64, waiting: Task) {
        let Some(control) = &mut self.control else { return };
        let slot = &self.threads[thread as usize];
        let cpu = slot.last_cpu.unwrap_or(0) as u32;
        let parked = control.jobs[slot.source].phase == Phase::Suspended;
        let place = match slot.state {
            State::Ready if !parked => Some((cpu, Task::Running)),
            State::Waiting(_) => Some((cpu, waiting)),
            _ => None,
        };
        control.place(thread, place, now_ps / PS);
    }

    /// Whether `thread` may not run, since its job is suspended; keeps it until that is over.
    pub(super) fn is_parked(&mut self, thread: ThreadId) -> bool {
        let Some(control) = &mut self.control else { return false };
        let job = &mut control.jobs[self.threads[thread as usize].source];
        if job.phase != Phase::Suspended {
            return false;
        }
        job.parked.push(thread);
        true
    }

    /// Whether a job that arrives must wait until it is let in.
    pub(super) fn holds_back(&mut self, job: usize, now_ps: u64) -> bool {
        let Some(control) = &mut self.control else { return false };
        if !control.controls.load.admission {
            return false;
        }
        let tracked = &mut control.jobs[job];
        (tracked.phase, tracked.since_ns) = (Phase::Waiting, now_ps / PS);
        // Let in at once if there is room.
        control.next_tick_ps = now_ps;
        true
    }

    pub(super) fn became_active(&mut self, job: usize, now_ps: u64) {
        let Some(control) = &mut self.control else { return };
        let tracked = &mut control.jobs[job];
        // One that ends and begins again at once goes on with its turn.
        let turn_ns = tracked.turn_ns.take().filter(|_| tracked.since_ns == now_ps / PS);
        (tracked.phase, tracked.since_ns) = (Phase::Active, turn_ns.unwrap_or(now_ps / PS));
        tracked.window_ps = tracked.cpu_ps;
        tracked.measured = false;
        self.allot();
    }

    pub(super) fn became_absent(&mut self, job: usize, now_ps: u64) {
        let Some(control) = &mut self.control else { return };
        let tracked = &mut control.jobs[job];
        if tracked.measured {
            // What it needed it will need again.
            tracked.expected = tracked.needs;
        }
        tracked.turn_ns = (tracked.phase == Phase::Active).then_some(tracked.since_ns);
        (tracked.phase, tracked.since_ns) = (Phase::Absent, now_ps / PS);
        tracked.needs = tracked.expected;
    }
}
