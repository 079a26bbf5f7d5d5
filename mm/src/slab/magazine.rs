//! Magazines: the free objects that one processor keeps to itself.
//!
//! A magazine is a small stack of objects of one size class. What was freed last is handed out first,
//! as its contents are the likeliest to be in the processor's data cache. An empty magazine is refilled to
//! half and a full one gives its older half back, so that neither happens again soon.
//!
//! Invariant: an object in a magazine is in use for its slab. Who owns the magazines is the only one who
//! touches them: there is no lock and no atomic operation.

use super::cache::{CLASS_BYTES_MAX, CLASSES, Class};

/// Objects of one magazine at the most.
pub const ROUNDS: usize = 30;
/// Bytes in a magazine of large objects.
const BYTES_MAX: usize = 4 * CLASS_BYTES_MAX;

/// An object of a heap: the number of its first 16 bytes, counted from the heap's first frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Object(pub(super) u32);

/// A stack of free objects of one class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Magazine {
    count: u32,
    rounds: [Object; ROUNDS],
}

impl Magazine {
    const EMPTY: Magazine = Magazine { count: 0, rounds: [Object(0); ROUNDS] };

    /// Takes the object that was put last.
    #[inline]
    pub(super) fn take(&mut self) -> Option<Object> {
        self.count = self.count.checked_sub(1)?;
        Some(self.rounds[self.count as usize])
    }

    /// Puts a free object, and says whether there is no room for another.
    ///
    /// # Panics
    /// If it was put just before: it is freed twice.
    #[inline]
    #[must_use]
    pub(super) fn put(&mut self, class: Class, object: Object) -> bool {
        let count = self.count as usize;
        assert!(
            count == 0 || self.rounds[count - 1] != object,
            "an object of {} bytes is freed twice",
            class.bytes()
        );
        self.rounds[count] = object;
        self.count += 1;
        count + 1 == capacity(class)
    }

    /// Takes the `count` objects that have been here longest; fewer if there are fewer.
    pub(super) fn drain(&mut self, count: usize, mut each: impl FnMut(Object)) {
        let held = self.count as usize;
        let gone = count.min(held);
        self.rounds[..gone].iter().for_each(|&object| each(object));
        self.rounds.copy_within(gone..held, 0);
        self.count = (held - gone) as u32;
    }

    /// Objects held.
    pub(super) fn len(&self) -> usize {
        self.count as usize
    }
}

/// Objects that a magazine of this class holds: fewer of large ones, but a few of any.
#[inline]
pub(super) const fn capacity(class: Class) -> usize {
    CAPACITY[class.index()] as usize
}

const CAPACITY: [u8; CLASSES] = {
    let mut all = [0; CLASSES];
    let mut class = Class::SMALLEST;
    loop {
        let fitting = BYTES_MAX / class.bytes();
        all[class.index()] = if fitting < ROUNDS { fitting as u8 } else { ROUNDS as u8 };
        match class.next() {
            Some(next) => class = next,
            None => break all,
        }
    }
};

/// The magazines of one processor (or thread), one for each size class. Its owner passes it to the
/// [`Heap`](super::Heap) at each call, always the same heap.
///
/// What is in it when it is dropped stays in use for ever; see [`Heap::drain`](super::Heap::drain).
#[derive(Clone, Debug)]
pub struct Magazines {
    pub(super) by_class: [Magazine; CLASSES],
}

impl Default for Magazines {
    fn default() -> Magazines {
        Magazines::new()
    }
}

impl Magazines {
    /// Empty magazines.
    pub const fn new() -> Magazines {
        Magazines { by_class: [Magazine::EMPTY; CLASSES] }
    }

    /// Objects held, of all classes.
    pub fn len(&self) -> usize {
        self.by_class.iter().map(Magazine::len).sum()
    }

    /// Whether they hold none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Class = Class::new(64, 1).expect("64 bytes are small");

    #[test]
    fn the_object_freed_last_is_handed_out_first() {
        let mut magazine = Magazine::EMPTY;
        assert!(!magazine.put(SMALL, Object(7)) && !magazine.put(SMALL, Object(3)));
        assert_eq!(magazine.take(), Some(Object(3)));
        assert_eq!(magazine.take(), Some(Object(7)));
        assert_eq!(magazine.take(), None);
    }

    #[test]
    fn a_full_magazine_gives_its_oldest_back() {
        let mut magazine = Magazine::EMPTY;
        let full: Vec<_> = (0..ROUNDS as u32).map(|n| magazine.put(SMALL, Object(n))).collect();
        assert_eq!(full.iter().position(|&full| full), Some(ROUNDS - 1));
        let mut gone = Vec::new();
        magazine.drain(ROUNDS / 2, |object| gone.push(object.0));
        assert_eq!(gone, (0..ROUNDS as u32 / 2).collect::<Vec<_>>());
        assert_eq!(magazine.len(), ROUNDS / 2);
        assert_eq!(magazine.take(), Some(Object(ROUNDS as u32 - 1)));
    }

    #[test]
    fn large_objects_are_kept_in_small_numbers() {
        let large = Class::new(8192, 1).expect("the largest");
        assert_eq!(capacity(large), 4);
        assert!(capacity(SMALL) == ROUNDS && size_of::<Magazines>() <= 4096);
    }

    #[test]
    #[should_panic(expected = "an object of 64 bytes is freed twice")]
    fn an_object_freed_twice_in_a_row_is_noticed_at_once() {
        let mut magazine = Magazine::EMPTY;
        assert!(!magazine.put(SMALL, Object(7)));
        let _ = magazine.put(SMALL, Object(7));
    }

    use std::vec::Vec;
}
