//! Taking a frame out of every page table that maps it.
//!
//! Needs no lock of any address space: the reverse map leads to the entries, and while the frame is
//! locked each of them is alive.

use super::store::{Resides, Store};
use crate::frames::rmap;
use crate::frames::table::{Flags, Kind, Locked};
use crate::machine::{At, Machine};
use crate::translate::x86_64::{self as x86, ACCESSED, DIRTY, Entry, WRITE};

/// Replaces every entry that maps the locked frame by `instead`, and forgets it in every TLB. The
/// entries' dirty bits become the frame's flag. Returns how many entries there were.
pub(crate) fn unmap_everywhere<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    frame: &mut Locked<'_>,
    instead: Entry,
) -> u32 {
    let resides = Resides::from(frame.state().kind());
    let seen = frame.take(Flags::SEEN);
    let mut count = 0;
    // Ends: each turn takes one entry out of the reverse map.
    while let Some(entry_at) = rmap::entries(machine, frame).next() {
        let (space, page) = x86::page_of(&store.frames, entry_at);
        rmap::remove(&store.frames, at, machine, frame, entry_at);
        store.resident_down(space, resides);
        if instead != Entry(0) {
            store.resident_up(space, Resides::Swapped);
        }
        let word = x86::word_at(machine, entry_at);
        if seen || x86::load(word).has(ACCESSED) {
            store.used_then_gone(space);
        }
        // Last: an owner that finds the entry changed does not wait for this frame's lock. It may end
        // the table and the space at once, of which all must be counted by then.
        let old = x86::swap(word, instead);
        debug_assert_eq!(old.frame(), frame.frame(), "the reverse map names another frame's entry");
        machine.invalidate(space, crate::addr::Pages::at(page, 1));
        if old.has(DIRTY) {
            frame.set(Flags::DIRTY);
        }
        count += 1;
    }
    count
}

/// Withdraws the right to write from every entry that maps the locked frame, so that the next write
/// faults and is seen.
pub(crate) fn protect_everywhere<M: Machine>(store: &Store, machine: &M, frame: &Locked<'_>) {
    debug_assert_eq!(frame.state().kind(), Kind::File, "only files are tracked by faults");
    for entry_at in rmap::entries(machine, frame) {
        let old = x86::change(x86::word_at(machine, entry_at), WRITE | DIRTY, 0);
        if old.has(WRITE) {
            let (space, page) = x86::page_of(&store.frames, entry_at);
            machine.invalidate(space, crate::addr::Pages::at(page, 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Page;
    use crate::machine::Access;
    use crate::objects::file::Medium;
    use crate::spaces::vma::Sharing;
    use crate::testing::{AT, Bench, Meddled, Moment};
    use core::cell::Cell;

    #[test]
    fn every_space_loses_the_page_and_every_tlb_is_told() {
        let bench = Bench::new(64, 0);
        let (mut a, mut b) = (bench.space(), bench.space());
        let file = bench.file(1, Medium::Disk);
        let (low, high) = (Page(0x1000), Page(0x9000));
        bench.map_file(&mut a, low, (file, 1), Sharing::Shared);
        bench.map_file(&mut b, high, (file, 1), Sharing::Shared);
        bench.touch(&mut a, low, Access::Read).unwrap();
        bench.touch(&mut b, high, Access::Write).unwrap();
        bench.ram.invalidated.borrow_mut().clear();
        let store = bench.vm.store();
        let mut frame = store.frames.table.lock(bench.entry(&a, low).frame());
        assert_eq!(unmap_everywhere(store, AT, &bench.ram, &mut frame, Entry(0)), 2);
        assert_eq!(frame.state().mapped(), 0);
        drop(frame);
        let mut told: std::vec::Vec<_> = bench
            .ram
            .invalidated
            .borrow()
            .iter()
            .map(|&(space, pages)| (space, pages.start))
            .collect();
        told.sort_unstable();
        assert_eq!(told, [(a.id(), low), (b.id(), high)]);
        assert_eq!((bench.entry(&a, low), bench.entry(&b, high)), (Entry(0), Entry(0)));
    }

    #[test]
    fn when_an_owner_can_see_that_a_page_is_gone_it_is_counted() {
        let bench = Bench::new(64, 8);
        let mut space = bench.space();
        let pages = bench.map(&mut space, Page(0x1000), 1);
        bench.touch(&mut space, Page(0x1000), Access::Write).unwrap();
        let seen = Cell::new(None);
        let meddle = |moment| {
            if moment == Moment::Invalidated {
                let resident = space.resident(bench.vm.store());
                seen.set(Some((bench.entry(&space, Page(0x1000)).0, resident.swapped)));
            }
        };
        let machine = Meddled { ram: &bench.ram, meddle: &meddle };
        assert_eq!(bench.vm.page_out(AT, &machine, &space, pages), Ok(1));
        let (entry, swapped) = seen.get().expect("a TLB was told");
        assert!(entry != 0 && swapped == 1);
        bench.settle();
        bench.check(&[&space]);
    }
}
