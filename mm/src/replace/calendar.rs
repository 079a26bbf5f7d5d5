//! A calendar of frames by key, for keys that only grow: the days ahead unsorted, today in a heap.
//!
//! Who needs the lowest key only now and then, while keys grow all the time, need not sort what is
//! far. Keys are times; a *day* is a stretch of them, and the frames of a day ahead wait in a ring. A day
//! is opened when all before it are over: a frame whose key has grown meanwhile moves on to the day
//! of its true key, and the others go into a heap, which is so small that it stays in the nearest
//! cache. Most frames move from day to day, two or three links at a time, and never see the heap.
//!
//! ```text
//!     today        days ahead                              ┆ beyond: with the last of them
//!     heap        │ f3 f9 │      │ f0 │ f5 f2 f8 │  …  │ f1
//!             horizon
//! ```
//!
//! Invariant: the key under which a frame was filed is at most its true one, and those filed ahead
//! are not below the horizon. Otherwise the lowest of the heap could be taken while a lower one waits.
//! A frame may be filed too early, which costs another move; so one that is beyond the last day waits
//! there.
//!
//! 22 bytes a frame beside its links, made at construction. Days are a sixteenth to an eighth as
//! many keys as there are frames, so that passing them costs less than a step a key.

use alloc::boxed::Box;
use alloc::vec;

use super::heap::Heap;
use crate::addr::Frame;
use crate::ring::Rings;

/// Days ahead that are told apart.
const DAYS: usize = 256;

/// Frames, each with a key. Of equal keys the lower frame is first.
///
/// After R. Brown, "Calendar Queues: A Fast O(1) Priority Queue Implementation for the Simulation
/// Event Set Problem", Communications of the ACM 31(10), 1988.
pub(super) struct Calendar {
    today: Heap,                 // those filed below the horizon
    days: [Option<Frame>; DAYS], // rings, by number of the day modulo DAYS
    homes: Box<[u16]>,           // by index: the place of its day + 1, or 0
    horizon: u64,                // number of the first day ahead
    shift: u32,                  // log2 of the keys of a day
    ahead: usize,                // frames in the days ahead
    first: Frame,
}

impl Calendar {
    /// An empty one for the frames `first..first + count`.
    pub(super) fn new(first: Frame, count: usize) -> Calendar {
        Calendar {
            today: Heap::new(count),
            days: [None; DAYS],
            homes: vec![0; count].into_boxed_slice(),
            horizon: 0,
            shift: (count / 8).max(1).ilog2(),
            ahead: 0,
            first,
        }
    }

    /// Whether it has `frame`.
    #[inline]
    pub(super) fn contains(&self, frame: Frame) -> bool {
        let index = frame.0 - self.first.0;
        self.homes[index as usize] != 0 || self.today.contains(index)
    }

    /// Adds `frame`, which it does not have, and which is in no ring.
    #[inline]
    pub(super) fn insert(&mut self, rings: &mut Rings, frame: Frame, key: u64) {
        let index = frame.0 - self.first.0;
        let day = key >> self.shift;
        if self.ahead == 0 {
            self.horizon = self.horizon.max(day);
        }
        if day < self.horizon {
            self.today.insert(index, key);
            return;
        }
        let place = day.min(self.horizon + DAYS as u64 - 1) as usize % DAYS;
        rings.insert_before(&mut self.days[place], frame);
        self.homes[index as usize] = place as u16 + 1;
        self.ahead += 1;
    }

    /// Takes `frame` out, which it has.
    #[inline]
    pub(super) fn remove(&mut self, rings: &mut Rings, frame: Frame) {
        let index = frame.0 - self.first.0;
        let home = core::mem::take(&mut self.homes[index as usize]);
        if let Some(place) = usize::from(home).checked_sub(1) {
            rings.remove(&mut self.days[place], frame);
            self.ahead -= 1;
        } else {
            self.today.remove(index);
        }
    }

