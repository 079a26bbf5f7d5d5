//! Any policy, at one size of memory, over the arrays of a string.
//!
//! The loops are compiled for each policy by itself, so that what a policy does at a reference is part
//! of the loop: nothing at all for FIFO, setting a bit for Clock. Pages' frames, and what the policy
//! remembers of them, are looked at a block ahead of their turn.
//!
//! Cost at a hit: one load of the page's entry (4 bytes a page, usually from L2 or L3), one of the
//! frame's bits or links where the policy has any. The branch between hit and fault is what remains:
//! it cannot be predicted where half the references miss.
//!
//! Cost at a fault: one store to the entry of the page that leaves, whose cache line nobody asked for
//! in time, and what the policy touches: the links of a few frames and ghosts, which come from L2
//! where memory has ten thousand frames, and from L3 where it has a hundred thousand.
//!
//! 4 bytes a page, 4 more under a policy that remembers evicted pages, and 4 1/4 bytes a frame besides
//! the policy's own.

use std::hint::black_box;

use vellum_mm::addr::Frame;
use vellum_mm::replace::{
    Choice, Foresee, Observe, PageId, Parameters, Registered, Sizing, Visitor, Witness, visit,
};

use super::bits::Bits;
use super::sizing::{self, Scope};
use super::{BLOCK, Counts, Item, RefString, WRITE};

/// No frame.
pub(super) const NONE: u32 = u32::MAX;

/// What a run of a policy over a string found.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Run {
    /// Faults and writes.
    pub counts: Counts,
    /// Frames in use, averaged over all references. Less than the memory if the policy gives frames
    /// up, or pages are freed.
    pub mean_frames: f64,
}

/// Runs the policy over the string in a memory of `frames` frames.
///
/// # Panics
/// If `frames` is 0 or more than 2^30.
pub fn simulate(string: &RefString, policy: &Choice, frames: u32, seed: u64) -> Run {
    simulate_in(string, policy, frames, seed, Scope::Local)
}

/// As [`simulate`]; a policy that sizes processes has this scope.
///
/// # Panics
/// As `simulate`.
pub fn simulate_in(
    string: &RefString,
    policy: &Choice,
    frames: u32,
    seed: u64,
    scope: Scope,
) -> Run {
    assert!((1..=super::PAGES_MAX).contains(&frames), "a memory of {frames} frames");
    // A policy's shares of memory are shares of what was asked for, but no array need be larger than
    // what the string can fill.
    let parameters = Parameters {
        pages: Some(string.pages()),
        seed,
        settings: policy.settings,
        ..Parameters::new(frames as usize)
    };
    let drive = Drive { string, parameters: &parameters, scope };
    visit(policy.entry.about.name, drive).expect("a registered policy")
}

struct Drive<'a> {
    string: &'a RefString,
    parameters: &'a Parameters,
    scope: Scope,
}

impl Visitor for Drive<'_> {
    type Output = Run;

    fn blind<P: Registered>(self) -> Run {
        let mut memory = Memory::<P>::new(self.string, self.parameters);
        if self.string.has_writes() {
            memory.run::<true>(self.string, |_, _| {});
        } else {
            memory.run::<false>(self.string, |_, _| {});
        }
        memory.done(self.string)
    }

    fn observed<P: Registered + Observe>(self) -> Run {
        let mut memory = Memory::<P>::new(self.string, self.parameters);
        if self.string.has_writes() {
            memory.run::<true>(self.string, P::touch);
        } else {
            memory.run::<false>(self.string, P::touch);
        }
        memory.done(self.string)
    }

    fn foreseen<P: Registered + Foresee>(self) -> Run {
        let mut memory = Memory::<P>::new(self.string, self.parameters);
        let next = next_uses(self.string);
        let mut at = 0;
        self.string.for_each(|item| match item {
            Item::Free(page) => memory.free_page(page, at as u64),
            Item::Reference(page, write) => {
                let frame = memory.reference(page, write, at as u64 + 1);
                memory.policy.foretell(frame, next[at]);
                at += 1;
            }
        });
        memory.done(self.string)
    }

    fn sizing<P: Registered + Sizing>(self) -> Run {
        sizing::run::<P>(self.string, self.parameters, self.scope)
    }
}

/// For each reference, the number of the next one to its page, `u64::MAX` if there is none.
fn next_uses(string: &RefString) -> Vec<u64> {
    let mut coming = vec![u64::MAX; string.pages() as usize];
    let mut next: Vec<u64> = string
        .iter()
        .enumerate()
        .rev()
        .map(|(at, (page, _))| std::mem::replace(&mut coming[page as usize], at as u64))
        .collect();
    next.shrink_to_fit();
    next.reverse();
    next
}

/// Which page is in which frame.
#[derive(Default)]
struct Places {
    frame_of: Vec<u32>, // by page
    page_of: Vec<u32>,  // by frame; of a free frame, the next one that is free
    free: u32,          // the first free frame
}

impl Places {
    /// Of so many pages and frames, all frames free: the lowest is the first to be used.
    fn new(pages: u32, frames: usize) -> Places {
        Places {
            frame_of: vec![NONE; pages as usize],
            page_of: (1..frames as u32).chain([NONE]).collect(),
            free: 0,
        }
    }
}

/// A memory under a policy.
struct Memory<P> {
    policy: P,
    bits: Bits,
    places: Places,
    loaded: bool, // accessed bit of a page just loaded
    faults: u64,
    writebacks: u64,
    total: u64,       // references of the string
    frame_time: i128, // frames in use, summed over references
}

