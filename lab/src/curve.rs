//! Curves: the faults of a program against its memory, under any policies.
//!
//! LRU takes one pass for all sizes, OPT and FIFO one fast pass for each, every other policy a
//! simulation for each; policies and sizes run in parallel. A policy that sizes processes has no memory to vary: its
//! own parameter is, and each point lies at the memory that it held on average.

use std::fmt;
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;
use vellum_mm::addr::PAGE_BYTES;
use vellum_mm::replace::{Choice, Replacement};

use crate::experiment::{LabError, shown};
use crate::plot::{Line, Plot, Scale};
use crate::size::Human;
use crate::sizes::{Sizes, spread};
use crate::string::simulate::simulate_in;
use crate::string::sizing::Scope;
use crate::string::{Counts, Flat, PARTS, RefString, Sample, distances, intervals, loads};

/// Which curves.
#[derive(Clone, Debug)]
pub struct Request {
    /// The policies, as users write them.
    pub policies: Vec<String>,
    /// Which memories; spread over the interesting range if not given.
    pub sizes: Option<Sizes>,
    /// How many, if they are not given.
    pub points: usize,
    /// Whether to look at some of the pages only.
    pub sample: Option<Sampling>,
    /// Whether a policy that sizes processes sees each process by itself.
    pub scope: Scope,
    /// What chance starts from, in policies and samples.
    pub seed: u64,
}

impl Request {
    /// Looks at the policies before anything takes long.
    ///
    /// # Errors
    /// If one does not exist, or not with these settings.
    pub fn check(&self) -> Result<(), LabError> {
        self.policies.iter().try_for_each(|given| choice(given).map(drop))
    }
}

/// How many of the pages to look at.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Sampling {
    /// This share of them, above 0 and at most 1.
    Rate(f64),
    /// About this many.
    Pages(u32),
}

/// Curves of one trace.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Curve {
    /// Version of Vellum.
    pub vellum: String,
    /// The trace's file name.
    pub trace: String,
    /// References that the program made.
    pub references: u64,
    /// Distinct pages: the faults that no memory avoids.
    pub pages: u64,
    /// What chance started from.
    pub seed: u64,
    /// The sample, if not all pages were looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<SampleReport>,
    /// By policy, then by memory.
    pub points: Vec<Point>,
    /// What makes the answer doubtful.
    pub warnings: Vec<String>,
}

/// What a sample was made of.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct SampleReport {
    /// The share of pages.
    pub rate: f64,
    /// Pages in the sample.
    pub pages: u64,
    /// References in the sample.
    pub references: u64,
}

/// One point of a curve.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Point {
    /// The policy, with what was set.
    pub policy: String,
    /// Frames; those held on average, for a policy that sizes processes.
    pub frames: u64,
    /// The same in bytes.
    pub memory_bytes: u64,
    /// Pages brought in.
    pub faults: u64,
    /// Of those, for the first time.
    pub cold: u64,
    /// Faults over references.
    pub miss_ratio: f64,
    /// Pages written when they were evicted.
    pub writebacks: u64,
    /// Standard error of the miss ratio, if it comes from a sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    /// The parameter that was varied, for a policy that sizes processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setting: Option<String>,
}

/// A simulation to be done.
struct Job<'a> {
    spec: &'a str,
    choice: Choice,
    frames: u32,
    setting: Option<String>,
}

/// The curves that `request` asks for. `step` is called after each simulation with how many there are
/// in all.
///
/// # Errors
/// If there is no such policy, or too many sizes.
pub fn curve(
    path: &Path,
    flat: &Flat,
    request: &Request,
    step: impl Fn(usize) + Sync,
) -> Result<Curve, LabError> {
    let choices = request
        .policies
        .iter()
        .map(|given| Ok((given.as_str(), choice(given)?)))
        .collect::<Result<Vec<_>, LabError>>()?;
    let string = &flat.string;
    let sampled = request.sample.map(|sampling| Sampled::new(string, sampling, request.seed));
    let whole = sampled.as_ref().map_or(string, |sampled| &sampled.all.string);
    let scale = sampled.as_ref().map_or(1.0, |sampled| sampled.all.scale);
    // LRU is done in any case: it says which memories are worth a look.
    let lru = distances::lru(whole);
    let enough = (f64::from(lru.frames_enough()) * scale).min(f64::from(string.pages().max(1)));
    let least = flat.meta.filter.map_or(1, |filter| filter.frames_min.min(1 << 20));
    #[allow(clippy::cast_sign_loss)] // a number of frames
    let enough = (enough.ceil() as u32).max(1);
    let frames = match &request.sizes {
        Some(sizes) => sizes.frames(u64::from(string.pages()) * PAGE_BYTES)?,
        None => spread((enough / 256).max(least as u32).min(enough), enough, request.points),
    };
    let jobs = jobs(&choices, &frames, string, request.points);
    let Request { scope, seed, .. } = *request;
    let runner = Runner { string, sampled: sampled.as_ref(), lru: &lru, scope, seed };
    let total = jobs.len();
    let points = jobs
        .par_iter()
        .map(|job| {
            let point = runner.point(job);
            step(total);
            point
        })
        .collect();
    Ok(Curve {
        vellum: env!("CARGO_PKG_VERSION").to_owned(),
        trace: shown(path),
        references: string.references(),
        pages: string.pages().into(),
        seed: request.seed,
        sample: sampled.as_ref().map(Sampled::report),
        points,
        warnings: warnings(flat, &frames),
    })
}

