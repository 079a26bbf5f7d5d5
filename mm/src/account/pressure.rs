//! Pressure: how much time is lost for want of memory.
//!
//! Every task that is not asleep by its own wish is counted on a processor as one of four things, and
//! the counts say how the processor is doing:
//!
//! ```text
//!     running, waiting for a disk        doing its work, or idle
//!     stalled                            waits for memory: a page that had been evicted, a free frame
//!     reclaiming                         runs, but only to find itself a frame
//!
//!     some   at least one task is stalled or reclaims
//!     full   and nobody on this processor does anything else: the time is lost for all
//! ```
//!
//! The times of the processors are averaged with the time that each was not idle as its weight, summed
//! up in totals, and every two seconds folded into running averages over 10, 60 and 300 s, in the
//! fixed-point arithmetic of the load average. Linux: `Documentation/accounting/psi.rst`, and the long
//! comment at the head of `kernel/sched/psi.c`.
//!
//! One difference: a processor's weight is counted here in nanoseconds, not in ticks of the timer.
//!
//! Knows nothing of: what a task waits for, and how the world tells that it is memory.

use alloc::boxed::Box;

use crate::addr::Nanos;

/// What a task does on a processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    /// It runs or could run.
    Running,
    /// It waits for a disk, but not for want of memory.
    Waiting,
    /// It waits for a page that had been evicted, or for a frame to become free.
    Stalled,
    /// It runs, but only to free a frame for itself.
    Reclaiming,
}

/// Time between two updates of the averages.
pub const PERIOD_NS: Nanos = 2_000_000_000;

/// The averages are fixed-point numbers with this many bits behind the point.
const FRACTION_BITS: u32 = 11;
const ONE: u64 = 1 << FRACTION_BITS;
/// What is left of an average over 10, 60 and 300 s after a period of 2 s: e^(-2/10), ….
const LEFT: [u64; 3] = [1677, 1981, 2034];

/// How much time was lost, in one sense of it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Lost {
    /// Over about 10 s, in hundredths of a per cent.
    pub average_10: u32,
    /// Over about 60 s.
    pub average_60: u32,
    /// Over about 300 s.
    pub average_300: u32,
    /// In sum.
    pub total_ns: Nanos,
}

/// The two senses, as indices.
const SOME: usize = 0;
const FULL: usize = 1;

/// The pressure of memory on a machine, or on a group of tasks.
#[derive(Clone, Debug)]
pub struct Pressure {
    cpus: Box<[Cpu]>,
    lines: [Line; 2],
    updated: Nanos,
    next_update: Nanos,
}

/// A processor: its tasks, and its times since they were last collected.
#[derive(Clone, Copy, Default, Debug)]
struct Cpu {
    running: u32,
    waiting: u32,
    stalled: u32,
    reclaiming: u32,
    since: Nanos,
    lost: [Nanos; 2],
    busy: Nanos,
}

#[derive(Clone, Copy, Default, Debug)]
struct Line {
    total: Nanos,
    /// The part of the total that the averages know.
    averaged: Nanos,
    averages: [u64; 3],
}

impl Cpu {
    fn count(&mut self, task: Task) -> &mut u32 {
        match task {
            Task::Running => &mut self.running,
            Task::Waiting => &mut self.waiting,
            Task::Stalled => &mut self.stalled,
            Task::Reclaiming => &mut self.reclaiming,
        }
    }

    /// Books the time up to `now`. Time does not go back: who is late by a little is taken for now.
    fn book(&mut self, now: Nanos) {
        let passed = now.saturating_sub(self.since);
        self.since = self.since.max(now);
        let stalled = self.stalled + self.reclaiming > 0;
        if stalled {
            self.lost[SOME] += passed;
            if self.running == 0 {
                self.lost[FULL] += passed;
            }
        }
        if stalled || self.running + self.waiting > 0 {
            self.busy += passed;
        }
    }
}

impl Pressure {
    /// No tasks on `cpus` processors.
    pub fn new(cpus: u32, now: Nanos) -> Pressure {
        let cpu = Cpu { since: now, ..Cpu::default() };
        Pressure {
            cpus: alloc::vec![cpu; cpus as usize].into_boxed_slice(),
            lines: [Line::default(); 2],
            updated: now,
            next_update: now + PERIOD_NS,
        }
    }

