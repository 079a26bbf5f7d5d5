//! From a fault to an entry that permits the access.

use core::sync::atomic::AtomicU64;

use super::classify::{Fault, Violation, classify};
use super::{cow, file};
use crate::addr::{Frame, Page, VirtAddr};
use crate::event::Event;
use crate::frames::table::{Flags, Kind};
use crate::frames::{NoMemory, rmap};
use crate::machine::{Access, At, Machine};
use crate::objects::Store;
use crate::objects::io::RequestId;
use crate::objects::page_cache::Find;
use crate::objects::store::{Resides, anon_page};
use crate::objects::swap;
use crate::reclaim::{Room, keep_allotment, make_room_beside};
use crate::spaces::AddressSpace;
use crate::spaces::areas::StackLimits;
use crate::spaces::protect::entry_bits;
use crate::spaces::vma::{Vma, VmaFlags};
use crate::translate::x86_64::{self as x86, ACCESSED, DIRTY, Entry, WRITE};

/// Whether an access faults for the first time, or has waited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attempt {
    /// For the first time.
    First,
    /// It has waited; `own` if it once waited for a read that it had started itself, which makes it
    /// a major fault.
    Again {
        /// As [`Outcome::Wait`] said, in any of its earlier attempts.
        own: bool,
    },
}

/// Why a program must die.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// It may not do what it did.
    Violation(Violation),
    /// The disk could not supply the page: SIGBUS.
    Io,
    /// Nothing can be evicted. The world chooses the victim (see [`account::oom`](crate::account::oom));
    /// if another process was killed, the fault may be tried again. Where several processors are at
    /// work, the last frames may be in the hands of others, who are about to make them evictable: such
    /// a world tries again before it kills.
    OutOfMemory,
}

/// How a fault was satisfied, for who accounts time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolved {
    /// Nothing was needed.
    Spurious,
    /// The zero frame was mapped.
    ZeroPage,
    /// A zeroed frame was mapped.
    ZeroFill,
    /// A page of a file was mapped, with so many neighbours.
    File {
        /// Pages mapped besides.
        around: u32,
    },
    /// A page came from swap.
    SwapIn,
    /// A frame was copied.
    Copied,
    /// A frame was kept.
    Reused,
    /// A page became dirty.
    MadeDirty,
}

/// The answer to a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Outcome {
    /// The access can be restarted.
    Done(Resolved),
    /// The fault can be tried again when this request has ended. It may have ended already, and its
    /// number be in use again, where other processors complete requests; to try too early does no harm.
    Wait {
        /// What to wait for.
        request: RequestId,
        /// Whether this fault started a read.
        own: bool,
    },
    /// The program gets a signal.
    Kill(Cause),
}

/// Why one attempt to resolve did not succeed.
pub(super) enum Stop {
    /// No frame is free; this one, found already, is needed beside a new one.
    NoMemory(Option<Frame>),
    Wait {
        request: RequestId,
        own: bool,
    },
    Kill(Cause),
}

impl From<NoMemory> for Stop {
    fn from(NoMemory: NoMemory) -> Stop {
        Stop::NoMemory(None)
    }
}

impl Stop {
    /// No frame is free beside `frame`, which must not be evicted to get one.
    pub(super) fn no_memory_beside(frame: Frame) -> impl FnOnce(NoMemory) -> Stop {
        move |NoMemory| Stop::NoMemory(Some(frame))
    }
}

/// What a resolver works with: the acting context, the place, and how it began.
pub(super) struct Scene<'a, M> {
    pub(super) store: &'a Store,
    pub(super) at: At,
    pub(super) machine: &'a M,
    pub(super) page: Page,
    pub(super) access: Access,
    /// Whether a read was waited for: the fault is a major one.
    pub(super) read: bool,
}

/// Handles the fault of `access` at `address`.
#[inline(always)]
pub fn fault<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    space: &mut AddressSpace,
    address: VirtAddr,
    access: Access,
    attempt: Attempt,
) -> Outcome {
    let read = attempt == Attempt::Again { own: true };
    let scene = Scene { store, at, machine, page: address.page(), access, read };
    // Ends: each turn after the first had frames freed for it. Others may take them, but then they
    // progress; on one processor the second turn finds them.
    loop {
        let room = match resolve(&scene, space) {
            Ok(resolved) => {
                let counters = store.counters(at);
                if read {
                    counters.major.add(1);
                } else {
                    counters.minor.add(1);
                }
                return Outcome::Done(resolved);
            }
            Err(Stop::Wait { request, own }) => return Outcome::Wait { request, own },
            Err(Stop::Kill(cause)) => {
                if let Cause::Violation(_) = cause {
                    store.counters(at).violation.add(1);
                    machine.happened(Event::Violation { space: space.id(), page: scene.page });
                }
                return Outcome::Kill(cause);
            }
            Err(Stop::NoMemory(keep)) => make_room_beside(store, at, machine, keep),
        };
        match room {
            Room::Made => {}
            Room::After(request) => return Outcome::Wait { request, own: false },
            Room::None => return Outcome::Kill(Cause::OutOfMemory),
        }
    }
}

