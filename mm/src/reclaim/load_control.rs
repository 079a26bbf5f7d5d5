//! Load control: how many programs may run at once, so that those which run make progress.
//!
//! When the working sets of all active programs do not fit in memory together, each evicts what
//! another is about to use, and all wait for the disk: *thrashing*. No choice of victims helps. What
//! helps is to let fewer programs be active: a suspended one gives its frames back as a whole and waits
//! until there is room for its working set.
//!
//! ```text
//!            start                      demand over capacity, or faults without free frames
//!     waiting ───▶ active ────────────────────────────────────────────────────▶ suspended
//!                    ▲                                                              │
//!                    └────────── fits again, or its turn has come ──────────────────┘
//! ```
//!
//! Two rules say when there are too many:
//! - *Working set*: the sum of the active programs' working sets is more than memory. P. J. Denning,
//!   "The Working Set Model for Program Behavior", CACM 11(5), 1968; "Working Sets Past and Present",
//!   IEEE TSE 6(1), 1980.
//! - *Fault frequency*: a program faults more often, in its own time, than it should, and no frame is
//!   free to give it more. W. W. Chu and H. Opderbeck, "The Page Fault Frequency Replacement
//!   Algorithm", AFIPS 1972.
//!
//! Either way a program is resumed only if it will fit with something to spare, so that the same one
//! is not suspended and resumed for ever. Suspended programs queue; once the first of them has waited
//! for a residence, the one that has been active longest gives place, so that all make progress.
//! *Admission* keeps programs from starting until they fit.
//!
//! Numbers in, numbers out: the world measures, and acts on each [`Decision`].
//!
//! Knows nothing of: address spaces, threads, how a program is stopped or its pages are written.

use crate::addr::Nanos;

/// When there are too many active programs.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Rule {
    /// Never.
    #[default]
    None,
    /// When their working sets together are more than memory.
    WorkingSet,
    /// When one faults too often and no frame is free.
    FaultFrequency,
}

/// What an administrator may turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// When to suspend.
    pub rule: Rule,
    /// Whether programs start only if their working set is expected to fit.
    pub admission: bool,
    /// Part of memory, in per cent, that must be left over when a program is resumed or admitted.
    pub headroom_percent: u64,
    /// How long a program stays active at least, if another waits for its turn.
    pub residence_ns: Nanos,
    /// How long the fault frequency of a program is not judged after it has become active or another
    /// was suspended: it first loads its pages.
    pub settle_ns: Nanos,
    /// Major faults in a second of a program's own time that are too many.
    pub faults_upper: u64,
    /// And so few that there is room for one program more.
    pub faults_lower: u64,
}

impl Default for Settings {
    /// No control; 5 % headroom, turns of 2 s, 500 ms to settle, 2000 and 200 faults a second.
    fn default() -> Settings {
        Settings {
            rule: Rule::None,
            admission: false,
            headroom_percent: 5,
            residence_ns: 2_000_000_000,
            settle_ns: 500_000_000,
            faults_upper: 2000,
            faults_lower: 200,
        }
    }
}

/// Whether a program may run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It has arrived, but was not let in yet.
    Waiting,
    /// It may run.
    Active,
    /// It may not run for the time being.
    Suspended,
    /// It has not arrived, or is gone.
    Absent,
}

/// A program, as the world sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Job {
    /// Whether it may run.
    pub state: State,
    /// Since when.
    pub since: Nanos,
    /// Pages that it needs in memory: measured if it is active, from before if it is suspended,
    /// expected if it waits.
    pub needs: u64,
    /// Major faults in a second of its own time, lately.
    pub fault_rate: u64,
}

/// The machine, as the world sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Now.
    pub now: Nanos,
    /// Frames that programs can have at most.
    pub capacity: u64,
    /// Frames that are free, without those that must stay so.
    pub free: u64,
}

/// What is to be done with a program, by its place in the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Stop it and take its frames.
    Suspend(usize),
    /// Let it run again.
    Resume(usize),
    /// Let it start.
    Admit(usize),
}

/// Decides who is active.
#[derive(Clone, Debug)]
pub struct LoadControl {
    settings: Settings,
    changed: Nanos,
    rotated: Nanos,
}

