//! The heap: memory of any size from a range of frames, for a kernel's own data.
//!
//! Up to 8 KiB, an object of the next size class; above, whole frames, as many as it takes and no more;
//! above the buddy's longest run, frames that were never used, for ever: that is for the arrays that a
//! kernel makes once, when it boots.
//!
//! Addresses are physical, in bytes. Who owns a direct map adds its start.
//!
//! Cost: what a magazine serves takes no lock; a refill or a drain takes the heap's only one, for half a
//! magazine.

use core::ops::Range;

use spin::Mutex;

use super::cache::{CLASSES, Class, Slabs, UNIT_BYTES};
use super::magazine::{Magazines, Object, capacity};
use crate::addr::{Frame, Order, PAGE_BYTES};
use crate::frames::buddy::{Buddy, ORDER_MAX};

const PAGE: usize = PAGE_BYTES as usize;

/// A heap on a range of frames.
pub struct Heap {
    first: Frame,
    depot: Mutex<Depot>,
}

/// What processors share.
struct Depot {
    buddy: Buddy,
    slabs: Slabs,
    /// Frames of whole frames' allocations.
    frames: usize,
}

/// What a heap's memory is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// Frames that nothing is in.
    pub free_frames: usize,
    /// Frames handed out as such, those for ever included.
    pub frames: usize,
    /// Frames in slabs.
    pub slab_frames: usize,
    /// Objects in use, by class, with those in magazines.
    pub objects: [usize; CLASSES],
}

impl Heap {
    /// A heap with records for the frames of `range`, none of which is its own before it is
    /// [added](Self::add). The records come from the global allocator, 57 bytes a frame.
    ///
    /// # Panics
    /// If the range has more than 2^24 frames (64 GiB).
    pub fn new(range: Range<Frame>) -> Heap {
        let count = (range.end.0 - range.start.0) as usize;
        assert!(count <= 1 << 24, "a heap of {count} frames");
        let depot = Depot {
            buddy: Buddy::new(range.start, count),
            slabs: Slabs::new(range.start, count),
            frames: 0,
        };
        Heap { first: range.start, depot: Mutex::new(depot) }
    }

    /// Hands over frames, which nobody else uses.
    ///
    /// # Panics
    /// If they are not in the heap's range, or were added before.
    pub fn add(&self, frames: Range<Frame>) {
        self.depot.lock().buddy.add(frames);
    }

    /// Takes `bytes` at a multiple of `align`; returns their address. `None` if memory is short.
    /// An `align` that is no power of two is taken for some other alignment.
    #[inline]
    pub fn alloc(&self, local: &mut Magazines, bytes: usize, align: usize) -> Option<u64> {
        let Some(class) = Class::new(bytes, align) else { return self.alloc_frames(bytes, align) };
        let object = match local.by_class[class.index()].take() {
            Some(object) => object,
            None => self.refill(local, class)?,
        };
        Some(self.first.address().0 + u64::from(object.0) * UNIT_BYTES as u64)
    }

    /// Gives back what [`alloc`](Self::alloc) returned for the same `bytes` and `align`, on any processor.
    ///
    /// # Panics
    /// If it is noticed that nothing of this size is in use there: at once for frames and for an object
    /// freed twice in a row, otherwise when the magazine is drained.
    #[inline]
    pub fn free(&self, local: &mut Magazines, address: u64, bytes: usize, align: usize) {
        let Some(class) = Class::new(bytes, align) else {
            return self.free_frames(address, bytes, align);
        };
        let units = address.wrapping_sub(self.first.address().0) / UNIT_BYTES as u64;
        if local.by_class[class.index()].put(class, Object(units as u32)) {
            self.drain_class(local, class, capacity(class) / 2);
        }
    }

    /// Gives back all that is in the magazines.
    pub fn drain(&self, local: &mut Magazines) {
        Class::all().for_each(|class| self.drain_class(local, class, capacity(class)));
    }

    /// Frames of the longest free run, at most a buddy's longest: nothing larger can be had in one piece.
    pub fn longest_run(&self) -> usize {
        let depot = self.depot.lock();
        let longest = (0..=ORDER_MAX).rev().find(|&order| depot.buddy.free_runs(order) > 0);
        longest.map_or(0, |order| 1 << order)
    }

