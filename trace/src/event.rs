//! What a program did, event by event, in one total order over all its threads and processes.
//!
//! Two kinds: an [`Access`] (hot: millions of them, 24 bytes) and a [`Call`] (rare: everything that
//! changes an address space, a process or a file, and the buffers that the kernel itself touched).
//! Numbers are those of Linux on x86-64: `prot`, `flags` and `advice` are the raw arguments of the
//! system call, so that a trace loses nothing to today's understanding of it.

use serde::{Deserialize, Serialize};

/// A thread, numbered by the trace from 0 in order of appearance; never reused, unlike Linux's
/// tids.
pub type ThreadId = u32;
/// A process, numbered by the trace from 0; never reused, unlike pids.
pub type ProcessId = u32;
/// A file or shared memory object, numbered by the trace from 0.
pub type FileId = u32;

/// What an access does to memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum Kind {
    /// A data read.
    Load = 0,
    /// A data write.
    Store = 1,
    /// An instruction fetch.
    Fetch = 2,
}

/// One recorded access, and how much went by unrecorded before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// The virtual page number (address / 4096).
    pub page: u64,
    /// Who.
    pub thread: ThreadId,
    /// References of this thread since its last event, this one included (so at least 1). The
    /// others fell on pages that the recorder's filter held; without a filter, on the page of the
    /// last event.
    pub count: u32,
    /// Instructions of this thread since its last event.
    pub instructions: u32,
    /// Load, store or fetch.
    pub kind: Kind,
}

/// An event of a trace.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// A reference to memory.
    Access(Access),
    /// Everything else.
    Call(Box<Call>),
}

impl Event {
    /// Who did it; a file's introduction belongs to thread 0.
    #[inline]
    pub fn thread(&self) -> ThreadId {
        match self {
            Event::Access(access) => access.thread,
            Event::Call(call) => call.thread(),
        }
    }
}

/// What backs an area at `exec`, and what it is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[repr(u8)]
pub enum Role {
    /// The program's file: text, read-only and writable data, told apart by their rights.
    Program = 0,
    /// The program's zero-initialised data.
    Bss = 1,
    /// The dynamic linker.
    Interpreter = 2,
    /// The initial stack.
    Stack = 3,
    /// Anything else that the kernel maps (vdso, vvar, an initial heap).
    Other = 4,
}

/// One area of the address space that `exec` builds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Area {
    /// First page number.
    pub page: u64,
    /// Number of pages.
    pub pages: u64,
    /// `PROT_READ` 1, `PROT_WRITE` 2, `PROT_EXEC` 4.
    pub prot: u32,
    /// Whether stores reach the file.
    pub shared: bool,
    /// The file behind it and the page offset in it; `None` is zero-filled memory.
    pub file: Option<(FileId, u64)>,
    /// What it is for.
    pub role: Role,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Exit {
    /// By `exit`, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Still running when the recording ended, or its end was not seen.
    Unknown,
}

/// A file, or shared memory without a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct File {
    /// Its number in this trace.
    pub id: FileId,
    /// Its path when first seen; for shared memory a name such as `shm:3` or `memfd:name`.
    pub path: String,
    /// Its size in bytes when first seen.
    pub bytes: u64,
    /// Whether it is memory only (shared anonymous, `SysV`, POSIX shm, memfd): swapped, not written
    /// back.
    pub memory: bool,
}

