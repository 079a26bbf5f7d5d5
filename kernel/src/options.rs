//! What is asked for: `name=value` words of the command line, then `--` and the program with its
//! arguments.
//!
//! A loader copies no long command line. So the program may also be at the end of the archive,
//! whose last `arguments=` bytes are its words then, each with a zero byte behind it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use vellum_mm::replace::Choice;

/// Settings of the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// `memory=`: bytes to use; all if `None`.
    pub(crate) memory_bytes: Option<u64>,
    /// `cpus=`: processors to use; all if `None`.
    pub(crate) cpus: Option<u32>,
    /// `policy=`: the replacement policy, with settings.
    pub(crate) policy: Choice,
    /// `page-cluster=`: log2 of the pages read from swap at once.
    pub(crate) page_cluster: u8,
    /// `seed=`: what chance starts from.
    pub(crate) seed: u64,
    /// `counters=`: nanoseconds between two lines of counters; 0 for none.
    pub(crate) counters_nanos: u64,
    /// `arguments=`: bytes at the end of the archive that name the program.
    arguments_bytes: usize,
    /// The program and its arguments.
    pub(crate) program: Vec<String>,
}

/// Bytes of a program's arguments, as [`exec`](crate::exec) takes them: each counts with its zero
/// byte and a pointer.
const ARGUMENTS_BYTES_MAX: usize = 2 << 20;

impl Options {
    /// Reads a command line. Arguments are separated by blanks; `%20` and the like stand for bytes
    /// that could not be written otherwise.
    ///
    /// # Errors
    /// What is not understood, in a line.
    pub(crate) fn parse(line: &str) -> Result<Options, String> {
        let mut options = Options {
            memory_bytes: None,
            cpus: None,
            policy: Choice::of("clock"),
            page_cluster: 3,
            seed: 0,
            counters_nanos: 0,
            arguments_bytes: 0,
            program: Vec::new(),
        };
        let mut words = line.split_ascii_whitespace();
        for word in words.by_ref() {
            if word == "--" {
                break;
            }
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let number = || -> Result<u64, String> {
                value.parse().map_err(|_| format!("`{word}`: a number is needed"))
            };
            match name {
                "memory" => options.memory_bytes = Some(number()?),
                "cpus" => options.cpus = Some(number()?.clamp(1, 64) as u32),
                "policy" => options.policy = Choice::parse(value).map_err(|e| e.to_string())?,
                "page-cluster" => options.page_cluster = number()?.min(5) as u8,
                "seed" => options.seed = number()?,
                "counters" => options.counters_nanos = number()?,
                "arguments" => options.arguments_bytes = number()? as usize,
                // Boot has made the heap so much larger.
                "swap" => {}
                _ => return Err(format!("`{word}` is no option of the kernel")),
            }
        }
        options.program = words.map(decoded).collect::<Result<_, _>>()?;
        Ok(options)
    }

    /// Takes the program's words off the end of `archive`, if they are there. Without any program
    /// it is `/bin/hello`.
    ///
    /// # Errors
    /// Why these cannot be a program's arguments, in a line.
    pub(crate) fn take_arguments(&mut self, archive: &mut &'static [u8]) -> Result<(), String> {
        let start = archive.len().checked_sub(self.arguments_bytes);
        let start = start.ok_or("the archive is shorter than the arguments at its end")?;
        let (rest, words) = archive.split_at(start);
        *archive = rest;
        for word in words.split_inclusive(|&byte| byte == 0) {
            let word = word.strip_suffix(b"\0").unwrap_or(word);
            let word = core::str::from_utf8(word).map_err(|_| "an argument is no UTF-8")?;
            self.program.push(word.to_string());
        }
        let bytes: usize = self.program.iter().map(|word| word.len() + 9).sum();
        if bytes > ARGUMENTS_BYTES_MAX {
            return Err(format!("the arguments take {bytes} bytes of {ARGUMENTS_BYTES_MAX}"));
        }
        if self.program.is_empty() {
            self.program.push("/bin/hello".to_string());
        }
        Ok(())
    }
}

/// A word with its `%` escapes resolved.
fn decoded(word: &str) -> Result<String, String> {
    let bad = || format!("`{word}`: `%` is followed by two hexadecimal digits");
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|b| (b as char).to_digit(16)).ok_or_else(bad);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| bad())
}
