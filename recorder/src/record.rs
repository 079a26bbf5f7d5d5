//! Records a command: starts it under QEMU, collects until its last process has ended.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use vellum_trace::event::{Filter, Meta, Summary};
use vellum_trace::{Notes, Sink, Writer};

use crate::collect::{Counters, Counting};
use crate::error::RecordError;
use crate::host;
use crate::plugin::exec_command_line;
use crate::program::{self, Program};
use crate::qemu::{self, Qemu};
use crate::shared::MAGIC;
use crate::shared_file::Shared;
use crate::sys;
use crate::tree::Tree;

/// How far a recording is; read it from another thread.
#[derive(Debug, Default)]
pub struct Progress {
    /// Events in the trace.
    pub events: AtomicU64,
    /// References that they stand for.
    pub references: AtomicU64,
    /// Bytes of the trace written.
    pub bytes: AtomicU64,
}

/// What to record, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The command and its arguments.
    pub command: Vec<OsString>,
    /// The trace to write.
    pub output: PathBuf,
    /// Whether to record every change of page rather than what passes the filter.
    pub exact: bool,
    /// Pages that each thread's filter holds, for each kind of access: a power of two.
    pub filter_pages: u32,
    /// The filter is emptied after this many events of the thread; replays then hold for memories
    /// of four times as many frames.
    pub filter_events: u32,
    /// … and after this many translation blocks.
    pub filter_blocks: u32,
    /// The QEMU to use instead of `qemu-x86_64` on the path.
    pub qemu: Option<PathBuf>,
    /// More options for QEMU, such as `-cpu max`.
    pub qemu_options: Vec<OsString>,
    /// The plugin's library, if it is not where this executable was installed or built.
    pub plugin: Option<PathBuf>,
    /// Where to report how far the recording is.
    pub progress: Option<Arc<Progress>>,
}

impl Default for Options {
    /// No command, and the filter that is right for memories of 2 MiB and more.
    fn default() -> Self {
        Self {
            command: Vec::new(),
            output: PathBuf::new(),
            exact: false,
            filter_pages: 1024,
            filter_events: 128,
            filter_blocks: 1 << 18,
            qemu: None,
            qemu_options: Vec::new(),
            plugin: None,
            progress: None,
        }
    }
}

/// A recording that was made.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The command's exit code, or 128 and the signal that killed it.
    pub exit: i32,
    /// The end of the trace.
    pub summary: Summary,
    /// What was counted.
    pub counters: Counters,
    /// What the user should know; the trace holds it as well.
    pub warnings: Vec<String>,
    /// How long it took.
    pub elapsed: Duration,
}

/// What [`record_into`] found out beside the events.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The command's exit code, or 128 and the signal that killed it.
    pub exit: i32,
    /// What was counted.
    pub counters: Counters,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Whether the recording was interrupted.
    pub interrupted: bool,
}

/// Records a command into a file.
///
/// Returns when the command and all processes that it started have ended. When `interrupted`
/// becomes true, those that still run get a moment to end by themselves, as after Ctrl-C they will,
/// then signals; what they did until then is kept.
///
/// # Errors
/// [`RecordError`]; the trace, if it was begun, is removed.
pub fn record(options: &Options, interrupted: &AtomicBool) -> Result<Recorded, RecordError> {
    let begin = Instant::now();
    let prepared = Prepared::new(options)?;
    let mut writer = Writer::create(&options.output, &prepared.meta)?;
    writer.hurry()?;
    let progress = options.progress.clone();
    let outcome = prepared.run(options, interrupted, &mut writer, |writer| {
        if let Some(progress) = &progress {
            progress.bytes.store(writer.bytes(), Relaxed);
        }
    });
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            writer.abandon();
            return Err(error);
        }
    };
    let Outcome { exit, counters, warnings, interrupted } = outcome;
    let summary = writer.finish(Notes {
        loads: Some(counters.loads),
        stores: Some(counters.stores),
        fetches: Some(counters.fetches),
        warnings: warnings.clone(),
        interrupted,
    })?;
    Ok(Recorded { exit, summary, counters, warnings, elapsed: begin.elapsed() })
}

/// Records a command into any sink; [`Options::output`] is not used.
///
/// # Errors
/// [`RecordError`], and whatever the sink refuses.
pub fn record_into(
    options: &Options,
    interrupted: &AtomicBool,
    sink: &mut impl Sink,
) -> Result<(Meta, Outcome), RecordError> {
    let prepared = Prepared::new(options)?;
    let outcome = prepared.run(options, interrupted, sink, |_| {})?;
    Ok((prepared.meta, outcome))
}

/// Everything that can be found out before the program starts.
struct Prepared {
    qemu: Qemu,
    plugin: PathBuf,
    program: program::Runnable,
    meta: Meta,
}

