//! A zone: frames that are as good as each other, shared by all processors.
//!
//! A buddy allocator behind one lock, a small cache of single frames for each processor before it, and
//! three marks on the number of free frames. Single frames, the bulk of all requests, go through the
//! cache of the processor that asks; longer runs go to the buddy.
//!
//! ```text
//!     free frames   0 ──────── min ──────── low ──────────────── high ────
//!                   only who   │ reclaim    │ reclaim goes on    └ reclaim stops
//!                   reclaims   │ starts     │ if it started
//!                   may dip
//! ```
//!
//! What is free is counted without a shared counter. The buddy's count is published by who holds its
//! lock, and the length of each cache by who holds that; all are plain stores, where a shared atomic
//! counter would cost as much again as the allocation. The sum is exact whenever no operation is under
//! way; during one, it is off by the batch that is on the move. Most questions need no sum: when the
//! buddy alone has frames enough, what the caches hold does not matter. Only near the marks, where an
//! allocation has dearer worries, are all caches looked at. So on one processor the marks hold to the
//! frame, and no result depends on how frames are spread over caches.
//!
//! Invariant: every free frame can be allocated by every processor: when the buddy is empty, other
//! processors' caches are searched. Otherwise a machine could be out of memory with memory free.
//!
//! Order of locks: a cache before the buddy; never two caches.
//!
//! Knows nothing of: who owns a frame, who reclaims, other zones.

use alloc::boxed::Box;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use spin::Mutex;

use crate::addr::{Frame, Order, PAGE_BYTES};
use crate::frames::buddy::Buddy;
use crate::frames::percpu::{BATCH, FrameCache, HIGH_BATCHES};

/// Marks on the number of free frames.
///
/// Fewer than `low` start background reclaim, which goes on until there are `high`. The last `min`
/// are kept for whoever frees memory: reclaim that cannot allocate cannot write anything back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Watermarks {
    /// Frames that only a [`Dip`](Reserve::Dip) may take.
    pub min: usize,
    /// Below it, background reclaim starts.
    pub low: usize,
    /// At or above it, background reclaim stops.
    pub high: usize,
}

impl Watermarks {
    /// The marks that Linux sets for a machine with one zone of so many frames, lowered on tiny ones.
    ///
    /// `min` is √(16 · KiB of memory) KiB, within 128 KiB and 256 MiB, as Linux 6.18 has it in
    /// `calculate_min_free_kbytes`.
    ///
    /// No mark is above an eighth of the zone. That only matters below 4 MiB, where Linux does not
    /// run and would keep half of memory free, but textbook examples live.
    pub fn for_frames(frames: usize) -> Watermarks {
        const KIB_PER_FRAME: usize = PAGE_BYTES as usize / 1024;
        let min_kib = (16 * KIB_PER_FRAME * frames).isqrt().clamp(128, 256 * 1024);
        // High is about one and a half times min: with min at most a twelfth, it is an eighth.
        let min = (min_kib / KIB_PER_FRAME).min(frames / 12).max(2);
        let Watermarks { min, low, high } = Watermarks::with_min(min, frames);
        let limit = frames / 8;
        Watermarks { min: min.min(limit), low: low.min(limit), high: high.min(limit) }
    }

    /// The marks that Linux derives from `min` in a zone of so many frames.
    ///
    /// The gaps from `min` to `low` and from `low` to `high` are each a quarter of `min`, or a
    /// thousandth of the zone if that is more (`vm.watermark_scale_factor`, by default 10 in 10,000).
    pub fn with_min(min: usize, frames: usize) -> Watermarks {
        let gap = (min / 4).max(frames / 1000).max(1);
        Watermarks { min, low: min + gap, high: min + 2 * gap }
    }

    /// Whether the marks are in order and a zone of so many frames can reach them all.
    pub fn fit(self, frames: usize) -> bool {
        self.min <= self.low && self.low <= self.high && self.high <= frames
    }
}

