//! `munmap`, the end of an address space, and every other way in which entries go.

use super::areas::TooMany;
use super::space::AddressSpace;
use super::vma::{Backing, Sharing, Vma, VmaFlags};
use crate::addr::{FileRef, Page, Pages};
use crate::frames::rmap;
use crate::frames::table::{Flags, Kind, Locked};
use crate::machine::{At, Machine};
use crate::objects::store::{Resident, Resides};
use crate::objects::{Flush, Store, swap};
use crate::translate::x86_64::{self as x86, ACCESSED, DIRTY, Entry, Holds};

/// Takes `pages` out of the space: areas, entries, and tables that no area needs any more.
///
/// # Errors
/// If an area would have to be divided and there are 65,530; nothing has changed then.
pub fn unmap<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    space: &mut AddressSpace,
    pages: Pages,
) -> Result<(), TooMany> {
    if pages.is_empty() {
        return Ok(());
    }
    let mut flush = Flush::new(space.id());
    let mut areas = core::mem::replace(&mut space.areas, super::areas::Areas::new(0, 0));
    let mut any = false;
    let removed = areas.remove(pages, |vma| {
        any = true;
        clear(store, at, machine, space, &vma, vma.pages, &mut flush);
    });
    space.areas = areas;
    if any {
        free_tables(store, at, machine, space, pages, &mut flush);
    }
    flush.finish(store, at, machine);
    removed
}

/// Frees the tables around `pages`, where areas were removed, that no area needs any more.
pub(super) fn free_tables<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    space: &mut AddressSpace,
    pages: Pages,
    flush: &mut Flush,
) {
    let hole = space.hole_around(pages);
    let mut count = 0;
    x86::free_tables(&store.frames, machine, space.root(), hole, pages, |table, part| {
        flush.range(part);
        flush.after(store, at, machine, table);
        count += 1;
    });
    space.tables_freed(count);
}

/// Ends an address space: `exit`, or the old image at `exec`.
pub fn destroy<M: Machine>(store: &Store, at: At, machine: &M, mut space: AddressSpace) {
    let all = Pages::new(Page(0), super::layout::USER_END.page_up());
    let removed = unmap(store, at, machine, &mut space, all);
    debug_assert!(removed.is_ok(), "removing everything divides no area");
    space.end(store, at, machine);
}

/// Clears what the space has of `file` beyond its end, which has just been set: the copies that private
/// areas hold, as Linux does (`unmap_mapping_range` with `even_cows`). A program that touches them
/// again gets SIGBUS.
pub(crate) fn clear_beyond<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    space: &mut AddressSpace,
    file: FileRef,
) {
    let end = store.files.pages(file);
    let mut flush = Flush::new(space.id());
    for area in space.areas.iter() {
        let Backing::File { file: backing, offset } = area.backing else { continue };
        if backing == file && area.sharing == Sharing::Private {
            let kept = end.saturating_sub(offset).min(area.pages.count());
            let beyond = Pages::new(area.pages.start.up(kept), area.pages.end);
            clear(store, at, machine, space, area, beyond, &mut flush);
        }
    }
    flush.finish(store, at, machine);
}

/// Clears the entries of `pages`, a part of `area`; the area itself stays.
pub(super) fn clear<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    space: &AddressSpace,
    area: &Vma,
    pages: Pages,
    flush: &mut Flush,
) {
    let locked_area = area.flags.contains(VmaFlags::LOCKED);
    let mut gone = Resident::default();
    x86::for_leaves(machine, space.root(), pages, |leaf, part| {
        for (i, word) in x86::words(machine, leaf, part).iter().enumerate() {
            let entry = x86::load(word);
            match entry.holds() {
                Holds::Empty => {}
                Holds::Swapped(slot) => {
                    x86::store(word, Entry(0));
                    gone.swapped += 1;
                    swap::drop_reference(store, at, machine, slot);
                }
                Holds::Frame(frame) if frame == store.zero => {
                    x86::swap(word, Entry(0));
                    flush.page(part.start.up(i as u64));
                }
                Holds::Frame(frame) => {
                    let page = part.start.up(i as u64);
                    let mut locked = store.frames.table.lock(frame);
                    // Evicted between the look and the lock: it is a swap entry or empty by now.
                    let now = x86::load(word);
                    if !now.has(x86::PRESENT) {
                        drop(locked);
                        x86::store(word, Entry(0));
                        if let Holds::Swapped(slot) = now.holds() {
                            gone.swapped += 1;
                            swap::drop_reference(store, at, machine, slot);
                        }
                        continue;
                    }
                    let old = x86::swap(word, Entry(0));
                    flush.page(page);
                    match Resides::from(locked.state().kind()) {
                        Resides::Anon => gone.anon += 1,
                        _ => gone.file += 1,
                    }
                    let entry_at = x86::entry_at(leaf, page);
                    rmap::remove(&store.frames, at, machine, &mut locked, entry_at);
                    if locked_area && locked.state().pins() > 0 {
                        locked.unpin();
                    }
                    dropped(store, at, machine, locked, old, flush);
                }
            }
        }
    });
    store.resident_down_by(space.id(), gone);
}

/// What the entry that a frame has lost knew, the frame must know now.
#[inline]
pub(crate) fn note_use(frame: &mut Locked<'_>, old: Entry) {
    if old.has(DIRTY) {
        frame.set(Flags::DIRTY);
    }
    if frame.state().kind() == Kind::File {
        note_file_use(frame, old);
    }
}

#[inline(never)] // otherwise anonymous memory pays for half of it
fn note_file_use(frame: &mut Locked<'_>, old: Entry) {
    if old.has(ACCESSED) && !old.has(x86::NO_RECENCY) {
        frame.set(Flags::REFERENCED);
    }
}

/// Hands a frame that has just lost the mapping `old` to `flush`, which decides what becomes of it
/// when no TLB knows the mapping any more.
pub(crate) fn dropped<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    mut frame: Locked<'_>,
    old: Entry,
    flush: &mut Flush,
) {
    note_use(&mut frame, old);
    let state = frame.state();
    let elsewhere = Flags::IN_SWAP | Flags::READING | Flags::WRITING;
    if state.kind() == Kind::Anon
        && state.mapped() == 0
        && state.holds() == 0
        && !state.has_any(elsewhere)
    {
        // Nobody else can find it: it may end at once, and be free after the flush.
        store.release_after(at, machine, frame, flush);
        return;
    }
    frame.hold();
    let number = frame.frame();
    drop(frame);
    flush.after(store, at, machine, number);
}
