//! References to memory: translated, faulted in, waited for.

use vellum_machine::disk::{Direction as DiskDirection, Request as DiskRequest};
use vellum_machine::sim::Translation;
use vellum_mm::account::oom::{self, Candidate};
use vellum_mm::addr::{FileRef, Frame, PAGE_BYTES, Page};
use vellum_mm::event::Target;
use vellum_mm::fault::{Attempt, Cause, Outcome, Resolved};
use vellum_mm::machine::{Access as Wanted, SpaceId};
use vellum_mm::objects::file::Warmth;
use vellum_mm::objects::io::{Direction, RequestId};
use vellum_mm::reclaim::{Background, Room};
use vellum_mm::vm::FileOutcome;
use vellum_trace::event::{Access, Kind, ProcessId, ThreadId};

use super::tasks::{State, Work};
use super::{PS, Replay};
use crate::report::OomKill;

/// How often dirty files are looked at (`vm.dirty_writeback_centisecs`): 5 s.
pub(super) const FLUSH_PERIOD_PS: u64 = 5_000_000_000 * PS;
/// How often policies that want it look at all accessed bits: 20 ms, a clock interrupt of old.
pub(super) const BEAT_PERIOD_PS: u64 = 20_000_000 * PS;
/// How long a file may stay dirty (`vm.dirty_expire_centisecs`): 30 s.
const DIRTY_EXPIRE_PS: u64 = 30_000_000_000 * PS;

/// Whether a thread can go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Done,
    Blocked,
}

/// Waits of one access after which its page is taken to be evicted again before it can be used, for
/// ever: memory is out, although reclaim always finds something.
const WAITS_MAX: u32 = 1000;

/// Why background reclaim need not be asked again for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Pause {
    /// It may run.
    #[default]
    No,
    /// Until a request ends: frames are being written, or nothing could be evicted.
    UntilCompletion,
}

const fn wanted(kind: Kind) -> Wanted {
    match kind {
        Kind::Load => Wanted::Read,
        Kind::Store => Wanted::Write,
        Kind::Fetch => Wanted::Execute,
    }
}

