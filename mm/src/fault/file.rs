//! Faults on files and shared memory: pages from the page cache.

use super::classify::Violation;
use super::resolve::{Cause, Resolved, Scene, Stop, count_mapping, make_evictable, map_new_anon};
use crate::addr::{FileRef, Frame, Page};
use crate::event::Event;
use crate::frames::rmap;
use crate::frames::table::{Flags, Locked};
use crate::machine::{Access, Machine};
use crate::objects::page_cache::{self, Find};
use crate::objects::readahead::Asked;
use crate::objects::store::Resides;
use crate::spaces::AddressSpace;
use crate::spaces::protect::entry_bits;
use crate::spaces::vma::{Rights, Sharing, Vma};
use crate::translate::x86_64::{self as x86, ACCESSED, DIRTY, Entry, Holds, LEAF_PAGES, WRITE};

#[inline(never)]
pub(super) fn fill<M: Machine>(
    scene: &Scene<'_, M>,
    space: &mut AddressSpace,
    area: &Vma,
    file: FileRef,
    index: u64,
) -> Result<Resolved, Stop> {
    let (store, at, machine, page) = (scene.store, scene.at, scene.machine, scene.page);
    // The table first: with the frame locked, a missing one could not be made by reclaiming.
    let leaf = space.make_leaf(store, at, machine, page)?;
    let asked = Asked::Fault(area.advice);
    let mut locked = match page_cache::find(store, at, machine, file, index, asked) {
        Find::Ready(locked) => locked,
        Find::Wait { request, own } => return Err(Stop::Wait { request, own }),
        Find::Beyond => return Err(Stop::Kill(Cause::Violation(Violation::BeyondFile))),
        Find::NoMemory => return Err(Stop::NoMemory(None)),
        Find::Failed => return Err(Stop::Kill(Cause::Io)),
    };
    let from = locked.frame();
    let id = space.id();
    if scene.access == Access::Write && area.sharing == Sharing::Private {
        // The page itself is never mapped: the writer gets its copy at once.
        locked.set(Flags::REFERENCED);
        let place = (leaf, x86::word(machine, leaf, page));
        let copied = map_new_anon(scene, space, area, place, None, |to| machine.copy(from, to));
        let to = copied.map_err(Stop::no_memory_beside(from))?;
        drop(locked);
        count(scene, true);
        machine.happened(Event::Copy { space: id, page, from, to, read: scene.read });
        return Ok(Resolved::Copied);
    }
    if scene.access == Access::Write {
        locked.set(Flags::DIRTY);
    }
    map_cached(scene, space, area, leaf, page, &mut locked)
        .map_err(Stop::no_memory_beside(from))?;
    drop(locked);
    let around =
        if scene.access == Access::Write { 0 } else { map_around(scene, space, area, leaf, file) };
    count(scene, false);
    store.counters(at).around.add(u64::from(around));
    let read = scene.read;
    machine.happened(Event::FileMap { space: id, page, frame: from, around, read });
    Ok(Resolved::File { around })
}

fn count<M: Machine>(scene: &Scene<'_, M>, copied: bool) {
    let counters = scene.store.counters(scene.at);
    match (scene.read, copied) {
        (true, _) => counters.file_fill.add(1),
        (false, true) => counters.copy_on_write.add(1),
        (false, false) => counters.file_map.add(1),
    }
}

/// Maps a page of the cache at `page`. It may be written at once if nobody needs to see the first
/// write: shared memory always counts as dirty.
fn map_cached<M: Machine>(
    scene: &Scene<'_, M>,
    space: &mut AddressSpace,
    area: &Vma,
    leaf: Frame,
    page: Page,
    locked: &mut Locked<'_>,
) -> Result<(), crate::frames::NoMemory> {
    let (store, at, machine) = (scene.store, scene.at, scene.machine);
    rmap::add(&store.frames, at, machine, locked, x86::entry_at(leaf, page))?;
    let mut bits = entry_bits(area) | ACCESSED;
    let writes = page == scene.page && scene.access == Access::Write;
    if writes {
        bits |= WRITE | DIRTY;
    }
    let memory = locked.state().has(Flags::MEMORY);
    if memory && area.sharing == Sharing::Shared && area.rights.contains(Rights::WRITE) {
        bits |= WRITE;
    }
    x86::store(x86::word(machine, leaf, page), Entry::of(locked.frame(), bits));
    locked.clear(Flags::LEAVING);
    make_evictable(scene, space, area, locked);
    count_mapping(scene, space, Resides::from(locked.state().kind()));
    Ok(())
}

/// Maps the neighbours that are in the cache: those of the aligned window around the page, within its
/// area and its leaf table, as `do_fault_around` in Linux's mm/memory.c.
fn map_around<M: Machine>(
    scene: &Scene<'_, M>,
    space: &mut AddressSpace,
    area: &Vma,
    leaf: Frame,
    file: FileRef,
) -> u32 {
    let (store, at, machine) = (scene.store, scene.at, scene.machine);
    let around = store.tunables.fault_around_pages;
    if around <= 1 {
        return 0;
    }
    let start = Page(scene.page.0 & !(around - 1)).max(area.pages.start);
    let table_end = Page((scene.page.0 | (LEAF_PAGES - 1)) + 1);
    let end = start.up(around).min(area.pages.end).min(table_end);
    let object = store.files.get(file);
    let mut object = object.lock();
    let file_pages = object.pages();
    let mut count = 0;
    for page in (start.0..end.0).map(Page).filter(|&page| page != scene.page) {
        if x86::load(x86::word(machine, leaf, page)).0 != 0 {
            continue;
        }
        let (_, index) = area.file_page(page).expect("the area is a file's");
        if index >= file_pages {
            break;
        }
        let found = page_cache::find_around(store, at, machine, file, &mut object, index);
        let Some(mut locked) = found else { continue };
        if map_cached(scene, space, area, leaf, page, &mut locked).is_err() {
            break;
        }
        count += 1;
    }
    count
}

/// The first write to a clean page of a shared file.
#[inline(never)]
pub(super) fn make_dirty<M: Machine>(
    scene: &Scene<'_, M>,
    space: &mut AddressSpace,
    frame: Frame,
) -> Resolved {
    let (store, machine, page) = (scene.store, scene.machine, scene.page);
    let leaf = space.leaf(machine, page).expect("the entry was read from it");
    let word = x86::word(machine, leaf, page);
    let mut locked = store.frames.table.lock(frame);
    if x86::load(word).holds() != Holds::Frame(frame) {
        return Resolved::Spurious;
    }
    locked.set(Flags::DIRTY);
    x86::change(word, 0, WRITE | ACCESSED | DIRTY);
    store.counters(scene.at).make_dirty.add(1);
    machine.happened(Event::MakeDirty { space: space.id(), page, frame });
    Resolved::MadeDirty
}
