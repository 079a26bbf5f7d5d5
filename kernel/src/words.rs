//! Structures of the system-call interface, word by word, and its errors in words.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use crate::calls::Errno;

/// What a call that failed says to people, as far as programs can fail to start.
pub(crate) fn of_errno(errno: Errno) -> String {
    let words = match errno {
        Errno::EACCES => "permission denied",
        Errno::E2BIG => "the arguments are too long",
        Errno::ENOEXEC => "no static program for x86-64",
        Errno::ENOMEM => "there is too little memory",
        Errno::ENOTDIR => "a part of its path is no directory",
        Errno::ELOOP => "too many links or interpreters",
        Errno::ENAMETOOLONG => "its name is too long",
        Errno::EISDIR => "it is a directory",
        Errno::EIO => "it cannot be read",
        Errno(number) => return format!("error {number}"),
    };
    words.to_string()
}

/// Bytes of a structure, in the order of its fields; little-endian.
#[derive(Default)]
pub(crate) struct Words(Vec<u8>);

impl Words {
    /// Adds an 8-bit field.
    pub(crate) fn u8(&mut self, value: u8) -> &mut Words {
        self.0.push(value);
        self
    }

    /// Adds a 16-bit field.
    pub(crate) fn u16(&mut self, value: u16) -> &mut Words {
        self.put(&value.to_le_bytes())
    }

    /// Adds a 32-bit field.
    pub(crate) fn u32(&mut self, value: u32) -> &mut Words {
        self.put(&value.to_le_bytes())
    }

    /// Adds a 64-bit field.
    pub(crate) fn u64(&mut self, value: u64) -> &mut Words {
        self.put(&value.to_le_bytes())
    }

    /// Adds bytes.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> &mut Words {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Adds so many zeros.
    pub(crate) fn zeros(&mut self, count: usize) -> &mut Words {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
