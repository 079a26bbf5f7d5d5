//! Calls about time. All clocks run from the start of the machine.

use linux_raw_sys::general as nr;

use super::{Answer, Errno, Halt};
use crate::arch::cpu;
use crate::kernel::Kernel;
use crate::tasks::{Tid, Wait};
use crate::words::Words;

const SECOND: u64 = 1_000_000_000;

impl Kernel {
    /// A `timespec`, in nanoseconds.
    ///
    /// # Errors
    /// `EINVAL` if it is none.
    pub(crate) fn time_in(&mut self, tid: Tid, at: u64) -> Result<u64, Halt> {
        let (seconds, rest) = (self.word_in(tid, at)?, self.word_in(tid, at.wrapping_add(8))?);
        if rest >= SECOND || seconds > i64::MAX as u64 {
            return Err(Errno::EINVAL.into());
        }
        Ok(seconds.saturating_mul(SECOND).saturating_add(rest))
    }

    pub(crate) fn time_out(&mut self, tid: Tid, at: u64, nanos: u64) -> Result<(), Halt> {
        let mut words = Words::default();
        words.u64(nanos / SECOND).u64(nanos % SECOND);
        self.copy_out(tid, at, words.bytes())
    }

    /// The end of a wait of so many nanoseconds that began when the call was first made.
    pub(crate) fn deadline_once(&mut self, tid: Tid, nanos: u64) -> u64 {
        let thread = &mut self.tasks.threads[tid];
        if thread.progress == 0 {
            thread.progress = cpu::nanos().saturating_add(nanos).max(1);
        }
        thread.progress
    }

    pub(crate) fn sleep(&mut self, tid: Tid, wanted: u64, rest: u64, absolute: bool) -> Answer {
        if self.tasks.threads[tid].timed_out {
            return Ok(0);
        }
        let time = self.time_in(tid, wanted)?;
        let deadline = if absolute { time } else { self.deadline_once(tid, time) };
        let now = cpu::nanos();
        if deadline <= now {
            return Ok(0);
        }
        if rest != 0 && !absolute {
            // In case a signal comes first.
            self.time_out(tid, rest, deadline - now)?;
        }
        Err(Halt::Wait(Wait::Signal, deadline))
    }

    pub(crate) fn clock(&mut self, tid: Tid, clock: u64, to: u64) -> Answer {
        match clock as u32 {
            nr::CLOCK_REALTIME..=nr::CLOCK_BOOTTIME => {
                self.time_out(tid, to, cpu::nanos())?;
                Ok(0)
            }
            _ => Err(Errno::EINVAL.into()),
        }
    }

    pub(crate) fn clock_resolution(&mut self, tid: Tid, clock: u64, to: u64) -> Answer {
        if clock as u32 > nr::CLOCK_BOOTTIME {
            return Err(Errno::EINVAL.into());
        }
        if to != 0 {
            self.time_out(tid, to, 1)?;
        }
        Ok(0)
    }

    pub(crate) fn time_of_day(&mut self, tid: Tid, to: u64) -> Answer {
        if to != 0 {
            let nanos = cpu::nanos();
            let mut words = Words::default();
            words.u64(nanos / SECOND).u64(nanos % SECOND / 1000);
            self.copy_out(tid, to, words.bytes())?;
        }
        Ok(0)
    }

    pub(crate) fn seconds(&mut self, tid: Tid, to: u64) -> Answer {
        let seconds = cpu::nanos() / SECOND;
        if to != 0 {
            self.copy_out(tid, to, &seconds.to_le_bytes())?;
        }
        Ok(seconds)
    }
}
