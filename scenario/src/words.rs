//! The words of one statement, taken from the left.

use alloc::borrow::ToOwned as _;
use alloc::format;
use alloc::string::String;
use core::str::SplitWhitespace;

use vellum_mm::addr::{PAGE_BYTES, Page, Pages, VirtAddr};

/// Most pages of one statement: as many as the program's half of an address space has.
const PAGES_MAX: u64 = 1 << 35;

/// What should have stood somewhere, and what did.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) expected: String,
    pub(crate) found: String,
}

impl Wrong {
    pub(crate) fn new(expected: impl Into<String>, found: &str) -> Wrong {
        let found = if found.is_empty() { "nothing".to_owned() } else { format!("`{found}`") };
        Wrong { expected: expected.into(), found }
    }
}

pub(crate) type Parsed<T> = Result<T, Wrong>;

/// What is left of a statement.
pub(crate) struct Words<'a> {
    rest: SplitWhitespace<'a>,
}

impl<'a> Words<'a> {
    pub(crate) fn new(statement: &'a str) -> Words<'a> {
        Words { rest: statement.split_whitespace() }
    }

    /// The next word, which should be `what`.
    pub(crate) fn word(&mut self, what: &str) -> Parsed<&'a str> {
        self.rest.next().ok_or_else(|| Wrong::new(what, ""))
    }

    /// The next word, if there is one.
    pub(crate) fn maybe(&mut self) -> Option<&'a str> {
        self.rest.next()
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.clone().next().is_none()
    }

    /// Nothing may be left.
    pub(crate) fn end(mut self) -> Parsed<()> {
        match self.rest.next() {
            None => Ok(()),
            Some(word) => Err(Wrong::new("the end of the statement", word)),
        }
    }

    /// A number of `what`, within `range`.
    pub(crate) fn number(
        &mut self,
        what: &str,
        range: core::ops::RangeInclusive<u64>,
    ) -> Parsed<u64> {
        let what = format!("{what} ({} to {})", range.start(), range.end());
        let word = self.word(&what)?;
        number(word).filter(|number| range.contains(number)).ok_or_else(|| Wrong::new(what, word))
    }

    /// An address in bytes.
    pub(crate) fn address(&mut self) -> Parsed<VirtAddr> {
        let word = self.word("an address")?;
        number(word).map(VirtAddr).ok_or_else(|| Wrong::new("an address", word))
    }

    /// The address of the first byte of a page.
    pub(crate) fn page(&mut self) -> Parsed<Page> {
        let word = self.word("an address")?;
        page(word)
    }

    /// A number of pages.
    pub(crate) fn count(&mut self) -> Parsed<u64> {
        self.number("a number of pages", 0..=PAGES_MAX)
    }

    /// A page's address and a number of pages.
    pub(crate) fn pages(&mut self) -> Parsed<Pages> {
        Ok(Pages::at(self.page()?, self.count()?))
    }
}

/// The page that begins at the address `word`.
pub(crate) fn page(word: &str) -> Parsed<Page> {
    match number(word) {
        Some(address) if address % PAGE_BYTES == 0 => Ok(VirtAddr(address).page()),
        _ => Err(Wrong::new("an address that is a multiple of 0x1000", word)),
    }
}

/// A number, decimal or, after `0x`, hexadecimal.
fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) if digits.starts_with(|c: char| c.is_ascii_hexdigit()) => {
            u64::from_str_radix(digits, 16).ok()
        }
        None if word.starts_with(|c: char| c.is_ascii_digit()) => word.parse().ok(),
        _ => None,
    }
}
