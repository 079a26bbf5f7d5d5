//! Pipes: bytes on their way from one process to another.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Bytes that a pipe holds, as on Linux; one that is made when the heap is short holds [`PIPE_ATOMIC`].
pub(crate) const PIPE_BYTES: usize = 65_536;
/// Bytes that are written all at once or not at all (`PIPE_BUF`).
pub(crate) const PIPE_ATOMIC: usize = 4096;

/// A pipe.
#[derive(Debug)]
pub(crate) struct Pipe {
    /// What was written and not yet read. There is room for all that it can hold.
    pub(crate) bytes: VecDeque<u8>,
    bytes_max: usize,
    /// Open files that read it.
    pub(crate) readers: u32,
    /// Open files that write it.
    pub(crate) writers: u32,
}

impl Pipe {
    /// Bytes that fit now.
    pub(crate) fn room(&self) -> usize {
        self.bytes_max - self.bytes.len()
    }
}

/// All pipes.
#[derive(Default)]
pub(crate) struct Pipes(Vec<Option<Pipe>>);

impl Pipes {
    /// A new pipe of so many bytes with an end each way; `None` if the heap has no room for it.
    pub(crate) fn add(&mut self, bytes_max: usize) -> Option<usize> {
        let mut bytes = VecDeque::new();
        bytes.try_reserve_exact(bytes_max).ok()?;
        self.0.try_reserve(1).ok()?;
        let pipe = Some(Pipe { bytes, bytes_max, readers: 1, writers: 1 });
        if let Some(free) = self.0.iter().position(Option::is_none) {
            self.0[free] = pipe;
            return Some(free);
        }
        self.0.push(pipe);
        Some(self.0.len() - 1)
    }

    /// Closes one end; without ends the pipe is gone.
    pub(crate) fn close(&mut self, pipe: usize, writer: bool) {
        let end = if writer { &mut self[pipe].writers } else { &mut self[pipe].readers };
        *end -= 1;
        if self[pipe].readers == 0 && self[pipe].writers == 0 {
            self.0[pipe] = None;
        }
    }
}

impl core::ops::Index<usize> for Pipes {
    type Output = Pipe;

    /// # Panics
    /// If there is no such pipe.
    fn index(&self, pipe: usize) -> &Pipe {
        self.0[pipe].as_ref().expect("a pipe with an end")
    }
}

impl core::ops::IndexMut<usize> for Pipes {
    /// # Panics
    /// If there is no such pipe.
    fn index_mut(&mut self, pipe: usize) -> &mut Pipe {
        self.0[pipe].as_mut().expect("a pipe with an end")
    }
}
