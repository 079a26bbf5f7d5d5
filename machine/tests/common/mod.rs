//! Page tables built by hand, and the obvious walk through them that the processor's is judged by.

#![allow(dead_code)] // each test binary uses its part

use std::sync::atomic::Ordering::Relaxed;

use vellum_machine::profile::Profile;
use vellum_machine::ram::Ram;
use vellum_machine::sim::Sim;
use vellum_mm::addr::{Frame, Page};
use vellum_mm::machine::{Access, Memory};

pub(crate) const PRESENT: u64 = 1;
pub(crate) const WRITE: u64 = 1 << 1;
pub(crate) const USER: u64 = 1 << 2;
pub(crate) const ACCESSED: u64 = 1 << 5;
pub(crate) const DIRTY: u64 = 1 << 6;
pub(crate) const HUGE: u64 = 1 << 7;
pub(crate) const NX: u64 = 1 << 63;
/// A data page that a program may write.
pub(crate) const DATA: u64 = PRESENT | WRITE | USER | NX;
/// A table that restricts nothing.
pub(crate) const OPEN: u64 = PRESENT | WRITE | USER;

/// A machine with the default TLBs, `cpus` processors and `frames` frames.
pub(crate) fn sim(cpus: u32, frames: u32) -> Sim {
    Sim::new(&Profile::default(), cpus, Ram::new(frames).expect("a small machine fits"))
}

/// Hands out frames for tables and builds paths.
pub(crate) struct Builder {
    next: u32,
}

impl Builder {
    /// Takes frames from `first` up.
    pub(crate) fn new(first: u32) -> Builder {
        Builder { next: first }
    }

    /// A new table of zeros.
    pub(crate) fn table(&mut self, sim: &Sim) -> Frame {
        let frame = Frame(self.next);
        self.next += 1;
        sim.zero(frame);
        frame
    }

    /// Stores `entry` for `page` at `level`, making the tables above it as they are needed.
    pub(crate) fn map(&mut self, sim: &Sim, root: Frame, page: Page, level: u32, entry: u64) {
        let mut table = root;
        for above in (level + 1..=4).rev() {
            let slot = &sim.table(table)[index(page, above)];
            if slot.load(Relaxed) & PRESENT == 0 {
                let made = self.table(sim);
                slot.store(u64::from(made.0) << 12 | OPEN, Relaxed);
            }
            table = Frame((slot.load(Relaxed) >> 12) as u32);
        }
        sim.table(table)[index(page, level)].store(entry, Relaxed);
    }
}

/// The entry of `page` at `level`, if the tables reach that far.
pub(crate) fn entry(sim: &Sim, root: Frame, page: Page, level: u32) -> Option<u64> {
    let mut table = root;
    for above in (level + 1..=4).rev() {
        let value = sim.table(table)[index(page, above)].load(Relaxed);
        if value & PRESENT == 0 || value & HUGE != 0 {
            return None;
        }
        table = Frame((value >> 12) as u32);
    }
    Some(sim.table(table)[index(page, level)].load(Relaxed))
}

/// Where the entry of `page` is in a table of `level`.
pub(crate) fn index(page: Page, level: u32) -> usize {
    (page.0 >> (9 * (level - 1)) & 511) as usize
}

/// The frame that `page` maps to if the tables permit `access`: recursive, by division, level by
/// level.
pub(crate) fn naive(
    sim: &Sim,
    table: Frame,
    level: u32,
    page: Page,
    access: Access,
) -> Option<Frame> {
    let span = 512_u64.pow(level - 1);
    let value = sim.table(table)[(page.0 / span % 512) as usize].load(Relaxed);
    let is_permitted = match access {
        Access::Read => true,
        Access::Write => value & WRITE != 0,
        Access::Execute => value & NX == 0,
    };
    if value & PRESENT == 0 || value & USER == 0 || !is_permitted {
        return None;
    }
    let frame = value / 4096 % (1 << 32);
    if level == 1 {
        Some(Frame(frame as u32))
    } else if value & HUGE != 0 {
        Some(Frame((frame / span * span + page.0 % span) as u32))
    } else {
        naive(sim, Frame(frame as u32), level - 1, page, access)
    }
}
