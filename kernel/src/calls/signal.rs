//! Calls about signals.

use linux_raw_sys::general as nr;

use super::{Answer, Arguments, Errno, Halt};
use crate::kernel::Kernel;
use crate::signals::{Action, Info, SIGNALS, SignalSet};
use crate::tasks::{Tid, Wait};
use crate::words::Words;

impl Kernel {
    pub(crate) fn signal_action(&mut self, tid: Tid, a: &Arguments) -> Answer {
        let &[signal, new, old, set_bytes, ..] = a;
        let signal = signal as u32;
        if set_bytes != 8 || !(1..=SIGNALS).contains(&signal) {
            return Err(Errno::EINVAL.into());
        }
        let action = if new == 0 {
            None
        } else {
            let mut words = [0; 4];
            for (at, word) in words.iter_mut().enumerate() {
                *word = self.word_in(tid, new.wrapping_add(8 * at as u64))?;
            }
            let [handler, flags, restorer, mask] = words;
            Some(Action { handler, flags, restorer, mask: SignalSet(mask) })
        };
        if action.is_some() && (signal == nr::SIGKILL || signal == nr::SIGSTOP) {
            return Err(Errno::EINVAL.into());
        }
        if old != 0 {
            let Action { handler, flags, restorer, mask } = self.process(tid).handlers.get(signal);
            let mut words = Words::default();
            words.u64(handler).u64(flags).u64(restorer).u64(mask.0);
            self.copy_out(tid, old, words.bytes())?;
        }
        if let Some(action) = action {
            let process = self.process(tid);
            process.handlers.set(signal, action);
            if process.handlers.ignores(signal) {
                process.pending.forget(signal);
                for tid in process.threads.clone() {
                    self.tasks.threads[tid].pending.forget(signal);
                }
            }
        }
        Ok(0)
    }

    pub(crate) fn signal_mask(&mut self, tid: Tid, a: &Arguments) -> Answer {
        let &[how, new, old, set_bytes, ..] = a;
        if set_bytes != 8 {
            return Err(Errno::EINVAL.into());
        }
        let now = self.tasks.threads[tid].mask;
        let set = if new == 0 { None } else { Some(self.word_in(tid, new)?) };
        if old != 0 {
            self.copy_out(tid, old, &now.0.to_le_bytes())?;
        }
        if let Some(set) = set {
            let mask = match how as u32 {
                nr::SIG_BLOCK => now.0 | set,
                nr::SIG_UNBLOCK => now.0 & !set,
                nr::SIG_SETMASK => set,
                _ => return Err(Errno::EINVAL.into()),
            };
            self.tasks.threads[tid].mask = SignalSet(mask).as_mask();
        }
        Ok(0)
    }

    pub(crate) fn signals_pending(&mut self, tid: Tid, to: u64) -> Answer {
        let thread = &self.tasks.threads[tid];
        let all = thread.pending.set().0 | self.tasks.processes[thread.process].pending.set().0;
        self.copy_out(tid, to, &(all & thread.mask.0).to_le_bytes())?;
        Ok(0)
    }

    pub(crate) fn signal_suspend(&mut self, tid: Tid, set: u64) -> Answer {
        let mask = self.word_in(tid, set)?;
        let thread = &mut self.tasks.threads[tid];
        if thread.saved_mask.is_none() {
            thread.saved_mask = Some(thread.mask);
        }
        thread.mask = SignalSet(mask).as_mask();
        self.signal_wait(tid)
    }

    pub(crate) fn signal_wait(&mut self, tid: Tid) -> Answer {
        if self.signal_due(tid).is_some() {
            return Err(Halt::Interrupted);
        }
        Err(Halt::Wait(Wait::Signal, u64::MAX))
    }

    /// `rt_sigtimedwait`: takes a signal, blocked or not, without its handler.
    pub(crate) fn signal_wait_for(&mut self, tid: Tid, a: &Arguments) -> Answer {
        let &[set, info, timeout, set_bytes, ..] = a;
        if set_bytes != 8 {
            return Err(Errno::EINVAL.into());
        }
        let set = SignalSet(self.word_in(tid, set)?).as_mask();
        let deadline = if timeout == 0 {
            u64::MAX
        } else {
            let nanos = self.time_in(tid, timeout)?;
            self.deadline_once(tid, nanos)
        };
        let thread = &mut self.tasks.threads[tid];
        let process = &mut self.tasks.processes[thread.process];
        let first = thread.pending.first(set.others());
        let Some(signal) = first.or_else(|| process.pending.first(set.others())) else {
            if thread.timed_out || deadline <= crate::arch::cpu::nanos() {
                return Err(Errno::EAGAIN.into());
            }
            return Err(Halt::Wait(Wait::OneOf(set), deadline));
        };
        let pending = if first.is_some() { &mut thread.pending } else { &mut process.pending };
        if info != 0 {
            let words = pending.peek(signal).unwrap_or_default().words(signal);
            match self.copy_out(tid, info, &words) {
                // The signal is gone, whether it can be told or not.
                Err(Halt::Errno(errno)) => {
                    self.take_signal(tid, signal);
                    return Err(errno.into());
                }
                other => other?,
            }
        }
        self.take_signal(tid, signal);
        Ok(signal.into())
    }

