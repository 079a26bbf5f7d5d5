//! Threads and processes: who runs, who waits for what, and what belongs to whom.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use linux_raw_sys::general::{CLD_EXITED, CLD_KILLED};
use vellum_mm::fault::Attempt;
use vellum_mm::machine::Access;
use vellum_mm::objects::io::RequestId;
use vellum_mm::spaces::AddressSpace;

use crate::arch::user::Context;
use crate::by_tid::ByTid;
use crate::files::{OpenId, tree::NodeId};
use crate::signals::{Handlers, Pending, SignalSet};

/// Identifies a thread, and the process whose first thread it is.
pub(crate) type Tid = u32;

/// What a thread is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// In the queue.
    Ready,
    /// On this processor, which has its registers.
    Running(u32),
    /// Until something happens.
    Waiting(Wait),
    /// It must end as soon as its processor traps.
    Doomed,
}

/// What a thread waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// A disk.
    Request(RequestId),
    /// A child that ends.
    Child,
    /// The process that it made by `vfork`, to run a program of its own or end.
    Vfork(Tid),
    /// The other threads of its process to be gone, so that it can run another program.
    Alone,
    /// A futex to be woken by somebody who names one of these bits.
    Futex(FutexKey, u32),
    /// Bytes in a pipe, or room.
    Pipe(usize),
    /// Any pipe, or the console.
    Poll,
    /// A signal, or nothing but time.
    Signal,
    /// One of these signals, which it takes itself, whether it is blocked or not.
    OneOf(SignalSet),
    /// Input from the console.
    Console,
    /// The end of a process that was killed for its memory.
    Victim,
}

impl Wait {
    /// Whether a signal ends it. Disks, and threads and programs that go their way, come soon.
    pub(crate) const fn is_interruptible(self) -> bool {
        !matches!(self, Wait::Request(_) | Wait::Vfork(_) | Wait::Alone | Wait::Victim)
    }
}

/// What names a futex for all who wait at it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum FutexKey {
    /// By space and address.
    Private(u32, u64),
    /// By file and byte.
    Shared(u32, u64),
}

/// What a thread does before it returns to ring 3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Redo {
    /// Nothing.
    Nothing,
    /// Tries an access again that had to wait.
    Access(u64, Access),
    /// Makes its system call again: its arguments are still in the registers.
    Call,
}

/// A thread.
pub(crate) struct Thread {
    /// The process that it belongs to.
    pub(crate) process: Tid,
    /// Its registers; with the processor while it runs.
    pub(crate) context: Option<Box<Context>>,
    /// What it does.
    pub(crate) state: State,
    /// What to do when it next runs.
    pub(crate) redo: Redo,
    /// Whether the present access has waited.
    pub(crate) attempt: Attempt,
    /// How often the present access has waited.
    pub(crate) waits: u32,
    /// What it has read from disks since its last call.
    pub(crate) reads: Reads,
    /// How much of the present call is done, in the call's own unit.
    pub(crate) progress: u64,
    /// The open file that the present call waits with, one more reference to it.
    pub(crate) held: Option<OpenId>,
    /// When its wait is over at the latest, in nanoseconds; `u64::MAX` for never.
    pub(crate) deadline: u64,
    /// Its wait ended because of the deadline.
    pub(crate) timed_out: bool,
    /// Its wait ended because of a signal.
    pub(crate) interrupted: bool,
    /// The futex that it waited for was woken.
    pub(crate) woken: bool,
    /// Signals that it does not want now.
    pub(crate) mask: SignalSet,
    /// The mask to come back to after `sigsuspend`.
    pub(crate) saved_mask: Option<SignalSet>,
    /// Signals sent to it.
    pub(crate) pending: Pending,
    /// Where signal handlers may have their own stack: address and bytes.
    pub(crate) signal_stack: (u64, u64),
    /// What it last did that only a signal could answer.
    pub(crate) fault: Fault,
    /// Its name, with zeros at the end.
    pub(crate) name: [u8; Thread::NAME_BYTES],
    /// Cleared and woken when it ends (`set_tid_address`).
    pub(crate) clear_tid: u64,
    /// The list of mutexes that it must not take with it when it ends (`set_robust_list`).
    pub(crate) robust_list: u64,
    /// Where its number is written before it first runs (`CLONE_CHILD_SETTID`).
    pub(crate) set_tid: u64,
    /// Who waits until it runs a program of its own.
    pub(crate) vfork_parent: Option<Tid>,
}

