//! What machines do and textbooks do not: evict several frames before one is filled, fill one that
//! was pinned under another name, load a page that is resident already.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::chance::SplitMix;
use super::testing::Bits;
use super::{POLICIES, PageId, Parameters, Replacement};
use crate::addr::Frame;

const FIRST: u32 = 50;

/// A policy, the frames that are in its order, and those that are not.
struct World {
    replacement: Replacement,
    bits: Bits,
    inside: BTreeSet<Frame>,
    outside: Vec<Frame>,
}

impl World {
    fn evict(&mut self, context: &str) {
        let victim = self.replacement.as_policy_mut().evict(&mut self.bits);
        assert_eq!(victim.is_some(), !self.inside.is_empty(), "{context}");
        if let Some(victim) = victim {
            assert!(self.inside.remove(&victim), "{context}: {victim:?} was not evictable");
            self.outside.push(victim);
        }
    }

    fn step(&mut self, chance: &mut SplitMix, context: &str) {
        let frames = (self.inside.len() + self.outside.len()) as u32;
        let page = PageId(chance.below(2 * frames).into());
        let any = Frame(FIRST + chance.below(frames));
        self.bits.now += 1;
        self.bits.accessed[any.index()] |= chance.below(2) == 0;
        self.bits.dirty[any.index()] = chance.below(3) == 0;
        match chance.below(8) {
            0 => (0..chance.below(4)).for_each(|_| self.evict(context)),
            1 | 2 => {
                // Sometimes all of them, as after a batch.
                let count = chance.below(self.outside.len() as u32 + 1) as usize;
                for frame in self.outside.drain(..count) {
                    self.replacement.as_policy_mut().insert(frame, page);
                    self.inside.insert(frame);
                }
            }
            3 if self.inside.remove(&any) => {
                self.replacement.as_policy_mut().remove(any);
                self.outside.push(any);
            }
            4 => self.replacement.as_policy_mut().tick(&mut self.bits),
            5 => {
                let victim = self.replacement.as_policy_mut().replace(page, &mut self.bits);
                let valid = victim.map_or(self.inside.is_empty(), |v| self.inside.contains(&v));
                assert!(valid, "{context}: {victim:?} was not evictable");
            }
            _ => self.replacement.touch(any),
        }
        if let Replacement::Sizing(policy) = &mut self.replacement {
            policy.touch(any, self.bits.now);
            while let Some(gone) = policy.release(chance.below(2) == 0, &mut self.bits) {
                assert!(self.inside.remove(&gone), "{context}: {gone:?} was not evictable");
                self.outside.push(gone);
            }
        }
        assert_eq!(self.replacement.as_policy().len(), self.inside.len(), "{context}");
    }
}

#[test]
fn every_policy_survives_batches_and_pages_it_did_not_expect() {
    for entry in POLICIES {
        for seed in 0..300 {
            let context = alloc::format!("{}, seed {seed}", entry.about.name);
            let mut chance = SplitMix::new(seed);
            let frames = 1 + chance.below(if seed % 4 == 0 { 39 } else { 9 });
            let parameters =
                Parameters { first: Frame(FIRST), seed, ..Parameters::new(frames as usize) };
            let mut world = World {
                replacement: (entry.make)(&parameters),
                bits: Bits::new((FIRST + frames) as usize),
                inside: BTreeSet::new(),
                outside: (FIRST..FIRST + frames).map(Frame).collect(),
            };
            (0..300).for_each(|_| world.step(&mut chance, &context));
            (0..=frames).for_each(|_| world.evict(&context));
        }
    }
}
