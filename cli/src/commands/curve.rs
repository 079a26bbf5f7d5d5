//! `vellum curve`.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use vellum_lab::curve::{Request, curve};
use vellum_lab::experiment::Progress;
use vellum_lab::string::flatten;
use vellum_lab::string::sizing::Scope;

use crate::args::{CurveArgs, Format, ScopeName};
use crate::{output, progress};

pub(crate) fn run(args: &CurveArgs) -> Result<ExitCode> {
    let request = Request {
        policies: args.policy.clone(),
        sizes: args.memory.clone().or_else(|| args.frames.clone().map(Into::into)),
        points: args.points.into(),
        sample: args.sample,
        scope: match args.scope {
            ScopeName::Local => Scope::Local,
            ScopeName::Global => Scope::Global,
        },
        seed: args.seed,
    };
    request.check()?;
    output::check(args.output.as_deref())?;
    let bar = progress::bar(None, "flattening");
    let flat = flatten(&args.trace, |progress| show(&bar, progress))?;
    bar.finish_and_clear();
    let bar = progress::bar(None, "simulating");
    let done = AtomicUsize::new(0);
    let curve = curve(&args.trace, &flat, &request, |total| {
        bar.set_length(total as u64);
        bar.set_position(done.fetch_add(1, Ordering::Relaxed) as u64 + 1);
    });
    bar.finish_and_clear();
    let curve = curve?;
    let is_terminal = args.output.is_none() && std::io::stdout().is_terminal();
    let colour = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    output::to(args.output.as_deref(), |out| match args.format {
        Format::Text => Ok(write!(out, "{}\n{curve}", curve.plot(72, colour))?),
        Format::Json => {
            serde_json::to_writer(&mut *out, &curve)?;
            Ok(writeln!(out)?)
        }
        Format::Csv => Ok(curve.csv(out)?),
    })?;
    for warning in &curve.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows how far a replay is.
pub(super) fn show(bar: &indicatif::ProgressBar, progress: Progress) {
    if let Some(total) = progress.events_total {
        bar.set_length(total);
    }
    bar.set_position(progress.events);
}