fn choice(given: &str) -> Result<Choice, LabError> {
    Choice::parse(given).map_err(|error| LabError::Policy { given: given.to_owned(), error })
}

/// Whether a policy decides how many frames a process holds.
fn is_sizing(choice: &Choice) -> bool {
    let parameters = vellum_mm::replace::Parameters::new(1);
    matches!(choice.make(&parameters), Replacement::Sizing(_))
}

fn jobs<'a>(
    choices: &[(&'a str, Choice)],
    frames: &[u32],
    string: &RefString,
    points: usize,
) -> Vec<Job<'a>> {
    let mut jobs = Vec::new();
    for &(spec, choice) in choices {
        let varied = choice.entry.about.settings.first();
        let is_set = spec.contains(':');
        match varied.filter(|_| is_sizing(&choice) && !is_set) {
            None => jobs.extend(frames.iter().map(|&frames| Job {
                spec,
                choice,
                frames,
                setting: None,
            })),
            Some(setting) => {
                let most = u32::try_from(string.len()).unwrap_or(u32::MAX).max(1);
                for value in spread(1, most, points) {
                    let value =
                        u64::from(value).clamp(*setting.range.start(), *setting.range.end());
                    let mut choice = choice;
                    if choice.settings.set(setting, value).is_ok() {
                        jobs.push(Job {
                            spec,
                            choice,
                            frames: string.pages().max(1),
                            setting: Some(format!("{}={value}", setting.name)),
                        });
                    }
                }
            }
        }
    }
    jobs
}

fn warnings(flat: &Flat, frames: &[u32]) -> Vec<String> {
    let mut warnings = flat.report.warnings.clone();
    if let Some(filter) = flat.meta.filter
        && frames.first().is_some_and(|&least| u64::from(least) < filter.frames_min)
    {
        warnings.push(format!(
            "the recording is filtered and holds for memories of at least {} ({} frames); counts \
             below that are wrong: record again with --exact",
            Human(filter.frames_min * PAGE_BYTES),
            filter.frames_min
        ));
    }
    warnings
}

/// A sample, and its parts.
struct Sampled {
    all: Sample,
    parts: Vec<Sample>,
}

impl Sampled {
    fn new(string: &RefString, sampling: Sampling, seed: u64) -> Sampled {
        let rate = match sampling {
            Sampling::Rate(rate) => rate,
            Sampling::Pages(pages) => f64::from(pages) / f64::from(string.pages().max(1)),
        };
        let rate = rate.clamp(1e-9, 1.0);
        let of = |part| Sample::new(string, rate, seed, part);
        let parts = (0..PARTS).into_par_iter().map(|part| of(Some(part))).collect();
        Sampled { all: of(None), parts }
    }

    fn report(&self) -> SampleReport {
        SampleReport {
            rate: self.all.rate,
            pages: self.all.string.pages().into(),
            references: self.all.string.len() as u64,
        }
    }
}

/// What simulations share.
struct Runner<'a> {
    string: &'a RefString,
    sampled: Option<&'a Sampled>,
    lru: &'a distances::LruCurve,
    scope: Scope,
    seed: u64,
}

