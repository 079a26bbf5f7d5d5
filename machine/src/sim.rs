//! A simulated machine: RAM and processors with TLBs.
//!
//! [`Sim::access`] is what a processor does with an address before it can use the memory behind it.
//! It is the innermost loop of every experiment, so a hit takes no lock, allocates nothing and
//! knows no policy; its cost in virtual time is a matter of the [`Profile`].
//!
//! ```text
//!   access(cpu, space, root, page, Write)
//!     ──> Hit { frame, level }              in a TLB
//!     ──> Walked { frame, entries_read }    the tables were read, accessed and dirty bits set
//!     ──> Fault                             for the memory manager
//! ```
//!
//! Knows nothing of: time, what an instruction is, who runs on which processor.

use std::sync::Mutex;

use vellum_mm::addr::{Frame, Page, Pages};
use vellum_mm::event::Event;
use vellum_mm::machine::{Access, Machine, Memory, SpaceId, Table, Tlb};

use crate::cached::{Answer, permits};
pub use crate::counts::Counts;
use crate::mmu::{Start, is_canonical, walk};
use crate::profile::Profile;
use crate::ram::{Ram, RamError};
use crate::tlb::{CpuTlb, Structure};

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

/// A simulated machine.
///
/// `Sync`: its processors may be driven from several threads, each by one at a time; see
/// [`tlb`](crate::tlb) for what an invalidation may then expect.
pub struct Sim {
    ram: Ram,
    cpus: Box<[CpuTlb]>,
    /// Frames that were freed, if anybody wants to know.
    freed: Option<Mutex<Vec<Frame>>>,
}

/// An access on its way beyond the first level.
struct Query {
    space: SpaceId,
    root: Frame,
    page: Page,
    access: Access,
    tag: u64,
    held: Option<u64>,
}

impl Sim {
    /// A machine with `cpus` processors of `profile` around `ram`.
    pub fn new(profile: &Profile, cpus: u32, ram: Ram) -> Sim {
        let cpus = (0..cpus).map(|_| CpuTlb::new(&profile.tlb)).collect();
        Sim { ram, cpus, freed: None }
    }

    /// A machine as `profile` describes it, with `frames` frames whose contents are not kept.
    pub fn with_frames(profile: &Profile, frames: u32) -> Result<Sim, RamError> {
        Ok(Sim::new(profile, profile.cpu.count.get(), Ram::new(frames)?))
    }

    /// Keeps the numbers of frames that are freed from now on, for [`take_freed`](Self::take_freed).
    pub fn keep_freed(&mut self) {
        self.freed = Some(Mutex::default());
    }

    /// Frames freed since the last call, in order, into `frames`; none unless they are kept.
    ///
    /// # Panics
    /// If another thread panicked while it freed a frame.
    pub fn take_freed(&self, frames: &mut Vec<Frame>) {
        frames.clear();
        if let Some(freed) = &self.freed {
            frames.append(&mut freed.lock().expect("no other thread panicked"));
        }
    }

    /// Its RAM.
    pub fn ram(&self) -> &Ram {
        &self.ram
    }

    /// Number of processors.
    pub fn cpus(&self) -> u32 {
        self.cpus.len() as u32
    }

    /// Translates a user-mode `access` of processor `cpu` to `page` of `space`, whose tables start
    /// at `root`.
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
            return not_canonical(tlb);
        }
        let (tag, held) = tlb.quick(space, page, access);
        match held {
            Some(value) if permits(value, access) => {
                Translation::Hit { frame: Frame(value as u32), level: Level::L1 }
            }
            _ => self.look_further(tlb, &Query { space, root, page, access, tag, held }),
        }
    }

    #[inline(never)]
    fn look_further(
        &self,
        tlb: &CpuTlb,
        &Query { space, root, page, access, tag, held }: &Query,
    ) -> Translation {
        let answer = tlb.ask(tag, held, page, access);
        if let Answer::Frame(frame, is_first) = answer {
            let level = if is_first { Level::L1 } else { Level::L2 };
            return Translation::Hit { frame, level };
        }
        if answer == Answer::Forbidden {
            tlb.forget(tag, page);
            tlb.forget_structure(space, page);
            tlb.counts.faults.add(1);
            return Translation::Fault;
        }
        tlb.counts.walks.add(1);
        let structure = tlb.structure(space, page);
        let start = structure.map_or(Start::root(root), Structure::start);
        match walk(&self.ram, start, page, access) {
            Ok(leaf) => {
                tlb.counts.entries_read.add(u64::from(leaf.entries_read));
                if answer == Answer::Miss {
                    tlb.insert(space, tag, page, access, &leaf);
                } else {
                    tlb.counts.assists.add(1);
                    tlb.replace(space, tag, page, access, &leaf);
                }
                Translation::Walked { frame: leaf.frame, entries_read: leaf.entries_read }
            }
            Err(refused) => {
                tlb.counts.entries_read.add(u64::from(refused.entries_read));
                tlb.counts.faults.add(1);
                // What led here is dropped, so that the retry sees the tables as they are then.
                if answer == Answer::Clean {
                    tlb.forget(tag, page);
                }
                if let Some(structure) = structure {
                    tlb.forget_found(structure);
                }
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
        self.cpus[cpu as usize].counts.get()
    }

    /// What all processors have done.
    pub fn counts_total(&self) -> Counts {
        let mut total = Counts::default();
        self.cpus.iter().for_each(|tlb| total.add(tlb.counts.get()));
        total
    }
}

/// A general-protection exception on real processors; here a fault like any other.
#[cold]
fn not_canonical(tlb: &CpuTlb) -> Translation {
    tlb.counts.lookups.add(1);
    tlb.counts.faults.add(1);
    Translation::Fault
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

impl Machine for Sim {
    #[inline]
    fn happened(&self, event: Event) {
        if let (Some(freed), Event::Free { frame }) = (&self.freed, event) {
            freed.lock().expect("no other thread panicked").push(frame);
        }
    }
}
