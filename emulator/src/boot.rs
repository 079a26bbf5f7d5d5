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
//! with 64 MiB there are 64 MiB for programs, files and page tables, whatever the kernel, the
//! archive and records of swap take.
//!
//! The program and its arguments are words at the end of the archive: a command line ends at 4 KiB.

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

/// How much larger than memory swap may be: what the kernel keeps of it is about half of memory
/// then.
const SWAP_TIMES_MAX: u64 = 256;
/// What the kernel keeps of each page of swap.
const SLOT_BYTES: u64 = 9;
/// What a program's arguments may take, each with its end and a pointer to it, as on Linux.
const ARGUMENTS_BYTES_MAX: usize = 2 << 20;
/// Copies of them that the kernel makes.
const ARGUMENTS_COPIES: u64 = 4;
/// What a loader copies of a command line.
const COMMAND_LINE_BYTES_MAX: usize = 4 << 10;

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
    /// There is too much swap for the memory.
    #[error(
        "{} MiB of memory can have at most {} MiB of swap",
        .memory_bytes >> 20,
        .most_bytes >> 20
    )]
    Swap {
        /// Memory for programs.
        memory_bytes: u64,
        /// The most that it can have.
        most_bytes: u64,
    },
    /// The program's arguments are too long.
    #[error("the arguments take {bytes} bytes; a program is given at most {ARGUMENTS_BYTES_MAX}")]
    Arguments {
        /// What they take.
        bytes: usize,
    },
    /// The policy has so many settings that the kernel cannot be told.
    #[error(
        "the kernel is told at most {COMMAND_LINE_BYTES_MAX} bytes; shorten the policy's settings"
    )]
    CommandLine,
    /// The archive or the swap disk cannot be written.
    #[error("cannot write a temporary file: {0}")]
    Scratch(io::Error),
    /// The kernel cannot do what it is told.
    #[error("the kernel refuses: {0}")]
    Refused(String),
    /// The machine has no such program.
    #[error("{0}")]
    Program(String),
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
        self.check_sizes()?;
        let image = image::image()?;
        let scratch = TempDir::new().map_err(BootError::Scratch)?;
        let archive = self.archive(scratch.path())?;
        let machine = self.machine(image, &archive, scratch.path()).map_err(BootError::Scratch)?;
        let (mut code, mut refusal) = (None, None);
        let mut listen = |part: Part<'_>| {
            match &part {
                Part::Event(Event::Exit { code: found }) => code = Some(*found),
                Part::Event(Event::Refused { why }) => {
                    refusal = Some(BootError::Refused(why.clone()));
                }
                Part::Event(Event::NoProgram { why }) => {
                    refusal = Some(BootError::Program(why.clone()));
                }
                _ => {}
            }
            on(part);
        };
        let mut console = Console::default();
        let exit = machine.run(input, |line, bytes| console.feed(line, bytes, &mut listen))?;
        console.finish(&mut listen);
        match (exit, code, refusal) {
            (Exit::Code(DONE), Some(code), _) => Ok(code),
            (Exit::Code(REFUSED), _, Some(refusal)) => Err(refusal),
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

    /// Refuses what the kernel has no room for.
    fn check_sizes(&self) -> Result<(), BootError> {
        let most_bytes = self.memory_bytes.saturating_mul(SWAP_TIMES_MAX);
        if self.swap_bytes > most_bytes {
            return Err(BootError::Swap { memory_bytes: self.memory_bytes, most_bytes });
        }
        let bytes = self.program.iter().map(|word| word.len() + 9).sum();
        if bytes > ARGUMENTS_BYTES_MAX {
            return Err(BootError::Arguments { bytes });
        }
        if self.command_line().len() >= COMMAND_LINE_BYTES_MAX {
            return Err(BootError::CommandLine);
        }
        Ok(())
    }

    /// In a checkout programs are built once, elsewhere each time.
    fn archive(&self, scratch: &Path) -> Result<Vec<u8>, BootError> {
        let compiler = self.compiler.clone().map_or_else(Compiler::find, Ok)?;
        let kept = image::checkout().map(|checkout| checkout.join("target/image/programs"));
        let built = compiler.build(kept.as_deref().unwrap_or(scratch))?;
        let mut archive = system::archive(&built, system::busybox().as_deref(), &self.added)?;
        archive.extend(self.arguments());
        Ok(archive)
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
            memory_bytes: memory_of_machine(
                self.memory_bytes,
                self.kept_bytes() + archive.len() as u64,
            ),
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

    /// What the kernel keeps of swap and arguments.
    fn kept_bytes(&self) -> u64 {
        let slots = self.swap_bytes / 4096;
        slots * SLOT_BYTES + self.arguments().len() as u64 * ARGUMENTS_COPIES
    }

    /// What the kernel is told.
    fn command_line(&self) -> String {
        let Boot { memory_bytes, cpus, policy, seed, swap_bytes, .. } = self;
        format!(
            "memory={memory_bytes} cpus={cpus} policy={policy} seed={seed} counters={} \
             swap={swap_bytes} arguments={}",
            COUNTERS.as_nanos(),
            self.arguments().len()
        )
    }

    /// The program and its arguments, each with a zero byte behind it.
    fn arguments(&self) -> Vec<u8> {
        self.program.iter().flat_map(|word| word.bytes().chain([0])).collect()
    }
}

/// RAM for a kernel that is to have `bytes` to give, beside `kept_bytes` for what it is asked to
/// do: a sixteenth is what the kernel keeps for itself, and some is the image.
fn memory_of_machine(bytes: u64, kept_bytes: u64) -> u64 {
    const IMAGE_BYTES: u64 = 16 << 20;
    bytes.saturating_add(kept_bytes).saturating_add(IMAGE_BYTES).saturating_mul(16) / 15
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_words_with_ends_that_the_kernel_counts() {
        let words = ["/bin/sh", "-c", "echo 50% \n", "", "ü"].map(str::to_owned).to_vec();
        let boot = Boot { program: words, policy: "wsclock:steps=4".to_owned(), ..Boot::default() };
        assert_eq!(boot.arguments(), "/bin/sh\0-c\0echo 50% \n\0\0ü\0".as_bytes());
        let line = boot.command_line();
        assert!(
            line.starts_with("memory=268435456 cpus=1 policy=wsclock:steps=4 seed=0 "),
            "{line}"
        );
        assert!(line.ends_with(" swap=1073741824 arguments=26"), "{line}");
    }

    #[test]
    fn the_kernel_has_room_beside_what_it_may_use() {
        let machine = memory_of_machine(64 << 20, 3 << 20);
        // The kernel keeps a sixteenth of all, its image, the archive and what it is asked to keep.
        assert!(machine - machine / 16 >= (64 + 3 + 16) << 20, "{machine}");
        assert_eq!(memory_of_machine(u64::MAX, 1), u64::MAX / 15, "no overflow");
        let asked = Boot { swap_bytes: 4 << 30, program: vec!["x".repeat(99)], ..Boot::default() };
        assert_eq!(asked.kept_bytes(), (9 << 20) + 400);
    }

    #[test]
    fn what_has_no_room_is_refused_at_the_boundary() {
        let most = Boot { memory_bytes: 8 << 20, swap_bytes: 2 << 30, ..Boot::default() };
        assert!(most.check_sizes().is_ok());
        let more = Boot { swap_bytes: (2 << 30) + 1, ..most };
        let said = more.check_sizes().unwrap_err().to_string();
        assert_eq!(said, "8 MiB of memory can have at most 2048 MiB of swap");

        let of = |bytes| Boot { program: vec!["x".repeat(bytes)], ..Boot::default() };
        assert!(of((2 << 20) - 9).check_sizes().is_ok());
        let said = of((2 << 20) - 8).check_sizes().unwrap_err().to_string();
        assert!(said.contains("take 2097153 bytes; a program is given at most 2097152"), "{said}");

        let policy = format!("wsclock:tau={}", "1".repeat(4096));
        let long = Boot { policy, ..Boot::default() };
        assert!(matches!(long.check_sizes(), Err(BootError::CommandLine)));
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