    /// A task begins to do this on a processor.
    ///
    /// # Panics
    /// If there is no such processor.
    pub fn enter(&mut self, cpu: u32, task: Task, now: Nanos) {
        let cpu = &mut self.cpus[cpu as usize];
        cpu.book(now);
        *cpu.count(task) += 1;
    }

    /// A task does this no longer on a processor.
    ///
    /// # Panics
    /// If there is no such processor, or no task on it does this.
    pub fn leave(&mut self, cpu: u32, task: Task, now: Nanos) {
        let cpu = &mut self.cpus[cpu as usize];
        cpu.book(now);
        let count = cpu.count(task);
        assert!(*count > 0, "no task is {task:?}");
        *count -= 1;
    }

    /// Updates the averages if a period is over. To be called now and then; periods that were missed
    /// count as quiet, as what happened in them counts for the last.
    pub fn advance(&mut self, now: Nanos) {
        if now < self.next_update {
            return;
        }
        self.collect(now);
        let missed = (now - self.next_update) / PERIOD_NS;
        let period = (now - self.updated - missed * PERIOD_NS).max(1);
        self.next_update += (1 + missed) * PERIOD_NS;
        self.updated = now;
        for line in &mut self.lines {
            // What is more than the whole period counts for the next one.
            let lost = (line.total - line.averaged).min(period);
            line.averaged += lost;
            let share = lost * 100 / period * ONE;
            for (average, left) in line.averages.iter_mut().zip(LEFT) {
                // Ends when the average has gone, if not before.
                for _ in 0..missed {
                    if *average == 0 {
                        break;
                    }
                    *average = faded(*average, left, 0);
                }
                *average = faded(*average, left, share);
            }
        }
    }

    /// Time in which some task was stalled.
    pub fn some(&mut self, now: Nanos) -> Lost {
        self.read(SOME, now)
    }

    /// Time in which all that could have run were stalled.
    pub fn full(&mut self, now: Nanos) -> Lost {
        self.read(FULL, now)
    }

    fn read(&mut self, which: usize, now: Nanos) -> Lost {
        self.advance(now);
        self.collect(now);
        let line = &self.lines[which];
        let [average_10, average_60, average_300] =
            line.averages.map(|average| ((average * 100) >> FRACTION_BITS) as u32);
        Lost { average_10, average_60, average_300, total_ns: line.total }
    }

    /// Adds the processors' times to the totals, weighted by how long each had something to do.
    fn collect(&mut self, now: Nanos) {
        let (mut weights, mut sums) = (0u128, [0u128; 2]);
        for cpu in &mut self.cpus {
            cpu.book(now);
            weights += u128::from(cpu.busy);
            for (sum, lost) in sums.iter_mut().zip(cpu.lost) {
                *sum += u128::from(lost) * u128::from(cpu.busy);
            }
            (cpu.lost, cpu.busy) = ([0; 2], 0);
        }
        for (line, sum) in self.lines.iter_mut().zip(sums) {
            line.total += (sum / weights.max(1)) as Nanos;
        }
    }
}

