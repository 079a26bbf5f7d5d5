//! What every table has in common: an event becomes a row.

use std::fmt::Write;

use rustc_hash::FxHashMap;

use crate::event::{Area, Call, Event, Exit, Kind, ProcessId, ThreadId};

/// The names of the columns, in order.
pub const COLUMNS: [&str; 14] = [
    "event",
    "thread",
    "process",
    "kind",
    "page",
    "count",
    "instructions",
    "start",
    "bytes",
    "prot",
    "flags",
    "file",
    "offset",
    "detail",
];

/// A row: the fields are the columns that [`export`](crate::export) lists.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)] // the table of the module says it all
pub struct Row {
    pub event: u64,
    pub thread: Option<ThreadId>,
    pub process: Option<ProcessId>,
    pub kind: &'static str,
    pub page: Option<u64>,
    pub count: Option<u64>,
    pub instructions: Option<u64>,
    pub start: Option<u64>,
    pub bytes: Option<u64>,
    pub prot: Option<u32>,
    pub flags: Option<u64>,
    pub file: Option<u32>,
    pub offset: Option<u64>,
    pub detail: Option<String>,
}

/// Makes rows of the events of one trace, in order.
#[derive(Default)]
pub struct Rows {
    events: u64,
    processes: FxHashMap<ThreadId, ProcessId>,
}

impl Rows {
    /// Begins with event 0.
    pub fn new() -> Rows {
        Rows::default()
    }

    /// The row of the next event.
    pub fn row(&mut self, event: &Event) -> Row {
        let mut row = Row { event: self.events, ..Row::default() };
        self.events += 1;
        match event {
            Event::Access(access) => {
                row.thread = Some(access.thread);
                row.kind = match access.kind {
                    Kind::Load => "load",
                    Kind::Store => "store",
                    Kind::Fetch => "fetch",
                };
                row.page = Some(access.page);
                row.count = Some(access.count.into());
                row.instructions = Some(access.instructions.into());
            }
            Event::Call(call) => {
                self.introduce(call);
                life(call, &mut row);
            }
        }
        if row.process.is_none() {
            row.process = row.thread.and_then(|thread| self.processes.get(&thread).copied());
        }
        row
    }

    /// Notes the threads that `call` begins.
    fn introduce(&mut self, call: &Call) {
        match *call {
            Call::Start { thread, process, .. } => self.processes.insert(thread, process),
            Call::Fork { child, process, .. } => self.processes.insert(child, process),
            Call::Thread { thread, child } => match self.processes.get(&thread) {
                Some(process) => self.processes.insert(child, *process),
                None => None,
            },
            _ => None,
        };
    }
}

/// Fills in the calls about processes, threads and the trace itself. A fork's row is that of its
/// caller; the child is in the detail.
fn life(call: &Call, row: &mut Row) {
    match call {
        Call::Start { thread, process, pid } => {
            name(row, "start", *thread);
            row.process = Some(*process);
            row.detail = Some(format!("pid {pid}"));
        }
        Call::Exec { thread, process, path, arguments, brk, areas, touched } => {
            name(row, "exec", *thread);
            row.process = Some(*process);
            row.start = Some(*brk);
            row.detail = Some(exec(path, arguments, areas, touched));
        }
        Call::Fork { thread, process, child, pid, flags } => {
            name(row, "fork", *thread);
            row.flags = Some(*flags);
            row.detail = Some(format!("process {process} thread {child} pid {pid}"));
        }
        Call::Thread { thread, child } => {
            name(row, "thread", *thread);
            row.detail = Some(format!("thread {child}"));
        }
        Call::ThreadExit { thread } => name(row, "threadexit", *thread),
        Call::Exit { thread, process, exit } => {
            name(row, "exit", *thread);
            row.process = Some(*process);
            row.detail = Some(match exit {
                Exit::Code(code) => format!("code {code}"),
                Exit::Signal(signal) => format!("signal {signal}"),
                Exit::Unknown => "unknown".to_owned(),
            });
        }
        Call::Reap { thread, process } => {
            name(row, "reap", *thread);
            row.detail = Some(format!("process {process}"));
        }
        Call::Failed { thread, call, errno } => {
            name(row, "failed", *thread);
            row.detail = Some(format!("call {call} errno {errno}"));
        }
        Call::Tick { thread, count, instructions } => {
            name(row, "tick", *thread);
            (row.count, row.instructions) = (Some(*count), Some(*instructions));
        }
        Call::Mark { thread, text } => {
            name(row, "mark", *thread);
            row.detail = Some(text.clone());
        }
        _ => memory(call, row),
    }
}

