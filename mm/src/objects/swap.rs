//! Anonymous swap: slots on a device, and the frames that still hold what a slot holds.
//!
//! A page on its way out or back is in the *swap cache*: its frame and its slot know each other. A
//! fault on such a page needs no I/O. A page that came back unmodified keeps its slot while swap is
//! less than half full, so that evicting it again needs no write; a device that holds its slots in RAM
//! (zram) gives the slot up at once instead.

use alloc::boxed::Box;
use alloc::vec;
use core::ops::Range;

use spin::Mutex;

use super::failed_io::FailedIo;
use super::io::{Direction, IO_PAGES_MAX, RequestId};
use super::page_cache::Find;
use super::read::wait_for_room;
use super::slots::Slots;
use super::store::Store;
use crate::addr::{Frame, Slot};
use crate::event::{Event, Target};
use crate::frames::NoMemory;
use crate::frames::table::{Flags, Kind, Locked};
use crate::frames::zone::Level;
use crate::machine::{At, Machine, Operation};

/// How the swap device behaves, as far as decisions depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SwapConfig {
    /// Slots, each of one page; 0 is a machine without swap.
    pub slots: u32,
    /// log2 of the slots read at once around the one that is needed (`vm.page-cluster`).
    pub page_cluster: u8,
    /// Whether a slot costs RAM, as on zram, and so is given up when its page comes back.
    pub in_ram: bool,
}

impl SwapConfig {
    /// A machine without swap.
    pub const NONE: SwapConfig = SwapConfig { slots: 0, page_cluster: 0, in_ram: false };
}

/// The swap device of a machine.
pub struct Swap {
    config: SwapConfig,
    /// One bit a slot: a page of shared memory is in it, so that it is not read ahead as anonymous.
    /// Locked by who holds the slots.
    of_files: Mutex<Box<[u64]>>,
    /// Which slots are in use by how many, and which frames hold a copy of one.
    pub slots: Mutex<Slots>,
}

impl Swap {
    /// A device with all slots free.
    pub fn new(config: SwapConfig) -> Swap {
        let of_files = vec![0; config.slots.div_ceil(64) as usize].into_boxed_slice();
        let slots = Mutex::new(Slots::new(config.slots));
        Swap { config, of_files: Mutex::new(of_files), slots }
    }

    /// Its configuration.
    pub fn config(&self) -> SwapConfig {
        self.config
    }

    /// Whether there is anywhere to put an anonymous page.
    pub fn exists(&self) -> bool {
        self.config.slots != 0
    }

    /// A read of `slot` has failed: no frame holds a copy.
    pub(crate) fn set_failed(&self, slot: Slot, how: FailedIo) {
        self.slots.lock().set_failed(slot, how);
    }

    /// How the last read of `slot` failed, for who needs it now. Who needs it next may try again.
    pub(crate) fn take_failed(&self, slot: Slot) -> Option<FailedIo> {
        let mut slots = self.slots.lock();
        let failed = slots.failed(slot)?;
        slots.set_failed(slot, FailedIo::Among);
        Some(failed)
    }

    /// The frame that holds a copy of `slot`.
    pub fn cached(&self, slot: Slot) -> Option<Frame> {
        self.slots.lock().cached(slot)
    }

    /// Takes a free slot, with one use, for the page in `frame`.
    pub(crate) fn reserve(&self, frame: Frame) -> Option<Slot> {
        let mut slots = self.slots.lock();
        let slot = slots.alloc()?;
        slots.set_cached(slot, frame);
        Some(slot)
    }

    /// Takes a free slot for a page of shared memory: the index of its file will name it.
    pub(crate) fn reserve_for_file(&self) -> Option<Slot> {
        let mut slots = self.slots.lock();
        let slot = slots.alloc()?;
        self.of_files.lock()[slot.0 as usize / 64] |= 1 << (slot.0 % 64);
        Some(slot)
    }

    /// The index of a file no longer names `slot`, which is free now.
    pub(crate) fn release_of_file(&self, slot: Slot) {
        let mut slots = self.slots.lock();
        self.of_files.lock()[slot.0 as usize / 64] &= !(1 << (slot.0 % 64));
        let last = slots.free(slot);
        debug_assert!(last, "{slot:?} of a file has other uses");
    }

