//! Tables: the steps of a lesson as lines of text.
//!
//! [`write_row`](Table::write_row) gives a reference a row, with a column a frame, the policy's
//! lists and the reason; [`write_across`](Table::write_across) gives it a column, as books print
//! it. A row is padded to the widest of each column, which a first pass over the steps finds: steps
//! are cheap to make again and dear to keep.
//!
//! ```text
//!        #  ref          f0   f1   f2   out  circle     why
//!        4   2   fault   2R  >0.   1.   7    0 1 2      R of 7, 0 and 1 cleared; 7 has R=0
//!                            hand, page, bits
//! ```

use std::io::{self, Write};

use super::{Counts, Entry, Lesson, List, Number, Outcome, Step};

/// The widest block of columns, in characters, before the next block begins.
const ACROSS_MAX: usize = 100;

/// Whether lines are coloured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// Nothing but characters.
    Plain,
    /// With ANSI colours.
    Colour,
}

/// A lesson as text.
pub struct Table<'a> {
    lesson: &'a Lesson,
    style: Style,
    reads_bits: bool,
    writes: bool,
    page: usize, // width of the widest page
    word: usize, // of the widest reference
    out: usize,  // of the widest cell of victims
    has_hand: bool,
    notes: Vec<(&'static str, usize)>, // the policy's lists and numbers: name and width
}

