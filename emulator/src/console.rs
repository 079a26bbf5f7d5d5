//! What a machine says: programs print on one line, the kernel speaks on another.
//!
//! What programs print is passed on byte for byte. What the kernel says is read here, line by line:
//! a line that starts with `@{` and holds one JSON object with an `event` in it is for whoever runs
//! the machine, any other is a note for people. A first line, `@` alone, says that the kernel is
//! there; what comes before is QEMU's own.
//!
//! ```text
//!     programs  pass 1: 64 pages\npass 2: …                          ─▶ output
//!     kernel    @\n@{"event":"counters", …}\nthe disk is not mounted ─▶ event, note
//! ```

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::qemu::Line;

/// The line from which on it is the kernel that speaks.
const HELLO: &[u8] = b"@";
/// A longer line is cut: a kernel that says no end of it must not take all memory.
const LINE_BYTES_MAX: usize = 4 << 20;

/// A part of what came.
#[derive(Clone, PartialEq, Debug)]
pub enum Part<'a> {
    /// What programs print.
    Output(&'a [u8]),
    /// A line for people.
    Note(&'a str),
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
    /// The program that was asked for cannot be run.
    NoProgram {
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

/// Reads what the kernel says.
#[derive(Clone, Default, Debug)]
pub struct Console {
    /// The start of a line.
    line: Vec<u8>,
    /// Whether the kernel is there.
    started: bool,
}

impl Console {
    /// Takes the next bytes of a line and passes their parts to `on`, in order.
    pub fn feed(&mut self, line: Line, bytes: &[u8], mut on: impl FnMut(Part<'_>)) {
        if line == Line::Programs {
            return on(Part::Output(bytes));
        }
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, is_end) =
                part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            let room = LINE_BYTES_MAX - self.line.len();
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if is_end {
                self.finish(&mut on);
            }
        }
    }

    /// Ends a line of the kernel. At the end of all it may be one that was cut off.
    pub fn finish(&mut self, mut on: impl FnMut(Part<'_>)) {
        let line = std::mem::take(&mut self.line);
        if line == HELLO {
            self.started = true;
        } else if self.started && !line.is_empty() {
            let event = line.strip_prefix(b"@").and_then(|text| serde_json::from_slice(text).ok());
            match event {
                Some(event) => on(Part::Event(event)),
                None => on(Part::Note(&String::from_utf8_lossy(&line))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes and events of `text`, fed in parts of `step` bytes.
    fn split(text: &[u8], step: usize) -> (Vec<String>, Vec<Event>) {
        let (mut notes, mut events) = (Vec::new(), Vec::new());
        let mut console = Console::default();
        let mut on = |part: Part<'_>| match part {
            Part::Output(bytes) => panic!("no program printed {bytes:?}"),
            Part::Note(line) => notes.push(line.to_owned()),
            Part::Event(event) => events.push(event),
        };
        text.chunks(step).for_each(|bytes| console.feed(Line::Kernel, bytes, &mut on));
        console.finish(&mut on);
        (notes, events)
    }

    #[test]
    fn events_and_notes_are_told_apart_wherever_reads_end() {
        let text = b"qemu: a warning\n@\n@{\"event\":\"start\",\"name\":\"x\"}\nhello\n\
            @{\"event\":\"counters\",\"ns\":5,\"minor\":1,\"major\":2,\"evicted\":3,\
            \"swapped_out\":4,\"swapped_in\":5,\"free_bytes\":6}\n\
            @{\"event\":\"exit\",\"code\":139}\npanic: \xff";
        for step in 1..=text.len() {
            let (notes, events) = split(text, step);
            assert_eq!(notes, ["hello", "panic: \u{fffd}"], "in steps of {step}");
            assert_eq!(events.len(), 3, "in steps of {step}");
            assert_eq!(events[0], Event::Other);
            let Event::Counters(counters) = events[1] else { panic!("{:?}", events[1]) };
            assert_eq!((counters.minor, counters.free_bytes), (1, 6));
            assert_eq!(events[2], Event::Exit { code: 139 });
        }
    }

    #[test]
    fn what_programs_print_is_never_an_event() {
        let text = b"@\n@{\"event\":\"exit\",\"code\":7}\nname? ";
        let (mut console, mut seen) = (Console::default(), Vec::new());
        for byte in text {
            console.feed(Line::Programs, &[*byte], |part| match part {
                Part::Output(bytes) => seen.extend_from_slice(bytes),
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(seen, text, "at once, and every byte");
    }

    #[test]
    fn lines_that_only_look_like_events_are_notes() {
        let text = b"@\n@x\n@{}\n@{\"event\":7}\n@{\"event\":\"exit\"}\n@{\"event\":\"exit\",\"co";
        let (notes, events) = split(text, 3);
        assert_eq!((notes.len(), events), (5, Vec::new()), "{notes:?}");
    }

    #[test]
    fn a_report_keeps_its_fields() {
        let (notes, events) = split(b"@\n@{\"event\":\"report\",\"faults\":{\"minor\":7}}\n", 5);
        assert!(notes.is_empty());
        let [Event::Report(report)] = &events[..] else { panic!("{events:?}") };
        assert_eq!(report["faults"]["minor"], 7);
    }
}
