//! Ring 3 as a coroutine: [`run`] enters a program and returns when it traps.
//!
//! The registers of a [`Context`] are the trap frame itself. While its program runs, the
//! processor's ring-0 stack *is* the end of those registers: what a trap pushes lands in place, the
//! entry pushes the rest below it, and nothing is ever copied. Then the entry returns to whoever
//! called `run`, on the one stack that the kernel has on each processor:
//!
//! ```text
//!   Context     r15 … rax   vector  error   rip  cs  rflags  rsp  ss │ fs gs │ fx
//!               pushed by the entry         pushed by the processor  ↑ stack of traps from ring 3
//! ```
//!
//! So there are no stacks of threads, a process is cloned by cloning a value, and the kernel around
//! this is a loop that matches on [`Trap`].
//!
//! The way out is always `iretq`: with the frame in place it is one instruction, while `sysret`
//! would first have to prove that it may be used.
//!
//! Knows nothing of: which program this is, address spaces, what a system call means.

use core::arch::{asm, global_asm};
use core::mem::offset_of;

use vellum_mm::machine::Access;

use super::{apic, cpu, trap};

/// The state of a program between two runs.
///
/// Everything but `fx` may be set to any value: [`run`] forces `rflags` to what ring 3 may have,
/// and an impossible `rip` is a general protection fault. `fs_base` and `gs_base` must be
/// addresses.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
#[allow(missing_docs, reason = "registers are called what the manual calls them")]
pub(crate) struct Context {
    pub(crate) r15: u64,
    pub(crate) r14: u64,
    pub(crate) r13: u64,
    pub(crate) r12: u64,
    pub(crate) rbp: u64,
    pub(crate) rbx: u64,
    pub(crate) r11: u64,
    pub(crate) r10: u64,
    pub(crate) r9: u64,
    pub(crate) r8: u64,
    pub(crate) rdi: u64,
    pub(crate) rsi: u64,
    pub(crate) rdx: u64,
    pub(crate) rcx: u64,
    pub(crate) rax: u64,
    pub(crate) vector: u64,
    pub(crate) error: u64,
    pub(crate) rip: u64,
    cs: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
    ss: u64,
    pub(crate) fs_base: u64,
    pub(crate) gs_base: u64,
    pub(crate) fx: Fx,
}

/// Where the frame of a trap ends in a [`Context`]. Processors align a trap's stack to 16 bytes.
const FRAME_END: usize = offset_of!(Context, fs_base);
const _: () = assert!(FRAME_END.is_multiple_of(16), "a trap would not land in place");
const _: () = assert!(offset_of!(Context, fx).is_multiple_of(64), "xsave64 wants 64 bytes");

/// Between the halves of all addresses, where nothing can be.
const HOLE: core::ops::Range<u64> = 1 << 47..0xffff_8000_0000_0000;
/// Flags that a program may set itself: those of arithmetic, trap, direction, alignment,
/// identification.
const FLAGS_FREE: u64 = 0x24_0dd5;
/// Flags that it always has: interrupts on, and the bit that is always one.
const FLAGS_FIXED: u64 = 0x202;

/// x87, SSE and AVX registers as `xsave64` stores them (Intel SDM volume 1, 13.4): 512 bytes that are
/// those of `fxsave64`, a header of 64, the upper halves of the AVX registers.
///
/// A type of its own because the processor refuses some values: then not the program but the kernel
/// would fault.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(crate) struct Fx([u8; Fx::BYTES]);

impl Fx {
    /// Size of all.
    pub(crate) const BYTES: usize = 832;
    /// Size of what `fxsave64` stores.
    pub(crate) const LEGACY_BYTES: usize = 512;
    /// The parts, as `XCR0` numbers them: x87, SSE, AVX.
    pub(crate) const PARTS: u64 = 0b111;
    const HEADER: core::ops::Range<usize> = 512..576;
    /// Where the control and status register of SSE is.
    const MXCSR: core::ops::Range<usize> = 24..28;
    /// Its bits that exist on every processor.
    const MXCSR_BITS: u32 = 0xffff;
    /// All exceptions masked, round to nearest.
    const MXCSR_START: u32 = 0x1f80;

    /// Registers at the start of a program: zeros, and all exceptions masked.
    pub(crate) const fn new() -> Fx {
        let mut bytes = [0; Fx::BYTES];
        // The control word of the x87: all exceptions masked, 64 bits of precision.
        [bytes[0], bytes[1]] = [0x7f, 0x03];
        [bytes[24], bytes[25], bytes[26], bytes[27]] = Fx::MXCSR_START.to_le_bytes();
        bytes[512] = Fx::PARTS as u8;
        Fx(bytes)
    }

