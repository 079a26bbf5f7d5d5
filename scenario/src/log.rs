//! The log of a run, in words and numbers that do not depend on the world it ran in.
//!
//! Which frame an allocator hands out, and where a kernel keeps its tables, is not what a scenario
//! is about. So frames, slots and requests are numbered in the order in which the log first names
//! them, and frames that hold no contents of programs or files are left out.

use alloc::borrow::ToOwned as _;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use vellum_mm::addr::{FileRef, Frame, Slot};
use vellum_mm::event::{Event, Kept, Target};
use vellum_mm::objects::io::{IoOutcome, Request, RequestId};

/// What happened since the log was last taken, and the names given since the run began.
#[derive(Default)]
pub(crate) struct Log {
    items: Vec<Item>,
    /// Who is named before each item.
    speaker: Option<String>,
    frames: BTreeMap<Frame, usize>,
    slots: BTreeMap<Slot, usize>,
    files: BTreeMap<FileRef, String>,
    /// Requests under way that have a name.
    requests: BTreeMap<RequestId, u32>,
    requests_named: u32,
    /// Frames that hold contents now.
    contents: BTreeSet<Frame>,
}

#[derive(PartialEq, Eq)]
enum Item {
    /// The same thing happened to consecutive frames.
    Run(String, core::ops::RangeInclusive<usize>),
    Other(String),
}

impl Log {
    /// An empty log.
    pub(crate) fn new() -> Log {
        Log::default()
    }

    /// Calls `file` by its name from now on.
    pub(crate) fn name_file(&mut self, file: FileRef, name: &str) {
        self.files.insert(file, name.to_owned());
    }

    /// Puts `speaker` before the items that follow, or nothing.
    pub(crate) fn speak_as(&mut self, speaker: Option<&str>) {
        self.speaker = speaker.map(|name| format!("{name}: "));
    }

    /// Takes the items so far.
    pub(crate) fn take(&mut self) -> Vec<String> {
        let text = |item| match item {
            Item::Run(verb, frames) => format!("{verb} {}", run(&frames)),
            Item::Other(text) => text,
        };
        core::mem::take(&mut self.items).into_iter().map(text).collect()
    }

    /// Adds an item that is no event of the memory manager.
    pub(crate) fn say(&mut self, what: &str) {
        let speaker = self.speaker.as_deref().unwrap_or_default();
        self.items.push(Item::Other(format!("{speaker}{what}")));
    }

    /// Somebody waits for a request.
    pub(crate) fn wait(&mut self, request: RequestId) {
        let number = self.request(request);
        self.say(&format!("wait r{number}"));
    }

    /// A request that had a name has ended.
    pub(crate) fn ended(&mut self, request: RequestId, outcome: IoOutcome) {
        let Some(number) = self.requests.remove(&request) else { return };
        match outcome {
            IoOutcome::Done => self.say(&format!("done r{number}")),
            IoOutcome::Failed => self.say(&format!("failed r{number}")),
        }
    }

    /// The request called `r` and this number, if it is under way.
    pub(crate) fn request_named(&self, number: u32) -> Option<RequestId> {
        self.requests.iter().find(|&(_, &other)| other == number).map(|(&request, _)| request)
    }

    /// Notes that `frame` holds contents of a program or a file, so that its end is worth a word.
    pub(crate) fn holds_contents(&mut self, frame: Frame) {
        self.contents.insert(frame);
    }

    /// Adds a request to a disk, which gets a name if it is `held`.
    pub(crate) fn io(&mut self, request: &Request, write: bool, held: bool) {
        let verb = if write { "write" } else { "read" };
        let count = request.frames().len() as u64;
        let place = match request.target {
            Target::Swap(first) => {
                let slots = (0..count as u32).map(|i| self.slot(Slot(first.0 + i))).collect();
                list("s", slots)
            }
            Target::File(file, first) if count == 1 => format!("{} {first}", self.file(file)),
            Target::File(file, first) => {
                format!("{} {first}-{}", self.file(file), first + count - 1)
            }
        };
        let frames = request.frames().iter().map(|&frame| self.frame(frame)).collect();
        let frames = list("f", frames);
        let name = if held { format!(" r{}", self.request(request.id)) } else { String::new() };
        self.say(&format!("{verb} {place} {frames}{name}"));
    }

