//! Calls that change an address space.

use linux_raw_sys::general as nr;
use vellum_mm::addr::{FileRef, PAGE_BYTES, Page, Pages, VirtAddr};
use vellum_mm::fault::{Cause, Violation};
use vellum_mm::machine::{Access, At};
use vellum_mm::objects::file::{Medium, Warmth};
use vellum_mm::objects::index::Cached;
use vellum_mm::reclaim::Room;
use vellum_mm::spaces::AddressSpace;
use vellum_mm::spaces::advise::Advise;
use vellum_mm::spaces::layout::USER_END;
use vellum_mm::spaces::map::{Map, Place, Refused};
use vellum_mm::spaces::remap::Move;
use vellum_mm::spaces::vma::{Advice, Backing, Rights, Sharing, Vma, VmaFlags};
use vellum_mm::translate::x86_64 as x86;

use super::{Answer, Arguments, Errno, Halt};
use crate::files::open::Object;
use crate::kernel::Kernel;
use crate::pc::Pc;
use crate::tasks::{Tid, Wait};

impl Kernel {
    /// Lets `change` change the space of a thread.
    ///
    /// # Errors
    /// What it is refused; out of memory is first met by reclaim.
    pub(super) fn change_space<T>(
        &mut self,
        tid: Tid,
        mut change: impl FnMut(&mut Kernel, At, &mut AddressSpace) -> Result<T, Refused>,
    ) -> Result<T, Halt> {
        let at = crate::kernel::now();
        let slot = self.process(tid).space;
        // Ends: each turn after the first had frames freed for it.
        loop {
            // Out of its slot while it changes: nothing below looks for it there.
            let mut space = self.tasks.spaces[slot].take().expect("a thread has a space");
            let result = change(self, at, &mut space.space);
            self.tasks.spaces[slot] = Some(space);
            self.pump();
            match result {
                Err(Refused::NoMemory) => self.make_room()?,
                Err(refused) => return Err(refused.into()),
                Ok(value) => {
                    self.reclaim_in_background();
                    return Ok(value);
                }
            }
        }
    }

    /// Evicts something for a call that needs frames.
    ///
    /// # Errors
    /// If it must wait for a write, or nothing can be evicted.
    pub(crate) fn make_room(&mut self) -> Result<(), Halt> {
        let at = crate::kernel::now();
        let room = self.vm.make_room(at, self.pc);
        self.pump();
        match room {
            Room::After(request) if self.under_way[request.0 as usize] => {
                Err(Halt::Wait(Wait::Request(request), u64::MAX))
            }
            Room::Made | Room::After(_) => Ok(()),
            Room::None => Err(Errno::ENOMEM.into()),
        }
    }

