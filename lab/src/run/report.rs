//! The report of a run of several programs.
//!
//! Field names are an interface: scripts read them.

use serde::Serialize;
use vellum_machine::disk::DiskCounts;
use vellum_mm::account::pressure::Lost;
use vellum_mm::addr::PAGE_BYTES;
use vellum_mm::reclaim::load_control::{Rule, State};

use super::Plan;
use crate::experiment::shown;
use crate::replay::control::{Sample, Scope};
use crate::replay::measured::{DiskMeasure, JobMeasure, Measured};
use crate::report::{MachineReport, OomKill};

/// What came of a run.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct RunReport {
    /// The version of Vellum.
    pub vellum: String,
    /// The scenario's file name.
    pub scenario: String,
    /// The machine.
    pub machine: MachineReport,
    /// How it was controlled.
    pub control: ControlReport,
    /// Virtual time in which all happened, in nanoseconds.
    pub elapsed_ns: u64,
    /// The processors.
    pub cpu: CpuReport,
    /// References made.
    pub references: u64,
    /// In a second.
    pub references_per_second: f64,
    /// Page faults.
    pub faults: FaultReport,
    /// The swap disk; null without one.
    pub swap: Option<DiskReport>,
    /// The disk that holds files.
    pub file: DiskReport,
    /// Pressure of memory.
    pub pressure: PressureReport,
    /// How often jobs were suspended.
    pub suspensions: u64,
    /// When the machine thrashed.
    pub thrashing: Vec<Episode>,
    /// For how long in sum, in nanoseconds.
    pub thrashing_ns: u64,
    /// Each program's copies.
    pub jobs: Vec<JobReport>,
    /// Processes killed because memory ran out.
    pub oom_kills: Vec<OomKill>,
    /// How all that went.
    pub timeline: Vec<TimelineSample>,
    /// What makes the answer doubtful.
    pub warnings: Vec<String>,
}

/// How a run was controlled.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ControlReport {
    /// `none`, `working-set`, `pff`.
    pub load: String,
    /// `none`, `working-set`.
    pub admission: String,
    /// `global`, `local`.
    pub scope: String,
    /// How local replacement divides memory: `equal`, `working-set`; null if it is global.
    pub allotment: Option<String>,
    /// The window of working sets, in a job's own time.
    pub window_ns: u64,
    /// Time between two looks at the machine.
    pub period_ns: u64,
    /// How long a job stays active at least.
    pub residence_ns: u64,
}

/// The processors.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct CpuReport {
    /// Part of the time in which they worked, from 0 to 1.
    pub utilisation: f64,
    /// Part of the time in which they worked for programs, not in the kernel.
    pub useful: f64,
    /// Time at work, in sum, in nanoseconds.
    pub busy_ns: u64,
    /// Of that, in the kernel.
    pub kernel_ns: u64,
}

/// Page faults.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct FaultReport {
    /// Satisfied without a read of their own.
    pub minor: u64,
    /// Those that had to read.
    pub major: u64,
    /// In a second.
    pub minor_per_second: f64,
    /// In a second.
    pub major_per_second: f64,
    /// Pages evicted.
    pub evicted: u64,
}

/// A disk.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct DiskReport {
    /// Read requests.
    pub reads: u64,
    /// Write requests.
    pub writes: u64,
    /// Part of the time in which it worked on at least one.
    pub utilisation: f64,
    /// Requests in its queue, on average over time.
    pub queue: f64,
    /// From asking to being done, on average, in nanoseconds.
    pub response_ns: u64,
}

/// Pressure of memory, as `/proc/pressure/memory` shows it.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct PressureReport {
    /// Time in which some task was stalled.
    pub some: PressureLine,
    /// Time in which all that could have run were.
    pub full: PressureLine,
}

/// One line of it.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct PressureLine {
    /// Per cent of the time, over about 10 s.
    pub avg10: f64,
    /// Over about 60 s.
    pub avg60: f64,
    /// Over about 300 s.
    pub avg300: f64,
    /// In sum, in nanoseconds.
    pub total_ns: u64,
}

