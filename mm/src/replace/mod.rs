//! Replacement: which frame to evict next. One file a policy.
//!
//! A policy orders the *evictable* frames. It learns that a frame has become evictable ([`insert`]),
//! that one no longer is ([`remove`]: freed, pinned, being written), and is asked for a victim
//! ([`evict`]), or for a victim to make room for a page that is known ([`replace`]). How many to evict,
//! and when, is not its business, unless it is one of those that size a process ([`Sizing`]).
//!
//! What a policy may know of the references in between is the difference between textbook and machine,
//! and it is in the types:
//!
//! | trait | learns | runs in |
//! |---|---|---|
//! | [`Policy`] | one accessed bit a page, when it asks a [`Witness`] | any machine |
//! | [`Observe`] | every reference, in order | the lab, a buffer pool |
//! | [`Foresee`] | when each page will be used next | the lab, on a recorded string |
//! | [`Sizing`] | as `Observe`; gives frames up unasked | the lab |
//!
//! so a kernel that tries to run exact LRU does not compile.
//!
//! A page is loaded to be used: the access that faulted is restarted as soon as its frame is mapped.
//! So `insert` *is* the first reference, and `touch` is called for later references only. Hardware
//! leaves the accessed bit of a new page set; a world that keeps the bits in software leaves it as
//! [`load_is_use`](Policy::load_is_use) wants it.
//!
//! To add a policy: write its file, implement [`Registered`], and add one line to the registry below.
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
//! [`replace`]: Policy::replace

pub mod board;
mod calendar;
mod chance;
mod ghosts;
mod heap;
mod queues;
mod settings;

pub use settings::{Setting, SettingError, Settings};

use alloc::boxed::Box;

use crate::addr::Frame;
use board::Board;

/// The registry: a line a policy, in the order in which they are listed to users. The word before
/// the type says what it learns: `blind` of accessed bits, `observed` of references, `foreseen` of the
/// future, `sizing` of references, and it decides how many frames as well.
macro_rules! registry {
    ($($kind:ident $module:ident :: $Type:ident;)*) => {
        $(pub mod $module;)*

        /// Every policy, in the order in which they are listed to users.
        pub static POLICIES: &[Entry] = &[$(Entry {
            about: &<$module::$Type as Registered>::ABOUT,
            make: |parameters| registry!(@boxed $kind $module::$Type, parameters),
        }),*];

        /// Calls `visitor` with the type of the policy of this name, so that it can run code made for
        /// that type alone; `None` if there is no such policy.
        pub fn visit<V: Visitor>(name: &str, visitor: V) -> Option<V::Output> {
            $(if name == <$module::$Type as Registered>::ABOUT.name {
                return Some(visitor.$kind::<$module::$Type>());
            })*
            None
        }
    };
    (@boxed blind $Type:ty, $parameters:expr) => {
        Replacement::Blind(Box::new(<$Type>::new($parameters)))
    };
    (@boxed observed $Type:ty, $parameters:expr) => {
        Replacement::Observed(Box::new(<$Type>::new($parameters)))
    };
    (@boxed foreseen $Type:ty, $parameters:expr) => {
        Replacement::Foreseen(Box::new(<$Type>::new($parameters)))
    };
    (@boxed sizing $Type:ty, $parameters:expr) => {
        Replacement::Sizing(Box::new(<$Type>::new($parameters)))
    };
}

registry! {
    blind fifo::Fifo;
    foreseen opt::Opt;
    observed lru::Lru;
    blind clock::Clock;
    blind enhanced_clock::EnhancedClock;
    observed clock_sweep::ClockSweep;
    blind nru::Nru;
    blind aging::Aging;
    observed mru::Mru;
    observed lfu::Lfu;
    observed lru_k::LruK;
    sizing working_set::WorkingSet;
    blind wsclock::WsClock;
    sizing pff::Pff;
    blind random::Random;
    blind sieve::Sieve;
    observed s3_fifo::S3Fifo;
    observed two_q::TwoQ;
    observed arc::Arc;
    blind car::Car;
    observed lirs::Lirs;
    blind clock_pro::ClockPro;
    blind linux::Linux;
    blind mglru::Mglru;
}

/// The policy of this name.
pub fn by_name(name: &str) -> Option<&'static Entry> {
    POLICIES.iter().find(|entry| entry.about.name == name)
}

/// A policy as users ask for it: which, and with what settings.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Which.
    pub entry: &'static Entry,
    /// What the user set.
    pub settings: Settings,
}

