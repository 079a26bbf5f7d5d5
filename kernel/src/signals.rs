//! Signals: who wants which, and which are on their way.

use alloc::vec::Vec;

use linux_raw_sys::general as nr;
use vellum_mm::fault::{Cause, Violation};

use crate::kernel::Kernel;
use crate::tasks::{End, State, Tid};
use crate::words::Words;

/// Signals are numbered from 1 to this.
pub(crate) const SIGNALS: u32 = 64;
/// From this one on, a signal that comes twice is handled twice (signal(7), real-time signals).
const QUEUED_FIRST: u32 = 32;

/// A set of signals.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SignalSet(pub(crate) u64);

impl SignalSet {
    /// None.
    pub(crate) const EMPTY: SignalSet = SignalSet(0);
    /// Those that nobody can refuse.
    const FORCED: u64 = 1 << (nr::SIGKILL - 1) | 1 << (nr::SIGSTOP - 1);

    /// Those that an instruction causes.
    const OF_FAULTS: u64 = 1 << (nr::SIGSEGV - 1)
        | 1 << (nr::SIGBUS - 1)
        | 1 << (nr::SIGILL - 1)
        | 1 << (nr::SIGTRAP - 1)
        | 1 << (nr::SIGFPE - 1);

    /// Whether `signal` is in it.
    pub(crate) const fn has(self, signal: u32) -> bool {
        self.0 & 1 << (signal - 1) != 0
    }

    /// All that are not in it.
    #[must_use]
    pub(crate) const fn others(self) -> SignalSet {
        SignalSet(!self.0)
    }

    /// The set as a mask: without those that nobody can refuse.
    #[must_use]
    pub(crate) const fn as_mask(self) -> SignalSet {
        SignalSet(self.0 & !SignalSet::FORCED)
    }
}

/// What a handler is told of a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Info {
    /// Why it was sent.
    pub(crate) code: i32,
    /// The address of a fault, or the sender.
    pub(crate) subject: u64,
    /// How a child ended, or what the sender says.
    pub(crate) value: u64,
}

impl Info {
    /// Bytes of `siginfo_t`.
    pub(crate) const BYTES: usize = 128;

    /// `siginfo_t`: three numbers, then what the kind of signal says.
    pub(crate) fn words(self, signal: u32) -> [u8; Info::BYTES] {
        let mut words = Words::default();
        words.u32(signal).u32(0).u32(self.code.cast_unsigned()).u32(0);
        words.u64(self.subject).u64(self.value).zeros(Info::BYTES - 32);
        words.bytes().try_into().expect("as many bytes")
    }
}

/// Signals on their way.
#[derive(Default)]
pub(crate) struct Pending {
    set: SignalSet,
    infos: Vec<(u32, Info)>,
}

impl Pending {
    /// Signals that wait at one place, so that nobody fills the kernel's heap with them.
    const QUEUED_MAX: usize = 256;

    /// Adds one, if there is room. A second of its number is lost, but for those that are queued.
    fn add(&mut self, signal: u32, info: Info) -> bool {
        let is_first = !self.set.has(signal);
        if !is_first && signal < QUEUED_FIRST {
            return true;
        }
        let fits = is_first || self.infos.len() < Pending::QUEUED_MAX;
        if fits {
            self.set.0 |= 1 << (signal - 1);
            self.infos.push((signal, info));
        }
        fits
    }

    /// All of them.
    pub(crate) const fn set(&self) -> SignalSet {
        self.set
    }

    /// The lowest that `mask` lets through, those first that tell of the instruction that is next.
    #[inline]
    pub(crate) fn first(&self, mask: SignalSet) -> Option<u32> {
        let due = self.set.0 & !mask.0;
        let urgent = due & SignalSet::OF_FAULTS;
        let due = if urgent != 0 { urgent } else { due };
        (due != 0).then(|| due.trailing_zeros() + 1)
    }

    /// Takes the one that came first of its number.
    pub(crate) fn take(&mut self, signal: u32) -> Option<Info> {
        let place = self.infos.iter().position(|&(number, _)| number == signal)?;
        let (_, info) = self.infos.remove(place);
        if self.peek(signal).is_none() {
            self.set.0 &= !(1 << (signal - 1));
        }
        Some(info)
    }

    /// Forgets all of one number.
    pub(crate) fn forget(&mut self, signal: u32) {
        self.infos.retain(|&(number, _)| number != signal);
        self.set.0 &= !(1 << (signal - 1));
    }

    pub(crate) fn peek(&self, signal: u32) -> Option<Info> {
        self.infos.iter().find(|&&(number, _)| number == signal).map(|&(_, info)| info)
    }
}

/// What a process does about one signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Action {
    /// `SIG_DFL`, `SIG_IGN` or the address of a handler.
    pub(crate) handler: u64,
    /// `SA_…`.
    pub(crate) flags: u64,
    /// Where a handler returns to.
    pub(crate) restorer: u64,
    /// Signals blocked meanwhile.
    pub(crate) mask: SignalSet,
}

/// The default action.
pub(crate) const SIG_DFL: u64 = 0;
/// None.
pub(crate) const SIG_IGN: u64 = 1;

/// What a process does about all signals.
#[derive(Clone)]
pub(crate) struct Handlers([Action; SIGNALS as usize]);