    pub(crate) fn mmap(&mut self, tid: Tid, a: &Arguments) -> Answer {
        let &[address, bytes, protection, flags, descriptor, offset] = a;
        let flags = flags as u32;
        if bytes == 0 || !offset.is_multiple_of(PAGE_BYTES) {
            return Err(Errno::EINVAL.into());
        }
        let anonymous = flags & nr::MAP_ANONYMOUS != 0 || self.is_zero_device(tid, descriptor);
        let shared = match flags & nr::MAP_TYPE {
            nr::MAP_SHARED => Sharing::Shared,
            nr::MAP_SHARED_VALIDATE if !anonymous => Sharing::Shared,
            nr::MAP_PRIVATE => Sharing::Private,
            _ => return Err(Errno::EINVAL.into()),
        };
        if flags & nr::MAP_HUGETLB != 0 {
            return Err(Errno::ENOMEM.into()); // none are set aside
        }
        if flags & nr::MAP_GROWSDOWN != 0 && !(anonymous && shared == Sharing::Private) {
            return Err(Errno::EINVAL.into());
        }
        let fixed = flags & (nr::MAP_FIXED | nr::MAP_FIXED_NOREPLACE) != 0;
        if fixed && !address.is_multiple_of(PAGE_BYTES) {
            return Err(Errno::EINVAL.into());
        }
        let pages = pages_in(bytes).ok_or(Errno::ENOMEM)?;
        let page = VirtAddr(address).page_up();
        let place = if flags & nr::MAP_FIXED_NOREPLACE != 0 {
            Place::FixedFree(page)
        } else if fixed {
            Place::Fixed(page)
        } else if address != 0 {
            Place::Hint(page)
        } else {
            Place::Anywhere
        };
        let rights = rights(protection & RIGHTS)?; // other bits are ignored
        let mut vma_flags = VmaFlags::empty();
        vma_flags.set(VmaFlags::GROWS_DOWN, flags & nr::MAP_GROWSDOWN != 0);
        vma_flags.set(VmaFlags::NO_RESERVE, flags & nr::MAP_NORESERVE != 0);
        let locked = flags & nr::MAP_LOCKED != 0 || self.process(tid).locks_all;
        vma_flags.set(VmaFlags::LOCKED, locked);
        let (backing, nameless) = if anonymous && shared == Sharing::Private {
            (Backing::Anonymous, None)
        } else if anonymous {
            let bytes = pages * PAGE_BYTES;
            let file = self.vm.add_file(bytes, Medium::Memory, Warmth::Cold);
            let file = file.map_err(|_| Errno::ENOMEM)?;
            (Backing::File { file, offset: 0 }, Some(file))
        } else {
            if offset.checked_add(bytes).is_none_or(|end| end > i64::MAX.cast_unsigned()) {
                return Err(Errno::EOVERFLOW.into());
            }
            let (file, writable) = self.file_to_map(tid, descriptor)?;
            let read_only = shared == Sharing::Shared && !writable;
            if read_only && rights.contains(Rights::WRITE) {
                return Err(Errno::EACCES.into());
            }
            vma_flags.set(VmaFlags::READ_ONLY, read_only);
            (Backing::File { file, offset: offset / PAGE_BYTES }, None)
        };
        let map = Map { place, pages, rights, backing, sharing: shared, flags: vma_flags };
        let mapped = self.change_space(tid, |k, at, space| k.vm.map(at, k.pc, space, map));
        self.files.nameless.extend(nameless);
        // Only what takes the place of others, or is refused, leaves a file without a mapping.
        if flags & nr::MAP_FIXED != 0 || mapped.is_err() {
            self.forget_unmapped();
        }
        let mapped = mapped?;
        if locked || flags & nr::MAP_POPULATE != 0 {
            // Nobody is told if not all of it could be had, and nobody waits for the disk.
            let write = rights.contains(Rights::WRITE) && shared == Sharing::Private;
            let access = if write { Access::Write } else { Access::Read };
            for page in mapped.iter() {
                match self.reach(tid, page, access) {
                    Ok(_) => {}
                    Err(Halt::Dead) => return Err(Halt::Dead),
                    Err(_) => break,
                }
            }
        }
        Ok(mapped.start.address().0)
    }

    /// The file behind a descriptor, and whether who maps it may write it.
    fn file_to_map(&mut self, tid: Tid, descriptor: u64) -> Result<(FileRef, bool), Errno> {
        let open = self.open_file(tid, descriptor)?;
        let file = &self.files.opens[open];
        if !file.readable {
            return Err(Errno::EACCES);
        }
        let writable = file.writable;
        match file.object {
            Object::Node(node) => Ok((self.contents(node).map_err(|_| Errno::ENODEV)?, writable)),
            Object::Nameless(file) => Ok((file, writable)),
            _ => Err(Errno::ENODEV),
        }
    }

    pub(crate) fn munmap(&mut self, tid: Tid, address: u64, bytes: u64) -> Answer {
        let pages = range(address, bytes).map_err(|_| Errno::EINVAL)?;
        if pages.is_empty() || pages.end > USER_END.page() {
            return Err(Errno::EINVAL.into());
        }
        self.change_space(tid, |k, at, space| k.vm.unmap(at, k.pc, space, pages))?;
        self.forget_unmapped();
        Ok(0)
    }

