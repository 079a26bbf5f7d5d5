//! What programs read from the console: bytes that whoever runs the machine has.
//!
//! They are fetched when a program wants them and not before, so that input nobody reads stays with
//! whoever comes next (as of a shell's loop whose input `vellum boot` shares), and a fast sender
//! cannot fill the kernel's heap:
//!
//! ```text
//!     kernel   1 byte: more                  ─────▶  host reads its input, as long as that takes
//!              4 bytes: count, lowest first  ◀─────
//!              that many bytes               ◀─────
//!              count = 0: the end, for good
//! ```
//!
//! A machine without the [`Line`] has input that has ended.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::arch::input::Line;

/// The byte that asks for more.
const MORE: u8 = b'+';
/// Bytes of a count.
const COUNT_BYTES: u32 = 4;

/// The machine's input.
pub(crate) struct Input {
    line: Option<Line>,
    /// Bytes that nobody has read yet.
    held: VecDeque<u8>,
    state: State,
}

/// What is to come over the line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nothing: nobody has asked.
    Silent,
    /// The rest of a count: how many of its bytes have come, and what they say.
    Count(u32, u32),
    /// So many bytes.
    Bytes(u32),
    /// Nothing ever again.
    Ended,
}

impl Input {
    /// Input that comes over `line`, or has ended if there is none.
    pub(crate) fn new(line: Option<Line>) -> Input {
        let state = if line.is_some() { State::Silent } else { State::Ended };
        Input { line, held: VecDeque::new(), state }
    }

    /// Whether a read would not have to wait. If it would, more is asked for.
    pub(crate) fn is_ready(&mut self) -> bool {
        // Bytes that came while others were held have interrupted already.
        self.poll();
        let ready = !self.held.is_empty() || self.state == State::Ended;
        if !ready
            && self.state == State::Silent
            && let Some(line) = &mut self.line
        {
            line.send(MORE);
            self.state = State::Count(0, 0);
        }
        ready
    }

    /// Takes what has come; whether a read would now not have to wait, and did before.
    pub(crate) fn poll(&mut self) -> bool {
        if matches!(self.state, State::Silent | State::Ended) || !self.held.is_empty() {
            return false;
        }
        let Some(line) = &mut self.line else { return false };
        // Ends: an answer has an end, and the host sends no other before it is asked.
        while let Some(byte) = line.receive() {
            self.state = match self.state {
                State::Count(have, count) => {
                    counted(have + 1, count | u32::from(byte) << (have * 8))
                }
                State::Bytes(left) => {
                    self.held.push_back(byte);
                    if left > 1 { State::Bytes(left - 1) } else { State::Silent }
                }
                // The host speaks unasked. What it says means nothing.
                state @ (State::Silent | State::Ended) => state,
            };
        }
        !self.held.is_empty() || self.state == State::Ended
    }

    /// The first bytes held, up to `max`: none if the input has ended or a read must wait.
    pub(crate) fn first(&self, max: usize) -> Vec<u8> {
        self.held.iter().take(max).copied().collect()
    }

    /// Forgets the first `count` bytes: they have been read.
    pub(crate) fn consume(&mut self, count: usize) {
        self.held.drain(..count);
    }
}

/// What comes after `have` bytes of a count.
fn counted(have: u32, count: u32) -> State {
    match count {
        _ if have < COUNT_BYTES => State::Count(have, count),
        0 => State::Ended,
        count => State::Bytes(count),
    }
}
