//! The buddy allocator: free runs of 2^order frames, halved on demand and rejoined when freed.
//!
//! A run of order *n* starts at a multiple of 2^n, so it has exactly one *buddy*, the run that
//! completes it to order *n* + 1, found by flipping one bit of its number. Freeing a run whose buddy is
//! free as a whole joins the two, and so on upwards: long runs come back without any search.
//!
//! ```text
//!     order 2   ├───────────────┤ f0          alloc(0) halves:   f0 is taken,
//!     order 1   ├───────┼───────┤ f0, f2      free are then      f1 (order 0) and f2 (order 1)
//!     order 0   ├───┼───┼───┼───┤ f0 f1 f2 f3
//! ```
//!
//! Boot hands over whole ranges, and booting a terabyte must touch no memory. Each range therefore
//! keeps a *fresh* tail that was never handed out and has no record; its runs are listed only when
//! those listed before cannot serve. A machine pays for the frames that it has used.
//!
//! ```text
//!     start ── listed or in use ── fresh ──── never touched ──── end
//! ```
//!
//! Invariant: a listed run is recorded once, at its largest possible order, under its first frame.
//! A run recorded twice would be handed out twice. Runs in use are recorded too, in the byte that
//! would otherwise be zero, so that freeing twice, or with another order, is caught always and not
//! only while the run happens not to be joined to another.
//!
//! Metadata: 9 bytes a frame (links 8, record 1), written only where frames were handed out.
//!
//! Knows nothing of: locks, CPUs, watermarks (see [`zone`](super::zone)), who owns a frame.
//!
//! K. C. Knowlton, "A Fast Storage Allocator", Communications of the ACM 8(10), 1965.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use crate::addr::{Frame, Order};
use crate::ring::Rings;

/// The order of the longest run: 2^10 frames, 4 MiB.
pub const ORDER_MAX: Order = 10;

const ORDERS: usize = ORDER_MAX as usize + 1;

// A record is one of these with the order added. Zero: no run starts at this frame.
const FREE: u8 = 0x40;
const USED: u8 = 0x80;
const ORDER_BITS: u8 = 0x3f;

/// A range handed over by [`Buddy::add`]: `start..fresh` was listed, `fresh..end` never was.
#[derive(Clone, Debug)]
struct Extent {
    start: u32,
    fresh: u32,
    end: u32,
}

/// The free runs among a range of frames.
#[derive(Clone)]
pub struct Buddy {
    rings: Rings,
    heads: [Option<Frame>; ORDERS], // the ring of listed runs, by order
    counts: [usize; ORDERS],        // the length of that ring
    orders_listed: u32,             // bit n: there is a listed run of order n
    records: Box<[u8]>,             // by frame: the state and order of the run that starts there
    extents: Vec<Extent>,
    fresh_frames: usize,
    free_frames: usize, // the fresh ones included
    first: Frame,
}

impl Buddy {
    /// Room for the frames `first..first + count`; none of them is free before it is
    /// [added](Self::add).
    ///
    /// # Panics
    /// If the last frame's number does not fit in 32 bits.
    pub fn new(first: Frame, count: usize) -> Buddy {
        Buddy {
            rings: Rings::new(first, count),
            heads: [None; ORDERS],
            counts: [0; ORDERS],
            orders_listed: 0,
            records: vec![0; count].into_boxed_slice(),
            extents: Vec::new(),
            fresh_frames: 0,
            free_frames: 0,
            first,
        }
    }

    /// Hands over `frames`, a range that was not handed over before. What is never added is a hole.
    ///
    /// Takes time and memory for the range, not for its frames.
    ///
    /// # Panics
    /// If part of it is outside the room or was added before.
    pub fn add(&mut self, frames: Range<Frame>) {
        let (start, end) = (frames.start.0, frames.end.0);
        let limit = self.limit();
        assert!(
            self.first.0 <= start && start <= end && end <= limit.0,
            "{frames:?} is not a range within {:?}..{limit:?}",
            self.first
        );
        for old in &self.extents {
            assert!(
                end <= old.start || old.end <= start || start == end,
                "{frames:?} was added already, as part of f{}..f{}",
                old.start,
                old.end
            );
        }
        let count = (end - start) as usize;
        self.free_frames += count;
        self.fresh_frames += count;
        match self.extents.last_mut() {
            // Memory maps cut usable memory where its owner changes; a run may cross such a cut.
            Some(last) if last.end == start => last.end = end,
            _ if count == 0 => {}
            _ => self.extents.push(Extent { start, fresh: start, end }),
        }
    }

