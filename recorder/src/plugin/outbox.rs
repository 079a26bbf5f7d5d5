//! Puts events into a thread's ring.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, fence};
use std::time::Duration;

use crate::filter;
use crate::shared::{Header, RECORD_WORDS_MAX, RING_WORDS, Slot};
use crate::sys;
use crate::wire::{ACCESS_WORDS_MAX, CALL, CALL_WORDS, RawAccess, Record};

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
        if !self.room(ACCESS_WORDS_MAX) {
            return;
        }
        let ticket = self.reserve();
        let control = self.slot.control();
        let head = control.outbox.0.head.load(Relaxed);
        let follows = control.cold.0.ticket_next.load(Relaxed) == ticket;
        let access = RawAccess { kind: kind as u64, page, count, instructions };
        let (words, length) = access.encode((!follows).then_some(ticket));
        for (index, &word) in (head..head + length).zip(&words) {
            self.slot.ring(index).store(word, Relaxed);
        }
        self.publish(ticket, head + length);
    }

    /// Whether nobody reads what is put here: a ticket would never be used.
    pub(crate) fn is_muted(self) -> bool {
        self.slot.control().cold.0.muted.load(Relaxed) != 0
    }

    /// Takes a place in the order of events; [`call_at`](Self::call_at) must follow, at once or
    /// when a system call returns, and nothing of this thread in between.
    pub(crate) fn reserve(self) -> u64 {
        self.slot.control().outbox.0.busy.store(1, Relaxed);
        let ticket = &self.header.ticket.0;
        if self.header.company.load(Relaxed) == 0 {
            let next = ticket.load(Relaxed);
            // Released, so that a collector that sees the ticket gone sees us busy.
            ticket.store(next.wrapping_add(1), Release);
            return next;
        }
        // The addition is a full barrier on x86-64; elsewhere the collector must not see the ticket
        // gone while it still sees us idle.
        fence(Release);
        ticket.fetch_add(1, Release)
    }

    /// To be called before the calling thread makes a thread or a process: from then on others take
    /// tickets too.
    pub(crate) fn expect_company(self) {
        if self.header.company.load(Relaxed) == 0 {
            self.header.company.store(1, Release);
        }
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
        let length = payload.len() as u64;
        self.slot.ring(head).store(length << 18 | code << 2 | CALL, Relaxed);
        self.slot.ring(head + 1).store(ticket, Relaxed);
        for (index, &word) in (head + CALL_WORDS..).zip(payload) {
            self.slot.ring(index).store(word, Relaxed);
        }
        self.publish(ticket, head + CALL_WORDS + length);
    }

    fn publish(self, ticket: u64, head: u64) {
        let control = self.slot.control();
        control.cold.0.ticket_next.store(ticket.wrapping_add(1), Relaxed);
        let outbox = &control.outbox.0;
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

#[cfg(test)]
mod tests {
    use vellum_trace::event::Event;

    use super::*;
    use crate::collect::Collector;
    use crate::shared::{ACTIVE, Mapping};

    const PAGES: u64 = 16;

    /// Two slots in use.
    fn shared() -> Mapping {
        let mapping = Mapping::private(2, PAGES).expect("memory for two slots");
        mapping.header().filter_events.store(64, Relaxed);
        for index in 0..2 {
            let slot = mapping.slot(index as usize);
            super::super::prepare(slot, u64::MAX, PAGES);
            slot.control().pid.store(index + 1, Relaxed);
            slot.control().tid.store(index + 1, Relaxed);
            slot.control().state.store(ACTIVE, Release);
        }
        mapping.header().claims.store(2, Release);
        mapping
    }

    /// The accesses that a collector makes of what is in the rings: page, count, instructions.
    fn collected(mapping: &Mapping) -> Vec<(u64, u32, u32)> {
        let mut events: Vec<Event> = Vec::new();
        Collector::new(mapping).pump(&mut events).expect("a vector takes everything");
        let access = |event| match event {
            Event::Access(access) => Some((access.page, access.count, access.instructions)),
            Event::Call(_) => None,
        };
        events.into_iter().filter_map(access).collect()
    }

    fn access(outbox: Outbox<'_>, page: u64, count: u64) {
        let references = &outbox.slot.control().hot.0.references[0];
        references.store(references.load(Relaxed) + count, Relaxed);
        outbox.access(0, page);
    }

    #[test]
    fn a_thread_that_is_alone_needs_one_word_an_access() {
        let mapping = shared();
        let outbox = Outbox { slot: mapping.slot(0), header: mapping.header() };
        let head = || mapping.slot(0).control().outbox.0.head.load(Relaxed);
        access(outbox, 5, 1);
        assert_eq!(head(), 2, "the first says its ticket");
        access(outbox, 6, 4095);
        assert_eq!(head(), 3);
        access(outbox, 7, 1 << 20);
        assert_eq!(head(), 5, "such a count needs a word of its own");
        access(outbox, 8, 1);
        assert_eq!(head(), 6);
        assert_eq!(collected(&mapping), [(5, 1, 0), (6, 4095, 0), (7, 1 << 20, 0), (8, 1, 0)]);
    }

    #[test]
    fn company_is_merged_in_the_order_of_events() {
        let mapping = shared();
        let outbox = |index| Outbox { slot: mapping.slot(index), header: mapping.header() };
        access(outbox(0), 1, 1);
        access(outbox(0), 2, 1);
        outbox(0).expect_company();
        let mut expected = vec![(1, 1, 0), (2, 1, 0)];
        for (page, owner) in (3..).zip([1, 0, 0, 1, 1, 1, 0, 1, 0, 0]) {
            access(outbox(owner), page, 2);
            expected.push((page, 2, 0));
        }
        assert_eq!(collected(&mapping), expected);
    }

    #[test]
    fn a_place_taken_early_is_kept() {
        let mapping = shared();
        let outbox = |index| Outbox { slot: mapping.slot(index), header: mapping.header() };
        outbox(0).expect_company();
        let ticket = outbox(0).reserve();
        access(outbox(1), 9, 1);
        assert_eq!(collected(&mapping), [], "what came first is still to come");
        outbox(0).call_at(ticket, &Record::Cancelled {});
        access(outbox(0), 10, 1);
        assert_eq!(collected(&mapping), [(9, 1, 0), (10, 1, 0)]);
    }
}
