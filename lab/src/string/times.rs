//! A set of times, in three levels of bitmaps: a bit above says that a word below is not zero.
//!
//! A bit a time and a 63rd more. The latest time before a limit is found in at most three steps up
//! and down, and a few words of the top level, each of which summarises 2^18 times.

/// A set of times below some count.
pub(super) struct Times {
    words: Vec<u64>,
    groups: Vec<u64>,
    tops: Vec<u64>,
}

impl Times {
    /// None yet, of the times below `count`.
    pub(super) fn new(count: usize) -> Times {
        let words = count / 64 + 1;
        let groups = words / 64 + 1;
        Times { words: vec![0; words], groups: vec![0; groups], tops: vec![0; groups / 64 + 1] }
    }

    /// Adds a time.
    #[inline]
    pub(super) fn insert(&mut self, time: usize) {
        self.words[time >> 6] |= 1 << (time & 63);
        self.groups[time >> 12] |= 1 << (time >> 6 & 63);
        self.tops[time >> 18] |= 1 << (time >> 12 & 63);
    }

    /// Takes a time out that is in the set.
    #[inline]
    pub(super) fn remove(&mut self, time: usize) {
        let word = time >> 6;
        self.words[word] &= !(1 << (time & 63));
        if self.words[word] == 0 {
            self.groups[word >> 6] &= !(1 << (word & 63));
            if self.groups[word >> 6] == 0 {
                self.tops[word >> 12] &= !(1 << (word >> 6 & 63));
            }
        }
    }

    /// A look at the word of a time, for its cache line alone; `time` may be anything.
    #[inline]
    pub(super) fn peek(&self, time: usize) -> u64 {
        self.words.get(time >> 6).copied().unwrap_or(0)
    }

    /// The latest time that is `limit` or before.
    #[inline]
    pub(super) fn latest(&self, limit: usize) -> Option<usize> {
        let word = limit >> 6;
        let here = self.words[word] & (u64::MAX >> (63 - (limit & 63)));
        if here != 0 {
            return Some(word << 6 | highest(here));
        }
        let group = word >> 6;
        let here = self.groups[group] & !(u64::MAX << (word & 63));
        let word = if here != 0 {
            group << 6 | highest(here)
        } else {
            let mut top = group >> 6;
            let mut here = self.tops[top] & !(u64::MAX << (group & 63));
            // Ends: each step goes down one of the few words that summarise 2^18 times each.
            while here == 0 {
                top = top.checked_sub(1)?;
                here = self.tops[top];
            }
            let group = top << 6 | highest(here);
            group << 6 | highest(self.groups[group])
        };
        Some(word << 6 | highest(self.words[word]))
    }
}

/// The number of the highest bit that is set.
#[inline]
const fn highest(word: u64) -> usize {
    63 - word.leading_zeros() as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use std::collections::BTreeSet;

    #[test]
    fn the_latest_is_that_of_an_ordered_set() {
        const COUNT: usize = 1 << 20;
        let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(1);
        let (mut times, mut model) = (Times::new(COUNT), BTreeSet::new());
        for step in 0..200_000 {
            let time = rng.random_range(0..COUNT);
            if step % 3 == 0 {
                times.insert(time);
                model.insert(time);
            }
            let expected = model.range(..=time).next_back().copied();
            assert_eq!(times.latest(time), expected, "step {step}");
            if let Some(time) = expected.filter(|_| step % 2 == 0) {
                times.remove(time);
                model.remove(&time);
            }
        }
    }
}
