//! What programs in a machine read: bytes from outside, when they ask for them.
//!
//! ```text
//!     kernel                                 host
//!     a program reads ── 1 byte: more ────▶  reads its input, as long as that takes
//!                     ◀── count, bytes ────  count: 4 bytes, lowest first; 0 at the end, for good
//! ```
//!
//! Input is left alone until a program wants it: what nobody in the machine reads, whoever comes next
//! finds (a shell's loop, say, that has the same standard input). The line is one end of a pair of
//! sockets; the other end is QEMU's standard input, which it shows to the kernel as a virtio console.

use std::io::{self, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Bytes from outside. Whoever reads may wait; the machine goes on meanwhile.
pub type Input = Box<dyn Read + Send>;

/// Bytes of one answer at the most.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// Why input ended before its end, if it did.
#[derive(Clone, Default, Debug)]
pub(crate) struct Failure(Arc<Mutex<Option<io::Error>>>);

impl Failure {
    /// Takes the reason.
    pub(crate) fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, error: io::Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// Answers a machine's requests with what `input` has, in a thread of its own, until the machine is
/// gone. The other end of the line is returned. A thread that waits for input when the machine goes
/// waits on: nothing can take a read back.
pub(crate) fn serve(mut input: Input) -> io::Result<(UnixStream, Failure)> {
    let (mut here, there) = UnixStream::pair()?;
    let failure = Failure::default();
    let failed = failure.clone();
    thread::spawn(move || {
        // A line that breaks has no machine at its end any more.
        let _ = answer(&mut here, &mut input, &failed);
    });
    Ok((there, failure))
}

/// Answers until the line ends.
fn answer(line: &mut UnixStream, input: &mut Input, failure: &Failure) -> io::Result<()> {
    const COUNT_BYTES: usize = 4;
    let mut answer = vec![0; COUNT_BYTES + ANSWER_BYTES_MAX];
    loop {
        line.read_exact(&mut [0])?;
        let (head, bytes) = answer.split_at_mut(COUNT_BYTES);
        let count = read(input, bytes).unwrap_or_else(|error| {
            // It is known before the machine sees the end: after that the program may be done.
            failure.set(error);
            0
        });
        head.copy_from_slice(&u32::try_from(count).expect("a few pages").to_le_bytes());
        line.write_all(&answer[..COUNT_BYTES + count])?;
        if count == 0 {
            return Ok(());
        }
    }
}

/// Reads once, whatever signals come.
fn read(input: &mut Input, bytes: &mut [u8]) -> io::Result<usize> {
    // Ends: each round waits for bytes, the end or another signal.
    loop {
        match input.read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(line: &mut UnixStream) -> Vec<u8> {
        let mut count = [0; 4];
        line.write_all(b"+").unwrap();
        line.read_exact(&mut count).unwrap();
        let mut bytes = vec![0; u32::from_le_bytes(count) as usize];
        line.read_exact(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn every_byte_arrives_and_then_the_end() {
        let sent: Vec<u8> = (0..40_000_u32).map(|n| (n % 251) as u8).collect();
        let (mut line, failure) = serve(Box::new(io::Cursor::new(sent.clone()))).unwrap();
        let mut came = Vec::new();
        let mut part = ask(&mut line);
        while !part.is_empty() {
            came.append(&mut part);
            part = ask(&mut line);
        }
        assert_eq!(came, sent);
        assert!(failure.take().is_none());
    }

    #[test]
    fn input_that_nobody_asks_for_is_not_read() {
        struct Untouched;
        impl Read for Untouched {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                unreachable!("nobody has asked")
            }
        }
        let mut input: Input = Box::new(Untouched);
        let (mut here, there) = UnixStream::pair().unwrap();
        drop(there);
        let ended = answer(&mut here, &mut input, &Failure::default());
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn input_that_cannot_be_read_ends_and_says_why() {
        struct Broken(bool);
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                self.0 = !self.0;
                Err(if self.0 { io::ErrorKind::Interrupted } else { io::ErrorKind::IsADirectory }
                    .into())
            }
        }
        let (mut line, failure) = serve(Box::new(Broken(false))).unwrap();
        assert!(ask(&mut line).is_empty());
        let kind = failure.take().map(|error| error.kind());
        assert_eq!(kind, Some(io::ErrorKind::IsADirectory));
    }
}
