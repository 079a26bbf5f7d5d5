//! Queues that frames and ghosts move between.
//!
//! Most policies that learn are a few queues: pages used once, pages used again, pages that are
//! gone. [`Queues`] keeps them over one array of links, and a byte a frame says which one it is in.
//! [`Directory`] adds what papers call the directory of a cache: the page in each frame, and ghosts,
//! so that a queue holds frames or remembered pages alike.
//!
//! ```text
//!     front ▸ f3  f7  f0 ◂ back      evicted from the front, appended at the back
//!     front ▸ g9  g4 ◂ back          ghosts: numbers beyond the frames
//! ```
//!
//! Invariant: a number is in at most one queue, and a ghost is in one exactly.

use alloc::boxed::Box;
use alloc::vec;

use super::board::Member;
use super::ghosts::Ghosts;
use super::{PageId, Parameters};
use crate::addr::Frame;
use crate::ring::Rings;

/// `N` queues over the same numbers: 9 bytes a number.
pub(super) struct Queues<const N: usize> {
    rings: Rings,
    fronts: [Option<Frame>; N],
    lens: [usize; N],
    homes: Box<[u8]>, // by number: its queue + 1, or 0
    first: Frame,
}

impl<const N: usize> Queues<N> {
    /// Empty queues for the numbers `first..first + count`.
    pub(super) fn new(first: Frame, count: usize) -> Queues<N> {
        Queues {
            rings: Rings::new(first, count),
            fronts: [None; N],
            lens: [0; N],
            homes: vec![0; count].into_boxed_slice(),
            first,
        }
    }

    /// The queue that holds this number.
    #[inline]
    pub(super) fn queue_of(&self, number: Frame) -> Option<usize> {
        let home = *self.homes.get(number.0.wrapping_sub(self.first.0) as usize)?;
        usize::from(home).checked_sub(1)
    }

    /// How many a queue holds.
    #[inline]
    pub(super) fn len(&self, queue: usize) -> usize {
        self.lens[queue]
    }

    /// The one that has been in a queue longest.
    #[inline]
    pub(super) fn front(&self, queue: usize) -> Option<Frame> {
        self.fronts[queue]
    }

    /// Those of a queue, from the front on.
    pub(super) fn iter(&self, queue: usize) -> impl Iterator<Item = Frame> {
        self.rings.iter(self.fronts[queue])
    }

    /// Adds `number` at the back of a queue.
    ///
    /// # Panics
    /// If it is in a queue, or not among those that there are.
    #[inline]
    pub(super) fn append(&mut self, queue: usize, number: Frame) {
        self.rings.insert_before(&mut self.fronts[queue], number);
        self.lens[queue] += 1;
        self.homes[(number.0 - self.first.0) as usize] = queue as u8 + 1;
    }

    /// Takes `number` out of its queue, and says which it was.
    ///
    /// # Panics
    /// If it is in none.
    #[inline]
    pub(super) fn remove(&mut self, number: Frame) -> usize {
        let queue = self.queue_of(number).expect("the frame is evictable, so it is in a queue");
        self.rings.remove(&mut self.fronts[queue], number);
        self.lens[queue] -= 1;
        self.homes[(number.0 - self.first.0) as usize] = 0;
        queue
    }

    /// Moves `number` from wherever it is to the back of a queue.
    ///
    /// # Panics
    /// If it is in none.
    #[inline]
    pub(super) fn requeue(&mut self, queue: usize, number: Frame) {
        let from = self.queue_of(number).expect("the frame is evictable, so it is in a queue");
        if from == queue {
            if self.fronts[queue] == Some(number) {
                // The first becomes the last: the ring turns, and no link changes.
                self.rings.rotate(&mut self.fronts[queue]);
            } else {
                self.rings.make_last(&mut self.fronts[queue], number);
            }
            return;
        }
        self.rings.remove(&mut self.fronts[from], number);
        self.lens[from] -= 1;
        self.append(queue, number);
    }
}

/// `N` queues of frames and ghosts: 17 bytes a frame, up to 37 a ghost.
pub(super) struct Directory<const N: usize> {
    pub(super) queues: Queues<N>,
    pages: Box<[PageId]>, // by frame
    ghosts: Ghosts,
    first: Frame,
}

impl<const N: usize> Directory<N> {
    /// An empty one for the frames of `parameters` and at most `ghosts` ghosts.
    pub(super) fn new(parameters: &Parameters, ghosts: usize) -> Directory<N> {
        let Parameters { first, frames, .. } = *parameters;
        let queues = Queues::new(first, frames + ghosts);
        Directory {
            queues,
            pages: vec![PageId(0); frames].into_boxed_slice(),
            ghosts: Ghosts::new(parameters, ghosts),
            first,
        }
    }

    /// Adds a frame that holds `page` at the back of a queue.
    ///
    /// # Panics
    /// If it is in a queue, or not among the frames.
    #[inline]
    pub(super) fn admit(&mut self, queue: usize, frame: Frame, page: PageId) {
        let index = frame.0.wrapping_sub(self.first.0) as usize;
        let count = self.pages.len();
        assert!(index < count, "{frame:?} is not among the {count} frames from {:?}", self.first);
        self.pages[index] = page;
        self.queues.append(queue, frame);
    }

