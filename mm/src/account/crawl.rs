//! Whether a machine crawls: reclaim works without end, and hardly anybody gains by it.
//!
//! Swap is full. What can still be evicted are the few pages of text that all programs run on, and pages
//! that were read a moment ago for somebody who has not come to use them. Reclaim always finds one of
//! them, so memory is never quite out; but each is wanted back at once, and the way to the next one leads
//! past all pages that have nowhere to go. Linux kills when reclaim has found nothing 16 times
//! (`should_reclaim_retry` in `mm/page_alloc.c`); here that never happens, the machine stands still, and
//! people run daemons that look for it (earlyoom, systemd-oomd).
//!
//! Reclaim's own looks are the measure of time lost. A window is as many looks as there are frames, 32
//! times over; the machine has crawled through it if all of this holds at its end:
//!
//! ```text
//!     swap has no room for a batch             what is in memory must stay
//!     fewer than 1 look in 100 evicted         hardly anything can go
//!     fewer than 1 look in 1,000 served a fault   hardly anything is done
//!     and looks were close together            reclaim is what the machine does
//! ```
//!
//! Each condition spares a machine that gets on. Whoever swaps hard has room in swap, or exchanges page for
//! page and serves faults; whoever reads long files evicts at nearly every look; whoever now and then needs
//! one of the last pages has time in between.
//!
//! Knows nothing of: which pages those are, and who is killed for it (see [`oom`](super::oom)).

use crate::addr::Nanos;
use crate::event::Counts;

/// Looks in a window, by frame of memory.
const PASSES: u64 = 32;
/// Slots in which reclaim finds room for a batch.
const SLOTS_MIN: u64 = 32;
/// Looks in which a machine that gets on evicts a page.
const LOOKS_TO_EVICT: u64 = 100;
/// Looks in which a machine that gets on serves a fault.
const LOOKS_TO_SERVE: u64 = 1000;
/// Time for a look if there is time for other things: much longer than it takes, even emulated.
const LOOK_NS_MAX: Nanos = 10_000;

/// Says when the machine crawls, and a process must die although pages can be evicted.
#[derive(Clone, Copy, Default, Debug)]
pub struct Crawl {
    began: Nanos,
    scanned: u64,
    evicted: u64,
    served: u64,
}

impl Crawl {
    /// Whether the machine has crawled for a window, which ends now; false while it goes on.
    ///
    /// `counts` is what has happened in all, on a machine of so many frames.
    pub fn is_over(&mut self, now: Nanos, counts: &Counts, frames: u64, slots_free: u64) -> bool {
        let looks = counts.scanned - self.scanned;
        if looks < PASSES * frames {
            return false;
        }
        let begun = *self;
        *self = Crawl {
            began: now,
            scanned: counts.scanned,
            evicted: counts.evicted,
            served: counts.minor + counts.major,
        };
        slots_free < SLOTS_MIN
            && (self.evicted - begun.evicted) * LOOKS_TO_EVICT < looks
            && (self.served - begun.served) * LOOKS_TO_SERVE < looks
            && now - begun.began < looks * LOOK_NS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: u64 = 1000;
    const WINDOW: u64 = PASSES * FRAMES;

    /// Whether a window is a crawl in which so much was evicted and served in so long, with so many slots
    /// free.
    fn crawls(evicted: u64, served: u64, ns: Nanos, slots_free: u64) -> bool {
        let mut crawl = Crawl::default();
        let before =
            Counts { scanned: 7 * WINDOW, evicted: 5 * WINDOW, minor: 900, ..Counts::default() };
        assert!(!crawl.is_over(50, &before, FRAMES, 1 << 20), "it was a good time");
        let after = Counts {
            scanned: before.scanned + WINDOW,
            evicted: before.evicted + evicted,
            minor: before.minor + served / 2,
            major: served.div_ceil(2),
            ..before
        };
        let early = Counts { scanned: after.scanned - 1, ..after };
        assert!(!crawl.is_over(50 + ns, &early, FRAMES, slots_free), "before the end of a window");
        let crawls = crawl.is_over(50 + ns, &after, FRAMES, slots_free);
        assert!(!crawl.is_over(50 + ns, &after, FRAMES, slots_free), "a window ends once");
        crawls
    }

    #[test]
    fn a_machine_that_looks_in_vain_crawls() {
        assert!(crawls(0, 0, 1_000_000, 0));
        assert!(crawls(WINDOW / 101, WINDOW / 1001, 1_000_000, SLOTS_MIN - 1));
    }

    #[test]
    fn a_machine_that_swaps_hard_gets_on() {
        let little = WINDOW / 1001;
        assert!(!crawls(little, little, 1_000_000, SLOTS_MIN), "swap has room");
        assert!(!crawls(little, WINDOW / 1000, 1_000_000, 0), "page for page");
    }

    #[test]
    fn a_machine_that_reads_long_files_gets_on() {
        assert!(!crawls(WINDOW / 100, 0, 1_000_000, 0));
    }

    #[test]
    fn a_machine_with_time_for_other_things_gets_on() {
        assert!(!crawls(10, 10, WINDOW * LOOK_NS_MAX, 0));
        assert!(crawls(10, 10, WINDOW * LOOK_NS_MAX - 1, 0));
    }
}
