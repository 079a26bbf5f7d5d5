//! What the loader leaves: a map of RAM, a command line, an archive.
//!
//! "x86/HVM direct boot ABI" (Xen), structure `hvm_start_info`. It lies in RAM that is free
//! otherwise, so all of it is copied or kept before any of that is given away.

use core::ops::Range;

use super::{boot, paging};

const MAGIC: u64 = 0x336e_c578;
/// Ranges of RAM that are looked at. Machines have a few; a longer map is cut.
const RANGES_MAX: usize = 64;
/// Bytes of the command line that are read.
const COMMAND_LINE_MAX: usize = 4096;

/// What the loader has said, by physical addresses.
pub(super) struct Loaded {
    /// RAM, without what boot keeps.
    pub(super) ram: Ranges,
    /// Bytes of RAM in all.
    pub(super) ram_bytes: u64,
    /// The first address beyond RAM; whatever boot keeps is below.
    pub(super) ram_end: u64,
    /// Where the firmware's tables are found; 0 if unknown.
    pub(super) rsdp: u64,
    archive: Range<u64>,
    command_line: u64,
}

/// Some ranges of bytes, by whole pages, in an array: there is no heap yet.
#[derive(Clone)]
pub(super) struct Ranges {
    ranges: [Range<u64>; RANGES_MAX],
    count: usize,
}

impl Ranges {
    const fn new() -> Ranges {
        Ranges { ranges: [const { 0..0 }; RANGES_MAX], count: 0 }
    }

    /// The ranges.
    pub(super) fn as_slice(&self) -> &[Range<u64>] {
        &self.ranges[..self.count]
    }

    /// Adds the whole pages of a range. One too many is left out: that wastes memory and harms
    /// nobody.
    fn add(&mut self, range: Range<u64>) {
        let start = range.start.next_multiple_of(paging::PAGE);
        let range = start..range.end & !(paging::PAGE - 1);
        if !range.is_empty() && self.count < RANGES_MAX {
            self.ranges[self.count] = range;
            self.count += 1;
        }
    }

    /// Takes every page out that has a byte of `hole`.
    pub(super) fn remove(&mut self, hole: &Range<u64>) {
        let hole = hole.start & !(paging::PAGE - 1)..hole.end.next_multiple_of(paging::PAGE);
        let mut left = Ranges::new();
        for range in self.as_slice() {
            left.add(range.start..range.end.min(hole.start.max(range.start)));
            left.add(range.start.max(hole.end.min(range.end))..range.end);
        }
        *self = left;
    }
}

impl Loaded {
    /// Reads what is at physical address `info`.
    ///
    /// # Safety
    /// It is what the loader passed, and boot's direct map is active.
    pub(super) unsafe fn read(info: u64) -> Loaded {
        // SAFETY: of the layout that the magic number promises, and mapped.
        let word = |offset: u64| unsafe { word_at(info + offset) };
        assert!(word(0) & 0xffff_ffff == MAGIC, "the image was not started as PVH says");
        let modules = word(12) as u32;
        let archive = if modules == 0 {
            0..0
        } else {
            let module = word(16);
            // SAFETY: the list has at least one module, and its first two words are place and
            // bytes.
            let [start, bytes] = [0, 8].map(|offset| unsafe { word_at(module + offset) });
            start..start + bytes
        };
        let (map, entries) = (word(40), word(48) as u32);
        let mut loaded = Loaded {
            ram: Ranges::new(),
            ram_bytes: 0,
            ram_end: 0,
            rsdp: word(32),
            archive,
            command_line: word(24),
        };
        for entry in 0..u64::from(entries) {
            const RAM: u32 = 1;
            let at = map + entry * 24;
            // SAFETY: the map has so many entries of 24 bytes: start, bytes, kind.
            let [start, bytes, kind] = [0, 8, 16].map(|offset| unsafe { word_at(at + offset) });
            if kind as u32 == RAM {
                let end = start.saturating_add(bytes).min(paging::PHYSICAL_END);
                loaded.ram.add(start..end);
                loaded.ram_bytes += end.saturating_sub(start);
                loaded.ram_end = loaded.ram_end.max(end);
            }
        }
        loaded.ram.remove(&(0..paging::PAGE));
        let trampoline = boot::TRAMPOLINE_ADDRESS..boot::TRAMPOLINE_ADDRESS + paging::PAGE;
        loaded.ram.remove(&trampoline);
        loaded.ram.remove(&(boot::IMAGE_START..paging::image().data.end - paging::IMAGE_BASE));
        let archive = loaded.archive.clone();
        loaded.ram.remove(&archive);
        loaded
    }

    /// What came with the image; kept out of RAM, so that it stays.
    pub(super) fn archive(&self) -> &'static [u8] {
        let bytes = (self.archive.end - self.archive.start) as usize;
        // SAFETY: the loader wrote it, its frames are nobody's, and the direct map has them.
        unsafe { core::slice::from_raw_parts(paging::direct(self.archive.start), bytes) }
    }

    /// The command line, as long as it has not been overwritten: before RAM is given away.
    pub(super) fn command_line(&self) -> &[u8] {
        if self.command_line == 0 {
            return &[];
        }
        let text = paging::direct(self.command_line);
        // SAFETY: the loader ends the text with a zero byte; a longer one is cut.
        let text = unsafe { core::slice::from_raw_parts(text, COMMAND_LINE_MAX) };
        text.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// The number behind `name` on the command line; 0 if there is none. Takes no heap: what is
    /// asked for here decides how large that is made.
    pub(super) fn number(&self, name: &[u8]) -> u64 {
        let words = self.command_line().split(u8::is_ascii_whitespace);
        let mut values = words.take_while(|word| *word != b"--");
        let value = values.find_map(|word| word.strip_prefix(name));
        let value = value.and_then(|digits| core::str::from_utf8(digits).ok());
        value.and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }
}

/// The word at a physical address, which need not be aligned.
///
/// # Safety
/// Boot's direct map is active and the address has something.
unsafe fn word_at(address: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { paging::direct(address).cast::<u64>().read_unaligned() }
}
