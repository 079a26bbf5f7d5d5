//! Calls that name a file by its path.

use alloc::vec::Vec;

use linux_raw_sys::general as nr;
use vellum_mm::objects::file::{Medium, Warmth};

use super::{AT_FDCWD, Answer, Errno, Halt};
use crate::files::open::Object;
use crate::files::tree::{Device, Kind, NodeId, Writable};
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
        let process = self.tasks.threads[tid].process;
        self.files.tree.show_own_program(&self.tasks.processes[process].program);
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
        let creates = flags & nr::O_CREAT != 0;
        let exclusive = creates && flags & nr::O_EXCL != 0;
        if creates && flags & nr::O_DIRECTORY != 0 {
            return Err(Errno::EINVAL.into());
        }
        if flags & nr::O_TMPFILE == nr::O_TMPFILE {
            let directory = self.files.tree.find(base, &path, true)?;
            self.files.tree.names(directory)?;
            return self.open_nameless(tid, flags);
        }
        let follow = flags & nr::O_NOFOLLOW == 0 && !exclusive;
        let node = match self.files.tree.find(base, &path, follow) {
            Ok(_) if exclusive => return Err(Errno::EEXIST.into()),
            Ok(node) if creates && self.files.tree.names(node).is_ok() => {
                return Err(Errno::EISDIR.into());
            }
            Ok(node) => node,
            Err(Errno::ENOENT) if creates => {
                self.make_file(tid, base, &path, permissions as u32)?
            }
            Err(errno) => return Err(errno.into()),
        };
        let close_on_exec = flags & nr::O_CLOEXEC != 0;
        if let Kind::Device(Device::Descriptor(number)) = self.files.tree[node].kind {
            return self.duplicate(tid, number.into(), 0, close_on_exec);
        }
        let open = self.open_node(tid, node, flags)?;
        self.add_descriptor(tid, open, 0, close_on_exec)
    }

    /// A new file, where `path` leads to nothing yet.
    fn make_file(
        &mut self,
        tid: Tid,
        base: NodeId,
        path: &[u8],
        permissions: u32,
    ) -> Result<NodeId, Errno> {
        if path.last() == Some(&b'/') {
            return Err(Errno::EISDIR);
        }
        let (above, name) = self.files.tree.place_to_make(base, path)?;
        self.files.tree.takes(above, &name)?;
        let file = self.vm.add_file(0, Medium::Memory, Warmth::Cold);
        let kind = Kind::File(file.map_err(|_| Errno::ENOMEM)?, Writable::Yes);
        let permissions = permissions & !self.process(tid).umask & 0o7777;
        self.files.tree.add(above, &name, kind, permissions)
    }

    /// What a path leads to, with the flags that many calls know.
    pub(crate) fn node_at(
        &mut self,
        tid: Tid,
        at: u64,
        path: u64,
        flags: u32,
    ) -> Result<NodeId, Halt> {
        let (base, path) = self.path_in(tid, at, path)?;
        if path.is_empty() && flags & nr::AT_EMPTY_PATH != 0 {
            return Ok(base);
        }
        Ok(self.files.tree.find(base, &path, flags & nr::AT_SYMLINK_NOFOLLOW == 0)?)
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

    pub(crate) fn access_at(
        &mut self,
        tid: Tid,
        at: u64,
        path: u64,
        wanted: u64,
        flags: u64,
    ) -> Answer {
        let known = nr::AT_EACCESS | nr::AT_SYMLINK_NOFOLLOW | nr::AT_EMPTY_PATH;
        if wanted & !0o7 != 0 || flags & !u64::from(known) != 0 {
            return Err(Errno::EINVAL.into());
        }
        let node = self.node_at(tid, at, path, flags as u32)?;
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
        if flags & !u64::from(nr::AT_REMOVEDIR) != 0 {
            return Err(Errno::EINVAL.into());
        }
        let directory = flags != 0;
        let (base, path) = self.path_in(tid, at, path)?;
        let (above, name) = self.files.tree.place(base, &path).map_err(|errno| match errno {
            Errno::EEXIST if !directory => Errno::EISDIR,
            Errno::EEXIST if path.ends_with(b"..") => Errno::ENOTEMPTY,
            Errno::EEXIST if path.ends_with(b".") => Errno::EINVAL,
            Errno::EEXIST => Errno::EBUSY,
            errno => errno,
        })?;
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

    pub(crate) fn rename(
        &mut self,
        tid: Tid,
        (at, old): (u64, u64),
        (to_at, new): (u64, u64),
        flags: u64,
    ) -> Answer {
        if flags & !u64::from(nr::RENAME_NOREPLACE) != 0 {
            return Err(Errno::EINVAL.into());
        }
        let (from, old) = self.path_in(tid, at, old)?;
        let (to, new) = self.path_in(tid, to_at, new)?;
        let busy = |errno| if errno == Errno::EEXIST { Errno::EBUSY } else { errno };
        let old = self.files.tree.place(from, &old).map_err(busy)?;
        let new = self.files.tree.place(to, &new).map_err(busy)?;
        if flags != 0 {
            self.files.tree.takes(new.0, new.1)?;
        }
        if let Some(replaced) = self.files.tree.rename(old, new)? {
            self.reap(replaced);
        }
        Ok(0)
    }

    /// `link`: one more name for a file.
    pub(crate) fn link(
        &mut self,
        tid: Tid,
        (at, old): (u64, u64),
        (to_at, new): (u64, u64),
        flags: u64,
    ) -> Answer {
        if flags & !u64::from(nr::AT_SYMLINK_FOLLOW) != 0 {
            return Err(Errno::EINVAL.into());
        }
        let follow = if flags == 0 { nr::AT_SYMLINK_NOFOLLOW } else { 0 };
        let node = self.node_at(tid, at, old, follow)?;
        let (to, new) = self.path_in(tid, to_at, new)?;
        let (above, name) = self.files.tree.place(to, &new)?;
        self.files.tree.takes(above, name)?;
        match &self.files.tree[node] {
            entry if matches!(entry.kind, Kind::Directory(..)) => Err(Errno::EPERM.into()),
            entry if entry.sealed => Err(Errno::EXDEV.into()),
            _ => Ok(self.files.tree.link(above, name, node).map(|()| 0)?),
        }
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