    /// The frame with the lowest key. `key_of` tells the true key of an index.
    #[inline]
    pub(super) fn first(
        &mut self,
        rings: &mut Rings,
        key_of: impl Fn(usize) -> u64,
    ) -> Option<Frame> {
        // Ends: each round returns, files one frame under a higher key, or opens a day before the
        // one of the highest key.
        loop {
            let Some((filed, index)) = self.today.top() else {
                if self.ahead == 0 {
                    return None;
                }
                self.open_day(rings, &key_of);
                continue;
            };
            let key = key_of(index as usize);
            debug_assert!(filed <= key, "a key falls from {filed} to {key}");
            let frame = Frame(self.first.0 + index);
            if key == filed {
                return Some(frame);
            }
            if key >> self.shift < self.horizon {
                self.today.raise_top(key);
            } else {
                self.today.remove(index);
                self.insert(rings, frame, key);
            }
        }
    }

    /// Files the frames of the first day ahead anew: today, or where their keys have gone.
    fn open_day(&mut self, rings: &mut Rings, key_of: &impl Fn(usize) -> u64) {
        let mut waiting = self.days[self.horizon as usize % DAYS].take();
        self.horizon += 1;
        // Ends: the ring is nobody's any more, so that none comes back to it.
        while let Some(frame) = waiting {
            let index = (frame.0 - self.first.0) as usize;
            rings.remove(&mut waiting, frame);
            self.homes[index] = 0;
            self.ahead -= 1;
            self.insert(rings, frame, key_of(index));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::chance::SplitMix;
    use super::*;

    /// A calendar beside the plain list of its keys.
    struct Both {
        rings: Rings,
        calendar: Calendar,
        keys: [Option<u64>; 20],
    }

    impl Both {
        fn new() -> Both {
            let first = Frame(4);
            let (rings, calendar) = (Rings::new(first, 20), Calendar::new(first, 20));
            Both { rings, calendar, keys: [None; 20] }
        }

        fn insert(&mut self, index: usize, key: u64) {
            self.keys[index] = Some(key);
            self.calendar.insert(&mut self.rings, Frame(index as u32 + 4), key);
        }

        fn remove(&mut self, index: usize) {
            self.keys[index] = None;
            self.calendar.remove(&mut self.rings, Frame(index as u32 + 4));
        }

        fn check(&mut self, hint: u64) {
            let keys = &self.keys;
            let key_of = |index: usize| keys[index].expect("only those that it has are asked for");
            let lowest = (0..20).filter_map(|at| Some((keys[at]?, at))).min().map(|least| least.1);
            let first = self.calendar.first(&mut self.rings, key_of);
            assert_eq!(first.map(|frame| frame.0 as usize - 4), lowest, "seed {hint}");
            for (at, key) in self.keys.iter().enumerate() {
                assert_eq!(self.calendar.contains(Frame(at as u32 + 4)), key.is_some());
            }
        }
    }

    #[test]
    fn the_lowest_is_first_while_keys_grow() {
        for seed in 0..300 {
            let mut chance = SplitMix::new(seed);
            let mut both = Both::new();
            let mut now = 0;
            // Some strings stay within the days ahead, others leap over all of them.
            let leap = 1 << chance.below(12);
            for _ in 0..600 {
                now += u64::from(chance.below(leap));
                let index = chance.below(20) as usize;
                match both.keys[index] {
                    Some(_) if chance.below(6) == 0 => both.remove(index),
                    Some(key) => both.keys[index] = Some(key.max(now)),
                    // A key may be long past.
                    None => both.insert(index, now / u64::from(1 + chance.below(3))),
                }
                if chance.below(4) == 0 {
                    both.check(seed);
                }
            }
        }
    }

    #[test]
    fn a_key_beyond_all_days_waits_its_turn() {
        let mut both = Both::new();
        both.insert(0, 3);
        both.insert(1, 1_000_000);
        both.insert(2, 999_999);
        for lowest in [0, 2, 1] {
            both.check(0);
            both.remove(lowest);
        }
        assert_eq!(both.calendar.first(&mut both.rings, |_| 0), None);
    }
}
