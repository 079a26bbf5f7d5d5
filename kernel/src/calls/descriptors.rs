//! Calls on descriptors, whatever they refer to.

use linux_raw_sys::{general as nr, ioctl};

use super::{Answer, Errno, HEAP_RESERVE, Halt};
use crate::files::OpenId;
use crate::files::open::{Lock, Object, Open};
use crate::files::pipe::{PIPE_ATOMIC, PIPE_BYTES};
use crate::files::tree::{Kind, NodeId};
use crate::kernel::Kernel;
use crate::tasks::{Descriptor, Tid, Wait};

/// Descriptors of one process.
pub(crate) const DESCRIPTORS_MAX: usize = 1024;
/// Undoes `FIOCLEX`.
const FIONCLEX: u32 = 0x5450;

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
        if closed.lock.is_some() {
            self.wake_all(|wait| wait == Wait::Poll);
        }
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

    pub(crate) fn close(&mut self, tid: Tid, descriptor: u64) -> Answer {
        let open = self.open_file(tid, descriptor)?;
        self.process(tid).descriptors[descriptor as usize] = None;
        self.release(open);
        Ok(0)
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
        if flags & !u64::from(nr::O_CLOEXEC) != 0 {
            return Err(Errno::EINVAL.into());
        }
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
            nr::F_SETFD => Ok(self.set_close_on_exec(tid, descriptor, value & 1 != 0)),
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

    fn set_close_on_exec(&mut self, tid: Tid, descriptor: u64, close_on_exec: bool) -> u64 {
        let entry = &mut self.process(tid).descriptors[descriptor as usize];
        *entry = entry.map(|entry| Descriptor { close_on_exec, ..entry });
        0
    }

    /// No file is a terminal: even the serial line is shown as one that is not, so that programs buffer
    /// what they write to it.
    pub(crate) fn device_control(
        &mut self,
        tid: Tid,
        descriptor: u64,
        request: u64,
        value: u64,
    ) -> Answer {
        let id = self.open_file(tid, descriptor)?;
        match request as u32 {
            ioctl::FIOCLEX => Ok(self.set_close_on_exec(tid, descriptor, true)),
            FIONCLEX => Ok(self.set_close_on_exec(tid, descriptor, false)),
            ioctl::FIONBIO => {
                self.files.opens[id].nonblocking = self.half_in(tid, value)? != 0;
                Ok(0)
            }
            ioctl::FIONREAD => {
                let bytes = self.bytes_to_read(id)?.min(i32::MAX as u64) as u32;
                self.copy_out(tid, value, &bytes.to_le_bytes())?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY.into()),
        }
    }

    /// Bytes that can be read without waiting.
    fn bytes_to_read(&mut self, id: OpenId) -> Result<u64, Errno> {
        let open = &self.files.opens[id];
        let offset = open.offset;
        let file = match open.object {
            Object::PipeIn(pipe) | Object::PipeOut(pipe) => {
                return Ok(self.files.pipes[pipe].bytes.len() as u64);
            }
            Object::Nameless(file) => file,
            Object::Node(node) => self.contents(node).map_err(|_| Errno::ENOTTY)?,
        };
        Ok(self.file_bytes(file).saturating_sub(offset))
    }

    /// `flock`: locks of whole files, which open files hold.
    pub(crate) fn lock_file(&mut self, tid: Tid, descriptor: u64, operation: u64) -> Answer {
        let id = self.open_file(tid, descriptor)?;
        let operation = operation as u32;
        let wanted = match operation & !nr::LOCK_NB {
            nr::LOCK_SH => Some(Lock::Shared),
            nr::LOCK_EX => Some(Lock::Exclusive),
            nr::LOCK_UN => None,
            _ => return Err(Errno::EINVAL.into()),
        };
        if let Some(wanted) = wanted
            && self.files.opens.contends(id, wanted)
        {
            if operation & nr::LOCK_NB != 0 {
                return Err(Errno::EAGAIN.into());
            }
            // Who asks for another kind of lock may lose the one that it has, as on Linux.
            self.files.opens[id].lock = None;
            return Err(Halt::Wait(Wait::Poll, u64::MAX));
        }
        self.files.opens[id].lock = wanted;
        self.wake_all(|wait| wait == Wait::Poll);
        Ok(0)
    }

    pub(crate) fn pipe(&mut self, tid: Tid, to: u64, flags: u64) -> Answer {
        if flags & !u64::from(nr::O_CLOEXEC | nr::O_NONBLOCK) != 0 {
            return Err(Errno::EINVAL.into());
        }
        // Both words can be written before anything is made.
        self.copy_out(tid, to, &[0; 8])?;
        self.files.opens.make_room(2)?;
        let is_plenty = crate::arch::heap_has_room(2 * HEAP_RESERVE);
        let bytes = if is_plenty { PIPE_BYTES } else { PIPE_ATOMIC };
        let pipe = self.files.pipes.add(bytes).ok_or(Errno::ENFILE)?;
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
}
