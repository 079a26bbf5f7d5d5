//! Where requests go: pages of swap to a virtio disk, pages of files to the archive in memory or to a
//! second disk, which is mounted.
//!
//! A page of the mounted disk may be in several pieces there, or have holes. Each request so becomes
//! as many transfers as its pages have runs, and is done with the last of them:
//!
//! ```text
//!     request of 4 pages │ 0 │ 1 │ 2 │ 3 │       on the disk  … 1.0.0. …… .2.2 …      (3 is a hole)
//!     transfers          └───────┘ └─┘           page 3 is zeroed at once
//! ```

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use vellum_mm::addr::{Frame, PAGE_BYTES};
use vellum_mm::event::Target;
use vellum_mm::machine::Memory;
use vellum_mm::objects::io::{Direction, IoOutcome, Request, RequestId};
use vellum_mm::objects::swap::SwapConfig;

use crate::arch::PhysicalMemory;
use crate::arch::disk::{Disk, Transfer};
use crate::files::ext::{File, Run};
use crate::files::tree::Tree;
use crate::files::{Files, Stored, mount};

/// The least that a disk moves: parts of a block beyond a file's end are read with it.
const SECTOR_BYTES: u64 = 512;

/// All disks.
pub(crate) struct Disks {
    /// The first disk that can be written.
    swap: Option<Queue>,
    /// The first that cannot: its files are in the tree.
    mounted: Option<Queue>,
    /// By request of the mounted disk: how far it is.
    reads: BTreeMap<u32, Reading>,
    /// Requests that no disk can do. Who waits for one learns of it as of a disk's failure.
    refused: Vec<RequestId>,
    under_way: usize,
}

/// A disk, and what it had no room for.
struct Queue {
    /// Boxed, as it holds its whole queue, and stacks are short.
    disk: Box<Disk>,
    waiting: VecDeque<Transfer>,
}

/// A request whose transfers are under way.
struct Reading {
    transfers: usize,
    outcome: IoOutcome,
    /// The frame in which the file ends, and where, if it is not a sector's end: what the disk holds
    /// beyond is not the file's.
    end: Option<(Frame, u64)>,
}

impl Queue {
    fn new(disk: Disk) -> Queue {
        Queue { disk: Box::new(disk), waiting: VecDeque::new() }
    }

    #[inline]
    fn start(&mut self, transfer: Transfer) {
        // Those that wait came first.
        if !self.waiting.is_empty() {
            self.waiting.push_back(transfer);
        } else if let Err(transfer) = self.disk.submit(transfer) {
            self.waiting.push_back(transfer);
        }
    }

    fn start_waiting(&mut self) {
        while let Some(transfer) = self.waiting.pop_front() {
            if let Err(transfer) = self.disk.submit(transfer) {
                self.waiting.push_front(transfer);
                return;
            }
        }
    }

    fn poll(&mut self) -> Option<(RequestId, IoOutcome)> {
        let (id, result) = self.disk.poll()?;
        self.start_waiting();
        let outcome = if result.is_ok() { IoOutcome::Done } else { IoOutcome::Failed };
        Some((RequestId(id as u32), outcome))
    }
}

impl Disks {
    /// Takes the disks of the machine.
    pub(crate) fn new(disks: impl IntoIterator<Item = Disk>) -> Disks {
        let (mut swap, mut mounted) = (None, None);
        for disk in disks {
            let place = if disk.read_only() { &mut mounted } else { &mut swap };
            place.get_or_insert_with(|| Queue::new(disk));
        }
        Disks { swap, mounted, reads: BTreeMap::new(), refused: Vec::new(), under_way: 0 }
    }

    /// The swap that there is.
    pub(crate) fn swap_config(&self, page_cluster: u8) -> SwapConfig {
        let slots = self.swap.as_ref().map_or(0, |swap| swap.disk.capacity_bytes() / PAGE_BYTES);
        let slots = u32::try_from(slots).unwrap_or(u32::MAX - 1);
        if slots == 0 {
            return SwapConfig::NONE;
        }
        SwapConfig { slots, page_cluster, ..SwapConfig::NONE }
    }

    /// Enters the files of the disk that cannot be written into `tree`, or says in a line why not.
    /// `frame` must be nobody's, and is so again after.
    pub(crate) fn mount(&mut self, tree: &mut Tree, memory: PhysicalMemory, frame: Frame) {
        let Some(queue) = &mut self.mounted else { return };
        if let Err(error) = mount::mount(tree, &mut queue.disk, memory, frame) {
            println!("the disk is not mounted: {error}");
            self.mounted = None;
        }
    }

