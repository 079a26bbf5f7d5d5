//! `fork`: a copy of an address space that shares every frame until somebody writes.
//!
//! Areas are cloned. Entries are copied only for private areas with anonymous pages: all others can be
//! found again through their file, at the next fault, as on Linux. In both copies the right to write
//! goes, so that the first write to either faults and copies.

use core::sync::atomic::AtomicU64;

use super::space::AddressSpace;
use super::unmap::destroy;
use super::vma::{Backing, Vma, VmaFlags};
use crate::addr::{Frame, Page, Pages};
use crate::frames::rmap::Twins;
use crate::frames::table::Kind;
use crate::frames::{NoMemory, rmap};
use crate::machine::{At, Machine};
use crate::objects::store::Resident;
use crate::objects::{Flush, Store};
use crate::translate::x86_64::{self as x86, Entry, Holds, PRESENT, WRITE};

/// Copies `parent`; pages are shared until written.
///
/// # Errors
/// If frames for page tables or reverse-map nodes run out. The parent is as before, but that some of
/// its writes will fault once more.
pub fn fork<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    parent: &mut AddressSpace,
    kernel: Frame,
) -> Result<AddressSpace, NoMemory> {
    let mut child = AddressSpace::new(store, at, machine, parent.layout, kernel)?;
    child.areas = parent.areas.clone();
    child.brk = parent.brk;
    let any = child.areas.iter().fold(VmaFlags::empty(), |any, area| any | area.flags);
    let all = Pages::new(Page(0), super::layout::USER_END.page_up());
    // Memory locks are not inherited (mlock(2)).
    let locks = VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT;
    if any.intersects(locks) {
        let unlock = child.areas.change(all, |vma| vma.flags.remove(locks));
        debug_assert!(unlock.is_ok(), "areas that become more alike do not become more");
    }
    if any.contains(VmaFlags::DONT_FORK) {
        drop_unforked(&mut child, all);
    }
    let mut flush = Flush::new(parent.id());
    let mut sharing = Sharer { store, at, machine, child: &mut child, flush: &mut flush };
    let is_copied = |area: &&Vma| {
        let wiped = area.flags.intersects(VmaFlags::DONT_FORK | VmaFlags::WIPE_ON_FORK);
        area.is_private() && !wiped && has_anon(store, machine, parent, area)
    };
    let mut areas = parent.areas.iter().filter(is_copied);
    let copied = areas.try_for_each(|area| sharing.area(parent, area));
    flush.finish(store, at, machine);
    if let Err(NoMemory) = copied {
        destroy(store, at, machine, child);
        return Err(NoMemory);
    }
    child.note_resident(store);
    Ok(child)
}

/// Takes areas marked `MADV_DONTFORK` out of the child, which has no entries yet.
fn drop_unforked(child: &mut AddressSpace, all: Pages) {
    let mut next = all.start;
    // Ends: each turn goes beyond one area.
    while let Some(vma) = child.areas.at_or_above(next).copied() {
        next = vma.pages.end;
        if vma.flags.contains(VmaFlags::DONT_FORK) {
            child.areas.remove(vma.pages, |_| {}).expect("a whole area divides none");
        }
    }
}

/// Whether an area holds pages that no file could give back.
fn has_anon<M: Machine>(store: &Store, machine: &M, space: &AddressSpace, area: &Vma) -> bool {
    let is_anon = |word| loop {
        match x86::load(word).holds() {
            Holds::Empty => return false,
            Holds::Swapped(_) => return true,
            Holds::Frame(frame) if frame == store.zero => return false,
            Holds::Frame(_) if area.backing == Backing::Anonymous => return true,
            Holds::Frame(frame) => {
                let kind = store.frames.table.peek(frame).kind();
                // Otherwise evicted before it was looked at: the entry tells where to. It cannot have
                // come back, since only faults of this space would bring it.
                if x86::load(word).holds() == Holds::Frame(frame) {
                    return kind == Kind::Anon;
                }
            }
        }
    };
    let mut found = false;
    x86::for_leaves(machine, space.root(), area.pages, |leaf, part| {
        found = found || x86::words(machine, leaf, part).iter().any(is_anon);
    });
    found
}