impl Default for Handlers {
    fn default() -> Handlers {
        Handlers([Action::default(); SIGNALS as usize])
    }
}

impl Handlers {
    /// What it does about `signal`.
    pub(crate) fn get(&self, signal: u32) -> Action {
        self.0[signal as usize - 1]
    }

    /// Changes that.
    pub(crate) fn set(&mut self, signal: u32, action: Action) {
        self.0[signal as usize - 1] = action;
    }

    /// Forgets handlers, which `execve` takes away; what is ignored stays so.
    pub(crate) fn reset(&mut self) {
        for action in &mut self.0 {
            let handler = if action.handler == SIG_IGN { SIG_IGN } else { SIG_DFL };
            *action = Action { handler, ..Action::default() };
        }
    }

    /// Whether a signal would change nothing.
    pub(crate) fn ignores(&self, signal: u32) -> bool {
        match self.get(signal).handler {
            SIG_IGN => true,
            // Jobs are not stopped here: what would stop one does nothing.
            SIG_DFL => matches!(
                signal,
                nr::SIGCHLD
                    | nr::SIGURG
                    | nr::SIGWINCH
                    | nr::SIGCONT
                    | nr::SIGTSTP
                    | nr::SIGTTIN
                    | nr::SIGTTOU
                    | nr::SIGSTOP
            ),
            _ => false,
        }
    }
}

impl Kernel {
    /// Sends a signal that the kernel itself has reason for to a thread.
    pub(crate) fn send(&mut self, tid: Tid, signal: u32) {
        self.send_to_thread(tid, signal, Info { code: 128, ..Info::default() }); // SI_KERNEL
    }

    /// Sends a signal to one thread; whether there was room for it.
    pub(crate) fn send_to_thread(&mut self, tid: Tid, signal: u32, info: Info) -> bool {
        let Some(thread) = self.tasks.threads.get_mut(tid) else { return true };
        let process = &self.tasks.processes[thread.process];
        if signal == nr::SIGKILL {
            let process = thread.process;
            self.end_process(process, End::Signal(signal));
            return true;
        }
        if process.handlers.ignores(signal) && !thread.mask.has(signal) {
            return true;
        }
        let fits = thread.pending.add(signal, info);
        if thread.wants(signal) {
            self.interrupt(tid);
        }
        fits
    }

    /// Sends a signal to a process: any of its threads takes it. Whether there was room for it.
    pub(crate) fn send_to_process(&mut self, process: Tid, signal: u32, info: Info) -> bool {
        let Some(target) = self.tasks.processes.get_mut(process) else { return true };
        if target.ended.is_some() {
            return true;
        }
        if signal == nr::SIGKILL {
            self.end_process(process, End::Signal(signal));
            return true;
        }
        let threads = &self.tasks.threads;
        let wants = |tid: &Tid| threads.get(*tid).is_some_and(|thread| thread.wants(signal));
        let taker = target.threads.iter().copied().find(wants);
        if target.handlers.ignores(signal) && taker.is_some() {
            return true;
        }
        let fits = target.pending.add(signal, info);
        if let Some(tid) = taker {
            self.interrupt(tid);
        }
        fits
    }

    /// Makes a thread look at its signals soon.
    fn interrupt(&mut self, tid: Tid) {
        let thread = &mut self.tasks.threads[tid];
        match thread.state {
            State::Waiting(wait) if wait.is_interruptible() => {
                thread.interrupted = true;
                self.wake(tid);
            }
            State::Running(cpu) if cpu != crate::arch::cpu::id() => {
                crate::arch::ipi::shootdown(cpu);
            }
            State::Waiting(_) | State::Ready | State::Doomed | State::Running(_) => {}
        }
    }

    /// Whether a signal waits to be handled by a thread.
    #[inline]
    pub(crate) fn signal_due(&self, tid: Tid) -> Option<u32> {
        let thread = &self.tasks.threads[tid];
        let own = thread.pending.first(thread.mask);
        own.or_else(|| self.tasks.processes[thread.process].pending.first(thread.mask))
    }

    /// What a program gets for an access that it may not make.
    pub(crate) fn send_fault(&mut self, tid: Tid, cause: Cause, address: u64) {
        let (signal, code) = match cause {
            Cause::Violation(Violation::Unmapped) => (nr::SIGSEGV, nr::SEGV_MAPERR),
            Cause::Violation(Violation::Forbidden) => (nr::SIGSEGV, nr::SEGV_ACCERR),
            Cause::Violation(Violation::BeyondFile) | Cause::Io => (nr::SIGBUS, nr::BUS_ADRERR),
            Cause::OutOfMemory => (nr::SIGKILL, 0),
        };
        self.force(tid, signal, Info { code: code.cast_signed(), subject: address, value: 0 });
    }

    /// Sends a signal that the thread cannot go on without: who refuses it dies.
    pub(crate) fn force(&mut self, tid: Tid, signal: u32, info: Info) {
        let thread = &self.tasks.threads[tid];
        let (process, refused) = (thread.process, thread.mask.has(signal));
        let action = self.tasks.processes[process].handlers.get(signal);
        if refused || action.handler == SIG_IGN {
            return self.end_process(process, End::Signal(signal));
        }
        self.send_to_thread(tid, signal, info);
    }
}
