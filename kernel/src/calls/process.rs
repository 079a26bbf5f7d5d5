//! Calls that make processes and threads.

use alloc::boxed::Box;

use linux_raw_sys::general as nr;

use vellum_mm::spaces::layout::USER_END;

use super::{Answer, Arguments, Errno, HEAP_RESERVE, Halt, SIGCHLD};
use crate::arch::user::Context;
use crate::kernel::Kernel;
use crate::signals::Pending;
use crate::tasks::{Alarm, Process, Thread, Tid, Wait};

impl Kernel {
    /// `clone`, `fork`, `vfork`: a new thread, or a new process with one.
    pub(crate) fn clone_task(&mut self, tid: Tid, context: &mut Context, a: &Arguments) -> Answer {
        let &[flags, stack, parent_tid, child_tid, tls, _] = a;
        if self.tasks.threads[tid].progress != 0 {
            // It has waited for its child to go its own way.
            return Ok(self.tasks.threads[tid].progress);
        }
        let has = |flag: u32| flags & u64::from(flag) != 0;
        check_flags(flags)?;
        if has(nr::CLONE_SETTLS) && tls >= USER_END.0 {
            return Err(Errno::EPERM.into());
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
        thread.name = self.tasks.threads[tid].name;
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
        // Few areas fit into what every call leaves; many need a piece of the heap of their own.
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
            session: like.session,
            nice: like.nice,
            alarm: Alarm::NONE,
            minor: 0,
            major: 0,
            children_faults: (0, 0),
            peak_resident: 0,
            out_of_memory: false,
            locks_all: false,
        };
        self.tasks.processes.insert(first, child);
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

    /// `setsid`: a session, and a group in it, of the process alone.
    pub(crate) fn start_session(&mut self, tid: Tid) -> Answer {
        let process = self.tasks.threads[tid].process;
        if self.tasks.processes.iter().any(|(_, other)| other.group == process) {
            return Err(Errno::EPERM.into());
        }
        let entry = &mut self.tasks.processes[process];
        (entry.group, entry.session) = (process, process);
        Ok(process.into())
    }

    pub(crate) fn session(&self, tid: Tid, process: Tid) -> Answer {
        let process = if process == 0 { self.tasks.threads[tid].process } else { process };
        Ok(self.tasks.processes.get(process).ok_or(Errno::ESRCH)?.session.into())
    }

    pub(crate) fn set_process_group(&mut self, tid: Tid, process: Tid, group: Tid) -> Answer {
        let process = if process == 0 { self.tasks.threads[tid].process } else { process };
        let entry = self.tasks.processes.get_mut(process).ok_or(Errno::ESRCH)?;
        entry.group = if group == 0 { process } else { group };
        Ok(0)
    }
}

/// What `clone` may be asked for.
const FLAGS: u32 = IN_A_THREAD
    | nr::CLONE_VM
    | nr::CLONE_VFORK
    | nr::CLONE_SETTLS
    | nr::CLONE_PARENT_SETTID
    | nr::CLONE_CHILD_SETTID
    | nr::CLONE_CHILD_CLEARTID
    | nr::CLONE_SYSVSEM
    | nr::CLONE_IO
    | nr::CLONE_DETACHED
    | nr::CLONE_UNTRACED;
/// What a thread shares with its process, and one process never with another.
const IN_A_THREAD: u32 = nr::CLONE_THREAD | nr::CLONE_SIGHAND | nr::CLONE_FILES | nr::CLONE_FS;

fn check_flags(flags: u64) -> Result<(), Errno> {
    let (signal, flags) = (flags & 0xff, flags as u32 & !0xff);
    let shared = flags & IN_A_THREAD;
    let is_thread = shared == IN_A_THREAD && flags & nr::CLONE_VM != 0;
    let fits = flags & !FLAGS == 0 && (is_thread || shared == 0);
    if fits && (signal == 0 || signal == SIGCHLD) { Ok(()) } else { Err(Errno::EINVAL) }
}