impl Replay<'_> {
    /// One recorded access, and the time of those before it that were not recorded.
    #[inline]
    pub(super) fn access(&mut self, cpu: usize, thread: ThreadId, access: &Access) -> Step {
        let instructions = u64::from(access.instructions);
        let work_ps = instructions * self.profile.cpu.instruction_ps.get();
        self.stats.references += u64::from(access.count);
        if self.watched
            && let Some(tape) = &mut self.tape
        {
            tape.repeat(access.count - 1);
        }
        let process = self.threads[thread as usize].process as usize;
        let Some(space) = self.processes[process].space else { return Step::Done };
        let (id, root) = (self.spaces[space].id, self.spaces[space].root);
        let page = Page(access.page);
        let translation = self.sim.access(cpu as u32, id, root, page, wanted(access.kind));
        let clock = &mut self.cpus[cpu];
        let ps = work_ps + self.profile.translation_ps(translation);
        clock.now_ps += ps;
        clock.busy_ps += ps;
        let Some(frame) = translation.frame() else {
            self.threads[thread as usize].refused = true;
            return self.begin_work(cpu, thread, Work::Access(access.page, access.kind));
        };
        if self.watched {
            self.watch(thread, Some((id, page)), frame, access.kind == Kind::Store, false);
        }
        Step::Done
    }

    /// Tells of a use of a frame whoever wants to know of each. The policy has counted it already if
    /// this use `loaded` the page.
    #[inline(never)]
    fn watch(
        &mut self,
        thread: ThreadId,
        place: Option<(SpaceId, Page)>,
        frame: Frame,
        write: bool,
        loaded: bool,
    ) {
        if let Some(tape) = &mut self.tape {
            let process = self.threads[thread as usize].process;
            tape.reference(self.vm, self.sim, process, place, frame, write);
        }
        if !loaded {
            self.vm.touch(frame);
        }
    }

    /// Starts work that may have to wait.
    pub(super) fn begin_work(&mut self, cpu: usize, thread: ThreadId, work: Work) -> Step {
        let slot = &mut self.threads[thread as usize];
        slot.work = work;
        (slot.own, slot.waits) = (false, 0);
        if self.finish_work(cpu, thread) { Step::Done } else { Step::Blocked }
    }

    /// Goes on with a thread's work; false if it must wait (or has died).
    pub(super) fn finish_work(&mut self, cpu: usize, thread: ThreadId) -> bool {
        loop {
            let work = std::mem::take(&mut self.threads[thread as usize].work);
            let (step, rest) = self.do_some(cpu, thread, work);
            if self.threads[thread as usize].state != State::Ready {
                // It waits, with what it was doing to be done again; or it is dead.
                if self.threads[thread as usize].state != State::Dead {
                    self.threads[thread as usize].work = rest;
                }
                return false;
            }
            if step == Step::Blocked {
                // Not blocked after all: what it waited for is done already.
                self.threads[thread as usize].work = rest;
                continue;
            }
            let slot = &mut self.threads[thread as usize];
            (slot.own, slot.waits) = (false, 0);
            if matches!(rest, Work::None) {
                return true;
            }
            slot.work = rest;
        }
    }

    /// Does one page of `work`; gives what is left of it.
    fn do_some(&mut self, cpu: usize, thread: ThreadId, work: Work) -> (Step, Work) {
        match work {
            Work::None => (Step::Done, Work::None),
            Work::Access(page, kind) => {
                let step = self.touch_page(cpu, thread, Page(page), wanted(kind));
                (step, if step == Step::Done { Work::None } else { Work::Access(page, kind) })
            }
            Work::Touch { next, end, write } => {
                if next >= end {
                    return (Step::Done, Work::None);
                }
                let wanted = if write { Wanted::Write } else { Wanted::Read };
                let step = self.touch_page(cpu, thread, Page(next), wanted);
                let next = if step == Step::Done { next + 1 } else { next };
                (step, Work::Touch { next, end, write })
            }
            Work::TouchEach(mut pages) => {
                let Some(&page) = pages.last() else { return (Step::Done, Work::None) };
                let step = self.touch_page(cpu, thread, Page(page), Wanted::Write);
                if step == Step::Done {
                    pages.pop();
                }
                (step, Work::TouchEach(pages))
            }
            Work::Read { file, next, end } => {
                if next >= end {
                    return (Step::Done, Work::None);
                }
                let outcome = self.vm.read_page(self.at(cpu), self.sim, file, next);
                self.watch_file(thread, outcome, false);
                let step = self.file_step(cpu, thread, outcome);
                let next = if step == Step::Done { next + 1 } else { next };
                (step, Work::Read { file, next, end })
            }
            Work::Write { file, next, end } => {
                if next >= end {
                    return (Step::Done, Work::None);
                }
                let (index, from) = (next / PAGE_BYTES, next % PAGE_BYTES);
                let to = PAGE_BYTES.min(from + (end - next));
                let at = self.at(cpu);
                let outcome = self.vm.write_page(at, self.sim, file, index, from, to);
                self.watch_file(thread, outcome, true);
                let step = self.file_step(cpu, thread, outcome);
                let next = if step == Step::Done { next + (to - from) } else { next };
                (step, Work::Write { file, next, end })
            }
            Work::Flush(request) => {
                if self.is_under_way(request) {
                    let step = self.wait_for(thread, cpu, request, false);
                    self.note_sync(thread, self.cpus[cpu].now_ps);
                    (step, Work::None)
                } else {
                    (Step::Done, Work::None)
                }
            }
        }
    }

    /// A page of the page cache that a call used counts as a reference.
    fn watch_file(&mut self, thread: ThreadId, outcome: FileOutcome, write: bool) {
        if let (true, FileOutcome::Done(Some(frame))) = (self.watched, outcome) {
            self.watch(thread, None, frame, write, false);
        }
    }

    fn file_step(&mut self, cpu: usize, thread: ThreadId, outcome: FileOutcome) -> Step {
        self.pump(cpu);
        self.reclaim_in_background(cpu);
        self.note_peaks();
        match outcome {
            FileOutcome::Wait(request) => self.wait_for(thread, cpu, request, false),
            FileOutcome::Failed(Cause::OutOfMemory) => self.out_of_memory(cpu),
            // The simulated disks do not fail; a write beyond what a file can hold is passed over.
            FileOutcome::Done(_) | FileOutcome::Failed(_) => Step::Done,
        }
    }

    /// Accesses a page through the MMU until it succeeds, waits, or is refused.
    fn touch_page(&mut self, cpu: usize, thread: ThreadId, page: Page, wanted: Wanted) -> Step {
        let process = self.threads[thread as usize].process;
        let Some(space) = self.processes[process as usize].space else { return Step::Done };
        let mut loaded = false;
        // Ends: a fault that is done makes the next access succeed, unless an eviction comes between.
        loop {
            if !std::mem::take(&mut self.threads[thread as usize].refused) {
                let (id, root) = (self.spaces[space].id, self.spaces[space].root);
                let translation = self.sim.access(cpu as u32, id, root, page, wanted);
                if let Some(frame) = translation.frame() {
                    if self.watched {
                        let write = wanted == Wanted::Write;
                        self.watch(thread, Some((id, page)), frame, write, loaded);
                    }
                    return Step::Done;
                }
                debug_assert_eq!(translation, Translation::Fault);
            }
            let slot = &self.threads[thread as usize];
            let attempt =
                if slot.waits > 0 { Attempt::Again { own: slot.own } } else { Attempt::First };
            let at = self.at(cpu);
            let outcome = match &mut self.spaces[space].space {
                Some(space) => self.vm.fault(at, self.sim, space, page.address(), wanted, attempt),
                None => return Step::Done,
            };
            self.pump(cpu);
            self.count_tables(space);
            match outcome {
                Outcome::Done(resolved) => {
                    loaded = matches!(resolved, Resolved::ZeroFill | Resolved::Copied);
                    self.account(cpu, process, attempt, resolved);
                    self.reclaim_in_background(cpu);
                    self.note_peaks();
                }
                Outcome::Wait { request, own } => {
                    return self.wait_for(thread, cpu, request, own);
                }
                Outcome::Kill(Cause::OutOfMemory) => {
                    return self.out_of_memory(cpu);
                }
                Outcome::Kill(_) => {
                    // The program did this and lived: the recording missed a mapping.
                    self.stats.violations += 1;
                    return Step::Done;
                }
            }
        }
    }

    /// Counts a fault for its process, and lets it cost time.
    fn account(&mut self, cpu: usize, process: ProcessId, attempt: Attempt, resolved: Resolved) {
        let process = &mut self.processes[process as usize];
        let major = attempt == Attempt::Again { own: true };
        if major {
            process.major += 1;
        } else {
            process.minor += 1;
        }
        let costs = &self.profile.fault;
        let ns = match resolved {
            Resolved::Spurious => costs.spurious_ns,
            Resolved::ZeroPage => costs.zero_page_ns,
            Resolved::ZeroFill => costs.zero_fill_ns,
            Resolved::File { around } => {
                let first = if major { costs.file_fill_ns } else { costs.file_map_ns };
                first + u64::from(around) * costs.file_around_ns
            }
            Resolved::SwapIn => costs.swap_in_ns,
            Resolved::Copied => costs.copy_ns,
            Resolved::Reused => costs.reuse_ns,
            Resolved::MadeDirty => costs.make_dirty_ns,
        };
        self.spend_kernel(cpu, ns * PS);
    }

    /// Time in the kernel.
    pub(super) fn spend_kernel(&mut self, cpu: usize, ps: u64) {
        let clock = &mut self.cpus[cpu];
        clock.now_ps += ps;
        clock.busy_ps += ps;
        self.stats.kernel_ps += ps;
    }

    /// Hands the requests that the core has made to their disks.
    pub(super) fn pump(&mut self, cpu: usize) {
        while let Some(request) = self.vm.next_request() {
            let direction = match request.direction {
                Direction::Read => DiskDirection::Read,
                Direction::Write => DiskDirection::Write,
            };
            // Files lie one after another, a gibibyte apart: only a rotating disk cares.
            let (disk, position) = match request.target {
                Target::Swap(slot) => {
                    if request.direction == Direction::Write {
                        let used = u64::from(self.vm.store().swap.used());
                        self.stats.peak_swap = self.stats.peak_swap.max(used);
                    }
                    let disk = self.swap_disk.as_mut().expect("swap requests need swap");
                    (disk, u64::from(slot.0) * PAGE_BYTES)
                }
                Target::File(file, index) => {
                    (&mut self.file_disk, (u64::from(file.0) << 30) + index * PAGE_BYTES)
                }
            };
            let now_ns = self.cpus[cpu].now_ps / PS;
            let bytes = request.bytes();
            let service = disk.submit(now_ns, DiskRequest { direction, position, bytes });
            self.spend_kernel(cpu, service.cpu_ns * PS);
            if let Some(control) = &mut self.control {
                let warm = self.warmth == Warmth::Warm;
                control.submitted(&request, service, now_ns, warm);
            }
            let slot = request.id.0 as usize;
            if self.waiters.len() <= slot {
                self.waiters.resize_with(slot + 1, Vec::new);
            }
            self.set_under_way(request.id, true);
            if service.cpu_ns > 0 {
                // A disk in memory is done when the processor is.
                let now_ps = self.cpus[cpu].now_ps;
                self.complete(cpu, now_ps, request.id);
            } else {
                // Within a time slice another processor may be ahead, and have been told already of
                // what ends later than this: the request then ends with that.
                let done = service.done.max(self.completions.now());
                self.completions.push(done, request.id);
            }
        }
    }

    /// Puts `thread` to sleep until `request` ends; goes on at once if it has.
    fn wait_for(&mut self, thread: ThreadId, cpu: usize, request: RequestId, own: bool) -> Step {
        let slot = &mut self.threads[thread as usize];
        slot.own |= own;
        slot.waits += 1;
        if slot.waits > WAITS_MAX {
            slot.waits = 1;
            return self.out_of_memory(cpu);
        }
        if self.is_under_way(request) {
            self.waiters[request.0 as usize].push(thread);
            let now_ps = self.cpus[cpu].now_ps;
            self.threads[thread as usize].state = State::Waiting(now_ps);
            self.note_wait(thread, now_ps, request);
        }
        Step::Blocked
    }

    /// Runs background reclaim if the core wants it.
    pub(super) fn reclaim_in_background(&mut self, cpu: usize) {
        if !self.vm.wants_background() || self.pause != Pause::No {
            return;
        }
        let before = self.vm.counts();
        let end = self.vm.background(self.at(cpu), self.sim);
        let after = self.vm.counts();
        let costs = &self.profile.reclaim;
        let scanned = after.scanned - before.scanned;
        let evicted = after.evicted - before.evicted;
        self.spend_kernel(cpu, (scanned * costs.scan_ns + evicted * costs.evict_ns) * PS);
        if end != Background::Enough {
            self.pause = Pause::UntilCompletion;
        }
        self.pump(cpu);
        if end == Background::Exhausted && self.completions.is_empty() {
            // Nothing will complete: ask again at the next fault, since memory may have been freed.
            self.pause = Pause::No;
        }
    }

    /// Frees frames for a call that found none, waiting for writes if it must; false if there are none.
    pub(super) fn make_room(&mut self, cpu: usize) -> bool {
        let room = self.vm.make_room(self.at(cpu), self.sim);
        self.pump(cpu);
        match room {
            Room::Made => true,
            // The call holds its processor: nothing in it can be done in parts.
            Room::After(request) => {
                while self.is_under_way(request) && self.idle(cpu) {}
                !self.is_under_way(request)
            }
            Room::None => false,
        }
    }

    /// Kills the largest process. The faulting access is tried again if its process lives.
    fn out_of_memory(&mut self, cpu: usize) -> Step {
        let alive: Vec<ProcessId> = (0..self.processes.len() as ProcessId)
            .filter(|&id| self.processes[id as usize].space.is_some())
            .collect();
        let candidates: Vec<Candidate> = alive.iter().map(|&id| self.candidate(id)).collect();
        let frames = self.vm.store().frames.table.count() as u64;
        let Some(victim) = oom::choose(&candidates, frames) else { return Step::Done };
        let (id, candidate) = (alive[victim], candidates[victim]);
        let process = &self.processes[id as usize];
        self.kills.push(OomKill {
            at_ns: self.cpus[cpu].now_ps / PS,
            pid: process.pid,
            command: process.command.clone(),
            resident_bytes: candidate.resident * PAGE_BYTES,
            swap_bytes: candidate.swapped * PAGE_BYTES,
        });
        let job = self.processes[id as usize].source;
        self.sources[job].killed = true;
        self.end_process(cpu, id, "out of memory".to_owned());
        Step::Blocked
    }

    fn candidate(&self, process: ProcessId) -> Candidate {
        let space = self.processes[process as usize].space;
        let space = space.and_then(|index| self.spaces[index].space.as_ref());
        let resident = space.map(|space| space.resident(self.vm.store())).unwrap_or_default();
        Candidate {
            resident: resident.pages(),
            swapped: resident.swapped,
            tables: space.map_or(0, vellum_mm::spaces::AddressSpace::tables),
            adjustment: 0,
        }
    }

    /// Keeps the number of page tables of all spaces.
    pub(super) fn count_tables(&mut self, space: usize) {
        let slot = &mut self.spaces[space];
        let now = slot.space.as_ref().map_or(0, vellum_mm::spaces::AddressSpace::tables);
        self.tables = self.tables + now - slot.tables;
        slot.tables = now;
        self.stats.peak_tables = self.stats.peak_tables.max(self.tables);
    }

    pub(super) fn note_peaks(&mut self) {
        let zone = self.vm.store().frames.zone();
        let used = (zone.frames_total() - zone.free_frames()) as u64;
        self.stats.peak_used = self.stats.peak_used.max(used.saturating_sub(self.tables));
    }

    /// Lets the policy look at all accessed bits.
    pub(super) fn beat(&mut self, cpu: usize) {
        self.next_beat_ps = self.cpus[cpu].now_ps + BEAT_PERIOD_PS;
        self.vm.beat(self.at(cpu), self.sim);
    }

    /// Writes files that have been dirty for long, as Linux's flusher threads do.
    pub(super) fn flush_old_files(&mut self, cpu: usize) {
        let now_ps = self.cpus[cpu].now_ps;
        self.next_flush_ps = now_ps + FLUSH_PERIOD_PS;
        let old: Vec<FileRef> = self
            .dirty
            .iter()
            .filter(|&(_, &since)| now_ps >= since + DIRTY_EXPIRE_PS)
            .map(|(&file, _)| file)
            .collect();
        for file in old {
            let written = self.vm.write_back(self.at(cpu), self.sim, file, 0..u64::MAX, u64::MAX);
            if !written.more {
                self.dirty.remove(&file);
            }
            self.pump(cpu);
        }
    }

    fn is_under_way(&self, request: RequestId) -> bool {
        self.under_way.get(request.0 as usize).copied().unwrap_or(false)
    }

    pub(super) fn set_under_way(&mut self, request: RequestId, is: bool) {
        let slot = request.0 as usize;
        if self.under_way.len() <= slot {
            self.under_way.resize(slot + 1, false);
        }
        self.under_way[slot] = is;
    }
}