/// A time in which the machine thrashed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Episode {
    /// When it began, in virtual nanoseconds.
    pub from_ns: u64,
    /// When it ended; null if it had not.
    pub to_ns: Option<u64>,
}

/// A copy of a program.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct JobReport {
    /// The program, and which copy.
    pub name: String,
    /// At the end: `active`, `suspended`, `waiting`, `ended`, `out of memory`.
    pub state: String,
    /// Runs that came to their end.
    pub runs: u64,
    /// References.
    pub references: u64,
    /// In a second of the whole run.
    pub references_per_second: f64,
    /// Processor time in nanoseconds.
    pub cpu_ns: u64,
    /// Minor faults.
    pub minor: u64,
    /// Major faults.
    pub major: u64,
    /// How often it was suspended.
    pub suspensions: u64,
    /// For how long.
    pub suspended_ns: u64,
    /// Its working set, as last measured, or expected.
    pub working_set_bytes: u64,
}

/// What happened in a short time.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct TimelineSample {
    /// Its end, in virtual nanoseconds.
    pub at_ns: u64,
    /// Part of the time in which processors worked.
    pub cpu: f64,
    /// Part of the time in which they worked for programs.
    pub useful: f64,
    /// References in a second.
    pub references_per_second: f64,
    /// Minor faults in a second.
    pub minor_per_second: f64,
    /// Major faults in a second.
    pub major_per_second: f64,
    /// Part of the time in which the swap disk worked.
    pub swap: f64,
    /// Threads that waited for memory, on average.
    pub stalled: f64,
    /// Jobs that may run, at its end.
    pub active: u32,
    /// Jobs suspended.
    pub suspended: u32,
    /// Jobs not let in yet.
    pub waiting: u32,
    /// Free frames.
    pub free: u64,
    /// Whether the machine thrashes.
    pub thrashing: bool,
}

/// `part` of `whole`; 0 of nothing.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Events in a second.
fn rate(count: u64, elapsed_ns: u64) -> f64 {
    share(count, elapsed_ns) * 1e9
}

impl RunReport {
    pub(super) fn new(
        plan: &Plan,
        machine: MachineReport,
        names: &[String],
        measured: Measured,
        warnings: Vec<String>,
    ) -> RunReport {
        let elapsed = measured.end_ns;
        let all = elapsed * u64::from(machine.cpus);
        let thrashing: Vec<Episode> =
            measured.episodes.iter().map(|&(from_ns, to_ns)| Episode { from_ns, to_ns }).collect();
        let lasted = |episode: &Episode| episode.to_ns.unwrap_or(elapsed) - episode.from_ns;
        let cpus = u64::from(machine.cpus);
        RunReport {
            vellum: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: shown(&plan.path),
            control: ControlReport::new(plan),
            elapsed_ns: elapsed,
            cpu: CpuReport {
                utilisation: share(measured.busy_ns, all),
                useful: share(measured.busy_ns.saturating_sub(measured.kernel_ns), all),
                busy_ns: measured.busy_ns,
                kernel_ns: measured.kernel_ns,
            },
            references: measured.references,
            references_per_second: rate(measured.references, elapsed),
            faults: FaultReport {
                minor: measured.counts.minor,
                major: measured.counts.major,
                minor_per_second: rate(measured.counts.minor, elapsed),
                major_per_second: rate(measured.counts.major, elapsed),
                evicted: measured.counts.evicted,
            },
            swap: measured.swap.map(|disk| DiskReport::new(disk, elapsed)),
            file: DiskReport::new(measured.file, elapsed),
            pressure: PressureReport {
                some: measured.pressure.0.into(),
                full: measured.pressure.1.into(),
            },
            suspensions: measured.jobs.iter().map(|job| job.suspensions).sum(),
            thrashing_ns: thrashing.iter().map(lasted).sum(),
            thrashing,
            jobs: names
                .iter()
                .zip(&measured.jobs)
                .map(|(name, job)| JobReport::new(name, job, elapsed))
                .collect(),
            oom_kills: measured.kills,
            timeline: measured.samples.iter().map(|s| TimelineSample::new(s, cpus)).collect(),
            machine,
            warnings,
        }
    }

