//! The page cache: one copy of every cached page of a file, for all who map, read or write it.
//!
//! ```text
//!     find(file, page) ─┬─ in a frame ───────────────────▶ Ready
//!                       ├─ a disk is filling the frame ──▶ Wait for that request
//!                       ├─ on its disk ──────────────────▶ read it and neighbours, Wait
//!                       ├─ the disk has failed to read it ▶ Failed, or read it alone, Wait
//!                       ├─ in swap (shared memory) ──────▶ read it back, Wait
//!                       └─ never written, or warm ───────▶ a new frame, Ready
//! ```
//!
//! Invariant: a page of a file is in at most one frame; the index, under the file's lock, says which.
//! Otherwise two processes would write to different copies of the same page.
//!
//! Knows nothing of: who asks (a fault or a system call), page tables, which frame to evict.

use alloc::sync::Arc;
use core::ops::Range;

use super::failed_io::FailedIo;
use super::file::{FILE_PAGES_MAX, FileError, FileObject, Medium, owner_word};
use super::index::Cached;
use super::io::RequestId;
use super::read::{read, read_swapped};
use super::readahead::Asked;
use super::store::{Store, file_page};
use crate::addr::{FileRef, PAGE_BYTES};
use crate::frames::NoMemory;
use crate::frames::table::{Flags, Kind, Locked};
use crate::frames::zone::Level;
use crate::machine::{At, Machine};

/// Where a page that was asked for is.
#[must_use]
pub enum Find<'a> {
    /// In this frame, locked.
    Ready(Locked<'a>),
    /// It comes with this request; `own` if it was made for this asker.
    Wait {
        /// What to wait for.
        request: RequestId,
        /// Whether this call submitted it.
        own: bool,
    },
    /// Beyond the end of the file.
    Beyond,
    /// No frame is free for it.
    NoMemory,
    /// The disk could not read it, or the machine refused the I/O.
    Failed,
}

impl<'a> Find<'a> {
    /// Lets `then` change the frame if it is ready.
    fn inspect(mut self, then: impl FnOnce(&mut Locked<'a>)) -> Find<'a> {
        if let Find::Ready(locked) = &mut self {
            then(locked);
        }
        self
    }
}

/// Finds page `index` of `file`, starting I/O if it must be read.
pub fn find<'a, M: Machine>(
    store: &'a Store,
    at: At,
    machine: &M,
    file: FileRef,
    index: u64,
    asked: Asked,
) -> Find<'a> {
    let object = store.files.get(file);
    let mut object = object.lock();
    find_in(store, at, machine, file, &mut object, index, asked)
}

fn find_in<'a, M: Machine>(
    store: &'a Store,
    at: At,
    machine: &M,
    file: FileRef,
    object: &mut FileObject,
    index: u64,
    asked: Asked,
) -> Find<'a> {
    let pages = object.pages();
    if index >= pages {
        return Find::Beyond;
    }
    match object.index.get(machine, index) {
        Cached::Frame(frame) => {
            let max = store.tunables.read_ahead_pages;
            if let Some(window) = object.read_ahead.hit(index, max, pages) {
                // Ahead of need: if there is no room for it, nothing is lost.
                let _ = read(store, at, machine, file, object, &window, None);
            }
            let locked = store.frames.table.lock(frame);
            if locked.state().has(Flags::READING) {
                return Find::Wait { request: RequestId(locked.rmap() as u32), own: false };
            }
            Find::Ready(locked)
        }
        Cached::Swapped(slot) => read_swapped(store, at, machine, file, object, index, slot),
        Cached::Nothing if object.medium == Medium::Memory || object.is_warm(index) => {
            match add(store, at, machine, file, object, index) {
                Ok(locked) => {
                    object.take_warm(index);
                    Find::Ready(locked)
                }
                Err(NoMemory) => Find::NoMemory,
            }
        }
        Cached::Nothing => {
            let max = store.tunables.read_ahead_pages;
            let window = object.read_ahead.miss(asked, index, max, pages);
            read(store, at, machine, file, object, &window, Some(index))
        }
        Cached::Failed(FailedIo::Among) => {
            read(store, at, machine, file, object, &(index..index + 1), Some(index))
        }
        Cached::Failed(FailedIo::Alone) => {
            replace(store, at, machine, object, index, Cached::Failed(FailedIo::Among));
            Find::Failed
        }
    }
}

