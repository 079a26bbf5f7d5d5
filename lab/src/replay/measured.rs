//! What was measured of several jobs at the end of their run.

use vellum_machine::disk::DiskCounts;
use vellum_mm::account::pressure::Lost;
use vellum_mm::event::Counts;
use vellum_mm::reclaim::load_control::State as Phase;

use super::control::Sample;
use super::{PS, Replay};
use crate::report::OomKill;

/// What a disk did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DiskMeasure {
    /// Its own counts.
    pub counts: DiskCounts,
    /// Time from being asked for to being done, of all requests in sum.
    pub residence_ns: u64,
}

/// What a job did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JobMeasure {
    /// Whether it may run, at the end.
    pub phase: Phase,
    /// Runs that came to their end.
    pub runs: u64,
    /// Whether one was killed because memory ran out.
    pub killed: bool,
    /// References.
    pub references: u64,
    /// Processor time.
    pub cpu_ns: u64,
    /// Faults without a read of their own.
    pub minor: u64,
    /// Faults that had to read.
    pub major: u64,
    /// How often it was suspended.
    pub suspensions: u64,
    /// For how long.
    pub suspended_ns: u64,
    /// Pages of its working set, as last measured or expected.
    pub needs: u64,
}

/// What happened on the machine.
#[derive(Clone, PartialEq, Debug)]
pub struct Measured {
    /// When it ended.
    pub end_ns: u64,
    /// Processor time, in sum.
    pub busy_ns: u64,
    /// Of that, in the kernel.
    pub kernel_ns: u64,
    /// References.
    pub references: u64,
    /// What the core counted.
    pub counts: Counts,
    /// The swap disk, if there is one.
    pub swap: Option<DiskMeasure>,
    /// The disk that holds files.
    pub file: DiskMeasure,
    /// Some were stalled; all were.
    pub pressure: (Lost, Lost),
    /// Time that threads waited for memory, in sum.
    pub stalled_ns: u64,
    /// The timeline.
    pub samples: Vec<Sample>,
    /// Times at which thrashing began and ended.
    pub episodes: Vec<(u64, Option<u64>)>,
    /// Each job.
    pub jobs: Vec<JobMeasure>,
    /// Processes killed because memory ran out.
    pub kills: Vec<OomKill>,
}

impl Replay<'_> {
    /// What was measured, after [`run_jobs`](Replay::run_jobs); `None` if that was not called.
    pub fn measured(&mut self) -> Option<Measured> {
        self.measured.take()
    }

    /// Measures, before the jobs that still live are ended.
    pub(super) fn take_measure(&mut self) -> Option<Measured> {
        let mut control = self.control.take()?;
        let end_ps = match self.until_ps {
            u64::MAX => self.cpus.iter().map(|cpu| cpu.now_ps).max().unwrap_or(0),
            until_ps => until_ps,
        };
        let end_ns = end_ps / PS;
        let mut faults = vec![(0, 0); control.jobs.len()];
        for process in &self.processes {
            faults[process.source].0 += process.minor;
            faults[process.source].1 += process.major;
        }
        let jobs = control.jobs.iter().zip(&self.sources).zip(faults);
        let jobs = jobs.map(|((tracked, source), (minor, major))| JobMeasure {
            phase: tracked.phase,
            runs: source.runs,
            killed: source.killed,
            references: tracked.references,
            cpu_ns: tracked.cpu_ps / PS,
            minor,
            major,
            suspensions: tracked.suspensions,
            suspended_ns: tracked.suspended_until(end_ns),
            needs: tracked.needs,
        });
        Some(Measured {
            end_ns,
            busy_ns: self.cpus.iter().map(|cpu| cpu.busy_ps).sum::<u64>() / PS,
            kernel_ns: self.stats.kernel_ps / PS,
            references: self.stats.references,
            counts: self.vm.counts(),
            swap: self.swap_disk.as_ref().map(|disk| DiskMeasure {
                counts: disk.counts(),
                residence_ns: control.swap_residence_ns,
            }),
            file: DiskMeasure {
                counts: self.file_disk.counts(),
                residence_ns: control.file_residence_ns,
            },
            jobs: jobs.collect(),
            pressure: control.pressure(end_ns),
            stalled_ns: control.stalled_ns(end_ns),
            samples: std::mem::take(&mut control.samples),
            episodes: std::mem::take(&mut control.episodes),
            kills: self.kills.clone(),
        })
    }
}
