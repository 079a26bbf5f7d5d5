//! The kernel's heap: the memory manager's slabs, on one part of RAM that boot sets aside.
//!
//! It holds what the memory manager makes once (a descriptor for each frame, rings of policies) and
//! what the kernel makes now and then (processes, areas). It never grows: 4 MiB and a sixteenth of
//! RAM are more than all per-frame arrays together, which are below 2%. A large swap has arrays by
//! slot that come to more than that, and so may long arguments of the first program: who starts the
//! machine says how large they are (`swap=`, `arguments=`), and then they have room of their own.
//!
//! ```text
//!     start ── boot's: records of the heap ── slabs and whole frames ──▶ ◀── arrays above 4 MiB ── end
//! ```
//!
//! What is allocated before the heap works, its own records above all, is never given back.
//!
//! Each processor has its own magazines ([`cpu::magazines`]). Until the first one has its `Cpu`,
//! there are shared ones behind a lock.

use core::alloc::{GlobalAlloc, Layout};
use core::ops::Range;
use core::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use spin::{Mutex, Once};
use vellum_mm::addr::{Frame, PAGE_BYTES};
use vellum_mm::slab::{Heap, Magazines};

use super::{cpu, paging};

#[global_allocator]
static KERNEL_HEAP: KernelHeap = KernelHeap;

/// The heap, once it works.
static HEAP: Once<Heap> = Once::new();
/// What is left for allocations before that.
static BOOT: Mutex<Range<usize>> = Mutex::new(0..0);
/// The first address that the heap gives.
static FIRST: AtomicUsize = AtomicUsize::new(usize::MAX);
/// Whether processors have magazines of their own.
static OWN: AtomicBool = AtomicBool::new(false);
static SHARED: Mutex<Magazines> = Mutex::new(Magazines::new());

const PAGE: usize = PAGE_BYTES as usize;

/// Bytes for each slot of swap: two words of 32 bits, and a share of what is kept by cluster.
const SLOT_BYTES: u64 = 9;
/// Copies of the arguments that a start makes: as words, as a list, and that again for each try, of
/// pieces that are no whole frames.
const ARGUMENTS_COPIES: u64 = 4;
/// The most that a heap can have.
const BYTES_MAX: u64 = 64 << 30;

/// Bytes of the heap of a machine with so much RAM and swap, whose first program has arguments of
/// so many bytes; whole pages.
pub(super) const fn bytes_for(ram_bytes: u64, swap_bytes: u64, arguments_bytes: u64) -> u64 {
    let slots_bytes = (swap_bytes / PAGE_BYTES).saturating_mul(SLOT_BYTES);
    let told_bytes = arguments_bytes.saturating_mul(ARGUMENTS_COPIES);
    let bytes = ((4 << 20) + ram_bytes / 16).saturating_add(slots_bytes).saturating_add(told_bytes);
    if bytes > BYTES_MAX { BYTES_MAX } else { bytes & !0xfff }
}

/// The most swap that a heap of `bytes` has room for, if the machine has so much RAM. Half of what
/// a heap has without swap is left for all else.
pub(super) const fn swap_bytes_max(bytes: u64, ram_bytes: u64) -> u64 {
    bytes.saturating_sub(bytes_for(ram_bytes, 0, 0) / 2) / SLOT_BYTES * PAGE_BYTES
}

/// Gives the heap its memory.
///
/// # Safety
/// The `bytes` at `base`, an address of the direct map, must be usable RAM that nobody else uses,
/// for ever.
pub(super) unsafe fn init(base: *mut u8, bytes: usize) {
    let start = base.expose_provenance();
    *BOOT.lock() = start..start + bytes;
    let frame = |address: usize| Frame(((address - start) / PAGE) as u32 + first_frame(base));
    let heap = Heap::new(frame(start)..frame(start + bytes));
    // A page is left for what handing over the rest allocates.
    let rest = {
        let mut boot = BOOT.lock();
        let first = boot.start.next_multiple_of(PAGE) + PAGE;
        assert!(first < boot.end, "{bytes} bytes are too few for a heap");
        let rest = first..boot.end;
        boot.end = first;
        rest
    };
    heap.add(frame(rest.start)..frame(rest.end));
    FIRST.store(rest.start, Relaxed);
    HEAP.call_once(|| heap);
}

/// Whether so many bytes can be had in one piece: who must not fail asks before.
pub(crate) fn has_room(bytes: usize) -> bool {
    HEAP.get().is_some_and(|heap| heap.longest_run() * PAGE >= bytes.next_power_of_two())
}

fn first_frame(base: *mut u8) -> u32 {
    (paging::physical(base) / PAGE_BYTES) as u32
}

/// From now on every processor that allocates has its `Cpu`.
pub(super) fn use_own_magazines() {
    OWN.store(true, Release);
}

/// Memory before there is a heap.
fn boot_alloc(layout: Layout) -> *mut u8 {
    let mut boot = BOOT.lock();
    let start = boot.start.next_multiple_of(layout.align());
    match start.checked_add(layout.size()) {
        Some(end) if end <= boot.end => {
            boot.start = end;
            core::ptr::with_exposed_provenance_mut(start)
        }
        _ => core::ptr::null_mut(),
    }
}

struct KernelHeap;

// SAFETY: the heap gives disjoint pieces of memory that is handed over for good, as large and
// aligned as asked, and so does boot's part, which gets nothing back. Neither unwinds: panics end
// the kernel.
unsafe impl GlobalAlloc for KernelHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(heap) = HEAP.get() else { return boot_alloc(layout) };
        let (bytes, align) = (layout.size(), layout.align());
        let found = if OWN.load(Acquire) {
            heap.alloc(cpu::magazines(), bytes, align)
        } else {
            heap.alloc(&mut SHARED.lock(), bytes, align)
        };
        found.map_or(core::ptr::null_mut(), paging::direct)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let Some(heap) = HEAP.get() else { return };
        if memory.addr() < FIRST.load(Relaxed) {
            return;
        }
        let (address, bytes, align) = (paging::physical(memory), layout.size(), layout.align());
        if OWN.load(Acquire) {
            heap.free(cpu::magazines(), address, bytes, align);
        } else {
            heap.free(&mut SHARED.lock(), address, bytes, align);
        }
    }
}
