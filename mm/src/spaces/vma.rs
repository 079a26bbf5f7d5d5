//! An area (Linux: VMA): adjacent pages that a program asked for together, and what it was
//! promised.
//!
//! The area is the promise and the page table only today's truth. A page may be absent, read-only
//! or in swap at the moment; what an access deserves is decided by its area alone.
//!
//! ```text
//!     pages            100      101      102      103        Private file area, offset 7
//!                    ┌────────┬────────┬────────┬────────┐
//!     file pages     │   7    │   8    │   9    │   10   │
//!                    └────────┴────────┴────────┴────────┘
//!     split at 102:  [100..102, offset 7]  [102..104, offset 9]
//! ```
//!
//! Areas that are alike and adjacent are one area: [`Vma::can_merge_with`] says when. Private
//! memory without a file is [`Backing::Anonymous`]; shared memory without a file is a file that
//! lives in memory only, because its pages need an identity that outlives any one address space.
//!
//! Knows nothing of: the other areas of its address space, page tables, what a file is.

use bitflags::bitflags;

use crate::addr::{FileRef, Page, Pages};
use crate::machine::Access;

pub use crate::objects::readahead::Advice;

bitflags! {
    /// What a program may do with the pages of an area.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct Rights: u8 {
        /// Read data.
        const READ = 1;
        /// Write data.
        const WRITE = 2;
        /// Fetch instructions.
        const EXECUTE = 4;
    }
}

bitflags! {
    /// Facts about an area besides its rights.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
    pub struct VmaFlags: u16 {
        /// Grows down to a page that is accessed just below it, and keeps a guard gap free there.
        const GROWS_DOWN = 1 << 0;
        /// The program's first stack.
        const STACK = 1 << 1;
        /// The memory that `brk` moves the end of.
        const HEAP = 1 << 2;
        /// Counts towards no commit limit (`MAP_NORESERVE`).
        const NO_RESERVE = 1 << 3;
        /// Never evicted (`mlock`).
        const LOCKED = 1 << 4;
        /// With `LOCKED`: pages are locked as they come, not all at once (`MLOCK_ONFAULT`).
        const LOCK_ON_FAULT = 1 << 5;
        /// Wants huge pages (`MADV_HUGEPAGE`).
        const HUGE = 1 << 6;
        /// Refuses huge pages (`MADV_NOHUGEPAGE`).
        const NO_HUGE = 1 << 7;
        /// Absent in a forked child (`MADV_DONTFORK`).
        const DONT_FORK = 1 << 8;
        /// Zero-filled in a forked child (`MADV_WIPEONFORK`).
        const WIPE_ON_FORK = 1 << 9;
        /// Never to be written, whatever `mprotect` asks for: who mapped the file may only read it
        /// (Linux: without `VM_MAYWRITE`).
        const READ_ONLY = 1 << 10;
    }
}

/// What supplies the contents of a page that was never written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Backing {
    /// Zeros.
    Anonymous,
    /// The pages of a file or of a shared memory object.
    File {
        /// Which one.
        file: FileRef,
        /// The page of the file that the area's first page shows.
        offset: u64,
    },
}

/// Who sees a write.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sharing {
    /// This address space alone: written pages are copies.
    Private,
    /// Everyone who maps the same object, and the object itself.
    Shared,
}

/// One area of an address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vma {
    /// Its pages; never empty in an address space.
    pub pages: Pages,
    /// What the program may do.
    pub rights: Rights,
    /// Where unwritten contents come from.
    pub backing: Backing,
    /// Who sees a write.
    pub sharing: Sharing,
    /// How the program means to use it.
    pub advice: Advice,
    /// Everything else.
    pub flags: VmaFlags,
}

impl Rights {
    /// Whether `access` is within these rights.
    ///
    /// Any right at all permits reads: x86-64 cannot withhold them from a page that may be written
    /// or executed (Intel SDM, volume 3, section 4.6). Only an area without rights refuses all.
    pub const fn permit(self, access: Access) -> bool {
        match access {
            Access::Read => !self.is_empty(),
            Access::Write => self.contains(Rights::WRITE),
            Access::Execute => self.contains(Rights::EXECUTE),
        }
    }
}

impl Vma {
    /// Private memory that begins as zeros.
    pub const fn anonymous(pages: Pages, rights: Rights) -> Vma {
        Vma {
            pages,
            rights,
            backing: Backing::Anonymous,
            sharing: Sharing::Private,
            advice: Advice::Normal,
            flags: VmaFlags::empty(),
        }
    }

    /// The pages of `file` from page `offset` on.
    pub const fn file(
        pages: Pages,
        rights: Rights,
        file: FileRef,
        offset: u64,
        sharing: Sharing,
    ) -> Vma {
        let area = Vma::anonymous(pages, rights);
        Vma { backing: Backing::File { file, offset }, sharing, ..area }
    }

    /// The same area with `flags` besides its own.
    #[must_use]
    pub const fn with_flags(self, flags: VmaFlags) -> Vma {
        Vma { flags: self.flags.union(flags), ..self }
    }

    /// Whether the area permits `access`.
    pub const fn permits(&self, access: Access) -> bool {
        self.rights.permit(access)
    }

    /// Whether a write to one of its pages makes a copy that nobody else sees.
    pub const fn is_private(&self) -> bool {
        matches!(self.sharing, Sharing::Private)
    }

