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
/// If some page is in no area or there would be too many areas; nothing has changed then.
pub fn lock<M: Machine>(
    store: &Store,
    machine: &M,
    space: &mut AddressSpace,
    pages: Pages,
) -> Result<(), Refused> {
    space.areas.covered(pages).map_err(Refused::Hole)?;
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
    Ok(())
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
    space.areas.covered(pages).map_err(Refused::Hole)?;
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
    Ok(())
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
