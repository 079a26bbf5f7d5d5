//! Calls that wait for one of several descriptors, by sets of them or with a mask of signals for as long.

use alloc::vec::Vec;

use linux_raw_sys::general as nr;

use super::{Answer, Arguments, Errno, Halt};
use crate::arch::cpu;
use crate::kernel::Kernel;
use crate::signals::SignalSet;
use crate::tasks::{Tid, Wait};
use crate::words::Words;

/// Descriptors that a set can have.
const SET_MAX: u64 = 1024;
/// What makes a descriptor one to read from, to write to, or exceptional; nothing does the last.
const MEANINGS: [u32; 3] = [nr::POLLIN | nr::POLLHUP | nr::POLLERR, nr::POLLOUT | nr::POLLERR, 0];

impl Kernel {
    /// `ppoll`.
    pub(crate) fn poll_masked(&mut self, tid: Tid, a: &Arguments) -> Answer {
        let &[entries, count, timeout, mask, mask_bytes, _] = a;
        let milliseconds = if timeout == 0 {
            -1
        } else {
            let nanos = self.time_in(tid, timeout)?;
            i64::from(i32::try_from(nanos.div_ceil(1_000_000)).unwrap_or(i32::MAX))
        };
        self.with_mask(tid, mask, mask_bytes, |kernel| {
            kernel.poll(tid, entries, count, milliseconds)
        })
    }

    /// `pselect6`.
    pub(crate) fn select_masked(&mut self, tid: Tid, a: &Arguments) -> Answer {
        let timeout = if a[4] == 0 { None } else { Some(self.time_in(tid, a[4])?) };
        let (mask, mask_bytes) = match a[5] {
            0 => (0, 0),
            at => (self.word_in(tid, at)?, self.word_in(tid, at.wrapping_add(8))?),
        };
        let sets = [a[1], a[2], a[3]];
        self.with_mask(tid, mask, mask_bytes, |kernel| kernel.select_in(tid, a[0], sets, timeout))
    }

    /// `select`.
    pub(crate) fn select(&mut self, tid: Tid, a: &Arguments) -> Answer {
        let &[count, input, output, exceptional, timeout, _] = a;
        let limit = if timeout == 0 { None } else { Some(self.interval_in(tid, timeout)?) };
        let answer = self.select_in(tid, count, [input, output, exceptional], limit)?;
        if let Some(limit) = limit {
            // Unlike `pselect6` it says how much time was left.
            let left = self.deadline_once(tid, limit).saturating_sub(cpu::nanos());
            let mut words = Words::default();
            words.u64(left / 1_000_000_000).u64(left % 1_000_000_000 / 1000);
            self.copy_out(tid, timeout, words.bytes())?;
        }
        Ok(answer)
    }

    fn select_in(
        &mut self,
        tid: Tid,
        count: u64,
        places: [u64; 3],
        timeout: Option<u64>,
    ) -> Answer {
        let Ok(count) = u32::try_from(count as i32) else { return Err(Errno::EINVAL.into()) };
        let count = u64::from(count).min(SET_MAX);
        let deadline = match timeout {
            None => u64::MAX,
            Some(nanos) => self.deadline_once(tid, nanos),
        };
        let mut sets = [const { Vec::new() }; 3];
        for (set, &place) in sets.iter_mut().zip(&places) {
            for word in 0..count.div_ceil(64) {
                let at = place.wrapping_add(word * 8);
                set.push(if place == 0 { 0 } else { self.word_in(tid, at)? });
            }
        }
        let ready = self.select_ready(tid, count, &mut sets)?;
        let is_over = self.tasks.threads[tid].timed_out || deadline <= cpu::nanos();
        if ready == 0 && !is_over {
            return Err(Halt::Wait(Wait::Poll, deadline));
        }
        for (set, &place) in sets.iter().zip(&places).filter(|&(_, &place)| place != 0) {
            for (word, at) in set.iter().zip((place..).step_by(8)) {
                self.copy_out(tid, at, &word.to_le_bytes())?;
            }
        }
        Ok(ready)
    }

    /// Leaves in the sets what is ready, and counts that.
    fn select_ready(
        &mut self,
        tid: Tid,
        count: u64,
        sets: &mut [Vec<u64>; 3],
    ) -> Result<u64, Errno> {
        let mut ready = 0;
        for descriptor in 0..count {
            let (word, bit) = ((descriptor / 64) as usize, 1 << (descriptor % 64));
            if sets.iter().all(|set| set[word] & bit == 0) {
                continue;
            }
            let wanted = (nr::POLLIN | nr::POLLOUT) as u16;
            let found = u32::from(self.readiness(tid, descriptor as i32, wanted));
            if found & nr::POLLNVAL != 0 {
                return Err(Errno::EBADF);
            }
            for (set, meaning) in sets.iter_mut().zip(MEANINGS) {
                if set[word] & bit != 0 && found & meaning != 0 {
                    ready += 1;
                } else {
                    set[word] &= !bit;
                }
            }
        }
        Ok(ready)
    }

    /// Makes a call with another mask of signals. A handler that ends it returns to the old one.
    fn with_mask(
        &mut self,
        tid: Tid,
        mask: u64,
        mask_bytes: u64,
        call: impl FnOnce(&mut Kernel) -> Answer,
    ) -> Answer {
        if mask != 0 {
            if mask_bytes != 8 {
                return Err(Errno::EINVAL.into());
            }
            let mask = self.word_in(tid, mask)?;
            let thread = &mut self.tasks.threads[tid];
            thread.saved_mask.get_or_insert(thread.mask);
            thread.mask = SignalSet(mask).as_mask();
        }
        let answer = call(self);
        if let (Ok(_) | Err(Halt::Errno(_)), Some(thread)) =
            (answer, self.tasks.threads.get_mut(tid))
            && let Some(mask) = thread.saved_mask.take()
        {
            thread.mask = mask;
        }
        answer
    }
}
