//! The PCI bus: reading and writing configurations, and interrupts as messages.
//!
//! Configurations are reached by the two ports that every PC has. Firmware has given all devices
//! their addresses. An MSI-X interrupt is a write by the device to the APIC's address, with the
//! vector as the value (PCI 3.0, 6.8.2), so that no line is shared and no controller set up.

use virtio_drivers::transport::pci::bus::{
    CapabilityInfo, Command, ConfigurationAccess, DeviceFunction, PciRoot,
};

use super::{paging, port};

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;

/// Number of the capability MSI-X.
const MSI_X: u8 = 0x11;

/// Access to configurations by ports. Boot's processor alone uses it, before it starts others.
#[derive(Clone, Copy)]
pub(super) struct Ports;

impl Ports {
    fn select(device: DeviceFunction, register: u8) {
        let address = 1 << 31
            | u32::from(device.bus) << 16
            | u32::from(device.device) << 11
            | u32::from(device.function) << 8
            | u32::from(register & 0xfc);
        // SAFETY: selecting a register has no other effect.
        unsafe { port::write_u32(ADDRESS, address) };
    }
}

impl ConfigurationAccess for Ports {
    fn read_word(&self, device: DeviceFunction, register: u8) -> u32 {
        Ports::select(device, register);
        // SAFETY: reading a configuration has no effect.
        unsafe { port::read_u32(DATA) }
    }

    fn write_word(&mut self, device: DeviceFunction, register: u8, word: u32) {
        Ports::select(device, register);
        // SAFETY: what is written are addresses as firmware gave them and commands of this driver,
        // which lets devices use only memory that is shared with them.
        unsafe { port::write_u32(DATA, word) };
    }

    unsafe fn unsafe_clone(&self) -> Ports {
        *self
    }
}

/// The bus.
pub(super) fn root() -> PciRoot<Ports> {
    PciRoot::new(Ports)
}

/// Lets a device answer at its addresses and use memory.
pub(super) fn enable(root: &mut PciRoot<Ports>, device: DeviceFunction) {
    let (_, command) = root.get_status_command(device);
    root.set_command(device, command | Command::MEMORY_SPACE | Command::BUS_MASTER);
}

/// Maps `bytes` at `offset` of one of the device's memory ranges; `None` if it has no such range.
pub(super) fn map_bar(
    root: &mut PciRoot<Ports>,
    device: DeviceFunction,
    bar: u8,
    offset: u32,
    bytes: u64,
) -> Option<*mut u8> {
    let (address, size) = root.bar_info(device, bar).ok()??.memory_address_size()?;
    let fits = u64::from(offset).checked_add(bytes).is_some_and(|end| end <= size);
    fits.then(|| paging::map_device(address + u64::from(offset), bytes))
}

/// Makes message 0 of a device interrupt processor 0 with `vector`; whether the device can.
pub(super) fn message(
    root: &mut PciRoot<Ports>,
    device: DeviceFunction,
    apic: u32,
    vector: u8,
) -> bool {
    const ENABLE: u32 = 1 << 31;
    const APIC_ADDRESS: u32 = 0xfee0_0000;
    let Some(CapabilityInfo { offset: at, .. }) =
        root.capabilities(device).find(|capability| capability.id == MSI_X)
    else {
        return false;
    };
    let mut ports = Ports;
    let place = ports.read_word(device, at + 4);
    // Each message has four words: address, its upper half, value, and whether it is masked.
    let Some(table) = map_bar(root, device, (place & 7) as u8, place & !7, 16) else {
        return false;
    };
    for (index, word) in [APIC_ADDRESS | apic << 12, 0, u32::from(vector), 0].iter().enumerate() {
        let register = table.cast::<u32>().wrapping_add(index);
        // SAFETY: the table of messages is there; a message only interrupts, and the vector has a
        // gate.
        unsafe { register.write_volatile(*word) };
    }
    let header = ports.read_word(device, at);
    ports.write_word(device, at, header | ENABLE);
    true
}
