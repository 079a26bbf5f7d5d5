//! Records a command: starts it under QEMU, collects until its last process has ended.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

use vellum_trace::event::{Filter, Meta, Summary};
use vellum_trace::{Notes, Sink, TraceError, Writer};

use crate::collect::{self, Collector, Counters, Counting};
use crate::error::RecordError;
use crate::host;
use crate::plugin::exec_command_line;
use crate::program::{self, Program};
use crate::qemu::{self, Qemu};
use crate::shared::{MAGIC, Mapping, file_bytes};
use crate::sys;

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
    /// The filter is emptied after this many events of the thread; replays then hold for memories of
    /// four times as many frames.
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
    /// No command, and the filter that is right for memories of 1 MiB and more.
    fn default() -> Self {
        Self {
            command: Vec::new(),
            output: PathBuf::new(),
            exact: false,
            filter_pages: 1024,
            filter_events: 64,
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
/// Returns when the command and all processes that it started have ended. When `interrupted` becomes
/// true, those that still run get a moment to end by themselves, as after Ctrl-C they will, then
/// signals; what they did until then is kept.
///
/// # Errors
/// [`RecordError`]; the trace, if it was begun, is removed.
pub fn record(options: &Options, interrupted: &AtomicBool) -> Result<Recorded, RecordError> {
    let begin = Instant::now();
    let prepared = Prepared::new(options)?;
    let mut writer = Writer::create(&options.output, &prepared.meta)?;
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

/// The shared file; it goes with this value.
struct Shared {
    path: PathBuf,
    mapping: Mapping,
}

impl Shared {
    /// Makes the file where there is room, with as many slots as there is room for.
    fn create(filter_pages: u64) -> Result<Self, RecordError> {
        const SLOTS: u64 = 512;
        const SLOTS_MIN: u64 = 16;
        let directories = [PathBuf::from("/dev/shm"), std::env::temp_dir()];
        let least = file_bytes(SLOTS_MIN, filter_pages) as u64;
        for directory in &directories {
            let room = sys::bytes_free(directory).unwrap_or(0);
            let fits = |slots: &u64| file_bytes(*slots, filter_pages) as u64 <= room;
            let halves = std::iter::successors(Some(SLOTS), |slots| Some(slots / 2));
            let slots = halves.take_while(|&slots| slots >= SLOTS_MIN).find(fits);
            if let Some(slots) = slots {
                remove_stale(directory);
                return Self::create_in(directory, slots, filter_pages).map_err(|source| {
                    RecordError::Shared { directory: directory.clone(), source }
                });
            }
        }
        let [first, second] = directories.map(|directory| directory.display().to_string());
        let directories = format!("{first} nor {second}");
        Err(RecordError::SharedFull { bytes: least, directories })
    }

    fn create_in(directory: &Path, slots: u64, filter_pages: u64) -> std::io::Result<Self> {
        /// Tells recordings of one process apart.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Relaxed);
        let path = directory.join(format!("{PREFIX}{}.{count}", std::process::id()));
        let open =
            || OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        // A leftover of an earlier process of the same number would be in the way.
        let file = open().or_else(|_| std::fs::remove_file(&path).and_then(|()| open()))?;
        let bytes = file_bytes(slots, filter_pages);
        let mapped = file.set_len(bytes as u64).and_then(|()| Mapping::of(&file, bytes));
        let mapping = mapped.inspect_err(|_| drop(std::fs::remove_file(&path)))?;
        let header = mapping.header();
        header.slots.store(slots, Relaxed);
        header.filter_pages.store(filter_pages, Relaxed);
        header.collector.store(u64::from(std::process::id()), Relaxed);
        Ok(Self { path, mapping })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Whoever still has it mapped keeps it until then, and is told that nobody reads.
        self.mapping.header().closed.store(1, Relaxed);
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The shared file's name, before the pid.
const PREFIX: &str = "vellum-record.";

/// Removes files that killed recorders have left behind.
fn remove_stale(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('.').next());
        if let Some(Ok(pid)) = pid.map(str::parse)
            && !sys::exists(pid)
        {
            // If it is another user's, it stays.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The recorded processes.
struct Tree<'a> {
    child: Child,
    shared: &'a Shared,
    collector: Collector<'a>,
    /// The command's exit code, once it has one.
    exit: Option<i32>,
    /// When the user wanted it to end, and how many signals were sent since.
    interrupted: Option<(Instant, usize)>,
}

impl<'a> Tree<'a> {
    fn new(child: Child, shared: &'a Shared) -> Self {
        let collector = Collector::new(&shared.mapping);
        Self { child, shared, collector, exit: None, interrupted: None }
    }

    fn was_interrupted(&self) -> bool {
        self.interrupted.is_some()
    }

    /// Collects until every process has ended.
    fn collect<S: Sink>(
        &mut self,
        interrupted: &AtomicBool,
        sink: &mut Counting<'_, S>,
        mut tell: impl FnMut(&Counting<'_, S>),
    ) -> Result<(), TraceError> {
        const NAP_MIN: Duration = Duration::from_micros(100);
        const NAP_MAX: Duration = Duration::from_millis(2);
        const LOOK: Duration = Duration::from_millis(100);
        let mut nap = NAP_MIN;
        let mut looked = Instant::now();
        loop {
            let moved = self.collector.pump(sink)?;
            if moved > 0 {
                nap = NAP_MIN;
            } else {
                let ended = self.look_at_child();
                let thorough = ended || looked.elapsed() >= LOOK;
                self.collector.tidy(thorough, sink)?;
                if thorough {
                    looked = Instant::now();
                    tell(sink);
                    let running = self.running(ended);
                    if running.is_empty() && self.exit.is_some() && self.collector.is_idle() {
                        return Ok(());
                    }
                    self.interrupt(interrupted, &running);
                }
                std::thread::sleep(nap);
                nap = (nap * 2).min(NAP_MAX);
            }
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                tell(sink);
                let running = self.running(false);
                self.interrupt(interrupted, &running);
            }
        }
    }

    /// The processes that still run; `last` asks for those too that nobody has told of.
    fn running(&mut self, last: bool) -> Vec<u32> {
        let mut running = self.collector.reap_orphans();
        if last && running.is_empty() {
            running = collect::children_that_map(&self.shared.path.to_string_lossy());
        }
        running
    }

    /// Whether the command has ended; notes how.
    fn look_at_child(&mut self) -> bool {
        use std::os::unix::process::ExitStatusExt;
        if self.exit.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            self.collector.reaped(self.child.id(), status.into_raw());
            let signal = status.signal().map_or(0, |signal| 128 + signal);
            self.exit = Some(status.code().unwrap_or(signal));
        }
        self.exit.is_some()
    }

    /// Once the user wants an end, sends what is due.
    fn interrupt(&mut self, interrupted: &AtomicBool, running: &[u32]) {
        // Ctrl-C has reached the programs already: the first signal is for those that were not asked.
        const SCHEDULE: [(u64, i32); 3] =
            [(500, libc::SIGINT), (3_000, libc::SIGTERM), (4_000, libc::SIGKILL)];
        if self.interrupted.is_none() && interrupted.load(Relaxed) {
            self.interrupted = Some((Instant::now(), 0));
        }
        let Some((since, sent)) = &mut self.interrupted else { return };
        let Some(&(after, signal)) = SCHEDULE.get(*sent) else { return };
        if since.elapsed() >= Duration::from_millis(after) {
            *sent += 1;
            if self.exit.is_none() {
                sys::send_signal(self.child.id(), signal);
            }
            for &pid in running.iter().filter(|&&pid| pid != self.child.id()) {
                sys::send_signal(pid, signal);
            }
        }
    }

    /// Ends every process: nobody wants to know what they do.
    fn kill(&mut self) {
        let mut running = self.collector.reap_orphans();
        running.retain(|&pid| pid != self.child.id());
        for pid in running {
            sys::send_signal(pid, libc::SIGKILL);
        }
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
