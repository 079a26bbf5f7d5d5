//! A machine: QEMU with a kernel in it, from start to exit.
//!
//! QEMU emulates the processor itself (TCG), so the machine is the same everywhere. Its first
//! serial line, on which programs print, is QEMU's standard output; the second, on which the kernel
//! speaks, is QEMU's standard error, where QEMU complains too. The line by which the machine asks
//! for [`input`] is QEMU's standard input. What the kernel leaves with is QEMU's exit status. A
//! machine that resets itself (a triple fault) ends with status 0, which therefore is never a
//! success.
//!
//! The child is killed when whoever runs it stops listening, when it takes too long or says too
//! much: no QEMU outlives its run.

use std::env;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use crate::input::{self, Input};

/// Names another QEMU.
const NAMED: &str = "VELLUM_QEMU_SYSTEM";
/// The QEMU that is looked for on the path.
const QEMU: &str = "qemu-system-x86_64";

/// What gives a machine a virtio console for [`input`]: its other end is QEMU's standard input.
const INPUT: [&str; 6] = [
    "-chardev",
    "socket,id=input,fd=0",
    "-device",
    "virtio-serial-pci",
    "-device",
    "virtconsole,chardev=input",
];

/// Bytes that are kept of what came last on QEMU's standard error, to be told if it fails.
const COMPLAINT_BYTES_MAX: usize = 2000;

/// How often limits are looked at while nothing comes.
const LOOK: Duration = Duration::from_millis(50);

/// The status that says it was the kernel that left, and with what code: `code * 2 + 1`. Codes
/// below are not used, because QEMU has statuses of its own.
const CODE_MIN: i32 = 0x10;

/// A machine to run.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// The kernel's image.
    pub image: PathBuf,
    /// RAM in bytes; rounded up to MiB.
    pub memory_bytes: u64,
    /// Processors.
    pub cpus: u32,
    /// NUMA nodes, which share RAM and processors evenly. One is a machine without nodes.
    pub nodes: u32,
    /// A file to be found in memory by the kernel.
    pub archive: Option<PathBuf>,
    /// Disks, in order.
    pub disks: Vec<DiskFile>,
    /// Whether time is the number of instructions: slower, but the same in every run.
    pub icount: bool,
    /// What the kernel is told.
    pub command_line: String,
    /// How long it may run.
    pub time_max: Option<Duration>,
    /// Kills it when it is set.
    pub stop: Option<Arc<AtomicBool>>,
    /// How much it may say, in bytes.
    pub output_bytes_max: Option<u64>,
}

/// Where something that a machine says comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    /// Programs print.
    Programs,
    /// The kernel speaks, or QEMU itself.
    Kernel,
}

/// Bytes of a line, or why there are no more.
type Said = (Line, io::Result<Vec<u8>>);

/// A disk of the machine: a file with its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskFile {
    /// The file.
    pub path: PathBuf,
    /// A file that says which accesses shall fail, in the language of QEMU's `blkdebug`.
    pub faults: Option<PathBuf>,
    /// Whether the machine may not write it.
    pub read_only: bool,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// The kernel left with this code.
    Code(u8),
    /// The machine reset itself, as after a fault that the kernel could not handle.
    Reset,
    /// It took too long and was killed.
    TimedOut,
    /// It was told to stop and was killed.
    Stopped,
    /// It said too much and was killed.
    Flooded,
}

/// Why a machine could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QemuError {
    /// There is no QEMU.
    #[error(
        "{}: not found; install qemu-system-x86 (Debian 12: `apt install qemu-system-x86`), \
         or name a {QEMU} with {NAMED}",
        .qemu.display()
    )]
    Missing {
        /// What was looked for.
        qemu: PathBuf,
    },
    /// QEMU is there but cannot be run, or its output cannot be read.
    #[error("cannot run {}: {source}", .qemu.display())]
    Broken {
        /// The QEMU.
        qemu: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What the machine was to read could not be read.
    #[error("cannot read the input: {source}")]
    Input {
        /// Why.
        source: io::Error,
    },
    /// QEMU did not start the machine, or was killed.
    #[error("{} ended with {status}: {}", .qemu.display(), .message.trim())]
    Failed {
        /// The QEMU.
        qemu: PathBuf,
        /// Its status.
        status: ExitStatus,
        /// What it said.
        message: String,
    },
}

/// The QEMU that runs machines: the one that `VELLUM_QEMU_SYSTEM` names, or else the one on the
/// path.
pub fn find() -> Result<PathBuf, QemuError> {
    let named = env::var_os(NAMED).filter(|name| !name.is_empty());
    let qemu = PathBuf::from(named.unwrap_or_else(|| QEMU.into()));
    let search = env::var_os("PATH").unwrap_or_default();
    // A name with a slash is a path as it is.
    let is_path = qemu.components().count() > 1;
    let here = is_path.then(|| qemu.clone());
    let mut on_path =
        env::split_paths(&search).filter(|_| !is_path).map(|folder| folder.join(&qemu));
    let found = here.into_iter().chain(&mut on_path).find(|place| place.is_file());
    found.ok_or(QemuError::Missing { qemu })
}

