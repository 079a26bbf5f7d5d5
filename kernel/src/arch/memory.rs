//! RAM, as the memory manager asks for it: frames, through the direct map.
//!
//! The methods are safe for every argument: a frame that is not usable RAM, or that boot has kept
//! (the image, the heap, the archive), is refused with a panic. Otherwise a wrong number could
//! overwrite the kernel without a trace.
//!
//! Programs and devices change frames at any time, so their bytes are never lent as Rust slices.
//! Tables are atomic words; everything else is copied by string instructions, which the compiler
//! cannot see into.

use alloc::boxed::Box;
use core::arch::asm;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use spin::Once;
use vellum_mm::addr::{Frame, PAGE_BYTES};
use vellum_mm::machine::{Memory, Table};

use super::paging;

/// Frames that may be used, set once at boot.
static USABLE: Once<Box<[Range<u32>]>> = Once::new();
/// The longest range of them: almost every question is about one of its frames.
static LONGEST: (AtomicU32, AtomicU32) = (AtomicU32::new(0), AtomicU32::new(0));

/// Lets the `ranges` (in bytes, of whole pages) be used. Once, at boot.
pub(super) fn init(ranges: &[Range<u64>]) {
    let frames =
        |range: &Range<u64>| (range.start / PAGE_BYTES) as u32..(range.end / PAGE_BYTES) as u32;
    let usable = USABLE.call_once(|| ranges.iter().map(frames).collect());
    let longest = usable.iter().max_by_key(|range| range.len()).expect("there is RAM");
    LONGEST.0.store(longest.start, Relaxed);
    LONGEST.1.store(longest.end, Relaxed);
}

/// The machine's RAM.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PhysicalMemory;

#[allow(clippy::unused_self, reason = "callers have a machine, which has RAM")]
impl PhysicalMemory {
    /// Where `frame` is.
    #[inline]
    fn bytes(frame: Frame) -> *mut u8 {
        let longest = LONGEST.0.load(Relaxed)..LONGEST.1.load(Relaxed);
        if !longest.contains(&frame.0) {
            check(frame);
        }
        paging::direct(frame.address().0)
    }

    /// Copies bytes of `frame` from `offset` up into `bytes`.
    ///
    /// # Panics
    /// If they do not all lie in the frame, or the frame is not usable RAM.
    #[inline]
    pub(crate) fn read(self, frame: Frame, offset: u64, bytes: &mut [u8]) {
        check_span(offset, bytes.len());
        let from = PhysicalMemory::bytes(frame).wrapping_add(offset as usize);
        // SAFETY: the direct map has the frame, the span is inside it, and `bytes` is ours.
        unsafe { copy_bytes(from, bytes.as_mut_ptr(), bytes.len()) };
    }

    /// Copies `bytes` into `frame` from `offset` up.
    ///
    /// # Panics
    /// If they do not all fit in the frame, or the frame is not usable RAM.
    #[inline]
    pub(crate) fn write(self, frame: Frame, offset: u64, bytes: &[u8]) {
        check_span(offset, bytes.len());
        let to = PhysicalMemory::bytes(frame).wrapping_add(offset as usize);
        // SAFETY: the direct map has the frame, the span is inside it, and no Rust value is in it
        // but tables, whose words may change at any time.
        unsafe { copy_bytes(bytes.as_ptr(), to, bytes.len()) };
    }

    /// The frame, as devices are given it.
    pub(super) fn pointer(self, frame: Frame) -> *mut u8 {
        PhysicalMemory::bytes(frame)
    }
}

/// Checks a frame that is not in the longest range.
#[cold]
fn check(frame: Frame) {
    let usable = USABLE.get().is_some_and(|all| all.iter().any(|range| range.contains(&frame.0)));
    assert!(usable, "{frame} is not usable RAM");
}

fn check_span(offset: u64, bytes: usize) {
    let fits = offset.checked_add(bytes as u64).is_some_and(|end| end <= PAGE_BYTES);
    assert!(fits, "{bytes} bytes at offset {offset} of a frame");
}

/// Copies `count` bytes.
///
/// # Safety
/// The first can be read and the second written, for that many bytes, and they do not overlap.
#[inline]
unsafe fn copy_bytes(from: *const u8, to: *mut u8, count: usize) {
    // SAFETY: the caller's promise; the direction flag is clear wherever Rust runs.
    unsafe {
        asm!(
            "rep movsq",
            "mov ecx, {rest:e}",
            "rep movsb",
            rest = in(reg) count % 8,
            inout("rcx") count / 8 => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags)
        );
    }
}

impl Memory for PhysicalMemory {
    #[inline]
    fn table(&self, frame: Frame) -> &Table {
        let table = PhysicalMemory::bytes(frame).cast::<Table>();
        // SAFETY:
        // 1. The direct map has every usable frame for ever, aligned to 4 KiB.
        // 2. No usable frame is lent to Rust as anything but a `Table`.
        // 3. Its words are atomic, so processors and programs may change them at any time.
        unsafe { &*table }
    }

    #[inline]
    fn zero(&self, frame: Frame) {
        let bytes = PhysicalMemory::bytes(frame);
        // A quarter of the steps of `rep stosq`, each of which an emulator counts and pays for. Up to an
        // end at index 0, which needs no comparison.
        // SAFETY: the direct map has the frame, and it holds no Rust value but atomic words.
        unsafe {
            asm!(
                "vxorps ymm0, ymm0, ymm0",
                "2:",
                ".irp far, 0, 256, 512, 768",
                ".irp near, 0, 32, 64, 96, 128, 160, 192, 224",
                "vmovaps [{end} + {at} + \\far + \\near], ymm0",
                ".endr",
                ".endr",
                "add {at}, 1024",
                "jnz 2b",
                "vzeroupper",
                out("xmm0") _,
                end = in(reg) bytes.wrapping_add(PAGE_BYTES as usize),
                at = inout(reg) -PAGE_BYTES.cast_signed() => _,
                options(nostack)
            );
        }
    }

    #[inline]
    fn copy(&self, from: Frame, to: Frame) {
        let (from, to) = (PhysicalMemory::bytes(from), PhysicalMemory::bytes(to));
        // SAFETY: the direct map has both frames, and they hold no Rust value but atomic words.
        unsafe {
            asm!(
                "2:",
                ".irp offset, 0, 128, 256, 384, 512, 640, 768, 896",
                "vmovaps ymm0, [{from} + {at} + \\offset]",
                "vmovaps ymm1, [{from} + {at} + 32 + \\offset]",
                "vmovaps ymm2, [{from} + {at} + 64 + \\offset]",
                "vmovaps ymm3, [{from} + {at} + 96 + \\offset]",
                "vmovaps [{to} + {at} + \\offset], ymm0",
                "vmovaps [{to} + {at} + 32 + \\offset], ymm1",
                "vmovaps [{to} + {at} + 64 + \\offset], ymm2",
                "vmovaps [{to} + {at} + 96 + \\offset], ymm3",
                ".endr",
                "add {at}, 1024",
                "jnz 2b",
                "vzeroupper",
                from = in(reg) from.wrapping_add(PAGE_BYTES as usize),
                to = in(reg) to.wrapping_add(PAGE_BYTES as usize),
                at = inout(reg) -PAGE_BYTES.cast_signed() => _,
                out("xmm0") _,
                out("xmm1") _,
                out("xmm2") _,
                out("xmm3") _,
                options(nostack)
            );
        }
    }
}
