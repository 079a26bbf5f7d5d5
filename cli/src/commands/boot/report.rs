//! What came of a boot: what the kernel measured, and what was asked for.

use std::fmt;
use std::io::Write;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use vellum_emulator::boot::Boot;
use vellum_emulator::console::OutOfMemory;
use vellum_lab::report::{Duration, Faults, Grouped, ProcessReport, ProcessTable, Reclaim};
use vellum_lab::size::Human;

/// The report as it is printed; as JSON its fields are named as those of a replay.
#[derive(Serialize)]
pub(super) struct BootReport {
    vellum: &'static str,
    program: Vec<String>,
    exit: u8,
    policy: String,
    nodes: u32,
    seed: u64,
    icount: bool,
    #[serde(flatten)]
    measured: Measured,
    oom_kills: Vec<OutOfMemory>,
}

/// What the kernel tells when it ends.
#[derive(Serialize, Deserialize)]
pub(super) struct Measured {
    machine: Machine,
    faults: Faults,
    reclaim: Reclaim,
    memory: Memory,
    time: Time,
    processes: Vec<ProcessReport>,
    /// What is in use although nobody is left; nothing, unless the kernel is wrong.
    leaked: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Machine {
    memory_bytes: u64,
    frames: u32,
    cpus: u32,
    swap_bytes: u64,
}

/// The most that was ever in use.
#[derive(Serialize, Deserialize)]
struct Memory {
    peak_used_bytes: u64,
    peak_page_table_bytes: u64,
    peak_swap_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Time {
    virtual_ns: u64,
}

impl BootReport {
    pub(super) fn new(
        boot: &Boot,
        measured: Measured,
        oom_kills: Vec<OutOfMemory>,
        exit: u8,
    ) -> BootReport {
        BootReport {
            vellum: env!("CARGO_PKG_VERSION"),
            program: boot.program.clone(),
            exit,
            policy: boot.policy.clone(),
            nodes: boot.nodes,
            seed: boot.seed,
            icount: boot.icount,
            measured,
            oom_kills,
        }
    }

    /// Writes a header and one row, for tables of many boots.
    pub(super) fn csv(&self, out: &mut dyn Write) -> Result<()> {
        let Measured { machine, faults, reclaim, memory, time, .. } = &self.measured;
        writeln!(
            out,
            "program,memory_bytes,frames,policy,swap_bytes,cpus,nodes,seed,exit,minor,major,\
             scanned,evicted,written,swapped_in,swapped_out,peak_used_bytes,peak_page_table_bytes,\
             peak_swap_bytes,virtual_ns,oom_kills"
        )?;
        writeln!(
            out,
            "\"{}\",{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
            self.program.join(" ").replace('"', "\"\""),
            machine.memory_bytes,
            machine.frames,
            self.policy,
            machine.swap_bytes,
            machine.cpus,
            self.nodes,
            self.seed,
            self.exit,
            faults.minor,
            faults.major,
            reclaim.scanned,
            reclaim.evicted,
            reclaim.written,
            reclaim.swapped_in,
            reclaim.swapped_out,
            memory.peak_used_bytes,
            memory.peak_page_table_bytes,
            memory.peak_swap_bytes,
            time.virtual_ns,
            self.oom_kills.len()
        )?;
        Ok(())
    }

    /// The exit code of the program.
    pub(super) fn exit(&self) -> u8 {
        self.exit
    }
}

impl fmt::Display for BootReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Measured { machine, faults, reclaim, memory, time, processes, leaked } = &self.measured;
        let swap = match machine.swap_bytes {
            0 => "no swap".to_owned(),
            bytes => format!("swap {}", Human(bytes)),
        };
        writeln!(
            f,
            "machine: {}, {} frames, policy {}, {swap}, {} cpus, {} nodes, seed {}",
            Human(machine.memory_bytes),
            Grouped(machine.frames.into()),
            self.policy,
            machine.cpus,
            self.nodes,
            self.seed
        )?;
        write!(f, "\n{faults}{reclaim}")?;
        writeln!(
            f,
            "memory {:>14} peak    {:>10} tables  {:>10} swap",
            Human(memory.peak_used_bytes),
            Human(memory.peak_page_table_bytes),
            Human(memory.peak_swap_bytes)
        )?;
        let clock = if self.icount { "in instructions" } else { "elapsed" };
        writeln!(f, "time   {:>14} {clock}", Duration(time.virtual_ns))?;
        write!(f, "{}", ProcessTable(processes))?;
        for kill in &self.oom_kills {
            writeln!(
                f,
                "out of memory: killed {} ({}), {} resident, {} in swap",
                kill.pid,
                kill.command,
                Human(kill.resident_bytes),
                Human(kill.swap_bytes)
            )?;
        }
        match leaked {
            Some(what) => writeln!(f, "leaked: {what}; please report it with the command line"),
            None => Ok(()),
        }
    }
}
