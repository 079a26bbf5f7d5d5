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
            self.process(tid).handlers.set(signal, action);
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
            // It is handled as if it had interrupted the wait.
            self.tasks.threads[tid].interrupted = true;
            return Err(Halt::Interrupted);
        }
        Err(Halt::Wait(Wait::Signal, u64::MAX))
    }

    pub(crate) fn signal_stack(&mut self, tid: Tid, new: u64, old: u64) -> Answer {
        let (stack, bytes) = self.tasks.threads[tid].signal_stack;
        let wanted = if new == 0 {
            None
        } else {
            let flags = self.half_in(tid, new.wrapping_add(8))?;
            let disabled = flags & nr::SS_DISABLE != 0;
            let place = (self.word_in(tid, new)?, self.word_in(tid, new.wrapping_add(16))?);
            Some(if disabled { (0, 0) } else { place })
        };
        if wanted.is_some_and(|(_, bytes)| bytes != 0 && bytes < nr::MINSIGSTKSZ.into()) {
            return Err(Errno::ENOMEM.into());
        }
        if old != 0 {
            let mut words = Words::default();
            words.u64(stack).u64(if bytes == 0 { nr::SS_DISABLE.into() } else { 0 }).u64(bytes);
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
                    let info = Info { code: 0, subject: sender.into(), status: 0 };
                    self.send_to_process(process, signal, info);
                }
            }
        }
        if !found {
            return Err(Errno::ESRCH.into());
        }
        self.alive(tid)
    }

    pub(crate) fn kill_thread(&mut self, tid: Tid, target: Tid, signal: u64) -> Answer {
        let signal = checked(signal)?;
        if self.tasks.threads.get(target).is_none() {
            return Err(Errno::ESRCH.into());
        }
        if signal != 0 {
            let sender = self.tasks.threads[tid].process;
            let code = nr::SI_TKILL;
            self.send_to_thread(target, signal, Info { code, subject: sender.into(), status: 0 });
        }
        self.alive(tid)
    }

    /// 0, if the caller has not killed itself.
    fn alive(&mut self, tid: Tid) -> Answer {
        if self.is_doomed(tid) { Err(Halt::Dead) } else { Ok(0) }
    }
}

fn checked(signal: u64) -> Result<u32, Errno> {
    let signal = signal as u32;
    if signal > SIGNALS { Err(Errno::EINVAL) } else { Ok(signal) }
}
