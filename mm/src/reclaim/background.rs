//! Background reclaim: keeps the zone above its low watermark.
//!
//! An allocation that finds fewer than `low` frames free wants this; it evicts until `high`, so that
//! the next allocations find frames without waiting. The world calls it when
//! [`wanted`], as Linux wakes kswapd, and lets it cost time of its own.

use super::direct::{BATCH, shrink};
use crate::machine::{At, Machine};
use crate::objects::Store;

/// How a round of background reclaim ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Background {
    /// As many frames as the high watermark asks for are free.
    Enough,
    /// They will be when the writes under way have ended: call again then.
    Writing,
    /// Nothing more can be evicted.
    Exhausted,
}

/// Whether background reclaim should run.
#[inline]
pub fn wanted(store: &Store) -> bool {
    store.frames.zone().below_low()
}

/// Evicts until the zone reaches its high watermark, counting frames that are being written as free
/// already.
pub fn background<M: Machine>(store: &Store, at: At, machine: &M) -> Background {
    let zone = store.frames.zone();
    // Ends: each turn frees or queues at least one frame.
    loop {
        let high = zone.watermarks().high;
        if zone.reached_high() {
            return Background::Enough;
        }
        let leaving = store.requests.lock().writes();
        let missing = high.saturating_sub(zone.free_frames());
        if leaving >= missing {
            return Background::Writing;
        }
        let (freed, queued) = shrink(store, at, machine, (missing - leaving).min(BATCH), None);
        if freed + queued == 0 {
            return if leaving > 0 { Background::Writing } else { Background::Exhausted };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Page;
    use crate::machine::Access;
    use crate::testing::{AT, Bench};

    #[test]
    fn reclaim_starts_below_low_and_counts_pages_that_are_leaving() {
        let bench = Bench::new(256, 256);
        let mut space = bench.space();
        let zone = bench.vm.store().frames.zone();
        let marks = zone.watermarks();
        for page in bench.map(&mut space, Page(0x1000), 256).iter() {
            if bench.vm.wants_background() {
                break;
            }
            bench.touch(&mut space, page, Access::Write).unwrap();
        }
        assert_eq!(zone.free_frames(), marks.low - 1);
        assert_eq!(bench.vm.background(AT, &bench.ram), Background::Writing);
        let leaving = bench.vm.store().requests.lock().writes();
        assert_eq!(leaving, marks.high - zone.free_frames(), "no more than needed");
        assert_eq!(bench.vm.background(AT, &bench.ram), Background::Writing);
        bench.settle();
        assert_eq!(zone.free_frames(), marks.high);
        assert_eq!(bench.vm.background(AT, &bench.ram), Background::Enough);
        bench.check(&[&space]);
    }

    #[test]
    fn without_swap_anonymous_memory_stays() {
        let bench = Bench::new(64, 0);
        let mut space = bench.space();
        let mut all = bench.map(&mut space, Page(0x1000), 64).iter();
        assert!(all.any(|page| bench.touch(&mut space, page, Access::Write).is_err()));
        assert_eq!(bench.vm.background(AT, &bench.ram), Background::Exhausted);
    }
}
