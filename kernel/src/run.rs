//! What a processor does all day: lets threads run, and serves what stops them.

use alloc::boxed::Box;

use linux_raw_sys::general as nr;
use spin::MutexGuard;
use vellum_mm::machine::Access;
use vellum_mm::objects::io::RequestId;

use crate::arch::user::{self, Context, Interrupt, Trap};
use crate::arch::{cpu, timer};
use crate::calls::{Answer, Errno, Halt};
use crate::kernel::{self, Kernel};
use crate::signals::Info;
use crate::tasks::{Fault, Redo, State, Tid, Wait};

/// How long a thread runs while others want to.
const SLICE_NANOS: u64 = 10_000_000;
/// How often a processor without work looks at devices and clocks.
const IDLE_NANOS: u64 = 1_000_000;

/// Serves for ever; ends the machine when the first process has ended.
pub(crate) fn serve() -> ! {
    let mut kernel = kernel::get().lock();
    let mut period = 0;
    loop {
        if kernel.stopping.is_some() {
            kernel.end_all();
            if kernel.is_deserted() {
                kernel.stop();
            }
            // Other processors run threads that must end, and that trap because of it.
            set_timer(&mut period, IDLE_NANOS);
            kernel = idle(kernel);
            continue;
        }
        kernel.poll_disks();
        kernel.poll_input();
        kernel.wake_sleepers(cpu::nanos());
        kernel.beat_if_due(cpu::nanos());
        kernel.ring_alarms();
        let Some(tid) = kernel.ready.pop_front() else {
            set_timer(&mut period, IDLE_NANOS);
            kernel = idle(kernel);
            continue;
        };
        set_timer(&mut period, SLICE_NANOS);
        let thread = &mut kernel.tasks.threads[tid];
        thread.state = State::Running(cpu::id());
        let context = thread.context.take().expect("a thread that does not run has its registers");
        kernel = run(kernel, tid, context);
    }
}

fn set_timer(period: &mut u64, wanted: u64) {
    if *period != wanted {
        *period = wanted;
        timer::every(wanted);
    }
}

/// Waits until something may have happened.
fn idle(mut kernel: MutexGuard<'static, Kernel>) -> MutexGuard<'static, Kernel> {
    let cpu = cpu::id();
    let root = kernel.vm.kernel_root();
    kernel.pc.load(cpu, None, root);
    if kernel.disks.under_way() > 0 {
        // The answer comes sooner than the timer.
        drop(kernel);
        core::hint::spin_loop();
        return kernel::get().lock();
    }
    kernel.idle |= 1 << cpu;
    drop(kernel);
    cpu::idle();
    let mut kernel = kernel::get().lock();
    kernel.idle &= !(1 << cpu);
    kernel
}

/// Lets one thread run until it waits, ends, or has had its turn.
fn run(
    mut kernel: MutexGuard<'static, Kernel>,
    tid: Tid,
    mut context: Box<Context>,
) -> MutexGuard<'static, Kernel> {
    let cpu = cpu::id();
    let pc = kernel.pc;
    let lock = kernel::get();
    let process = kernel.tasks.threads[tid].process;
    let mut goes_on = kernel.resume(tid, &mut context);
    while goes_on {
        drop(kernel);
        pc.enter_ring_3(cpu);
        // A thread's own numbers never change: who asks for them needs nothing that is shared.
        let trap = loop {
            let trap = user::run(&mut context);
            match (trap, context.rax as u32) {
                (Trap::Syscall, nr::__NR_getpid) => context.rax = process.into(),
                (Trap::Syscall, nr::__NR_gettid) => context.rax = tid.into(),
                _ => break trap,
            }
        };
        pc.leave_ring_3(cpu);
        kernel = lock.lock();
        goes_on = kernel.serve_trap(tid, &mut context, trap);
    }
    if let Some(thread) = kernel.tasks.threads.get_mut(tid)
        && thread.context.is_none()
    {
        thread.context = Some(context);
    }
    kernel
}

impl Kernel {
    /// Lets this processor translate as a thread's process does.
    #[inline]
    fn load_space(&mut self, cpu: u32, tid: Tid) {
        let space = self.space(tid);
        self.pc.load(cpu, Some(space.id()), space.root());
    }