// The resolvers are calls of their own: in one body they would make every fault save what only the
// dearest needs.
#[inline]
fn resolve<M: Machine>(scene: &Scene<'_, M>, space: &mut AddressSpace) -> Result<Resolved, Stop> {
    let (store, machine, page) = (scene.store, scene.machine, scene.page);
    if !crate::spaces::layout::is_user(page.address()) {
        return Err(Stop::Kill(Cause::Violation(Violation::Unmapped)));
    }
    let area = match space.areas_mut().find_recent(page) {
        Some(area) => *area,
        None => grown_to(scene, space)?,
    };
    let entry = match space.leaf(machine, page) {
        Some(leaf) => x86::load(x86::word(machine, leaf, page)),
        None => Entry(0),
    };
    let file_pages = match area.file_page(page) {
        Some((file, _)) if entry.0 == 0 => store.files.pages(file),
        _ => 0,
    };
    let fault = classify(scene.access, page, Some(&area), entry, store.zero, file_pages);
    if store.groups.is_some() {
        make_own_room(scene, space, fault);
    }
    match fault {
        Fault::Violation(violation) => Err(Stop::Kill(Cause::Violation(violation))),
        Fault::Spurious => {
            store.counters(scene.at).spurious.add(1);
            machine.happened(Event::Spurious { space: space.id(), page });
            Ok(Resolved::Spurious)
        }
        Fault::ZeroPage => zero_page(scene, space, &area),
        Fault::ZeroFill => zero_fill(scene, space, &area),
        Fault::FileFill(file, index) => file::fill(scene, space, &area, file, index),
        Fault::SwapIn(slot) => swap_in(scene, space, &area, slot),
        Fault::CopyOnWrite(frame) => cow::copy_on_write(scene, space, &area, frame),
        Fault::MakeDirty(frame) => Ok(file::make_dirty(scene, space, frame)),
    }
}

/// Where replacement is local, who needs a frame more gives one of its own.
#[cold]
fn make_own_room<M: Machine>(scene: &Scene<'_, M>, space: &AddressSpace, fault: Fault) {
    let keep = match fault {
        Fault::ZeroFill | Fault::SwapIn(_) => None,
        Fault::CopyOnWrite(frame) => Some(frame),
        _ => return,
    };
    keep_allotment(scene.store, scene.at, scene.machine, space.id(), keep);
}

/// The area of a page that no area has yet: a stack just above it grows to include it.
#[inline(never)]
fn grown_to<M: Machine>(scene: &Scene<'_, M>, space: &mut AddressSpace) -> Result<Vma, Stop> {
    let unmapped = Stop::Kill(Cause::Violation(Violation::Unmapped));
    let layout = space.layout();
    let limits =
        StackLimits { pages_max: layout.stack_pages_max(), floor: layout.mappable().start };
    if space.areas_mut().grow_down(scene.page, limits).is_err() {
        return Err(unmapped);
    }
    let (space_id, page) = (space.id(), scene.page);
    scene.machine.happened(Event::StackGrown { space: space_id, page });
    space.areas().find(page).copied().ok_or(unmapped)
}

#[inline(never)]
fn zero_page<M: Machine>(
    scene: &Scene<'_, M>,
    space: &mut AddressSpace,
    area: &Vma,
) -> Result<Resolved, Stop> {
    let (store, machine, page) = (scene.store, scene.machine, scene.page);
    let leaf = space.make_leaf(store, scene.at, machine, page)?;
    let entry = Entry::of(store.zero, entry_bits(area) | ACCESSED);
    x86::store(x86::word(machine, leaf, page), entry);
    store.counters(scene.at).zero_page.add(1);
    machine.happened(Event::ZeroPage { space: space.id(), page });
    Ok(Resolved::ZeroPage)
}

#[inline(never)]
fn zero_fill<M: Machine>(
    scene: &Scene<'_, M>,
    space: &mut AddressSpace,
    area: &Vma,
) -> Result<Resolved, Stop> {
    let (store, at, machine, page) = (scene.store, scene.at, scene.machine, scene.page);
    let leaf = space.make_leaf(store, at, machine, page)?;
    let place = (leaf, x86::word(machine, leaf, page));
    let frame = map_new_anon(scene, space, area, place, None, |frame| machine.zero(frame))?;
    store.counters(at).zero_fill.add(1);
    machine.happened(Event::ZeroFill { space: space.id(), page, frame });
    Ok(Resolved::ZeroFill)
}

