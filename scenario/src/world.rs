//! The world of a script: a machine with one processor, its memory manager, and processes.
//!
//! A disk performs each request as soon as the call that made it returns, unless the script holds
//! it. Nothing happens behind the script's back: no background reclaim, no periodic write-back, no
//! killing. The processor's TLB is empty at the start of each step, so that a log never depends on
//! which translations a processor happens to remember.

use alloc::borrow::ToOwned as _;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use vellum_mm::Vm;
use vellum_mm::addr::{FileRef, Frame, PAGE_BYTES};
use vellum_mm::check::check_invariants;
use vellum_mm::event::Event;
use vellum_mm::fault::{Cause, Violation};
use vellum_mm::frames::census::Census;
use vellum_mm::frames::table::Kind;
use vellum_mm::machine::{At, Tlb as _};
use vellum_mm::objects::io::{IoOutcome, Request, RequestId};
use vellum_mm::reclaim::Background;
use vellum_mm::spaces::AddressSpace;
use vellum_mm::spaces::layout::Layout;
use vellum_mm::spaces::map::Refused;
use vellum_mm::spaces::vma::Backing;

use crate::hardware::Hardware;
use crate::log::Log;
use crate::script::{Action, Script};
use crate::task::Task;

/// The only processor, at the only moment: scenarios know no time.
pub(crate) const AT: At = At { now: 0, cpu: 0 };

/// A machine, its memory manager, and the processes of a script.
pub(crate) struct World<'a, H: Hardware> {
    pub(crate) script: &'a Script,
    pub(crate) hardware: &'a H,
    /// The machine of the hardware.
    pub(crate) machine: &'a H::Machine,
    pub(crate) vm: Vm,
    /// What was used for what when nothing had happened yet.
    boot: Census,
    /// By the file's number in the script; `None` before it is made and after it is forgotten.
    pub(crate) files: Vec<Option<FileRef>>,
    /// Shared memory without a name.
    pub(crate) nameless: Vec<FileRef>,
    pub(crate) spaces: Vec<Space>,
    /// By the process's number in the script: its space.
    pub(crate) processes: Vec<Option<usize>>,
    /// Processes whose fork was refused.
    pub(crate) unborn: Vec<usize>,
    /// What waits for a request, in order of arrival.
    pub(crate) waiting: Vec<(RequestId, Task)>,
    /// Requests that the disks have and have not performed.
    pending: VecDeque<Request>,
    pub(crate) held: bool,
}

/// An address space and how many processes run in it.
pub(crate) struct Space {
    pub(crate) space: Option<AddressSpace>,
    pub(crate) users: u32,
}

