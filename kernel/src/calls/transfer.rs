//! Calls that move bytes: read, write and their variants.

use alloc::vec;
use alloc::vec::Vec;

use linux_raw_sys::general as nr;
use vellum_mm::addr::{FileRef, Frame, PAGE_BYTES, VirtAddr};
use vellum_mm::fault::{Cause, Violation};
use vellum_mm::machine::Access;
use vellum_mm::vm::FileOutcome;

use super::{Answer, Errno, Halt};
use crate::arch::console;
use crate::files::open::Object;
use crate::files::pipe::PIPE_ATOMIC;
use crate::files::tree::{Device, Kind};
use crate::kernel::Kernel;
use crate::tasks::{Tid, Wait};

/// Bytes that one call moves at the most, as on Linux.
const BYTES_MAX: u64 = 0x7fff_f000;
/// Bytes copied at once where they pass through the kernel.
const CHUNK_BYTES: usize = 4096;

/// Where bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Into the program: it reads.
    ToProgram,
    /// Out of it: it writes.
    FromProgram,
}

impl Kernel {
    pub(crate) fn read(
        &mut self,
        tid: Tid,
        descriptor: u64,
        buffer: u64,
        bytes: u64,
        at: Option<u64>,
    ) -> Answer {
        let id = self.open_file(tid, descriptor)?;
        if !self.files.opens[id].readable {
            return Err(Errno::EBADF.into());
        }
        let bytes = bytes.min(BYTES_MAX);
        match self.object(id, at)? {
            Source::File(file) => {
                let from = at.unwrap_or(self.files.opens[id].offset);
                let size = self.file_bytes(file);
                let count = bytes.min(size.saturating_sub(from));
                let done = self.move_pages(tid, file, from, buffer, count, Way::ToProgram)?;
                if at.is_none() {
                    self.files.opens[id].offset = from + done;
                }
                Ok(done)
            }
            Source::Pipe(pipe) => self.read_pipe(tid, pipe, buffer, bytes, id),
            Source::Device(device) => self.read_device(tid, device, buffer, bytes, id),
        }
    }

    pub(crate) fn write(
        &mut self,
        tid: Tid,
        descriptor: u64,
        buffer: u64,
        bytes: u64,
        at: Option<u64>,
    ) -> Answer {
        let id = self.open_file(tid, descriptor)?;
        if !self.files.opens[id].writable {
            return Err(Errno::EBADF.into());
        }
        let bytes = bytes.min(BYTES_MAX);
        match self.object(id, at)? {
            Source::File(file) => {
                // Only a call that begins moves to the end: one that has waited goes on.
                let begins = self.tasks.threads[tid].progress == 0;
                if at.is_none() && begins && self.files.opens[id].append {
                    self.files.opens[id].offset = self.file_bytes(file);
                }
                let to = at.unwrap_or(self.files.opens[id].offset);
                let done = self.move_pages(tid, file, to, buffer, bytes, Way::FromProgram)?;
                if at.is_none() {
                    self.files.opens[id].offset = to + done;
                }
                Ok(done)
            }
            Source::Pipe(pipe) => self.write_pipe(tid, pipe, buffer, bytes, id),
            Source::Device(Device::Console) => self.write_console(tid, buffer, bytes),
            Source::Device(_) => Ok(bytes),
        }
    }

    /// What an open file's bytes come from.
    fn object(&mut self, id: usize, at: Option<u64>) -> Result<Source, Errno> {
        match self.files.opens[id].object {
            Object::Nameless(file) => Ok(Source::File(file)),
            Object::PipeIn(_) | Object::PipeOut(_) if at.is_some() => Err(Errno::ESPIPE),
            Object::PipeIn(pipe) | Object::PipeOut(pipe) => Ok(Source::Pipe(pipe)),
            Object::Node(node) => match self.files.tree[node].kind {
                Kind::Directory(..) => Err(Errno::EISDIR),
                Kind::Device(device) => Ok(Source::Device(device)),
                Kind::Link(_) => Err(Errno::EINVAL),
                Kind::Stored(_) | Kind::File(..) => Ok(Source::File(self.contents(node)?)),
            },
        }
    }

    /// Bytes of a file.
    pub(crate) fn file_bytes(&self, file: FileRef) -> u64 {
        self.vm.store().files.get(file).lock().bytes
    }

