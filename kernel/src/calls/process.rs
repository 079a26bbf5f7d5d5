//! Calls that make, end and wait for processes.

use alloc::boxed::Box;
use alloc::vec::Vec;

use linux_raw_sys::general as nr;

use super::system::usage_bytes;
use super::{Answer, Arguments, Errno, HEAP_RESERVE, Halt, SIGCHLD};
use crate::arch::user::Context;
use crate::kernel::Kernel;
use crate::signals::{Info, Pending};
use crate::tasks::{End, Process, State, Thread, Tid, Wait};

/// The parent of the first process, and of those whose parent has ended.
const NOBODY: Tid = 0;

impl Kernel {
    /// `clone`, `fork`, `vfork`: a new thread, or a new process with one.
    pub(crate) fn clone_task(&mut self, tid: Tid, context: &mut Context, a: &Arguments) -> Answer {
        let &[flags, stack, parent_tid, child_tid, tls, _] = a;
        if self.tasks.threads[tid].progress != 0 {
            // It has waited for its child to go its own way.
            return Ok(self.tasks.threads[tid].progress);
        }
        let has = |flag: u32| flags & u64::from(flag) != 0;
        let signal = flags & 0xff;
        if signal != 0 && signal != SIGCHLD || has(nr::CLONE_THREAD) && !has(nr::CLONE_VM) {
            return Err(Errno::EINVAL.into());
        }
        // What can be refused comes first.
        if has(nr::CLONE_PARENT_SETTID) {
            self.copy_out(tid, parent_tid, &[0; 4])?;
        }
        let new = self.tasks.new_tid().ok_or(Errno::EAGAIN)?;
        let own_space = !has(nr::CLONE_VM);
        let space = if own_space { self.fork_space(tid)? } else { self.process(tid).space };
        self.tasks.spaces[space].as_mut().expect("it exists").users += 1;
        let mut registers = Box::new(context.clone());
        registers.rax = 0;
        if stack != 0 {
            registers.rsp = stack;
        }
        if has(nr::CLONE_SETTLS) {
            registers.fs_base = tls;
        }
        let process = if has(nr::CLONE_THREAD) {
            let process = self.tasks.threads[tid].process;
            self.tasks.processes[process].threads.push(new);
            process
        } else {
            self.add_child(tid, new, space);
            new
        };
        let mut thread = Thread::new(process, registers);
        thread.mask = self.tasks.threads[tid].mask;
        if own_space {
            thread.signal_stack = self.tasks.threads[tid].signal_stack;
        }
        if has(nr::CLONE_CHILD_CLEARTID) {
            thread.clear_tid = child_tid;
        }
        if has(nr::CLONE_CHILD_SETTID) {
            thread.set_tid = child_tid;
        }
        if has(nr::CLONE_VFORK) {
            thread.vfork_parent = Some(tid);
        }
        self.tasks.threads.insert(new, thread);
        self.make_ready(new);
        if has(nr::CLONE_PARENT_SETTID) {
            self.copy_out(tid, parent_tid, &new.to_le_bytes())?;
        }
        if has(nr::CLONE_VFORK) {
            self.tasks.threads[tid].progress = new.into();
            return Err(Halt::Wait(Wait::Vfork(new), u64::MAX));
        }
        Ok(new.into())
    }

    fn fork_space(&mut self, tid: Tid) -> Result<usize, Halt> {
        let slot = self.process(tid).space;
        let at = crate::kernel::now();
        let areas_bytes = self.space(tid).areas().clone_bytes();
        if areas_bytes > HEAP_RESERVE / 8 && !crate::arch::heap_has_room(areas_bytes + HEAP_RESERVE)
        {
            return Err(Errno::ENOMEM.into());
        }
        // Ends: each turn after the first had frames freed for it.
        loop {
            let parent = self.tasks.spaces[slot].as_mut().expect("a thread has a space");
            let child = self.vm.fork(at, self.pc, &mut parent.space);
            self.pump();
            match child {
                Ok(child) => {
                    self.reclaim_in_background();
                    return Ok(self.tasks.add_space(child));
                }
                Err(_) => self.make_room()?,
            }
        }
    }

