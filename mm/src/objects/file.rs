//! File objects: what a mapping of a file, or of shared memory, refers to.
//!
//! A *disk* file has its contents on a disk of the world; pages are read on demand and written back
//! when dirty. A *memory* object (shared anonymous memory, `SysV` and POSIX shared memory, memfd) has no
//! disk: a page never written is zeros, and an evicted one goes to swap.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use spin::{Mutex, MutexGuard};

use super::index::Index;
use super::readahead::ReadAhead;
use crate::addr::{FileRef, PAGE_BYTES};

/// Files that one machine can know: their numbers have 24 bits in a frame's descriptor.
pub const FILES_MAX: u32 = 1 << 24;
/// Pages that one file can have: their numbers have 40 bits in a frame's descriptor.
pub const FILE_PAGES_MAX: u64 = 1 << 40;

/// Where a file's contents are when they are not in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Medium {
    /// On a disk.
    Disk,
    /// Nowhere, or in swap.
    Memory,
}

/// What the page cache finds when it first looks for a page of a disk file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Warmth {
    /// Nothing: the first use of every page reads the disk.
    Cold,
    /// All of it: the first use of every page finds it, as after an earlier run of the program. Once
    /// evicted it must be read like any other.
    Warm,
}

/// One file, under its lock.
pub struct FileObject {
    /// Bytes.
    pub bytes: u64,
    /// Where its contents are.
    pub medium: Medium,
    /// Its pages in memory or swap.
    pub index: Index,
    /// Frames of it in the page cache.
    pub cached: u64,
    /// How it is being read.
    pub read_ahead: ReadAhead,
    /// It has no name and no mapping: nothing needs to be kept.
    pub gone: bool,
    /// One bit a page: not used yet, but warm. Empty for a cold file.
    warm: Box<[u64]>,
}

impl FileObject {
    /// Pages, the last one perhaps in part.
    pub fn pages(&self) -> u64 {
        self.bytes.div_ceil(PAGE_BYTES)
    }

    /// Takes the promise that page `index` can be had without I/O; true once for every warm page.
    pub fn take_warm(&mut self, index: u64) -> bool {
        let Some(word) = self.warm.get_mut((index / 64) as usize) else { return false };
        let bit = 1 << (index % 64);
        let was = *word & bit != 0;
        *word &= !bit;
        was
    }

    /// Whether page `index` can be had without I/O although it is not cached.
    pub fn is_warm(&self, index: u64) -> bool {
        self.warm.get((index / 64) as usize).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }
}

/// All files of a machine.
#[derive(Default)]
pub struct Files {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    files: Vec<Option<Known>>,
    /// Numbers of files that are gone. There is room for all, so that it never grows at a bad time.
    free: Vec<FileRef>,
}

/// A file, and what keeps its number from another one.
struct Known {
    object: Arc<Mutex<FileObject>>,
    /// One until it is removed, and one for each frame that has left its index and still waits for a
    /// disk or a TLB.
    holds: u64,
}

/// Why a file was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileError {
    /// There are 2^24 files already, or the heap has no room for another one's record.
    TooMany,
    /// It would have more than 2^40 pages.
    TooLarge,
}

impl Files {
    /// No files.
    pub fn new() -> Files {
        Files::default()
    }

    /// Adds a file of `bytes` bytes.
    pub fn add(&self, bytes: u64, medium: Medium, warmth: Warmth) -> Result<FileRef, FileError> {
        let pages = bytes.div_ceil(PAGE_BYTES);
        if pages > FILE_PAGES_MAX {
            return Err(FileError::TooLarge);
        }
        let warm = match (medium, warmth) {
            (Medium::Disk, Warmth::Warm) => vec![u64::MAX; pages.div_ceil(64) as usize],
            _ => Vec::new(),
        };
        let object = Arc::new(Mutex::new(FileObject {
            bytes,
            medium,
            index: Index::new(),
            cached: 0,
            read_ahead: ReadAhead::default(),
            gone: false,
            warm: warm.into_boxed_slice(),
        }));
        let known = Some(Known { object, holds: 1 });
        let mut table = self.table.lock();
        let table = &mut *table;
        if let Some(file) = table.free.pop() {
            table.files[file.0 as usize] = known;
            return Ok(file);
        }
        let number = table.files.len() as u32;
        if number == FILES_MAX {
            return Err(FileError::TooMany);
        }
        let more = table.files.len() + 1 - table.free.len();
        let refused = |_| FileError::TooMany;
        table.files.try_reserve(1).map_err(refused)?;
        table.free.try_reserve(more).map_err(refused)?;
        table.files.push(known);
        Ok(FileRef(number))
    }

    /// The file of this number.
    ///
    /// # Panics
    /// If there is none.
    pub fn get(&self, file: FileRef) -> Arc<Mutex<FileObject>> {
        Arc::clone(&self.table.lock().known(file).object)
    }

    /// All files, by number.
    pub fn all(&self) -> Vec<FileRef> {
        let table = self.table.lock();
        let numbers = (0..).zip(&table.files).filter(|(_, known)| known.is_some());
        numbers.map(|(number, _)| FileRef(number)).collect()
    }

    /// Keeps the number of `file` from another one for a frame that has left its index.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn hold(&self, file: FileRef) {
        self.table.lock().known(file).holds += 1;
    }

    /// Undoes a [`hold`](Self::hold), or what keeps a file that is not removed. With the last, the number
    /// is free.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn let_go(&self, file: FileRef) {
        let mut table = self.table.lock();
        let known = table.known(file);
        known.holds -= 1;
        if known.holds == 0 {
            let gone = table.files[file.0 as usize].take();
            table.free.push(file);
            drop(table);
            drop(gone);
        }
    }

    /// What keeps the number of `file`, for tests: see [`Known`].
    pub(crate) fn holds(&self, file: FileRef) -> u64 {
        self.table.lock().known(file).holds
    }

    /// Pages of `file`.
    pub fn pages(&self, file: FileRef) -> u64 {
        self.get(file).lock().pages()
    }
}

impl Table {
    fn known(&mut self, file: FileRef) -> &mut Known {
        let known = self.files.get_mut(file.0 as usize).and_then(Option::as_mut);
        known.unwrap_or_else(|| panic!("{file:?} does not exist"))
    }
}

/// The owner word of a frame that holds page `index` of `file`.
pub const fn owner_word(file: FileRef, index: u64) -> u64 {
    (file.0 as u64) << 40 | index
}

/// The file and page that an owner word names.
pub const fn owner_of(word: u64) -> (FileRef, u64) {
    (FileRef((word >> 40) as u32), word & (FILE_PAGES_MAX - 1))
}

/// The guard of a locked file.
pub type FileGuard<'a> = MutexGuard<'a, FileObject>;
