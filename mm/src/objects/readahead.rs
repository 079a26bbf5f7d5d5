//! Read-ahead: how many pages of a file to read when one is needed.
//!
//! A window of pages is read at once; when the program reaches a *mark* in it, the next window is
//! started, so that a sequential reader seldom waits. The rules are those of Linux (mm/readahead.c and
//! `do_sync_mmap_readahead` in mm/filemap.c), for files of one page size.
//!
//! ```text
//!     fault on 40, 32 pages:   24 ············ 40 ······ 48 ······ 56     window 24..56, mark 48
//!     read of 0, 1, 2, …:      0 · · · 4 · · · · · · · 12 …               windows of 4, 8, 16, 32
//! ```
//!
//! Pure: it gives ranges; who reads them is [`page_cache`](super::page_cache).

use core::ops::Range;

/// How the program says that it will use the area (`madvise`); read-ahead follows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Advice {
    /// Nothing is known.
    #[default]
    Normal,
    /// Neighbours are not worth reading.
    Random,
    /// Pages are used once, upwards.
    Sequential,
}

/// How a page was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// By a fault, in an area with this advice.
    Fault(Advice),
    /// By `read`.
    Read,
}

/// The first window of a file that is read from its beginning, in pages.
const FIRST_WINDOW: u32 = 4;

/// The window last read, and where the next one is started.
#[derive(Clone, Copy, Default, Debug)]
pub struct ReadAhead {
    /// The page after the last one that a program asked for.
    next: u64,
    /// The first page beyond the window.
    end: u64,
    /// Pages of the window.
    pages: u32,
    /// The page whose first use starts the next window.
    mark: Option<u64>,
}

impl ReadAhead {
    /// The pages to read because `index` is needed and not there. They hold `index`.
    #[allow(clippy::match_same_arms)] // one arm for each rule
    pub fn miss(&mut self, asked: Asked, index: u64, max: u32, file_pages: u64) -> Range<u64> {
        let max = max.max(1);
        let (start, pages, ahead) = match asked {
            Asked::Fault(Advice::Random) => (index, 1, 0),
            Asked::Fault(Advice::Sequential) => (index, max, max / 2),
            Asked::Fault(Advice::Normal) => {
                (index.saturating_sub(u64::from(max / 2)), max, max / 4)
            }
            Asked::Read if index == 0 => {
                let pages = FIRST_WINDOW.min(max);
                (0, pages, pages - 1)
            }
            Asked::Read if index == self.next && self.pages > 0 => {
                let pages = (self.pages * 2).min(max);
                (index, pages, pages - 1)
            }
            Asked::Read => (index, 1, 0),
        };
        self.next = index + 1;
        self.pages = pages;
        self.end = (start + u64::from(pages)).min(file_pages);
        self.mark = (ahead > 0).then(|| self.end.saturating_sub(u64::from(ahead)).max(index + 1));
        start..self.end
    }

    /// Notes that `index` was there; gives the pages to read because it carries the mark.
    pub fn hit(&mut self, index: u64, max: u32, file_pages: u64) -> Option<Range<u64>> {
        self.next = index + 1;
        if self.mark != Some(index) {
            return None;
        }
        self.mark = None;
        let start = self.end;
        self.pages = (self.pages * 2).min(max).max(1);
        self.end = (start + u64::from(self.pages)).min(file_pages);
        if start >= self.end {
            return None;
        }
        self.mark = Some(start);
        Some(start..self.end)
    }

    /// Whether `index` carries the mark: fault-around must leave it to a fault of its own.
    pub fn is_mark(&self, index: u64) -> bool {
        self.mark == Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_around_itself() {
        let mut ra = ReadAhead::default();
        assert_eq!(ra.miss(Asked::Fault(Advice::Normal), 40, 32, 1000), 24..56);
        assert!(ra.is_mark(48));
        assert_eq!(ra.hit(41, 32, 1000), None);
        assert_eq!(ra.hit(48, 32, 1000), Some(56..88));
    }

    #[test]
    fn random_advice_reads_one_page_and_never_ahead() {
        let mut ra = ReadAhead::default();
        assert_eq!(ra.miss(Asked::Fault(Advice::Random), 40, 32, 1000), 40..41);
        assert_eq!(ra.hit(40, 32, 1000), None);
    }

    #[test]
    fn a_sequential_reader_doubles_its_window_up_to_the_maximum() {
        let mut ra = ReadAhead::default();
        let mut windows = std::vec![ra.miss(Asked::Read, 0, 32, 100)];
        for index in 1..100 {
            windows.extend(ra.hit(index, 32, 100));
        }
        assert_eq!(windows, [0..4, 4..12, 12..28, 28..60, 60..92, 92..100]);
    }

    #[test]
    fn a_window_ends_with_the_file() {
        let mut ra = ReadAhead::default();
        assert_eq!(ra.miss(Asked::Fault(Advice::Normal), 2, 32, 5), 0..5);
        assert_eq!(ra.miss(Asked::Read, 0, 32, 1), 0..1);
        assert_eq!(ra.hit(0, 32, 1), None);
    }
}
