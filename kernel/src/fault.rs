//! Page faults of programs, and the kernel's own reach into their memory.
//!
//! A system call that needs a page of the program's goes the same way as the program itself: if the
//! entry does not permit the access, the memory manager is asked as if the program had faulted. What
//! must wait is done again from the start of the call.

use alloc::vec::Vec;

use linux_raw_sys::general::SIGKILL;
use vellum_mm::account::oom::{self, Candidate};
use vellum_mm::addr::{Frame, PAGE_BYTES, Page, VirtAddr};
use vellum_mm::fault::{Attempt, Cause, Outcome};
use vellum_mm::machine::Access;
use vellum_mm::objects::io::{IoOutcome, RequestId};
use vellum_mm::objects::store::Resident;
use vellum_mm::reclaim::Background;
use vellum_mm::translate::x86_64 as x86;

use crate::calls::{Errno, Halt};
use crate::kernel::Kernel;
use crate::tasks::{End, Process, Tid, Wait};

/// Waits of one access after which its page is taken to be evicted for ever before it can be used:
/// memory is out, although reclaim always finds something.
const WAITS_MAX: u32 = 1000;

impl Kernel {
    /// Resolves a refused access of a thread.
    ///
    /// # Errors
    /// [`Halt::Wait`] if a disk must work first, [`Halt::Bad`] if the program may not do that.
    #[inline(always)]
    pub(crate) fn fault(&mut self, tid: Tid, address: u64, access: Access) -> Result<(), Halt> {
        let at = crate::kernel::now();
        let thread = &mut self.tasks.threads[tid];
        let process = &mut self.tasks.processes[thread.process];
        let space = self.tasks.spaces[process.space].as_mut().expect("a process has a space");
        let (vm, pc) = (&self.vm, self.pc);
        if thread.attempt == Attempt::First {
            let address = VirtAddr(address);
            let outcome = vm.fault(at, pc, &mut space.space, address, access, Attempt::First);
            if let Outcome::Done(_) = outcome {
                process.minor += 1;
                self.reclaim_in_background();
                return Ok(());
            }
            self.pump();
            self.not_at_once(tid, address.0, access, outcome)
        } else {
            self.fault_again(tid, address, access)
        }
    }

    /// Resolves an access that has waited.
    #[inline(never)]
    fn fault_again(&mut self, tid: Tid, address: u64, access: Access) -> Result<(), Halt> {
        let at = crate::kernel::now();
        let thread = &mut self.tasks.threads[tid];
        let attempt = thread.attempt;
        let slot = self.tasks.processes[thread.process].space;
        let space = self.tasks.spaces[slot].as_mut().expect("a process has a space");
        let address_ = VirtAddr(address);
        let outcome = self.vm.fault(at, self.pc, &mut space.space, address_, access, attempt);
        self.pump();
        if let Outcome::Done(_) = outcome {
            return self.done_after_wait(tid, address, attempt);
        }
        self.not_at_once(tid, address, access, outcome)
    }

    /// An access that has waited succeeds.
    fn done_after_wait(&mut self, tid: Tid, address: u64, attempt: Attempt) -> Result<(), Halt> {
        let thread = &mut self.tasks.threads[tid];
        (thread.attempt, thread.waits) = (Attempt::First, 0);
        let process = &mut self.tasks.processes[thread.process];
        if attempt == (Attempt::Again { own: true }) {
            process.major += 1;
            if thread.reads.is_in_vain(address / PAGE_BYTES) {
                return Err(self.out_of_memory(tid));
            }
        } else {
            process.minor += 1;
        }
        self.reclaim_in_background();
        Ok(())
    }

    /// An access must wait, or be given up.
    #[cold]
    fn not_at_once(
        &mut self,
        tid: Tid,
        address: u64,
        access: Access,
        outcome: Outcome,
    ) -> Result<(), Halt> {
        let thread = &mut self.tasks.threads[tid];
        let attempt = core::mem::replace(&mut thread.attempt, Attempt::First);
        match outcome {
            Outcome::Done(_) => Ok(()),
            Outcome::Kill(Cause::OutOfMemory) => Err(self.out_of_memory(tid)),
            Outcome::Kill(cause) => Err(Halt::Bad(cause)),
            Outcome::Wait { request, own } => {
                let own = own || attempt == Attempt::Again { own: true };
                thread.attempt = Attempt::Again { own };
                thread.waits += 1;
                if thread.waits > WAITS_MAX || self.crawls() {
                    self.tasks.threads[tid].waits = 0;
                    return Err(self.out_of_memory(tid));
                }
                if self.under_way[request.0 as usize] {
                    return Err(Halt::Wait(Wait::Request(request), u64::MAX));
                }
                // The archive answers at once. Ends: `waits` is bounded.
                self.fault_again(tid, address, access)
            }
        }
    }

