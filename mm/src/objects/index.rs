//! The index of a file's pages: a radix tree of 512-entry nodes that live in frames.
//!
//! A file of one page needs no node at all; a node is freed with its last entry. Nodes are frames of
//! kind `Words`, so an index is bounded by the memory that it indexes and needs no heap.
//!
//! ```text
//! word    0 nothing    ..01 frame << 2    ..10 swap slot << 2    ..11 node's frame << 2
//!         ..00 how the last read failed << 2
//! ```
//!
//! Protected by the lock of its file. Changing an entry may need nodes; they never reclaim.

use core::sync::atomic::Ordering::Relaxed;

use super::failed_io::FailedIo;
use crate::addr::{Frame, Slot, TABLE_ENTRIES};
use crate::frames::{Frames, NoMemory};
use crate::machine::{At, Machine, Memory};

/// Where a page of a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cached {
    /// Not in memory: a disk file has it on its disk, shared memory was never written there.
    Nothing,
    /// In this frame.
    Frame(Frame),
    /// In this swap slot; shared memory only.
    Swapped(Slot),
    /// On its disk, which has failed to read it.
    Failed(FailedIo),
}

impl Cached {
    const fn encode(self) -> u64 {
        match self {
            Cached::Nothing => 0,
            Cached::Frame(frame) => (frame.0 as u64) << 2 | 1,
            Cached::Swapped(slot) => (slot.0 as u64) << 2 | 2,
            Cached::Failed(FailedIo::Among) => 1 << 2,
            Cached::Failed(FailedIo::Alone) => 2 << 2,
        }
    }

    const fn decode(word: u64) -> Cached {
        match word & 0b11 {
            1 => Cached::Frame(Frame((word >> 2) as u32)),
            2 => Cached::Swapped(Slot((word >> 2) as u32)),
            _ => match word >> 2 {
                0 => Cached::Nothing,
                1 => Cached::Failed(FailedIo::Among),
                _ => Cached::Failed(FailedIo::Alone),
            },
        }
    }
}

const BITS: u32 = 9;

const fn node_word(frame: Frame) -> u64 {
    (frame.0 as u64) << 2 | 3
}

const fn node_of(word: u64) -> Frame {
    Frame((word >> 2) as u32)
}

/// The index of one file.
#[derive(Default)]
pub struct Index {
    root: u64,
    /// Levels of nodes; 0 if the root word is the entry of page 0.
    height: u32,
}

impl Index {
    /// An index without entries.
    pub const fn new() -> Index {
        Index { root: 0, height: 0 }
    }

    /// Whether it holds no entry.
    pub const fn is_empty(&self) -> bool {
        self.root == 0
    }

    /// Where page `index` is.
    pub fn get<M: Memory>(&self, machine: &M, index: u64) -> Cached {
        if index >> (BITS * self.height) != 0 {
            return Cached::Nothing;
        }
        let mut word = self.root;
        for level in (0..self.height).rev() {
            if word == 0 {
                return Cached::Nothing;
            }
            word = machine.table(node_of(word))[place(index, level)].load(Relaxed);
        }
        Cached::decode(word)
    }

    /// Records where page `index` is.
    ///
    /// # Errors
    /// If a node is needed and no frame is free; nothing has changed then. Recording
    /// [`Cached::Nothing`] never fails.
    pub fn set<M: Machine>(
        &mut self,
        frames: &Frames,
        at: At,
        machine: &M,
        index: u64,
        cached: Cached,
    ) -> Result<(), NoMemory> {
        if cached == Cached::Nothing {
            self.remove(frames, at, machine, index);
            return Ok(());
        }
        if self.get(machine, index) == Cached::Nothing {
            self.grow(frames, at, machine, index)?;
        }
        let height = self.height;
        if height == 0 {
            self.root = cached.encode();
            return Ok(());
        }
        let mut node = node_of(self.root);
        for level in (1..height).rev() {
            node = node_of(machine.table(node)[place(index, level)].load(Relaxed));
        }
        let word = &machine.table(node)[place(index, 0)];
        if word.swap(cached.encode(), Relaxed) == 0 {
            count(frames, node, 1);
        }
        Ok(())
    }

