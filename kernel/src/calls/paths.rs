//! Calls that name a file by its path.

use alloc::vec::Vec;

use linux_raw_sys::general as nr;
use vellum_mm::objects::file::{Medium, Warmth};

use super::{AT_FDCWD, Answer, Errno, Halt};
use crate::files::open::Object;
use crate::files::tree::{Kind, NodeId, Writable};
use crate::kernel::Kernel;
use crate::tasks::Tid;

/// Bytes of a path at the most, as on Linux.
pub(crate) const PATH_MAX: usize = 4096;

impl Kernel {
    /// Where relative paths begin: at an open directory, or at the process's own.
    fn base(&mut self, tid: Tid, descriptor: u64) -> Result<NodeId, Errno> {
        if descriptor as i32 == AT_FDCWD as i32 {
            return Ok(self.process(tid).directory);
        }
        let id = self.open_file(tid, descriptor)?;
        match self.files.opens[id].object {
            Object::Node(node) => Ok(node),
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn path_in(&mut self, tid: Tid, at: u64, path: u64) -> Result<(NodeId, Vec<u8>), Halt> {
        let path = self.string_in(tid, path, PATH_MAX)?;
        // Who gives an absolute path may give any directory.
        let base = if path.first() == Some(&b'/') { 0 } else { self.base(tid, at)? };
        Ok((base, path))
    }

    pub(crate) fn open_at(
        &mut self,
        tid: Tid,
        at: u64,
        path: u64,
        flags: u64,
        permissions: u64,
    ) -> Answer {
        let flags = flags as u32;
        let (base, path) = self.path_in(tid, at, path)?;
        let found = self.files.tree.find(base, &path, flags & nr::O_NOFOLLOW == 0);
        let exclusive = flags & nr::O_CREAT != 0 && flags & nr::O_EXCL != 0;
        let node = match found {
            Ok(_) if exclusive => return Err(Errno::EEXIST.into()),
            Ok(node) => node,
            Err(Errno::ENOENT) if flags & nr::O_CREAT != 0 => {
                let (above, name) = self.files.tree.place(base, &path)?;
                self.files.tree.takes(above, name)?;
                let file = self.vm.add_file(0, Medium::Memory, Warmth::Cold);
                let kind = Kind::File(file.map_err(|_| Errno::ENOMEM)?, Writable::Yes);
                let permissions = permissions as u32 & !self.process(tid).umask & 0o7777;
                self.files.tree.add(above, name, kind, permissions)?
            }
            Err(errno) => return Err(errno.into()),
        };
        let open = self.open_node(tid, node, flags)?;
        self.add_descriptor(tid, open, 0, flags & nr::O_CLOEXEC != 0)
    }

    pub(crate) fn stat_at(&mut self, tid: Tid, at: u64, path: u64, to: u64, flags: u64) -> Answer {
        let flags = flags as u32;
        if flags & nr::AT_EMPTY_PATH != 0 && self.string_in(tid, path, PATH_MAX)?.is_empty() {
            return self.stat_open(tid, at, to);
        }
        let (base, path) = self.path_in(tid, at, path)?;
        let follow = flags & nr::AT_SYMLINK_NOFOLLOW == 0;
        let node = self.files.tree.find(base, &path, follow)?;
        let status = self.status(node).bytes();
        self.copy_out(tid, to, &status)?;
        Ok(0)
    }

    pub(crate) fn truncate(&mut self, tid: Tid, path: u64, bytes: u64) -> Answer {
        let (base, path) = self.path_in(tid, AT_FDCWD, path)?;
        let node = self.files.tree.find(base, &path, true)?;
        match self.files.tree[node].kind {
            Kind::File(file, Writable::Yes) => self.set_length(tid, file, bytes)?,
            Kind::File(_, Writable::No) | Kind::Stored(_) => return Err(Errno::EROFS.into()),
            Kind::Directory(..) => return Err(Errno::EISDIR.into()),
            Kind::Link(_) | Kind::Device(_) => return Err(Errno::EINVAL.into()),
        }
        Ok(0)
    }

    pub(crate) fn access_at(&mut self, tid: Tid, at: u64, path: u64, wanted: u64) -> Answer {
        let (base, path) = self.path_in(tid, at, path)?;
        let node = self.files.tree.find(base, &path, true)?;
        let entry = &self.files.tree[node];
        let is_file = !matches!(entry.kind, Kind::Directory(..));
        let stored = matches!(entry.kind, Kind::Stored(_) | Kind::File(_, Writable::No));
        let wanted = wanted as u32;
        if wanted & nr::W_OK != 0 && (stored || entry.sealed) {
            return Err(Errno::EROFS.into());
        }
        if wanted & nr::X_OK != 0 && is_file && entry.permissions & 0o111 == 0 {
            return Err(Errno::EACCES.into());
        }
        Ok(0)
    }

    pub(crate) fn read_link(
        &mut self,
        tid: Tid,
        at: u64,
        path: u64,
        to: u64,
        bytes: u64,
    ) -> Answer {
        let (base, path) = self.path_in(tid, at, path)?;
        let node = self.files.tree.find(base, &path, false)?;
        let Kind::Link(target) = &self.files.tree[node].kind else {
            return Err(Errno::EINVAL.into());
        };
        let target: Vec<u8> = target.iter().take(bytes as usize).copied().collect();
        self.copy_out(tid, to, &target)?;
        Ok(target.len() as u64)
    }

    pub(crate) fn unlink_at(&mut self, tid: Tid, at: u64, path: u64, flags: u64) -> Answer {
        let (base, path) = self.path_in(tid, at, path)?;
        let (above, name) = self.files.tree.place(base, &path)?;
        let directory = flags as u32 & nr::AT_REMOVEDIR != 0;
        let node = self.files.tree.remove(above, name, directory)?;
        self.reap(node);
        Ok(0)
    }

    pub(crate) fn make_directory(&mut self, tid: Tid, at: u64, path: u64, mode: u64) -> Answer {
        let (base, path) = self.path_in(tid, at, path)?;
        let (above, name) = self.files.tree.place(base, &path)?;
        let permissions = mode as u32 & !self.process(tid).umask & 0o7777;
        self.files.tree.add_directory(above, name, permissions)?;
        Ok(0)
    }

    pub(crate) fn make_link(&mut self, tid: Tid, target: u64, at: u64, path: u64) -> Answer {
        let target = self.string_in(tid, target, PATH_MAX)?;
        let (base, path) = self.path_in(tid, at, path)?;
        let (above, name) = self.files.tree.place(base, &path)?;
        self.files.tree.add(above, name, Kind::Link(target), 0o777)?;
        Ok(0)
    }

    pub(crate) fn rename(&mut self, tid: Tid, at: u64, old: u64, to_at: u64, new: u64) -> Answer {
        let (from, old) = self.path_in(tid, at, old)?;
        let (to, new) = self.path_in(tid, to_at, new)?;
        let old = self.files.tree.place(from, &old)?;
        let new = self.files.tree.place(to, &new)?;
        if let Some(replaced) = self.files.tree.rename(old, new)? {
            self.reap(replaced);
        }
        Ok(0)
    }

    pub(crate) fn change_directory(&mut self, tid: Tid, path: u64) -> Answer {
        let (base, path) = self.path_in(tid, AT_FDCWD, path)?;
        let node = self.files.tree.find(base, &path, true)?;
        self.enter_directory(tid, node)
    }

    pub(crate) fn change_directory_to(&mut self, tid: Tid, descriptor: u64) -> Answer {
        let id = self.open_file(tid, descriptor)?;
        let Object::Node(node) = self.files.opens[id].object else {
            return Err(Errno::ENOTDIR.into());
        };
        self.enter_directory(tid, node)
    }

    fn enter_directory(&mut self, tid: Tid, node: NodeId) -> Answer {
        self.files.tree.names(node)?;
        self.files.tree[node].uses += 1;
        let left = core::mem::replace(&mut self.process(tid).directory, node);
        self.leave_node(left);
        Ok(0)
    }

    pub(crate) fn working_directory(&mut self, tid: Tid, to: u64, bytes: u64) -> Answer {
        let directory = self.process(tid).directory;
        let mut path = self.files.tree.path_of(directory)?;
        path.push(0);
        if path.len() as u64 > bytes {
            return Err(Errno::ERANGE.into());
        }
        self.copy_out(tid, to, &path)?;
        Ok(path.len() as u64)
    }
}