/// The frame of page `index` if it is there and usable, or can be had at once because it is warm and
/// memory is plentiful. Never starts I/O: this is for the neighbours of a page that is mapped.
pub(crate) fn find_around<'a, M: Machine>(
    store: &'a Store,
    at: At,
    machine: &M,
    file: FileRef,
    object: &mut FileObject,
    index: u64,
) -> Option<Locked<'a>> {
    if object.read_ahead.is_mark(index) {
        return None;
    }
    match object.index.get(machine, index) {
        Cached::Frame(frame) => {
            let locked = store.frames.table.lock(frame);
            (!locked.state().has(Flags::READING)).then_some(locked)
        }
        Cached::Nothing if object.is_warm(index) => {
            if store.frames.zone().level() != Level::Plenty {
                return None;
            }
            let locked = add(store, at, machine, file, object, index).ok()?;
            object.take_warm(index);
            Some(locked)
        }
        _ => None,
    }
}

/// Finds the page of the file that `bytes`, which are within one, are written to. It is dirty then,
/// and the file has grown to hold them.
///
/// A page that is overwritten whole, as far as there is anything in it, is not read first.
pub fn find_to_write<'a, M: Machine>(
    store: &'a Store,
    at: At,
    machine: &M,
    file: FileRef,
    bytes: Range<u64>,
) -> Find<'a> {
    let object = store.files.get(file);
    let mut object = object.lock();
    let index = bytes.start / PAGE_BYTES;
    let page = index * PAGE_BYTES..(index + 1) * PAGE_BYTES;
    let whole = (bytes.start == page.start || page.start >= object.bytes)
        && (bytes.end == page.end || bytes.end >= object.bytes);
    let found = match object.index.get(machine, index) {
        Cached::Nothing | Cached::Failed(_) if whole => {
            match add(store, at, machine, file, &mut object, index) {
                Ok(locked) => {
                    object.take_warm(index);
                    Find::Ready(locked)
                }
                Err(NoMemory) => Find::NoMemory,
            }
        }
        _ => find_in(store, at, machine, file, &mut object, index, Asked::Read),
    };
    found.inspect(|locked| {
        locked.set(Flags::DIRTY);
        object.bytes = object.bytes.max(bytes.end);
    })
}

/// Puts a new zeroed frame into the cache as page `index`.
fn add<'a, M: Machine>(
    store: &'a Store,
    at: At,
    machine: &M,
    file: FileRef,
    object: &mut FileObject,
    index: u64,
) -> Result<Locked<'a>, NoMemory> {
    let mut locked = take_frame(store, at, machine, file, object, index)?;
    machine.zero(locked.frame());
    if object.medium == Medium::Memory {
        // There is no other copy of it anywhere.
        locked.set(Flags::DIRTY);
    }
    let page = file_page(locked.owner());
    store.list(&mut locked, page);
    Ok(locked)
}

/// Takes a frame for page `index` and enters it into the index; not yet evictable.
pub(super) fn take_frame<'a, M: Machine>(
    store: &'a Store,
    at: At,
    machine: &M,
    file: FileRef,
    object: &mut FileObject,
    index: u64,
) -> Result<Locked<'a>, NoMemory> {
    let mut locked = store.alloc(at, machine, Kind::File)?;
    locked.set_owner(owner_word(file, index));
    if object.medium == Medium::Memory {
        locked.set(Flags::MEMORY);
        if !store.swap.exists() {
            locked.set(Flags::KEPT);
        }
    }
    let cached = Cached::Frame(locked.frame());
    if object.index.set(&store.frames, at, machine, index, cached).is_err() {
        store.release(at, machine, locked);
        return Err(NoMemory);
    }
    object.cached += 1;
    Ok(locked)
}

