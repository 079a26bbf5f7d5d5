//! What files that live in memory take of it: at most half, as Linux's tmpfs has it, so that a writer
//! is refused and nobody killed.
//!
//! Pages are counted when it matters. Between two counts as many may be written as half of what was
//! left: what comes by mappings, which nobody counts, is noticed while there is still some room.

use vellum_mm::addr::{FileRef, PAGE_BYTES};
use vellum_mm::objects::index::Cached;

use super::transfer::Way;
use super::{Answer, Errno, Halt};
use crate::files::OpenId;
use crate::files::open::Object;
use crate::files::tree::{Kind, Writable};
use crate::kernel::Kernel;
use crate::tasks::Tid;

impl Kernel {
    /// Pages of a file that are in memory or swap.
    pub(crate) fn pages_of(&self, file: FileRef) -> u64 {
        let object = self.vm.store().files.get(file);
        let object = object.lock();
        let mut count = 0;
        object.index.for_each(self.pc, 0, object.pages(), |_, _| {
            count += 1;
            true
        });
        count
    }

    /// Pages of all files that live in memory and have, or had, a name.
    pub(crate) fn pages_in_files(&self) -> u64 {
        self.files.tree.files_in_memory().map(|file| self.pages_of(file)).sum()
    }

    /// How many they may be.
    pub(crate) fn file_pages_max(&self) -> u64 {
        self.vm.store().frames.zone().frames_total() as u64 / 2
    }

    /// Makes sure that page `index` of a file is there or may be added.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub(crate) fn room_for(&mut self, file: FileRef, index: u64) -> Result<(), Errno> {
        let object = self.vm.store().files.get(file);
        if object.lock().index.get(self.pc, index) != Cached::Nothing {
            return Ok(());
        }
        if self.files.room_pages == 0 {
            let left = self.file_pages_max().saturating_sub(self.pages_in_files());
            self.files.room_pages = left.div_ceil(2);
        }
        self.files.room_pages = self.files.room_pages.checked_sub(1).ok_or(Errno::ENOSPC)?;
        Ok(())
    }

    /// The first byte from `from` on that was written, or was not: `SEEK_DATA`, `SEEK_HOLE`.
    ///
    /// # Errors
    /// `ENXIO` beyond the end; `EINVAL` of what is no file.
    pub(crate) fn seek_content(
        &mut self,
        id: OpenId,
        from: i64,
        data: bool,
        size: u64,
    ) -> Result<u64, Errno> {
        let from = u64::try_from(from).ok().filter(|&from| from < size).ok_or(Errno::ENXIO)?;
        let (file, in_memory) = match self.files.opens[id].object {
            Object::Nameless(file) => (file, true),
            Object::Node(node) => {
                let file = self.contents(node)?;
                (file, self.files.tree[node].kind == Kind::File(file, Writable::Yes))
            }
            _ => return Err(Errno::ESPIPE),
        };
        if !in_memory {
            // What is stored may be taken to be all there.
            return Ok(if data { from } else { size });
        }
        let object = self.vm.store().files.get(file);
        let object = object.lock();
        let first = from / PAGE_BYTES;
        let (mut next_hole, mut next_data) = (first, None);
        object.index.for_each(self.pc, first, object.pages(), |index, _| {
            next_data = next_data.or(Some(index));
            if data || index != next_hole {
                return false;
            }
            next_hole += 1;
            true
        });
        let page = if data { next_data.ok_or(Errno::ENXIO)? } else { next_hole };
        Ok((page * PAGE_BYTES).clamp(from, size))
    }

    /// `fallocate`, to have room for what is written later.
    pub(crate) fn allocate(
        &mut self,
        tid: Tid,
        descriptor: u64,
        mode: u64,
        start: u64,
        bytes: u64,
    ) -> Answer {
        let id = self.open_file(tid, descriptor)?;
        let open = &self.files.opens[id];
        let end = start.checked_add(bytes).filter(|&end| i64::try_from(end).is_ok());
        if mode != 0 {
            return Err(Errno::EOPNOTSUPP.into());
        }
        if !open.writable {
            return Err(Errno::EBADF.into());
        }
        let end = end.ok_or(Errno::EINVAL)?;
        let (file, named) = match open.object {
            Object::Nameless(file) => (file, false),
            Object::Node(node) => (self.contents(node).map_err(|_| Errno::ENODEV)?, true),
            Object::PipeIn(_) | Object::PipeOut(_) => return Err(Errno::ESPIPE.into()),
        };
        if bytes == 0 {
            return Err(Errno::EINVAL.into());
        }
        // Ends: each turn has one more page of the range, or waits.
        while self.tasks.threads[tid].progress < bytes {
            let at = start + self.tasks.threads[tid].progress;
            let count = (PAGE_BYTES - at % PAGE_BYTES).min(end - at);
            if named {
                self.room_for(file, at / PAGE_BYTES).map_err(Halt::from)?;
            }
            self.file_frame(tid, file, at, count, Way::FromProgram)?;
            self.tasks.threads[tid].progress += count;
        }
        Ok(0)
    }
}
