//! The collector's end of a slot.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use vellum_trace::event::{Kind, ThreadId};

use crate::shared::{RECORD_WORDS_MAX, RING_WORDS, Slot};
use crate::wire::{ACCESS_WORDS, CALL, CALL_WORDS, Record};

/// What a ring holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Access {
        page: u64,
        kind: Kind,
        count: u32,
        instructions: u32,
    },
    Call(Record),
    /// Words that no plugin wrote: the program has overwritten its ring.
    Broken,
}

/// A slot in use.
pub(crate) struct Stream<'a> {
    pub(crate) slot: Slot<'a>,
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    /// Who writes it, once its first event was read.
    pub(crate) thread: Option<ThreadId>,
    /// Whether its thread is over as far as the trace goes: what still comes is dropped.
    pub(crate) silent: bool,
    tail: u64,
    head: u64,
}

impl<'a> Stream<'a> {
    /// The stream of a slot that a thread has just taken.
    pub(crate) fn new(slot: Slot<'a>) -> Self {
        let control = slot.control();
        let tail = control.tail.0.load(Relaxed);
        let (pid, tid) = (control.pid.load(Relaxed), control.tid.load(Relaxed));
        Self { slot, pid, tid, thread: None, silent: false, tail, head: tail }
    }

    /// The ticket of the first event, if there is one.
    #[inline]
    pub(crate) fn peek(&mut self) -> Option<u64> {
        if self.tail == self.head {
            self.head = self.slot.control().outbox.0.head.load(Acquire);
            if self.tail == self.head {
                return None;
            }
        }
        Some(self.slot.ring(self.tail).load(Relaxed))
    }

    /// Takes the first event, which [`peek`](Self::peek) must have seen.
    #[inline]
    pub(crate) fn take(&mut self) -> Item {
        let length = self.head.wrapping_sub(self.tail);
        let tag = self.slot.ring(self.tail + 1).load(Relaxed);
        let kind = match tag & 3 {
            0 => Kind::Load,
            1 => Kind::Store,
            2 => Kind::Fetch,
            _ => return self.take_call(tag, length),
        };
        if !(ACCESS_WORDS..=RING_WORDS).contains(&length) {
            return self.abandon();
        }
        let counts = self.slot.ring(self.tail + 2).load(Relaxed);
        self.tail += ACCESS_WORDS;
        let (count, instructions) = (counts as u32, (counts >> 32) as u32);
        Item::Access { page: tag >> 2, kind, count: count.max(1), instructions }
    }

    #[cold]
    fn take_call(&mut self, tag: u64, available: u64) -> Item {
        debug_assert_eq!(tag & CALL, CALL);
        let (length, code) = (tag >> 18, tag >> 2 & 0xffff);
        let whole = CALL_WORDS + length.min(RING_WORDS);
        if length > RECORD_WORDS_MAX || whole > available || available > RING_WORDS {
            return self.abandon();
        }
        let payload = self.tail + CALL_WORDS..self.tail + whole;
        let words: Vec<u64> = payload.map(|at| self.slot.ring(at).load(Relaxed)).collect();
        self.tail += whole;
        match Record::decode(code, &words) {
            Some(record) => Item::Call(record),
            None => self.abandon(),
        }
    }

    /// Gives up what the ring holds.
    fn abandon(&mut self) -> Item {
        self.tail = self.head;
        Item::Broken
    }

    /// Tells the thread how far the ring was read.
    #[inline]
    pub(crate) fn commit(&self) {
        self.slot.control().tail.0.store(self.tail, Release);
    }

    /// References and instructions that no event has reported.
    pub(crate) fn untold(&self) -> (u64, u64) {
        let control = self.slot.control();
        let (hot, cold) = (&control.hot.0, &control.cold.0);
        let references: u64 = self.references().iter().sum();
        let instructions = hot.instructions.load(Relaxed);
        (
            references.saturating_sub(cold.references_told.load(Relaxed)),
            instructions.saturating_sub(cold.instructions_told.load(Relaxed)),
        )
    }

    /// Loads, stores and fetches so far.
    pub(crate) fn references(&self) -> [u64; 3] {
        self.slot.control().hot.0.references.each_ref().map(|count| count.load(Relaxed))
    }
}
