//! A scenario of several programs, as a TOML file says it.
//!
//! ```toml
//! duration = "10s"                # virtual time; programs may also end by themselves
//!
//! [machine]
//! memory = "64M"                  # everything else has the defaults of `vellum replay`
//! cpus = 2
//! swap = "nvme"
//!
//! [control]
//! load = "working-set"            # none, working-set, pff
//!
//! [[process]]
//! pattern = "uniform"             # or trace = "sort.vtrace", relative to this file
//! size = "16M"
//! compute = "1us"
//! copies = 8
//! ```
//!
//! A key that is misspelt or out of range is refused with its line, since one that silently kept its
//! default would falsify the experiment.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use thiserror::Error;
use toml::Spanned;
use vellum_machine::profile::Profile;
use vellum_mm::addr::PAGE_BYTES;
use vellum_mm::objects::file::Warmth;
use vellum_mm::reclaim::load_control::{Rule, Settings};
use vellum_trace::generate::{Pattern, Spec};

use super::raw::{
    Admission, Allotment, Load, PageCache, PatternName, RawControl, RawMachine, RawPlan,
    RawProcess, RawScope, Time,
};
use crate::experiment::{Experiment, Memory};
use crate::replay::control::{Controls, Scope};
use crate::size::Size;

/// Why a scenario is refused.
#[derive(Debug, Error)]
pub enum PlanError {
    /// It cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("{}:{line}: {message}", path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
}

/// A scenario: a machine, its control, and programs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The file that it comes from.
    pub path: PathBuf,
    /// The machine.
    pub experiment: Experiment,
    /// How it is controlled.
    pub controls: Controls,
    /// The programs.
    pub programs: Vec<Program>,
}

/// A program, of which several copies may run.
#[derive(Clone, PartialEq, Debug)]
pub struct Program {
    /// Its name, for reports.
    pub name: String,
    /// What it does.
    pub work: Work,
    /// When its copies arrive, and how much later each than the one before.
    pub start_ns: u64,
    /// How much later each copy arrives than the one before.
    pub stagger_ns: u64,
    /// How many there are.
    pub copies: u32,
    /// Whether each begins again when it ends.
    pub repeats: bool,
    /// Pages that a copy is expected to need, if it is said.
    pub working_set: Option<u64>,
}

/// What a program does.
#[derive(Clone, PartialEq, Debug)]
pub enum Work {
    /// What a recording says.
    Trace(PathBuf),
    /// References after a pattern, each with so many instructions. Every copy has chance of its own.
    Pattern(Spec, u32),
}

/// What is wrong, and where in the text.
type Flaw = (Range<usize>, String);

impl Plan {
    /// Reads a scenario. Paths in it are relative to its own folder.
    ///
    /// # Errors
    /// If it cannot be read, or says something that cannot be done.
    pub fn open(path: &Path) -> Result<Plan, PlanError> {
        let text = fs::read_to_string(path)
            .map_err(|error| PlanError::Unreadable { path: path.to_owned(), error })?;
        Plan::parse(&text, path)
    }

    /// As [`open`](Self::open), from text that stands in the file `path`.
    ///
    /// # Errors
    /// If it says something that cannot be done.
    pub fn parse(text: &str, path: &Path) -> Result<Plan, PlanError> {
        let wrong = |(span, message): Flaw| {
            let before = text.bytes().take(span.start).filter(|&byte| byte == b'\n').count();
            let message = message.lines().collect::<Vec<_>>().join("; ");
            PlanError::Wrong { path: path.to_owned(), line: before + 1, message }
        };
        let raw: RawPlan = toml::from_str(text)
            .map_err(|error| wrong((error.span().unwrap_or(0..0), error.message().to_owned())))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let experiment = experiment(raw.machine, folder).map_err(wrong)?;
        let controls = controls(&raw.control, raw.duration).map_err(wrong)?;
        let instruction_ps = experiment.profile.cpu.instruction_ps.get();
        let mut programs = Vec::new();
        for process in raw.process {
            let span = process.span();
            let made = program(process.into_inner(), folder, instruction_ps);
            let made = made.map_err(|message| wrong((span.clone(), message)))?;
            if made.is_endless() && controls.until_ns.is_none() {
                let message = format!("{} never ends: give the scenario a duration", made.name);
                return Err(wrong((span, message)));
            }
            programs.push(made);
        }
        if programs.is_empty() {
            return Err(wrong((0..0, "no [[process]] to run".to_owned())));
        }
        Ok(Plan { path: path.to_owned(), experiment, controls, programs })
    }
}

