//! Chance for the policies that play: the same numbers for the same seed.

/// `SplitMix64`: a counter, stepped by the golden ratio and scrambled.
///
/// G. L. Steele, D. Lea, C. H. Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA
/// 2014; the constants are S. Vigna's of 2015. Eight bytes of state suffice for a policy, any seed
/// is good.
pub(super) struct SplitMix(u64);

impl SplitMix {
    /// Numbers that are the same for the same seed.
    pub(super) fn new(seed: u64) -> SplitMix {
        SplitMix(seed)
    }

    /// Any number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `limit`: the upper half of a product instead of a remainder. One in 2^32
    /// draws is biased at worst, which no measurement of page faults can see.
    pub(super) fn below(&mut self, limit: u32) -> u32 {
        (((self.next() >> 32) * u64::from(limit)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_published_numbers() {
        // The first outputs for seed 1234567, as in the test vectors that circulate with the
        // algorithm.
        let mut generator = SplitMix::new(1_234_567);
        assert_eq!(generator.next(), 6_457_827_717_110_365_317);
        assert_eq!(generator.next(), 3_203_168_211_198_807_973);
    }
}
