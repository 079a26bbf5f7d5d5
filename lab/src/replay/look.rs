//! A look at the machine under control: measures, decides, acts, writes down.
//!
//! ```text
//!     measure ──▶ sample ──▶ decide ──▶ suspend, resume, admit ──▶ page out ──▶ allot
//!     working sets,          again and again until
//!     fault rates            there is nothing to do
//! ```

use vellum_mm::machine::At;
use vellum_mm::objects::groups::GroupId;
use vellum_mm::reclaim::load_control::{Decision, Interval, Job, Room, Rule, State as Phase};
use vellum_trace::TraceError;

use super::control::{Sample, Scope, Sums, Tracked};
use super::source::Feeds;
use super::tasks::State;
use super::{PS, Replay};

impl Replay<'_> {
    /// Looks at the machine, and acts.
    pub(super) fn tick(&mut self, feeds: &mut Feeds<'_>, now_ps: u64) -> Result<(), TraceError> {
        let cpu = self.slowest_cpu();
        let at = At { now: now_ps / PS, cpu: cpu as u32 };
        self.measure(cpu, at);
        let sample = self.sample(at.now);
        while let Some(decision) = self.decide(at.now) {
            match decision {
                Decision::Suspend(job) => self.suspend(job, now_ps),
                Decision::Resume(job) => self.resume(job, now_ps),
                Decision::Admit(job) => self.begin_job(job, feeds, now_ps)?,
            }
        }
        self.page_out_suspended(cpu, at);
        self.allot();
        let Some(control) = &mut self.control else { return Ok(()) };
        control.pressure.advance(at.now);
        let in_phase = |phase| control.jobs.iter().filter(|job| job.phase == phase).count() as u32;
        let (active, suspended) = (in_phase(Phase::Active), in_phase(Phase::Suspended));
        let waiting = in_phase(Phase::Waiting);
        if sample.elapsed_ns > 0 {
            control.push_sample(Sample { active, suspended, waiting, ..sample });
        }
        control.next_tick_ps = now_ps + control.controls.period_ns * PS;
        Ok(())
    }

    /// Measures working sets and fault rates.
    fn measure(&mut self, cpu: usize, at: At) {
        let Some(mut control) = self.control.take() else { return };
        let mut major = vec![0; control.jobs.len()];
        for process in &self.processes {
            major[process.source] += process.major;
        }
        let mut total = vec![(0, 0); control.jobs.len()];
        for slot in &self.spaces {
            let Some(space) = &slot.space else { continue };
            let resident = space.resident(self.vm.store());
            total[slot.source].0 += resident.pages();
            total[slot.source].1 += resident.pages() + resident.swapped;
        }
        let window_ps = control.controls.window_ns * PS;
        let admission = control.controls.load.admission;
        let by_faults = control.controls.load.rule == Rule::FaultFrequency;
        for (index, job) in control.jobs.iter_mut().enumerate() {
            let (resident, all) = total[index];
            let faults = major[index] - job.looked_major;
            let cpu_ps = job.cpu_ps - job.looked_cpu_ps;
            job.faults_lately = job.faults_lately * 9 / 10 + faults;
            if cpu_ps > 0 {
                let rate = u128::from(faults) * 1_000_000_000_000 / u128::from(cpu_ps);
                job.fault_rate = job.fault_rate.midpoint(rate as u64);
            }
            (job.looked_major, job.looked_cpu_ps) = (major[index], job.cpu_ps);
            if job.phase != Phase::Active {
                continue;
            }
            if by_faults {
                // What it has, and what it lately missed.
                job.needs = all.min(resident + job.faults_lately);
                job.measured = true;
            } else if job.cpu_ps >= job.window_ps + window_ps {
                job.window_ps = job.cpu_ps;
                job.needs = self.take_used(cpu, index).min(all);
                job.measured = true;
            } else if !job.measured {
                // In its first window it has used all that it has; who was let in for what it is
                // expected to need keeps that.
                job.needs = if admission { all.max(job.expected) } else { all };
            }
        }
        debug_assert_eq!(at.cpu as usize, cpu);
        self.control = Some(control);
    }

    /// Pages that a job has used in its window, at the cost of looking at all that it has.
    fn take_used(&mut self, cpu: usize, job: usize) -> u64 {
        let (mut pages, mut scanned) = (0, 0);
        for slot in self.spaces.iter().filter(|slot| slot.source == job) {
            let Some(space) = &slot.space else { continue };
            let used = self.vm.take_used(self.sim, space);
            pages += used.pages();
            scanned += used.scanned;
        }
        self.spend_kernel(cpu, scanned * self.profile.reclaim.scan_ns * PS);
        pages
    }

    /// The next decision of load control.
    fn decide(&mut self, now: u64) -> Option<Decision> {
        let capacity = self.capacity();
        let zone = self.vm.store().frames.zone();
        let high = zone.watermarks().high as u64;
        let free = (zone.free_frames() as u64).saturating_sub(high);
        let control = self.control.as_mut()?;
        let jobs: Vec<Job> = control
            .jobs
            .iter()
            .map(|job| Job {
                state: job.phase,
                since: job.since_ns,
                needs: job.needs,
                fault_rate: job.fault_rate,
            })
            .collect();
        control.load.decide(&Room { now, capacity, free }, &jobs)
    }

    fn suspend(&mut self, job: usize, now_ps: u64) {
        if let Some(control) = &mut self.control {
            let tracked = &mut control.jobs[job];
            (tracked.phase, tracked.since_ns) = (Phase::Suspended, now_ps / PS);
            tracked.suspensions += 1;
        }
        for thread in self.sources[job].threads.clone() {
            if self.threads[thread as usize].state == State::Ready {
                self.note(thread, now_ps);
            }
        }
    }

    fn resume(&mut self, job: usize, now_ps: u64) {
        let Some(control) = &mut self.control else { return };
        let tracked = &mut control.jobs[job];
        tracked.suspended_ns += (now_ps / PS).saturating_sub(tracked.since_ns);
        (tracked.phase, tracked.since_ns) = (Phase::Active, now_ps / PS);
        // It has to load its pages: neither its window nor its faults are what they would be.
        (tracked.window_ps, tracked.faults_lately, tracked.fault_rate) = (tracked.cpu_ps, 0, 0);
        for thread in std::mem::take(&mut tracked.parked) {
            let slot = &mut self.threads[thread as usize];
            slot.ready_ps = slot.ready_ps.max(now_ps);
            self.ready.push_back(thread);
            self.note(thread, now_ps);
        }
    }

    /// Takes the frames of suspended jobs, as far as the queue of the disk lets.
    fn page_out_suspended(&mut self, cpu: usize, at: At) {
        let Some(control) = &self.control else { return };
        let suspended: Vec<bool> =
            control.jobs.iter().map(|job| job.phase == Phase::Suspended).collect();
        let mut evicted = 0;
        for slot in &self.spaces {
            let Some(space) = &slot.space else { continue };
            if suspended[slot.source] && space.resident(self.vm.store()).pages() > 0 {
                for pages in space.areas().iter().map(|area| area.pages) {
                    // Locked areas are refused, and stay.
                    evicted += self.vm.page_out(at, self.sim, space, pages).unwrap_or(0);
                }
            }
        }
        if evicted > 0 {
            self.spend_kernel(cpu, evicted * self.profile.reclaim.evict_ns * PS);
            self.pump(cpu);
        }
    }

    /// Gives every job its part of memory, where replacement is local.
    pub(super) fn allot(&mut self) {
        let capacity = self.capacity();
        let (Some(control), Some(groups)) = (&self.control, self.vm.store().groups.as_ref()) else {
            return;
        };
        let by_need = match control.controls.scope {
            Scope::Global => return,
            Scope::LocalEqual => false,
            Scope::LocalWorkingSet => true,
        };
        let active = |job: &&Tracked| job.phase == Phase::Active;
        let weight = |job: &Tracked| if by_need { job.needs.max(1) } else { 1 };
        let weights: u64 = control.jobs.iter().filter(active).map(weight).sum();
        for (index, job) in control.jobs.iter().enumerate() {
            let share = match job.phase {
                Phase::Active => capacity * weight(job) / weights.max(1),
                _ => 0,
            };
            groups.set_allotment(GroupId(index as u16 + 1), share as usize);
        }
    }

    /// Lets what a space maps belong to its job, where replacement is local.
    pub(super) fn group_space(&self, index: usize) {
        let slot = &self.spaces[index];
        if let Some(groups) = self.vm.store().groups.as_ref() {
            groups.set_space(slot.id, GroupId(slot.source as u16 + 1));
        }
    }

    /// Frames that programs can have at most.
    fn capacity(&self) -> u64 {
        let zone = self.vm.store().frames.zone();
        let high = zone.watermarks().high as u64;
        (zone.frames_total() as u64).saturating_sub(self.tables + high)
    }

    /// What happened since the last look; tells the detector.
    fn sample(&mut self, at_ns: u64) -> Sample {
        let counts = self.vm.counts();
        let swap_busy_ns = self.swap_disk.as_ref().map_or(0, |disk| disk.counts().busy_ns);
        let free = self.vm.store().frames.zone().free_frames() as u64;
        let busy_ps: u64 = self.cpus.iter().map(|cpu| cpu.busy_ps).sum();
        let cpus = self.cpus.len() as u64;
        let Some(control) = &mut self.control else { return Sample::default() };
        let now = Sums {
            at_ns,
            busy_ns: busy_ps / PS,
            kernel_ns: self.stats.kernel_ps / PS,
            references: self.stats.references,
            minor: counts.minor,
            major: counts.major,
            swap_busy_ns,
            stalled_ns: control.stalled_ns(at_ns),
        };
        let last = std::mem::replace(&mut control.looked, now);
        let interval = Interval {
            elapsed_ns: at_ns - last.at_ns,
            cpus,
            busy_ns: now.busy_ns - last.busy_ns,
            stalled_ns: now.stalled_ns - last.stalled_ns,
            refaults: now.major - last.major,
        };
        if interval.elapsed_ns > 0 && control.detector.observe(&interval) {
            if control.detector.is_thrashing() {
                let from = at_ns.saturating_sub(control.controls.sustain_ns);
                control.episodes.push((from, None));
            } else if let Some(last) = control.episodes.last_mut() {
                last.1 = Some(at_ns);
            }
        }
        Sample {
            at_ns,
            elapsed_ns: interval.elapsed_ns,
            busy_ns: interval.busy_ns,
            kernel_ns: now.kernel_ns - last.kernel_ns,
            references: now.references - last.references,
            minor: now.minor - last.minor,
            major: now.major - last.major,
            swap_busy_ns: now.swap_busy_ns - last.swap_busy_ns,
            stalled_ns: interval.stalled_ns,
            free,
            thrashing: control.detector.is_thrashing(),
            ..Sample::default()
        }
    }
}
