//! Calls on open files.

use alloc::vec::Vec;
use core::ops::Bound;

use linux_raw_sys::general as nr;
use vellum_mm::addr::{FileRef, PAGE_BYTES};
use vellum_mm::objects::file::{Medium, Warmth};

use super::descriptors::DESCRIPTORS_MAX;
use super::transfer::Way;
use super::{Answer, Errno, Halt};
use crate::files::OpenId;
use crate::files::open::{Object, Open};
use crate::files::tree::{Device, Kind, NodeId, Writable};
use crate::kernel::Kernel;
use crate::tasks::{Tid, Wait};
use crate::words::Words;

impl Kernel {
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

    /// Opens a node, but for those of `/dev/fd`: they lead to what is open already.
    pub(crate) fn open_node(&mut self, tid: Tid, node: NodeId, flags: u32) -> Result<OpenId, Halt> {
        let readable = flags & nr::O_ACCMODE != nr::O_WRONLY;
        let writable = flags & nr::O_ACCMODE != nr::O_RDONLY;
        self.files.opens.make_room(1)?;
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
            nr::SEEK_DATA | nr::SEEK_HOLE => {
                let to = self.seek_content(id, by, whence as u32 == nr::SEEK_DATA, size)?;
                self.files.opens[id].offset = to;
                return Ok(to);
            }
            _ => return Err(Errno::EINVAL.into()),
        };
        let to = base.checked_add_signed(by).filter(|&to| i64::try_from(to).is_ok());
        let to = to.ok_or(Errno::EINVAL)?;
        self.files.opens[id].offset = to;
        Ok(to)
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

    pub(crate) fn readiness(&mut self, tid: Tid, descriptor: i32, wanted: u16) -> u16 {
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

    /// Whether a descriptor leads to `/dev/zero`, a mapping of which is anonymous memory.
    pub(crate) fn is_zero_device(&mut self, tid: Tid, descriptor: u64) -> bool {
        let Ok(id) = self.open_file(tid, descriptor) else { return false };
        let Object::Node(node) = self.files.opens[id].object else { return false };
        self.files.tree[node].kind == Kind::Device(Device::Zero)
    }

    pub(crate) fn entries(&mut self, tid: Tid, descriptor: u64, to: u64, bytes: u64) -> Answer {
        let id = self.open_file(tid, descriptor)?;
        let Object::Node(node) = self.files.opens[id].object else {
            return Err(Errno::ENOTDIR.into());
        };
        if self.files.tree[node].links == 0 {
            return Err(Errno::ENOENT.into());
        }
        let Open { offset, listed: (listed_to, last), .. } = &self.files.opens[id];
        let (skip, above) = (*offset as usize, self.files.tree.above(node)?);
        let dots: [(&[u8], NodeId); 2] = [(b".", node), (b"..", above)];
        // What is removed between two listings must not hide what comes after: the second goes on by
        // name, unless the program has moved the offset.
        let goes_on = skip > dots.len() && offset == listed_to;
        let start = if goes_on { Bound::Excluded(last.as_slice()) } else { Bound::Unbounded };
        let names = self.files.tree.names(node)?.range::<[u8], _>((start, Bound::Unbounded));
        let names = names.map(|(name, &node)| (name.as_slice(), node));
        let to_skip = if goes_on { dots.len() } else { skip };
        let all = dots.into_iter().skip(to_skip);
        let all = all.chain(names.skip(to_skip.saturating_sub(dots.len())));
        let mut words = Words::default();
        let (mut count, mut last) = (skip, Vec::new());
        for (name, node) in all {
            let length = (19 + name.len() + 1).next_multiple_of(8);
            if words.bytes().len() + length > bytes as usize {
                if words.bytes().is_empty() {
                    return Err(Errno::EINVAL.into());
                }
                break;
            }
            count += 1;
            last = name.to_vec();
            // linux_dirent64: inode, offset of the next, length, type, name.
            let kind = (self.files.tree[node].kind.type_bits() >> 12) as u8;
            words.u64(node as u64 + 1).u64(count as u64).u16(length as u16).u8(kind).put(name);
            words.zeros(length - 19 - name.len());
        }
        self.copy_out(tid, to, words.bytes())?;
        if count > skip {
            let open = &mut self.files.opens[id];
            (open.offset, open.listed) = (count as u64, (count as u64, last));
        }
        Ok(words.bytes().len() as u64)
    }

    pub(crate) fn memory_file(&mut self, tid: Tid, name: u64, flags: u64) -> Answer {
        let known = nr::MFD_CLOEXEC | nr::MFD_ALLOW_SEALING | nr::MFD_NOEXEC_SEAL | nr::MFD_EXEC;
        if flags & !u64::from(known) != 0 {
            return Err(Errno::EINVAL.into());
        }
        self.string_in(tid, name, 249)?;
        let close_on_exec = flags as u32 & nr::MFD_CLOEXEC != 0;
        self.open_nameless(tid, nr::O_RDWR | if close_on_exec { nr::O_CLOEXEC } else { 0 })
    }

    /// A new file that never has a name, with flags as of `open`.
    pub(crate) fn open_nameless(&mut self, tid: Tid, flags: u32) -> Answer {
        let readable = flags & nr::O_ACCMODE != nr::O_WRONLY;
        if flags & nr::O_ACCMODE == nr::O_RDONLY {
            return Err(Errno::EINVAL.into());
        }
        self.files.opens.make_room(1)?;
        let file = self.vm.add_file(0, Medium::Memory, Warmth::Cold).map_err(|_| Errno::ENOMEM)?;
        let open = self.files.opens.add(Open {
            append: flags & nr::O_APPEND != 0,
            ..Open::new(Object::Nameless(file), readable, true)
        });
        self.add_descriptor(tid, open, 0, flags & nr::O_CLOEXEC != 0)
    }
}
