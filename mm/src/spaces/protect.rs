//! `mprotect`: other rights for pages that are mapped already.
//!
//! Entries may only lose rights here. A right that an area gains shows in an entry when the next fault
//! needs it, except that entries which were closed entirely are opened for reading again.

use super::map::Refused;
use super::space::AddressSpace;
use super::vma::{Rights, Vma};
use crate::addr::Pages;
use crate::machine::{At, Machine};
use crate::objects::{Flush, Store};
use crate::translate::x86_64::{self as x86, NO_EXECUTE, NO_RECENCY, PRESENT, USER, WRITE};

/// Gives `pages` these rights. Returns the first page in no area, if there is one: the pages below it
/// have changed then, and `mprotect` answers ENOMEM.
///
/// # Errors
/// If there would be too many areas; nothing has changed then.
pub fn protect<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    space: &mut AddressSpace,
    pages: Pages,
    rights: Rights,
) -> Result<(), Refused> {
    let hole = space.areas.covered(pages).err();
    let pages = Pages::new(pages.start, hole.unwrap_or(pages.end));
    space.areas.change(pages, |vma| vma.rights = rights)?;
    let mut flush = Flush::new(space.id());
    for vma in space.areas.iter_range(pages) {
        let part = vma.pages.intersect(pages);
        refresh(machine, space, vma, part, &mut flush);
    }
    flush.finish(store, at, machine);
    hole.map_or(Ok(()), |page| Err(Refused::Hole(page)))
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
