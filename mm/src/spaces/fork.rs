//! `fork`: a copy of an address space that shares every frame until somebody writes.
//!
//! Areas are cloned. Entries are copied only for private areas with anonymous pages: all others can be
//! found again through their file, at the next fault, as on Linux. In both copies the right to write
//! goes, so that the first write to either faults and copies.

use super::space::AddressSpace;
use super::unmap::destroy;
use super::vma::{Sharing, Vma, VmaFlags};
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
    unlock.expect("areas that become more alike do not become more");
    drop_unforked(&mut child, all);
    let mut flush = Flush::new(parent.id());
    let mut copy = || -> Result<(), NoMemory> {
        for area in parent.areas.iter() {
            let wiped = area.flags.intersects(VmaFlags::DONT_FORK | VmaFlags::WIPE_ON_FORK);
            if area.sharing == Sharing::Private && !wiped && has_anon(store, machine, parent, area) {
                copy_area(store, at, machine, parent, &mut child, area, &mut flush)?;
            }
        }
        Ok(())
    };
    let copied = copy();
    flush.finish(store, at, machine);
    match copied {
        Ok(()) => {
            child.note_resident(store);
            Ok(child)
        }
        Err(NoMemory) => {
            destroy(store, at, machine, child);
            Err(NoMemory)
        }
    }
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
fn has_anon<M: Machine>(
    store: &Store,
    machine: &M,
    space: &AddressSpace,
    area: &Vma,
) -> bool {
    let mut found = false;
    x86::for_leaves(machine, space.root(), area.pages, |leaf, part| {
        found = found
            || part.iter().any(|page| match x86::load(x86::word(machine, leaf, page)).holds() {
                Holds::Empty => false,
                Holds::Swapped(_) => true,
                Holds::Frame(frame) => store.frames.table.peek(frame).kind() == Kind::Anon,
            });
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
