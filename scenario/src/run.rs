//! Running a script in a world, and comparing logs.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use crate::hardware::Hardware;
use crate::log::Log;
use crate::script::{Script, Step};
use crate::world::World;

/// A step that went otherwise than its script says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mismatch {
    /// The script's name.
    pub script: String,
    /// The line, counted from 1.
    pub line: usize,
    /// What was done.
    pub statement: String,
    /// The log that the script states.
    pub expected: String,
    /// What happened.
    pub found: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatch { script, line, statement, expected, found } = self;
        write!(f, "{script}:{line}: {statement}\n  expected: {expected}\n     found: {found}")
    }
}

impl core::error::Error for Mismatch {}

impl Mismatch {
    /// The machine that `script` describes cannot be had: instead there is `found`.
    pub fn no_machine(script: &Script, found: String) -> Mismatch {
        Mismatch {
            script: script.name.clone(),
            line: 1,
            statement: "boot".to_owned(),
            expected: "a machine with these settings".to_owned(),
            found,
        }
    }
}

/// Runs a script up to the first difference, on `hardware` on which nothing has happened yet.
///
/// # Errors
/// The first step whose log is not the one that the script states.
pub fn run<H: Hardware>(script: &Script, hardware: &H) -> Result<(), Mismatch> {
    let mut world = boot(script, hardware)?;
    let mut log = Log::new();
    for step in &script.steps {
        let found = act(&mut world, script, step, &mut log)?;
        if found != step.expected {
            return Err(mismatch(script, step, shown(&found)));
        }
    }
    Ok(())
}

/// The script's text with the logs that it gives on `hardware`, on which nothing has happened yet.
///
/// The new text proves nothing: it must be read, and each difference be what was meant.
///
/// # Errors
/// The first step that cannot be done or whose check fails; logs do not excuse those.
pub fn bless<H: Hardware>(script: &Script, hardware: &H) -> Result<String, Mismatch> {
    let mut world = boot(script, hardware)?;
    let mut log = Log::new();
    let mut text = String::new();
    let mut next = 0;
    let statements = script.steps.iter().map(|step| step.statement.len());
    let width = statements.filter(|&length| length <= COLUMN_MAX).max().unwrap_or(0);
    for step in &script.steps {
        for line in &script.text[next..step.lines.start] {
            text.push_str(line);
            text.push('\n');
        }
        next = step.lines.end;
        let found = act(&mut world, script, step, &mut log)?;
        write_step(&mut text, &step.statement, width, &found);
    }
    for line in &script.text[next..] {
        text.push_str(line);
        text.push('\n');
    }
    Ok(text)
}

/// Longer statements do not move the logs of all others to the right.
const COLUMN_MAX: usize = 40;
/// Longest line of a blessed script.
const LINE_MAX: usize = 100;

fn write_step(text: &mut String, statement: &str, width: usize, log: &[String]) {
    if log.is_empty() {
        text.push_str(statement);
        text.push('\n');
        return;
    }
    let mut line = format!("{statement:width$}  =>");
    for (number, item) in log.iter().enumerate() {
        if line.len() + item.len() + 2 > LINE_MAX && !line.ends_with("=>") {
            text.push_str(&line);
            text.push('\n');
            line = " ".repeat(width + 4);
        }
        let comma = if number + 1 < log.len() { "," } else { "" };
        write!(line, " {item}{comma}").expect("a string can be written to");
    }
    text.push_str(&line);
    text.push('\n');
}

fn boot<'a, H: Hardware>(script: &'a Script, hardware: &'a H) -> Result<World<'a, H>, Mismatch> {
    World::boot(script, hardware).map_err(|found| Mismatch::no_machine(script, found))
}

fn act<H: Hardware>(
    world: &mut World<'_, H>,
    script: &Script,
    step: &Step,
    log: &mut Log,
) -> Result<Vec<String>, Mismatch> {
    world.act(&step.action, log).map_err(|found| mismatch(script, step, found))?;
    log.speak_as(None);
    Ok(log.take())
}

fn mismatch(script: &Script, step: &Step, found: String) -> Mismatch {
    Mismatch {
        script: script.name.clone(),
        line: step.line(),
        statement: step.statement.clone(),
        expected: shown(&step.expected),
        found,
    }
}

fn shown(items: &[String]) -> String {
    if items.is_empty() { "nothing".to_owned() } else { items.join(", ") }
}