    /// Whether an anonymous page is in `slot`, and no frame has a copy of it.
    fn is_on_device(&self, slots: &Slots, slot: Slot) -> bool {
        slots.count(slot) > 0
            && slots.cached(slot).is_none()
            && self.of_files.lock()[slot.0 as usize / 64] & 1 << (slot.0 % 64) == 0
    }

    /// Makes `frame` the one that `slot` is read into, unless there is one or nothing to read.
    fn claim(&self, slot: Slot, frame: Frame) -> bool {
        let mut slots = self.slots.lock();
        let is_on_device = self.is_on_device(&slots, slot);
        if is_on_device {
            slots.set_cached(slot, frame);
        }
        is_on_device
    }

    /// One entry more names `slot`.
    pub fn duplicate(&self, slot: Slot) {
        self.slots.lock().duplicate(slot);
    }

    /// The only entry that named `slot` is gone, and its frame no longer holds a copy: the slot is free.
    fn take_back(&self, slot: Slot) {
        let mut slots = self.slots.lock();
        slots.clear_cached(slot);
        let last = slots.free(slot);
        debug_assert!(last, "{slot:?} has other uses");
    }

    /// One entry less names `slot`. Gives the frame that caches it, if no entry is left.
    pub(crate) fn drop_reference(&self, slot: Slot) -> Option<Frame> {
        let mut slots = self.slots.lock();
        if slots.free(slot) { slots.cached(slot) } else { None }
    }

    /// The frame no longer holds a copy of `slot`.
    pub(crate) fn forget(&self, slot: Slot) {
        self.slots.lock().clear_cached(slot);
    }

    /// Entries that name `slot`.
    pub fn references(&self, slot: Slot) -> u32 {
        self.slots.lock().count(slot)
    }

    /// Slots in use.
    pub fn used(&self) -> u32 {
        self.slots.lock().used()
    }

    /// Whether a clean page that came back should keep its slot: while swap is less than half full.
    pub(crate) fn keeps_clean_copies(&self) -> bool {
        let slots = self.slots.lock();
        !self.config.in_ram && slots.used() * 2 < slots.total()
    }
}

/// Finds the contents of `slot`, which an entry of the caller names, starting to read it and its
/// neighbours if they are on the device.
pub fn find<'a, M: Machine>(store: &'a Store, at: At, machine: &M, slot: Slot) -> Find<'a> {
    // Ends: a turn without an answer means that another processor has begun to read the slot, or has
    // ended a request; the next turn finds what it did.
    loop {
        if let Some(locked) = lock_cached(store, slot) {
            if locked.state().has(Flags::READING) {
                return Find::Wait { request: RequestId(locked.rmap() as u32), own: false };
            }
            return Find::Ready(locked);
        }
        if let Some(found) = read(store, at, machine, slot) {
            return found;
        }
    }
}

/// The frame that holds a copy of `slot`.
fn lock_cached(store: &Store, slot: Slot) -> Option<Locked<'_>> {
    // Ends: a frame that has left the cache before it was locked is no longer found.
    loop {
        let locked = store.frames.table.lock(store.swap.cached(slot)?);
        if locked.state().has(Flags::IN_SWAP) && slot_of(&locked) == slot {
            return Some(locked);
        }
    }
}

