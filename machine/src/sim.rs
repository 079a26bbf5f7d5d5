//! A simulated machine: RAM and processors with TLBs.
//!
//! [`Sim::access`] is what a processor does with an address before it can use the memory behind it.
//! It is the innermost loop of every experiment, so a hit takes no lock, allocates nothing and knows
//! no policy; its cost in virtual time is a matter of the [`Profile`](crate::profile::Profile).
//!
//! ```text
//!   access(cpu, space, root, page, Write) ──> Hit { frame, level }              in a TLB
//!                                         ──> Walked { frame, entries_read }    tables read, A/D set
//!                                         ──> Fault                             for the memory manager
//! ```
//!
//! Knows nothing of: time, what an instruction is, who runs on which processor.

use vellum_mm::addr::{Frame, Page, Pages};
use vellum_mm::machine::{Access, Machine, Memory, SpaceId, Table, Tlb};

use crate::mmu::{is_canonical, walk};
use crate::profile::Profile;
use crate::ram::{Ram, RamError};
use crate::tlb::{Answer, CpuTlb};

/// Which TLB held a translation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Level {
    /// The first level, whose latency an instruction's own hides.
    L1,
    /// The second level.
    L2,
}

/// What became of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Translation {
    /// A TLB held the translation.
    Hit {
        /// The frame.
        frame: Frame,
        /// Which TLB.
        level: Level,
    },
    /// The tables hold it, or a write had to mark its entry dirty first.
    Walked {
        /// The frame.
        frame: Frame,
        /// Entries read: 4 for a whole walk to 4 KiB, 1 if the upper levels were cached.
        entries_read: u32,
    },
    /// A page fault; nothing was marked.
    Fault,
}

impl Translation {
    /// The frame, unless it is a fault.
    #[inline]
    pub const fn frame(self) -> Option<Frame> {
        match self {
            Translation::Hit { frame, .. } | Translation::Walked { frame, .. } => Some(frame),
            Translation::Fault => None,
        }
    }
}

/// What the TLBs have done: of one processor, or in sum.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Accesses.
    pub lookups: u64,
    /// Accesses that no first-level TLB could translate.
    pub l1_misses: u64,
    /// Walks, which is misses of the second level and dirty assists.
    pub walks: u64,
    /// Entries that walks read, those of walks that ended in a fault included.
    pub entries_read: u64,
    /// Walks made only because a write found a cached entry not known to be dirty.
    pub assists: u64,
    /// Accesses that ended in a fault.
    pub faults: u64,
    /// Switches to another address space.
    pub switches: u64,
    /// Pages invalidated one by one.
    pub pages_invalidated: u64,
    /// Address spaces flushed as a whole.
    pub flushes: u64,
}

/// A simulated machine.
///
/// `Sync`: its processors may be driven from several threads, each by one at a time; see
/// [`tlb`](crate::tlb) for what an invalidation may then expect.
pub struct Sim {
    ram: Ram,
    cpus: Box<[CpuTlb]>,
}

impl Sim {
    /// A machine with `cpus` processors of `profile` around `ram`.
    pub fn new(profile: &Profile, cpus: u32, ram: Ram) -> Sim {
        Sim { ram, cpus: (0..cpus).map(|_| CpuTlb::new(&profile.tlb)).collect() }
    }

    /// A machine as `profile` describes it, with `frames` frames whose contents are not kept.
    pub fn with_frames(profile: &Profile, frames: u32) -> Result<Sim, RamError> {
        Ok(Sim::new(profile, profile.cpu.count.get(), Ram::new(frames)?))
    }

    /// Its RAM.
    pub fn ram(&self) -> &Ram {
        &self.ram
    }

    /// Number of processors.
    pub fn cpus(&self) -> u32 {
        self.cpus.len() as u32
    }

    /// Translates a user-mode `access` of processor `cpu` to `page` of `space`, whose tables start at
    /// `root`.
    ///
    /// Switches the processor to `space` if it was in another. A cached translation whose rights do
    /// not permit the access faults without a walk, as on real processors: the memory manager must
    /// expect such a *spurious* fault after it has raised rights without invalidating.
    ///
    /// # Panics
    /// If there is no such processor, or an entry names a table beyond the end of RAM.
    #[inline]
    pub fn access(
        &self,
        cpu: u32,
        space: SpaceId,
        root: Frame,
        page: Page,
        access: Access,
    ) -> Translation {
        let tlb = &self.cpus[cpu as usize];
        if !is_canonical(page) {
            return self.not_canonical(tlb);
        }
        match tlb.quick(space, page, access) {
            (_, Some(frame)) => Translation::Hit { frame, level: Level::L1 },
            (tag, None) => self.look_further(tlb, space, root, tag, page, access),
        }
    }