impl LoadControl {
    /// One that has decided nothing yet.
    pub fn new(settings: Settings) -> LoadControl {
        LoadControl { settings, changed: 0, rotated: 0 }
    }

    /// What it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The next thing to be done. The caller does it, changes the job's state, and asks again until
    /// there is nothing.
    pub fn decide(&mut self, room: &Room, jobs: &[Job]) -> Option<Decision> {
        let active = jobs.iter().filter(|job| job.state == State::Active).count();
        let suspended = first(jobs, State::Suspended);
        let waiting = first(jobs, State::Waiting);
        if active == 0 {
            // Whatever it needs: nobody is there to take it from.
            let resume = suspended.map(Decision::Resume);
            return resume.or(waiting.map(Decision::Admit));
        }
        let one = if active > 1 { self.overload(room, jobs) } else { None };
        if let Some(victim) = one {
            self.changed = room.now;
            return Some(Decision::Suspend(victim));
        }
        if let Some(next) = suspended {
            if self.has_room(room, jobs, next) {
                self.changed = room.now;
                return Some(Decision::Resume(next));
            }
            return self.rotation(room, jobs, next, active as u64).map(Decision::Suspend);
        }
        let next = waiting?;
        let fits = demand(jobs) + jobs[next].needs <= self.comfortable(room);
        fits.then_some(Decision::Admit(next))
    }

    /// Who must be suspended, if there are too many: of those to blame the last to become active,
    /// which has invested least.
    fn overload(&self, room: &Room, jobs: &[Job]) -> Option<usize> {
        match self.settings.rule {
            Rule::WorkingSet if demand(jobs) > room.capacity => last_active(jobs, |_| true),
            Rule::None | Rule::WorkingSet => None,
            Rule::FaultFrequency => {
                let settled = |since: Nanos| room.now >= since + self.settings.settle_ns;
                if room.free > 0 || !settled(self.changed) {
                    return None;
                }
                last_active(jobs, |job| {
                    settled(job.since) && job.fault_rate > self.settings.faults_upper
                })
            }
        }
    }

    fn has_room(&self, room: &Room, jobs: &[Job], next: usize) -> bool {
        let needs = jobs[next].needs;
        match self.settings.rule {
            // Nothing is suspended but by the world's own wish.
            Rule::None => true,
            Rule::WorkingSet => demand(jobs) + needs <= self.comfortable(room),
            Rule::FaultFrequency => {
                let spare = room.capacity * self.settings.headroom_percent / 100;
                let quiet = |job: &Job| {
                    job.state != State::Active || job.fault_rate <= self.settings.faults_lower
                };
                let settled = room.now >= self.changed + self.settings.settle_ns;
                settled && room.free >= needs + spare && jobs.iter().all(quiet)
            }
        }
    }

    /// Who gives place to `next`, which has waited for its turn.
    fn rotation(&mut self, room: &Room, jobs: &[Job], next: usize, active: u64) -> Option<usize> {
        let residence_ns = self.settings.residence_ns;
        let had_turn = |job: &Job| room.now >= job.since + residence_ns;
        // One after another: while one loads its pages, the others compute.
        let spaced = room.now >= self.rotated + residence_ns / active;
        let oldest = first(jobs, State::Active)?;
        if !spaced || !had_turn(&jobs[next]) || !had_turn(&jobs[oldest]) {
            return None;
        }
        self.rotated = room.now;
        Some(oldest)
    }

    fn comfortable(&self, room: &Room) -> u64 {
        room.capacity * (100 - self.settings.headroom_percent.min(100)) / 100
    }
}

/// Pages that the active programs need together.
pub fn demand(jobs: &[Job]) -> u64 {
    jobs.iter().filter(|job| job.state == State::Active).map(|job| job.needs).sum()
}

/// The one that has been in `state` longest.
fn first(jobs: &[Job], state: State) -> Option<usize> {
    let all = jobs.iter().enumerate().filter(|(_, job)| job.state == state);
    all.min_by_key(|(index, job)| (job.since, *index)).map(|(index, _)| index)
}

/// The last of the active ones to become so, among those that `blame` names.
fn last_active(jobs: &[Job], blame: impl Fn(&Job) -> bool) -> Option<usize> {
    let all = jobs.iter().enumerate().filter(|(_, job)| job.state == State::Active && blame(job));
    all.max_by_key(|(index, job)| (job.since, *index)).map(|(index, _)| index)
}

