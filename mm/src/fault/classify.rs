//! Why an access was refused.

use crate::addr::{FileRef, Frame, Page, Slot};
use crate::machine::Access;
use crate::spaces::vma::{Sharing, Vma};
use crate::translate::x86_64::{Entry, Holds, NO_EXECUTE, USER, WRITE};

/// How an access breaks the promise made by `mmap`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Violation {
    /// No area is here: SIGSEGV, `SEGV_MAPERR`.
    Unmapped,
    /// The area forbids it: SIGSEGV, `SEGV_ACCERR`.
    Forbidden,
    /// The file ends before this page: SIGBUS, `BUS_ADRERR`.
    BeyondFile,
}

/// What an access needs before it can be retried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing: the entry already permits it, another processor was faster or the TLB was stale.
    Spurious,
    /// A mapping of the zero frame: a read of untouched anonymous memory.
    ZeroPage,
    /// A zeroed frame: a write to untouched anonymous memory.
    ZeroFill,
    /// This page of a file, from the page cache or from its disk.
    FileFill(FileRef, u64),
    /// The contents saved in this swap slot.
    SwapIn(Slot),
    /// A copy of this frame, or the frame itself if no one else maps it.
    CopyOnWrite(Frame),
    /// Only the right to write: the first store to a clean shared page, caught to mark it dirty.
    MakeDirty(Frame),
    /// A signal.
    Violation(Violation),
}

/// Decides what `access` to `page` needs, given the area it fell in and the entry it found.
///
/// `zero` is the frame of zeros, and `file_pages` the length of the area's file, if it has one.
///
/// Pure, so every case is one line of a test table. The area is the promise and the entry only
/// today's truth: rights are judged against the area first, so an absent page never hides a
/// violation.
#[inline]
pub fn classify(
    access: Access,
    page: Page,
    area: Option<&Vma>,
    entry: Entry,
    zero: Frame,
    file_pages: u64,
) -> Fault {
    let Some(area) = area else {
        return Fault::Violation(Violation::Unmapped);
    };
    if !area.permits(access) {
        return Fault::Violation(Violation::Forbidden);
    }
    match entry.holds() {
        Holds::Empty => match area.file_page(page) {
            Some((_, index)) if index >= file_pages => Fault::Violation(Violation::BeyondFile),
            Some((file, index)) => Fault::FileFill(file, index),
            None if access == Access::Write => Fault::ZeroFill,
            None => Fault::ZeroPage,
        },
        Holds::Swapped(slot) => Fault::SwapIn(slot),
        Holds::Frame(_) if permits(entry, access) => Fault::Spurious,
        // What the area permits, an entry withholds for one reason only: a write must be seen.
        Holds::Frame(frame) if access == Access::Write => {
            if frame == zero {
                Fault::ZeroFill
            } else if area.sharing == Sharing::Private {
                Fault::CopyOnWrite(frame)
            } else {
                Fault::MakeDirty(frame)
            }
        }
        // The area has gained a right since the entry was made, and `mprotect` has refreshed it.
        Holds::Frame(_) => Fault::Spurious,
    }
}

fn permits(entry: Entry, access: Access) -> bool {
    entry.has(USER)
        && match access {
            Access::Read => true,
            Access::Write => entry.has(WRITE),
            Access::Execute => !entry.has(NO_EXECUTE),
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Pages;
    use crate::spaces::vma::Rights;

    const ZERO: Frame = Frame(0);
    const PAGE: Page = Page(17);

    fn anon(rights: Rights) -> Vma {
        Vma::anonymous(Pages::at(Page(16), 4), rights)
    }

    fn file(rights: Rights, sharing: Sharing) -> Vma {
        Vma::file(Pages::at(Page(16), 4), rights, FileRef(3), 7, sharing)
    }

    #[test]
    fn every_combination_has_one_answer() {
        use Access::{Execute, Read, Write};
        use Sharing::{Private, Shared};
        let (r, rw, none) = (Rights::READ, Rights::READ | Rights::WRITE, Rights::empty());
        let rx = Rights::READ | Rights::EXECUTE;
        let empty = Entry(0);
        let swapped = Entry::swapped(Slot(9));
        let frame = Frame(5);
        let shown = Entry::of(frame, USER | NO_EXECUTE);
        let writable = Entry::of(frame, USER | WRITE | NO_EXECUTE);
        let zeros = Entry::of(ZERO, USER | NO_EXECUTE);
        let violation = Fault::Violation;
        let table: &[(Access, Option<Vma>, Entry, u64, Fault)] = &[
            (Read, None, empty, 0, violation(Violation::Unmapped)),
            (Write, None, writable, 0, violation(Violation::Unmapped)),
            (Read, Some(anon(none)), empty, 0, violation(Violation::Forbidden)),
            (Write, Some(anon(r)), empty, 0, violation(Violation::Forbidden)),
            (Write, Some(anon(r)), swapped, 0, violation(Violation::Forbidden)),
            (Execute, Some(anon(rw)), shown, 0, violation(Violation::Forbidden)),
            (Read, Some(anon(rw)), empty, 0, Fault::ZeroPage),
            (Write, Some(anon(rw)), empty, 0, Fault::ZeroFill),
            (Write, Some(anon(rw)), zeros, 0, Fault::ZeroFill),
            (Read, Some(anon(rw)), zeros, 0, Fault::Spurious),
            (Read, Some(anon(rw)), swapped, 0, Fault::SwapIn(Slot(9))),
            (Write, Some(anon(rw)), swapped, 0, Fault::SwapIn(Slot(9))),
            (Write, Some(anon(rw)), shown, 0, Fault::CopyOnWrite(frame)),
            (Write, Some(anon(rw)), writable, 0, Fault::Spurious),
            (Read, Some(file(r, Private)), empty, 20, Fault::FileFill(FileRef(3), 8)),
            (Execute, Some(file(rx, Private)), empty, 20, Fault::FileFill(FileRef(3), 8)),
            (Read, Some(file(r, Private)), empty, 8, violation(Violation::BeyondFile)),
            (Write, Some(file(rw, Private)), empty, 9, Fault::FileFill(FileRef(3), 8)),
            (Write, Some(file(rw, Private)), shown, 20, Fault::CopyOnWrite(frame)),
            (Write, Some(file(rw, Shared)), shown, 20, Fault::MakeDirty(frame)),
            (Write, Some(file(rw, Shared)), writable, 20, Fault::Spurious),
            (Read, Some(file(rw, Shared)), shown, 20, Fault::Spurious),
        ];
        for (line, (access, area, entry, file_pages, fault)) in table.iter().enumerate() {
            let found = classify(*access, PAGE, area.as_ref(), *entry, ZERO, *file_pages);
            assert_eq!(found, *fault, "line {line}: {access:?} {area:?} {entry:?}");
        }
    }
}