/// What gives a child its parent's pages.
struct Sharer<'a, M> {
    store: &'a Store,
    at: At,
    machine: &'a M,
    child: &'a mut AddressSpace,
    flush: &'a mut Flush,
}

impl<M: Machine> Sharer<'_, M> {
    fn area(&mut self, parent: &AddressSpace, area: &Vma) -> Result<(), NoMemory> {
        let mut result = Ok(());
        x86::for_leaves(self.machine, parent.root(), area.pages, |leaf, part| {
            if result.is_ok() {
                result = self.leaf(leaf, part);
            }
        });
        result
    }

    /// The entries of `part` in the table `leaf`.
    #[inline(never)] // its loop needs all registers
    fn leaf(&mut self, leaf: Frame, part: Pages) -> Result<(), NoMemory> {
        let (store, machine) = (self.store, self.machine);
        let from = x86::words(machine, leaf, part);
        if from.iter().all(|word| x86::load(word).0 == 0) {
            return Ok(());
        }
        let child_leaf = self.child.make_leaf(store, self.at, machine, part.start)?;
        let to = x86::words(machine, child_leaf, part);
        // A page may be evicted, and counted out, as soon as it is there. So all that may come are
        // counted in before, and those that did not come are taken back.
        let most = part.count();
        store.resident_up_by(self.child.id(), Resident { anon: most, file: most, swapped: most });
        let mut missing = Resident { anon: most, file: most, swapped: most };
        let twins = Twins::new(leaf, child_leaf, x86::entry_at(leaf, part.start).index());
        let mut lost_right = false;
        let (mut done, mut result) = (0, Ok(()));
        while result.is_ok() && done < from.len() {
            let (run, common) =
                self.common(&from[done..], &to[done..], twins.up(done), &mut lost_right);
            done += run;
            missing.anon -= common;
            if let (Some(from), Some(to)) = (from.get(done), to.get(done)) {
                result = self.other(from, to, twins.up(done), &mut lost_right, &mut missing);
                done += 1;
            }
        }
        if lost_right {
            self.flush.range(part);
        }
        store.resident_down_by(self.child.id(), missing);
        result
    }

    /// Gives the child pages of anonymous memory that nobody else maps, up to the first entry that
    /// holds anything else. What this costs, a fork costs a thousand times.
    ///
    /// Returns the entries that were looked at, and how many of them hold a page.
    fn common(
        &self,
        from: &[AtomicU64],
        to: &[AtomicU64],
        mut twins: Twins,
        lost_right: &mut bool,
    ) -> (usize, u64) {
        let (mut done, mut empty) = (0, 0);
        for (from, to) in from.iter().zip(to) {
            let entry = x86::load(from);
            if entry.has(PRESENT) {
                let mut locked = self.store.frames.table.lock(entry.frame());
                // It may have been evicted before it was locked.
                let is_common = x86::load(from) == entry
                    && locked.state().kind() == Kind::Anon
                    && rmap::share(&mut locked, twins);
                if !is_common {
                    break;
                }
                give(from, to, entry, lost_right);
            } else if entry.0 == 0 {
                empty += 1;
            } else {
                break;
            }
            done += 1;
            twins = twins.up(1);
        }
        (done, done as u64 - empty)
    }

    /// Gives the child what an entry holds, whatever it is, and takes it from `missing`.
    #[inline(never)]
    fn other(
        &self,
        from: &AtomicU64,
        to: &AtomicU64,
        twins: Twins,
        lost_right: &mut bool,
        missing: &mut Resident,
    ) -> Result<(), NoMemory> {
        let (store, machine) = (self.store, self.machine);
        // Ends: an entry that has changed since it was read was evicted, once, or used.
        loop {
            let entry = x86::load(from);
            match entry.holds() {
                Holds::Empty => {}
                Holds::Frame(frame) if frame == store.zero => x86::store(to, entry),
                Holds::Frame(frame) => {
                    let mut locked = store.frames.table.lock(frame);
                    if x86::load(from) != entry {
                        continue;
                    }
                    if !rmap::share(&mut locked, twins) {
                        rmap::add(&store.frames, self.at, machine, &mut locked, twins.child())?;
                    }
                    give(from, to, entry, lost_right);
                    match locked.state().kind() {
                        Kind::Anon => missing.anon -= 1,
                        _ => missing.file -= 1,
                    }
                }
                Holds::Swapped(slot) => {
                    store.swap.duplicate(slot);
                    x86::store(to, entry);
                    missing.swapped -= 1;
                }
            }
            return Ok(());
        }
    }
}

