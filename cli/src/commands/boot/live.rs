//! What is seen while a machine runs: output of programs, and below it a line of counters, which goes
//! when programs wait for input, as somebody may be about to type it there.

use std::io::{self, Read, Write};

use indicatif::{ProgressBar, ProgressStyle};
use vellum_emulator::console::Counters;
use vellum_emulator::input::Input;
use vellum_lab::report::{Duration, Grouped};
use vellum_lab::size::Human;

/// Output, and a line that makes room for it.
pub(super) struct Live {
    out: Box<dyn Write>,
    line: ProgressBar,
    at_line_start: bool,
}

impl Live {
    /// Passes output on to `out`; the line is on standard error if that is a terminal.
    pub(super) fn new(out: Box<dyn Write>) -> Live {
        let line = ProgressBar::no_length();
        if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
            line.set_style(style);
        }
        line.set_message("building the kernel and its programs: the first time this takes a while");
        Live { out, line, at_line_start: true }
    }

    /// Standard input, for the programs.
    pub(super) fn input(&self) -> Input {
        Box::new(Typed { line: self.line.clone() })
    }

    /// Passes on what a program printed.
    pub(super) fn output(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.line.finish_and_clear();
        self.at_line_start = bytes.ends_with(b"\n");
        self.out.write_all(bytes)?;
        self.out.flush()
    }

    /// Shows a line of the kernel, apart from what programs print.
    pub(super) fn note(&mut self, line: &str) {
        self.line.finish_and_clear();
        eprintln!("vellum: {line}");
    }

    /// Shows how far the machine is, unless the program is in the middle of a line.
    pub(super) fn counters(&mut self, counters: &Counters) {
        if !self.at_line_start {
            return;
        }
        if self.line.is_finished() {
            self.line.reset();
        }
        self.line.set_message(text(counters));
    }

    /// Takes the line away.
    pub(super) fn finish(&mut self) {
        self.line.finish_and_clear();
    }
}

/// Standard input, below which no line of counters stays.
struct Typed {
    line: ProgressBar,
}

impl Read for Typed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.line.finish_and_clear();
        io::stdin().read(bytes)
    }
}

fn text(counters: &Counters) -> String {
    let Counters { ns, minor, major, evicted, swapped_out, swapped_in, free_bytes } = *counters;
    format!(
        "{}: {} minor, {} major faults, {} evicted, {} swapped out, {} in, {} free",
        Duration(ns),
        Grouped(minor),
        Grouped(major),
        Grouped(evicted),
        Grouped(swapped_out),
        Grouped(swapped_in),
        Human(free_bytes)
    )
}