/// An average after one more period, in which `sample` was measured. Rounds up while it grows, so that
/// it reaches what it is driven to.
fn faded(average: u64, left: u64, sample: u64) -> u64 {
    let round = if sample >= average { ONE - 1 } else { 0 };
    (average * left + sample * (ONE - left) + round) >> FRACTION_BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64Mcg;
    use std::vec::Vec;

    const MS: Nanos = 1_000_000;
    const SECOND: Nanos = 1000 * MS;

    #[test]
    fn some_is_one_that_waits_and_full_is_nobody_who_works() {
        let mut pressure = Pressure::new(1, 0);
        pressure.enter(0, Task::Running, 0);
        pressure.enter(0, Task::Stalled, 0);
        pressure.leave(0, Task::Running, 300 * MS);
        pressure.leave(0, Task::Stalled, 400 * MS);
        assert_eq!(pressure.some(SECOND).total_ns, 400 * MS);
        assert_eq!(pressure.full(SECOND).total_ns, 100 * MS);
    }

    #[test]
    fn who_runs_only_to_free_a_frame_does_not_count_as_work() {
        let mut pressure = Pressure::new(1, 0);
        pressure.enter(0, Task::Reclaiming, 0);
        pressure.enter(0, Task::Waiting, 0);
        assert_eq!(pressure.full(SECOND).total_ns, SECOND);
    }

    #[test]
    fn a_processor_weighs_as_much_as_it_had_to_do() {
        let mut pressure = Pressure::new(2, 0);
        // One is stalled throughout, the other works for a third of that.
        pressure.enter(0, Task::Stalled, 0);
        pressure.enter(1, Task::Running, 0);
        pressure.leave(1, Task::Running, 300 * MS);
        assert_eq!(pressure.some(900 * MS).total_ns, 900 * 900 * MS / 1200);
    }

    #[test]
    fn averages_follow_as_in_linux() {
        // Half of the time lost, for a minute: e^(-60/10) is left of the way for the first.
        let mut pressure = Pressure::new(1, 0);
        for second in 0..60 {
            pressure.enter(0, Task::Stalled, second * SECOND);
            pressure.leave(0, Task::Stalled, second * SECOND + 500 * MS);
            pressure.advance((second + 1) * SECOND);
        }
        let some = pressure.some(60 * SECOND);
        let after = |seconds: f64| 5000.0 * (1.0 - (-60.0 / seconds).exp());
        assert!((f64::from(some.average_10) - after(10.0)).abs() < 25.0, "{some:?}");
        assert!((f64::from(some.average_60) - after(60.0)).abs() < 25.0, "{some:?}");
        assert!((f64::from(some.average_300) - after(300.0)).abs() < 25.0, "{some:?}");
        assert_eq!(some.total_ns, 30 * SECOND);
        // An hour of silence, in one step.
        let later = pressure.some(3660 * SECOND);
        assert_eq!((later.average_10, later.average_60, later.average_300), (0, 0, 0));
    }

    #[test]
    fn totals_agree_with_a_count_millisecond_by_millisecond() {
        for seed in 0..20 {
            let mut rng = Pcg64Mcg::seed_from_u64(seed);
            let cpus = rng.random_range(1..4u32);
            let mut pressure = Pressure::new(cpus, 0);
            let mut tasks: Vec<(u32, Task)> = Vec::new();
            let (mut lost, mut busy) = (std::vec![[0u64; 2]; 3], [0u64; 3]);
            for ms in 0..1500 {
                for _ in 0..rng.random_range(0..3) {
                    if tasks.len() < 6 && rng.random() {
                        let all = [Task::Running, Task::Waiting, Task::Stalled, Task::Reclaiming];
                        let task = (rng.random_range(0..cpus), all[rng.random_range(0..4)]);
                        pressure.enter(task.0, task.1, ms * MS);
                        tasks.push(task);
                    } else if !tasks.is_empty() {
                        let gone = tasks.swap_remove(rng.random_range(0..tasks.len()));
                        pressure.leave(gone.0, gone.1, ms * MS);
                    }
                }
                for cpu in 0..cpus {
                    let on: Vec<Task> =
                        tasks.iter().filter(|task| task.0 == cpu).map(|task| task.1).collect();
                    let stalled = |task: &Task| matches!(task, Task::Stalled | Task::Reclaiming);
                    let some = on.iter().any(stalled);
                    let full = some && !on.contains(&Task::Running);
                    lost[cpu as usize][SOME] += u64::from(some);
                    lost[cpu as usize][FULL] += u64::from(full);
                    busy[cpu as usize] += u64::from(!on.is_empty());
                }
            }
            let end = 1500 * MS;
            let weights: u64 = busy.iter().sum();
            for (which, line) in [pressure.some(end), pressure.full(end)].into_iter().enumerate() {
                let sum: u64 = (0..3).map(|cpu| lost[cpu][which] * busy[cpu]).sum();
                let expected = sum as f64 / weights.max(1) as f64;
                let got = line.total_ns as f64 / MS as f64;
                assert!((got - expected).abs() < 0.001, "seed {seed}: {got} {expected}");
            }
        }
    }
}
