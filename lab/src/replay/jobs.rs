//! Jobs on their way: they arrive, begin, end, and some begin again.

use vellum_trace::TraceError;
use vellum_trace::event::{Call, Event, ProcessId};

use super::schedule::Idle;
use super::source::{Feeds, Reading, Source, Stage};
use super::tasks::State;
use super::{PS, Replay};

impl Replay<'_> {
    /// Makes a job known that will arrive at `start_ns`. Its number is the place of its feed.
    pub(super) fn add_job(&mut self, start_ns: u64, repeats: bool) {
        let job = self.sources.len();
        self.sources.push(Source { repeats, ..Source::default() });
        self.arrivals.push(start_ns, job);
    }

    /// The next thing that happens at a time of its own: a job arrives, or the control looks.
    #[inline]
    pub(super) fn timer_ps(&self) -> Option<u64> {
        let arrival = self.arrivals.next_at().map(|at_ns| at_ns * PS);
        match (arrival, self.tick_ps()) {
            (Some(arrival), Some(tick)) => Some(arrival.min(tick)),
            (arrival, tick) => arrival.or(tick),
        }
    }

    /// Lets the first of them happen.
    pub(super) fn fire(&mut self, feeds: &mut Feeds<'_>) -> Result<(), TraceError> {
        let Some(at_ps) = self.timer_ps() else { return Ok(()) };
        // No processor has anything to do before.
        for cpu in &mut self.cpus {
            cpu.now_ps = cpu.now_ps.max(at_ps);
        }
        if self.arrivals.next_at().is_some_and(|at_ns| at_ns * PS <= at_ps) {
            let (_, job) = self.arrivals.pop().expect("it was seen");
            if !self.holds_back(job, at_ps) {
                self.begin_job(job, feeds, at_ps)?;
            }
            return Ok(());
        }
        self.tick(feeds, at_ps)
    }

    /// Lets the clocks go on to the next thing that will happen.
    pub(super) fn idle_on(
        &mut self,
        cpu: usize,
        feeds: &mut Feeds<'_>,
    ) -> Result<Idle, TraceError> {
        let disk_ps = self.completions.next_at().map(|at_ns| at_ns * PS);
        let timer_ps = self.timer_ps();
        let next_ps = disk_ps.into_iter().chain(timer_ps).min();
        if next_ps.is_some_and(|next_ps| next_ps >= self.until_ps) {
            return Ok(Idle::Over);
        }
        if timer_ps.is_some() && timer_ps == next_ps && disk_ps != next_ps {
            self.fire(feeds)?;
            return Ok(Idle::Went);
        }
        Ok(if self.idle(cpu) { Idle::Went } else { Idle::Nothing })
    }

    /// A job begins: its first process can run.
    pub(super) fn begin_job(
        &mut self,
        job: usize,
        feeds: &mut Feeds<'_>,
        now_ps: u64,
    ) -> Result<(), TraceError> {
        let slot = &mut self.sources[job];
        slot.stage = Stage::Begun;
        slot.begun_ps = now_ps;
        self.became_active(job, now_ps);
        if !self.adopt(job, feeds, now_ps)? {
            self.end_job(job, feeds, now_ps)?;
        }
        Ok(())
    }

    /// Reads on until a thread of `job` can run that nobody made: the first of the trace. False at its
    /// end.
    fn adopt(
        &mut self,
        job: usize,
        feeds: &mut Feeds<'_>,
        now_ps: u64,
    ) -> Result<bool, TraceError> {
        let before = self.ready.len();
        while let Some((number, event)) = self.next_event(job, feeds)? {
            let thread = event.thread();
            if let Event::Call(call) = &event
                && let Call::Start { .. } = **call
            {
                self.begin_thread(thread, now_ps);
            }
            self.enqueue(thread, number, event);
            if self.ready.len() > before {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// As [`adopt`](Self::adopt), for the first job that has begun and is not over.
    pub(super) fn adopt_any(&mut self, feeds: &mut Feeds<'_>) -> Result<bool, TraceError> {
        for job in 0..self.sources.len() {
            let slot = &self.sources[job];
            if slot.stage == Stage::Begun && self.adopt(job, feeds, self.cpus[0].now_ps)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Looks after jobs that may have nobody left who can run. A single replay ends by itself.
    pub(super) fn renew_jobs(&mut self, feeds: &mut Feeds<'_>) -> Result<(), TraceError> {
        if self.control.is_none() {
            self.doubtful.clear();
            return Ok(());
        }
        while let Some(job) = self.doubtful.pop() {
            let slot = &self.sources[job];
            let lives = |state| matches!(state, State::Ready | State::Waiting(_));
            let goes_on = slot.threads.iter().any(|&id| lives(self.threads[id as usize].state));
            if slot.stage != Stage::Begun || goes_on {
                continue;
            }
            let now_ps = self.latest_ps;
            if self.adopt(job, feeds, now_ps)? {
                continue;
            }
            self.end_job(job, feeds, now_ps)?;
        }
        Ok(())
    }

    /// A job has come to the end of its trace. Begins it again if it is to be.
    fn end_job(
        &mut self,
        job: usize,
        feeds: &mut Feeds<'_>,
        now_ps: u64,
    ) -> Result<(), TraceError> {
        let cpu = self.slowest_cpu();
        for id in 0..self.processes.len() as ProcessId {
            let process = &self.processes[id as usize];
            if process.source == job && process.is_alive() {
                self.end_process(cpu, id, "not seen".to_owned());
            }
        }
        self.pump(cpu);
        let slot = &mut self.sources[job];
        slot.runs += u64::from(!slot.killed);
        // A run without time would be repeated for ever at the same moment.
        let repeats = slot.repeats && !slot.killed && now_ps > slot.begun_ps;
        slot.stage = if repeats { Stage::ToCome } else { Stage::Over };
        if repeats {
            feeds[job].rewind()?;
            slot.events_before += slot.read.events;
            slot.read = Reading::default();
            slot.names.forget_processes();
            slot.threads.clear();
            let now_ns = (now_ps / PS).max(self.arrivals.now());
            self.arrivals.push(now_ns, job);
        }
        self.became_absent(job, now_ps);
        Ok(())
    }
}
