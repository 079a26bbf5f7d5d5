//! A cache: objects of one size, cut from runs of frames.
//!
//! A *slab* is a run of 2^order frames divided into objects. Its record, beside the frames, has a bit for
//! each free object. Slabs with a free object are in the ring of their cache; a full one is in none and
//! comes back with the first object that is given back. A slab goes back to the buddy with its last
//! object.
//!
//! Invariant: a slab is in the ring of its cache exactly if it has a free object.
//!
//! Knows nothing of: locks, processors, what is in an object.

use alloc::boxed::Box;
use alloc::vec;

use super::magazine::Object;
use crate::addr::{Frame, Order, PAGE_BYTES};
use crate::frames::buddy::Buddy;
use crate::ring::Rings;

/// Bytes that objects are multiples of, and aligned to at least.
pub const UNIT_BYTES: usize = 16;
/// The largest size of a class, in bytes.
pub const CLASS_BYTES_MAX: usize = 8 << 10;
/// Size classes: 16, 32, 48 and 64 bytes, and four for each doubling up to 8 KiB.
pub const CLASSES: usize = 4 + 4 * (CLASS_BYTES_MAX.ilog2() - 6) as usize;

const PAGE: usize = PAGE_BYTES as usize;
/// The order of the longest slab.
const SLAB_ORDER_MAX: Order = 3;
/// Objects of one slab at the most, and the words of its bitmap.
const OBJECTS_MAX: usize = PAGE / UNIT_BYTES;
const WORDS: usize = OBJECTS_MAX / u64::BITS as usize;

/// A class of sizes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Class(u8);

impl Class {
    /// The class of objects of so many `bytes`, aligned to `align`, a power of two; `None` if they are
    /// whole frames.
    #[inline]
    pub const fn new(bytes: usize, align: usize) -> Option<Class> {
        debug_assert!(align.is_power_of_two(), "an alignment is a power of two");
        if bytes > CLASS_BYTES_MAX || align > PAGE {
            return None;
        }
        // Multiples of an alignment are in classes that are such multiples: those between 2^n and
        // 2^(n+1) are the multiples of 2^(n-2).
        let bytes = if bytes == 0 { 1 } else { bytes };
        let bytes = (bytes + align - 1) & !(align - 1);
        Some(Class(CLASS_OF_UNITS[bytes.div_ceil(UNIT_BYTES)]))
    }

    /// Bytes of its objects.
    pub const fn bytes(self) -> usize {
        let class = self.0 as usize;
        if class < 4 { (class + 1) * UNIT_BYTES } else { (class % 4 + 5) << (class / 4 + 3) }
    }

    /// Its number, below [`CLASSES`].
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The class of the smallest objects.
    pub const SMALLEST: Class = Class(0);

    /// The next larger one.
    pub const fn next(self) -> Option<Class> {
        let next = Class(self.0 + 1);
        if next.index() < CLASSES { Some(next) } else { None }
    }

    /// All classes, upwards.
    pub fn all() -> impl Iterator<Item = Class> {
        core::iter::successors(Some(Class::SMALLEST), |class| class.next())
    }

    /// The order of its slabs: the lowest that wastes no more than an eighth and holds four objects;
    /// without such a one the longest.
    const fn order(self) -> Order {
        let mut order = 0;
        while order < SLAB_ORDER_MAX {
            let run = PAGE << order;
            if run / self.bytes() >= 4 && run % self.bytes() <= run / 8 {
                return order;
            }
            order += 1;
        }
        order
    }
}

/// The class of objects of so many units.
const CLASS_OF_UNITS: [u8; CLASS_BYTES_MAX / UNIT_BYTES + 1] = {
    let mut classes = [0; CLASS_BYTES_MAX / UNIT_BYTES + 1];
    let mut units = 1;
    while units < classes.len() {
        let below = classes[units - 1];
        classes[units] = below + (Class(below).bytes() < units * UNIT_BYTES) as u8;
        units += 1;
    }
    classes
};

