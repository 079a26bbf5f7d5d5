//! The report of a run as people read it.

use std::fmt;

use super::report::RunReport;
use crate::report::{Duration, Grouped};
use crate::size::Human;

/// A number with a decimal, or none if it is large.
pub(super) struct Short(pub(super) f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            value if value >= 1e7 => format!("{:.1} M", value / 1e6),
            value if value >= 1e4 => format!("{:.1} k", value / 1e3),
            value if value >= 100.0 => format!("{value:.0}"),
            value => format!("{value:.1}"),
        };
        f.pad(&text)
    }
}

/// Per cent.
pub(super) struct Percent(pub(super) f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:.1} %", self.0 * 100.0))
    }
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RunReport { machine, control, cpu, faults, pressure, .. } = self;
        let seconds = Duration(self.elapsed_ns);
        writeln!(f, "{}: {} programs for {seconds}", self.scenario, self.jobs.len())?;
        writeln!(
            f,
            "machine: {}, policy {}, swap {}, {} cpus ({}), seed {}",
            Human(machine.memory_bytes),
            machine.policy,
            machine.swap,
            machine.cpus,
            machine.profile,
            machine.seed
        )?;
        let by = control.allotment.as_deref().map(|by| format!(" by {by}")).unwrap_or_default();
        writeln!(
            f,
            "control: load {}, admission {}, replacement {}{by}",
            control.load, control.admission, control.scope
        )?;
        writeln!(f)?;
        writeln!(
            f,
            "cpu      {:>10} busy     {:>10} for programs",
            Percent(cpu.utilisation),
            Percent(cpu.useful)
        )?;
        writeln!(
            f,
            "work     {:>10} references/s  {:>12} in all",
            Short(self.references_per_second),
            Grouped(self.references)
        )?;
        writeln!(
            f,
            "faults   {:>10} major/s  {:>10} minor/s  {:>12} evicted",
            Short(faults.major_per_second),
            Short(faults.minor_per_second),
            Grouped(faults.evicted)
        )?;
        for (name, disk) in [("swap", self.swap), ("files", Some(self.file))] {
            let Some(disk) = disk.filter(|disk| disk.reads + disk.writes > 0) else { continue };
            writeln!(
                f,
                "{name:<8} {:>10} busy     {:>10} queued   {:>12} response",
                Percent(disk.utilisation),
                Short(disk.queue),
                Duration(disk.response_ns)
            )?;
        }
        for (name, line) in [("some", pressure.some), ("full", pressure.full)] {
            writeln!(
                f,
                "pressure {name} avg10={:.2} avg60={:.2} avg300={:.2} total={}",
                line.avg10,
                line.avg60,
                line.avg300,
                line.total_ns / 1000
            )?;
        }
        self.write_thrashing(f)?;
        self.write_jobs(f)
    }
}

/// Jobs listed at the most; the rest are counted.
const JOBS_SHOWN: usize = 40;

impl RunReport {
    fn write_thrashing(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.thrashing.is_empty() {
            return writeln!(f, "thrashing: none");
        }
        write!(f, "thrashing: {} of {}", Duration(self.thrashing_ns), Duration(self.elapsed_ns))?;
        for episode in self.thrashing.iter().take(4) {
            match episode.to_ns {
                Some(to) => write!(f, ", {} to {}", Duration(episode.from_ns), Duration(to))?,
                None => write!(f, ", from {} on", Duration(episode.from_ns))?,
            }
        }
        if self.thrashing.len() > 4 {
            write!(f, ", …")?;
        }
        writeln!(f)
    }

    fn write_jobs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        writeln!(
            f,
            "{:<16} {:<13} {:>4} {:>12} {:>10} {:>10} {:>10} {:>9} {:>11}",
            "program",
            "state",
            "runs",
            "references/s",
            "cpu",
            "major",
            "suspended",
            "for",
            "working set"
        )?;
        for job in self.jobs.iter().take(JOBS_SHOWN) {
            writeln!(
                f,
                "{:<16} {:<13} {:>4} {:>12} {:>10} {:>10} {:>10} {:>9} {:>11}",
                job.name,
                job.state,
                job.runs,
                Short(job.references_per_second),
                Duration(job.cpu_ns),
                Grouped(job.major),
                job.suspensions,
                Duration(job.suspended_ns),
                Human(job.working_set_bytes)
            )?;
        }
        if self.jobs.len() > JOBS_SHOWN {
            writeln!(f, "… and {} more", self.jobs.len() - JOBS_SHOWN)?;
        }
        Ok(())
    }
}
