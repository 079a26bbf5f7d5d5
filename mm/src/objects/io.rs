//! I/O as data: requests that the world performs and reports back.
//!
//! The core never calls a device and never waits. It queues a [`Request`]; the world takes it with
//! [`Requests::take`], lets a simulated disk, virtio or `io_uring` perform it while other processes run,
//! and reports the outcome. Until then the frames are marked READING or WRITING, and a second fault on
//! one of them waits for the same request.
//!
//! ```text
//!     fault ── submit ──▶ queued ── take ──▶ at the disk ── completed ──▶ frames usable
//!     eviction ── add ──▶    ▲
//! ```
//!
//! Evictions come page by page, and pages evicted one after another get slots next to each other. So
//! the write of a page joins the latest request as long as that is queued and ends where the page
//! begins: a disk gets one long write for many (Linux: plugging and merging in the block layer).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use crate::addr::{Frame, Slot};
use crate::event::Target;

/// Pages of one request at the most: 128 KiB, Linux's default read-ahead window.
pub const IO_PAGES_MAX: usize = 32;

/// Identifies a request from its submission until it is completed; reused after.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u32);

/// Which way a request moves contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the disk into frames.
    Read,
    /// From frames to the disk.
    Write,
}

/// Whether a request did what it asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IoOutcome {
    /// All pages were moved.
    Done,
    /// The disk failed; no page counts as moved.
    Failed,
}

/// Consecutive pages of a file or of swap, and the frames that they are read into or written from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// What to report on completion.
    pub id: RequestId,
    /// Read or write.
    pub direction: Direction,
    /// Where on which device the first page is.
    pub target: Target,
    frames: [Frame; IO_PAGES_MAX], // 0 beyond `count`
    count: u32,                    // 0 in a slot that no request is in
    open: bool,                    // whether pages can be added
}

impl Request {
    const NONE: Request = Request {
        id: RequestId(0),
        direction: Direction::Read,
        target: Target::Swap(Slot(0)),
        frames: [Frame(0); IO_PAGES_MAX],
        count: 0,
        open: false,
    };

    /// The frames, in the order of the pages on the device.
    pub fn frames(&self) -> &[Frame] {
        &self.frames[..self.count as usize]
    }

    /// Bytes moved.
    pub fn bytes(&self) -> u64 {
        u64::from(self.count) * crate::addr::PAGE_BYTES
    }
}

/// All requests under way.
pub struct Requests {
    slots: Box<[Request]>,
    free: Vec<u32>,
    queued: VecDeque<RequestId>,
    /// Pages being written.
    writes: usize,
}

impl Requests {
    /// Room for `capacity` requests at once.
    pub fn new(capacity: u32) -> Requests {
        Requests {
            slots: vec![Request::NONE; capacity as usize].into_boxed_slice(),
            free: (0..capacity).rev().collect(),
            queued: VecDeque::with_capacity(capacity as usize),
            writes: 0,
        }
    }

    /// Every request under way, whether a disk has it already or not.
    pub fn under_way(&self) -> impl Iterator<Item = &Request> {
        self.slots.iter().filter(|request| request.count > 0)
    }

    /// Whether no further request fits until one is completed.
    pub fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// Number of requests under way.
    pub fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Pages being written.
    pub fn writes(&self) -> usize {
        self.writes
    }

    /// Requests that the world has not taken yet.
    pub fn queued(&self) -> usize {
        self.queued.len()
    }

    /// Any write under way, for who waits for memory.
    pub fn some_write(&self) -> Option<RequestId> {
        if self.writes == 0 {
            return None;
        }
        let mut all = self.under_way();
        all.find(|request| request.direction == Direction::Write).map(|request| request.id)
    }

    /// Any request under way, for who waits for room.
    pub fn some(&self) -> Option<RequestId> {
        self.under_way().next().map(|request| request.id)
    }

    /// The number that the next submitted request will have; `None` if no further one fits.
    pub fn next_id(&self) -> Option<RequestId> {
        self.free.last().map(|&slot| RequestId(slot))
    }

    /// Queues a write of one page, by a request of its own or with others; `None` if no further one fits.
    pub fn add_write(&mut self, target: Target, frame: Frame) -> Option<RequestId> {
        if let Some(&latest) = self.queued.back() {
            let request = &mut self.slots[latest.0 as usize];
            let count = request.count as usize;
            if request.open && count < IO_PAGES_MAX && request.target.up(count as u64) == target {
                request.frames[count] = frame;
                request.count += 1;
                self.writes += 1;
                return Some(latest);
            }
        }
        let id = self.submit(Direction::Write, target, &[frame])?;
        self.slots[id.0 as usize].open = true;
        Some(id)
    }