/// Starts to read `slot` and its neighbours; `None` if another processor is about to, or has just made
/// the room in the queue that was missing.
fn read<'a, M: Machine>(store: &'a Store, at: At, machine: &M, slot: Slot) -> Option<Find<'a>> {
    let failed = store.swap.take_failed(slot);
    if failed == Some(FailedIo::Alone) {
        return Some(Find::Failed);
    }
    if store.is_full_of_requests() {
        return wait_for_room(store);
    }
    if !machine.permits(Operation::Io) {
        return Some(Find::Failed);
    }
    // All stay locked until the request is theirs: nobody may find one that reads for no request, and
    // the disk may not be done with one before.
    let first = match take_frame(store, at, machine, slot) {
        Ok(first) => first?,
        Err(NoMemory) => return Some(Find::NoMemory),
    };
    let run = match failed {
        None => neighbours(store, slot),
        Some(_) => slot..Slot(slot.0 + 1),
    };
    if run.end.0 - run.start.0 == 1 {
        return submit_read(store, at, machine, slot, &mut [Some(first)]);
    }
    let mut frames = [const { None }; IO_PAGES_MAX];
    let place = (slot.0 - run.start.0) as usize;
    frames[place] = Some(first);
    let (mut from, mut to) = (place, place + 1);
    let mut take = |i: usize| {
        let plenty = store.frames.zone().level() == Level::Plenty;
        let slot = Slot(run.start.0 + i as u32);
        frames[i] = plenty.then(|| take_frame(store, at, machine, slot).ok().flatten()).flatten();
        frames[i].is_some()
    };
    while to < (run.end.0 - run.start.0) as usize && take(to) {
        to += 1;
    }
    while from > 0 && take(from - 1) {
        from -= 1;
    }
    submit_read(store, at, machine, Slot(run.start.0 + from as u32), &mut frames[from..to])
}

/// Asks the disk to fill `frames`, all of them there, from `slot` on.
#[inline]
fn submit_read<'a, M: Machine>(
    store: &'a Store,
    at: At,
    machine: &M,
    slot: Slot,
    frames: &mut [Option<Locked<'a>>],
) -> Option<Find<'a>> {
    let mut numbers = [Frame(0); IO_PAGES_MAX];
    for (number, frame) in numbers.iter_mut().zip(frames.iter().flatten()) {
        *number = frame.frame();
    }
    let target = Target::Swap(slot);
    let submitted = store.submit(Direction::Read, target, &numbers[..frames.len()]);
    let Some(request) = submitted else {
        for frame in frames.iter_mut().filter_map(Option::take) {
            give_up(store, at, machine, frame);
        }
        return wait_for_room(store);
    };
    for frame in frames.iter_mut().flatten() {
        frame.set_rmap(u64::from(request.0));
    }
    let pages = frames.len() as u32;
    store.counters(at).swapped_in.add(u64::from(pages));
    machine.happened(Event::Io { target, frame: numbers[0], pages, write: false });
    Some(Find::Wait { request, own: true })
}

/// The slots to read with `slot`: those of its cluster next to it that hold something not in memory.
fn neighbours(store: &Store, slot: Slot) -> Range<Slot> {
    if store.swap.config.page_cluster == 0 {
        return slot..Slot(slot.0 + 1);
    }
    let slots = store.swap.slots.lock();
    let cluster = slots.cluster(slot, u32::from(store.swap.config.page_cluster));
    let wanted = |slot: u32| {
        let slot = Slot(slot);
        store.swap.is_on_device(&slots, slot) && slots.failed(slot).is_none()
    };
    let mut start = slot.0;
    while start > cluster.start && wanted(start - 1) {
        start -= 1;
    }
    let mut end = slot.0 + 1;
    while end < cluster.end && wanted(end) {
        end += 1;
    }
    Slot(start)..Slot(end)
}

/// Takes a frame to read `slot` into; it is in the swap cache from now on. `None` if what is in the
/// slot is not on the device any more, or another frame is its copy.
fn take_frame<'a, M: Machine>(
    store: &'a Store,
    at: At,
    machine: &M,
    slot: Slot,
) -> Result<Option<Locked<'a>>, NoMemory> {
    let mut locked = store.alloc(at, machine, Kind::Anon)?;
    if !store.swap.claim(slot, locked.frame()) {
        store.release(at, machine, locked);
        return Ok(None);
    }
    locked.set(Flags::READING | Flags::IN_SWAP);
    locked.set_owner(u64::from(slot.0));
    Ok(Some(locked))
}

/// The slot that a frame in the swap cache holds a copy of.
pub(crate) fn slot_of(frame: &Locked<'_>) -> Slot {
    debug_assert!(frame.state().has(Flags::IN_SWAP), "{:?} is not in swap", frame.frame());
    Slot(frame.owner() as u32)
}