/// Maps a new anonymous frame, writable, where there is nothing now or the zero frame: in a table, by
/// the word that is the page's. `was` is what there was, if it still counts as resident.
#[inline(always)] // with what it calls, a fault's work: each call would cost it a tenth
pub(super) fn map_new_anon<M: Machine>(
    scene: &Scene<'_, M>,
    space: &mut AddressSpace,
    area: &Vma,
    (leaf, word): (Frame, &AtomicU64),
    was: Option<Resides>,
    fill: impl FnOnce(Frame),
) -> Result<Frame, NoMemory> {
    let (store, at, machine, page) = (scene.store, scene.at, scene.machine, scene.page);
    let mut locked = store.alloc(at, machine, Kind::Anon)?;
    let frame = locked.frame();
    fill(frame);
    rmap::add_first(&mut locked, x86::entry_at(leaf, page));
    let old = x86::load(word);
    let bits = entry_bits(area) | WRITE | ACCESSED | DIRTY;
    x86::store(word, Entry::of(frame, bits));
    if old.has(x86::PRESENT) {
        machine.invalidate(space.id(), crate::addr::Pages::at(page, 1));
    }
    make_evictable(scene, space, area, &mut locked);
    match was {
        None => count_mapping(scene, space, Resides::Anon),
        Some(Resides::Anon) => {}
        Some(what) => {
            store.resident_up(space.id(), Resides::Anon);
            store.resident_down(space.id(), what);
        }
    }
    Ok(frame)
}

/// Counts a mapping in place of nothing.
#[inline(always)]
pub(super) fn count_mapping<M: Machine>(
    scene: &Scene<'_, M>,
    space: &mut AddressSpace,
    what: Resides,
) {
    scene.store.resident_up(space.id(), what);
    space.note_resident(scene.store);
}

/// Makes the frame of a new mapping evictable, or pins it.
#[inline(always)]
pub(super) fn make_evictable<M: Machine>(
    scene: &Scene<'_, M>,
    space: &AddressSpace,
    area: &Vma,
    locked: &mut crate::frames::table::Locked<'_>,
) {
    let store = scene.store;
    let kind = locked.state().kind();
    if area.flags.contains(VmaFlags::LOCKED) {
        store.unlist(locked);
        locked.pin();
    } else if kind == Kind::Anon {
        store.own(locked, space.id(), anon_page(space.id(), scene.page));
        store.list(locked, anon_page(space.id(), scene.page));
    }
}