impl Choice {
    /// The policy of this name, as it is.
    ///
    /// # Panics
    /// If there is none.
    pub fn of(name: &str) -> Choice {
        let entry = by_name(name).expect("the name of a registered policy");
        Choice { entry, settings: Settings::NONE }
    }

    /// The policy that `text` names: `clock`, or with settings `lru-k:k=3`, several joined by `:`.
    ///
    /// # Errors
    /// If there is no such policy, it has no such setting, or a value is outside its range.
    pub fn parse(text: &str) -> Result<Choice, SettingError> {
        let (name, settings) = text.split_once(':').unwrap_or((text, ""));
        let entry = by_name(name).ok_or(SettingError::NoSuchPolicy)?;
        Ok(Choice { entry, settings: Settings::parse(settings, entry.about.settings)? })
    }

    /// Makes one with no frame in it; the settings are those of the choice.
    pub fn make(&self, parameters: &Parameters) -> Replacement {
        (self.entry.make)(&Parameters { settings: self.settings, ..*parameters })
    }
}

impl PartialEq for Choice {
    fn eq(&self, other: &Choice) -> bool {
        self.entry.about.name == other.entry.about.name && self.settings == other.settings
    }
}

/// What users are told of a policy.
#[derive(Debug)]
pub struct About {
    /// What users type: lower case.
    pub name: &'static str,
    /// What it evicts, in one line.
    pub line: &'static str,
    /// Where it was first described.
    pub paper: &'static str,
    /// What can be set, each with its default; at most [`Settings::MAX`].
    pub settings: &'static [Setting],
}

/// A policy that can be asked for by name.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What users are told of it.
    pub about: &'static About,
    /// Makes one with no frame in it.
    pub make: fn(&Parameters) -> Replacement,
}

/// A policy that can be registered.
pub trait Registered: Policy + Sized {
    /// What users are told of it.
    const ABOUT: About;
    /// Whether it ever asks for accessed bits; worlds that keep them in software need not, if not.
    const READS_BITS: bool = true;

    /// One with no frame in it.
    ///
    /// # Panics
    /// If the numbers of its frames do not fit in 32 bits.
    fn new(parameters: &Parameters) -> Self;
}

/// Code that is compiled for each policy by itself: see [`visit`].
pub trait Visitor: Sized {
    /// What it makes.
    type Output;
    /// For a policy that is told of nothing.
    fn blind<P: Registered + 'static>(self) -> Self::Output;
    /// For one that is told of every reference.
    fn observed<P: Registered + Observe + 'static>(self) -> Self::Output;
    /// For one that is told the future.
    fn foreseen<P: Registered + Foresee + 'static>(self) -> Self::Output;
    /// For one that decides how many frames a process holds.
    fn sizing<P: Registered + Sizing + 'static>(self) -> Self::Output;
}

/// What a policy is made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parameters {
    /// The lowest frame that it will be given.
    pub first: Frame,
    /// How many frames there are from `first` on: they size its arrays, and shares of memory are
    /// shares of them.
    pub frames: usize,
    /// How many pages there are, if their identities are the numbers below that: a policy then
    /// finds what it remembers of one by its number. Must hold for every page that it is given.
    pub pages: Option<u32>,
    /// What chance starts from, in policies that play.
    pub seed: u64,
    /// What the user set; the rest has its default.
    pub settings: Settings,
}

impl Parameters {
    /// For the frames `0..frames` and pages of any identity, with seed 0 and all settings at their
    /// defaults.
    pub const fn new(frames: usize) -> Parameters {
        Parameters { first: Frame(0), frames, pages: None, seed: 0, settings: Settings::NONE }
    }
}

/// A stable name for the contents of a frame: the same page has it before and after an eviction, so
/// that a policy can recognise one that comes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PageId(pub u64);

/// What hardware can tell about a resident frame: one bit of use, one of change. And the time.
pub trait Witness {
    /// Reads the accessed bit of `frame` and clears it.
    fn take_accessed(&mut self, frame: Frame) -> bool;

    /// The same for `frame` and those after it, until one was not accessed or `most` were: how many
    /// were. A world that keeps many bits in a word can do them at once.
    fn take_accessed_run(&mut self, frame: Frame, most: usize) -> usize {
        (0..most).take_while(|&at| self.take_accessed(Frame(frame.0 + at as u32))).count()
    }

