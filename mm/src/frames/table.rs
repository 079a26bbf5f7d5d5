//! The frame table: what every physical frame is, who maps it, and whom it belongs to.
//!
//! Three words a frame, 24 bytes (Linux: 64):
//!
//! ```text
//! state   63 ─────── 40 39 ──── 28 27 ─── 20 19 ───────────── 4 3 ─── 1   0
//!           mapped        holds      pins           flags        kind   LOCK
//! rmap    how to find the entries that map the frame (see `rmap`); while it is READING, the request
//! owner   File: file and page index · Anon in swap: its slot · Table: its space and 2 MiB region
//! ```
//!
//! A frame is changed only by who holds its lock, a bit of the state word. [`Locked`] keeps the state
//! in a register and writes it back when it is dropped, so a lock costs one atomic operation and an
//! unlock a plain store.
//!
//! Invariant: while a frame is locked, every entry in its reverse map is alive. Who unmaps locks the
//! frame and takes the entry out of the reverse map before the entry's table may be freed. Otherwise
//! an eviction would write to a table that is by then somebody's memory.
//!
//! Order of locks: address space (owned) · file · frame · policy, zone, slots, requests. Who holds the
//! policy's lock only *tries* a frame's.

use alloc::boxed::Box;
use core::hint::spin_loop;
use core::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use bitflags::bitflags;

use crate::addr::Frame;

/// What a frame is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Nothing: it is in its zone, or never was in one.
    Free = 0,
    /// A page table.
    Table = 1,
    /// Words of the core itself: nodes of the page cache, links of the reverse map.
    Words = 2,
    /// Anonymous memory of programs.
    Anon = 3,
    /// A page of a file or of shared memory.
    File = 4,
    /// The zero frame, and what the machine keeps for itself.
    Reserved = 5,
}

bitflags! {
    /// Facts about a frame in use.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Flags: u64 {
        /// Its contents differ from what backs it (an entry's dirty bit may know more).
        const DIRTY = 1 << 4;
        /// Used since a policy last looked, by the kernel itself or by a mapping that is gone.
        const REFERENCED = 1 << 5;
        /// A disk is filling it; nobody may map it.
        const READING = 1 << 6;
        /// A disk is reading it.
        const WRITING = 1 << 7;
        /// It is in the policy's order of eviction.
        const LISTED = 1 << 8;
        /// It is the cached copy of the swap slot in its owner word.
        const IN_SWAP = 1 << 9;
        /// Its program no longer needs the contents unless it writes again (`MADV_FREE`).
        const LAZY = 1 << 10;
        /// It may never be evicted: there is nowhere to put it.
        const KEPT = 1 << 11;
        /// Free it as soon as its I/O ends: what it belonged to is gone.
        const DOOMED = 1 << 12;
        /// It is being written so that it can be evicted: free it then, unless it was used meanwhile.
        const LEAVING = 1 << 13;
        /// A page of shared memory: it has no file, and is always dirty.
        const MEMORY = 1 << 14;
        /// A write of it failed, and it was not alone in that: it is written alone next time.
        const ALONE = 1 << 16;
        /// Used since working sets were last measured, though a policy has taken the accessed bit.
        const SEEN = 1 << 15;
    }
}

const LOCK: u64 = 1;
const KIND_SHIFT: u32 = 1;
const KIND_MASK: u64 = 0b111 << KIND_SHIFT;
const PINS_SHIFT: u32 = 20;
const PINS_MASK: u64 = 0xff << PINS_SHIFT;
const HOLDS_SHIFT: u32 = 28;
const HOLDS_MASK: u64 = 0xfff << HOLDS_SHIFT;
const MAPPED_SHIFT: u32 = 40;

/// Mappings that a frame can have: 24 bits count them.
pub const MAPPED_MAX: u32 = (1 << (64 - MAPPED_SHIFT)) - 1;

/// The state word of a frame, as a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State(u64);

impl State {
    /// What the frame is used for.
    pub const fn kind(self) -> Kind {
        match (self.0 & KIND_MASK) >> KIND_SHIFT {
            0 => Kind::Free,
            1 => Kind::Table,
            2 => Kind::Words,
            3 => Kind::Anon,
            4 => Kind::File,
            _ => Kind::Reserved,
        }
    }

    /// Number of page-table entries that map it.
    pub const fn mapped(self) -> u32 {
        (self.0 >> MAPPED_SHIFT) as u32
    }