/// Whether an allocation may use the frames below the min mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reserve {
    /// It fails rather than leave fewer than `min` free.
    Keep,
    /// It takes the last frame if need be: the caller is about to free more.
    Dip,
}

/// How the number of free frames stands to the marks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Fewer than `min` are free.
    BelowMin,
    /// Fewer than `low` are free.
    BelowLow,
    /// At least `low` are free.
    Plenty,
}

/// One processor's cache, on cache lines of its own.
#[repr(align(128))]
struct PerCpu {
    cache: Mutex<FrameCache>,
    held: AtomicUsize, // its length; stored by who holds the lock
}

/// Frames of one kind: a buddy, a cache for each processor, and watermarks.
pub struct Zone {
    buddy: Mutex<Buddy>,
    buddy_free: AtomicUsize, // its free frames; stored by who holds the lock
    per_cpu: Box<[PerCpu]>,
    watermarks: Watermarks,
    frames_total: usize,
    span: Range<Frame>,
}

impl Zone {
    /// A zone of the frames that are free in `buddy`, for processors `0..cpus`.
    ///
    /// Frames move between cache and buddy in batches of 31, and fewer where memory is short, so that
    /// the caches of all processors together never hold more than a fortieth of a zone of 256 frames
    /// a processor or more.
    ///
    /// # Panics
    /// If there is no processor, or the marks do not [fit](Watermarks::fit).
    pub fn new(buddy: Buddy, cpus: u32, watermarks: Watermarks) -> Zone {
        let frames_total = buddy.free_frames();
        assert!(cpus > 0, "a zone without processors");
        assert!(watermarks.fit(frames_total), "{watermarks:?} in a zone of {frames_total} frames");
        let batch = (frames_total / (256 * cpus as usize)).clamp(1, BATCH);
        let per_cpu = || PerCpu {
            cache: Mutex::new(FrameCache::new(batch, batch * HIGH_BATCHES)),
            held: AtomicUsize::new(0),
        };
        Zone {
            buddy_free: AtomicUsize::new(frames_total),
            per_cpu: (0..cpus).map(|_| per_cpu()).collect(),
            watermarks,
            frames_total,
            span: buddy.frames(),
            buddy: Mutex::new(buddy),
        }
    }

    /// Takes a frame for processor `cpu`; `None` if none is free, or none above the reserve.
    ///
    /// # Panics
    /// If there is no such processor.
    #[inline(always)] // every fault comes here
    pub fn alloc(&self, cpu: u32, reserve: Reserve) -> Option<Frame> {
        if !self.can_spare(1, reserve) {
            return None;
        }
        let own = &self.per_cpu[cpu as usize];
        let mut cache = own.cache.lock();
        if let Some(frame) = cache.take() {
            own.held.store(cache.len(), Relaxed);
            return Some(frame);
        }
        drop(cache);
        self.alloc_shared(cpu)
    }

    /// As [`alloc`](Self::alloc), when the processor's own cache is empty.
    #[inline(never)]
    fn alloc_shared(&self, cpu: u32) -> Option<Frame> {
        let own = &self.per_cpu[cpu as usize];
        let mut cache = own.cache.lock();
        self.with_buddy(|buddy| cache.refill(buddy));
        let frame = cache.take();
        own.held.store(cache.len(), Relaxed);
        drop(cache);
        frame.or_else(|| self.steal(cpu))
    }

    /// Takes a run of 2^`order` frames; `None` if no run is that long, or none above the reserve.
    ///
    /// Frames in caches join no run: who needs one badly [drains](Self::drain) and tries again.
    pub fn alloc_run(&self, order: Order, reserve: Reserve) -> Option<Frame> {
        let count = 1_usize.checked_shl(u32::from(order))?;
        if !self.can_spare(count, reserve) {
            return None;
        }
        self.with_buddy(|buddy| buddy.alloc(order))
    }

