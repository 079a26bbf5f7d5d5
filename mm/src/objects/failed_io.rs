//! I/O that failed: which pages to try alone, and who is told.
//!
//! A disk that cannot read one sector fails the whole request, and most of a request was only read
//! ahead. So the pages of a failed read are not lost: each is read alone when somebody needs it, and
//! not read ahead again; only who needs a page that fails alone is told. As Linux does (`read_pages`
//! and `filemap_fault`, whose folios stay in the cache, not up to date).
//!
//! ```text
//!     nothing is known ── a read of several fails ──▶ Among ── read alone, when needed ──▶ in a frame
//!                                                      ▲   └──────────── and fails ──▶ Alone ─┐
//!                                                      └── who needs it is told, and the next tries ──┘
//! ```
//!
//! What is known is kept where the page is looked for: in the index of its file, or with its slot.
//! There is room for it, since there was room for the frame, and it goes with the page.
//!
//! A write that fails leaves its pages dirty in their frames. Those of one long write carry a flag
//! ([`ALONE`]), so that a bad place on the disk keeps one page and not its neighbours.
//!
//! [`ALONE`]: crate::frames::table::Flags::ALONE

/// How the last read or write of a page failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailedIo {
    /// With others, any of which may be the bad one.
    Among,
    /// By itself.
    Alone,
}

impl FailedIo {
    /// How a request for so many pages failed.
    pub const fn of(pages: usize) -> FailedIo {
        if pages == 1 { FailedIo::Alone } else { FailedIo::Among }
    }
}