    /// What the memory is used for.
    pub fn usage(&self) -> Usage {
        let depot = self.depot.lock();
        let mut usage = Usage {
            free_frames: depot.buddy.free_frames(),
            frames: depot.frames,
            slab_frames: 0,
            objects: [0; CLASSES],
        };
        for class in Class::all() {
            let (objects, frames) = depot.slabs.usage(class);
            usage.objects[class.index()] = objects;
            usage.slab_frames += frames;
        }
        usage
    }

    /// Checks every record against every other; for tests, as it visits each frame.
    ///
    /// # Panics
    /// If one disagrees.
    pub fn check_invariants(&self) {
        let depot = self.depot.lock();
        depot.buddy.check_invariants();
        depot.slabs.check_invariants();
    }

    /// Fills half a magazine, and takes an object more.
    #[cold]
    fn refill(&self, local: &mut Magazines, class: Class) -> Option<Object> {
        let wanted = capacity(class) / 2 + 1;
        let refill = |local: &mut Magazines| {
            let magazine = &mut local.by_class[class.index()];
            let mut depot = self.depot.lock();
            let Depot { buddy, slabs, .. } = &mut *depot;
            slabs.alloc(buddy, class, wanted, |object| {
                let is_full = magazine.put(class, object);
                debug_assert!(!is_full, "half a magazine fits in an empty one");
            });
            magazine.take()
        };
        if let Some(object) = refill(local) {
            return Some(object);
        }
        // What other classes keep here may be whole slabs.
        self.drain(local);
        refill(local)
    }

    #[cold]
    fn drain_class(&self, local: &mut Magazines, class: Class, count: usize) {
        let mut depot = self.depot.lock();
        let Depot { buddy, slabs, .. } = &mut *depot;
        local.by_class[class.index()].drain(count, |object| slabs.free(buddy, class, object));
    }

    #[cold]
    fn alloc_frames(&self, bytes: usize, align: usize) -> Option<u64> {
        let (count, order) = frames_of(bytes, align)?;
        let mut depot = self.depot.lock();
        let depot = &mut *depot;
        let run = if order > ORDER_MAX {
            if align > PAGE << ORDER_MAX {
                return None;
            }
            depot.buddy.take_end(count, align.div_ceil(PAGE) as u32)?
        } else {
            let run = depot.buddy.alloc(order)?;
            if count < 1 << order {
                depot.buddy.split(run, order, 0);
                each_frame(run.0 + count as u32..run.0 + (1 << order), |some| {
                    depot.buddy.free_each(some);
                });
            }
            run
        };
        depot.frames += count;
        Some(run.address().0)
    }

    #[cold]
    fn free_frames(&self, address: u64, bytes: usize, align: usize) {
        let (count, order) = frames_of(bytes, align).expect("it was allocated");
        let run = Frame((address / PAGE_BYTES) as u32);
        let mut depot = self.depot.lock();
        if order > ORDER_MAX {
            return; // for ever
        }
        if count == 1 << order {
            depot.buddy.free(run, order);
        } else {
            each_frame(run.0..run.0 + count as u32, |some| depot.buddy.free_each(some));
        }
        depot.frames -= count;
    }
}

/// Frames that so many bytes take, and the order of the run that has them at a multiple of `align`.
fn frames_of(bytes: usize, align: usize) -> Option<(usize, Order)> {
    let count = bytes.div_ceil(PAGE).max(1);
    let run = count.max(align / PAGE).checked_next_power_of_two()?;
    Some((count, run.ilog2() as Order))
}

