//! Futexes: waiting for a word of memory to change.

use linux_raw_sys::general as nr;
use vellum_mm::addr::{PAGE_BYTES, VirtAddr};
use vellum_mm::spaces::layout::USER_END;
use vellum_mm::spaces::vma::{Backing, Sharing};

use super::{Answer, Arguments, Errno, Halt};
use crate::kernel::Kernel;
use crate::tasks::{FutexKey, State, Tid, Wait};

impl Kernel {
    pub(crate) fn futex(&mut self, tid: Tid, a: &Arguments) -> Answer {
        let &[address, operation, value, timeout, second, third] = a;
        let command = operation as u32 & nr::FUTEX_CMD_MASK.cast_unsigned();
        let is_private = operation as u32 & nr::FUTEX_PRIVATE_FLAG != 0;
        let bits = match command {
            nr::FUTEX_WAIT_BITSET | nr::FUTEX_WAKE_BITSET => third as u32,
            _ => nr::FUTEX_BITSET_MATCH_ANY,
        };
        if !address.is_multiple_of(4) || bits == 0 {
            return Err(Errno::EINVAL.into());
        }
        match command {
            nr::FUTEX_WAIT | nr::FUTEX_WAIT_BITSET => {
                let is_absolute = command == nr::FUTEX_WAIT_BITSET;
                let deadline = self.futex_deadline(tid, timeout, is_absolute)?;
                let key = self.futex_key(tid, address, is_private)?;
                self.futex_wait(tid, address, value as u32, Wait::Futex(key, bits), deadline)
            }
            nr::FUTEX_WAKE | nr::FUTEX_WAKE_BITSET => {
                let key = self.futex_key(tid, address, is_private)?;
                // Who asks for none gets one.
                Ok(self.futex_wake(key, (value as i32).max(1).cast_unsigned(), bits))
            }
            nr::FUTEX_REQUEUE | nr::FUTEX_CMP_REQUEUE => {
                let counts = (u32::try_from(value as i32), u32::try_from(timeout as i32));
                let (Ok(wake), Ok(move_)) = counts else { return Err(Errno::EINVAL.into()) };
                let from = self.futex_key(tid, address, is_private)?;
                let to = self.futex_key(tid, second, is_private)?;
                if command == nr::FUTEX_CMP_REQUEUE && self.half_in(tid, address)? != third as u32 {
                    return Err(Errno::EAGAIN.into());
                }
                Ok(self.futex_requeue(from, wake, to, move_))
            }
            _ => Err(Errno::ENOSYS.into()),
        }
    }

    /// What a futex is known by. Who says that it is private spares the search for a mapping; without
    /// that, a word of a shared mapping is the same for all who map it.
    fn futex_key(&mut self, tid: Tid, address: u64, is_private: bool) -> Result<FutexKey, Halt> {
        if address >= USER_END.0 {
            return Err(Errno::EFAULT.into());
        }
        if is_private {
            return Ok(FutexKey::Private(self.space(tid).id().0, address));
        }
        self.half_in(tid, address)?;
        Ok(self.futex_key_of_word(tid, address))
    }

    /// The same of a word that is there.
    fn futex_key_of_word(&self, tid: Tid, address: u64) -> FutexKey {
        let space = self.space(tid);
        let page = VirtAddr(address).page();
        let area = space.areas().find(page).filter(|area| area.sharing == Sharing::Shared);
        match area.map(|area| (area.backing, area.pages.start)) {
            Some((Backing::File { file, offset }, start)) => {
                let index = offset.wrapping_add(page.0 - start.0);
                let byte = index.wrapping_mul(PAGE_BYTES).wrapping_add(address % PAGE_BYTES);
                FutexKey::Shared(file.0, byte)
            }
            _ => FutexKey::Private(space.id().0, address),
        }
    }

    fn futex_deadline(&mut self, tid: Tid, timeout: u64, is_absolute: bool) -> Result<u64, Halt> {
        if timeout == 0 {
            return Ok(u64::MAX);
        }
        let time = self.time_in(tid, timeout)?;
        Ok(if is_absolute { time } else { self.deadline_once(tid, time) })
    }

    fn futex_wait(
        &mut self,
        tid: Tid,
        address: u64,
        value: u32,
        wait: Wait,
        deadline: u64,
    ) -> Answer {
        let thread = &mut self.tasks.threads[tid];
        if core::mem::take(&mut thread.woken) {
            return Ok(0);
        }
        if thread.timed_out {
            return Err(Errno::ETIMEDOUT.into());
        }
        if thread.interrupted {
            return Err(Halt::Interrupted);
        }
        if self.half_in(tid, address)? != value {
            return Err(Errno::EAGAIN.into());
        }
        Err(Halt::Wait(wait, deadline))
    }

    /// Wakes up to `count` threads that wait for one of `bits`, those that wait longest first as far as
    /// their numbers tell.
    fn futex_wake(&mut self, key: FutexKey, count: u32, bits: u32) -> u64 {
        let waits = |state| {
            matches!(state, State::Waiting(Wait::Futex(at, wanted))
                if at == key && wanted & bits != 0)
        };
        let threads = self.tasks.threads.iter().filter(|(_, thread)| waits(thread.state));
        let woken: alloc::vec::Vec<Tid> =
            threads.map(|(tid, _)| tid).take(count as usize).collect();
        for &tid in &woken {
            self.tasks.threads[tid].woken = true;
            self.wake(tid);
        }
        woken.len() as u64
    }

    fn futex_requeue(&mut self, from: FutexKey, wake: u32, to: FutexKey, move_: u32) -> u64 {
        // A wake of nobody would wake one.
        let woken = if wake == 0 { 0 } else { self.futex_wake(from, wake, u32::MAX) };
        let mut moved = 0;
        for (_, thread) in self.tasks.threads.iter_mut() {
            if moved == move_ {
                break;
            }
            if let State::Waiting(Wait::Futex(key, bits)) = thread.state
                && key == from
            {
                thread.state = State::Waiting(Wait::Futex(to, bits));
                moved += 1;
            }
        }
        woken + u64::from(moved)
    }

    /// Wakes one who waits at a word of a thread's memory that is there.
    pub(crate) fn wake_joiner(&mut self, tid: Tid, address: u64) {
        let key = self.futex_key_of_word(tid, address);
        self.futex_wake(key, 1, nr::FUTEX_BITSET_MATCH_ANY);
    }
}