/// A class with what each call would have to divide for.
#[derive(Clone, Copy)]
struct Geometry {
    bytes: u32,
    /// 2^32 / `bytes`, rounded up: offsets in a slab, below 2^15, are divided exactly by a product.
    inverse: u32,
    objects: u16,
    order: Order,
}

const GEOMETRY: [Geometry; CLASSES] = {
    let none = Geometry { bytes: 0, inverse: 0, objects: 0, order: 0 };
    let mut all = [none; CLASSES];
    let mut index = 0;
    while index < CLASSES {
        let class = Class(index as u8);
        let (bytes, order) = (class.bytes(), class.order());
        all[index] = Geometry {
            bytes: bytes as u32,
            inverse: (1u64 << 32).div_ceil(bytes as u64) as u32,
            objects: ((PAGE << order) / bytes) as u16,
            order,
        };
        index += 1;
    }
    all
};

/// What is known of a slab, under its first frame.
#[derive(Clone, Copy)]
struct Slab {
    /// Which objects are free.
    free: [u64; WORDS],
    /// Objects in use.
    used: u16,
    /// Its class, or [`NO_SLAB`].
    class: u8,
}

const NO_SLAB: u8 = u8::MAX;

impl Slab {
    const NONE: Slab = Slab { free: [0; WORDS], used: 0, class: NO_SLAB };

    fn has_free(&self) -> bool {
        self.free.iter().any(|&word| word != 0)
    }
}

/// All slabs of a heap, whose caches share the frames.
pub(super) struct Slabs {
    slabs: Box<[Slab]>,
    rings: Rings,
    first: Frame,
    caches: [Cache; CLASSES],
}

/// What is known of the objects of one class.
#[derive(Clone, Copy, Default)]
struct Cache {
    /// A slab with a free object, if there is one.
    partial: Option<Frame>,
    slabs: usize,
    used: usize,
}

impl Slabs {
    /// No slabs, on frames `first..first + count`.
    pub(super) fn new(first: Frame, count: usize) -> Slabs {
        Slabs {
            slabs: vec![Slab::NONE; count].into_boxed_slice(),
            rings: Rings::new(first, count),
            first,
            caches: [Cache::default(); CLASSES],
        }
    }

    /// Takes up to `count` free objects and hands them to `each`; returns how many there were. Fewer
    /// only if `buddy` has no run for another slab.
    pub(super) fn alloc(
        &mut self,
        buddy: &mut Buddy,
        class: Class,
        count: usize,
        mut each: impl FnMut(Object),
    ) -> usize {
        let mut missing = count;
        while missing > 0 {
            let partial = self.caches[class.index()].partial;
            let Some(run) = partial.or_else(|| self.grow(buddy, class)) else { break };
            let taken = self.take(run, class, missing, &mut each);
            missing -= taken;
        }
        self.caches[class.index()].used += count - missing;
        count - missing
    }

    /// Takes up to `count` objects of one slab, the lowest first.
    fn take(
        &mut self,
        run: Frame,
        class: Class,
        count: usize,
        each: &mut impl FnMut(Object),
    ) -> usize {
        let index = self.index(run);
        let units = GEOMETRY[class.index()].bytes / UNIT_BYTES as u32;
        let start = index as u32 * (PAGE / UNIT_BYTES) as u32;
        let slab = &mut self.slabs[index];
        let mut taken = 0;
        for (nth, word) in slab.free.iter_mut().enumerate() {
            while *word != 0 && taken < count {
                let bit = nth as u32 * u64::BITS + word.trailing_zeros();
                *word &= *word - 1;
                each(Object(start + bit * units));
                taken += 1;
            }
        }
        slab.used += taken as u16;
        if !slab.has_free() {
            self.rings.remove(&mut self.caches[class.index()].partial, run);
        }
        taken
    }

