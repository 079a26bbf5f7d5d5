//! Replacement: which frame to evict next. One file a policy.
//!
//! A policy orders the *evictable* frames. It learns that a frame has become evictable ([`insert`]),
//! that one no longer is ([`remove`]: freed, pinned, being written), and is asked for a victim
//! ([`evict`]). How many to evict, and when, is not its business.
//!
//! What a policy may know of the references in between is the difference between textbook and machine.
//! Hardware keeps one accessed bit a page, so a policy for real machines ([`Policy`]) can only ask a
//! [`Witness`] whether a frame was used since it last asked. Exact LRU and its kin need every single
//! reference in order ([`Observe`]); only a world that sees them all, such as the lab, can drive those.
//! The two are different types, so a kernel that tries to run exact LRU does not compile.
//!
//! A page is loaded to be used: the access that faulted is restarted as soon as its frame is mapped.
//! So `insert` *is* the first reference, the frame's accessed bit is set when its policy first asks
//! about it, and `touch` is called for later references only.
//!
//! To add a policy: write its file, with an [`Entry`], and add a `mod` line and a line in [`POLICIES`].
//!
//! Invariant: per-frame arrays are made at construction, and nothing is allocated later, as a machine
//! that evicts has no memory to give. A policy may choose badly, never corrupt: who evicts checks each
//! victim against the frame table.
//!
//! Knows nothing of: page tables, who owns a frame, I/O, locks (who calls holds one).
//!
//! [`insert`]: Policy::insert
//! [`remove`]: Policy::remove
//! [`evict`]: Policy::evict

pub mod clock;
pub mod fifo;
pub mod lru;
pub mod random;

use alloc::boxed::Box;

use crate::addr::Frame;

/// Every policy, in the order in which they are listed to users.
pub static POLICIES: &[Entry] = &[fifo::ENTRY, clock::ENTRY, lru::ENTRY, random::ENTRY];

/// The policy of this name.
pub fn by_name(name: &str) -> Option<&'static Entry> {
    POLICIES.iter().find(|entry| entry.name == name)
}

/// A policy that can be asked for by name.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What users type: lower case.
    pub name: &'static str,
    /// What it evicts, in one line.
    pub line: &'static str,
    /// Where it was first described.
    pub paper: &'static str,
    /// Makes one with no frame in it.
    pub make: fn(&Parameters) -> Replacement,
}

/// What a policy is made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parameters {
    /// The lowest frame that it will be given.
    pub first: Frame,
    /// How many frames there are from `first` on: they size its arrays.
    pub frames: usize,
    /// What chance starts from, in policies that play.
    pub seed: u64,
}

impl Parameters {
    /// For the frames `0..frames`, with seed 0.
    pub const fn new(frames: usize) -> Parameters {
        Parameters { first: Frame(0), frames, seed: 0 }
    }
}

/// A stable name for the contents of a frame: the same page has it before and after an eviction, so
/// that a policy can recognise one that comes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PageId(pub u64);

/// What hardware can tell about a resident frame: one bit of use, one of change.
pub trait Witness {
    /// Reads the accessed bit of `frame` and clears it.
    fn take_accessed(&mut self, frame: Frame) -> bool;
    /// Whether evicting `frame` costs a write.
    fn is_dirty(&self, frame: Frame) -> bool;
}

/// An order of eviction over the evictable frames. A pinned frame is simply not in it.
pub trait Policy: Send {
    /// Adds a frame that has just become evictable and holds `page`. Counts as a reference.
    ///
    /// # Panics
    /// If `frame` is in the order, or not among those the policy was made for.
    fn insert(&mut self, frame: Frame, page: PageId);

    /// Forgets a frame that was freed or pinned.
    ///
    /// # Panics
    /// If `frame` is not in the order.
    fn remove(&mut self, frame: Frame);

    /// Chooses a victim and forgets it; `None` only if no frame is evictable.
    fn evict(&mut self, witness: &mut dyn Witness) -> Option<Frame>;

    /// Number of evictable frames.
    fn len(&self) -> usize;

    /// Whether no frame is evictable.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A policy that is told of every reference, in order.
pub trait Observe: Policy {
    /// Notes a reference to `frame` after the one that inserted it. Ignored for a frame that is not
    /// evictable at the moment: programs use pinned frames too.
    fn touch(&mut self, frame: Frame);
}

/// A policy as it comes from the registry: what it needs to be told is in its type.
pub enum Replacement {
    /// Needs no more than accessed bits: runs anywhere.
    Blind(Box<dyn Policy>),
    /// Needs every reference.
    Observed(Box<dyn Observe>),
}

impl Replacement {
    /// The policy, whatever it needs.
    pub fn as_policy(&self) -> &dyn Policy {
        match self {
            Replacement::Blind(policy) => policy.as_ref(),
            Replacement::Observed(policy) => policy.as_ref(),
        }
    }

