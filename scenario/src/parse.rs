//! From lines to a [`Script`].
//!
//! Names are resolved here, and so is who is alive: a step that uses a file before it exists, or a
//! process after its exit, is an error of the script and not of the memory manager.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use vellum_mm::Config;
use vellum_mm::objects::file::{Medium, Warmth};
use vellum_mm::replace::Choice;

use crate::call;
use crate::script::{Action, Call, Script, Step};
use crate::words::{Parsed, Words, Wrong};

/// Frames that a scenario's machine has if it does not say.
const FRAMES: u32 = 64;
/// Most pages of a file.
pub(crate) const FILE_PAGES_MAX: u64 = 1 << 20;

/// What is wrong with a script, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseError {
    /// The script's name.
    pub script: String,
    /// The line, counted from 1.
    pub line: usize,
    /// What should stand there.
    pub expected: String,
    /// What does.
    pub found: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ParseError { script, line, expected, found } = self;
        write!(f, "{script}:{line}: expected {expected}, found {found}")
    }
}

impl core::error::Error for ParseError {}

impl Script {
    /// Reads a script. `name` is for messages.
    ///
    /// # Errors
    /// If a line is not in the language, or names what does not exist.
    pub fn parse(name: &str, text: &str) -> Result<Script, ParseError> {
        let lines: Vec<&str> = text.lines().collect();
        let mut reading = Reading {
            script: Script {
                name: name.to_owned(),
                config: Config::new(FRAMES),
                files: Vec::new(),
                processes: Vec::new(),
                steps: Vec::new(),
                text: lines.iter().map(|&line| line.to_owned()).collect(),
            },
            forgotten: Vec::new(),
            lives: Vec::new(),
        };
        for span in spans(&lines) {
            let text = lines[span.clone()].join(" ");
            let line = span.start + 1;
            reading.line(span, &text).map_err(|Wrong { expected, found }| ParseError {
                script: name.to_owned(),
                line,
                expected,
                found,
            })?;
        }
        Ok(reading.script)
    }
}

/// The lines of each statement: an indented line continues the one above it.
fn spans(lines: &[&str]) -> Vec<Range<usize>> {
    let mut spans: Vec<Range<usize>> = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        match spans.last_mut() {
            Some(last) if last.end == number && line.starts_with(char::is_whitespace) => {
                last.end += 1;
            }
            _ => spans.push(number..number + 1),
        }
    }
    spans
}

/// What has become of a process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Alive,
    /// Since its `vfork`, until this child runs a program or exits.
    WaitsFor(usize),
    Gone,
}

/// A script half read.
pub(crate) struct Reading {
    script: Script,
    forgotten: Vec<bool>,
    lives: Vec<Life>,
}

impl Reading {
    fn line(&mut self, lines: Range<usize>, text: &str) -> Parsed<()> {
        let (statement, log) = match text.split_once("=>") {
            Some((statement, log)) => (statement.trim(), Some(log)),
            None => (text.trim(), None),
        };
        let mut words = Words::new(statement);
        let first = words.word("a statement")?;
        if self.setting(first, &mut words)? {
            if !self.script.steps.is_empty() {
                return Err(Wrong::new("settings before the first step only", first));
            }
            if log.is_some() {
                return Err(Wrong::new("no log after a setting", "=>"));
            }
            return words.end();
        }
        let action = self.action(first, &mut words)?;
        words.end()?;
        let expected = log.map(items).transpose()?.unwrap_or_default();
        let statement = statement.split_whitespace().collect::<Vec<_>>().join(" ");
        self.script.steps.push(Step { lines, statement, action, expected });
        Ok(())
    }

