//! `vellum replay`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use vellum_lab::report::Report;
use vellum_lab::size::Size;
use vellum_lab::{Experiment, Memory};
use vellum_machine::profile::Profile;
use vellum_mm::addr::PAGE_BYTES;
use vellum_mm::objects::file::Warmth;
use vellum_mm::objects::io::IO_PAGES_MAX;
use vellum_mm::objects::store::Tunables;

use crate::args::{Format, PageCache, ReplayArgs};
use crate::{output, progress};

pub(crate) fn run(args: &ReplayArgs) -> Result<ExitCode> {
    output::check(args.output.as_deref())?;
    let experiment = Experiment {
        memory: match (args.memory, args.frames) {
            (Some(size), _) => Memory::Size(size),
            (None, Some(frames)) => Memory::Frames(frames),
            (None, None) => Memory::Unlimited,
        },
        policy: args.policy.clone(),
        swap: args.swap,
        disk: args.disk,
        page_cluster: args.page_cluster,
        tunables: tunables(args)?,
        warmth: match args.page_cache {
            PageCache::Warm => Warmth::Warm,
            PageCache::Cold => Warmth::Cold,
        },
        cpus: args.cpus,
        seed: args.seed,
        profile: profile(&args.machine)?,
        groups: 0,
    };
    let bar = progress::bar(None, "replaying");
    let report = experiment.run(&args.trace, |progress| {
        if let Some(total) = progress.events_total
            && bar.length().is_none()
        {
            bar.set_length(total);
        }
        bar.set_position(progress.events);
    });
    bar.finish_and_clear();
    let report = report?;
    output::to(args.output.as_deref(), |out| match args.format {
        Format::Text => Ok(write!(out, "{report}")?),
        Format::Json => {
            serde_json::to_writer(&mut *out, &report)?;
            Ok(writeln!(out)?)
        }
        Format::Csv => csv(out, &report),
    })?;
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(ExitCode::SUCCESS)
}

fn tunables(args: &ReplayArgs) -> Result<Tunables> {
    let pages = |size: Size, what: &str| match size {
        Size::Bytes(bytes) => Ok(bytes / PAGE_BYTES),
        Size::Percent(_) => bail!("{what} is a size in bytes, such as 64k"),
    };
    let read_ahead = pages(args.read_ahead, "--read-ahead")?;
    if read_ahead > IO_PAGES_MAX as u64 {
        bail!("--read-ahead is at most 128k");
    }
    let around = pages(args.fault_around, "--fault-around")?.max(1);
    if !around.is_power_of_two() || around > 512 {
        bail!("--fault-around is a power of two of pages, from 4k to 2M");
    }
    Ok(Tunables { fault_around_pages: around, read_ahead_pages: read_ahead.max(1) as u32 })
}

/// The profile of this name, or in this file.
pub(super) fn profile(name: &str) -> Result<Profile> {
    if let Some(profile) = Profile::built_in(name) {
        return Ok(profile);
    }
    let text = std::fs::read_to_string(name).with_context(|| {
        let names: Vec<_> = Profile::built_in_names().collect();
        format!("no machine profile `{name}`: built in are {}, others are files", names.join(", "))
    })?;
    Profile::parse(&text).with_context(|| format!("machine profile {name}"))
}

/// A header and one row, for tables of many replays.
fn csv(out: &mut dyn Write, report: &Report) -> Result<()> {
    let Report { trace, machine, faults, reclaim, tlb, memory, time, .. } = report;
    writeln!(
        out,
        "trace,memory_bytes,frames,policy,swap,seed,minor,major,scanned,evicted,written,swapped_in,\
         swapped_out,tlb_lookups,tlb_misses,peak_resident_bytes,peak_page_table_bytes,virtual_ns,\
         cpu_ns,io_wait_ns,oom_kills"
    )?;
    writeln!(
        out,
        "\"{}\",{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
        trace.file.replace('"', "\"\""),
        machine.memory_bytes,
        machine.frames,
        machine.policy,
        machine.swap,
        machine.seed,
        faults.minor,
        faults.major,
        reclaim.scanned,
        reclaim.evicted,
        reclaim.written,
        reclaim.swapped_in,
        reclaim.swapped_out,
        tlb.lookups,
        tlb.misses,
        memory.peak_resident_bytes,
        memory.peak_page_table_bytes,
        time.virtual_ns,
        time.cpu_ns,
        time.io_wait_ns,
        report.oom_kills.len()
    )?;
    Ok(())
}
