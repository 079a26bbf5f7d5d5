//! System calls of the recorded program, made again on the simulated machine.
//!
//! Addresses are those that the recording saw: what `mmap` chose then is mapped exactly there now. A
//! call that the core refuses is counted and passed over, since the recorded one succeeded: what it
//! would have made is missing then, and accesses to it are violations.

use vellum_mm::addr::{FileRef, PAGE_BYTES, Page, Pages, VirtAddr};
use vellum_mm::objects::file::Medium;
use vellum_mm::spaces::advise::Advise;
use vellum_mm::spaces::layout::{self, Layout};
use vellum_mm::spaces::map::{Map, Place, Refused};
use vellum_mm::spaces::remap::Move;
use vellum_mm::spaces::vma::{Advice, Backing, Rights, Sharing, VmaFlags};
use vellum_trace::event::{Area, Call, Exit, File, FileId, ProcessId, Role, ThreadId};

use super::tasks::{Space, State, Work};
use super::{PS, Replay};

/// Flags of `clone` (linux/sched.h).
const CLONE_VM: u64 = 0x100;
const CLONE_VFORK: u64 = 0x4000;

/// Flags of `mmap` (asm-generic/mman.h).
mod map_flag {
    pub(super) const SHARED: u32 = 0x01;
    pub(super) const TYPE: u32 = 0x0f;
    pub(super) const PRIVATE: u32 = 0x02;
    pub(super) const GROWSDOWN: u32 = 0x100;
    pub(super) const LOCKED: u32 = 0x2000;
    pub(super) const NORESERVE: u32 = 0x4000;
    pub(super) const POPULATE: u32 = 0x8000;
}

fn rights(prot: u32) -> Rights {
    // PROT_READ 1, PROT_WRITE 2 and PROT_EXEC 4 have the values of the rights.
    Rights::from_bits_truncate((prot & 7) as u8)
}

/// The pages that hold the bytes; empty if there are none or they lie beyond the program's half.
fn pages_of(start: u64, bytes: u64) -> Pages {
    let limit = layout::USER_END.0;
    let end = start.saturating_add(bytes).min(limit);
    let start = start.min(end);
    Pages::new(VirtAddr(start).page(), VirtAddr(end).page_up().max(VirtAddr(start).page()))
}