    /// Puts another page into a frame that is in a queue, and the frame at the back of `queue`.
    #[inline]
    pub(super) fn reuse(&mut self, queue: usize, frame: Frame, page: PageId) {
        self.pages[(frame.0 - self.first.0) as usize] = page;
        self.queues.requeue(queue, frame);
    }

    /// Forgets the ghost of `page`, as the page comes back, and says which queue remembered it.
    #[inline]
    pub(super) fn recall(&mut self, page: PageId) -> Option<usize> {
        let ghost = self.ghosts.find(page)?;
        self.ghosts.remove(ghost);
        Some(self.queues.remove(ghost))
    }

    /// The ghost of `page`.
    #[inline]
    pub(super) fn ghost_of(&self, page: PageId) -> Option<Frame> {
        self.ghosts.find(page)
    }

    /// Remembers the page of a frame, which is about to leave, at the back of `queue`, whose oldest
    /// ghost is forgotten if there are as many as there can be. No ghost is made if even then there
    /// is no room. A page that leaves two frames leaves two ghosts.
    #[inline]
    pub(super) fn remember(&mut self, queue: usize, frame: Frame) -> Option<Frame> {
        let page = self.pages[(frame.0 - self.first.0) as usize];
        if !self.is_full() {
            let ghost = self.ghosts.insert(page);
            self.queues.append(queue, ghost);
            return Some(ghost);
        }
        // The new ghost has the number of the oldest, so the queue turns.
        self.ghosts.remove(self.queues.front(queue)?);
        let ghost = self.ghosts.insert(page);
        self.queues.requeue(queue, ghost);
        Some(ghost)
    }

    /// Forgets the oldest ghost of a queue; whether there was one.
    #[inline]
    pub(super) fn forget(&mut self, queue: usize) -> bool {
        let Some(ghost) = self.queues.front(queue) else { return false };
        self.queues.remove(ghost);
        self.ghosts.remove(ghost);
        true
    }

    /// Those of a queue, from the front on: frames and remembered pages.
    pub(super) fn members(&self, queue: usize) -> impl Iterator<Item = Member> {
        self.queues.iter(queue).map(|number| {
            let is_frame = ((number.0 - self.first.0) as usize) < self.pages.len();
            if is_frame { Member::frame(number) } else { Member::page(self.ghosts.page(number)) }
        })
    }

    /// A look at what is known of `page`, for its cache line alone.
    #[inline]
    pub(super) fn peek(&self, page: PageId) -> u32 {
        self.ghosts.peek(page)
    }

    /// Whether there is no room for another ghost.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.ghosts.len() == self.ghosts.capacity()
    }
}

/// `percent` of `frames`, at least one.
pub(super) fn share(frames: usize, percent: u64) -> usize {
    ((frames as u64 * percent / 100) as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;

    #[test]
    fn numbers_move_between_queues_as_between_deques() {
        let mut queues: Queues<3> = Queues::new(Frame(5), 20);
        let mut model: [VecDeque<u32>; 3] = Default::default();
        let mut state = 1_u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (number, queue) = ((state >> 40) as u32 % 20 + 5, (state >> 33) as usize % 3);
            let held = model.iter().position(|deque| deque.contains(&number));
            assert_eq!(queues.queue_of(Frame(number)), held);
            if let Some(from) = held {
                model[from].retain(|&other| other != number);
                if state >> 63 == 0 {
                    assert_eq!(queues.remove(Frame(number)), from);
                } else {
                    queues.requeue(queue, Frame(number));
                    model[queue].push_back(number);
                }
            } else {
                queues.append(queue, Frame(number));
                model[queue].push_back(number);
            }
            for (at, deque) in model.iter().enumerate() {
                assert_eq!(queues.len(at), deque.len());
                assert_eq!(queues.front(at), deque.front().map(|&number| Frame(number)));
            }
        }
    }

    #[test]
    fn a_page_is_recalled_once_and_the_oldest_is_forgotten_first() {
        let mut directory: Directory<2> = Directory::new(&Parameters::new(3), 2);
        for frame in 0..3 {
            directory.admit(0, Frame(frame), PageId(u64::from(frame) + 70));
        }
        for frame in 0..3 {
            assert!(directory.remember(1, Frame(frame)).is_some());
        }
        assert_eq!(directory.recall(PageId(70)), None);
        assert_eq!(directory.recall(PageId(72)), Some(1));
        assert_eq!(directory.recall(PageId(72)), None);
        assert!(directory.forget(1) && !directory.forget(1));
    }

    #[test]
    fn a_page_in_two_frames_is_recalled_twice() {
        let mut directory: Directory<2> = Directory::new(&Parameters::new(2), 2);
        for frame in [0, 1] {
            directory.admit(0, Frame(frame), PageId(7));
            directory.remember(1, Frame(frame));
        }
        assert_eq!(directory.queues.len(1), 2);
        let recalled = [(); 3].map(|()| directory.recall(PageId(7)));
        assert_eq!(recalled, [Some(1), Some(1), None]);
    }
}
