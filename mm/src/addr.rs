//! Typed addresses and numbers: nothing in Vellum is a bare `u64`.
//!
//! A *page* is virtual, a *frame* is physical, and both are numbers; an address is a number of bytes.
//! A page becomes a frame only through a page table, so the types do not convert into each other.
//!
//! ```text
//!     VirtAddr  47 ─────────────── 12 11 ───── 0        Page  = VirtAddr >> 12
//!                 page number          offset           Frame = PhysAddr >> 12
//! ```

use core::fmt;
use core::ops::Range;

/// log2 of the bytes of a page.
pub const PAGE_SHIFT: u32 = 12;
/// Bytes of a page, and of a frame: 4 KiB, as on x86-64.
pub const PAGE_BYTES: u64 = 1 << PAGE_SHIFT;
/// Entries of one page table: 512, each of 8 bytes.
pub const TABLE_ENTRIES: usize = 512;

/// log2 of a number of frames: a run of order 9 is 2 MiB.
pub type Order = u8;

/// Virtual time in nanoseconds since the machine started.
pub type Nanos = u64;

/// A physical address in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PhysAddr(pub u64);

/// A virtual address in bytes; whether it is canonical is asked of [`layout`](crate::spaces::layout).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VirtAddr(pub u64);

/// The number of a physical frame. 32 bits number 16 TiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Frame(pub u32);

/// The number of a virtual page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Page(pub u64);

/// The number of a swap slot: room for one page on the swap device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Slot(pub u32);

/// The number of a file or shared memory object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FileRef(pub u32);

impl PhysAddr {
    /// The frame that holds this address.
    pub const fn frame(self) -> Frame {
        Frame((self.0 >> PAGE_SHIFT) as u32)
    }
}

impl VirtAddr {
    /// The page that holds this address.
    pub const fn page(self) -> Page {
        Page(self.0 >> PAGE_SHIFT)
    }

    /// The offset within its page.
    pub const fn offset(self) -> u64 {
        self.0 & (PAGE_BYTES - 1)
    }

    /// The first page that starts at or above this address.
    pub const fn page_up(self) -> Page {
        Page(self.0.div_ceil(PAGE_BYTES))
    }
}

impl Frame {
    /// The frame's first physical address.
    pub const fn address(self) -> PhysAddr {
        PhysAddr((self.0 as u64) << PAGE_SHIFT)
    }

    /// The frame as an array index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl Page {
    /// The page's first virtual address.
    pub const fn address(self) -> VirtAddr {
        VirtAddr(self.0 << PAGE_SHIFT)
    }

    /// The page `count` further up.
    #[must_use]
    pub const fn up(self, count: u64) -> Page {
        Page(self.0 + count)
    }
}

/// A half-open range of pages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Pages {
    /// The first page.
    pub start: Page,
    /// The first page beyond.
    pub end: Page,
}

impl Pages {
    /// The pages from `start` up to, without, `end`.
    ///
    /// # Panics
    /// If `end` is below `start`.
    pub const fn new(start: Page, end: Page) -> Pages {
        assert!(start.0 <= end.0, "a range of pages ends below its start");
        Pages { start, end }
    }

    /// `count` pages from `start` up.
    pub const fn at(start: Page, count: u64) -> Pages {
        Pages { start, end: Page(start.0 + count) }
    }

    /// Number of pages.
    pub const fn count(self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Whether it holds no page.
    pub const fn is_empty(self) -> bool {
        self.start.0 == self.end.0
    }

    /// Whether `page` is among them.
    pub const fn contains(self, page: Page) -> bool {
        self.start.0 <= page.0 && page.0 < self.end.0
    }

    /// Whether the two have a page in common.
    pub const fn overlaps(self, other: Pages) -> bool {
        self.start.0 < other.end.0 && other.start.0 < self.end.0
    }

    /// The pages that both hold; empty if none.
    #[must_use]
    pub fn intersect(self, other: Pages) -> Pages {
        let start = self.start.max(other.start);
        Pages { start, end: self.end.min(other.end).max(start) }
    }

    /// Each page, upwards.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = Page> {
        (self.start.0..self.end.0).map(Page)
    }
}

impl From<Range<Page>> for Pages {
    fn from(range: Range<Page>) -> Pages {
        Pages::new(range.start, range.end)
    }
}

macro_rules! shown_in_hex {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    )*};
}
shown_in_hex!(PhysAddr, VirtAddr, Page);

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "f{}", self.0)
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "f{}", self.0)
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start.0, self.end.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_page_and_an_offset() {
        let address = VirtAddr(0x1234_5678);
        assert_eq!(address.page(), Page(0x12345));
        assert_eq!(address.offset(), 0x678);
        assert_eq!(address.page_up(), Page(0x12346));
        assert_eq!(Page(0x12345).address().page_up(), Page(0x12345));
    }

    #[test]
    fn ranges_that_only_touch_do_not_overlap() {
        let low = Pages::at(Page(1), 2);
        let high = Pages::at(Page(3), 2);
        assert!(!low.overlaps(high));
        assert!(low.intersect(high).is_empty());
        assert_eq!(Pages::at(Page(1), 5).intersect(high), high);
    }
}
