//! From the loader's hands into Rust: 32-bit entry, first page tables, first stack.
//!
//! The image starts as PVH says ("x86/HVM direct boot ABI", Xen): in 32-bit protected mode without
//! paging, `ebx` pointing to what the loader knows. The processors started later begin in 16-bit
//! real mode, on a page below 1 MiB to which [`trampoline_code`] is copied. Both load the same
//! tables and meet in 64-bit mode:
//!
//! ```text
//!   boot_tables   [0]    0 …                      the same       where this code runs
//!                 [256]  0xffff_8000_0000_0000 …  0 … 512 GiB    the direct map
//!                 [511]  0xffff_ffff_8000_0000 …  0 … 1 GiB      the image
//! ```
//!
//! All are pages of 1 GiB, which are also what most of the direct map is made of later; a
//! processor without them is told so on the console. These tables allow everything;
//! [`paging`](super::paging) replaces them before anything else runs.

use core::arch::global_asm;

/// Bytes of the stack used until each processor has a guarded one.
const BOOT_STACK_BYTES: usize = 32 << 10;

/// Physical address of the page in which processors start. The start-up interrupt can name any page
/// below 1 MiB; this one is RAM on every PC, and nothing else wants it.
pub(super) const TRAMPOLINE_ADDRESS: u64 = 0x8000;

/// Physical address of the image's first byte, as `image.ld` has it.
pub(super) const IMAGE_START: u64 = 0x10_0000;

/// Whether boot's stack was large enough: nothing has reached its last word.
pub(super) fn stack_was_enough() -> bool {
    // SAFETY: the word is in `.bss`, and the stack is not used any more.
    unsafe { boot_stack == 0 }
}

unsafe extern "C" {
    /// The last word of boot's stack, zero at first.
    static boot_stack: u64;
    /// First byte of the 16-bit code.
    static trampoline: u8;
    /// The byte after its last.
    static trampoline_end: u8;
}

/// The code at which processors start; it works only at [`TRAMPOLINE_ADDRESS`].
pub(super) fn trampoline_code() -> &'static [u8] {
    let (start, end) = (&raw const trampoline, &raw const trampoline_end);
    // SAFETY: the two symbols below enclose initialised bytes in `.rodata`, which nothing changes.
    unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

// The note by which the loader knows the entry (Xen's number 18). Its alignment must be 4.
global_asm!(
    r#"
    .section .note.Xen, "a", @note
    .balign 4
    .long 4, 8, 18
    .asciz "Xen"
    .quad pvh_start
    "#,
    options(att_syntax)
);

global_asm!(
    r#"
    .section .boot, "awx", @progbits
    .balign 4096
boot_tables:
    .quad boot_gibs + 3
    .fill 255, 8, 0
    .quad boot_gibs + 3
    .fill 254, 8, 0
    .quad boot_image + 3
boot_gibs:
    .set gib, 0
    .rept 512
    .quad (gib << 30) + 0x83                # present, writable, large
    .set gib, gib + 1
    .endr
boot_image:
    .fill 510, 8, 0
    .quad 0x83
    .quad 0

    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00209a0000000000                # 08: 64-bit code
    .quad 0x0000920000000000                # 10: data
    .quad 0x00cf9a000000ffff                # 18: 32-bit code
boot_gdt_pointer:
    .word boot_gdt_pointer - boot_gdt - 1
    .long boot_gdt

no_gibs:
    .ascii "@\npanic: the processor has no pages of 1 GiB, which the kernel needs\n"
no_gibs_end:

    .code32
    .globl pvh_start
pvh_start:
    cld
    movl %ebx, %ebp                         # what the loader knows; cpuid changes ebx
    movl $0x80000001, %eax
    cpuid
    btl $26, %edx
    jc 2f
    movl $no_gibs, %esi
    movw $0x2fd, %dx                        # the second serial line, or else the first
    inb %dx, %al
    movw $0x2f8, %dx
    cmpb $0xff, %al
    jne 1f
    movw $0x3f8, %dx
1:
    movl $no_gibs_end - no_gibs, %ecx
    rep outsb
    movb ${failed}, %al
    outb %al, ${exit}
    hlt
2:  movl $3f, %esi
    jmp enable_paging
3:  lgdt boot_gdt_pointer
    ljmp $0x08, $4f

    .code64
4:  movabsq $boot_high, %rax
    jmpq *%rax

    # Continues at esi, in 32-bit code that is still the same.
    .code32
enable_paging:
    movl $boot_tables, %eax
    movl %eax, %cr3
    movl $0x6a0, %eax                       # PAE, PGE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl $0xc0000080, %ecx                  # EFER: SCE, LME, NXE
    rdmsr
    orl $0x901, %eax
    wrmsr
    movl $0x80010033, %eax                  # PG, WP, NE, ET, MP, PE; caches are on
    movl %eax, %cr0
    jmpl *%esi

secondary_start:
    movw $0x10, %ax
    movw %ax, %ds
    movl $5f, %esi
    jmp enable_paging
5:  ljmp $0x08, $6f

    .code64
6:  movabsq $secondary_high, %rax
    jmpq *%rax

    .section .text, "ax", @progbits
boot_high:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    leaq boot_stack_end(%rip), %rsp
    movl %ebp, %edi
    xorl %ebp, %ebp
    call {boot}
    ud2

secondary_high:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movq {root}(%rip), %rax
    movq %rax, %cr3
    movq {stack}(%rip), %rsp
    xorl %ebp, %ebp
    call {secondary}
    ud2

    .section .bss, "aw", @nobits
    .balign 16
boot_stack:
    .fill {stack_bytes}, 1, 0
boot_stack_end:

    # Real mode, in a page of its own: addresses are relative to it.
    .section .rodata, "a", @progbits
    .balign 16
trampoline:
    .code16
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    lgdtl trampoline_gdt_pointer - trampoline
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x18, $secondary_start
    .balign 4
trampoline_gdt_pointer:
    .word 31
    .long boot_gdt
trampoline_end:
    .code64
    .text
    "#,
    boot = sym super::start::boot,
    root = sym super::smp::START_ROOT,
    stack = sym super::smp::START_STACK,
    secondary = sym super::smp::secondary,
    stack_bytes = const BOOT_STACK_BYTES,
    failed = const super::console::PANICKED,
    exit = const super::console::EXIT_PORT,
    options(att_syntax)
);