    /// Makes the nodes on the way to `index`. On failure those already made hold no entries and are
    /// taken away again.
    fn grow<M: Machine>(
        &mut self,
        frames: &Frames,
        at: At,
        machine: &M,
        index: u64,
    ) -> Result<(), NoMemory> {
        while index >> (BITS * self.height) != 0 {
            if self.root != 0 {
                let node = frames.alloc_words(at, machine)?;
                machine.table(node)[0].store(self.root, Relaxed);
                count(frames, node, 1);
                self.root = node_word(node);
            }
            self.height += 1;
        }
        if self.height == 0 {
            return Ok(());
        }
        if self.root == 0 {
            self.root = node_word(frames.alloc_words(at, machine)?);
        }
        let mut node = node_of(self.root);
        for level in (1..self.height).rev() {
            let word = &machine.table(node)[place(index, level)];
            if word.load(Relaxed) == 0 {
                let Ok(below) = frames.alloc_words(at, machine) else {
                    self.prune(frames, at, machine, index);
                    return Err(NoMemory);
                };
                word.store(node_word(below), Relaxed);
                count(frames, node, 1);
            }
            node = node_of(word.load(Relaxed));
        }
        Ok(())
    }

    fn remove<M: Machine>(&mut self, frames: &Frames, at: At, machine: &M, index: u64) {
        if self.get(machine, index) == Cached::Nothing {
            return;
        }
        if self.height == 0 {
            self.root = 0;
            return;
        }
        let mut node = node_of(self.root);
        for level in (1..self.height).rev() {
            node = node_of(machine.table(node)[place(index, level)].load(Relaxed));
        }
        machine.table(node)[place(index, 0)].store(0, Relaxed);
        count(frames, node, -1);
        self.prune(frames, at, machine, index);
    }

    /// Frees the nodes on the way to `index` that hold nothing, from the leaf up.
    fn prune<M: Machine>(&mut self, frames: &Frames, at: At, machine: &M, index: u64) {
        let mut path = [Frame(0); 5];
        let mut length = 0;
        let mut word = self.root;
        for level in (0..self.height).rev() {
            if word == 0 {
                break;
            }
            path[length] = node_of(word);
            length += 1;
            word = machine.table(node_of(word))[place(index, level)].load(Relaxed);
        }
        while length > 0 {
            length -= 1;
            let node = path[length];
            if frames.table.peek_owner(node) != 0 {
                return;
            }
            frames.table.lock(node).end();
            frames.free(at, machine, node);
            if length == 0 {
                self.root = 0;
                self.height = 0;
            } else {
                let level = self.height - length as u32;
                machine.table(path[length - 1])[place(index, level)].store(0, Relaxed);
                count(frames, path[length - 1], -1);
            }
        }
    }

    /// Calls `each` with every entry from page `first` up to, without, `end`, while it answers true.
    pub fn for_each<M: Memory>(
        &self,
        machine: &M,
        first: u64,
        end: u64,
        mut each: impl FnMut(u64, Cached) -> bool,
    ) {
        let mut index = first;
        // Ends: the index grows by at least one node's span where a node is missing.
        while index < end && index >> (BITS * self.height) == 0 {
            let mut word = self.root;
            let mut missing = 0;
            for level in (0..self.height).rev() {
                if word == 0 {
                    missing = level + 1;
                    break;
                }
                word = machine.table(node_of(word))[place(index, level)].load(Relaxed);
            }
            if word != 0 && !each(index, Cached::decode(word)) {
                return;
            }
            index = (index | ((1 << (BITS * missing)) - 1)) + 1;
        }
    }

    /// Number of nodes, by a walk through all of them.
    pub fn nodes<M: Memory>(&self, machine: &M) -> u64 {
        nodes_below(machine, self.root, self.height)
    }
}

fn nodes_below<M: Memory>(machine: &M, word: u64, height: u32) -> u64 {
    if word == 0 || height == 0 {
        return 0;
    }
    let table = machine.table(node_of(word));
    let below = table.iter().map(|word| nodes_below(machine, word.load(Relaxed), height - 1));
    1 + below.sum::<u64>()
}

