//! `SysV` shared memory: segments with a number, which live until they are removed and nobody has them
//! attached any more.

use vellum_mm::addr::{FileRef, PAGE_BYTES, VirtAddr};
use vellum_mm::objects::file::{Medium, Warmth};
use vellum_mm::spaces::map::{Map, Place};
use vellum_mm::spaces::vma::{Backing, Rights, Sharing, VmaFlags};

use super::memory::pages_in;
use super::{Answer, Errno, Halt};
use crate::kernel::Kernel;
use crate::tasks::Tid;

// Of linux/ipc.h and linux/shm.h.
const IPC_CREAT: u32 = 0o1000;
const IPC_EXCL: u32 = 0o2000;
const IPC_RMID: u64 = 0;
const IPC_STAT: u64 = 2;
const SHM_RDONLY: u64 = 0o10000;
/// Segments that there can be, as on Linux (`kernel.shmmni`).
const SEGMENTS_MAX: usize = 4096;
const SHM_DEST: u32 = 0o1000;

impl Kernel {
    pub(crate) fn shmget(&mut self, key: u64, bytes: u64, flags: u64) -> Answer {
        let (key, flags) = (key as u32, flags as u32);
        let found = self.files.segments.iter().find(|(_, segment)| key != 0 && segment.key == key);
        if let Some((&id, segment)) = found {
            if flags & (IPC_CREAT | IPC_EXCL) == IPC_CREAT | IPC_EXCL {
                return Err(Errno::EEXIST.into());
            }
            let fits = bytes <= segment.pages * PAGE_BYTES;
            return if fits { Ok(id.into()) } else { Err(Errno::EINVAL.into()) };
        }
        if key != 0 && flags & IPC_CREAT == 0 {
            return Err(Errno::ENOENT.into());
        }
        if self.files.segments.len() >= SEGMENTS_MAX {
            return Err(Errno::ENOSPC.into());
        }
        let pages = pages_in(bytes).filter(|&pages| pages > 0).ok_or(Errno::EINVAL)?;
        let file = self.vm.add_file(pages * PAGE_BYTES, Medium::Memory, Warmth::Cold);
        let file = file.map_err(|_| Errno::ENOMEM)?;
        Ok(self.files.add_segment(key, file, pages).into())
    }

    pub(crate) fn shmat(&mut self, tid: Tid, id: u64, address: u64, flags: u64) -> Answer {
        let segment = self.files.segments.get(&(id as u32)).ok_or(Errno::EINVAL)?;
        let (file, pages) = (segment.file, segment.pages);
        let read_only = flags & SHM_RDONLY != 0;
        let map = Map {
            place: if address == 0 {
                Place::Anywhere
            } else {
                Place::FixedFree(VirtAddr(address).page())
            },
            pages,
            rights: if read_only { Rights::READ } else { Rights::READ | Rights::WRITE },
            backing: Backing::File { file, offset: 0 },
            sharing: Sharing::Shared,
            flags: if read_only { VmaFlags::READ_ONLY } else { VmaFlags::empty() },
        };
        let mapped = self.change_space(tid, |k, at, space| k.vm.map(at, k.pc, space, map));
        let mapped = mapped.map_err(|halt| match halt {
            Halt::Errno(Errno::EEXIST) => Errno::EINVAL.into(),
            halt => halt,
        })?;
        Ok(mapped.start.address().0)
    }

    pub(crate) fn shmdt(&mut self, tid: Tid, address: u64) -> Answer {
        let area = self.space(tid).areas().find(VirtAddr(address).page()).copied();
        let area = area.filter(|area| area.pages.start.address().0 == address);
        let area = area.ok_or(Errno::EINVAL)?;
        let is_segment = |of| self.files.segments.values().any(|segment| segment.file == of);
        if !matches!(area.backing, Backing::File { file, offset: 0 } if is_segment(file)) {
            return Err(Errno::EINVAL.into());
        }
        self.change_space(tid, |k, at, space| k.vm.unmap(at, k.pc, space, area.pages))?;
        self.forget_unmapped();
        Ok(0)
    }

    pub(crate) fn shmctl(&mut self, tid: Tid, id: u64, command: u64, to: u64) -> Answer {
        let segment = self.files.segments.get_mut(&(id as u32)).ok_or(Errno::EINVAL)?;
        match command {
            IPC_RMID => {
                if !segment.removed {
                    (segment.removed, segment.key) = (true, 0);
                    self.files.nameless.push(segment.file);
                    self.forget_unmapped();
                }
                Ok(0)
            }
            IPC_STAT => {
                let (key, file, bytes) = (segment.key, segment.file, segment.pages * PAGE_BYTES);
                let mode = 0o600 | if segment.removed { SHM_DEST } else { 0 };
                let mut status = [0; 112]; // of asm-generic/shmbuf.h
                status[..4].copy_from_slice(&key.to_le_bytes());
                status[20..24].copy_from_slice(&mode.to_le_bytes());
                status[48..56].copy_from_slice(&bytes.to_le_bytes());
                status[88..96].copy_from_slice(&self.attached(file).to_le_bytes());
                self.copy_out(tid, to, &status)?;
                Ok(0)
            }
            _ => Err(Errno::EINVAL.into()), // those two are all there is
        }
    }

    /// How often a segment's file is mapped.
    fn attached(&self, file: FileRef) -> u64 {
        let spaces = self.tasks.spaces.iter().flatten();
        let areas = spaces.flat_map(|slot| slot.space.areas().iter());
        let maps = |backing| matches!(backing, Backing::File { file: of, .. } if of == file);
        areas.filter(|area| maps(area.backing)).count() as u64
    }
}
