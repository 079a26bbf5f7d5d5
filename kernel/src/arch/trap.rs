//! Traps: the table of gates, and what is done about one that comes from the kernel itself.
//!
//! From ring 3 a trap goes on in [`user`](super::user). From the kernel there are three kinds:
//!
//! - interrupts, which can come inside [`idle`](super::cpu::idle) only: they are acknowledged, and
//!   what they are about the caller of `idle` finds by looking;
//! - faults that a [`probe`] asked for;
//! - everything else, which is a bug of the kernel or of the machine: the registers, and the end.
//!
//! Only three gates have stacks of their own: double fault, NMI and machine check can come when the
//! current stack cannot be trusted, and none of them returns. A stack that has run into its guard
//! page cannot take the page fault either, so that a double fault reports it.

use alloc::boxed::Box;
use core::arch::{asm, global_asm};
use core::fmt;

use spin::Once;

use super::{apic, cpu, paging, probe};

/// Vectors of exceptions are below.
pub(super) const EXCEPTIONS: u8 = 32;
const BREAKPOINT: usize = 3;
const DOUBLE_FAULT: u8 = 8;
/// The vector of general protection faults.
pub(super) const GENERAL_PROTECTION: u8 = 13;
/// The vector of page faults.
pub(super) const PAGE_FAULT: u8 = 14;
/// First vector of devices.
pub(super) const DEVICE_FIRST: u8 = 0x40;
/// Last vector of devices.
pub(super) const DEVICE_LAST: u8 = 0x7f;
/// The vector of each processor's timer.
pub(super) const TIMER: u8 = 0xe0;
/// The vector of shootdowns.
pub(super) const SHOOTDOWN: u8 = 0xf0;
/// The vector that means nothing (its low four bits must be set).
pub(super) const SPURIOUS: u8 = 0xff;

/// Exceptions with a stack of their own: vector, entry of the task state's table.
const OWN_STACK: [(usize, u64); 3] = [(DOUBLE_FAULT as usize, 1), (2, 2), (18, 3)];

/// Bytes from one entry of `trap_entries` to the next.
const ENTRY_BYTES: u64 = 16;

/// A gate (Intel SDM volume 3A, figure 6-8).
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate([u64; 2]);

/// A gate for each vector; the same for all processors.
static GATES: Once<Box<[Gate]>> = Once::new();

unsafe extern "C" {
    /// 256 entries of [`ENTRY_BYTES`] each.
    static trap_entries: u8;
}

/// Points this processor to the gates.
pub(super) fn load() {
    #[repr(C, packed)]
    struct Pointer {
        limit: u16,
        base: u64,
    }
    let gates = GATES.call_once(|| (0..256).map(gate).collect());
    let pointer =
        Pointer { limit: size_of_val::<[Gate]>(gates) as u16 - 1, base: gates.as_ptr() as u64 };
    // SAFETY: the gates live for ever and lead to entries that keep all registers.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack)) };
}

/// An interrupt gate: interrupts stay off.
fn gate(vector: usize) -> Gate {
    const PRESENT: u64 = 1 << 47;
    const INTERRUPT: u64 = 0xe << 40;
    const FROM_RING_3: u64 = 3 << 45;
    let entry = (&raw const trap_entries) as u64 + vector as u64 * ENTRY_BYTES;
    let stack = OWN_STACK.iter().find(|(own, _)| *own == vector).map_or(0, |(_, stack)| *stack);
    let ring = if vector == BREAKPOINT { FROM_RING_3 } else { 0 };
    let low = entry & 0xffff
        | u64::from(cpu::KERNEL_CODE) << 16
        | stack << 32
        | (entry >> 16 & 0xffff) << 48;
    Gate([low | PRESENT | INTERRUPT | ring, entry >> 32])
}

/// A trap from the kernel, as its entry pushed it: upwards, the registers named in
/// [`Frame::NAMES`].
#[repr(C)]
struct Frame([u64; 22]);

impl Frame {
    const NAMES: [&str; 22] = [
        "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rdi", "rsi", "rdx",
        "rcx", "rax", "vector", "error", "rip", "cs", "rflags", "rsp", "ss",
    ];
    const RAX: usize = 14;
    const VECTOR: usize = 15;
    const RIP: usize = 17;
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in Frame::NAMES.iter().zip(self.0) {
            write!(f, " {name} {value:#x}")?;
        }
        Ok(())
    }
}

/// A trap of the kernel that is no interrupt. Returns only to a probe.
extern "sysv64" fn kernel_trap(frame: &mut Frame) {
    let vector = frame.0[Frame::VECTOR] as u8;
    let address: u64;
    // SAFETY: reading the address of the last page fault has no effect.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    if vector == PAGE_FAULT && probe::is_at(frame.0[Frame::RIP]) {
        frame.0[Frame::RAX] = 1;
        frame.0[Frame::RIP] = probe::after();
        return;
    }
    if matches!(vector, PAGE_FAULT | DOUBLE_FAULT)
        && let Some(cpu) = paging::guard_of(address)
    {
        panic!("kernel stack overflow on processor {cpu} at {address:#x};{frame}");
    }
    panic!("trap {vector} in the kernel, cr2 {address:#x};{frame}");
}

global_asm!(
    r#"
    .text
    .balign 16
trap_entries:
    .set vector, 0
    .rept 256
    .balign 16
    # The processor pushes an error code for these; for all others the entry does.
    .set coded, vector == 8 || (vector >= 10 && vector <= 14) || vector == 17
    .if !coded && vector != 21 && vector != 29 && vector != 30
    push 0
    .endif
    push vector
    .if vector == 2 || vector == 8 || vector == 18
    jmp enter_fatal
    .else
    jmp enter_any
    .endif
    .set vector, vector + 1
    .endr

    .balign 16
enter_any:
    test byte ptr [rsp + 24], 3             # the ring that it comes from
    jnz enter_by_trap
    cmp qword ptr [rsp], {exceptions}
    jb enter_fatal
    push rax
    mov rax, {acknowledge}
    mov dword ptr [rax], 0
    pop rax
    add rsp, 16
    iretq

enter_fatal:
    push rax
    push rcx
    push rdx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    mov rbx, rsp
    and rsp, -16
    call {kernel_trap}
    mov rsp, rbx
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq
    "#,
    exceptions = const EXCEPTIONS,
    acknowledge = const apic::ACKNOWLEDGE_ADDRESS,
    kernel_trap = sym kernel_trap,
);
