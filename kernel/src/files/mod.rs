//! Files: a tree of names, what is open, and pipes.
//!
//! Contents are the memory manager's: a file of the archive or of the mounted disk is read on demand
//! through the page cache, and a new file lives in the page cache alone, as in tmpfs.

pub(crate) mod archive;
pub(crate) mod ext;
mod lookup;
pub(crate) mod mount;
pub(crate) mod open;
pub(crate) mod pipe;
pub(crate) mod tree;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use vellum_mm::addr::{FileRef, PAGE_BYTES};

pub(crate) use self::open::OpenId;
use self::open::Opens;
use self::pipe::Pipes;
use self::tree::Tree;

/// All of it.
pub(crate) struct Files {
    /// Names.
    pub(crate) tree: Tree,
    /// Open files.
    pub(crate) opens: Opens,
    /// Pipes.
    pub(crate) pipes: Pipes,
    /// Files without a name that are given up with their last mapping.
    pub(crate) nameless: Vec<FileRef>,
    /// `SysV` shared memory.
    pub(crate) segments: BTreeMap<u32, Segment>,
    segments_made: u32,
    /// Pages that may be added to files in memory before all are counted again.
    pub(crate) room_pages: u64,
    archive: &'static [u8],
    /// By file: where its contents are.
    stored: BTreeMap<FileRef, Stored>,
}

/// Where the contents of a file are that is not written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Stored {
    /// These bytes of the archive.
    Archive(Range<usize>),
    /// On the mounted disk.
    Disk(Arc<ext::File>),
}

impl Stored {
    /// Its length.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Stored::Archive(bytes) => bytes.len() as u64,
            Stored::Disk(file) => file.bytes,
        }
    }
}

/// A piece of `SysV` shared memory.
pub(crate) struct Segment {
    /// Its name for others; 0 for none.
    pub(crate) key: u32,
    /// Its contents.
    pub(crate) file: FileRef,
    /// Its length.
    pub(crate) pages: u64,
    /// It goes with the last mapping.
    pub(crate) removed: bool,
}

impl Files {
    /// The files of an archive.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub(crate) fn new(archive: &'static [u8]) -> Result<Files, String> {
        Ok(Files {
            tree: archive::unpack(archive)?,
            opens: Opens::default(),
            pipes: Pipes::default(),
            nameless: Vec::new(),
            segments: BTreeMap::new(),
            segments_made: 0,
            room_pages: 0,
            archive,
            stored: BTreeMap::new(),
        })
    }

    /// Adds shared memory; its identifier.
    pub(crate) fn add_segment(&mut self, key: u32, file: FileRef, pages: u64) -> u32 {
        self.segments_made += 1;
        self.segments.insert(self.segments_made, Segment { key, file, pages, removed: false });
        self.segments_made
    }

    /// Says where the contents of `file` are.
    pub(crate) fn add_stored(&mut self, file: FileRef, stored: Stored) {
        self.stored.insert(file, stored);
    }

    /// Where the contents of `file` are, unless it lives in memory alone.
    pub(crate) fn stored(&self, file: FileRef) -> Option<&Stored> {
        self.stored.get(&file)
    }

    /// The bytes of page `index` of what is in the archive; fewer than a page at its end.
    pub(crate) fn archived_page(&self, bytes: &Range<usize>, index: u64) -> &'static [u8] {
        let all = &self.archive[bytes.clone()];
        let start = (index * PAGE_BYTES).min(all.len() as u64) as usize;
        &all[start..all.len().min(start + PAGE_BYTES as usize)]
    }
}