    /// Moves bytes between a file's pages and a program's; those that are moved stay so when it must
    /// wait.
    fn move_pages(
        &mut self,
        tid: Tid,
        file: FileRef,
        start: u64,
        buffer: u64,
        count: u64,
        way: Way,
    ) -> Answer {
        let access = if way == Way::ToProgram { Access::Write } else { Access::Read };
        // Ends: each turn moves bytes, or finds that the program's page was evicted for the file's.
        while self.tasks.threads[tid].progress < count {
            let done = self.tasks.threads[tid].progress;
            let (at, address) = (start + done, buffer.wrapping_add(done));
            let (within, offset) = (at % PAGE_BYTES, address % PAGE_BYTES);
            let part = (count - done).min(PAGE_BYTES - within).min(PAGE_BYTES - offset);
            let page = VirtAddr(address).page();
            let own = match self.reach(tid, page, access).map_err(Halt::in_call) {
                Err(Halt::Errno(_)) if done > 0 => break,
                other => other?,
            };
            let cached = match self.file_frame(tid, file, at, part, way) {
                Err(Halt::Errno(_)) if done > 0 => break,
                other => other?,
            };
            if self.look(tid, page, access) != Some(own) {
                continue;
            }
            let own = (own, offset);
            let cached = (cached, within);
            match way {
                Way::ToProgram => self.copy_bytes(cached, own, part),
                Way::FromProgram => self.copy_bytes(own, cached, part),
            }
            self.tasks.threads[tid].progress += part;
        }
        Ok(self.tasks.threads[tid].progress.min(count))
    }

    fn copy_bytes(&self, from: (Frame, u64), to: (Frame, u64), count: u64) {
        let mut buffer = [0; 512];
        let mut done = 0;
        while done < count {
            let part = (count - done).min(buffer.len() as u64);
            let bytes = &mut buffer[..part as usize];
            self.pc.memory.read(from.0, from.1 + done, bytes);
            self.pc.memory.write(to.0, to.1 + done, bytes);
            done += part;
        }
    }

    /// The frame of the page cache that holds byte `at` of a file, which is to be written if bytes
    /// come from the program.
    pub(crate) fn file_frame(
        &mut self,
        tid: Tid,
        file: FileRef,
        at: u64,
        count: u64,
        way: Way,
    ) -> Result<Frame, Halt> {
        let now = crate::kernel::now();
        // Ends: each turn after the first follows a request that was done at once.
        loop {
            let (index, from) = (at / PAGE_BYTES, at % PAGE_BYTES);
            let outcome = match way {
                Way::ToProgram => self.vm.read_page(now, self.pc, file, index),
                Way::FromProgram => {
                    self.vm.write_page(now, self.pc, file, index, from, from + count)
                }
            };
            self.pump();
            self.reclaim_in_background();
            match outcome {
                FileOutcome::Done(Some(frame)) => return Ok(frame),
                FileOutcome::Wait(request) if self.under_way[request.0 as usize] => {
                    return Err(Halt::Wait(Wait::Request(request), u64::MAX));
                }
                FileOutcome::Wait(_) => {}
                FileOutcome::Failed(Cause::OutOfMemory) => return Err(self.out_of_memory(tid)),
                FileOutcome::Failed(Cause::Violation(Violation::BeyondFile)) => {
                    return Err(Errno::EFBIG.into());
                }
                FileOutcome::Done(None) | FileOutcome::Failed(_) => return Err(Errno::EIO.into()),
            }
        }
    }

    /// Bytes of a file for the kernel itself; fewer at its end.
    ///
    /// # Errors
    /// If it must wait, or cannot be read.
    pub(crate) fn read_file(
        &mut self,
        tid: Tid,
        file: FileRef,
        start: u64,
        bytes: &mut [u8],
    ) -> Result<usize, Halt> {
        let count = self.file_bytes(file).saturating_sub(start).min(bytes.len() as u64) as usize;
        let mut done = 0;
        while done < count {
            let at = start + done as u64;
            let offset = (at % PAGE_BYTES) as usize;
            let part = (count - done).min(PAGE_BYTES as usize - offset);
            let frame = self.file_frame(tid, file, at, part as u64, Way::ToProgram)?;
            self.pc.memory.read(frame, offset as u64, &mut bytes[done..done + part]);
            done += part;
        }
        Ok(count)
    }

    fn read_pipe(&mut self, tid: Tid, pipe: usize, buffer: u64, bytes: u64, id: usize) -> Answer {
        let held = &self.files.pipes[pipe];
        let count = held.bytes.len().min(bytes as usize);
        if count == 0 && bytes > 0 {
            return match () {
                () if held.writers == 0 => Ok(0),
                () if self.files.opens[id].nonblocking => Err(Errno::EAGAIN.into()),
                () => Err(Halt::Wait(Wait::Pipe(pipe), u64::MAX)),
            };
        }
        let copy: Vec<u8> = held.bytes.iter().take(count).copied().collect();
        self.copy_out(tid, buffer, &copy)?;
        self.files.pipes[pipe].bytes.drain(..count);
        self.wake_all(|wait| matches!(wait, Wait::Pipe(at) if at == pipe) || wait == Wait::Poll);
        Ok(count as u64)
    }