    pub(crate) fn signal_stack(&mut self, tid: Tid, rsp: u64, new: u64, old: u64) -> Answer {
        let (stack, bytes) = self.tasks.threads[tid].signal_stack;
        let is_on_it = stack.wrapping_add(bytes).wrapping_sub(rsp) < bytes;
        let wanted = if new == 0 {
            None
        } else {
            let place = (self.word_in(tid, new)?, self.word_in(tid, new.wrapping_add(16))?);
            Some(match self.half_in(tid, new.wrapping_add(8))? {
                _ if is_on_it => return Err(Errno::EPERM.into()),
                nr::SS_DISABLE => (0, 0),
                0 | nr::SS_ONSTACK if place.1 >= nr::MINSIGSTKSZ.into() => place,
                0 | nr::SS_ONSTACK => return Err(Errno::ENOMEM.into()),
                _ => return Err(Errno::EINVAL.into()),
            })
        };
        if old != 0 {
            let flags = match bytes {
                0 => nr::SS_DISABLE,
                _ if is_on_it => nr::SS_ONSTACK,
                _ => 0,
            };
            let mut words = Words::default();
            words.u64(stack).u64(flags.into()).u64(bytes);
            self.copy_out(tid, old, words.bytes())?;
        }
        if let Some(wanted) = wanted {
            self.tasks.threads[tid].signal_stack = wanted;
        }
        Ok(0)
    }

    pub(crate) fn kill(&mut self, tid: Tid, target: i32, signal: u64) -> Answer {
        let signal = checked(signal)?;
        let sender = self.tasks.threads[tid].process;
        let group = match target {
            1.. => None,
            0 => Some(self.process(tid).group),
            -1 => return Err(Errno::EPERM.into()),
            _ => Some(target.unsigned_abs()),
        };
        let chosen: alloc::vec::Vec<Tid> = match group {
            None => alloc::vec![target.cast_unsigned()],
            Some(group) => {
                let all = self.tasks.processes.iter();
                all.filter(|(_, process)| process.group == group).map(|(tid, _)| tid).collect()
            }
        };
        let mut found = false;
        for process in chosen {
            if self.tasks.processes.get(process).is_some() {
                found = true;
                if signal != 0 {
                    let info = Info { code: 0, subject: sender.into(), value: 0 };
                    self.send_to_process(process, signal, info);
                }
            }
        }
        if !found {
            return Err(Errno::ESRCH.into());
        }
        self.alive(tid)
    }

    /// `tkill`, and `tgkill` with the process that the thread must be of.
    pub(crate) fn kill_thread(
        &mut self,
        tid: Tid,
        process: Option<Tid>,
        target: Tid,
        signal: u64,
    ) -> Answer {
        self.check_thread(process, target)?;
        let signal = checked(signal)?;
        if signal != 0 {
            let sender = self.tasks.threads[tid].process;
            let info = Info { code: nr::SI_TKILL, subject: sender.into(), value: 0 };
            self.send_to_thread(target, signal, info);
        }
        self.alive(tid)
    }

    fn check_thread(&self, process: Option<Tid>, target: Tid) -> Result<(), Errno> {
        if !is_number(target) || !process.is_none_or(is_number) {
            return Err(Errno::EINVAL);
        }
        let thread = self.tasks.threads.get(target).ok_or(Errno::ESRCH)?;
        if process.is_none_or(|process| process == thread.process) {
            Ok(())
        } else {
            Err(Errno::ESRCH)
        }
    }

    /// `rt_sigqueueinfo`, and `rt_tgsigqueueinfo` with a thread: a signal with what the sender says.
    pub(crate) fn queue_signal(
        &mut self,
        tid: Tid,
        target: Option<Tid>,
        process: u64,
        signal: u64,
        from: u64,
    ) -> Answer {
        let process = process as Tid;
        let code = self.half_in(tid, from.wrapping_add(8))?.cast_signed();
        let subject = self.word_in(tid, from.wrapping_add(16))?;
        let value = self.word_in(tid, from.wrapping_add(24))?;
        // Nobody passes a signal of his own for one of the kernel's.
        let is_forged = code >= 0 || code == nr::SI_TKILL;
        if is_forged && process != self.tasks.threads[tid].process {
            return Err(Errno::EPERM.into());
        }
        match target {
            Some(target) => self.check_thread(Some(process), target)?,
            None if self.tasks.processes.get(process).is_some() => {}
            None => return Err(Errno::ESRCH.into()),
        }
        let signal = checked(signal)?;
        let info = Info { code, subject, value };
        let fits = match target {
            _ if signal == 0 => true,
            Some(target) => self.send_to_thread(target, signal, info),
            None => self.send_to_process(process, signal, info),
        };
        if fits { self.alive(tid) } else { Err(Errno::EAGAIN.into()) }
    }

    /// 0, if the caller has not killed itself.
    fn alive(&mut self, tid: Tid) -> Answer {
        if self.is_doomed(tid) { Err(Halt::Dead) } else { Ok(0) }
    }
}

/// Whether a thread or process can have that number.
const fn is_number(tid: Tid) -> bool {
    tid.cast_signed() > 0
}

fn checked(signal: u64) -> Result<u32, Errno> {
    let signal = signal as u32;
    if signal > SIGNALS { Err(Errno::EINVAL) } else { Ok(signal) }
}
