//! Several programs on one machine: contention, thrashing, and what controls it.
//!
//! A [`Plan`] is a scenario in TOML; [`Plan::run`] gives a [`RunReport`]. [`degrees`] runs a plan with
//! more and more copies of its program, with several remedies, which draws the classic picture:
//!
//! ```text
//!     work                  with load control
//!      ▲      .─────────────────────────────
//!      │    ╱ ╲
//!      │  ╱    ╲                 the working sets no longer fit:
//!      │╱       ╲_________       everybody waits for the disk
//!      └────────────────────▶  degree of multiprogramming
//! ```
//!
//! P. J. Denning, "Thrashing: Its Causes and Prevention", AFIPS 1968.

pub mod degrees;
pub mod plan;
mod raw;
pub mod report;
mod text;

use vellum_mm::addr::PAGE_BYTES;
use vellum_mm::objects::file::Warmth;
use vellum_trace::generate::Spec;
use vellum_trace::{Reader, TraceError};

pub use self::degrees::{Degrees, Remedy};
pub use self::plan::{Plan, PlanError, Program, Work};
pub use self::report::RunReport;
use crate::experiment::{Experiment, LabError, disk_name, shown};
use crate::replay::Replay;
use crate::replay::control::{JobSettings, Scope};
use crate::replay::source::Feed;
use crate::report::MachineReport;

/// The events of a copy of a program.
struct Opened {
    events: Box<dyn Feed>,
    /// Distinct pages that they touch.
    pages: u64,
    warnings: Vec<String>,
}

/// A copy of a program, ready to run.
struct Prepared {
    name: String,
    settings: JobSettings,
    opened: Opened,
}

impl Plan {
    /// Runs the scenario. `progress` is told now and then how many events have been executed.
    ///
    /// # Errors
    /// If a trace cannot be read, or the machine cannot be made.
    ///
    /// # Panics
    /// Never: jobs that have run have been measured.
    pub fn run(&self, progress: impl FnMut(u64)) -> Result<RunReport, LabError> {
        let mut jobs = self.prepare()?;
        let footprint = jobs.iter().map(|job| job.opened.pages * PAGE_BYTES).sum();
        let frames = self.experiment.frames(footprint, None)?;
        let local = self.controls.scope != Scope::Global;
        let groups = if local { jobs.len() as u16 } else { 0 };
        let experiment = Experiment { groups, ..self.experiment.clone() };
        let (vm, sim, swap_bytes) = experiment.machine(frames, footprint)?;
        let settings: Vec<JobSettings> = jobs.iter().map(|job| job.settings).collect();
        let mut replay = Replay::new(&experiment, &vm, &sim);
        {
            let mut feeds: Vec<&mut dyn Feed> =
                jobs.iter_mut().map(|job| &mut *job.opened.events as &mut dyn Feed).collect();
            replay.run_jobs(&self.controls, &settings, &mut feeds, progress)?;
        }
        let measured = replay.measured().expect("the jobs have run");
        let machine = machine_report(&experiment, frames, sim.cpus(), swap_bytes);
        let names: Vec<String> = jobs.iter().map(|job| job.name.clone()).collect();
        let mut warnings: Vec<String> = Vec::new();
        for job in &jobs {
            for warning in &job.opened.warnings {
                // Copies of a program have the same to say.
                if !warnings.contains(warning) {
                    warnings.push(warning.clone());
                }
            }
        }
        warnings.extend(self.doubts(frames)?);
        Ok(RunReport::new(self, machine, &names, measured, warnings))
    }

    /// All copies of all programs, in the order of the file.
    fn prepare(&self) -> Result<Vec<Prepared>, LabError> {
        let mut all = Vec::new();
        for program in &self.programs {
            for copy in 0..program.copies {
                let name = match program.copies {
                    1 => program.name.clone(),
                    _ => format!("{}#{}", program.name, copy + 1),
                };
                let opened = program.work.open(copy)?;
                let settings = JobSettings {
                    start_ns: program.start_ns + u64::from(copy) * program.stagger_ns,
                    repeats: program.repeats,
                    expected_pages: program.working_set.unwrap_or(opened.pages),
                };
                all.push(Prepared { name, settings, opened });
            }
        }
        Ok(all)
    }

    /// Bytes that a copy of the first program is expected to need.
    fn expected_bytes(&self) -> Result<u64, LabError> {
        let Some(program) = self.programs.first() else { return Ok(0) };
        let pages = match program.working_set {
            Some(pages) => pages,
            None => program.work.open(0)?.pages,
        };
        Ok(pages * PAGE_BYTES)
    }

    /// What makes the answer doubtful.
    fn doubts(&self, frames: u32) -> Result<Vec<String>, LabError> {
        let mut doubts = Vec::new();
        for program in &self.programs {
            if let Work::Trace(path) = &program.work {
                let reader = Reader::open(path)?;
                let doubt = Experiment::doubts(reader.meta(), frames);
                doubts.extend(doubt.map(|doubt| format!("{}: {doubt}", shown(path))));
            }
        }
        Ok(doubts)
    }
}

impl Work {
    /// The events of a copy.
    fn open(&self, copy: u32) -> Result<Opened, TraceError> {
        match self {
            Work::Trace(path) => {
                let mut reader = Reader::open(path)?;
                reader.make_lenient();
                let pages = reader.summary().map_or(0, |summary| summary.pages);
                let warnings = reader.warnings().to_vec();
                Ok(Opened { events: Box::new(reader), pages, warnings })
            }
            Work::Pattern(spec, instructions) => {
                let seed = spec.seed.wrapping_add(u64::from(copy));
                let stream = Spec { seed, ..*spec }.stream()?.with_instructions(*instructions);
                Ok(Opened { events: Box::new(stream), pages: spec.pages, warnings: Vec::new() })
            }
        }
    }
}

fn machine_report(
    experiment: &Experiment,
    frames: u32,
    cpus: u32,
    swap_bytes: u64,
) -> MachineReport {
    MachineReport {
        memory_bytes: u64::from(frames) * PAGE_BYTES,
        frames,
        limited: true,
        policy: experiment.policy.clone(),
        swap: experiment.swap.disk.map_or("none", disk_name).to_owned(),
        swap_bytes,
        page_cache: if experiment.warmth == Warmth::Warm { "warm" } else { "cold" }.to_owned(),
        cpus,
        profile: experiment.profile.name.clone(),
        seed: experiment.seed,
    }
}
