//! Steps: what each reference did, as plain data.

use serde::Serialize;
use vellum_mm::replace::board::{Board, Held, Member};

use super::memory::{Gone, Memory, Resident};
use super::{Lesson, Refs, why};

/// The policy whose classes depend on the dirty bit as well, which it reads and does not keep.
const ENHANCED: &str = "enhanced-clock";

/// Whether a reference found its page.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// In memory.
    Hit,
    /// Not in memory: loaded.
    Fault,
}

/// A page that left memory.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct Departure {
    /// Its name.
    pub page: String,
    /// The frame that it left.
    pub frame: u32,
    /// Whether it was dirty, and written back first.
    pub written_back: bool,
}

/// What a frame holds.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct Content {
    /// The page's name.
    pub page: String,
    /// R: used since a policy last cleared the bit.
    pub referenced: bool,
    /// D: written since it was loaded or last written back.
    pub dirty: bool,
}

/// Who is in a list of a policy, as names.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The page.
    pub page: String,
    /// The frame that holds it; none if it is only remembered.
    pub frame: Option<u32>,
    /// The policy's hands that point at it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hands: Vec<&'static str>,
    /// The policy's word for its state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<&'static str>,
    /// A number that the policy keeps of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// A list of a policy, as it shows it.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct List {
    /// The policy's name for it.
    pub name: &'static str,
    /// In the policy's order.
    pub members: Vec<Entry>,
}

/// A number that a policy steers by.
#[derive(Serialize, Clone, Copy, PartialEq, Debug)]
pub struct Number {
    /// The policy's name for it.
    pub name: &'static str,
    /// It.
    pub value: f64,
}

/// A reference and what it did.
#[derive(Serialize, Clone, PartialEq, Debug)]
pub struct Step {
    /// Which, from 1.
    pub time: u64,
    /// The page's name.
    pub page: String,
    /// Whether it writes.
    pub write: bool,
    /// Whether the page was there.
    pub outcome: Outcome,
    /// Where it is now.
    pub frame: u32,
    /// Who made room for it.
    pub victim: Option<Departure>,
    /// Pages that the policy gave up unasked.
    pub released: Vec<Departure>,
    /// Pages that were written back and stay.
    pub laundered: Vec<String>,
    /// What the frames hold afterwards.
    pub frames: Vec<Option<Content>>,
    /// The policy's lists afterwards.
    pub lists: Vec<List>,
    /// The policy's numbers afterwards.
    pub numbers: Vec<Number>,
    /// Why, in a short sentence; empty where nothing needs a reason.
    pub why: String,
}

/// The steps of a lesson, made one at a time.
pub struct Steps<'a> {
    lesson: &'a Lesson,
    memory: Memory,
    next: Vec<u64>,    // by reference
    left_at: Vec<u64>, // by page: the reference at which it last left memory, or 0
    at: usize,
    lists: Vec<List>, // before the reference in hand
    reads_bits: bool,
}

