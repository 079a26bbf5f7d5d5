//! The functions that compiled Rust code calls without naming them: copying and filling memory.
//!
//! On a host they come from its C library. Here they are string instructions: the processor moves 8
//! bytes at a time, and no compiler can turn the loop back into a call of itself. The names are
//! weak, because a target without an operating system brings its own.
//!
//! Arguments are in `rdi`, `rsi`, `rdx` and the result in `rax` (System V ABI); the direction flag
//! is clear wherever Rust runs.

use core::arch::global_asm;

global_asm!(
    r#"
    .text
    .weak memcpy, memmove, memset, memcmp, bcmp, strlen, rust_eh_personality, _Unwind_Resume

memmove:
    mov rax, rdi
    sub rax, rsi
    cmp rax, rdx
    jb 2f                       # the target starts inside the source: from the end
memcpy:
    mov rax, rdi
    mov rcx, rdx
    shr rcx, 3
    rep movsq
    mov ecx, edx
    and ecx, 7
    rep movsb
    ret
2:  mov rax, rdi
    std
    lea rdi, [rdi + rdx - 1]
    lea rsi, [rsi + rdx - 1]
    mov ecx, edx
    and ecx, 7
    rep movsb
    sub rdi, 7
    sub rsi, 7
    mov rcx, rdx
    shr rcx, 3
    rep movsq
    cld
    ret

memset:
    mov r8, rdi
    movzx eax, sil
    mov rcx, 0x0101010101010101
    imul rax, rcx
    mov rcx, rdx
    shr rcx, 3
    rep stosq
    mov ecx, edx
    and ecx, 7
    rep stosb
    mov rax, r8
    ret

memcmp:
bcmp:
    mov rcx, rdx
    xor eax, eax
    cmp eax, eax                # equal, if there is nothing to compare
    repe cmpsb
    je 3f
    movzx eax, byte ptr [rdi - 1]
    movzx ecx, byte ptr [rsi - 1]
    sub ecx, eax
    mov eax, ecx
3:  ret

strlen:
    mov rax, rdi
4:  cmp byte ptr [rax], 0
    je 5f
    inc rax
    jmp 4b
5:  sub rax, rdi
    ret

# Named by precompiled code for unwinding, which an image that aborts never does.
rust_eh_personality:
_Unwind_Resume:
    ud2
    "#
);
