//! `vellum advise`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use vellum_lab::Experiment;
use vellum_lab::advise::{Advice, Question, advise};

use crate::args::{AdviseArgs, Format};
use crate::commands::{curve, replay};
use crate::{output, progress};

pub(crate) fn run(args: &AdviseArgs) -> Result<ExitCode> {
    if args.format == Format::Csv {
        bail!("advice is text or json; `vellum curve` and `vellum replay` make tables");
    }
    output::check(args.output.as_deref())?;
    let machine = Experiment {
        policy: args.policy.clone(),
        swap: args.swap,
        seed: args.seed,
        profile: replay::profile(&args.machine)?,
        ..Experiment::default()
    };
    let question = Question { slowdown: args.slowdown, machine, headroom: args.headroom };
    let bar = progress::bar(None, "replaying");
    let advice = advise(&args.trace, &question, |what, progress| {
        if bar.message() != what {
            bar.set_message(what.to_owned());
        }
        curve::show(&bar, progress);
    });
    bar.finish_and_clear();
    let advice: Advice = advice?;
    output::to(args.output.as_deref(), |out| match args.format {
        Format::Json => {
            serde_json::to_writer(&mut *out, &advice)?;
            Ok(writeln!(out)?)
        }
        _ => Ok(write!(out, "{advice}")?),
    })?;
    for warning in &advice.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(ExitCode::SUCCESS)
}