    /// Whether evicting `frame` costs a write.
    fn is_dirty(&self, frame: Frame) -> bool;

    /// Virtual time: references made so far where every one is seen, else nanoseconds.
    fn now(&self) -> u64;

    /// Asks for a dirty `frame` to be written back while it stays where it is, so that it can be had
    /// without a wait later. A world that cannot write in advance ignores it.
    fn launder(&mut self, frame: Frame) {
        let _ = frame;
    }
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

    /// Chooses a victim, and puts `page`, for which it makes room, into its frame at once; `None` only
    /// if no frame is evictable. The papers' step for a miss when memory is full: some choose by the
    /// page that comes.
    ///
    /// The same as [`evict`](Self::evict) and [`insert`](Self::insert), unless a policy says otherwise.
    #[inline]
    fn replace(&mut self, page: PageId, witness: &mut dyn Witness) -> Option<Frame> {
        let frame = self.evict(witness)?;
        self.insert(frame, page);
        Some(frame)
    }

    /// A beat of the timer, for policies that look at the accessed bits from time to time. The world
    /// chooses the period: one that counts references follows [`period`](Self::period).
    fn tick(&mut self, witness: &mut dyn Witness) {
        let _ = witness;
    }

    /// References between two beats; 0 if it needs none.
    fn period(&self) -> u64 {
        0
    }

    /// Whether the reference that loads a page counts as a use, where bits are kept in software:
    /// whether a new page's accessed bit is set. Hardware sets it always.
    fn load_is_use(&self) -> bool {
        true
    }

    /// Shows people what it keeps: its lists in order, its hands, what it remembers. Called by who
    /// explains a policy, never by who runs one; a policy with nothing to show shows nothing.
    fn show(&self, board: &mut dyn Board) {
        let _ = board;
    }

    /// A look at what it remembers of a page that may come soon: the value means nothing, but its
    /// cache line is there in time.
    #[inline]
    fn peek(&self, page: PageId) -> u32 {
        let _ = page;
        0
    }

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

/// A policy that is told the future.
pub trait Foresee: Policy {
    /// Says that the next reference to `frame` will be the one at time `next`, `u64::MAX` for never.
    /// Told after every insertion and every reference.
    fn foretell(&mut self, frame: Frame, next: u64);
}

/// A policy that decides how many frames a process holds, not only which: it gives up frames that
/// nobody asked for.
pub trait Sizing: Policy {
    /// Notes a reference to `frame` at virtual time `now`; one that reads accessed bits ignores it.
    fn touch(&mut self, frame: Frame, now: u64) {
        let _ = (frame, now);
    }

    /// Takes a frame away that the process does not deserve any more, if there is one. Asked after
    /// every reference until it says `None`; `fault` says whether that reference was a fault.
    fn release(&mut self, fault: bool, witness: &mut dyn Witness) -> Option<Frame>;
}

/// A policy as it comes from the registry: what it needs to be told is in its type.
pub enum Replacement {
    /// Needs no more than accessed bits: runs anywhere.
    Blind(Box<dyn Policy>),
    /// Needs every reference.
    Observed(Box<dyn Observe>),
    /// Needs the future.
    Foreseen(Box<dyn Foresee>),
    /// Decides how many frames a process holds.
    Sizing(Box<dyn Sizing>),
}

impl Replacement {
    /// The policy, whatever it needs.
    pub fn as_policy(&self) -> &dyn Policy {
        match self {
            Replacement::Blind(policy) => policy.as_ref(),
            Replacement::Observed(policy) => policy.as_ref(),
            Replacement::Foreseen(policy) => policy.as_ref(),
            Replacement::Sizing(policy) => policy.as_ref(),
        }
    }

    /// The policy, whatever it needs. Who drives one that needs more must tell it more.
    pub fn as_policy_mut(&mut self) -> &mut dyn Policy {
        match self {
            Replacement::Blind(policy) => policy.as_mut(),
            Replacement::Observed(policy) => policy.as_mut(),
            Replacement::Foreseen(policy) => policy.as_mut(),
            Replacement::Sizing(policy) => policy.as_mut(),
        }
    }

