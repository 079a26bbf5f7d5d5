//! `mremap`: pages that move to other addresses, or a range that changes its length.
//!
//! Moving moves entries, not contents: each frame's reverse map is told the new place.

use super::areas::Areas;
use super::map::{Map, Place, Refused, map};
use super::space::AddressSpace;
use super::unmap::{free_tables, unmap};
use super::vma::{Vma, VmaFlags};
use crate::addr::{Page, Pages};
use crate::frames::rmap;
use crate::machine::{At, Machine};
use crate::objects::{Flush, Store};
use crate::translate::x86_64::{self as x86, Entry, Holds};

/// Where a remapped range may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// Nowhere: it grows or shrinks in place, or not at all.
    Never,
    /// Anywhere, if there is no room in place (`MREMAP_MAYMOVE`).
    May,
    /// Here; what was there goes (`MREMAP_FIXED`).
    To(Page),
}

/// Changes the range `old`, which must lie in one area, to `count` pages, and perhaps moves it.
/// Returns its pages.
///
/// # Errors
/// If it cannot; nothing has changed then, except that what was at a [`Move::To`] may be gone.
pub fn remap<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    space: &mut AddressSpace,
    old: Pages,
    count: u64,
    place: Move,
) -> Result<Pages, Refused> {
    if count == 0 || old.is_empty() {
        return Err(Refused::Invalid);
    }
    let area = *space.areas.find(old.start).ok_or(Refused::Hole(old.start))?;
    if area.pages.end < old.end {
        return Err(Refused::Hole(area.pages.end));
    }
    if let Move::To(start) = place {
        let target = start.0.checked_add(count).map(|_| Pages::at(start, count));
        return match target {
            Some(new) if !new.overlaps(old) => {
                let kept = Pages::at(old.start, count.min(old.count()));
                let moved =
                    move_range(store, at, machine, space, &area, kept, Place::Fixed(start), count)?;
                unmap(store, at, machine, space, Pages::new(kept.end, old.end))?;
                Ok(moved)
            }
            _ => Err(Refused::Invalid),
        };
    }
    if count <= old.count() {
        let kept = Pages::at(old.start, count);
        unmap(store, at, machine, space, Pages::new(kept.end, old.end))?;
        return Ok(kept);
    }
    // Only a range that ends its area can grow in place.
    let user_end = super::layout::USER_END.page();
    if count > user_end.0 - old.start.0 {
        return Err(Refused::NoRoom);
    }
    let grown = Pages::at(old.start, count);
    if area.pages.end == old.end && space.areas.grow_up(old.start, grown.end).is_ok() {
        return Ok(grown);
    }
    match place {
        Move::May => move_range(store, at, machine, space, &area, old, Place::Anywhere, count),
        _ => Err(Refused::NoRoom),
    }
}

/// Maps `count` pages like `area` at `place`, and moves the entries of `old` there.
#[allow(clippy::too_many_arguments)] // the acting context, and what to move where
fn move_range<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    space: &mut AddressSpace,
    area: &Vma,
    old: Pages,
    place: Place,
    count: u64,
) -> Result<Pages, Refused> {
    // One more, and two cuts each where the new pages and the old ones begin and end.
    if !space.areas.make_room(5) {
        return Err(Refused::TooMany);
    }
    let part = area.part(old).ok_or(Refused::Hole(old.start))?;
    let request = Map {
        place,
        pages: count,
        rights: part.rights,
        backing: part.backing,
        sharing: part.sharing,
        flags: part.flags - VmaFlags::HEAP,
    };
    let new = map(store, at, machine, space, request)?;
    let advise = space.areas.change(new, |vma| vma.advice = part.advice);
    advise.expect("room for the cuts was checked");
    // All that needs memory first: once entries move, nothing may fail.
    if make_ready(store, at, machine, space, old, new.start).is_err() {
        unmap(store, at, machine, space, new)?;
        return Err(Refused::NoMemory);
    }
    let mut flush = Flush::new(space.id());
    move_entries(store, machine, space, old, new.start, &mut flush);
    let mut areas = core::mem::replace(&mut space.areas, Areas::new(0, 0));
    let removed = areas.remove(old, |_| {});
    space.areas = areas;
    removed.expect("room for the cuts was checked");
    free_tables(store, at, machine, space, old, &mut flush);
    flush.finish(store, at, machine);
    Ok(new)
}

