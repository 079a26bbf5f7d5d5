//! Calls that move bytes through what has no pages: pipes and devices.

use linux_raw_sys::general as nr;

use super::parts::Parts;
use super::{Answer, Errno, Halt};
use crate::arch::console;
use crate::files::OpenId;
use crate::files::pipe::PIPE_ATOMIC;
use crate::files::tree::Device;
use crate::kernel::Kernel;
use crate::tasks::{Tid, Wait};

/// Bytes copied at once. A page that cannot be reached costs a call no more than these: what is done
/// before it counts.
const STEP_BYTES: usize = 4096;

impl Kernel {
    pub(crate) fn read_pipe(
        &mut self,
        tid: Tid,
        pipe: usize,
        parts: Parts<'_>,
        id: OpenId,
    ) -> Answer {
        let held = &self.files.pipes[pipe];
        let count = held.bytes.len().min(parts.bytes() as usize);
        if count == 0 && parts.bytes() > 0 {
            return match () {
                () if held.writers == 0 => Ok(0),
                () if self.files.opens[id].nonblocking => Err(Errno::EAGAIN.into()),
                () => Err(Halt::Wait(Wait::Pipe(pipe), u64::MAX)),
            };
        }
        let mut copy = [0; STEP_BYTES];
        let mut done = 0;
        while done < count {
            let step = &mut copy[..(count - done).min(STEP_BYTES)];
            let bytes = self.files.pipes[pipe].bytes.range(done..);
            step.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            match self.scatter(tid, parts, done as u64, step) {
                Err(Halt::Errno(_)) if done > 0 => break,
                other => other?,
            }
            done += step.len();
        }
        // Only now, as who must wait for a page of the program's reads all of it again.
        self.files.pipes[pipe].bytes.drain(..done);
        self.wake_pipe(pipe);
        Ok(done as u64)
    }

    /// Whoever waits for a pipe looks again.
    pub(crate) fn wake_pipe(&mut self, pipe: usize) {
        self.wake_all(|wait| matches!(wait, Wait::Pipe(at) if at == pipe) || wait == Wait::Poll);
    }

    pub(crate) fn write_pipe(
        &mut self,
        tid: Tid,
        pipe: usize,
        parts: Parts<'_>,
        id: OpenId,
    ) -> Answer {
        let bytes = parts.bytes();
        // Ends: each turn moves bytes or waits.
        loop {
            let done = self.tasks.threads[tid].progress;
            if done >= bytes {
                return Ok(bytes);
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
            let mut copy = [0; STEP_BYTES];
            let step = &mut copy[..wanted.min(held.room()).min(STEP_BYTES)];
            match self.gather(tid, parts, done, step) {
                Err(Halt::Errno(_)) if done > 0 => return Ok(done),
                other => other?,
            }
            self.files.pipes[pipe].bytes.extend(step.iter());
            self.tasks.threads[tid].progress += step.len() as u64;
            self.wake_pipe(pipe);
        }
    }

    pub(crate) fn read_device(
        &mut self,
        tid: Tid,
        device: Device,
        parts: Parts<'_>,
        id: OpenId,
    ) -> Answer {
        match device {
            Device::Null => Ok(0),
            Device::Descriptor(_) => Err(Errno::EBADF.into()),
            Device::Console => self.read_console(tid, parts, id),
            Device::Zero | Device::Full | Device::Random => {
                let bytes = parts.bytes();
                let mut chunk = [0; 256];
                // Ends: each turn moves bytes or waits.
                while self.tasks.threads[tid].progress < bytes {
                    let done = self.tasks.threads[tid].progress;
                    let step = &mut chunk[..(bytes - done).min(256) as usize];
                    if device == Device::Random {
                        self.random(step);
                    }
                    match self.scatter(tid, parts, done, step) {
                        Err(Halt::Errno(_)) if done > 0 => return Ok(done),
                        other => other?,
                    }
                    self.tasks.threads[tid].progress += step.len() as u64;
                }
                Ok(bytes)
            }
        }
    }

    pub(crate) fn write_device(&mut self, tid: Tid, device: Device, parts: Parts<'_>) -> Answer {
        match device {
            Device::Console => self.write_console(tid, parts),
            Device::Full if parts.bytes() > 0 => Err(Errno::ENOSPC.into()),
            Device::Descriptor(_) => Err(Errno::EBADF.into()),
            Device::Null | Device::Zero | Device::Full | Device::Random => Ok(parts.bytes()),
        }
    }

    fn read_console(&mut self, tid: Tid, parts: Parts<'_>, id: OpenId) -> Answer {
        if parts.bytes() > 0 && !self.input.is_ready() {
            return match () {
                () if self.files.opens[id].nonblocking => Err(Errno::EAGAIN.into()),
                () => Err(Halt::Wait(Wait::Console, u64::MAX)),
            };
        }
        let copy = self.input.first(parts.bytes() as usize);
        self.scatter(tid, parts, 0, &copy)?;
        self.input.consume(copy.len());
        Ok(copy.len() as u64)
    }

    fn write_console(&mut self, tid: Tid, parts: Parts<'_>) -> Answer {
        let bytes = parts.bytes();
        let mut chunk = [0; 256];
        while self.tasks.threads[tid].progress < bytes {
            let done = self.tasks.threads[tid].progress;
            let step = &mut chunk[..(bytes - done).min(256) as usize];
            match self.gather(tid, parts, done, step) {
                Err(Halt::Errno(_)) if done > 0 => return Ok(done),
                other => other?,
            }
            console::write(step);
            self.tasks.threads[tid].progress += step.len() as u64;
        }
        Ok(bytes)
    }
}
