//! NRU: evicts any frame of the lowest class by use and change.
//!
//! Each beat of the timer clears the accessed bit R of every frame, so that R means *used since the
//! last beat*. With the dirty bit D that makes four classes, and a victim is drawn by chance from
//! the lowest that is not empty:
//!
//! ```text
//!     members   │ 0: neither │ 1: changed │ 2: used │ 3: used and changed │
//! ```
//!
//! Class 1 is not empty although a change is a use: its R was cleared since.
//!
//! The members of all classes lie in one array, class by class, and a frame changes its class by
//! swapping places at the borders. Bits change unnoticed, so a frame drawn is looked at: if it has
//! risen, it is put where it belongs and the draw repeated, which leaves all that did not rise the
//! same chance. A frame rises at most three times between two beats: a victim costs constant time
//! over many, and a beat looks at every frame once. 8 bytes a frame.

use alloc::boxed::Box;
use alloc::vec;

use super::board::{Board, Member};
use super::chance::SplitMix;
use super::{About, PageId, Parameters, Policy, Registered, Setting, Witness};
use crate::addr::Frame;

const PERIOD: Setting = Setting {
    name: "period",
    line: "references between two beats that clear the accessed bits; 0: as many as frames",
    default: 0,
    range: 0..=u64::MAX,
};

/// The class that a new page joins: used; whether it is written is seen later.
const USED: usize = 2;
/// The highest class, whose end is the end of the members.
const LAST: usize = 3;

/// Not recently used.
///
/// A. S. Tanenbaum, "Modern Operating Systems", section "The Not Recently Used Page Replacement
/// Algorithm".
pub struct Nru {
    members: Box<[u32]>, // indices of the evictable frames, class by class
    places: Box<[u32]>,  // by frame: its place among the members + 1; zero if it is none
    ends: [u32; 4],      // by class: the place behind its last member
    first: Frame,
    generator: SplitMix,
    period: u64,
}

impl Registered for Nru {
    const ABOUT: About = About {
        name: "nru",
        line: "evicts any page of the lowest of four classes by use since a beat, and change",
        paper: "A. S. Tanenbaum, Modern Operating Systems, 1992",
        settings: &[PERIOD],
    };

    fn new(parameters: &Parameters) -> Nru {
        let Parameters { first, frames, seed, .. } = *parameters;
        assert!(
            frames <= (u32::MAX - first.0) as usize,
            "{frames} frames from {first:?} are more than 32 bits number"
        );
        let period = parameters.settings.get(&PERIOD);
        Nru {
            members: vec![0; frames].into_boxed_slice(),
            places: vec![0; frames].into_boxed_slice(),
            ends: [0; 4],
            first,
            generator: SplitMix::new(seed),
            period: if period == 0 { frames.max(1) as u64 } else { period },
        }
    }
}

impl Nru {
    fn index_of(&self, frame: Frame) -> u32 {
        let index = frame.0.wrapping_sub(self.first.0);
        let count = self.places.len();
        assert!(
            (index as usize) < count,
            "{frame:?} is not among the {count} frames from {:?}",
            self.first
        );
        index
    }

    fn put(&mut self, place: u32, index: u32) {
        self.members[place as usize] = index;
        self.places[index as usize] = place + 1;
    }

    fn swap(&mut self, one: u32, other: u32) {
        let (a, b) = (self.members[one as usize], self.members[other as usize]);
        self.put(one, b);
        self.put(other, a);
    }

    /// Moves the member at `place`, of class `from`, up to class `to`; returns its new place.
    fn rise(&mut self, mut place: u32, from: usize, to: usize) -> u32 {
        for class in from..to {
            // The last of its class: then the border moves over it.
            self.ends[class] -= 1;
            self.swap(place, self.ends[class]);
            place = self.ends[class];
        }
        place
    }

    /// The place of a victim.
    fn draw(&mut self, witness: &mut dyn Witness) -> Option<u32> {
        // Ends: each round returns, or a member rises.
        loop {
            let class = self.ends.iter().position(|&end| end > 0)?;
            let place = self.generator.below(self.ends[class]);
            let frame = Frame(self.first.0 + self.members[place as usize]);
            // In the classes of used frames the bit has been read, or the load was the use.
            let used = class >= USED || witness.take_accessed(frame);
            let risen = USED * usize::from(used) + usize::from(witness.is_dirty(frame));
            if risen <= class {
                return Some(place);
            }
            self.rise(place, class, risen);
        }
    }
}

impl Policy for Nru {
    fn insert(&mut self, frame: Frame, _page: PageId) {
        let index = self.index_of(frame);
        assert_eq!(self.places[index as usize], 0, "{frame:?} is evictable already");
        // As the last of all, and then over the one border to the class of used ones.
        let end = self.ends[LAST];
        self.put(end, index);
        self.swap(end, self.ends[USED]);
        self.ends[LAST] += 1;
        self.ends[USED] += 1;
    }

    fn remove(&mut self, frame: Frame) {
        let index = self.index_of(frame);
        let place = self.places[index as usize];
        assert_ne!(place, 0, "{frame:?} is not evictable");
        let class = self.ends.iter().position(|&end| place <= end).unwrap_or(LAST);
        let last = self.rise(place - 1, class, LAST);
        self.ends[LAST] -= 1;
        self.swap(last, self.ends[LAST]);
        self.places[index as usize] = 0;
    }

