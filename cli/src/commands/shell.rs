//! `vellum completions` and `vellum man`: both are made from the arguments.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Args;
use crate::output;

pub(crate) fn completions(shell: Shell) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "vellum", &mut script);
    output::to(None, |out| Ok(out.write_all(&script)?))?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn man(directory: &Path) -> Result<ExitCode> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    clap_mangen::generate_to(Args::command(), directory)
        .with_context(|| format!("cannot write in {}", directory.display()))?;
    eprintln!("manual pages: {}", directory.display());
    Ok(ExitCode::SUCCESS)
}
