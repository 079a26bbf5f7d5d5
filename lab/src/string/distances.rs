//! LRU at every size of memory, in one pass.
//!
//! The *stack distance* of a reference is the number of different pages used since the last use of its
//! page, itself included. LRU faults on it if memory has fewer frames than that, so a histogram of
//! distances is the whole curve. (R. L. Mattson et al., "Evaluation Techniques for Storage
//! Hierarchies", IBM Systems Journal 9(2), 1970.)
//!
//! Each page stands in the *slot* of its last use, slots in order of time. A distance is the number
//! of taken slots from there on (F. Olken, "Efficient Methods for Calculating the Success Function of
//! Fixed Space Replacement Policies", LBL-12370, 1981, keeps them in a tree; here they are a bitmap with
//! counts in four levels, where a look-up is five loads and giving a slot up changes three short rows
//! of numbers that vector instructions take together). When slots run out, the taken ones move together.
//!
//! ```text
//!     slot     0 1 2 3 4 5 6 7          a b c b d ▸c◂        c stands in slot 2; taken from
//!     taken    1 0 1 1 1 · · ·                               there on are 2, 3, 4: distance 3
//! ```
//!
//! *Freed* pages leave holes: a memory that held the page has a free frame now. The next page to come
//! from below a hole takes it, so that in a memory that large nobody is pushed out: the hole moves to
//! where that page was. A page's slot with nobody in it counts as taken.
//!
//! *Writes*: a page once written is dirty in every memory that has kept it since. Per page this is the
//! least size in which it is dirty. (J. G. Thompson and A. J. Smith, "Efficient (Stack) Algorithms for
//! Analysis of Write-Back and Sector Memories", ACM TOCS 7(1), 1989.)
//!
//! A reference costs two cache misses, of its page's slot and of its distance's count, and both are
//! taken in blocks; the bitmap and its counts, 5 bits a page, stay in the second-level cache.
//!
//! 10 bytes a page, and 12 more if the string has writes; the curve takes their place. The peak of a
//! process was measured to be 15 bytes a page, and 19 with writes, besides the string.

use std::hint::black_box;

use super::times::Times;
use super::{BLOCK, Counts, RefString, WRITE};

/// A page that stands nowhere.
const NOWHERE: u32 = u32::MAX;
/// Of a page that is clean in memories of every size.
const CLEAN: u32 = u32::MAX;

/// The faults of LRU at every size.
#[derive(Clone, Debug)]
pub struct LruCurve {
    faults: Vec<u64>,     // by frames - 1; constant from its end on
    writebacks: Vec<u64>, // the same; empty if nothing is written
    cold: u64,
}

impl LruCurve {
    /// The counts in a memory of `frames` frames.
    ///
    /// # Panics
    /// If `frames` is 0.
    pub fn at(&self, frames: u32) -> Counts {
        assert!(frames > 0, "a memory of 0 frames");
        let at = |counts: &[u64]| {
            counts.get(frames as usize - 1).or(counts.last()).copied().unwrap_or(0)
        };
        Counts { faults: at(&self.faults), cold: self.cold, writebacks: at(&self.writebacks) }
    }

    /// The least frames with at most so many faults; those of
    /// [`frames_enough`](Self::frames_enough) if no memory has as few.
    pub fn frames_with(&self, faults: u64) -> u32 {
        let faults = faults.max(self.cold);
        self.faults.partition_point(|&at| at > faults) as u32 + 1
    }

    /// The least frames with which only first uses fault.
    pub fn frames_enough(&self) -> u32 {
        self.faults.partition_point(|&faults| faults > self.cold) as u32 + 1
    }
}

/// The curve of LRU over the string.
pub fn lru(string: &RefString) -> LruCurve {
    if string.has_writes() {
        Stack::new(string).run::<true>()
    } else {
        Stack::new(string).run::<false>()
    }
}

struct Stack<'a> {
    string: &'a RefString,
    slots: Slots,
    slot_of: Vec<u32>,    // by page
    dirty_from: Vec<u32>, // by page: the least frames in which it is dirty
    /// By distance: references with it, modulo 2^32; 0 stands for first uses and what is no use.
    hits: Vec<u32>,
    /// Each distance once for every 2^32 references with it.
    full: Vec<u32>,
    /// By frames - 1: writebacks, as differences to the size before, modulo 2^64.
    writebacks: Vec<u64>,
}

