//! `vellum boot`.

mod live;
mod report;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use vellum_emulator::boot::{Boot, BootError};
use vellum_emulator::console::{Event, Part};
use vellum_mm::addr::Frame;
use vellum_mm::replace::{Choice, Parameters, Replacement, Settings};

use crate::args::{BootArgs, Format};
use crate::{Usage, output};
use live::Live;
use report::{BootReport, Measured};

/// What shells say of a program that was interrupted: 128 and SIGINT.
const INTERRUPTED: u8 = 130;

pub(crate) fn run(args: BootArgs) -> Result<ExitCode> {
    check_policy(&args.policy)?;
    if args.program.first().is_some_and(String::is_empty) {
        bail!(Usage("the program after `--` has no name".to_owned()));
    }
    output::check(args.output.as_deref())?;
    let stop = interrupts()?;
    let boot = Boot {
        memory_bytes: args.memory,
        cpus: args.cpus,
        nodes: args.nodes,
        policy: args.policy,
        swap_bytes: args.swap,
        disk: args.disk,
        seed: args.seed,
        icount: args.icount,
        added: args.add,
        program: args.program,
        stop: Some(Arc::clone(&stop)),
        ..Boot::default()
    };
    // Standard output is for one of the two: what the program prints, or a report for programs.
    let report_is_output = args.output.as_deref().is_none_or(|path| path == Path::new("-"));
    let out: Box<dyn Write> = match args.format {
        Format::Json | Format::Csv if report_is_output => Box::new(io::stderr()),
        _ => Box::new(io::stdout()),
    };
    match listen(&boot, Live::new(out), &stop)? {
        Some(report) => {
            print(&report, args.format, args.output.as_deref())?;
            Ok(ExitCode::from(report.exit()))
        }
        None => Ok(ExitCode::from(INTERRUPTED)),
    }
}

/// Refuses what the kernel would refuse, before it is built.
fn check_policy(text: &str) -> Result<()> {
    let choice = Choice::parse(text).map_err(|error| Usage(format!("policy `{text}`: {error}")))?;
    let any = Parameters {
        first: Frame(0),
        frames: 1024,
        pages: None,
        seed: 0,
        settings: Settings::NONE,
    };
    match choice.make(&any) {
        Replacement::Blind(_) => Ok(()),
        _ => bail!(Usage(format!(
            "policy `{text}` must be told of more than hardware sees; `vellum curve` runs it, and \
             here do clock, linux, mglru and others"
        ))),
    }
}

/// Set by Ctrl-C.
fn interrupts() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .context("cannot watch for Ctrl-C")?;
    }
    Ok(stop)
}

/// Runs the machine and shows what it says; `None` if it was interrupted.
fn listen(boot: &Boot, mut live: Live, stop: &AtomicBool) -> Result<Option<BootReport>> {
    let (mut measured, mut oom_kills, mut passed_on) = (None, Vec::new(), Ok(()));
    let ended = boot.run(Some(live.input()), |part| match part {
        Part::Output(bytes) if passed_on.is_ok() => {
            passed_on = live.output(bytes);
            if passed_on.is_err() {
                // Nobody reads any more: a program that prints for ever must not run for ever.
                stop.store(true, Ordering::Relaxed);
            }
        }
        Part::Note(line) => live.note(line),
        Part::Event(Event::Counters(counters)) => live.counters(&counters),
        Part::Event(Event::OutOfMemory(kill)) => oom_kills.push(kill),
        Part::Event(Event::Report(fields)) => measured = Some(fields),
        _ => {}
    });
    live.finish();
    passed_on?;
    let exit = match ended {
        Err(BootError::Stopped) => return Ok(None),
        other => other?,
    };
    let measured: Measured = serde_json::from_value(measured.context("the kernel sent no report")?)
        .context("the kernel's report is of another version")?;
    Ok(Some(BootReport::new(boot, measured, oom_kills, exit)))
}

fn print(report: &BootReport, format: Format, path: Option<&Path>) -> Result<()> {
    if format == Format::Text && path.is_none() {
        return Ok(write!(io::stderr(), "\n{report}")?);
    }
    output::to(path, |out| match format {
        Format::Json => {
            serde_json::to_writer(&mut *out, report)?;
            Ok(writeln!(out)?)
        }
        Format::Csv => report.csv(out),
        Format::Text => Ok(write!(out, "{report}")?),
    })
}
