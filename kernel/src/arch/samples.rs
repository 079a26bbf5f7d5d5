//! Ring-3 code for the self test: a few programs of some instructions each.
//!
//! They are position-independent and share a page. A system call's number is in `rax`: 1 means
//! "still right", 2 means "done" with the verdict in `rdi`.

use core::arch::global_asm;

/// A program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sample {
    /// System calls without end.
    Syscalls,
    /// Fills registers and red zone from `rdi`, makes a system call, stores `rdi` at `rsi`, and
    /// checks that everything is as it was. Ends with `rdi` 0 if so, else 1.
    Registers,
    /// Stores `rdi` at `rsi` and makes a system call with what is then there in `rdi`.
    Store,
    /// Jumps to `rsi`.
    Jump,
    /// Turns interrupts off, which it may not.
    Cli,
    /// An instruction that is none.
    Invalid,
    /// A breakpoint.
    Breakpoint,
    /// Counts in `rdi`, for ever.
    Spin,
}

unsafe extern "C" {
    static samples: u8;
    static samples_end: u8;
    static sample_syscalls: u8;
    static sample_registers: u8;
    static sample_store: u8;
    static sample_jump: u8;
    static sample_cli: u8;
    static sample_invalid: u8;
    static sample_breakpoint: u8;
    static sample_spin: u8;
}

/// The code of all programs, less than a page.
pub(crate) fn code() -> &'static [u8] {
    let (start, end) = (&raw const samples, &raw const samples_end);
    // SAFETY: the symbols enclose initialised bytes in `.rodata`, which nothing changes.
    unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

/// Where in [`code`] a program starts.
pub(crate) fn offset(sample: Sample) -> u64 {
    let entry = match sample {
        Sample::Syscalls => &raw const sample_syscalls,
        Sample::Registers => &raw const sample_registers,
        Sample::Store => &raw const sample_store,
        Sample::Jump => &raw const sample_jump,
        Sample::Cli => &raw const sample_cli,
        Sample::Invalid => &raw const sample_invalid,
        Sample::Breakpoint => &raw const sample_breakpoint,
        Sample::Spin => &raw const sample_spin,
    };
    (entry.addr() - (&raw const samples).addr()) as u64
}

global_asm!(
    r#"
    .section .rodata, "a", @progbits
    .balign 16
samples:

sample_syscalls:
    syscall
    jmp sample_syscalls

sample_registers:
    lea rbx, [rdi + 1]
    lea rbp, [rdi + 2]
    lea r8, [rdi + 3]
    lea r9, [rdi + 4]
    lea r10, [rdi + 5]
    lea r12, [rdi + 6]
    lea r13, [rdi + 7]
    lea r14, [rdi + 8]
    lea r15, [rdi + 9]
    lea rdx, [rdi + 10]
    movq xmm0, rbx
    movq xmm7, r8
    movq xmm15, r15
    mov [rsp - 8], rdi
    mov [rsp - 128], rdi
    std
    mov eax, 1
    syscall
    mov [rsi], rdi
    pushfq                              # the direction flag is kept as well
    pop rax
    cld
    test eax, 0x400
    jz 8f
    mov [rsp - 8], rdi                  # where the flags were
    lea rax, [rdi + 1]
    cmp rax, rbx
    jne 8f
    lea rax, [rdi + 2]
    cmp rax, rbp
    jne 8f
    lea rax, [rdi + 3]
    cmp rax, r8
    jne 8f
    lea rax, [rdi + 4]
    cmp rax, r9
    jne 8f
    lea rax, [rdi + 5]
    cmp rax, r10
    jne 8f
    lea rax, [rdi + 6]
    cmp rax, r12
    jne 8f
    lea rax, [rdi + 7]
    cmp rax, r13
    jne 8f
    lea rax, [rdi + 8]
    cmp rax, r14
    jne 8f
    lea rax, [rdi + 9]
    cmp rax, r15
    jne 8f
    lea rax, [rdi + 10]
    cmp rax, rdx
    jne 8f
    movq rax, xmm0
    cmp rax, rbx
    jne 8f
    movq rax, xmm7
    cmp rax, r8
    jne 8f
    movq rax, xmm15
    cmp rax, r15
    jne 8f
    cmp [rsp - 128], rdi
    jne 8f
    cmp [rsi], rdi
    jne 8f
    xor edi, edi
    jmp 9f
8:  mov edi, 1
9:  mov eax, 2
    syscall
    jmp 9b

sample_store:
    mov [rsi], rdi
    mov rdi, [rsi]
    mov eax, 1
    syscall
    jmp sample_store

sample_jump:
    jmp rsi

sample_cli:
    cli

sample_invalid:
    ud2

sample_breakpoint:
    int3

sample_spin:
    inc rdi
    jmp sample_spin

samples_end:
    .text
    "#
);
