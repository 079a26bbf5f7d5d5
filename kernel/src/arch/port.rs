//! Input and output ports of the processor.

use core::arch::asm;

/// Reads a byte from `port`.
///
/// # Safety
/// Reading it must have no effect that safe code relies on not happening.
#[inline]
pub(super) unsafe fn read_u8(port: u16) -> u8 {
    let value;
    // SAFETY: the caller answers for what the device does; memory is not touched.
    unsafe { asm!("in al, dx", out("al") value, in("dx") port, options(nomem, nostack)) };
    value
}

/// Writes a byte to `port`.
///
/// # Safety
/// The device must not change memory that Rust owns because of it.
#[inline]
pub(super) unsafe fn write_u8(port: u16, value: u8) {
    // SAFETY: the caller answers for what the device does; memory is not touched.
    unsafe { asm!("out dx, al", in("al") value, in("dx") port, options(nomem, nostack)) };
}

/// Reads four bytes from `port`.
///
/// # Safety
/// As for [`read_u8`].
#[inline]
pub(super) unsafe fn read_u32(port: u16) -> u32 {
    let value;
    // SAFETY: the caller answers for what the device does; memory is not touched.
    unsafe { asm!("in eax, dx", out("eax") value, in("dx") port, options(nomem, nostack)) };
    value
}

/// Writes four bytes to `port`.
///
/// # Safety
/// As for [`write_u8`].
#[inline]
pub(super) unsafe fn write_u32(port: u16, value: u32) {
    // SAFETY: the caller answers for what the device does; memory is not touched.
    unsafe { asm!("out dx, eax", in("eax") value, in("dx") port, options(nomem, nostack)) };
}
