//! Imports page numbers as text: the reference strings of textbooks.
//!
//! ```text
//!     # Belady's anomaly         a comment; blank lines are skipped too
//!     1                          a read of page 1
//!     0x2 w                      a write of page 2; r is a read
//!     3 r  # the third
//! ```
//! The pages become those of one anonymous area, shifted up by [`Options::page_base`].

use std::io::BufRead;

use crate::error::TraceError;
use crate::event::Kind;
use crate::import::spool::{Layout, Program, Spool, USER_PAGES};
use crate::import::text::Lines;
use crate::import::{Imported, Options};
use crate::sink::Sink;

/// Imports page numbers.
///
/// # Errors
/// [`TraceError::Import`] with the number of a line that is no page number; or if `reader` or
/// `sink` fails.
pub fn import(
    reader: impl BufRead,
    options: &Options,
    sink: &mut impl Sink,
) -> Result<Imported, TraceError> {
    let mut lines = Lines::new(reader, &options.name);
    let mut spool = Spool::new(Layout::OneArea)?;
    let mut imported = Imported::default();
    while lines.advance()? {
        match parse(lines.line()) {
            Some(Line::Empty) => {}
            Some(Line::Reference(page, kind)) => {
                let page = place(page, options).map_err(|_| {
                    let below = USER_PAGES.saturating_sub(options.page_base);
                    lines.unexpected(&format!("a page number below {below}"))
                })?;
                imported.records += 1;
                spool.reference(page, kind)?;
            }
            None => {
                return Err(lines.unexpected(
                    "a page number, decimal or 0x hexadecimal, then perhaps `r` or `w`",
                ));
            }
        }
    }
    lines.warn(&mut imported.warnings);
    spool.finish(&Program::default(), sink, &mut imported.warnings)?;
    Ok(imported)
}

/// The page that page `page` of the input becomes, if the address space goes that far.
pub(crate) fn place(page: u64, options: &Options) -> Result<u64, TraceError> {
    page.checked_add(options.page_base).filter(|page| *page < USER_PAGES).ok_or_else(|| {
        TraceError::Parameter {
            name: "a page and the page base together",
            expected: format!("below {USER_PAGES}"),
            found: format!("{page} + {}", options.page_base),
        }
    })
}

/// What a good line says.
enum Line {
    Empty,
    Reference(u64, Kind),
}

/// Parses a line; `None` if it is wrong.
fn parse(line: &[u8]) -> Option<Line> {
    let line = std::str::from_utf8(line).ok()?;
    let line = line.split('#').next().unwrap_or_default();
    let mut words = line.split_whitespace();
    let Some(number) = words.next() else { return Some(Line::Empty) };
    let page = match number.strip_prefix("0x").or_else(|| number.strip_prefix("0X")) {
        // The standard parsers would take a sign.
        Some(digits) if digits.starts_with(|c: char| c.is_ascii_hexdigit()) => {
            u64::from_str_radix(digits, 16).ok()?
        }
        None if number.starts_with(|c: char| c.is_ascii_digit()) => number.parse().ok()?,
        _ => return None,
    };
    let kind = match words.next() {
        None | Some("r" | "R") => Kind::Load,
        Some("w" | "W") => Kind::Store,
        Some(_) => return None,
    };
    words.next().is_none().then_some(Line::Reference(page, kind))
}