    /// Number of locked mappings (`mlock`), saturating at 255.
    pub const fn pins(self) -> u32 {
        ((self.0 & PINS_MASK) >> PINS_SHIFT) as u32
    }

    /// Number of flushes that have yet to make TLBs forget this frame.
    pub const fn holds(self) -> u32 {
        ((self.0 & HOLDS_MASK) >> HOLDS_SHIFT) as u32
    }

    /// Whether all of `flags` are set.
    pub const fn has(self, flags: Flags) -> bool {
        self.0 & flags.bits() == flags.bits()
    }

    /// Whether any of `flags` is set.
    pub const fn has_any(self, flags: Flags) -> bool {
        self.0 & flags.bits() != 0
    }
}

/// One descriptor for each frame of the machine.
///
/// All zeros is a free frame, so that the host backs only what is touched.
pub struct FrameTable {
    words: Box<[[AtomicU64; 3]]>,
}

impl FrameTable {
    /// A table for frames `0..count`, all free.
    pub fn new(count: usize) -> FrameTable {
        FrameTable { words: bytemuck::zeroed_slice_box(count) }
    }

    /// Number of frames.
    pub fn count(&self) -> usize {
        self.words.len()
    }

    /// Locks `frame`; waits while another processor holds it.
    ///
    /// # Panics
    /// If the machine has no such frame.
    #[inline]
    pub fn lock(&self, frame: Frame) -> Locked<'_> {
        let words = &self.words[frame.index()];
        if !take(&words[0]) {
            wait_for(&words[0]);
        }
        Locked { words, frame, state: words[0].load(Relaxed) }
    }

    /// Locks `frame` unless somebody holds it.
    #[inline]
    pub fn try_lock(&self, frame: Frame) -> Option<Locked<'_>> {
        let words = &self.words[frame.index()];
        take(&words[0]).then(|| Locked { words, frame, state: words[0].load(Relaxed) })
    }

    /// The state of `frame` at this moment; without its lock, a hint.
    #[inline]
    pub fn peek(&self, frame: Frame) -> State {
        State(self.words[frame.index()][0].load(Relaxed))
    }

    /// The owner word of `frame`; without its lock, a hint, but stable for tables.
    #[inline]
    pub fn peek_owner(&self, frame: Frame) -> u64 {
        self.words[frame.index()][2].load(Relaxed)
    }
}

/// Takes the lock in a state word unless somebody holds it.
#[inline]
fn take(state: &AtomicU64) -> bool {
    state.fetch_or(LOCK, Acquire) & LOCK == 0
}

/// Takes it as soon as its holder is done.
#[cold]
fn wait_for(state: &AtomicU64) {
    // Bounded by the longest holder: an eviction, which never waits itself.
    while !take(state) {
        spin_loop();
    }
}

/// A frame that only its holder may change.
#[must_use = "a frame is locked to read or change it"]
pub struct Locked<'a> {
    words: &'a [AtomicU64; 3],
    frame: Frame,
    /// With the bit of the lock.
    state: u64,
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        self.words[0].store(self.state - LOCK, Release);
    }
}

