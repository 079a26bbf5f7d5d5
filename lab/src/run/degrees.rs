//! A plan with more and more copies of its program, under several remedies: the curve of thrashing.

use std::fmt;
use std::str::FromStr;

use rayon::prelude::*;
use serde::Serialize;
use thiserror::Error;
use vellum_mm::reclaim::load_control::Rule;

use super::report::ControlReport;
use super::text::{Percent, Short};
use super::{Plan, RunReport};
use crate::experiment::{LabError, Memory};
use crate::plot::{Line, Plot};
use crate::replay::control::Scope;
use crate::report::MachineReport;
use crate::size::{Human, Size};

/// What is done against thrashing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remedy {
    /// Nothing.
    None,
    /// Programs are suspended while the sum of working sets is more than memory.
    WorkingSet,
    /// Programs that fault too often are suspended.
    FaultFrequency,
    /// Programs start only if their working sets fit.
    Admission,
    /// Replacement is local: each program evicts its own pages only.
    Local,
    /// Memory is doubled.
    Ram,
}

/// The remedies, with their names.
pub const REMEDIES: [(Remedy, &str); 6] = [
    (Remedy::None, "none"),
    (Remedy::WorkingSet, "working-set"),
    (Remedy::FaultFrequency, "pff"),
    (Remedy::Admission, "admission"),
    (Remedy::Local, "local"),
    (Remedy::Ram, "ram"),
];

/// The name of no remedy.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("`{0}` is no control; there are none, working-set, pff, admission, local and ram")]
pub struct UnknownRemedy(pub String);

impl FromStr for Remedy {
    type Err = UnknownRemedy;

    fn from_str(name: &str) -> Result<Remedy, UnknownRemedy> {
        let found = REMEDIES.iter().find(|(_, known)| *known == name);
        found.map(|(remedy, _)| *remedy).ok_or_else(|| UnknownRemedy(name.to_owned()))
    }
}

impl Remedy {
    /// Its name.
    pub fn name(self) -> &'static str {
        let found = REMEDIES.iter().find(|(known, _)| *known == self);
        found.map_or("", |(_, name)| name)
    }

    /// `plan` with this remedy alone; its thresholds stay.
    pub fn applied(self, plan: &Plan) -> Plan {
        let mut plan = plan.clone();
        let controls = &mut plan.controls;
        (controls.load.rule, controls.load.admission) = (Rule::None, false);
        controls.scope = Scope::Global;
        match self {
            Remedy::None => {}
            Remedy::WorkingSet => controls.load.rule = Rule::WorkingSet,
            Remedy::FaultFrequency => controls.load.rule = Rule::FaultFrequency,
            Remedy::Admission => controls.load.admission = true,
            Remedy::Local => controls.scope = Scope::LocalEqual,
            Remedy::Ram => {
                if let Memory::Size(Size::Bytes(bytes)) = plan.experiment.memory {
                    plan.experiment.memory = Memory::Size(Size::Bytes(bytes.saturating_mul(2)));
                }
            }
        }
        plan
    }
}

/// Why degrees cannot be varied.
#[derive(Debug, Error)]
pub enum DegreeError {
    /// Several programs.
    #[error("the degree is the number of copies of one [[process]]; this scenario has {0}")]
    SeveralPrograms(usize),
    /// A run failed.
    #[error(transparent)]
    Lab(#[from] LabError),
}

/// A plan at many degrees under several remedies.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Degrees {
    /// The version of Vellum.
    pub vellum: String,
    /// The scenario's file name.
    pub scenario: String,
    /// The machine, before any remedy.
    pub machine: MachineReport,
    /// What a copy is expected to need, in bytes.
    pub working_set_bytes: u64,
    /// A point for each remedy and degree: by remedy, then by degree.
    pub points: Vec<Point>,
}

/// One run.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Point {
    /// What was done against thrashing.
    pub control: String,
    /// Copies of the program.
    pub degree: u32,
    /// What that was in detail.
    pub controls: ControlReport,
    /// Memory of its machine.
    pub memory_bytes: u64,
    /// References in a second, of all copies.
    pub references_per_second: f64,
    /// Of the copy that made fewest.
    pub slowest_per_second: f64,
    /// Part of the time in which processors worked.
    pub cpu: f64,
    /// Part of the time in which they worked for programs.
    pub useful: f64,
    /// Major faults in a second.
    pub major_per_second: f64,
    /// Part of the time in which the swap disk worked.
    pub swap: f64,
    /// Requests in its queue, on average.
    pub queue: f64,
    /// Suspensions.
    pub suspensions: u64,
    /// Part of the time in which the machine thrashed.
    pub thrashing: f64,
    /// Part of the time in which some task was stalled for memory.
    pub some: f64,
    /// Part of the time in which all were.
    pub full: f64,
}

impl Point {
    fn new(remedy: Remedy, degree: u32, report: &RunReport) -> Point {
        let elapsed = report.elapsed_ns.max(1) as f64;
        Point {
            control: remedy.name().to_owned(),
            degree,
            controls: report.control.clone(),
            memory_bytes: report.machine.memory_bytes,
            references_per_second: report.references_per_second,
            slowest_per_second: report.slowest(),
            cpu: report.cpu.utilisation,
            useful: report.cpu.useful,
            major_per_second: report.faults.major_per_second,
            swap: report.swap.map_or(0.0, |disk| disk.utilisation),
            queue: report.swap.map_or(0.0, |disk| disk.queue),
            suspensions: report.suspensions,
            thrashing: report.thrashing_ns as f64 / elapsed,
            some: report.pressure.some.total_ns as f64 / elapsed,
            full: report.pressure.full.total_ns as f64 / elapsed,
        }
    }
}

