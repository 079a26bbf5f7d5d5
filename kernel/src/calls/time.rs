//! Calls about time. All clocks run from the start of the machine.

use linux_raw_sys::general as nr;

use super::{Answer, Errno, Halt};
use crate::arch::cpu;
use crate::kernel::Kernel;
use crate::signals::Info;
use crate::tasks::{Alarm, Tid, Wait};
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

    /// A `timeval`, in nanoseconds.
    ///
    /// # Errors
    /// `EINVAL` if it is none.
    pub(crate) fn interval_in(&mut self, tid: Tid, at: u64) -> Result<u64, Halt> {
        let (seconds, micros) = (self.word_in(tid, at)?, self.word_in(tid, at.wrapping_add(8))?);
        if micros >= 1_000_000 || seconds > i64::MAX as u64 {
            return Err(Errno::EINVAL.into());
        }
        Ok(seconds.saturating_mul(SECOND).saturating_add(micros * 1000))
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
        if self.tasks.threads[tid].interrupted {
            if rest != 0 && !absolute {
                self.time_out(tid, rest, deadline - now)?;
            }
            return Err(Halt::Interrupted);
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

    /// `setitimer`: sets the process's alarm. Timers of its own time there are none, as that is not
    /// measured.
    pub(crate) fn set_timer(&mut self, tid: Tid, kind: u64, new: u64, old: u64) -> Answer {
        if kind as u32 != nr::ITIMER_REAL {
            return Err(Errno::EINVAL.into());
        }
        let (every, left) = match new {
            0 => (0, 0),
            _ => (self.interval_in(tid, new)?, self.interval_in(tid, new.wrapping_add(16))?),
        };
        if old != 0 {
            self.timer(tid, kind, old)?;
        }
        self.start_alarm(tid, left, every);
        Ok(0)
    }

    /// `getitimer`.
    pub(crate) fn timer(&mut self, tid: Tid, kind: u64, to: u64) -> Answer {
        if kind as u32 != nr::ITIMER_REAL {
            return Err(Errno::EINVAL.into());
        }
        let every = self.process(tid).alarm.every;
        let mut words = Words::default();
        for nanos in [every, self.alarm_left(tid)] {
            words.u64(nanos / SECOND).u64(nanos % SECOND / 1000);
        }
        self.copy_out(tid, to, words.bytes())?;
        Ok(0)
    }

    /// `alarm`: sets the process's alarm, and says in how many seconds it was to go off.
    pub(crate) fn alarm(&mut self, tid: Tid, seconds: u64) -> u64 {
        let left = self.alarm_left(tid);
        self.start_alarm(tid, u64::from(seconds as u32) * SECOND, 0);
        // To the nearest second, but never to none.
        if left == 0 { 0 } else { ((left + SECOND / 2) / SECOND).max(1) }
    }

    fn alarm_left(&mut self, tid: Tid) -> u64 {
        match self.process(tid).alarm.at {
            u64::MAX => 0,
            // One that is about to go off is not none.
            at => at.saturating_sub(cpu::nanos()).max(1000),
        }
    }

    fn start_alarm(&mut self, tid: Tid, left: u64, every: u64) {
        let at = if left == 0 { u64::MAX } else { cpu::nanos().saturating_add(left) };
        let process = self.tasks.threads[tid].process;
        self.tasks.set_alarm(process, Alarm { at, every });
    }

    /// Sends their signal to all whose alarm has gone off.
    #[inline]
    pub(crate) fn ring_alarms(&mut self) {
        if !self.tasks.alarms.is_empty() {
            self.ring_alarms_until(cpu::nanos());
        }
    }

    #[cold]
    fn ring_alarms_until(&mut self, now: u64) {
        while let Some(&(at, process)) = self.tasks.alarms.first()
            && at <= now
        {
            let every = self.tasks.processes[process].alarm.every;
            // Those that were missed are not made up for.
            let missed = (now - at).checked_div(every).unwrap_or(0);
            let next = at.saturating_add((missed + 1).saturating_mul(every));
            let next = if every == 0 { u64::MAX } else { next };
            self.tasks.set_alarm(process, Alarm { at: next, every });
            let info = Info { code: nr::SI_KERNEL.cast_signed(), ..Info::default() };
            self.send_to_process(process, nr::SIGALRM, info);
        }
    }

    /// `times`: ticks of 10 ms; those that programs use are not counted.
    pub(crate) fn ticks(&mut self, tid: Tid, to: u64) -> Answer {
        if to != 0 {
            self.copy_out(tid, to, &[0; 32])?;
        }
        Ok(cpu::nanos() / 10_000_000)
    }

    pub(crate) fn seconds(&mut self, tid: Tid, to: u64) -> Answer {
        let seconds = cpu::nanos() / SECOND;
        if to != 0 {
            self.copy_out(tid, to, &seconds.to_le_bytes())?;
        }
        Ok(seconds)
    }
}