/// What happened on a machine in a short time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Interval {
    /// How long it was.
    pub elapsed_ns: Nanos,
    /// Processors.
    pub cpus: u64,
    /// Time that they worked, in sum.
    pub busy_ns: Nanos,
    /// Time that threads waited for memory, in sum.
    pub stalled_ns: Nanos,
    /// Pages that came back from where they had been evicted to.
    pub refaults: u64,
}

/// Detects thrashing: many pages come back, and the processors idle while programs wait for them.
///
/// Many is what makes programs wait longer than they compute: the mean time between two faults is
/// less than a fault takes, which Denning calls L < S. (With L = S the paging disk is busy for about
/// half of the time and the work done is near its peak: the 50 % rule of Leroudier and Potier, 1976.)
#[derive(Clone, Debug)]
pub struct Detector {
    utilisation_max_percent: u64,
    sustain_ns: Nanos,
    is_thrashing: bool,
    /// How long the last intervals have said otherwise.
    against_ns: Nanos,
}

impl Detector {
    /// One that calls it thrashing when the processors are used less than `utilisation_max_percent`
    /// for `sustain_ns`.
    pub const fn new(utilisation_max_percent: u64, sustain_ns: Nanos) -> Detector {
        Detector { utilisation_max_percent, sustain_ns, is_thrashing: false, against_ns: 0 }
    }

    /// Whether the machine thrashes.
    pub const fn is_thrashing(&self) -> bool {
        self.is_thrashing
    }

    /// Looks at an interval more. Returns whether that changed its mind: then the state has lasted
    /// for the sustained time already.
    pub fn observe(&mut self, interval: &Interval) -> bool {
        if self.looks_like_it(interval) == self.is_thrashing {
            self.against_ns = 0;
            return false;
        }
        self.against_ns += interval.elapsed_ns;
        if self.against_ns < self.sustain_ns {
            return false;
        }
        self.against_ns = 0;
        self.is_thrashing = !self.is_thrashing;
        true
    }

