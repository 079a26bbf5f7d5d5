//! Calls on open files.

use linux_raw_sys::general as nr;
use vellum_mm::addr::{FileRef, PAGE_BYTES};
use vellum_mm::objects::file::{Medium, Warmth};

use super::transfer::Way;
use super::{Answer, Errno, Halt};
use crate::files::OpenId;
use crate::files::open::{Object, Open};
use crate::files::tree::{Device, Kind, NodeId, Writable};
use crate::kernel::Kernel;
use crate::tasks::{Descriptor, Tid, Wait};
use crate::words::Words;

/// Descriptors of one process.
const DESCRIPTORS_MAX: usize = 1024;

impl Kernel {
    /// What a descriptor refers to.
    ///
    /// # Errors
    /// `EBADF`.
    pub(crate) fn open_file(&mut self, tid: Tid, descriptor: u64) -> Result<OpenId, Errno> {
        let descriptors = &self.process(tid).descriptors;
        let entry = usize::try_from(descriptor).ok().and_then(|at| descriptors.get(at));
        entry.copied().flatten().map(|entry| entry.open).ok_or(Errno::EBADF)
    }

    /// Gives an open file the lowest free descriptor from `least` on.
    ///
    /// # Errors
    /// `EMFILE`; then the open file is released.
    pub(crate) fn add_descriptor(
        &mut self,
        tid: Tid,
        open: OpenId,
        least: usize,
        close_on_exec: bool,
    ) -> Answer {
        let descriptors = &mut self.process(tid).descriptors;
        let mut all = least..DESCRIPTORS_MAX;
        let Some(at) = all.find(|&at| descriptors.get(at).is_none_or(Option::is_none)) else {
            self.release(open);
            return Err(Errno::EMFILE.into());
        };
        if descriptors.len() <= at {
            descriptors.resize(at + 1, None);
        }
        descriptors[at] = Some(Descriptor { open, close_on_exec });
        Ok(at as u64)
    }

    /// One descriptor less refers to an open file.
    pub(crate) fn release(&mut self, open: OpenId) {
        let Some(closed) = self.files.opens.release(open) else { return };
        match closed.object {
            Object::Node(node) => self.leave_node(node),
            Object::Nameless(file) => {
                self.files.nameless.push(file);
                self.forget_unmapped();
            }
            Object::PipeIn(pipe) => self.close_pipe(pipe, true),
            Object::PipeOut(pipe) => self.close_pipe(pipe, false),
        }
    }

    fn close_pipe(&mut self, pipe: usize, writer: bool) {
        self.files.pipes.close(pipe, writer);
        self.wake_pipe(pipe);
    }

    /// One use less of what has a name, or had one.
    pub(crate) fn leave_node(&mut self, node: NodeId) {
        self.files.tree[node].uses -= 1;
        self.reap(node);
    }

    /// Gives up what nothing leads to any more.
    pub(crate) fn reap(&mut self, node: NodeId) {
        if let Some(Kind::File(file, _)) = self.files.tree.reap(node) {
            self.files.nameless.push(file);
            self.forget_unmapped();
        }
    }

