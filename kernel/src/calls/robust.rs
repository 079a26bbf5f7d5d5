//! What a thread that ends leaves in memory for others: mutexes that it holds become free, and the word
//! that says it lives is cleared (Linux, `Documentation/locking/robust-futexes.rst`).

use linux_raw_sys::general as nr;
use vellum_mm::addr::{Frame, PAGE_BYTES, VirtAddr};
use vellum_mm::fault::{Attempt, Outcome};
use vellum_mm::machine::Access;

use super::{Answer, Errno};
use crate::kernel::Kernel;
use crate::tasks::Tid;

/// Bytes of `struct robust_list_head`: the first mutex, where the word of each lies behind its link, and
/// one that is just being locked or unlocked.
const HEAD_BYTES: u64 = 24;
/// Tries to get at a page: each reads it, or a table that leads to it.
const TRIES_MAX: u32 = 16;

impl Kernel {
    pub(crate) fn set_robust_list(&mut self, tid: Tid, head: u64, bytes: u64) -> Answer {
        if bytes != HEAD_BYTES {
            return Err(Errno::EINVAL.into());
        }
        self.tasks.threads[tid].robust_list = head;
        Ok(0)
    }

    pub(crate) fn robust_list(&mut self, tid: Tid, of: Tid, to: u64, bytes_to: u64) -> Answer {
        let of = if of == 0 { tid } else { of };
        let head = self.tasks.threads.get(of).ok_or(Errno::ESRCH)?.robust_list;
        self.copy_out(tid, bytes_to, &HEAD_BYTES.to_le_bytes())?;
        self.copy_out(tid, to, &head.to_le_bytes())?;
        Ok(0)
    }

    /// Tells who waits for mutexes of a thread, and who joins it, that it is no more.
    pub(crate) fn leave_words(&mut self, tid: Tid) {
        let thread = &mut self.tasks.threads[tid];
        let head = core::mem::take(&mut thread.robust_list);
        let clear = core::mem::take(&mut thread.clear_tid);
        if head != 0 {
            self.release_mutexes(tid, head);
        }
        // Of a process that ends nobody is left to join it.
        if clear != 0
            && self.process(tid).ending.is_none()
            && self.write_last(tid, clear, 0).is_some()
        {
            self.wake_joiner(tid, clear);
        }
    }

    /// Walks a thread's list of mutexes. The program may have written anything there: what is no mutex
    /// of the thread is left alone, and whoever makes the list a ring is not followed for ever.
    fn release_mutexes(&mut self, tid: Tid, head: u64) -> Option<()> {
        let first = self.read_last(tid, head)?;
        let offset = self.read_last(tid, head.wrapping_add(8))?;
        let under_way = self.read_last(tid, head.wrapping_add(16))?;
        let mut link = first;
        for _ in 0..nr::ROBUST_LIST_LIMIT {
            let mutex = link & !1; // the lowest bit marks a kind of mutex
            if mutex == head {
                break;
            }
            // The next first: with the mutex, its link is its next owner's.
            let next = self.read_last(tid, mutex);
            if mutex != under_way & !1 {
                self.release_mutex(tid, mutex.wrapping_add(offset), false)?;
            }
            link = next?;
        }
        if under_way & !1 != 0 {
            self.release_mutex(tid, (under_way & !1).wrapping_add(offset), true)?;
        }
        Some(())
    }

    /// Marks the mutex at `address` as one whose owner has died, if it is the thread's, and wakes one who
    /// waits for it.
    fn release_mutex(&mut self, tid: Tid, address: u64, is_under_way: bool) -> Option<()> {
        if !address.is_multiple_of(4) {
            return None;
        }
        let aligned = address & !7;
        let shift = (address - aligned) * 8;
        let word = (self.read_last(tid, aligned)? >> shift) as u32;
        let is_own = word & nr::FUTEX_TID_MASK == tid;
        if is_own {
            let died = word & nr::FUTEX_WAITERS | nr::FUTEX_OWNER_DIED;
            self.write_last(tid, address, died)?;
        }
        // Who was unlocking it may have died before it woke anybody.
        if is_own && word & nr::FUTEX_WAITERS != 0 || is_under_way && word == 0 {
            self.wake_joiner(tid, address);
        }
        Some(())
    }

    fn read_last(&mut self, tid: Tid, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        if !address.is_multiple_of(8) {
            return None;
        }
        let frame = self.reach_last(tid, address, Access::Read)?;
        self.pc.memory.read(frame, address % PAGE_BYTES, &mut bytes);
        Some(u64::from_le_bytes(bytes))
    }

    fn write_last(&mut self, tid: Tid, address: u64, word: u32) -> Option<()> {
        if !address.is_multiple_of(4) {
            return None;
        }
        let frame = self.reach_last(tid, address, Access::Write)?;
        self.pc.memory.write(frame, address % PAGE_BYTES, &word.to_le_bytes());
        Some(())
    }

    /// The frame of a page of a thread that is about to go. It cannot come back to this later, so disks
    /// are waited for; and nobody is killed for it, as who ends may end because memory is out.
    fn reach_last(&mut self, tid: Tid, address: u64, access: Access) -> Option<Frame> {
        let at = VirtAddr(address);
        let mut attempt = Attempt::First;
        for _ in 0..TRIES_MAX {
            if let Some(frame) = self.look(tid, at.page(), access) {
                return Some(frame);
            }
            let slot = self.process(tid).space;
            let space = &mut self.tasks.spaces[slot].as_mut()?.space;
            let outcome = self.vm.fault(crate::kernel::now(), self.pc, space, at, access, attempt);
            self.pump();
            match outcome {
                Outcome::Done(_) => attempt = Attempt::First,
                Outcome::Wait { request, own } => {
                    attempt = Attempt::Again { own };
                    if self.under_way[request.0 as usize] {
                        self.finish(tid, request);
                    }
                }
                Outcome::Kill(_) => return None,
            }
        }
        None
    }
}
