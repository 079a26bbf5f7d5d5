//! Accesses that are meant to fault, to see that they do.
//!
//! The kernel never touches memory that may not be there. A test of its own protection must, so
//! there is one place where a page fault of the kernel is an answer and not a bug.

use core::arch::global_asm;

use super::paging;

/// An access that the kernel's page tables must refuse.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Probe {
    /// A write to the kernel's code.
    WriteText,
    /// A write to its constants.
    WriteRodata,
    /// Execution of its variables.
    ExecuteData,
    /// A write to the first of its frames that never change, through the direct map.
    WriteFirstFrame,
    /// A write to the first frame of its code, through the direct map.
    WriteTextFrame,
    /// A write to the last of its frames that never change, through the direct map.
    WriteLastFrame,
    /// Execution of its code, through the direct map.
    ExecuteTextFrame,
    /// A write below this processor's stack.
    WriteGuard,
    /// A read of the first page of the lower half, where no program is active.
    ReadNull,
}

/// All of them.
pub(crate) const ALL: [Probe; 9] = [
    Probe::WriteText,
    Probe::WriteRodata,
    Probe::ExecuteData,
    Probe::WriteFirstFrame,
    Probe::WriteTextFrame,
    Probe::WriteLastFrame,
    Probe::ExecuteTextFrame,
    Probe::WriteGuard,
    Probe::ReadNull,
];

unsafe extern "sysv64" {
    /// Writes back what it reads at the address; 1 if that faulted, else 0.
    fn probe_write(address: u64) -> u64;
    /// Reads at the address; 1 if that faulted, else 0.
    fn probe_read(address: u64) -> u64;
    /// Calls the address, where a `ret` is; 1 if that faulted, else 0.
    fn probe_execute(address: u64) -> u64;
    static probe_after: u8;
    /// The instruction `ret`.
    static probe_return: u8;
}

/// The instruction `ret`, among variables.
static RET: core::sync::atomic::AtomicU8 = core::sync::atomic::AtomicU8::new(0xc3);

/// Tries the access and tells whether it faulted, as it should.
pub(crate) fn faults(probe: Probe) -> bool {
    let address = address(probe);
    let faulted = match probe {
        Probe::ExecuteData | Probe::ExecuteTextFrame => {
            // SAFETY: if it is not refused, it returns at once: a `ret` is there.
            unsafe { probe_execute(address) }
        }
        Probe::ReadNull => {
            // SAFETY: a read changes nothing.
            unsafe { probe_read(address) }
        }
        Probe::WriteText
        | Probe::WriteRodata
        | Probe::WriteFirstFrame
        | Probe::WriteTextFrame
        | Probe::WriteLastFrame
        | Probe::WriteGuard => {
            // SAFETY: if the write is not refused, it changes nothing: the byte is what it was.
            unsafe { probe_write(address) }
        }
    };
    faulted == 1
}

/// What a probe touches.
fn address(probe: Probe) -> u64 {
    let image = paging::image();
    match probe {
        Probe::WriteText => image.text.start,
        Probe::WriteRodata => image.rodata.start,
        Probe::ExecuteData => RET.as_ptr() as u64,
        Probe::WriteFirstFrame => direct(paging::constant().start),
        Probe::WriteTextFrame => direct(image.text.start - paging::IMAGE_BASE),
        Probe::WriteLastFrame => direct(paging::constant().end - 1),
        Probe::ExecuteTextFrame => {
            direct((&raw const probe_return).addr() as u64 - paging::IMAGE_BASE)
        }
        Probe::WriteGuard => paging::stack_guard(super::cpu::id()),
        Probe::ReadNull => 0,
    }
}

/// Whether `rip` is an access of a probe: those are the instructions before [`after`].
pub(super) fn is_at(rip: u64) -> bool {
    let start = probe_write as *const () as u64;
    // The address called is where an execution faults; it is nobody else's.
    let called = [Probe::ExecuteData, Probe::ExecuteTextFrame].map(address);
    (start..after()).contains(&rip) || called.contains(&rip)
}

/// The address of physical address `physical` in the direct map.
fn direct(physical: u64) -> u64 {
    paging::direct(physical) as u64
}

/// Where a probe goes on after it has faulted, with 1 in `rax`.
pub(super) fn after() -> u64 {
    (&raw const probe_after) as u64
}

global_asm!(
    r#"
    .text
probe_write:
    push rbp
    mov rbp, rsp
    mov dl, [rdi]
    mov [rdi], dl
    jmp 1f
probe_read:
    push rbp
    mov rbp, rsp
    mov dl, [rdi]
    jmp 1f
probe_execute:
    push rbp
    mov rbp, rsp
    call rdi
1:  xor eax, eax
probe_after:
    mov rsp, rbp
    pop rbp
probe_return:
    ret
    "#
);
