//! Puts events into a thread's ring.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, fence};
use std::time::Duration;

use crate::filter;
use crate::shared::{Header, RECORD_WORDS_MAX, RING_WORDS, Slot};
use crate::sys;
use crate::wire::{ACCESS_WORDS, CALL, CALL_WORDS, Record};

/// Whether this process found its collector dead and records no more.
///
/// Not in the shared file: a process in a pid namespace of its own cannot see the collector, and
/// would stop the recording of all the others.
static ORPHANED: AtomicBool = AtomicBool::new(false);

/// A thread's way to the collector.
#[derive(Clone, Copy)]
pub(crate) struct Outbox<'a> {
    pub(crate) slot: Slot<'a>,
    pub(crate) header: &'a Header,
}

impl Outbox<'_> {
    /// Reports a reference, and all those that were dropped since the last report.
    ///
    /// The reference must have been counted already.
    pub(crate) fn access(self, kind: usize, page: u64) {
        if page >= filter::PAGE_END {
            return;
        }
        filter::admit(self.slot, kind, page, self.header.filter_events.load(Relaxed));
        let (count, instructions) = self.untold();
        let (Ok(count), Ok(instructions)) = (u32::try_from(count), u32::try_from(instructions))
        else {
            // Hours without an event do not fit its fields.
            self.call(&Record::Tick { count: count.saturating_sub(1), instructions });
            return self.publish_access(kind, page, 1, 0);
        };
        self.publish_access(kind, page, count.max(1), instructions);
    }

    /// References and instructions since the last report, which this is.
    fn untold(self) -> (u64, u64) {
        let control = self.slot.control();
        let references = control.hot.0.references.iter().map(|count| count.load(Relaxed)).sum();
        let instructions = control.hot.0.instructions.load(Relaxed);
        let cold = &control.cold.0;
        let told = (cold.references_told.load(Relaxed), cold.instructions_told.load(Relaxed));
        cold.references_told.store(references, Relaxed);
        cold.instructions_told.store(instructions, Relaxed);
        (references.wrapping_sub(told.0), instructions.wrapping_sub(told.1))
    }

    fn publish_access(self, kind: usize, page: u64, count: u32, instructions: u32) {
        if !self.room(ACCESS_WORDS) {
            return;
        }
        let ticket = self.reserve();
        let head = self.slot.control().outbox.0.head.load(Relaxed);
        self.slot.ring(head).store(ticket, Relaxed);
        self.slot.ring(head + 1).store(page << 2 | kind as u64, Relaxed);
        let counts = u64::from(count) | u64::from(instructions) << 32;
        self.slot.ring(head + 2).store(counts, Relaxed);
        self.publish(head + ACCESS_WORDS);
    }

    /// Whether nobody reads what is put here: a ticket would never be used.
    pub(crate) fn is_muted(self) -> bool {
        self.slot.control().cold.0.muted.load(Relaxed) != 0
    }

    /// Takes a place in the order of events; [`call_at`](Self::call_at) must follow, at once or
    /// when a system call returns, and nothing of this thread in between.
    pub(crate) fn reserve(self) -> u64 {
        self.slot.control().outbox.0.busy.store(1, Relaxed);
        // The addition is a full barrier on x86-64; elsewhere the collector must not see the ticket
        // gone while it still sees us idle.
        fence(Release);
        self.header.ticket.0.fetch_add(1, Release)
    }

    /// Reports a call at this place in the order.
    pub(crate) fn call(self, record: &Record) {
        let (code, payload) = encode(record);
        if self.room(CALL_WORDS + payload.len() as u64) {
            let ticket = self.reserve();
            self.put_call(ticket, code, &payload);
        }
    }

    /// Reports a call at a place that [`reserve`](Self::reserve) took.
    pub(crate) fn call_at(self, ticket: u64, record: &Record) {
        let (code, payload) = encode(record);
        if self.room(CALL_WORDS + payload.len() as u64) {
            self.put_call(ticket, code, &payload);
        }
    }

    /// Reports what was dropped since the last event, if anything was.
    pub(crate) fn tick(self) {
        let (count, instructions) = self.untold();
        if count > 0 || instructions > 0 {
            self.call(&Record::Tick { count, instructions });
        }
    }

    fn put_call(self, ticket: u64, code: u64, payload: &[u64]) {
        let head = self.slot.control().outbox.0.head.load(Relaxed);
        self.slot.ring(head).store(ticket, Relaxed);
        let length = payload.len() as u64;
        self.slot.ring(head + 1).store(length << 18 | code << 2 | CALL, Relaxed);
        for (index, &word) in (head + CALL_WORDS..).zip(payload) {
            self.slot.ring(index).store(word, Relaxed);
        }
        self.publish(head + CALL_WORDS + length);
    }

    fn publish(self, head: u64) {
        let outbox = &self.slot.control().outbox.0;
        outbox.head.store(head, Release);
        outbox.busy.store(0, Release);
    }

    /// Whether `words` fit; waits for the collector if they do not, and gives up if it is gone.
    #[inline(always)]
    fn room(self, words: u64) -> bool {
        let control = self.slot.control();
        let used = control.outbox.0.head.load(Relaxed) + words;
        let tail = control.cold.0.tail_seen.load(Relaxed);
        used.wrapping_sub(tail) <= RING_WORDS || self.wait_for_room(used, words)
    }

    #[cold]
    fn wait_for_room(self, used: u64, words: u64) -> bool {
        // About half a second between looks at whether the collector lives.
        const NAPS: u32 = 5_000;
        let control = self.slot.control();
        debug_assert!(words <= CALL_WORDS + RECORD_WORDS_MAX);
        if self.is_muted() {
            return false;
        }
        for nap in 1_u32.. {
            let tail = control.tail.0.load(Acquire);
            control.cold.0.tail_seen.store(tail, Relaxed);
            if used.wrapping_sub(tail) <= RING_WORDS {
                return true;
            }
            if self.header.closed.load(Relaxed) != 0 || ORPHANED.load(Relaxed) {
                return false;
            }
            if nap.is_multiple_of(NAPS) && !sys::exists(self.collector()) {
                ORPHANED.store(true, Relaxed);
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        false
    }

    fn collector(self) -> u32 {
        u32::try_from(self.header.collector.load(Relaxed)).unwrap_or(0)
    }
}

/// The form of `record` in words; one that could never fit is replaced, so that its ticket is used.
fn encode(record: &Record) -> (u64, Vec<u64>) {
    let (code, payload) = record.encode();
    if payload.len() as u64 <= RECORD_WORDS_MAX {
        (code, payload)
    } else {
        Record::Cancelled {}.encode()
    }
}
