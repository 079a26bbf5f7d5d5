//! The few chores that cargo does not do: `cargo xtask CHORE`.
//!
//! `truth` asks the Linux kernel of this machine whether replays count faults as it does.
//!
//! Exit codes are those of `vellum`: 0 done, 1 a check failed or the work could not be done, 2
//! wrong usage. A check whose tools are missing says `SKIP` and why, and is done.
#![forbid(unsafe_code)]

mod build;
mod programs;
mod scratch;
mod truth;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask truth [--runs N] [--vellum FILE] [PROGRAM…]

  truth  record programs, replay them with unlimited memory, and compare the page faults with
         those that Linux counts natively (perf stat); all programs unless some are named.
         Vellum is built first, unless --vellum names an executable";

/// Exit code of a check that failed, or of work that could not be done.
const FAILED: u8 = 1;
/// Exit code of wrong usage.
const MISUSED: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((chore, rest)) if chore == "truth" => match truth::Options::parse(rest) {
            Ok(options) => truth::run(&options),
            Err(error) => return misused(&format!("{error:#}")),
        },
        Some((chore, _)) => return misused(&format!("no chore is called `{chore}`")),
        None => return misused("which chore?"),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn misused(message: &str) -> ExitCode {
    eprintln!("xtask: {message}\n{USAGE}");
    ExitCode::from(MISUSED)
}