/// Every event that is not an access.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[allow(missing_docs)] // the fields are the arguments of the system call that the variant names
pub enum Call {
    /// The first process begins; its `Exec` follows.
    Start { thread: ThreadId, process: ProcessId, pid: u32 },
    /// A program image replaces the address space of `process`. Its other threads are gone.
    Exec {
        thread: ThreadId,
        process: ProcessId,
        path: String,
        arguments: Vec<String>,
        /// First byte of the heap.
        brk: u64,
        areas: Vec<Area>,
        /// Pages that the exec itself touched (arguments on the stack, the ends of data segments).
        touched: Vec<u64>,
    },
    /// `fork`, `vfork` or `clone` of a process; `flags` are those of `clone` (`CLONE_VM` 0x100 and
    /// `CLONE_VFORK` 0x4000 mean that the child runs in its parent's address space).
    Fork { thread: ThreadId, process: ProcessId, child: ThreadId, pid: u32, flags: u64 },
    /// `clone` of a thread in the same process.
    Thread { thread: ThreadId, child: ThreadId },
    /// A thread ends, its process does not.
    ThreadExit { thread: ThreadId },
    /// A process ends.
    Exit { thread: ThreadId, process: ProcessId, exit: Exit },
    /// `wait4` or `waitid` returned this dead child.
    Reap { thread: ThreadId, process: ProcessId },
    /// A file object is met for the first time; comes before any event that names it.
    File(File),
    /// `mmap` or `shmat` that returned `start`. `file` is `None` for private anonymous memory;
    /// shared anonymous memory has a file with `memory` set.
    Map {
        thread: ThreadId,
        start: u64,
        bytes: u64,
        prot: u32,
        flags: u32,
        file: Option<FileId>,
        offset: u64,
    },
    /// `munmap` or `shmdt`.
    Unmap { thread: ThreadId, start: u64, bytes: u64 },
    /// `mremap` that returned `new_start`.
    Remap { thread: ThreadId, start: u64, bytes: u64, new_start: u64, new_bytes: u64, flags: u32 },
    /// `mprotect`.
    Protect { thread: ThreadId, start: u64, bytes: u64, prot: u32 },
    /// `brk` that moved the end of the heap to byte `end`.
    Brk { thread: ThreadId, end: u64 },
    /// `madvise`.
    Advise { thread: ThreadId, start: u64, bytes: u64, advice: u32 },
    /// `mlock`, `mlock2`; with `bytes` 0 and `all` set, `mlockall`.
    Lock { thread: ThreadId, start: u64, bytes: u64, all: bool },
    /// `munlock`; with `all`, `munlockall`.
    Unlock { thread: ThreadId, start: u64, bytes: u64, all: bool },
    /// `msync`.
    Sync { thread: ThreadId, start: u64, bytes: u64, flags: u32 },
    /// The kernel read or wrote this buffer of the program during a system call.
    Touch { thread: ThreadId, page: u64, pages: u64, write: bool },
    /// `read`, `pread`, `readv`, `sendfile`, … moved these bytes of a file.
    Read { thread: ThreadId, file: FileId, offset: u64, bytes: u64 },
    /// `write`, `pwrite`, `writev`, … moved these bytes to a file.
    Write { thread: ThreadId, file: FileId, offset: u64, bytes: u64 },
    /// `fsync`, `fdatasync`.
    FileSync { thread: ThreadId, file: FileId },
    /// `ftruncate`, `truncate`, `open(O_TRUNC)`: the file now has this many bytes.
    Truncate { thread: ThreadId, file: FileId, bytes: u64 },
    /// The file lost its last name (`unlink`): its pages need not be written back.
    Unlink { thread: ThreadId, file: FileId },
    /// A memory call that failed with `errno`; the others in this enum succeeded.
    Failed { thread: ThreadId, call: u32, errno: i32 },
    /// References and instructions at the end of a thread's life that no access reports.
    Tick { thread: ThreadId, count: u64, instructions: u64 },
    /// A mark made by the program or the recorder, for people.
    Mark { thread: ThreadId, text: String },
}

impl Call {
    /// Who made it; a file's introduction belongs to thread 0.
    pub fn thread(&self) -> ThreadId {
        match *self {
            Call::File(_) => 0,
            Call::Start { thread, .. }
            | Call::Exec { thread, .. }
            | Call::Fork { thread, .. }
            | Call::Thread { thread, .. }
            | Call::ThreadExit { thread }
            | Call::Exit { thread, .. }
            | Call::Reap { thread, .. }
            | Call::Map { thread, .. }
            | Call::Unmap { thread, .. }
            | Call::Remap { thread, .. }
            | Call::Protect { thread, .. }
            | Call::Brk { thread, .. }
            | Call::Advise { thread, .. }
            | Call::Lock { thread, .. }
            | Call::Unlock { thread, .. }
            | Call::Sync { thread, .. }
            | Call::Touch { thread, .. }
            | Call::Read { thread, .. }
            | Call::Write { thread, .. }
            | Call::FileSync { thread, .. }
            | Call::Truncate { thread, .. }
            | Call::Unlink { thread, .. }
            | Call::Failed { thread, .. }
            | Call::Tick { thread, .. }
            | Call::Mark { thread, .. } => thread,
        }
    }

