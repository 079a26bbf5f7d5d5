//! Other numbers for threads, processes and files: for who joins the events of several traces.

use crate::event::{Call, FileId, ProcessId, ThreadId};

/// Says which number takes the place of one of a trace.
pub trait Numbering {
    /// For a thread.
    fn thread(&mut self, id: ThreadId) -> ThreadId;
    /// For a process.
    fn process(&mut self, id: ProcessId) -> ProcessId;
    /// For a file.
    fn file(&mut self, id: FileId) -> FileId;
}

impl Call {
    /// Replaces every number of a thread, process or file.
    pub fn renumber(&mut self, ids: &mut impl Numbering) {
        match self {
            Call::File(file) => file.id = ids.file(file.id),
            Call::Exec { thread, process, areas, .. } => {
                *thread = ids.thread(*thread);
                *process = ids.process(*process);
                for area in areas {
                    if let Some((file, _)) = &mut area.file {
                        *file = ids.file(*file);
                    }
                }
            }
            Call::Fork { thread, process, child, .. } => {
                *thread = ids.thread(*thread);
                *process = ids.process(*process);
                *child = ids.thread(*child);
            }
            Call::Thread { thread, child } => {
                *thread = ids.thread(*thread);
                *child = ids.thread(*child);
            }
            Call::Start { thread, process, .. }
            | Call::Exit { thread, process, .. }
            | Call::Reap { thread, process } => {
                *thread = ids.thread(*thread);
                *process = ids.process(*process);
            }
            Call::Map { thread, file, .. } => {
                *thread = ids.thread(*thread);
                *file = file.map(|file| ids.file(file));
            }
            Call::Read { thread, file, .. }
            | Call::Write { thread, file, .. }
            | Call::FileSync { thread, file }
            | Call::Truncate { thread, file, .. }
            | Call::Unlink { thread, file } => {
                *thread = ids.thread(*thread);
                *file = ids.file(*file);
            }
            Call::ThreadExit { thread }
            | Call::Unmap { thread, .. }
            | Call::Remap { thread, .. }
            | Call::Protect { thread, .. }
            | Call::Brk { thread, .. }
            | Call::Advise { thread, .. }
            | Call::Lock { thread, .. }
            | Call::Unlock { thread, .. }
            | Call::Sync { thread, .. }
            | Call::Touch { thread, .. }
            | Call::Failed { thread, .. }
            | Call::Tick { thread, .. }
            | Call::Mark { thread, .. } => *thread = ids.thread(*thread),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Area, Role};

    /// Adds a hundred to threads, two hundred to processes, three hundred to files.
    struct Up;

    impl Numbering for Up {
        fn thread(&mut self, id: ThreadId) -> ThreadId {
            id + 100
        }

        fn process(&mut self, id: ProcessId) -> ProcessId {
            id + 200
        }

        fn file(&mut self, id: FileId) -> FileId {
            id + 300
        }
    }

    #[test]
    fn every_number_of_a_call_is_replaced() {
        let mut fork = Call::Fork { thread: 1, process: 2, child: 3, pid: 4, flags: 5 };
        fork.renumber(&mut Up);
        let other = Call::Fork { thread: 101, process: 202, child: 103, pid: 4, flags: 5 };
        assert_eq!(fork, other);
        let exec = |thread, process, file| Call::Exec {
            thread,
            process,
            path: String::new(),
            arguments: Vec::new(),
            brk: 0,
            areas: vec![Area {
                page: 1,
                pages: 1,
                prot: 1,
                shared: false,
                file: Some((file, 9)),
                role: Role::Program,
            }],
            touched: Vec::new(),
        };
        let mut call = exec(1, 2, 3);
        call.renumber(&mut Up);
        assert_eq!(call, exec(101, 202, 303));
        let mut read = Call::Read { thread: 0, file: 0, offset: 0, bytes: 1 };
        read.renumber(&mut Up);
        assert_eq!(read, Call::Read { thread: 100, file: 300, offset: 0, bytes: 1 });
    }
}
