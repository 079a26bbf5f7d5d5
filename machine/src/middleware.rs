//! Machines that wrap a machine: one that fails, one that counts, one that remembers.
//!
//! ```text
//!   memory manager ──> Logged ──> Faulty ──> Counted ──> Sim        in any order, any number
//! ```
//!
//! The memory manager takes its machine as a value, so whatever implements the same traits can
//! stand between. That is how a test makes the N-th allocation fail without the allocator knowing,
//! and how a scenario gets its log.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use vellum_mm::addr::{Frame, Pages};
use vellum_mm::event::Event;
use vellum_mm::machine::{Machine, Memory, Operation, SpaceId, Table, Tlb};

/// The access to the machine inside and, if asked for, the methods of `Memory` and `Tlb` as they
/// are.
macro_rules! forward {
    ($name:ident) => {
        impl<M> $name<M> {
            /// The machine that it wraps.
            pub fn machine(&self) -> &M {
                &self.machine
            }

            /// Unwraps the machine.
            pub fn into_machine(self) -> M {
                self.machine
            }
        }
    };
    ($name:ident, Memory, Tlb) => {
        forward!($name);

        impl<M: Memory> Memory for $name<M> {
            #[inline]
            fn table(&self, frame: Frame) -> &Table {
                self.machine.table(frame)
            }

            #[inline]
            fn zero(&self, frame: Frame) {
                self.machine.zero(frame);
            }

            #[inline]
            fn copy(&self, from: Frame, to: Frame) {
                self.machine.copy(from, to);
            }
        }

        impl<M: Tlb> Tlb for $name<M> {
            #[inline]
            fn invalidate(&self, space: SpaceId, pages: Pages) {
                self.machine.invalidate(space, pages);
            }

            #[inline]
            fn invalidate_space(&self, space: SpaceId) {
                self.machine.invalidate_space(space);
            }
        }
    };
}

/// Refuses one operation, or all from one on.
///
/// A test runs its work with operation 0 refused, then with operation 1, and so on until a run gets
/// by without meeting the refusal; after each run, an error must have come back and nothing may be
/// lost. (The way `SQLite` tests that it survives being out of memory.)
#[derive(Debug)]
pub struct Faulty<M> {
    machine: M,
    first: u64,
    last: u64,
    asked: AtomicU64,
}

forward!(Faulty, Memory, Tlb);

impl<M> Faulty<M> {
    /// Refuses operation number `n`, counted from 0, and permits all others.
    pub fn once(machine: M, n: u64) -> Faulty<M> {
        Faulty { machine, first: n, last: n, asked: AtomicU64::new(0) }
    }

    /// Refuses operation number `n`, counted from 0, and all that follow.
    pub fn from(machine: M, n: u64) -> Faulty<M> {
        Faulty { machine, first: n, last: u64::MAX, asked: AtomicU64::new(0) }
    }

    /// Number of operations that were asked for.
    pub fn asked(&self) -> u64 {
        self.asked.load(Relaxed)
    }

    /// Whether an operation was refused: if not, `n` was beyond the end and the loop is done.
    pub fn has_refused(&self) -> bool {
        self.asked() > self.first
    }
}

impl<M: Machine> Machine for Faulty<M> {
    fn happened(&self, event: Event) {
        self.machine.happened(event);
    }

    fn permits(&self, operation: Operation) -> bool {
        let number = self.asked.fetch_add(1, Relaxed);
        let is_refused = self.first <= number && number <= self.last;
        !is_refused && self.machine.permits(operation)
    }
}

/// How often each operation of a machine was used.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Uses {
    /// Frames borrowed as tables.
    pub tables: u64,
    /// Frames zeroed.
    pub zeros: u64,
    /// Frames copied.
    pub copies: u64,
    /// Ranges invalidated, empty ones included.
    pub invalidations: u64,
    /// Pages in those ranges.
    pub pages_invalidated: u64,
    /// Address spaces invalidated as a whole.
    pub spaces_invalidated: u64,
    /// Frame allocations asked for.
    pub allocations: u64,
    /// I/O requests asked for.
    pub requests: u64,
    /// Events.
    pub events: u64,
}

/// Counts every operation.
#[derive(Debug)]
pub struct Counted<M> {
    machine: M,
    counters: Counters,
}

