//! Records a command: `cargo run --example record -- OUTPUT [--exact] COMMAND…`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use vellum_recorder::{Options, Progress, record};

fn main() -> std::process::ExitCode {
    let mut words: Vec<_> = std::env::args_os().skip(1).collect();
    if words.len() < 2 {
        eprintln!("usage: record OUTPUT [--exact] COMMAND…");
        return 2.into();
    }
    let output = words.remove(0).into();
    let exact = words[0] == "--exact";
    if exact {
        words.remove(0);
    }
    let progress = Some(Arc::new(Progress::default()));
    let options = Options { command: words, output, exact, progress, ..Options::default() };
    match record(&options, &AtomicBool::new(false)) {
        Ok(recorded) => {
            eprintln!("{:?} in {:?}", recorded.counters, recorded.elapsed);
            for warning in &recorded.warnings {
                eprintln!("warning: {warning}");
            }
            u8::try_from(recorded.exit).unwrap_or(1).into()
        }
        Err(error) => {
            eprintln!("{error}");
            2.into()
        }
    }
}