    /// The registers in these bytes, which may come from a program: bits that no processor takes
    /// are cleared. Without the bytes behind [`LEGACY_BYTES`](Fx::LEGACY_BYTES), the upper halves
    /// are zeros.
    ///
    /// # Panics
    /// If there are more than [`BYTES`](Fx::BYTES).
    pub(crate) fn from_bytes(bytes: &[u8]) -> Fx {
        let mut fx = Fx::new();
        fx.0[..bytes.len()].copy_from_slice(bytes);
        let mxcsr: [u8; 4] = fx.0[Fx::MXCSR].try_into().expect("the range has four bytes");
        let allowed = u32::from_le_bytes(mxcsr) & Fx::MXCSR_BITS;
        fx.0[Fx::MXCSR].copy_from_slice(&allowed.to_le_bytes());
        let parts = fx.0[Fx::HEADER.start] & Fx::PARTS as u8;
        fx.0[Fx::HEADER].fill(0);
        fx.0[Fx::HEADER.start] = parts;
        fx
    }

    /// The bytes, as a signal frame has them.
    pub(crate) const fn bytes(&self) -> &[u8; Fx::BYTES] {
        &self.0
    }
}

impl Context {
    /// A program about to execute `rip` with its stack at `rsp`, all other registers zero.
    pub(crate) const fn new(rip: u64, rsp: u64) -> Context {
        Context {
            r15: 0,
            r14: 0,
            r13: 0,
            r12: 0,
            rbp: 0,
            rbx: 0,
            r11: 0,
            r10: 0,
            r9: 0,
            r8: 0,
            rdi: 0,
            rsi: 0,
            rdx: 0,
            rcx: 0,
            rax: 0,
            vector: 0,
            error: 0,
            rip,
            cs: cpu::USER_CODE as u64,
            rflags: FLAGS_FIXED,
            rsp,
            ss: cpu::USER_DATA as u64,
            fs_base: 0,
            gs_base: 0,
            fx: Fx::new(),
        }
    }
}

/// Why a program stopped running.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trap {
    /// The instruction `syscall`; `rip` is behind it.
    Syscall,
    /// An access that the page tables do not permit; `rip` is at the instruction.
    PageFault {
        /// The address that was used.
        address: u64,
        /// What for.
        access: Access,
        /// Whether something is there, which the access was not allowed to.
        present: bool,
    },
    /// Any other exception.
    Exception {
        /// Its number (Intel SDM volume 3A, table 6-1).
        vector: u8,
        /// Its error code, 0 if it has none.
        error: u64,
    },
    /// An interrupt, acknowledged.
    Interrupt(Interrupt),
}

/// What interrupted a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Interrupt {
    /// This processor's [timer](super::timer).
    Timer,
    /// Another processor asks for a [shootdown](super::ipi::shootdown).
    Shootdown,
    /// A device: the number of its [`Disk`](super::disk::Disk).
    Device(u32),
    /// None that was asked for.
    Spurious,
}

/// What [`enter`] returns for `syscall`; exceptions and interrupts are below.
const SYSCALL: u64 = 256;

unsafe extern "sysv64" {
    /// Runs ring 3 until it traps; returns the vector or [`SYSCALL`].
    fn enter(context: *mut Context) -> u64;
    /// Where `syscall` goes.
    fn enter_by_syscall();
}

/// Where `syscall` goes.
pub(super) fn syscall_entry() -> u64 {
    enter_by_syscall as *const () as u64
}

/// Runs the program until it traps.
///
/// # Panics
/// If `fs_base` or `gs_base` is in the hole between the halves of all addresses.
#[inline]
pub(crate) fn run(context: &mut Context) -> Trap {
    if HOLE.contains(&context.rip) {
        return Trap::Exception { vector: trap::GENERAL_PROTECTION, error: 0 };
    }
    context.rflags = context.rflags & FLAGS_FREE | FLAGS_FIXED;
    // SAFETY:
    // 1. `gs` points to this processor's `Cpu`, and interrupts are off (`cpu`'s invariant).
    // 2. The selectors are ring 3's, as nobody but `new` and the processor writes them; the flags
    //    are free ones and `rip` is canonical, so `iretq` cannot fault and ring 3 is what it
    //    enters.
    // 3. What ring 3 can do to memory is in the active page tables, where the kernel is not its
    //    own.
    // 4. `fx` holds what `xsave64` stored or `Fx` made, so `xrstor64` accepts it.
    // 5. Traps write to the context only, which is borrowed for as long.
    let vector = unsafe { enter(context) };
    if vector == SYSCALL { Trap::Syscall } else { decode(context, vector) }
}