/// [`Uses`] in the making.
#[derive(Default, Debug)]
struct Counters {
    tables: AtomicU64,
    zeros: AtomicU64,
    copies: AtomicU64,
    invalidations: AtomicU64,
    pages_invalidated: AtomicU64,
    spaces_invalidated: AtomicU64,
    allocations: AtomicU64,
    requests: AtomicU64,
    events: AtomicU64,
}

forward!(Counted);

impl<M> Counted<M> {
    /// Counts from 0.
    pub fn new(machine: M) -> Counted<M> {
        Counted { machine, counters: Counters::default() }
    }

    /// The counts so far.
    pub fn uses(&self) -> Uses {
        let counters = &self.counters;
        Uses {
            tables: counters.tables.load(Relaxed),
            zeros: counters.zeros.load(Relaxed),
            copies: counters.copies.load(Relaxed),
            invalidations: counters.invalidations.load(Relaxed),
            pages_invalidated: counters.pages_invalidated.load(Relaxed),
            spaces_invalidated: counters.spaces_invalidated.load(Relaxed),
            allocations: counters.allocations.load(Relaxed),
            requests: counters.requests.load(Relaxed),
            events: counters.events.load(Relaxed),
        }
    }
}

impl<M: Memory> Memory for Counted<M> {
    fn table(&self, frame: Frame) -> &Table {
        self.counters.tables.fetch_add(1, Relaxed);
        self.machine.table(frame)
    }

    fn zero(&self, frame: Frame) {
        self.counters.zeros.fetch_add(1, Relaxed);
        self.machine.zero(frame);
    }

    fn copy(&self, from: Frame, to: Frame) {
        self.counters.copies.fetch_add(1, Relaxed);
        self.machine.copy(from, to);
    }
}

impl<M: Tlb> Tlb for Counted<M> {
    fn invalidate(&self, space: SpaceId, pages: Pages) {
        self.counters.invalidations.fetch_add(1, Relaxed);
        self.counters.pages_invalidated.fetch_add(pages.count(), Relaxed);
        self.machine.invalidate(space, pages);
    }

    fn invalidate_space(&self, space: SpaceId) {
        self.counters.spaces_invalidated.fetch_add(1, Relaxed);
        self.machine.invalidate_space(space);
    }
}

impl<M: Machine> Machine for Counted<M> {
    fn happened(&self, event: Event) {
        self.counters.events.fetch_add(1, Relaxed);
        self.machine.happened(event);
    }

    fn permits(&self, operation: Operation) -> bool {
        let counter = match operation {
            Operation::AllocFrame => &self.counters.allocations,
            Operation::Io => &self.counters.requests,
        };
        counter.fetch_add(1, Relaxed);
        self.machine.permits(operation)
    }
}

/// One line of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record {
    /// The memory manager reported an event.
    Event(Event),
    /// A frame was zeroed.
    Zero(Frame),
    /// The first frame was copied over the second.
    Copy(Frame, Frame),
    /// Pages of a space were invalidated.
    Invalidate(SpaceId, Pages),
    /// A whole space was invalidated.
    InvalidateSpace(SpaceId),
    /// An operation was refused by the machine that is wrapped.
    Refused(Operation),
}

/// Remembers what happened, in order.
///
/// Borrowing a table is not remembered: it changes nothing by itself.
#[derive(Debug)]
pub struct Logged<M> {
    machine: M,
    records: Mutex<Vec<Record>>,
}

forward!(Logged);

impl<M> Logged<M> {
    /// Starts with an empty log.
    pub fn new(machine: M) -> Logged<M> {
        Logged { machine, records: Mutex::default() }
    }

    /// Takes the log so far; the next one starts empty.
    pub fn take(&self) -> Vec<Record> {
        std::mem::take(&mut *self.records.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the log so far, and of it the events.
    pub fn take_events(&self) -> Vec<Event> {
        let event = |record| match record {
            Record::Event(event) => Some(event),
            _ => None,
        };
        self.take().into_iter().filter_map(event).collect()
    }

    fn log(&self, record: Record) {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).push(record);
    }
}

impl<M: Memory> Memory for Logged<M> {
    fn table(&self, frame: Frame) -> &Table {
        self.machine.table(frame)
    }

