//! The generator behind Python's `random`, so that a homework's seed gives the homework's string.
//!
//! Everything else in Vellum draws from smaller generators. This one is here because students are
//! given exercises as "seed 0, ten references", and the same seed must mean the same exercise.

const SIZE: usize = 624;
const MIDDLE: usize = 397;

/// The Mersenne Twister MT19937, seeded by an array of one or two words.
///
/// M. Matsumoto, T. Nishimura, "Mersenne Twister: A 623-Dimensionally Equidistributed Uniform
/// Pseudorandom Number Generator", ACM TOMACS 8(1), 1998; the seeding is theirs of 2002.
#[derive(Clone, Debug)]
pub(super) struct Twister {
    state: Box<[u32; SIZE]>,
    at: usize,
}

impl Twister {
    /// The state that Python makes of a whole number.
    pub(super) fn new(seed: u64) -> Twister {
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        if high == 0 { Twister::of_words(&[low]) } else { Twister::of_words(&[low, high]) }
    }

    fn of_words(words: &[u32]) -> Twister {
        let mut state = Box::new([0_u32; SIZE]);
        state[0] = 19_650_218;
        for at in 1..SIZE {
            state[at] = scramble(state[at - 1]).wrapping_mul(1_812_433_253).wrapping_add(at as u32);
        }
        // One pass over the state (longer keys would need more), then one less a word.
        let mut at = 1;
        for turn in 0..SIZE {
            let word = turn % words.len();
            let mixed = scramble(state[at - 1]).wrapping_mul(1_664_525);
            state[at] = (state[at] ^ mixed).wrapping_add(words[word]).wrapping_add(word as u32);
            at = step(&mut state, at);
        }
        for _ in 1..SIZE {
            let mixed = scramble(state[at - 1]).wrapping_mul(1_566_083_941);
            state[at] = (state[at] ^ mixed).wrapping_sub(at as u32);
            at = step(&mut state, at);
        }
        state[0] = 1 << 31;
        Twister { state, at: SIZE }
    }

    /// The next 32 bits.
    fn word(&mut self) -> u32 {
        if self.at == SIZE {
            self.turn();
        }
        let mut word = self.state[self.at];
        self.at += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// Makes the next 624 words.
    fn turn(&mut self) {
        for at in 0..SIZE {
            let upper = self.state[at] & 0x8000_0000;
            let joined = upper | (self.state[(at + 1) % SIZE] & 0x7fff_ffff);
            let odd = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[at] = self.state[(at + MIDDLE) % SIZE] ^ (joined >> 1) ^ odd;
        }
        self.at = 0;
    }

    /// A number from 0 up to, not including, 1, in steps of 2^-53.
    pub(super) fn unit(&mut self) -> f64 {
        let (high, low) = (self.word() >> 5, self.word() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// A whole number below `limit`, as the product of the limit and [`unit`](Self::unit).
    #[allow(clippy::cast_sign_loss)] // both factors are positive
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        (limit as f64 * self.unit()) as u64
    }
}

const fn scramble(word: u32) -> u32 {
    word ^ (word >> 30)
}

/// The next place to mix; the last word stands before the first.
fn step(state: &mut [u32; SIZE], at: usize) -> usize {
    if at + 1 < SIZE {
        return at + 1;
    }
    state[0] = state[SIZE - 1];
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_the_published_ones() {
        // mt19937ar.out, which its authors publish for this key of four words.
        let mut twister = Twister::of_words(&[0x123, 0x234, 0x345, 0x456]);
        let words = [(); 5].map(|()| twister.word());
        assert_eq!(words, [1_067_595_299, 955_945_823, 477_289_528, 4_107_218_783, 4_228_976_476]);
        let thousandth = (5..1000).map(|_| twister.word()).last();
        assert_eq!(thousandth, Some(3_460_025_646));
    }

    #[test]
    fn a_seed_gives_the_numbers_that_python_prints() {
        let mut zero = Twister::new(0);
        assert!((zero.unit() - 0.844_421_851_525_048_1).abs() < 1e-16);
        assert!((zero.unit() - 0.757_954_402_940_302_5).abs() < 1e-16);
        let pages: Vec<u64> = [(); 8].map(|()| zero.below(10)).into();
        assert_eq!(pages, [4, 2, 5, 4, 7, 3, 4, 5]);
    }
}