/// The frames of a range, some at a time.
fn each_frame(range: Range<u32>, mut each: impl FnMut(&[Frame])) {
    let mut some = [Frame(0); 64];
    let mut at = range.start;
    while at < range.end {
        let count = some.len().min((range.end - at) as usize);
        (at..).zip(&mut some[..count]).for_each(|(number, frame)| *frame = Frame(number));
        each(&some[..count]);
        at += count as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// A heap on 4096 frames from 1024 up.
    fn heap() -> Heap {
        let heap = Heap::new(Frame(1000)..Frame(5200));
        heap.add(Frame(1024)..Frame(5120));
        heap
    }

    #[test]
    fn a_small_object_costs_the_next_class() {
        let (heap, mut local) = (heap(), Magazines::new());
        let address = heap.alloc(&mut local, 100, 8).unwrap();
        assert_eq!(address, 1024 * PAGE_BYTES + 15 * 112, "the last of half a magazine");
        heap.free(&mut local, address, 100, 8);
        assert_eq!(heap.alloc(&mut local, 112, 16), Some(address), "the one freed last");
        assert_eq!(heap.usage().slab_frames, 1);
        heap.free(&mut local, address, 112, 16);
        heap.drain(&mut local);
        let usage = heap.usage();
        assert_eq!((usage.free_frames, usage.slab_frames), (4096, 0));
        assert_eq!(usage.objects, [0; CLASSES]);
    }

    #[test]
    fn what_is_larger_takes_whole_frames_and_no_more() {
        let (heap, mut local) = (heap(), Magazines::new());
        let sizes = [PAGE * 2 + 1, PAGE * 5, PAGE * 64, PAGE * 1024];
        let found: Vec<_> =
            sizes.iter().map(|&bytes| heap.alloc(&mut local, bytes, 8).unwrap()).collect();
        assert_eq!(heap.usage().frames, 3 + 5 + 64 + 1024);
        assert_eq!(heap.usage().free_frames, 4096 - (3 + 5 + 64 + 1024));
        heap.check_invariants();
        for (address, bytes) in found.into_iter().zip(sizes) {
            heap.free(&mut local, address, bytes, 8);
            heap.check_invariants();
        }
        assert_eq!(heap.usage().free_frames, 4096);
    }

    #[test]
    fn alignments_beyond_a_page_are_kept() {
        let (heap, mut local) = (heap(), Magazines::new());
        for align in [1 << 13, 1 << 16, 4 << 20] {
            let address = heap.alloc(&mut local, 100, align).unwrap();
            assert_eq!(address % align as u64, 0);
            heap.free(&mut local, address, 100, align);
        }
        assert_eq!(heap.alloc(&mut local, 100, 8 << 20), None);
        assert_eq!(heap.usage().free_frames, 4096);
    }

    #[test]
    fn what_is_longer_than_any_run_is_for_ever() {
        let (heap, mut local) = (heap(), Magazines::new());
        let long = heap.alloc(&mut local, PAGE * 1025, 64).unwrap();
        assert_eq!(long, (5120 - 1025) * PAGE_BYTES, "the upper end");
        heap.free(&mut local, long, PAGE * 1025, 64);
        assert_eq!(heap.usage().free_frames, 4096 - 1025);
        assert_eq!(heap.alloc(&mut local, PAGE * 4000, 64), None);
        heap.check_invariants();
    }

    #[test]
    fn a_heap_that_is_full_refuses_until_something_is_given_back() {
        let (heap, mut local) = (heap(), Magazines::new());
        let all: Vec<_> = core::iter::from_fn(|| heap.alloc(&mut local, 8192, 1)).collect();
        assert_eq!(all.len(), 2048);
        assert_eq!(heap.alloc(&mut local, 1, 1), None);
        for address in all {
            heap.free(&mut local, address, 8192, 1);
        }
        // The magazine holds some of them, in slabs that nothing else is in: they go back in need.
        assert!(heap.alloc(&mut local, PAGE * 1024, 1).is_some());
        assert!(heap.alloc(&mut local, 1, 1).is_some());
        heap.check_invariants();
    }

    #[test]
    #[should_panic(expected = "object 0 of 64 bytes in f1024 is freed twice")]
    fn an_object_freed_twice_is_noticed_at_the_latest_when_it_leaves_the_magazine() {
        let (heap, mut local) = (heap(), Magazines::new());
        let both = [heap.alloc(&mut local, 64, 8).unwrap(), heap.alloc(&mut local, 64, 8).unwrap()];
        heap.drain(&mut local);
        let first = 1024 * PAGE_BYTES;
        heap.free(&mut local, first, 64, 8);
        heap.free(&mut local, both[1], 64, 8);
        heap.free(&mut local, first, 64, 8);
        heap.drain(&mut local);
    }

    #[test]
    #[should_panic(expected = "freed f1024 of order 2, which is")]
    fn frames_are_not_freed_twice() {
        let (heap, mut local) = (heap(), Magazines::new());
        let address = heap.alloc(&mut local, PAGE * 4, 8).unwrap();
        heap.free(&mut local, address, PAGE * 4, 8);
        heap.free(&mut local, address, PAGE * 4, 8);
    }
}
