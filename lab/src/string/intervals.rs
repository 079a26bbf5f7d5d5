//! OPT at one size of memory, without the future.
//!
//! Bélády's policy must know which page is used last; the *number* of its faults can be had in one
//! pass forwards. Between two uses of a page lies an interval. Whoever keeps the page in memory all
//! through it saves a fault, and no more than `frames - 1` intervals may be kept at any moment, since
//! the page in use needs a frame as well. Faults are least if the most intervals are kept: a schedule of
//! jobs with fixed times on `frames - 1` equal machines. Taking jobs in order of their ends, and giving
//! each to the machine that is free soonest before its start, is optimal (U. Faigle and W. M. Nawijn,
//! "Note on Scheduling Intervals On-Line", Discrete Applied Mathematics 58, 1995; M. C. Carlisle and
//! E. L. Lloyd, "On the k-Coloring of Intervals", 1995). References come in the order of the ends.
//!
//! ```text
//!     a  b  c  a  b  d  c      2 frames, so one machine:
//!       ├──┤                   a's interval is kept, the machine is free from here
//!          ├──┤                b's begins before that: b was evicted
//!             ├────────┤       c's as well
//! ```
//!
//! The interval of a page used twice in a row is empty, and takes no machine.
//!
//! A machine is one bit, at the time from which it is free: a bitmap over time, with summaries above
//! it, finds the one nearest before a start. A freed page only ends: it has no further interval.
//!
//! 4 bytes a page and an eighth of a byte a reference. A reference costs at most three cache misses:
//! its page's last use and the word where the search begins, which are taken in blocks, and where it
//! ends. In small memories machines are rare, and the steps of the search, whose branches cannot be
//! predicted, cost more.

use std::hint::black_box;

use super::times::Times;
use super::{BLOCK, Counts, RefString, WRITE};

/// A page not used yet.
const NEVER: u32 = u32::MAX;

/// The faults of OPT in a memory of `frames` frames. The writes are the least that go with them: of
/// the pages that are never used again, clean ones are evicted first.
///
/// # Panics
/// If `frames` is 0, or the string has 2^32 - 1 references or more.
pub fn opt(string: &RefString, frames: u32) -> Counts {
    assert!(frames > 0, "a memory of 0 frames");
    assert!(u32::try_from(string.len()).is_ok_and(|len| len < NEVER), "times are 32 bits");
    let mut last = vec![NEVER; string.pages() as usize];
    let mut free_from = Times::new(string.len());
    let mut unused = frames - 1; // machines that never had an interval
    let mut faults = 0_u64;
    let mut dirty = vec![false; if string.has_writes() { string.pages() as usize } else { 0 }];
    let mut writebacks = 0;
    let entries = string.entries();
    for now in 0..string.len() {
        if now.is_multiple_of(BLOCK) {
            // Where the searches below begin, and then what is there.
            let mut starts = [0; BLOCK];
            for (start, &entry) in starts.iter_mut().zip(&entries[now..]) {
                *start = last[(entry & !WRITE) as usize];
            }
            black_box(starts.iter().fold(0, |seen, &start| seen ^ free_from.peek(start as usize)));
        }
        let entry = entries[now];
        let start = std::mem::replace(&mut last[(entry & !WRITE) as usize], now as u32);
        if start == NEVER {
            faults += 1;
        } else if start as usize + 1 < now {
            let soonest = free_from.latest(start as usize);
            if soonest.is_some() || unused > 0 {
                match soonest {
                    Some(time) => free_from.remove(time),
                    None => unused -= 1,
                }
                // At `now` itself the page is in use, and its machine free for the page used before.
                free_from.insert(now - 1);
            } else {
                faults += 1;
                if let Some(dirty) = dirty.get_mut((entry & !WRITE) as usize) {
                    writebacks += u64::from(std::mem::take(dirty));
                }
            }
        }
        if entry & WRITE != 0 {
            dirty[(entry & !WRITE) as usize] = true;
        }
    }
    for free in string.frees() {
        if let Some(dirty) = dirty.get_mut(free.page as usize) {
            *dirty = false;
        }
    }
    let dirty_last = dirty.iter().filter(|&&dirty| dirty).count() as u64;
    writebacks += dirty_last.saturating_sub(frames.into());
    Counts { faults, cold: string.pages().into(), writebacks }
}