const fn place(index: u64, level: u32) -> usize {
    (index >> (BITS * level)) as usize % TABLE_ENTRIES
}

/// Keeps the number of entries in use in the owner word of a node's frame.
fn count(frames: &Frames, node: Frame, change: i64) {
    let mut locked = frames.table.lock(node);
    let now = locked.owner().checked_add_signed(change).expect("a node counts its entries");
    locked.set_owner(now);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{AT, Bench};
    use rand::{RngExt, SeedableRng};
    use std::collections::BTreeMap;

    #[test]
    fn a_file_of_one_page_needs_no_node_and_a_larger_one_gives_its_nodes_back() {
        let bench = Bench::new(64, 0);
        let frames = &bench.vm.store().frames;
        let mut index = Index::new();
        let frame = Cached::Frame(Frame(7));
        index.set(frames, AT, &bench.ram, 0, frame).unwrap();
        assert_eq!((index.nodes(&bench.ram), index.get(&bench.ram, 0)), (0, frame));
        index.set(frames, AT, &bench.ram, 512, Cached::Swapped(Slot(0))).unwrap();
        assert_eq!(index.nodes(&bench.ram), 3, "two levels, and two leaves");
        assert_eq!(index.get(&bench.ram, 0), frame, "the old entry is found below the new root");
        assert_eq!(index.get(&bench.ram, 512), Cached::Swapped(Slot(0)));
        for page in [0, 512] {
            index.set(frames, AT, &bench.ram, page, Cached::Nothing).unwrap();
        }
        assert!(index.is_empty());
        assert_eq!(bench.vm.census().words, 0);
    }

    #[test]
    fn a_missing_node_leaves_the_index_as_it_was() {
        let bench = Bench::new(8, 0);
        let frames = &bench.vm.store().frames;
        let mut index = Index::new();
        index.set(frames, AT, &bench.ram, 3, Cached::Frame(Frame(7))).unwrap();
        while frames.alloc_words(AT, &bench.ram).is_ok() {}
        for page in [600, 1 << 20, (1 << 40) - 1] {
            let refused = index.set(frames, AT, &bench.ram, page, Cached::Frame(Frame(7)));
            assert_eq!(refused, Err(NoMemory));
            assert_eq!(index.get(&bench.ram, page), Cached::Nothing);
            assert_eq!(index.get(&bench.ram, 3), Cached::Frame(Frame(7)));
        }
    }

    #[test]
    fn it_is_a_map_of_pages() {
        let bench = Bench::new(512, 0);
        let frames = &bench.vm.store().frames;
        let (mut index, mut model) = (Index::new(), BTreeMap::new());
        let mut random = rand_pcg::Pcg64Mcg::seed_from_u64(11);
        for n in 0..3000 {
            // Pages near each other, far apart, and at the very end.
            let page = match random.random_range(0..4) {
                0 => random.random_range(0..1200),
                1 => random.random_range(0..40) << 27,
                2 => (1 << 40) - 1 - random.random_range(0..3),
                _ => random.random_range(0..8),
            };
            let entry = match random.random_range(0..5) {
                0 => Cached::Frame(Frame(n)),
                1 => Cached::Swapped(Slot(n)),
                2 => Cached::Failed(FailedIo::of(n as usize % 2)),
                _ => Cached::Nothing,
            };
            index.set(frames, AT, &bench.ram, page, entry).unwrap();
            model.insert(page, entry);
            model.retain(|_, entry| *entry != Cached::Nothing);
            let first = random.random_range(0..2000);
            let mut found = std::vec::Vec::new();
            index.for_each(&bench.ram, first, 1 << 39, |page, entry| {
                found.push((page, entry));
                true
            });
            found.retain(|&(_, entry)| entry != Cached::Nothing);
            assert!(found.iter().copied().eq(model.range(first..1 << 39).map(|(&p, &e)| (p, e))));
            assert_eq!(bench.vm.census().words, index.nodes(&bench.ram));
        }
        for &page in model.keys() {
            index.set(frames, AT, &bench.ram, page, Cached::Nothing).unwrap();
        }
        assert_eq!(bench.vm.census().words, 0);
    }
}
