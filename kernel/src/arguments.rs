//! What a program is started with.

use alloc::string::String;
use alloc::vec::Vec;

/// What a program is started with.
#[derive(Clone, Default)]
pub(crate) struct Start {
    /// Arguments, the program's name first.
    pub(crate) arguments: Strings,
    /// Environment, `NAME=value`.
    pub(crate) environment: Strings,
}

/// Strings one after another, each with a zero byte at its end, as a program's stack has them: many
/// short ones take the kernel's heap no more than a long one.
#[derive(Clone, Default)]
pub(crate) struct Strings {
    bytes: Vec<u8>,
    count: usize,
}

impl Strings {
    /// Adds one, which has no zero byte.
    pub(crate) fn push(&mut self, string: &[u8]) {
        self.bytes.extend_from_slice(string);
        self.bytes.push(0);
        self.count += 1;
    }

    /// How many there are.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// All bytes, in order.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Each with its end.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.split_inclusive(|&byte| byte == 0)
    }
}

impl<'a> FromIterator<&'a [u8]> for Strings {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(strings: I) -> Strings {
        let mut all = Strings::default();
        for string in strings {
            all.push(string);
        }
        all
    }
}

impl Start {
    /// A program from the command line, and where it is.
    pub(crate) fn of(program: &[String]) -> (String, Start) {
        let arguments = program.iter().map(String::as_bytes).collect();
        let environment = ["PATH=/bin", "HOME=/", "TERM=dumb"];
        let environment = environment.into_iter().map(str::as_bytes).collect();
        (program[0].clone(), Start { arguments, environment })
    }
}
