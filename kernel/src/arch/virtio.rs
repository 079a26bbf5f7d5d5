//! Virtio devices on the PCI bus: finding them, and what the crate `virtio-drivers` needs for them.
//!
//! Virtio 1.2. The crate has the transport and the queues; what is here gives them memory, and makes
//! a queue interrupt.

use alloc::vec::Vec;
use core::ptr::NonNull;

use vellum_mm::addr::PAGE_BYTES;
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::transport::pci::{PciTransport, VIRTIO_PCI_CAP_COMMON_CFG, virtio_device_type};
use virtio_drivers::{BufferDirection, Hal};

use super::{cpu, paging, pci};

/// The devices of a kind, in the order of their places on the bus.
pub(super) fn find(root: &mut PciRoot<pci::Ports>, kind: DeviceType) -> Vec<DeviceFunction> {
    let found = root.enumerate_bus(0).filter(|(_, about)| virtio_device_type(about) == Some(kind));
    found.map(|(device, _)| device).collect()
}

/// What leads to a device, which from now on may use memory.
///
/// # Errors
/// If it is not as the standard says.
pub(super) fn transport(
    root: &mut PciRoot<pci::Ports>,
    device: DeviceFunction,
) -> Result<PciTransport, virtio_drivers::Error> {
    pci::enable(root, device);
    PciTransport::new::<Dma, _>(root, device).map_err(|_| virtio_drivers::Error::Unsupported)
}

/// Makes the device announce by `vector` what it has done in `queue`; whether it can.
///
/// The crate leaves interrupts alone, so the queue's message is chosen here, in the structure of
/// registers that virtio 1.2, 4.1.4.3, describes.
pub(super) fn use_message(
    root: &mut PciRoot<pci::Ports>,
    device: DeviceFunction,
    queue: u16,
    vector: u8,
) -> bool {
    const VENDOR: u8 = 9;
    const QUEUE_SELECT: usize = 22;
    const QUEUE_MESSAGE: usize = 26;
    const BYTES: u64 = 56;
    let common = root.capabilities(device).find(|capability| {
        capability.id == VENDOR
            && (capability.private_header >> 8) as u8 == VIRTIO_PCI_CAP_COMMON_CFG
    });
    let Some(common) = common else { return false };
    let bar = pci::Ports.read_word(device, common.offset + 4) as u8;
    let offset = pci::Ports.read_word(device, common.offset + 8);
    let Some(registers) = pci::map_bar(root, device, bar, offset, BYTES) else { return false };
    if !pci::message(root, device, cpu::apic_of(0), vector) {
        return false;
    }
    let register = |at: usize| registers.wrapping_add(at).cast::<u16>();
    // SAFETY: the structure is mapped, and whoever sets the device up uses none of it meanwhile.
    unsafe { register(QUEUE_SELECT).write_volatile(queue) };
    // SAFETY: as above; message 0 exists.
    unsafe { register(QUEUE_MESSAGE).write_volatile(0) };
    // SAFETY: as above. The device answers 0xffff if it has no message left.
    unsafe { register(QUEUE_MESSAGE).read_volatile() == 0 }
}

/// How queues get memory and addresses.
pub(super) struct Dma;

/// Pages of the heap, aligned to pages.
fn layout(pages: usize) -> core::alloc::Layout {
    let page = PAGE_BYTES as usize;
    core::alloc::Layout::from_size_align(pages * page, page).expect("a queue has a few pages")
}

// SAFETY: memory comes from the heap, zeroed and aligned; addresses are the direct map's, where
// every buffer lies in one piece; device registers are mapped for good.
unsafe impl Hal for Dma {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (u64, NonNull<u8>) {
        // SAFETY: the layout is not empty: a queue has at least a page.
        let memory = unsafe { alloc::alloc::alloc_zeroed(layout(pages)) };
        let memory = NonNull::new(memory).expect("the heap has room for queues");
        (paging::physical(memory.as_ptr()), memory)
    }

    unsafe fn dma_dealloc(_: u64, memory: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: it was allocated by `dma_alloc` with the same number of pages.
        unsafe { alloc::alloc::dealloc(memory.as_ptr(), layout(pages)) };
        0
    }

    unsafe fn mmio_phys_to_virt(physical: u64, bytes: usize) -> NonNull<u8> {
        let registers = paging::map_device(physical, bytes as u64);
        NonNull::new(registers).expect("devices are in the upper half")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> u64 {
        paging::physical(buffer.cast::<u8>().as_ptr())
    }

    unsafe fn unshare(_: u64, _: NonNull<[u8]>, _: BufferDirection) {}
}
