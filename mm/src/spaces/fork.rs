//! `fork`: a copy of an address space that shares every frame until somebody writes.
//!
//! Areas are cloned. Entries are copied only for private areas with anonymous pages: all others can be
//! found again through their file, at the next fault, as on Linux. In both copies the right to write
//! goes, so that the first write to either faults and copies.

use super::space::AddressSpace;
use super::unmap::destroy;
use super::vma::{Backing, Sharing, Vma, VmaFlags};
use crate::addr::{Frame, Page, Pages};
use crate::frames::table::Kind;
use crate::frames::{NoMemory, rmap};
use crate::machine::{At, Machine};
use crate::objects::store::Resides;
use crate::objects::{Flush, Store};
use crate::translate::x86_64::{self as x86, Holds, WRITE};

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
    let all = Pages::new(Page(0), super::layout::USER_END.page_up());
    // Memory locks are not inherited (mlock(2)).
    let unlock = child.areas.change(all, |vma| {
        vma.flags.remove(VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT);
    });
    debug_assert!(unlock.is_ok(), "areas that become more alike do not become more");
    drop_unforked(&mut child, all);
    let mut flush = Flush::new(parent.id());
    let mut copy = || -> Result<(), NoMemory> {
        for area in parent.areas.iter() {
            let wiped = area.flags.intersects(VmaFlags::DONT_FORK | VmaFlags::WIPE_ON_FORK);
            if area.sharing == Sharing::Private && !wiped && has_anon(store, machine, parent, area)
            {
                copy_area(store, at, machine, parent, &mut child, area, &mut flush)?;
            }
        }
        Ok(())
    };
    let copied = copy();
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
                let locked = store.frames.table.lock(frame);
                // Otherwise evicted before it was locked: the entry tells where to.
                if x86::load(word).holds() == Holds::Frame(frame) {
                    return locked.state().kind() == Kind::Anon;
                }
            }
        }
    };
    let mut found = false;
    x86::for_leaves(machine, space.root(), area.pages, |leaf, part| {
        found = found || part.iter().any(|page| is_anon(x86::word(machine, leaf, page)));
    });
    found
}

fn copy_area<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    parent: &AddressSpace,
    child: &mut AddressSpace,
    area: &Vma,
    flush: &mut Flush,
) -> Result<(), NoMemory> {
    let mut result = Ok(());
    x86::for_leaves(machine, parent.root(), area.pages, |leaf, part| {
        if result.is_ok() {
            result = copy_leaf(store, at, machine, child, leaf, part, flush);
        }
    });
    result
}

fn copy_leaf<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    child: &mut AddressSpace,
    leaf: Frame,
    part: Pages,
    flush: &mut Flush,
) -> Result<(), NoMemory> {
    for page in part.iter() {
        let from = x86::word(machine, leaf, page);
        if x86::load(from).0 == 0 {
            continue;
        }
        let child_leaf = child.make_leaf(store, at, machine, page)?;
        let to = x86::word(machine, child_leaf, page);
        // An eviction may turn a present entry into a swap entry until its frame is locked.
        loop {
            let entry = x86::load(from);
            match entry.holds() {
                Holds::Empty => break,
                Holds::Swapped(slot) => {
                    store.swap.duplicate(slot);
                    x86::store(to, entry);
                    store.resident_up(child.id(), Resides::Swapped);
                    break;
                }
                Holds::Frame(frame) if frame == store.zero => {
                    x86::store(to, entry);
                    break;
                }
                Holds::Frame(frame) => {
                    let mut locked = store.frames.table.lock(frame);
                    if x86::load(from).holds() != Holds::Frame(frame) {
                        continue;
                    }
                    let place = x86::entry_at(child_leaf, page);
                    rmap::add(&store.frames, at, machine, &mut locked, place)?;
                    let old = x86::change(from, WRITE, 0);
                    if old.has(WRITE) {
                        flush.page(page);
                    }
                    x86::store(to, x86::Entry(old.0 & !WRITE));
                    store.resident_up(child.id(), Resides::from(locked.state().kind()));
                    break;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Access;
    use crate::objects::file::Medium;
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
        assert!(bench.vm.census().words > 0, "a second mapping needs a link");
        bench.vm.destroy(AT, &bench.ram, child);
        assert_eq!(bench.vm.census(), before);
        assert_eq!(bench.vm.store().swap.used(), slots);
    }
}