impl Locked<'_> {
    /// Which frame.
    pub fn frame(&self) -> Frame {
        self.frame
    }

    /// Its state.
    #[inline]
    pub fn state(&self) -> State {
        State(self.state)
    }

    /// Makes a free frame one of `kind`, without flags, mappings or owner.
    ///
    /// # Panics
    /// If the frame is in use already.
    #[inline]
    pub fn begin(&mut self, kind: Kind) {
        assert!(State(self.state).kind() == Kind::Free, "{:?} is in use", self.frame);
        self.state = (kind as u64) << KIND_SHIFT | LOCK;
        self.set_rmap(0);
        self.set_owner(0);
    }

    /// Makes the frame free.
    ///
    /// # Panics
    /// If it is still mapped, listed, pinned or under I/O: it would become somebody else's memory.
    #[inline]
    pub fn end(&mut self) {
        let state = State(self.state);
        assert!(
            state.mapped() == 0
                && state.pins() == 0
                && state.holds() == 0
                && !state.has_any(Flags::LISTED | Flags::READING | Flags::WRITING),
            "{:?} is freed while in use: {state:?}",
            self.frame
        );
        self.state = LOCK;
    }

    /// Sets `flags`.
    #[inline]
    pub fn set(&mut self, flags: Flags) {
        self.state |= flags.bits();
    }

    /// Clears `flags`.
    #[inline]
    pub fn clear(&mut self, flags: Flags) {
        self.state &= !flags.bits();
    }

    /// Clears `flags` and tells whether any was set.
    #[inline]
    pub fn take(&mut self, flags: Flags) -> bool {
        let had = State(self.state).has_any(flags);
        self.clear(flags);
        had
    }

    /// Counts one mapping more. Called by [`rmap`](super::rmap) only.
    #[inline]
    pub(super) fn mapped_up(&mut self) {
        self.state += 1 << MAPPED_SHIFT;
    }

    /// Counts one mapping less. Called by [`rmap`](super::rmap) only.
    #[inline]
    pub(super) fn mapped_down(&mut self) {
        assert!(self.state >= 1 << MAPPED_SHIFT, "{:?} is not mapped", self.frame);
        self.state -= 1 << MAPPED_SHIFT;
    }

    /// Pins the frame once more. At 255 the count sticks: the frame then stays until its end.
    pub fn pin(&mut self) {
        if State(self.state).pins() < 255 {
            self.state += 1 << PINS_SHIFT;
        }
    }

    /// Takes one pin away.
    ///
    /// # Panics
    /// If it has none.
    pub fn unpin(&mut self) {
        let pins = State(self.state).pins();
        assert!(pins > 0, "{:?} is not pinned", self.frame);
        if pins < 255 {
            self.state -= 1 << PINS_SHIFT;
        }
    }

    /// Takes all pins away: the last mapping is gone.
    pub fn unpin_all(&mut self) {
        self.state &= !PINS_MASK;
    }

    /// A TLB may still know a translation to the frame: it is not freed until [`unhold`](Self::unhold).
    ///
    /// # Panics
    /// If 4095 flushes hold it: 64 on each of 63 processors.
    pub fn hold(&mut self) {
        assert!(State(self.state).holds() < 0xfff, "{:?} is held by 4095 flushes", self.frame);
        self.state += 1 << HOLDS_SHIFT;
    }

    /// One flush is done. Returns whether it was the last that the frame waited for.
    ///
    /// # Panics
    /// If no flush holds it.
    pub fn unhold(&mut self) -> bool {
        let holds = State(self.state).holds();
        assert!(holds > 0, "{:?} is not held", self.frame);
        self.state -= 1 << HOLDS_SHIFT;
        holds == 1
    }

    /// The word of the reverse map.
    #[inline]
    pub fn rmap(&self) -> u64 {
        self.words[1].load(Relaxed)
    }

    /// Sets the word of the reverse map.
    #[inline]
    pub fn set_rmap(&mut self, word: u64) {
        self.words[1].store(word, Relaxed);
    }

    /// The owner word.
    #[inline]
    pub fn owner(&self) -> u64 {
        self.words[2].load(Relaxed)
    }

    /// Sets the owner word.
    #[inline]
    pub fn set_owner(&mut self, word: u64) {
        self.words[2].store(word, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_24_bytes_of_its_own() {
        let table = FrameTable::new(2);
        assert_eq!(size_of_val(&table.words[0]), 24);
    }

    #[test]
    fn a_locked_frame_cannot_be_locked_again() {
        let table = FrameTable::new(1);
        let held = table.lock(Frame(0));
        assert!(table.try_lock(Frame(0)).is_none());
        drop(held);
        assert!(table.try_lock(Frame(0)).is_some());
    }

    #[test]
    fn a_change_is_seen_after_the_lock_is_dropped() {
        let table = FrameTable::new(1);
        let mut frame = table.lock(Frame(0));
        frame.begin(Kind::Anon);
        frame.set(Flags::DIRTY);
        assert_eq!(table.peek(Frame(0)).kind(), Kind::Free);
        drop(frame);
        assert_eq!(table.peek(Frame(0)).kind(), Kind::Anon);
        assert!(table.peek(Frame(0)).has(Flags::DIRTY));
    }

    #[test]
    #[should_panic(expected = "freed while in use")]
    fn a_mapped_frame_is_not_freed() {
        let table = FrameTable::new(1);
        let mut frame = table.lock(Frame(0));
        frame.begin(Kind::Anon);
        frame.mapped_up();
        frame.end();
    }
}
