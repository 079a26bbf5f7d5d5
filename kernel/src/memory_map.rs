//! From what the firmware calls RAM to frames and holes.

use alloc::vec::Vec;
use core::ops::Range;

use vellum_mm::addr::{Frame, PAGE_BYTES};

/// Memory for the memory manager.
pub(crate) struct MemoryMap {
    /// Frames, numbered from 0, up to the end of RAM: so far the direct map must reach.
    pub(crate) frames: u32,
    /// What of them is not usable.
    pub(crate) holes: Vec<Range<Frame>>,
}

/// The frames of `ranges`, which are in bytes and in order, among `frames` frames; no more than `limit`
/// bytes of them.
pub(crate) fn usable(ranges: &[Range<u64>], frames: u32, limit: Option<u64>) -> MemoryMap {
    let mut left = limit.map_or(u64::MAX, |bytes| bytes / PAGE_BYTES);
    let mut holes = Vec::new();
    let mut next = 0;
    for range in ranges {
        let start = range.start.div_ceil(PAGE_BYTES);
        let end = (range.end / PAGE_BYTES).min(start.saturating_add(left)).min(frames.into());
        if start >= end {
            continue;
        }
        left -= end - start;
        if start > next {
            holes.push(Frame(next as u32)..Frame(start as u32));
        }
        next = end;
    }
    holes.push(Frame(next as u32)..Frame(frames));
    MemoryMap { frames, holes }
}