    /// Queues a request for up to [`IO_PAGES_MAX`] pages, and no others; `None` if no further one fits.
    ///
    /// # Panics
    /// If there are no frames, or too many.
    pub fn submit(
        &mut self,
        direction: Direction,
        target: Target,
        frames: &[Frame],
    ) -> Option<RequestId> {
        assert!((1..=IO_PAGES_MAX).contains(&frames.len()), "a request has 1 to 32 pages");
        let slot = self.free.pop()?;
        let id = RequestId(slot);
        // In place, as most requests have few of the frames that there is room for.
        let request = &mut self.slots[slot as usize];
        (request.id, request.direction, request.target) = (id, direction, target);
        request.open = false;
        request.frames[..frames.len()].copy_from_slice(frames);
        request.count = frames.len() as u32;
        self.queued.push_back(id);
        if direction == Direction::Write {
            self.writes += frames.len();
        }
        Some(id)
    }

    /// The oldest request that the world has not taken yet.
    #[inline]
    pub fn take(&mut self) -> Option<Request> {
        let id = self.queued.pop_front()?;
        let request = &mut self.slots[id.0 as usize];
        request.open = false;
        Some(*request)
    }

    /// Ends a request that was taken.
    ///
    /// # Panics
    /// If it is not under way.
    #[inline]
    pub fn end(&mut self, id: RequestId) -> Request {
        let slot = &mut self.slots[id.0 as usize];
        assert!(slot.count > 0, "{id:?} is not under way");
        let request = *slot;
        slot.frames[..request.count as usize].fill(Frame(0));
        slot.count = 0;
        self.free.push(id.0);
        if request.direction == Direction::Write {
            self.writes -= request.count as usize;
        }
        request
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_joins_the_latest_write_if_it_is_next_to_it_and_no_disk_has_it() {
        let mut requests = Requests::new(8);
        let mut add =
            |slot: u32| requests.add_write(Target::Swap(Slot(slot)), Frame(slot)).unwrap();
        let first = add(7);
        assert_eq!([add(8), add(9)], [first, first]);
        let apart = add(11);
        assert!(apart != first && add(10) != first, "another was begun since");
        assert_eq!(requests.writes(), 5);
        assert_eq!(requests.take().unwrap().frames(), &[Frame(7), Frame(8), Frame(9)]);
        requests.take().unwrap();
        let last = requests.take().unwrap();
        let after = requests.add_write(Target::Swap(Slot(11)), Frame(11)).unwrap();
        assert_ne!(after, last.id, "the disk has the one before it");
        assert_eq!(requests.end(first).bytes(), 3 * 4096);
        assert_eq!(requests.writes(), 3);
    }

    #[test]
    fn a_request_grows_to_its_longest_and_never_if_it_was_submitted_as_a_whole() {
        let mut requests = Requests::new(8);
        let swap = |slot: usize| Target::Swap(Slot(slot as u32));
        let alone = requests.submit(Direction::Write, swap(0), &[Frame(0)]).unwrap();
        let first = requests.add_write(swap(1), Frame(1)).unwrap();
        assert_ne!(first, alone);
        for slot in 2..=IO_PAGES_MAX {
            assert_eq!(requests.add_write(swap(slot), Frame(1)), Some(first));
        }
        assert_ne!(requests.add_write(swap(IO_PAGES_MAX + 1), Frame(1)), Some(first));
        assert_eq!(requests.count(), 3);
    }

    #[test]
    fn requests_are_taken_in_order_and_their_numbers_reused_after_the_end() {
        let mut requests = Requests::new(2);
        let target = Target::Swap(Slot(7));
        let first = requests.submit(Direction::Write, target, &[Frame(1)]).unwrap();
        let second = requests.submit(Direction::Read, target, &[Frame(2), Frame(3)]).unwrap();
        assert!(requests.is_full());
        assert!(requests.submit(Direction::Read, target, &[Frame(4)]).is_none());
        assert_eq!(requests.some_write(), Some(first));
        assert_eq!(requests.take().unwrap().id, first);
        assert_eq!(requests.take().unwrap().frames(), &[Frame(2), Frame(3)]);
        assert!(requests.take().is_none());
        requests.end(first);
        assert_eq!(requests.next_id(), Some(first));
        assert_eq!(requests.end(second).bytes(), 8192);
        assert_eq!(requests.count(), 0);
    }
}
