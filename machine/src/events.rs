//! Virtual time: a queue of things to come.
//!
//! ```text
//!   now ────●──────●●────────●──────>        pop() takes the earliest and makes its time `now`;
//!           3      7,7       12               of two at the same time, the one pushed first
//! ```
//!
//! Ties are broken by the order of pushing, so a run depends on nothing but its input.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use vellum_mm::addr::Nanos;

/// A queue of events of type `T`, by time, and the clock that they drive.
#[derive(Clone, Debug)]
pub struct Events<T> {
    heap: BinaryHeap<Reverse<Entry<T>>>,
    pushed: u64,
    now: Nanos,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    at: Nanos,
    number: u64,
    event: T,
}

impl<T> Entry<T> {
    fn key(&self) -> (Nanos, u64) {
        (self.at, self.number)
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Entry<T>) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Entry<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Entry<T>) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl<T> Events<T> {
    /// An empty queue at time 0.
    pub fn new() -> Events<T> {
        Events { heap: BinaryHeap::new(), pushed: 0, now: 0 }
    }

    /// The time of the last event popped.
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// Lets `event` happen at `at`, after all others pushed for the same time.
    ///
    /// # Panics
    /// If `at` is in the past: what has happened cannot depend on it any more.
    pub fn push(&mut self, at: Nanos, event: T) {
        assert!(at >= self.now, "an event for {at} ns is pushed at {} ns", self.now);
        self.heap.push(Reverse(Entry { at, number: self.pushed, event }));
        self.pushed += 1;
    }

    /// Takes the next event and advances the clock to it; `None` if nothing is to come.
    pub fn pop(&mut self) -> Option<(Nanos, T)> {
        let Reverse(entry) = self.heap.pop()?;
        self.now = entry.at;
        Some((entry.at, entry.event))
    }

    /// When the next event happens.
    pub fn next_at(&self) -> Option<Nanos> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    /// Number of events to come.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing is to come.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<T> Default for Events<T> {
    fn default() -> Events<T> {
        Events::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_sets_the_clock() {
        let mut events = Events::new();
        for at in [30, 10, 20] {
            events.push(at, at);
        }
        assert_eq!((events.next_at(), events.now()), (Some(10), 0));
        assert_eq!(events.pop(), Some((10, 10)));
        events.push(15, 15);
        let rest: Vec<_> = std::iter::from_fn(|| events.pop()).map(|(at, _)| at).collect();
        assert_eq!(rest, [15, 20, 30]);
        assert_eq!((events.now(), events.len(), events.is_empty()), (30, 0, true));
    }

    #[test]
    fn events_at_the_same_time_keep_their_order() {
        let mut events = Events::new();
        (0..1000).for_each(|i| events.push(i % 3, i));
        let order: Vec<_> = std::iter::from_fn(|| events.pop()).collect();
        assert!(order.is_sorted(), "by time, then by order of pushing");
        assert_eq!(order.len(), 1000);
    }

    #[test]
    #[should_panic(expected = "pushed at 10 ns")]
    fn the_past_is_over() {
        let mut events = Events::new();
        events.push(10, ());
        events.pop();
        events.push(9, ());
    }
}
