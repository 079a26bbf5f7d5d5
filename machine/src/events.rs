//! Virtual time: a queue of things to come.
//!
//! ```text
//!   now ────●──────●●────────●──────>        pop() takes the earliest and makes its time `now`;
//!           3      7,7       12               of two at the same time, the one pushed first
//! ```
//!
//! Ties are broken by the order of pushing, so a run depends on nothing but its input.
//!
//! The queue is a list in order. What is pushed is nearly always among the latest, as disks complete
//! in the order of submission, and so its place is found from the end in a step or two; a heap would
//! take the logarithm of its length both ways.

use std::collections::VecDeque;

use vellum_mm::addr::Nanos;

/// A queue of events of type `T`, by time, and the clock that they drive.
#[derive(Clone, Debug)]
pub struct Events<T> {
    coming: VecDeque<(Nanos, T)>, // in the order in which they will happen
    now: Nanos,
}

impl<T> Events<T> {
    /// An empty queue at time 0.
    pub fn new() -> Events<T> {
        Events { coming: VecDeque::new(), now: 0 }
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
        let before = self.coming.iter().rposition(|&(other, _)| other <= at);
        let place = before.map_or(0, |before| before + 1);
        if place == self.coming.len() {
            self.coming.push_back((at, event));
        } else {
            self.coming.insert(place, (at, event));
        }
    }

    /// Takes the next event and advances the clock to it; `None` if nothing is to come.
    pub fn pop(&mut self) -> Option<(Nanos, T)> {
        let (at, event) = self.coming.pop_front()?;
        self.now = at;
        Some((at, event))
    }

    /// When the next event happens.
    #[inline]
    pub fn next_at(&self) -> Option<Nanos> {
        self.coming.front().map(|&(at, _)| at)
    }

    /// Number of events to come.
    pub fn len(&self) -> usize {
        self.coming.len()
    }

    /// Whether nothing is to come.
    pub fn is_empty(&self) -> bool {
        self.coming.is_empty()
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
