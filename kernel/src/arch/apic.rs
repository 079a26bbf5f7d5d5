//! The local APIC: acknowledging, interrupting others, the timer's registers.
//!
//! Intel SDM volume 3A, chapter 10, in its memory-mapped form (xAPIC): QEMU's own emulation of a
//! processor has no other.

use super::{cpu, paging, port, trap};

/// Where the registers are, unless moved; nothing moves them.
const PHYSICAL: u64 = 0xfee0_0000;
/// Writing here acknowledges the interrupt being served.
pub(super) const ACKNOWLEDGE_ADDRESS: u64 =
    paging::DEVICES + PHYSICAL + Register::Acknowledge as u64;

/// A register, by its offset.
#[derive(Clone, Copy)]
#[repr(u64)]
pub(super) enum Register {
    Id = 0x20,
    TaskPriority = 0x80,
    Acknowledge = 0xb0,
    Spurious = 0xf0,
    CommandLow = 0x300,
    CommandHigh = 0x310,
    Timer = 0x320,
    Thermal = 0x330,
    Performance = 0x340,
    Line0 = 0x350,
    Line1 = 0x360,
    Error = 0x370,
    TimerStart = 0x380,
    TimerNow = 0x390,
    TimerDivide = 0x3e0,
}

/// Bit of a local interrupt: it is not delivered.
pub(super) const MASKED: u32 = 1 << 16;
/// Bit of the command: still being sent.
const SENDING: u32 = 1 << 12;
/// A command: reset.
pub(super) const INIT: u32 = 0x4500;
/// A command: start at the page in the low byte.
pub(super) const START_UP: u32 = 0x4600;
/// A command: the vector in the low byte.
const FIXED: u32 = 0x4000;

/// Reads a register of this processor.
#[inline]
pub(super) fn read(register: Register) -> u32 {
    let address = (paging::DEVICES + PHYSICAL + register as u64) as *const u32;
    // SAFETY: boot maps the page of registers there; reading these has no effect.
    unsafe { address.read_volatile() }
}

/// Writes a register of this processor.
#[inline]
pub(super) fn write(register: Register, value: u32) {
    let address = (paging::DEVICES + PHYSICAL + register as u64) as *mut u32;
    // SAFETY: boot maps the page of registers there. Interrupts are all that they cause, and every
    // vector has a gate.
    unsafe { address.write_volatile(value) };
}

/// Maps the registers and silences the interrupt controllers of old PCs. Once, at boot.
pub(super) fn init_machine() {
    const MODE: u32 = 0x1b;
    const X2APIC: u64 = 1 << 10;
    // SAFETY: every processor with an APIC has the register.
    let mode = unsafe { cpu::read_msr(MODE) };
    assert!(mode & X2APIC == 0, "the firmware has switched the APIC to x2APIC mode");
    paging::map_device(PHYSICAL, paging::PAGE);
    for port in [0x21, 0xa1] {
        // SAFETY: masks all interrupts of the controller; it knows no memory.
        unsafe { port::write_u8(port, 0xff) };
    }
}

/// Turns this processor's APIC on, with all local interrupts masked.
pub(super) fn init() {
    const ENABLED: u32 = 1 << 8;
    write(Register::Spurious, ENABLED | u32::from(trap::SPURIOUS));
    for local in [
        Register::Timer,
        Register::Thermal,
        Register::Performance,
        Register::Line0,
        Register::Line1,
        Register::Error,
    ] {
        write(local, MASKED);
    }
    write(Register::TaskPriority, 0);
}

/// The number of this processor's APIC.
pub(super) fn id() -> u32 {
    read(Register::Id) >> 24
}

/// Says that the interrupt being served is done.
#[inline]
pub(super) fn acknowledge() {
    write(Register::Acknowledge, 0);
}

/// Sends `vector` to the processor whose APIC is `apic`.
pub(super) fn interrupt(apic: u32, vector: u8) {
    command(apic, FIXED | u32::from(vector));
}

/// Sends `command`, and returns when it is sent.
pub(super) fn command(apic: u32, command: u32) {
    write(Register::CommandHigh, apic << 24);
    write(Register::CommandLow, command);
    // Ends: the other APIC accepts or is not there, and either takes a few bus cycles.
    while read(Register::CommandLow) & SENDING != 0 {
        core::hint::spin_loop();
    }
}
