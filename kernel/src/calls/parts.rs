//! Where in a program's memory one call moves bytes to or from: a buffer, or the parts of a vector.

use alloc::vec;
use alloc::vec::Vec;

use linux_raw_sys::general as nr;

use super::{Errno, Halt};
use crate::kernel::Kernel;
use crate::tasks::Tid;

/// Bytes that one call moves at the most, as on Linux.
const BYTES_MAX: u64 = 0x7fff_f000;

/// Parts of memory, one after another as if they were one.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    /// Address and bytes of each.
    all: &'a [(u64, u64)],
    bytes: u64,
}

impl Parts<'_> {
    /// What one call moves of these; together they have less than 2^63 bytes.
    pub(crate) fn new(all: &[(u64, u64)]) -> Parts<'_> {
        let bytes = all.iter().map(|part| part.1).fold(0, u64::saturating_add).min(BYTES_MAX);
        Parts { all, bytes }
    }

    /// Bytes to move.
    pub(crate) fn bytes(self) -> u64 {
        self.bytes
    }

    /// The address of byte `done`, and how many follow at once, it among them.
    pub(crate) fn at(self, mut done: u64) -> (u64, u64) {
        for &(address, bytes) in self.all {
            if done < bytes {
                return (address.wrapping_add(done), bytes - done);
            }
            done -= bytes;
        }
        unreachable!("byte {done} beyond the end of all parts")
    }
}

impl Kernel {
    /// The parts that a vector names (`struct iovec`).
    ///
    /// # Errors
    /// `EINVAL` if there are too many, or too many bytes; as [`copy_in`](Self::copy_in).
    pub(crate) fn parts_in(
        &mut self,
        tid: Tid,
        vector: u64,
        count: u64,
    ) -> Result<Vec<(u64, u64)>, Halt> {
        if count > u64::from(nr::UIO_MAXIOV) {
            return Err(Errno::EINVAL.into());
        }
        let mut words = vec![0; count as usize * 16];
        self.copy_in(tid, vector, &mut words)?;
        let word =
            |bytes: &[u8]| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        let parts: Vec<(u64, u64)> =
            words.chunks_exact(16).map(|part| (word(&part[..8]), word(&part[8..]))).collect();
        let total = parts.iter().try_fold(0_u64, |sum, part| sum.checked_add(part.1));
        match total {
            Some(total) if i64::try_from(total).is_ok() => Ok(parts),
            _ => Err(Errno::EINVAL.into()),
        }
    }

    /// Copies bytes from parts of a thread's memory, byte `from` of them first.
    ///
    /// # Errors
    /// As [`copy_in`](Self::copy_in).
    pub(crate) fn gather(
        &mut self,
        tid: Tid,
        parts: Parts<'_>,
        from: u64,
        bytes: &mut [u8],
    ) -> Result<(), Halt> {
        let mut done = 0;
        while done < bytes.len() {
            let (address, follow) = parts.at(from + done as u64);
            let end = bytes.len().min(done.saturating_add(follow as usize));
            self.copy_in(tid, address, &mut bytes[done..end])?;
            done = end;
        }
        Ok(())
    }

    /// Copies bytes into parts of a thread's memory, from byte `to` of them on.
    ///
    /// # Errors
    /// As [`copy_out`](Self::copy_out).
    pub(crate) fn scatter(
        &mut self,
        tid: Tid,
        parts: Parts<'_>,
        to: u64,
        bytes: &[u8],
    ) -> Result<(), Halt> {
        let mut done = 0;
        while done < bytes.len() {
            let (address, follow) = parts.at(to + done as u64);
            let end = bytes.len().min(done.saturating_add(follow as usize));
            self.copy_out(tid, address, &bytes[done..end])?;
            done = end;
        }
        Ok(())
    }
}
