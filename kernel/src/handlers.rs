//! Handlers of signals: when one runs, the frame that it runs on, and the way back.

use linux_raw_sys::general as nr;

use crate::arch::user::{Context, Fx};
use crate::calls::{Answer, Errno, Halt};
use crate::kernel::Kernel;
use crate::signals::{Action, Info, SIG_DFL, SignalSet};
use crate::tasks::{End, Redo, Thread, Tid};
use crate::words::Words;

/// Bytes below the stack pointer that belong to the function that was interrupted.
const RED_ZONE_BYTES: u64 = 128;
/// Where registers lie in a frame: after the return address, flags, link and stack of its `ucontext`.
const REGISTERS_AT: u64 = 8 + 40;
/// Where the mask lies in a frame: after 256 bytes of registers.
const MASK_AT: u64 = REGISTERS_AT + 256;
/// Where the information lies in a frame.
const INFO_AT: u64 = MASK_AT + 8;
const FRAME_BYTES: u64 = INFO_AT + Info::BYTES as u64;

impl Kernel {
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
        } else if action.flags & u64::from(nr::SA_RESTART) != 0 && restarts(number, context.r10) {
            context.rip -= 2; // the call's number is still in its register
        } else {
            context.rax = u64::from(Errno::EINTR.0).wrapping_neg();
        }
        if let Some(open) = held {
            self.release(open);
        }
    }

    /// Takes the next signal of that number, the thread's own first.
    pub(crate) fn take_signal(&mut self, tid: Tid, signal: u32) -> Info {
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
        let (fx, frame) = place_of_frame(context.rsp, thread.signal_stack, action);
        let mut words = Words::default();
        words.u64(action.restorer); // the return address
        write_context(&mut words, context, thread, fx);
        debug_assert_eq!(words.bytes().len() as u64, INFO_AT);
        words.put(&info.unwrap_or_default().words(signal));
        let written = self.copy_out(tid, fx, &extended_state(&context.fx));
        match written.and_then(|()| self.copy_out(tid, frame, words.bytes())) {
            Err(Halt::Errno(_)) => return self.fail_to_handle(tid, signal),
            other => other?,
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

    /// A handler has no stack to run on. That of `SIGSEGV` may have one of its own.
    fn fail_to_handle(&mut self, tid: Tid, signal: u32) -> Result<(), Halt> {
        self.take_signal(tid, signal);
        if signal == nr::SIGSEGV {
            let process = self.tasks.threads[tid].process;
            self.end_process(process, End::Signal(signal));
        } else {
            self.force(tid, nr::SIGSEGV, Info { code: 128, ..Info::default() }); // SI_KERNEL
        }
        if self.is_doomed(tid) { Err(Halt::Dead) } else { Ok(()) }
    }

    /// `rt_sigreturn`: goes on where a handler interrupted.
    pub(crate) fn signal_return(&mut self, tid: Tid, context: &mut Context) -> Answer {
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

/// Where the extended state and the rest of a frame go. Whoever gives a stack that is none, or runs out
/// of a handlers' stack, gets addresses that cannot be written.
fn place_of_frame(rsp: u64, (stack, bytes): (u64, u64), action: Action) -> (u64, u64) {
    let end = stack.wrapping_add(bytes);
    let is_on_stack = |at: u64| end.wrapping_sub(at) < bytes;
    let below = rsp.wrapping_sub(RED_ZONE_BYTES);
    let is_nested = is_on_stack(below);
    let switches = action.flags & u64::from(nr::SA_ONSTACK) != 0 && bytes > 0 && !is_nested;
    let top = if switches { end } else { below };
    let fx = top.wrapping_sub(EXTENDED_BYTES as u64) & !63;
    let frame = (fx.wrapping_sub(FRAME_BYTES) & !15).wrapping_sub(8);
    let overflows = (switches || is_nested) && !is_on_stack(frame);
    if overflows { (u64::MAX, u64::MAX) } else { (fx, frame) }
}

/// `struct ucontext`: what the handler returns to.
fn write_context(words: &mut Words, context: &Context, thread: &Thread, fx: u64) {
    /// The state is whole (`UC_FP_XSTATE`), and the stack's selector is there and meant.
    const FLAGS: u64 = 0b111;
    /// The selectors of code and stack, each in its quarter.
    const SELECTORS: u64 = 0x2b << 48 | 0x33;
    let (stack, bytes) = thread.signal_stack;
    let mask = thread.saved_mask.unwrap_or(thread.mask);
    let fault = thread.fault;
    words.u64(FLAGS).u64(0).u64(stack);
    words.u64(if bytes == 0 { nr::SS_DISABLE.into() } else { 0 }).u64(bytes);
    for register in registers(context) {
        words.u64(*register);
    }
    words.u64(SELECTORS).u64(fault.error).u64(fault.vector).u64(mask.0).u64(fault.address);
    words.u64(fx).zeros(64).u64(mask.0);
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
const fn restarts(number: u32, fourth: u64) -> bool {
    match number {
        nr::__NR_nanosleep
        | nr::__NR_clock_nanosleep
        | nr::__NR_poll
        | nr::__NR_ppoll
        | nr::__NR_select
        | nr::__NR_pselect6
        | nr::__NR_pause
        | nr::__NR_rt_sigsuspend
        | nr::__NR_rt_sigtimedwait => false,
        // Not with a limit of time, which would begin again.
        nr::__NR_futex => fourth == 0,
        _ => true,
    }
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
