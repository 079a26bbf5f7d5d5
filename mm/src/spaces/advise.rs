//! `madvise`: what a program says of the memory that it will or will not use.

use super::map::Refused;
use super::protect::refresh;
use super::space::AddressSpace;
use super::unmap::clear;
use super::vma::{Advice, Backing, Rights, Sharing, Vma, VmaFlags};
use crate::addr::{Page, Pages};
use crate::frames::table::{Flags, Kind};
use crate::machine::{At, Machine};
use crate::objects::file::Medium;
use crate::objects::page_cache::punch;
use crate::objects::read::prefetch;
use crate::objects::store::{Resides, anon_page};
use crate::objects::{Flush, Store, swap};
use crate::translate::x86_64::{self as x86, ACCESSED, DIRTY, Entry, Holds};

/// What is advised (madvise(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advise {
    /// Usual replacement and read-ahead (`NORMAL`, `RANDOM`, `SEQUENTIAL`).
    Use(Advice),
    /// The pages will be used soon: start to read them (`WILLNEED`).
    WillNeed,
    /// The contents are not needed: private pages go at once (`DONTNEED`).
    DontNeed,
    /// The contents are not needed unless written again: pages go when memory is short (`FREE`).
    Free,
    /// The pages will not be used for a while: they go first when memory is short (`COLD`).
    Cold,
    /// The contents go from shared memory itself, for all who map it (`REMOVE`). Refused for files on a
    /// disk, as by a file system that knows no holes, and where the area may not be written.
    Remove,
    /// A flag of the areas is set (`HUGEPAGE`, `NOHUGEPAGE`, `DONTFORK`, `WIPEONFORK`).
    Set(VmaFlags),
    /// A flag of the areas is cleared (`DOFORK`, `KEEPONFORK`).
    Clear(VmaFlags),
}

/// Applies `advise` to the areas in `pages`.
///
/// # Errors
/// `Invalid` or `Denied` if an area cannot be so advised (nothing has changed in and above it); `Hole` if
/// some pages are in no area: the others have been advised then, and `madvise` answers ENOMEM.
pub fn advise<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    space: &mut AddressSpace,
    pages: Pages,
    advise: Advise,
) -> Result<(), Refused> {
    if advise == Advise::Set(VmaFlags::WIPE_ON_FORK) {
        // What a file holds is not the program's to wipe.
        let mut areas = space.areas.iter_range(pages);
        if areas.any(|area| area.backing != Backing::Anonymous) {
            return Err(Refused::Invalid);
        }
    }
    match advise {
        Advise::Use(advice) => space.areas.change(pages, |vma| vma.advice = advice)?,
        Advise::Set(flags) => space.areas.change(pages, |vma| vma.flags.insert(flags))?,
        Advise::Clear(flags) => space.areas.change(pages, |vma| vma.flags.remove(flags))?,
        Advise::WillNeed | Advise::DontNeed | Advise::Free | Advise::Cold | Advise::Remove => {}
    }
    let mut flush = Flush::new(space.id());
    let mut result = Ok(());
    for vma in space.areas.iter_range(pages) {
        let part = vma.pages.intersect(pages);
        let one = one_area(store, at, machine, space, vma, part, advise, &mut flush);
        if one.is_err() {
            result = one;
            break;
        }
    }
    flush.finish(store, at, machine);
    result?;
    space.areas.covered(pages).map_err(Refused::Hole)
}

#[allow(clippy::too_many_arguments)] // the acting context, and what to advise where
fn one_area<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    space: &AddressSpace,
    vma: &Vma,
    part: Pages,
    advise: Advise,
    flush: &mut Flush,
) -> Result<(), Refused> {
    let locked = vma.flags.contains(VmaFlags::LOCKED);
    match advise {
        Advise::DontNeed | Advise::Free | Advise::Cold | Advise::Remove if locked => {
            Err(Refused::Invalid)
        }
        Advise::DontNeed => {
            clear(store, at, machine, space, vma, part, flush);
            Ok(())
        }
        Advise::Free if vma.backing != Backing::Anonymous || vma.sharing == Sharing::Shared => {
            Err(Refused::Invalid)
        }
        Advise::Free => {
            free_lazily(store, at, machine, space, part, flush);
            Ok(())
        }
        Advise::Cold => {
            cool(store, machine, space, part);
            Ok(())
        }
        Advise::Remove => remove(store, at, machine, vma, part),
        Advise::Use(_) => {
            refresh(machine, space, vma, part, flush);
            Ok(())
        }
        Advise::WillNeed => {
            will_need(store, at, machine, space, vma, part);
            Ok(())
        }
        Advise::Set(_) | Advise::Clear(_) => Ok(()),
    }
}