impl<'a> Stack<'a> {
    fn new(string: &'a RefString) -> Stack<'a> {
        let pages = string.pages() as usize;
        Stack {
            string,
            slots: Slots::new(pages),
            slot_of: vec![NOWHERE; pages],
            dirty_from: vec![CLEAN; if string.has_writes() { pages } else { 0 }],
            hits: vec![0; pages + 1],
            full: Vec::new(),
            writebacks: vec![0; if string.has_writes() { pages + 1 } else { 0 }],
        }
    }

    fn run<const WRITES: bool>(mut self) -> LruCurve {
        let (entries, total) = (self.string.entries(), self.string.len());
        let mut frees = self.string.frees().iter().peekable();
        let mut at = 0;
        while at < total {
            while let Some(free) = frees.next_if(|free| free.at <= at as u64) {
                self.free::<WRITES>(free.page);
            }
            let end = frees.peek().map_or(total, |free| total.min(free.at as usize));
            entries[at..end].chunks(BLOCK).for_each(|block| self.block::<WRITES>(block));
            at = end;
        }
        if WRITES {
            // What is still in the stack has left every memory smaller than its depth.
            for page in 0..self.slot_of.len() as u32 {
                self.free::<true>(page);
            }
        }
        self.curve()
    }

    /// At most [`BLOCK`] references.
    fn block<const WRITES: bool>(&mut self, entries: &[u32]) {
        let mut slots = [NOWHERE; BLOCK];
        for (slot, &entry) in slots.iter_mut().zip(entries) {
            *slot = self.slot_of[(entry & !WRITE) as usize];
        }
        let seen = slots.iter().fold(0, |seen, &slot| seen ^ self.slots.peek(slot));
        black_box(seen);
        let mut distances = [0; BLOCK];
        for (distance, &entry) in distances.iter_mut().zip(entries) {
            *distance = self.reference::<WRITES>(entry);
        }
        for distance in distances {
            let hits = &mut self.hits[distance as usize];
            *hits = hits.wrapping_add(1);
            if *hits == 0 {
                self.full.push(distance);
            }
        }
    }

    /// One reference; its distance, 0 if it is the first to its page.
    #[inline]
    fn reference<const WRITES: bool>(&mut self, entry: u32) -> u32 {
        let page = entry & !WRITE;
        if self.slots.is_full() {
            self.slots.compact(&mut self.slot_of);
        }
        let slot = std::mem::replace(&mut self.slot_of[page as usize], self.slots.next);
        let mut distance = 0;
        if slot == NOWHERE {
            self.slots.fill_hole(None);
        } else {
            distance = self.slots.taken_from(slot);
            if WRITES {
                self.leave(page, distance);
            }
            if !self.slots.fill_hole(Some(slot)) {
                self.slots.clear(slot);
            }
        }
        if WRITES && entry & WRITE != 0 {
            self.dirty_from[page as usize] = 1;
        }
        self.slots.take();
        distance
    }

    /// The page comes back from `distance`, or is freed there: every smaller memory had evicted it, and
    /// written it if it was dirty there.
    fn leave(&mut self, page: u32, distance: u32) {
        let from = &mut self.dirty_from[page as usize];
        if *from < distance {
            for (frames, more) in [(*from, 1), (distance, u64::MAX)] {
                let writebacks = &mut self.writebacks[frames as usize - 1];
                *writebacks = writebacks.wrapping_add(more);
            }
            *from = distance;
        }
    }

    fn free<const WRITES: bool>(&mut self, page: u32) {
        let slot = std::mem::replace(&mut self.slot_of[page as usize], NOWHERE);
        if slot == NOWHERE {
            return;
        }
        if WRITES {
            let distance = self.slots.taken_from(slot);
            self.leave(page, distance);
            self.dirty_from[page as usize] = CLEAN;
        }
        self.slots.make_hole(slot);
    }

    fn curve(self) -> LruCurve {
        let Stack { string, slots, slot_of, dirty_from, hits, mut full, mut writebacks } = self;
        drop((slots, slot_of, dirty_from));
        full.sort_unstable();
        let mut full = full.into_iter().peekable();
        // Of 0 nobody asks.
        while full.next_if_eq(&0).is_some() {}
        let mut left = string.len() as u64;
        let mut faults: Vec<u64> = (1..)
            .zip(hits.iter().skip(1))
            .map(|(distance, &hits)| {
                left -= u64::from(hits);
                while full.next_if_eq(&distance).is_some() {
                    left -= 1 << u32::BITS;
                }
                left
            })
            .collect();
        // From the largest distance on all is said.
        faults.truncate(faults.partition_point(|&faults| faults > left) + 1);
        faults.shrink_to_fit();
        let mut sum = 0_u64;
        for count in &mut writebacks {
            sum = sum.wrapping_add(*count);
            *count = sum;
        }
        LruCurve { faults, writebacks, cold: string.pages().into() }
    }
}

/// Slots of a word, a chapter, a volume and a shelf, as shifts.
const WORD: usize = 6;
const CHAPTER: usize = WORD + EACH.trailing_zeros() as usize;
const VOLUME: usize = CHAPTER + EACH.trailing_zeros() as usize;
const SHELF: usize = VOLUME + EACH.trailing_zeros() as usize;
/// Words of a chapter, chapters of a volume, volumes of a shelf.
const EACH: usize = 32;

/// Slots in order of time, and how many are taken.
///
/// The count before a slot is the sum of five: before its shelf, before its volume in the shelf,
/// before its chapter in the volume, before its word in the chapter, and in the word. When a slot is
/// given up, the counts behind it in each level go down by one. Counts that lie together change
/// together, those before the slot by zero: a few vector instructions and no branch, where a loop
/// from the slot on would end at another place each time. Counts of what no slot was taken of yet
/// may be anything.
struct Slots {
    taken: Vec<u64>,              // bitmap
    in_chapter: Vec<[u16; EACH]>, // by word: taken before it in its chapter
    in_volume: Vec<[u16; EACH]>,  // by chapter: taken before it in its volume
    in_shelf: Vec<[u32; EACH]>,   // by volume: taken before it in its shelf
    shelves: Vec<u32>,            // by shelf: taken before it
    count: u32,
    next: u32,    // the first slot never taken
    total: u32,   // taken slots
    holes: Times, // those of the taken slots that nobody stands in
    hole_count: u32,
}

const _: () = assert!(1 << VOLUME <= 1 << u16::BITS, "what is before the last chapter fits");

impl Slots {
    /// For a string of `pages` pages.
    fn new(pages: usize) -> Slots {
        // Three quarters are free after moving together, so that a reference bears a third of a
        // page's move.
        let count = (pages * 4).max(1 << CHAPTER).next_multiple_of(1 << CHAPTER);
        Slots {
            taken: vec![0; count >> WORD],
            in_chapter: vec![[0; EACH]; count >> CHAPTER],
            in_volume: vec![[0; EACH]; (count >> VOLUME) + 1],
            in_shelf: vec![[0; EACH]; (count >> SHELF) + 1],
            shelves: vec![0; (count >> SHELF) + 1],
            count: u32::try_from(count).expect("at most 2^30 pages, and a multiple of 2^11 slots"),
            next: 0,
            total: 0,
            holes: Times::new(count),
            hole_count: 0,
        }
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.next == self.count
    }