impl<P: Registered> Memory<P> {
    fn new(string: &RefString, parameters: &Parameters) -> Memory<P> {
        let policy = P::new(parameters);
        Memory {
            loaded: policy.load_is_use(),
            policy,
            bits: Bits::new(parameters.frames),
            places: Places::new(string.pages(), parameters.frames),
            faults: 0,
            writebacks: 0,
            total: string.len() as u64,
            frame_time: 0,
        }
    }

    /// All references, in stretches between freed pages and beats of the timer.
    fn run<const WRITES: bool>(
        &mut self,
        string: &RefString,
        touch: impl Fn(&mut P, Frame) + Copy,
    ) {
        let (entries, total) = (string.entries(), string.len());
        let mut frees = string.frees().iter().peekable();
        let period = self.policy.period();
        let mut beat = if period == 0 { u64::MAX } else { period };
        let mut at = 0;
        while at < total {
            while let Some(free) = frees.next_if(|free| free.at <= at as u64) {
                self.free_page(free.page, at as u64);
            }
            let free_at = frees.peek().map_or(u64::MAX, |free| free.at);
            let end = (total as u64).min(free_at).min(beat) as usize;
            self.stretch::<WRITES>(&entries[at..end], at as u64, touch);
            at = end;
            if at as u64 == beat {
                self.bits.now = beat;
                self.policy.tick(&mut self.bits);
                beat += period;
            }
        }
        frees.for_each(|free| self.free_page(free.page, total as u64));
    }

    /// References without anything in between, after the first so many.
    ///
    /// The places are this function's own meanwhile: what is handed to calls out of the loop may have
    /// changed after them, and its arrays' addresses and lengths would be loaded at every use.
    #[inline]
    fn stretch<const WRITES: bool>(
        &mut self,
        entries: &[u32],
        first: u64,
        touch: impl Fn(&mut P, Frame),
    ) {
        let mut places = std::mem::take(&mut self.places);
        for (at, block) in entries.chunks(BLOCK).enumerate() {
            let first = first + (at * BLOCK) as u64;
            let seen = block.iter().fold(0, |seen, &entry| {
                let page = entry & !WRITE;
                seen ^ places.frame_of[page as usize] ^ self.policy.peek(PageId(page.into()))
            });
            black_box(seen);
            for (at, &entry) in block.iter().enumerate() {
                self.serve::<WRITES>(&mut places, entry, first + at as u64 + 1, &touch);
            }
        }
        self.places = places;
    }

    /// One reference, the number `now`, from 1; its frame.
    fn reference(&mut self, page: u32, write: bool, now: u64) -> Frame {
        let mut places = std::mem::take(&mut self.places);
        let entry = page | if write { WRITE } else { 0 };
        let frame = self.serve::<true>(&mut places, entry, now, &|_, _| {});
        self.places = places;
        frame
    }

    #[inline(always)]
    fn serve<const WRITES: bool>(
        &mut self,
        places: &mut Places,
        entry: u32,
        now: u64,
        touch: &impl Fn(&mut P, Frame),
    ) -> Frame {
        let page = entry & !WRITE;
        let mut frame = Frame(places.frame_of[page as usize]);
        if frame.0 == NONE {
            self.bits.now = now;
            frame = self.load::<WRITES>(places, page);
        } else {
            if P::READS_BITS {
                self.bits.access(frame);
            }
            touch(&mut self.policy, frame);
        }
        if WRITES {
            self.bits.dirty_if(frame, entry & WRITE != 0);
        }
        frame
    }

    #[inline(always)]
    fn load<const WRITES: bool>(&mut self, places: &mut Places, page: u32) -> Frame {
        self.faults += 1;
        let id = PageId(page.into());
        let frame = if places.free == NONE {
            let frame = self.policy.replace(id, &mut self.bits).expect("memory is full");
            let old = std::mem::replace(&mut places.page_of[frame.index()], page);
            places.frame_of[old as usize] = NONE;
            if WRITES {
                self.writebacks += u64::from(self.bits.is_dirty(frame));
            }
            frame
        } else {
            let frame = Frame(places.free);
            places.free = std::mem::replace(&mut places.page_of[frame.index()], page);
            self.fill(frame, id);
            frame
        };
        places.frame_of[page as usize] = frame.0;
        if P::READS_BITS {
            self.bits.set_accessed(frame, self.loaded);
        }
        if WRITES {
            self.bits.clean(frame);
        }
        frame
    }

    /// A page is in a frame that was free.
    #[cold]
    fn fill(&mut self, frame: Frame, id: PageId) {
        self.policy.insert(frame, id);
        self.in_use(1, self.bits.now - 1);
    }

    /// The page is gone for good after so many references; so is its frame's dirt.
    fn free_page(&mut self, page: u32, since: u64) {
        let frame = std::mem::replace(&mut self.places.frame_of[page as usize], NONE);
        if frame != NONE {
            self.policy.remove(Frame(frame));
            let next = std::mem::replace(&mut self.places.free, frame);
            self.places.page_of[frame as usize] = next;
            self.in_use(-1, since);
        }
    }

    /// After so many references, to the end unless something else is said, one frame more or less is
    /// in use.
    fn in_use(&mut self, more: i128, since: u64) {
        self.frame_time += more * i128::from(self.total - since);
    }

    fn done(self, string: &RefString) -> Run {
        Run {
            counts: Counts {
                faults: self.faults,
                cold: string.pages().into(),
                writebacks: self.writebacks + self.bits.laundered,
            },
            mean_frames: self.frame_time as f64 / (string.len().max(1)) as f64,
        }
    }
}
