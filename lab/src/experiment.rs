//! An experiment: a trace, a machine, and what is to be varied.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;
use vellum_machine::disk::DiskKind;
use vellum_machine::profile::Profile;
use vellum_machine::ram::{Ram, RamError};
use vellum_machine::sim::Sim;
use vellum_mm::addr::PAGE_BYTES;
use vellum_mm::config::{BootError, FRAMES_MIN};
use vellum_mm::objects::file::Warmth;
use vellum_mm::objects::store::Tunables;
use vellum_mm::objects::swap::SwapConfig;
use vellum_mm::replace::{Choice, SettingError};
use vellum_mm::{Config, Vm};
use vellum_trace::event::{Meta, Summary};
use vellum_trace::{Reader, TraceError};

use crate::replay::Replay;
use crate::report::{MachineReport, Report, TraceReport};
use crate::size::{Human, Size};
use crate::sizes::NotSizes;
use crate::string::Tape;

/// How much memory the machine has.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Memory {
    /// More than the program can use.
    Unlimited,
    /// This much.
    Size(Size),
    /// This many frames.
    Frames(u32),
}

/// Where anonymous pages go when memory is short.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SwapChoice {
    /// The kind of disk; `None` is a machine without swap.
    pub disk: Option<DiskKind>,
    /// Its size; twice the footprint, and at least 64 MiB, if not given.
    pub size: Option<Size>,
}

impl FromStr for SwapChoice {
    type Err = String;

    /// `none`, or a kind of disk with or without a size: `nvme`, `hdd:2G`.
    fn from_str(text: &str) -> Result<SwapChoice, String> {
        let (kind, size) = match text.split_once(':') {
            Some((kind, size)) => (kind, Some(size)),
            None => (text, None),
        };
        let size: Option<Size> =
            size.map(str::parse).transpose().map_err(|error| format!("{error}"))?;
        if kind == "none" {
            return match size {
                None => Ok(SwapChoice { disk: None, size: None }),
                Some(_) => Err("`none` has no size".to_owned()),
            };
        }
        let disk = kind.parse().map_err(|error| format!("{error}, and none"))?;
        Ok(SwapChoice { disk: Some(disk), size })
    }
}

/// Everything that can be chosen besides the trace.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// How much memory.
    pub memory: Memory,
    /// Name of the replacement policy.
    pub policy: String,
    /// The swap device.
    pub swap: SwapChoice,
    /// The disk that holds files.
    pub disk: DiskKind,
    /// log2 of the slots read at once from swap (`vm.page-cluster`).
    pub page_cluster: u8,
    /// Fault-around and read-ahead.
    pub tunables: Tunables,
    /// Whether files are in the page cache before the program starts.
    pub warmth: Warmth,
    /// Processors; those of the profile if not given.
    pub cpus: Option<u32>,
    /// What chance starts from.
    pub seed: u64,
    /// What everything costs.
    pub profile: Profile,
    /// Groups of frames with replacement of their own; 0 is global replacement.
    pub groups: u16,
}

impl Default for Experiment {
    /// Unlimited memory, Clock, swap on flash, files cached, one processor of the default profile.
    fn default() -> Experiment {
        Experiment {
            memory: Memory::Unlimited,
            policy: "clock".to_owned(),
            swap: SwapChoice { disk: Some(DiskKind::Nvme), size: None },
            disk: DiskKind::Nvme,
            page_cluster: 3,
            tunables: Tunables::default(),
            warmth: Warmth::Warm,
            cpus: None,
            seed: 0,
            profile: Profile::default(),
            groups: 0,
        }
    }
}

/// Why an experiment could not be done.
#[derive(Debug, Error)]
pub enum LabError {
    /// The trace.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The policy, as it was asked for.
    #[error("policy `{given}`: {error}")]
    Policy {
        /// What was asked for.
        given: String,
        /// What is wrong with it.
        error: SettingError,
    },
    /// The policy works on a recorded string of references only.
    #[error(
        "policy `{0}` needs to know every reference beforehand, or sizes processes: it runs in \
         `vellum curve` and `vellum explain`, not on a machine"
    )]
    NeedsString(String),
    /// Too little memory.
    #[error("{} of memory are too little: the machine needs at least {}", Human(*.0), Human(u64::from(FRAMES_MIN) * PAGE_BYTES))]
    TooSmall(u64),
    /// Too much memory.
    #[error("{} of memory are too much: a machine has at most 1 TiB", Human(*.0))]
    TooLarge(u64),
    /// Too much swap.
    #[error("{} of swap are too much: a machine has at most 16 TiB", Human(*.0))]
    SwapTooLarge(u64),
    /// The host has no room for the simulated RAM.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// A list of sizes.
    #[error(transparent)]
    Sizes(#[from] NotSizes),
    /// More pages than a string can have.
    #[error("the trace has more than 2^30 pages: curves are limited to that")]
    TooManyPages,
    /// The processors.
    #[error("a machine has 1 to 1024 processors, not {0}")]
    Cpus(u32),
}

/// Frames of 1 TiB.
const FRAMES_MAX: u64 = 1 << 28;

/// How far a replay has come, for a progress bar.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Events read.
    pub events: u64,
    /// Events in the trace, if its end is known.
    pub events_total: Option<u64>,
}

impl Experiment {
    /// Replays the trace in `path`. `progress` is called from time to time.
    pub fn run(&self, path: &Path, progress: impl FnMut(Progress)) -> Result<Report, LabError> {
        Ok(self.replay(path, None, progress)?.0)
    }

