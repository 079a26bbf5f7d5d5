//! Calls that move bytes: read, write and their variants.

use vellum_mm::addr::{FileRef, Frame, PAGE_BYTES, VirtAddr};
use vellum_mm::fault::{Cause, Violation};
use vellum_mm::machine::Access;
use vellum_mm::vm::FileOutcome;

use super::parts::Parts;
use super::{Answer, Arguments, Errno, Halt};
use crate::files::OpenId;
use crate::files::open::Object;
use crate::files::tree::{Device, Kind};
use crate::kernel::Kernel;
use crate::tasks::{Tid, Wait};

/// Where bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Into the program: it reads.
    ToProgram,
    /// Out of it: it writes.
    FromProgram,
}

/// Where bytes of a file are.
#[derive(Clone, Copy)]
struct Span {
    file: FileRef,
    start: u64,
    count: u64,
    way: Way,
    /// It has, or had, a name: new pages need room among the files.
    named: bool,
}

impl Kernel {
    pub(crate) fn read(&mut self, tid: Tid, descriptor: u64, buffer: u64, bytes: u64) -> Answer {
        self.transfer(tid, descriptor, Parts::new(&[(buffer, bytes)]), None, Way::ToProgram)
    }

    pub(crate) fn write(&mut self, tid: Tid, descriptor: u64, buffer: u64, bytes: u64) -> Answer {
        self.transfer(tid, descriptor, Parts::new(&[(buffer, bytes)]), None, Way::FromProgram)
    }

    /// `pread`, `pwrite`.
    pub(crate) fn at_place(&mut self, tid: Tid, a: &Arguments, way: Way) -> Answer {
        let &[descriptor, buffer, bytes, at, ..] = a;
        if i64::try_from(at).is_err() {
            return Err(Errno::EINVAL.into());
        }
        self.transfer(tid, descriptor, Parts::new(&[(buffer, bytes)]), Some(at), way)
    }

    /// `readv`, `writev`.
    pub(crate) fn vectored(&mut self, tid: Tid, a: &Arguments, way: Way) -> Answer {
        let parts = self.parts_in(tid, a[1], a[2])?;
        self.transfer(tid, a[0], Parts::new(&parts), None, way)
    }

    /// `preadv`, `pwritev`.
    pub(crate) fn vectored_at_place(&mut self, tid: Tid, a: &Arguments, way: Way) -> Answer {
        if i64::try_from(a[3]).is_err() {
            return Err(Errno::EINVAL.into());
        }
        let parts = self.parts_in(tid, a[1], a[2])?;
        self.transfer(tid, a[0], Parts::new(&parts), Some(a[3]), way)
    }

    /// `preadv2`, `pwritev2`: no flag is known, and -1 is the present position.
    pub(crate) fn vectored_with_flags(&mut self, tid: Tid, a: &Arguments, way: Way) -> Answer {
        match a[5] {
            0 if a[3] == u64::MAX => self.vectored(tid, a, way),
            0 => self.vectored_at_place(tid, a, way),
            _ => Err(Errno::EOPNOTSUPP.into()),
        }
    }

    /// Moves bytes between an open file and a program. A call that must wait keeps its file open: what
    /// happens to the descriptor meanwhile is for later calls.
    fn transfer(
        &mut self,
        tid: Tid,
        descriptor: u64,
        parts: Parts<'_>,
        at: Option<u64>,
        way: Way,
    ) -> Answer {
        let id = match self.tasks.threads[tid].held {
            Some(held) => held,
            None => self.open_file(tid, descriptor)?,
        };
        let answer = match way {
            Way::ToProgram => self.read_open(tid, id, parts, at),
            Way::FromProgram => self.write_open(tid, id, parts, at),
        };
        let waits = matches!(answer, Err(Halt::Wait(..) | Halt::Again | Halt::Interrupted));
        if let Some(thread) = self.tasks.threads.get_mut(tid) {
            let before = core::mem::replace(&mut thread.held, waits.then_some(id));
            match (before, waits) {
                (None, true) => self.files.opens[id].references += 1,
                (Some(_), false) => self.release(id),
                _ => {}
            }
        }
        answer
    }