    fn zero(&self, frame: Frame) {
        self.machine.zero(frame);
        self.log(Record::Zero(frame));
    }

    fn copy(&self, from: Frame, to: Frame) {
        self.machine.copy(from, to);
        self.log(Record::Copy(from, to));
    }
}

impl<M: Tlb> Tlb for Logged<M> {
    fn invalidate(&self, space: SpaceId, pages: Pages) {
        self.machine.invalidate(space, pages);
        self.log(Record::Invalidate(space, pages));
    }

    fn invalidate_space(&self, space: SpaceId) {
        self.machine.invalidate_space(space);
        self.log(Record::InvalidateSpace(space));
    }
}

impl<M: Machine> Machine for Logged<M> {
    fn happened(&self, event: Event) {
        self.machine.happened(event);
        self.log(Record::Event(event));
    }

    fn permits(&self, operation: Operation) -> bool {
        let is_permitted = self.machine.permits(operation);
        if !is_permitted {
            self.log(Record::Refused(operation));
        }
        is_permitted
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use vellum_mm::addr::Page;

    use super::*;
    use crate::profile::Profile;
    use crate::ram::Ram;
    use crate::sim::Sim;

    fn sim() -> Sim {
        Sim::new(&Profile::default(), 1, Ram::with_contents(16).expect("a small machine fits"))
    }

    /// Does one of everything that a machine can be asked for.
    fn use_once(machine: &impl Machine) {
        machine.table(Frame(1))[3].store(5, Relaxed);
        machine.zero(Frame(2));
        machine.copy(Frame(2), Frame(3));
        machine.invalidate(SpaceId(1), Pages::at(Page(4), 2));
        machine.invalidate_space(SpaceId(1));
        machine.happened(Event::Free { frame: Frame(3) });
        machine.permits(Operation::AllocFrame);
        machine.permits(Operation::Io);
    }

    #[test]
    fn each_operation_is_refused_once_until_none_is_left() {
        let mut runs = 0;
        let outcomes: Vec<_> = loop {
            let faulty = Faulty::once(sim(), runs);
            let outcomes = (0..3).map(|_| faulty.permits(Operation::AllocFrame)).collect();
            if !faulty.has_refused() {
                break outcomes;
            }
            assert_eq!(outcomes, (0..3).map(|i| i != runs).collect::<Vec<_>>());
            runs += 1;
        };
        assert_eq!((runs, outcomes), (3, vec![true; 3]));
    }

    #[test]
    fn a_machine_that_has_failed_for_good_refuses_everything() {
        let faulty = Faulty::from(sim(), 1);
        let outcomes = [(); 4].map(|()| faulty.permits(Operation::Io));
        assert_eq!((outcomes, faulty.asked()), ([true, false, false, false], 4));
    }

    #[test]
    fn every_operation_is_counted_and_reaches_the_machine() {
        let counted = Counted::new(sim());
        use_once(&counted);
        let one = Uses {
            tables: 1,
            zeros: 1,
            copies: 1,
            invalidations: 1,
            pages_invalidated: 2,
            spaces_invalidated: 1,
            allocations: 1,
            requests: 1,
            events: 1,
        };
        assert_eq!(counted.uses(), one);
        assert_eq!(counted.machine().table(Frame(1))[3].load(Relaxed), 5);
    }

    #[test]
    fn the_log_has_everything_in_order() {
        let logged = Logged::new(sim());
        use_once(&logged);
        let free = Event::Free { frame: Frame(3) };
        let log = [
            Record::Zero(Frame(2)),
            Record::Copy(Frame(2), Frame(3)),
            Record::Invalidate(SpaceId(1), Pages::at(Page(4), 2)),
            Record::InvalidateSpace(SpaceId(1)),
            Record::Event(free),
        ];
        assert_eq!(logged.take(), log);
        assert_eq!(logged.take(), []);
    }

    #[test]
    fn middleware_wraps_middleware() {
        let machine = Logged::new(Counted::new(Faulty::once(sim(), 1)));
        use_once(&machine);
        assert_eq!(machine.machine().uses().zeros, 1);
        assert_eq!(machine.take().last(), Some(&Record::Refused(Operation::Io)));
        assert_eq!(machine.take_events(), []);
        assert_eq!(machine.into_machine().into_machine().asked(), 2);
    }
}
