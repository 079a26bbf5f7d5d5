//! Groups of frames: whose pages a fault may evict.
//!
//! Without groups all frames are in one order of eviction, and a fault takes the frame that is coldest
//! of all: *global* replacement. With groups each has an order of its own and an allotment; a program
//! that faults when its group holds as many frames as that evicts one of them first: *local*
//! replacement. Then a program that needs more than its part slows only itself.
//!
//! ```text
//!     frame ── owner ──▶ group ── order of eviction, allotment
//!     space ────────────────┘     0: nobody's, in the common order
//! ```
//!
//! Anonymous memory belongs to who maps it first, as with Linux's memory cgroups. Pages of files are
//! nobody's, since many map them, and so are pages read ahead until they are mapped.
//!
//! Two bytes a frame, and an order a group, only if there are groups. Orders are made at boot: nothing
//! is allocated later.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU16, AtomicUsize, Ordering::Relaxed};

use spin::Mutex;

use super::store::SPACES_MAX;
use crate::addr::Frame;
use crate::machine::SpaceId;
use crate::replace::Replacement;

/// A group of frames; 0 is nobody's.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct GroupId(pub u16);

/// The groups of a machine.
pub struct Groups {
    /// By frame and by space.
    owners: Box<[AtomicU16]>,
    spaces: Box<[AtomicU16]>,
    /// By group, from 1.
    groups: Box<[Group]>,
}

struct Group {
    order: Mutex<Replacement>,
    allotment: AtomicUsize,
}

impl Groups {
    /// As many groups as there are orders, without frames; nobody's allotment is bounded.
    pub fn new(frames: usize, orders: impl Iterator<Item = Replacement>) -> Groups {
        let group =
            |order| Group { order: Mutex::new(order), allotment: AtomicUsize::new(usize::MAX) };
        Groups {
            owners: bytemuck::zeroed_slice_box(frames),
            spaces: bytemuck::zeroed_slice_box(SPACES_MAX as usize),
            groups: orders.map(group).collect(),
        }
    }

    fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get((id.0 as usize).checked_sub(1)?)
    }

    /// The order of eviction of a group; `None` for nobody's.
    #[inline]
    pub fn order(&self, id: GroupId) -> Option<&Mutex<Replacement>> {
        self.group(id).map(|group| &group.order)
    }

    /// The orders of eviction of all groups.
    pub(crate) fn orders(&self) -> impl Iterator<Item = &Mutex<Replacement>> {
        self.groups.iter().map(|group| &group.order)
    }

    /// Whose a frame is.
    #[inline]
    pub fn owner(&self, frame: Frame) -> GroupId {
        GroupId(self.owners[frame.index()].load(Relaxed))
    }

    /// Gives a frame to a group. It must be in no order.
    pub(super) fn set_owner(&self, frame: Frame, group: GroupId) {
        self.owners[frame.index()].store(group.0, Relaxed);
    }

    /// The group that what a space maps belongs to.
    #[inline]
    pub fn of_space(&self, space: SpaceId) -> GroupId {
        GroupId(self.spaces[space.0 as usize].load(Relaxed))
    }

    /// Lets a space map for `group` from now on.
    ///
    /// # Panics
    /// If there is no such group.
    pub fn set_space(&self, space: SpaceId, group: GroupId) {
        assert!(group.0 as usize <= self.groups.len(), "there is no {group:?}");
        self.spaces[space.0 as usize].store(group.0, Relaxed);
    }

    /// Frames that a group may hold before it must evict its own.
    pub fn allotment(&self, group: GroupId) -> usize {
        self.group(group).map_or(usize::MAX, |group| group.allotment.load(Relaxed))
    }

    /// Sets that. What it holds beyond, it loses when it faults next.
    pub fn set_allotment(&self, group: GroupId, frames: usize) {
        if let Some(group) = self.group(group) {
            group.allotment.store(frames, Relaxed);
        }
    }

    /// Frames that a group holds and could lose.
    pub fn held(&self, group: GroupId) -> usize {
        self.group(group).map_or(0, |group| group.order.lock().as_policy().len())
    }

    /// Frames of all groups that could be lost.
    pub(super) fn held_by_all(&self) -> usize {
        self.groups.iter().map(|group| group.order.lock().as_policy().len()).sum()
    }

    /// Who must give frames for others: the group most above its allotment, else nobody's, of which
    /// there are `common`, else the largest.
    pub(super) fn donor(&self, common: usize) -> GroupId {
        let (mut above, mut largest) = ((0, GroupId(0)), (0, GroupId(0)));
        for (index, group) in self.groups.iter().enumerate() {
            let id = GroupId(index as u16 + 1);
            let held = group.order.lock().as_policy().len();
            let excess = held.saturating_sub(group.allotment.load(Relaxed));
            if excess > above.0 {
                above = (excess, id);
            }
            if held > largest.0 {
                largest = (held, id);
            }
        }
        match above.0 {
            0 if common > 0 => GroupId(0),
            0 => largest.1,
            _ => above.1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;
    use crate::addr::Page;
    use crate::machine::Access;
    use crate::objects::swap::SwapConfig;
    use crate::testing::{AT, Bench};

    fn bench(groups: u16) -> Bench {
        let mut config = Config::new(512);
        config.swap = SwapConfig { slots: 512, page_cluster: 0, in_ram: false };
        config.groups = groups;
        Bench::with(&config)
    }

    #[test]
    fn a_program_with_its_allotment_used_up_evicts_its_own_page() {
        let bench = bench(2);
        let (mut small, mut large) = (bench.space(), bench.space());
        for (space, group) in [(&small, GroupId(1)), (&large, GroupId(2))] {
            let groups = bench.vm.store().groups.as_ref().unwrap();
            groups.set_space(space.id(), group);
            groups.set_allotment(group, 50);
        }
        let mine = bench.map(&mut small, Page(0x1000), 20);
        let pages = bench.map(&mut large, Page(0x9000), 120);
        for page in mine.iter() {
            bench.touch(&mut small, page, Access::Write).unwrap();
        }
        for page in pages.iter().chain(pages.iter()) {
            bench.touch(&mut large, page, Access::Write).unwrap();
            bench.settle();
        }
        let store = bench.vm.store();
        assert_eq!(large.resident(store).pages(), 50, "it has its part and no more");
        assert_eq!(small.resident(store).pages(), 20, "and others have theirs");
        let groups = store.groups.as_ref().unwrap();
        assert_eq!((groups.held(GroupId(1)), groups.held(GroupId(2))), (20, 50));
        assert_eq!(groups.owner(bench.entry(&large, Page(pages.end.0 - 1)).frame()), GroupId(2));
        bench.check(&[&small, &large]);
        bench.vm.destroy(AT, &bench.ram, large);
        let groups = bench.vm.store().groups.as_ref().unwrap();
        assert_eq!(groups.held(GroupId(2)), 0, "what is freed belongs to nobody");
        bench.check(&[&small]);
    }

    #[test]
    fn who_is_most_above_its_allotment_gives_frames_for_others() {
        let bench = bench(3);
        let mut spaces = [bench.space(), bench.space(), bench.space()];
        for (index, space) in spaces.iter_mut().enumerate() {
            let groups = bench.vm.store().groups.as_ref().unwrap();
            groups.set_space(space.id(), GroupId(index as u16 + 1));
            for page in bench.map(space, Page(0x1000), 40).iter() {
                bench.touch(space, page, Access::Write).unwrap();
            }
        }
        bench.vm.store().groups.as_ref().unwrap().set_allotment(GroupId(1), 39);
        bench.vm.store().groups.as_ref().unwrap().set_allotment(GroupId(2), 30);
        bench.vm.reclaim(AT, &bench.ram, 9);
        let resident = |index: usize| spaces[index].resident(bench.vm.store()).pages();
        assert_eq!([resident(0), resident(1), resident(2)], [40, 31, 40]);
        bench.vm.reclaim(AT, &bench.ram, 2);
        assert_eq!([resident(0), resident(1), resident(2)], [39, 30, 40]);
    }
}