    pub(crate) fn mremap(&mut self, tid: Tid, a: &Arguments) -> Answer {
        let &[old, old_bytes, new_bytes, flags, to, _] = a;
        let flags = flags as u32;
        let known = flags & !(nr::MREMAP_MAYMOVE | nr::MREMAP_FIXED) == 0;
        if !known || new_bytes == 0 || old_bytes == 0 {
            return Err(Errno::EINVAL.into()); // 0 old bytes would duplicate a shared mapping
        }
        let old = range(old, old_bytes).map_err(|_| Errno::EINVAL)?;
        let area = self.space(tid).areas().find(old.start).ok_or(Errno::EFAULT)?;
        if old.end > area.pages.end {
            return Err(Errno::EFAULT.into());
        }
        let count = pages_in(new_bytes).ok_or(Errno::EINVAL)?;
        let place = if flags & nr::MREMAP_FIXED != 0 {
            if flags & nr::MREMAP_MAYMOVE == 0 || !to.is_multiple_of(PAGE_BYTES) {
                return Err(Errno::EINVAL.into());
            }
            Move::To(VirtAddr(to).page())
        } else if flags & nr::MREMAP_MAYMOVE != 0 {
            Move::May
        } else {
            Move::Never
        };
        let moved =
            self.change_space(tid, |k, at, space| k.vm.remap(at, k.pc, space, old, count, place));
        let moved = moved.map_err(|halt| match halt {
            Halt::Errno(Errno::EEXIST) => Errno::ENOMEM.into(),
            halt => halt,
        })?;
        self.forget_unmapped();
        Ok(moved.start.address().0)
    }

    pub(crate) fn mprotect(
        &mut self,
        tid: Tid,
        address: u64,
        bytes: u64,
        protection: u64,
    ) -> Answer {
        let rights = rights(protection)?;
        let pages = range(address, bytes)?;
        if !pages.is_empty() {
            self.change_space(tid, |k, at, space| k.vm.protect(at, k.pc, space, pages, rights))?;
        }
        Ok(0)
    }

    pub(crate) fn brk(&mut self, tid: Tid, end: u64) -> Answer {
        let space = self.space(tid);
        let now = space.brk().0;
        if end == now || end < space.layout().brk_start.0 {
            return Ok(now);
        }
        let moved = self.change_space(tid, |k, at, space| k.vm.brk(at, k.pc, space, VirtAddr(end)));
        match moved {
            Ok(()) => Ok(end),
            Err(Halt::Errno(_)) => Ok(now),
            Err(halt) => Err(halt),
        }
    }

    pub(crate) fn madvise(&mut self, tid: Tid, address: u64, bytes: u64, advice: u64) -> Answer {
        let pages = range(address, bytes)?;
        let advise = match advice as u32 {
            nr::MADV_NORMAL => Advise::Use(Advice::Normal),
            nr::MADV_RANDOM => Advise::Use(Advice::Random),
            nr::MADV_SEQUENTIAL => Advise::Use(Advice::Sequential),
            nr::MADV_WILLNEED => Advise::WillNeed,
            nr::MADV_DONTNEED => Advise::DontNeed,
            nr::MADV_FREE => Advise::Free,
            nr::MADV_REMOVE => Advise::Remove,
            nr::MADV_DONTFORK => Advise::Set(VmaFlags::DONT_FORK),
            nr::MADV_DOFORK => Advise::Clear(VmaFlags::DONT_FORK),
            nr::MADV_HUGEPAGE => Advise::Set(VmaFlags::HUGE),
            nr::MADV_NOHUGEPAGE => Advise::Set(VmaFlags::NO_HUGE),
            nr::MADV_WIPEONFORK => Advise::Set(VmaFlags::WIPE_ON_FORK),
            nr::MADV_KEEPONFORK => Advise::Clear(VmaFlags::WIPE_ON_FORK),
            nr::MADV_COLD => Advise::Cold,
            nr::MADV_PAGEOUT => {
                self.covered(tid, pages)?;
                self.change_space(tid, |k, at, space| k.vm.page_out(at, k.pc, space, pages))?;
                return Ok(0);
            }
            nr::MADV_POPULATE_READ => return self.populate(tid, pages, Access::Read),
            nr::MADV_POPULATE_WRITE => return self.populate(tid, pages, Access::Write),
            nr::MADV_MERGEABLE | nr::MADV_UNMERGEABLE | nr::MADV_DONTDUMP | nr::MADV_DODUMP => {
                self.covered(tid, pages)?;
                return Ok(0); // equal pages are not merged, and there are no dumps
            }
            _ => return Err(Errno::EINVAL.into()),
        };
        if !pages.is_empty() {
            self.change_space(tid, |k, at, space| k.vm.advise(at, k.pc, space, pages, advise))?;
        }
        Ok(0)
    }

    fn covered(&mut self, tid: Tid, pages: Pages) -> Result<(), Errno> {
        let space = self.space(tid);
        space.areas().covered(pages).map_err(|_| Errno::ENOMEM)
    }

