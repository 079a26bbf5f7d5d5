//! Copy-on-write: a write to a frame that others may see.
//!
//! The writer gets a copy, and the others keep the original. Who turns out to be the last one that has
//! it keeps it and copies nothing.

use super::resolve::{Resolved, Scene, Stop, map_new_anon};
use crate::addr::{Frame, Pages};
use crate::event::Event;
use crate::frames::rmap;
use crate::frames::table::Flags;
use crate::machine::Machine;
use crate::objects::flush::settle;
use crate::objects::store::Resides;
use crate::objects::swap;
use crate::spaces::AddressSpace;
use crate::spaces::protect::is_sole;
use crate::spaces::unmap::note_use;
use crate::spaces::vma::{Vma, VmaFlags};
use crate::translate::x86_64::{self as x86, ACCESSED, DIRTY, Entry, Holds, WRITE};

#[inline(never)]
pub(super) fn copy_on_write<M: Machine>(
    scene: &Scene<'_, M>,
    space: &mut AddressSpace,
    area: &Vma,
    frame: Frame,
) -> Result<Resolved, Stop> {
    let (store, at, machine, page) = (scene.store, scene.at, scene.machine, scene.page);
    let leaf = space.leaf(machine, page).expect("the entry was read from it");
    let word = x86::word(machine, leaf, page);
    let mut locked = store.frames.table.lock(frame);
    if x86::load(word).holds() != Holds::Frame(frame) {
        // Evicted before it was locked: the restarted access faults again, for another reason.
        return Ok(Resolved::Spurious);
    }
    if is_sole(store, &locked) {
        if !locked.state().has(Flags::WRITING) {
            swap::leave_cache(store, &mut locked);
        }
        locked.clear(Flags::LAZY);
        x86::change(word, 0, WRITE | ACCESSED | DIRTY);
        store.counters(at).reuse.add(1);
        machine.happened(Event::Reuse { space: space.id(), page, frame });
        return Ok(Resolved::Reused);
    }
    // Taken out first: `map_new_anon` then finds an empty entry. If it fails, it is put back.
    let old = x86::swap(word, Entry(0));
    machine.invalidate(space.id(), Pages::at(page, 1));
    let was = Some(Resides::from(locked.state().kind()));
    let copied = map_new_anon(scene, space, area, (leaf, word), was, |to| machine.copy(frame, to));
    let to = match copied {
        Ok(to) => to,
        Err(no_memory) => {
            x86::store(word, old);
            return Err(Stop::no_memory_beside(frame)(no_memory));
        }
    };
    let entry_at = x86::entry_at(leaf, page);
    rmap::remove(&store.frames, at, machine, &mut locked, entry_at);
    let unpinned = locked.state().pins() > 0 && area.flags.contains(VmaFlags::LOCKED);
    if unpinned {
        locked.unpin();
    }
    note_use(&mut locked, old);
    // No TLB knows the old entry any more. What others still map needs nothing; and while a flush of
    // theirs holds the frame, that decides.
    let state = locked.state();
    if state.holds() == 0 && (unpinned || state.mapped() == 0) {
        settle(store, at, machine, locked);
    } else {
        drop(locked);
    }
    store.counters(at).copy_on_write.add(1);
    machine.happened(Event::Copy { space: space.id(), page, from: frame, to, read: false });
    Ok(Resolved::Copied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Page;
    use crate::machine::Access;
    use crate::testing::Bench;

    const PAGE: Page = Page(0x1000);

    #[test]
    fn the_writer_copies_and_the_last_owner_keeps_the_original() {
        let bench = Bench::new(64, 0);
        let mut parent = bench.space();
        bench.map(&mut parent, PAGE, 1);
        bench.touch(&mut parent, PAGE, Access::Write).unwrap();
        let original = bench.entry(&parent, PAGE).frame();
        let mut child = bench.fork(&mut parent);
        assert!(!bench.entry(&parent, PAGE).has(WRITE), "both must fault");
        assert_eq!(bench.touch(&mut child, PAGE, Access::Write), Ok(Resolved::Copied));
        assert_eq!(bench.touch(&mut parent, PAGE, Access::Write), Ok(Resolved::Reused));
        assert_eq!(bench.entry(&parent, PAGE).frame(), original);
        assert_ne!(bench.entry(&child, PAGE).frame(), original);
        bench.check(&[&parent, &child]);
    }

    #[test]
    fn a_page_that_swap_still_owes_to_another_is_not_the_writers_own() {
        let bench = Bench::new(64, 8);
        let mut parent = bench.space();
        let pages = bench.map(&mut parent, PAGE, 1);
        bench.touch(&mut parent, PAGE, Access::Write).unwrap();
        bench.page_out(&parent, pages);
        bench.settle();
        let mut child = bench.fork(&mut parent);
        // The parent's entry maps the frame again, the child's still names the slot.
        bench.touch(&mut parent, PAGE, Access::Read).unwrap();
        assert_eq!(bench.touch(&mut parent, PAGE, Access::Write), Ok(Resolved::Copied));
        assert_eq!(bench.touch(&mut child, PAGE, Access::Read), Ok(Resolved::SwapIn));
        bench.check(&[&parent, &child]);
    }

    #[test]
    fn a_copy_without_memory_leaves_the_entry_as_it_was() {
        let bench = Bench::new(16, 0);
        let mut parent = bench.space();
        bench.map(&mut parent, PAGE, 1);
        bench.touch(&mut parent, PAGE, Access::Write).unwrap();
        let mut child = bench.fork(&mut parent);
        let others = bench.map(&mut child, PAGE.up(8), 16);
        let full =
            others.iter().find(|&page| bench.touch(&mut child, page, Access::Write).is_err());
        assert!(full.is_some(), "memory is smaller than that");
        let before = bench.entry(&parent, PAGE);
        let killed = bench.touch(&mut parent, PAGE, Access::Write);
        assert_eq!(killed, Err(crate::fault::Cause::OutOfMemory));
        assert_eq!(bench.entry(&parent, PAGE), before);
        bench.check(&[&parent, &child]);
    }
}