    /// Whether it changes an address space, so that no access of the process may overtake it.
    pub fn changes_space(&self) -> bool {
        matches!(
            self,
            Call::Exec { .. }
                | Call::Fork { .. }
                | Call::Exit { .. }
                | Call::Map { .. }
                | Call::Unmap { .. }
                | Call::Remap { .. }
                | Call::Protect { .. }
                | Call::Brk { .. }
                | Call::Advise { .. }
                | Call::Lock { .. }
                | Call::Unlock { .. }
        )
    }
}

/// The filter that a recorder applied. See the recorder crate for its rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Filter {
    /// Pages that each thread's filter holds, for each kind of access.
    pub pages: u32,
    /// The filter is emptied after this many recorded events of the thread.
    pub events: u32,
    /// … and after this many translation blocks, so that idle pages are told from busy ones.
    pub blocks: u32,
    /// Replays hold for memories of at least this many frames.
    pub frames_min: u64,
}

/// What is known of a recording before its first event.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Meta {
    /// The command and its arguments, or how a synthetic trace was generated.
    pub command: Vec<String>,
    /// When it was recorded: RFC 3339, UTC; empty if the trace is synthetic.
    pub date: String,
    /// What recorded it, with version: `qemu-user 7.2.22`, `import lackey`, `generate zipf`.
    pub recorder: String,
    /// Bytes of a page; 4096.
    pub page_bytes: u32,
    /// The recorder's filter; `None` if every reference is in the trace.
    pub filter: Option<Filter>,
    /// Where it was made: kernel release and processor, for the provenance of measurements.
    pub host: String,
    /// Seed and parameters of a generator, settings of an importer: name and value.
    pub parameters: Vec<(String, String)>,
}

impl Meta {
    /// Metadata of a trace of 4 KiB pages that `recorder` makes; everything else is empty.
    pub fn new(recorder: &str) -> Meta {
        Meta { recorder: recorder.to_owned(), page_bytes: 4096, ..Meta::default() }
    }
}

/// A process, as the trace's end summarises it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Its number in this trace.
    pub id: ProcessId,
    /// Its pid when it was recorded.
    pub pid: u32,
    /// Its parent, if that is in the trace.
    pub parent: Option<ProcessId>,
    /// The arguments of its last `exec` (of its parent's, if it made none), joined by spaces.
    pub command: String,
    /// How it ended.
    pub exit: Exit,
}

/// What is known of a recording after its last event.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Summary {
    /// Events in the trace.
    pub events: u64,
    /// Data reads of the program, recorded or filtered; 0 where the recorder cannot tell kinds
    /// apart for filtered references and only `references` is known.
    pub loads: u64,
    /// Data writes.
    pub stores: u64,
    /// Translation blocks or instructions fetched, as the recorder counts fetches.
    pub fetches: u64,
    /// All references: the sum of `Access::count` and `Call::Tick::count`.
    pub references: u64,
    /// Instructions.
    pub instructions: u64,
    /// Distinct pages: (process, page) pairs that appear in an access or a touch.
    pub pages: u64,
    /// The processes, by id.
    pub processes: Vec<Process>,
    /// Number of threads.
    pub threads: u32,
    /// The files, by id, with their sizes when first seen.
    pub files: Vec<File>,
    /// What the reader should know: a program that could not be recorded, an interrupted recording.
    pub warnings: Vec<String>,
    /// Whether the recording was interrupted (Ctrl-C, a killed recorder) rather than ended.
    pub interrupted: bool,
}