    /// Gives a single frame back, by processor `cpu`.
    ///
    /// # Panics
    /// If there is no such processor. A frame freed twice panics only when its cache is drained; the
    /// frame table catches it before.
    #[inline]
    pub fn free(&self, cpu: u32, frame: Frame) {
        self.free_each(cpu, &[frame]);
    }

    /// Gives single frames back, by processor `cpu`, in this order.
    ///
    /// # Panics
    /// As [`free`](Self::free) does.
    #[inline]
    pub fn free_each(&self, cpu: u32, frames: &[Frame]) {
        let own = &self.per_cpu[cpu as usize];
        let mut cache = own.cache.lock();
        for &frame in frames {
            if cache.put(frame) {
                self.with_buddy(|buddy| cache.drain(buddy));
            }
        }
        own.held.store(cache.len(), Relaxed);
    }

    /// Gives back a run obtained with the same `order` from [`alloc_run`](Self::alloc_run).
    ///
    /// # Panics
    /// As [`Buddy::free`] does.
    pub fn free_run(&self, run: Frame, order: Order) {
        self.with_buddy(|buddy| buddy.free(run, order));
    }

    /// Divides a run in use into runs of order `into`, each of which is then freed by itself; those of
    /// order 0 with [`free`](Self::free) or [`free_run`](Self::free_run) alike.
    ///
    /// # Panics
    /// As [`Buddy::split`] does.
    pub fn split_run(&self, run: Frame, order: Order, into: Order) {
        self.buddy.lock().split(run, order, into);
    }

    /// Moves the frames of all caches into the buddy, where they join runs.
    pub fn drain(&self) {
        for own in &self.per_cpu {
            let mut cache = own.cache.lock();
            if !cache.is_empty() {
                self.with_buddy(|buddy| cache.drain_all(buddy));
                own.held.store(0, Relaxed);
            }
        }
    }

    /// Number of free frames, those in caches included: exact when no operation is under way.
    pub fn free_frames(&self) -> usize {
        let held: usize = self.per_cpu.iter().map(|own| own.held.load(Relaxed)).sum();
        self.buddy_free.load(Relaxed) + held
    }

    /// Number of free runs of exactly this order in the buddy; frames in caches are in none.
    pub fn free_runs(&self, order: Order) -> usize {
        self.buddy.lock().free_runs(order)
    }

    /// Number of frames, free or not.
    pub fn frames_total(&self) -> usize {
        self.frames_total
    }

    /// The range that all frames of the zone are in; it may have holes.
    pub fn span(&self) -> Range<Frame> {
        self.span.clone()
    }

    /// The marks.
    pub fn watermarks(&self) -> Watermarks {
        self.watermarks
    }

    /// Where the number of free frames stands.
    #[inline]
    pub fn level(&self) -> Level {
        if self.at_least(self.watermarks.low) {
            Level::Plenty
        } else if self.at_least(self.watermarks.min) {
            Level::BelowLow
        } else {
            Level::BelowMin
        }
    }

    /// Whether background reclaim should start: fewer than `low` frames are free.
    #[inline]
    pub fn below_low(&self) -> bool {
        !self.at_least(self.watermarks.low)
    }

    /// Whether background reclaim should stop: at least `high` frames are free.
    #[inline]
    pub fn reached_high(&self) -> bool {
        self.at_least(self.watermarks.high)
    }

    /// Checks the buddy, and that the published counts are those behind the locks; for tests.
    ///
    /// # Panics
    /// If they are not, or operations are under way meanwhile.
    pub fn check_invariants(&self) {
        for own in &self.per_cpu {
            assert_eq!(own.cache.lock().len(), own.held.load(Relaxed), "frames held in a cache");
        }
        let buddy = self.buddy.lock();
        assert_eq!(buddy.free_frames(), self.buddy_free.load(Relaxed), "free frames of the buddy");
        buddy.check_invariants();
    }