/// Fills in the calls about memory.
fn memory(call: &Call, row: &mut Row) {
    match *call {
        Call::Map { thread, start, bytes, prot, flags, file, offset } => {
            range(row, "map", thread, start, bytes);
            (row.prot, row.flags) = (Some(prot), Some(flags.into()));
            (row.file, row.offset) = (file, Some(offset));
        }
        Call::Unmap { thread, start, bytes } => range(row, "unmap", thread, start, bytes),
        Call::Remap { thread, start, bytes, new_start, new_bytes, flags } => {
            range(row, "remap", thread, start, bytes);
            row.flags = Some(flags.into());
            row.detail = Some(format!("to {new_start} bytes {new_bytes}"));
        }
        Call::Protect { thread, start, bytes, prot } => {
            range(row, "protect", thread, start, bytes);
            row.prot = Some(prot);
        }
        Call::Brk { thread, end } => {
            name(row, "brk", thread);
            row.start = Some(end);
        }
        Call::Advise { thread, start, bytes, advice } => {
            range(row, "advise", thread, start, bytes);
            row.flags = Some(advice.into());
        }
        Call::Lock { thread, start, bytes, all } => {
            range(row, "lock", thread, start, bytes);
            row.detail = all.then(|| "all".to_owned());
        }
        Call::Unlock { thread, start, bytes, all } => {
            range(row, "unlock", thread, start, bytes);
            row.detail = all.then(|| "all".to_owned());
        }
        Call::Sync { thread, start, bytes, flags } => {
            range(row, "sync", thread, start, bytes);
            row.flags = Some(flags.into());
        }
        Call::Touch { thread, page, pages, write } => {
            name(row, "touch", thread);
            row.page = Some(page);
            row.bytes = pages.checked_mul(4096);
            row.detail = Some(if write { "write" } else { "read" }.to_owned());
        }
        _ => files(call, row),
    }
}

/// Fills in the calls about files.
fn files(call: &Call, row: &mut Row) {
    match call {
        Call::File(file) => {
            row.kind = "file";
            (row.file, row.bytes) = (Some(file.id), Some(file.bytes));
            row.detail =
                Some(if file.memory { format!("memory {}", file.path) } else { file.path.clone() });
        }
        Call::Read { thread, file, offset, bytes } => {
            name(row, "read", *thread);
            (row.file, row.offset, row.bytes) = (Some(*file), Some(*offset), Some(*bytes));
        }
        Call::Write { thread, file, offset, bytes } => {
            name(row, "write", *thread);
            (row.file, row.offset, row.bytes) = (Some(*file), Some(*offset), Some(*bytes));
        }
        Call::FileSync { thread, file } => {
            name(row, "filesync", *thread);
            row.file = Some(*file);
        }
        Call::Truncate { thread, file, bytes } => {
            name(row, "truncate", *thread);
            (row.file, row.bytes) = (Some(*file), Some(*bytes));
        }
        Call::Unlink { thread, file } => {
            name(row, "unlink", *thread);
            row.file = Some(*file);
        }
        _ => unreachable!("{call:?} has no row"),
    }
}

fn name(row: &mut Row, kind: &'static str, thread: ThreadId) {
    row.kind = kind;
    row.thread = Some(thread);
}

fn range(row: &mut Row, kind: &'static str, thread: ThreadId, start: u64, bytes: u64) {
    name(row, kind, thread);
    (row.start, row.bytes) = (Some(start), Some(bytes));
}

/// An exec in one line: path, arguments, then its areas as page+pages, rights, file.
fn exec(path: &str, arguments: &[String], areas: &[Area], touched: &[u64]) -> String {
    let mut text = format!("{path}: {}", arguments.join(" "));
    for area in areas {
        let right = |bit: u32, letter: char| if area.prot & bit == 0 { '-' } else { letter };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "; {:#x}+{} {}{}{}{}",
            area.page,
            area.pages,
            right(1, 'r'),
            right(2, 'w'),
            right(4, 'x'),
            if area.shared { 's' } else { 'p' },
        );
        if let Some((file, offset)) = area.file {
            let _ = write!(text, " file {file} page {offset}");
        }
    }
    if !touched.is_empty() {
        let _ = write!(text, "; touched {}", touched.len());
    }
    text
}
