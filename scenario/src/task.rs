//! What may have to wait for a disk, and the calls of processes.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;

use vellum_mm::addr::{FileRef, PAGE_BYTES, Page, Pages};
use vellum_mm::fault::{Attempt, Outcome};
use vellum_mm::machine::Access;
use vellum_mm::objects::file::{Medium, Warmth};
use vellum_mm::objects::io::RequestId;
use vellum_mm::spaces::layout::Layout;
use vellum_mm::spaces::map::{Map, Place, Refused};
use vellum_mm::spaces::remap::Move;
use vellum_mm::spaces::vma::{Backing, Rights, Sharing, VmaFlags};
use vellum_mm::vm::FileOutcome;

use crate::hardware::Hardware;
use crate::log::Log;
use crate::script::{Call, MapCall};
use crate::world::{AT, World, refusal, signal};

/// Faults of one access: each retry after the first needs that somebody took the page away again.
const ATTEMPTS_MAX: u32 = 100;

/// Work that a request can interrupt.
pub(crate) enum Task {
    /// A process uses pages, upwards.
    Access {
        process: usize,
        pages: Pages,
        how: How,
        /// Whether the first of the pages was read on its behalf.
        own: bool,
    },
    ReadFile {
        file: FileRef,
        index: u64,
    },
    WriteFile {
        file: FileRef,
        index: u64,
    },
}

/// How a process uses pages.
#[derive(Clone, Copy)]
pub(crate) enum How {
    As(Access),
    /// As `mlock` does: written where that makes a copy now instead of later.
    Populate,
}

impl Task {
    /// Whose it is.
    pub(crate) fn process(&self) -> Option<usize> {
        match *self {
            Task::Access { process, .. } => Some(process),
            Task::ReadFile { .. } | Task::WriteFile { .. } => None,
        }
    }
}

/// The end of one page's access.
enum End {
    Done,
    Signal,
    Wait(RequestId, bool),
}