impl<'a> Table<'a> {
    /// Looks at every step once to find how wide columns are.
    pub fn new(lesson: &'a Lesson, style: Style) -> Table<'a> {
        let refs = lesson.refs();
        let page = (0..refs.pages() as u32).map(|page| refs.name(page).len()).max();
        let mut table = Table {
            lesson,
            style,
            reads_bits: lesson.subject().reads_bits(),
            writes: refs.has_writes(),
            page: page.unwrap_or(1),
            word: refs.width().max(3),
            out: 3,
            has_hand: false,
            notes: Vec::new(),
        };
        for step in lesson.steps() {
            table.out = table.out.max(gone(&step).len());
            table.has_hand |= !pointed_at(&step).is_empty();
            for (name, text) in notes(&step) {
                let width = text.len().max(name.len());
                match table.notes.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, known)) => *known = width.max(*known),
                    None => table.notes.push((name, width)),
                }
            }
        }
        table
    }

    /// The head of the columns.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn write_head(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{:>5}  {:<word$}  {:5}  ", "#", "ref", "", word = self.word)?;
        for frame in 0..self.lesson.frames() {
            write!(out, " {:<1$}", format!("f{frame}"), self.cell_width() - 1)?;
        }
        write!(out, " {:<1$}", "out", self.out)?;
        for (name, width) in &self.notes {
            write!(out, "  {name:<width$}")?;
        }
        writeln!(out, "  why")
    }

    /// The row of a step.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn write_row(&self, step: &Step, out: &mut dyn Write) -> io::Result<()> {
        let outcome = match step.outcome {
            Outcome::Hit => self.paint("32", "hit  "),
            Outcome::Fault => self.paint("1;31", "fault"),
        };
        let mut cells =
            vec![format!("{:>5}  {:<2$}  {outcome}  ", step.time, word(step), self.word)];
        let hands = pointed_at(step);
        for frame in 0..self.lesson.frames() {
            let cell = self.cell(step, &hands, frame);
            let loaded = step.outcome == Outcome::Fault && step.frame == frame;
            cells.push(if loaded { self.paint("1", &cell) } else { cell });
        }
        cells.push(format!(" {:<1$}", gone(step), self.out));
        let texts: Vec<(&str, String)> = notes(step).collect();
        for (name, width) in &self.notes {
            let text = texts.iter().find(|(known, _)| known == name);
            cells.push(format!("  {:<width$}", text.map_or("", |(_, text)| text)));
        }
        cells.push(format!("  {}", step.why));
        writeln!(out, "{}", cells.concat().trim_end())
    }

    /// All steps, a column each, in blocks that fit a page.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn write_across(&self, out: &mut dyn Write) -> io::Result<()> {
        let width = self.cell_width().max(self.word + 1).max(self.out + 1);
        let columns = (ACROSS_MAX.saturating_sub(6) / width).max(1);
        let mut steps = self.lesson.steps();
        let mut first = true;
        loop {
            let block: Vec<Step> = steps.by_ref().take(columns).collect();
            if block.is_empty() {
                return Ok(());
            }
            if !std::mem::take(&mut first) {
                writeln!(out)?;
            }
            let row = |name: &str, cell: &dyn Fn(&Step) -> String| {
                let cells = block.iter().map(|step| format!("{:<width$}", cell(step)));
                let row = format!("{name:<6}{}", cells.collect::<Vec<String>>().concat());
                row.trim_end().to_owned()
            };
            writeln!(out, "{}", row("ref", &|step| format!(" {}", word(step))))?;
            for frame in 0..self.lesson.frames() {
                let cells = row(&format!("f{frame}"), &|step| match step.frames[frame as usize] {
                    Some(_) => self.cell(step, &pointed_at(step), frame),
                    None => String::new(),
                });
                writeln!(out, "{cells}")?;
            }
            let fault = |step: &Step| match step.outcome {
                Outcome::Fault => " F".to_owned(),
                Outcome::Hit => String::new(),
            };
            writeln!(out, "{}", row("fault", &fault))?;
            writeln!(out, "{}", row("out", &|step| format!(" {}", gone(step))))?;
        }
    }

    /// What the marks mean that occur.
    ///
    /// # Errors
    /// If `out` cannot be written.
    pub fn write_legend(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut marks = Vec::new();
        if self.reads_bits {
            marks.push("R used since the policy last looked");
        }
        if self.writes {
            marks.push("D written");
            marks.push("out* written back first");
        }
        if self.has_hand {
            marks.push("> hand");
        }
        if marks.is_empty() { Ok(()) } else { writeln!(out, "{}", marks.join(", ")) }
    }

    fn cell_width(&self) -> usize {
        // The hand, the page, the bits, a space.
        1 + self.page.max(2) + usize::from(self.reads_bits) + usize::from(self.writes) + 1
    }

    /// A frame as a cell: `>7R. `.
    fn cell(&self, step: &Step, hands: &[u32], frame: u32) -> String {
        let Some(held) = &step.frames[frame as usize] else {
            return format!("{:<1$}", " -", self.cell_width());
        };
        let mut text = format!("{}{}", if hands.contains(&frame) { ">" } else { " " }, held.page);
        if self.reads_bits {
            text.push(if held.referenced { 'R' } else { '.' });
        }
        if self.writes {
            text.push(if held.dirty { 'D' } else { '.' });
        }
        format!("{text:<width$}", width = self.cell_width())
    }

    fn paint(&self, code: &str, text: &str) -> String {
        match self.style {
            Style::Plain => text.to_owned(),
            Style::Colour => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// Writes what is explained: policy, frames, string.
///
/// # Errors
/// If `out` cannot be written.
pub fn write_title(lesson: &Lesson, out: &mut dyn Write) -> io::Result<()> {
    let Lesson { subject, frames, refs, .. } = lesson;
    let (name, line) = (subject.spec(), subject.line());
    writeln!(out, "{name}, {}: {line}", plural(u64::from(*frames), "frame"))?;
    let pages = plural(refs.pages() as u64, "page");
    writeln!(out, "{} to {pages}", plural(refs.len() as u64, "reference"))
}

/// Writes what all references came to.
///
/// # Errors
/// If `out` cannot be written.
pub fn write_counts(counts: &Counts, out: &mut dyn Write) -> io::Result<()> {
    let Counts { references, faults, pages, writebacks, .. } = *counts;
    let hits = counts.hits();
    let share = |count: u64| 100.0 * count as f64 / references.max(1) as f64;
    let width = references.to_string().len();
    let rate = share(faults);
    writeln!(
        out,
        "faults      {faults:>width$} of {references} ({rate:.2}%), {pages} of them first uses"
    )?;
    writeln!(out, "hits        {hits:>width$} of {references} ({:.2}%)", share(hits))?;
    writeln!(out, "write-backs {writebacks:>width$}")
}

/// The frames that a hand points at.
fn pointed_at(step: &Step) -> Vec<u32> {
    let entries = step.lists.iter().flat_map(|list| &list.members);
    entries.filter(|entry| !entry.hands.is_empty()).filter_map(|entry| entry.frame).collect()
}

/// The reference as it was written.
fn word(step: &Step) -> String {
    format!("{}{}", step.page, if step.write { "w" } else { "" })
}

/// Who left: the victim, then those given up; a star says written back.
fn gone(step: &Step) -> String {
    let gone = step.victim.iter().chain(&step.released);
    let names =
        gone.map(|gone| format!("{}{}", gone.page, if gone.written_back { "*" } else { "" }));
    names.collect::<Vec<String>>().join(" ")
}

/// The policy's lists and numbers, each with its name.
fn notes(step: &Step) -> impl Iterator<Item = (&'static str, String)> + '_ {
    let lists = step.lists.iter().map(|list| (list.name, members(list)));
    let number = |number: &Number| {
        // Two places behind the point tell enough, and whole numbers have none.
        (number.name, ((number.value * 100.0).round() / 100.0).to_string())
    };
    lists.chain(step.numbers.iter().map(number))
}

/// `>7 0:hot 1:3`.
fn members(list: &List) -> String {
    if list.members.is_empty() {
        return "-".to_owned();
    }
    let member = |entry: &Entry| {
        let hands = entry.hands.iter().map(|hand| match *hand {
            "hand" => ">".to_owned(),
            hand => format!("{hand}>"),
        });
        let label = entry.label.map_or(String::new(), |label| format!(":{label}"));
        let count = entry.count.map_or(String::new(), |count| match list.name {
            "counters" => format!(":{count:08b}"), // shift registers: aging
            _ => format!(":{count}"),
        });
        format!("{}{}{label}{count}", hands.collect::<String>(), entry.page)
    };
    list.members.iter().map(member).collect::<Vec<String>>().join(" ")
}

fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