impl Prepared {
    fn new(options: &Options) -> Result<Self, RecordError> {
        let pages = options.filter_pages;
        if !pages.is_power_of_two()
            || pages > 1 << 16
            || options.filter_events == 0
            || options.filter_blocks == 0
        {
            return Err(RecordError::Filter);
        }
        let program = resolve(&options.command)?;
        let qemu = Qemu::find(options.qemu.as_deref())?;
        let plugin = qemu::find_plugin(options.plugin.as_deref())?;
        let lossy = |words: &[OsString]| -> Vec<String> {
            words.iter().map(|word| word.to_string_lossy().into_owned()).collect()
        };
        let mut parameters = Vec::new();
        if !options.qemu_options.is_empty() {
            parameters.push(("qemu options".into(), lossy(&options.qemu_options).join(" ")));
        }
        let filter = (!options.exact).then(|| Filter {
            pages,
            events: options.filter_events,
            blocks: options.filter_blocks,
            frames_min: 4 * u64::from(options.filter_events),
        });
        let meta = Meta {
            command: lossy(&options.command),
            date: host::now(),
            recorder: qemu.name.clone(),
            page_bytes: 4096,
            filter,
            host: host::describe(),
            parameters,
        };
        Ok(Self { qemu, plugin, program, meta })
    }

    fn run<S: Sink>(
        &self,
        options: &Options,
        interrupted: &AtomicBool,
        sink: &mut S,
        mut tell: impl FnMut(&S),
    ) -> Result<Outcome, RecordError> {
        let pages = if options.exact { 1 } else { u64::from(options.filter_pages) };
        let shared = Shared::create(pages)?;
        let header = shared.mapping.header();
        let (events, blocks) = if options.exact {
            (1, u64::MAX)
        } else {
            (u64::from(options.filter_events), u64::from(options.filter_blocks))
        };
        header.filter_events.store(events, Relaxed);
        header.filter_blocks.store(blocks, Relaxed);
        header.magic.store(MAGIC, Release);
        sys::adopt_orphans();
        let child = self.start(options, &shared.path)?;
        let mut tree = Tree::new(child, &shared);
        let mut counting = Counting { sink, events: 0, references: 0 };
        let progress = options.progress.as_deref();
        let result = tree.collect(interrupted, &mut counting, |counting| {
            if let Some(progress) = progress {
                progress.events.store(counting.events, Relaxed);
                progress.references.store(counting.references, Relaxed);
            }
            tell(counting.sink);
        });
        if let Err(error) = result {
            header.closed.store(1, Relaxed);
            tree.kill();
            return Err(error.into());
        }
        if header.images.load(Relaxed) == 0 && tree.exit != Some(0) && !tree.was_interrupted() {
            let (qemu, plugin) = (self.qemu.path.clone(), self.plugin.clone());
            return Err(RecordError::PluginRefused { qemu, plugin });
        }
        let warnings = tree.collector.finish(&mut counting)?;
        let mut counters = tree.collector.counters;
        (counters.events, counters.references) = (counting.events, counting.references);
        let exit = tree.exit.unwrap_or(128 + libc::SIGKILL);
        Ok(Outcome { exit, counters, warnings, interrupted: tree.was_interrupted() })
    }

    fn start(&self, options: &Options, shared: &Path) -> Result<Child, RecordError> {
        let environment = std::env::vars_os()
            .map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
        let program::Runnable { path, arguments } = &self.program;
        let (words, environment) = exec_command_line(path, arguments, environment.collect());
        let environment = environment.iter().filter_map(|variable| {
            let at = variable.iter().position(|&byte| byte == b'=')?;
            let string = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
            Some((string(&variable[..at]), string(&variable[at + 1..])))
        });
        Command::new(&self.qemu.path)
            .args(&options.qemu_options)
            .arg("-plugin")
            .arg(qemu::plugin_option(&self.plugin, shared))
            .args(words.into_iter().map(OsString::from_vec))
            .env_clear()
            .envs(environment)
            .spawn()
            .map_err(|source| RecordError::QemuBroken { qemu: self.qemu.path.clone(), source })
    }
}

/// The program that `command` names.
fn resolve(command: &[OsString]) -> Result<program::Runnable, RecordError> {
    let word = command.first().ok_or(RecordError::CommandEmpty)?;
    let search = std::env::var_os("PATH");
    let Some(path) = program::find(Path::new(word), search.as_deref()) else {
        return Err(RecordError::CommandMissing { command: word.to_string_lossy().into_owned() });
    };
    let arguments = command.iter().map(|word| word.as_bytes().to_vec()).collect();
    let reason = match program::resolve(&path, arguments) {
        Program::Runnable(program) => return Ok(program),
        Program::Foreign(reason) => reason,
        Program::Refused if path.is_dir() => "it is a directory",
        Program::Refused if !sys::is_executable(&path) => "it is not executable",
        Program::Refused => "it is neither an ELF program nor a script with a working `#!` line",
    };
    Err(RecordError::CommandRefused { path, reason })
}