    /// Touches pages; those that are done stay done when it must wait.
    fn populate(&mut self, tid: Tid, pages: Pages, access: Access) -> Answer {
        self.covered(tid, pages)?;
        let done = self.tasks.threads[tid].progress;
        for page in pages.iter().skip(done as usize) {
            self.reach(tid, page, access).map_err(|halt| match halt {
                Halt::Bad(Cause::Violation(Violation::Forbidden)) => Errno::EINVAL.into(),
                Halt::Bad(Cause::Violation(_)) => Errno::EFAULT.into(),
                Halt::Bad(_) => Errno::EIO.into(),
                halt => halt,
            })?;
            self.tasks.threads[tid].progress += 1;
        }
        Ok(0)
    }

    pub(crate) fn mincore(&mut self, tid: Tid, address: u64, bytes: u64, to: u64) -> Answer {
        let pages = range(address, bytes)?;
        self.covered(tid, pages)?;
        let mut part = [0; 512];
        // Ends: each turn tells of so many pages more, as far as the program has room for that.
        loop {
            let done = self.tasks.threads[tid].progress;
            let count = (pages.count() - done).min(part.len() as u64);
            if count == 0 {
                return Ok(0);
            }
            let space = self.space(tid);
            let some = Pages::at(pages.start.up(done), count);
            for (byte, page) in part.iter_mut().zip(some.iter()) {
                *byte = is_resident(&self.vm, self.pc, space, page).into();
            }
            self.copy_out(tid, to.wrapping_add(done), &part[..count as usize])?;
            self.tasks.threads[tid].progress += count;
        }
    }

    pub(crate) fn msync(&mut self, tid: Tid, address: u64, bytes: u64, flags: u64) -> Answer {
        let (both, flags) = (nr::MS_ASYNC | nr::MS_SYNC, flags as u32);
        if flags & !(both | nr::MS_INVALIDATE) != 0 || flags & both == both {
            return Err(Errno::EINVAL.into());
        }
        // Files that can be written live in memory: there is no disk to write them to.
        self.covered(tid, range(address, bytes)?)?;
        Ok(0)
    }

    pub(crate) fn mlock(&mut self, tid: Tid, address: u64, bytes: u64) -> Answer {
        let start = VirtAddr(address).page();
        let end = VirtAddr(address.checked_add(bytes).ok_or(Errno::EINVAL)?).page_up();
        let pages = Pages::new(start, end);
        self.change_space(tid, |k, _, space| k.vm.lock(k.pc, space, pages))?;
        let done = self.tasks.threads[tid].progress;
        for page in pages.iter().skip(done as usize) {
            self.bring_in(tid, page)?;
            self.tasks.threads[tid].progress += 1;
        }
        Ok(0)
    }

    /// Makes a locked page resident: by a write where that would be a copy of its own.
    fn bring_in(&mut self, tid: Tid, page: Page) -> Result<(), Halt> {
        let space = self.space(tid);
        let area = space.areas().find(page).ok_or(Errno::ENOMEM)?;
        let write = area.permits(Access::Write) && area.is_private();
        let access = if write { Access::Write } else { Access::Read };
        match self.reach(tid, page, access) {
            Ok(_) => Ok(()),
            Err(Halt::Bad(_)) => Err(Errno::ENOMEM.into()),
            Err(halt) => Err(halt),
        }
    }

    pub(crate) fn munlock(&mut self, tid: Tid, address: u64, bytes: u64) -> Answer {
        let start = VirtAddr(address).page();
        let end = VirtAddr(address.checked_add(bytes).ok_or(Errno::EINVAL)?).page_up();
        let pages = Pages::new(start, end);
        self.change_space(tid, |k, _, space| k.vm.unlock(k.pc, space, pages))?;
        Ok(0)
    }

    /// The lowest area with a page at or above `page`.
    fn next_area(&mut self, tid: Tid, page: Page) -> Option<Vma> {
        self.space(tid).areas().at_or_above(page).copied()
    }

