//! A machine with a program to run: everything together, from C sources to the program's exit code.
//!
//! ```text
//!     programs ─▶ archive ─┐
//!     kernel's image ──────┼─▶ QEMU ─▶ console ─▶ output, notes, events
//!     an empty swap disk ──┤
//!     a file system ───────┤
//!     input, when asked ───┘
//! ```
//!
//! The kernel is told what memory it may use, and QEMU has a little more for the kernel itself:
//! with 64 MiB there are 64 MiB for programs, files and page tables, whatever the kernel and the
//! archive take.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tempfile::TempDir;
use thiserror::Error;

use crate::console::{Console, Event, Part};
use crate::image::{self, ImageError};
use crate::input::Input;
use crate::programs::{BuildError, Compiler};
use crate::qemu::{self, DiskFile, Exit, Qemu, QemuError};
use crate::system::{self, SystemError};

/// What the kernel leaves with when it has run to its end.
const DONE: u8 = 0x10;
/// What it leaves with when it cannot do what it is told.
const REFUSED: u8 = 0x12;
/// What it leaves with when it panics.
const PANICKED: u8 = 0x21;

/// The time between two lines of counters.
const COUNTERS: Duration = Duration::from_millis(100);

/// A machine and what to run on it.
#[derive(Clone, Debug)]
pub struct Boot {
    /// Memory for programs, files and page tables, in bytes.
    pub memory_bytes: u64,
    /// Processors.
    pub cpus: u32,
    /// NUMA nodes, which share memory and processors evenly.
    pub nodes: u32,
    /// The replacement policy, with settings: `clock`, `wsclock:tau=8`.
    pub policy: String,
    /// The size of the swap disk in bytes; 0 is a machine without one.
    pub swap_bytes: u64,
    /// A file that says which accesses to swap shall fail, in the language of QEMU's `blkdebug`.
    pub swap_faults: Option<PathBuf>,
    /// An image of an ext2, ext3 or ext4 file system, which the machine reads as `/mnt`.
    pub disk: Option<PathBuf>,
    /// As [`swap_faults`](Self::swap_faults), for accesses to `disk`.
    pub disk_faults: Option<PathBuf>,
    /// What chance starts from.
    pub seed: u64,
    /// Whether time is the number of instructions.
    pub icount: bool,
    /// The compiler of the programs in `/bin`; the first that is installed, if `None`.
    pub compiler: Option<Compiler>,
    /// Programs to add to `/bin`.
    pub added: Vec<PathBuf>,
    /// The program and its arguments; the kernel's default if empty.
    pub program: Vec<String>,
    /// How long the machine may run.
    pub time_max: Option<Duration>,
    /// Ends the machine when it is set.
    pub stop: Option<Arc<AtomicBool>>,
}

impl Default for Boot {
    /// 256 MiB, 1 GiB of swap, one processor, Clock.
    fn default() -> Boot {
        Boot {
            memory_bytes: 256 << 20,
            cpus: 1,
            nodes: 1,
            policy: "clock".to_owned(),
            swap_bytes: 1 << 30,
            swap_faults: None,
            disk: None,
            disk_faults: None,
            seed: 0,
            icount: false,
            compiler: None,
            added: Vec::new(),
            program: Vec::new(),
            time_max: None,
            stop: None,
        }
    }
}

