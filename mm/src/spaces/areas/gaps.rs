//! Finds the highest or lowest gap of a tree of areas in which so many pages fit.
//!
//! ```text
//!     space      ├───────────────────────────────────────────────────┤
//!                      ┌─── subtree ───┐       ┌─── subtree ───┐
//!                 gap  │   A  gap  B   │ gap C │   D  gap  E   │ gap
//!                      └───────────────┘       └───────────────┘
//! ```
//!
//! The search descends with the *space* that the areas around a subtree leave to it. A subtree that
//! has no gap long enough, at its ends or within, is passed over without a look inside.
//!
//! A guard gap bounds only the gap right below the area that keeps it, as on Linux: further down,
//! something else was mapped into it by address, and the stack cannot reach beyond that.

use crate::addr::{Page, Pages};
use crate::spaces::areas::tree::{NONE, Node, Tree, gap};

/// Which gaps a search may use, and for how much.
#[derive(Clone, Copy)]
pub(super) struct Want {
    /// The gap found must hold so many pages.
    pub(super) count: u64,
    /// They must lie within these.
    pub(super) within: Pages,
    /// Their first must be a multiple of this power of two.
    pub(super) align: u64,
}

impl Tree {
    /// The first page of the highest place that satisfies `want`.
    pub(super) fn highest_gap(&self, want: Want) -> Option<Page> {
        self.gap_down(self.root, Pages { start: Page(0), end: Page(u64::MAX) }, want)
    }

    /// The first page of the lowest place that satisfies `want`.
    pub(super) fn lowest_gap(&self, want: Want) -> Option<Page> {
        self.gap_up(self.root, Pages { start: Page(0), end: Page(u64::MAX) }, want)
    }

    /// The highest place below a node's subtree; `space` is what the areas around it leave.
    ///
    /// Every subtree entered holds a gap long enough or lies at a border of `want.within`. So the
    /// search ends after O(log n) nodes, unless gaps are long enough but misaligned: each of those
    /// is tried.
    fn gap_down(&self, node: u32, space: Pages, want: Want) -> Option<Page> {
        if !self.may_hold(node, space, want) {
            return None;
        }
        if node == NONE {
            let space = space.intersect(want.within);
            let start = space.end.0.checked_sub(want.count)? & !(want.align - 1);
            return (start >= space.start.0).then_some(Page(start));
        }
        let (below, above) = self.halves(node, space);
        let Node { left, right, .. } = self.node(node);
        self.gap_down(*right, above, want).or_else(|| self.gap_down(*left, below, want))
    }

    /// As [`gap_down`](Self::gap_down), for the lowest place.
    fn gap_up(&self, node: u32, space: Pages, want: Want) -> Option<Page> {
        if !self.may_hold(node, space, want) {
            return None;
        }
        if node == NONE {
            let space = space.intersect(want.within);
            let start = space.start.0.checked_next_multiple_of(want.align)?;
            let end = start.checked_add(want.count)?;
            return (end <= space.end.0).then_some(Page(start));
        }
        let (below, above) = self.halves(node, space);
        let Node { left, right, .. } = self.node(node);
        self.gap_up(*left, below, want).or_else(|| self.gap_up(*right, above, want))
    }

    /// Whether a gap of `space`, among the areas of a subtree in it, can be long enough.
    fn may_hold(&self, node: u32, space: Pages, want: Want) -> bool {
        let (mut longest, mut end) = (gap(space.start, space.end), space.end);
        if node != NONE {
            let summary = self.node(node).summary;
            let ends = gap(space.start, summary.fence).max(gap(summary.end, space.end));
            longest = summary.gap.max(ends);
            // A long guard gap above may reach below some of these areas. It bounds only the gap
            // next to it, so they have to be looked at nevertheless.
            end = end.max(summary.end);
        }
        let meets = space.start < want.within.end && want.within.start < end;
        meets && want.count <= longest
    }

    /// What a node leaves of `space` below and above itself; an end may be below its start.
    fn halves(&self, node: u32, space: Pages) -> (Pages, Pages) {
        let vma = &self.node(node).vma;
        let below = Pages { start: space.start, end: self.fence(vma) };
        let above = Pages { start: vma.pages.end, end: space.end };
        (below, above)
    }
}
