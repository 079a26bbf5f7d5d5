//! An address space made by hand: the memory manager is not what is tested here.

use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;

use vellum_mm::addr::{Frame, PAGE_BYTES, TABLE_ENTRIES, VirtAddr};
use vellum_mm::machine::Memory;
use vellum_mm::translate::x86_64::{Entry, LEVELS, NO_EXECUTE, PRESENT, USER, WRITE};

use crate::arch::samples::{self, Sample};
use crate::arch::user::Context;
use crate::arch::{PhysicalMemory, paging};

/// Where the programs are.
const CODE: VirtAddr = VirtAddr(0x40_0000);
/// The end of their stack.
const STACK_END: VirtAddr = VirtAddr(0x80_0000);
/// A page that each test maps as it likes.
pub(super) const DATA: VirtAddr = VirtAddr(0x60_0000);

/// Frames that are never given back.
pub(super) struct Frames(Vec<Range<u32>>);

impl Frames {
    pub(super) fn new(memory: &[Range<u64>]) -> Frames {
        let frames =
            |range: &Range<u64>| (range.start / PAGE_BYTES) as u32..(range.end / PAGE_BYTES) as u32;
        Frames(memory.iter().map(frames).collect())
    }

    /// A frame of zeros, from the upper end of RAM: where there is RAM above 4 GiB, that is used.
    pub(super) fn take(&mut self) -> Frame {
        let frame = self.0.iter_mut().rev().find_map(DoubleEndedIterator::next_back);
        let frame = Frame(frame.expect("the machine has a few free frames"));
        PhysicalMemory.zero(frame);
        frame
    }
}

/// A root with the programs and a stack.
pub(super) struct Space {
    pub(super) root: Frame,
}

impl Space {
    /// Makes it and activates it.
    pub(super) fn new(frames: &mut Frames) -> Space {
        let ram = PhysicalMemory;
        let space = Space { root: frames.take() };
        let root = ram.table(space.root);
        paging::share(root);
        let code = space.map(frames, CODE, 0);
        ram.write(code, 0, samples::code());
        space.map(frames, VirtAddr(STACK_END.0 - PAGE_BYTES), WRITE | NO_EXECUTE);
        paging::activate(space.root);
        space
    }

    /// A program of the samples, about to run.
    pub(super) fn program(sample: Sample) -> Context {
        Context::new(CODE.0 + samples::offset(sample), STACK_END.0)
    }

    /// Maps a new frame of zeros for ring 3. What was mapped before may still be used, until the
    /// translation is invalidated.
    pub(super) fn map(&self, frames: &mut Frames, address: VirtAddr, bits: u64) -> Frame {
        let index = |level: u32| (address.0 >> (12 + 9 * (level - 1))) as usize % TABLE_ENTRIES;
        let mut table = self.root;
        for level in (2..=LEVELS).rev() {
            let word = &PhysicalMemory.table(table)[index(level)];
            if !Entry(word.load(Relaxed)).has(PRESENT) {
                word.store(Entry::of(frames.take(), WRITE | USER).0, Relaxed);
            }
            table = Entry(word.load(Relaxed)).frame();
        }
        let frame = frames.take();
        PhysicalMemory.table(table)[index(1)].store(Entry::of(frame, USER | bits).0, Relaxed);
        frame
    }
}