/// A trap of a program, as a signal handler is told of it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Fault {
    /// Its vector.
    pub(crate) vector: u64,
    /// What the processor said of it.
    pub(crate) error: u64,
    /// The address of the latest page fault.
    pub(crate) address: u64,
}

impl Thread {
    /// Bytes of a name with its end (`PR_SET_NAME`).
    pub(crate) const NAME_BYTES: usize = 16;

    /// A thread of `process` that is ready to run with these registers.
    pub(crate) fn new(process: Tid, context: Box<Context>) -> Thread {
        Thread {
            process,
            context: Some(context),
            state: State::Ready,
            redo: Redo::Nothing,
            attempt: Attempt::First,
            waits: 0,
            reads: Reads::default(),
            progress: 0,
            held: None,
            deadline: u64::MAX,
            timed_out: false,
            interrupted: false,
            woken: false,
            mask: SignalSet::EMPTY,
            saved_mask: None,
            pending: Pending::default(),
            signal_stack: (0, 0),
            fault: Fault::default(),
            name: [0; Thread::NAME_BYTES],
            clear_tid: 0,
            robust_list: 0,
            set_tid: 0,
            vfork_parent: None,
        }
    }

    /// Whether a signal is not only kept for it: it handles the signal, or waits for that one.
    pub(crate) fn wants(&self, signal: u32) -> bool {
        let waits = matches!(self.state, State::Waiting(Wait::OneOf(set)) if set.has(signal));
        waits || !self.mask.has(signal)
    }

    /// Forgets what only mattered to the call that has ended.
    #[inline]
    pub(crate) fn end_call(&mut self) {
        self.progress = 0;
        self.reads.in_vain = 0;
        self.timed_out = false;
        self.interrupted = false;
        self.woken = false;
    }
}

/// Major faults of a thread, to notice that it gets nowhere: an instruction that needs two pages where
/// memory has room for one reads them for ever in turns.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Reads {
    recent: [u64; 4],
    in_vain: u32,
}

impl Reads {
    /// Reads of few pages again and again after which a thread is taken to get nowhere.
    const IN_VAIN_MAX: u32 = 1000;

    /// Notes that `page` was read; whether that has gone on for too long.
    pub(crate) fn is_in_vain(&mut self, page: u64) -> bool {
        if self.recent.contains(&page) {
            self.in_vain += 1;
        } else {
            self.recent.rotate_right(1);
            self.recent[0] = page;
            self.in_vain = 0;
        }
        let ends = self.in_vain > Reads::IN_VAIN_MAX;
        if ends {
            self.in_vain = 0;
        }
        ends
    }
}

/// An open file in a process's table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Descriptor {
    /// What it refers to.
    pub(crate) open: OpenId,
    /// Closed by `execve`.
    pub(crate) close_on_exec: bool,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// By `exit`, with this code.
    Exit(u8),
    /// By a signal.
    Signal(u32),
}

impl End {
    /// The word that `wait4` gives.
    pub(crate) fn status(self) -> u32 {
        match self {
            End::Exit(code) => u32::from(code) << 8,
            End::Signal(signal) => signal,
        }
    }

    /// What `SIGCHLD` and `waitid` say: how, and with what.
    pub(crate) fn reason(self) -> (i32, u32) {
        match self {
            End::Exit(code) => (CLD_EXITED.cast_signed(), code.into()),
            End::Signal(signal) => (CLD_KILLED.cast_signed(), signal),
        }
    }

    /// The exit code that a shell shows.
    pub(crate) fn code(self) -> u8 {
        match self {
            End::Exit(code) => code,
            End::Signal(signal) => 128 + signal as u8,
        }
    }
}

/// A timer (`setitimer`), in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Alarm {
    /// When it goes off; `u64::MAX` for never.
    pub(crate) at: u64,
    /// How long after that it goes off again; 0 if it does not.
    pub(crate) every: u64,
}

impl Alarm {
    /// One that does not run.
    pub(crate) const NONE: Alarm = Alarm { at: u64::MAX, every: 0 };
}

