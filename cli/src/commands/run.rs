//! `vellum run`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Result, bail};
use vellum_lab::run::degrees::degrees;
use vellum_lab::run::{Degrees, Plan, Remedy, RunReport};

use crate::args::{DegreeList, Format, RunArgs};
use crate::{output, progress};

pub(crate) fn run(args: &RunArgs) -> Result<ExitCode> {
    output::check(args.output.as_deref())?;
    let plan = Plan::open(&args.scenario)?;
    match &args.degree {
        Some(list) => many(args, &plan, list),
        None => one(args, &plan),
    }
}

fn one(args: &RunArgs, plan: &Plan) -> Result<ExitCode> {
    let plan = match args.control[..] {
        [] => plan.clone(),
        [remedy] => remedy.applied(plan),
        _ => {
            bail!("several controls are compared with --degree, such as --degree {}", copies(plan))
        }
    };
    let bar = progress::bar(None, "running");
    let report = plan.run(|events| bar.set_position(events));
    bar.finish_and_clear();
    let report = report?;
    output::to(args.output.as_deref(), |out| match args.format {
        Format::Text => Ok(write!(out, "{report}")?),
        Format::Json => json(out, &report),
        Format::Csv => timeline(out, &report),
    })?;
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(ExitCode::SUCCESS)
}

fn copies(plan: &Plan) -> u32 {
    plan.programs.iter().map(|program| program.copies).max().unwrap_or(1)
}

fn many(args: &RunArgs, plan: &Plan, list: &DegreeList) -> Result<ExitCode> {
    let remedies = match &args.control[..] {
        [] => vec![Remedy::None, Remedy::WorkingSet],
        given => given.to_vec(),
    };
    let bar = progress::bar(Some((list.0.len() * remedies.len()) as u64), "running");
    let result = degrees(plan, &list.0, &remedies, || bar.inc(1));
    bar.finish_and_clear();
    let result = result?;
    let is_terminal = args.output.is_none() && std::io::stdout().is_terminal();
    let colour = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    output::to(args.output.as_deref(), |out| match args.format {
        Format::Text => Ok(write!(out, "{}\n{result}", result.plot(72, colour))?),
        Format::Json => json(out, &result),
        Format::Csv => table(out, &result),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn json(out: &mut dyn Write, value: &impl serde::Serialize) -> Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    Ok(writeln!(out)?)
}

/// A row a sample.
fn timeline(out: &mut dyn Write, report: &RunReport) -> Result<()> {
    writeln!(
        out,
        "at_ns,cpu,useful,references_per_second,minor_per_second,major_per_second,swap,stalled,\
         active,suspended,waiting,free,thrashing"
    )?;
    for s in &report.timeline {
        writeln!(
            out,
            "{},{},{},{},{},{},{},{},{},{},{},{},{}",
            s.at_ns,
            s.cpu,
            s.useful,
            s.references_per_second,
            s.minor_per_second,
            s.major_per_second,
            s.swap,
            s.stalled,
            s.active,
            s.suspended,
            s.waiting,
            s.free,
            u8::from(s.thrashing)
        )?;
    }
    Ok(())
}

/// A row a control and degree.
fn table(out: &mut dyn Write, result: &Degrees) -> Result<()> {
    writeln!(
        out,
        "control,degree,memory_bytes,references_per_second,slowest_per_second,cpu,useful,\
         major_per_second,swap,queue,suspensions,thrashing,some,full"
    )?;
    for p in &result.points {
        writeln!(
            out,
            "{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
            p.control,
            p.degree,
            p.memory_bytes,
            p.references_per_second,
            p.slowest_per_second,
            p.cpu,
            p.useful,
            p.major_per_second,
            p.swap,
            p.queue,
            p.suspensions,
            p.thrashing,
            p.some,
            p.full
        )?;
    }
    Ok(())
}
