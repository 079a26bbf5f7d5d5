//! Time: what a tick is, and an interrupt every so often.
//!
//! Neither the counter of a processor nor the timer of its APIC says how fast it runs. The interval
//! timer of old PCs does (1,193,182 Hz), so boot measures both against it. Under QEMU's `-icount`
//! all three derive from the number of instructions, and measuring is exact.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::apic::{self, Register};
use super::{cpu, port, trap};

/// Ticks of the interval timer in a second.
const PIT_HERTZ: u64 = 1_193_182;
/// Ticks of one measurement: 10 ms.
const PIT_TICKS: u64 = PIT_HERTZ / 100;
/// How often boot measures. A machine that is stopped while it measures seems too fast, so that the
/// least count is the best one.
const MEASUREMENTS: usize = 3;
/// The timer's register value for "every 16 ticks of the bus".
const DIVIDE_BY_16: u32 = 3;
/// The timer fires again and again.
const PERIODIC: u32 = 1 << 17;

/// Ticks of the APIC's timer in a second.
static HERTZ: AtomicU64 = AtomicU64::new(0);

/// Measures the clocks. Once, at boot.
pub(super) fn calibrate() {
    let (mut counter, mut timer) = (u64::MAX, u64::MAX);
    for _ in 0..MEASUREMENTS {
        let (ticks, timer_ticks) = measure();
        counter = counter.min(ticks);
        timer = timer.min(timer_ticks);
    }
    let nanos = PIT_TICKS * 1_000_000_000 / PIT_HERTZ;
    cpu::set_clock((nanos << 32) / counter.max(1));
    HERTZ.store(timer * PIT_HERTZ / PIT_TICKS, Relaxed);
}

/// Ticks of the counter and of the APIC's timer in [`PIT_TICKS`].
fn measure() -> (u64, u64) {
    const CONTROL: u16 = 0x61;
    const OUTPUT: u8 = 1 << 5;
    const GATE: u8 = 1;
    const SPEAKER: u8 = 2;
    apic::write(Register::TimerDivide, DIVIDE_BY_16);
    apic::write(Register::Timer, apic::MASKED);
    // SAFETY: reading the control of channel 2 has no effect.
    let control = unsafe { port::read_u8(CONTROL) } & !(GATE | SPEAKER);
    // Channel 2, low and high byte, mode 0: its output rises at the end of the count.
    let [low, high, ..] = PIT_TICKS.to_le_bytes();
    for (port, value) in
        [(CONTROL, control), (0x43, 0xb0), (0x42, low), (0x42, high), (CONTROL, control | GATE)]
    {
        // SAFETY: these are the interval timer's registers; it knows no memory.
        unsafe { port::write_u8(port, value) };
    }
    apic::write(Register::TimerStart, u32::MAX);
    let start = cpu::counter();
    // Ends: the timer counts down once its gate is open.
    // SAFETY: reading the control of channel 2 has no effect.
    while unsafe { port::read_u8(CONTROL) } & OUTPUT == 0 {}
    let end = cpu::counter();
    let left = apic::read(Register::TimerNow);
    apic::write(Register::TimerStart, 0);
    (end - start, u64::from(u32::MAX - left))
}

/// Interrupts this processor every `nanos` nanoseconds: in ring 3 as
/// [`Interrupt::Timer`](super::user::Interrupt::Timer), in [`idle`](cpu::idle) by waking it.
/// At most about a minute; longer periods are shortened.
pub(crate) fn every(nanos: u64) {
    let ticks = u128::from(nanos) * u128::from(HERTZ.load(Relaxed)) / 1_000_000_000;
    apic::write(Register::TimerDivide, DIVIDE_BY_16);
    apic::write(Register::Timer, PERIODIC | u32::from(trap::TIMER));
    apic::write(Register::TimerStart, ticks.clamp(1, u128::from(u32::MAX)) as u32);
}

/// Stops this processor's timer. An interrupt that is pending already still comes.
pub(crate) fn stop() {
    apic::write(Register::TimerStart, 0);
}
