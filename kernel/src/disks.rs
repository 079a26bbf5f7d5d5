//! Where requests go: pages of swap to a virtio disk, pages of files to the archive in memory.

use alloc::collections::VecDeque;

use vellum_mm::addr::{Frame, PAGE_BYTES};
use vellum_mm::event::Target;
use vellum_mm::objects::io::{Direction, IoOutcome, Request, RequestId};
use vellum_mm::objects::swap::SwapConfig;

use crate::arch::PhysicalMemory;
use crate::arch::disk::Disk;
use crate::files::Files;

/// All disks.
pub(crate) struct Disks {
    /// The first disk, which is swap.
    swap: Option<Disk>,
    /// Requests that its queue had no room for.
    waiting: VecDeque<Request>,
    under_way: usize,
}

impl Disks {
    /// Takes the disks of the machine: the first is swap.
    pub(crate) fn new(disks: impl IntoIterator<Item = Disk>) -> Disks {
        Disks { swap: disks.into_iter().next(), waiting: VecDeque::new(), under_way: 0 }
    }

    /// The swap that there is.
    pub(crate) fn swap_config(&self, page_cluster: u8) -> SwapConfig {
        let slots = self.swap.as_ref().map_or(0, |disk| disk.capacity_bytes() / PAGE_BYTES);
        let slots = u32::try_from(slots).unwrap_or(u32::MAX - 1);
        if slots == 0 {
            return SwapConfig::NONE;
        }
        SwapConfig { slots, page_cluster, ..SwapConfig::NONE }
    }

    /// Requests that are not done.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Starts a request; its outcome if it is done at once.
    pub(crate) fn submit(
        &mut self,
        request: &Request,
        files: &Files,
        memory: PhysicalMemory,
    ) -> Option<IoOutcome> {
        match request.target {
            Target::File(file, first) => {
                let frames = request.frames().iter().zip(first..);
                let read = frames.map(|(&frame, index)| {
                    read_archived(files.archived_page(file, index), frame, memory)
                });
                // Pages of the archive are never dirty, so a write of one cannot be asked for.
                let done =
                    request.direction == Direction::Read && read.fold(true, |all, one| all & one);
                Some(if done { IoOutcome::Done } else { IoOutcome::Failed })
            }
            Target::Swap(_) => {
                self.under_way += 1;
                self.waiting.push_back(*request);
                self.start_waiting();
                None
            }
        }
    }

    fn start_waiting(&mut self) {
        let Some(disk) = &mut self.swap else { return };
        while let Some(request) = self.waiting.front() {
            let Target::Swap(slot) = request.target else { unreachable!("files have no disk") };
            let byte = u64::from(slot.0) * PAGE_BYTES;
            let write = request.direction == Direction::Write;
            if disk.submit(request.id.0.into(), write, byte, request.frames()).is_err() {
                return;
            }
            self.waiting.pop_front();
        }
    }

    /// What is done, one at a time.
    pub(crate) fn poll(&mut self) -> Option<(RequestId, IoOutcome)> {
        let (id, result) = self.swap.as_mut()?.poll()?;
        self.under_way -= 1;
        self.start_waiting();
        let outcome = if result.is_ok() { IoOutcome::Done } else { IoOutcome::Failed };
        Some((RequestId(id as u32), outcome))
    }
}

/// Fills a frame with a page of the archive, and zeros beyond its end.
fn read_archived(page: Option<&[u8]>, frame: Frame, memory: PhysicalMemory) -> bool {
    let Some(bytes) = page else { return false };
    if bytes.len() < PAGE_BYTES as usize {
        vellum_mm::machine::Memory::zero(&memory, frame);
    }
    memory.write(frame, 0, bytes);
    true
}