impl Qemu {
    /// A machine of one processor and 256 MiB, without disks or limits.
    pub fn new(image: PathBuf) -> Qemu {
        Qemu {
            image,
            memory_bytes: 256 << 20,
            cpus: 1,
            nodes: 1,
            archive: None,
            disks: Vec::new(),
            icount: false,
            command_line: String::new(),
            time_max: None,
            stop: None,
            output_bytes_max: None,
        }
    }

    /// Runs the machine to its end. Its programs read `input` when they want to; without, they find
    /// its end. What the machine says is passed to `on_output` as it comes, in parts that end
    /// anywhere; [`Console`](crate::console::Console) reads what the kernel says. The order is kept
    /// within a line only.
    pub fn run(
        &self,
        input: Option<Input>,
        mut on_output: impl FnMut(Line, &[u8]),
    ) -> Result<Exit, QemuError> {
        let qemu = find()?;
        let broken = |source| QemuError::Broken { qemu: qemu.clone(), source };
        let (output, output_end) = io::pipe().map_err(broken)?;
        let (errors, errors_end) = io::pipe().map_err(broken)?;
        let mut command = Command::new(&qemu);
        command.args(self.arguments());
        command.stdin(Stdio::null()).stdout(output_end).stderr(errors_end);
        let mut unread = None;
        if let Some(input) = input {
            let (line, failure) = input::serve(input).map_err(broken)?;
            command.args(INPUT).stdin(OwnedFd::from(line));
            unread = Some(failure);
        }
        let mut child = Killed(command.spawn().map_err(broken)?);
        // It holds our ends of the pipes, which else would never end.
        drop(command);
        let (sender, parts) = mpsc::sync_channel(16);
        let other = sender.clone();
        thread::spawn(move || read_parts(output, Line::Programs, &sender));
        thread::spawn(move || read_parts(errors, Line::Kernel, &other));
        let mut complaint = Vec::new();
        let cut_short = self.listen(&parts, |line, part| {
            if line == Line::Kernel {
                complaint.extend_from_slice(part);
                complaint.drain(..complaint.len().saturating_sub(COMPLAINT_BYTES_MAX));
            }
            on_output(line, part);
        });
        if let Some(exit) = cut_short.map_err(broken)? {
            return Ok(exit);
        }
        let status = child.0.wait().map_err(broken)?;
        // Whoever was told to stop may have told QEMU as well, as a terminal does.
        if self.stop.as_ref().is_some_and(|stop| stop.load(Relaxed)) {
            return Ok(Exit::Stopped);
        }
        if let Some(source) = unread.and_then(|failure| failure.take()) {
            return Err(QemuError::Input { source });
        }
        exit(status).ok_or_else(|| QemuError::Failed {
            qemu: qemu.clone(),
            status,
            message: without_events(&complaint),
        })
    }

    /// Passes on what a machine says until it has said all, or reaches a limit: which one.
    fn listen(
        &self,
        parts: &Receiver<Said>,
        mut on_output: impl FnMut(Line, &[u8]),
    ) -> io::Result<Option<Exit>> {
        let end = self.time_max.map(|time| Instant::now() + time);
        let mut bytes = 0;
        // Ends: at the end of both lines, which is QEMU's own, or at one of the limits.
        loop {
            let (line, part) = match parts.recv_timeout(LOOK) {
                Ok((line, part)) => (line, part?),
                Err(RecvTimeoutError::Timeout) => (Line::Programs, Vec::new()),
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            };
            if self.stop.as_ref().is_some_and(|stop| stop.load(Relaxed)) {
                return Ok(Some(Exit::Stopped));
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                return Ok(Some(Exit::TimedOut));
            }
            if !part.is_empty() {
                on_output(line, &part);
            }
            bytes += part.len() as u64;
            if self.output_bytes_max.is_some_and(|max| bytes > max) {
                return Ok(Some(Exit::Flooded));
            }
        }
    }

