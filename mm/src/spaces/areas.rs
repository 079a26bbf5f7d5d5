//! The set of areas of one address space.
//!
//! ```text
//!   page   10      14      18      22             40          guard gap   60      64
//!          ┌───────┬───────┐       ┌──────────────┐         ╎             ┌───────┐
//!          │ r-x   │ rw-   │  gap  │ file, offset │   gap   ╎ kept free   │ stack │
//!          └───────┴───────┘       └──────────────┘         ╎             └───────┘
//! ```
//!
//! The set answers two questions quickly. Which area is this page in: at each fault. Where is a gap
//! of so many pages: at each `mmap`. Both take O(log n) in a tree that knows the longest gap under
//! each node, and neither allocates. Changes take O(log n) for each area that they touch.
//!
//! Invariants: areas are sorted, disjoint and not empty. Neighbours that are alike are one area;
//! otherwise a program that maps page by page would reach the limit on areas, and a range that it
//! knows as one would be refused where one area is demanded.
//!
//! A refused operation changes nothing.
//!
//! Knows nothing of: page tables, frames, what a removed area leaves behind there, commit limits.

mod gaps;
mod tree;
mod walk;

use alloc::vec::Vec;

use crate::addr::{Page, Pages};
use crate::spaces::vma::{Backing, Vma, VmaFlags};
use gaps::Want;
use tree::{NONE, Tree};

/// How many areas an address space may have unless told otherwise (Linux: `vm.max_map_count`).
pub const AREAS_MAX: usize = 65530;

/// Why an area is not mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// This page is in an area already; the first such of those asked for.
    Occupied(Page),
    /// There would be more areas than allowed, or than the heap has room for.
    TooMany,
}

/// Areas are not changed: the cuts would make more of them than allowed, or than the heap has room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooMany;

/// Why an area does not grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GrowError {
    /// There is no area here that could.
    NoArea,
    /// It would be longer than its limit.
    TooLong,
    /// It would reach below the lowest page that may be mapped.
    TooLow,
    /// This page is another area's or in a guard gap.
    Blocked(Page),
}

/// How far a stack may grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StackLimits {
    /// The longest stack, in pages (Linux: `RLIMIT_STACK`).
    pub pages_max: u64,
    /// The lowest page that may be mapped.
    pub floor: Page,
}

/// The areas of one address space; a fork starts from a clone, which copies one array.
#[derive(Clone, Debug)]
pub struct Areas {
    tree: Tree,
    len_max: usize,
    recent: u32, // the node that `find_recent` found last
}

impl Areas {
    /// No areas yet, and at most `len_max` ever. An area that grows down keeps `guard_pages` free
    /// below it.
    pub const fn new(guard_pages: u64, len_max: usize) -> Areas {
        Areas { tree: Tree::new(guard_pages), len_max, recent: NONE }
    }