    /// Makes a slab of a run of frames.
    fn grow(&mut self, buddy: &mut Buddy, class: Class) -> Option<Frame> {
        let geometry = GEOMETRY[class.index()];
        let run = buddy.alloc(geometry.order)?;
        let mut free = [0; WORDS];
        for (nth, word) in free.iter_mut().enumerate() {
            let bits = usize::from(geometry.objects).saturating_sub(nth * 64).min(64);
            *word = u64::MAX.checked_shr(64 - bits as u32).unwrap_or(0);
        }
        let index = self.index(run);
        self.slabs[index] = Slab { free, used: 0, class: class.0 };
        let cache = &mut self.caches[class.index()];
        cache.slabs += 1;
        self.rings.push(&mut cache.partial, run);
        Some(run)
    }

    /// Gives an object back.
    ///
    /// # Panics
    /// If it is free, of another class, or no object.
    pub(super) fn free(&mut self, buddy: &mut Buddy, class: Class, object: Object) {
        let geometry = GEOMETRY[class.index()];
        let frame = self.first.0 + object.0 / (PAGE / UNIT_BYTES) as u32;
        let run = Frame(frame & !((1 << geometry.order) - 1));
        let index = self.index(run);
        let offset = object.0 as usize * UNIT_BYTES - index * PAGE;
        let number = ((offset as u64 * u64::from(geometry.inverse)) >> 32) as usize;
        let slab = &mut self.slabs[index];
        assert!(
            slab.class == class.0 && number * geometry.bytes as usize == offset,
            "no object of {} bytes begins at byte {offset} of {run:?}",
            geometry.bytes
        );
        let (word, bit) = (number / 64, 1 << (number % 64));
        assert!(
            slab.free[word] & bit == 0,
            "object {number} of {} bytes in {run:?} is freed twice",
            geometry.bytes
        );
        let was_full = usize::from(slab.used) == usize::from(geometry.objects);
        slab.free[word] |= bit;
        slab.used -= 1;
        let is_empty = slab.used == 0;
        let cache = &mut self.caches[class.index()];
        cache.used -= 1;
        if is_empty {
            *slab = Slab::NONE;
            cache.slabs -= 1;
            if !was_full {
                self.rings.remove(&mut cache.partial, run);
            }
            buddy.free(run, geometry.order);
        } else if was_full {
            self.rings.push(&mut cache.partial, run);
        }
    }

    /// Objects in use and frames in slabs, of one class. What is in a magazine is in use.
    pub(super) fn usage(&self, class: Class) -> (usize, usize) {
        let cache = self.caches[class.index()];
        (cache.used, cache.slabs << GEOMETRY[class.index()].order)
    }

    /// Checks every record against every other; for tests, as it visits each frame.
    ///
    /// # Panics
    /// If one disagrees.
    pub(super) fn check_invariants(&self) {
        for class in Class::all() {
            let geometry = GEOMETRY[class.index()];
            let cache = &self.caches[class.index()];
            let (mut slabs, mut used, mut partial) = (0, 0, 0);
            for (index, slab) in self.slabs.iter().enumerate() {
                if slab.class != class.0 {
                    continue;
                }
                let run = Frame(self.first.0 + index as u32);
                let free: u32 = slab.free.iter().map(|word| word.count_ones()).sum();
                let objects = u32::from(geometry.objects);
                assert_eq!(u32::from(slab.used) + free, objects, "objects of {run:?}");
                assert!(slab.used > 0, "{run:?} is a slab of nothing");
                assert_eq!(self.rings.is_linked(run), free > 0, "whether {run:?} is in the ring");
                slabs += 1;
                used += usize::from(slab.used);
                partial += usize::from(free > 0);
            }
            assert_eq!((cache.slabs, cache.used), (slabs, used), "of {} bytes", class.bytes());
            let ring = self.rings.iter(cache.partial).count();
            assert_eq!(ring, partial, "slabs of {} bytes with room", class.bytes());
        }
    }