#[inline(never)]
fn swap_in<M: Machine>(
    scene: &Scene<'_, M>,
    space: &mut AddressSpace,
    area: &Vma,
    slot: crate::addr::Slot,
) -> Result<Resolved, Stop> {
    let (store, at, machine, page) = (scene.store, scene.at, scene.machine, scene.page);
    let mut locked = match swap::find(store, at, machine, slot) {
        Find::Ready(locked) => locked,
        Find::Wait { request, own } => return Err(Stop::Wait { request, own }),
        Find::NoMemory => return Err(Stop::NoMemory(None)),
        Find::Beyond | Find::Failed => return Err(Stop::Kill(Cause::Io)),
    };
    let frame = locked.frame();
    let id = space.id();
    let sole = store.swap.references(slot) == 1 && locked.state().mapped() == 0;
    let leaf = space.leaf(machine, page).expect("the entry was read from it");
    let word = x86::word(machine, leaf, page);
    let mut takes_back = false; // whether the slot goes with the entry that named it
    if scene.access == Access::Write && !sole {
        // Others have a right to these contents: the writer gets a copy at once.
        let copied =
            map_new_anon(scene, space, area, (leaf, word), None, |to| machine.copy(frame, to));
        let copy = copied.map_err(Stop::no_memory_beside(frame))?;
        debug_assert!(x86::load(word).frame() == copy);
        drop(locked);
        machine.happened(Event::Copy { space: id, page, from: frame, to: copy, read: scene.read });
    } else {
        rmap::add(&store.frames, at, machine, &mut locked, x86::entry_at(leaf, page))
            .map_err(Stop::no_memory_beside(frame))?;
        let mut bits = entry_bits(area) | ACCESSED;
        if sole && area.permits(Access::Write) {
            bits |= WRITE;
        }
        if scene.access == Access::Write {
            bits |= DIRTY;
        }
        x86::store(word, Entry::of(frame, bits));
        locked.clear(Flags::LEAVING | Flags::REFERENCED);
        make_evictable(scene, space, area, &mut locked);
        count_mapping(scene, space, Resides::Anon);
        let keep = scene.access != Access::Write && store.swap.keeps_clean_copies();
        takes_back = sole && !keep && !locked.state().has(Flags::WRITING);
        if takes_back {
            swap::take_back(store, &mut locked);
        }
        drop(locked);
        let read = scene.read;
        machine.happened(Event::SwapIn { space: id, page, slot, frame, read });
    }
    store.resident_down(id, Resides::Swapped);
    if !takes_back {
        swap::drop_reference(store, at, machine, slot);
    }
    let counters = store.counters(at);
    if scene.read {
        counters.swap_in.add(1);
    } else {
        counters.swap_cached.add(1);
    }
    Ok(Resolved::SwapIn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Access::{Read, Write};
    use crate::objects::file::Medium;
    use crate::spaces::map::{Map, Place};
    use crate::spaces::vma::Sharing;
    use crate::testing::{AT, Bench};

    const PAGE: Page = Page(0x1000);

    #[test]
    fn untouched_memory_reads_as_the_one_frame_of_zeros_until_it_is_written() {
        let bench = Bench::new(64, 0);
        let mut space = bench.space();
        bench.map(&mut space, PAGE, 2);
        assert_eq!(bench.touch(&mut space, PAGE, Read), Ok(Resolved::ZeroPage));
        assert_eq!(bench.touch(&mut space, PAGE.up(1), Read), Ok(Resolved::ZeroPage));
        assert_eq!(bench.entry(&space, PAGE).frame(), bench.entry(&space, PAGE.up(1)).frame());
        assert_eq!(space.resident(bench.vm.store()).pages(), 0);
        assert_eq!(bench.touch(&mut space, PAGE, Write), Ok(Resolved::ZeroFill));
        assert_eq!(space.resident(bench.vm.store()).anon, 1);
    }

    #[test]
    fn a_stack_grows_down_to_an_access_but_not_into_the_guard_gap() {
        let bench = Bench::new(64, 0);
        let mut space = bench.space();
        let top = space.layout().stack_top.page();
        let mut stack = Map::anonymous(Place::FixedFree(Page(top.0 - 2)), 2);
        stack.flags = VmaFlags::GROWS_DOWN | VmaFlags::STACK;
        bench.vm.map(AT, &bench.ram, &mut space, stack).unwrap();
        assert_eq!(bench.touch(&mut space, Page(top.0 - 5), Write), Ok(Resolved::ZeroFill));
        assert_eq!(space.areas().find(Page(top.0 - 4)).unwrap().pages.count(), 5);
        // Something is mapped below: the gap above it stays free.
        let guard = space.layout().stack_guard_pages;
        bench.map(&mut space, Page(top.0 - 600), 10);
        let unmapped = Err(Cause::Violation(Violation::Unmapped));
        assert_eq!(bench.touch(&mut space, Page(top.0 - 590 + guard - 1), Write), unmapped);
        assert_eq!(
            bench.touch(&mut space, Page(top.0 - 590 + guard), Write),
            Ok(Resolved::ZeroFill)
        );
    }

    #[test]
    fn a_page_beyond_the_end_of_its_file_is_a_bus_error() {
        let bench = Bench::new(64, 0);
        let mut space = bench.space();
        let file = bench.file(2, Medium::Disk);
        bench.map_file(&mut space, PAGE, (file, 4), Sharing::Shared);
        assert!(bench.touch(&mut space, PAGE.up(1), Read).is_ok());
        let beyond = Err(Cause::Violation(Violation::BeyondFile));
        assert_eq!(bench.touch(&mut space, PAGE.up(2), Read), beyond);
        bench.vm.truncate(AT, &bench.ram, file, 1, [&mut space]).unwrap();
        assert_eq!(bench.entry(&space, PAGE.up(1)), Entry(0), "truncating took the entry");
        assert_eq!(bench.touch(&mut space, PAGE.up(1), Read), beyond);
        bench.check(&[&space]);
    }

    #[test]
    fn a_write_fault_on_a_page_just_read_in_is_not_evicted_for_its_own_copy() {
        // Of nine frames one is left for a page. Its copy needs a second one, and an endless alternation of reading and evicting would be the wrong answer.
        let bench = Bench::new(9, 0);
        let mut space = bench.space();
        let file = bench.file(1, Medium::Disk);
        bench.map_file(&mut space, PAGE, (file, 1), Sharing::Private);
        assert_eq!(bench.touch(&mut space, PAGE, Write), Err(Cause::OutOfMemory));
        assert!(bench.touch(&mut space, PAGE, Read).is_ok());
        bench.check(&[&space]);
    }
}
