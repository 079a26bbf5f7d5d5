//! The file systems ext2, ext3 and ext4 as they are on a disk: their tree is read once, and never
//! written.
//!
//! All that describes files is read at once, so that what is left for later are bytes of files whose
//! places on the disk are known:
//!
//! ```text
//!     superblock ─▶ groups ─▶ inodes ─┬▶ directories ─▶ names ─▶ inodes …
//!                                     └▶ maps: which bytes of the file are where on the disk
//! ```
//!
//! The format is that of Linux's `Documentation/filesystems/ext4`. A file system that was not
//! unmounted, or that needs what is not understood here, is refused; checksums are not looked at.
//!
//! Invariant: nothing on the disk is believed before it is compared with the disk's own bounds, and
//! every loop is bounded by the blocks of the file system or by [`ENTRIES_MAX`]. Otherwise a bad image
//! could stop the machine.
//!
//! Knows nothing of: the kernel, how the disk is read, what becomes of the tree.

mod map;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use self::map::Extent;
pub(crate) use self::map::{File, Run};

/// Files, directories and links of one file system at the most.
pub(crate) const ENTRIES_MAX: usize = 4096;
/// Pieces of all its files at the most.
const EXTENTS_MAX: usize = 32_768;
/// Bytes of a symbolic link at the most, as on Linux.
const LINK_BYTES_MAX: u64 = 4095;

/// What can be read byte by byte.
pub(crate) trait Device {
    /// How many there are.
    fn bytes(&self) -> u64;

    /// Reads all of `to`, from byte `from` on.
    ///
    /// # Errors
    /// [`ExtError::Unreadable`] if the disk fails. Callers stay within [`bytes`](Self::bytes).
    fn read(&mut self, from: u64, to: &mut [u8]) -> Result<(), ExtError>;
}

/// Why a file system is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ExtError {
    /// The disk fails at this byte.
    Unreadable(u64),
    /// It is something else.
    NotExt,
    /// It was not unmounted: the truth is in its journal.
    NotClean,
    /// Files of it may be encrypted.
    Encrypted,
    /// It gives files clusters of blocks (bigalloc).
    Clusters,
    /// It uses incompatible features, by their bits, that are not known here.
    Features(u32),
    /// This part contradicts itself or its disk.
    Corrupt(Part),
    /// It holds more than [`ENTRIES_MAX`].
    TooMany,
    /// Its files are in too many pieces.
    TooScattered,
}

/// A part of a file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// What describes the whole.
    Superblock,
    /// Inode of this number.
    Inode(u32),
    /// Where the contents of this inode are.
    Map(u32),
    /// The directory with this inode.
    Directory(u32),
}

impl fmt::Display for ExtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExtError::Unreadable(byte) => write!(f, "the disk cannot be read at byte {byte}"),
            ExtError::NotExt => write!(f, "it is no ext2, ext3 or ext4 file system"),
            ExtError::NotClean => write!(f, "its journal is not empty; run e2fsck on it"),
            ExtError::Encrypted => write!(f, "it is encrypted"),
            ExtError::Clusters => write!(f, "its blocks come in clusters, which is not supported"),
            ExtError::Features(bits) => write!(f, "its features {bits:#x} are not supported"),
            ExtError::Corrupt(Part::Superblock) => write!(f, "its superblock is corrupt"),
            ExtError::Corrupt(Part::Inode(inode)) => write!(f, "its inode {inode} is corrupt"),
            ExtError::Corrupt(Part::Map(inode)) => {
                write!(f, "the map of its inode {inode} is corrupt")
            }
            ExtError::Corrupt(Part::Directory(inode)) => {
                write!(f, "its directory with inode {inode} is corrupt")
            }
            ExtError::TooMany => write!(f, "it holds more than {ENTRIES_MAX} files"),
            ExtError::TooScattered => {
                write!(f, "its files are in more than {EXTENTS_MAX} pieces")
            }
        }
    }
}

/// A name, and what it leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// The inode of the directory that it is in; [`ROOT_INODE`] at the top.
    pub(crate) above: u32,
    /// The name.
    pub(crate) name: Vec<u8>,
    /// The inode that it leads to; two names of one file lead to the same.
    pub(crate) inode: u32,
    /// Permissions, as in `st_mode`.
    pub(crate) permissions: u32,
    /// What it is.
    pub(crate) kind: EntryKind,
}

