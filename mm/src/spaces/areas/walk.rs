//! Walks a tree of areas in order.

use crate::addr::Page;
use crate::spaces::areas::tree::{HEIGHT_MAX, NONE, Node, Tree};
use crate::spaces::vma::Vma;

impl Tree {
    /// The areas upwards from the one that contains `page`, or the next above it.
    pub(super) fn iter_from(&self, page: Page) -> Iter<'_> {
        let mut iter = Iter { tree: self, path: [NONE; HEIGHT_MAX], depth: 0 };
        let mut node = self.root;
        while node != NONE {
            let Node { vma, left, right, .. } = self.node(node);
            if page < vma.pages.end {
                iter.push(node);
                node = *left;
            } else {
                node = *right;
            }
        }
        iter
    }
}

/// An ordered walk; see [`Tree::iter_from`]. A step is O(1) on average.
#[derive(Clone, Debug)]
pub(super) struct Iter<'a> {
    tree: &'a Tree,
    path: [u32; HEIGHT_MAX], // nodes not yet visited whose left subtrees are; the next is last
    depth: usize,
}

impl Iter<'_> {
    fn push(&mut self, node: u32) {
        self.path[self.depth] = node;
        self.depth += 1;
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Vma;

    fn next(&mut self) -> Option<&'a Vma> {
        self.depth = self.depth.checked_sub(1)?;
        let Node { vma, right, .. } = self.tree.node(self.path[self.depth]);
        let mut node = *right;
        while node != NONE {
            self.push(node);
            node = self.tree.node(node).left;
        }
        Some(vma)
    }
}