    /// Reads a setting; false if it is none.
    fn setting(&mut self, first: &str, words: &mut Words<'_>) -> Parsed<bool> {
        let config = &mut self.script.config;
        match first {
            "frames" => config.frames = words.number("a number of frames", 1..=1 << 20)? as u32,
            "swap" => {
                config.swap.slots = words.number("a number of slots", 0..=1 << 20)? as u32;
                match words.maybe() {
                    None => {}
                    Some("page-cluster") => {
                        config.swap.page_cluster = words.number("log2 of slots", 0..=5)? as u8;
                    }
                    Some(other) => return Err(Wrong::new("`page-cluster`", other)),
                }
            }
            "policy" => {
                let expected = "a policy of `vellum policies`";
                let name = words.word(expected)?;
                config.policy = Choice::parse(name).map_err(|_| Wrong::new(expected, name))?;
            }
            "fault-around" => {
                let pages = words.number("a number of pages", 1..=512)?;
                if !pages.is_power_of_two() {
                    return Err(Wrong::new("a power of two", &pages.to_string()));
                }
                config.tunables.fault_around_pages = pages;
            }
            "read-ahead" => {
                let pages = words.number("a number of pages", 1..=32)?;
                config.tunables.read_ahead_pages = pages as u32;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn action(&mut self, first: &str, words: &mut Words<'_>) -> Parsed<Action> {
        if let Some(name) = first.strip_suffix(':') {
            let process = self.process(name)?;
            let call = call::parse(self, words)?;
            self.follow(process, &call);
            return Ok(Action::Process(process, call));
        }
        let index = |words: &mut Words<'_>| words.number("a page of the file", 0..=FILE_PAGES_MAX);
        Ok(match first {
            "file" => self.new_file(Medium::Disk, words)?,
            "memory" => self.new_file(Medium::Memory, words)?,
            "fread" => Action::ReadFile(self.file(words)?, index(words)?),
            "fwrite" => Action::WriteFile(self.file(words)?, index(words)?),
            "sync" => Action::Sync(self.file(words)?),
            "truncate" => {
                let pages = 0..=FILE_PAGES_MAX;
                Action::Truncate(self.file(words)?, words.number("a number of pages", pages)?)
            }
            "forget" => {
                let file = self.file(words)?;
                self.forgotten[file] = true;
                Action::Forget(file)
            }
            "reclaim" => Action::Reclaim(words.number("a number of pages", 1..=1 << 20)? as usize),
            "pressure" => Action::Pressure,
            "hold" => Action::Hold,
            "complete" => Action::Complete(words.maybe().map(request).transpose()?),
            "fail" => Action::Fail(words.maybe().map(request).transpose()?),
            "check" => match words.word("`no-leaks` or `resident`")? {
                "no-leaks" => Action::CheckNoLeaks,
                "resident" => {
                    let name = words.word("a process")?;
                    let process = self.script.processes.iter().position(|other| other == name);
                    let process = process.ok_or_else(|| Wrong::new("a process", name))?;
                    Action::CheckResident(process, words.count()?)
                }
                other => return Err(Wrong::new("`no-leaks` or `resident`", other)),
            },
            other => return Err(Wrong::new("a statement", other)),
        })
    }

    fn new_file(&mut self, medium: Medium, words: &mut Words<'_>) -> Parsed<Action> {
        let word = words.word("a name")?;
        let name = new_name(word, &self.script.files)?;
        let pages = words.number("a number of pages", 0..=FILE_PAGES_MAX)?;
        let warmth = match words.maybe() {
            None | Some("cold") => Warmth::Cold,
            Some("warm") if medium == Medium::Disk => Warmth::Warm,
            Some(other) => return Err(Wrong::new("`warm` or `cold`", other)),
        };
        self.script.files.push(name);
        self.forgotten.push(false);
        Ok(Action::NewFile { file: self.script.files.len() - 1, pages, medium, warmth })
    }

    /// The number of a file that exists.
    pub(crate) fn file(&self, words: &mut Words<'_>) -> Parsed<usize> {
        let name = words.word("a file")?;
        let file = self.script.files.iter().position(|other| other == name);
        file.filter(|&file| !self.forgotten[file]).ok_or_else(|| {
            Wrong::new("a file or memory object that was made before and not forgotten", name)
        })
    }

    /// The number of the process `name`, which begins to live with its first mention.
    fn process(&mut self, name: &str) -> Parsed<usize> {
        let Some(process) = self.script.processes.iter().position(|other| other == name) else {
            return self.new_process(name);
        };
        match self.lives[process] {
            Life::Alive => Ok(process),
            Life::WaitsFor(child) => {
                let child = &self.script.processes[child];
                Err(Wrong::new(format!("`{child}`, for which its parent waits"), name))
            }
            Life::Gone => Err(Wrong::new("a process that has not exited", name)),
        }
    }

    /// A process that does not exist yet.
    pub(crate) fn new_process(&mut self, name: &str) -> Parsed<usize> {
        let name = new_name(name, &self.script.processes)?;
        self.script.processes.push(name);
        self.lives.push(Life::Alive);
        Ok(self.script.processes.len() - 1)
    }

    /// Notes who is alive after `call`.
    fn follow(&mut self, process: usize, call: &Call) {
        match *call {
            Call::Vfork(child) => self.lives[process] = Life::WaitsFor(child),
            Call::Exec | Call::Exit => {
                if *call == Call::Exit {
                    self.lives[process] = Life::Gone;
                }
                for life in &mut self.lives {
                    if *life == Life::WaitsFor(process) {
                        *life = Life::Alive;
                    }
                }
            }
            _ => {}
        }
    }
}

/// A name that is none of `others`.
fn new_name(word: &str, others: &[String]) -> Parsed<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !word.starts_with(|c: char| c.is_ascii_lowercase()) || !word.chars().all(is_part) {
        return Err(Wrong::new("a name (lower-case letters, digits, `-`)", word));
    }
    if others.iter().any(|other| other == word) {
        return Err(Wrong::new("a new name", word));
    }
    Ok(word.to_owned())
}

fn request(word: &str) -> Parsed<u32> {
    let number = word.strip_prefix('r').and_then(|digits| digits.parse().ok());
    number.ok_or_else(|| Wrong::new("a request (`r0`, `r1`, …)", word))
}

/// The items of a log, with single spaces.
fn items(log: &str) -> Parsed<Vec<String>> {
    if log.trim().is_empty() {
        return Ok(Vec::new());
    }
    log.split(',')
        .map(|item| {
            let item = item.split_whitespace().collect::<Vec<_>>().join(" ");
            if item.is_empty() { Err(Wrong::new("an item of the log", "")) } else { Ok(item) }
        })
        .collect()
}