/// Takes a frame out of the cache. It must be unmapped and not under I/O; the caller releases it.
pub(crate) fn remove<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    object: &mut FileObject,
    index: u64,
    instead: Cached,
) {
    replace(store, at, machine, object, index, instead);
    object.cached -= 1;
}

/// Records something else of a page of which something is recorded already.
fn replace<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    object: &mut FileObject,
    index: u64,
    instead: Cached,
) {
    let set = object.index.set(&store.frames, at, machine, index, instead);
    set.expect("replacing an entry needs no node");
}

/// Sets the size of a file. Pages beyond the new end leave the cache and every page table that maps them; a program
/// that touches them again gets SIGBUS.
pub fn truncate<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    file: FileRef,
    bytes: u64,
) -> Result<(), FileError> {
    if bytes.div_ceil(PAGE_BYTES) > FILE_PAGES_MAX {
        return Err(FileError::TooLarge);
    }
    let object = store.files.get(file);
    let mut object = object.lock();
    let keep = bytes.div_ceil(PAGE_BYTES);
    let end = object.pages();
    object.bytes = bytes;
    drop_pages(store, at, machine, file, &mut object, keep..end);
    Ok(())
}

/// Drops `pages` of a shared memory object, wherever they are: they are zeros again.
pub(crate) fn punch<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    file: FileRef,
    pages: Range<u64>,
) {
    let object = store.files.get(file);
    let mut object = object.lock();
    debug_assert_eq!(object.medium, Medium::Memory, "{file:?} would be read from its disk again");
    let end = pages.end.min(object.pages());
    drop_pages(store, at, machine, file, &mut object, pages.start..end);
}

/// Forgets the contents of a file that has no name and is mapped nowhere. Who has it open reads what its
/// disk still has.
pub fn forget<M: Machine>(store: &Store, at: At, machine: &M, file: FileRef) {
    let object: Arc<_> = store.files.get(file);
    let mut object = object.lock();
    object.gone = true;
    let end = object.pages();
    drop_pages(store, at, machine, file, &mut object, 0..end);
}

/// Removes a file that nobody can use any more. Its number may be another's as soon as no frame of it
/// waits for a disk.
pub fn remove_file<M: Machine>(store: &Store, at: At, machine: &M, file: FileRef) {
    forget(store, at, machine, file);
    store.files.let_go(file);
}