    /// Whether at least `count` frames are free.
    #[inline]
    fn at_least(&self, count: usize) -> bool {
        // The buddy's count is on a cache line that changes once a batch; the sum is for hard times.
        self.buddy_free.load(Relaxed) >= count || self.free_frames() >= count
    }

    #[inline]
    fn can_spare(&self, count: usize, reserve: Reserve) -> bool {
        reserve == Reserve::Dip || self.at_least(self.watermarks.min + count)
    }

    /// Works on the buddy and publishes its count.
    fn with_buddy<T>(&self, work: impl FnOnce(&mut Buddy) -> T) -> T {
        let mut buddy = self.buddy.lock();
        let result = work(&mut buddy);
        self.buddy_free.store(buddy.free_frames(), Relaxed);
        result
    }

    /// Takes a frame from the cache of another processor, the next ones first.
    #[cold]
    fn steal(&self, cpu: u32) -> Option<Frame> {
        let (before, from) = self.per_cpu.split_at(cpu as usize);
        from.iter().skip(1).chain(before).find_map(|other| {
            if other.held.load(Relaxed) == 0 {
                return None;
            }
            let mut cache = other.cache.lock();
            let frame = cache.take();
            other.held.store(cache.len(), Relaxed);
            frame
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn zone(frames: u32, cpus: u32, watermarks: Watermarks) -> Zone {
        let mut buddy = Buddy::new(Frame(0), frames as usize);
        buddy.add(Frame(0)..Frame(frames));
        Zone::new(buddy, cpus, watermarks)
    }

    fn drain_dry(zone: &Zone, cpu: u32, reserve: Reserve) -> Vec<Frame> {
        core::iter::from_fn(|| zone.alloc(cpu, reserve)).collect()
    }

    #[test]
    fn the_marks_are_those_of_linux() {
        // Two zones of a 24 GiB machine, as its /proc/zoneinfo shows them.
        let dma32 = Watermarks::with_min(13_416, 772_917);
        assert_eq!((dma32.low, dma32.high), (16_770, 20_124));
        let normal = Watermarks::with_min(3412, 196_608);
        assert_eq!((normal.low, normal.high), (4265, 5118));
        // min_free_kbytes by memory, from the table above `calculate_min_free_kbytes`.
        for (mib, min_kib) in [(16, 512), (64, 1024), (1024, 4096), (4096, 8192), (16_384, 16_384)]
        {
            assert_eq!(Watermarks::for_frames(mib * 256).min * 4, min_kib, "{mib} MiB");
        }
        // Above 16 GiB a thousandth of the zone is more than a quarter of min.
        let large = Watermarks::for_frames(64 << 18);
        assert_eq!((large.min, large.low - large.min), (8192, 16_777));
    }

    #[test]
    fn tiny_machines_keep_an_eighth_at_most() {
        let marks = |frames| {
            let Watermarks { min, low, high } = Watermarks::for_frames(frames);
            (min, low, high)
        };
        assert_eq!(marks(512), (42, 52, 62));
        assert_eq!(marks(64), (5, 6, 7));
        assert_eq!(marks(32), (2, 3, 4));
        assert_eq!(marks(16), (2, 2, 2));
        assert_eq!(marks(4), (0, 0, 0));
        for frames in 0..5000 {
            let marks = Watermarks::for_frames(frames);
            assert!(marks.fit(frames) && marks.high <= frames / 8, "{frames} frames: {marks:?}");
            assert!(marks.min >= 2 || frames < 16, "{frames} frames: {marks:?}");
        }
    }

    #[test]
    fn the_last_min_frames_are_for_who_dips() {
        let zone = zone(100, 1, Watermarks { min: 10, low: 20, high: 30 });
        assert_eq!(drain_dry(&zone, 0, Reserve::Keep).len(), 90);
        assert_eq!(zone.alloc_run(0, Reserve::Keep), None);
        assert_eq!(drain_dry(&zone, 0, Reserve::Dip).len(), 10);
        zone.check_invariants();
    }

    #[test]
    fn a_run_does_not_reach_into_the_reserve() {
        let zone = zone(16, 1, Watermarks { min: 9, low: 9, high: 9 });
        assert_eq!(zone.alloc_run(3, Reserve::Keep), None);
        assert_eq!(zone.alloc_run(3, Reserve::Dip), Some(Frame(0)));
        assert_eq!(zone.alloc_run(64, Reserve::Dip), None);
    }

    #[test]
    fn reclaim_starts_below_low_and_stops_at_high() {
        let zone = zone(10, 1, Watermarks { min: 2, low: 4, high: 6 });
        let mut frames = Vec::new();
        let mut levels = Vec::new();
        while let Some(frame) = zone.alloc(0, Reserve::Dip) {
            frames.push(frame);
            levels.push((zone.free_frames(), zone.level(), zone.below_low(), zone.reached_high()));
        }
        assert_eq!(levels[3], (6, Level::Plenty, false, true));
        assert_eq!(levels[4], (5, Level::Plenty, false, false));
        assert_eq!(levels[6], (3, Level::BelowLow, true, false));
        assert_eq!(levels[8], (1, Level::BelowMin, true, false));
    }

    #[test]
    fn frames_in_a_cache_count_as_free_and_are_found_by_all() {
        let zone = zone(8, 3, Watermarks::default());
        let frames = drain_dry(&zone, 0, Reserve::Keep);
        assert_eq!(frames.len(), 8);
        zone.free(1, frames[3]);
        assert_eq!(zone.free_frames(), 1);
        assert_eq!(zone.alloc(2, Reserve::Keep), Some(frames[3]), "stolen from processor 1");
        zone.check_invariants();
    }

    #[test]
    fn frames_in_caches_join_runs_only_when_drained() {
        let zone = zone(8, 2, Watermarks::default());
        let frames = drain_dry(&zone, 0, Reserve::Keep);
        for (at, frame) in frames.into_iter().enumerate() {
            zone.free(at as u32 % 2, frame);
        }
        assert_eq!(zone.free_frames(), 8);
        assert_eq!(zone.alloc_run(3, Reserve::Keep), None);
        zone.drain();
        assert_eq!(zone.free_frames(), 8);
        assert_eq!(zone.alloc_run(3, Reserve::Keep), Some(Frame(0)));
        zone.check_invariants();
    }

    #[test]
    fn caches_shrink_with_the_zone() {
        for frames in [256, 4096, 1 << 20] {
            let zone = zone(frames, 4, Watermarks::default());
            let taken = drain_dry(&zone, 0, Reserve::Keep);
            assert_eq!(taken.len(), frames as usize);
            for (at, frame) in taken.into_iter().enumerate() {
                zone.free(at as u32 % 4, frame);
            }
            let held = zone.free_frames() - zone.buddy.lock().free_frames();
            assert!(held * 40 <= (frames as usize).max(1024), "{held} of {frames} held");
            zone.drain();
            let runs = frames as usize >> 10;
            assert_eq!(zone.free_runs(10), runs, "all runs rejoin");
            zone.check_invariants();
        }
    }

    #[test]
    fn a_split_run_comes_back_frame_by_frame() {
        let zone = zone(16, 1, Watermarks::default());
        let run = zone.alloc_run(3, Reserve::Keep).expect("half of it");
        zone.split_run(run, 3, 0);
        for frame in 0..8 {
            zone.free(0, Frame(run.0 + frame));
        }
        zone.drain();
        assert_eq!(zone.free_runs(4), 1);
    }

    #[test]
    #[should_panic(expected = "Watermarks { min: 1, low: 3, high: 2 } in a zone of 8 frames")]
    fn marks_out_of_order_are_refused() {
        zone(8, 1, Watermarks { min: 1, low: 3, high: 2 });
    }
}
