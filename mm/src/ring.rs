//! Rings of frames, linked by number.
//!
//! Every list in Vellum that a frame can be on (free runs of one order, the queue of a policy) is a
//! ring: a circle of frames entered at a *head*, which its owner keeps. The links of all frames lie in
//! one array, so that any number of rings over the same frames share 8 bytes a frame, a frame leaves
//! the middle of a ring in constant time, and nothing is allocated after construction.
//!
//! ```text
//!     head ──▶ f3 ⇄ f7 ⇄ f0 ⇄ (f3)        behind the head = the end of the queue = before f3
//! ```
//!
//! A link is stored as the frame's index + 1, so that zero bytes mean *in no ring*. An array of zero
//! bytes costs a host no memory until it is written: rings over a terabyte are free to make.
//!
//! Invariant: a frame is in at most one ring. Linking it twice would tie two rings into one, and hand
//! one frame to two owners; [`insert_before`](Rings::insert_before) therefore asserts that it is free.
//!
//! Knows nothing of: what a ring is for. It cannot tell, in constant time, one ring's frame from
//! another's: [`remove`](Rings::remove) with the head of a ring that does not hold the frame is caught
//! only where either is alone or empty.

use alloc::boxed::Box;
use alloc::vec;

use crate::addr::Frame;

const PREV: usize = 0;
const NEXT: usize = 1;
/// The links of a frame that is in no ring.
const UNLINKED: [u32; 2] = [0, 0];

/// The links of the frames `first..first + count`: 8 bytes each.
#[derive(Clone)]
pub struct Rings {
    links: Box<[[u32; 2]]>, // [previous, next], each an index + 1
    first: Frame,
}

impl Rings {
    /// Links for the frames `first..first + count`, none of them in a ring.
    ///
    /// # Panics
    /// If the last frame's number does not fit in 32 bits.
    pub fn new(first: Frame, count: usize) -> Rings {
        assert!(
            count <= (u32::MAX - first.0) as usize,
            "{count} frames from {first:?} are more than 32 bits number"
        );
        Rings { links: vec![UNLINKED; count].into_boxed_slice(), first }
    }

    /// Whether `frame` is in a ring. A frame that these links do not cover is in none.
    #[inline]
    pub fn is_linked(&self, frame: Frame) -> bool {
        let index = frame.0.wrapping_sub(self.first.0) as usize;
        self.links.get(index).is_some_and(|links| *links != UNLINKED)
    }

    /// Adds `frame` just before the head: as the last of the ring. An empty ring starts with it.
    ///
    /// # Panics
    /// If `frame` is in a ring already.
    #[inline(always)] // a call would cost a third more, in every fault
    pub fn insert_before(&mut self, head: &mut Option<Frame>, frame: Frame) {
        let index = self.unlinked(frame);
        if let Some(head) = *head {
            let next = self.linked(head);
            let prev = index_at(self.links[next][PREV]);
            self.insert_between(prev, index, next);
        } else {
            self.links[index] = [link_to(index); 2];
            *head = Some(frame);
        }
    }

    /// Adds `frame` just after the head: as the second of the ring. An empty ring starts with it.
    ///
    /// # Panics
    /// If `frame` is in a ring already.
    #[inline]
    pub fn insert_after(&mut self, head: &mut Option<Frame>, frame: Frame) {
        let index = self.unlinked(frame);
        if let Some(head) = *head {
            let prev = self.linked(head);
            let next = index_at(self.links[prev][NEXT]);
            self.insert_between(prev, index, next);
        } else {
            self.links[index] = [link_to(index); 2];
            *head = Some(frame);
        }
    }

    /// Adds `frame` as the new head, so that the ring is a stack.
    ///
    /// # Panics
    /// If `frame` is in a ring already.
    #[inline]
    pub fn push(&mut self, head: &mut Option<Frame>, frame: Frame) {
        self.insert_before(head, frame);
        *head = Some(frame);
    }

    /// Takes `frame` out of the ring. If it was the head, the next one is the head now.
    ///
    /// # Panics
    /// If `frame` is in no ring, the ring is empty, or `frame` is alone in another one.
    #[inline]
    pub fn remove(&mut self, head: &mut Option<Frame>, frame: Frame) {
        let index = self.linked(frame);
        let [prev, next] = self.links[index];
        assert!(head.is_some(), "{frame:?} is in a ring, but not in this empty one");
        if next == link_to(index) {
            assert_eq!(*head, Some(frame), "{frame:?} is alone in another ring");
            *head = None;
        } else {
            self.links[index_at(prev)][NEXT] = next;
            self.links[index_at(next)][PREV] = prev;
            if *head == Some(frame) {
                *head = Some(self.frame_of(next));
            }
        }
        self.links[index] = UNLINKED;
    }