/// Says what a vector means, and acknowledges interrupts.
fn decode(context: &Context, vector: u64) -> Trap {
    const PRESENT: u64 = 1;
    const WRITE: u64 = 1 << 1;
    const FETCH: u64 = 1 << 4;
    let error = context.error;
    if vector == u64::from(trap::PAGE_FAULT) {
        let address;
        // SAFETY: reading the address of the last page fault has no effect; there was none since.
        unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
        let access = match error & (WRITE | FETCH) {
            0 => Access::Read,
            WRITE => Access::Write,
            _ => Access::Execute,
        };
        return Trap::PageFault { address, access, present: error & PRESENT != 0 };
    }
    if vector < u64::from(trap::EXCEPTIONS) {
        return Trap::Exception { vector: vector as u8, error };
    }
    let interrupt = match vector as u8 {
        trap::TIMER => Interrupt::Timer,
        trap::SHOOTDOWN => Interrupt::Shootdown,
        vector @ trap::DEVICE_FIRST..=trap::DEVICE_LAST => {
            Interrupt::Device(u32::from(vector - trap::DEVICE_FIRST))
        }
        // Not to be acknowledged: the APIC has not recorded it.
        _ => return Trap::Interrupt(Interrupt::Spurious),
    };
    apic::acknowledge();
    Trap::Interrupt(interrupt)
}

global_asm!(
    r#"
    .text
    # rdi: the context. Its registers are popped from where traps push them.
    .balign 16
enter:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov rax, [rdi + {fs_base}]
    cmp rax, gs:[{fs_base_now}]
    jne 3f
1:  mov rax, [rdi + {gs_base}]
    cmp rax, gs:[{gs_base_now}]
    jne 4f
2:  mov gs:[{kernel_rsp}], rsp
    lea rax, [rdi + {frame_end}]
    mov gs:[{trap_rsp}], rax
    mov eax, {parts}
    xor edx, edx
    xrstor64 [rdi + {fx}]
    mov rsp, rdi
    swapgs
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

    # Another program's bases: few switches, so they are compared and not saved.
3:  mov gs:[{fs_base_now}], rax
    mov ecx, {msr_fs_base}
    mov rdx, rax
    shr rdx, 32
    wrmsr
    jmp 1b
4:  mov gs:[{gs_base_now}], rax
    mov ecx, {msr_other_gs_base}
    mov rdx, rax
    shr rdx, 32
    wrmsr
    jmp 2b

    # From ring 3: rcx is rip, r11 is rflags, interrupts are off, the stack is the program's.
    .balign 16
enter_by_syscall:
    swapgs
    mov gs:[{user_rsp}], rsp
    mov rsp, gs:[{trap_rsp}]
    push {user_data}
    push gs:[{user_rsp}]
    push r11
    push {user_code}
    push rcx
    lea rsp, [rsp - 16]
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
    mov eax, {syscall}
    jmp 5f

    # From ring 3 by a gate, on the context's frame: error and vector are pushed.
    .balign 16
    .globl enter_by_trap
enter_by_trap:
    swapgs
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
    mov eax, [rsp + {vector}]
    cld                                 # a gate leaves the program's
5:  mov ecx, eax
    mov eax, {parts}
    xor edx, edx
    xsave64 [rsp + {fx}]
    mov eax, ecx
    ldmxcsr [rip + 6f]                  # the program's may let SSE trap
    mov rsp, gs:[{kernel_rsp}]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

    .balign 4
6:  .long {mxcsr}
    "#,
    fs_base = const offset_of!(Context, fs_base),
    gs_base = const offset_of!(Context, gs_base),
    fx = const offset_of!(Context, fx),
    parts = const Fx::PARTS,
    vector = const offset_of!(Context, vector),
    frame_end = const FRAME_END,
    fs_base_now = const cpu::at::FS_BASE,
    gs_base_now = const cpu::at::GS_BASE,
    kernel_rsp = const cpu::at::KERNEL_RSP,
    user_rsp = const cpu::at::USER_RSP,
    trap_rsp = const cpu::at::TRAP_RSP,
    msr_fs_base = const cpu::msr::FS_BASE,
    msr_other_gs_base = const cpu::msr::KERNEL_GS_BASE,
    user_data = const cpu::USER_DATA,
    user_code = const cpu::USER_CODE,
    syscall = const SYSCALL,
    mxcsr = const Fx::MXCSR_START,
);