    /// Takes a run of 2^`order` frames; `None` if no free run is that long.
    pub fn alloc(&mut self, order: Order) -> Option<Frame> {
        // Each turn but the last lists some fresh frames, so the loop ends when none are left.
        loop {
            if let Some(found) = self.shortest(order) {
                return Some(self.carve(found, order));
            }
            // Joining fresh frames with listed ones cannot make a run of more frames than are free.
            if order > ORDER_MAX || self.free_frames < 1 << order {
                return None;
            }
            let (run, piece) = self.take_fresh()?;
            self.list(run, piece);
        }
    }

    /// Takes up to `count` single frames and hands them to `each`; returns how many there were.
    ///
    /// They are those that as many calls of [`alloc`](Self::alloc) would take, in the same order, but
    /// a run is divided once for all of them.
    pub fn alloc_frames(&mut self, count: usize, mut each: impl FnMut(Frame)) -> usize {
        let mut missing = count;
        // Each turn takes frames, or lists some fresh ones.
        while missing > 0 {
            let Some(order) = self.shortest(0) else {
                let Some((run, piece)) = self.take_fresh() else { break };
                self.list(run, piece);
                continue;
            };
            let run = self.take_listed(order);
            let taken = missing.min(1 << order);
            let index = self.index(run);
            self.records[index..index + taken].fill(USED);
            self.free_frames -= taken;
            missing -= taken;
            let mut rest = run.0 + taken as u32;
            (run.0..rest).for_each(|frame| each(Frame(frame)));
            // No shorter run was listed, so it does not matter in which order these are.
            let end = run.0 + (1 << order);
            while rest < end {
                let piece = piece_order(rest, end);
                self.push(Frame(rest), piece);
                rest += 1 << piece;
            }
        }
        count - missing
    }

    /// Takes `count` frames that were never used, longer than any run, from the upper end of the last
    /// range that has so many; they start at a multiple of `align` frames. They cannot be given back.
    ///
    /// # Panics
    /// If `align` is not a power of two.
    pub fn take_end(&mut self, count: usize, align: u32) -> Option<Frame> {
        assert!(align.is_power_of_two(), "aligned to {align} frames");
        let starts = self.extents.iter().map(|extent| {
            let start = extent.end.checked_sub(u32::try_from(count).ok()?)? & !(align - 1);
            (start >= extent.fresh).then_some(start)
        });
        let (nth, start) =
            starts.enumerate().filter_map(|(nth, at)| Some((nth, at?))).next_back()?;
        let extent = &mut self.extents[nth];
        let taken = (extent.end - start) as usize;
        extent.end = start;
        self.free_frames -= taken;
        self.fresh_frames -= taken;
        Some(Frame(start))
    }

    /// Gives back a run obtained from [`alloc`](Self::alloc) with the same `order`.
    ///
    /// # Panics
    /// If no run of this order in use starts at `run`: it was freed already, or never handed out.
    pub fn free(&mut self, run: Frame, order: Order) {
        let record = self.record(run);
        assert!(
            record == USED | order,
            "freed {run:?} of order {order}, which is {}",
            describe(record)
        );
        self.records[self.index(run)] = 0;
        self.free_frames += 1 << order;
        self.list(run, order);
    }