    /// The policy, whatever it needs. Who drives an observed one must tell it of references as well.
    pub fn as_policy_mut(&mut self) -> &mut dyn Policy {
        match self {
            Replacement::Blind(policy) => policy.as_mut(),
            Replacement::Observed(policy) => policy.as_mut(),
        }
    }

    /// The policy, if it needs no more than accessed bits; else the one that needs more, back.
    ///
    /// # Errors
    /// With the observed policy, so that the caller can still name it or drive it.
    pub fn into_blind(self) -> Result<Box<dyn Policy>, Box<dyn Observe>> {
        match self {
            Replacement::Blind(policy) => Ok(policy),
            Replacement::Observed(policy) => Err(policy),
        }
    }

    /// Notes a reference, if the policy needs it.
    #[inline]
    pub fn touch(&mut self, frame: Frame) {
        if let Replacement::Observed(policy) = self {
            policy.touch(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    /// Accessed bits without a machine.
    pub(super) struct Bits(pub(super) Vec<bool>);

    impl Witness for Bits {
        fn take_accessed(&mut self, frame: Frame) -> bool {
            core::mem::take(&mut self.0[frame.index()])
        }

        fn is_dirty(&self, _frame: Frame) -> bool {
            false
        }
    }

    /// Faults of the policy `name` on `frames` frames, all free at first, for a reference string.
    pub(super) fn faults(name: &str, frames: usize, refs: &[u64]) -> usize {
        let entry = by_name(name).expect("a registered policy");
        let mut policy = (entry.make)(&Parameters::new(frames));
        let mut holds = vec![None; frames];
        let mut bits = Bits(vec![false; frames]);
        let mut faults = 0;
        for &page in refs {
            let resident = holds.iter().position(|&held| held == Some(page));
            let frame = resident.unwrap_or_else(|| {
                faults += 1;
                let free = holds.iter().position(Option::is_none);
                let frame = free.unwrap_or_else(|| {
                    policy.as_policy_mut().evict(&mut bits).expect("memory is full").index()
                });
                holds[frame] = Some(page);
                policy.as_policy_mut().insert(Frame(frame as u32), PageId(page));
                frame
            });
            bits.0[frame] = true;
            if resident.is_some() {
                policy.touch(Frame(frame as u32));
            }
        }
        faults
    }

    /// The string that operating-system textbooks print.
    pub(super) const TEXTBOOK: &[u64] =
        &[7, 0, 1, 2, 0, 3, 0, 4, 2, 3, 0, 3, 2, 1, 2, 0, 1, 7, 0, 1];
    /// Bélády's string, on which FIFO loses by more frames.
    pub(super) const BELADY: &[u64] = &[1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5];

    #[test]
    fn names_are_unique_and_found() {
        for (at, entry) in POLICIES.iter().enumerate() {
            let first = POLICIES.iter().position(|other| other.name == entry.name);
            assert_eq!(first, Some(at), "{} is registered twice", entry.name);
            assert_eq!(by_name(entry.name).map(|found| found.line), Some(entry.line));
            assert_eq!(entry.name, entry.name.to_lowercase());
        }
        assert!(by_name("nothing").is_none());
    }

    #[test]
    fn every_policy_faults_once_a_page_when_all_fit() {
        for entry in POLICIES {
            assert_eq!(faults(entry.name, 6, TEXTBOOK), 6, "{}", entry.name);
        }
    }

    #[test]
    fn every_policy_empties_and_starts_where_its_frames_do() {
        for entry in POLICIES {
            let parameters = Parameters { first: Frame(100), frames: 4, seed: 1 };
            let mut replacement = (entry.make)(&parameters);
            let policy = replacement.as_policy_mut();
            let mut bits = Bits(vec![true; 104]);
            assert_eq!(policy.evict(&mut bits), None, "{}", entry.name);
            for frame in 100..104 {
                policy.insert(Frame(frame), PageId(0));
            }
            policy.remove(Frame(101));
            assert_eq!(policy.len(), 3);
            let mut out = [(); 3].map(|()| policy.evict(&mut bits).expect("three are left").0);
            out.sort_unstable();
            assert_eq!(out, [100, 102, 103], "{}", entry.name);
            assert!(policy.is_empty() && policy.evict(&mut bits).is_none(), "{}", entry.name);
        }
    }

    #[test]
    fn only_observed_policies_are_told_of_references() {
        let observed = |entry: &&Entry| (entry.make)(&Parameters::new(1)).into_blind().is_err();
        let names: Vec<_> = POLICIES.iter().filter(observed).map(|entry| entry.name).collect();
        assert_eq!(names, ["lru"]);
    }
}
