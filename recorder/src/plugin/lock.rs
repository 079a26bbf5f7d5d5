//! A lock that one callback takes and a later callback of the same thread gives back.
//!
//! System calls that change the address space hold one from their entry to their return, and `fork`
//! holds both of the plugin's. So a child finds them held by its own only thread, and whatever they
//! guard in a consistent state; the locks of `std` have guards that no static can keep across
//! callbacks.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys;

const OPEN: u32 = 0;
const HELD: u32 = 1;
const AWAITED: u32 = 2;

/// A value and the right to use it.
pub(crate) struct Lock<T> {
    state: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: `lock` lets one thread at a time reach the value, as `std::sync::Mutex` does.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// An open lock around `value`.
    pub(crate) const fn new(value: T) -> Self {
        Self { state: AtomicU32::new(OPEN), value: UnsafeCell::new(value) }
    }

    /// Waits for the lock and takes it.
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        let taken =
            self.state.compare_exchange(OPEN, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if !taken {
            // Whoever waited leaves `AWAITED` behind, at the price of one needless wake.
            while self.state.swap(AWAITED, Ordering::Acquire) != OPEN {
                sys::futex_wait(&self.state, AWAITED);
            }
        }
        Guard { lock: self }
    }

    /// The guard that [`Guard::keep`] gave up.
    ///
    /// # Safety
    /// The calling thread, or the thread it was forked from, must have kept a guard of this lock
    /// and not resumed it since.
    pub(crate) unsafe fn resume(&self) -> Guard<'_, T> {
        Guard { lock: self }
    }
}

/// The right to use the value of a [`Lock`]; gives the lock back when dropped.
pub(crate) struct Guard<'a, T> {
    lock: &'a Lock<T>,
}

impl<T> Guard<'_, T> {
    /// Leaves the lock held until [`Lock::resume`].
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: a guard exists only while its thread holds the lock.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: a guard exists only while its thread holds the lock, and is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        if self.lock.state.swap(OPEN, Ordering::Release) == AWAITED {
            sys::futex_wake(&self.lock.state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_meet_at_the_lock_lose_no_increment() {
        let lock = Lock::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| *lock.lock() += 1));
            }
        });
        assert_eq!(*lock.lock(), 40_000);
    }

    #[test]
    fn a_kept_lock_stays_held_until_it_is_resumed() {
        let lock = Lock::new(0);
        let mut guard = lock.lock();
        *guard = 1;
        guard.keep();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| *lock.lock());
            // SAFETY: this thread kept the guard four lines above.
            let mut guard = unsafe { lock.resume() };
            *guard = 2;
            drop(guard);
            assert_eq!(other.join().expect("the other thread got the lock"), 2);
        });
    }
}
