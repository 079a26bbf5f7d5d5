//! `vellum record`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use vellum_lab::report::{Duration as Shown, Grouped};
use vellum_lab::size::Human;
use vellum_recorder::{Options, Progress, Recorded, record};

use crate::args::RecordArgs;
use crate::progress;

pub(crate) fn run(args: RecordArgs) -> Result<ExitCode> {
    let output = args.output.unwrap_or_else(|| default_output(&args.command[0]));
    let progress = Arc::new(Progress::default());
    let options = Options {
        command: args.command,
        output: output.clone(),
        exact: args.exact,
        filter_events: args.filter_events,
        qemu: args.qemu,
        plugin: args.plugin,
        qemu_options: args.qemu_options,
        progress: Some(Arc::clone(&progress)),
        ..Options::default()
    };
    // Ctrl-C reaches the program as well; the recording of what it did until then is kept.
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .context("cannot watch for Ctrl-C")?;
    }
    let done = Arc::new(AtomicBool::new(false));
    let watcher = watch(Arc::clone(&progress), Arc::clone(&done));
    let recorded = record(&options, &interrupted);
    done.store(true, Relaxed);
    // The watcher cannot panic: it only draws.
    let _ = watcher.join();
    let recorded = recorded?;
    report(&output, &recorded);
    // As shells do: what does not fit a byte keeps its low eight bits.
    Ok(ExitCode::from(recorded.exit.to_le_bytes()[0]))
}

fn default_output(command: &std::ffi::OsStr) -> PathBuf {
    let name = Path::new(command).file_name().unwrap_or(command);
    let mut name = name.to_os_string();
    name.push(".vtrace");
    PathBuf::from(name)
}

fn watch(progress: Arc<Progress>, done: Arc<AtomicBool>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let bar = progress::bar(None, "recording");
        while !done.load(Relaxed) {
            bar.set_position(progress.events.load(Relaxed));
            thread::sleep(Duration::from_millis(100));
        }
        bar.finish_and_clear();
    })
}

fn report(output: &Path, recorded: &Recorded) {
    let summary = &recorded.summary;
    let bytes = std::fs::metadata(output).map_or(0, |meta| meta.len());
    eprintln!(
        "recorded {} references of {} processes as {} events, {} pages, in {}: {} ({})",
        Grouped(summary.references),
        summary.processes.len(),
        Grouped(summary.events),
        Grouped(summary.pages),
        Shown(u64::try_from(recorded.elapsed.as_nanos()).unwrap_or(u64::MAX)),
        output.display(),
        Human(bytes)
    );
    for warning in &recorded.warnings {
        eprintln!("warning: {warning}");
    }
}