    /// Gives single frames back, as [`free`](Self::free) would one after another; but frames that make
    /// a whole run, from its first to its last, are joined at once.
    ///
    /// # Panics
    /// As [`free`](Self::free) does.
    pub fn free_each(&mut self, mut frames: &[Frame]) {
        while let Some(&run) = frames.first() {
            let order = run_order(frames);
            let (whole, rest) = frames.split_at(1 << order);
            for &frame in whole {
                let record = self.record(frame);
                assert!(
                    record == USED,
                    "freed {frame:?} of order 0, which is {}",
                    describe(record)
                );
                let index = self.index(frame);
                self.records[index] = 0;
            }
            self.free_frames += whole.len();
            self.list(run, order);
            frames = rest;
        }
    }

    /// Divides a run in use into runs of order `into`, each of which is then freed by itself.
    ///
    /// # Panics
    /// If no run of this order in use starts at `run`, or `into` is the longer.
    pub fn split(&mut self, run: Frame, order: Order, into: Order) {
        let record = self.record(run);
        assert!(
            record == USED | order && into <= order,
            "split {run:?} of order {order} into order {into}, but it is {}",
            describe(record)
        );
        let start = self.index(run);
        for part in (start..start + (1 << order)).step_by(1 << into) {
            self.records[part] = USED | into;
        }
    }

    /// Number of frames that are free, in runs of any length.
    pub fn free_frames(&self) -> usize {
        self.free_frames
    }

    /// Number of free runs that are recorded at exactly this order: longer ones are not counted as
    /// several, and the rest that is still fresh is counted as it would be listed.
    pub fn free_runs(&self, order: Order) -> usize {
        let fresh = |extent: &Extent| fresh_runs(extent.fresh, extent.end, order);
        self.counts.get(usize::from(order)).copied().unwrap_or(0)
            + self.extents.iter().map(fresh).sum::<usize>()
    }

    /// The frames that there is room for, holes included.
    pub fn frames(&self) -> Range<Frame> {
        self.first..self.limit()
    }

    /// Checks every record against every other; for tests, as it visits each frame.
    ///
    /// # Panics
    /// If one disagrees, with the values.
    pub fn check_invariants(&self) {
        let mut listed = 0;
        for order in 0..=ORDER_MAX {
            let head = self.heads[usize::from(order)];
            let mut count = 0;
            for run in self.rings.iter(head) {
                assert_eq!(self.record(run), FREE | order, "{run:?} is listed at order {order}");
                assert_eq!(run.0 % (1 << order), 0, "{run:?} of order {order} is not aligned");
                let joined = order < ORDER_MAX && self.is_free(buddy_of(run, order), order);
                assert!(!joined, "{run:?} of order {order} was not joined to its buddy");
                count += 1;
            }
            assert_eq!(count, self.counts[usize::from(order)], "runs of order {order}");
            let bit = self.orders_listed & (1 << order) != 0;
            assert_eq!(head.is_some(), bit, "whether a run of order {order} is listed");
            listed += count << order;
        }
        assert_eq!(self.free_frames, listed + self.fresh_frames, "free = listed + fresh");

        // Walking upwards, each frame that was ever listed is in exactly one run, no other is in any.
        let mut handled = vec![false; self.records.len()];
        let mut fresh = 0;
        for extent in &self.extents {
            handled[self.index(Frame(extent.start))..self.index(Frame(extent.fresh))].fill(true);
            fresh += (extent.end - extent.fresh) as usize;
        }
        assert_eq!(fresh, self.fresh_frames, "fresh frames");
        let (mut free, mut at) = (0, 0);
        while at < self.records.len() {
            let record = self.records[at];
            let frame = self.first.0 as usize + at;
            assert_eq!(record != 0, handled[at], "f{frame} is {}", describe(record));
            let end = if record == 0 { at + 1 } else { at + (1 << (record & ORDER_BITS)) };
            free += if record & FREE == 0 { 0 } else { end - at };
            assert!(self.records[at + 1..end].iter().all(|&inner| inner == 0), "within f{frame}");
            assert!(record == 0 || handled[at..end].iter().all(|&part| part), "f{frame} is long");
            at = end;
        }
        assert_eq!(free, listed, "frames in listed runs");
    }

    /// The frame beyond the last.
    fn limit(&self) -> Frame {
        Frame(self.first.0 + self.records.len() as u32)
    }

