//! `vellum generate`.

use std::process::ExitCode;

use anyhow::Result;
use vellum_lab::report::Grouped;
use vellum_trace::generate::{Pattern, Spec};

use crate::args::{GenerateArgs, PatternName};

pub(crate) fn run(args: &GenerateArgs) -> Result<ExitCode> {
    let eighth = (args.pages / 8).max(1);
    let pattern = match args.pattern {
        PatternName::Sequential => Pattern::Sequential,
        PatternName::Zigzag => Pattern::Zigzag,
        PatternName::Uniform => Pattern::Uniform,
        PatternName::Zipf => Pattern::Zipf { exponent: args.exponent, scattered: !args.packed },
        PatternName::Phases => Pattern::Phases {
            window: args.window.unwrap_or(eighth),
            references: args.phase_references.unwrap_or((args.references / 10).max(1)),
        },
        PatternName::HotScan => {
            Pattern::HotScan { hot: args.hot.unwrap_or(eighth), hot_share: args.hot_share }
        }
    };
    let spec = Spec {
        pattern,
        pages: args.pages,
        references: args.references,
        write_share: args.write_share,
        seed: args.seed,
    };
    let summary = spec.write(&args.output)?;
    eprintln!(
        "generated {} references to {} pages: {}",
        Grouped(summary.references),
        Grouped(summary.pages),
        args.output.display()
    );
    Ok(ExitCode::SUCCESS)
}