    /// Notes a reference, if the policy is one that observes them.
    #[inline]
    pub fn touch(&mut self, frame: Frame) {
        if let Replacement::Observed(policy) = self {
            policy.touch(frame);
        }
    }
}

#[cfg(test)]
mod batches;
#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests {
    use super::board::{Held, Member};
    use super::testing::{Bits, Memory, Step, TEXTBOOK, faults};
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn names_are_unique_and_found() {
        for (at, entry) in POLICIES.iter().enumerate() {
            let name = entry.about.name;
            let first = POLICIES.iter().position(|other| other.about.name == name);
            assert_eq!(first, Some(at), "{name} is registered twice");
            assert_eq!(by_name(name).map(|found| found.about.line), Some(entry.about.line));
            assert!(entry.about.settings.len() <= Settings::MAX, "{name} has too many settings");
            for setting in entry.about.settings {
                assert!(setting.range.contains(&setting.default), "{name}:{}", setting.name);
            }
            assert_eq!(name, name.to_lowercase());
        }
        assert!(by_name("nothing").is_none());
    }

    #[test]
    fn every_policy_faults_once_a_page_when_all_fit() {
        for entry in POLICIES {
            let name = entry.about.name;
            assert_eq!(faults(name, 6, TEXTBOOK), 6, "{name}");
        }
    }

    #[test]
    fn every_policy_empties_and_starts_where_its_frames_do() {
        for entry in POLICIES {
            let name = entry.about.name;
            let parameters = Parameters { first: Frame(100), ..Parameters::new(4) };
            let mut replacement = (entry.make)(&parameters);
            let policy = replacement.as_policy_mut();
            let mut bits = Bits::new(104);
            assert_eq!(policy.evict(&mut bits), None, "{name}");
            for frame in 100..104 {
                policy.insert(Frame(frame), PageId(frame.into()));
            }
            policy.remove(Frame(101));
            assert_eq!(policy.len(), 3);
            let mut out = [(); 3].map(|()| policy.evict(&mut bits).expect("three are left").0);
            out.sort_unstable();
            assert_eq!(out, [100, 102, 103], "{name}");
            assert!(policy.is_empty() && policy.evict(&mut bits).is_none(), "{name}");
        }
    }

    #[test]
    fn what_a_policy_shows_of_frames_is_what_it_holds() {
        #[derive(Default)]
        struct Seen {
            lists: usize,
            frames: Vec<u32>,
        }
        impl Board for Seen {
            fn list(&mut self, _name: &'static str, members: &mut dyn Iterator<Item = Member>) {
                self.lists += 1;
                self.frames.extend(members.filter_map(|member| match member.held {
                    Held::Frame(frame) => Some(frame.0),
                    Held::Page(_) => None,
                }));
            }
            fn number(&mut self, _name: &'static str, _value: f64) {}
        }
        for entry in POLICIES {
            let name = entry.about.name;
            let mut memory = Memory::new(name, 4);
            for (at, &page) in TEXTBOOK.iter().enumerate() {
                memory.step(Step::Use(page), at as u64 + 2);
                let mut seen = Seen::default();
                memory.policy.as_policy().show(&mut seen);
                assert!(seen.lists > 0, "{name} shows nothing");
                seen.frames.sort_unstable();
                seen.frames.dedup();
                let held = (0..4).filter(|&frame| memory.holds[frame as usize].is_some());
                assert_eq!(seen.frames, held.collect::<Vec<u32>>(), "{name}, reference {at}");
            }
        }
    }

    #[test]
    fn a_visitor_meets_the_type_that_the_registry_makes() {
        struct Which;
        impl Visitor for Which {
            type Output = &'static str;
            fn blind<P: Registered>(self) -> &'static str {
                "blind"
            }
            fn observed<P: Registered + Observe>(self) -> &'static str {
                "observed"
            }
            fn foreseen<P: Registered + Foresee>(self) -> &'static str {
                "foreseen"
            }
            fn sizing<P: Registered + Sizing>(self) -> &'static str {
                "sizing"
            }
        }
        for entry in POLICIES {
            let expected = match (entry.make)(&Parameters::new(1)) {
                Replacement::Blind(_) => "blind",
                Replacement::Observed(_) => "observed",
                Replacement::Foreseen(_) => "foreseen",
                Replacement::Sizing(_) => "sizing",
            };
            assert_eq!(visit(entry.about.name, Which), Some(expected));
        }
        assert_eq!(visit("nothing", Which), None);
        let blind: Vec<_> =
            POLICIES.iter().filter(|e| visit(e.about.name, Which) == Some("blind")).collect();
        assert!(blind.iter().all(|entry| entry.about.name != "lru"), "no hardware sees each use");
    }
}