/// Makes the leaf tables for where the entries of `old` will go, and lets the reverse map of each frame
/// have entries with any index.
fn make_ready<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    space: &mut AddressSpace,
    old: Pages,
    new: Page,
) -> Result<(), crate::frames::NoMemory> {
    for page in old.iter() {
        let Some(leaf) = space.leaf(machine, page) else { continue };
        let word = x86::word(machine, leaf, page);
        let mut entry = x86::load(word);
        if entry.0 == 0 {
            continue;
        }
        space.make_leaf(store, at, machine, Page(new.0 + (page.0 - old.start.0)))?;
        // Ends: an entry changes but once, when its page is evicted.
        while let Holds::Frame(frame) = entry.holds()
            && frame != store.zero
        {
            let mut locked = store.frames.table.lock(frame);
            let now = x86::load(word);
            if now.holds() == entry.holds() {
                rmap::unpair(&store.frames, at, machine, &mut locked)?;
                break;
            }
            entry = now;
        }
    }
    Ok(())
}

fn move_entries<M: Machine>(
    store: &Store,
    machine: &M,
    space: &mut AddressSpace,
    old: Pages,
    new: Page,
    flush: &mut Flush,
) {
    for page in old.iter() {
        let Some(old_leaf) = space.leaf(machine, page) else { continue };
        let from = x86::word(machine, old_leaf, page);
        let mut entry = x86::load(from);
        if entry.0 == 0 {
            continue;
        }
        let target = Page(new.0 + (page.0 - old.start.0));
        let new_leaf = space.leaf(machine, target).expect("the table was made before");
        let to = x86::word(machine, new_leaf, target);
        // Until its frame is locked, an entry may be evicted; then it is empty or a swap entry.
        while let Holds::Frame(frame) = entry.holds() {
            if frame == store.zero {
                break;
            }
            let mut locked = store.frames.table.lock(frame);
            if x86::load(from).holds() == entry.holds() {
                let taken = x86::swap(from, Entry(0));
                x86::store(to, taken);
                let (old_at, new_at) =
                    (x86::entry_at(old_leaf, page), x86::entry_at(new_leaf, target));
                rmap::replace(machine, &mut locked, old_at, new_at);
                flush.page(page);
                entry = Entry(0);
            } else {
                drop(locked);
                entry = x86::load(from);
            }
        }
        if entry.0 != 0 {
            x86::store(to, entry);
            x86::store(from, Entry(0));
            flush.page(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Access;
    use crate::spaces::layout::USER_END;
    use crate::testing::{AT, Bench};

    const PAGE: Page = Page(0x1000);

    #[test]
    fn a_moved_page_keeps_its_frame_and_the_reverse_map_follows() {
        let bench = Bench::new(64, 8);
        let mut space = bench.space();
        let old = bench.map(&mut space, PAGE, 2);
        bench.touch(&mut space, PAGE, Access::Write).unwrap();
        let frame = bench.entry(&space, PAGE).frame();
        let new = bench.vm.remap(AT, &bench.ram, &mut space, old, 4, Move::To(Page(0x9000)));
        assert_eq!(new, Ok(Pages::at(Page(0x9000), 4)));
        assert_eq!(bench.entry(&space, Page(0x9000)).frame(), frame);
        assert_eq!(bench.page_out(&space, Pages::at(Page(0x9000), 1)), 1, "eviction finds it");
        bench.settle();
        bench.check(&[&space]);
    }

    #[test]
    fn nothing_grows_beyond_what_a_program_may_map() {
        let bench = Bench::new(64, 0);
        let mut space = bench.space();
        let last = Page(USER_END.page().0 - 2);
        let old = bench.map(&mut space, last, 1);
        for (count, place) in [(3, Move::Never), (u64::MAX, Move::May), (u64::MAX, Move::Never)] {
            let grown = bench.vm.remap(AT, &bench.ram, &mut space, old, count, place);
            assert_eq!(grown, Err(Refused::NoRoom), "to {count}");
        }
        assert!(bench.vm.remap(AT, &bench.ram, &mut space, old, 2, Move::Never).is_ok());
    }

    #[test]
    fn a_heap_does_not_grow_over_what_mremap_made_of_it() {
        let bench = Bench::new(64, 0);
        let mut space = bench.space();
        let start = space.layout().heap_start();
        bench.vm.brk(AT, &bench.ram, &mut space, start.up(2).address()).unwrap();
        let heap = Pages::at(start, 2);
        bench.vm.remap(AT, &bench.ram, &mut space, heap, 4, Move::Never).unwrap();
        // The pages above the break are in use: as new heap they would not be zeros.
        let grown = bench.vm.brk(AT, &bench.ram, &mut space, start.up(3).address());
        assert_eq!(grown, Err(Refused::Occupied(start.up(2))));
    }
}
