//! What comes over the serial line: the output of programs, and lines for whoever runs the machine.
//!
//! A line that starts with `@{` and holds one JSON object with an `event` in it is the kernel's;
//! all else is output. Output is passed on as it comes, byte for byte, not line by line: a program
//! that asks a question without ending the line is seen to ask it. Only a line that may yet turn
//! out to be an event is held back until it ends.
//!
//! ```text
//!     pass 1: 64 pa│ges\n@{"event":"coun│ters", …}\npass 2│: …
//!     output ──────────▶│event ────────────────────────▶│output
//! ```
//!
//! A program that prints such a line itself fools only the display of its own run.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A line that is longer is no event.
const EVENT_BYTES_MAX: usize = 4 << 20;

/// A part of what came.
#[derive(Clone, PartialEq, Debug)]
pub enum Part<'a> {
    /// Output of programs, and what the kernel says to people.
    Output(&'a [u8]),
    /// The kernel says something to whoever runs it.
    Event(Event),
}

/// What the kernel says.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// How far it is.
    Counters(Counters),
    /// A process was killed because memory ran out.
    OutOfMemory(OutOfMemory),
    /// The kernel cannot do what it was told.
    Refused {
        /// Why.
        why: String,
    },
    /// The program has ended: with this code, or 128 and the signal that killed it.
    Exit {
        /// The code.
        code: u8,
    },
    /// What happened in all; its fields are the report's own.
    Report(Value),
    /// Something that only tests of the kernel ask for.
    #[serde(other)]
    Other,
}

/// Sums since the machine started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
pub struct Counters {
    /// How long the machine has run, in nanoseconds of its own clock.
    pub ns: u64,
    /// Minor faults.
    pub minor: u64,
    /// Major faults.
    pub major: u64,
    /// Pages evicted.
    pub evicted: u64,
    /// Pages written to swap.
    pub swapped_out: u64,
    /// Pages read from swap.
    pub swapped_in: u64,
    /// Memory that is free now, in bytes.
    pub free_bytes: u64,
}

/// A process killed because memory ran out, and what it had, in bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OutOfMemory {
    /// Its number.
    pub pid: u32,
    /// Its name.
    pub command: String,
    /// What it had in frames.
    pub resident_bytes: u64,
    /// What it had in swap.
    pub swap_bytes: u64,
    /// Its page tables.
    pub table_bytes: u64,
}

/// Splits what comes into output and events.
#[derive(Clone, Debug)]
pub struct Console {
    /// The start of a line that may be an event.
    held: Vec<u8>,
    at_line_start: bool,
}

impl Default for Console {
    fn default() -> Console {
        Console { held: Vec::new(), at_line_start: true }
    }
}

impl Console {
    /// Takes the next bytes and passes their parts to `on`, in order.
    pub fn feed(&mut self, mut bytes: &[u8], mut on: impl FnMut(Part<'_>)) {
        // Ends: each round takes at least a byte.
        while let Some(&first) = bytes.first() {
            if !self.held.is_empty() || (self.at_line_start && first == b'@') {
                bytes = self.hold(bytes, &mut on);
                continue;
            }
            // All lines at once, up to one that may be an event.
            let event =
                bytes.windows(2).position(|pair| pair == b"\n@").map_or(bytes.len(), |at| at + 1);
            let (output, rest) = bytes.split_at(event);
            self.at_line_start = output.ends_with(b"\n");
            on(Part::Output(output));
            bytes = rest;
        }
    }

    /// Passes on what was held back: nothing more comes.
    pub fn finish(&mut self, mut on: impl FnMut(Part<'_>)) {
        if !self.held.is_empty() {
            on(Part::Output(&self.held));
            self.held.clear();
        }
    }

    /// Takes the rest of a line that may be an event, and returns what follows.
    fn hold<'a>(&mut self, bytes: &'a [u8], on: &mut impl FnMut(Part<'_>)) -> &'a [u8] {
        let end = bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |at| at + 1);
        let (line, rest) = bytes.split_at(end);
        self.held.extend_from_slice(line);
        let may_be_event = b"@{".starts_with(&self.held[..self.held.len().min(2)])
            && self.held.len() <= EVENT_BYTES_MAX;
        let is_whole = self.held.ends_with(b"\n");
        if may_be_event && !is_whole {
            return rest;
        }
        match serde_json::from_slice(&self.held[1..]) {
            Ok(event) if may_be_event => on(Part::Event(event)),
            _ => on(Part::Output(&self.held)),
        }
        self.held.clear();
        self.at_line_start = is_whole;
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Output and events of `text`, fed in parts of `step` bytes.
    fn split(text: &[u8], step: usize) -> (Vec<u8>, Vec<Event>) {
        let (mut output, mut events) = (Vec::new(), Vec::new());
        let mut console = Console::default();
        let mut on = |part: Part<'_>| match part {
            Part::Output(bytes) => output.extend_from_slice(bytes),
            Part::Event(event) => events.push(event),
        };
        text.chunks(step).for_each(|bytes| console.feed(bytes, &mut on));
        console.finish(&mut on);
        (output, events)
    }

    #[test]
    fn events_are_taken_out_wherever_reads_end() {
        let text =
            b"@{\"event\":\"start\",\"name\":\"x\"}\nhello\n@{\"event\":\"counters\",\"ns\":5,\
            \"minor\":1,\"major\":2,\"evicted\":3,\"swapped_out\":4,\"swapped_in\":5,\
            \"free_bytes\":6}\n\xff\x00 @{\"event\":1}\n@{\"event\":\"exit\",\"code\":139}\n";
        for step in 1..=text.len() {
            let (output, events) = split(text, step);
            assert_eq!(output, b"hello\n\xff\x00 @{\"event\":1}\n", "in steps of {step}");
            assert_eq!(events.len(), 3, "in steps of {step}");
            assert_eq!(events[0], Event::Other);
            let Event::Counters(counters) = events[1] else { panic!("{:?}", events[1]) };
            assert_eq!((counters.minor, counters.free_bytes), (1, 6));
            assert_eq!(events[2], Event::Exit { code: 139 });
        }
    }

    #[test]
    fn lines_that_only_look_like_events_are_output() {
        let text = b"@\n@x\n@{}\n@{\"event\":7}\n@{\"event\":\"exit\"}\n@{\"event\":\"exit\",\"co";
        for step in 1..=text.len() {
            assert_eq!(split(text, step), (text.to_vec(), Vec::new()), "in steps of {step}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_seen_at_once() {
        let mut seen = Vec::new();
        let mut console = Console::default();
        console.feed(b"name? ", |part| seen.push(format!("{part:?}")));
        console.feed(b"@{", |part| seen.push(format!("{part:?}")));
        assert_eq!(seen.len(), 2, "{seen:?}");
    }

    #[test]
    fn a_report_keeps_its_fields() {
        let (output, events) = split(b"@{\"event\":\"report\",\"faults\":{\"minor\":7}}\n", 5);
        assert!(output.is_empty());
        let [Event::Report(report)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(report["faults"]["minor"], 7);
    }
}