    fn looks_like_it(&self, interval: &Interval) -> bool {
        let all = interval.elapsed_ns * interval.cpus;
        interval.refaults > 0
            && interval.stalled_ns > interval.busy_ns
            && interval.busy_ns * 100 < all * self.utilisation_max_percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const SECOND: Nanos = 1_000_000_000;

    fn active(since: Nanos, needs: u64) -> Job {
        Job { state: State::Active, since, needs, fault_rate: 0 }
    }

    /// Asks until there is nothing to do, and does it.
    fn settle(control: &mut LoadControl, room: &Room, jobs: &mut [Job]) -> Vec<Decision> {
        let mut all = Vec::new();
        while let Some(decision) = control.decide(room, jobs) {
            let (index, state) = match decision {
                Decision::Suspend(index) => (index, State::Suspended),
                Decision::Resume(index) | Decision::Admit(index) => (index, State::Active),
            };
            (jobs[index].state, jobs[index].since) = (state, room.now);
            all.push(decision);
            assert!(all.len() < 100, "it never ends: {all:?}");
        }
        all
    }

    fn by_working_set() -> LoadControl {
        LoadControl::new(Settings { rule: Rule::WorkingSet, ..Settings::default() })
    }

    #[test]
    fn the_last_to_come_are_suspended_until_the_rest_fits() {
        let mut control = by_working_set();
        let mut jobs: Vec<Job> = (0..5).map(|start| active(start, 30)).collect();
        let room = Room { now: SECOND, capacity: 100, free: 0 };
        let done = settle(&mut control, &room, &mut jobs);
        assert_eq!(done, [Decision::Suspend(4), Decision::Suspend(3)]);
        assert!(demand(&jobs) <= 100);
    }

    #[test]
    fn a_program_that_just_fits_is_not_resumed_so_that_it_does_not_swing() {
        let mut control = by_working_set();
        let mut jobs = [active(0, 60), active(1, 41)];
        let mut room = Room { now: SECOND, capacity: 100, free: 0 };
        assert_eq!(settle(&mut control, &room, &mut jobs), [Decision::Suspend(1)]);
        (room.now, jobs[1].needs) = (2 * SECOND, 39);
        assert_eq!(settle(&mut control, &room, &mut jobs), []);
        jobs[1].needs = 35;
        assert_eq!(settle(&mut control, &room, &mut jobs), [Decision::Resume(1)]);
    }

    #[test]
    fn every_program_has_its_turn_and_nobody_starves() {
        let mut control = by_working_set();
        let mut jobs: Vec<Job> = (0..7).map(|_| active(0, 30)).collect();
        let mut ran = [0u64; 7];
        for tick in 0..2000 {
            let room = Room { now: tick * SECOND / 20, capacity: 100, free: 0 };
            settle(&mut control, &room, &mut jobs);
            assert!(demand(&jobs) <= 100);
            assert!(demand(&jobs) >= 60, "at most one is being exchanged");
            for (ran, job) in ran.iter_mut().zip(&jobs) {
                *ran += u64::from(job.state == State::Active);
            }
        }
        let (least, most) = (ran.iter().min().unwrap(), ran.iter().max().unwrap());
        assert!(most - least < 2000 / 10, "{ran:?}");
    }

    #[test]
    fn a_program_larger_than_memory_runs_alone() {
        let mut control = by_working_set();
        let mut jobs = [active(0, 300)];
        let room = Room { now: SECOND, capacity: 100, free: 0 };
        assert_eq!(settle(&mut control, &room, &mut jobs), []);
        jobs[0].state = State::Suspended;
        assert_eq!(settle(&mut control, &room, &mut jobs), [Decision::Resume(0)]);
    }

    #[test]
    fn faults_count_only_where_no_frame_is_free_and_the_program_has_settled() {
        let settings = Settings { rule: Rule::FaultFrequency, ..Settings::default() };
        let mut control = LoadControl::new(settings);
        let mut jobs = [active(0, 30), Job { fault_rate: 9000, ..active(SECOND, 30) }];
        let mut room = Room { now: 5 * SECOND, capacity: 100, free: 1 };
        assert_eq!(control.decide(&room, &jobs), None, "a frame is free");
        (room.free, room.now) = (0, SECOND + 1);
        assert_eq!(control.decide(&room, &jobs), None, "it loads its pages");
        room.now = 5 * SECOND;
        assert_eq!(settle(&mut control, &room, &mut jobs), [Decision::Suspend(1)]);
        // There is room, but only once the others are quiet and it has shown.
        (room.free, room.now) = (40, 6 * SECOND);
        jobs[0].fault_rate = 500;
        assert_eq!(settle(&mut control, &room, &mut jobs), []);
        jobs[0].fault_rate = 0;
        assert_eq!(settle(&mut control, &room, &mut jobs), [Decision::Resume(1)]);
    }

    #[test]
    fn admission_keeps_the_order_of_arrival() {
        let settings = Settings { admission: true, ..Settings::default() };
        let mut control = LoadControl::new(settings);
        let waits = |since, needs| Job { state: State::Waiting, ..active(since, needs) };
        let mut jobs = [waits(2, 10), waits(1, 90), active(0, 50)];
        let room = Room { now: SECOND, capacity: 100, free: 50 };
        assert_eq!(settle(&mut control, &room, &mut jobs), [], "the large one is first in line");
        jobs[2].state = State::Absent;
        let done = settle(&mut control, &room, &mut jobs);
        assert_eq!(done, [Decision::Admit(1)]);
    }

    #[test]
    fn thrashing_is_much_waiting_and_little_work_for_a_while() {
        let mut detector = Detector::new(50, 300_000_000);
        let bad = Interval {
            elapsed_ns: 100_000_000,
            cpus: 2,
            busy_ns: 20_000_000,
            stalled_ns: 400_000_000,
            refaults: 1000,
        };
        let good = Interval { busy_ns: 190_000_000, stalled_ns: 10_000_000, ..bad };
        let idle = Interval { refaults: 0, ..bad };
        let seen: Vec<bool> = [bad, bad, good, bad, bad, bad, bad, idle, idle, idle]
            .iter()
            .map(|interval| {
                detector.observe(interval);
                detector.is_thrashing()
            })
            .collect();
        assert_eq!(seen, [false, false, false, false, false, true, true, true, true, false]);
    }
}
