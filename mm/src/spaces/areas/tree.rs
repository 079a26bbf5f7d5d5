//! The areas of a space in order, with the longest gap under every node.
//!
//! A balanced tree (AVL: Adel'son-Vel'skii and Landis, 1962) whose nodes lie in one array and
//! point to each other by index. Each node summarises its subtree: where it begins, where it ends,
//! and the longest gap between two neighbours within.
//!
//! ```text
//!                    ┌───────────┐
//!                    │  node C   │   gap = the longest of: within the left subtree,
//!                    └─┬───────┬─┘         left.end to C, C to right.fence,
//!              ┌───────┘       └───┐       within the right subtree
//!         ┌────┴────┐        ┌─────┴───┐
//!         │ A ··· B │ ······ │ D ····E │
//!         └─────────┘        └─────────┘
//!        fence     end      fence     end
//! ```
//!
//! A summary is made of the node and its children's summaries alone, so an insertion or removal
//! mends those on one path. The gaps at both ends of a subtree are its parent's to judge: only the
//! parent knows what lies beyond.
//!
//! The *fence* of an area is where free use below it ends: its first page, or a guard gap lower if
//! it may grow down.
//!
//! Costs: every search is O(log n) and allocates nothing. A tree of 65530 areas is at most 22
//! levels high. 80 bytes a node; nodes are reused, and a clone copies one array.
//!
//! Invariant: the array is never rearranged, so an index names the same area until it is removed.
//! Removed nodes hold no pages until they are reused, so whoever kept an index only has to check
//! that the area it finds contains the page in question.

use alloc::vec::Vec;
use core::cmp::Ordering;

use crate::addr::{Page, Pages};
use crate::spaces::vma::{Vma, VmaFlags};

/// No node. Node indices are below it because the number of areas is.
pub(super) const NONE: u32 = u32::MAX;

/// More than the height of any AVL tree of less than 2^32 nodes: 1.44 × 32.
pub(super) const HEIGHT_MAX: usize = 48;

/// An ordered set of disjoint areas.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    pub(super) root: u32,
    vacant: u32, // the first removed node; they are chained by `right`
    len: usize,
    pages: u64,
    guard_pages: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) vma: Vma,
    pub(super) left: u32,
    pub(super) right: u32,
    height: u32, // 1 for a leaf
    pub(super) summary: Summary,
}

/// What a subtree tells its parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Summary {
    pub(super) fence: Page, // of its lowest area
    pub(super) end: Page,   // of its highest area
    pub(super) gap: u64,    // the longest between two neighbours, in pages
}

impl Tree {
    /// An empty set; areas that grow down keep `guard_pages` free.
    pub(super) const fn new(guard_pages: u64) -> Tree {
        Tree { nodes: Vec::new(), root: NONE, vacant: NONE, len: 0, pages: 0, guard_pages }
    }

    /// Makes sure that `more` areas can be inserted without memory; whether there was enough for that.
    pub(super) fn has_room(&mut self, more: usize) -> bool {
        let vacant = self.nodes.len() - self.len;
        self.nodes.try_reserve(more.saturating_sub(vacant)).is_ok()
    }

    /// Bytes of heap that a clone takes.
    pub(super) const fn clone_bytes(&self) -> usize {
        self.nodes.len() * size_of::<Node>()
    }

    /// Number of areas.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Number of pages in all areas.
    pub(super) const fn pages(&self) -> u64 {
        self.pages
    }

    /// The guard gap in pages.
    pub(super) const fn guard_pages(&self) -> u64 {
        self.guard_pages
    }

    /// Where free use below `vma` ends.
    pub(super) const fn fence(&self, vma: &Vma) -> Page {
        let start = vma.pages.start;
        if vma.flags.contains(VmaFlags::GROWS_DOWN) {
            Page(start.0.saturating_sub(self.guard_pages))
        } else {
            start
        }
    }

    /// The area of a node; `None` for `NONE`.
    pub(super) fn get(&self, node: u32) -> Option<&Vma> {
        self.nodes.get(node as usize).map(|node| &node.vma)
    }

    /// The node of the lowest area that ends above `page`: the one that contains it, or the next.
    pub(super) fn at_or_above(&self, page: Page) -> u32 {
        let (mut node, mut found) = (self.root, NONE);
        while node != NONE {
            let Node { vma, left, right, .. } = self.node(node);
            if page < vma.pages.end {
                found = node;
                if vma.pages.start <= page {
                    break;
                }
                node = *left;
            } else {
                node = *right;
            }
        }
        found
    }

    /// The node of the highest area that starts below `page`.
    pub(super) fn below(&self, page: Page) -> u32 {
        let (mut node, mut found) = (self.root, NONE);
        while node != NONE {
            let Node { vma, left, right, .. } = self.node(node);
            if vma.pages.start < page {
                found = node;
                node = *right;
            } else {
                node = *left;
            }
        }
        found
    }

