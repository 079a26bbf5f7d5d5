//! Signals: who wants which, which are on their way, and the frame that a handler runs on.

use alloc::vec::Vec;

use linux_raw_sys::general as nr;
use vellum_mm::fault::{Cause, Violation};

use crate::arch::user::{Context, Fx};
use crate::calls::{Errno, Halt};
use crate::kernel::Kernel;
use crate::tasks::{End, Redo, State, Tid, Wait};
use crate::words::Words;

/// Signals are numbered from 1 to this.
pub(crate) const SIGNALS: u32 = 64;

/// A set of signals.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SignalSet(pub(crate) u64);

impl SignalSet {
    /// None.
    pub(crate) const EMPTY: SignalSet = SignalSet(0);
    /// Those that nobody can refuse.
    const FORCED: u64 = 1 << (nr::SIGKILL - 1) | 1 << (nr::SIGSTOP - 1);

    /// Whether `signal` is in it.
    pub(crate) const fn has(self, signal: u32) -> bool {
        self.0 & 1 << (signal - 1) != 0
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
    /// How a child ended.
    pub(crate) status: u32,
}

/// Signals on their way.
#[derive(Default)]
pub(crate) struct Pending {
    set: SignalSet,
    infos: Vec<(u32, Info)>,
}

impl Pending {
    /// Adds one; a second of its number is lost, as signals below 32 are.
    fn add(&mut self, signal: u32, info: Info) {
        if !self.set.has(signal) {
            self.set.0 |= 1 << (signal - 1);
            self.infos.push((signal, info));
        }
    }

    /// All of them.
    pub(crate) const fn set(&self) -> SignalSet {
        self.set
    }

    /// The lowest that `mask` lets through.
    #[inline]
    fn first(&self, mask: SignalSet) -> Option<u32> {
        let due = self.set.0 & !mask.0;
        (due != 0).then(|| due.trailing_zeros() + 1)
    }

    fn take(&mut self, signal: u32) -> Option<Info> {
        let place = self.infos.iter().position(|&(number, _)| number == signal)?;
        self.set.0 &= !(1 << (signal - 1));
        Some(self.infos.remove(place).1)
    }

