//! The collector's end of a slot.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use vellum_trace::event::{Access, Kind, ThreadId};

use crate::shared::{RECORD_WORDS_MAX, RING_WORDS, Slot};
use crate::wire::{self, CALL, CALL_WORDS, RawAccess, Record};

/// What a ring holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Access(Reference),
    Call(Record),
    /// Words that no plugin wrote: the program has overwritten its ring.
    Broken,
}

/// A reference, of the stream's thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    page: u64,
    kind: Kind,
    count: u32,
    instructions: u32,
}

impl Reference {
    #[inline(always)]
    fn new(raw: RawAccess) -> Self {
        let RawAccess { kind, page, count, instructions } = raw;
        let kind = match kind {
            0 => Kind::Load,
            1 => Kind::Store,
            _ => Kind::Fetch,
        };
        Self { page, kind, count: count.max(1), instructions }
    }

    /// As the trace has it.
    #[inline(always)]
    pub(crate) fn by(self, thread: ThreadId) -> Access {
        let Self { page, kind, count, instructions } = self;
        Access { page, thread, count, instructions, kind }
    }
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
    /// The ticket of the first event, unless that says otherwise.
    ticket_next: u64,
}

impl<'a> Stream<'a> {
    /// The stream of a slot that a thread has just taken.
    pub(crate) fn new(slot: Slot<'a>) -> Self {
        let control = slot.control();
        let tail = control.tail.0.load(Relaxed);
        let (pid, tid) = (control.pid.load(Relaxed), control.tid.load(Relaxed));
        Self { slot, pid, tid, thread: None, silent: false, tail, head: tail, ticket_next: 0 }
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
        Some(self.ticket(self.slot.ring(self.tail).load(Relaxed)))
    }

    /// The ticket of the first event, whose first word is `first`.
    #[inline(always)]
    fn ticket(&self, first: u64) -> u64 {
        if wire::has_ticket(first) {
            self.slot.ring(self.tail + 1).load(Relaxed)
        } else {
            self.ticket_next
        }
    }

    /// Takes the first event if it is a reference and its ticket at most `turn`; with its ticket.
    ///
    /// Looks only at what [`peek`](Self::peek) has found already.
    #[inline(always)]
    pub(crate) fn take_reference(&mut self, turn: u64) -> Option<(u64, Reference)> {
        let length = self.head.wrapping_sub(self.tail);
        if length == 0 {
            return None;
        }
        let first = self.slot.ring(self.tail).load(Relaxed);
        let word = |index| self.slot.ring(self.tail + index).load(Relaxed);
        let (raw, words) = RawAccess::decode(first, word)?;
        let ticket = self.ticket(first);
        if ticket > turn || words > length || length > RING_WORDS {
            return None;
        }
        self.tail += words;
        self.ticket_next = ticket.wrapping_add(1);
        Some((ticket, Reference::new(raw)))
    }

    /// Takes the first event, which [`peek`](Self::peek) must have seen.
    #[inline]
    pub(crate) fn take(&mut self) -> Item {
        let length = self.head.wrapping_sub(self.tail);
        let first = self.slot.ring(self.tail).load(Relaxed);
        if let Some((_, reference)) = self.take_reference(u64::MAX) {
            return Item::Access(reference);
        }
        if first & CALL == CALL { self.take_call(first, length) } else { self.abandon() }
    }

    #[cold]
    fn take_call(&mut self, tag: u64, available: u64) -> Item {
        debug_assert_eq!(tag & CALL, CALL);
        self.ticket_next = self.ticket(tag).wrapping_add(1);
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