    /// Adds what the memory manager did, unless it is the business of [`io`](Self::io) or of who is
    /// told of a signal.
    pub(crate) fn event(&mut self, event: &Event) {
        let major = |read| if read { " major" } else { "" };
        match *event {
            Event::Io { .. } | Event::Violation { .. } => {}
            Event::ZeroPage { .. } => self.say("zero-page"),
            Event::Spurious { .. } => self.say("spurious"),
            Event::StackGrown { .. } => self.say("stack-grown"),
            Event::ZeroFill { frame, .. } => self.on_frame("zero-fill", frame),
            Event::Reuse { frame, .. } => self.on_frame("reuse", frame),
            Event::MakeDirty { frame, .. } => self.on_frame("make-dirty", frame),
            Event::Free { frame } => {
                if self.contents.remove(&frame) {
                    self.on_frame("free", frame);
                    self.contents.remove(&frame);
                }
            }
            Event::FileMap { frame, around, read, .. } => {
                let frame = self.frame(frame);
                let around = if around > 0 { format!(" around {around}") } else { String::new() };
                self.say(&format!("file-map f{frame}{around}{}", major(read)));
            }
            Event::SwapIn { slot, frame, read, .. } => {
                let (slot, frame) = (self.slot(slot), self.frame(frame));
                self.say(&format!("swap-in s{slot} f{frame}{}", major(read)));
            }
            Event::Copy { from, to, read, .. } => {
                let (from, to) = (self.frame(from), self.frame(to));
                self.say(&format!("copy f{from} f{to}{}", major(read)));
            }
            Event::Evict { frame, to } => {
                let frame = self.frame(frame);
                let to = match to {
                    Kept::Swap(slot) => format!("swap s{}", self.slot(slot)),
                    Kept::File(file, index) => format!("file {} {index}", self.file(file)),
                    Kept::Nowhere => "nowhere".to_owned(),
                };
                self.say(&format!("evict f{frame} {to}"));
            }
        }
    }

    fn on_frame(&mut self, verb: &str, frame: Frame) {
        let frame = self.frame(frame);
        let verb = format!("{}{verb}", self.speaker.as_deref().unwrap_or_default());
        if let Some(Item::Run(last, frames)) = self.items.last_mut()
            && *last == verb
            && frames.end() + 1 == frame
        {
            *frames = *frames.start()..=frame;
            return;
        }
        self.items.push(Item::Run(verb, frame..=frame));
    }

    fn frame(&mut self, frame: Frame) -> usize {
        self.contents.insert(frame);
        let next = self.frames.len();
        *self.frames.entry(frame).or_insert(next)
    }

    fn slot(&mut self, slot: Slot) -> usize {
        let next = self.slots.len();
        *self.slots.entry(slot).or_insert(next)
    }

    fn request(&mut self, request: RequestId) -> u32 {
        *self.requests.entry(request).or_insert_with(|| {
            self.requests_named += 1;
            self.requests_named - 1
        })
    }

    /// The file's name; shared memory that the script did not name is called so.
    fn file(&self, file: FileRef) -> &str {
        self.files.get(&file).map_or("shared-memory", String::as_str)
    }
}

fn run(frames: &core::ops::RangeInclusive<usize>) -> String {
    let (first, last) = (frames.start(), frames.end());
    if first == last { format!("f{first}") } else { format!("f{first}-f{last}") }
}

/// Numbers with their letter, consecutive ones as a range.
fn list(letter: &str, numbers: Vec<usize>) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let text = |&(first, last): &(usize, usize)| {
        if first == last {
            format!("{letter}{first}")
        } else {
            format!("{letter}{first}-{letter}{last}")
        }
    };
    runs.iter().map(text).collect::<Vec<_>>().join(" ")
}