    /// References in a second of the job that made fewest.
    pub fn slowest(&self) -> f64 {
        self.jobs.iter().map(|job| job.references_per_second).reduce(f64::min).unwrap_or(0.0)
    }
}

impl ControlReport {
    fn new(plan: &Plan) -> ControlReport {
        let controls = &plan.controls;
        let load = match controls.load.rule {
            Rule::None => "none",
            Rule::WorkingSet => "working-set",
            Rule::FaultFrequency => "pff",
        };
        let (scope, allotment) = match controls.scope {
            Scope::Global => ("global", None),
            Scope::LocalEqual => ("local", Some("equal")),
            Scope::LocalWorkingSet => ("local", Some("working-set")),
        };
        let admission = if controls.load.admission { "working-set" } else { "none" };
        ControlReport {
            load: load.to_owned(),
            admission: admission.to_owned(),
            scope: scope.to_owned(),
            allotment: allotment.map(str::to_owned),
            window_ns: controls.window_ns,
            period_ns: controls.period_ns,
            residence_ns: controls.load.residence_ns,
        }
    }
}

impl DiskReport {
    fn new(disk: DiskMeasure, elapsed: u64) -> DiskReport {
        let DiskCounts { reads, writes, busy_ns, .. } = disk.counts;
        DiskReport {
            reads,
            writes,
            // What was asked for just before the end is counted as a whole.
            utilisation: share(busy_ns, elapsed).min(1.0),
            queue: share(disk.residence_ns, elapsed),
            response_ns: disk.residence_ns / (reads + writes).max(1),
        }
    }
}

impl From<Lost> for PressureLine {
    fn from(lost: Lost) -> PressureLine {
        PressureLine {
            avg10: f64::from(lost.average_10) / 100.0,
            avg60: f64::from(lost.average_60) / 100.0,
            avg300: f64::from(lost.average_300) / 100.0,
            total_ns: lost.total_ns,
        }
    }
}

impl JobReport {
    fn new(name: &str, job: &JobMeasure, elapsed: u64) -> JobReport {
        let state = match job.phase {
            _ if job.killed => "out of memory",
            State::Active => "active",
            State::Suspended => "suspended",
            State::Waiting => "waiting",
            State::Absent if job.runs > 0 => "ended",
            State::Absent => "to come",
        };
        JobReport {
            name: name.to_owned(),
            state: state.to_owned(),
            runs: job.runs,
            references: job.references,
            references_per_second: rate(job.references, elapsed),
            cpu_ns: job.cpu_ns,
            minor: job.minor,
            major: job.major,
            suspensions: job.suspensions,
            suspended_ns: job.suspended_ns,
            working_set_bytes: job.needs * PAGE_BYTES,
        }
    }
}

impl TimelineSample {
    fn new(sample: &Sample, cpus: u64) -> TimelineSample {
        let elapsed = sample.elapsed_ns;
        let per_cpu = |ns: u64| share(ns, elapsed * cpus);
        TimelineSample {
            at_ns: sample.at_ns,
            // A time slice may reach beyond the end of a sample.
            cpu: per_cpu(sample.busy_ns).min(1.0),
            useful: per_cpu(sample.busy_ns.saturating_sub(sample.kernel_ns)).min(1.0),
            references_per_second: rate(sample.references, elapsed),
            minor_per_second: rate(sample.minor, elapsed),
            major_per_second: rate(sample.major, elapsed),
            swap: share(sample.swap_busy_ns, elapsed).min(1.0),
            stalled: share(sample.stalled_ns, elapsed),
            active: sample.active,
            suspended: sample.suspended,
            waiting: sample.waiting,
            free: sample.free,
            thrashing: sample.thrashing,
        }
    }
}
