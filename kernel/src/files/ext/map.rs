//! Where the contents of a file are: a list of extents, read from either of the two forms in which an
//! inode tells it.
//!
//! ```text
//!     ext2, ext3: 12 blocks │ a block of blocks │ a block of those │ and once more    (0: a hole)
//!     ext4:       a tree of nodes: a header, then extents in leaves and nodes above
//! ```

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use super::{ExtError, INODE_EXTENTS, Inode, Part, Reader, u16_at, u32_at};

/// Blocks that an inode of ext2 tells itself.
const DIRECT: usize = 12;
const EXTENT_MAGIC: u16 = 0xf30a;
/// Levels of a tree of extents at the most.
const DEPTH_MAX: u16 = 5;
/// A longer extent is one of zeros that were never written.
const WRITTEN_MAX: u16 = 1 << 15;

/// Blocks of a file that are together on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Extent {
    /// The first, in the file.
    pub(crate) first: u32,
    /// How many.
    pub(crate) blocks: u32,
    /// The first, on the disk.
    pub(crate) at: u64,
}

impl Extent {
    fn end(&self) -> u64 {
        u64::from(self.first) + u64::from(self.blocks)
    }
}

/// A file on the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct File {
    /// Its length.
    pub(crate) bytes: u64,
    /// What extents count in.
    pub(crate) block_bytes: u32,
    /// Its contents, in order; zeros between. `None` if it is corrupt where they are.
    pub(crate) extents: Option<Box<[Extent]>>,
}

/// Bytes of a file that are together on the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    /// Which, in the file.
    pub(crate) bytes: Range<u64>,
    /// Where the first is on the disk.
    pub(crate) at: u64,
}

impl File {
    /// What of the blocks that `bytes` of the file are in is on the disk; the rest is zeros. `None` if
    /// the contents cannot be had.
    ///
    /// `bytes` begins where a block begins, or a part of one of 512 bytes and more.
    pub(crate) fn runs(&self, bytes: Range<u64>) -> Option<impl Iterator<Item = Run> + '_> {
        let extents = self.extents.as_deref()?;
        let block_bytes = u64::from(self.block_bytes);
        let from = extents.partition_point(|extent| extent.end() * block_bytes <= bytes.start);
        let runs = extents[from..].iter().map(move |extent| {
            let first = u64::from(extent.first) * block_bytes;
            let start = first.max(bytes.start);
            let end = (extent.end() * block_bytes).min(bytes.end);
            Run { bytes: start..end, at: extent.at * block_bytes + (start - first) }
        });
        Some(runs.take_while(|run| run.bytes.start < run.bytes.end))
    }
}

/// A map as far as it is read.
struct Growing {
    inode: u32,
    /// Blocks of the file.
    blocks: u64,
    extents: Vec<Extent>,
}

impl Reader<'_> {
    /// The contents of an inode.
    pub(super) fn map(&mut self, inode: &Inode) -> Result<Box<[Extent]>, ExtError> {
        let mut map = Growing {
            inode: inode.number,
            blocks: inode.bytes.div_ceil(self.block_bytes.into()),
            extents: Vec::new(),
        };
        if inode.flags & INODE_EXTENTS != 0 {
            self.extents_below(&inode.block, None, &mut map)?;
        } else {
            let mut next = 0;
            for (index, block) in inode.block.chunks_exact(4).enumerate() {
                let level = (index + 1).saturating_sub(DIRECT) as u32;
                self.blocks_below(u32_at(block, 0), level, &mut next, &mut map)?;
            }
        }
        self.extents_left -= map.extents.len();
        Ok(map.extents.into_boxed_slice())
    }

    /// Adds what is below `block`, `level` blocks of blocks away from contents, as the file's blocks
    /// from `next` on.
    fn blocks_below(
        &mut self,
        block: u32,
        level: u32,
        next: &mut u64,
        map: &mut Growing,
    ) -> Result<(), ExtError> {
        let per_block = u64::from(self.block_bytes / 4);
        if block == 0 || *next >= map.blocks {
            *next += per_block.pow(level);
            return Ok(());
        }
        if level == 0 {
            self.add(map, Extent { first: *next as u32, blocks: 1, at: block.into() })?;
            *next += 1;
            return Ok(());
        }
        let blocks = self.block(block.into(), Part::Map(map.inode))?;
        for block in blocks.chunks_exact(4) {
            self.blocks_below(u32_at(block, 0), level - 1, next, map)?;
        }
        Ok(())
    }

    /// Adds what a node of a tree of extents tells, which must be `depth` levels above the leaves
    /// if that is known.
    fn extents_below(
        &mut self,
        node: &[u8],
        depth: Option<u16>,
        map: &mut Growing,
    ) -> Result<(), ExtError> {
        const BYTES: usize = 12;
        let bad = ExtError::Corrupt(Part::Map(map.inode));
        let (count, found) = (usize::from(u16_at(node, 2)), u16_at(node, 6));
        let end = (count + 1) * BYTES;
        let expected = depth.map_or(found <= DEPTH_MAX, |depth| depth == found);
        if u16_at(node, 0) != EXTENT_MAGIC || !expected || end > node.len() {
            return Err(bad);
        }
        for entry in node[BYTES..end].chunks_exact(BYTES) {
            if found > 0 {
                let below = u64::from(u16_at(entry, 8)) << 32 | u64::from(u32_at(entry, 4));
                let below = self.block(below, Part::Map(map.inode))?;
                self.extents_below(&below, Some(found - 1), map)?;
                continue;
            }
            let blocks = u16_at(entry, 4);
            if blocks > WRITTEN_MAX {
                continue;
            }
            let at = u64::from(u16_at(entry, 6)) << 32 | u64::from(u32_at(entry, 8));
            self.add(map, Extent { first: u32_at(entry, 0), blocks: blocks.into(), at })?;
        }
        Ok(())
    }

    /// Adds an extent, without what is beyond the file's end.
    fn add(&self, map: &mut Growing, mut extent: Extent) -> Result<(), ExtError> {
        let on_disk = extent.at > 0
            && extent.at.checked_add(extent.blocks.into()).is_some_and(|end| end <= self.blocks);
        let in_order = map.extents.last().is_none_or(|l| l.end() <= u64::from(extent.first));
        if !on_disk || !in_order {
            return Err(ExtError::Corrupt(Part::Map(map.inode)));
        }
        let left = map.blocks.saturating_sub(extent.first.into());
        extent.blocks = u64::from(extent.blocks).min(left) as u32;
        if extent.blocks == 0 {
            return Ok(());
        }
        if let Some(last) = map.extents.last_mut()
            && last.end() == u64::from(extent.first)
            && last.at + u64::from(last.blocks) == extent.at
        {
            last.blocks += extent.blocks;
            return Ok(());
        }
        if map.extents.len() == self.extents_left {
            return Err(ExtError::TooScattered);
        }
        map.extents.push(extent);
        Ok(())
    }
}