    /// Adds an area.
    ///
    /// # Panics
    /// If there are 2^32 - 1 areas. That it overlaps none is the caller's to check.
    pub(super) fn insert(&mut self, vma: Vma) {
        let summary = Summary { fence: Page(0), end: Page(0), gap: 0 };
        let node = Node { vma, left: NONE, right: NONE, height: 1, summary };
        let index = if self.vacant == NONE {
            assert!(self.nodes.len() < NONE as usize, "too many areas for their index");
            self.nodes.push(node);
            self.nodes.len() as u32 - 1
        } else {
            let index = self.vacant;
            self.vacant = self.node(index).right;
            *self.node_mut(index) = node;
            index
        };
        self.summarise(index);
        self.root = self.link(self.root, index);
        self.len += 1;
        self.pages += vma.pages.count();
    }

    /// Takes out and returns the area that starts at `start`.
    ///
    /// # Panics
    /// If none does.
    pub(super) fn remove(&mut self, start: Page) -> Vma {
        let (root, index) = self.unlink(self.root, start);
        self.root = root;
        let vacant = self.vacant;
        let node = self.node_mut(index);
        let vma = node.vma;
        node.vma.pages = Pages::at(Page(0), 0);
        node.right = vacant;
        self.vacant = index;
        self.len -= 1;
        self.pages -= vma.pages.count();
        vma
    }

    /// Lets `change` alter the area that contains `page`, its borders included, and mends the
    /// summaries above it.
    ///
    /// # Panics
    /// If no area contains it. That the area meets no other is the caller's to check.
    pub(super) fn edit(&mut self, page: Page, change: impl FnOnce(&mut Vma)) {
        // The way down is remembered instead of recursing: `change` may be called only once.
        let (mut path, mut depth, mut node) = ([NONE; HEIGHT_MAX], 0, self.root);
        loop {
            assert!(node != NONE, "no area contains {page}");
            path[depth] = node;
            depth += 1;
            let Node { vma, left, right, .. } = self.node(node);
            if vma.pages.contains(page) {
                break;
            }
            node = if page < vma.pages.start { *left } else { *right };
        }
        let vma = &mut self.node_mut(node).vma;
        let count = vma.pages.count();
        change(vma);
        self.pages = self.pages - count + self.node(node).vma.pages.count();
        for &above in path[..depth].iter().rev() {
            self.summarise(above);
        }
    }

    /// Checks order, balance, summaries and counts.
    ///
    /// # Panics
    /// If one of them is wrong.
    pub(super) fn check_invariants(&self) {
        let (mut len, mut pages) = (0, 0);
        let mut beyond = Page(0);
        for vma in self.iter_from(Page(0)) {
            assert!(vma.is_sound(), "{vma:?} is not sound");
            assert!(beyond <= vma.pages.start, "{vma:?} begins below {beyond}");
            beyond = vma.pages.end;
            len += 1;
            pages += vma.pages.count();
        }
        assert_eq!((self.len, self.pages), (len, pages), "counts of areas and pages");
        let linked = self.check_subtree(self.root);
        assert_eq!(linked, len, "nodes that an ordered walk reaches");
        let (mut vacant, mut node) = (0, self.vacant);
        while node != NONE {
            assert!(self.node(node).vma.pages.is_empty(), "the vacant node {node} has pages");
            vacant += 1;
            node = self.node(node).right;
        }
        assert_eq!(self.nodes.len(), len + vacant, "every node is linked or vacant");
    }

    /// Puts `new` into the subtree of `root`; returns the subtree's new root.
    fn link(&mut self, root: u32, new: u32) -> u32 {
        if root == NONE {
            return new;
        }
        let Node { vma, left, right, .. } = *self.node(root);
        if self.node(new).vma.pages.start < vma.pages.start {
            self.node_mut(root).left = self.link(left, new);
        } else {
            self.node_mut(root).right = self.link(right, new);
        }
        self.balance(root)
    }

    /// Takes the node that starts at `start` out of the subtree of `root`; returns the subtree's
    /// new root, and the node.
    fn unlink(&mut self, root: u32, start: Page) -> (u32, u32) {
        assert!(root != NONE, "no area starts at {start}");
        let Node { vma, left, right, .. } = *self.node(root);
        match start.cmp(&vma.pages.start) {
            Ordering::Less => {
                let (left, found) = self.unlink(left, start);
                self.node_mut(root).left = left;
                (self.balance(root), found)
            }
            Ordering::Greater => {
                let (right, found) = self.unlink(right, start);
                self.node_mut(root).right = right;
                (self.balance(root), found)
            }
            Ordering::Equal if left == NONE => (right, root),
            Ordering::Equal if right == NONE => (left, root),
            Ordering::Equal => {
                // The next area takes its place: relinked, not copied, so that indices hold.
                let (right, next) = self.unlink_first(right);
                let node = self.node_mut(next);
                (node.left, node.right) = (left, right);
                (self.balance(next), root)
            }
        }
    }

