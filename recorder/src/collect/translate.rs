//! Turns what plugins say into the events of a trace: numbers processes, threads and files by their
//! appearance, and fills in what killed programs could not say.

use std::collections::BTreeMap;

use vellum_trace::event::{Area, Call, Event, Exit, File, FileId, ProcessId, Role, ThreadId};
use vellum_trace::{Sink, TraceError};

use crate::wire::{FileKey, RawArea, Record};

/// A process of the trace.
struct Process {
    pid: u32,
    leader: ThreadId,
    threads: Vec<ThreadId>,
    exited: bool,
    /// Its thread that announced an `execve`.
    execing: Option<ThreadId>,
    /// How it ended, as `wait4` says it, if the recorder reaped it.
    status: Option<i32>,
}

/// The numbers given out so far.
#[derive(Default)]
pub(crate) struct Translator {
    processes: Vec<Process>,
    /// The process of each thread, by its number.
    threads: Vec<ProcessId>,
    by_pid: BTreeMap<u32, ProcessId>,
    by_tid: BTreeMap<(u32, u32), ThreadId>,
    files: BTreeMap<FileKey, FileId>,
    pub(crate) warnings: Vec<String>,
}

/// How `wait4` says that a process ended.
pub(crate) fn exit_of(status: i32) -> Exit {
    if libc::WIFEXITED(status) {
        Exit::Code(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        Exit::Unknown
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn call(sink: &mut impl Sink, call: Call) -> Result<(), TraceError> {
    sink.event(Event::Call(Box::new(call)))
}

impl Translator {
    /// The process of `thread`.
    pub(crate) fn process_of(&self, thread: ThreadId) -> ProcessId {
        self.threads[thread as usize]
    }

    /// Whether `process` is over as far as the trace goes.
    pub(crate) fn has_exited(&self, process: ProcessId) -> bool {
        self.processes[process as usize].exited
    }

    /// Number and pid of the processes that have not ended.
    pub(crate) fn running(&self) -> impl Iterator<Item = (ProcessId, u32)> {
        let running = (0..).zip(&self.processes).filter(|(_, process)| !process.exited);
        running.map(|(id, process)| (id, process.pid))
    }

    /// Notes how `pid`, which the recorder reaped, has ended.
    pub(crate) fn reaped(&mut self, pid: u32, status: i32) {
        if let Some(&process) = self.by_pid.get(&pid) {
            self.processes[process as usize].status = Some(status);
        }
    }

    fn new_thread(&mut self, process: ProcessId, pid: u32, tid: u32) -> ThreadId {
        let thread = self.threads.len() as ThreadId;
        self.threads.push(process);
        self.by_tid.insert((pid, tid), thread);
        thread
    }

    fn new_process(&mut self, pid: u32) -> (ProcessId, ThreadId) {
        let process = self.processes.len() as ProcessId;
        // A process of that pid that ended unseen: its threads' ids are free again.
        self.forget_threads(pid);
        let leader = self.new_thread(process, pid, pid);
        self.processes.push(Process {
            pid,
            leader,
            threads: vec![leader],
            exited: false,
            execing: None,
            status: None,
        });
        self.by_pid.insert(pid, process);
        (process, leader)
    }

    fn forget_threads(&mut self, pid: u32) {
        let gone: Vec<_> = self.by_tid.range((pid, 0)..=(pid, u32::MAX)).map(|(&k, _)| k).collect();
        for key in gone {
            self.by_tid.remove(&key);
        }
    }

    /// The thread that speaks for the first time with `first`.
    pub(crate) fn meet(
        &mut self,
        pid: u32,
        tid: u32,
        first: Option<&Record>,
        sink: &mut impl Sink,
    ) -> Result<ThreadId, TraceError> {
        let process = match self.by_pid.get(&pid) {
            Some(&process) => process,
            None => self.appear(pid, first, sink)?,
        };
        if let Some(&thread) = self.by_tid.get(&(pid, tid)) {
            return Ok(thread);
        }
        let thread = self.processes[process as usize].leader;
        let child = self.new_thread(process, pid, tid);
        self.processes[process as usize].threads.push(child);
        call(sink, Call::Thread { thread, child })?;
        Ok(child)
    }

    /// A process of which nobody has told: the first one, or one whose parent was killed in `fork`.
    fn appear(
        &mut self,
        pid: u32,
        first: Option<&Record>,
        sink: &mut impl Sink,
    ) -> Result<ProcessId, TraceError> {
        let parent = match first {
            Some(&Record::Child { parent_pid, parent_tid, flags }) => {
                let key = (parent_pid as u32, parent_tid as u32);
                self.by_tid.get(&key).map(|&thread| (thread, flags))
            }
            _ => None,
        };
        let (process, leader) = self.new_process(pid);
        match parent {
            Some((thread, flags)) => {
                call(sink, Call::Fork { thread, process, child: leader, pid, flags })?;
            }
            None => call(sink, Call::Start { thread: leader, process, pid })?,
        }
        Ok(process)
    }

    /// Translates a record of `thread`. The events that end a thread or a process are not here: see
    /// [`Collector`](super::Collector), which has the threads' counters.
    pub(crate) fn record(
        &mut self,
        thread: ThreadId,
        record: Record,
        sink: &mut impl Sink,
    ) -> Result<(), TraceError> {
        let translated = match record {
            Record::Fork { pid, flags } => {
                let pid = pid as u32;
                let (process, child) = self.new_process(pid);
                Call::Fork { thread, process, child, pid, flags }
            }
            Record::Thread { tid } => {
                let process = self.process_of(thread);
                let pid = self.processes[process as usize].pid;
                let child = self.new_thread(process, pid, tid as u32);
                self.processes[process as usize].threads.push(child);
                Call::Thread { thread, child }
            }
            Record::Execing {} => {
                let process = self.process_of(thread);
                self.processes[process as usize].execing = Some(thread);
                return Ok(());
            }
            Record::File { file, bytes, memory, path } => {
                return self.introduce(file, bytes, memory, text(&path), sink);
            }
            Record::Map { start, bytes, prot, flags, file, offset } => {
                let file = match file {
                    Some(key) => Some(self.file(key, sink)?),
                    None => None,
                };
                let (prot, flags) = (prot as u32, flags as u32);
                Call::Map { thread, start, bytes, prot, flags, file, offset }
            }
            Record::Transfer { file, offset, bytes, write } => {
                let file = self.file(file, sink)?;
                if write {
                    Call::Write { thread, file, offset, bytes }
                } else {
                    Call::Read { thread, file, offset, bytes }
                }
            }
            Record::FileSync { file } => Call::FileSync { thread, file: self.file(file, sink)? },
            // Files that the program only named, and never used, are nobody's business.
            Record::Truncate { file, bytes } => match self.files.get(&file) {
                Some(&file) => Call::Truncate { thread, file, bytes },
                None => return Ok(()),
            },
            Record::Unlink { file } => match self.files.get(&file) {
                Some(&file) => Call::Unlink { thread, file },
                None => return Ok(()),
            },
            Record::Unrecorded { path } => {
                self.warnings.push(format!("{} ran unrecorded", text(&path)));
                return Ok(());
            }
            other => match plain(thread, &other) {
                Some(call) => call,
                None => return Ok(()),
            },
        };
        call(sink, translated)
    }

    /// A new image in the process of `thread`, which may be new as well; returns the thread that
    /// lives on.
    pub(crate) fn exec(
        &mut self,
        thread: ThreadId,
        record: Record,
        sink: &mut impl Sink,
    ) -> Result<ThreadId, TraceError> {
        let Record::Exec { path, arguments, brk, areas, touched } = record else {
            return Ok(thread);
        };
        let process = self.process_of(thread);
        let areas = areas.iter().map(|area| self.area(area, sink)).collect::<Result<_, _>>()?;
        let state = &mut self.processes[process as usize];
        let thread = state.execing.take().unwrap_or(thread);
        state.threads = vec![thread];
        state.leader = thread;
        let pid = state.pid;
        self.forget_threads(pid);
        // Whichever thread called `execve` has the process's own number now.
        self.by_tid.insert((pid, pid), thread);
        let path = text(&path);
        let arguments = arguments.iter().map(|argument| text(argument)).collect();
        call(sink, Call::Exec { thread, process, path, arguments, brk, areas, touched })?;
        Ok(thread)
    }

    fn area(&mut self, raw: &RawArea, sink: &mut impl Sink) -> Result<Area, TraceError> {
        let file = match raw.file {
            Some(key) => Some((self.file(key, sink)?, raw.offset_pages)),
            None => None,
        };
        let role = match raw.role {
            0 => Role::Program,
            1 => Role::Bss,
            2 => Role::Interpreter,
            3 => Role::Stack,
            _ => Role::Other,
        };
        let RawArea { page, pages, prot, shared, .. } = *raw;
        Ok(Area { page, pages, prot: prot as u32, shared, file, role })
    }

    /// The number of a file; one that was never introduced, because its introduction was lost, is
    /// introduced by its inode.
    fn file(&mut self, key: FileKey, sink: &mut impl Sink) -> Result<FileId, TraceError> {
        if let Some(&id) = self.files.get(&key) {
            return Ok(id);
        }
        self.introduce(key, 0, false, format!("inode:{}", key[1]), sink)?;
        Ok(self.files[&key])
    }

    fn introduce(
        &mut self,
        key: FileKey,
        bytes: u64,
        memory: bool,
        path: String,
        sink: &mut impl Sink,
    ) -> Result<(), TraceError> {
        if self.files.contains_key(&key) {
            return Ok(());
        }
        let id = self.files.len() as FileId;
        self.files.insert(key, id);
        call(sink, Call::File(File { id, path, bytes, memory }))
    }

    /// Ends a thread; whether its process has others.
    pub(crate) fn end_thread(&mut self, thread: ThreadId, tid: u32) -> bool {
        let process = &mut self.processes[self.threads[thread as usize] as usize];
        process.threads.retain(|&other| other != thread);
        let pid = process.pid;
        let others = !process.threads.is_empty();
        self.by_tid.remove(&(pid, tid));
        others
    }

    /// Ends `process`, once: reports `exit`, or what the recorder knows better.
    pub(crate) fn end_process(
        &mut self,
        process: ProcessId,
        thread: Option<ThreadId>,
        exit: Exit,
        sink: &mut impl Sink,
    ) -> Result<(), TraceError> {
        let state = &mut self.processes[process as usize];
        if state.exited {
            return Ok(());
        }
        state.exited = true;
        let thread = thread.unwrap_or(state.leader);
        let exit = match (exit, state.status) {
            (Exit::Unknown, Some(status)) => exit_of(status),
            (exit, _) => exit,
        };
        let pid = state.pid;
        self.forget_threads(pid);
        call(sink, Call::Exit { thread, process, exit })
    }

    /// The process that `pid` stands for, if it is in the trace.
    pub(crate) fn process_by_pid(&self, pid: u32) -> Option<ProcessId> {
        self.by_pid.get(&pid).copied()
    }

    /// Reports that `thread` reaped `process`, whose pid is free then.
    pub(crate) fn reap(
        &mut self,
        thread: ThreadId,
        process: ProcessId,
        sink: &mut impl Sink,
    ) -> Result<(), TraceError> {
        let pid = self.processes[process as usize].pid;
        if self.by_pid.get(&pid) == Some(&process) {
            self.by_pid.remove(&pid);
        }
        call(sink, Call::Reap { thread, process })
    }
}

/// The records that translate word for word; `None` for those that say nothing to a trace.
fn plain(thread: ThreadId, record: &Record) -> Option<Call> {
    Some(match *record {
        Record::Unmap { start, bytes } => Call::Unmap { thread, start, bytes },
        Record::Remap { start, bytes, new_start, new_bytes, flags } => {
            Call::Remap { thread, start, bytes, new_start, new_bytes, flags: flags as u32 }
        }
        Record::Protect { start, bytes, prot } => {
            Call::Protect { thread, start, bytes, prot: prot as u32 }
        }
        Record::Brk { end } => Call::Brk { thread, end },
        Record::Advise { start, bytes, advice } => {
            Call::Advise { thread, start, bytes, advice: advice as u32 }
        }
        Record::Lock { start, bytes, all } => Call::Lock { thread, start, bytes, all },
        Record::Unlock { start, bytes, all } => Call::Unlock { thread, start, bytes, all },
        Record::Sync { start, bytes, flags } => {
            Call::Sync { thread, start, bytes, flags: flags as u32 }
        }
        Record::Touch { page, pages, write } => Call::Touch { thread, page, pages, write },
        Record::Failed { call, errno } => {
            Call::Failed { thread, call: call as u32, errno: errno as i32 }
        }
        Record::Tick { count, instructions } => Call::Tick { thread, count, instructions },
        _ => return None,
    })
}
