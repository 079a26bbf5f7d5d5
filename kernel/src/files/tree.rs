//! The tree of names: directories, files, symbolic links and a few devices.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use linux_raw_sys::general as nr;
use vellum_mm::addr::FileRef;

use super::Stored;
use crate::calls::Errno;

/// Identifies what a name leads to.
pub(crate) type NodeId = usize;

/// The directory that all others are in.
pub(crate) const ROOT: NodeId = 0;

/// What a name can lead to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Names in it, and the directory that it is in.
    Directory(BTreeMap<Vec<u8>, NodeId>, NodeId),
    /// A file of the archive or the disk that nobody has opened yet.
    Stored(Stored),
    /// A file that the memory manager knows; one that is stored somewhere may not be written.
    File(FileRef, Writable),
    /// A symbolic link.
    Link(Vec<u8>),
    /// A device.
    Device(Device),
}

/// Whether contents can change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writable {
    /// They are in memory.
    Yes,
    /// They are in the archive or on the disk.
    No,
}

/// What there is besides files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Device {
    /// Ends at once and swallows all.
    Null,
    /// Zeros.
    Zero,
    /// Zeros, and never any room.
    Full,
    /// What the descriptor of this number refers to.
    Descriptor(u8),
    /// Numbers drawn from the seed.
    Random,
    /// The serial line.
    Console,
}

/// What a name leads to.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Which kind of thing.
    pub(crate) kind: Kind,
    /// Permissions; shown, not enforced, as everybody is root.
    pub(crate) permissions: u32,
    /// User and group that own it; shown, not enforced either.
    pub(crate) owner: (u32, u32),
    /// Names that lead to it. A directory without is removed, and takes no names.
    pub(crate) links: u32,
    /// Who else leads to it: open files, processes that are in it, removed directories that were.
    pub(crate) uses: u32,
    /// It is on the disk: names in it never change.
    pub(crate) sealed: bool,
}

impl Node {
    /// A node that nothing leads to yet.
    fn new(kind: Kind, permissions: u32) -> Node {
        Node { kind, permissions, owner: (0, 0), links: 0, uses: 0, sealed: false }
    }
}

/// The tree.
pub(crate) struct Tree {
    /// By number. Boxed, so that what there was once costs a word.
    nodes: Vec<Option<Box<Node>>>,
    /// The link to whichever program asks.
    own_program: Option<NodeId>,
}

impl core::ops::Index<NodeId> for Tree {
    type Output = Node;

    /// # Panics
    /// If there is no such node.
    fn index(&self, node: NodeId) -> &Node {
        self.nodes[node].as_deref().expect("a node in use")
    }
}

impl core::ops::IndexMut<NodeId> for Tree {
    /// # Panics
    /// If there is no such node.
    fn index_mut(&mut self, node: NodeId) -> &mut Node {
        self.nodes[node].as_deref_mut().expect("a node in use")
    }
}

impl Default for Tree {
    fn default() -> Tree {
        let kind = Kind::Directory(BTreeMap::new(), ROOT);
        let top = Node { links: 1, ..Node::new(kind, 0o755) };
        Tree { nodes: alloc::vec![Some(Box::new(top))], own_program: None }
    }
}