/// Runs `plan` with each of `degrees` copies of its program under each of `remedies`, several runs at
/// a time. `done` is called after each.
///
/// # Errors
/// If the plan has several programs, or a run fails.
pub fn degrees(
    plan: &Plan,
    degrees: &[u32],
    remedies: &[Remedy],
    done: impl Fn() + Sync,
) -> Result<Degrees, DegreeError> {
    if plan.programs.len() != 1 {
        return Err(DegreeError::SeveralPrograms(plan.programs.len()));
    }
    let pairs = remedies.iter().flat_map(|&remedy| degrees.iter().map(move |&d| (remedy, d)));
    let pairs: Vec<(Remedy, u32)> = pairs.collect();
    let run = |&(remedy, degree): &(Remedy, u32)| {
        let mut plan = remedy.applied(plan);
        plan.programs[0].copies = degree;
        let report = plan.run(|_| ());
        done();
        report.map(|report| (Point::new(remedy, degree, &report), report))
    };
    let runs: Vec<(Point, RunReport)> = pairs.par_iter().map(run).collect::<Result<_, _>>()?;
    let plain = runs.iter().find(|(point, _)| point.control != Remedy::Ram.name());
    let first = plain.or(runs.first()).map(|(_, report)| report);
    let Some(first) = first else { return Err(DegreeError::SeveralPrograms(0)) };
    Ok(Degrees {
        vellum: first.vellum.clone(),
        scenario: first.scenario.clone(),
        machine: first.machine.clone(),
        working_set_bytes: plan.expected_bytes()?,
        points: runs.into_iter().map(|(point, _)| point).collect(),
    })
}

impl Degrees {
    /// The controls, in order.
    pub fn controls(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.points.iter().map(|point| point.control.as_str()).collect();
        names.dedup();
        names
    }

    /// The points of one control, by degree.
    pub fn of(&self, control: &str) -> impl Iterator<Item = &Point> {
        self.points.iter().filter(move |point| point.control == control)
    }

    /// The most work that any degree did under `control`, in references a second.
    pub fn peak(&self, control: &str) -> f64 {
        self.of(control).map(|point| point.references_per_second).fold(0.0, f64::max)
    }
}

impl Degrees {
    /// Work and use of the processors against the degree, drawn for a terminal.
    pub fn plot(&self, width: usize, colour: bool) -> String {
        let lines = |value: fn(&Point) -> f64| -> Vec<Line> {
            let line = |control: &&str| Line {
                name: (*control).to_owned(),
                points: self.of(control).map(|p| (f64::from(p.degree), value(p))).collect(),
                is_step: false,
            };
            self.controls().iter().map(line).collect()
        };
        let plot = |title: &str| Plot {
            x_title: "degree of multiprogramming".to_owned(),
            y_title: title.to_owned(),
            width,
            height: 12,
            colour,
            ..Plot::default()
        };
        let work = plot("references a second").render(&lines(|p| p.references_per_second));
        let cpu = plot("% of processor time for programs").render(&lines(|p| p.useful * 100.0));
        format!("{work}\n{cpu}")
    }
}

/// Cells of a bar.
const BAR: usize = 40;

impl fmt::Display for Degrees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machine = &self.machine;
        writeln!(
            f,
            "{}: {} of memory, {} for a copy: {:.1} fit; policy {}, swap {}, {} cpus ({}), seed {}",
            self.scenario,
            Human(machine.memory_bytes),
            Human(self.working_set_bytes),
            machine.memory_bytes as f64 / self.working_set_bytes.max(1) as f64,
            machine.policy,
            machine.swap,
            machine.cpus,
            machine.profile,
            machine.seed
        )?;
        let most = self.points.iter().map(|point| point.references_per_second);
        let most = most.fold(0.0, f64::max);
        for control in self.controls() {
            let memory = self.of(control).next().map_or(0, |point| point.memory_bytes);
            let doubled = if memory == machine.memory_bytes {
                String::new()
            } else {
                format!(" ({} of memory)", Human(memory))
            };
            writeln!(f, "\ncontrol {control}{doubled}")?;
            writeln!(
                f,
                "{:>6} {:>12} {:>10} {:>8} {:>8} {:>9} {:>7} {:>7} {:>6} {:>7} {:>7}",
                "degree",
                "references/s",
                "slowest",
                "cpu",
                "useful",
                "major/s",
                "swap",
                "queue",
                "susp.",
                "some",
                "full"
            )?;
            for point in self.of(control) {
                write_point(f, point, most)?;
            }
        }
        Ok(())
    }
}

fn write_point(f: &mut fmt::Formatter<'_>, point: &Point, most: f64) -> fmt::Result {
    let filled = if most > 0.0 { point.references_per_second / most } else { 0.0 };
    #[allow(clippy::cast_sign_loss)] // a share is not negative
    let filled = (filled * BAR as f64).round() as usize;
    writeln!(
        f,
        "{:>6} {:>12} {:>10} {:>8} {:>8} {:>9} {:>7} {:>7} {:>6} {:>7} {:>7}  {}{}",
        point.degree,
        Short(point.references_per_second),
        Short(point.slowest_per_second),
        Percent(point.cpu),
        Percent(point.useful),
        Short(point.major_per_second),
        Percent(point.swap),
        Short(point.queue),
        point.suspensions,
        Percent(point.some),
        Percent(point.full),
        "█".repeat(filled),
        if point.thrashing > 0.5 { " thrashing" } else { "" }
    )
}
