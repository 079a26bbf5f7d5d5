//! Calls on what is known about a file besides its contents.
//!
//! Everybody is root, so permissions and owners are shown and not enforced, but for the right to be
//! executed. Times are not kept.

use linux_raw_sys::general as nr;
use vellum_mm::addr::PAGE_BYTES;

use super::paths::PATH_MAX;
use super::{AT_FDCWD, Answer, Errno, Halt};
use crate::files::open::Object;
use crate::files::tree::{Kind, NodeId, Writable};
use crate::kernel::Kernel;
use crate::tasks::Tid;
use crate::words::Words;

/// An owner that is not to change.
const SAME_OWNER: u32 = u32::MAX;

impl Kernel {
    pub(crate) fn stat_at(&mut self, tid: Tid, at: u64, path: u64, to: u64, flags: u64) -> Answer {
        let flags = flags as u32;
        let known = nr::AT_SYMLINK_NOFOLLOW | nr::AT_NO_AUTOMOUNT | nr::AT_EMPTY_PATH;
        if flags & !(known | nr::AT_STATX_SYNC_TYPE) != 0 {
            return Err(Errno::EINVAL.into());
        }
        if flags & nr::AT_EMPTY_PATH != 0
            && at as i32 != AT_FDCWD as i32
            && self.string_in(tid, path, PATH_MAX)?.is_empty()
        {
            return self.stat_open(tid, at, to);
        }
        let node = self.node_at(tid, at, path, flags)?;
        let status = self.status(node).bytes();
        self.copy_out(tid, to, &status)?;
        Ok(0)
    }

    pub(crate) fn stat_open(&mut self, tid: Tid, descriptor: u64, to: u64) -> Answer {
        let id = self.open_file(tid, descriptor)?;
        let nobodys = |number, mode, links| Status { number, mode, links, ..Status::default() };
        let status = match self.files.opens[id].object {
            Object::Node(node) => self.status(node),
            Object::Nameless(file) => Status {
                bytes: self.file_bytes(file),
                sectors: self.pages_of(file) * SECTORS_A_PAGE,
                ..nobodys(1 << 32 | u64::from(file.0), nr::S_IFREG | 0o777, 0)
            },
            Object::PipeIn(pipe) | Object::PipeOut(pipe) => {
                nobodys(2 << 32 | pipe as u64, nr::S_IFIFO | 0o600, 1)
            }
        };
        self.copy_out(tid, to, &status.bytes())?;
        Ok(0)
    }

    /// What `stat` tells of a node.
    fn status(&self, node: NodeId) -> Status {
        let entry = &self.files.tree[node];
        let (bytes, sectors) = match &entry.kind {
            Kind::Stored(stored) => (stored.bytes(), stored.bytes().div_ceil(512)),
            Kind::File(file, Writable::No) => {
                let bytes = self.file_bytes(*file);
                (bytes, bytes.div_ceil(512))
            }
            Kind::File(file, Writable::Yes) => {
                (self.file_bytes(*file), self.pages_of(*file) * SECTORS_A_PAGE)
            }
            Kind::Link(to) => (to.len() as u64, 0),
            Kind::Directory(names, _) => (names.len() as u64, 0),
            Kind::Device(_) => (0, 0),
        };
        let mode = entry.kind.type_bits() | entry.permissions;
        let (links, owner) = (entry.links, entry.owner);
        Status { number: node as u64 + 1, mode, links, owner, bytes, sectors }
    }

    /// What a path leads to whose attributes are to change.
    fn node_to_change(&mut self, tid: Tid, at: u64, path: u64, flags: u64) -> Result<NodeId, Halt> {
        let flags = flags as u32;
        if flags & !(nr::AT_SYMLINK_NOFOLLOW | nr::AT_EMPTY_PATH) != 0 {
            return Err(Errno::EINVAL.into());
        }
        let node = self.node_at(tid, at, path, flags)?;
        Ok(self.unsealed(node)?)
    }

    fn unsealed(&self, node: NodeId) -> Result<NodeId, Errno> {
        if self.files.tree[node].sealed { Err(Errno::EROFS) } else { Ok(node) }
    }

    /// The same of an open file; none if it has no name and nobody would see a change.
    fn open_to_change(&mut self, tid: Tid, descriptor: u64) -> Result<Option<NodeId>, Errno> {
        let id = self.open_file(tid, descriptor)?;
        match self.files.opens[id].object {
            Object::Node(node) => self.unsealed(node).map(Some),
            _ => Ok(None),
        }
    }