    /// A process like that of `tid`, without threads but `first`.
    fn add_child(&mut self, tid: Tid, first: Tid, space: usize) {
        let parent = self.tasks.threads[tid].process;
        let like = &self.tasks.processes[parent];
        for descriptor in like.descriptors.iter().flatten() {
            self.files.opens[descriptor.open].references += 1;
        }
        self.files.tree[like.directory].uses += 1;
        let child = Process {
            parent,
            name: like.name.clone(),
            program: like.program.clone(),
            threads: alloc::vec![first],
            space,
            descriptors: like.descriptors.clone(),
            directory: like.directory,
            umask: like.umask,
            handlers: like.handlers.clone(),
            pending: Pending::default(),
            ending: None,
            ended: None,
            group: like.group,
            minor: 0,
            major: 0,
            children_faults: (0, 0),
            peak_resident: 0,
            out_of_memory: false,
            locks_all: false,
        };
        self.tasks.processes.insert(first, child);
    }

    pub(crate) fn exit_thread(&mut self, tid: Tid, code: u8) -> Answer {
        let process = self.tasks.threads[tid].process;
        if self.tasks.processes[process].threads.len() == 1 {
            return self.exit_process(tid, code);
        }
        self.remove_thread(tid);
        Err(Halt::Dead)
    }

    pub(crate) fn exit_process(&mut self, tid: Tid, code: u8) -> Answer {
        let process = self.tasks.threads[tid].process;
        self.end_process(process, End::Exit(code));
        Err(Halt::Dead)
    }

    /// Whether a thread has ended, or must as soon as it is noticed.
    pub(crate) fn is_doomed(&self, tid: Tid) -> bool {
        self.tasks.threads.get(tid).is_none_or(|thread| thread.state == State::Doomed)
    }

    /// Ends a process: its threads go now, but those that other processors run as soon as these trap.
    pub(crate) fn end_process(&mut self, process: Tid, end: End) {
        let entry = &mut self.tasks.processes[process];
        if entry.ending.is_some() {
            return;
        }
        entry.ending = Some(end);
        for tid in entry.threads.clone() {
            self.end_thread(tid);
        }
    }

    /// Ends a thread, or dooms it if another processor runs it.
    pub(crate) fn end_thread(&mut self, tid: Tid) {
        match self.tasks.threads[tid].state {
            State::Running(cpu) if cpu != crate::arch::cpu::id() => {
                self.tasks.threads[tid].state = State::Doomed;
                crate::arch::ipi::shootdown(cpu);
            }
            State::Doomed => {}
            _ => self.remove_thread(tid),
        }
    }

    /// Takes a thread away that no processor runs, or this one in the kernel; the process goes with its
    /// last.
    pub(crate) fn remove_thread(&mut self, tid: Tid) {
        self.forget_wait(tid);
        let clear = self.tasks.threads[tid].clear_tid;
        if clear != 0 && self.process(tid).ending.is_none() {
            // Whoever joins it waits at this word. If it cannot be written, nobody can.
            if self.copy_out(tid, clear, &[0; 4]).is_ok() {
                self.wake_joiner(tid, clear);
            }
        }
        let Some(thread) = self.tasks.threads.remove(tid) else { return };
        self.ready.retain(|&queued| queued != tid);
        let process = &mut self.tasks.processes[thread.process];
        process.threads.retain(|&other| other != tid);
        let (space, last) = (process.space, process.threads.is_empty());
        if let Some(parent) = thread.vfork_parent {
            self.end_vfork(tid, parent);
        }
        if let Some(open) = thread.held {
            self.release(open);
        }
        self.leave_space(thread.process, space);
        if last {
            self.end_of(thread.process);
        }
    }

    /// A process made by `vfork` no longer needs its parent's memory.
    pub(crate) fn end_vfork(&mut self, child: Tid, parent: Tid) {
        let waits = |thread: &Thread| thread.state == State::Waiting(Wait::Vfork(child));
        if self.tasks.threads.get(parent).is_some_and(waits) {
            self.wake(parent);
        }
    }

    /// One thread less uses a space.
    pub(crate) fn leave_space(&mut self, process: Tid, slot: usize) {
        let space = self.tasks.spaces[slot].as_mut().expect("it was used");
        let peak = space.space.resident_peak();
        if let Some(process) = self.tasks.processes.get_mut(process) {
            process.peak_resident = process.peak_resident.max(peak);
        }
        space.users -= 1;
        if space.users > 0 {
            return;
        }
        let space = self.tasks.spaces[slot].take().expect("it was used").space;
        self.note_tables(&space);
        let at = crate::kernel::now();
        self.pc.unload(at.cpu, space.id(), self.vm.kernel_root());
        self.vm.destroy(at, self.pc, space);
        self.forget_unmapped();
    }

