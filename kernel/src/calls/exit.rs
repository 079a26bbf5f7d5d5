//! Calls that end processes and threads, and wait for children.

use alloc::vec::Vec;

use linux_raw_sys::general as nr;

use super::system::usage_bytes;
use super::{Answer, Arguments, Errno, Halt};
use crate::kernel::Kernel;
use crate::signals::{Info, SIG_IGN};
use crate::tasks::{Alarm, End, Process, State, Thread, Tid, Wait};

/// The parent of the first process, and of those whose parent has ended.
const NOBODY: Tid = 0;

impl Kernel {
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
        let Some(thread) = self.tasks.threads.get_mut(tid) else { return };
        match thread.state {
            State::Running(cpu) if cpu != crate::arch::cpu::id() => {
                thread.state = State::Doomed;
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
        self.leave_words(tid);
        let Some(thread) = self.tasks.threads.remove(tid) else { return };
        self.ready.retain(|&queued| queued != tid);
        let process = &mut self.tasks.processes[thread.process];
        process.threads.retain(|&other| other != tid);
        let (space, last) = (process.space, process.threads.is_empty());
        if let &[only] = &process.threads[..]
            && self.tasks.threads[only].state == State::Waiting(Wait::Alone)
        {
            self.wake(only);
        }
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
        self.tasks.set_alarm(process, Alarm::NONE);
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
        let (ignores, reaps) = self.tasks.processes.get(parent).map_or((true, true), |parent| {
            let action = parent.handlers.get(nr::SIGCHLD);
            let ignores = action.handler == SIG_IGN;
            (ignores, ignores || action.flags & u64::from(nr::SA_NOCLDWAIT) != 0)
        });
        if reaps {
            self.tasks.processes.remove(process);
        }
        let (code, value) = end.reason();
        let info = Info { code, subject: process.into(), value: value.into() };
        if !ignores {
            self.send_to_process(parent, nr::SIGCHLD, info);
        }
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

    /// `getppid`.
    pub(crate) fn parent(&self, tid: Tid) -> Tid {
        let process = self.tasks.threads[tid].process;
        let parent = self.tasks.processes[process].parent;
        // Orphans are told what they expect, though nobody waits for them.
        let is_orphan = parent == NOBODY && process != self.first;
        if is_orphan { self.first } else { parent }
    }

    /// `wait4`.
    pub(crate) fn wait_for_child(&mut self, tid: Tid, a: &Arguments) -> Answer {
        let &[wanted, status, options, usage, ..] = a;
        let (wanted, options) = (wanted as i32, options as u32);
        let kinds = nr::__WALL | nr::__WCLONE | nr::__WNOTHREAD;
        if options & !(nr::WNOHANG | nr::WUNTRACED | nr::WCONTINUED | kinds) != 0 {
            return Err(Errno::EINVAL.into());
        }
        if options & kinds == nr::__WCLONE {
            // No child is made to end without its parent being told.
            return Err(Errno::ECHILD.into());
        }
        let group = self.process(tid).group;
        let wanted = match wanted {
            -1 => Wanted::Any,
            0 => Wanted::Group(group),
            1.. => Wanted::Process(wanted.cast_unsigned()),
            _ => Wanted::Group(wanted.unsigned_abs()),
        };
        let Some((pid, end)) = self.ended_child(tid, wanted, options)? else { return Ok(0) };
        let told = if status == 0 {
            Ok(())
        } else {
            self.copy_out(tid, status, &end.status().to_le_bytes())
        };
        match told.and_then(|()| self.tell_usage(tid, pid, usage)) {
            Ok(()) => {}
            // Who gives a bad address has waited for the child all the same.
            Err(Halt::Errno(errno)) => {
                self.forget_child(tid, pid);
                return Err(errno.into());
            }
            Err(halt) => return Err(halt),
        }
        self.forget_child(tid, pid);
        Ok(pid.into())
    }

    /// `waitid`.
    pub(crate) fn wait_for_child_info(&mut self, tid: Tid, a: &Arguments) -> Answer {
        const P_ALL: u32 = 0;
        const P_PGID: u32 = 2;
        let &[kind, number, to, options, usage, _] = a;
        let (number, options) = (number as Tid, options as u32);
        let ways = nr::WEXITED | nr::WSTOPPED | nr::WCONTINUED;
        let others = nr::WNOHANG | nr::WNOWAIT | nr::__WALL;
        if options & ways == 0 || options & !(ways | others) != 0 {
            return Err(Errno::EINVAL.into());
        }
        let wanted = match kind as u32 {
            P_ALL => Wanted::Any,
            nr::P_PID if number.cast_signed() > 0 => Wanted::Process(number),
            P_PGID if number == 0 => Wanted::Group(self.process(tid).group),
            P_PGID if number.cast_signed() > 0 => Wanted::Group(number),
            _ => return Err(Errno::EINVAL.into()),
        };
        // Children never stop and so never go on.
        let wanted = if options & nr::WEXITED == 0 { Wanted::Stopped } else { wanted };
        let found = self.ended_child(tid, wanted, options)?;
        if let Some((pid, _)) = found {
            self.tell_usage(tid, pid, usage)?;
        }
        if to != 0 {
            let words = found.map_or([0; Info::BYTES], |(pid, end)| {
                let (code, value) = end.reason();
                let info = Info { code, subject: pid.into(), value: value.into() };
                info.words(nr::SIGCHLD)
            });
            self.copy_out(tid, to, &words)?;
        }
        if let Some((pid, _)) = found
            && options & nr::WNOWAIT == 0
        {
            self.forget_child(tid, pid);
        }
        Ok(0)
    }

    /// A child that has ended; none if the caller does not want to wait.
    fn ended_child(
        &self,
        tid: Tid,
        wanted: Wanted,
        options: u32,
    ) -> Result<Option<(Tid, End)>, Halt> {
        let parent = self.tasks.threads[tid].process;
        let is_wanted = |pid: Tid, child: &Process| match wanted {
            Wanted::Any | Wanted::Stopped => true,
            Wanted::Process(process) => pid == process,
            Wanted::Group(group) => child.group == group,
        };
        let all = self.tasks.processes.iter();
        let children = all.filter(|&(pid, child)| child.parent == parent && is_wanted(pid, child));
        let mut found = Err(Errno::ECHILD.into());
        for (pid, child) in children {
            match child.ended {
                Some(end) if wanted != Wanted::Stopped => return Ok(Some((pid, end))),
                _ if options & nr::WNOHANG != 0 => found = Ok(None),
                _ => found = Err(Halt::Wait(Wait::Child, u64::MAX)),
            }
        }
        found
    }

    fn tell_usage(&mut self, tid: Tid, pid: Tid, to: u64) -> Result<(), Halt> {
        if to == 0 {
            return Ok(());
        }
        let child = &self.tasks.processes[pid];
        let bytes = usage_bytes(child.peak_resident, child.minor, child.major);
        self.copy_out(tid, to, &bytes)
    }

    /// Forgets a child that its parent has asked about.
    fn forget_child(&mut self, tid: Tid, pid: Tid) {
        let Some(child) = self.tasks.processes.remove(pid) else { return };
        let faults = &mut self.process(tid).children_faults;
        faults.0 += child.minor + child.children_faults.0;
        faults.1 += child.major + child.children_faults.1;
    }
}

/// Which children somebody waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    Any,
    Process(Tid),
    Group(Tid),
    /// Any that has stopped, which none ever does.
    Stopped,
}