    fn index(&self, frame: Frame) -> usize {
        frame.0.wrapping_sub(self.first.0) as usize
    }

    /// The record of `frame`; zero if it is outside.
    fn record(&self, frame: Frame) -> u8 {
        self.records.get(self.index(frame)).copied().unwrap_or(0)
    }

    fn is_free(&self, run: Frame, order: Order) -> bool {
        self.record(run) == FREE | order
    }

    /// The order of the shortest listed run that fits: a longer one broken now is a huge page missing
    /// later.
    fn shortest(&self, order: Order) -> Option<Order> {
        let fitting = self.orders_listed.checked_shr(u32::from(order))?;
        (fitting != 0).then(|| order + fitting.trailing_zeros() as Order)
    }

    /// Takes the first listed run of this order, of which there must be one.
    fn take_listed(&mut self, order: Order) -> Frame {
        let run = self.heads[usize::from(order)].expect("an order with its bit set has a run");
        self.unlink(run, order);
        run
    }

    /// Takes the first listed run of order `found` and frees what is beyond 2^`order` of it.
    fn carve(&mut self, found: Order, order: Order) -> Frame {
        let run = self.take_listed(found);
        // The lower half is kept, so that frames are handed out upwards.
        for half in (order..found).rev() {
            self.push(buddy_of(run, half), half);
        }
        let index = self.index(run);
        self.records[index] = USED | order;
        self.free_frames -= 1 << order;
        run
    }

    /// Records a run that is in no ring as free, joined with its buddies.
    fn list(&mut self, mut run: Frame, mut order: Order) {
        // Climbs while the buddy is free as a whole. One that was split is recorded at a lower order,
        // one in use as such, one that is fresh or outside not at all: each ends the climb.
        while order < ORDER_MAX && self.is_free(buddy_of(run, order), order) {
            let buddy = buddy_of(run, order);
            self.unlink(buddy, order);
            run = run.min(buddy);
            order += 1;
        }
        self.push(run, order);
    }

    /// Takes the lowest piece of the first fresh rest: as long as its alignment allows.
    fn take_fresh(&mut self) -> Option<(Frame, Order)> {
        if self.fresh_frames == 0 {
            return None;
        }
        let extent = self.extents.iter_mut().find(|extent| extent.fresh < extent.end)?;
        let run = extent.fresh;
        let order = piece_order(run, extent.end);
        extent.fresh += 1 << order;
        self.fresh_frames -= 1 << order;
        Some((Frame(run), order))
    }

    fn push(&mut self, run: Frame, order: Order) {
        let at = usize::from(order);
        let index = self.index(run);
        self.records[index] = FREE | order;
        self.rings.push(&mut self.heads[at], run);
        self.counts[at] += 1;
        self.orders_listed |= 1 << order;
    }

    fn unlink(&mut self, run: Frame, order: Order) {
        let at = usize::from(order);
        let index = self.index(run);
        self.records[index] = 0;
        self.rings.remove(&mut self.heads[at], run);
        self.counts[at] -= 1;
        if self.heads[at].is_none() {
            self.orders_listed &= !(1 << order);
        }
    }
}

/// The other half of the run of order + 1 that `run` is half of.
const fn buddy_of(run: Frame, order: Order) -> Frame {
    Frame(run.0 ^ (1 << order))
}

/// The order of the longest run that starts at `start` and does not pass `end`.
fn piece_order(start: u32, end: u32) -> Order {
    let room = (end - start).ilog2();
    start.trailing_zeros().min(room).min(u32::from(ORDER_MAX)) as Order
}

/// The order of the longest run that the first of `frames` make, in ascending order.
fn run_order(frames: &[Frame]) -> Order {
    let order_max = frames[0].0.trailing_zeros().min(frames.len().ilog2());
    let order_max = order_max.min(u32::from(ORDER_MAX));
    let ascending = frames[..1 << order_max].windows(2).take_while(|two| two[0].0 + 1 == two[1].0);
    (1 + ascending.count()).ilog2() as Order
}