    fn peek(&self, signal: u32) -> Option<Info> {
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

const SIG_DFL: u64 = 0;
const SIG_IGN: u64 = 1;

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

    fn ignores(&self, signal: u32) -> bool {
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

/// Bytes below the stack pointer that belong to the function that was interrupted.
const RED_ZONE_BYTES: u64 = 128;
/// Where registers lie in a frame: after the return address, flags, link and stack of its `ucontext`.
const REGISTERS_AT: u64 = 8 + 40;
/// Where the mask lies in a frame: after 256 bytes of registers.
const MASK_AT: u64 = REGISTERS_AT + 256;
/// Where the information lies in a frame.
const INFO_AT: u64 = MASK_AT + 8;
const FRAME_BYTES: u64 = INFO_AT + 128;

impl Kernel {
    /// Sends a signal that the kernel itself has reason for to a thread.
    pub(crate) fn send(&mut self, tid: Tid, signal: u32) {
        self.send_to_thread(tid, signal, Info { code: 128, ..Info::default() }); // SI_KERNEL
    }

    /// Sends a signal to one thread.
    pub(crate) fn send_to_thread(&mut self, tid: Tid, signal: u32, info: Info) {
        let Some(thread) = self.tasks.threads.get_mut(tid) else { return };
        let process = &self.tasks.processes[thread.process];
        if signal == nr::SIGKILL {
            let process = thread.process;
            return self.end_process(process, End::Signal(signal));
        }
        if process.handlers.ignores(signal) && !thread.mask.has(signal) {
            return;
        }
        thread.pending.add(signal, info);
        if !thread.mask.has(signal) {
            self.interrupt(tid);
        }
    }

    /// Sends a signal to a process: any of its threads takes it.
    pub(crate) fn send_to_process(&mut self, process: Tid, signal: u32, info: Info) {
        let Some(target) = self.tasks.processes.get_mut(process) else { return };
        if target.ended.is_some() {
            return;
        }
        if signal == nr::SIGKILL {
            return self.end_process(process, End::Signal(signal));
        }
        let threads = &self.tasks.threads;
        let wants = |tid: &Tid| threads.get(*tid).is_some_and(|t| !t.mask.has(signal));
        let taker = target.threads.iter().copied().find(wants);
        if target.handlers.ignores(signal) && taker.is_some() {
            return;
        }
        target.pending.add(signal, info);
        if let Some(tid) = taker {
            self.interrupt(tid);
        }
    }

    /// Makes a thread look at its signals soon.
    fn interrupt(&mut self, tid: Tid) {
        let thread = &mut self.tasks.threads[tid];
        match thread.state {
            // Who waits for a disk or a child's program is not disturbed.
            State::Waiting(Wait::Request(_) | Wait::Vfork(_) | Wait::Victim)
            | State::Ready
            | State::Doomed => {}
            State::Waiting(_) => {
                thread.interrupted = true;
                self.wake(tid);
            }
            State::Running(cpu) if cpu != crate::arch::cpu::id() => {
                crate::arch::ipi::shootdown(cpu);
            }
            State::Running(_) => {}
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
        self.force(tid, signal, Info { code: code.cast_signed(), subject: address, status: 0 });
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

    /// Handles signals until none is due, so that the thread can go on with `context`.
    ///
    /// # Errors
    /// If it must wait for its stack, or is dead.
    pub(crate) fn deliver(&mut self, tid: Tid, context: &mut Context) -> Result<(), Halt> {
        while let Some(signal) = self.signal_due(tid) {
            let thread = &self.tasks.threads[tid];
            let process = thread.process;
            let handlers = &self.tasks.processes[process].handlers;
            if handlers.ignores(signal) {
                self.take_signal(tid, signal);
                continue;
            }
            let action = handlers.get(signal);
            if action.handler == SIG_DFL {
                self.end_process(process, End::Signal(signal));
                return Err(Halt::Dead);
            }
            self.restart_or_fail(tid, context, action);
            self.run_handler(tid, context, signal, action)?;
        }
        // No handler ran: a call that was interrupted for nothing goes on.
        self.tasks.threads[tid].interrupted = false;
        Ok(())
    }

    /// What becomes of a call that a handler interrupts.
    fn restart_or_fail(&mut self, tid: Tid, context: &mut Context, action: Action) {
        let thread = &mut self.tasks.threads[tid];
        if !core::mem::take(&mut thread.interrupted) || thread.redo != Redo::Call {
            return;
        }
        let number = context.rax as u32;
        let writes = matches!(number, nr::__NR_write | nr::__NR_writev);
        thread.redo = Redo::Nothing;
        let progress = core::mem::take(&mut thread.progress);
        let held = thread.held.take();
        if writes && progress > 0 {
            context.rax = progress;
        } else if action.flags & u64::from(nr::SA_RESTART) != 0 && restarts(number) {
            context.rip -= 2; // the call's number is still in its register
        } else {
            context.rax = u64::from(Errno::EINTR.0).wrapping_neg();
        }
        if let Some(open) = held {
            self.release(open);
        }
    }

    fn take_signal(&mut self, tid: Tid, signal: u32) -> Info {
        let thread = &mut self.tasks.threads[tid];
        let own = thread.pending.take(signal);
        let process = &mut self.tasks.processes[thread.process];
        own.or_else(|| process.pending.take(signal)).unwrap_or_default()
    }

    /// Builds a handler's frame, as `arch/x86/kernel/signal_64.c` lays it out, and lets it run.
    fn run_handler(
        &mut self,
        tid: Tid,
        context: &mut Context,
        signal: u32,
        action: Action,
    ) -> Result<(), Halt> {
        let thread = &self.tasks.threads[tid];
        let own = thread.pending.peek(signal);
        let info = own.or_else(|| self.tasks.processes[thread.process].pending.peek(signal));
        let info = info.unwrap_or_default();
        let (stack, bytes) = thread.signal_stack;
        let on_stack = (stack..stack + bytes).contains(&context.rsp);
        let switches = action.flags & u64::from(nr::SA_ONSTACK) != 0 && bytes > 0 && !on_stack;
        let top = if switches { stack + bytes } else { context.rsp.wrapping_sub(RED_ZONE_BYTES) };
        let fx = top.wrapping_sub(EXTENDED_BYTES as u64) & !63;
        let frame = (fx.wrapping_sub(FRAME_BYTES) & !15).wrapping_sub(8);
        let mask = thread.saved_mask.unwrap_or(thread.mask);
        let mut words = Words::default();
        words.u64(action.restorer).u64(0).u64(0); // return address; flags and link of the ucontext
        words.u64(stack).u64(if bytes == 0 { 2 } else { 0 }).u64(bytes);
        for register in registers(context) {
            words.u64(*register);
        }
        words.u64(0x0033).u64(0).u64(0).u64(mask.0).u64(info.subject).u64(fx).zeros(64);
        words.u64(mask.0);
        debug_assert_eq!(words.bytes().len() as u64, INFO_AT);
        words.u32(signal).u32(0).u32(info.code.cast_unsigned()).u32(0);
        if signal == nr::SIGCHLD {
            words.u32(info.subject as u32).u32(0).u32(info.status);
        } else {
            words.u64(info.subject);
        }
        words.zeros(FRAME_BYTES as usize - words.bytes().len());
        let written = self.copy_out(tid, fx, &extended_state(&context.fx));
        match written.and_then(|()| self.copy_out(tid, frame, words.bytes())) {
            Ok(()) => {}
            Err(Halt::Errno(_)) => {
                // No stack to run on.
                let process = self.tasks.threads[tid].process;
                self.end_process(process, End::Signal(nr::SIGSEGV));
                return Err(Halt::Dead);
            }
            Err(halt) => return Err(halt),
        }
        self.take_signal(tid, signal);
        let thread = &mut self.tasks.threads[tid];
        thread.saved_mask = None;
        let own = if action.flags & u64::from(nr::SA_NODEFER) != 0 { 0 } else { 1 << (signal - 1) };
        thread.mask = SignalSet(thread.mask.0 | action.mask.0 | own).as_mask();
        if action.flags & u64::from(nr::SA_RESETHAND) != 0 {
            let process = thread.process;
            self.tasks.processes[process].handlers.set(signal, Action::default());
        }
        (context.rip, context.rsp) = (action.handler, frame);
        (context.rdi, context.rsi, context.rdx) = (signal.into(), frame + INFO_AT, frame + 8);
        context.rax = 0;
        context.rflags &= !0x500; // trap and direction flags
        Ok(())
    }

    /// `rt_sigreturn`: goes on where a handler interrupted.
    pub(crate) fn signal_return(
        &mut self,
        tid: Tid,
        context: &mut Context,
    ) -> crate::calls::Answer {
        let frame = context.rsp.wrapping_sub(8); // its return address was taken
        let mut saved = [0; (INFO_AT - REGISTERS_AT) as usize];
        self.copy_in(tid, frame.wrapping_add(REGISTERS_AT), &mut saved)?;
        let word = |at: usize| {
            u64::from_le_bytes(saved[8 * at..8 * at + 8].try_into().expect("eight bytes"))
        };
        let (fx, mask) = (word(23), word(32));
        if fx != 0 {
            let mut state = [0; EXTENDED_BYTES];
            self.copy_in(tid, fx, &mut state[..Fx::LEGACY_BYTES])?;
            if state[SOFTWARE_AT..Fx::LEGACY_BYTES] == software_bytes() {
                self.copy_in(tid, fx, &mut state)?;
            }
            let is_whole = state[Fx::BYTES..] == MAGIC_END.to_le_bytes();
            let end = if is_whole { Fx::BYTES } else { Fx::LEGACY_BYTES };
            context.fx = Fx::from_bytes(&state[..end]);
        }
        for (at, register) in registers_mut(context).into_iter().enumerate() {
            *register = word(at);
        }
        self.tasks.threads[tid].mask = SignalSet(mask).as_mask();
        Err(Halt::Replaced)
    }
}

/// Where the legacy state of a signal frame says what follows it (Linux, `struct _fpx_sw_bytes`).
const SOFTWARE_AT: usize = 464;
/// What says so, and what then ends the frame (Linux, `FP_XSTATE_MAGIC1` and `2`).
const MAGIC: u32 = 0x4650_5853;
const MAGIC_END: u32 = 0x4650_5845;
/// Size of the state with its end.
const EXTENDED_BYTES: usize = Fx::BYTES + size_of::<u32>();

fn software_bytes() -> [u8; Fx::LEGACY_BYTES - SOFTWARE_AT] {
    let mut words = Words::default();
    words.u32(MAGIC).u32(EXTENDED_BYTES as u32).u64(Fx::PARTS).u32(Fx::BYTES as u32).zeros(28);
    words.bytes().try_into().expect("as many bytes")
}

/// The registers as a signal frame has them.
fn extended_state(fx: &Fx) -> [u8; EXTENDED_BYTES] {
    let mut state = [0; EXTENDED_BYTES];
    state[..Fx::BYTES].copy_from_slice(fx.bytes());
    state[SOFTWARE_AT..Fx::LEGACY_BYTES].copy_from_slice(&software_bytes());
    state[Fx::BYTES..].copy_from_slice(&MAGIC_END.to_le_bytes());
    state
}

/// Whether an interrupted call is made again after a handler that asks for it (signal(7)).
const fn restarts(number: u32) -> bool {
    !matches!(
        number,
        nr::__NR_nanosleep
            | nr::__NR_clock_nanosleep
            | nr::__NR_poll
            | nr::__NR_pause
            | nr::__NR_rt_sigsuspend
    )
}

/// Registers in the order of `struct sigcontext`.
const fn registers(c: &Context) -> [&u64; 18] {
    [
        &c.r8, &c.r9, &c.r10, &c.r11, &c.r12, &c.r13, &c.r14, &c.r15, &c.rdi, &c.rsi, &c.rbp,
        &c.rbx, &c.rdx, &c.rax, &c.rcx, &c.rsp, &c.rip, &c.rflags,
    ]
}

/// The same, to be changed.
const fn registers_mut(c: &mut Context) -> [&mut u64; 18] {
    [
        &mut c.r8,
        &mut c.r9,
        &mut c.r10,
        &mut c.r11,
        &mut c.r12,
        &mut c.r13,
        &mut c.r14,
        &mut c.r15,
        &mut c.rdi,
        &mut c.rsi,
        &mut c.rbp,
        &mut c.rbx,
        &mut c.rdx,
        &mut c.rax,
        &mut c.rcx,
        &mut c.rsp,
        &mut c.rip,
        &mut c.rflags,
    ]
}
