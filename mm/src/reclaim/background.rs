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
