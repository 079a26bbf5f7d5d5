//! The report of a replay: plain data, rendered as JSON by serde and as text here.
//!
//! Field names are an interface: scripts read them. A test holds the set of names stable.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use vellum_trace::event::{Filter, Meta, Summary};

use crate::experiment::shown;
use crate::size::Human;

/// What came of one replay.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// The version of Vellum.
    pub vellum: String,
    /// What was replayed.
    pub trace: TraceReport,
    /// On which machine.
    pub machine: MachineReport,
    /// Page faults.
    pub faults: Faults,
    /// Evictions and write-back.
    pub reclaim: Reclaim,
    /// Address translation.
    pub tlb: TlbReport,
    /// How much memory was used.
    pub memory: MemoryReport,
    /// How long it took.
    pub time: Time,
    /// Each process.
    pub processes: Vec<ProcessReport>,
    /// Processes killed because memory ran out.
    pub oom_kills: Vec<OomKill>,
    /// What makes the answer doubtful. Not part of the text form: the command says it on standard
    /// error.
    pub warnings: Vec<String>,
}

/// The trace.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct TraceReport {
    /// Its file name.
    pub file: String,
    /// The command that was recorded.
    pub command: String,
    /// Events replayed.
    pub events: u64,
    /// References that they stand for.
    pub references: u64,
    /// Distinct (process, page) pairs.
    pub pages: u64,
    /// Processes.
    pub processes: usize,
    /// The recorder's filter; null if every reference is recorded.
    pub filter: Option<Filter>,
}

impl TraceReport {
    pub(crate) fn new(
        path: &Path,
        meta: &Meta,
        summary: Option<&Summary>,
        events: u64,
    ) -> TraceReport {
        TraceReport {
            file: shown(path),
            command: meta.command.join(" "),
            events,
            references: summary.map_or(0, |s| s.references),
            pages: summary.map_or(0, |s| s.pages),
            processes: summary.map_or(0, |s| s.processes.len()),
            filter: meta.filter,
        }
    }
}

/// The machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct MachineReport {
    /// RAM in bytes.
    pub memory_bytes: u64,
    /// RAM in frames.
    pub frames: u32,
    /// Whether that was asked for, or is more than the program can use.
    pub limited: bool,
    /// The replacement policy.
    pub policy: String,
    /// The kind of swap device, or `none`.
    pub swap: String,
    /// Its size in bytes.
    pub swap_bytes: u64,
    /// `warm` or `cold`.
    pub page_cache: String,
    /// Processors.
    pub cpus: u32,
    /// The profile that costs come from.
    pub profile: String,
    /// What chance started from.
    pub seed: u64,
}

/// Page faults.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Faults {
    /// Satisfied without a read of their own.
    pub minor: u64,
    /// Those that had to read.
    pub major: u64,
    /// All of them by what they needed; violations besides.
    pub by_kind: ByKind,
}

/// Faults by what they needed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct ByKind {
    /// Reads of untouched memory: the zero frame.
    pub zero_page: u64,
    /// Writes to untouched memory: a zeroed frame.
    pub zero_fill: u64,
    /// Pages of files that were cached.
    pub file_map: u64,
    /// Pages of files that had to be read.
    pub file_fill: u64,
    /// Pages from swap, read or still cached.
    pub swap_in: u64,
    /// Copies of shared frames.
    pub copy_on_write: u64,
    /// Frames no longer shared.
    pub reuse: u64,
    /// First writes to clean shared file pages.
    pub make_dirty: u64,
    /// Nothing.
    pub spurious: u64,
    /// Accesses that no area allows; they are passed over.
    pub violation: u64,
}

/// Evictions and write-back, in pages.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Reclaim {
    /// Frames that the policy proposed.
    pub scanned: u64,
    /// Pages evicted.
    pub evicted: u64,
    /// Pages written to files.
    pub written: u64,
    /// Pages read from swap.
    pub swapped_in: u64,
    /// Pages written to swap.
    pub swapped_out: u64,
    /// Pages read from files.
    pub file_read: u64,
    /// Allocations that had to reclaim themselves.
    pub direct: u64,
}

/// Address translation.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct TlbReport {
    /// References translated.
    pub lookups: u64,
    /// Those that no TLB held: page walks. With a filtered trace a lower bound.
    pub misses: u64,
    /// Those that the first level did not hold.
    pub l1_misses: u64,
}

/// Memory used.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct MemoryReport {
    /// The most that programs and the page cache ever held at once.
    pub peak_resident_bytes: u64,
    /// The most that page tables ever took.
    pub peak_page_table_bytes: u64,
    /// The most that swap ever held.
    pub peak_swap_bytes: u64,
}

/// Virtual time, in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Time {
    /// From start to end.
    pub virtual_ns: u64,
    /// Processors at work, in sum.
    pub cpu_ns: u64,
    /// Of that, in the kernel: faults, calls, reclaim.
    pub kernel_ns: u64,
    /// Threads that waited for a disk, in sum.
    pub io_wait_ns: u64,
}

/// One process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProcessReport {
    /// Its pid when it was recorded.
    pub pid: u32,
    /// Its command.
    pub command: String,
    /// Minor faults.
    pub minor: u64,
    /// Major faults.
    pub major: u64,
    /// The most pages that were ever resident, in bytes.
    pub peak_resident_bytes: u64,
    /// `exit 0`, `signal 9`, `out of memory`, `not seen`.
    pub exit: String,
}

