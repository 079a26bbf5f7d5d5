//! Whether events make sense: the wall between a file and whatever trusts its numbers.
//!
//! A reader yields any event whose bytes are well-formed. A [`Checker`] refuses those that cannot
//! have happened: a thread that nobody started, a page beyond the address space, a range that
//! wraps. What passes may index tables by thread, process and file, and add start and length
//! without care.
//!
//! Identifiers begin near 0 and grow by appearance, but not strictly (a recorder may number a child
//! before it reports an older one), so a new one may run ahead of the count by [`IDS_AHEAD_MAX`]
//! and no more: a table indexed by them is as large as the trace justifies.
//!
//! Knows nothing of: address spaces. Whether a page was mapped when it was touched is a question
//! for who replays the trace.

use crate::error::TraceError;
use crate::event::{Access, Area, Call, Event, ProcessId, ThreadId};

/// Pages have numbers below this: addresses have 64 bits.
pub const PAGES_MAX: u64 = 1 << 52;
/// Most pages of one `Call::Touch`: the kernel moves at most 2 GiB a call, and a page at each end.
pub const TOUCH_PAGES_MAX: u64 = (1 << 19) + 2;
/// How far a new identifier may exceed the number of those before it.
pub const IDS_AHEAD_MAX: usize = 4096;

const PAGE_BYTES: u64 = 4096;
const NONE: ProcessId = ProcessId::MAX;

/// Checks the events of one trace, in order.
#[derive(Default)]
pub struct Checker {
    events: u64,
    threads: Ids<ProcessId>, // the process of each
    processes: Ids<()>,
    files: Ids<()>,
}

/// A table indexed by identifier.
#[derive(Default)]
struct Ids<T> {
    known: Vec<Option<T>>,
    count: usize,
}

impl<T: Copy> Ids<T> {
    #[inline]
    fn get(&self, id: u32) -> Option<T> {
        self.known.get(id as usize).copied().flatten()
    }

    fn add(&mut self, id: u32, what: &str, value: T) -> Result<(), String> {
        let index = id as usize;
        if index > self.count + IDS_AHEAD_MAX {
            return Err(format!("{what} {id} is new, but only {} are known", self.count));
        }
        if self.get(id).is_some() {
            return Err(format!("{what} {id} begins twice"));
        }
        if self.known.len() <= index {
            self.known.resize(index + 1, None);
        }
        self.known[index] = Some(value);
        self.count += 1;
        Ok(())
    }
}

impl Checker {
    /// A checker that has seen no event.
    pub fn new() -> Checker {
        Checker::default()
    }

    /// Events that have passed.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Checks the next event.
    ///
    /// # Errors
    /// [`TraceError::Impossible`] with the number of the event; the checker is then of no more use.
    #[inline]
    pub fn event(&mut self, event: &Event) -> Result<(), TraceError> {
        let result = match event {
            Event::Access(access) => {
                if self.is_good(access) {
                    self.events += 1;
                    return Ok(());
                }
                Err(self.judge(access))
            }
            Event::Call(call) => self.call(call),
        };
        result.map_err(|what| TraceError::Impossible { event: self.events, what })?;
        self.events += 1;
        Ok(())
    }

    /// Checks the events of a block, as [`Reader::next_block`](crate::Reader::next_block) yields
    /// them.
    ///
    /// # Errors
    /// As [`event`](Checker::event).
    pub fn block(&mut self, events: &[Event]) -> Result<(), TraceError> {
        events.iter().try_for_each(|event| self.event(event))
    }

    /// The process of a thread that has begun.
    pub fn process(&self, thread: ThreadId) -> Option<ProcessId> {
        self.threads.get(thread)
    }

    #[inline]
    fn is_good(&self, access: &Access) -> bool {
        access.page < PAGES_MAX && access.count > 0 && self.threads.get(access.thread).is_some()
    }

    /// What is wrong with an access that is not good.
    fn judge(&self, access: &Access) -> String {
        if let Err(what) = self.thread(access.thread) {
            return what;
        }
        if access.count == 0 {
            return "an access counts 0 references, not even itself".to_owned();
        }
        format!("page {:#x} is beyond the address space", access.page)
    }

    fn thread(&self, thread: ThreadId) -> Result<ProcessId, String> {
        self.threads.get(thread).ok_or_else(|| format!("thread {thread} has not begun"))
    }

    fn known_process(&self, process: ProcessId) -> Result<(), String> {
        self.processes.get(process).ok_or_else(|| format!("process {process} has not begun"))
    }

    fn own_process(&self, thread: ThreadId, process: ProcessId) -> Result<(), String> {
        let own = self.thread(thread)?;
        if own == process {
            return Ok(());
        }
        Err(format!("thread {thread} belongs to process {own}, not to {process}"))
    }

    fn file(&self, file: u32) -> Result<(), String> {
        self.files.get(file).ok_or_else(|| format!("file {file} was not introduced"))
    }

    fn begin(&mut self, thread: ThreadId, process: ProcessId) -> Result<(), String> {
        if process == NONE || thread == ThreadId::MAX {
            return Err(format!("{} is no identifier", u32::MAX));
        }
        self.processes.add(process, "process", ())?;
        self.threads.add(thread, "thread", process)
    }

