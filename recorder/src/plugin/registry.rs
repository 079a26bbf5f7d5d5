//! Who is behind a virtual processor: QEMU numbers its threads, and reuses the numbers.
//!
//! Two tables by that number. The first is all that a reference needs: one load yields the slot.
//! The second holds what system calls need. Thread-local storage would say the same, but in a
//! library loaded at run time each look at it is a function call.

use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicUsize};

use crate::filter;
use crate::shared::Slot;

/// Virtual processors that can be told apart; QEMU's numbers grow when threads come and go.
const PROCESSORS: usize = 1 << 16;

static SLOTS: [AtomicPtr<u8>; PROCESSORS] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; PROCESSORS];
static THREADS: [AtomicPtr<Thread>; PROCESSORS] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; PROCESSORS];
/// One more than the largest number seen.
static END: AtomicUsize = AtomicUsize::new(0);

/// What is remembered of a thread between its callbacks.
pub(crate) struct Thread {
    pub(crate) slot: Slot<'static>,
    pub(crate) tid: u32,
    /// The system call that was entered, and its arguments.
    pub(crate) number: i64,
    pub(crate) arguments: [u64; 6],
    /// The place in the order of events that was taken at its entry.
    pub(crate) ticket: Option<u64>,
    /// Whether it holds the lock of the address space, and that of the files.
    pub(crate) holds_space: bool,
    pub(crate) holds_files: bool,
    /// What the entry of a call found out for its return.
    pub(crate) found: Option<crate::wire::FileKey>,
    /// Where the kernel stores a zero when the thread ends.
    pub(crate) clear_tid: u64,
}

/// The slot of virtual processor `vcpu`, if its thread has one.
#[inline(always)]
pub(crate) fn slot(vcpu: u32) -> Option<Slot<'static>> {
    let base = NonNull::new(SLOTS.get(vcpu as usize)?.load(Relaxed))?;
    // SAFETY: `join` stored the address of a slot of a mapping that is never unmapped.
    Some(unsafe { Slot::from_address(base) })
}

/// Binds `thread` to virtual processor `vcpu`; whether the number is in range.
pub(crate) fn join(vcpu: u32, thread: Thread) -> bool {
    let (Some(slot), Some(place)) = (SLOTS.get(vcpu as usize), THREADS.get(vcpu as usize)) else {
        return false;
    };
    let address = thread.slot.address().as_ptr();
    free(place.swap(Box::into_raw(Box::new(thread)), Release));
    slot.store(address, Release);
    END.fetch_max(vcpu as usize + 1, Relaxed);
    true
}

/// Forgets the thread of virtual processor `vcpu`.
pub(crate) fn leave(vcpu: u32) {
    let vcpu = vcpu as usize;
    if let (Some(slot), Some(place)) = (SLOTS.get(vcpu), THREADS.get(vcpu)) {
        slot.store(std::ptr::null_mut(), Release);
        free(place.swap(std::ptr::null_mut(), Acquire));
    }
}

/// Forgets every thread: a forked child has none but the caller, and the slots are its parent's.
pub(crate) fn leave_all() {
    for vcpu in 0..END.swap(0, Relaxed) {
        leave(vcpu as u32);
    }
}

/// Runs `body` with the thread of virtual processor `vcpu`, if it has joined.
///
/// Only for callbacks of that processor: QEMU runs those one at a time, on the thread itself.
pub(crate) fn with<R>(vcpu: u32, body: impl FnOnce(&mut Thread) -> R) -> Option<R> {
    let mut thread = NonNull::new(THREADS.get(vcpu as usize)?.load(Acquire))?;
    // SAFETY:
    // 1. `join` stored a pointer from a `Box`, and only `leave` frees it, after taking it out.
    // 2. `join`, `leave` and `with` for one number run on one thread (QEMU's rule), never nested:
    //    `body` is given no way to call them for a number it does not have.
    Some(body(unsafe { thread.as_mut() }))
}

/// Empties the filters of all threads of this process.
pub(crate) fn expire_filters() {
    for vcpu in 0..END.load(Relaxed) {
        if let Some(slot) = slot(vcpu as u32) {
            filter::expire(slot);
        }
    }
}

fn free(thread: *mut Thread) {
    if !thread.is_null() {
        // SAFETY: the pointer came from `Box::into_raw` in `join` and was just taken out of the
        // table.
        drop(unsafe { Box::from_raw(thread) });
    }
}