    /// Serves what stopped a thread; whether it goes on at once.
    #[inline]
    fn serve_trap(&mut self, tid: Tid, context: &mut Context, trap: Trap) -> bool {
        if self.tasks.threads[tid].state == State::Doomed {
            self.remove_thread(tid);
            return false;
        }
        let goes_on = match trap {
            Trap::Syscall => {
                let answer = self.call(tid, context);
                self.answer(tid, context, answer)
            }
            Trap::PageFault { address, access, .. } => {
                self.serve_fault(tid, context, address, access)
            }
            Trap::Interrupt(interrupt) => self.serve_interrupt(tid, interrupt),
            Trap::Exception { vector, .. } => {
                self.serve_exception(tid, context, vector);
                !self.is_gone(tid)
            }
        };
        goes_on && (self.signal_due(tid).is_none() || self.resume(tid, context))
    }

    #[inline(always)]
    fn serve_fault(&mut self, tid: Tid, context: &Context, address: u64, access: Access) -> bool {
        match self.fault(tid, address, access) {
            Ok(()) => true,
            Err(halt) => self.halt_access(tid, context, address, access, halt),
        }
    }

    /// What becomes of a thread whose access has not succeeded.
    #[cold]
    fn halt_access(
        &mut self,
        tid: Tid,
        context: &Context,
        address: u64,
        access: Access,
        halt: Halt,
    ) -> bool {
        let thread = self.tasks.threads.get_mut(tid);
        match (thread, halt) {
            (None, _) | (_, Halt::Dead) => false,
            (Some(thread), Halt::Wait(wait, deadline)) => {
                thread.redo = Redo::Access(address, access);
                self.wait(tid, wait, deadline);
                false
            }
            (Some(thread), Halt::Again) => {
                thread.redo = Redo::Access(address, access);
                thread.state = State::Ready;
                self.make_ready(tid);
                false
            }
            (Some(thread), Halt::Bad(cause)) => {
                // The thread has not run since its trap, though it may have waited.
                thread.fault = Fault { vector: context.vector, error: context.error, address };
                self.send_fault(tid, cause, address);
                !self.is_gone(tid)
            }
            (Some(_), halt) => unreachable!("an access does not end in {halt:?}"),
        }
    }

    fn serve_interrupt(&mut self, tid: Tid, interrupt: Interrupt) -> bool {
        match interrupt {
            Interrupt::Timer => {
                self.poll_disks();
                self.poll_input();
                self.wake_sleepers(cpu::nanos());
                self.beat_if_due(cpu::nanos());
                self.ring_alarms();
                self.show_counters();
                if self.ready.is_empty() {
                    return true;
                }
                self.tasks.threads[tid].state = State::Ready;
                self.make_ready(tid);
                false
            }
            Interrupt::Device(_) => {
                self.poll_disks();
                self.poll_input();
                true
            }
            Interrupt::Shootdown | Interrupt::Spurious => true,
        }
    }

    /// A program did what only a signal can answer (Intel SDM volume 3A, table 6-1).
    fn serve_exception(&mut self, tid: Tid, context: &Context, vector: u8) {
        const SI_KERNEL: u32 = 128;
        let (signal, code, subject) = match vector {
            0 => (nr::SIGFPE, nr::FPE_INTDIV, context.rip),
            1 => (nr::SIGTRAP, nr::TRAP_TRACE, context.rip),
            3 => (nr::SIGTRAP, SI_KERNEL, 0),
            6 => (nr::SIGILL, nr::ILL_ILLOPN, context.rip),
            11 | 12 => (nr::SIGBUS, SI_KERNEL, 0),
            16 | 19 => (nr::SIGFPE, nr::FPE_FLTINV, context.rip),
            17 => (nr::SIGBUS, nr::BUS_ADRALN, 0),
            _ => (nr::SIGSEGV, SI_KERNEL, 0),
        };
        let fault = &mut self.tasks.threads[tid].fault;
        (fault.vector, fault.error) = (vector.into(), context.error);
        self.force(tid, signal, Info { code: code.cast_signed(), subject, value: 0 });
    }

    /// Whether a thread has ended.
    fn is_gone(&self, tid: Tid) -> bool {
        self.tasks.threads.get(tid).is_none()
    }

