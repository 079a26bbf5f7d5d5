//! Direct reclaim: who needs a frame and finds none makes one free.

use super::evict::{Evicted, evict_one};
use crate::machine::{At, Machine};
use crate::objects::Store;
use crate::objects::io::RequestId;

/// Frames that one reclaim tries to free (Linux: `SWAP_CLUSTER_MAX`).
pub(super) const BATCH: usize = 32;

/// What reclaim achieved for who must have a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// Frames are free: try again.
    Made,
    /// Frames will be free when this write ends.
    After(RequestId),
    /// Nothing can be evicted: the machine is out of memory.
    None,
}

/// Frees some frames, or says what to wait for, or that there is nothing.
pub fn make_room<M: Machine>(store: &Store, at: At, machine: &M) -> Room {
    store.counters(at).direct_reclaims.add(1);
    let (freed, _) = shrink(store, at, machine, BATCH);
    if freed > 0 {
        return Room::Made;
    }
    store.requests.lock().some_write().map_or(Room::None, Room::After)
}

/// Evicts until `want` frames are free or leaving, or until every evictable frame was tried. Returns
/// how many are free and how many are leaving.
pub(super) fn shrink<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    want: usize,
) -> (usize, usize) {
    let (mut freed, mut queued, mut stuck) = (0, 0, 0);
    let evictable = store.order.lock().as_policy_mut().len();
    while freed + queued < want && stuck <= evictable {
        match evict_one(store, at, machine) {
            Evicted::Freed => freed += 1,
            Evicted::Queued => queued += 1,
            Evicted::Stuck => stuck += 1,
            Evicted::NoVictim => break,
        }
    }
    (freed, queued)
}