/// What a name leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum EntryKind {
    /// A directory, whose own entries come later.
    Directory,
    /// A file.
    File(Arc<File>),
    /// A symbolic link, and to where.
    Link(Vec<u8>),
}

/// The directory that all others are in.
pub(crate) const ROOT_INODE: u32 = 2;

const MAGIC: u16 = 0xef53;
/// Incompatible features: a directory's entries tell types; extents; numbers of 64 bits; protection
/// against two mounts; groups of groups; the seed of checksums; large directories.
const SUPPORTED: u32 = 0x2 | 0x40 | 0x80 | 0x100 | 0x200 | 0x2000 | 0x4000;
const NOT_CLEAN: u32 = 0x4;
const BITS_64: u32 = 0x80;
const ENCRYPTED: u32 = 0x1_0000;
/// A feature with which one may read but not write, says the format; its counts are of clusters.
const CLUSTERS: u32 = 0x200;

/// The flag of an inode whose map is one of extents.
const INODE_EXTENTS: u32 = 0x8_0000;

const TYPE_MASK: u32 = 0xf000;
const DIRECTORY: u32 = 0x4000;
const REGULAR: u32 = 0x8000;
const LINK: u32 = 0xa000;

/// A file system that is being read.
struct Reader<'a> {
    device: &'a mut dyn Device,
    block_bytes: u32,
    /// Of the file system, all of them on the disk.
    blocks: u64,
    groups_at: u64,
    descriptor_bytes: u64,
    inode_bytes: u64,
    inodes: u32,
    inodes_per_group: u32,
    /// Blocks that maps and directories may still take: each block is part of one at the most.
    blocks_left: u64,
    extents_left: usize,
}

/// What is described by an inode.
struct Inode {
    number: u32,
    mode: u32,
    bytes: u64,
    flags: u32,
    /// Where the contents are, or a short symbolic link itself.
    block: [u8; 60],
}

/// All names of the file system on `device`, each after the directory that it is in.
///
/// A file whose map is corrupt is there, but has no contents ([`File::extents`]).
///
/// # Errors
/// Why it is refused.
pub(crate) fn read_tree(device: &mut dyn Device) -> Result<Vec<Entry>, ExtError> {
    let mut reader = Reader::new(device)?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut files: BTreeMap<u32, Arc<File>> = BTreeMap::new();
    let mut directories = vec![ROOT_INODE];
    let mut seen = BTreeSet::from([ROOT_INODE]);
    // Ends: no directory comes twice, and there are few entries.
    while let Some(above) = directories.pop() {
        for (name, number) in reader.names(above)? {
            if entries.len() == ENTRIES_MAX {
                return Err(ExtError::TooMany);
            }
            let inode = reader.inode(number)?;
            let kind = match inode.mode & TYPE_MASK {
                DIRECTORY if seen.insert(number) => {
                    directories.push(number);
                    EntryKind::Directory
                }
                DIRECTORY => return Err(ExtError::Corrupt(Part::Directory(number))),
                REGULAR => {
                    let known = files.get(&number).map(Arc::clone);
                    let file = known.map_or_else(|| reader.file(&inode).map(Arc::new), Ok)?;
                    files.insert(number, Arc::clone(&file));
                    EntryKind::File(file)
                }
                LINK => EntryKind::Link(reader.link(&inode)?),
                _ => continue, // devices are the kernel's own
            };
            let permissions = inode.mode & 0o7777;
            entries.push(Entry { above, name, inode: number, permissions, kind });
        }
    }
    Ok(entries)
}