    /// The frame after `frame` in its ring; itself if it is alone.
    ///
    /// # Panics
    /// If `frame` is in no ring.
    #[inline]
    pub fn next(&self, frame: Frame) -> Frame {
        self.frame_of(self.links[self.linked(frame)][NEXT])
    }

    /// The frame before `frame` in its ring; itself if it is alone.
    ///
    /// # Panics
    /// If `frame` is in no ring.
    #[inline]
    pub fn prev(&self, frame: Frame) -> Frame {
        self.frame_of(self.links[self.linked(frame)][PREV])
    }

    /// Moves the head on to the next frame: the first of the ring becomes its last.
    ///
    /// # Panics
    /// If the head is not among these frames.
    #[inline]
    pub fn rotate(&self, head: &mut Option<Frame>) {
        // A head is in its ring by its owner's word; the check of `next` would cost a third of the step.
        if let Some(frame) = head {
            *frame = self.frame_of(self.links[(frame.0 - self.first.0) as usize][NEXT]);
        }
    }

    /// Moves `frame`, wherever it is in the ring, to just before the head: it is the last now.
    ///
    /// The same as taking it out and adding it again, in half the steps.
    ///
    /// # Panics
    /// If `frame` is in no ring, the ring is empty, or `frame` is alone in another one.
    #[inline]
    pub fn make_last(&mut self, head: &mut Option<Frame>, frame: Frame) {
        let index = self.linked(frame);
        let first = self.index_of(head.expect("the ring of a linked frame has a head"));
        let [prev, next] = self.links[index];
        if index == first {
            *head = Some(self.frame_of(next));
            return;
        }
        let last = self.links[first][PREV];
        if last == link_to(index) {
            return;
        }
        assert!(next != link_to(index), "{frame:?} is alone in another ring");
        self.links[index_at(prev)][NEXT] = next;
        self.links[index_at(next)][PREV] = prev;
        self.insert_between(index_at(last), index, first);
    }

    /// Every frame of the ring once, from the head on.
    pub fn iter(&self, head: Option<Frame>) -> impl Iterator<Item = Frame> {
        core::iter::successors(head, move |&frame| {
            let next = self.next(frame);
            (Some(next) != head).then_some(next)
        })
    }

    #[inline]
    fn insert_between(&mut self, prev: usize, index: usize, next: usize) {
        self.links[index] = [link_to(prev), link_to(next)];
        self.links[prev][NEXT] = link_to(index);
        self.links[next][PREV] = link_to(index);
    }

    /// The index of `frame`, which must be in a ring.
    #[inline]
    fn linked(&self, frame: Frame) -> usize {
        let index = self.index_of(frame);
        if self.links[index] == UNLINKED {
            refuse(frame, "is in no ring");
        }
        index
    }

    /// The index of `frame`, which must be in no ring.
    #[inline]
    fn unlinked(&self, frame: Frame) -> usize {
        let index = self.index_of(frame);
        if self.links[index] != UNLINKED {
            refuse(frame, "is in a ring already");
        }
        index
    }

    #[inline]
    fn index_of(&self, frame: Frame) -> usize {
        let index = frame.0.wrapping_sub(self.first.0) as usize;
        if index >= self.links.len() {
            outside(frame, self.links.len(), self.first);
        }
        index
    }

    #[inline]
    fn frame_of(&self, link: u32) -> Frame {
        Frame(self.first.0 + link - 1)
    }
}

#[inline]
const fn index_at(link: u32) -> usize {
    link as usize - 1
}

#[inline]
const fn link_to(index: usize) -> u32 {
    index as u32 + 1
}

/// Out of line, and by value: a check that printed its operands in place would keep them in memory, and
/// there is one at every step.
#[cold]
fn refuse(frame: Frame, why: &str) -> ! {
    panic!("{frame:?} {why}");
}

