//! A few frames under any policy, where everything that happens can be seen.
//!
//! The same steps in the same order as [`simulate`](fn@crate::string::simulate::simulate), which is
//! made for speed: free frames are filled from the lowest, given-back frames first, the last one
//! given back before the others. Here every look at an accessed bit is noted, too.

use vellum_mm::addr::Frame;
use vellum_mm::replace::{PageId, Replacement, Witness};

/// A look that the policy had at an accessed bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Look {
    pub(super) page: u32,
    /// Whether the bit was set, and is clear now.
    pub(super) was_set: bool,
}

/// A page that left memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gone {
    pub(super) page: u32,
    pub(super) frame: u32,
    pub(super) written_back: bool,
    pub(super) resident: Resident,
}

/// A page in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Resident {
    pub(super) page: u32,
    pub(super) accessed: bool,
    pub(super) dirty: bool,
    /// The reference that loaded it, from 1.
    pub(super) loaded: u64,
    /// The last one to it.
    pub(super) used: u64,
    /// References to it since it was loaded, that one counted.
    pub(super) uses: u64,
}

/// What a reference did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Event {
    /// Where the page is.
    pub(super) frame: u32,
    pub(super) fault: bool,
    /// Who made room for it.
    pub(super) victim: Option<Gone>,
    /// What the policy looked at to find the victim.
    pub(super) looks: Vec<Look>,
    /// Pages that the policy gave up unasked.
    pub(super) released: Vec<Gone>,
    /// Whether the timer beat after it.
    pub(super) tick: bool,
    /// Pages whose accessed bit was taken at the beat or while pages were given up.
    pub(super) swept: Vec<Look>,
    /// Pages that were written back and stay.
    pub(super) laundered: Vec<u32>,
}

/// Accessed and dirty bits of the frames, and a record of who looked at them.
struct Bits {
    frames: Vec<Option<Resident>>,
    looks: Vec<Look>,
    laundered: Vec<u32>,
    now: u64,
}

impl Witness for Bits {
    fn take_accessed(&mut self, frame: Frame) -> bool {
        let Some(resident) = self.frames.get_mut(frame.index()).and_then(Option::as_mut) else {
            return false;
        };
        let was_set = std::mem::take(&mut resident.accessed);
        self.looks.push(Look { page: resident.page, was_set });
        was_set
    }

    fn is_dirty(&self, frame: Frame) -> bool {
        self.frames.get(frame.index()).and_then(Option::as_ref).is_some_and(|held| held.dirty)
    }

    fn now(&self) -> u64 {
        self.now
    }

    fn launder(&mut self, frame: Frame) {
        if let Some(resident) = self.frames.get_mut(frame.index()).and_then(Option::as_mut)
            && std::mem::take(&mut resident.dirty)
        {
            self.laundered.push(resident.page);
        }
    }
}

/// A memory under a policy.
pub(super) struct Memory {
    policy: Replacement,
    bits: Bits,
    frame_of: Vec<Option<u32>>, // by page
    free: Vec<u32>,             // frames that were given back
    untouched: u32,             // the lowest frame that was never used
}

impl Memory {
    /// Empty frames under `policy`, for a string of so many pages.
    pub(super) fn new(policy: Replacement, frames: u32, pages: usize) -> Memory {
        Memory {
            policy,
            bits: Bits {
                frames: vec![None; frames as usize],
                looks: Vec::new(),
                laundered: Vec::new(),
                now: 0,
            },
            frame_of: vec![None; pages],
            free: Vec::new(),
            untouched: 0,
        }
    }

    /// The policy, to be looked at.
    pub(super) fn policy(&self) -> &Replacement {
        &self.policy
    }

    /// What the frames hold.
    pub(super) fn frames(&self) -> &[Option<Resident>] {
        &self.bits.frames
    }

    /// Makes a reference to `page`, which will be used again at time `next`.
    pub(super) fn reference(&mut self, page: u32, write: bool, next: u64) -> Event {
        self.bits.now += 1;
        let now = self.bits.now;
        let hit = self.frame_of[page as usize];
        let (frame, victim) = match hit {
            Some(frame) => {
                self.use_again(frame, write);
                (frame, None)
            }
            None => self.load(page, write),
        };
        let looks = std::mem::take(&mut self.bits.looks);
        let mut released = Vec::new();
        match &mut self.policy {
            Replacement::Observed(policy) if hit.is_some() => policy.touch(Frame(frame)),
            Replacement::Observed(_) | Replacement::Blind(_) => {}
            Replacement::Foreseen(policy) => policy.foretell(Frame(frame), next),
            Replacement::Sizing(policy) => {
                if hit.is_some() {
                    policy.touch(Frame(frame), now);
                }
                while let Some(gone) = policy.release(hit.is_none(), &mut self.bits) {
                    released.extend(vacate(&mut self.bits, &mut self.frame_of, gone));
                    self.free.push(gone.0);
                }
            }
        }
        let period = self.policy.as_policy().period();
        let tick = period > 0 && now.is_multiple_of(period);
        if tick {
            self.policy.as_policy_mut().tick(&mut self.bits);
        }
        Event {
            frame,
            fault: hit.is_none(),
            victim,
            looks,
            released,
            tick,
            swept: std::mem::take(&mut self.bits.looks),
            laundered: std::mem::take(&mut self.bits.laundered),
        }
    }

    fn use_again(&mut self, frame: u32, write: bool) {
        let held = self.bits.frames[frame as usize].as_mut().expect("the frame of a page holds it");
        held.accessed = true;
        held.dirty |= write;
        held.used = self.bits.now;
        held.uses += 1;
    }

    /// Finds a frame for `page` and puts it there.
    fn load(&mut self, page: u32, write: bool) -> (u32, Option<Gone>) {
        let count = self.bits.frames.len() as u32;
        let id = PageId(page.into());
        let policy = self.policy.as_policy_mut();
        let (frame, victim) = if self.untouched == count && self.free.is_empty() {
            let frame = policy.replace(id, &mut self.bits).expect("memory is full");
            (frame.0, vacate(&mut self.bits, &mut self.frame_of, frame))
        } else {
            let frame = self.free.pop().unwrap_or_else(|| {
                self.untouched += 1;
                self.untouched - 1
            });
            policy.insert(Frame(frame), id);
            (frame, None)
        };
        self.frame_of[page as usize] = Some(frame);
        self.bits.frames[frame as usize] = Some(Resident {
            page,
            accessed: policy.load_is_use(),
            dirty: write,
            loaded: self.bits.now,
            used: self.bits.now,
            uses: 1,
        });
        (frame, victim)
    }
}

/// Takes the page out of a frame.
fn vacate(bits: &mut Bits, frame_of: &mut [Option<u32>], frame: Frame) -> Option<Gone> {
    let resident = bits.frames[frame.index()].take()?;
    frame_of[resident.page as usize] = None;
    let Resident { page, dirty, .. } = resident;
    Some(Gone { page, frame: frame.0, written_back: dirty, resident })
}