/// Takes a frame out of the swap cache: its slot's copy is out of date, or no longer wanted.
pub(crate) fn leave_cache(store: &Store, frame: &mut Locked<'_>) {
    if frame.state().has(Flags::IN_SWAP) {
        store.swap.forget(slot_of(frame));
        frame.clear(Flags::IN_SWAP);
        frame.set_owner(0);
    }
}

/// Takes a frame that is mapped again out of the swap cache, and with the entry that named its slot,
/// the only one, the slot's use.
pub(crate) fn take_back(store: &Store, frame: &mut Locked<'_>) {
    store.swap.take_back(slot_of(frame));
    frame.clear(Flags::IN_SWAP);
    frame.set_owner(0);
}

/// Frees an unmapped frame of the swap cache that a read was, or would have been, for.
pub(crate) fn give_up<M: Machine>(store: &Store, at: At, machine: &M, mut frame: Locked<'_>) {
    frame.clear(Flags::READING);
    frame.set_rmap(0);
    leave_cache(store, &mut frame);
    store.release(at, machine, frame);
}

/// Frees a frame of the swap cache that its slot could not be read into.
pub(super) fn give_up_failed<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    mut frame: Locked<'_>,
    how: FailedIo,
) {
    store.swap.set_failed(slot_of(&frame), how);
    frame.clear(Flags::READING | Flags::IN_SWAP);
    frame.set_rmap(0);
    frame.set_owner(0);
    store.release(at, machine, frame);
}