impl Program {
    /// Whether it goes on until the run is over.
    fn is_endless(&self) -> bool {
        let all = matches!(&self.work, Work::Pattern(spec, _) if spec.references == u64::MAX);
        all || self.repeats
    }
}

fn experiment(raw: RawMachine, folder: &Path) -> Result<Experiment, Flaw> {
    let default = Experiment::default();
    let profile = match raw.profile {
        None => default.profile,
        Some(name) => {
            let (span, name) = (name.span(), name.into_inner());
            profile(&name, folder).map_err(|message| (span, message))?
        }
    };
    if let Some(cpus) = &raw.cpus
        && !(1..=1024).contains(cpus.get_ref())
    {
        return Err((cpus.span(), "cpus: a machine has 1 to 1024 processors".to_owned()));
    }
    if let Some(cluster) = &raw.page_cluster
        && *cluster.get_ref() > 5
    {
        return Err((cluster.span(), "page_cluster: 0 to 5".to_owned()));
    }
    if let Some(policy) = &raw.policy
        && let Err(error) = vellum_mm::replace::Choice::parse(policy.get_ref())
    {
        return Err((policy.span(), format!("policy `{}`: {error}", policy.get_ref())));
    }
    Ok(Experiment {
        memory: Memory::Size(Size::Bytes(raw.memory.0)),
        policy: raw.policy.map_or(default.policy, Spanned::into_inner),
        swap: raw.swap.map_or(default.swap, |swap| swap.0),
        disk: raw.disk.map_or(default.disk, |disk| disk.0),
        page_cluster: raw.page_cluster.map_or(default.page_cluster, Spanned::into_inner),
        warmth: match raw.page_cache {
            Some(PageCache::Cold) => Warmth::Cold,
            _ => Warmth::Warm,
        },
        cpus: raw.cpus.map(Spanned::into_inner),
        seed: raw.seed,
        profile,
        ..Experiment::default()
    })
}

