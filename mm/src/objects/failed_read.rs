//! Reads that failed: which pages to try alone, and who is told.
//!
//! A disk that cannot read one sector fails the whole request, and most of a request was only read
//! ahead. So the pages of a failed read are not lost: each is read alone when somebody needs it, never
//! again together with others, and only who needs a page that fails alone is told. As Linux does
//! (`read_pages` and `filemap_fault`, whose folios stay in the cache, not up to date).
//!
//! ```text
//!     nothing is known ── a read of several fails ──▶ Among ── read alone, when needed ──▶ in a frame
//!                                                      ▲   └──────────── and fails ──▶ Alone ─┐
//!                                                      └── who needs it is told, and the next tries ──┘
//! ```
//!
//! The note is kept where the page is looked for: in the index of its file, or with its slot. There is
//! room for it, since there was room for the frame, and it goes with the page.

/// How the last read of a page that is not in memory failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailedRead {
    /// With others, any of which may be the bad one.
    Among,
    /// By itself: who needs the page next is told.
    Alone,
}

impl FailedRead {
    /// How a read of so many pages failed.
    pub const fn of(pages: usize) -> FailedRead {
        if pages == 1 { FailedRead::Alone } else { FailedRead::Among }
    }
}
