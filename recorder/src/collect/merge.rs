//! Brings the rings of all threads into one order: a merge by ticket.
//!
//! Tickets are dense: each number was given out once. So there is never a choice, only a search for
//! the ring that holds the next number, and a question if none does: is it late, or lost? A thread
//! marks itself busy before it takes a ticket, and idle after its event is in the ring;
//! [`Merge::skip`] is for a caller who has found every thread idle or dead.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Rings, by number.
pub(crate) trait Rings {
    /// The ticket of the first event in ring `index`, if it holds one.
    fn peek(&mut self, index: usize) -> Option<u64>;
}

/// The state of a merge.
#[derive(Default)]
pub(crate) struct Merge {
    next: u64,
    /// Rings known to hold an event, by its ticket.
    waiting: BinaryHeap<Reverse<(u64, usize)>>,
    /// Rings that were empty when last looked at.
    empty: Vec<usize>,
}

impl Merge {
    /// The ticket of the next event.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Adds ring `index`: a new one, or the one that [`find`](Self::find) gave out.
    pub(crate) fn add(&mut self, index: usize, rings: &mut impl Rings) {
        match rings.peek(index) {
            Some(ticket) => self.waiting.push(Reverse((ticket, index))),
            None => self.empty.push(index),
        }
    }

    /// The ring that holds the next event, which leaves the merge; `None` if none does yet.
    pub(crate) fn find(&mut self, rings: &mut impl Rings) -> Option<usize> {
        loop {
            if let Some(&Reverse((ticket, index))) = self.waiting.peek()
                // A ticket given up too early comes late, but it comes.
                && ticket <= self.next
            {
                self.waiting.pop();
                return Some(index);
            }
            let before = self.empty.len();
            let waiting = &mut self.waiting;
            self.empty.retain(|&index| match rings.peek(index) {
                Some(ticket) => {
                    waiting.push(Reverse((ticket, index)));
                    false
                }
                None => true,
            });
            if self.empty.len() == before {
                return None;
            }
        }
    }

    /// Notes that the event with `ticket` was taken from its ring.
    #[inline]
    pub(crate) fn took(&mut self, ticket: u64) {
        self.advance(ticket.wrapping_add(1));
    }

    /// Notes that all events before `next` were taken from their rings.
    #[inline]
    pub(crate) fn advance(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Gives up the next ticket, and all up to the first that some ring holds, but none from `end`
    /// on; how many.
    pub(crate) fn skip(&mut self, end: u64) -> u64 {
        let first = self.waiting.peek().map_or(end, |Reverse((ticket, _))| *ticket);
        let skipped = first.min(end).saturating_sub(self.next);
        self.next += skipped;
        skipped
    }

    /// The rings that were empty when last looked at.
    pub(crate) fn empty(&self) -> &[usize] {
        &self.empty
    }

    /// Removes a ring that is empty.
    pub(crate) fn remove(&mut self, index: usize) {
        self.empty.retain(|&other| other != index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    struct Queues(Vec<VecDeque<u64>>);

    impl Rings for Queues {
        fn peek(&mut self, index: usize) -> Option<u64> {
            self.0[index].front().copied()
        }
    }

    fn queues(contents: &[&[u64]]) -> (Merge, Queues) {
        let mut queues =
            Queues(contents.iter().map(|list| list.iter().copied().collect()).collect());
        let mut merge = Merge::default();
        for index in 0..contents.len() {
            merge.add(index, &mut queues);
        }
        (merge, queues)
    }

    /// Takes everything that is in order.
    fn drain(merge: &mut Merge, queues: &mut Queues) -> Vec<u64> {
        let mut taken = Vec::new();
        while let Some(index) = merge.find(queues) {
            let ticket = queues.0[index].pop_front().expect("the merge saw it");
            merge.took(ticket);
            taken.push(ticket);
            merge.add(index, queues);
        }
        taken
    }

    #[test]
    fn rings_are_merged_by_ticket() {
        let (mut merge, mut queues) = queues(&[&[0, 3, 4], &[1, 5], &[], &[2, 6]]);
        assert_eq!(drain(&mut merge, &mut queues), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_late_ticket_holds_back_the_others() {
        let (mut merge, mut queues) = queues(&[&[0, 2, 3], &[]]);
        assert_eq!(drain(&mut merge, &mut queues), [0]);
        queues.0[1].push_back(1);
        assert_eq!(drain(&mut merge, &mut queues), [1, 2, 3]);
    }

    #[test]
    fn lost_tickets_are_skipped_up_to_the_next_event() {
        let (mut merge, mut queues) = queues(&[&[0, 4], &[7]]);
        assert_eq!(drain(&mut merge, &mut queues), [0]);
        assert_eq!(merge.skip(9), 3);
        assert_eq!(drain(&mut merge, &mut queues), [4]);
        assert_eq!(merge.skip(9), 2);
        assert_eq!(drain(&mut merge, &mut queues), [7]);
        assert_eq!(merge.skip(9), 1, "with every ring empty, up to the end");
        assert_eq!(merge.skip(9), 0);
    }

    #[test]
    fn a_ticket_that_was_given_up_too_early_is_not_dropped() {
        let (mut merge, mut queues) = queues(&[&[1], &[]]);
        assert_eq!(merge.skip(2), 1);
        queues.0[1].push_back(0);
        assert_eq!(drain(&mut merge, &mut queues), [1, 0]);
        assert_eq!(merge.next(), 2);
    }
}
