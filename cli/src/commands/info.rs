//! `vellum info`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use vellum_lab::report::Grouped;
use vellum_lab::size::Human;
use vellum_trace::Reader;
use vellum_trace::event::{Exit, Meta, Summary};

use crate::args::{Format, InfoArgs};
use crate::output;

/// Files listed for people; JSON has all.
const FILES_SHOWN: usize = 10;

#[derive(Serialize)]
struct Info<'a> {
    vellum: &'static str,
    file: String,
    bytes: u64,
    meta: &'a Meta,
    summary: Option<&'a Summary>,
}

pub(crate) fn run(args: &InfoArgs) -> Result<ExitCode> {
    let reader = Reader::open(&args.trace)?;
    let info = Info {
        vellum: env!("CARGO_PKG_VERSION"),
        file: args.trace.display().to_string(),
        bytes: std::fs::metadata(&args.trace)?.len(),
        meta: reader.meta(),
        summary: reader.summary(),
    };
    output::to(None, |out| match args.format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &info)?;
            Ok(writeln!(out)?)
        }
        Format::Text => text(out, &info),
        Format::Csv => csv(out, &info),
    })?;
    if reader.summary().is_none() {
        eprintln!(
            "vellum: {} has no end: the recording was cut; `replay` uses what is there",
            args.trace.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn text(out: &mut dyn Write, info: &Info<'_>) -> Result<()> {
    let Meta { command, date, recorder, filter, host, parameters, .. } = info.meta;
    writeln!(out, "{}: {}", info.file, Human(info.bytes))?;
    writeln!(out, "command    {}", command.join(" "))?;
    let date = if date.is_empty() { "no date" } else { date };
    writeln!(out, "recorded   {date} by {recorder}")?;
    if !host.is_empty() {
        writeln!(out, "host       {host}")?;
    }
    match filter {
        Some(filter) => writeln!(
            out,
            "filter     {} pages, emptied every {} events: replays hold from {} frames ({}) up",
            filter.pages,
            filter.events,
            filter.frames_min,
            Human(filter.frames_min * 4096)
        )?,
        None => writeln!(out, "filter     none: every reference is recorded")?,
    }
    for (name, value) in parameters {
        writeln!(out, "{name:<10} {value}")?;
    }
    let Some(summary) = info.summary else { return Ok(()) };
    let million = summary.references as f64 / 1e6;
    writeln!(
        out,
        "references {} ({} loads, {} stores, {} fetches), {} instructions",
        Grouped(summary.references),
        Grouped(summary.loads),
        Grouped(summary.stores),
        Grouped(summary.fetches),
        Grouped(summary.instructions)
    )?;
    writeln!(
        out,
        "events     {}; {:.0} bytes a million references",
        Grouped(summary.events),
        if million > 0.0 { info.bytes as f64 / million } else { 0.0 }
    )?;
    writeln!(out, "footprint  {} pages ({})", Grouped(summary.pages), Human(summary.pages * 4096))?;
    writeln!(out, "\n{:>8} {:>8}  {:<12} command", "pid", "parent", "exit")?;
    for process in &summary.processes {
        let parent = process.parent.and_then(|id| summary.processes.get(id as usize));
        writeln!(
            out,
            "{:>8} {:>8}  {:<12} {}",
            process.pid,
            parent.map_or(String::new(), |parent| parent.pid.to_string()),
            exit(process.exit),
            process.command
        )?;
    }
    let mut files: Vec<_> = summary.files.iter().collect();
    files.sort_by_key(|file| std::cmp::Reverse(file.bytes));
    writeln!(out, "\n{} files and shared memory objects, the largest:", files.len())?;
    for file in files.iter().take(FILES_SHOWN) {
        writeln!(out, "{:>12}  {}", Human(file.bytes), file.path)?;
    }
    for warning in &summary.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    if summary.interrupted {
        writeln!(out, "the recording was interrupted")?;
    }
    Ok(())
}

/// One row a process.
fn csv(out: &mut dyn Write, info: &Info<'_>) -> Result<()> {
    writeln!(out, "process,pid,parent,exit,command")?;
    for process in info.summary.iter().flat_map(|summary| &summary.processes) {
        writeln!(
            out,
            "{},{},{},{},\"{}\"",
            process.id,
            process.pid,
            process.parent.map_or(String::new(), |parent| parent.to_string()),
            exit(process.exit),
            process.command.replace('"', "\"\"")
        )?;
    }
    Ok(())
}

fn exit(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exit {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
        Exit::Unknown => "not seen".to_owned(),
    }
}
