//! Computes a [`Summary`] while events go by.
//!
//! Knows nothing of: files. It believes its events; [`check`](crate::check) is who doubts them.

use rustc_hash::FxHashMap;

use crate::check::TOUCH_PAGES_MAX;
use crate::event::{Access, Call, Event, Exit, File, Kind, Process, ProcessId, Summary, ThreadId};
use crate::page_set::PageSet;

/// What only the maker of a trace knows about it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Notes {
    /// Data reads; `None`: counted from the accesses.
    pub loads: Option<u64>,
    /// Data writes; `None`: counted from the accesses.
    pub stores: Option<u64>,
    /// Fetches; `None`: counted from the accesses.
    pub fetches: Option<u64>,
    /// What the reader should know.
    pub warnings: Vec<String>,
    /// Whether the recording was interrupted rather ended.
    pub interrupted: bool,
}

/// A summary in the making.
///
/// References that an access only counts (see [`Access::count`]) are taken for the kind of the
/// thread's access before, on whose page they fell.
pub(crate) struct Tally {
    summary: Summary,
    kinds: [u64; 3],
    pages: PageSet,
    threads: FxHashMap<ThreadId, Thread>,
    current: Thread, // the thread of the last access; newer than its copy in `threads`
    processes: FxHashMap<ProcessId, usize>, // into `summary.processes`
}

#[derive(Clone, Copy)]
struct Thread {
    id: ThreadId,
    process: ProcessId,
    kind: Option<Kind>, // of its last access
}

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally {
            summary: Summary::default(),
            kinds: [0; 3],
            pages: PageSet::new(),
            threads: FxHashMap::default(),
            current: Thread { id: 0, process: 0, kind: None },
            processes: FxHashMap::default(),
        }
    }

    /// Events so far.
    pub(crate) fn events(&self) -> u64 {
        self.summary.events
    }

    /// Counts any event.
    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            Event::Access(access) => self.access(access),
            Event::Call(call) => self.call(call),
        }
    }

    /// Counts an access.
    #[inline]
    pub(crate) fn access(&mut self, access: &Access) {
        self.access_again(access);
        self.pages.insert(self.current.process, access.page);
    }

    /// Counts an access to a page that the process has touched before.
    #[inline]
    pub(crate) fn access_again(&mut self, access: &Access) {
        if access.thread != self.current.id {
            self.switch(access.thread);
        }
        let before = self.current.kind.unwrap_or(access.kind);
        self.current.kind = Some(access.kind);
        // A hostile `Tick` may have filled the sums already.
        let add = |sum: &mut u64, more: u32| *sum = sum.saturating_add(more.into());
        add(&mut self.kinds[before as usize], access.count.saturating_sub(1));
        add(&mut self.kinds[access.kind as usize], 1);
        self.summary.events += 1;
        add(&mut self.summary.references, access.count);
        add(&mut self.summary.instructions, access.instructions);
    }

    fn switch(&mut self, thread: ThreadId) {
        let current = self.current;
        self.threads.insert(current.id, current);
        self.current = self.thread(thread);
    }

    /// A thread that nothing introduced is taken for one of process 0.
    fn thread(&self, id: ThreadId) -> Thread {
        if id == self.current.id {
            return self.current;
        }
        self.threads.get(&id).copied().unwrap_or(Thread { id, process: 0, kind: None })
    }

    fn introduce(&mut self, id: ThreadId, process: ProcessId) {
        let thread = Thread { id, process, kind: None };
        if id == self.current.id {
            self.current = thread;
        } else {
            self.threads.insert(id, thread);
        }
        self.summary.threads = self.summary.threads.saturating_add(1);
    }

    /// Counts a call.
    pub(crate) fn call(&mut self, call: &Call) {
        self.summary.events += 1;
        match call {
            Call::Start { thread, process, pid } => {
                self.introduce(*thread, *process);
                self.begin(*process, *pid, None, String::new());
            }
            Call::Fork { thread, process, child, pid, .. } => {
                let parent = self.thread(*thread).process;
                let command = self.process(parent).map(|parent| parent.command.clone());
                self.introduce(*child, *process);
                self.begin(*process, *pid, Some(parent), command.unwrap_or_default());
            }
            Call::Thread { thread, child } => {
                let process = self.thread(*thread).process;
                self.introduce(*child, process);
            }
            Call::Exec { process, arguments, touched, .. } => {
                if let Some(process) = self.process(*process) {
                    process.command = arguments.join(" ");
                }
                for page in touched {
                    self.pages.insert(*process, *page);
                }
            }
            Call::Exit { process, exit, .. } => {
                if let Some(process) = self.process(*process) {
                    process.exit = *exit;
                }
            }
            Call::File(file) => self.file(file),
            Call::Touch { thread, page, pages, .. } => {
                let process = self.thread(*thread).process;
                for page in *page..page.saturating_add((*pages).min(TOUCH_PAGES_MAX)) {
                    self.pages.insert(process, page);
                }
            }
            Call::Tick { thread, count, instructions } => {
                let kind = self.thread(*thread).kind.unwrap_or(Kind::Load);
                let counted = &mut self.kinds[kind as usize];
                *counted = counted.saturating_add(*count);
                let summary = &mut self.summary;
                summary.references = summary.references.saturating_add(*count);
                summary.instructions = summary.instructions.saturating_add(*instructions);
            }
            _ => {}
        }
    }

    fn begin(&mut self, id: ProcessId, pid: u32, parent: Option<ProcessId>, command: String) {
        let process = Process { id, pid, parent, command, exit: Exit::Unknown };
        self.processes.insert(id, self.summary.processes.len());
        self.summary.processes.push(process);
    }

    fn process(&mut self, id: ProcessId) -> Option<&mut Process> {
        self.summary.processes.get_mut(*self.processes.get(&id)?)
    }

    fn file(&mut self, file: &File) {
        self.summary.files.push(file.clone());
    }

    /// The summary of all that went by.
    pub(crate) fn finish(mut self, notes: Notes) -> Summary {
        let [loads, stores, fetches] = self.kinds;
        let summary = &mut self.summary;
        summary.loads = notes.loads.unwrap_or(loads);
        summary.stores = notes.stores.unwrap_or(stores);
        summary.fetches = notes.fetches.unwrap_or(fetches);
        summary.pages = self.pages.len();
        summary.processes.sort_by_key(|process| process.id);
        summary.files.sort_by_key(|file| file.id);
        summary.warnings = notes.warnings;
        summary.interrupted = notes.interrupted;
        self.summary
    }
}
