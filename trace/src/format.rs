//! The `.vtrace` format, byte by byte. All numbers are little-endian.
//!
//! ```text
//!     header | metadata | block | block | … | footer | trailer
//!                         └ each decodes alone ┘  └ where they are
//! ```
//!
//! A writer needs no seek: it appends, and what it appended stays readable if it dies. A reader
//! goes from block to block, or to the trailer first and from there, through the index, to any
//! block. Every part carries a CRC-32 (that of zlib and PNG), so damage is found where it is.
//!
//! # Header, 24 bytes
//! ```text
//!      0  8  magic "VTRACE\n\0": text tools stop at the zero, and a copy that changes
//!            line ends breaks the newline
//!      8  4  version, 1
//!     12  4  bytes of the metadata, at most 16 MiB
//!     16  4  CRC-32 of the metadata
//!     20  4  CRC-32 of bytes 0 to 19
//! ```
//! The metadata, [`Meta`](crate::event::Meta) as JSON, follows at once.
//!
//! # Block: a header of 32 bytes, then the payload
//! ```text
//!      0  4  magic "VBLK"
//!      4  4  bytes of the payload once decompressed, at most 8 MiB
//!      8  4  bytes of the payload in the file
//!     12  4  number of events, 1 to 65,536
//!     16  8  number of the first event; the first of the trace is 0
//!     24  4  CRC-32 of the payload in the file
//!     28  4  CRC-32 of bytes 0 to 27
//! ```
//! The payload is one zstd frame. A writer closes a block at 65,536 events or 1 MiB of raw bytes,
//! whichever comes first; only a single call of more bytes makes a larger block.
//!
//! # Events
//! An event begins with a tag. The state that the coding keeps (the current thread, the last pages,
//! the recent pages) starts afresh with each block: all pages 0, no thread.
//! ```text
//!     0..=191  an access of the current thread
//!     192      a call: see below
//!     193      the current thread is now the one whose number follows in LEB128
//!     194..    the current thread is now the (tag - 194)th thread that the block named, from 0
//! ```
//! Tags 193 and up are no events; they announce the thread of those that follow.
//!
//! The tag of an access is `kind << 6 | page << 4 | count << 2 | instructions`, with kind 0 load, 1
//! store, 2 fetch. The other three say how wide their fields are, which follow in this order:
//! ```text
//!     field         code 0    1        2         3
//!     count - 1     0         1 byte   2 bytes   4 bytes
//!     instructions  0         1 byte   2 bytes   4 bytes
//!     page          slot: 1   1 byte   3 bytes   8 bytes
//! ```
//! A page by difference (codes 1 to 3) is the difference, modulo 2^64, to the last page of the same
//! thread and kind, with its sign folded into bit 0 (0, -1, 1, -2, … become 0, 1, 2, 3, …). A page
//! by slot is the one in that slot of the kind's 256 recent pages, which all threads share. After
//! every access its page is put into slot `page * 0x9e3779b97f4a7c15 >> 56` (modulo 2^64) of its
//! kind.
//!
//! A call is a tag and its fields in the order of [`Call`](crate::event::Call)'s declaration but
//! for what is said here: LEB128 for numbers, sign folded as above for signed ones, one byte 0 or 1
//! for a flag that ends no list of numbers, texts and lists after their length, 0 or the number
//! plus one for an optional number.
//! ```text
//!      0 Start   5 Exit (how, value)     10 Remap (thread flags start    15 Unlock     21 Truncate
//!      1 Exec    6 Reap                     bytes new_start new_bytes)   16 Sync       22 Unlink
//!      2 Fork    7 File                  11 Protect                      17 Touch      24 Failed
//!      3 Thread  8 Map (thread prot      12 Brk                          18 Read       25 Tick
//!      4 Thread-   flags start bytes     13 Advise                       19 Write      26 Mark
//!        Exit      offset file)          14 Lock                         20 FileSync
//!                9 Unmap
//! ```
//! Exit's `how` is one byte: 0 a code, 1 a signal, 2 unknown. An area of Exec is page, pages, prot,
//! shared (one byte), role (one byte), file or none, offset in the file.
//!
//! # Footer: 20 bytes, then the summary, then the index
//! ```text
//!      0  4  magic "VEND"
//!      4  4  bytes of the summary, at most 64 MiB
//!      8  4  number of blocks
//!     12  4  CRC-32 of summary and index
//!     16  4  CRC-32 of bytes 0 to 15
//! ```
//! The summary is [`Summary`](crate::event::Summary) as JSON. The index has 16 bytes for each
//! block: its offset in the file and the number of its first event.
//!
//! # Trailer, the last 24 bytes of the file
//! ```text
//!      0  8  offset of the footer
//!      8  8  number of events
//!     16  4  CRC-32 of bytes 0 to 15
//!     20  4  magic "VEOF"
//! ```
//!
//! # Why not columns
//! Columns of like values usually compress best; here they do not. A loop repeats whole events,
//! which interleaved is one long match for zstd and in columns four. Measured on lackey's trace of
//! `CPython` 3.11 (its first 20 M lines, blocks of 65,536 events, zstd 3), in bytes an event:
//! ```text
//!     filter (pages held for each kind)     none      8     16     64
//!     four columns, one zstd frame          0.23   0.86   1.28   3.42
//!     four columns, one zstd frame each     0.23   0.85   1.26   3.34
//!     columns without recent pages          0.25   1.01   1.43   3.55
//!     interleaved, LEB128 numbers           0.20   0.67   1.00   3.13
//!     interleaved, widths in the tag        0.19   0.65   0.96   3.12   <- this format
//! ```
//! Columns decode up to a third faster where compression is extreme, and no faster where it is not.
//! Current speeds: `cargo bench -p vellum-trace`.