    pub(crate) fn set_mode_at(
        &mut self,
        tid: Tid,
        at: u64,
        path: u64,
        mode: u64,
        flags: u64,
    ) -> Answer {
        let node = self.node_to_change(tid, at, path, flags)?;
        self.set_mode(node, mode)
    }

    pub(crate) fn set_mode_open(&mut self, tid: Tid, descriptor: u64, mode: u64) -> Answer {
        match self.open_to_change(tid, descriptor)? {
            Some(node) => self.set_mode(node, mode),
            None => Ok(0),
        }
    }

    fn set_mode(&mut self, node: NodeId, mode: u64) -> Answer {
        if let Kind::Link(_) = self.files.tree[node].kind {
            return Err(Errno::EOPNOTSUPP.into());
        }
        self.files.tree[node].permissions = mode as u32 & 0o7777;
        Ok(0)
    }

    pub(crate) fn set_owner_at(
        &mut self,
        tid: Tid,
        at: u64,
        path: u64,
        owner: (u64, u64),
        flags: u64,
    ) -> Answer {
        let node = self.node_to_change(tid, at, path, flags)?;
        self.set_owner(node, owner);
        Ok(0)
    }

    pub(crate) fn set_owner_open(
        &mut self,
        tid: Tid,
        descriptor: u64,
        owner: (u64, u64),
    ) -> Answer {
        if let Some(node) = self.open_to_change(tid, descriptor)? {
            self.set_owner(node, owner);
        }
        Ok(0)
    }

    fn set_owner(&mut self, node: NodeId, (user, group): (u64, u64)) {
        let (user, group) = (user as u32, group as u32);
        let owner = &mut self.files.tree[node].owner;
        if user != SAME_OWNER {
            owner.0 = user;
        }
        if group != SAME_OWNER {
            owner.1 = group;
        }
    }

    /// `utimensat` and its elders: no times are kept, but who names a file that is not there learns it.
    pub(crate) fn set_times_at(&mut self, tid: Tid, at: u64, path: u64, flags: u64) -> Answer {
        if path == 0 {
            self.open_to_change(tid, at)?;
        } else {
            self.node_to_change(tid, at, path, flags)?;
        }
        Ok(0)
    }

    pub(crate) fn file_system_at(&mut self, tid: Tid, path: u64, to: u64) -> Answer {
        let node = self.node_at(tid, AT_FDCWD, path, 0)?;
        self.file_system(tid, self.files.tree[node].sealed, to)
    }

    pub(crate) fn file_system_open(&mut self, tid: Tid, descriptor: u64, to: u64) -> Answer {
        let id = self.open_file(tid, descriptor)?;
        let sealed = match self.files.opens[id].object {
            Object::Node(node) => self.files.tree[node].sealed,
            _ => false,
        };
        self.file_system(tid, sealed, to)
    }

    /// `struct statfs`: the disk is full for whoever cannot write it.
    fn file_system(&mut self, tid: Tid, sealed: bool, to: u64) -> Answer {
        let (kind, total, free, flags) = if sealed {
            (u64::from(nr::EXT2_SUPER_MAGIC), 0, 0, MOUNTED_READ_ONLY)
        } else {
            let (total, used) = (self.file_pages_max(), self.pages_in_files());
            (u64::from(nr::TMPFS_MAGIC), total, total.saturating_sub(used), 0)
        };
        let mut words = Words::default();
        words.u64(kind).u64(PAGE_BYTES).u64(total).u64(free).u64(free).u64(0).u64(0).u64(0);
        words.u64(255).u64(PAGE_BYTES).u64(flags).zeros(32);
        self.copy_out(tid, to, words.bytes())?;
        Ok(0)
    }
}

/// `ST_RDONLY`.
const MOUNTED_READ_ONLY: u64 = 1;
/// What `st_blocks` counts, in a page.
const SECTORS_A_PAGE: u64 = PAGE_BYTES / 512;

/// What `stat` tells.
#[derive(Default)]
struct Status {
    number: u64,
    mode: u32,
    links: u32,
    owner: (u32, u32),
    bytes: u64,
    sectors: u64,
}

impl Status {
    /// As Linux lays `struct stat` out on x86-64.
    fn bytes(&self) -> [u8; 144] {
        let mut words = Words::default();
        words.u64(1).u64(self.number).u64(self.links.into()).u32(self.mode);
        words.u32(self.owner.0).u32(self.owner.1).u32(0);
        words.u64(0).u64(self.bytes).u64(PAGE_BYTES).u64(self.sectors);
        words.zeros(144 - words.bytes().len()); // no times are kept
        words.bytes().try_into().expect("144 bytes")
    }
}
