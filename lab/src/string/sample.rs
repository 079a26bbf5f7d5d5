//! Samples: a curve from a part of the pages.
//!
//! Of all pages, those whose hash is small are kept, with all their references; the rest is dropped. A
//! memory of *n* frames then behaves as one of *n · rate* frames on the sample: SHARDS. (C. A.
//! Waldspurger et al., "Efficient MRC Construction with SHARDS", FAST 2015; for policies other than
//! LRU: C. A. Waldspurger et al., "Cache Modeling and Optimization using Miniature Simulations",
//! USENIX ATC 2017.) A *fixed size* is the rate that keeps so many pages.
//!
//! Chance decides whether the few hottest pages are in the sample, and they make most of the
//! references; so the number of references is corrected to what was expected (the paper's
//! SHARDS-adj), and the error is estimated: the sample is made of [`PARTS`] parts that know nothing of each other.

use super::{Item, RefString};

/// The number of a page that is not in the sample.
const DROPPED: u32 = u32::MAX;
/// Parts of a sample, from whose spread its error is estimated.
pub const PARTS: u32 = 8;

/// A sample of a string.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The references to the pages that were kept.
    pub string: RefString,
    /// The share of pages that were to be kept.
    pub rate: f64,
    /// References of the whole string that the sample stands for, over its own.
    pub scale: f64,
}

impl Sample {
    /// Of `string`, about `rate` of the pages; `part` is `None` for the whole sample, or one of
    /// [`PARTS`] disjoint parts of it, with a rate of a [`PARTS`]th.
    pub fn new(string: &RefString, rate: f64, seed: u64, part: Option<u32>) -> Sample {
        #[allow(clippy::cast_sign_loss)] // rates are between 0 and 1
        let threshold = (rate * (1_u64 << 32) as f64) as u64;
        let range = match part {
            None => 0..threshold,
            Some(part) => {
                let width = threshold / u64::from(PARTS);
                width * u64::from(part)..width * u64::from(part + 1)
            }
        };
        let mut kept = RefString::new();
        let mut number = vec![DROPPED; string.pages() as usize];
        let mut met = vec![false; string.pages() as usize];
        string.for_each(|item| match item {
            Item::Reference(page, write) => {
                let at = page as usize;
                if !met[at] {
                    met[at] = true;
                    if range.contains(&hash(u64::from(page), seed)) {
                        number[at] = kept.pages();
                    }
                }
                if number[at] != DROPPED {
                    kept.push(number[at], write);
                }
            }
            Item::Free(page) if number[page as usize] != DROPPED => {
                kept.push_free(number[page as usize]);
            }
            Item::Free(_) => {}
        });
        let rate = (range.end - range.start) as f64 / (1_u64 << 32) as f64;
        Sample { string: kept, rate, scale: 1.0 / rate }
    }
}

/// 32 bits that look like chance.
fn hash(page: u64, seed: u64) -> u64 {
    // The finaliser of SplitMix64 (G. L. Steele et al., "Fast Splittable Pseudorandom Number
    // Generators", 2014).
    let mut z = (page ^ seed.rotate_left(32)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) >> 32
}