impl Runner<'_> {
    fn point(&self, job: &Job<'_>) -> Point {
        let references = self.string.references().max(1);
        let (counts, frames, error) = match self.sampled {
            None => {
                let (counts, mean_frames) = self.run(self.string, job, job.frames);
                (counts, mean_frames, None)
            }
            Some(sampled) => self.estimate(sampled, job),
        };
        #[allow(clippy::cast_sign_loss)] // a number of frames
        let frames = if job.setting.is_some() { frames.round() as u64 } else { job.frames.into() };
        Point {
            policy: job.spec.to_owned(),
            frames,
            memory_bytes: frames * PAGE_BYTES,
            faults: counts.faults,
            cold: counts.cold,
            miss_ratio: counts.faults as f64 / references as f64,
            writebacks: counts.writebacks,
            error,
            setting: job.setting.clone(),
        }
    }

    /// Counts, and frames held on average.
    fn run(&self, string: &RefString, job: &Job<'_>, frames: u32) -> (Counts, f64) {
        let numbered = u32::try_from(string.len()).is_ok_and(|references| references < u32::MAX);
        match job.choice.entry.about.name {
            // One pass was made for the string that the curve is of.
            "lru" if std::ptr::eq(string, self.whole()) => (self.lru.at(frames), f64::from(frames)),
            // Both number references and loads in 32 bits; longer strings are simulated.
            "opt" if numbered => (intervals::opt(string, frames), f64::from(frames)),
            "fifo" if numbered => (loads::fifo(string, frames), f64::from(frames)),
            _ => {
                let run = simulate_in(string, &job.choice, frames, self.seed, self.scope);
                (run.counts, run.mean_frames)
            }
        }
    }

    fn whole(&self) -> &RefString {
        self.sampled.map_or(self.string, |sampled| &sampled.all.string)
    }

    fn estimate(&self, sampled: &Sampled, job: &Job<'_>) -> (Counts, f64, Option<f64>) {
        let (counts, mean_frames) = self.scaled(&sampled.all, job);
        let ratios: Vec<f64> = sampled
            .parts
            .iter()
            .map(|part| self.scaled(part, job).0.faults as f64 / self.string.len().max(1) as f64)
            .collect();
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        let squares: f64 = ratios.iter().map(|ratio| (ratio - mean).powi(2)).sum();
        let count = ratios.len() as f64;
        let weight = self.string.len() as f64 / self.string.references().max(1) as f64;
        let error = (squares / (count - 1.0) / count).sqrt() * weight;
        (counts, mean_frames, Some(error))
    }

    /// What a sample says of the whole. The references that it has too few or too many are hits of
    /// pages so hot that every memory holds them (SHARDS-adj).
    #[allow(clippy::cast_sign_loss)] // counts
    fn scaled(&self, sample: &Sample, job: &Job<'_>) -> (Counts, f64) {
        let frames = ((f64::from(job.frames) * sample.rate).round() as u32).max(1);
        let (counts, mean_frames) = self.run(&sample.string, job, frames);
        let scale = |count: u64| (count as f64 * sample.scale).round() as u64;
        let most = self.string.len() as u64;
        let counts = Counts {
            faults: scale(counts.faults).min(most),
            cold: scale(counts.cold).min(most),
            writebacks: scale(counts.writebacks),
        };
        (counts, mean_frames * sample.scale)
    }
}

impl Curve {
    /// The policies, in order.
    pub fn policies(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.points.iter().map(|point| point.policy.as_str()).collect();
        names.dedup();
        names
    }

    /// A plot of the miss ratio against memory, for a terminal.
    pub fn plot(&self, width: usize, colour: bool) -> String {
        let lines: Vec<Line> = self
            .policies()
            .into_iter()
            .map(|policy| Line {
                name: policy.to_owned(),
                points: self
                    .points
                    .iter()
                    .filter(|point| point.policy == policy)
                    .map(|point| (point.memory_bytes as f64, point.faults as f64))
                    .collect(),
                is_step: false,
            })
            .collect();
        let (least, most) = lines
            .iter()
            .flat_map(|line| &line.points)
            .fold((f64::INFINITY, 0.0_f64), |(least, most), point| {
                (least.min(point.1), most.max(point.1))
            });
        let plot = Plot {
            x_title: "memory".to_owned(),
            y_title: format!("faults of {} references", self.references),
            x_scale: Scale::Log,
            // Faults that differ by orders of magnitude are told apart only so.
            y_scale: if most > 20.0 * least.max(1.0) { Scale::Log } else { Scale::Linear },
            width,
            colour,
            #[allow(clippy::cast_sign_loss)] // sizes are positive
            x_label: |bytes| Human(bytes as u64).to_string(),
            ..Plot::default()
        };
        plot.render(&lines)
    }

    /// A header line and a row a point.
    pub fn csv(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        writeln!(
            out,
            "trace,policy,setting,frames,memory_bytes,faults,cold,miss_ratio,writebacks,error"
        )?;
        for point in &self.points {
            let error = point.error.map_or(String::new(), |error| error.to_string());
            writeln!(
                out,
                "\"{}\",{},{},{},{},{},{},{},{},{error}",
                self.trace.replace('"', "\"\""),
                point.policy,
                point.setting.as_deref().unwrap_or(""),
                point.frames,
                point.memory_bytes,
                point.faults,
                point.cold,
                point.miss_ratio,
                point.writebacks,
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Curve {
    /// A table: a row a memory, a column a policy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policies = self.policies();
        let mut frames: Vec<u64> = self.points.iter().map(|point| point.frames).collect();
        frames.sort_unstable();
        frames.dedup();
        write!(f, "{:>12} {:>10}", "memory", "frames")?;
        for policy in &policies {
            write!(f, " {policy:>15}")?;
        }
        writeln!(f)?;
        for frames in frames {
            write!(f, "{:>12} {frames:>10}", Human(frames * PAGE_BYTES).to_string())?;
            for policy in &policies {
                let at = |point: &&Point| point.frames == frames && point.policy == *policy;
                match self.points.iter().find(at) {
                    Some(Point { faults, error: Some(error), .. }) => {
                        let error = error * self.references as f64;
                        write!(f, " {:>15}", format!("{faults} ±{error:.0}"))?;
                    }
                    Some(point) => write!(f, " {:>15}", point.faults)?,
                    None => write!(f, " {:>15}", "")?,
                }
            }
            writeln!(f)?;
        }
        writeln!(f, "\n{} references to {} pages", self.references, self.pages)?;
        if let Some(SampleReport { rate, pages, references }) = self.sample {
            writeln!(
                f,
                "estimated from {pages} pages ({:.3} %) and {references} references; ± is the \
                 standard error",
                rate * 100.0
            )?;
        }
        Ok(())
    }
}
