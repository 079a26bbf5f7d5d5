//! Lines of text from a stream that may be endless, binary or cut.

use std::io::{self, BufRead, Read};

use crate::error::{Place, TraceError};

/// Longest line that is read: what is longer is no text of a format known here.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// Reads lines one by one into one buffer.
pub(crate) struct Lines<R> {
    reader: R,
    name: String,
    line: Vec<u8>,
    number: u64,
    whole: bool,
    cut: bool,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R, name: &str) -> Lines<R> {
        Lines {
            reader,
            name: name.to_owned(),
            line: Vec::new(),
            number: 0,
            whole: true,
            cut: false,
        }
    }

    /// Goes to the next line; `false` at the end.
    pub(crate) fn advance(&mut self) -> Result<bool, TraceError> {
        self.line.clear();
        let read = (&mut self.reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line);
        match read {
            Ok(_) => {}
            // A compressed file that is cut; what came out of it is in the buffer.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.cut = true,
            Err(error) => return Err(TraceError::io("read", &self.name)(error)),
        }
        if self.line.is_empty() {
            return Ok(false);
        }
        self.number += 1;
        self.whole = self.line.last() == Some(&b'\n');
        if self.whole {
            self.line.pop();
        } else if self.line.len() as u64 == LINE_BYTES_MAX {
            return Err(self.unexpected("a line of text"));
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        Ok(true)
    }

    /// The current line, without its end.
    #[inline]
    pub(crate) fn line(&self) -> &[u8] {
        &self.line
    }

    /// The number of the current line, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether the current line ended as lines do; if not, the input ends in it.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }

    /// Adds what was wrong with the end of the input.
    pub(crate) fn warn(&self, warnings: &mut Vec<String>) {
        if self.cut {
            let number = self.number;
            warnings.push(format!("the compressed input is cut after line {number}"));
        }
    }

    /// An error about the current line.
    pub(crate) fn unexpected(&self, expected: &str) -> TraceError {
        let shown = &self.line[..self.line.len().min(60)];
        TraceError::Import {
            name: self.name.clone(),
            place: Place::Line(self.number),
            expected: expected.to_owned(),
            found: format!("{:?}", String::from_utf8_lossy(shown)),
        }
    }
}