impl<'a, H: Hardware> World<'a, H> {
    /// The machine that `script` describes.
    ///
    /// # Errors
    /// If there can be none.
    pub(crate) fn boot(script: &'a Script, hardware: &'a H) -> Result<World<'a, H>, String> {
        let machine = hardware.machine();
        let vm = Vm::new(&script.config, machine);
        let vm = vm.map_err(|error| format!("the machine does not boot: {error:?}"))?;
        hardware.booted(vm.kernel_root());
        hardware.take_events();
        let boot = vm.census();
        Ok(World {
            script,
            hardware,
            machine,
            vm,
            boot,
            files: vec![None; script.files.len()],
            nameless: Vec::new(),
            spaces: Vec::new(),
            processes: vec![None; script.processes.len()],
            unborn: Vec::new(),
            waiting: Vec::new(),
            pending: VecDeque::new(),
            held: false,
        })
    }

    /// Does what one step says, and logs all that happens.
    ///
    /// # Errors
    /// If it cannot be done, or a check of the script fails: what was found instead.
    pub(crate) fn act(&mut self, action: &Action, log: &mut Log) -> Result<(), String> {
        for slot in &self.spaces {
            if let Some(space) = &slot.space {
                self.machine.invalidate_space(space.id());
            }
        }
        match *action {
            Action::NewFile { file, pages, medium, warmth } => {
                let made = self.vm.add_file(pages * PAGE_BYTES, medium, warmth);
                let made = made.map_err(|error| format!("refused: {error:?}"))?;
                log.name_file(made, &self.script.files[file]);
                self.files[file] = Some(made);
            }
            Action::Process(process, ref call) => self.call(process, call, log)?,
            Action::ReadFile(file, index) => {
                let file = self.file(file);
                self.go_on(&Task::ReadFile { file, index }, log)?;
            }
            Action::WriteFile(file, index) => {
                let file = self.file(file);
                self.go_on(&Task::WriteFile { file, index }, log)?;
            }
            Action::Sync(file) => {
                let file = self.file(file);
                // Ends: each turn performs requests, and fewer dirty pages are left.
                loop {
                    let range = 0..u64::MAX;
                    let written = self.vm.write_back(AT, self.machine, file, range, u64::MAX);
                    if self.settle(log) == 0 || !written.more {
                        break;
                    }
                }
            }
            Action::Truncate(file, pages) => {
                let (file, bytes) = (self.file(file), pages * PAGE_BYTES);
                let spaces = self.spaces.iter_mut().filter_map(|slot| slot.space.as_mut());
                let cut = self.vm.truncate(AT, self.machine, file, bytes, spaces);
                cut.map_err(|error| format!("refused: {error:?}"))?;
            }
            Action::Forget(file) => {
                let object = self.file(file);
                self.files[file] = None;
                // Mapped, it lives on without a name until its last mapping goes.
                self.nameless.push(object);
                self.forget_unmapped();
            }
            Action::Reclaim(count) => {
                self.vm.reclaim(AT, self.machine, count);
            }
            Action::Pressure => self.pressure(log),
            Action::Hold => self.held = true,
            Action::Complete(which) => {
                self.end_requests(which, IoOutcome::Done, log)?;
                self.held &= which.is_some();
            }
            Action::Fail(which) => self.end_requests(which, IoOutcome::Failed, log)?,
            Action::CheckNoLeaks => self.check_no_leaks()?,
            Action::CheckResident(process, pages) => self.check_resident(process, pages)?,
        }
        self.settle(log);
        self.audit();
        Ok(())
    }
    /// Logs what the core has done since this was last called, and hands its requests to the disks.
    pub(crate) fn note(&mut self, log: &mut Log) {
        let mut requests = VecDeque::new();
        while let Some(request) = self.vm.next_request() {
            requests.push_back(request);
        }
        let mut logged = requests.iter();
        let mut rest = None; // of a request, pages whose events are yet to come
        for event in self.hardware.take_events() {
            let Event::Io { target, pages, write, .. } = event else {
                log.event(&event);
                continue;
            };
            let (next, left) = rest.take().unwrap_or_else(|| {
                let request = logged.next().expect("events are of requests");
                log.io(request, write, self.held);
                (request.target, request.frames().len())
            });
            assert_eq!(next, target, "requests and their events have one order");
            let left = left - pages as usize;
            rest = (left > 0).then(|| (target.up(u64::from(pages)), left));
        }
        assert!(logged.next().is_none() && rest.is_none(), "every page is reported by an event");
        self.pending.append(&mut requests);
        // Frames that no event has named, such as those that were only mapped around a fault.
        let frames = &self.vm.store().frames;
        let (table, span) = (&frames.table, frames.zone().span());
        for frame in (span.start.0..span.end.0).map(Frame) {
            if matches!(table.peek(frame).kind(), Kind::Anon | Kind::File) {
                log.holds_contents(frame);
            }
        }
    }

    /// Notes, and lets the disks work unless they are held. Gives the number of requests performed.
    pub(crate) fn settle(&mut self, log: &mut Log) -> usize {
        self.note(log);
        let mut count = 0;
        while !self.held
            && let Some(request) = self.pending.pop_front()
        {
            self.hardware.perform(&request);
            self.vm.completed(AT, self.machine, request.id, IoOutcome::Done);
            self.note(log);
            count += 1;
        }
        count
    }

    /// Ends one held request, or all until none is left.
    fn end_requests(
        &mut self,
        which: Option<u32>,
        outcome: IoOutcome,
        log: &mut Log,
    ) -> Result<(), String> {
        let Some(number) = which else {
            // Ends: failures only those that are here now, since who tries again would fail for
            // ever; successes bring whoever waits to an end or to a page further on.
            let mut left =
                if outcome == IoOutcome::Failed { self.pending.len() } else { usize::MAX };
            while left > 0
                && let Some(request) = self.pending.pop_front()
            {
                left -= 1;
                self.end_request(&request, outcome, log)?;
            }
            return Ok(());
        };
        let named = |id| self.pending.iter().position(|request| request.id == id);
        let place = log.request_named(number).and_then(named);
        let request = place.and_then(|place| self.pending.remove(place));
        let request = request.ok_or_else(|| format!("r{number} is not under way"))?;
        self.end_request(&request, outcome, log)
    }

    /// Ends a held request. Who waits for it goes on.
    fn end_request(
        &mut self,
        request: &Request,
        outcome: IoOutcome,
        log: &mut Log,
    ) -> Result<(), String> {
        log.ended(request.id, outcome);
        if outcome == IoOutcome::Done {
            self.hardware.perform(request);
        }
        self.vm.completed(AT, self.machine, request.id, outcome);
        self.note(log);
        let waiting = core::mem::take(&mut self.waiting);
        let (woken, rest): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(id, _)| *id == request.id);
        self.waiting = rest;
        for (_, task) in woken {
            let name = task.process().map(|process| self.script.processes[process].as_str());
            log.speak_as(name);
            self.go_on(&task, log)?;
            log.speak_as(None);
        }
        Ok(())
    }

    /// The number of the space of a process, which is made if it has none yet.
    pub(crate) fn space_of(&mut self, process: usize) -> Result<usize, String> {
        if let Some(space) = self.processes[process] {
            return Ok(space);
        }
        if self.unborn.contains(&process) {
            return Err(format!("`{}`, whose fork was refused", self.script.processes[process]));
        }
        let space = self.vm.new_space(AT, self.machine, Layout::default());
        let space = space.map_err(|_| "no memory for a new process".to_owned())?;
        Ok(self.settle_in(process, space))
    }

    /// Gives `process` a space of its own.
    pub(crate) fn settle_in(&mut self, process: usize, space: AddressSpace) -> usize {
        self.spaces.push(Space { space: Some(space), users: 1 });
        self.processes[process] = Some(self.spaces.len() - 1);
        self.spaces.len() - 1
    }

    /// Takes `process` out of its space, which ends with its last process.
    pub(crate) fn leave(&mut self, process: usize) {
        let Some(space) = self.processes[process].take() else { return };
        let slot = &mut self.spaces[space];
        slot.users -= 1;
        if slot.users == 0
            && let Some(space) = slot.space.take()
        {
            self.vm.destroy(AT, self.machine, space);
        }
        self.forget_unmapped();
    }

    /// Shared memory without a name ends with its last mapping.
    pub(crate) fn forget_unmapped(&mut self) {
        let spaces = &self.spaces;
        let is_mapped = |file: FileRef| {
            let mut areas = spaces
                .iter()
                .filter_map(|slot| slot.space.as_ref())
                .flat_map(|space| space.areas().iter());
            areas.any(|area| matches!(area.backing, Backing::File { file: of, .. } if of == file))
        };
        let (kept, gone) = self.nameless.iter().partition(|&&file| is_mapped(file));
        self.nameless = kept;
        let gone: Vec<FileRef> = gone;
        for file in gone {
            self.vm.remove_file(AT, self.machine, file);
        }
    }

    fn file(&self, file: usize) -> FileRef {
        self.files[file].expect("the parser knows which files exist")
    }

    fn pressure(&mut self, log: &mut Log) {
        if !self.vm.wants_background() {
            return;
        }
        // Ends: each turn performs requests, after which more frames are free.
        loop {
            let end = self.vm.background(AT, self.machine);
            let performed = self.settle(log);
            match end {
                Background::Writing if performed > 0 => {}
                Background::Exhausted => return log.say("exhausted"),
                Background::Enough | Background::Writing => return,
            }
        }
    }

    /// All records must agree after each step, held requests or not.
    fn audit(&self) {
        let spaces: Vec<_> = self.spaces.iter().filter_map(|slot| slot.space.as_ref()).collect();
        check_invariants(&self.vm, self.machine, &spaces);
        let (census, frames) = (self.vm.census(), self.vm.store().frames.zone().frames_total());
        assert_eq!(census.free + census.used(), frames as u64, "{census:?}");
    }

    fn check_no_leaks(&self) -> Result<(), String> {
        let census = self.vm.census();
        if self.spaces.iter().any(|slot| slot.space.is_some()) {
            return Ok(());
        }
        // Files stay cached when nobody uses them, and their index with them.
        let cached = self.files.iter().any(Option::is_some);
        let (file, words) = if cached { (census.file, census.words) } else { (0, 0) };
        let expected = Census { free: self.boot.free - file - words, file, words, ..self.boot };
        if census != expected {
            return Err(format!("no process is left, but {census:?}"));
        }
        let slots = self.vm.store().swap.used();
        if !cached && slots > 0 {
            return Err(format!("nothing is left, but {slots} slots are used"));
        }
        Ok(())
    }

    fn check_resident(&self, process: usize, pages: u64) -> Result<(), String> {
        let space = self.processes[process].and_then(|space| self.spaces[space].space.as_ref());
        let resident = space.map_or(0, |space| space.resident(self.vm.store()).pages());
        if resident == pages { Ok(()) } else { Err(format!("{resident} resident pages")) }
    }
}

/// How the log calls a refusal.
pub(crate) fn refusal(refused: Refused) -> &'static str {
    match refused {
        Refused::Invalid => "refused invalid",
        Refused::Occupied(_) => "refused occupied",
        Refused::NoRoom => "refused no-room",
        Refused::TooMany => "refused too-many",
        Refused::Denied => "refused denied",
        Refused::NoMemory => "refused no-memory",
        Refused::Hole(_) => "refused hole",
    }
}

/// How the log calls what a process gets instead of the page.
pub(crate) fn signal(cause: Cause) -> &'static str {
    match cause {
        Cause::Violation(Violation::Unmapped) => "SIGSEGV unmapped",
        Cause::Violation(Violation::Forbidden) => "SIGSEGV forbidden",
        Cause::Violation(Violation::BeyondFile) => "SIGBUS beyond-file",
        Cause::Io => "SIGBUS io",
        Cause::OutOfMemory => "out-of-memory",
    }
}