/// Marks frames that only this space maps as free to go; drops swap slots at once.
fn free_lazily<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    space: &AddressSpace,
    pages: Pages,
    flush: &mut Flush,
) {
    x86::for_leaves(machine, space.root(), pages, |leaf, part| {
        for page in part.iter() {
            let word = x86::word(machine, leaf, page);
            match x86::load(word).holds() {
                Holds::Empty => {}
                Holds::Swapped(slot) => {
                    x86::store(word, Entry(0));
                    store.resident_down(space.id(), Resides::Swapped);
                    swap::drop_reference(store, at, machine, slot);
                }
                Holds::Frame(frame) if frame == store.zero => {}
                Holds::Frame(frame) => {
                    let mut locked = store.frames.table.lock(frame);
                    let state = locked.state();
                    let mine = x86::load(word).holds() == Holds::Frame(frame)
                        && state.kind() == Kind::Anon
                        && state.mapped() == 1
                        && !state.has(Flags::WRITING);
                    if !mine {
                        continue;
                    }
                    if state.has(Flags::IN_SWAP) {
                        if store.swap.references(swap::slot_of(&locked)) > 0 {
                            continue;
                        }
                        swap::leave_cache(store, &mut locked);
                    }
                    x86::change(word, DIRTY | ACCESSED, 0);
                    flush.page(page);
                    locked.clear(Flags::DIRTY | Flags::REFERENCED);
                    locked.set(Flags::LAZY);
                    store.list(&mut locked, anon_page(space.id(), page));
                }
            }
        }
    });
}

/// Takes `part` of an area out of the shared memory that it maps.
fn remove<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    vma: &Vma,
    part: Pages,
) -> Result<(), Refused> {
    let Some((file, first)) = vma.file_page(part.start) else { return Err(Refused::Invalid) };
    if vma.sharing != Sharing::Shared || !vma.rights.contains(Rights::WRITE) {
        return Err(Refused::Denied);
    }
    if store.files.get(file).lock().medium != Medium::Memory {
        return Err(Refused::Invalid);
    }
    punch(store, at, machine, file, first..first + part.count());
    Ok(())
}

/// Lets pages look unused.
fn cool<M: Machine>(store: &Store, machine: &M, space: &AddressSpace, pages: Pages) {
    x86::for_leaves(machine, space.root(), pages, |leaf, part| {
        for page in part.iter() {
            let word = x86::word(machine, leaf, page);
            let Holds::Frame(frame) = x86::load(word).holds() else { continue };
            let mut locked = store.frames.table.lock(frame);
            if x86::load(word).holds() == Holds::Frame(frame) && locked.state().mapped() == 1 {
                x86::change(word, ACCESSED, 0);
                locked.clear(Flags::REFERENCED);
            }
        }
    });
}

/// Starts to read what is not in memory; waits for nothing.
fn will_need<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    space: &AddressSpace,
    vma: &Vma,
    part: Pages,
) {
    if let Some((file, first)) = vma.file_page(part.start) {
        prefetch(store, at, machine, file, first..first + part.count());
    }
    x86::for_leaves(machine, space.root(), part, |leaf, part| {
        for page in part.iter() {
            if let Holds::Swapped(slot) = x86::load(x86::word(machine, leaf, page)).holds() {
                // Found, started, or refused for want of memory: a hint asks for no more.
                drop(swap::find(store, at, machine, slot));
            }
        }
    });
}

/// Pages of `pages` that hold something in a frame, with the frame, for who evicts them (`PAGEOUT`).
pub(crate) fn resident_frames<M: Machine>(
    machine: &M,
    space: &AddressSpace,
    pages: Pages,
    mut each: impl FnMut(Page, crate::addr::Frame),
) {
    x86::for_leaves(machine, space.root(), pages, |leaf, part| {
        for page in part.iter() {
            if let Holds::Frame(frame) = x86::load(x86::word(machine, leaf, page)).holds() {
                each(page, frame);
            }
        }
    });
}
