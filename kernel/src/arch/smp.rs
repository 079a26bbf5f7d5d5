//! The other processors, started one after another.
//!
//! Intel SDM volume 3A, 8.4.4: an INIT, 10 ms, then a start-up interrupt that names the page where
//! the processor begins in 16-bit mode, twice. What the new processor cannot know (its stack, its
//! number) lies in variables here, which is why there is only one on its way at a time.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use spin::Mutex;

use super::{Hardware, apic, boot, cpu, paging};

/// The page tables of a processor that starts.
pub(super) static START_ROOT: AtomicU64 = AtomicU64::new(0);
/// The end of its stack.
pub(super) static START_STACK: AtomicU64 = AtomicU64::new(0);
/// What it needs.
static START_CPU: Mutex<Option<&'static cpu::Cpu>> = Mutex::new(None);
/// The number of the last one that works.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// How long a processor may take to start, on a busy host too.
const PATIENCE_NANOS: u64 = 20_000_000_000;

/// Starts all processors but the first; each calls `secondary`. Returns how many there are now.
///
/// # Panics
/// If one does not start: nobody can say what it will do later.
pub(crate) fn start_all(hardware: &Hardware) -> u32 {
    paging::install_trampoline();
    START_ROOT.store(paging::root(), Ordering::Relaxed);
    for (number, apic) in (0..).zip(&hardware.cpus).skip(1) {
        start(number, *apic);
    }
    hardware.cpus.len() as u32
}

fn start(number: u32, apic: u32) {
    paging::map_stacks(number);
    START_STACK.store(paging::stack_end(number, paging::Stack::Kernel), Ordering::Relaxed);
    // Made here, as it cannot allocate before it has this.
    *START_CPU.lock() = Some(cpu::new(number));
    apic::command(apic, apic::INIT);
    wait(10_000_000, number);
    for _ in 0..2 {
        apic::command(apic, apic::START_UP | (boot::TRAMPOLINE_ADDRESS >> 12) as u32);
        if wait(200_000, number) {
            return;
        }
    }
    assert!(wait(PATIENCE_NANOS, number), "processor {number} (APIC {apic}) does not start");
}

/// Waits until processor `number` works, but not for ever; tells whether it does.
fn wait(nanos: u64, number: u32) -> bool {
    let end = cpu::nanos() + nanos;
    while cpu::nanos() < end {
        if STARTED.load(Ordering::Acquire) == number {
            return true;
        }
        core::hint::spin_loop();
    }
    false
}

/// The first Rust code of the processor that starts, on its own stack and the kernel's page tables.
pub(super) extern "sysv64" fn secondary() -> ! {
    let cpu = START_CPU.lock().take().expect("it was made for this processor");
    let number = cpu.id();
    cpu::init(cpu);
    apic::init();
    cpu::remember_apic(number);
    STARTED.store(number, Ordering::Release);
    crate::secondary(number)
}