    pub(crate) fn mlockall(&mut self, tid: Tid, flags: u64) -> Answer {
        let flags = flags as u32;
        if flags == 0 || flags & !(nr::MCL_CURRENT | nr::MCL_FUTURE) != 0 {
            return Err(Errno::EINVAL.into()); // MCL_ONFAULT is not supported
        }
        self.process(tid).locks_all = flags & nr::MCL_FUTURE != 0;
        if flags & nr::MCL_CURRENT == 0 {
            return Ok(0);
        }
        // The page that it has come to.
        let mut next = Page(self.tasks.threads[tid].progress);
        while let Some(area) = self.next_area(tid, next) {
            let pages = area.pages;
            next = pages.end;
            self.change_space(tid, |k, _, space| k.vm.lock(k.pc, space, pages))?;
            let from = pages.start.0.max(self.tasks.threads[tid].progress);
            // An area without rights has nothing that could be brought in.
            let wanted = if area.rights.is_empty() { pages.end } else { Page(from) };
            for page in Pages::new(wanted, pages.end).iter() {
                match self.bring_in(tid, page) {
                    Ok(()) | Err(Halt::Errno(_)) => {} // beyond the end of a file
                    Err(halt) => return Err(halt),
                }
                self.tasks.threads[tid].progress = page.0 + 1;
            }
        }
        Ok(0)
    }

    pub(crate) fn munlockall(&mut self, tid: Tid) -> Answer {
        self.process(tid).locks_all = false;
        let mut next = Page(0);
        while let Some(Vma { pages, .. }) = self.next_area(tid, next) {
            next = pages.end;
            self.change_space(tid, |k, _, space| k.vm.unlock(k.pc, space, pages))?;
        }
        Ok(0)
    }

    /// Gives up files that nobody can name, open or has mapped any more.
    pub(crate) fn forget_unmapped(&mut self) {
        if self.files.nameless.is_empty() {
            return;
        }
        // In one pass over the areas, as there may be many of them and of files.
        self.files.nameless.sort_unstable();
        let mut mapped = alloc::vec![false; self.files.nameless.len()];
        for area in self.tasks.spaces.iter().flatten().flat_map(|slot| slot.space.areas().iter()) {
            if let Backing::File { file, .. } = area.backing
                && let Ok(place) = self.files.nameless.binary_search(&file)
            {
                mapped[place] = true;
            }
        }
        let at = crate::kernel::now();
        for place in (0..mapped.len()).rev().filter(|&place| !mapped[place]) {
            let file = self.files.nameless.swap_remove(place);
            self.files.segments.retain(|_, segment| !segment.removed || segment.file != file);
            self.vm.remove_file(at, self.pc, file);
        }
    }
}

/// Whether a page can be used without I/O.
fn is_resident(vm: &vellum_mm::Vm, pc: &Pc, space: &AddressSpace, page: Page) -> bool {
    let leaf = x86::find_leaf(pc, space.root(), page);
    if leaf.is_some_and(|leaf| x86::load(x86::word(pc, leaf, page)).has(x86::PRESENT)) {
        return true;
    }
    let Some((file, index)) = space.areas().find(page).and_then(|area| area.file_page(page)) else {
        return false;
    };
    let object = vm.store().files.get(file);
    let object = object.lock();
    matches!(object.index.get(pc, index), Cached::Frame(_))
}

/// Pages that hold so many bytes; `None` beyond all addresses.
pub(crate) fn pages_in(bytes: u64) -> Option<u64> {
    let pages = bytes.div_ceil(PAGE_BYTES);
    (pages <= USER_END.0 / PAGE_BYTES).then_some(pages)
}

/// The pages of a range that must begin at a page.
fn range(address: u64, bytes: u64) -> Result<Pages, Errno> {
    if !address.is_multiple_of(PAGE_BYTES) {
        return Err(Errno::EINVAL);
    }
    let count = pages_in(bytes).ok_or(Errno::ENOMEM)?;
    let start = VirtAddr(address).page();
    if start.0 + count > USER_END.0 / PAGE_BYTES + 1 {
        return Err(Errno::EINVAL);
    }
    Ok(Pages::at(start, count))
}

/// What `PROT_READ`, `PROT_WRITE` and `PROT_EXEC` are together.
const RIGHTS: u64 = (nr::PROT_READ | nr::PROT_WRITE | nr::PROT_EXEC) as u64;

fn rights(protection: u64) -> Result<Rights, Errno> {
    let protection = protection as u32;
    if protection & !(nr::PROT_READ | nr::PROT_WRITE | nr::PROT_EXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let mut rights = Rights::empty();
    rights.set(Rights::READ, protection & nr::PROT_READ != 0);
    rights.set(Rights::WRITE, protection & nr::PROT_WRITE != 0);
    rights.set(Rights::EXECUTE, protection & nr::PROT_EXEC != 0);
    Ok(rights)
}