    /// Stores what a call answers; whether the thread goes on at once.
    #[inline]
    fn answer(&mut self, tid: Tid, context: &mut Context, answer: Answer) -> bool {
        let value = match answer {
            Ok(value) => value,
            Err(Halt::Errno(errno)) => u64::from(errno.0).wrapping_neg(),
            Err(halt) => return self.halt_call(tid, halt),
        };
        context.rax = value;
        self.tasks.threads[tid].end_call();
        true
    }

    #[cold]
    fn halt_call(&mut self, tid: Tid, halt: Halt) -> bool {
        if self.is_gone(tid) {
            return false;
        }
        let is_due = self.signal_due(tid).is_some();
        let thread = &mut self.tasks.threads[tid];
        match halt {
            Halt::Wait(wait, _) if is_due && wait.is_interruptible() => {
                // Nobody would wake it for what has come already.
                (thread.redo, thread.interrupted) = (Redo::Call, true);
                true
            }
            Halt::Wait(wait, deadline) => {
                thread.redo = Redo::Call;
                self.wait(tid, wait, deadline);
                false
            }
            Halt::Again => {
                thread.redo = Redo::Call;
                thread.state = State::Ready;
                self.make_ready(tid);
                false
            }
            Halt::Interrupted => {
                (thread.redo, thread.interrupted) = (Redo::Call, true);
                true
            }
            Halt::Replaced => {
                thread.end_call();
                true
            }
            Halt::Dead => false,
            Halt::Bad(_) | Halt::Errno(_) => unreachable!("calls turn these into numbers"),
        }
    }

    /// Does what a thread must before ring 3: goes on with what had to wait, and handles signals.
    /// Whether it can run.
    fn resume(&mut self, tid: Tid, context: &mut Context) -> bool {
        self.load_space(cpu::id(), tid);
        let child_tid = core::mem::take(&mut self.tasks.threads[tid].set_tid);
        if child_tid != 0 {
            // Who gave a bad address finds it unchanged, as on Linux.
            let _ = self.copy_out_now(tid, child_tid, &tid.to_le_bytes());
        }
        self.tasks.threads[tid].interrupted &= self.signal_due(tid).is_some();
        // Ends: a call is only made again after a signal has gone that it had to make way for.
        loop {
            let redo = core::mem::replace(&mut self.tasks.threads[tid].redo, Redo::Nothing);
            let goes_on = match redo {
                Redo::Nothing => true,
                Redo::Access(address, access) => self.serve_fault(tid, context, address, access),
                Redo::Call => {
                    let answer = self.call(tid, context);
                    self.answer(tid, context, answer)
                }
            };
            if !(goes_on && self.handle_signals(tid, context)) {
                return false;
            }
            if self.tasks.threads[tid].redo == Redo::Nothing {
                return true;
            }
        }
    }

    fn handle_signals(&mut self, tid: Tid, context: &mut Context) -> bool {
        if self.is_doomed(tid) {
            return false;
        }
        match self.deliver(tid, context) {
            Ok(()) => true,
            Err(Halt::Wait(wait, deadline)) => {
                self.wait(tid, wait, deadline);
                false
            }
            Err(Halt::Again) => {
                self.tasks.threads[tid].state = State::Ready;
                self.make_ready(tid);
                false
            }
            Err(_) => false,
        }
    }

    /// Waits until a request is done, and nothing else happens meanwhile; the thread learns how it
    /// went.
    pub(crate) fn finish(&mut self, tid: Tid, request: RequestId) {
        self.waiters[request.0 as usize].push(tid);
        while self.under_way[request.0 as usize] {
            self.poll_disks();
        }
    }

    /// Copies bytes into a thread's memory, and lets nothing else happen until that is done: for what
    /// cannot be made again.
    ///
    /// # Errors
    /// `EFAULT`; [`Halt::Dead`] if the thread was killed for it.
    pub(crate) fn copy_out_now(
        &mut self,
        tid: Tid,
        address: u64,
        bytes: &[u8],
    ) -> Result<(), Halt> {
        loop {
            match self.copy_out(tid, address, bytes) {
                Err(Halt::Wait(Wait::Request(request), _)) => self.finish(tid, request),
                Err(Halt::Again) if self.is_doomed(tid) => return Err(Halt::Dead),
                Err(Halt::Again) => {}
                Err(halt @ (Halt::Errno(_) | Halt::Dead)) => return Err(halt),
                Err(_) => return Err(Errno::EFAULT.into()),
                Ok(()) => return Ok(()),
            }
        }
    }
}