    fn read_open(&mut self, tid: Tid, id: OpenId, parts: Parts<'_>, at: Option<u64>) -> Answer {
        if !self.files.opens[id].readable {
            return Err(Errno::EBADF.into());
        }
        match self.source(id, at)? {
            Source::File { file, named } => {
                let start = at.unwrap_or(self.files.opens[id].offset);
                let size = self.file_bytes(file);
                let count = parts.bytes().min(size.saturating_sub(start));
                let span = Span { file, start, count, way: Way::ToProgram, named };
                let done = self.move_pages(tid, span, parts)?;
                if at.is_none() {
                    self.files.opens[id].offset = start + done;
                }
                Ok(done)
            }
            Source::Pipe(pipe) => self.read_pipe(tid, pipe, parts, id),
            Source::Device(device) => self.read_device(tid, device, parts, id),
        }
    }

    fn write_open(&mut self, tid: Tid, id: OpenId, parts: Parts<'_>, at: Option<u64>) -> Answer {
        if !self.files.opens[id].writable {
            return Err(Errno::EBADF.into());
        }
        match self.source(id, at)? {
            Source::File { file, named } => {
                let begun = self.tasks.threads[tid].progress;
                let open = &self.files.opens[id];
                let start = match at {
                    // As on Linux, at the end wherever it was to be.
                    Some(_) if open.append => self.file_bytes(file).saturating_sub(begun),
                    Some(at) => at,
                    // Only a call that begins moves to the end: one that has waited goes on.
                    None if open.append && begun == 0 => self.file_bytes(file),
                    None => open.offset,
                };
                if at.is_none() {
                    self.files.opens[id].offset = start;
                }
                let count = parts.bytes();
                let span = Span { file, start, count, way: Way::FromProgram, named };
                let done = self.move_pages(tid, span, parts)?;
                if at.is_none() {
                    self.files.opens[id].offset = start + done;
                }
                Ok(done)
            }
            Source::Pipe(pipe) => self.write_pipe(tid, pipe, parts, id),
            Source::Device(device) => self.write_device(tid, device, parts),
        }
    }

    /// What an open file's bytes come from.
    fn source(&mut self, id: OpenId, at: Option<u64>) -> Result<Source, Errno> {
        match self.files.opens[id].object {
            Object::Nameless(file) => Ok(Source::File { file, named: false }),
            Object::PipeIn(_) | Object::PipeOut(_) if at.is_some() => Err(Errno::ESPIPE),
            Object::PipeIn(pipe) | Object::PipeOut(pipe) => Ok(Source::Pipe(pipe)),
            Object::Node(node) => match self.files.tree[node].kind {
                Kind::Directory(..) => Err(Errno::EISDIR),
                Kind::Device(device) => Ok(Source::Device(device)),
                Kind::Link(_) => Err(Errno::EINVAL),
                Kind::Stored(_) | Kind::File(..) => {
                    Ok(Source::File { file: self.contents(node)?, named: true })
                }
            },
        }
    }

    /// Bytes of a file.
    pub(crate) fn file_bytes(&self, file: FileRef) -> u64 {
        self.vm.store().files.get(file).lock().bytes
    }

    /// Moves bytes between a file's pages and a program's; those that are moved stay so when it must
    /// wait.
    fn move_pages(&mut self, tid: Tid, span: Span, parts: Parts<'_>) -> Answer {
        let Span { file, start, count, way, named } = span;
        let access = if way == Way::ToProgram { Access::Write } else { Access::Read };
        // Ends: each turn moves bytes, or finds that the program's page was evicted for the file's.
        while self.tasks.threads[tid].progress < count {
            let done = self.tasks.threads[tid].progress;
            let (address, follow) = parts.at(done);
            let at = start + done;
            let (within, offset) = (at % PAGE_BYTES, address % PAGE_BYTES);
            let part = (count - done).min(follow).min(PAGE_BYTES - within).min(PAGE_BYTES - offset);
            let page = VirtAddr(address).page();
            let own = match self.reach(tid, page, access).map_err(Halt::in_call) {
                Err(Halt::Errno(_)) if done > 0 => break,
                other => other?,
            };
            let room = if named && way == Way::FromProgram {
                self.room_for(file, at / PAGE_BYTES)
            } else {
                Ok(())
            };
            let cached = room.map_err(Halt::from);
            let cached = cached.and_then(|()| self.file_frame(tid, file, at, part, way));
            let cached = match cached {
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
}

/// Where bytes come from or go to.
enum Source {
    File { file: FileRef, named: bool },
    Pipe(usize),
    Device(Device),
}