    /// Requests that are not done.
    pub(crate) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Starts a request; whether it is done at once.
    pub(crate) fn submit(
        &mut self,
        request: &Request,
        files: &Files,
        memory: PhysicalMemory,
    ) -> bool {
        let (file, first) = match request.target {
            Target::File(file, first) => (file, first),
            Target::Swap(slot) => {
                let transfer = Transfer {
                    id: request.id.0.into(),
                    write: request.direction == Direction::Write,
                    first_byte: u64::from(slot.0) * PAGE_BYTES,
                    frames: request.frames().to_vec(),
                    span: 0..request.bytes(),
                };
                self.under_way += 1;
                self.swap.as_mut().expect("slots are on a disk").start(transfer);
                return false;
            }
        };
        // Pages that are stored somewhere are never dirty, so a write of one cannot be asked for.
        let stored = files.stored(file).filter(|_| request.direction == Direction::Read);
        match stored {
            Some(Stored::Archive(bytes)) => {
                for (&frame, index) in request.frames().iter().zip(first..) {
                    fill(frame, files.archived_page(bytes, index), memory);
                }
                true
            }
            Some(Stored::Disk(file)) => self.read_mounted(request, file, first, memory),
            None => self.refuse(request),
        }
    }

    fn refuse(&mut self, request: &Request) -> bool {
        self.under_way += 1;
        self.refused.push(request.id);
        false
    }

    /// Starts to read pages of a file of the mounted disk, from page `first` on.
    fn read_mounted(
        &mut self,
        request: &Request,
        file: &File,
        first: u64,
        memory: PhysicalMemory,
    ) -> bool {
        let start = first * PAGE_BYTES;
        let file_end = file.bytes.next_multiple_of(SECTOR_BYTES);
        let runs = file.runs(start..file_end.min(start + request.bytes()));
        let (Some(queue), Some(runs)) = (&mut self.mounted, runs) else {
            return self.refuse(request);
        };
        let frames = request.frames();
        let runs: Vec<Run> = runs.collect();
        for (&frame, page) in frames.iter().zip(first..) {
            let (from, to) = (page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
            if !runs.iter().any(|run| run.bytes.start <= from && to <= run.bytes.end) {
                memory.zero(frame);
            }
        }
        if runs.is_empty() {
            return true;
        }
        let end = (file.bytes.wrapping_sub(start) / PAGE_BYTES) as usize;
        let end = frames.get(end).map(|&frame| (frame, file.bytes % PAGE_BYTES));
        let end = end.filter(|(_, offset)| !offset.is_multiple_of(SECTOR_BYTES));
        let reading = Reading { transfers: runs.len(), outcome: IoOutcome::Done, end };
        self.reads.insert(request.id.0, reading);
        self.under_way += 1;
        for run in runs {
            let (from, to) = (run.bytes.start - start, run.bytes.end - start);
            let base = from / PAGE_BYTES;
            let used = base as usize..to.div_ceil(PAGE_BYTES) as usize;
            queue.start(Transfer {
                id: request.id.0.into(),
                write: false,
                first_byte: run.at,
                frames: frames[used].to_vec(),
                span: from - base * PAGE_BYTES..to - base * PAGE_BYTES,
            });
        }
        false
    }

    /// What is done, one at a time.
    pub(crate) fn poll(&mut self, memory: PhysicalMemory) -> Option<(RequestId, IoOutcome)> {
        if let Some(done) = self.swap.as_mut().and_then(Queue::poll) {
            self.under_way -= 1;
            return Some(done);
        }
        if let Some(id) = self.refused.pop() {
            self.under_way -= 1;
            return Some((id, IoOutcome::Failed));
        }
        // Ends: the disk is done with no more transfers than it was given.
        while let Some((id, outcome)) = self.mounted.as_mut()?.poll() {
            let reading = self.reads.get_mut(&id.0).expect("a transfer is a request's");
            reading.transfers -= 1;
            if outcome == IoOutcome::Failed {
                reading.outcome = outcome;
            }
            if reading.transfers > 0 {
                continue;
            }
            if let Some((frame, offset)) = reading.end {
                let count = offset.next_multiple_of(SECTOR_BYTES) - offset;
                memory.write(frame, offset, &[0; SECTOR_BYTES as usize][..count as usize]);
            }
            let outcome = reading.outcome;
            self.reads.remove(&id.0);
            self.under_way -= 1;
            return Some((id, outcome));
        }
        None
    }
}

/// Fills a frame with `bytes`, and zeros beyond.
fn fill(frame: Frame, bytes: &[u8], memory: PhysicalMemory) {
    if bytes.len() < PAGE_BYTES as usize {
        memory.zero(frame);
    }
    memory.write(frame, 0, bytes);
}
