//! `mmap` and `brk`: new promises. No memory is taken until it is touched.

use super::areas::{GrowError, MapError, TooMany};
use super::space::AddressSpace;
use super::unmap::unmap;
use super::vma::{Advice, Backing, Rights, Sharing, Vma, VmaFlags};
use crate::addr::{Page, Pages, VirtAddr};
use crate::machine::{At, Machine};
use crate::objects::Store;

/// Where a mapping should go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Wherever there is room, from the top of the mmap area down.
    Anywhere,
    /// Here if nothing is there, else anywhere.
    Hint(Page),
    /// Here; what was there goes (`MAP_FIXED`).
    Fixed(Page),
    /// Here, or not at all (`MAP_FIXED_NOREPLACE`).
    FixedFree(Page),
}

/// A request of `mmap`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Map {
    /// Where.
    pub place: Place,
    /// Number of pages.
    pub pages: u64,
    /// What the program may do.
    pub rights: Rights,
    /// What supplies the contents.
    pub backing: Backing,
    /// Who sees a write.
    pub sharing: Sharing,
    /// Growth, locking, reservation.
    pub flags: VmaFlags,
}

impl Map {
    /// Private anonymous memory, readable and writable.
    pub const fn anonymous(place: Place, pages: u64) -> Map {
        Map {
            place,
            pages,
            rights: Rights::READ.union(Rights::WRITE),
            backing: Backing::Anonymous,
            sharing: Sharing::Private,
            flags: VmaFlags::empty(),
        }
    }
}

/// Why a mapping is refused. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// No pages, an address outside the program's half, or a file offset that overflows (EINVAL).
    Invalid,
    /// This page is mapped already and was not to be replaced (EEXIST).
    Occupied(Page),
    /// No gap is long enough (ENOMEM).
    NoRoom,
    /// There are 65,530 areas, or the heap has no room for more (ENOMEM).
    TooMany,
    /// The area may never have this right (EACCES).
    Denied,
    /// No frame is free for a page table (ENOMEM).
    NoMemory,
    /// Some page of the range is in no area (ENOMEM or EFAULT).
    Hole(Page),
}

impl From<TooMany> for Refused {
    fn from(TooMany: TooMany) -> Refused {
        Refused::TooMany
    }
}

impl From<MapError> for Refused {
    fn from(error: MapError) -> Refused {
        match error {
            MapError::Occupied(page) => Refused::Occupied(page),
            MapError::TooMany => Refused::TooMany,
        }
    }
}

/// Maps; returns the pages.
pub fn map<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    space: &mut AddressSpace,
    request: Map,
) -> Result<Pages, Refused> {
    if request.pages == 0 {
        return Err(Refused::Invalid);
    }
    let start = place(space, &request)?;
    let pages = Pages::at(start, request.pages);
    let vma = Vma {
        pages,
        rights: request.rights,
        backing: request.backing,
        sharing: request.sharing,
        advice: Advice::Normal,
        flags: request.flags,
    };
    if !vma.is_sound() {
        return Err(Refused::Invalid);
    }
    if matches!(request.place, Place::Fixed(_)) {
        // Room for the new area is checked before the old ones go: a refusal changes nothing.
        if !space.areas.make_room(2) {
            return Err(Refused::TooMany);
        }
        unmap(store, at, machine, space, pages)?;
    }
    space.areas.insert(vma)?;
    Ok(pages)
}

fn place(space: &AddressSpace, request: &Map) -> Result<Page, Refused> {
    let mappable = space.layout.mappable();
    let fits = |start: Page| {
        let end = start.0.checked_add(request.pages);
        start >= mappable.start && end.is_some_and(|end| end <= mappable.end.0)
    };
    let anywhere = || {
        let (base, floor) = (space.layout.mmap_base.page(), mappable.start);
        let found = space.areas.find_gap_down(request.pages, base, floor, 1);
        // Above the base there is only the stack's room, used when all else is full, as on Linux.
        found
            .or_else(|| space.areas.find_gap_up(request.pages, base, mappable.end, 1))
            .ok_or(Refused::NoRoom)
    };
    match request.place {
        Place::Anywhere => anywhere(),
        Place::Hint(start) => {
            let free = fits(start)
                && space.areas.iter_range(Pages::at(start, request.pages)).next().is_none();
            if free { Ok(start) } else { anywhere() }
        }
        Place::Fixed(start) if fits(start) => Ok(start),
        Place::FixedFree(start) if fits(start) => {
            match space.areas.iter_range(Pages::at(start, request.pages)).next() {
                Some(vma) => Err(Refused::Occupied(vma.pages.start.max(start))),
                None => Ok(start),
            }
        }
        Place::Fixed(_) | Place::FixedFree(_) => Err(Refused::Invalid),
    }
}

/// Moves the end of the heap to `end`, as `brk` does.
///
/// # Errors
/// If `end` is below the heap's start, or something is in the way; the end stays then.
pub fn brk<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    space: &mut AddressSpace,
    end: VirtAddr,
) -> Result<(), Refused> {
    if end < space.layout.brk_start || !super::layout::is_user(end) {
        return Err(Refused::Invalid);
    }
    let (old, new) = (space.brk.page_up(), end.page_up());
    let start = space.layout.heap_start();
    if new < old {
        unmap(store, at, machine, space, Pages::new(new.max(start), old))?;
    } else if new > old {
        grow_heap(space, start, old, new)?;
    }
    space.brk = end;
    Ok(())
}

fn grow_heap(space: &mut AddressSpace, start: Page, old: Page, new: Page) -> Result<(), Refused> {
    // `mremap` may have lengthened the heap's area beyond its end already.
    if let Some(vma) = space.areas.iter_range(Pages::new(old, new)).next() {
        return Err(Refused::Occupied(vma.pages.start.max(old)));
    }
    let heap = (old > start).then(|| Page(old.0 - 1));
    let is_heap = |vma: &Vma| vma.flags.contains(VmaFlags::HEAP);
    if let Some(last) = heap
        && space.areas.find(last).is_some_and(is_heap)
    {
        return match space.areas.grow_up(last, new) {
            Ok(_) => Ok(()),
            Err(GrowError::Blocked(page)) => Err(Refused::Occupied(page)),
            Err(_) => Err(Refused::NoRoom),
        };
    }
    let vma = Vma::anonymous(Pages::new(old, new), Rights::READ | Rights::WRITE)
        .with_flags(VmaFlags::HEAP);
    space.areas.insert(vma)?;
    Ok(())
}