impl<H: Hardware> World<'_, H> {
    /// Goes on with a task until it ends or must wait.
    pub(crate) fn go_on(&mut self, task: &Task, log: &mut Log) -> Result<(), String> {
        match *task {
            Task::Access { process, pages, how, own } => {
                self.access_pages(process, pages, how, own, log)
            }
            Task::ReadFile { file, index } => self.file_page(file, index, false, log),
            Task::WriteFile { file, index } => self.file_page(file, index, true, log),
        }
    }

    fn access_pages(
        &mut self,
        process: usize,
        pages: Pages,
        how: How,
        mut own: bool,
        log: &mut Log,
    ) -> Result<(), String> {
        for page in pages.iter() {
            let Some(access) = self.access_for(process, page, how) else { continue };
            match self.access_page(process, page, access, own, log)? {
                End::Done => own = false,
                End::Signal => return Ok(()),
                End::Wait(request, own) => {
                    let pages = Pages::new(page, pages.end);
                    let task = Task::Access { process, pages, how, own };
                    self.waiting.push((request, task));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The access that a page gets; none if it is populated and permits none.
    fn access_for(&mut self, process: usize, page: Page, how: How) -> Option<Access> {
        let How::As(access) = how else {
            let space = self.processes[process].and_then(|space| self.spaces[space].space.as_ref());
            let area = space?.areas().find(page)?;
            let writes = area.rights.contains(Rights::WRITE) && area.sharing == Sharing::Private;
            let access = if writes { Access::Write } else { Access::Read };
            return (!area.rights.is_empty()).then_some(access);
        };
        Some(access)
    }

    fn access_page(
        &mut self,
        process: usize,
        page: Page,
        access: Access,
        mut own: bool,
        log: &mut Log,
    ) -> Result<End, String> {
        let index = self.space_of(process)?;
        let mut attempt = if own { Attempt::Again { own } } else { Attempt::First };
        for _ in 0..ATTEMPTS_MAX {
            let space = self.spaces[index].space.as_mut().expect("its process lives");
            let (id, root) = (space.id(), space.root());
            if let Some(frame) = self.hardware.access(id, root, page, access) {
                self.vm.touch(frame);
                return Ok(End::Done);
            }
            let vm = &self.vm;
            let outcome = vm.fault(AT, self.machine, space, page.address(), access, attempt);
            match outcome {
                Outcome::Done(_) => {
                    self.settle(log);
                    (own, attempt) = (false, Attempt::First);
                }
                Outcome::Kill(cause) => {
                    self.settle(log);
                    log.say(signal(cause));
                    return Ok(End::Signal);
                }
                Outcome::Wait { request, own: mine } => {
                    own |= mine;
                    attempt = Attempt::Again { own };
                    if self.settle(log) == 0 {
                        return self.must_wait(request, log).map(|()| End::Wait(request, own));
                    }
                }
            }
        }
        Err("an access that is never satisfied".to_owned())
    }

    fn file_page(
        &mut self,
        file: FileRef,
        index: u64,
        write: bool,
        log: &mut Log,
    ) -> Result<(), String> {
        for _ in 0..ATTEMPTS_MAX {
            let outcome = if write {
                self.vm.write_page(AT, self.machine, file, index, 0, PAGE_BYTES)
            } else {
                self.vm.read_page(AT, self.machine, file, index)
            };
            let performed = self.settle(log);
            match outcome {
                FileOutcome::Done(_) => return Ok(()),
                FileOutcome::Failed(cause) => {
                    log.say(signal(cause));
                    return Ok(());
                }
                FileOutcome::Wait(_) if performed > 0 => {}
                FileOutcome::Wait(request) => {
                    let task = if write {
                        Task::WriteFile { file, index }
                    } else {
                        Task::ReadFile { file, index }
                    };
                    self.must_wait(request, log)?;
                    self.waiting.push((request, task));
                    return Ok(());
                }
            }
        }
        Err("a page that never comes".to_owned())
    }

    fn must_wait(&mut self, request: RequestId, log: &mut Log) -> Result<(), String> {
        if !self.held {
            return Err(format!("a wait for {request:?}, which no disk has"));
        }
        log.wait(request);
        Ok(())
    }

    /// Does what a process asks for.
    pub(crate) fn call(
        &mut self,
        process: usize,
        call: &Call,
        log: &mut Log,
    ) -> Result<(), String> {
        if self.waiting.iter().any(|(_, task)| task.process() == Some(process)) {
            return Err(format!("`{}` waits for a disk", self.script.processes[process]));
        }
        let index = self.space_of(process)?;
        match *call {
            Call::Access(pages, access) => {
                return self.access_pages(process, pages, How::As(access), false, log);
            }
            Call::Map(ref map) => return self.map(process, index, map, log),
            Call::Lock(pages) => {
                let space = self.spaces[index].space.as_mut().expect("its process lives");
                if let Err(refused) = self.vm.lock(self.machine, space, pages) {
                    log.say(refusal(refused));
                    return Ok(());
                }
                return self.access_pages(process, pages, How::Populate, false, log);
            }
            Call::Fork(child) => self.fork(index, child, log),
            Call::Vfork(child) => {
                self.spaces[index].users += 1;
                self.processes[child] = Some(index);
            }
            Call::Exec => match self.vm.new_space(AT, self.machine, Layout::default()) {
                Ok(space) => {
                    self.leave(process);
                    self.settle_in(process, space);
                }
                Err(_) => log.say("refused no-memory"),
            },
            Call::Exit => self.leave(process),
            Call::Remap { old, count, place } => self.remap(index, old, count, place, log),
            _ => {
                if let Err(refused) = self.change(index, call) {
                    self.note(log);
                    log.say(refusal(refused));
                }
                self.forget_unmapped();
            }
        }
        Ok(())
    }

    fn fork(&mut self, index: usize, child: usize, log: &mut Log) {
        let parent = self.spaces[index].space.as_mut().expect("its process lives");
        if let Ok(space) = self.vm.fork(AT, self.machine, parent) {
            self.settle_in(child, space);
        } else {
            self.unborn.push(child);
            log.say("refused no-memory");
        }
    }

    fn map(
        &mut self,
        process: usize,
        index: usize,
        call: &MapCall,
        log: &mut Log,
    ) -> Result<(), String> {
        let backing = match call.file {
            Some((file, offset)) => {
                let file = self.files[file].expect("the parser knows which files exist");
                Backing::File { file, offset }
            }
            None if call.sharing == Sharing::Shared => {
                let bytes = call.pages * PAGE_BYTES;
                let file = self.vm.add_file(bytes, Medium::Memory, Warmth::Cold);
                let file = file.map_err(|error| format!("refused: {error:?}"))?;
                self.nameless.push(file);
                Backing::File { file, offset: 0 }
            }
            None => Backing::Anonymous,
        };
        let request = Map {
            place: call.place,
            pages: call.pages,
            rights: call.rights,
            backing,
            sharing: call.sharing,
            flags: call.flags,
        };
        let space = self.spaces[index].space.as_mut().expect("its process lives");
        let mapped = self.vm.map(AT, self.machine, space, request);
        self.note(log);
        self.forget_unmapped();
        match mapped {
            Err(refused) => log.say(refusal(refused)),
            Ok(pages) => {
                if call.place == Place::Anywhere {
                    log.say(&format!("at {:#x}", pages.start.address().0));
                }
                if call.flags.contains(VmaFlags::LOCKED) {
                    return self.access_pages(process, pages, How::Populate, false, log);
                }
            }
        }
        Ok(())
    }

    fn remap(&mut self, index: usize, old: Pages, count: u64, place: Move, log: &mut Log) {
        let space = self.spaces[index].space.as_mut().expect("its process lives");
        let moved = self.vm.remap(AT, self.machine, space, old, count, place);
        self.note(log);
        self.forget_unmapped();
        match moved {
            Ok(new) if place == Move::May && new.start != old.start => {
                log.say(&format!("at {:#x}", new.start.address().0));
            }
            Ok(_) => {}
            Err(refused) => log.say(refusal(refused)),
        }
    }

    /// The calls that only change what there is.
    fn change(&mut self, index: usize, call: &Call) -> Result<(), Refused> {
        let (vm, machine) = (&self.vm, self.machine);
        let space = self.spaces[index].space.as_mut().expect("its process lives");
        match *call {
            Call::Unmap(pages) => vm.unmap(AT, machine, space, pages),
            Call::Protect(pages, rights) => vm.protect(AT, machine, space, pages, rights),
            Call::Brk(end) => vm.brk(AT, machine, space, end),
            Call::Advise(pages, Some(advise)) => vm.advise(AT, machine, space, pages, advise),
            Call::Advise(pages, None) => vm.page_out(AT, machine, space, pages).map(|_| ()),
            Call::Unlock(pages) => vm.unlock(machine, space, pages),
            _ => unreachable!("{call:?} is no mere change"),
        }
    }
}