    /// What QEMU is started with.
    fn arguments(&self) -> Vec<OsString> {
        let mebibytes = self.memory_bytes.div_ceil(1 << 20).max(1);
        let cpus = self.cpus.max(1);
        let mut words: Vec<OsString> = Vec::new();
        let mut add = |option: &str, value: OsString| words.extend([option.into(), value]);
        for (option, value) in [
            ("-accel", "tcg"),
            ("-cpu", "max"),
            ("-M", "q35"),
            ("-display", "none"),
            // Not `stdio`, which would read the input too.
            ("-serial", "file:/dev/stdout"),
            ("-serial", "file:/dev/stderr"),
            ("-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
        ] {
            add(option, value.into());
        }
        add("-m", format!("{mebibytes}M").into());
        add("-smp", cpus.to_string().into());
        if self.icount {
            add("-icount", "shift=0,sleep=off".into());
        }
        for (option, value) in nodes(mebibytes, cpus, self.nodes) {
            add(option, value.into());
        }
        add("-kernel", self.image.clone().into());
        add("-append", self.command_line.clone().into());
        if let Some(archive) = &self.archive {
            add("-initrd", archive.into());
        }
        for (number, disk) in self.disks.iter().enumerate() {
            add("-blockdev", disk.blockdev(number));
            add("-device", format!("virtio-blk-pci,drive=disk{number}").into());
        }
        words.extend(["-nodefaults".into(), "-no-reboot".into()]);
        words
    }
}

/// Options for `count` nodes, none for a single one. Each node has its part of RAM and of the
/// processors; all distances are told, since QEMU refuses a part of them.
fn nodes(mebibytes: u64, cpus: u32, count: u32) -> Vec<(&'static str, String)> {
    let mut options = Vec::new();
    if count < 2 {
        return options;
    }
    let share = |total: u64, node: u32| total * u64::from(node) / u64::from(count);
    for node in 0..count {
        let part = share(mebibytes, node + 1) - share(mebibytes, node);
        let backend = format!("memory-backend-ram,id=memory{node},size={part}M");
        options.push(("-object", backend));
        let (first, end) = (share(cpus.into(), node), share(cpus.into(), node + 1));
        let mut parts = vec![format!("node,nodeid={node},memdev=memory{node}")];
        parts.extend((first..end).map(|cpu| format!("cpus={cpu}")));
        options.push(("-numa", parts.join(",")));
    }
    for from in 0..count {
        for to in (0..count).filter(|to| *to != from) {
            options.push(("-numa", format!("dist,src={from},dst={to},val=20")));
        }
    }
    options
}

impl DiskFile {
    /// A disk that never fails.
    pub fn new(path: PathBuf) -> DiskFile {
        DiskFile { path, faults: None, read_only: false }
    }

    /// The option that makes it known to QEMU. Its file is not worth a flush: it lives as long as
    /// the machine.
    fn blockdev(&self, number: usize) -> OsString {
        let mut option = OsString::from(format!("node-name=disk{number},cache.no-flush=on,"));
        if self.read_only {
            option.push("read-only=on,");
        }
        option.push("driver=");
        if let Some(faults) = &self.faults {
            option.push("blkdebug,config=");
            option.push(escaped(faults));
            option.push(",image.driver=file,image.filename=");
        } else {
            option.push("raw,file.driver=file,file.filename=");
        }
        option.push(escaped(&self.path));
        option
    }
}

/// A path as part of an option, where commas are written twice.
fn escaped(path: &Path) -> OsString {
    let bytes = path.as_os_str().as_bytes();
    let double = |byte: &u8| if *byte == b',' { vec![b',', b','] } else { vec![*byte] };
    OsString::from_vec(bytes.iter().flat_map(double).collect())
}

/// How a machine ended whose QEMU ended so; `None` if QEMU itself failed.
fn exit(status: ExitStatus) -> Option<Exit> {
    match status.code()? {
        0 => Some(Exit::Reset),
        code if code % 2 == 1 && code / 2 >= CODE_MIN => {
            u8::try_from(code / 2).ok().map(Exit::Code)
        }
        _ => None,
    }
}

/// Passes on what comes, until it ends or nobody listens.
fn read_parts(mut output: impl Read, line: Line, sender: &SyncSender<Said>) {
    let mut buffer = [0; 16 << 10];
    loop {
        let part = match output.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => Ok(buffer[..count].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = part.is_err();
        if sender.send((line, part)).is_err() || failed {
            return;
        }
    }
}

/// What QEMU says of itself, among the lines of a kernel.
fn without_events(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let lines = text.lines().filter(|line| !line.starts_with('@'));
    lines.collect::<Vec<_>>().join("\n")
}

/// A child that does not outlive its keeper.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn only_what_the_kernel_left_with_is_a_code() {
        let exited = |code| exit(ExitStatus::from_raw(code << 8));
        assert_eq!(exited(33), Some(Exit::Code(0x10)));
        assert_eq!(exited(67), Some(Exit::Code(0x21)));
        assert_eq!(exited(0), Some(Exit::Reset));
        assert_eq!([exited(1), exited(2), exited(34)], [None; 3], "QEMU's own");
        assert_eq!(exit(ExitStatus::from_raw(9)), None, "killed");
    }

    #[test]
    fn nodes_share_everything_evenly() {
        assert_eq!(nodes(512, 4, 1), []);
        let options: Vec<String> = nodes(513, 3, 2).into_iter().map(|(_, value)| value).collect();
        let expected = [
            "memory-backend-ram,id=memory0,size=256M",
            "node,nodeid=0,memdev=memory0,cpus=0",
            "memory-backend-ram,id=memory1,size=257M",
            "node,nodeid=1,memdev=memory1,cpus=1,cpus=2",
            "dist,src=0,dst=1,val=20",
            "dist,src=1,dst=0,val=20",
        ];
        assert_eq!(options, expected);
    }

    #[test]
    fn commas_in_names_part_no_options() {
        let faults = Some("c,d".into());
        let disk = DiskFile { path: "a,b".into(), faults, read_only: true };
        let option = disk.blockdev(1);
        let expected = "node-name=disk1,cache.no-flush=on,read-only=on,driver=blkdebug,config=c,,d,\
                        image.driver=file,image.filename=a,,b";
        assert_eq!(option, expected);
    }
}
