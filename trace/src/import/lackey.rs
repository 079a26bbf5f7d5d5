//! Imports the text of `valgrind --tool=lackey --trace-mem=yes`.
//!
//! ```text
//!     ==4019== Command: ls /        skipped; the first names the program
//!     I  0401ab70,3                 a fetch at this address (hexadecimal) of 3 bytes
//!      S 1fff000698,8               a store       L: a load       M: a load, then a store
//! ```
//! Every `I` line is an instruction and, unless told otherwise, a fetch. A reference across the end
//! of a page counts for both pages.
//!
//! The output of the program itself must not be in the same file: let Valgrind write to
//! `--log-file=FILE`.

use std::io::BufRead;

use crate::error::TraceError;
use crate::event::Kind;
use crate::import::spool::{Layout, Program, Spool};
use crate::import::text::Lines;
use crate::import::{Imported, Options};
use crate::sink::Sink;

/// Most bytes that one instruction moves, and some: beyond is no lackey.
const BYTES_MAX: u64 = 1 << 16;

/// One line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Record {
    code: u8, // I, L, S or M
    address: u64,
    bytes: u64,
}

/// Imports the text of lackey.
///
/// # Errors
/// [`TraceError::Import`] for a line that is none of lackey's, with its number; or if `reader` or
/// `sink` fails.
pub fn import(
    reader: impl BufRead,
    options: &Options,
    sink: &mut impl Sink,
) -> Result<Imported, TraceError> {
    let mut lines = Lines::new(reader, &options.name);
    let mut spool = Spool::new(Layout::Inferred)?;
    let mut imported = Imported::default();
    let mut program = Program::default();
    let mut processes = 0u64;
    while lines.advance()? {
        let line = lines.line();
        if let Some(record) = parse(line) {
            imported.records += 1;
            reference(&mut spool, record, options.fetches)?;
        } else if let Some((pid, text)) = remark(line) {
            if program.pid != pid {
                processes += 1;
            }
            if processes == 1 {
                program.pid = pid;
                note_command(&mut program, text);
            }
        } else if !lines.is_whole() {
            let number = lines.number();
            imported.warnings.push(format!("line {number} is cut and was left out"));
        } else if !line.is_empty() {
            return Err(lines.unexpected(
                "a line of lackey, such as `I  0401ab70,3` or ` S 1fff000698,8`; keep the \
                 program's own output apart with --log-file",
            ));
        }
    }
    lines.warn(&mut imported.warnings);
    if processes > 1 {
        imported.warnings.push(
            "several processes wrote to this log; they are imported as if they were one".to_owned(),
        );
    }
    spool.finish(&program, sink, &mut imported.warnings)?;
    Ok(imported)
}

/// Whether `line` is one of lackey's references.
pub(crate) fn is_record(line: &[u8]) -> bool {
    parse(line).is_some()
}

fn reference(spool: &mut Spool, record: Record, fetches: bool) -> Result<(), TraceError> {
    let kinds: &[Kind] = match record.code {
        b'I' => {
            spool.instruction();
            if fetches { &[Kind::Fetch] } else { &[] }
        }
        b'L' => &[Kind::Load],
        b'S' => &[Kind::Store],
        _ => &[Kind::Load, Kind::Store],
    };
    let first = record.address >> 12;
    let last = record.address.saturating_add(record.bytes - 1) >> 12;
    for kind in kinds {
        // At most 17 pages, by the bound on bytes.
        for page in first..=last {
            spool.reference(page, *kind)?;
        }
    }
    Ok(())
}

/// Parses a line: code, blanks, hexadecimal address, comma, decimal size.
#[inline]
fn parse(line: &[u8]) -> Option<Record> {
    let (code, rest) = match line {
        [b'I', b' ', b' ', rest @ ..] => (b'I', rest),
        [b' ', code @ (b'L' | b'S' | b'M'), b' ', rest @ ..] => (*code, rest),
        _ => return None,
    };
    let mut address = 0u64;
    let mut digits = 0;
    for byte in rest {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => break,
        };
        digits += 1;
        address = address << 4 | u64::from(digit);
    }
    if digits == 0 || digits > 16 || rest.get(digits) != Some(&b',') {
        return None;
    }
    let size = &rest[digits + 1..];
    if size.is_empty() || size.len() > 6 {
        return None;
    }
    let mut bytes = 0;
    for byte in size {
        if !byte.is_ascii_digit() {
            return None;
        }
        bytes = bytes * 10 + u64::from(byte - b'0');
    }
    (1..=BYTES_MAX).contains(&bytes).then_some(Record { code, address, bytes })
}

/// Parses a line of Valgrind's own, `==pid== text` (or with `--` or `**`): the pid and the text.
fn remark(line: &[u8]) -> Option<(u32, &str)> {
    let line = std::str::from_utf8(line).ok()?;
    let mark = ["==", "--", "**"].into_iter().find(|mark| line.starts_with(mark))?;
    let (pid, text) = line[2..].split_once(mark)?;
    Some((pid.parse().ok()?, text.trim()))
}

/// Takes the program's arguments from the remark that has them. They are parted by blanks, which is
/// how Valgrind shows them.
fn note_command(program: &mut Program, text: &str) {
    if let Some(command) = text.strip_prefix("Command: ")
        && program.arguments.is_empty()
    {
        program.arguments = command.split_whitespace().map(str::to_owned).collect();
    }
}
