//! A set of (process, page) pairs, cheap enough to be asked at every access.
//!
//! Pages come in crowds: 4,096 neighbours share a bitmap of 512 bytes, and a small direct-mapped
//! table remembers where the bitmaps of recent crowds are, so that a hash map is asked rarely.

use rustc_hash::FxHashMap;

use crate::event::ProcessId;

const WORDS: usize = 64;
const CROWD_SHIFT: u32 = 12; // log2 of the pages of a bitmap: 64 words of 64 bits
const RECENT: usize = 64;

/// The pages that were seen, of each process.
pub(crate) struct PageSet {
    indices: FxHashMap<(ProcessId, u64), u32>, // from crowd to its bitmap
    bitmaps: Vec<[u64; WORDS]>,
    recent: [Option<(ProcessId, u64, u32)>; RECENT],
    len: u64,
}

impl PageSet {
    /// An empty set.
    pub(crate) fn new() -> PageSet {
        PageSet {
            indices: FxHashMap::default(),
            bitmaps: Vec::new(),
            recent: [None; RECENT],
            len: 0,
        }
    }

    /// Pairs in the set.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Adds a pair.
    #[inline]
    pub(crate) fn insert(&mut self, process: ProcessId, page: u64) {
        let crowd = page >> CROWD_SHIFT;
        let recent = (crowd ^ (crowd >> 6) ^ u64::from(process)) as usize % RECENT;
        let index = match self.recent[recent] {
            Some((p, c, index)) if p == process && c == crowd => index,
            _ => {
                let index = self.find(process, crowd);
                self.recent[recent] = Some((process, crowd, index));
                index
            }
        };
        let word = &mut self.bitmaps[index as usize][(page >> 6) as usize % WORDS];
        let bit = 1 << (page % 64);
        self.len += u64::from(*word & bit == 0);
        *word |= bit;
    }

    /// The bitmap of a crowd, made if it is new.
    fn find(&mut self, process: ProcessId, crowd: u64) -> u32 {
        let next = self.bitmaps.len() as u32;
        let index = *self.indices.entry((process, crowd)).or_insert(next);
        if index == next {
            self.bitmaps.push([0; WORDS]);
        }
        index
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{Rng, RngExt, SeedableRng};
    use rand_pcg::Pcg64;

    use super::*;

    #[test]
    fn it_counts_as_an_ordered_set_does() {
        let seed = 7;
        println!("seed {seed}");
        let mut random = Pcg64::seed_from_u64(seed);
        let (mut set, mut model) = (PageSet::new(), BTreeSet::new());
        for _ in 0..100_000 {
            let process = random.random_range(0..3);
            let page = random.next_u64() >> 12 >> random.random_range(0..52);
            set.insert(process, page);
            model.insert((process, page));
            assert_eq!(set.len(), model.len() as u64);
        }
    }
}