/// One page-table entry that named `slot` is gone. Frees the cached copy with the last one.
pub(crate) fn drop_reference<M: Machine>(store: &Store, at: At, machine: &M, slot: Slot) {
    let Some(frame) = store.swap.drop_reference(slot) else { return };
    let mut locked = store.frames.table.lock(frame);
    // Between the two locks the frame may have become something else, or be wanted again.
    let state = locked.state();
    if !state.has(Flags::IN_SWAP)
        || slot_of(&locked) != slot
        || state.mapped() > 0
        || state.holds() > 0 // the flush that holds it decides
        || store.swap.references(slot) > 0
    {
        return;
    }
    if state.has_any(Flags::READING | Flags::WRITING) {
        store.unlist(&mut locked);
        locked.set(Flags::DOOMED);
    } else {
        leave_cache(store, &mut locked);
        store.release(at, machine, locked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::addr::{Page, Pages};
    use crate::fault::{Attempt, Outcome};
    use crate::machine::Access;
    use crate::testing::{AT, Bench, Meddled, Moment};
    use core::cell::RefCell;

    const PAGE: Page = Page(0x1000);

    fn out_and_read_back(slots: u32, in_ram: bool) -> (Bench, crate::spaces::AddressSpace) {
        let mut config = Config::new(64);
        config.swap = SwapConfig { slots, page_cluster: 0, in_ram };
        let bench = Bench::with(&config);
        let mut space = bench.space();
        let pages = bench.map(&mut space, PAGE, 1);
        bench.touch(&mut space, PAGE, Access::Write).unwrap();
        bench.page_out(&space, pages);
        assert_eq!(bench.settle().len(), 1);
        bench.touch(&mut space, PAGE, Access::Read).unwrap();
        (bench, space)
    }

    #[test]
    fn a_page_that_comes_back_and_is_not_written_leaves_again_without_io() {
        let (bench, space) = out_and_read_back(8, false);
        assert_eq!(bench.page_out(&space, Pages::at(PAGE, 1)), 1);
        assert!(bench.settle().is_empty(), "the slot still has its contents");
        bench.check(&[&space]);
    }

    #[test]
    fn a_slot_that_costs_ram_or_is_scarce_is_given_up_at_once() {
        for (slots, in_ram) in [(8, true), (2, false)] {
            let (bench, space) = out_and_read_back(slots, in_ram);
            assert_eq!(bench.vm.store().swap.used(), 0, "{slots} slots");
            bench.check(&[&space]);
        }
    }

    /// Two spaces that share so many pages, all of which are in their slots only.
    fn shared_in_swap(
        pages: u64,
    ) -> (Bench, crate::spaces::AddressSpace, crate::spaces::AddressSpace) {
        let mut config = Config::new(64);
        config.swap = SwapConfig { slots: 16, page_cluster: 2, in_ram: false };
        let bench = Bench::with(&config);
        let mut a = bench.space();
        let pages = bench.map(&mut a, PAGE, pages);
        for page in pages.iter() {
            bench.touch(&mut a, page, Access::Write).unwrap();
        }
        bench.page_out(&a, pages);
        bench.settle();
        let b = bench.fork(&mut a);
        (bench, a, b)
    }

    #[test]
    fn two_processors_that_fault_on_one_slot_at_once_wait_for_one_request() {
        for operation in [Operation::Io, Operation::AllocFrame] {
            let (bench, mut a, b) = shared_in_swap(1);
            let others = RefCell::new((b, None));
            let meddle = |moment| {
                let (b, waits) = &mut *others.borrow_mut();
                if moment == Moment::Asked(operation) && waits.is_none() {
                    *waits = Some(bench.fault(b, PAGE, Access::Read));
                }
            };
            let machine = Meddled { ram: &bench.ram, meddle: &meddle };
            let address = PAGE.address();
            let waits = bench.vm.fault(AT, &machine, &mut a, address, Access::Read, Attempt::First);
            let (mut b, Some(Outcome::Wait { request, own: true })) = others.into_inner() else {
                panic!("the other one was first");
            };
            assert_eq!(waits, Outcome::Wait { request, own: false }, "after {operation:?}");
            assert_eq!(bench.settle().len(), 1);
            for space in [&mut a, &mut b] {
                bench.touch(space, PAGE, Access::Read).unwrap();
            }
            assert_eq!(bench.entry(&a, PAGE).frame(), bench.entry(&b, PAGE).frame());
            bench.check(&[&a, &b]);
        }
    }

    #[test]
    fn a_neighbour_that_is_freed_meanwhile_is_not_read_ahead() {
        let (bench, mut a, b) = shared_in_swap(2);
        let neighbour = Pages::at(PAGE.up(1), 1);
        bench.vm.unmap(AT, &bench.ram, &mut a, neighbour).unwrap();
        let others = RefCell::new((b, 0));
        let meddle = |moment| {
            let (b, frames) = &mut *others.borrow_mut();
            if moment == Moment::Asked(Operation::AllocFrame) {
                *frames += 1;
                if *frames == 2 {
                    bench.vm.unmap(AT, &bench.ram, b, neighbour).unwrap();
                }
            }
        };
        let machine = Meddled { ram: &bench.ram, meddle: &meddle };
        let address = PAGE.address();
        let waits = bench.vm.fault(AT, &machine, &mut a, address, Access::Read, Attempt::First);
        assert!(matches!(waits, Outcome::Wait { own: true, .. }));
        let (b, frames) = others.into_inner();
        assert_eq!(frames, 2, "one for the page, and one for its neighbour");
        assert_eq!(bench.vm.store().swap.used(), 1);
        assert_eq!(bench.settle()[0].frames().len(), 1);
        bench.check(&[&a, &b]);
    }

    #[test]
    fn read_ahead_that_nobody_wants_any_more_is_freed_when_it_arrives() {
        let mut config = Config::new(64);
        config.swap = SwapConfig { slots: 16, page_cluster: 3, in_ram: false };
        let bench = Bench::with(&config);
        let mut space = bench.space();
        let pages = bench.map(&mut space, PAGE, 4);
        for page in pages.iter() {
            let _ = bench.touch(&mut space, page, Access::Write);
        }
        assert_eq!(bench.page_out(&space, pages), 4);
        bench.settle();
        let _ = bench.fault(&mut space, PAGE, Access::Read);
        assert_eq!(bench.vm.census().anon, 4, "its cluster is read with it");
        bench.vm.unmap(AT, &bench.ram, &mut space, pages).unwrap();
        assert_eq!(bench.vm.census().anon, 4, "the frames are the disk's");
        bench.settle();
        assert_eq!((bench.vm.census().anon, bench.vm.store().swap.used()), (0, 0));
        bench.check(&[&space]);
    }
}
