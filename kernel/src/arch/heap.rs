//! The kernel's heap: one part of RAM, set aside at boot.
//!
//! It holds what the memory manager makes once (a descriptor for each frame, rings of policies) and
//! what the kernel makes now and then (processes, areas). It never grows: 4 MiB and a sixteenth of
//! RAM are more than all per-frame arrays together, which are below 2%.

use talc::{TalcLock, source::Manual};

#[global_allocator]
static HEAP: TalcLock<spin::Mutex<()>, Manual> = TalcLock::new(Manual);

/// Bytes of the heap of a machine with so much RAM; whole pages.
pub(super) const fn bytes_for(ram_bytes: u64) -> u64 {
    ((4 << 20) + ram_bytes / 16) & !0xfff
}

/// Gives the heap its memory.
///
/// # Safety
/// The `bytes` at `base` must be mapped, writable and used by nobody else, for ever.
pub(super) unsafe fn init(base: *mut u8, bytes: usize) {
    // SAFETY: the caller hands the memory over for good, and it is never given back.
    let claimed = unsafe { HEAP.lock().claim(base, bytes) };
    assert!(claimed.is_some(), "{bytes} bytes are too few for a heap");
}