impl Tree {
    /// Names in a directory, in order, with what they lead to.
    ///
    /// # Errors
    /// `ENOTDIR`.
    pub(crate) fn names(&self, directory: NodeId) -> Result<&BTreeMap<Vec<u8>, NodeId>, Errno> {
        match &self[directory].kind {
            Kind::Directory(names, _) => Ok(names),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn names_mut(&mut self, directory: NodeId) -> Result<&mut BTreeMap<Vec<u8>, NodeId>, Errno> {
        match &mut self[directory].kind {
            Kind::Directory(names, _) => Ok(names),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// The directory that a directory is in.
    ///
    /// # Errors
    /// `ENOTDIR`.
    pub(crate) fn above(&self, directory: NodeId) -> Result<NodeId, Errno> {
        match self[directory].kind {
            Kind::Directory(_, above) => Ok(above),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// Adds the link `exe` to whichever program asks, in a directory that takes no other names.
    ///
    /// # Errors
    /// As [`takes`](Self::takes).
    pub(crate) fn add_own_program(&mut self, directory: NodeId) -> Result<(), Errno> {
        let link = self.add(directory, b"exe", Kind::Link(Vec::new()), 0o777)?;
        self.own_program = Some(link);
        let mut sealed = directory;
        self[link].sealed = true;
        while sealed != ROOT {
            self[sealed].sealed = true;
            sealed = self.above(sealed)?;
        }
        Ok(())
    }

    /// Says that the one who asks next is this program.
    pub(crate) fn show_own_program(&mut self, path: &[u8]) {
        let Some(link) = self.own_program else { return };
        if let Kind::Link(to) = &mut self[link].kind
            && to != path
        {
            *to = path.to_vec();
        }
    }

    /// Files with names, or that had some, whose contents are in memory alone.
    pub(crate) fn files_in_memory(&self) -> impl Iterator<Item = FileRef> {
        self.nodes.iter().flatten().filter_map(|node| match node.kind {
            Kind::File(file, Writable::Yes) => Some(file),
            _ => None,
        })
    }

    /// Whether a directory takes a new name.
    ///
    /// # Errors
    /// `EEXIST`, `ENOTDIR`; `EROFS` on the disk; `ENOENT` once it is removed.
    pub(crate) fn takes(&self, directory: NodeId, name: &[u8]) -> Result<(), Errno> {
        match self.names(directory)? {
            names if names.contains_key(name) => Err(Errno::EEXIST),
            _ if self[directory].sealed => Err(Errno::EROFS),
            _ if self[directory].links == 0 => Err(Errno::ENOENT),
            _ => Ok(()),
        }
    }

    /// Gives a thing one more name.
    ///
    /// # Errors
    /// As [`takes`](Self::takes).
    pub(crate) fn link(
        &mut self,
        directory: NodeId,
        name: &[u8],
        node: NodeId,
    ) -> Result<(), Errno> {
        self.takes(directory, name)?;
        self.names_mut(directory)?.insert(name.to_vec(), node);
        self[node].links += 1;
        Ok(())
    }

    /// Adds something under a new name.
    ///
    /// # Errors
    /// As [`takes`](Self::takes).
    pub(crate) fn add(
        &mut self,
        directory: NodeId,
        name: &[u8],
        kind: Kind,
        permissions: u32,
    ) -> Result<NodeId, Errno> {
        self.takes(directory, name)?;
        self.nodes.try_reserve(1).map_err(|_| Errno::ENOSPC)?;
        let node = Some(Box::new(Node::new(kind, permissions)));
        let free = self.nodes.iter().position(Option::is_none);
        let id = free.unwrap_or(self.nodes.len());
        if id == self.nodes.len() {
            self.nodes.push(node);
        } else {
            self.nodes[id] = node;
        }
        self.link(directory, name, id)?;
        Ok(id)
    }

    /// Adds an empty directory.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub(crate) fn add_directory(
        &mut self,
        above: NodeId,
        name: &[u8],
        permissions: u32,
    ) -> Result<NodeId, Errno> {
        self.add(above, name, Kind::Directory(BTreeMap::new(), above), permissions)
    }

    /// Takes a name away; what it led to.
    ///
    /// # Errors
    /// `ENOENT`; `ENOTDIR`, `EISDIR` and `ENOTEMPTY` as `directory` says what is expected; `EROFS` on
    /// the disk and `EBUSY` for its top.
    pub(crate) fn remove(
        &mut self,
        above: NodeId,
        name: &[u8],
        directory: bool,
    ) -> Result<NodeId, Errno> {
        let node = *self.names(above)?.get(name).ok_or(Errno::ENOENT)?;
        self.may_move(above, node)?;
        match &self[node].kind {
            Kind::Directory(names, _) if directory && names.is_empty() => {}
            Kind::Directory(..) if directory => return Err(Errno::ENOTEMPTY),
            Kind::Directory(..) => return Err(Errno::EISDIR),
            _ if directory => return Err(Errno::ENOTDIR),
            _ => {}
        }
        self.names_mut(above)?.remove(name);
        self[node].links -= 1;
        if directory {
            // Whoever is in it still finds the way up.
            self[above].uses += 1;
        }
        Ok(node)
    }

    /// Whether the name that `node` has in `above` can be taken away.
    fn may_move(&self, above: NodeId, node: NodeId) -> Result<(), Errno> {
        match (self[above].sealed, self[node].sealed) {
            (true, _) => Err(Errno::EROFS),
            (false, true) => Err(Errno::EBUSY),
            (false, false) => Ok(()),
        }
    }

    /// Gives a thing another name, in place of what has that name.
    ///
    /// # Errors
    /// As [`remove`](Self::remove); `EINVAL` to move a directory into itself.
    pub(crate) fn rename(
        &mut self,
        (from, old): (NodeId, &[u8]),
        (to, new): (NodeId, &[u8]),
    ) -> Result<Option<NodeId>, Errno> {
        let node = *self.names(from)?.get(old).ok_or(Errno::ENOENT)?;
        self.may_move(from, node)?;
        match &self[to] {
            to if to.sealed => return Err(Errno::EROFS),
            to if to.links == 0 => return Err(Errno::ENOENT),
            _ => {}
        }
        let is_directory = matches!(self[node].kind, Kind::Directory(..));
        let mut above = to;
        while is_directory && above != ROOT {
            if above == node {
                return Err(Errno::EINVAL);
            }
            above = self.above(above)?;
        }
        let replaced = match self.names(to)?.get(new) {
            Some(&same) if same == node => return Ok(None),
            Some(_) => Some(self.remove(to, new, is_directory)?),
            None => None,
        };
        self.names_mut(from)?.remove(old);
        self.names_mut(to)?.insert(new.to_vec(), node);
        if let Kind::Directory(_, above) = &mut self[node].kind {
            *above = to;
        }
        Ok(replaced)
    }

    /// Gives up a node that nothing leads to any more; its kind.
    pub(crate) fn reap(&mut self, node: NodeId) -> Option<Kind> {
        let mut last = node;
        // Ends: each turn gives up a removed directory, and goes on with the one that it was in.
        loop {
            if self[last].links > 0 || self[last].uses > 0 {
                return None;
            }
            let kind = self.nodes[last].take().map(|node| node.kind);
            let Some(Kind::Directory(_, above)) = kind else { return kind };
            self[above].uses -= 1;
            last = above;
        }
    }
}

impl Kind {
    /// The type bits of `st_mode`.
    pub(crate) fn type_bits(&self) -> u32 {
        match self {
            Kind::Directory(..) => nr::S_IFDIR,
            Kind::Stored(_) | Kind::File(..) => nr::S_IFREG,
            Kind::Link(_) => nr::S_IFLNK,
            Kind::Device(_) => nr::S_IFCHR,
        }
    }
}