use crate::bytes::array;

/// The version that this crate writes, and the only one that it reads.
pub const VERSION: u32 = 1;
/// The first bytes of every trace.
pub const MAGIC: [u8; 8] = *b"VTRACE\n\0";
/// Most bytes of metadata.
pub const META_BYTES_MAX: u32 = 16 << 20;
/// Most events of a block.
pub const BLOCK_EVENTS_MAX: u32 = 1 << 16;
/// Most bytes of a block's payload once decompressed, and so of one call.
pub const BLOCK_RAW_MAX: u32 = 8 << 20;
/// Raw bytes at which a writer closes a block.
pub(crate) const BLOCK_RAW_FULL: usize = 1 << 20;
/// Most bytes of a block's payload in the file: what zstd needs at worst, and some.
pub(crate) const BLOCK_PACKED_MAX: u32 = BLOCK_RAW_MAX + (BLOCK_RAW_MAX >> 7) + 1024;
/// Most bytes of a summary.
pub const SUMMARY_BYTES_MAX: u32 = 64 << 20;
/// The compression level: half the time of the next one that saves anything.
pub(crate) const ZSTD_LEVEL: i32 = 3;

const BLOCK_MAGIC: [u8; 4] = *b"VBLK";
const FOOTER_MAGIC: [u8; 4] = *b"VEND";
const TRAILER_MAGIC: [u8; 4] = *b"VEOF";

/// Bytes of [`Header`].
pub(crate) const HEADER_BYTES: usize = 24;
/// Bytes of [`BlockHeader`].
pub(crate) const BLOCK_HEADER_BYTES: usize = 32;
/// Bytes of [`FooterHeader`].
pub(crate) const FOOTER_HEADER_BYTES: usize = 20;
/// Bytes of an [`Entry`] of the index.
pub(crate) const ENTRY_BYTES: usize = 16;
/// Bytes of [`Trailer`].
pub(crate) const TRAILER_BYTES: usize = 24;

/// The first bytes of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) meta_bytes: u32,
    pub(crate) meta_crc: u32,
}

/// What a reader of fixed-size parts may find wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wrong {
    /// Another magic.
    Magic,
    /// Another checksum.
    Checksum,
    /// A number beyond its bound; which.
    Bound(&'static str),
}

impl Header {
    pub(crate) fn bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        put(&mut bytes, 8, self.version);
        put(&mut bytes, 12, self.meta_bytes);
        put(&mut bytes, 16, self.meta_crc);
        seal(&mut bytes);
        bytes
    }

    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Header, Wrong> {
        if bytes[..8] != MAGIC {
            return Err(Wrong::Magic);
        }
        sealed(bytes)?;
        let [version, meta_bytes, meta_crc] = [8, 12, 16].map(|at| get(bytes, at));
        if meta_bytes > META_BYTES_MAX {
            return Err(Wrong::Bound("the size of the metadata"));
        }
        Ok(Header { version, meta_bytes, meta_crc })
    }
}

/// What precedes the payload of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlockHeader {
    pub(crate) raw_bytes: u32,
    pub(crate) packed_bytes: u32,
    pub(crate) events: u32,
    pub(crate) event_first: u64,
    pub(crate) packed_crc: u32,
}