/// As `refuse`.
#[cold]
fn outside(frame: Frame, count: usize, first: Frame) -> ! {
    panic!("{frame:?} is not among the {count} frames from {first:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn frames(rings: &Rings, head: Option<Frame>) -> Vec<u32> {
        rings.iter(head).map(|frame| frame.0).collect()
    }

    #[test]
    fn before_the_head_is_the_end_and_after_it_is_second() {
        let mut rings = Rings::new(Frame(0), 8);
        let mut head = None;
        for frame in [3, 7, 0] {
            rings.insert_before(&mut head, Frame(frame));
        }
        assert_eq!(frames(&rings, head), [3, 7, 0]);
        rings.insert_after(&mut head, Frame(5));
        assert_eq!(frames(&rings, head), [3, 5, 7, 0]);
        rings.push(&mut head, Frame(1));
        assert_eq!(frames(&rings, head), [1, 3, 5, 7, 0]);
        assert_eq!((rings.next(Frame(0)), rings.prev(Frame(1))), (Frame(1), Frame(0)));
    }

    #[test]
    fn the_head_moves_on_when_it_leaves() {
        let mut rings = Rings::new(Frame(100), 3);
        let mut head = None;
        for frame in [100, 101, 102] {
            rings.insert_before(&mut head, Frame(frame));
        }
        rings.rotate(&mut head);
        assert_eq!(frames(&rings, head), [101, 102, 100]);
        rings.remove(&mut head, Frame(101));
        assert_eq!(frames(&rings, head), [102, 100]);
        rings.remove(&mut head, Frame(100));
        rings.remove(&mut head, Frame(102));
        assert_eq!(head, None);
        assert!(!rings.is_linked(Frame(102)));
    }

    #[test]
    fn making_a_frame_the_last_is_taking_it_out_and_adding_it() {
        for count in 1..6 {
            for moved in 0..count {
                let mut rings = Rings::new(Frame(0), 5);
                let mut head = None;
                (0..count).for_each(|frame| rings.insert_before(&mut head, Frame(frame)));
                let (mut other, mut other_head) = (rings.clone(), head);
                rings.make_last(&mut head, Frame(moved));
                other.remove(&mut other_head, Frame(moved));
                other.insert_before(&mut other_head, Frame(moved));
                assert_eq!((head, &rings.links), (other_head, &other.links), "{moved} of {count}");
            }
        }
    }

    #[test]
    fn two_rings_share_the_links() {
        let mut rings = Rings::new(Frame(0), 4);
        let (mut even, mut odd) = (None, None);
        for frame in 0..4 {
            let head = if frame % 2 == 0 { &mut even } else { &mut odd };
            rings.insert_before(head, Frame(frame));
        }
        rings.remove(&mut even, Frame(0));
        rings.insert_before(&mut odd, Frame(0));
        assert_eq!(frames(&rings, even), [2]);
        assert_eq!(frames(&rings, odd), [1, 3, 0]);
    }

    #[test]
    #[should_panic(expected = "f2 is in a ring already")]
    fn a_frame_is_linked_once() {
        let mut rings = Rings::new(Frame(0), 4);
        let (mut one, mut two) = (None, None);
        rings.insert_before(&mut one, Frame(2));
        rings.insert_after(&mut two, Frame(2));
    }

    #[test]
    #[should_panic(expected = "f2 is in no ring")]
    fn a_frame_leaves_once() {
        let mut rings = Rings::new(Frame(0), 4);
        let mut head = None;
        rings.insert_before(&mut head, Frame(2));
        rings.remove(&mut head, Frame(2));
        rings.remove(&mut head, Frame(2));
    }

    #[test]
    #[should_panic(expected = "f2 is alone in another ring")]
    fn a_lonely_frame_does_not_leave_another_ring() {
        let mut rings = Rings::new(Frame(0), 4);
        let (mut one, mut two) = (None, None);
        rings.insert_before(&mut one, Frame(2));
        rings.insert_before(&mut two, Frame(3));
        rings.remove(&mut two, Frame(2));
    }

    #[test]
    #[should_panic(expected = "f2 is alone in another ring")]
    fn a_lonely_frame_is_not_the_last_of_another_ring() {
        let mut rings = Rings::new(Frame(0), 4);
        let (mut one, mut two) = (None, None);
        rings.insert_before(&mut one, Frame(2));
        rings.insert_before(&mut two, Frame(3));
        rings.make_last(&mut two, Frame(2));
    }

    #[test]
    #[should_panic(expected = "f9 is not among the 4 frames from f4")]
    fn frames_outside_are_named() {
        Rings::new(Frame(4), 4).next(Frame(9));
    }

    #[test]
    fn frames_outside_are_in_no_ring() {
        let rings = Rings::new(Frame(4), 4);
        assert!(!rings.is_linked(Frame(3)) && !rings.is_linked(Frame(8)));
    }
}
