//! Reads the program's memory as the kernel would: a bad pointer yields nothing.

use std::sync::OnceLock;

use super::ffi::Symbols;
use crate::sys;

/// The longest path that Linux takes, NUL included.
const PATH_BYTES_MAX: usize = 4096;

/// What QEMU adds to the program's addresses; constant once it is loaded.
static BASE: OnceLock<u64> = OnceLock::new();

/// Bytes of the program's memory; as many as were there.
pub(crate) fn bytes(address: u64, count: usize) -> Vec<u8> {
    let base = *BASE.get_or_init(Symbols::guest_base);
    let mut buffer = vec![0; count];
    let read = sys::read_memory(address.wrapping_add(base), &mut buffer);
    buffer.truncate(read);
    buffer
}

/// The number at `address`.
pub(crate) fn word(address: u64) -> Option<u64> {
    Some(u64::from_le_bytes(bytes(address, 8).try_into().ok()?))
}

/// The 32-bit number at `address`.
pub(crate) fn half(address: u64) -> Option<u32> {
    Some(u32::from_le_bytes(bytes(address, 4).try_into().ok()?))
}

/// The string at `address`, without its NUL, up to `limit` bytes; `None` if it has no end.
pub(crate) fn string(address: u64, limit: usize) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    while text.len() < limit && address != 0 {
        // Up to the end of a page at a time: the next page may not exist.
        let at = address + text.len() as u64;
        let chunk = bytes(at, 4096 - (at & 4095) as usize);
        if chunk.is_empty() {
            return None;
        }
        if let Some(end) = chunk.iter().position(|&byte| byte == 0) {
            text.extend_from_slice(&chunk[..end]);
            return Some(text);
        }
        text.extend_from_slice(&chunk);
    }
    None
}

/// The path at `address`.
pub(crate) fn path(address: u64) -> Option<Vec<u8>> {
    string(address, PATH_BYTES_MAX)
}

/// The strings that the null-terminated array at `address` points to.
pub(crate) fn strings(address: u64) -> Option<Vec<Vec<u8>>> {
    // Linux takes arguments and environment of up to six megabytes, and strings of 128 KiB.
    const STRINGS_MAX: u64 = 1 << 20;
    const BYTES_MAX: usize = 1 << 17;
    let mut list = Vec::new();
    if address == 0 {
        return Some(list);
    }
    for index in 0..STRINGS_MAX {
        match word(address + index * 8)? {
            0 => return Some(list),
            pointer => list.push(string(pointer, BYTES_MAX)?),
        }
    }
    None
}