impl Replay<'_> {
    pub(super) fn call(&mut self, cpu: usize, thread: ThreadId, call: Call) {
        self.spend_kernel(cpu, self.profile.call.enter_ns * PS);
        match call {
            Call::Start { process, pid, .. } => {
                self.begin_process(process, pid, String::new(), None);
            }
            Call::Exec { process, arguments, brk, areas, touched, .. } => {
                self.exec(cpu, thread, process, &arguments, brk, &areas, touched);
            }
            Call::Fork { process, child, pid, flags, .. } => {
                self.fork(cpu, thread, process, child, pid, flags);
            }
            Call::Thread { child, .. } => self.begin_thread(child, self.cpus[cpu].now_ps),
            Call::ThreadExit { thread } => self.end_thread(thread),
            Call::Exit { process, exit, .. } => {
                let text = match exit {
                    Exit::Code(code) => format!("exit {code}"),
                    Exit::Signal(signal) => format!("signal {signal}"),
                    Exit::Unknown => "not seen".to_owned(),
                };
                self.end_process(cpu, process, text);
            }
            Call::Reap { process, .. } => {
                if self.processes.get(process as usize).is_some_and(|p| !p.dead) {
                    self.threads[thread as usize].state = State::Reaping(process);
                }
            }
            Call::File(_) | Call::Failed { .. } | Call::Mark { .. } => {}
            Call::Tick { count, instructions, .. } => {
                self.stats.references += count;
                let ps = instructions * self.profile.cpu.instruction_ps.get();
                self.cpus[cpu].now_ps += ps;
                self.cpus[cpu].busy_ps += ps;
            }
            call => self.memory_call(cpu, thread, call),
        }
    }

    /// Calls that need an address space or a file.
    fn memory_call(&mut self, cpu: usize, thread: ThreadId, call: Call) {
        let process = self.threads[thread as usize].process as usize;
        let Some(space) = self.processes[process].space else { return };
        let costs = &self.profile.call;
        match call {
            Call::Map { start, bytes, prot, flags, file, offset, .. } => {
                self.spend_kernel(cpu, costs.map_ns * PS);
                self.map(cpu, thread, space, start, bytes, prot, flags, file, offset);
            }
            Call::Unmap { start, bytes, .. } => {
                let pages = pages_of(start, bytes);
                self.with_space(cpu, space, costs.unmap_ns, costs.unmap_page_ns, |r, at, s| {
                    r.vm.unmap(at, r.sim, s, pages)
                });
            }
            Call::Remap { start, bytes, new_start, new_bytes, .. } => {
                let old = pages_of(start, bytes);
                let new = pages_of(new_start, new_bytes);
                let place = if new.start == old.start { Move::Never } else { Move::To(new.start) };
                self.with_space(cpu, space, costs.map_ns, costs.unmap_page_ns, |r, at, s| {
                    r.vm.remap(at, r.sim, s, old, new.count(), place).map(|_| ())
                });
            }
            Call::Protect { start, bytes, prot, .. } => {
                let pages = pages_of(start, bytes);
                let per_page = costs.protect_page_ns;
                self.with_space(cpu, space, costs.map_ns, 0, |r, at, s| {
                    let resident = s.resident(r.vm.store()).pages().min(pages.count());
                    r.spend_kernel(cpu, resident * per_page * PS);
                    r.vm.protect(at, r.sim, s, pages, rights(prot))
                });
            }
            Call::Brk { end, .. } => {
                self.with_space(cpu, space, costs.map_ns, costs.unmap_page_ns, |r, at, s| {
                    r.vm.brk(at, r.sim, s, VirtAddr(end))
                });
            }
            Call::Advise { start, bytes, advice, .. } => {
                self.advise(cpu, thread, space, pages_of(start, bytes), advice);
            }
            Call::Lock { start, bytes, all, .. } => {
                self.lock(cpu, thread, space, pages_of(start, bytes), all);
            }
            Call::Unlock { start, bytes, all, .. } => {
                let ranges = self.ranges(space, pages_of(start, bytes), all);
                for pages in ranges {
                    self.with_space(cpu, space, 0, 0, |r, _, s| r.vm.unlock(r.sim, s, pages));
                }
            }
            Call::Sync { start, bytes, .. } => {
                self.sync(cpu, thread, space, pages_of(start, bytes));
            }
            Call::Touch { page, pages, write, .. } => {
                let end = page.saturating_add(pages);
                self.threads[thread as usize].work = Work::Touch { next: page, end, write };
            }
            call => self.file_call(cpu, thread, &call),
        }
    }

    fn file_call(&mut self, cpu: usize, thread: ThreadId, call: &Call) {
        match *call {
            Call::Read { file, offset, bytes, .. } => {
                let Some(&file) = self.files.get(&file) else { return };
                let next = offset / PAGE_BYTES;
                let end = offset.saturating_add(bytes).div_ceil(PAGE_BYTES);
                self.threads[thread as usize].work = Work::Read { file, next, end };
            }
            Call::Write { file, offset, bytes, .. } => {
                let Some(&file) = self.files.get(&file) else { return };
                let end = offset.saturating_add(bytes).min(1 << 50);
                self.dirty.entry(file).or_insert(self.cpus[cpu].now_ps);
                self.threads[thread as usize].work = Work::Write { file, next: offset, end };
            }
            Call::FileSync { file, .. } => {
                let Some(&file) = self.files.get(&file) else { return };
                self.flush_file(cpu, thread, file, 0..u64::MAX);
            }
            Call::Truncate { file, bytes, .. } => {
                let Some(&file) = self.files.get(&file) else { return };
                let at = self.at(cpu);
                let spaces = self.spaces.iter_mut().filter_map(|slot| slot.space.as_mut());
                let _ = self.vm.truncate(at, self.sim, file, bytes, spaces);
            }
            Call::Unlink { file, .. } => {
                let Some(&file) = self.files.get(&file) else { return };
                let mapped = self.spaces.iter().filter_map(|s| s.space.as_ref()).any(|space| {
                    let backs =
                        |b: Backing| matches!(b, Backing::File { file: f, .. } if f == file);
                    space.areas().iter().any(|vma| backs(vma.backing))
                });
                if !mapped {
                    self.dirty.remove(&file);
                    self.vm.forget(self.at(cpu), self.sim, file);
                }
            }
            _ => {}
        }
    }

    /// Makes a file known, under the number that the trace gives it.
    pub(super) fn introduce_file(&mut self, file: &File) {
        let medium = if file.memory { Medium::Memory } else { Medium::Disk };
        if let Ok(known) = self.vm.add_file(file.bytes, medium, self.warmth) {
            self.files.insert(file.id, known);
        }
    }

    /// Runs `change` on an address space and lets it cost `ns`, and `page_ns` for each page that it
    /// freed.
    fn with_space(
        &mut self,
        cpu: usize,
        space: usize,
        ns: u64,
        page_ns: u64,
        change: impl FnOnce(
            &mut Self,
            vellum_mm::machine::At,
            &mut vellum_mm::spaces::AddressSpace,
        ) -> Result<(), Refused>,
    ) {
        self.spend_kernel(cpu, ns * PS);
        let Some(mut taken) = self.spaces[space].space.take() else { return };
        let before = taken.resident(self.vm.store()).pages();
        let at = self.at(cpu);
        // Refused or not: see the head of this file.
        let _ = change(self, at, &mut taken);
        let after = taken.resident(self.vm.store()).pages();
        self.spaces[space].space = Some(taken);
        self.spend_kernel(cpu, before.saturating_sub(after) * page_ns * PS);
        self.count_tables(space);
        self.pump(cpu);
    }

    #[allow(clippy::too_many_arguments)] // the arguments of exec
    fn exec(
        &mut self,
        cpu: usize,
        thread: ThreadId,
        process: ProcessId,
        arguments: &[String],
        brk: u64,
        areas: &[Area],
        touched: Vec<u64>,
    ) {
        self.leave_space(cpu, process);
        self.wake_vforker(process, self.cpus[cpu].now_ps);
        for other in self.processes[process as usize].threads.clone() {
            if other != thread && self.threads[other as usize].state != State::Dead {
                self.end_thread(other);
            }
        }
        self.processes[process as usize].command = arguments.join(" ");
        let heap = Layout::with_heap_at(VirtAddr(brk));
        let layout = heap.checked().unwrap_or_default();
        let mut space = self.vm.new_space(self.at(cpu), self.sim, layout);
        while space.is_err() && self.make_room(cpu) {
            space = self.vm.new_space(self.at(cpu), self.sim, layout);
        }
        let Ok(space) = space else {
            self.end_process(cpu, process, "out of memory".to_owned());
            return;
        };
        let index = self.spaces.len();
        self.spaces.push(Space {
            source: self.threads[thread as usize].source,
            id: space.id(),
            root: space.root(),
            users: 1,
            space: Some(space),
            tables: 0,
        });
        self.processes[process as usize].space = Some(index);
        self.group_space(index);
        for area in areas {
            self.map_area(cpu, index, area);
        }
        let mut pages = touched;
        pages.reverse();
        self.threads[thread as usize].work = Work::TouchEach(pages);
    }

    fn map_area(&mut self, cpu: usize, space: usize, area: &Area) {
        let backing = match area.file {
            None => Backing::Anonymous,
            Some((file, offset)) => match self.files.get(&file) {
                Some(&file) => Backing::File { file, offset },
                None => return,
            },
        };
        let flags = match area.role {
            Role::Stack => VmaFlags::STACK,
            _ => VmaFlags::empty(),
        };
        let request = Map {
            place: Place::Fixed(Page(area.page)),
            pages: area.pages,
            rights: rights(area.prot),
            backing,
            sharing: if area.shared { Sharing::Shared } else { Sharing::Private },
            flags,
        };
        self.with_space(cpu, space, 0, 0, |r, at, s| r.vm.map(at, r.sim, s, request).map(|_| ()));
    }

    fn fork(
        &mut self,
        cpu: usize,
        thread: ThreadId,
        process: ProcessId,
        child: ThreadId,
        pid: u32,
        flags: u64,
    ) {
        let parent = self.threads[thread as usize].process as usize;
        let command = self.processes[parent].command.clone();
        let Some(space) = self.processes[parent].space else { return };
        let costs = &self.profile.call;
        let index = if flags & CLONE_VM != 0 {
            self.spaces[space].users += 1;
            space
        } else {
            let at = self.at(cpu);
            let Some(parent) = &mut self.spaces[space].space else { return };
            let pages = parent.resident(self.vm.store()).anon;
            let mut copy = self.vm.fork(at, self.sim, parent);
            while copy.is_err() && self.make_room(cpu) {
                let at = self.at(cpu);
                let Some(parent) = &mut self.spaces[space].space else { return };
                copy = self.vm.fork(at, self.sim, parent);
            }
            let Ok(copy) = copy else {
                // As if the call had failed: the child never was.
                self.unborn_forever(&vellum_trace::event::Event::Call(Box::new(Call::Fork {
                    thread,
                    process,
                    child,
                    pid,
                    flags,
                })));
                return;
            };
            let (id, root) = (copy.id(), copy.root());
            let source = self.threads[thread as usize].source;
            self.spaces.push(Space { source, id, root, users: 1, space: Some(copy), tables: 0 });
            let index = self.spaces.len() - 1;
            self.group_space(index);
            self.count_tables(index);
            self.pump(cpu);
            self.spend_kernel(cpu, (costs.fork_ns + pages * costs.fork_page_ns) * PS);
            self.note_peaks();
            index
        };
        self.begin_process(process, pid, command, Some(index));
        self.begin_thread(child, self.cpus[cpu].now_ps);
        if flags & CLONE_VFORK != 0 {
            self.threads[thread as usize].state = State::Vfork(process);
        }
    }

    #[allow(clippy::too_many_arguments)] // the arguments of mmap
    fn map(
        &mut self,
        cpu: usize,
        thread: ThreadId,
        space: usize,
        start: u64,
        bytes: u64,
        prot: u32,
        flags: u32,
        file: Option<FileId>,
        offset: u64,
    ) {
        let pages = pages_of(start, bytes);
        let backing = match file {
            None => Backing::Anonymous,
            Some(id) => match self.files.get(&id) {
                Some(&file) => Backing::File { file, offset: offset / PAGE_BYTES },
                None => return,
            },
        };
        let mut vma_flags = VmaFlags::empty();
        vma_flags.set(VmaFlags::GROWS_DOWN, flags & map_flag::GROWSDOWN != 0);
        vma_flags.set(VmaFlags::NO_RESERVE, flags & map_flag::NORESERVE != 0);
        vma_flags.set(VmaFlags::LOCKED, flags & map_flag::LOCKED != 0);
        let shared = flags & map_flag::TYPE != map_flag::PRIVATE && flags & map_flag::SHARED != 0;
        let request = Map {
            place: Place::Fixed(pages.start),
            pages: pages.count(),
            rights: rights(prot),
            backing,
            sharing: if shared { Sharing::Shared } else { Sharing::Private },
            flags: vma_flags,
        };
        self.with_space(cpu, space, 0, 0, |r, at, s| r.vm.map(at, r.sim, s, request).map(|_| ()));
        if let (true, Some(file), true) = (shared, file, prot & 2 != 0)
            && let Some(&file) = self.files.get(&file)
        {
            self.dirty.entry(file).or_insert(self.cpus[cpu].now_ps);
        }
        if flags & (map_flag::POPULATE | map_flag::LOCKED) != 0 {
            self.populate(thread, pages, prot & 2 != 0 && !shared);
        }
    }

    /// Touches pages for `MAP_POPULATE`, `mlock` and `MADV_POPULATE_*`.
    fn populate(&mut self, thread: ThreadId, pages: Pages, write: bool) {
        let (next, end) = (pages.start.0, pages.end.0);
        self.threads[thread as usize].work = Work::Touch { next, end, write };
    }

    fn advise(&mut self, cpu: usize, thread: ThreadId, space: usize, pages: Pages, advice: u32) {
        // The numbers of asm-generic/mman-common.h.
        let advise = match advice {
            0 => Advise::Use(Advice::Normal),
            1 => Advise::Use(Advice::Random),
            2 => Advise::Use(Advice::Sequential),
            3 => Advise::WillNeed,
            4 => Advise::DontNeed,
            8 => Advise::Free,
            9 => Advise::Remove,
            10 => Advise::Set(VmaFlags::DONT_FORK),
            11 => Advise::Clear(VmaFlags::DONT_FORK),
            14 => Advise::Set(VmaFlags::HUGE),
            15 => Advise::Set(VmaFlags::NO_HUGE),
            18 => Advise::Set(VmaFlags::WIPE_ON_FORK),
            19 => Advise::Clear(VmaFlags::WIPE_ON_FORK),
            20 => Advise::Cold,
            21 => {
                self.with_space(cpu, space, 0, 0, |r, at, s| {
                    r.vm.page_out(at, r.sim, s, pages).map(|_| ())
                });
                return;
            }
            22 => return self.populate(thread, pages, false),
            23 => return self.populate(thread, pages, true),
            // Merging (12, 13), dumps (16, 17) and hardware errors (100, 101) do not matter here.
            _ => return,
        };
        let page_ns = self.profile.call.discard_page_ns;
        self.with_space(cpu, space, 0, page_ns, |r, at, s| {
            r.vm.advise(at, r.sim, s, pages, advise)
        });
    }

    /// The ranges that a lock call means: one, or every area.
    fn ranges(&self, space: usize, pages: Pages, all: bool) -> Vec<Pages> {
        match &self.spaces[space].space {
            Some(space) if all => space.areas().iter().map(|vma| vma.pages).collect(),
            _ => vec![pages],
        }
    }

    fn lock(&mut self, cpu: usize, thread: ThreadId, space: usize, pages: Pages, all: bool) {
        let ranges = self.ranges(space, pages, all);
        let mut touch = Vec::new();
        for pages in ranges {
            self.with_space(cpu, space, 0, 0, |r, _, s| r.vm.lock(r.sim, s, pages));
            touch.extend(pages.iter().map(|page| page.0));
        }
        // Areas that forbid writes are only read: who cannot be touched is passed over.
        if all {
            touch.reverse();
            self.threads[thread as usize].work = Work::TouchEach(touch);
        } else {
            self.populate(thread, pages, false);
        }
    }

    fn sync(&mut self, cpu: usize, thread: ThreadId, space: usize, pages: Pages) {
        let Some(space) = &self.spaces[space].space else { return };
        let parts: Vec<(FileRef, u64, u64)> = space
            .areas()
            .iter_range(pages)
            .filter(|vma| vma.sharing == Sharing::Shared)
            .filter_map(|vma| {
                let part = vma.part(pages)?;
                let (file, first) = part.file_page(part.pages.start)?;
                Some((file, first, first + part.pages.count()))
            })
            .collect();
        for (file, first, end) in parts {
            self.flush_file(cpu, thread, file, first..end);
        }
    }

    /// Writes dirty pages of a file and waits for the last of them.
    fn flush_file(
        &mut self,
        cpu: usize,
        thread: ThreadId,
        file: FileRef,
        pages: std::ops::Range<u64>,
    ) {
        let written = self.vm.write_back(self.at(cpu), self.sim, file, pages, u64::MAX);
        self.pump(cpu);
        if let Some(last) = written.last {
            self.threads[thread as usize].work = Work::Flush(last);
        }
    }
}