/// How many pieces of this order `start..end` falls into when it is cut as [`piece_order`] says.
fn fresh_runs(mut start: u32, end: u32, order: Order) -> usize {
    let mut runs = 0;
    // Pieces grow up to the longest order and then shrink; the longest are counted at once, so that
    // this takes at most 2 x ORDER_MAX turns.
    while start < end {
        let piece = piece_order(start, end);
        let count = if piece == ORDER_MAX { (end - start) >> ORDER_MAX } else { 1 };
        if piece == order {
            runs += count as usize;
        }
        start += count << piece;
    }
    runs
}

/// A record in words, for the messages of assertions.
fn describe(record: u8) -> &'static str {
    match record & (FREE | USED) {
        0 => "not the start of a run",
        FREE => "free already",
        _ => "in use with another order",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buddy(range: Range<u32>) -> Buddy {
        let mut buddy = Buddy::new(Frame(range.start), range.len());
        buddy.add(Frame(range.start)..Frame(range.end));
        buddy
    }

    fn runs(buddy: &Buddy) -> Vec<(Order, usize)> {
        (0..=ORDER_MAX).map(|o| (o, buddy.free_runs(o))).filter(|&(_, runs)| runs > 0).collect()
    }

    #[test]
    fn a_run_is_halved_and_the_lower_half_kept() {
        let mut buddy = buddy(0..8);
        assert_eq!(buddy.alloc(0), Some(Frame(0)));
        assert_eq!(runs(&buddy), [(0, 1), (1, 1), (2, 1)]);
        assert_eq!(buddy.alloc(1), Some(Frame(2)));
        assert_eq!(buddy.alloc(0), Some(Frame(1)));
        assert_eq!(runs(&buddy), [(2, 1)]);
        buddy.check_invariants();
    }

    #[test]
    fn buddies_rejoin_but_mere_neighbours_do_not() {
        let mut buddy = buddy(0..4);
        let frames = [0, 1, 2, 3].map(|_| buddy.alloc(0).expect("there are four"));
        // f1 and f2 are neighbours, but halves of different runs.
        buddy.free(frames[1], 0);
        buddy.free(frames[2], 0);
        assert_eq!(runs(&buddy), [(0, 2)]);
        buddy.free(frames[0], 0);
        assert_eq!(runs(&buddy), [(0, 1), (1, 1)]);
        buddy.free(frames[3], 0);
        assert_eq!(runs(&buddy), [(2, 1)]);
        buddy.check_invariants();
    }

    #[test]
    fn the_shortest_run_that_fits_is_broken() {
        let mut buddy = buddy(0..12); // an order 3 and an order 2
        assert_eq!([buddy.alloc(3), buddy.alloc(2)], [Some(Frame(0)), Some(Frame(8))]);
        buddy.free(Frame(8), 2);
        buddy.free(Frame(0), 3);
        assert_eq!(buddy.alloc(2), Some(Frame(8)), "the order 3 run is spared");
        buddy.check_invariants();
    }

    #[test]
    fn any_range_is_cut_into_aligned_runs() {
        let buddy = buddy(5..5 + 3000);
        // 5, 6..8, 8..16, … 512..1024, then 1024..2048, then 2048..2560, … shrinking again
        assert_eq!(buddy.free_frames(), 3000);
        assert_eq!(buddy.free_runs(ORDER_MAX), 1);
        let sum: usize = (0..=ORDER_MAX).map(|order| buddy.free_runs(order) << order).sum();
        assert_eq!(sum, 3000);
        buddy.check_invariants();
    }

    #[test]
    fn a_hole_is_never_handed_out() {
        let mut buddy = Buddy::new(Frame(0), 16);
        buddy.add(Frame(0)..Frame(3));
        buddy.add(Frame(5)..Frame(16));
        let mut got: Vec<u32> = core::iter::from_fn(|| buddy.alloc(0)).map(|f| f.0).collect();
        got.sort_unstable();
        assert_eq!(got, [0, 1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        buddy.check_invariants();
    }

    #[test]
    fn a_run_may_cross_a_cut_of_the_memory_map() {
        for cut in [4, 7, 8] {
            for upper_first in [false, true] {
                let mut buddy = Buddy::new(Frame(0), 16);
                let mut parts = [Frame(0)..Frame(cut), Frame(cut)..Frame(16)];
                if upper_first {
                    parts.reverse();
                }
                for part in parts {
                    buddy.add(part);
                }
                // A range added upwards just extends the one before; otherwise the parts join later.
                assert_eq!(buddy.free_runs(4), usize::from(!upper_first), "cut at f{cut}");
                assert_eq!(buddy.alloc(4), Some(Frame(0)), "cut at f{cut}");
                buddy.check_invariants();
            }
        }
    }

    #[test]
    fn fresh_frames_join_with_freed_ones() {
        let mut buddy = Buddy::new(Frame(0), 16);
        buddy.add(Frame(8)..Frame(16));
        let run = buddy.alloc(3).expect("eight frames");
        buddy.free(run, 3);
        buddy.add(Frame(0)..Frame(8));
        assert_eq!(buddy.alloc(4), Some(Frame(0)));
        buddy.check_invariants();
    }

    #[test]
    fn a_terabyte_is_added_without_listing_it() {
        let mut buddy = buddy(0..1 << 28);
        assert_eq!(buddy.free_runs(ORDER_MAX), 1 << 18);
        assert_eq!(buddy.alloc(0), Some(Frame(0)));
        assert_eq!(
            buddy.extents[0].fresh,
            1 << ORDER_MAX,
            "one run of the longest order is listed"
        );
    }

    #[test]
    fn a_split_run_is_freed_in_parts() {
        let mut buddy = buddy(0..16);
        let run = buddy.alloc(3).expect("it is empty");
        buddy.split(run, 3, 1);
        for part in [2, 6, 0, 4] {
            buddy.free(Frame(run.0 + part), 1);
            buddy.check_invariants();
        }
        assert_eq!(runs(&buddy), [(4, 1)]);
    }

    #[test]
    fn an_order_beyond_the_longest_is_refused() {
        let mut buddy = buddy(0..4096);
        assert_eq!(buddy.alloc(ORDER_MAX + 1), None);
        assert_eq!(buddy.alloc(255), None);
        assert_eq!(buddy.free_runs(255), 0);
        assert_eq!(buddy.extents[0].fresh, 0, "and nothing was listed for it");
    }

    #[test]
    #[should_panic(expected = "freed f1 of order 0, which is not the start of a run")]
    fn freeing_twice_is_caught_even_inside_a_longer_run() {
        let mut buddy = buddy(0..2);
        let (low, high) = (buddy.alloc(0), buddy.alloc(0));
        buddy.free(low.expect("two"), 0);
        buddy.free(high.expect("two"), 0);
        buddy.free(high.expect("two"), 0);
    }

    #[test]
    #[should_panic(expected = "freed f0 of order 0, which is free already")]
    fn freeing_twice_is_caught_where_a_longer_run_starts() {
        let mut buddy = buddy(0..2);
        let (low, high) = (buddy.alloc(0), buddy.alloc(0));
        buddy.free(low.expect("two"), 0);
        buddy.free(high.expect("two"), 0);
        buddy.free(low.expect("two"), 0);
    }

    #[test]
    #[should_panic(expected = "freed f0 of order 1, which is in use with another order")]
    fn freeing_with_another_order_is_caught() {
        let mut buddy = buddy(0..4);
        assert_eq!(buddy.alloc(0), Some(Frame(0)));
        buddy.free(Frame(0), 1);
    }

    #[test]
    #[should_panic(expected = "freed f2 of order 0, which is not the start of a run")]
    fn freeing_what_was_never_handed_out_is_caught() {
        buddy(0..4).free(Frame(2), 0);
    }

    #[test]
    #[should_panic(expected = "f6..f10 was added already, as part of f0..f8")]
    fn a_range_is_added_once() {
        let mut buddy = Buddy::new(Frame(0), 16);
        buddy.add(Frame(0)..Frame(8));
        buddy.add(Frame(6)..Frame(10));
    }
}
