//! Lists of sizes as users write them: `64M,128M,1G`, `16M..1G*2`, `10%..100%+10%`.
//!
//! A range names its first and last size and the step between them: `*2` doubles, `+16M` adds. The last
//! size is taken if a step meets it, or passes it by.

use std::str::FromStr;

use thiserror::Error;
use vellum_mm::addr::PAGE_BYTES;

use crate::size::{NotASize, Size};

/// The most sizes that a list may have.
pub const SIZES_MAX: usize = 100_000;

/// Memories to try.
#[derive(Clone, PartialEq, Debug)]
pub struct Sizes(Vec<Item>);

/// Memories to try, whose bare numbers are frames: `100,200`, `16..4096*2`.
#[derive(Clone, PartialEq, Debug)]
pub struct Frames(Sizes);

#[derive(Clone, Copy, PartialEq, Debug)]
enum Item {
    One(Size),
    Range { from: Size, to: Size, step: Step },
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Step {
    Times(f64),
    Plus(Size),
}

/// Text that is no list of sizes.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum NotSizes {
    /// One of the sizes.
    #[error(transparent)]
    Size(#[from] NotASize),
    /// A range without a step.
    #[error("`{0}` needs a step: 16M..1G*2 doubles, 10%..100%+10% adds")]
    NoStep(String),
    /// A step that leads nowhere.
    #[error("`{0}` never ends: a factor is above 1, a step above 0")]
    Endless(String),
    /// Too many.
    #[error("more than {SIZES_MAX} sizes")]
    TooMany,
}

impl FromStr for Sizes {
    type Err = NotSizes;

    fn from_str(text: &str) -> Result<Sizes, NotSizes> {
        parse(text, &|size| size.parse())
    }
}

impl FromStr for Frames {
    type Err = NotSizes;

    fn from_str(text: &str) -> Result<Frames, NotSizes> {
        let frames = |text: &str| match text.trim().parse::<u32>() {
            Ok(frames) => Ok(Size::Bytes(u64::from(frames) * PAGE_BYTES)),
            Err(_) => text.parse(),
        };
        parse(text, &frames).map(Frames)
    }
}

impl From<Frames> for Sizes {
    fn from(frames: Frames) -> Sizes {
        frames.0
    }
}

fn parse(text: &str, size: &dyn Fn(&str) -> Result<Size, NotASize>) -> Result<Sizes, NotSizes> {
    let items = text.split(',').map(|item| {
        let Some((from, rest)) = item.split_once("..") else {
            return Ok(Item::One(size(item)?));
        };
        let at = rest.find(['*', '+']).ok_or_else(|| NotSizes::NoStep(item.to_owned()))?;
        let (to, step) = rest.split_at(at);
        let endless = || NotSizes::Endless(item.to_owned());
        let step = if let Some(factor) = step.strip_prefix('*') {
            let factor: f64 = factor.trim().parse().map_err(|_| endless())?;
            if !factor.is_finite() || factor <= 1.0 {
                return Err(endless());
            }
            Step::Times(factor)
        } else {
            let step = size(&step[1..])?;
            if step.bytes(100 * PAGE_BYTES) == 0 {
                return Err(endless());
            }
            Step::Plus(step)
        };
        Ok(Item::Range { from: size(from)?, to: size(to)?, step })
    });
    Ok(Sizes(items.collect::<Result<_, NotSizes>>()?))
}

impl Sizes {
    /// The sizes in frames, where `whole` bytes are what a percentage refers to; ascending, each once.
    /// A size of less than a frame is one frame.
    ///
    /// # Errors
    /// If there are more than [`SIZES_MAX`].
    #[allow(clippy::cast_sign_loss)] // sizes are positive
    pub fn frames(&self, whole: u64) -> Result<Vec<u32>, NotSizes> {
        let in_frames = |bytes: f64| ((bytes / PAGE_BYTES as f64).round() as u64).max(1);
        let mut all = Vec::new();
        for item in &self.0 {
            match *item {
                Item::One(size) => all.push(in_frames(size.bytes(whole) as f64)),
                Item::Range { from, to, step } => {
                    let (mut at, to) = (from.bytes(whole) as f64, to.bytes(whole) as f64);
                    // Ends: every step makes it larger, if it is at all.
                    at = at.max(1.0);
                    while at <= to * (1.0 + 1e-9) {
                        if all.len() > SIZES_MAX {
                            return Err(NotSizes::TooMany);
                        }
                        all.push(in_frames(at));
                        at = match step {
                            Step::Times(factor) => at * factor,
                            Step::Plus(size) => at + (size.bytes(whole) as f64).max(1.0),
                        };
                    }
                    all.push(in_frames(to));
                }
            }
        }
        all.sort_unstable();
        all.dedup();
        Ok(all.into_iter().map(|frames| frames.min(1 << 30) as u32).collect())
    }
}

/// `count` sizes from `least` to `most`, each about as many times the one before.
#[allow(clippy::cast_sign_loss)] // sizes are positive
pub fn spread(least: u32, most: u32, count: usize) -> Vec<u32> {
    let (least, most) = (least.max(1), most.max(least).max(1));
    let ratio = f64::from(most) / f64::from(least);
    let steps = count.saturating_sub(1).max(1);
    let mut sizes: Vec<u32> = (0..count)
        .map(|at| (f64::from(least) * ratio.powf(at as f64 / steps as f64)).round() as u32)
        .collect();
    sizes.dedup();
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(text: &str) -> Vec<u32> {
        text.parse::<Sizes>().expect(text).frames(1000 * PAGE_BYTES).expect(text)
    }

    #[test]
    fn lists_and_ranges_come_out_in_order() {
        assert_eq!(frames("1M,64k"), [16, 256]);
        assert_eq!(frames("16M..128M*2"), [4096, 8192, 16384, 32768]);
        assert_eq!(frames("10%..40%+10%"), [100, 200, 300, 400]);
        assert_eq!(frames("4k..10k+4k,1"), [1, 2, 3], "the last size is always there");
    }

    #[test]
    fn bare_numbers_are_frames_where_frames_are_asked_for() {
        let sizes: Sizes = "3,16..100*2,50%".parse::<Frames>().expect("valid").into();
        assert_eq!(sizes.frames(1000 * PAGE_BYTES).unwrap(), [3, 16, 32, 64, 100, 500]);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "1M..2M", "1M..2M*1", "1M..2M+0", "1M..2M*x", "1M..2M+", "a,b", "1M,,2M"] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
        let long: Sizes = "1..1T+1".parse().expect("valid");
        assert_eq!(long.frames(0), Err(NotSizes::TooMany));
    }

    #[test]
    fn a_spread_meets_both_ends() {
        assert_eq!(spread(1, 16, 5), [1, 2, 4, 8, 16]);
        assert_eq!(spread(3, 3, 4), [3]);
        assert_eq!(spread(0, 0, 2), [1]);
        let sizes = spread(512, 70_000, 32);
        assert_eq!((sizes[0], *sizes.last().unwrap(), sizes.len()), (512, 70_000, 32));
    }
}
