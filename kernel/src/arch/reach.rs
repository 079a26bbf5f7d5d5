//! Ring-3 code that makes one access: what a scenario's process does, on the real machine.
//!
//! ```text
//!   0xffff_fe80_0000_0000   read    mov rax, [rdi]
//!                                   syscall
//!                           write   mov [rdi], rsi
//!                                   syscall
//! ```
//!
//! The page lies in the kernel's half of addresses, where no process can have mapped anything: all of
//! the lower half is for what is tested, and no area that a scenario did not ask for is in its log.
//! It is a page of the image's constants, lent to programs after [`install`] and never otherwise.

use core::arch::global_asm;

use vellum_mm::addr::{Page, VirtAddr};
use vellum_mm::machine::Access;

use super::paging;
use super::user::{Context, Trap};

/// An address at which no access can succeed, nor even fault on a page.
const NOWHERE: u64 = 1 << 63;

unsafe extern "C" {
    static reach_read: u8;
    static reach_write: u8;
}

/// Lets ring 3 execute the code. Once, before the roots are shared under which it is used.
pub(crate) fn install() {
    paging::lend((&raw const reach_read).addr() as u64);
}

/// The page of the code.
pub(crate) const fn page() -> Page {
    VirtAddr(paging::LENT).page()
}

/// A program that makes one access and traps: [`outcome`] knows what its trap says.
///
/// A read leaves the 8 bytes in `rax`, a write stores `value`. What is fetched is meant to trap by
/// itself; an instruction of zeros or of breakpoints does.
pub(crate) fn program(access: Access, address: u64, value: u64) -> Context {
    let write_offset = (&raw const reach_write).addr() - (&raw const reach_read).addr();
    let rip = match access {
        Access::Read => paging::LENT,
        Access::Write => paging::LENT + write_offset as u64,
        Access::Execute => address,
    };
    let mut context = Context::new(rip, NOWHERE);
    (context.rax, context.rdi, context.rsi) = (NOWHERE, address, value);
    context
}

/// Whether the access of a program was permitted; `None` if its trap says nothing about it.
pub(crate) fn outcome(access: Access, address: u64, trap: Trap) -> Option<bool> {
    match (access, trap) {
        (_, Trap::Interrupt(_)) => None,
        (_, Trap::PageFault { address: at, access: of, .. }) if (at, of) == (address, access) => {
            Some(false)
        }
        // Whatever was there has been fetched.
        (Access::Execute, _) | (_, Trap::Syscall) => Some(true),
        _ => None,
    }
}

global_asm!(
    r#"
    .section .rodata.reach, "a", @progbits
    .balign 4096
reach_read:
    mov rax, [rdi]
    syscall
reach_write:
    mov [rdi], rsi
    syscall
    .balign 4096
    .text
    "#
);