    /// Whether the machine crawls, and a process must die for the others to get on.
    fn crawls(&mut self) -> bool {
        let store = self.vm.store();
        let frames = store.frames.zone().frames_total() as u64;
        let slots_free = u64::from(store.swap.config().slots - store.swap.used());
        self.crawl.is_over(crate::arch::cpu::nanos(), &self.vm.counts(), frames, slots_free)
    }

    /// Memory is out: a process must die. Whoever needed memory tries again, or is dead.
    pub(crate) fn out_of_memory(&mut self, tid: Tid) -> Halt {
        self.pump();
        if self.is_doomed(tid) {
            return Halt::Dead;
        }
        let is_dying = |process: &Process| process.out_of_memory && process.ended.is_none();
        if self.tasks.processes.iter().any(|(_, process)| is_dying(process)) {
            // Another processor has yet to let go of it. Its memory may be all that is needed.
            return Halt::Wait(Wait::Victim, u64::MAX);
        }
        let total = self.vm.store().frames.zone().frames_total() as u64;
        let alive = self.tasks.processes.iter().filter(|(_, process)| process.ending.is_none());
        let (tids, candidates): (Vec<Tid>, Vec<Candidate>) = alive
            .filter_map(|(pid, process)| {
                let space = &self.tasks.spaces[process.space].as_ref()?.space;
                let Resident { anon, file, swapped } = space.resident(self.vm.store());
                let resident = anon + file;
                let tables = space.tables();
                Some((pid, Candidate { resident, swapped, tables, adjustment: 0 }))
            })
            .unzip();
        if let Some(index) = oom::choose(&candidates, total) {
            let (victim, size) = (tids[index], candidates[index]);
            let process = &mut self.tasks.processes[victim];
            process.out_of_memory = true;
            crate::report::out_of_memory(victim, &process.name, &size);
            self.end_process(victim, End::Signal(SIGKILL));
        }
        if self.is_doomed(tid) { Halt::Dead } else { Halt::Again }
    }

    /// Hands the requests that the memory manager has made to their disks.
    pub(crate) fn pump(&mut self) {
        while let Some(request) = self.vm.next_request() {
            let slot = request.id.0 as usize;
            if self.under_way.len() <= slot {
                self.under_way.resize(slot + 1, false);
                self.waiters.resize_with(slot + 1, Vec::new);
            }
            self.under_way[slot] = true;
            if self.disks.submit(&request, &self.files, self.pc.memory) {
                self.complete(request.id, IoOutcome::Done);
            }
        }
    }

    /// A disk is done with a request: whoever waits for it goes on.
    pub(crate) fn complete(&mut self, id: RequestId, outcome: IoOutcome) {
        let at = crate::kernel::now();
        self.vm.completed(at, self.pc, id, outcome);
        self.under_way[id.0 as usize] = false;
        for tid in core::mem::take(&mut self.waiters[id.0 as usize]) {
            self.wake(tid);
        }
    }

    /// Takes what disks have done.
    pub(crate) fn poll_disks(&mut self) {
        while let Some((id, outcome)) = self.disks.poll(self.pc.memory) {
            self.complete(id, outcome);
        }
        self.pump();
    }

    /// Evicts ahead of need if memory is short.
    #[inline]
    pub(crate) fn reclaim_in_background(&mut self) {
        if self.vm.wants_background() {
            self.reclaim_now();
        }
    }

    #[cold]
    fn reclaim_now(&mut self) {
        let counts = self.vm.counts();
        let given_back = counts.freed.wrapping_sub(counts.evicted);
        if self.exhausted_at == Some(given_back) {
            return;
        }
        let at = crate::kernel::now();
        let end = self.vm.background(at, self.pc);
        // Who evicts all there is whenever a page comes in takes it from the program that waited for
        // it. Until programs give memory back, who needs a frame finds one for itself.
        self.exhausted_at = (end == Background::Exhausted).then_some(given_back);
        self.pump();
        self.note_peaks();
        if end == Background::Writing {
            self.poll_disks();
        }
    }

    /// Notes how much is in use, if it was never more.
    pub(crate) fn note_peaks(&mut self) {
        let zone = self.vm.store().frames.zone();
        let used = (zone.frames_total() - zone.free_frames()) as u64;
        self.peaks.frames = self.peaks.frames.max(used);
        let slots = u64::from(self.vm.store().swap.used());
        self.peaks.slots = self.peaks.slots.max(slots);
    }