    /// Number of areas.
    pub const fn len(&self) -> usize {
        self.tree.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many areas may still be added.
    pub const fn room(&self) -> usize {
        self.len_max.saturating_sub(self.len())
    }

    /// Makes sure that `more` areas can be added; whether they can.
    pub fn make_room(&mut self, more: usize) -> bool {
        self.room() >= more && self.tree.has_room(more)
    }

    /// Bytes of heap that a clone takes, in one piece: a fork needs them.
    pub const fn clone_bytes(&self) -> usize {
        self.tree.clone_bytes()
    }

    /// Number of pages in all areas.
    pub const fn pages_total(&self) -> u64 {
        self.tree.pages()
    }

    /// The area that contains `page`.
    pub fn find(&self, page: Page) -> Option<&Vma> {
        self.at_or_above(page).filter(|vma| vma.pages.contains(page))
    }

    /// As [`find`](Self::find), but first tries the area found last: faults come in runs.
    pub fn find_recent(&mut self, page: Page) -> Option<&Vma> {
        if !self.recent_contains(page) {
            self.recent = self.tree.at_or_above(page);
            if !self.recent_contains(page) {
                return None;
            }
        }
        self.tree.get(self.recent)
    }

    /// The lowest area that ends above `page`: the one that contains it, or the next.
    pub fn at_or_above(&self, page: Page) -> Option<&Vma> {
        self.tree.get(self.tree.at_or_above(page))
    }

    /// The highest area that starts below `page`; it may contain it.
    pub fn below(&self, page: Page) -> Option<&Vma> {
        self.tree.get(self.tree.below(page))
    }

    /// All areas, upwards.
    pub fn iter(&self) -> impl Iterator<Item = &Vma> {
        self.tree.iter_from(Page(0))
    }

    /// The areas that have a page in `pages`, whole, upwards; see [`Vma::part`] to cut them.
    pub fn iter_range(&self, pages: Pages) -> impl Iterator<Item = &Vma> {
        // No area overlaps an empty range, also not the one that it lies in.
        let end = if pages.is_empty() { Page(0) } else { pages.end };
        self.tree.iter_from(pages.start).take_while(move |vma| vma.pages.start < end)
    }

    /// Whether each of `pages` is in an area; if not, the first that is in none.
    pub fn covered(&self, pages: Pages) -> Result<(), Page> {
        let mut next = pages.start;
        for vma in self.iter_range(pages) {
            if next < vma.pages.start {
                break;
            }
            next = vma.pages.end;
        }
        if next < pages.end { Err(next) } else { Ok(()) }
    }

    /// The highest place for `count` pages between `floor` and `below`, as `mmap` looks for it.
    ///
    /// Its first page is a multiple of `align` pages. Guard gaps are left free. `None` if nothing
    /// is asked for or no gap fits. O(log n), unless gaps are long enough but misaligned: each of
    /// those is tried, because to look for `align - 1` pages more would miss gaps that do fit.
    ///
    /// # Panics
    /// If `align` is not a power of two.
    pub fn find_gap_down(&self, count: u64, below: Page, floor: Page, align: u64) -> Option<Page> {
        self.tree.highest_gap(want(count, floor, below, align)?)
    }

    /// The lowest such place; otherwise as [`find_gap_down`](Self::find_gap_down).
    ///
    /// # Panics
    /// If `align` is not a power of two.
    pub fn find_gap_up(&self, count: u64, floor: Page, below: Page, align: u64) -> Option<Page> {
        self.tree.lowest_gap(want(count, floor, below, align)?)
    }

    /// Adds an area; where a neighbour is alike, the two become one.
    ///
    /// Guard gaps are not respected: whoever names an address (`MAP_FIXED`) gets it.
    ///
    /// # Panics
    /// If `vma` is not sound (see [`Vma::is_sound`]).
    pub fn insert(&mut self, vma: Vma) -> Result<(), MapError> {
        assert!(vma.is_sound(), "{vma:?} is empty or its file pages overflow");
        let (low, high) = (self.below(vma.pages.start), self.at_or_above(vma.pages.start));
        if let Some(high) = high.filter(|high| high.pages.overlaps(vma.pages)) {
            return Err(MapError::Occupied(high.pages.start.max(vma.pages.start)));
        }
        let merges = low.is_some_and(|low| low.can_merge_with(&vma))
            || high.is_some_and(|high| vma.can_merge_with(high));
        if self.room() == 0 && !merges || !self.tree.has_room(1) {
            return Err(MapError::TooMany);
        }
        self.tree.insert(vma);
        self.merge(vma.pages);
        Ok(())
    }

    /// Takes `pages` out of all areas and hands each piece taken to `removed`, upwards.
    ///
    /// Areas are cut where `pages` begins and ends. Pages in no area are passed over.
    pub fn remove(&mut self, pages: Pages, mut removed: impl FnMut(Vma)) -> Result<(), TooMany> {
        if pages.is_empty() {
            return Ok(());
        }
        // Only a hole in the middle of an area leaves one more than before.
        let divided = self
            .at_or_above(pages.start)
            .is_some_and(|vma| vma.pages.start < pages.start && pages.end < vma.pages.end);
        if divided && self.room() == 0 || !self.can_cut(pages) {
            return Err(TooMany);
        }
        self.cut(pages);
        while let Some(start) = self.start_within(pages) {
            removed(self.tree.remove(start));
        }
        Ok(())
    }

    /// Lets `change` alter each part of an area that lies in `pages`, upwards.
    ///
    /// Areas are cut where `pages` begins and ends, and merged again where they are alike then.
    /// Pages in no area are passed over; whoever minds asks [`covered`](Self::covered) first, and
    /// then changes the pages below the hole (`mprotect`) or all (`madvise`). A refused `change`
    /// may have been called, but what it did is undone.
    ///
    /// # Panics
    /// If `change` alters `pages` of an area.
    pub fn change(
        &mut self,
        pages: Pages,
        mut change: impl FnMut(&mut Vma),
    ) -> Result<(), TooMany> {
        if pages.is_empty() {
            return Ok(());
        }
        // Two cuts add two areas, but merging may take them away: near the limit it must be tried.
        let before = if self.room() < 2 { Some(self.copy_range(pages)?) } else { None };
        if !self.can_cut(pages) {
            return Err(TooMany);
        }
        self.cut(pages);
        let mut rest = pages;
        while let Some(start) = self.start_within(rest) {
            self.tree.edit(start, |vma| {
                let pages = vma.pages;
                change(vma);
                assert_eq!(vma.pages, pages, "a change of attributes moved the area");
                rest.start = pages.end;
            });
        }
        self.merge(pages);
        if let Some(before) = before
            && self.len() > self.len_max
        {
            self.restore(&before);
            return Err(TooMany);
        }
        Ok(())
    }

    /// The areas of a range, whole.
    fn copy_range(&self, pages: Pages) -> Result<Vec<Vma>, TooMany> {
        let mut copies = Vec::new();
        copies.try_reserve_exact(self.iter_range(pages).count()).map_err(|_| TooMany)?;
        copies.extend(self.iter_range(pages).copied());
        Ok(copies)
    }

    /// Makes sure that areas can be cut where `pages` begins and ends; whether there is memory for that.
    fn can_cut(&mut self, pages: Pages) -> bool {
        let is_cut = |page| self.find(page).is_some_and(|vma| vma.pages.start < page);
        let cuts = usize::from(is_cut(pages.start)) + usize::from(is_cut(pages.end));
        self.tree.has_room(cuts)
    }

    /// The pages that the area above `page` must gain to include it, if it may grow down to it;
    /// none if `page` is in an area already.
    ///
    /// Only anonymous areas with [`VmaFlags::GROWS_DOWN`] grow. As on Linux, the guard gap to the
    /// area below must stay free unless that one permits no access or grows down as well.
    pub fn growth(&self, page: Page, limits: StackLimits) -> Result<Pages, GrowError> {
        let vma = self.at_or_above(page).ok_or(GrowError::NoArea)?;
        if vma.pages.contains(page) {
            return Ok(Pages::at(page, 0));
        }
        if !vma.flags.contains(VmaFlags::GROWS_DOWN) || vma.backing != Backing::Anonymous {
            return Err(GrowError::NoArea);
        }
        if page < limits.floor {
            return Err(GrowError::TooLow);
        }
        if vma.pages.end.0 - page.0 > limits.pages_max {
            return Err(GrowError::TooLong);
        }
        if let Some(low) = self.below(page) {
            let guards = low.rights.is_empty() || low.flags.contains(VmaFlags::GROWS_DOWN);
            if !guards && page.0 - low.pages.end.0 < self.tree.guard_pages() {
                return Err(GrowError::Blocked(Page(low.pages.end.0 - 1)));
            }
        }
        Ok(Pages::new(page, vma.pages.start))
    }

    /// Grows the stack above `page` down to it and returns the pages gained; refuses as
    /// [`growth`](Self::growth) does. Never allocates.
    pub fn grow_down(&mut self, page: Page, limits: StackLimits) -> Result<Pages, GrowError> {
        let gained = self.growth(page, limits)?;
        if !gained.is_empty() {
            self.tree.edit(gained.end, |vma| vma.pages.start = page);
            self.merge(gained);
        }
        Ok(gained)
    }

    /// Moves the end of the area that contains `page` up to `end`, into free pages, and returns the
    /// pages gained. Never allocates.
    ///
    /// For `brk` and `mremap`. Guard gaps are respected. None are gained if the area reaches `end`
    /// already; to shorten it, [`remove`](Self::remove) its last pages.
    pub fn grow_up(&mut self, page: Page, end: Page) -> Result<Pages, GrowError> {
        let vma = *self.find(page).ok_or(GrowError::NoArea)?;
        let start = vma.pages.end;
        if end <= start {
            return Ok(Pages::at(start, 0));
        }
        let grown = Vma { pages: Pages::new(vma.pages.start, end), ..vma };
        if !grown.is_sound() {
            return Err(GrowError::TooLong);
        }
        if let Some(high) = self.at_or_above(start) {
            let fence = self.tree.fence(high).max(start);
            if fence < end {
                return Err(GrowError::Blocked(fence));
            }
        }
        let gained = Pages::new(start, end);
        self.tree.edit(page, |vma| *vma = grown);
        self.merge(gained);
        Ok(gained)
    }

    /// Checks order, mergers, number and the record of gaps. O(n), for tests.
    ///
    /// # Panics
    /// If one of them is wrong.
    pub fn check_invariants(&self) {
        self.tree.check_invariants();
        assert!(self.len() <= self.len_max, "{} of {} areas", self.len(), self.len_max);
        for (low, high) in self.iter().zip(self.iter().skip(1)) {
            assert!(!low.can_merge_with(high), "{low:?} and {high:?} are one area");
        }
    }

    fn recent_contains(&self, page: Page) -> bool {
        self.tree.get(self.recent).is_some_and(|vma| vma.pages.contains(page))
    }

    /// Where the lowest area that starts in `pages` does.
    fn start_within(&self, pages: Pages) -> Option<Page> {
        let start = self.at_or_above(pages.start)?.pages.start;
        pages.contains(start).then_some(start)
    }

    /// Divides the areas in which `pages` begins and ends, so that no area is partly in it.
    fn cut(&mut self, pages: Pages) {
        for at in [pages.start, pages.end] {
            if let Some(&vma) = self.find(at)
                && vma.pages.start < at
            {
                let (low, high) = vma.split_at(at);
                self.tree.edit(low.pages.start, |vma| *vma = low);
                self.tree.insert(high);
            }
        }
    }

    /// Makes alike neighbours one area: those in `pages` and the ones that touch it.
    fn merge(&mut self, pages: Pages) {
        let first = self.below(pages.start).or_else(|| self.at_or_above(pages.start));
        let Some(mut low) = first.copied() else { return };
        // Each turn takes one area out or moves up by one, at most to the first beyond `pages`.
        while let Some(&high) = self.at_or_above(low.pages.end)
            && high.pages.start <= pages.end
        {
            if low.can_merge_with(&high) {
                self.tree.remove(high.pages.start);
                low.pages.end = high.pages.end;
                self.tree.edit(low.pages.start, |vma| vma.pages.end = high.pages.end);
            } else {
                low = high;
            }
        }
    }

    /// Puts back the areas `before` in place of their parts.
    ///
    /// None of the parts has become one with an area beyond: a part that touches one was not cut
    /// there, so with that merger the change would have been within the limit.
    fn restore(&mut self, before: &[Vma]) {
        for vma in before {
            while let Some(start) = self.start_within(vma.pages) {
                self.tree.remove(start);
            }
        }
        for &vma in before {
            self.tree.insert(vma);
        }
    }
}

/// What a search for a gap looks for; `None` if it cannot find anything.
fn want(count: u64, floor: Page, below: Page, align: u64) -> Option<Want> {
    assert!(align.is_power_of_two(), "an alignment of {align} pages is no power of two");
    let within = Pages { start: floor, end: below };
    (count > 0 && floor < below).then_some(Want { count, within, align })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::FileRef;
    use crate::spaces::vma::{Rights, Sharing};

    const RW: Rights = Rights::READ.union(Rights::WRITE);
    const STACK: StackLimits = StackLimits { pages_max: 64, floor: Page(16) };

    fn pages(start: u64, end: u64) -> Pages {
        Pages::new(Page(start), Page(end))
    }

    fn areas_of(list: &[Vma]) -> Areas {
        let mut areas = Areas::new(8, AREAS_MAX);
        for &vma in list {
            areas.insert(vma).expect("the areas are disjoint");
        }
        areas
    }

    fn rw(start: u64, end: u64) -> Vma {
        Vma::anonymous(pages(start, end), RW)
    }

    fn stack(start: u64, end: u64) -> Vma {
        rw(start, end).with_flags(VmaFlags::GROWS_DOWN)
    }

    fn ranges(areas: &Areas) -> Vec<(u64, u64)> {
        areas.check_invariants();
        areas.iter().map(|vma| (vma.pages.start.0, vma.pages.end.0)).collect()
    }

    #[test]
    fn memory_mapped_page_by_page_is_one_area() {
        let file = |start, end, offset| {
            Vma::file(pages(start, end), Rights::READ, FileRef(1), offset, Sharing::Shared)
        };
        let areas = areas_of(&[rw(12, 13), rw(10, 11), rw(11, 12)]);
        assert_eq!(ranges(&areas), [(10, 13)]);
        let areas = areas_of(&[file(12, 13, 7), file(10, 11, 5), file(11, 12, 6)]);
        assert_eq!(ranges(&areas), [(10, 13)]);
        assert_eq!(areas.find(Page(12)).and_then(|vma| vma.file_page(Page(12))).unwrap().1, 7);
        let areas = areas_of(&[file(12, 13, 7), file(10, 11, 5), file(11, 12, 0)]);
        assert_eq!(ranges(&areas), [(10, 11), (11, 12), (12, 13)], "the file does not continue");
    }

    #[test]
    fn a_mapping_on_top_of_another_is_refused_with_the_first_page_in_common() {
        let mut areas = areas_of(&[rw(10, 20)]);
        assert_eq!(areas.insert(rw(5, 12)), Err(MapError::Occupied(Page(10))));
        assert_eq!(areas.insert(rw(15, 16)), Err(MapError::Occupied(Page(15))));
        assert_eq!(ranges(&areas), [(10, 20)]);
    }

    #[test]
    fn rights_changed_in_the_middle_make_three_areas_and_changed_back_one() {
        let mut areas = areas_of(&[rw(10, 20)]);
        areas.change(pages(13, 15), |vma| vma.rights = Rights::READ).unwrap();
        assert_eq!(ranges(&areas), [(10, 13), (13, 15), (15, 20)]);
        areas.change(pages(13, 15), |vma| vma.rights = RW).unwrap();
        assert_eq!(ranges(&areas), [(10, 20)]);
    }

    #[test]
    #[should_panic(expected = "a change of attributes moved the area")]
    fn a_change_of_attributes_cannot_move_an_area() {
        let mut areas = areas_of(&[rw(10, 20)]);
        let _ = areas.change(pages(10, 20), |vma| vma.pages.end = Page(30));
    }

    #[test]
    fn a_change_passes_over_holes_and_covered_tells_of_the_first() {
        let mut areas = areas_of(&[rw(10, 12), rw(14, 16)]);
        assert_eq!(areas.covered(pages(10, 12)), Ok(()));
        assert_eq!(areas.covered(pages(11, 16)), Err(Page(12)));
        assert_eq!(areas.covered(pages(9, 11)), Err(Page(9)));
        assert_eq!(areas.covered(pages(14, 17)), Err(Page(16)));
        assert_eq!(areas.covered(pages(5, 5)), Ok(()));
        areas.change(pages(11, 15), |vma| vma.rights = Rights::READ).unwrap();
        assert_eq!(ranges(&areas), [(10, 11), (11, 12), (14, 15), (15, 16)]);
    }

    #[test]
    fn the_limit_counts_areas_after_merging() {
        let mut areas = Areas::new(0, 2);
        areas.insert(rw(10, 13)).unwrap();
        let read = |vma: &mut Vma| vma.rights = Rights::READ;
        assert_eq!(areas.change(pages(11, 12), read), Err(TooMany), "three areas");
        assert_eq!(ranges(&areas), [(10, 13)], "undone");
        areas.change(pages(12, 13), read).unwrap();
        assert_eq!(areas.remove(pages(10, 11), drop), Ok(()));
        assert_eq!(areas.insert(rw(20, 21)), Err(MapError::TooMany));
        areas.insert(rw(10, 11)).expect("it merges");
        assert_eq!(areas.remove(pages(11, 12), drop), Ok(()));
        assert_eq!(ranges(&areas), [(10, 11), (12, 13)]);
        areas.remove(pages(12, 13), drop).unwrap();
        areas.insert(rw(11, 14)).unwrap();
        areas.insert(rw(16, 17)).unwrap();
        // A cut whose upper part joins the area above it adds none, so it is within the limit.
        assert_eq!(areas.remove(pages(11, 12), drop), Err(TooMany));
        assert_eq!(ranges(&areas), [(10, 14), (16, 17)]);
    }

    #[test]
    fn new_mappings_go_below_those_before() {
        let mut areas = Areas::new(8, AREAS_MAX);
        for (count, expected) in [(10, 90), (20, 70), (5, 65)] {
            let start = areas.find_gap_down(count, Page(100), Page(16), 1).expect("there is room");
            assert_eq!(start, Page(expected));
            areas.insert(Vma::anonymous(Pages::at(start, count), RW)).unwrap();
        }
        areas.remove(pages(72, 80), drop).unwrap();
        assert_eq!(
            areas.find_gap_down(8, Page(100), Page(16), 1),
            Some(Page(72)),
            "first the hole"
        );
        assert_eq!(areas.find_gap_down(9, Page(100), Page(16), 1), Some(Page(56)));
        assert_eq!(areas.find_gap_down(4, Page(100), Page(16), 8), Some(Page(72)), "aligned");
        assert_eq!(areas.find_gap_down(50, Page(100), Page(16), 1), None);
        assert_eq!(areas.find_gap_up(8, Page(16), Page(100), 32), Some(Page(32)));
        assert_eq!(areas.find_gap_up(8, Page(60), Page(100), 1), Some(Page(72)));
        assert_eq!(areas.find_gap_up(0, Page(60), Page(100), 1), None, "nothing is asked for");
        assert_eq!(areas.find_gap_up(u64::MAX, Page(60), Page(100), 1), None);
    }

    #[test]
    fn a_stack_grows_to_its_limit() {
        let mut areas = areas_of(&[stack(190, 200)]);
        assert_eq!(areas.grow_down(Page(185), STACK), Ok(pages(185, 190)));
        assert_eq!(areas.grow_down(Page(185), STACK), Ok(pages(185, 185)), "it is there already");
        assert_eq!(areas.grow_down(Page(135), STACK), Err(GrowError::TooLong));
        assert_eq!(areas.grow_down(Page(136), STACK), Ok(pages(136, 185)));
        assert_eq!(areas.grow_down(Page(200), STACK), Err(GrowError::NoArea));
        assert_eq!(ranges(&areas), [(136, 200)]);
        let boundless = StackLimits { pages_max: u64::MAX, ..STACK };
        assert_eq!(areas.grow_down(Page(15), boundless), Err(GrowError::TooLow));
        assert_eq!(areas.grow_down(Page(16), boundless), Ok(pages(16, 136)));
    }

    #[test]
    fn a_stack_and_what_is_below_it_keep_their_distance() {
        let mut areas = areas_of(&[rw(170, 172), stack(190, 200)]);
        assert_eq!(areas.grow_down(Page(180), STACK), Ok(pages(180, 190)));
        assert_eq!(areas.grow_down(Page(179), STACK), Err(GrowError::Blocked(Page(171))));
        assert_eq!(areas.find_gap_down(1, Page(200), Page(16), 1), Some(Page(169)));
        // Memory without rights is a guard itself.
        areas.change(pages(170, 172), |vma| vma.rights = Rights::empty()).unwrap();
        assert_eq!(areas.grow_down(Page(172), STACK), Ok(pages(172, 180)));
        // What is not a stack does not grow.
        let mut areas = areas_of(&[rw(190, 200)]);
        assert_eq!(areas.grow_down(Page(189), STACK), Err(GrowError::NoArea));
    }

    #[test]
    fn a_gap_beneath_an_area_in_the_guard_gap_can_be_used() {
        // 8 pages below 50 are guarded, but the area mapped by address at 45 ends the stack's
        // reach.
        let areas = areas_of(&[rw(40, 41), rw(45, 46), stack(50, 60)]);
        assert_eq!(areas.find_gap_down(4, Page(60), Page(30), 1), Some(Page(41)));
    }

    #[test]
    fn a_heap_grows_up_to_what_is_next() {
        let mut areas = areas_of(&[rw(10, 12), stack(50, 60)]);
        assert_eq!(areas.grow_up(Page(11), Page(20)), Ok(pages(12, 20)));
        assert_eq!(areas.grow_up(Page(10), Page(43)), Err(GrowError::Blocked(Page(42))));
        assert_eq!(areas.grow_up(Page(10), Page(15)), Ok(pages(20, 20)), "it is longer already");
        assert_eq!(areas.grow_up(Page(9), Page(10)), Err(GrowError::NoArea));
        assert_eq!(areas.grow_up(Page(10), Page(42)), Ok(pages(20, 42)));
        assert_eq!(ranges(&areas), [(10, 42), (50, 60)]);
        // The last pages that a file can have.
        let rest = Vma::file(pages(70, 72), RW, FileRef(1), u64::MAX - 3, Sharing::Shared);
        let mut areas = areas_of(&[rest]);
        assert_eq!(areas.grow_up(Page(70), Page(74)), Err(GrowError::TooLong));
        assert_eq!(areas.grow_up(Page(70), Page(73)), Ok(pages(72, 73)));
    }

    #[test]
    fn the_area_found_last_is_not_trusted_blindly() {
        let mut areas = areas_of(&[rw(10, 12), stack(20, 22)]);
        assert_eq!(areas.find_recent(Page(10)).unwrap().pages, pages(10, 12));
        areas.remove(pages(10, 11), drop).unwrap();
        assert_eq!(areas.find_recent(Page(10)), None);
        assert_eq!(areas.find_recent(Page(11)).unwrap().pages, pages(11, 12));
        areas.remove(pages(11, 12), drop).unwrap();
        areas.insert(rw(30, 31)).unwrap(); // reuses the node
        assert_eq!(areas.find_recent(Page(11)), None);
        assert_eq!(areas.find_recent(Page(30)).unwrap().pages, pages(30, 31));
    }
}
