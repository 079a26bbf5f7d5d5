//! `mlock` and `munlock`: pages that may not be evicted.
//!
//! A locked area pins every frame that it maps. Pages that are not resident are brought in by whoever
//! calls: it touches the range that [`lock`] returns, since only it can wait for a disk.

use super::map::Refused;
use super::space::AddressSpace;
use super::vma::VmaFlags;
use crate::addr::{Frame, Pages};
use crate::frames::table::{Flags, Locked};
use crate::machine::Machine;
use crate::objects::Store;
use crate::objects::store::identity;
use crate::translate::x86_64::{self as x86, Holds};

/// Locks the areas in `pages`.
///
/// # Errors
/// `Hole` if some page is in no area: the areas below it are locked then, as on Linux, and nobody brings
/// their pages in. If there would be too many areas; nothing has changed then.
pub fn lock<M: Machine>(
    store: &Store,
    machine: &M,
    space: &mut AddressSpace,
    pages: Pages,
) -> Result<(), Refused> {
    let hole = space.areas.covered(pages).err();
    let pages = Pages::new(pages.start, hole.unwrap_or(pages.end));
    // Only pages of areas that were not locked get a pin: each mapping pins once.
    for vma in space.areas.iter_range(pages) {
        if !vma.flags.contains(VmaFlags::LOCKED) {
            each_frame(store, machine, space, vma.pages.intersect(pages), |store, frame| {
                store.unlist(frame);
                frame.pin();
            });
        }
    }
    if let Err(error) = space.areas.change(pages, |vma| vma.flags.insert(VmaFlags::LOCKED)) {
        unpin(store, machine, space, pages, VmaFlags::empty());
        return Err(error.into());
    }
    hole.map_or(Ok(()), |page| Err(Refused::Hole(page)))
}

/// Unlocks the areas in `pages`.
///
/// # Errors
/// As [`lock`].
pub fn unlock<M: Machine>(
    store: &Store,
    machine: &M,
    space: &mut AddressSpace,
    pages: Pages,
) -> Result<(), Refused> {
    let hole = space.areas.covered(pages).err();
    let pages = Pages::new(pages.start, hole.unwrap_or(pages.end));
    unpin(store, machine, space, pages, VmaFlags::LOCKED);
    let both = VmaFlags::LOCKED | VmaFlags::LOCK_ON_FAULT;
    if let Err(error) = space.areas.change(pages, |vma| vma.flags.remove(both)) {
        for vma in space.areas.iter_range(pages) {
            if vma.flags.contains(VmaFlags::LOCKED) {
                each_frame(store, machine, space, vma.pages.intersect(pages), |store, frame| {
                    store.unlist(frame);
                    frame.pin();
                });
            }
        }
        return Err(error.into());
    }
    hole.map_or(Ok(()), |page| Err(Refused::Hole(page)))
}

/// Unpins what the areas of `pages` map that have all of `with`: with no flags, those that are not
/// locked, which undoes a [`lock`].
fn unpin<M: Machine>(
    store: &Store,
    machine: &M,
    space: &AddressSpace,
    pages: Pages,
    with: VmaFlags,
) {
    for vma in space.areas.iter_range(pages) {
        if vma.flags.contains(VmaFlags::LOCKED) != with.contains(VmaFlags::LOCKED) {
            continue;
        }
        each_frame(store, machine, space, vma.pages.intersect(pages), |store, frame| {
            if frame.state().pins() > 0 {
                frame.unpin();
            }
            let page = identity(store, machine, frame);
            store.list(frame, page);
        });
    }
}

fn each_frame<M: Machine>(
    store: &Store,
    machine: &M,
    space: &AddressSpace,
    pages: Pages,
    mut each: impl FnMut(&Store, &mut Locked<'_>),
) {
    x86::for_leaves(machine, space.root(), pages, |leaf, part| {
        for page in part.iter() {
            let word = x86::word(machine, leaf, page);
            let Holds::Frame(frame) = x86::load(word).holds() else { continue };
            if frame == store.zero {
                continue;
            }
            let mut locked = store.frames.table.lock(frame);
            if still_maps(word, frame) && !locked.state().has(Flags::READING) {
                each(store, &mut locked);
            }
        }
    });
}

fn still_maps(word: &core::sync::atomic::AtomicU64, frame: Frame) -> bool {
    x86::load(word).holds() == Holds::Frame(frame)
}

#[cfg(test)]
mod tests {
    use crate::addr::Page;
    use crate::addr::Pages;
    use crate::frames::table::Flags;
    use crate::machine::Access;
    use crate::spaces::map::Refused;
    use crate::spaces::vma::VmaFlags;
    use crate::testing::{AT, Bench};

    const PAGE: Page = Page(0x1000);

    #[test]
    fn a_locked_page_is_in_no_order_of_eviction() {
        let bench = Bench::new(64, 8);
        let mut space = bench.space();
        let pages = bench.map(&mut space, PAGE, 2);
        bench.touch(&mut space, PAGE, Access::Write).unwrap();
        let frame = bench.entry(&space, PAGE).frame();
        bench.vm.lock(&bench.ram, &mut space, pages).unwrap();
        assert!(bench.state(frame).pins() == 1 && !bench.state(frame).has(Flags::LISTED));
        let refused = bench.vm.page_out(AT, &bench.ram, &space, pages);
        assert_eq!(refused, Err(Refused::Invalid));
        bench.touch(&mut space, PAGE.up(1), Access::Write).unwrap();
        let later = bench.entry(&space, PAGE.up(1)).frame();
        assert_eq!(bench.state(later).pins(), 1, "pages that come later are locked as well");
        bench.vm.unlock(&bench.ram, &mut space, pages).unwrap();
        assert_eq!(bench.page_out(&space, pages), 2);
        bench.settle();
        bench.check(&[&space]);
    }

    #[test]
    fn a_hole_ends_what_is_locked_or_unlocked() {
        let bench = Bench::new(64, 8);
        let mut space = bench.space();
        bench.map(&mut space, PAGE, 1);
        bench.map(&mut space, PAGE.up(2), 1);
        let all = Pages::at(PAGE, 3);
        let locked = |space: &crate::spaces::AddressSpace| {
            [PAGE, PAGE.up(2)].map(|page| space.areas().find(page).unwrap().flags)
        };
        let hole = Err(Refused::Hole(PAGE.up(1)));
        assert_eq!(bench.vm.lock(&bench.ram, &mut space, all), hole);
        assert_eq!(locked(&space), [VmaFlags::LOCKED, VmaFlags::empty()]);
        bench.vm.lock(&bench.ram, &mut space, Pages::at(PAGE.up(2), 1)).unwrap();
        assert_eq!(bench.vm.unlock(&bench.ram, &mut space, all), hole);
        assert_eq!(locked(&space), [VmaFlags::empty(), VmaFlags::LOCKED]);
        bench.check(&[&space]);
    }

    #[test]
    fn the_childs_copy_is_not_locked_and_the_rest_can_go_when_the_parent_is_gone() {
        let bench = Bench::new(64, 8);
        let mut parent = bench.space();
        let pages = bench.map(&mut parent, PAGE, 1);
        bench.vm.lock(&bench.ram, &mut parent, pages).unwrap();
        bench.touch(&mut parent, PAGE, Access::Write).unwrap();
        let child = bench.fork(&mut parent);
        let frame = bench.entry(&child, PAGE).frame();
        assert_eq!(bench.state(frame).pins(), 1);
        bench.vm.destroy(AT, &bench.ram, parent);
        assert!(bench.state(frame).has(Flags::LISTED), "nobody pins it any more");
        bench.check(&[&child]);
    }
}