    fn index(&self, run: Frame) -> usize {
        run.0.wrapping_sub(self.first.0) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn classes_waste_little() {
        for bytes in 1..=CLASS_BYTES_MAX {
            let class = Class::new(bytes, 1).expect("it is small");
            assert!(class.bytes() >= bytes, "{bytes} bytes");
            assert!(class.bytes() < bytes + UNIT_BYTES.max(bytes / 4 + 1), "{bytes} bytes");
            let below = class.0.checked_sub(1).map_or(0, |below| Class(below).bytes());
            assert!(below < bytes, "{bytes} bytes fit in {below}");
        }
        assert_eq!(Class::new(0, 1), Class::new(1, 1));
        assert_eq!(Class::new(CLASS_BYTES_MAX + 1, 1), None);
        assert_eq!(Class::all().last(), Class::new(CLASS_BYTES_MAX, 1));
    }

    #[test]
    fn a_class_serves_an_alignment_if_its_size_is_a_multiple() {
        for bytes in 0..=CLASS_BYTES_MAX {
            for align in (0..=12).map(|power| 1 << power) {
                if let Some(class) = Class::new(bytes, align) {
                    let whole = class.bytes().is_multiple_of(align.max(UNIT_BYTES).min(align));
                    assert!(whole && class.bytes() >= bytes, "{bytes} bytes aligned to {align}");
                }
            }
        }
        assert_eq!(Class::new(100, 64).map(Class::bytes), Some(128));
        assert_eq!(Class::new(40, 32).map(Class::bytes), Some(64));
        assert_eq!(Class::new(16, 8192), None, "frames");
    }

    #[test]
    fn a_slab_wastes_an_eighth_at_most() {
        for (class, geometry) in Class::all().zip(GEOMETRY) {
            let run = PAGE << geometry.order;
            let used = class.bytes() * usize::from(geometry.objects);
            assert!(run - used <= run / 8 && geometry.objects >= 4, "{} bytes", class.bytes());
            assert!(usize::from(geometry.objects) <= OBJECTS_MAX);
            for offset in 0..run as u64 {
                let number = (offset * u64::from(geometry.inverse)) >> 32;
                assert_eq!(number, offset / class.bytes() as u64);
            }
        }
    }

    /// Slabs on 64 frames from 8 up.
    fn slabs() -> (Slabs, Buddy) {
        let mut buddy = Buddy::new(Frame(8), 64);
        buddy.add(Frame(8)..Frame(72));
        (Slabs::new(Frame(8), 64), buddy)
    }

    #[test]
    fn objects_come_upwards_and_a_slab_goes_with_its_last() {
        let (mut slabs, mut buddy) = slabs();
        let class = Class::new(1024, 1).unwrap();
        let mut got = Vec::new();
        assert_eq!(slabs.alloc(&mut buddy, class, 5, |object| got.push(object)), 5);
        assert_eq!(got[..5].iter().map(|o| o.0).collect::<Vec<_>>(), [0, 64, 128, 192, 256]);
        assert_eq!((slabs.usage(class), buddy.free_frames()), ((5, 2), 62));
        slabs.check_invariants();
        for object in got {
            slabs.free(&mut buddy, class, object);
            slabs.check_invariants();
        }
        assert_eq!((slabs.usage(class), buddy.free_frames()), ((0, 0), 64));
    }

    #[test]
    fn without_a_run_there_are_as_many_as_there_are() {
        let (mut slabs, mut buddy) = slabs();
        let class = Class::new(8192, 1).unwrap();
        assert_eq!(slabs.alloc(&mut buddy, class, 100, |_| {}), 32);
        assert_eq!(buddy.free_frames(), 0);
    }

    #[test]
    #[should_panic(expected = "object 1 of 1024 bytes in f8 is freed twice")]
    fn an_object_is_not_freed_twice() {
        let (mut slabs, mut buddy) = slabs();
        let class = Class::new(1024, 1).unwrap();
        slabs.alloc(&mut buddy, class, 2, |_| {});
        slabs.free(&mut buddy, class, Object(64));
        slabs.free(&mut buddy, class, Object(64));
    }

    #[test]
    #[should_panic(expected = "no object of 64 bytes begins at byte 1024 of f8")]
    fn an_object_is_freed_as_what_it_is() {
        let (mut slabs, mut buddy) = slabs();
        slabs.alloc(&mut buddy, Class::new(1024, 1).unwrap(), 2, |_| {});
        slabs.free(&mut buddy, Class::new(64, 1).unwrap(), Object(64));
    }
}
