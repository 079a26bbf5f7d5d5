//! One block of events, on its own: as it is in the file, and decoded.

use crate::bytes::Malformed;
use crate::coding::{Decoder, PADDING};
use crate::error::TraceError;
use crate::event::Event;
use crate::format::BLOCK_RAW_MAX;

/// A block as it is in the file: its checksum is right, its events are not decoded.
///
/// Blocks do not depend on each other, so several can be decoded at once, each by a
/// [`BlockDecoder`] of its own.
#[derive(Clone, Default)]
pub struct Block {
    pub(crate) packed: Vec<u8>,
    pub(crate) offset: u64,
    pub(crate) raw_bytes: u32, // at most `BLOCK_RAW_MAX`: the header was parsed
    pub(crate) events: u32,
    pub(crate) event_first: u64,
    pub(crate) name: String,
}

impl Block {
    /// An empty block, to be filled by [`Reader::next_packed`](crate::Reader::next_packed).
    pub fn new() -> Block {
        Block::default()
    }

    /// Number of its events.
    pub fn events(&self) -> u32 {
        self.events
    }

    /// The number of its first event.
    pub fn event_first(&self) -> u64 {
        self.event_first
    }

    /// Its offset in the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

/// Decodes blocks; holds the buffers for that.
pub struct BlockDecoder {
    unpacker: zstd::bulk::Decompressor<'static>,
    raw: Vec<u8>,
    decoder: Decoder,
}

impl BlockDecoder {
    /// A decoder with empty buffers.
    ///
    /// # Errors
    /// If zstd cannot have its memory.
    pub fn new() -> Result<BlockDecoder, TraceError> {
        let unpacker =
            zstd::bulk::Decompressor::new().map_err(TraceError::io("decompress", "the trace"))?;
        Ok(BlockDecoder { unpacker, raw: Vec::new(), decoder: Decoder::new() })
    }

    /// Appends the events of `block` to `events`; all of them or, if it is damaged, none.
    ///
    /// # Errors
    /// [`TraceError::Damaged`] if its bytes are no events, for all their right checksum.
    pub fn decode(&mut self, block: &Block, events: &mut Vec<Event>) -> Result<(), TraceError> {
        let before = events.len();
        self.unpack(block, events).map_err(|Malformed(what)| {
            events.truncate(before);
            TraceError::Damaged {
                name: block.name.clone(),
                offset: block.offset,
                what: what.to_owned(),
                events: block.event_first,
            }
        })
    }

    fn unpack(&mut self, block: &Block, events: &mut Vec<Event>) -> Result<(), Malformed> {
        // The header's bound was checked when it was parsed; memory grows no further than it.
        let bytes = block.raw_bytes as usize;
        assert!(bytes <= BLOCK_RAW_MAX as usize, "a block of {bytes} bytes passed its check");
        if self.raw.len() < bytes + PADDING {
            self.raw.resize(bytes + PADDING, 0);
        }
        let unpacked = self
            .unpacker
            .decompress_to_buffer(&block.packed, &mut self.raw[..bytes])
            .map_err(|_| Malformed("a block cannot be decompressed"))?;
        if unpacked != bytes {
            return Err(Malformed("a block decompresses to another size than its header says"));
        }
        self.raw[bytes..bytes + PADDING].fill(0);
        events.reserve(block.events as usize);
        self.decoder.block(&self.raw[..bytes + PADDING], block.events as usize, events)
    }
}