    fn evict(&mut self, witness: &mut dyn Witness) -> Option<Frame> {
        let place = self.draw(witness)?;
        let victim = Frame(self.first.0 + self.members[place as usize]);
        self.remove(victim);
        Some(victim)
    }

    fn tick(&mut self, witness: &mut dyn Witness) {
        let len = self.ends[LAST];
        self.ends = [len; 4];
        let mut place = 0;
        // Ends: the unread ones are those from `place` to the end of class 0, one less each time.
        while place < self.ends[0] {
            let frame = Frame(self.first.0 + self.members[place as usize]);
            witness.take_accessed(frame);
            if witness.is_dirty(frame) {
                self.rise(place, 0, 1);
            } else {
                place += 1;
            }
        }
    }

    fn period(&self) -> u64 {
        self.period
    }

    fn show(&self, board: &mut dyn Board) {
        let len = self.ends[LAST] as usize;
        let mut members = self.members[..len].iter().zip(0..).map(|(index, place)| {
            let class = self.ends.iter().position(|&end| place < end).unwrap_or(LAST);
            let member = Member::frame(Frame(self.first.0 + index));
            member.with_label(["(0,0)", "(0,1)", "(1,0)", "(1,1)"][class])
        });
        board.list("classes", &mut members);
    }

    fn len(&self) -> usize {
        self.ends[LAST] as usize
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Bits, Memory, Step};
    use super::*;
    use alloc::collections::BTreeMap;
    use alloc::format;
    use alloc::vec::Vec;

    fn nru_of(frames: u32, seed: u64) -> Nru {
        let mut nru = Nru::new(&Parameters { seed, ..Parameters::new(frames as usize) });
        (0..frames).for_each(|frame| nru.insert(Frame(frame), PageId(0)));
        nru
    }

    #[test]
    fn the_classes_go_lowest_first() {
        for seed in 0..20 {
            let mut nru = nru_of(4, seed);
            let mut bits = Bits::new(4);
            bits.dirty = vec![true, false, true, false];
            nru.tick(&mut bits);
            bits.accessed = vec![true, true, false, false];
            let out: Vec<_> = core::iter::from_fn(|| nru.evict(&mut bits)).map(|f| f.0).collect();
            assert_eq!(out, [3, 2, 1, 0], "seed {seed}");
        }
    }

    #[test]
    fn a_beat_forgets_use_but_not_change() {
        let mut nru = nru_of(2, 1);
        let mut bits = Bits::new(2);
        bits.dirty[0] = true;
        nru.tick(&mut bits);
        assert_eq!(bits.accessed, [false, false]);
        bits.accessed[1] = true;
        // Changed and unused goes before used and unchanged.
        assert_eq!(nru.evict(&mut bits), Some(Frame(0)));
    }

    #[test]
    fn members_of_a_class_have_the_same_chance() {
        // 4 of 8 frames are unused: 4000 draws make 1000 each, give or take 6 deviations of 27.
        let mut counts = [0_u32; 8];
        for seed in 0..4000 {
            let mut nru = nru_of(8, seed);
            let mut bits = Bits::new(8);
            nru.tick(&mut bits);
            (0..4).for_each(|frame| bits.accessed[2 * frame] = true);
            counts[nru.evict(&mut bits).expect("eight frames").index()] += 1;
        }
        let (used, unused): (Vec<_>, Vec<_>) = (0..8).partition(|frame| frame % 2 == 0);
        assert!(used.iter().all(|&frame| counts[frame] == 0), "{counts:?}");
        assert!(unused.iter().all(|&frame| (835..1165).contains(&counts[frame])), "{counts:?}");
    }

    #[test]
    fn the_period_is_as_many_references_as_frames_unless_set() {
        assert_eq!(nru_of(7, 0).period(), 7);
        assert_eq!(Memory::new("nru:period=3", 7).policy.as_policy().period(), 3);
    }

    #[test]
    fn every_victim_is_of_the_lowest_class() {
        for seed in 0..2000 {
            let mut chance = SplitMix::new(seed);
            let frames = 1 + chance.below(9) as usize;
            let period = 1 + u64::from(chance.below(20));
            let mut memory = Memory::new(&format!("nru:period={period}"), frames);
            let mut pages: BTreeMap<u64, (bool, bool)> = BTreeMap::new(); // used, changed
            let mut now = 0;
            for _ in 0..200 {
                let page = chance.below(2 * frames as u32 + 1).into();
                let step = match chance.below(10) {
                    0 => Step::Drop(page),
                    1..4 => Step::Write(page),
                    _ => Step::Use(page),
                };
                let before = pages.clone();
                let left = memory.step(step, u64::MAX);
                if let Step::Drop(_) = step {
                    pages.remove(&page);
                    continue;
                }
                let full = before.len() == frames && !before.contains_key(&page);
                assert_eq!(left.len(), usize::from(full), "seed {seed}");
                for victim in left {
                    let class = pages.remove(&victim).expect("it was resident");
                    assert_eq!(Some(&class), before.values().min(), "seed {seed}");
                }
                let changed = pages.get(&page).is_some_and(|bits| bits.1);
                pages.insert(page, (true, changed || matches!(step, Step::Write(_))));
                now += 1;
                if now % period == 0 {
                    for bits in pages.values_mut() {
                        bits.0 = false;
                    }
                }
            }
        }
    }
}
