//! What a scenario says, once it is read: settings, then steps.
//!
//! Files and processes are numbers here, the places of their names in the [`Script`]. Every name
//! that a step uses is known by then, so a world need not check.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use vellum_mm::Config;
use vellum_mm::addr::{Pages, VirtAddr};
use vellum_mm::machine::Access;
use vellum_mm::objects::file::{Medium, Warmth};
use vellum_mm::spaces::advise::Advise;
use vellum_mm::spaces::map::Place;
use vellum_mm::spaces::remap::Move;
use vellum_mm::spaces::vma::{Rights, Sharing, VmaFlags};

/// A scenario: a machine, what happens on it, and the log that must come of it.
#[derive(Clone, Debug)]
pub struct Script {
    /// The name of its file, for messages.
    pub name: String,
    /// The machine.
    pub config: Config,
    /// The names of all files, in order of their declaration.
    pub files: Vec<String>,
    /// The names of all processes, in order of their first mention.
    pub processes: Vec<String>,
    /// What happens, in order.
    pub steps: Vec<Step>,
    /// The text that was read, by lines.
    pub(crate) text: Vec<String>,
}

/// One thing that is done, and what must happen then.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The lines that it takes, counted from 0.
    pub(crate) lines: Range<usize>,
    /// What is done, as it was written.
    pub statement: String,
    /// What is done.
    pub action: Action,
    /// All that must happen, in order.
    pub expected: Vec<String>,
}

impl Step {
    /// Its line, counted from 1.
    pub fn line(&self) -> usize {
        self.lines.start + 1
    }
}

/// What one step does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Makes a file or a shared memory object.
    NewFile {
        /// Which file it is from now on.
        file: usize,
        /// Its length.
        pages: u64,
        /// Whether it is on a disk.
        medium: Medium,
        /// Whether its pages are cached when they are first used.
        warmth: Warmth,
    },
    /// A process does something.
    Process(usize, Call),
    /// Somebody reads a page of a file.
    ReadFile(usize, u64),
    /// Somebody writes a whole page of a file.
    WriteFile(usize, u64),
    /// The dirty pages of a file are written.
    Sync(usize),
    /// A file gets another length, in pages.
    Truncate(usize, u64),
    /// The last name of a file is removed.
    Forget(usize),
    /// So many pages are evicted.
    Reclaim(usize),
    /// Background reclaim runs.
    Pressure,
    /// From now on disks leave requests alone.
    Hold,
    /// The disks perform one request, or all and every later one at once.
    Complete(Option<u32>),
    /// The disks fail at one request, or at all that they have.
    Fail(Option<u32>),
    /// All records must agree, and what nobody uses must be free.
    CheckNoLeaks,
    /// A process must have so many resident pages.
    CheckResident(usize, u64),
}

/// What a process does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// `mmap`.
    Map(MapCall),
    /// `munmap`.
    Unmap(Pages),
    /// `mremap`.
    Remap {
        /// The pages there are.
        old: Pages,
        /// How many there will be.
        count: u64,
        /// Where.
        place: Move,
    },
    /// `mprotect`.
    Protect(Pages, Rights),
    /// `brk`.
    Brk(VirtAddr),
    /// `madvise`; without [`Advise`], `MADV_PAGEOUT`.
    Advise(Pages, Option<Advise>),
    /// `mlock`.
    Lock(Pages),
    /// `munlock`.
    Unlock(Pages),
    /// Uses each page once, upwards.
    Access(Pages, Access),
    /// `fork`: the child's number.
    Fork(usize),
    /// `vfork`: the child's number.
    Vfork(usize),
    /// `execve` of a program without areas.
    Exec,
    /// `exit`.
    Exit,
}

/// The arguments of `mmap`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapCall {
    /// Where.
    pub place: Place,
    /// Number of pages.
    pub pages: u64,
    /// What the process may do.
    pub rights: Rights,
    /// Who sees a write.
    pub sharing: Sharing,
    /// The file and its first page; without one, memory.
    pub file: Option<(usize, u64)>,
    /// Everything else.
    pub flags: VmaFlags,
}