    /// As [`run`](Self::run), with every use of a frame written down on `tape`.
    pub(crate) fn run_recorded(
        &self,
        path: &Path,
        tape: Tape,
        progress: impl FnMut(Progress),
    ) -> Result<(Report, Tape, Meta), LabError> {
        let (report, tape, meta) = self.replay(path, Some(tape), progress)?;
        Ok((report, tape.expect("the one that was given"), meta))
    }

    fn replay(
        &self,
        path: &Path,
        tape: Option<Tape>,
        mut progress: impl FnMut(Progress),
    ) -> Result<(Report, Option<Tape>, Meta), LabError> {
        let mut reader = Reader::open(path)?;
        reader.make_lenient();
        let meta = reader.meta().clone();
        let summary = reader.summary().cloned();
        let footprint = summary.as_ref().map_or(0, |s| s.pages * PAGE_BYTES);
        let frames = self.frames(footprint, summary.as_ref())?;
        let (vm, mut sim, swap_bytes) = self.machine(frames, footprint)?;
        if tape.is_some() {
            sim.keep_freed();
        }
        let mut replay = Replay::new(self, &vm, &sim);
        if let Some(tape) = tape {
            replay.record_on(tape);
        }
        let events_total = summary.as_ref().map(|s| s.events);
        replay.run(&mut reader, |events| progress(Progress { events, events_total }))?;
        let mut warnings: Vec<String> = reader.warnings().to_vec();
        warnings.extend(Self::doubts(&meta, frames));
        let trace = TraceReport::new(path, &meta, summary.as_ref(), replay.events());
        let machine = MachineReport {
            memory_bytes: u64::from(frames) * PAGE_BYTES,
            frames,
            limited: self.memory != Memory::Unlimited,
            policy: self.policy.clone(),
            swap: self.swap.disk.map_or("none", disk_name).to_owned(),
            swap_bytes,
            page_cache: if self.warmth == Warmth::Warm { "warm" } else { "cold" }.to_owned(),
            cpus: sim.cpus(),
            profile: self.profile.name.clone(),
            seed: self.seed,
        };
        let tape = replay.take_tape();
        Ok((replay.report(trace, machine, warnings), tape, meta))
    }

    /// What makes the answer doubtful.
    pub(crate) fn doubts(meta: &Meta, frames: u32) -> Option<String> {
        let filter = meta.filter?;
        (u64::from(frames) < filter.frames_min).then(|| {
            format!(
                "the recording is filtered and holds for memories of at least {} ({} frames); \
                 with {} frames the counts are too low or too high: record again with --exact",
                Human(filter.frames_min * PAGE_BYTES),
                filter.frames_min,
                frames,
            )
        })
    }

    pub(crate) fn frames(
        &self,
        footprint: u64,
        summary: Option<&Summary>,
    ) -> Result<u32, LabError> {
        let bytes = match self.memory {
            Memory::Frames(frames) => u64::from(frames) * PAGE_BYTES,
            Memory::Size(size) => size.bytes(footprint),
            Memory::Unlimited => {
                // All pages in frames of their own, all files cached, tables and links; doubled, so
                // that no watermark is ever near.
                let files: u64 = summary.map_or(0, |s| s.files.iter().map(|f| f.bytes).sum());
                let all = footprint.saturating_add(files).saturating_mul(2).max(4 << 30);
                all.next_power_of_two().min(FRAMES_MAX * PAGE_BYTES)
            }
        };
        let frames = bytes / PAGE_BYTES;
        if frames < u64::from(FRAMES_MIN) {
            return Err(LabError::TooSmall(bytes));
        }
        if frames > FRAMES_MAX {
            return Err(LabError::TooLarge(bytes));
        }
        Ok(frames as u32)
    }

    pub(crate) fn machine(&self, frames: u32, footprint: u64) -> Result<(Vm, Sim, u64), LabError> {
        let swap_bytes = match self.swap {
            SwapChoice { disk: None, .. } => 0,
            SwapChoice { size: Some(size), .. } => size.bytes(footprint),
            SwapChoice { size: None, .. } => (footprint * 2).max(64 << 20),
        };
        let slots = u32::try_from(swap_bytes / PAGE_BYTES)
            .map_err(|_| LabError::SwapTooLarge(swap_bytes))?;
        let cpus = self.cpus.unwrap_or(self.profile.cpu.count.get());
        if !(1..=1024).contains(&cpus) {
            return Err(LabError::Cpus(cpus));
        }
        let sim = Sim::new(&self.profile, cpus, Ram::new(frames)?);
        let policy = Choice::parse(&self.policy)
            .map_err(|error| LabError::Policy { given: self.policy.clone(), error })?;
        let config = Config {
            cpus,
            swap: SwapConfig {
                slots,
                page_cluster: self.page_cluster,
                in_ram: self.swap.disk == Some(DiskKind::Zram),
            },
            policy,
            seed: self.seed,
            groups: self.groups,
            tunables: self.tunables,
            ..Config::new(frames)
        };
        let vm = Vm::new(&config, &sim).map_err(|error| match error {
            BootError::TooSmall | BootError::BadWatermarks | BootError::BadHoles => {
                LabError::TooSmall(u64::from(frames) * PAGE_BYTES)
            }
            BootError::NeedsString => LabError::NeedsString(self.policy.clone()),
            BootError::NoCpus => LabError::Cpus(cpus),
        })?;
        Ok((vm, sim, u64::from(slots) * PAGE_BYTES))
    }
}

/// The name of a kind of disk, as users write it.
pub fn disk_name(kind: DiskKind) -> &'static str {
    match kind {
        DiskKind::Zram => "zram",
        DiskKind::Nvme => "nvme",
        DiskKind::Ssd => "ssd",
        DiskKind::Hdd => "hdd",
    }
}

/// The path of a trace as reports show it: its file name.
pub(crate) fn shown(path: &Path) -> String {
    PathBuf::from(path).file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
