//! `vellum explain`.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use vellum_lab::explain::anomaly::{self, Anomaly, Bounds, Search};
use vellum_lab::explain::{
    FRAMES_MAX, Lesson, Outcome, Refs, Step, Style, Subject, Table, quiz, write_counts, write_title,
};

use crate::args::{ExplainArgs, Format};
use crate::output;

/// References and pages of a random string unless said.
const COUNT: u64 = 10;
const PAGES: u64 = 10;
const CLOCK_BITS: u64 = 2;
/// Bytes of a file of references or answers that are read: enough for the longest that is taken.
const FILE_MAX: u64 = 64 << 20;

pub(crate) fn run(args: &ExplainArgs) -> Result<ExitCode> {
    let subject = Subject::parse(&args.policy, args.clock_bits.unwrap_or(CLOCK_BITS))?;
    if args.clock_bits.is_some() && subject.name() != "CLOCK" {
        bail!(
            "-b is the largest use count of -p CLOCK, the homework's; `vellum policies` lists what \
             other policies have"
        );
    }
    if args.anomaly {
        return anomaly(args, subject);
    }
    let Some(lesson) = lesson(args, subject)? else {
        bail!("there are no references: give them with --refs 7,0,1,2, or -n 10 for random ones");
    };
    if let Some(path) = &args.grade {
        return grade(&lesson, path, args.format);
    }
    let asks = args.refs.is_none() && args.refs_file.is_none();
    if (args.quiz || (asks && !args.step && args.format == Format::Text)) && !args.compute {
        if args.format != Format::Text {
            bail!("a question is text: leave --format out");
        }
        output::to(None, |out| Ok(quiz::ask(&lesson, out)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.step {
        if args.format != Format::Text {
            bail!("--step is for people: leave --format out");
        }
        return step(&lesson);
    }
    output::to(None, |out| match args.format {
        Format::Text => text(&lesson, args, out),
        Format::Json => json(&lesson, out),
        Format::Csv => csv(&lesson, out),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The string, frames and policy that the arguments name; none if they name no string.
fn lesson(args: &ExplainArgs, subject: Subject) -> Result<Option<Lesson>> {
    let seed = args.seed.unwrap_or(0);
    let written = match (&args.refs, &args.addresses, &args.refs_file, &args.address_file) {
        (Some(text), ..) => Some(Refs::parse(text)?),
        (_, Some(text), ..) if text.trim() != "-1" => Some(Refs::parse(text)?),
        (_, _, Some(path), _) | (_, _, _, Some(path)) => {
            let refs = Refs::parse(&read(path)?);
            Some(refs.with_context(|| format!("{}", path.display()))?)
        }
        _ => None,
    };
    if let Some(refs) = written {
        return Ok(Some(Lesson::new(refs, args.frames, subject, seed)?));
    }
    let chance = args.addresses.is_some() || args.count.is_some() || args.max_page.is_some();
    if !chance && args.seed.is_none() && !args.compute {
        return Ok(None);
    }
    let (count, pages) = (args.count.unwrap_or(COUNT), args.max_page.unwrap_or(PAGES));
    Ok(Some(Lesson::drawn(count, pages, args.frames, subject, seed)?))
}

/// A file of text, or standard input.
fn read(path: &Path) -> Result<String> {
    let from: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?)
    };
    let mut bytes = Vec::new();
    let taken = from.take(FILE_MAX + 1).read_to_end(&mut bytes);
    taken.with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > FILE_MAX {
        bail!("{} is longer than {} MiB", path.display(), FILE_MAX >> 20);
    }
    String::from_utf8(bytes).with_context(|| format!("{} is no text", path.display()))
}

/// Colour is for terminals whose user does not object (<https://no-color.org>).
fn style() -> Style {
    let objects = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if io::stdout().is_terminal() && !objects { Style::Colour } else { Style::Plain }
}

fn text(lesson: &Lesson, args: &ExplainArgs, out: &mut dyn Write) -> Result<()> {
    write_title(lesson, out)?;
    writeln!(out)?;
    if !args.no_trace {
        let table = Table::new(lesson, style());
        if args.across {
            table.write_across(out)?;
        } else {
            table.write_head(out)?;
            for step in lesson.steps() {
                table.write_row(&step, out)?;
            }
        }
        table.write_legend(out)?;
        writeln!(out)?;
    }
    Ok(write_counts(&lesson.counts(), out)?)
}

/// Prints a row, and the next when a line comes in; what all come to at the end.
fn step(lesson: &Lesson) -> Result<ExitCode> {
    let table = Table::new(lesson, style());
    let mut out = io::stdout().lock();
    let mut lines = io::stdin().lock().lines();
    write_title(lesson, &mut out)?;
    writeln!(out)?;
    table.write_head(&mut out)?;
    let last = lesson.refs().len() as u64;
    for step in lesson.steps() {
        table.write_row(&step, &mut out)?;
        out.flush()?;
        if step.time < last && lines.next().transpose()?.is_none() {
            return Ok(ExitCode::SUCCESS);
        }
    }
    table.write_legend(&mut out)?;
    writeln!(out)?;
    write_counts(&lesson.counts(), &mut out)?;
    Ok(ExitCode::SUCCESS)
}

fn json(value: &impl Serialize, out: &mut dyn Write) -> Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    Ok(writeln!(out)?)
}

/// A row a reference; frames and victims are joined by spaces.
fn csv(lesson: &Lesson, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "time,page,write,outcome,gone,written_back,frames,why")?;
    for step in lesson.steps() {
        let Step { time, page, write, frames, why, .. } = &step;
        let outcome = if step.outcome == Outcome::Hit { "hit" } else { "fault" };
        let gone = || step.victim.iter().chain(&step.released);
        let names: Vec<&str> = gone().map(|gone| gone.page.as_str()).collect();
        let written = gone().filter(|gone| gone.written_back).count() + step.laundered.len();
        let held = |held: &Option<_>| held.as_ref().map_or("-", content_name).to_owned();
        let frames: Vec<String> = frames.iter().map(held).collect();
        let (gone, frames) = (names.join(" "), frames.join(" "));
        writeln!(out, "{time},{page},{write},{outcome},{gone},{written},{frames},\"{why}\"")?;
    }
    Ok(())
}

fn content_name(content: &vellum_lab::explain::Content) -> &str {
    &content.page
}

fn grade(lesson: &Lesson, path: &Path, format: Format) -> Result<ExitCode> {
    let grade = quiz::grade(lesson, &read(path)?);
    output::to(None, |out| match format {
        Format::Json => json(&grade, out),
        Format::Csv => bail!("a grade is text or JSON"),
        Format::Text => {
            for wrong in &grade.wrong {
                match wrong.line {
                    Some(line) => writeln!(out, "line {line}: {}", wrong.says)?,
                    None => writeln!(out, "missing: reference {}, {}", wrong.time, wrong.says)?,
                }
            }
            Ok(writeln!(out, "{} of {} right", grade.right, grade.of)?)
        }
    })?;
    Ok(if grade.is_perfect() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was looked for and found.
#[derive(Serialize)]
struct Findings {
    policy: &'static str,
    stack_algorithm: bool,
    /// Whether the string was given, not searched.
    given: bool,
    /// Whether no shorter string has the anomaly.
    shortest: bool,
    /// What was looked at in vain, if nothing was found.
    none: Option<String>,
    anomalies: Vec<Anomaly>,
}

fn find(args: &ExplainArgs, subject: Subject) -> Result<Findings> {
    let mut findings = Findings {
        policy: subject.name(),
        stack_algorithm: anomaly::is_stack(&subject),
        given: false,
        shortest: false,
        none: None,
        anomalies: Vec::new(),
    };
    if let Some(lesson) = lesson(args, subject)? {
        findings.given = true;
        findings.anomalies = anomaly::all_in(&lesson);
        let most = lesson.refs().pages().min(FRAMES_MAX as usize);
        findings.none = findings
            .anomalies
            .is_empty()
            .then(|| format!("none in this string, from 1 frame to {most}"));
        return Ok(findings);
    }
    let bounds = Bounds { seed: args.seed.unwrap_or(0), ..Bounds::default() };
    match anomaly::search(subject, bounds)? {
        Search::Shortest(found) => {
            findings.shortest = true;
            findings.anomalies = vec![*found];
        }
        Search::Some(found) => findings.anomalies = vec![*found],
        Search::None { length, random } => {
            findings.none = Some(format!(
                "none found: in all strings of up to {length} reads of up to {} pages, and in \
                 {random} longer ones by chance",
                bounds.pages
            ));
        }
    }
    Ok(findings)
}

fn anomaly(args: &ExplainArgs, subject: Subject) -> Result<ExitCode> {
    if args.format == Format::Csv {
        bail!("anomalies are text or JSON");
    }
    let findings = find(args, subject)?;
    output::to(None, |out| match args.format {
        Format::Json => json(&findings, out),
        _ => told(&findings, args, &subject, out),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn told(
    findings: &Findings,
    args: &ExplainArgs,
    subject: &Subject,
    out: &mut dyn Write,
) -> Result<()> {
    if findings.stack_algorithm {
        writeln!(
            out,
            "{} is a stack algorithm: what it holds in n frames it holds in n + 1, so more memory \
             never costs it faults (Mattson et al., 1970)",
            findings.policy
        )?;
    }
    if let Some(none) = &findings.none {
        writeln!(out, "{none}")?;
    }
    let Some((first, others)) = findings.anomalies.split_first() else { return Ok(()) };
    if subject.plays() {
        writeln!(out, "{} plays; this holds for seed {}", findings.policy, first.fewer.seed())?;
    }
    if findings.shortest {
        let pages = Bounds::default().pages;
        writeln!(out, "no shorter string of reads of up to {pages} pages has the anomaly:")?;
    } else if !findings.given {
        writeln!(out, "found by chance; a shorter one may exist:")?;
    }
    show(first, args, out)?;
    for other in others {
        writeln!(out, "\nalso {}", line(other))?;
    }
    Ok(())
}

/// A string, both counts, both tables.
fn show(anomaly: &Anomaly, args: &ExplainArgs, out: &mut dyn Write) -> Result<()> {
    let refs = anomaly.fewer.refs();
    let words: Vec<String> = refs.iter().map(|reference| refs.word(reference)).collect();
    writeln!(out, "{}\n{}\n", words.join(","), line(anomaly))?;
    text(&anomaly.fewer, args, out)?;
    writeln!(out)?;
    text(&anomaly.more, args, out)
}

fn line(anomaly: &Anomaly) -> String {
    let Anomaly { fewer, more, faults } = anomaly;
    let (few, many) = (fewer.frames(), more.frames());
    format!("{} faults on {few} frames, {} on {many}", faults.0, faults.1)
}