    /// Takes the next slot.
    #[inline]
    fn take(&mut self) {
        let slot = self.next as usize;
        if slot.is_multiple_of(64) {
            self.begin_word(slot);
        }
        self.taken[slot >> WORD] |= 1 << (slot & 63);
        self.total += 1;
        self.next += 1;
    }

    /// Counts what is taken before the word that `slot` begins, before any of its slots is.
    fn begin_word(&mut self, slot: usize) {
        if slot.is_multiple_of(1 << SHELF) {
            self.shelves[slot >> SHELF] = self.total;
        }
        let mut before = self.total - self.shelves[slot >> SHELF];
        if slot.is_multiple_of(1 << VOLUME) {
            self.in_shelf[slot >> SHELF][slot >> VOLUME & (EACH - 1)] = before;
        }
        before -= self.in_shelf[slot >> SHELF][slot >> VOLUME & (EACH - 1)];
        if slot.is_multiple_of(1 << CHAPTER) {
            self.in_volume[slot >> VOLUME][slot >> CHAPTER & (EACH - 1)] = before as u16;
        }
        before -= u32::from(self.in_volume[slot >> VOLUME][slot >> CHAPTER & (EACH - 1)]);
        self.in_chapter[slot >> CHAPTER][slot >> WORD & (EACH - 1)] = before as u16;
    }