    /// The frame that a thread's page is in, once `access` to it is permitted. The access counts as
    /// the program's own.
    ///
    /// # Errors
    /// As [`fault`](Self::fault).
    pub(crate) fn reach(&mut self, tid: Tid, page: Page, access: Access) -> Result<Frame, Halt> {
        // Ends: a fault that is done makes the next look succeed, unless the page was evicted between.
        loop {
            if let Some(frame) = self.look(tid, page, access) {
                return Ok(frame);
            }
            self.fault(tid, page.address().0, access)?;
        }
    }

    /// As [`reach`](Self::reach), if the entry permits the access as it is.
    pub(crate) fn look(&mut self, tid: Tid, page: Page, access: Access) -> Option<Frame> {
        if page.address().0 >= 1 << 47 {
            return None;
        }
        let slot = self.process(tid).space;
        let root = self.tasks.spaces[slot].as_ref()?.space.root();
        let leaf = x86::find_leaf(self.pc, root, page)?;
        let word = x86::word(self.pc, leaf, page);
        let entry = x86::load(word);
        if !entry.has(x86::PRESENT) || access == Access::Write && !entry.has(x86::WRITE) {
            return None;
        }
        let set = if access == Access::Write { x86::ACCESSED | x86::DIRTY } else { x86::ACCESSED };
        x86::change(word, 0, set);
        Some(entry.frame())
    }

    /// Copies bytes from a thread's memory.
    ///
    /// # Errors
    /// As [`fault`](Self::fault), with `EFAULT` for what the program may not read.
    pub(crate) fn copy_in(&mut self, tid: Tid, address: u64, bytes: &mut [u8]) -> Result<(), Halt> {
        let mut done = 0;
        while done < bytes.len() {
            let at = address.checked_add(done as u64).ok_or(Errno::EFAULT)?;
            let offset = at % PAGE_BYTES;
            let count = (bytes.len() - done).min((PAGE_BYTES - offset) as usize);
            let frame =
                self.reach(tid, VirtAddr(at).page(), Access::Read).map_err(Halt::in_call)?;
            self.pc.memory.read(frame, offset, &mut bytes[done..done + count]);
            done += count;
        }
        Ok(())
    }

    /// Copies bytes into a thread's memory.
    ///
    /// # Errors
    /// As [`fault`](Self::fault), with `EFAULT` for what the program may not write.
    pub(crate) fn copy_out(&mut self, tid: Tid, address: u64, bytes: &[u8]) -> Result<(), Halt> {
        let mut done = 0;
        while done < bytes.len() {
            let at = address.checked_add(done as u64).ok_or(Errno::EFAULT)?;
            let offset = at % PAGE_BYTES;
            let count = (bytes.len() - done).min((PAGE_BYTES - offset) as usize);
            let frame =
                self.reach(tid, VirtAddr(at).page(), Access::Write).map_err(Halt::in_call)?;
            self.pc.memory.write(frame, offset, &bytes[done..done + count]);
            done += count;
        }
        Ok(())
    }

    /// A 64-bit word of a thread's memory.
    ///
    /// # Errors
    /// As [`copy_in`](Self::copy_in).
    pub(crate) fn word_in(&mut self, tid: Tid, address: u64) -> Result<u64, Halt> {
        let mut bytes = [0; 8];
        self.copy_in(tid, address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A 32-bit word of a thread's memory.
    ///
    /// # Errors
    /// As [`copy_in`](Self::copy_in).
    pub(crate) fn half_in(&mut self, tid: Tid, address: u64) -> Result<u32, Halt> {
        let mut bytes = [0; 4];
        self.copy_in(tid, address, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// A string that ends with a zero byte, without it.
    ///
    /// # Errors
    /// As [`copy_in`](Self::copy_in); `ENAMETOOLONG` beyond `max` bytes.
    pub(crate) fn string_in(
        &mut self,
        tid: Tid,
        address: u64,
        max: usize,
    ) -> Result<Vec<u8>, Halt> {
        let mut string = Vec::new();
        let mut buffer = [0; 64];
        loop {
            let at = address.checked_add(string.len() as u64).ok_or(Errno::EFAULT)?;
            let count = (64 - at % 64) as usize; // never across a page
            self.copy_in(tid, at, &mut buffer[..count])?;
            if let Some(end) = buffer[..count].iter().position(|&byte| byte == 0) {
                string.extend_from_slice(&buffer[..end]);
                return Ok(string);
            }
            string.extend_from_slice(&buffer[..count]);
            if string.len() > max {
                return Err(Errno::ENAMETOOLONG.into());
            }
        }
    }
}