    /// The file and the page of it that `page` shows; `None` for anonymous memory.
    ///
    /// # Panics
    /// If the area shows a file and `page` is not in it.
    #[inline]
    pub fn file_page(&self, page: Page) -> Option<(FileRef, u64)> {
        let Backing::File { file, offset } = self.backing else { return None };
        assert!(self.pages.contains(page), "{page} is not in the area {:?}", self.pages);
        Some((file, offset + (page.0 - self.pages.start.0)))
    }

    /// Whether `next` begins where this area ends and continues it in every respect, so that the
    /// two are one area.
    pub fn can_merge_with(&self, next: &Vma) -> bool {
        self.pages.end == next.pages.start
            && self.rights == next.rights
            && self.sharing == next.sharing
            && self.advice == next.advice
            && self.flags == next.flags
            && self.backing_after(self.pages.count()) == next.backing
    }

    /// The two parts below and from `at` on; the file continues in the upper one.
    ///
    /// # Panics
    /// If `at` is the area's first page or not in it, so that a part would be empty.
    pub fn split_at(self, at: Page) -> (Vma, Vma) {
        assert!(
            self.pages.start < at && at < self.pages.end,
            "{at} does not divide the area {:?}",
            self.pages
        );
        let low = Pages::new(self.pages.start, at);
        let high = Pages::new(at, self.pages.end);
        let backing = self.backing_after(low.count());
        (Vma { pages: low, ..self }, Vma { pages: high, backing, ..self })
    }

    /// The part of the area that lies in `pages`; `None` if none does.
    pub fn part(&self, pages: Pages) -> Option<Vma> {
        let pages = self.pages.intersect(pages);
        (!pages.is_empty()).then(|| {
            let backing = self.backing_after(pages.start.0 - self.pages.start.0);
            Vma { pages, backing, ..*self }
        })
    }

    /// Whether the area can be in an address space: it has pages, and their numbers in the file,
    /// if it has one, fit 64 bits.
    pub fn is_sound(&self) -> bool {
        let ends = match self.backing {
            Backing::Anonymous => true,
            Backing::File { offset, .. } => offset.checked_add(self.pages.count()).is_some(),
        };
        ends && self.pages.start < self.pages.end
    }

    /// What backs the page `count` pages above the first.
    fn backing_after(&self, count: u64) -> Backing {
        match self.backing {
            Backing::Anonymous => Backing::Anonymous,
            Backing::File { file, offset } => Backing::File { file, offset: offset + count },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(start: u64, end: u64) -> Pages {
        Pages::new(Page(start), Page(end))
    }

    fn file_area() -> Vma {
        Vma::file(pages(100, 104), Rights::READ, FileRef(3), 7, Sharing::Private)
    }

    #[test]
    fn a_file_continues_across_a_split() {
        let area = file_area();
        assert_eq!(area.file_page(Page(103)), Some((FileRef(3), 10)));
        let (low, high) = area.split_at(Page(102));
        assert_eq!(low.pages, pages(100, 102));
        assert_eq!(high.file_page(Page(102)), Some((FileRef(3), 9)));
        assert!(low.can_merge_with(&high));
        assert!(!high.can_merge_with(&low), "the order counts");
    }

    #[test]
    fn only_areas_alike_in_everything_merge() {
        let (low, high) = file_area().split_at(Page(102));
        let others = [
            Vma { pages: pages(103, 104), ..high },
            Vma { rights: Rights::WRITE, ..high },
            Vma { sharing: Sharing::Shared, ..high },
            Vma { advice: Advice::Random, ..high },
            Vma { flags: VmaFlags::LOCKED, ..high },
            Vma { backing: Backing::Anonymous, ..high },
            Vma { backing: Backing::File { file: FileRef(3), offset: 7 }, ..high },
            Vma { backing: Backing::File { file: FileRef(4), offset: 9 }, ..high },
        ];
        for other in others {
            assert!(!low.can_merge_with(&other), "{other:?}");
        }
    }

    #[test]
    fn a_part_shows_the_same_file_pages_as_the_whole() {
        let area = file_area();
        let part = area.part(pages(0, 103)).expect("the ranges overlap");
        assert_eq!(part.pages, pages(100, 103));
        let part = area.part(pages(101, 999)).expect("the ranges overlap");
        assert_eq!(part.pages, pages(101, 104));
        for page in part.pages.iter() {
            assert_eq!(part.file_page(page), area.file_page(page));
        }
        assert_eq!(area.part(pages(104, 200)), None);
    }

    #[test]
    fn rights_are_as_the_processor_can_enforce_them() {
        let permitted = |rights: Rights| {
            [Access::Read, Access::Write, Access::Execute].map(|access| rights.permit(access))
        };
        assert_eq!(permitted(Rights::empty()), [false, false, false]);
        assert_eq!(permitted(Rights::READ), [true, false, false]);
        assert_eq!(permitted(Rights::WRITE), [true, true, false]);
        assert_eq!(permitted(Rights::EXECUTE), [true, false, true]);
        assert_eq!(permitted(Rights::all()), [true, true, true]);
    }

    #[test]
    fn an_area_whose_file_pages_overflow_is_not_sound() {
        assert!(file_area().is_sound());
        let file = FileRef(0);
        let beyond = Backing::File { file, offset: u64::MAX - 3 };
        assert!(!Vma { backing: beyond, ..file_area() }.is_sound());
        let last = Backing::File { file, offset: u64::MAX - 4 };
        assert!(Vma { backing: last, ..file_area() }.is_sound());
        assert!(!Vma { pages: pages(5, 5), ..file_area() }.is_sound());
    }
}
