//! Program files: what the header of a static ELF program says.
//!
//! Every number in it is a program's to choose, so none is believed before it is checked.

use alloc::vec::Vec;

use vellum_mm::addr::PAGE_BYTES;
use vellum_mm::spaces::layout::{PROGRAM_START, USER_END};
use vellum_mm::spaces::vma::Rights;

use crate::calls::Errno;

/// A part of a program.
pub(crate) struct Segment {
    /// Where it begins in memory.
    pub(crate) address: u64,
    /// Where it begins in the file.
    pub(crate) offset: u64,
    /// How much of it is in the file; the rest is zeros.
    pub(crate) file_bytes: u64,
    /// How long it is.
    pub(crate) bytes: u64,
    /// What the program may do with it.
    pub(crate) rights: Rights,
}

/// A program, as its header describes it.
pub(crate) struct Program {
    /// Where it starts.
    pub(crate) entry: u64,
    /// Where its program headers are in memory, and how many.
    pub(crate) headers: (u64, u64),
    /// What is mapped.
    pub(crate) segments: Vec<Segment>,
}

impl Program {
    /// Reads the header of a static ELF program for x86-64 (System V ABI, chapters 4 and 5).
    ///
    /// # Errors
    /// `ENOEXEC` for anything else.
    pub(crate) fn parse(head: &[u8]) -> Result<Program, Errno> {
        let bytes = |at: usize, count: usize| {
            at.checked_add(count).and_then(|end| head.get(at..end)).ok_or(Errno::ENOEXEC)
        };
        let word = |at: usize| -> Result<u64, Errno> {
            Ok(u64::from_le_bytes(bytes(at, 8)?.try_into().expect("eight bytes")))
        };
        let half = |at: usize| -> Result<u32, Errno> {
            Ok(u32::from_le_bytes(bytes(at, 4)?.try_into().expect("four bytes")))
        };
        let short = |at: usize| -> Result<u64, Errno> {
            Ok(u16::from_le_bytes(bytes(at, 2)?.try_into().expect("two bytes")).into())
        };
        let is_elf = bytes(0, 6)? == b"\x7fELF\x02\x01" && short(18)? == 62;
        let bias = match short(16)? {
            2 if is_elf => 0,
            3 if is_elf => PROGRAM_START.0,
            _ => return Err(Errno::ENOEXEC),
        };
        let (table, size, count) = (word(32)?, short(54)?, short(56)?);
        if size != 56 || count > 64 {
            return Err(Errno::ENOEXEC);
        }
        let mut segments = Vec::new();
        let mut headers = 0;
        for number in 0..count {
            let at = table.checked_add(number * 56).ok_or(Errno::ENOEXEC)? as usize;
            let kind = half(at)?; // so `at` is within the head
            if kind == 3 {
                return Err(Errno::ENOEXEC); // it wants a dynamic linker
            }
            if kind != 1 {
                continue;
            }
            let part = Segment::parse(half(at + 4)?, bias, &[8, 16, 32, 40].map(|o| word(at + o)))?;
            if (part.offset..part.offset + part.file_bytes).contains(&table) {
                headers = part.address + (table - part.offset);
            }
            segments.push(part);
        }
        let entry = word(24)?.checked_add(bias).filter(|&entry| entry < USER_END.0);
        let entry = entry.ok_or(Errno::ENOEXEC)?;
        Ok(Program { entry, headers: (headers, count), segments })
    }
}

impl Segment {
    fn parse(flags: u32, bias: u64, words: &[Result<u64, Errno>; 4]) -> Result<Segment, Errno> {
        let [offset, address, file_bytes, bytes] = *words;
        let (offset, file_bytes, bytes) = (offset?, file_bytes?, bytes?);
        let address = address?.checked_add(bias).ok_or(Errno::ENOEXEC)?;
        let end = address.checked_add(bytes).ok_or(Errno::ENOEXEC)?;
        let fits = end <= USER_END.0 && file_bytes <= bytes && offset < 1 << 40;
        if !fits || address % PAGE_BYTES != offset % PAGE_BYTES {
            return Err(Errno::ENOEXEC);
        }
        let mut rights = Rights::empty();
        rights.set(Rights::EXECUTE, flags & 1 != 0);
        rights.set(Rights::WRITE, flags & 2 != 0);
        rights.set(Rights::READ, flags & 4 != 0);
        Ok(Segment { address, offset, file_bytes, bytes, rights })
    }
}
