//! Direct reclaim: who needs a frame and finds none makes one free.

use super::evict::{Evicted, evict_one, evict_this};
use crate::addr::Frame;
use crate::frames::table::Flags;
use crate::machine::{At, Machine, SpaceId};
use crate::objects::Store;
use crate::objects::groups::GroupId;
use crate::objects::io::RequestId;

/// Frames that one reclaim tries to free (Linux: `SWAP_CLUSTER_MAX`).
pub(super) const BATCH: usize = 32;

/// What reclaim achieved for who must have a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// Frames are free: try again.
    Made,
    /// Frames will be free when this write ends.
    After(RequestId),
    /// Nothing can be evicted: the machine is out of memory.
    None,
}

/// Frees some frames, or says what to wait for, or that there is nothing.
pub fn make_room<M: Machine>(store: &Store, at: At, machine: &M) -> Room {
    make_room_beside(store, at, machine, None)
}

/// As [`make_room`], but spares the frame `keep`, which the caller has and needs beside a new one.
///
/// Otherwise two pages that are needed together could drive each other out for ever on a machine that
/// has room for one: a copy and its original, a page and the link of its reverse map.
pub fn make_room_beside<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    keep: Option<Frame>,
) -> Room {
    store.counters(at).direct_reclaims.add(1);
    let (freed, queued) = shrink(store, at, machine, BATCH, keep);
    if freed > 0 {
        return Room::Made;
    }
    if queued == 0 && sweep(store, at, machine, keep) == Evicted::Freed {
        return Room::Made;
    }
    // A write frees frames when it ends. So may a read: its frames can be evicted then, and where the
    // queue is full, it makes room for a write.
    let requests = store.requests.lock();
    requests.some_write().or_else(|| requests.some()).map_or(Room::None, Room::After)
}

/// Evicts up to `count` pages in the policy's order because somebody asked for it, not for want of
/// memory. Returns how many left or are leaving.
pub fn reclaim<M: Machine>(store: &Store, at: At, machine: &M, count: usize) -> usize {
    let (freed, queued) = shrink(store, at, machine, count, None);
    freed + queued
}

/// Evicts until `want` frames are free or leaving, or until as many victims were stuck as there are
/// evictable frames. Returns how many are free and how many are leaving.
pub(super) fn shrink<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    want: usize,
    keep: Option<Frame>,
) -> (usize, usize) {
    let (mut freed, mut queued, mut stuck) = (0, 0, 0);
    let evictable = store.evictable();
    while freed + queued < want && stuck <= evictable {
        match evict_one(store, at, machine, keep, store.donor()) {
            Evicted::Freed => freed += 1,
            Evicted::Queued => queued += 1,
            Evicted::Stuck => stuck += 1,
            Evicted::NoVictim => break,
        }
    }
    (freed, queued)
}

/// Before `space` gets a frame more: evicts pages of its own group while that holds as many as it may.
/// Spares `keep`. What is dirty is written first and free later, so the new frame is another one.
pub fn keep_allotment<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    space: SpaceId,
    keep: Option<Frame>,
) {
    let Some(groups) = &store.groups else { return };
    let group = groups.of_space(space);
    if group == GroupId(0) {
        return;
    }
    // An allotment that was just reduced is reached over several faults.
    for _ in 0..BATCH {
        if groups.held(group) < groups.allotment(group) {
            return;
        }
        evict_one(store, at, machine, keep, group);
    }
}

/// Tries every evictable frame once, whatever the policy thinks, until one is free or leaving.
///
/// A policy may name the same stuck frames again and again, as Random does. Before a program is killed
/// for it, memory is searched to the end. O(n), but only where the alternative is a death.
fn sweep<M: Machine>(store: &Store, at: At, machine: &M, keep: Option<Frame>) -> Evicted {
    for number in 0..store.frames.table.count() as u32 {
        let frame = Frame(number);
        if Some(frame) == keep || !store.frames.table.peek(frame).has(Flags::LISTED) {
            continue;
        }
        let tried = evict_this(store, at, machine, frame);
        if matches!(tried, Evicted::Freed | Evicted::Queued) {
            return tried;
        }
    }
    Evicted::NoVictim
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::addr::Page;
    use crate::fault::Cause;
    use crate::machine::Access;
    use crate::objects::swap::SwapConfig;
    use crate::replace::{Choice, Parameters, Replacement};
    use crate::testing::{AT, Bench};

    #[test]
    fn a_full_swap_ends_in_out_of_memory_under_every_policy() {
        for entry in crate::replace::POLICIES {
            let name = entry.about.name;
            let mut config = Config::new(32);
            config.swap = SwapConfig { slots: 4, page_cluster: 0, in_ram: false };
            config.policy = Choice::of(name);
            let made = config.policy.make(&Parameters::new(1));
            if matches!(made, Replacement::Foreseen(_) | Replacement::Sizing(_)) {
                continue;
            }
            let bench = Bench::with(&config);
            let mut space = bench.space();
            let pages = bench.map(&mut space, Page(0x1000), 64);
            let failed =
                pages.iter().find_map(|page| bench.touch(&mut space, page, Access::Write).err());
            assert_eq!(failed, Some(Cause::OutOfMemory), "{name}");
            assert_eq!(bench.vm.store().swap.used(), 4, "{name}");
            bench.check(&[&space]);
        }
    }

    #[test]
    fn a_single_page_that_can_go_is_found_whatever_the_policy_prefers() {
        let mut config = Config::new(128);
        config.swap = SwapConfig { slots: 1, page_cluster: 0, in_ram: false };
        config.policy = Choice::of("random");
        for seed in 0..50 {
            config.seed = seed;
            let bench = Bench::with(&config);
            let mut space = bench.space();
            let file = bench.file(1, crate::objects::file::Medium::Disk);
            let pages = bench.map(&mut space, Page(0x1000), 100);
            for page in pages.iter() {
                let _ = bench.touch(&mut space, page, Access::Write);
            }
            // Swap is full from here on: of all pages only the file's can go.
            while make_room(bench.vm.store(), AT, &bench.ram) != Room::None {
                bench.settle();
            }
            let read = || bench.vm.read_page(AT, &bench.ram, file, 0);
            while !matches!(read(), crate::vm::FileOutcome::Done(_)) {
                bench.settle();
            }
            let made = make_room(bench.vm.store(), AT, &bench.ram);
            assert_eq!(made, Room::Made, "seed {seed}");
        }
    }

    #[test]
    fn where_the_queue_is_full_of_reads_reclaim_waits_for_one() {
        let mut config = Config::new(64);
        config.swap = SwapConfig { slots: 8, page_cluster: 0, in_ram: false };
        config.requests = 1;
        let bench = Bench::with(&config);
        let mut space = bench.space();
        bench.map(&mut space, Page(0x1000), 1);
        bench.touch(&mut space, Page(0x1000), Access::Write).unwrap();
        let file = bench.file(1, crate::objects::file::Medium::Disk);
        let _ = bench.vm.read_page(AT, &bench.ram, file, 0);
        assert!(matches!(make_room(bench.vm.store(), AT, &bench.ram), Room::After(_)));
    }
}