    /// All threads of a process are gone.
    fn end_of(&mut self, process: Tid) {
        let entry = &mut self.tasks.processes[process];
        let end = entry.ending.unwrap_or(End::Exit(0));
        entry.ended = Some(end);
        let (parent, directory) = (entry.parent, entry.directory);
        let descriptors = core::mem::take(&mut entry.descriptors);
        if entry.out_of_memory {
            self.wake_all(|wait| wait == Wait::Victim);
        }
        for descriptor in descriptors.into_iter().flatten() {
            self.release(descriptor.open);
        }
        self.leave_node(directory);
        self.note_end(process);
        // Orphans belong to nobody: who of them has ended, nobody will ask about.
        let mut forgotten = Vec::new();
        for (pid, child) in self.tasks.processes.iter_mut() {
            if child.parent == process {
                child.parent = NOBODY;
                if child.ended.is_some() {
                    forgotten.push(pid);
                }
            }
        }
        for pid in forgotten {
            self.tasks.processes.remove(pid);
        }
        let first = self.first;
        if process == first {
            self.stopping = Some(end.code());
            return;
        }
        if parent == NOBODY {
            self.tasks.processes.remove(process);
            return;
        }
        let status = match end {
            End::Exit(code) => (nr::CLD_EXITED, u32::from(code)),
            End::Signal(signal) => (nr::CLD_KILLED, signal),
        };
        let info = Info { code: status.0.cast_signed(), subject: process.into(), status: status.1 };
        self.send_to_process(parent, nr::SIGCHLD, info);
        self.wake_parent(parent);
    }

    fn wake_parent(&mut self, parent: Tid) {
        let Some(parent) = self.tasks.processes.get(parent) else { return };
        for tid in parent.threads.clone() {
            if self.tasks.threads[tid].state == State::Waiting(Wait::Child) {
                self.wake(tid);
            }
        }
    }

    pub(crate) fn wait_for_child(&mut self, tid: Tid, a: &Arguments) -> Answer {
        let &[wanted, status, options, usage, ..] = a;
        let (wanted, options) = (wanted as i32, options as u32);
        if options & !(nr::WNOHANG | nr::WUNTRACED | nr::WCONTINUED | nr::__WALL) != 0 {
            return Err(Errno::EINVAL.into());
        }
        let parent = self.tasks.threads[tid].process;
        let group = self.process(tid).group;
        let is_wanted = |pid: Tid, child: &Process| match wanted {
            -1 => true,
            0 => child.group == group,
            1.. => pid == wanted.cast_unsigned(),
            _ => child.group == wanted.unsigned_abs(),
        };
        let children = || {
            let all = self.tasks.processes.iter();
            all.filter(|&(pid, child)| child.parent == parent && is_wanted(pid, child))
        };
        if children().next().is_none() {
            return Err(Errno::ECHILD.into());
        }
        let ended = children().find_map(|(pid, child)| Some((pid, child.ended?)));
        let Some((pid, end)) = ended else {
            if options & nr::WNOHANG != 0 {
                return Ok(0);
            }
            return Err(Halt::Wait(Wait::Child, u64::MAX));
        };
        let child = &self.tasks.processes[pid];
        let (minor, major) = (child.minor, child.major);
        let below = child.children_faults;
        let peak = child.peak_resident;
        if status != 0 {
            self.copy_out(tid, status, &end.status().to_le_bytes())?;
        }
        if usage != 0 {
            self.copy_out(tid, usage, &usage_bytes(peak, minor, major))?;
        }
        self.tasks.processes.remove(pid);
        let faults = &mut self.process(tid).children_faults;
        faults.0 += minor + below.0;
        faults.1 += major + below.1;
        Ok(pid.into())
    }

    pub(crate) fn yield_now(&mut self, tid: Tid) -> Answer {
        let yielded = core::mem::replace(&mut self.tasks.threads[tid].progress, 0) > 0;
        if yielded || self.ready.is_empty() {
            return Ok(0);
        }
        self.tasks.threads[tid].progress = 1;
        Err(Halt::Again)
    }

    pub(crate) fn process_group(&mut self, tid: Tid, process: Tid) -> Answer {
        let process = if process == 0 { self.tasks.threads[tid].process } else { process };
        let group = self.tasks.processes.get(process).map(|process| process.group);
        Ok(group.ok_or(Errno::ESRCH)?.into())
    }

    pub(crate) fn set_process_group(&mut self, tid: Tid, process: Tid, group: Tid) -> Answer {
        let process = if process == 0 { self.tasks.threads[tid].process } else { process };
        let entry = self.tasks.processes.get_mut(process).ok_or(Errno::ESRCH)?;
        entry.group = if group == 0 { process } else { group };
        Ok(0)
    }
}
