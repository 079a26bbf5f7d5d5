//! Disks: virtio block devices on the PCI bus.
//!
//! Virtio 1.2, 5.2. A request is a header, the frames to move and a byte of status, chained by
//! descriptors; the queue and the transport are the crate `virtio-drivers`'. Nothing waits: what is
//! done is asked by [`poll`](Disk::poll), and an interrupt says when that is worth it.
//!
//! Invariant: header, status and frames of a request stay where they are until the device has
//! returned it, since the device reads and writes them at any time.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use bitflags::bitflags;
use vellum_mm::addr::{Frame, PAGE_BYTES};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::pci::bus::{DeviceFunction, PciRoot};
use virtio_drivers::transport::{DeviceType, Transport};

use super::virtio::{self, Dma};
use super::{PhysicalMemory, pci, trap};

/// Requests that can be under way: a power of two, and more than the parts of the longest request.
const REQUESTS: usize = 128;
/// Frames of the longest request.
pub(crate) const FRAMES_MAX: usize = 64;
/// What the device counts in.
const SECTOR_BYTES: u64 = 512;
/// The only queue.
const QUEUE: u16 = 0;

bitflags! {
    /// What device and driver agree on.
    #[derive(Clone, Copy, Debug)]
    struct Features: u64 {
        /// The disk refuses writes.
        const READ_ONLY = 1 << 5;
        /// A descriptor can stand for a list of them, so that a long request takes no more room.
        const INDIRECT = 1 << 28;
        /// The standard, and not what came before it.
        const VERSION_1 = 1 << 32;
    }
}

/// A disk.
pub(crate) struct Disk {
    queue: VirtQueue<Dma, REQUESTS>,
    transport: PciTransport,
    pending: [Option<Box<Pending>>; REQUESTS],
    bytes: u64,
    read_only: bool,
    interrupts: bool,
}

/// Bytes to move between the disk and frames.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Transfer {
    /// What [`poll`](Disk::poll) tells when it is done.
    pub(crate) id: u64,
    /// Whether they go to the disk.
    pub(crate) write: bool,
    /// Where they begin on the disk: a multiple of 512.
    pub(crate) first_byte: u64,
    /// Where they are in memory: one frame after another.
    pub(crate) frames: Vec<Frame>,
    /// Which bytes of those. It begins in the first frame and ends in the last, and its length is a
    /// multiple of 512.
    pub(crate) span: Range<u64>,
}

/// A request that the device has.
struct Pending {
    header: Header,
    status: u8,
    transfer: Transfer,
}

/// How a request begins.
#[repr(C)]
struct Header {
    kind: u32,
    reserved: u32,
    sector: u64,
}

const READ: u32 = 0;
const WRITE: u32 = 1;
const DONE: u8 = 0;

/// The device could not do what was asked: beyond its end, a write to a disk that is read-only, or
/// its medium failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DiskError;

/// All disks of the machine. Once, at boot.
pub(super) fn find() -> Vec<Disk> {
    let mut root = pci::root();
    let mut disks = Vec::new();
    for device in virtio::find(&mut root, DeviceType::Block) {
        match Disk::new(&mut root, device, disks.len()) {
            Ok(disk) => disks.push(disk),
            Err(error) => println!("the disk at PCI {device} cannot be used: {error}"),
        }
    }
    disks
}

impl Disk {
    fn new(
        root: &mut PciRoot<pci::Ports>,
        device: DeviceFunction,
        number: usize,
    ) -> Result<Disk, virtio_drivers::Error> {
        let mut transport = virtio::transport(root, device)?;
        let features = transport.begin_init(Features::all());
        let capacity = |offset| transport.read_config_space::<u32>(offset).map(u64::from);
        let sectors = capacity(0)? | capacity(4)? << 32;
        let indirect = features.contains(Features::INDIRECT);
        let queue = VirtQueue::new(&mut transport, QUEUE, indirect, false)?;
        let interrupts = number < usize::from(trap::DEVICE_LAST - trap::DEVICE_FIRST)
            && virtio::use_message(root, device, QUEUE, trap::DEVICE_FIRST + number as u8);
        transport.finish_init();
        Ok(Disk {
            queue,
            transport,
            pending: [const { None }; REQUESTS],
            bytes: sectors * SECTOR_BYTES,
            read_only: features.contains(Features::READ_ONLY),
            interrupts,
        })
    }

    /// Bytes of the disk.
    pub(crate) const fn capacity_bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it refuses writes.
    pub(crate) const fn read_only(&self) -> bool {
        self.read_only
    }

