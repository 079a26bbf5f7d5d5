//! Running a script in a world, and comparing logs.

use std::fmt::Write as _;

use thiserror::Error;

use super::log::Log;
use super::script::{Action, Script, Step};
use super::sim::SimWorld;

/// Somewhere a script can run: a machine with a memory manager, and processes.
///
/// Two worlds that run the same memory manager must fill equal logs.
pub trait World {
    /// Does what one step says, and logs all that happens.
    ///
    /// # Errors
    /// If it cannot be done, or a check of the script fails: what was found instead.
    fn act(&mut self, action: &Action, log: &mut Log) -> Result<(), String>;
}

/// A step that went otherwise than its script says.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{script}:{line}: {statement}\n  expected: {expected}\n     found: {found}")]
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

/// Runs a script on a new simulated machine, up to the first difference.
///
/// # Errors
/// The first step whose log is not the one that the script states.
pub fn run(script: &Script) -> Result<(), Mismatch> {
    let mut world = boot(script)?;
    run_in(&mut world, script)
}

/// Runs a script in `world`, which must be the machine that it describes, with nothing done yet.
///
/// # Errors
/// As [`run`].
pub fn run_in(world: &mut dyn World, script: &Script) -> Result<(), Mismatch> {
    let mut log = Log::new();
    for step in &script.steps {
        let found = act(world, script, step, &mut log)?;
        if found != step.expected {
            return Err(mismatch(script, step, shown(&found)));
        }
    }
    Ok(())
}

/// The script's text with the logs that a simulated machine gives.
///
/// The new text proves nothing: it must be read, and each difference be what was meant.
///
/// # Errors
/// The first step that cannot be done or whose check fails; logs do not excuse those.
pub fn bless(script: &Script) -> Result<String, Mismatch> {
    let mut world = boot(script)?;
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

fn boot(script: &Script) -> Result<SimWorld<'_>, Mismatch> {
    SimWorld::boot(script).map_err(|found| Mismatch {
        script: script.name.clone(),
        line: 1,
        statement: "boot".to_owned(),
        expected: "a machine with these settings".to_owned(),
        found,
    })
}

fn act(
    world: &mut dyn World,
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
