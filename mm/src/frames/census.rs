//! A census: what every frame is used for. Free and used frames are all there are, so that one that leaked
//! is missed.

use super::Frames;
use super::table::Kind;
use crate::addr::Frame;

/// What frames are used for.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Census {
    /// In their zone.
    pub free: u64,
    /// Page tables.
    pub tables: u64,
    /// Words of the core: page-cache nodes and reverse-map links.
    pub words: u64,
    /// Anonymous memory.
    pub anon: u64,
    /// Page cache and shared memory.
    pub file: u64,
    /// The zero frame.
    pub reserved: u64,
}

impl Census {
    /// Looks at every frame: for tests and reports.
    pub fn of(frames: &Frames) -> Census {
        let mut census = Census { free: frames.zone().free_frames() as u64, ..Census::default() };
        for number in 0..frames.table.count() as u32 {
            match frames.table.peek(Frame(number)).kind() {
                Kind::Free => {}
                Kind::Table => census.tables += 1,
                Kind::Words => census.words += 1,
                Kind::Anon => census.anon += 1,
                Kind::File => census.file += 1,
                Kind::Reserved => census.reserved += 1,
            }
        }
        census
    }

    /// Frames in use, free frames not counted.
    pub const fn used(self) -> u64 {
        self.tables + self.words + self.anon + self.file + self.reserved
    }
}