    /// How many slots are taken before `slot`.
    #[inline]
    fn taken_before(&self, slot: u32) -> u32 {
        let slot = slot as usize;
        let word = self.taken[slot >> WORD] & !(u64::MAX << (slot & 63));
        self.shelves[slot >> SHELF]
            + self.in_shelf[slot >> SHELF][slot >> VOLUME & (EACH - 1)]
            + u32::from(self.in_volume[slot >> VOLUME][slot >> CHAPTER & (EACH - 1)])
            + u32::from(self.in_chapter[slot >> CHAPTER][slot >> WORD & (EACH - 1)])
            + word.count_ones()
    }

    /// How many slots are taken from `slot` on.
    #[inline]
    fn taken_from(&self, slot: u32) -> u32 {
        self.total - self.taken_before(slot)
    }

    /// A look at what is counted of a slot, for the cache lines alone; `slot` may be anything.
    #[inline]
    fn peek(&self, slot: u32) -> u64 {
        let slot = slot as usize;
        let counts = self.in_chapter.get(slot >> CHAPTER).map_or(0, |counts| counts[0]);
        self.taken.get(slot >> WORD).map_or(0, |&word| word ^ u64::from(counts))
    }

    #[inline]
    fn clear(&mut self, slot: u32) {
        let slot = slot as usize;
        self.taken[slot >> WORD] &= !(1 << (slot & 63));
        self.total -= 1;
        less(&mut self.in_chapter[slot >> CHAPTER], slot >> WORD & (EACH - 1));
        less(&mut self.in_volume[slot >> VOLUME], slot >> CHAPTER & (EACH - 1));
        let counts = &mut self.in_shelf[slot >> SHELF];
        let from = (slot >> VOLUME & (EACH - 1)) as u32;
        for (at, count) in (0..).zip(counts) {
            *count = count.wrapping_sub(u32::from(at > from));
        }
        for count in &mut self.shelves[(slot >> SHELF) + 1..] {
            *count = count.wrapping_sub(1);
        }
    }

    fn make_hole(&mut self, slot: u32) {
        self.holes.insert(slot as usize);
        self.hole_count += 1;
    }

    /// A page comes from `from` (or from nowhere) to the top. If there is a hole above that, it takes
    /// the nearest to the top, and leaves one where it was: true then.
    #[inline]
    fn fill_hole(&mut self, from: Option<u32>) -> bool {
        if self.hole_count == 0 {
            return false;
        }
        let top = self.holes.latest(self.next as usize - 1).expect("there are holes");
        match from {
            Some(from) if from as usize > top => return false,
            Some(from) => self.holes.insert(from as usize),
            None => self.hole_count -= 1,
        }
        self.holes.remove(top);
        self.clear(top as u32);
        from.is_some()
    }

    /// Moves what is taken together, in its order: the new slot is the number of those before.
    #[cold]
    fn compact(&mut self, slot_of: &mut [u32]) {
        for slot in slot_of.iter_mut().filter(|slot| **slot != NOWHERE) {
            *slot = self.taken_before(*slot);
        }
        let mut holes = Vec::with_capacity(self.hole_count as usize);
        while let Some(hole) = self.holes.latest(self.count as usize - 1) {
            holes.push(self.taken_before(hole as u32));
            self.holes.remove(hole);
        }
        for hole in holes {
            self.holes.insert(hole as usize);
        }
        let total = std::mem::take(&mut self.total);
        self.taken.fill(0);
        self.next = 0;
        (0..total).for_each(|_| self.take());
    }
}

/// One less in each count behind the one at `place`.
#[inline]
fn less(counts: &mut [u16; EACH], place: usize) {
    let place = place as u16;
    for (at, count) in (0..).zip(counts) {
        *count = count.wrapping_sub(u16::from(at > place));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_hold_across_every_level() {
        const TAKEN: u32 = 5 << (SHELF - 1); // two shelves and a half
        let mut slots = Slots::new(TAKEN as usize / 4);
        (0..TAKEN).for_each(|_| slots.take());
        // Every third is given up, from both ends in turn.
        let third = |at: u32| at * 3;
        let gone = TAKEN.div_ceil(3);
        for at in 0..gone {
            slots.clear(third(if at % 2 == 0 { at / 2 } else { gone - 1 - at / 2 }));
        }
        for slot in (0..TAKEN).step_by(61) {
            assert_eq!(slots.taken_before(slot), slot - slot.div_ceil(3), "before slot {slot}");
        }
        assert_eq!(slots.total, TAKEN - gone);
    }
}