impl BlockHeader {
    pub(crate) fn bytes(self) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[..4].copy_from_slice(&BLOCK_MAGIC);
        put(&mut bytes, 4, self.raw_bytes);
        put(&mut bytes, 8, self.packed_bytes);
        put(&mut bytes, 12, self.events);
        bytes[16..24].copy_from_slice(&self.event_first.to_le_bytes());
        put(&mut bytes, 24, self.packed_crc);
        seal(&mut bytes);
        bytes
    }

    pub(crate) fn parse(bytes: &[u8; BLOCK_HEADER_BYTES]) -> Result<BlockHeader, Wrong> {
        if bytes[..4] != BLOCK_MAGIC {
            return Err(Wrong::Magic);
        }
        sealed(bytes)?;
        let [raw_bytes, packed_bytes, events, packed_crc] = [4, 8, 12, 24].map(|at| get(bytes, at));
        if raw_bytes > BLOCK_RAW_MAX {
            return Err(Wrong::Bound("the size of the block"));
        }
        if packed_bytes > BLOCK_PACKED_MAX {
            return Err(Wrong::Bound("the compressed size of the block"));
        }
        // An event takes at least one byte.
        if events == 0 || events > BLOCK_EVENTS_MAX || events > raw_bytes {
            return Err(Wrong::Bound("the number of events of the block"));
        }
        let event_first = u64::from_le_bytes(array(bytes, 16));
        Ok(BlockHeader { raw_bytes, packed_bytes, events, event_first, packed_crc })
    }
}

/// What precedes summary and index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FooterHeader {
    pub(crate) summary_bytes: u32,
    pub(crate) blocks: u32,
    pub(crate) crc: u32,
}

impl FooterHeader {
    pub(crate) fn bytes(self) -> [u8; FOOTER_HEADER_BYTES] {
        let mut bytes = [0; FOOTER_HEADER_BYTES];
        bytes[..4].copy_from_slice(&FOOTER_MAGIC);
        put(&mut bytes, 4, self.summary_bytes);
        put(&mut bytes, 8, self.blocks);
        put(&mut bytes, 12, self.crc);
        seal(&mut bytes);
        bytes
    }

    /// Whether a footer begins here, were it whole or not.
    pub(crate) fn begins(bytes: &[u8]) -> bool {
        bytes.starts_with(&FOOTER_MAGIC)
    }

    pub(crate) fn parse(bytes: &[u8; FOOTER_HEADER_BYTES]) -> Result<FooterHeader, Wrong> {
        if bytes[..4] != FOOTER_MAGIC {
            return Err(Wrong::Magic);
        }
        sealed(bytes)?;
        let [summary_bytes, blocks, crc] = [4, 8, 12].map(|at| get(bytes, at));
        if summary_bytes > SUMMARY_BYTES_MAX {
            return Err(Wrong::Bound("the size of the summary"));
        }
        Ok(FooterHeader { summary_bytes, blocks, crc })
    }

    /// Bytes of summary and index.
    pub(crate) fn body_bytes(self) -> u64 {
        u64::from(self.summary_bytes) + u64::from(self.blocks) * ENTRY_BYTES as u64
    }
}

/// A block, in the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) offset: u64,
    pub(crate) event_first: u64,
}

impl Entry {
    pub(crate) fn bytes(self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..].copy_from_slice(&self.event_first.to_le_bytes());
        bytes
    }

    pub(crate) fn parse(bytes: &[u8]) -> Entry {
        Entry {
            offset: u64::from_le_bytes(array(bytes, 0)),
            event_first: u64::from_le_bytes(array(bytes, 8)),
        }
    }
}

/// The last bytes of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Trailer {
    pub(crate) footer: u64,
    pub(crate) events: u64,
}

impl Trailer {
    pub(crate) fn bytes(self) -> [u8; TRAILER_BYTES] {
        let mut bytes = [0; TRAILER_BYTES];
        bytes[..8].copy_from_slice(&self.footer.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.events.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..16]);
        put(&mut bytes, 16, crc);
        bytes[20..].copy_from_slice(&TRAILER_MAGIC);
        bytes
    }

    pub(crate) fn parse(bytes: &[u8; TRAILER_BYTES]) -> Result<Trailer, Wrong> {
        if bytes[20..] != TRAILER_MAGIC {
            return Err(Wrong::Magic);
        }
        if get(bytes, 16) != crc32fast::hash(&bytes[..16]) {
            return Err(Wrong::Checksum);
        }
        let [footer, events] = [0, 8].map(|at| u64::from_le_bytes(array(bytes, at)));
        Ok(Trailer { footer, events })
    }
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn get(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

/// Puts the checksum of all bytes before the last four into those.
fn seal(bytes: &mut [u8]) {
    let at = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..at]);
    put(bytes, at, crc);
}

/// Whether [`seal`] was the last to change `bytes`.
fn sealed(bytes: &[u8]) -> Result<(), Wrong> {
    let at = bytes.len() - 4;
    if get(bytes, at) == crc32fast::hash(&bytes[..at]) { Ok(()) } else { Err(Wrong::Checksum) }
}