fn drop_pages<M: Machine>(
    store: &Store,
    at: At,
    machine: &M,
    file: FileRef,
    object: &mut FileObject,
    pages: Range<u64>,
) {
    let mut next = pages.start;
    // Ends: each turn takes the first entry at or above `next` away, or steps over it.
    loop {
        let mut found = None;
        object.index.for_each(machine, next, pages.end, |index, cached| {
            found = Some((index, cached));
            false
        });
        let Some((index, cached)) = found else { return };
        next = index + 1;
        match cached {
            Cached::Nothing => {}
            Cached::Swapped(slot) => {
                store.swap.release_of_file(slot);
                replace(store, at, machine, object, index, Cached::Nothing);
            }
            Cached::Failed(_) => replace(store, at, machine, object, index, Cached::Nothing),
            Cached::Frame(frame) => {
                let mut locked = store.frames.table.lock(frame);
                let empty = crate::translate::x86_64::Entry(0);
                if !locked.state().has(Flags::READING) {
                    super::detach::unmap_everywhere(store, at, machine, &mut locked, empty);
                }
                remove(store, at, machine, object, index, Cached::Nothing);
                store.unlist(&mut locked);
                locked.unpin_all();
                let state = locked.state();
                if state.holds() > 0 || state.has_any(Flags::READING | Flags::WRITING) {
                    // The frame is the disk's, or some TLB's, until the request or flush ends.
                    locked.set(Flags::DOOMED);
                    store.files.hold(file);
                } else {
                    store.release(at, machine, locked);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Page;
    use crate::fault::Outcome;
    use crate::machine::Access;
    use crate::spaces::vma::Sharing;
    use crate::testing::{AT, Bench};

    const PAGE: Page = Page(0x1000);

    #[test]
    fn two_faults_on_one_page_wait_for_one_request() {
        let bench = Bench::new(64, 0);
        let (mut a, mut b) = (bench.space(), bench.space());
        let file = bench.file(1, Medium::Disk);
        for space in [&mut a, &mut b] {
            bench.map_file(space, PAGE, (file, 1), Sharing::Shared);
        }
        let Outcome::Wait { request, own: true } = bench.fault(&mut a, PAGE, Access::Read) else {
            panic!("the first fault starts the read");
        };
        let joined = bench.fault(&mut b, PAGE, Access::Read);
        assert_eq!(joined, Outcome::Wait { request, own: false });
        assert_eq!(bench.settle().len(), 1);
        bench.touch(&mut a, PAGE, Access::Read).unwrap();
        bench.touch(&mut b, PAGE, Access::Read).unwrap();
        assert_eq!(bench.entry(&a, PAGE).frame(), bench.entry(&b, PAGE).frame());
    }

    #[test]
    fn a_page_that_is_written_whole_is_not_read_first() {
        use crate::vm::FileOutcome::{Done, Wait};
        let bench = Bench::new(64, 0);
        let file = bench.file(2, Medium::Disk);
        let write = |index, to| bench.vm.write_page(AT, &bench.ram, file, index, 0, to);
        assert!(matches!(write(0, PAGE_BYTES), Done(_)));
        assert!(matches!(write(1, 100), Wait(_)), "the rest of the page is on disk");
        assert!(matches!(write(2, 100), Done(_)), "there is nothing beyond the end");
        assert_eq!(bench.vm.store().files.get(file).lock().bytes, 2 * PAGE_BYTES + 100);
    }

    #[test]
    fn a_page_truncated_while_it_is_read_is_freed_when_the_disk_is_done() {
        let bench = Bench::new(64, 0);
        let boot = bench.vm.census();
        let file = bench.file(1, Medium::Disk);
        let waits = bench.vm.read_page(AT, &bench.ram, file, 0);
        assert!(matches!(waits, crate::vm::FileOutcome::Wait(_)));
        bench.vm.truncate(AT, &bench.ram, file, 0, []).unwrap();
        assert_eq!(bench.vm.census().file, 1, "the frame is still the disk's");
        bench.settle();
        assert_eq!(bench.vm.census(), boot);
    }

    #[test]
    fn a_number_is_given_again_when_the_disk_is_done_with_the_file() {
        let bench = Bench::new(64, 0);
        let file = bench.file(1, Medium::Disk);
        let waits = bench.vm.read_page(AT, &bench.ram, file, 0);
        assert!(matches!(waits, crate::vm::FileOutcome::Wait(_)));
        bench.vm.remove_file(AT, &bench.ram, file);
        let second = bench.file(1, Medium::Memory);
        assert_ne!(second, file, "a frame still names the first");
        bench.check(&[]);
        bench.settle();
        bench.check(&[]);
        assert_eq!(bench.file(1, Medium::Memory), file);
        bench.vm.remove_file(AT, &bench.ram, second);
        assert_eq!(bench.file(1, Medium::Disk), second, "nothing of it was under way");
    }

    #[test]
    #[should_panic(expected = "does not exist")]
    fn a_file_that_was_removed_does_not_exist() {
        let bench = Bench::new(64, 0);
        let file = bench.file(1, Medium::Memory);
        bench.vm.remove_file(AT, &bench.ram, file);
        let _ = bench.vm.read_page(AT, &bench.ram, file, 0);
    }

    #[test]
    fn a_file_cannot_have_more_pages_than_a_descriptor_can_name() {
        let bench = Bench::new(64, 0);
        let file = bench.file(1, Medium::Disk);
        let huge = bench.vm.truncate(AT, &bench.ram, file, u64::MAX, []);
        assert_eq!(huge, Err(FileError::TooLarge));
        let write = bench.vm.write_page(AT, &bench.ram, file, FILE_PAGES_MAX, 0, 1);
        assert!(matches!(write, crate::vm::FileOutcome::Failed(_)));
    }
}