fn profile(name: &str, folder: &Path) -> Result<Profile, String> {
    if let Some(profile) = Profile::built_in(name) {
        return Ok(profile);
    }
    let path = folder.join(name);
    let text = fs::read_to_string(&path).map_err(|error| {
        let names: Vec<_> = Profile::built_in_names().collect();
        format!("profile: no built-in `{name}` (there are {}), and {error}", names.join(", "))
    })?;
    Profile::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn controls(raw: &RawControl, duration: Option<Time>) -> Result<Controls, Flaw> {
    let (plain, load) = (Controls::default(), Settings::default());
    let ns = |time: Option<Time>, default: u64| time.map_or(default, |time| time.0);
    if let Some(period) = &raw.period
        && period.get_ref().0 == 0
    {
        return Err((period.span(), "period: more than nothing".to_owned()));
    }
    for percent in [&raw.headroom, &raw.utilisation].into_iter().flatten() {
        if *percent.get_ref() > 100 {
            return Err((percent.span(), "a percentage from 0 to 100".to_owned()));
        }
    }
    let percent =
        |given: &Option<Spanned<u64>>, default| given.as_ref().map_or(default, |p| *p.get_ref());
    Ok(Controls {
        load: Settings {
            rule: match raw.load {
                Load::None => Rule::None,
                Load::WorkingSet => Rule::WorkingSet,
                Load::Pff => Rule::FaultFrequency,
            },
            admission: raw.admission == Admission::WorkingSet,
            headroom_percent: percent(&raw.headroom, load.headroom_percent),
            residence_ns: ns(raw.residence, load.residence_ns),
            settle_ns: ns(raw.settle, load.settle_ns),
            faults_upper: raw.faults_upper.unwrap_or(load.faults_upper),
            faults_lower: raw.faults_lower.unwrap_or(load.faults_lower),
        },
        scope: match (raw.scope, raw.allotment) {
            (RawScope::Global, _) => Scope::Global,
            (RawScope::Local, Allotment::Equal) => Scope::LocalEqual,
            (RawScope::Local, Allotment::WorkingSet) => Scope::LocalWorkingSet,
        },
        window_ns: ns(raw.window, plain.window_ns),
        period_ns: raw.period.as_ref().map_or(plain.period_ns, |period| period.get_ref().0),
        utilisation_max_percent: percent(&raw.utilisation, plain.utilisation_max_percent),
        sustain_ns: ns(raw.sustain, plain.sustain_ns),
        until_ns: duration.map(|duration| duration.0),
    })
}

fn program(raw: RawProcess, folder: &Path, instruction_ps: u64) -> Result<Program, String> {
    let (name, work) = match (&raw.trace, raw.pattern) {
        (Some(trace), None) => {
            only_for_patterns(&raw)?;
            let name = trace.file_stem().unwrap_or(trace.as_os_str()).to_string_lossy();
            (name.into_owned(), Work::Trace(folder.join(trace)))
        }
        (None, Some(pattern)) => pattern_work(&raw, pattern, instruction_ps)?,
        _ => return Err("a process has either a `trace` or a `pattern`".to_owned()),
    };
    if raw.copies == 0 || raw.copies > 1024 {
        return Err(format!("{} copies: 1 to 1024", raw.copies));
    }
    Ok(Program {
        name: raw.name.unwrap_or(name),
        work,
        start_ns: raw.start.0,
        stagger_ns: raw.stagger.0,
        copies: raw.copies,
        repeats: raw.repeat,
        working_set: raw.working_set.map(|bytes| bytes.0.div_ceil(PAGE_BYTES)),
    })
}

/// Refuses keys that mean nothing for a recording.
fn only_for_patterns(raw: &RawProcess) -> Result<(), String> {
    let given = [
        ("pages", raw.pages.is_some()),
        ("size", raw.size.is_some()),
        ("references", raw.references.is_some()),
        ("write_share", raw.write_share.is_some()),
        ("exponent", raw.exponent.is_some()),
        ("scattered", raw.scattered.is_some()),
        ("window", raw.window.is_some()),
        ("phase_references", raw.phase_references.is_some()),
        ("hot", raw.hot.is_some()),
        ("hot_share", raw.hot_share.is_some()),
        ("seed", raw.seed.is_some()),
        ("compute", raw.compute.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((key, _)) => Err(format!("`{key}` is for patterns; a trace brings its own")),
        None => Ok(()),
    }
}

fn pattern_work(
    raw: &RawProcess,
    pattern: PatternName,
    instruction_ps: u64,
) -> Result<(String, Work), String> {
    let pages = match (raw.pages, raw.size) {
        (Some(pages), None) => pages,
        (None, Some(size)) => size.0.div_ceil(PAGE_BYTES),
        _ => return Err("a pattern needs either `pages` or `size`".to_owned()),
    };
    let eighth = (pages / 8).max(1);
    let pattern = match pattern {
        PatternName::Sequential => Pattern::Sequential,
        PatternName::Zigzag => Pattern::Zigzag,
        PatternName::Uniform => Pattern::Uniform,
        PatternName::Zipf => Pattern::Zipf {
            exponent: raw.exponent.unwrap_or(0.9),
            scattered: raw.scattered.unwrap_or(true),
        },
        PatternName::Phases => Pattern::Phases {
            window: raw.window.unwrap_or(eighth),
            references: raw.phase_references.unwrap_or(100_000),
        },
        PatternName::HotScan => Pattern::HotScan {
            hot: raw.hot.unwrap_or(eighth),
            hot_share: raw.hot_share.unwrap_or(0.8),
        },
    };
    let spec = Spec {
        pattern,
        pages,
        references: raw.references.unwrap_or(u64::MAX),
        write_share: raw.write_share.unwrap_or(0.3),
        seed: raw.seed.unwrap_or(0),
    };
    spec.stream().map_err(|error| error.to_string())?;
    let compute_ps = raw.compute.map_or(instruction_ps, |time| time.0.saturating_mul(1000));
    let instructions = u32::try_from(compute_ps / instruction_ps)
        .map_err(|_| "compute: at most a second between two references".to_owned())?;
    Ok((pattern.name().to_owned(), Work::Pattern(spec, instructions.max(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "duration = \"10s\"\n[machine]\nmemory = \"64M\"\ncpus = 2\n\
                        [control]\nload = \"pff\"\n[[process]]\npattern = \"uniform\"\n\
                        size = \"16M\"\ncompute = \"1us\"\ncopies = 3\n";

    fn parse(text: &str) -> Result<Plan, String> {
        Plan::parse(text, Path::new("runs/x.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_scenario_says_machine_control_and_programs() {
        let plan = parse(GOOD).expect("it is good");
        assert_eq!(plan.controls.load.rule, Rule::FaultFrequency);
        assert_eq!(plan.controls.until_ns, Some(10_000_000_000));
        let program = &plan.programs[0];
        assert_eq!((program.copies, program.name.as_str()), (3, "uniform"));
        let Work::Pattern(spec, instructions) = &program.work else { panic!("a pattern") };
        assert_eq!((spec.pages, *instructions), (4096, 3333));
        let trace = "[machine]\nmemory = \"1M\"\n[[process]]\ntrace = \"a/b.vtrace\"\n";
        let plan = parse(trace).expect("it is good");
        assert_eq!(plan.programs[0].work, Work::Trace(PathBuf::from("runs/a/b.vtrace")));
        assert_eq!(plan.programs[0].name, "b");
    }

    #[test]
    fn a_mistake_is_told_in_one_line_with_its_place() {
        for (from, to, line, word) in [
            ("cpus = 2", "cpu = 2", 4, "unknown field `cpu`"),
            ("cpus = 2", "cpus = 0", 4, "1 to 1024"),
            ("cpus = 2", "policy = \"clocks\"", 4, "clocks"),
            ("cpus = 2", "swap = \"tape\"", 4, "tape"),
            ("cpus = 2", "page_cluster = 9", 4, "0 to 5"),
            ("cpus = 2", "profile = \"abacus\"", 4, "abacus"),
            ("\"64M\"", "\"64Q\"", 3, "not a size"),
            ("\"64M\"", "\"50%\"", 3, "footprint"),
            ("\"10s\"", "\"ten\"", 1, "not a time"),
            ("duration = \"10s\"", "", 7, "never ends"),
            ("\"pff\"", "\"hope\"", 6, "hope"),
            ("load = \"pff\"", "headroom = 101", 6, "percentage"),
            ("load = \"pff\"", "period = \"0s\"", 6, "period"),
            ("size = \"16M\"", "", 7, "`pages` or `size`"),
            ("size = \"16M\"", "pages = 0", 7, "pages"),
            ("pattern = \"uniform\"", "trace = \"x\"", 7, "`size` is for patterns"),
            ("pattern = \"uniform\"", "", 7, "either a `trace` or a `pattern`"),
            ("copies = 3", "copies = 0", 7, "1 to 1024"),
            ("cpus = 2", "cpus = = 2", 4, ""),
        ] {
            assert_eq!(GOOD.matches(from).count(), 1, "`{from}` must name one place");
            let error = parse(&GOOD.replace(from, to)).expect_err(to);
            let place = format!("runs/x.toml:{line}: ");
            assert!(error.starts_with(&place) && error.contains(word), "`{to}`: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        assert!(parse("").expect_err("nothing").starts_with("runs/x.toml:1: "));
    }
}
