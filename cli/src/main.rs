//! The command `vellum`: arguments, glue, and what people see. What it does is in the libraries.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod output;
mod progress;

use std::fmt;
use std::io;
use std::process::ExitCode;

use clap::Parser;
use vellum_emulator::boot::BootError;
use vellum_lab::LabError;
use vellum_lab::explain::LessonError;

use args::{Args, Command};

/// What was asked for cannot be meant, although its words could be read.
#[derive(Debug)]
struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Exit codes: 0 done, 1 the work could not be done, 2 wrong usage. `record` and `boot` pass their
/// program's on.
const FAILED: u8 = 1;
const MISUSED: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.command {
        Command::Record(args) => commands::record::run(args),
        Command::Info(args) => commands::info::run(&args),
        Command::Replay(args) => commands::replay::run(&args),
        Command::Run(args) => commands::run::run(&args),
        Command::Curve(args) => commands::curve::run(&args),
        Command::Advise(args) => commands::advise::run(&args),
        Command::Import(args) => commands::import::run(&args),
        Command::Generate(args) => commands::generate::run(&args),
        Command::Export(args) => commands::export::run(&args),
        Command::Policies(args) => commands::policies::run(&args),
        Command::Explain(args) => commands::explain::run(&args),
        Command::Boot(args) => commands::boot::run(args),
        Command::Completions { shell } => commands::shell::completions(shell),
        Command::Man { directory } => commands::shell::man(&directory),
    };
    match result {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vellum: {}", in_one_line(&error));
            ExitCode::from(if is_misuse(&error) { MISUSED } else { FAILED })
        }
    }
}

/// Whether other words would have helped: a name that there is not.
fn is_misuse(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<Usage>()
            || matches!(cause.downcast_ref(), Some(LabError::Policy { .. }))
            || matches!(cause.downcast_ref(), Some(LessonError::Policy(..)))
            || matches!(cause.downcast_ref(), Some(BootError::Program(_)))
    })
}

/// An error and its causes; a cause that an error tells itself is not told twice.
fn in_one_line(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |line, cause| match line.as_str() {
        "" => cause,
        line if line.ends_with(&cause) => line.to_owned(),
        line => format!("{line}: {cause}"),
    })
}

/// Whether whoever read our output has had enough, as `head` has.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}