    fn write_pipe(&mut self, tid: Tid, pipe: usize, buffer: u64, bytes: u64, id: usize) -> Answer {
        // Ends: each turn moves bytes or waits.
        loop {
            let done = self.tasks.threads[tid].progress;
            if done == bytes {
                return Ok(done);
            }
            let held = &self.files.pipes[pipe];
            if held.readers == 0 {
                self.send(tid, nr::SIGPIPE);
                return if done > 0 { Ok(done) } else { Err(Errno::EPIPE.into()) };
            }
            let wanted = (bytes - done) as usize;
            let least = if bytes as usize <= PIPE_ATOMIC { wanted } else { 1 };
            if held.room() < least {
                return match () {
                    () if !self.files.opens[id].nonblocking => {
                        Err(Halt::Wait(Wait::Pipe(pipe), u64::MAX))
                    }
                    () if done > 0 => Ok(done),
                    () => Err(Errno::EAGAIN.into()),
                };
            }
            let mut copy = vec![0; wanted.min(held.room()).min(CHUNK_BYTES)];
            self.copy_in(tid, buffer.wrapping_add(done), &mut copy)?;
            self.files.pipes[pipe].bytes.extend(&copy);
            self.tasks.threads[tid].progress += copy.len() as u64;
            self.wake_all(|wait| {
                matches!(wait, Wait::Pipe(at) if at == pipe) || wait == Wait::Poll
            });
        }
    }

    fn read_device(
        &mut self,
        tid: Tid,
        device: Device,
        buffer: u64,
        bytes: u64,
        id: usize,
    ) -> Answer {
        match device {
            Device::Null => Ok(0),
            Device::Console => self.read_console(tid, buffer, bytes, id),
            Device::Zero | Device::Random => {
                let mut done = self.tasks.threads[tid].progress;
                let mut chunk = [0; 256];
                while done < bytes {
                    let part = (bytes - done).min(chunk.len() as u64) as usize;
                    if device == Device::Random {
                        self.random(&mut chunk[..part]);
                    }
                    self.copy_out(tid, buffer.wrapping_add(done), &chunk[..part])?;
                    done += part as u64;
                    self.tasks.threads[tid].progress = done;
                }
                Ok(done)
            }
        }
    }

    fn read_console(&mut self, tid: Tid, buffer: u64, bytes: u64, id: usize) -> Answer {
        if bytes > 0 && !self.input.is_ready() {
            return match () {
                () if self.files.opens[id].nonblocking => Err(Errno::EAGAIN.into()),
                () => Err(Halt::Wait(Wait::Console, u64::MAX)),
            };
        }
        let copy = self.input.first(bytes as usize);
        self.copy_out(tid, buffer, &copy)?;
        self.input.consume(copy.len());
        Ok(copy.len() as u64)
    }

    fn write_console(&mut self, tid: Tid, buffer: u64, bytes: u64) -> Answer {
        let mut chunk = [0; 256];
        while self.tasks.threads[tid].progress < bytes {
            let done = self.tasks.threads[tid].progress;
            let part = (bytes - done).min(chunk.len() as u64) as usize;
            self.copy_in(tid, buffer.wrapping_add(done), &mut chunk[..part])?;
            console::write(&chunk[..part]);
            self.tasks.threads[tid].progress += part as u64;
        }
        Ok(bytes)
    }

    pub(crate) fn vectored(
        &mut self,
        tid: Tid,
        descriptor: u64,
        vectors: u64,
        count: u64,
        write: bool,
    ) -> Answer {
        if count > u64::from(nr::UIO_MAXIOV) {
            return Err(Errno::EINVAL.into());
        }
        // One part a call: who gets fewer bytes than it asked for asks again.
        for number in 0..count {
            let base = self.word_in(tid, vectors.wrapping_add(number * 16))?;
            let bytes = self.word_in(tid, vectors.wrapping_add(number * 16 + 8))?;
            if bytes > 0 {
                return if write {
                    self.write(tid, descriptor, base, bytes, None)
                } else {
                    self.read(tid, descriptor, base, bytes, None)
                };
            }
        }
        self.open_file(tid, descriptor)?;
        Ok(0)
    }
}

/// Where bytes come from or go to.
enum Source {
    File(FileRef),
    Pipe(usize),
    Device(Device),
}