impl Iterator for Steps<'_> {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let refs = &self.lesson.refs;
        let reference = refs.get(self.at)?;
        let before = self.memory.frames().to_vec();
        let event = self.memory.reference(reference.page, reference.write, self.next[self.at]);
        let Shown { lists, numbers } = self.shown();
        let time = self.at as u64 + 1;
        let why = why::Scene {
            refs,
            subject: self.lesson.subject.name(),
            reads_bits: self.reads_bits,
            reference,
            event: &event,
            left_at: self.left_at[reference.page as usize],
            frames: &before,
            next: &self.next,
            lists_before: &self.lists,
            lists_after: &lists,
        };
        let why = why.sentence();
        for gone in event.victim.iter().chain(&event.released) {
            self.left_at[gone.page as usize] = time;
        }
        self.at += 1;
        self.lists.clone_from(&lists);
        Some(Step {
            time,
            page: refs.name(reference.page).to_owned(),
            write: reference.write,
            outcome: if event.fault { Outcome::Fault } else { Outcome::Hit },
            frame: event.frame,
            victim: event.victim.as_ref().map(|gone| departure(refs, gone)),
            released: event.released.iter().map(|gone| departure(refs, gone)).collect(),
            laundered: event.laundered.iter().map(|&page| refs.name(page).to_owned()).collect(),
            frames: self.contents(&lists),
            lists,
            numbers,
            why,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.lesson.refs.len() - self.at;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Steps<'_> {}

impl<'a> Steps<'a> {
    pub(super) fn new(lesson: &'a Lesson) -> Steps<'a> {
        let mut steps = Steps {
            lesson,
            memory: lesson.memory(),
            next: lesson.refs.next_uses(),
            left_at: vec![0; lesson.refs.pages()],
            at: 0,
            lists: Vec::new(),
            reads_bits: lesson.subject.reads_bits(),
        };
        steps.lists = steps.shown().lists;
        steps
    }

    /// What the frames hold. A bit that the policy took from the hardware and keeps itself is set.
    fn contents(&self, lists: &[List]) -> Vec<Option<Content>> {
        let refs = &self.lesson.refs;
        let frames = self.memory.frames().iter();
        let mut contents: Vec<_> = frames.map(|held| content(refs, held.as_ref())).collect();
        if self.lesson.subject.name() == ENHANCED {
            let kept = |entry: &&Entry| entry.label.is_some_and(|label| label.starts_with("(1"));
            for entry in lists.iter().flat_map(|list| &list.members).filter(kept) {
                let frame = entry.frame.map(|frame| frame as usize);
                if let Some(content) = frame.and_then(|frame| contents[frame].as_mut()) {
                    content.referenced = true;
                }
            }
        }
        contents
    }

    /// What the policy shows now.
    fn shown(&self) -> Shown {
        let mut notes = Notes {
            refs: &self.lesson.refs,
            frames: self.memory.frames(),
            shown: Shown::default(),
        };
        self.memory.policy().as_policy().show(&mut notes);
        let mut shown = notes.shown;
        if self.lesson.subject.name() == ENHANCED {
            for entry in shown.lists.iter_mut().flat_map(|list| &mut list.members) {
                classify(entry, self.memory.frames());
            }
        }
        shown
    }
}

/// Writes the class by R and D, where the policy wrote whether it holds an R.
fn classify(entry: &mut Entry, frames: &[Option<Resident>]) {
    let held = entry.frame.and_then(|frame| frames[frame as usize].as_ref());
    let Some(held) = held else { return };
    let classes = [["(0,0)", "(0,1)"], ["(1,0)", "(1,1)"]];
    let used = held.accessed || entry.label.is_some();
    entry.label = Some(classes[usize::from(used)][usize::from(held.dirty)]);
}

fn departure(refs: &Refs, gone: &Gone) -> Departure {
    let page = refs.name(gone.page).to_owned();
    Departure { page, frame: gone.frame, written_back: gone.written_back }
}

fn content(refs: &Refs, held: Option<&Resident>) -> Option<Content> {
    let Resident { page, accessed, dirty, .. } = *held?;
    Some(Content { page: refs.name(page).to_owned(), referenced: accessed, dirty })
}

/// What a policy wrote.
#[derive(Default)]
struct Shown {
    lists: Vec<List>,
    numbers: Vec<Number>,
}

/// A board that gives frames and pages their names.
struct Notes<'a> {
    refs: &'a Refs,
    frames: &'a [Option<Resident>],
    shown: Shown,
}

impl Board for Notes<'_> {
    fn list(&mut self, name: &'static str, members: &mut dyn Iterator<Item = Member>) {
        let entry = |member: Member| {
            let (page, frame) = match member.held {
                Held::Frame(frame) => {
                    let held = self.frames.get(frame.index()).and_then(Option::as_ref)?;
                    (held.page, Some(frame.0))
                }
                Held::Page(page) => (u32::try_from(page.0).ok()?, None),
            };
            Some(Entry {
                page: self.refs.name(page).to_owned(),
                frame,
                hands: member.hands.into_iter().flatten().collect(),
                label: member.label,
                count: member.count,
            })
        };
        let members = members.filter_map(entry).collect();
        self.shown.lists.push(List { name, members });
    }

    fn number(&mut self, name: &'static str, value: f64) {
        self.shown.numbers.push(Number { name, value });
    }
}