    fn call(&mut self, call: &Call) -> Result<(), String> {
        match call {
            Call::Start { thread, process, .. } => self.begin(*thread, *process),
            Call::Fork { thread, process, child, .. } => {
                self.thread(*thread)?;
                self.begin(*child, *process)
            }
            Call::Thread { thread, child } => {
                let process = self.thread(*thread)?;
                self.threads.add(*child, "thread", process)
            }
            Call::File(file) => self.files.add(file.id, "file", ()),
            Call::Exec { thread, process, areas, touched, .. } => {
                self.own_process(*thread, *process)?;
                self.areas(areas)?;
                touched.iter().try_for_each(|page| pages(*page, 1))
            }
            Call::Exit { thread, process, .. } => self.own_process(*thread, *process),
            Call::Reap { thread, process } => {
                self.thread(*thread)?;
                self.known_process(*process)
            }
            _ => self.memory_call(call),
        }
    }

    /// Checks the calls that change memory or files.
    fn memory_call(&self, call: &Call) -> Result<(), String> {
        match *call {
            Call::Map { thread, start, bytes, file, offset, .. } => {
                self.thread(thread)?;
                aligned(start, "an area")?;
                aligned(offset, "the part of a file")?;
                some(bytes, "mmap")?;
                range(start, bytes)?;
                let Some(file) = file else { return Ok(()) };
                self.file(file)?;
                range(offset, bytes)
            }
            Call::Remap { thread, start, bytes, new_start, new_bytes, .. } => {
                self.thread(thread)?;
                aligned(start, "an area")?;
                aligned(new_start, "an area")?;
                some(new_bytes, "mremap")?;
                range(start, bytes)?;
                range(new_start, new_bytes)
            }
            Call::Unmap { thread, start, bytes } | Call::Protect { thread, start, bytes, .. } => {
                self.thread(thread)?;
                aligned(start, "an area")?;
                range(start, bytes)
            }
            Call::Advise { thread, start, bytes, .. }
            | Call::Lock { thread, start, bytes, .. }
            | Call::Unlock { thread, start, bytes, .. }
            | Call::Sync { thread, start, bytes, .. } => {
                self.thread(thread)?;
                range(start, bytes)
            }
            Call::Brk { thread, end } => {
                self.thread(thread)?;
                range(end, 0)
            }
            Call::Touch { thread, page, pages: count, .. } => {
                self.thread(thread)?;
                if count > TOUCH_PAGES_MAX {
                    return Err(format!("one system call touches {count} pages"));
                }
                pages(page, count)
            }
            Call::Read { thread, file, offset, bytes }
            | Call::Write { thread, file, offset, bytes } => {
                self.thread(thread)?;
                self.file(file)?;
                range(offset, bytes)
            }
            Call::FileSync { thread, file }
            | Call::Truncate { thread, file, .. }
            | Call::Unlink { thread, file } => {
                self.thread(thread)?;
                self.file(file)
            }
            Call::ThreadExit { thread }
            | Call::Failed { thread, .. }
            | Call::Tick { thread, .. }
            | Call::Mark { thread, .. } => self.thread(thread).map(|_| ()),
            // `call` has dealt with the others.
            _ => Ok(()),
        }
    }

    /// Checks the areas that an exec builds.
    fn areas(&self, areas: &[Area]) -> Result<(), String> {
        let mut ranges = Vec::with_capacity(areas.len());
        for area in areas {
            some(area.pages, "an exec")?;
            pages(area.page, area.pages)?;
            if let Some((file, offset)) = area.file {
                self.file(file)?;
                pages(offset, area.pages)?;
            }
            ranges.push((area.page, area.pages));
        }
        ranges.sort_unstable();
        match ranges.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
            Some(pair) => {
                Err(format!("the areas at pages {:#x} and {:#x} overlap", pair[0].0, pair[1].0))
            }
            None => Ok(()),
        }
    }
}

fn aligned(byte: u64, what: &str) -> Result<(), String> {
    if byte.is_multiple_of(PAGE_BYTES) {
        return Ok(());
    }
    Err(format!("{what} begins at byte {byte:#x}, which begins no page"))
}

fn some(length: u64, what: &str) -> Result<(), String> {
    if length > 0 { Ok(()) } else { Err(format!("{what} succeeded with a length of 0")) }
}

/// Whether `bytes` from `start` on end within 64 bits, with room to round up to a page.
fn range(start: u64, bytes: u64) -> Result<(), String> {
    match start.checked_add(bytes) {
        Some(end) if end <= u64::MAX - PAGE_BYTES => Ok(()),
        _ => Err(format!("{bytes} bytes from {start:#x} on are beyond the address space")),
    }
}

fn pages(page: u64, count: u64) -> Result<(), String> {
    match page.checked_add(count) {
        Some(end) if end <= PAGES_MAX => Ok(()),
        _ => Err(format!("{count} pages from {page:#x} on are beyond the address space")),
    }
}

/// An iterator over events that stops at the first that cannot have happened.
pub struct Checked<I> {
    events: I,
    checker: Checker,
    failed: bool,
}

impl<I: Iterator<Item = Result<Event, TraceError>>> Checked<I> {
    /// Checks `events`, which begin with the first of a trace.
    pub fn new(events: I) -> Checked<I> {
        Checked { events, checker: Checker::new(), failed: false }
    }
}

impl<I: Iterator<Item = Result<Event, TraceError>>> Iterator for Checked<I> {
    type Item = Result<Event, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let checked = self.events.next()?.and_then(|event| {
            self.checker.event(&event)?;
            Ok(event)
        });
        self.failed = checked.is_err();
        Some(checked)
    }
}