    /// The contents of a file with a name.
    ///
    /// # Errors
    /// `EINVAL` if it has none; `ENOMEM` if there are too many files.
    pub(crate) fn contents(&mut self, node: NodeId) -> Result<FileRef, Errno> {
        match &self.files.tree[node].kind {
            Kind::File(file, _) => Ok(*file),
            Kind::Stored(stored) => {
                let stored = stored.clone();
                let file = self.vm.add_file(stored.bytes(), Medium::Disk, Warmth::Cold);
                let file = file.map_err(|_| Errno::ENOMEM)?;
                self.files.add_stored(file, stored);
                self.files.tree[node].kind = Kind::File(file, Writable::No);
                Ok(file)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// Opens a node.
    pub(crate) fn open_node(&mut self, tid: Tid, node: NodeId, flags: u32) -> Result<OpenId, Halt> {
        let readable = flags & nr::O_ACCMODE != nr::O_WRONLY;
        let writable = flags & nr::O_ACCMODE != nr::O_RDONLY;
        match &self.files.tree[node].kind {
            Kind::Directory(..) if writable => return Err(Errno::EISDIR.into()),
            Kind::Directory(..) | Kind::Device(_) => {}
            _ if flags & nr::O_DIRECTORY != 0 => return Err(Errno::ENOTDIR.into()),
            Kind::Link(_) => return Err(Errno::ELOOP.into()),
            Kind::Stored(_) | Kind::File(_, Writable::No) if writable => {
                return Err(Errno::EROFS.into());
            }
            Kind::Stored(_) | Kind::File(..) => {
                let file = self.contents(node)?;
                if writable && flags & nr::O_TRUNC != 0 {
                    self.set_length(tid, file, 0)?;
                }
            }
        }
        self.files.tree[node].uses += 1;
        Ok(self.files.opens.add(Open {
            append: flags & nr::O_APPEND != 0,
            nonblocking: flags & nr::O_NONBLOCK != 0,
            ..Open::new(Object::Node(node), readable, writable)
        }))
    }

    pub(crate) fn close(&mut self, tid: Tid, descriptor: u64) -> Answer {
        let open = self.open_file(tid, descriptor)?;
        self.process(tid).descriptors[descriptor as usize] = None;
        self.release(open);
        Ok(0)
    }

    pub(crate) fn seek(&mut self, tid: Tid, descriptor: u64, by: i64, whence: u64) -> Answer {
        let id = self.open_file(tid, descriptor)?;
        let size = match self.files.opens[id].object {
            Object::PipeIn(_) | Object::PipeOut(_) => return Err(Errno::ESPIPE.into()),
            Object::Nameless(file) => self.file_bytes(file),
            Object::Node(node) => match self.files.tree[node].kind {
                Kind::Device(Device::Console) => return Err(Errno::ESPIPE.into()),
                Kind::Device(_) | Kind::Directory(..) | Kind::Link(_) => 0,
                Kind::Stored(_) | Kind::File(..) => {
                    let file = self.contents(node)?;
                    self.file_bytes(file)
                }
            },
        };
        let base = match whence as u32 {
            nr::SEEK_SET => 0,
            nr::SEEK_CUR => self.files.opens[id].offset,
            nr::SEEK_END => size,
            _ => return Err(Errno::EINVAL.into()),
        };
        let to = base.checked_add_signed(by).filter(|&to| i64::try_from(to).is_ok());
        let to = to.ok_or(Errno::EINVAL)?;
        self.files.opens[id].offset = to;
        Ok(to)
    }

    pub(crate) fn stat_open(&mut self, tid: Tid, descriptor: u64, to: u64) -> Answer {
        let id = self.open_file(tid, descriptor)?;
        let status = match self.files.opens[id].object {
            Object::Node(node) => self.status(node),
            Object::Nameless(file) => Status {
                number: 1 << 32 | u64::from(file.0),
                mode: nr::S_IFREG | 0o777,
                links: 0,
                bytes: self.file_bytes(file),
            },
            Object::PipeIn(pipe) | Object::PipeOut(pipe) => Status {
                number: 2 << 32 | pipe as u64,
                mode: nr::S_IFIFO | 0o600,
                links: 1,
                bytes: 0,
            },
        };
        self.copy_out(tid, to, &status.bytes())?;
        Ok(0)
    }

    /// What `stat` tells of a node.
    pub(crate) fn status(&self, node: NodeId) -> Status {
        let entry = &self.files.tree[node];
        let bytes = match &entry.kind {
            Kind::Stored(stored) => stored.bytes(),
            Kind::File(file, _) => self.file_bytes(*file),
            Kind::Link(to) => to.len() as u64,
            Kind::Directory(names, _) => names.len() as u64,
            Kind::Device(_) => 0,
        };
        let mode = entry.kind.type_bits() | entry.permissions;
        Status { number: node as u64 + 1, mode, links: entry.links, bytes }
    }

    /// Gives a file another length. What is cut off of a page that stays is zeros, should the file ever
    /// grow again.
    pub(crate) fn set_length(&mut self, tid: Tid, file: FileRef, bytes: u64) -> Result<(), Halt> {
        let (old, within) = (self.file_bytes(file), bytes % PAGE_BYTES);
        if bytes < old && within > 0 {
            let count = (PAGE_BYTES - within).min(old - bytes);
            let frame = self.file_frame(tid, file, bytes, count, Way::FromProgram)?;
            self.pc.memory.write(frame, within, &[0; PAGE_BYTES as usize][within as usize..]);
        }
        let at = crate::kernel::now();
        let spaces = self.tasks.spaces.iter_mut().flatten().map(|slot| &mut slot.space);
        self.vm.truncate(at, self.pc, file, bytes, spaces).map_err(|_| Errno::EFBIG)?;
        self.pump();
        Ok(())
    }

    pub(crate) fn ftruncate(&mut self, tid: Tid, descriptor: u64, bytes: u64) -> Answer {
        let id = self.open_file(tid, descriptor)?;
        let open = &self.files.opens[id];
        if !open.writable || bytes > i64::MAX as u64 {
            return Err(Errno::EINVAL.into());
        }
        let file = match open.object {
            Object::Nameless(file) => file,
            Object::Node(node) => self.contents(node)?,
            _ => return Err(Errno::EINVAL.into()),
        };
        self.set_length(tid, file, bytes)?;
        Ok(0)
    }

    pub(crate) fn sync(&mut self, tid: Tid, descriptor: u64) -> Answer {
        let id = self.open_file(tid, descriptor)?;
        // Files that can be written live in memory: there is no disk to write them to.
        match self.files.opens[id].object {
            Object::PipeIn(_) | Object::PipeOut(_) => Err(Errno::EINVAL.into()),
            _ => Ok(0),
        }
    }

    pub(crate) fn duplicate(
        &mut self,
        tid: Tid,
        descriptor: u64,
        least: u64,
        close_on_exec: bool,
    ) -> Answer {
        let id = self.open_file(tid, descriptor)?;
        if least >= DESCRIPTORS_MAX as u64 {
            return Err(Errno::EINVAL.into());
        }
        self.files.opens[id].references += 1;
        self.add_descriptor(tid, id, least as usize, close_on_exec)
    }

    pub(crate) fn duplicate_to(
        &mut self,
        tid: Tid,
        from: u64,
        to: u64,
        flags: u64,
        same: bool,
    ) -> Answer {
        let id = self.open_file(tid, from)?;
        if from == to {
            return if same { Ok(to) } else { Err(Errno::EINVAL.into()) };
        }
        if to >= DESCRIPTORS_MAX as u64 {
            return Err(Errno::EBADF.into());
        }
        self.files.opens[id].references += 1;
        if self.open_file(tid, to).is_ok() {
            self.close(tid, to)?;
        }
        self.add_descriptor(tid, id, to as usize, flags & u64::from(nr::O_CLOEXEC) != 0)
    }

    pub(crate) fn control(
        &mut self,
        tid: Tid,
        descriptor: u64,
        command: u64,
        value: u64,
    ) -> Answer {
        let id = self.open_file(tid, descriptor)?;
        let open = &mut self.files.opens[id];
        match command as u32 {
            nr::F_DUPFD => self.duplicate(tid, descriptor, value, false),
            nr::F_DUPFD_CLOEXEC => self.duplicate(tid, descriptor, value, true),
            nr::F_GETFD => {
                let entry = self.process(tid).descriptors[descriptor as usize];
                Ok(entry.is_some_and(|entry| entry.close_on_exec).into())
            }
            nr::F_SETFD => {
                let close_on_exec = value & 1 != 0;
                let entry = &mut self.process(tid).descriptors[descriptor as usize];
                *entry = entry.map(|entry| Descriptor { close_on_exec, ..entry });
                Ok(0)
            }
            nr::F_GETFL => {
                let mode = match (open.readable, open.writable) {
                    (true, true) => nr::O_RDWR,
                    (false, true) => nr::O_WRONLY,
                    _ => nr::O_RDONLY,
                };
                let append = if open.append { nr::O_APPEND } else { 0 };
                let nonblocking = if open.nonblocking { nr::O_NONBLOCK } else { 0 };
                Ok((mode | append | nonblocking).into())
            }
            nr::F_SETFL => {
                open.append = value as u32 & nr::O_APPEND != 0;
                open.nonblocking = value as u32 & nr::O_NONBLOCK != 0;
                Ok(0)
            }
            _ => Err(Errno::EINVAL.into()),
        }
    }

    /// No file is a terminal: even the serial line is shown as one that is not, so that programs buffer
    /// what they write to it.
    pub(crate) fn device_control(&mut self, tid: Tid, descriptor: u64) -> Answer {
        self.open_file(tid, descriptor)?;
        Err(Errno::ENOTTY.into())
    }

    pub(crate) fn pipe(&mut self, tid: Tid, to: u64, flags: u64) -> Answer {
        // Both words can be written before anything is made.
        self.copy_out(tid, to, &[0; 8])?;
        let pipe = self.files.pipes.add();
        let nonblocking = flags as u32 & nr::O_NONBLOCK != 0;
        let close_on_exec = flags as u32 & nr::O_CLOEXEC != 0;
        let open = |object, reads| Open { nonblocking, ..Open::new(object, reads, !reads) };
        let out = self.files.opens.add(open(Object::PipeOut(pipe), true));
        let into = self.files.opens.add(open(Object::PipeIn(pipe), false));
        let out = match self.add_descriptor(tid, out, 0, close_on_exec) {
            Ok(out) => out,
            Err(halt) => {
                self.release(into);
                return Err(halt);
            }
        };
        let into = match self.add_descriptor(tid, into, 0, close_on_exec) {
            Ok(into) => into,
            Err(halt) => {
                self.close(tid, out)?;
                return Err(halt);
            }
        };
        self.copy_out(tid, to, &(out | into << 32).to_le_bytes())?;
        Ok(0)
    }

    pub(crate) fn poll(&mut self, tid: Tid, entries: u64, count: u64, milliseconds: i64) -> Answer {
        if count > DESCRIPTORS_MAX as u64 {
            return Err(Errno::EINVAL.into());
        }
        let mut ready = 0;
        for number in 0..count {
            let at = entries.wrapping_add(number * 8);
            let word = self.word_in(tid, at)?;
            let (descriptor, wanted) = ((word as u32).cast_signed(), (word >> 32) as u16);
            let found = if descriptor < 0 { 0 } else { self.readiness(tid, descriptor, wanted) };
            self.copy_out(tid, at.wrapping_add(6), &found.to_le_bytes())?;
            ready += u64::from(found != 0);
        }
        if ready > 0 || milliseconds == 0 || self.tasks.threads[tid].timed_out {
            return Ok(ready);
        }
        let deadline = match milliseconds as i32 {
            ..0 => u64::MAX,
            limit => self.deadline_once(tid, u64::from(limit.cast_unsigned()) * 1_000_000),
        };
        Err(Halt::Wait(Wait::Poll, deadline))
    }

    fn readiness(&mut self, tid: Tid, descriptor: i32, wanted: u16) -> u16 {
        let (input, output) = (nr::POLLIN as u16, nr::POLLOUT as u16);
        let Ok(id) = self.open_file(tid, u64::from(descriptor.cast_unsigned())) else {
            return nr::POLLNVAL as u16;
        };
        match self.files.opens[id].object {
            Object::PipeOut(pipe) => {
                let pipe = &self.files.pipes[pipe];
                let bytes = if pipe.bytes.is_empty() { 0 } else { input };
                bytes & wanted | if pipe.writers == 0 { nr::POLLHUP as u16 } else { 0 }
            }
            Object::PipeIn(pipe) => {
                let pipe = &self.files.pipes[pipe];
                let room = if pipe.room() > 0 { output } else { 0 };
                room & wanted | if pipe.readers == 0 { nr::POLLERR as u16 } else { 0 }
            }
            Object::Node(node) if wanted & input != 0 && self.is_console(node) => {
                let bytes = if self.input.is_ready() { input } else { 0 };
                (bytes | output) & wanted
            }
            _ => wanted & (input | output),
        }
    }

    fn is_console(&self, node: NodeId) -> bool {
        matches!(self.files.tree[node].kind, Kind::Device(Device::Console))
    }

    pub(crate) fn entries(&mut self, tid: Tid, descriptor: u64, to: u64, bytes: u64) -> Answer {
        let id = self.open_file(tid, descriptor)?;
        let Object::Node(node) = self.files.opens[id].object else {
            return Err(Errno::ENOTDIR.into());
        };
        if self.files.tree[node].links == 0 {
            return Err(Errno::ENOENT.into());
        }
        let skip = self.files.opens[id].offset as usize;
        let above = self.files.tree.above(node)?;
        let dots: [(&[u8], NodeId); 2] = [(b".", node), (b"..", above)];
        let names =
            self.files.tree.names(node)?.iter().map(|(name, &node)| (name.as_slice(), node));
        let mut words = Words::default();
        let mut listed = skip;
        for (name, node) in dots.into_iter().chain(names).skip(skip) {
            let length = (19 + name.len() + 1).next_multiple_of(8);
            if words.bytes().len() + length > bytes as usize {
                break;
            }
            listed += 1;
            // linux_dirent64: inode, offset of the next, length, type, name.
            let kind = (self.files.tree[node].kind.type_bits() >> 12) as u8;
            words.u64(node as u64 + 1).u64(listed as u64).u16(length as u16).u8(kind).put(name);
            words.zeros(length - 19 - name.len());
        }
        if listed == skip && self.files.tree.names(node)?.len() + 2 > skip {
            return Err(Errno::EINVAL.into());
        }
        self.copy_out(tid, to, words.bytes())?;
        self.files.opens[id].offset = listed as u64;
        Ok(words.bytes().len() as u64)
    }

    pub(crate) fn memory_file(&mut self, tid: Tid, name: u64, flags: u64) -> Answer {
        self.string_in(tid, name, 249)?;
        let file = self.vm.add_file(0, Medium::Memory, Warmth::Cold).map_err(|_| Errno::ENOMEM)?;
        let open = self.files.opens.add(Open::new(Object::Nameless(file), true, true));
        self.add_descriptor(tid, open, 0, flags as u32 & nr::MFD_CLOEXEC != 0)
    }
}

/// What `stat` tells.
pub(crate) struct Status {
    number: u64,
    mode: u32,
    links: u32,
    bytes: u64,
}

impl Status {
    /// As Linux lays `struct stat` out on x86-64.
    pub(crate) fn bytes(&self) -> [u8; 144] {
        let mut words = Words::default();
        words.u64(1).u64(self.number).u64(self.links.into()).u32(self.mode).u32(0).u32(0).u32(0);
        words.u64(0).u64(self.bytes).u64(PAGE_BYTES).u64(self.bytes.div_ceil(512));
        words.zeros(144 - words.bytes().len()); // no times are kept
        words.bytes().try_into().expect("144 bytes")
    }
}
