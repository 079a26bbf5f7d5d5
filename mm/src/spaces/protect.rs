//! `mprotect`: other rights for pages that are mapped already.
//!
//! Entries lose the rights that their area loses. The right to write is given back only where nobody
//! needs to see the first write: to pages that are this space's alone, and to shared memory. All others
//! get it from the next fault, which copies or marks them dirty.

use super::map::Refused;
use super::space::AddressSpace;
use super::vma::{Rights, Sharing, Vma, VmaFlags};
use crate::addr::Pages;
use crate::frames::table::{Flags, Kind, Locked};
use crate::machine::{At, Machine};
use crate::objects::{Flush, Store, swap};
use crate::translate::x86_64::{self as x86, Holds, NO_EXECUTE, NO_RECENCY, PRESENT, USER, WRITE};

/// Gives `pages` these rights, up to the first page in no area or in one that may not have them.
///
/// # Errors
/// `Hole` or `Denied` if there is such a page: those below it have changed then. `TooMany` if there would
/// be too many areas; nothing has changed then.
pub fn protect<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    space: &mut AddressSpace,
    pages: Pages,
    rights: Rights,
) -> Result<(), Refused> {
    let hole = space.areas.covered(pages).err();
    let mut pages = Pages::new(pages.start, hole.unwrap_or(pages.end));
    let mut refused = hole.map(Refused::Hole);
    if rights.contains(Rights::WRITE) {
        let mut areas = space.areas.iter_range(pages);
        if let Some(area) = areas.find(|area| area.flags.contains(VmaFlags::READ_ONLY)) {
            pages.end = area.pages.start.max(pages.start);
            refused = Some(Refused::Denied);
        }
    }
    space.areas.change(pages, |vma| vma.rights = rights)?;
    let mut flush = Flush::new(space.id());
    for vma in space.areas.iter_range(pages) {
        let part = vma.pages.intersect(pages);
        refresh(machine, space, vma, part, &mut flush);
        if rights.contains(Rights::WRITE) {
            allow_writes(store, machine, space, vma, part);
        }
    }
    flush.finish(store, at, machine);
    refused.map_or(Ok(()), Err)
}

/// Lets entries of `pages` be written that a write fault would only let be written.
fn allow_writes<M: Machine>(
    store: &Store,
    machine: &M,
    space: &AddressSpace,
    area: &Vma,
    pages: Pages,
) {
    x86::for_leaves(machine, space.root(), pages, |leaf, part| {
        for page in part.iter() {
            let word = x86::word(machine, leaf, page);
            let Holds::Frame(frame) = x86::load(word).holds() else { continue };
            if frame == store.zero {
                continue;
            }
            let locked = store.frames.table.lock(frame);
            let still = x86::load(word).holds() == Holds::Frame(frame);
            let state = locked.state();
            let lazy = state.has_any(Flags::LAZY | Flags::WRITING);
            let shared = area.sharing == Sharing::Shared && state.has(Flags::MEMORY);
            if still && !lazy && (is_sole(store, &locked) || shared) {
                // No TLB is told: one that knows less faults once more and looks again.
                x86::change(word, 0, WRITE);
            }
        }
    });
}

/// Whether the frame's only mapping is its only use at all, so that a write need not copy it.
pub(crate) fn is_sole(store: &Store, frame: &Locked<'_>) -> bool {
    let state = frame.state();
    state.kind() == Kind::Anon
        && state.mapped() == 1
        && (!state.has(Flags::IN_SWAP) || store.swap.references(swap::slot_of(frame)) == 0)
}

/// The bits of entries in `area` besides WRITE, which depends on the page.
pub(crate) fn entry_bits(area: &Vma) -> u64 {
    let mut bits = 0;
    if !area.rights.is_empty() {
        bits |= USER;
    }
    if !area.rights.contains(Rights::EXECUTE) {
        bits |= NO_EXECUTE;
    }
    if area.advice != super::vma::Advice::Normal {
        bits |= NO_RECENCY;
    }
    bits
}

/// Makes the present entries of `pages` agree with `area`, taking away the right to write where the
/// area has none.
pub(super) fn refresh<M: Machine>(
    machine: &M,
    space: &AddressSpace,
    area: &Vma,
    pages: Pages,
    flush: &mut Flush,
) {
    let set = entry_bits(area);
    let mut clear = (USER | NO_EXECUTE | NO_RECENCY) & !set;
    if !area.rights.contains(Rights::WRITE) {
        clear |= WRITE;
    }
    x86::for_leaves(machine, space.root(), pages, |leaf, part| {
        for page in part.iter() {
            let word = x86::word(machine, leaf, page);
            // An entry that is not present may become a swap entry or empty at any time, but not
            // present: only the owner of the space does that.
            let mut now = x86::load(word);
            while now.has(PRESENT) {
                let new = x86::Entry((now.0 & !clear) | set);
                match x86::exchange(word, now, new) {
                    Ok(()) => {
                        if new != now {
                            flush.page(page);
                        }
                        break;
                    }
                    Err(other) => now = other,
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Page;
    use crate::objects::file::Medium;
    use crate::spaces::map::{Map, Place};
    use crate::spaces::vma::Backing;
    use crate::testing::{AT, Bench};

    #[test]
    fn an_area_of_a_file_that_may_only_be_read_never_gets_the_right_to_write() {
        let bench = Bench::new(64, 0);
        let mut space = bench.space();
        let file = bench.file(2, Medium::Disk);
        let first = bench.map(&mut space, Page(0x1000), 1);
        let map = Map {
            rights: Rights::READ,
            backing: Backing::File { file, offset: 0 },
            sharing: Sharing::Shared,
            flags: VmaFlags::READ_ONLY,
            ..Map::anonymous(Place::Fixed(Page(0x1001)), 2)
        };
        bench.vm.map(AT, &bench.ram, &mut space, map).unwrap();
        let all = Pages::new(first.start, Page(0x1003));
        let protect =
            |space: &mut _, pages, rights| bench.vm.protect(AT, &bench.ram, space, pages, rights);
        protect(&mut space, all, Rights::READ).unwrap();
        let write = Rights::READ | Rights::WRITE;
        assert_eq!(protect(&mut space, all, write), Err(Refused::Denied));
        let rights = |page| space.areas().find(Page(page)).unwrap().rights;
        assert_eq!([rights(0x1000), rights(0x1001)], [write, Rights::READ], "up to the file");
        protect(&mut space, all, Rights::READ | Rights::EXECUTE).unwrap();
    }
}
