//! Random: evicts any frame, each with the same chance.
//!
//! It remembers nothing and is never fooled: no reference string is bad for it on purpose, such as a
//! loop slightly larger than memory is for LRU. A policy that is worse than chance has learned the
//! wrong thing.
//!
//! The members lie dense in an array, so that a draw is one multiplication; the last takes the place of
//! the one that leaves. 8 bytes a frame; every operation takes constant time.

use alloc::boxed::Box;
use alloc::vec;

use super::board::{Board, Member};
use super::chance::SplitMix;
use super::{About, PageId, Parameters, Policy, Registered, Witness};
use crate::addr::Frame;

/// Uniform chance, the same for the same seed.
///
/// L. A. Belady, "A Study of Replacement Algorithms for a Virtual-Storage Computer", IBM Systems
/// Journal 5(2), 1966.
pub struct Random {
    members: Box<[u32]>, // the first `len` hold the indices of the evictable frames, in any order
    places: Box<[u32]>,  // by frame: its place among the members + 1; zero if it is none
    len: usize,
    first: Frame,
    generator: SplitMix,
}

impl Registered for Random {
    const ABOUT: About = About {
        name: "random",
        line: "evicts any page, by chance from a seed",
        paper: "L. A. Belady, A Study of Replacement Algorithms for a Virtual-Storage Computer, 1966",
        settings: &[],
    };
    const READS_BITS: bool = false;

    fn new(parameters: &Parameters) -> Random {
        let Parameters { first, frames, seed, .. } = *parameters;
        assert!(
            frames <= (u32::MAX - first.0) as usize,
            "{frames} frames from {first:?} are more than 32 bits number"
        );
        Random {
            members: vec![0; frames].into_boxed_slice(),
            places: vec![0; frames].into_boxed_slice(),
            len: 0,
            first,
            generator: SplitMix::new(seed),
        }
    }
}

impl Random {
    /// The index of `frame`, and its place + 1.
    fn place_of(&self, frame: Frame) -> (usize, u32) {
        let index = frame.0.wrapping_sub(self.first.0) as usize;
        let count = self.places.len();
        assert!(index < count, "{frame:?} is not among the {count} frames from {:?}", self.first);
        (index, self.places[index])
    }
}

impl Policy for Random {
    fn insert(&mut self, frame: Frame, _page: PageId) {
        let (index, place) = self.place_of(frame);
        assert_eq!(place, 0, "{frame:?} is evictable already");
        self.members[self.len] = index as u32;
        self.len += 1;
        self.places[index] = self.len as u32;
    }

    fn remove(&mut self, frame: Frame) {
        let (index, place) = self.place_of(frame);
        assert_ne!(place, 0, "{frame:?} is not evictable");
        self.len -= 1;
        let last = self.members[self.len];
        self.members[place as usize - 1] = last;
        // In this order: the frame that leaves may itself be the last.
        self.places[last as usize] = place;
        self.places[index] = 0;
    }

    fn evict(&mut self, _witness: &mut dyn Witness) -> Option<Frame> {
        if self.len == 0 {
            return None;
        }
        let drawn = self.generator.below(self.len as u32);
        let victim = Frame(self.first.0 + self.members[drawn as usize]);
        self.remove(victim);
        Some(victim)
    }

    fn show(&self, board: &mut dyn Board) {
        let members = self.members[..self.len].iter();
        let mut frames = members.map(|index| Member::frame(Frame(self.first.0 + index)));
        board.list("drawn from", &mut frames);
    }

    fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bits, Memory, Step};
    use super::*;
    use alloc::vec::Vec;

    fn victims(seed: u64, frames: u32) -> Vec<u32> {
        let parameters = Parameters { seed, ..Parameters::new(frames as usize) };
        let mut policy = Random::new(&parameters);
        (0..frames).for_each(|frame| policy.insert(Frame(frame), PageId(0)));
        let mut bits = Bits::new(0);
        core::iter::from_fn(|| policy.evict(&mut bits)).map(|frame| frame.0).collect()
    }

    #[test]
    fn the_same_seed_evicts_in_the_same_order() {
        assert_eq!(victims(7, 100), victims(7, 100));
        assert_ne!(victims(7, 100), victims(8, 100));
    }

    #[test]
    fn every_frame_is_evicted_once() {
        let mut out = victims(3, 1000);
        out.sort_unstable();
        assert!(out.into_iter().eq(0..1000));
    }

    #[test]
    fn every_frame_has_the_same_chance() {
        // 8 frames, 8000 draws: 1000 each, give or take 6 standard deviations of 30.
        let mut counts = [0_u32; 8];
        for seed in 0..8000 {
            counts[victims(seed, 8)[0] as usize] += 1;
        }
        assert!(counts.iter().all(|count| (820..1180).contains(count)), "{counts:?}");
    }

    #[test]
    #[should_panic(expected = "f2 is evictable already")]
    fn a_frame_is_inserted_once() {
        let mut policy = Random::new(&Parameters::new(4));
        policy.insert(Frame(2), PageId(0));
        policy.insert(Frame(2), PageId(0));
    }

    #[test]
    fn it_never_evicts_what_is_not_there() {
        for seed in 0..300 {
            let mut generator = SplitMix::new(seed);
            let mut memory = Memory::new("random", 7);
            for _ in 0..300 {
                let page = generator.below(15).into();
                if generator.below(5) == 0 {
                    memory.step(Step::Drop(page), u64::MAX);
                    continue;
                }
                let before = memory.holds.clone();
                let full = !before.contains(&None) && !before.contains(&Some(page));
                let left = memory.step(Step::Use(page), u64::MAX);
                assert_eq!(left.len(), usize::from(full), "seed {seed}");
                assert!(left.iter().all(|&page| before.contains(&Some(page))), "seed {seed}");
                assert!(memory.holds.contains(&Some(page)), "seed {seed}");
            }
        }
    }
}