    /// A general-protection exception on real processors; here a fault like any other.
    #[cold]
    #[allow(clippy::unused_self)] // keeps the hot path's registers as they are
    fn not_canonical(&self, tlb: &CpuTlb) -> Translation {
        tlb.counts.lookups.add(1);
        tlb.counts.faults.add(1);
        Translation::Fault
    }

    #[inline(never)]
    fn look_further(
        &self,
        tlb: &CpuTlb,
        space: SpaceId,
        root: Frame,
        tag: u64,
        page: Page,
        access: Access,
    ) -> Translation {
        match tlb.ask(tag, page, access) {
            Answer::Frame(frame, is_first) => {
                let level = if is_first { Level::L1 } else { Level::L2 };
                return Translation::Hit { frame, level };
            }
            Answer::Forbidden => {
                // The fault drops the entry, so that the retry sees the tables as they are then.
                tlb.counts.faults.add(1);
                tlb.forget_faulting(space, tag, page);
                return Translation::Fault;
            }
            Answer::Clean => tlb.counts.assists.add(1),
            Answer::Miss => {}
        }
        tlb.counts.walks.add(1);
        match walk(&self.ram, tlb.start(space, root, page), page, access) {
            Ok(leaf) => {
                tlb.counts.entries_read.add(u64::from(leaf.entries_read));
                tlb.insert(space, tag, page, access, &leaf);
                Translation::Walked { frame: leaf.frame, entries_read: leaf.entries_read }
            }
            Err(refused) => {
                tlb.counts.entries_read.add(u64::from(refused.entries_read));
                tlb.counts.faults.add(1);
                tlb.forget_faulting(space, tag, page);
                Translation::Fault
            }
        }
    }

    /// Switches processor `cpu` to `space`, as a context switch does.
    ///
    /// # Panics
    /// If there is no such processor.
    pub fn activate(&self, cpu: u32, space: SpaceId) {
        self.cpus[cpu as usize].activate(space);
    }

    /// What processor `cpu` has done.
    ///
    /// # Panics
    /// If there is no such processor.
    pub fn counts(&self, cpu: u32) -> Counts {
        let counts = &self.cpus[cpu as usize].counts;
        Counts {
            lookups: counts.lookups.get(),
            l1_misses: counts.l1_misses.get(),
            walks: counts.walks.get(),
            entries_read: counts.entries_read.get(),
            assists: counts.assists.get(),
            faults: counts.faults.get(),
            switches: counts.switches.get(),
            pages_invalidated: counts.pages_invalidated.get(),
            flushes: counts.flushes.get(),
        }
    }

    /// What all processors have done.
    pub fn counts_total(&self) -> Counts {
        (0..self.cpus()).map(|cpu| self.counts(cpu)).fold(Counts::default(), |a, b| Counts {
            lookups: a.lookups + b.lookups,
            l1_misses: a.l1_misses + b.l1_misses,
            walks: a.walks + b.walks,
            entries_read: a.entries_read + b.entries_read,
            assists: a.assists + b.assists,
            faults: a.faults + b.faults,
            switches: a.switches + b.switches,
            pages_invalidated: a.pages_invalidated + b.pages_invalidated,
            flushes: a.flushes + b.flushes,
        })
    }
}

impl Memory for Sim {
    #[inline]
    fn table(&self, frame: Frame) -> &Table {
        self.ram.table(frame)
    }

    #[inline]
    fn zero(&self, frame: Frame) {
        self.ram.zero(frame);
    }

    #[inline]
    fn copy(&self, from: Frame, to: Frame) {
        self.ram.copy(from, to);
    }
}

impl Tlb for Sim {
    fn invalidate(&self, space: SpaceId, pages: Pages) {
        self.cpus.iter().for_each(|tlb| tlb.invalidate(space, pages));
    }

    fn invalidate_space(&self, space: SpaceId) {
        self.cpus.iter().for_each(|tlb| tlb.flush(space));
    }
}

impl Machine for Sim {}
