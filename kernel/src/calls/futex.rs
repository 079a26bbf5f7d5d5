//! Futexes: waiting for a word of memory to change.

use linux_raw_sys::general as nr;
use vellum_mm::addr::{PAGE_BYTES, VirtAddr};
use vellum_mm::spaces::vma::{Backing, Sharing};

use super::{Answer, Arguments, Errno, Halt};
use crate::kernel::Kernel;
use crate::tasks::{FutexKey, State, Tid, Wait};

impl Kernel {
    pub(crate) fn futex(&mut self, tid: Tid, a: &Arguments) -> Answer {
        let &[address, operation, value, timeout, second, bits] = a;
        if !address.is_multiple_of(4) {
            return Err(Errno::EINVAL.into());
        }
        let operation = operation as u32;
        let key = self.futex_key(tid, address);
        let absolute = operation & nr::FUTEX_CMD_MASK.cast_unsigned() == nr::FUTEX_WAIT_BITSET;
        match operation & nr::FUTEX_CMD_MASK.cast_unsigned() {
            nr::FUTEX_WAIT | nr::FUTEX_WAIT_BITSET => {
                self.futex_wait(tid, address, key, value as u32, timeout, absolute)
            }
            nr::FUTEX_WAKE | nr::FUTEX_WAKE_BITSET => Ok(self.futex_wake(key, value as u32)),
            nr::FUTEX_REQUEUE => Ok(self.futex_requeue(tid, key, value, timeout, second)),
            nr::FUTEX_CMP_REQUEUE => {
                if self.half_in(tid, address)? != bits as u32 {
                    return Err(Errno::EAGAIN.into());
                }
                Ok(self.futex_requeue(tid, key, value, timeout, second))
            }
            _ => Err(Errno::ENOSYS.into()),
        }
    }

    /// A word of a shared mapping is the same for all who map it.
    fn futex_key(&mut self, tid: Tid, address: u64) -> FutexKey {
        let space = self.space(tid);
        let page = VirtAddr(address).page();
        let area = space.areas().find(page).filter(|area| area.sharing == Sharing::Shared);
        match area.map(|area| (area.backing, area.pages.start)) {
            Some((Backing::File { file, offset }, start)) => {
                let index = offset + (page.0 - start.0);
                FutexKey::Shared(file.0, index * PAGE_BYTES + address % PAGE_BYTES)
            }
            _ => FutexKey::Private(space.id().0, address),
        }
    }

    fn futex_wait(
        &mut self,
        tid: Tid,
        address: u64,
        key: FutexKey,
        value: u32,
        timeout: u64,
        absolute: bool,
    ) -> Answer {
        if core::mem::take(&mut self.tasks.threads[tid].woken) {
            return Ok(0);
        }
        if self.tasks.threads[tid].timed_out {
            return Err(Errno::ETIMEDOUT.into());
        }
        if self.half_in(tid, address)? != value {
            return Err(Errno::EAGAIN.into());
        }
        let deadline = if timeout == 0 {
            u64::MAX
        } else {
            let time = self.time_in(tid, timeout)?;
            if absolute { time } else { self.deadline_once(tid, time) }
        };
        Err(Halt::Wait(Wait::Futex(key), deadline))
    }

    /// Wakes up to `count` threads, those that wait longest first as far as their numbers tell.
    pub(crate) fn futex_wake(&mut self, key: FutexKey, count: u32) -> u64 {
        let waits = |state| state == State::Waiting(Wait::Futex(key));
        let threads = self.tasks.threads.iter().filter(|(_, thread)| waits(thread.state));
        let woken: alloc::vec::Vec<Tid> =
            threads.map(|(tid, _)| tid).take(count as usize).collect();
        for &tid in &woken {
            self.tasks.threads[tid].woken = true;
            self.wake(tid);
        }
        woken.len() as u64
    }

    fn futex_requeue(&mut self, tid: Tid, key: FutexKey, wake: u64, move_: u64, to: u64) -> u64 {
        let woken = self.futex_wake(key, wake as u32);
        let target = self.futex_key(tid, to);
        let waits = |state| state == State::Waiting(Wait::Futex(key));
        let threads = self.tasks.threads.iter_mut().filter(|(_, thread)| waits(thread.state));
        let mut moved = 0;
        for (_, thread) in threads.take(move_ as usize) {
            thread.state = State::Waiting(Wait::Futex(target));
            moved += 1;
        }
        woken + moved
    }

    /// Wakes who waits at a private word of a thread's memory, as who joins it does.
    pub(crate) fn wake_joiner(&mut self, tid: Tid, address: u64) {
        let key = self.futex_key(tid, address);
        self.futex_wake(key, 1);
    }
}