    /// Whether the first processor is interrupted when a request is done
    /// ([`Interrupt::Device`](super::user::Interrupt::Device)); if not, someone must poll.
    pub(crate) const fn interrupts(&self) -> bool {
        self.interrupts
    }

    /// Starts a transfer.
    ///
    /// # Errors
    /// The transfer itself if no more fit now.
    ///
    /// # Panics
    /// If there is no frame or more than [`FRAMES_MAX`], the transfer is not of whole sectors or not
    /// of all its frames, or a frame is not usable RAM.
    #[inline]
    pub(crate) fn submit(&mut self, transfer: Transfer) -> Result<(), Transfer> {
        let Transfer { write, first_byte, ref frames, ref span, .. } = transfer;
        assert!((1..=FRAMES_MAX).contains(&frames.len()), "a request of {} frames", frames.len());
        assert!(first_byte.is_multiple_of(SECTOR_BYTES), "a request at byte {first_byte}");
        let bytes = frames.len() as u64 * PAGE_BYTES;
        let within =
            span.start < PAGE_BYTES && (bytes - PAGE_BYTES + 1..=bytes).contains(&span.end);
        let whole = span.start < span.end && (span.end - span.start).is_multiple_of(SECTOR_BYTES);
        assert!(within && whole, "bytes {span:?} of {} frames", frames.len());
        let kind = if write { WRITE } else { READ };
        let header = Header { kind, reserved: 0, sector: first_byte / SECTOR_BYTES };
        let mut pending = Box::new(Pending { header, status: !DONE, transfer });
        let queue = &mut self.queue;
        // SAFETY: header and status are in a box that is kept until `poll` gets the request back.
        // The frames' bytes are lent to nobody but devices and programs (`PhysicalMemory`).
        let token = pending.lend(|inputs, outputs| unsafe { queue.add(inputs, outputs) });
        let Ok(token) = token else { return Err(pending.transfer) };
        self.pending[usize::from(token)] = Some(pending);
        if self.queue.should_notify() {
            self.transport.notify(QUEUE);
        }
        Ok(())
    }

    /// The next request that is done, if one is: its `id`, and how it went.
    pub(crate) fn poll(&mut self) -> Option<(u64, Result<(), DiskError>)> {
        let token = self.queue.peek_used()?;
        let pending = self.pending.get_mut(usize::from(token)).and_then(Option::take);
        let mut pending = pending.expect("the device returns what it was given");
        let queue = &mut self.queue;
        // SAFETY: these are the buffers that were added under this token.
        let popped =
            pending.lend(|inputs, outputs| unsafe { queue.pop_used(token, inputs, outputs) });
        popped.expect("the request is the next one used");
        // SAFETY: the field is initialised; the device has written it.
        let status = unsafe { (&raw const pending.status).read_volatile() };
        Some((pending.transfer.id, if status == DONE { Ok(()) } else { Err(DiskError) }))
    }
}

impl Pending {
    /// Calls `with` with what the device reads and what it writes, in order.
    fn lend<T>(
        &mut self,
        with: impl for<'a> FnOnce(&'a [&'a [u8]], &'a mut [&'a mut [u8]]) -> T,
    ) -> T {
        let header = (&raw const self.header).cast::<u8>();
        // SAFETY: a header is plain words without padding.
        let header = unsafe { core::slice::from_raw_parts(header, size_of::<Header>()) };
        let status = core::slice::from_mut(&mut self.status);
        let Transfer { write, ref frames, ref span, .. } = self.transfer;
        // Each frame's part of the span: where it is, and how long.
        let (mut at, end) = (span.start, span.end);
        let parts = frames.iter().map(|frame| {
            let offset = at % PAGE_BYTES;
            let count = (end - at).min(PAGE_BYTES - offset);
            at += count;
            (PhysicalMemory.pointer(*frame).wrapping_add(offset as usize), count as usize)
        });
        if write {
            let mut inputs = Vec::with_capacity(frames.len() + 1);
            inputs.push(header);
            // SAFETY: frames are mapped for ever, a part is inside its frame as `submit` has checked,
            // and the slices are only asked where they are.
            let lend = |(at, bytes): (*mut u8, usize)| unsafe {
                core::slice::from_raw_parts(at.cast_const(), bytes)
            };
            inputs.extend(parts.map(lend));
            return with(&inputs, &mut [status]);
        }
        let mut outputs = Vec::with_capacity(frames.len() + 1);
        // SAFETY: as above; the device alone writes through them.
        let lend = |(at, bytes)| unsafe { core::slice::from_raw_parts_mut(at, bytes) };
        outputs.extend(parts.map(lend));
        outputs.push(status);
        with(&[header], &mut outputs)
    }
}
