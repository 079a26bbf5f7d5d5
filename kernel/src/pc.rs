//! The machine that the memory manager runs on here: RAM behind the direct map, and the translation
//! caches of all processors.
//!
//! A processor in the kernel never reads or writes through user addresses (copies go through the
//! direct map), so a stale translation can do no harm there. Only a processor in ring 3 must be
//! interrupted when a translation of its space goes:
//!
//! ```text
//!     who unmaps                          processor in ring 3 in that space
//!     ──────────                          ─────────────────────────────────
//!     stale := true
//!     in ring 3?  ── interrupt ─────────▶ trap: in ring 3 := false
//!     waits until it is not               before it returns: stale? forgets all
//! ```
//!
//! Nobody waits for a processor that is in the kernel, so whoever holds the kernel's lock may wait for
//! the others.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vellum_mm::addr::{Frame, Pages};
use vellum_mm::event::Event;
use vellum_mm::machine::{Machine, Memory, SpaceId, Table, Tlb};

use crate::arch::{PhysicalMemory, cpu, ipi, paging};

/// Above so many pages a processor forgets all translations rather than each.
const EACH_MAX: u64 = 32;
/// No space is loaded but the kernel's own.
const NOBODY: u32 = u32::MAX;

/// What one processor translates with.
#[repr(align(64))]
struct Translating {
    /// The space whose root is loaded.
    space: AtomicU32,
    in_ring_3: AtomicBool,
    /// Whether it must forget all translations before it returns to ring 3.
    stale: AtomicBool,
}

/// RAM and processors.
pub(crate) struct Pc {
    /// Contents of frames.
    pub(crate) memory: PhysicalMemory,
    cpus: Box<[Translating]>,
}

impl Pc {
    /// A machine with so many processors, numbered from 0.
    pub(crate) fn new(cpus: u32) -> Pc {
        let translating = || Translating {
            space: AtomicU32::new(NOBODY),
            in_ring_3: AtomicBool::new(false),
            stale: AtomicBool::new(false),
        };
        Pc { memory: PhysicalMemory, cpus: (0..cpus).map(|_| translating()).collect() }
    }

    /// Number of processors.
    pub(crate) fn cpus(&self) -> u32 {
        self.cpus.len() as u32
    }

    /// Lets processor `cpu`, which must be the one that asks, translate with `root`.
    pub(crate) fn load(&self, cpu: u32, space: Option<SpaceId>, root: Frame) {
        let space = space.map_or(NOBODY, |id| id.0);
        if self.cpus[cpu as usize].space.swap(space, Ordering::SeqCst) != space {
            paging::activate(root);
        }
    }

    /// Lets processor `cpu`, which must be the one that asks, translate with `root` if it still does
    /// with the tables of `space`, which end.
    pub(crate) fn unload(&self, cpu: u32, space: SpaceId, root: Frame) {
        if self.cpus[cpu as usize].space.load(Ordering::Relaxed) == space.0 {
            self.load(cpu, None, root);
        }
    }

    /// Says that processor `cpu` is about to run in ring 3.
    #[inline]
    pub(crate) fn enter_ring_3(&self, cpu: u32) {
        let own = &self.cpus[cpu as usize];
        own.in_ring_3.store(true, Ordering::SeqCst);
        if own.stale.load(Ordering::SeqCst) {
            own.stale.store(false, Ordering::SeqCst);
            paging::invalidate_all();
        }
    }

    /// Says that processor `cpu` is in the kernel again.
    #[inline]
    pub(crate) fn leave_ring_3(&self, cpu: u32) {
        self.cpus[cpu as usize].in_ring_3.store(false, Ordering::Release);
    }

    /// Makes every other processor that runs in `space` forget its translations.
    fn shoot_down(&self, space: SpaceId) {
        let own = cpu::id();
        let others = self.cpus.iter().enumerate().filter(|&(number, other)| {
            number as u32 != own && other.space.load(Ordering::SeqCst) == space.0
        });
        for (_, other) in others.clone() {
            other.stale.store(true, Ordering::SeqCst);
        }
        for (number, other) in others.clone() {
            if other.in_ring_3.load(Ordering::SeqCst) {
                ipi::shootdown(number as u32);
            }
        }
        for (_, other) in others {
            // Ends: the interrupt takes it out of ring 3, and before it returns there it forgets all.
            while other.in_ring_3.load(Ordering::SeqCst) && other.stale.load(Ordering::SeqCst) {
                core::hint::spin_loop();
            }
        }
    }
}

impl Memory for Pc {
    #[inline]
    fn table(&self, frame: Frame) -> &Table {
        self.memory.table(frame)
    }

    #[inline]
    fn zero(&self, frame: Frame) {
        self.memory.zero(frame);
    }

    #[inline]
    fn copy(&self, from: Frame, to: Frame) {
        self.memory.copy(from, to);
    }
}

impl Tlb for Pc {
    fn invalidate(&self, space: SpaceId, pages: Pages) {
        if self.cpus[cpu::id() as usize].space.load(Ordering::Relaxed) == space.0 {
            if pages.count() <= EACH_MAX {
                pages.iter().for_each(|page| paging::invalidate(page.address()));
            } else {
                paging::invalidate_all();
            }
        }
        if self.cpus.len() > 1 {
            self.shoot_down(space);
        }
    }

    fn invalidate_space(&self, space: SpaceId) {
        if self.cpus[cpu::id() as usize].space.load(Ordering::Relaxed) == space.0 {
            paging::invalidate_all();
        }
        if self.cpus.len() > 1 {
            self.shoot_down(space);
        }
    }
}

impl Machine for Pc {
    #[inline(always)]
    fn happened(&self, _event: Event) {}
}