/// Gives `to` what `from` maps; neither may be written, and if `from` could it has lost a right.
#[inline(always)]
fn give(from: &AtomicU64, to: &AtomicU64, entry: Entry, lost_right: &mut bool) {
    x86::store(to, Entry(entry.0 & !WRITE));
    if entry.has(WRITE) {
        x86::clear(from, WRITE);
        *lost_right = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Access;
    use crate::objects::file::Medium;
    use crate::spaces::vma::Sharing;
    use crate::testing::{AT, Bench};

    const PAGE: Page = Page(0x1000);

    #[test]
    fn only_pages_that_no_file_could_give_back_are_copied() {
        let bench = Bench::new(64, 0);
        let mut parent = bench.space();
        let file = bench.file(2, Medium::Disk);
        bench.map_file(&mut parent, PAGE, (file, 2), Sharing::Shared);
        let private = Page(0x2000);
        bench.map_file(&mut parent, private, (file, 2), Sharing::Private);
        for page in [PAGE, private, private.up(1)] {
            bench.touch(&mut parent, page, Access::Read).unwrap();
        }
        let child = bench.fork(&mut parent);
        assert_eq!(child.tables(), 1, "no table was needed");
        // One written page, and the entries of its area are copied.
        bench.touch(&mut parent, private, Access::Write).unwrap();
        let other = bench.fork(&mut parent);
        assert!(x86::load(x86::word(&bench.ram, leaf(&bench, &other), private)).0 != 0);
        assert_eq!(bench.entry(&other, PAGE).0, 0);
        bench.check(&[&parent, &child, &other]);
    }

    fn leaf(bench: &Bench, space: &AddressSpace) -> Frame {
        x86::find_leaf(&bench.ram, space.root(), Page(0x2000)).expect("its entries were copied")
    }

    #[test]
    fn fork_and_exit_leave_nothing_behind() {
        let bench = Bench::new(128, 16);
        let mut parent = bench.space();
        let pages = bench.map(&mut parent, PAGE, 6);
        for page in pages.iter() {
            bench.touch(&mut parent, page, Access::Write).unwrap();
        }
        bench.page_out(&parent, Pages::at(PAGE, 3));
        bench.settle();
        let (before, slots) = (bench.vm.census(), bench.vm.store().swap.used());
        let mut child = bench.fork(&mut parent);
        bench.touch(&mut child, PAGE.up(4), Access::Write).unwrap();
        bench.touch(&mut child, PAGE.up(5), Access::Read).unwrap();
        assert_eq!(bench.vm.census().words, before.words, "two mappings need no link");
        let grandchild = bench.fork(&mut child);
        assert!(bench.vm.census().words > before.words, "a third mapping needs one");
        bench.vm.destroy(AT, &bench.ram, grandchild);
        bench.vm.destroy(AT, &bench.ram, child);
        assert_eq!(bench.vm.census(), before);
        assert_eq!(bench.vm.store().swap.used(), slots);
    }
}