impl Reader<'_> {
    fn new(device: &mut dyn Device) -> Result<Reader<'_>, ExtError> {
        const BYTES: u64 = 1024;
        let bad = ExtError::Corrupt(Part::Superblock);
        let mut superblock = [0; BYTES as usize];
        if device.bytes() < 2 * BYTES {
            return Err(ExtError::NotExt);
        }
        device.read(BYTES, &mut superblock)?;
        if u16_at(&superblock, 0x38) != MAGIC {
            return Err(ExtError::NotExt);
        }
        // The first revision had neither features nor a choice of sizes.
        let revised = u32_at(&superblock, 0x4c) > 0;
        let features = if revised { u32_at(&superblock, 0x60) } else { 0 };
        match features & !SUPPORTED {
            0 => {}
            unknown if unknown & ENCRYPTED != 0 => return Err(ExtError::Encrypted),
            NOT_CLEAN => return Err(ExtError::NotClean),
            unknown => return Err(ExtError::Features(unknown & !NOT_CLEAN)),
        }
        if revised && u32_at(&superblock, 0x64) & CLUSTERS != 0 {
            return Err(ExtError::Clusters);
        }
        let wide = features & BITS_64 != 0;
        let log_bytes = u32_at(&superblock, 0x18);
        let block_bytes = if log_bytes <= 6 { 1024 << log_bytes } else { return Err(bad) };
        let high = if wide { u64::from(u32_at(&superblock, 0x150)) << 32 } else { 0 };
        let blocks = high | u64::from(u32_at(&superblock, 4));
        let descriptor_bytes = if wide { u16_at(&superblock, 0xfe).into() } else { 32 };
        let inode_bytes = if revised { u16_at(&superblock, 0x58).into() } else { 128 };
        let reader = Reader {
            block_bytes,
            blocks,
            groups_at: (u64::from(u32_at(&superblock, 0x14)) + 1) * u64::from(block_bytes),
            descriptor_bytes,
            inode_bytes,
            inodes: u32_at(&superblock, 0),
            inodes_per_group: u32_at(&superblock, 0x28),
            blocks_left: blocks,
            extents_left: EXTENTS_MAX,
            device,
        };
        let sound = blocks > 0
            && blocks <= reader.device.bytes() / u64::from(block_bytes)
            && (32..=1024).contains(&descriptor_bytes)
            && (!wide || descriptor_bytes >= 64)
            && (128..=u64::from(block_bytes)).contains(&inode_bytes)
            && reader.inodes_per_group > 0;
        if sound { Ok(reader) } else { Err(bad) }
    }

    /// Reads bytes that must be within the file system; `part` is what tells their place.
    fn read(&mut self, from: u64, to: &mut [u8], part: Part) -> Result<(), ExtError> {
        let end = from.checked_add(to.len() as u64);
        let inside = end.is_some_and(|end| end <= self.blocks * u64::from(self.block_bytes));
        if inside { self.device.read(from, to) } else { Err(ExtError::Corrupt(part)) }
    }

    /// A block of a map or a directory.
    fn block(&mut self, block: u64, part: Part) -> Result<Vec<u8>, ExtError> {
        // A block that is used twice makes these run out.
        self.blocks_left = self.blocks_left.checked_sub(1).ok_or(ExtError::Corrupt(part))?;
        let from = block.checked_mul(self.block_bytes.into()).ok_or(ExtError::Corrupt(part))?;
        let mut bytes = vec![0; self.block_bytes as usize];
        self.read(from, &mut bytes, part)?;
        Ok(bytes)
    }

    fn inode(&mut self, number: u32) -> Result<Inode, ExtError> {
        let part = Part::Inode(number);
        let bad = ExtError::Corrupt(part);
        if number == 0 || number > self.inodes {
            return Err(bad);
        }
        let group = u64::from((number - 1) / self.inodes_per_group);
        let index = u64::from((number - 1) % self.inodes_per_group);
        let mut descriptor = [0; 64];
        let count = self.descriptor_bytes.min(64) as usize;
        let at = self.groups_at + group * self.descriptor_bytes;
        self.read(at, &mut descriptor[..count], part)?;
        let table = u64::from(u32_at(&descriptor, 0x28)) << 32 | u64::from(u32_at(&descriptor, 8));
        let at = table.checked_mul(self.block_bytes.into());
        let at = at.and_then(|at| at.checked_add(index * self.inode_bytes)).ok_or(bad)?;
        let mut bytes = [0; 128];
        self.read(at, &mut bytes, part)?;
        let mode = u32::from(u16_at(&bytes, 0));
        // In a directory the upper half is something else.
        let high = if mode & TYPE_MASK == REGULAR { u32_at(&bytes, 0x6c) } else { 0 };
        let length = u64::from(high) << 32 | u64::from(u32_at(&bytes, 4));
        let block = bytes[0x28..0x64].try_into().expect("60 bytes");
        Ok(Inode { number, mode, bytes: length, flags: u32_at(&bytes, 0x20), block })
    }

    /// The file of an inode; without contents if its map is corrupt.
    fn file(&mut self, inode: &Inode) -> Result<File, ExtError> {
        // Blocks of a file have 32 bits.
        if inode.bytes.div_ceil(self.block_bytes.into()) > u64::from(u32::MAX) {
            return Err(ExtError::Corrupt(Part::Inode(inode.number)));
        }
        let extents = match self.map(inode) {
            Ok(extents) => Some(extents),
            Err(ExtError::Corrupt(_)) => None,
            Err(error) => return Err(error),
        };
        Ok(File { bytes: inode.bytes, block_bytes: self.block_bytes, extents })
    }

    /// Where a symbolic link leads.
    fn link(&mut self, inode: &Inode) -> Result<Vec<u8>, ExtError> {
        let bad = ExtError::Corrupt(Part::Inode(inode.number));
        if inode.bytes == 0 || inode.bytes > LINK_BYTES_MAX {
            return Err(bad);
        }
        if let Some(target) = inode.block.get(..inode.bytes as usize)
            && inode.bytes < inode.block.len() as u64
        {
            return Ok(target.to_vec());
        }
        let mut target = Vec::new();
        for block in self.blocks_of(inode)? {
            target.extend(self.block(block, Part::Map(inode.number))?);
        }
        target.truncate(inode.bytes as usize);
        if target.len() as u64 == inode.bytes { Ok(target) } else { Err(bad) }
    }

    /// The blocks of what is no file, in order, holes left out.
    fn blocks_of(&mut self, inode: &Inode) -> Result<impl Iterator<Item = u64> + use<>, ExtError> {
        let extents: Box<[Extent]> = self.map(inode)?;
        Ok(extents.into_iter().flat_map(|extent| extent.at..extent.at + u64::from(extent.blocks)))
    }

    /// Names in a directory, and their inodes. The tree that speeds up a search in a large one looks
    /// like unused room in its blocks.
    fn names(&mut self, number: u32) -> Result<Vec<(Vec<u8>, u32)>, ExtError> {
        let part = Part::Directory(number);
        let inode = self.inode(number)?;
        if inode.mode & TYPE_MASK != DIRECTORY {
            return Err(ExtError::Corrupt(part));
        }
        let mut names = Vec::new();
        for block in self.blocks_of(&inode)? {
            let block = self.block(block, part)?;
            names_in(&block, &mut names).ok_or(ExtError::Corrupt(part))?;
            if names.len() > ENTRIES_MAX {
                return Err(ExtError::TooMany);
            }
        }
        Ok(names)
    }
}

/// Adds the names that a block of a directory holds; `None` if it is corrupt.
fn names_in(block: &[u8], names: &mut Vec<(Vec<u8>, u32)>) -> Option<()> {
    const HEAD_BYTES: usize = 8;
    let mut rest = block;
    // Ends: each record is as long as its head, at least.
    while !rest.is_empty() {
        let inode = u32_at(rest.get(..HEAD_BYTES)?, 0);
        // A record of a block of 64 KiB is longer than 16 bits tell.
        let record_bytes = match u16_at(rest, 4) {
            0 | u16::MAX => rest.len(),
            told => told.into(),
        };
        let name_bytes = usize::from(rest[6]);
        let (record, after) = rest.split_at_checked(record_bytes)?;
        let name = record.get(HEAD_BYTES..HEAD_BYTES + name_bytes)?;
        rest = after;
        match name {
            b"." | b".." => {}
            _ if inode == 0 => {} // not in use
            _ if name.is_empty() || name.iter().any(|byte| matches!(byte, 0 | b'/')) => {
                return None;
            }
            _ => names.push((name.to_vec(), inode)),
        }
    }
    Some(())
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