/// Why a program was not run to its end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BootError {
    /// The programs in `/bin`.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The archive.
    #[error(transparent)]
    System(#[from] SystemError),
    /// The kernel's image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// QEMU.
    #[error(transparent)]
    Qemu(#[from] QemuError),
    /// The image of the file system cannot be read.
    #[error("cannot read the disk {}: {source}", .path.display())]
    Disk {
        /// The image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The archive or the swap disk cannot be written.
    #[error("cannot write a temporary file: {0}")]
    Scratch(io::Error),
    /// The kernel cannot do what it is told.
    #[error("the kernel refuses: {0}")]
    Refused(String),
    /// The kernel panicked; its last note says why.
    #[error("the kernel panicked, as it says above; please report it with the command line")]
    Panicked,
    /// The machine reset itself.
    #[error("the machine reset itself; please report it with the command line")]
    Reset,
    /// It took longer than it was given.
    #[error("the program was still running after {0:?}")]
    TimedOut(Duration),
    /// It was stopped from outside.
    #[error("interrupted")]
    Stopped,
    /// QEMU ended otherwise, or the kernel did not say how the program ended.
    #[error("the kernel left with {0:#x} and did not say how the program ended")]
    Unclear(u8),
}

impl Boot {
    /// Boots, and passes what comes to `on` until the program ends. Returns its exit code, or 128
    /// and the signal that killed it. What it reads from its console is `input`; without, nothing.
    pub fn run(&self, input: Option<Input>, mut on: impl FnMut(Part<'_>)) -> Result<u8, BootError> {
        // What may be missing is looked for before anything is built.
        qemu::find()?;
        self.check_disk()?;
        let image = image::image()?;
        let scratch = TempDir::new().map_err(BootError::Scratch)?;
        let archive = self.archive(scratch.path())?;
        let machine = self.machine(image, &archive, scratch.path()).map_err(BootError::Scratch)?;
        let (mut code, mut refusal) = (None, None);
        let mut listen = |part: Part<'_>| {
            match &part {
                Part::Event(Event::Exit { code: found }) => code = Some(*found),
                Part::Event(Event::Refused { why }) => refusal = Some(why.clone()),
                _ => {}
            }
            on(part);
        };
        let mut console = Console::default();
        let exit = machine.run(input, |line, bytes| console.feed(line, bytes, &mut listen))?;
        console.finish(&mut listen);
        match (exit, code, refusal) {
            (Exit::Code(DONE), Some(code), _) => Ok(code),
            (Exit::Code(REFUSED), _, Some(why)) => Err(BootError::Refused(why)),
            (Exit::Code(PANICKED), ..) => Err(BootError::Panicked),
            (Exit::Code(other), ..) => Err(BootError::Unclear(other)),
            (Exit::TimedOut, ..) => Err(BootError::TimedOut(self.time_max.unwrap_or_default())),
            (Exit::Stopped, ..) => Err(BootError::Stopped),
            (Exit::Reset | Exit::Flooded, ..) => Err(BootError::Reset),
        }
    }

    /// Refuses a disk that QEMU would refuse in words of its own.
    fn check_disk(&self) -> Result<(), BootError> {
        let Some(path) = &self.disk else { return Ok(()) };
        let failed = |source| BootError::Disk { path: path.clone(), source };
        let found = File::open(path).and_then(|file| file.metadata()).map_err(failed)?;
        if found.is_dir() { Err(failed(io::ErrorKind::IsADirectory.into())) } else { Ok(()) }
    }

    /// In a checkout programs are built once, elsewhere each time.
    fn archive(&self, scratch: &Path) -> Result<Vec<u8>, BootError> {
        let compiler = self.compiler.clone().map_or_else(Compiler::find, Ok)?;
        let kept = image::checkout().map(|checkout| checkout.join("target/image/programs"));
        let built = compiler.build(kept.as_deref().unwrap_or(scratch))?;
        Ok(system::archive(&built, system::busybox().as_deref(), &self.added)?)
    }

    fn machine(&self, image: PathBuf, archive: &[u8], scratch: &Path) -> io::Result<Qemu> {
        let path = scratch.join("archive");
        std::fs::write(&path, archive)?;
        let mut disks = Vec::new();
        if self.swap_bytes > 0 {
            let swap = scratch.join("swap");
            // Sparse: it takes room on the host as it is used.
            File::create(&swap)?.set_len(self.swap_bytes)?;
            disks.push(DiskFile { faults: self.swap_faults.clone(), ..DiskFile::new(swap) });
        }
        // That it is read-only tells the kernel that it is not swap.
        disks.extend(self.disk.as_ref().map(|path| DiskFile {
            faults: self.disk_faults.clone(),
            read_only: true,
            ..DiskFile::new(path.clone())
        }));
        Ok(Qemu {
            memory_bytes: memory_of_machine(self.memory_bytes, archive.len() as u64),
            cpus: self.cpus,
            nodes: self.nodes,
            archive: Some(path),
            disks,
            icount: self.icount,
            command_line: self.command_line(),
            time_max: self.time_max,
            stop: self.stop.clone(),
            ..Qemu::new(image)
        })
    }

    /// What the kernel is told.
    fn command_line(&self) -> String {
        let Boot { memory_bytes, cpus, policy, seed, program, .. } = self;
        let mut line = format!(
            "memory={memory_bytes} cpus={cpus} policy={policy} seed={seed} counters={} --",
            COUNTERS.as_nanos()
        );
        for word in program {
            line.push(' ');
            line.push_str(&escaped(word));
        }
        line
    }
}

/// RAM for a kernel that is to have `bytes` to give, beside an archive of so many bytes: a
/// sixteenth is what the kernel keeps for itself, and some is the image.
fn memory_of_machine(bytes: u64, archive_bytes: u64) -> u64 {
    const IMAGE_BYTES: u64 = 16 << 20;
    bytes.saturating_add(archive_bytes).saturating_add(IMAGE_BYTES).saturating_mul(16) / 15
}

/// A word as the kernel reads it: what would end it is written as `%` and two digits, and an empty
/// one is a zero byte, where strings of programs end anyway.
fn escaped(word: &str) -> String {
    let mut text = String::new();
    for byte in word.bytes().chain(word.is_empty().then_some(0)) {
        match byte {
            b'!'..=b'~' if byte != b'%' => text.push(byte.into()),
            _ => write!(text, "%{byte:02x}").expect("a string takes all"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_reach_the_kernel_as_words() {
        let words = ["/bin/sh", "-c", "echo 50% \n", "", "ü"].map(str::to_owned).to_vec();
        let boot = Boot { program: words, policy: "wsclock:steps=4".to_owned(), ..Boot::default() };
        let line = boot.command_line();
        assert!(
            line.starts_with("memory=268435456 cpus=1 policy=wsclock:steps=4 seed=0 "),
            "{line}"
        );
        let program = line.split_once(" -- ").unwrap().1;
        assert_eq!(program, "/bin/sh -c echo%2050%25%20%0a %00 %c3%bc");
    }

    #[test]
    fn the_kernel_has_room_beside_what_it_may_use() {
        let machine = memory_of_machine(64 << 20, 3 << 20);
        // The kernel keeps a sixteenth of all, its image and the archive.
        assert!(machine - machine / 16 >= (64 + 3 + 16) << 20, "{machine}");
        assert_eq!(memory_of_machine(u64::MAX, 1), u64::MAX / 15, "no overflow");
    }

    #[test]
    fn a_swap_disk_is_as_large_as_wanted_and_takes_no_room() {
        let scratch = TempDir::new().unwrap();
        let boot = Boot { swap_bytes: 1 << 30, ..Boot::default() };
        let machine = boot.machine("image".into(), b"archive", scratch.path()).unwrap();
        assert_eq!(machine.disks.len(), 1);
        assert_eq!(machine.disks[0].path.metadata().unwrap().len(), 1 << 30);
        let without = Boot { swap_bytes: 0, ..Boot::default() };
        let machine = without.machine("image".into(), b"archive", scratch.path()).unwrap();
        assert_eq!(machine.disks, []);
    }
}