/// A process killed because memory ran out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OomKill {
    /// When, in virtual nanoseconds.
    pub at_ns: u64,
    /// Who.
    pub pid: u32,
    /// Its command.
    pub command: String,
    /// What it had in frames.
    pub resident_bytes: u64,
    /// What it had in swap.
    pub swap_bytes: u64,
}

/// Digits in groups of three.
pub struct Grouped(pub u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() * 4 / 3);
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

/// A duration in the unit that suits it.
pub struct Duration(pub u64);

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0 as f64;
        let text = match self.0 {
            0..10_000 => format!("{} ns", self.0),
            10_000..10_000_000 => format!("{:.1} us", ns / 1e3),
            10_000_000..10_000_000_000 => format!("{:.1} ms", ns / 1e6),
            _ => format!("{:.2} s", ns / 1e9),
        };
        f.pad(&text)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { trace, machine, faults, reclaim, memory, time, .. } = self;
        writeln!(f, "{}: {}", trace.file, trace.command)?;
        writeln!(
            f,
            "  {} events for {} references, {} pages, {} processes",
            Grouped(trace.events),
            Grouped(trace.references),
            Grouped(trace.pages),
            trace.processes
        )?;
        let limit = if machine.limited { "" } else { " (no limit)" };
        let swap = match machine.swap_bytes {
            0 => "no swap".to_owned(),
            bytes => format!("swap {} {}", machine.swap, Human(bytes)),
        };
        writeln!(
            f,
            "machine: {}{limit}, {} frames, policy {}, {swap}, page cache {}, {} cpus ({}), seed {}",
            Human(machine.memory_bytes),
            Grouped(machine.frames.into()),
            machine.policy,
            machine.page_cache,
            machine.cpus,
            machine.profile,
            machine.seed
        )?;
        writeln!(f)?;
        write!(f, "{faults}{reclaim}")?;
        writeln!(
            f,
            "tlb    {:>14} lookups {:>10} walks",
            Grouped(self.tlb.lookups),
            Grouped(self.tlb.misses)
        )?;
        write!(f, "{memory}{time}{}", ProcessTable(&self.processes))?;
        self.oom_kills.iter().try_for_each(|kill| write!(f, "{kill}"))
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "faults {:>14} minor {:>12} major", Grouped(self.minor), Grouped(self.major))?;
        write_kinds(f, &self.by_kind)
    }
}

impl fmt::Display for Reclaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "reclaim{:>14} scanned {:>10} evicted {:>10} swapped out {:>10} swapped in",
            Grouped(self.scanned),
            Grouped(self.evicted),
            Grouped(self.swapped_out),
            Grouped(self.swapped_in)
        )?;
        writeln!(
            f,
            "files  {:>14} read    {:>10} written {:>10} direct reclaims",
            Grouped(self.file_read),
            Grouped(self.written),
            Grouped(self.direct)
        )
    }
}

impl fmt::Display for MemoryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "memory {:>14} peak    {:>10} tables  {:>10} swap",
            Human(self.peak_resident_bytes),
            Human(self.peak_page_table_bytes),
            Human(self.peak_swap_bytes)
        )
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "time   {:>14} elapsed {:>10} cpu     {:>10} in the kernel {:>10} waiting for disks",
            Duration(self.virtual_ns),
            Duration(self.cpu_ns),
            Duration(self.kernel_ns),
            Duration(self.io_wait_ns)
        )
    }
}

impl fmt::Display for OomKill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "out of memory after {}: killed {} ({}), {} resident, {} in swap",
            Duration(self.at_ns),
            self.pid,
            self.command,
            Human(self.resident_bytes),
            Human(self.swap_bytes)
        )
    }
}

fn write_kinds(f: &mut fmt::Formatter<'_>, kinds: &ByKind) -> fmt::Result {
    let all = [
        ("zero page", kinds.zero_page),
        ("zero fill", kinds.zero_fill),
        ("file map", kinds.file_map),
        ("file fill", kinds.file_fill),
        ("swap in", kinds.swap_in),
        ("copy on write", kinds.copy_on_write),
        ("reuse", kinds.reuse),
        ("make dirty", kinds.make_dirty),
        ("spurious", kinds.spurious),
        ("violation", kinds.violation),
    ];
    for (name, count) in all.into_iter().filter(|&(_, count)| count > 0) {
        writeln!(f, "       {:>14} {name}", Grouped(count))?;
    }
    Ok(())
}

/// Processes listed at the most; the rest are counted.
const PROCESSES_SHOWN: usize = 20;

/// Processes as a table, a row each.
pub struct ProcessTable<'a>(pub &'a [ProcessReport]);

impl fmt::Display for ProcessTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        writeln!(
            f,
            "{:>8} {:>12} {:>10} {:>12}  {:<14} command",
            "pid", "minor", "major", "peak", "exit"
        )?;
        for process in self.0.iter().take(PROCESSES_SHOWN) {
            let command: String = process.command.chars().take(60).collect();
            writeln!(
                f,
                "{:>8} {:>12} {:>10} {:>12}  {:<14} {command}",
                process.pid,
                Grouped(process.minor),
                Grouped(process.major),
                Human(process.peak_resident_bytes),
                process.exit
            )?;
        }
        if self.0.len() > PROCESSES_SHOWN {
            writeln!(f, "         … and {} more", self.0.len() - PROCESSES_SHOWN)?;
        }
        Ok(())
    }
}