    /// Takes the lowest node out of a subtree; returns the subtree's new root, and the node.
    fn unlink_first(&mut self, root: u32) -> (u32, u32) {
        let Node { left, right, .. } = *self.node(root);
        if left == NONE {
            return (right, root);
        }
        let (left, first) = self.unlink_first(left);
        self.node_mut(root).left = left;
        (self.balance(root), first)
    }

    /// Restores balance at `root`, whose subtrees are balanced and differ in height by at most 2,
    /// and summarises it; returns the node that is the root then.
    fn balance(&mut self, root: u32) -> u32 {
        let Node { left, right, .. } = *self.node(root);
        let (low, high) = (self.height(left), self.height(right));
        if low > high + 1 {
            let Node { left: outer, right: inner, .. } = *self.node(left);
            if self.height(inner) > self.height(outer) {
                self.node_mut(root).left = self.rotate_left(left);
            }
            self.rotate_right(root)
        } else if high > low + 1 {
            let Node { left: inner, right: outer, .. } = *self.node(right);
            if self.height(inner) > self.height(outer) {
                self.node_mut(root).right = self.rotate_right(right);
            }
            self.rotate_left(root)
        } else {
            self.summarise(root);
            root
        }
    }

    /// Lifts the right child of `root` above it.
    fn rotate_left(&mut self, root: u32) -> u32 {
        let lifted = self.node(root).right;
        self.node_mut(root).right = self.node(lifted).left;
        self.node_mut(lifted).left = root;
        self.summarise(root);
        self.summarise(lifted);
        lifted
    }

    /// Lifts the left child of `root` above it.
    fn rotate_right(&mut self, root: u32) -> u32 {
        let lifted = self.node(root).left;
        self.node_mut(root).left = self.node(lifted).right;
        self.node_mut(lifted).right = root;
        self.summarise(root);
        self.summarise(lifted);
        lifted
    }

    fn summarise(&mut self, index: u32) {
        let Node { left, right, .. } = *self.node(index);
        let height = self.height(left).max(self.height(right)) + 1;
        let summary = self.summary(index);
        let node = self.node_mut(index);
        (node.height, node.summary) = (height, summary);
    }

    /// The summary of a node, from its area and its children's summaries.
    fn summary(&self, index: u32) -> Summary {
        let Node { vma, left, right, .. } = self.node(index);
        let mut summary = Summary { fence: self.fence(vma), end: vma.pages.end, gap: 0 };
        if let Some(Node { summary: low, .. }) = self.nodes.get(*left as usize) {
            summary.gap = low.gap.max(gap(low.end, summary.fence));
            summary.fence = low.fence;
        }
        if let Some(Node { summary: high, .. }) = self.nodes.get(*right as usize) {
            summary.gap = summary.gap.max(high.gap).max(gap(summary.end, high.fence));
            summary.end = high.end;
        }
        summary
    }

    /// Checks balance and summaries of a subtree; returns the number of its nodes.
    fn check_subtree(&self, root: u32) -> usize {
        if root == NONE {
            return 0;
        }
        let Node { left, right, height, summary, .. } = *self.node(root);
        let len = self.check_subtree(left) + self.check_subtree(right) + 1;
        let (low, high) = (self.height(left), self.height(right));
        assert!(low.abs_diff(high) <= 1, "heights {low} and {high} under node {root}");
        assert_eq!(height, low.max(high) + 1, "height of node {root}");
        assert_eq!(summary, self.summary(root), "summary of node {root}");
        len
    }

    fn height(&self, node: u32) -> u32 {
        self.nodes.get(node as usize).map_or(0, |node| node.height)
    }

    pub(super) fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    fn node_mut(&mut self, index: u32) -> &mut Node {
        &mut self.nodes[index as usize]
    }
}

/// The pages from `low` up to `high`; none if a guard gap reaches below `low`.
pub(super) const fn gap(low: Page, high: Page) -> u64 {
    high.0.saturating_sub(low.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spaces::vma::Rights;

    #[test]
    fn the_most_areas_allowed_are_22_levels_high_however_they_come() {
        // Upwards, downwards, and from both ends to the middle: orders that a tree without
        // balancing turns into a list.
        let len = 65530;
        let orders: [fn(u64) -> u64; 3] =
            [|n| n, |n| 70000 - n, |n| if n % 2 == 0 { n } else { 140_000 - n }];
        for order in orders {
            let mut tree = Tree::new(0);
            for page in (0..len).map(order) {
                tree.insert(Vma::anonymous(Pages::at(Page(2 * page), 1), Rights::READ));
            }
            tree.check_invariants();
            assert!((16..=22).contains(&tree.height(tree.root)), "{}", tree.height(tree.root));
            // What is taken out leaves a tree as low.
            for page in (0..len).filter(|n| n % 64 != 0).map(order) {
                tree.remove(Page(2 * page));
            }
            tree.check_invariants();
            assert!(tree.height(tree.root) <= 14, "{}", tree.height(tree.root));
        }
    }

    #[test]
    fn a_node_is_as_small_as_documented() {
        assert_eq!(size_of::<Vma>(), 40);
        assert_eq!(size_of::<Node>(), 80);
    }
}