/// A process.
pub(crate) struct Process {
    /// Who made it; 0 for the first.
    pub(crate) parent: Tid,
    /// The program's name.
    pub(crate) name: String,
    /// Where the program was when it was started.
    pub(crate) program: Vec<u8>,
    /// Its threads that have not ended.
    pub(crate) threads: Vec<Tid>,
    /// The slot of its address space.
    pub(crate) space: usize,
    /// Open files.
    pub(crate) descriptors: Vec<Option<Descriptor>>,
    /// Directory that relative paths begin at.
    pub(crate) directory: NodeId,
    /// Bits that new files do not get.
    pub(crate) umask: u32,
    /// What it does about signals.
    pub(crate) handlers: Handlers,
    /// Signals sent to all of it.
    pub(crate) pending: Pending,
    /// Set when it is decided that it ends; its threads may take a while.
    pub(crate) ending: Option<End>,
    /// Set when all threads are gone and nobody has asked how it ended.
    pub(crate) ended: Option<End>,
    /// Process group.
    pub(crate) group: Tid,
    /// Session.
    pub(crate) session: Tid,
    /// How far it lets others go first, from -20 to 19.
    pub(crate) nice: i32,
    /// When it gets `SIGALRM`.
    pub(crate) alarm: Alarm,
    /// Faults satisfied without a read.
    pub(crate) minor: u64,
    /// Faults that needed a read.
    pub(crate) major: u64,
    /// The same of children that were waited for.
    pub(crate) children_faults: (u64, u64),
    /// The most pages that were resident.
    pub(crate) peak_resident: u64,
    /// Killed because memory was out.
    pub(crate) out_of_memory: bool,
    /// What it maps from now on is locked (`MCL_FUTURE`).
    pub(crate) locks_all: bool,
}

impl Process {
    /// The first process, of one thread.
    pub(crate) fn first(tid: Tid, space: usize) -> Process {
        Process {
            parent: 0,
            name: String::new(),
            program: Vec::new(),
            threads: alloc::vec![tid],
            space,
            descriptors: Vec::new(),
            directory: crate::files::tree::ROOT,
            umask: 0o022,
            handlers: Handlers::default(),
            pending: Pending::default(),
            ending: None,
            ended: None,
            group: tid,
            session: tid,
            nice: 0,
            alarm: Alarm::NONE,
            minor: 0,
            major: 0,
            children_faults: (0, 0),
            peak_resident: 0,
            out_of_memory: false,
            locks_all: false,
        }
    }
}

/// An address space and how many threads use it.
pub(crate) struct Space {
    /// The space.
    pub(crate) space: AddressSpace,
    /// Threads.
    pub(crate) users: u32,
}

/// All tasks.
#[derive(Default)]
pub(crate) struct Tasks {
    /// Threads.
    pub(crate) threads: ByTid<Thread>,
    /// Processes.
    pub(crate) processes: ByTid<Process>,
    /// Address spaces.
    pub(crate) spaces: Vec<Option<Space>>,
    /// Alarms that run: when they go off, and whose they are.
    pub(crate) alarms: BTreeSet<(u64, Tid)>,
    last: Tid,
}

/// Numbers of threads start again after this one.
const TID_MAX: Tid = 32_767;

impl Tasks {
    /// A number that no thread or process has.
    pub(crate) fn new_tid(&mut self) -> Option<Tid> {
        for _ in 0..TID_MAX {
            self.last = self.last % TID_MAX + 1;
            if self.threads.get(self.last).is_none() && self.processes.get(self.last).is_none() {
                return Some(self.last);
            }
        }
        None
    }

    /// Sets a process's alarm.
    pub(crate) fn set_alarm(&mut self, process: Tid, alarm: Alarm) {
        let Some(entry) = self.processes.get_mut(process) else { return };
        self.alarms.remove(&(entry.alarm.at, process));
        entry.alarm = alarm;
        if alarm.at != u64::MAX {
            self.alarms.insert((alarm.at, process));
        }
    }

    /// A slot for a new space, used by nobody yet.
    pub(crate) fn add_space(&mut self, space: AddressSpace) -> usize {
        let space = Some(Space { space, users: 0 });
        if let Some(free) = self.spaces.iter().position(Option::is_none) {
            self.spaces[free] = space;
            return free;
        }
        self.spaces.push(space);
        self.spaces.len() - 1
    }
}
