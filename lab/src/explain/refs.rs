//! Reference strings as people write them: `7,0,1w,2` or `A B Cw`.

use std::collections::HashMap;

use thiserror::Error;

use crate::string::RefString;

/// The most references that are read.
pub const REFS_MAX: usize = 1_000_000;
/// The most characters of a page's name.
pub const NAME_MAX: usize = 20;

/// A reference: to a page, by its place among the names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reference {
    /// The page: dense, from 0 in order of first use.
    pub page: u32,
    /// Whether it writes.
    pub write: bool,
}

/// A reference string whose pages have names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Refs {
    names: Vec<String>, // by page
    refs: Vec<Reference>,
}

/// Why a text is no reference string.
#[derive(Error, Clone, PartialEq, Eq, Debug)]
pub enum RefsError {
    /// There is nothing in it.
    #[error("there are no references; write them as 7,0,1w,2 (w: a write)")]
    Empty,
    /// There are too many.
    #[error("more than {REFS_MAX} references; `vellum replay` and `vellum curve` take long traces")]
    TooMany,
    /// One is neither a number nor a name.
    #[error(
        "reference {number}, `{text}`, is no page: a page is a number or a name of at most \
         {NAME_MAX} letters and digits, with a w behind it for a write"
    )]
    NoPage {
        /// Which, from 1.
        number: usize,
        /// It, cut if it is long.
        text: String,
    },
}

impl Refs {
    /// Reads references separated by commas or white space; `#` begins a comment. A page is a
    /// decimal number or a name of letters and digits that begins with a letter; a `w` at its end
    /// says that the reference writes, so that a name longer than `w` itself never ends in one.
    ///
    /// # Errors
    /// If there is none, there are more than [`REFS_MAX`], or one is no page.
    pub fn parse(text: &str) -> Result<Refs, RefsError> {
        let mut refs = Refs::default();
        let mut known = HashMap::new();
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or(""));
        let words = lines.flat_map(|line| line.split(|c: char| c == ',' || c.is_whitespace()));
        for word in words.filter(|word| !word.is_empty()) {
            let number = refs.refs.len() + 1;
            if number > REFS_MAX {
                return Err(RefsError::TooMany);
            }
            let (name, write) = page(word).ok_or_else(|| RefsError::NoPage {
                number,
                text: word.chars().take(2 * NAME_MAX).collect(),
            })?;
            let next = known.len() as u32;
            let page = *known.entry(name).or_insert(next);
            if page == next {
                refs.names.push(name.to_owned());
            }
            refs.refs.push(Reference { page, write });
        }
        if refs.refs.is_empty() { Err(RefsError::Empty) } else { Ok(refs) }
    }

    /// Reads of pages with these numbers.
    pub fn of_reads(pages: impl IntoIterator<Item = u64>) -> Refs {
        let mut refs = Refs::default();
        let mut known = HashMap::new();
        for number in pages {
            let next = known.len() as u32;
            let page = *known.entry(number).or_insert(next);
            if page == next {
                refs.names.push(number.to_string());
            }
            refs.refs.push(Reference { page, write: false });
        }
        refs
    }

    /// The references in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Reference> + DoubleEndedIterator + '_ {
        self.refs.iter().copied()
    }

    /// The reference with this number, from 0; `None` beyond the last.
    pub fn get(&self, at: usize) -> Option<Reference> {
        self.refs.get(at).copied()
    }

    /// How many references there are.
    pub fn len(&self) -> usize {
        self.refs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.refs.is_empty()
    }

    /// How many pages there are.
    pub fn pages(&self) -> usize {
        self.names.len()
    }

    /// Whether any reference writes.
    pub fn has_writes(&self) -> bool {
        self.refs.iter().any(|reference| reference.write)
    }

    /// The name of a page.
    ///
    /// # Panics
    /// If there is no such page.
    pub fn name(&self, page: u32) -> &str {
        &self.names[page as usize]
    }

    /// The reference as it is written: the page's name, with a w for a write.
    pub fn word(&self, reference: Reference) -> String {
        format!("{}{}", self.name(reference.page), if reference.write { "w" } else { "" })
    }

    /// The longest of the words, in characters.
    pub fn width(&self) -> usize {
        self.refs.iter().map(|&reference| self.word(reference).len()).max().unwrap_or(0)
    }

    /// The same string as the fast simulations take it.
    pub fn string(&self) -> RefString {
        let mut string = RefString::new();
        self.refs.iter().for_each(|reference| string.push(reference.page, reference.write));
        string
    }

    /// For each reference, the number, from 1, of the next one to its page; `u64::MAX` if there is
    /// none.
    pub fn next_uses(&self) -> Vec<u64> {
        let mut coming = vec![u64::MAX; self.pages()];
        let mut next: Vec<u64> = self
            .refs
            .iter()
            .enumerate()
            .rev()
            .map(|(at, reference)| {
                std::mem::replace(&mut coming[reference.page as usize], at as u64 + 1)
            })
            .collect();
        next.reverse();
        next
    }
}

/// The page of a word, and whether it is written.
fn page(word: &str) -> Option<(&str, bool)> {
    let (name, write) = match word.strip_suffix('w') {
        Some(name) if !name.is_empty() => (name, true),
        _ => (word, false),
    };
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    // 007 is page 7, as every number is in a table.
    let short = if is_number { name.trim_start_matches('0') } else { name };
    let short = if short.is_empty() { &name[name.len() - 1..] } else { short };
    ((is_number || is_name) && short.len() <= NAME_MAX).then_some((short, write))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_pages_and_a_w_writes() {
        let refs = Refs::parse("7, 007w A,Aw\tw ww\n# a comment\n7 # another").expect("valid");
        let words: Vec<String> = refs.iter().map(|reference| refs.word(reference)).collect();
        assert_eq!(words, ["7", "7w", "A", "Aw", "w", "ww", "7"]);
        assert_eq!(refs.pages(), 3);
        assert_eq!(refs.next_uses(), [2, 7, 4, u64::MAX, 6, u64::MAX, u64::MAX]);
    }

    #[test]
    fn what_is_no_page_is_said() {
        for text in ["", " ,, ", "# only a comment"] {
            assert_eq!(Refs::parse(text), Err(RefsError::Empty));
        }
        let long = "9".repeat(5000);
        for bad in ["-1", "0x1f", "7w8", "é", "1.5", "7W", &long] {
            let error = Refs::parse(&format!("1 {bad}")).expect_err(bad);
            assert!(matches!(error, RefsError::NoPage { number: 2, .. }), "{error}");
            assert!(error.to_string().len() < 250);
        }
        let many = "1 ".repeat(REFS_MAX + 1);
        assert_eq!(Refs::parse(&many), Err(RefsError::TooMany));
    }
}
