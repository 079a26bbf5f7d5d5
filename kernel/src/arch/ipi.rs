//! Interrupts from one processor to another.

use super::{apic, cpu, trap};

/// Interrupts processor `cpu`, so that it forgets translations: in ring 3 as
/// [`Interrupt::Shootdown`](super::user::Interrupt::Shootdown), in [`idle`](cpu::idle) by waking
/// it.
///
/// What is to be forgotten, and that it was, the two tell each other through memory.
pub(crate) fn shootdown(cpu: u32) {
    apic::interrupt(cpu::apic_of(cpu), trap::SHOOTDOWN);
}
