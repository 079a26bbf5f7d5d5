//! A processor: its number, its tables, its clock, its rest.
//!
//! Each processor has a [`Cpu`], to which `gs` points whenever the kernel runs: descriptors, the
//! task state segment, and the few words that entering and leaving ring 3 needs at once.
//!
//! Invariant: the kernel runs with interrupts off, except inside [`idle`]. So nothing that it does
//! can be interrupted, and no lock is ever wanted by an interrupt of its own holder.

use alloc::boxed::Box;
use core::arch::asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering::Relaxed};

use vellum_mm::slab::Magazines;

use super::paging::{self, Stack};
use super::{apic, trap};

/// Processors that can be numbered.
pub(super) const CPUS_MAX: usize = 64;

/// Selectors, by their places in [`Cpu::gdt`]. Their order is that which `syscall` asks for.
pub(super) const KERNEL_CODE: u16 = 0x08;
/// Stacks and data of the kernel.
const KERNEL_DATA: u16 = 0x10;
/// Stacks and data of programs.
pub(super) const USER_DATA: u16 = 0x18 | 3;
/// Code of programs.
pub(super) const USER_CODE: u16 = 0x20 | 3;
const TASK_STATE: u16 = 0x28;

/// The task state segment: which stacks traps use (Intel SDM volume 3A, 8.7).
#[repr(C, packed(4))]
struct TaskState {
    reserved_0: u32,
    /// Stacks for traps from outer rings, by ring. From ring 3, the end of a
    /// [`Context`](super::user::Context)'s registers.
    rsp: [u64; 3],
    reserved_1: u64,
    /// Stacks for traps that cannot trust the current one.
    ist: [u64; 7],
    reserved_2: [u16; 5],
    io_map: u16,
}

/// What a processor needs at hand.
#[repr(C, align(64))]
pub(super) struct Cpu {
    /// The kernel's stack while ring 3 runs.
    kernel_rsp: u64,
    /// A program's stack, for the two instructions of `syscall` that have no register free.
    user_rsp: u64,
    /// What the processor's `fs` base is in ring 3.
    fs_base: u64,
    /// What the processor's `gs` base is in ring 3.
    gs_base: u64,
    id: u32,
    /// Keeps `rsp` of the task state aligned.
    reserved: u32,
    pad: u32,
    tss: TaskState,
    gdt: [u64; 7],
    /// The processor's part of the kernel's heap.
    magazines: AtomicPtr<Magazines>,
}

/// Offsets from `gs`, for assembly.
pub(super) mod at {
    use super::{Cpu, TaskState, offset_of};

    pub(in crate::arch) const KERNEL_RSP: usize = offset_of!(Cpu, kernel_rsp);
    pub(in crate::arch) const USER_RSP: usize = offset_of!(Cpu, user_rsp);
    pub(in crate::arch) const FS_BASE: usize = offset_of!(Cpu, fs_base);
    pub(in crate::arch) const GS_BASE: usize = offset_of!(Cpu, gs_base);
    pub(in crate::arch) const TRAP_RSP: usize = offset_of!(Cpu, tss) + offset_of!(TaskState, rsp);
}

/// Model-specific registers, by number.
pub(super) mod msr {
    /// Base of `fs`.
    pub(in crate::arch) const FS_BASE: u32 = 0xc000_0100;
    /// Base of `gs` now.
    pub(in crate::arch) const GS_BASE: u32 = 0xc000_0101;
    /// Base of `gs` on the other side of `swapgs`.
    pub(in crate::arch) const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub(super) const STAR: u32 = 0xc000_0081;
    pub(super) const LSTAR: u32 = 0xc000_0082;
    pub(super) const SFMASK: u32 = 0xc000_0084;
}

/// Flags that are off when a system call arrives: trap, interrupts, direction, I/O level, nested
/// task, alignment checks.
const SYSCALL_CLEARS: u64 = 0x4_7700;

/// Nanoseconds of 2^32 ticks of the counter.
static NANOS_BY_TICKS: AtomicU64 = AtomicU64::new(0);
/// Local APIC numbers, by processor.
static APIC_IDS: [AtomicU32; CPUS_MAX] = [const { AtomicU32::new(0) }; CPUS_MAX];

/// Makes what processor `id` needs, whose stacks must be mapped.
pub(super) fn new(id: u32) -> &'static Cpu {
    let cpu = Box::leak(Box::new(Cpu {
        kernel_rsp: 0,
        user_rsp: 0,
        fs_base: 0,
        gs_base: 0,
        id,
        reserved: 0,
        pad: 0,
        tss: TaskState {
            reserved_0: 0,
            rsp: [0; 3],
            reserved_1: 0,
            ist: [0; 7],
            reserved_2: [0; 5],
            io_map: size_of::<TaskState>() as u16,
        },
        gdt: [0; 7],
        magazines: AtomicPtr::new(Box::leak(Box::new(Magazines::new()))),
    }));
    for (ist, stack) in [Stack::DoubleFault, Stack::Nmi, Stack::MachineCheck].iter().enumerate() {
        cpu.tss.ist[ist] = paging::stack_end(id, *stack);
    }
    let tss = &raw const cpu.tss as u64;
    let limit = size_of::<TaskState>() as u64 - 1;
    cpu.gdt = [
        0,
        0x0020_9a00_0000_0000,
        0x0000_9200_0000_0000,
        0x0000_f200_0000_0000,
        0x0020_fa00_0000_0000,
        limit | (tss & 0xff_ffff) << 16 | 0x89 << 40 | (tss >> 24 & 0xff) << 56,
        tss >> 32,
    ];
    cpu
}

/// Gives this processor its tables, its `gs` and its trap stacks, and turns its protections on.
/// Allocates nothing before the processor has its magazines.
pub(super) fn init(cpu: &'static Cpu) {
    load_gdt(&cpu.gdt);
    let cpu = &raw const *cpu as u64;
    for (register, base) in [(msr::GS_BASE, cpu), (msr::KERNEL_GS_BASE, 0), (msr::FS_BASE, 0)] {
        // SAFETY: the base is a `Cpu` that is never freed. The others are ring 3's, and 0 is what
        // `fs_base` and `gs_base` of the `Cpu` say.
        unsafe { write_msr(register, base) };
    }
    trap::load();
    enable_syscall();
    enable_protections();
    enable_avx();
}

/// Loads `gdt` and the selectors that name its entries.
fn load_gdt(gdt: &'static [u64; 7]) {
    #[repr(C, packed)]
    struct Pointer {
        limit: u16,
        base: u64,
    }
    let pointer = Pointer { limit: size_of_val(gdt) as u16 - 1, base: gdt.as_ptr() as u64 };
    // SAFETY: the table lives for ever, its code and data are flat and of ring 0 as before, and its
    // task state is the one beside it. `gs` gets its base afterwards.
    unsafe {
        asm!(
            "lgdt [{pointer}]",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov ss, {data:e}",
            "mov ds, {data:e}",
            "mov es, {data:e}",
            "xor {scratch:e}, {scratch:e}",
            "mov fs, {scratch:e}",
            "mov gs, {scratch:e}",
            "mov {scratch:e}, {task}",
            "ltr {scratch:x}",
            pointer = in(reg) &raw const pointer,
            code = const KERNEL_CODE,
            data = in(reg) u32::from(KERNEL_DATA),
            task = const TASK_STATE,
            scratch = out(reg) _,
        );
    }
}

/// Lets `syscall` enter the kernel.
fn enable_syscall() {
    let selectors = u64::from(KERNEL_DATA) << 48 | u64::from(KERNEL_CODE) << 32;
    for (register, value) in [
        (msr::STAR, selectors),
        (msr::LSTAR, super::user::syscall_entry()),
        (msr::SFMASK, SYSCALL_CLEARS),
    ] {
        // SAFETY: the entry is code that expects this state: ring 0, interrupts off, `gs` the
        // program's.
        unsafe { write_msr(register, value) };
    }
}

/// Turns on what keeps the kernel from using programs' memory by mistake, where it exists.
fn enable_protections() {
    const SMEP: u64 = 1 << 20;
    const SMAP: u64 = 1 << 21;
    const UMIP: u64 = 1 << 11;
    const FEATURES: u32 = 7;
    if core::arch::x86_64::__cpuid(0).eax < FEATURES {
        return;
    }
    let features = core::arch::x86_64::__cpuid_count(FEATURES, 0);
    let has = |word: u32, bit: u32, protection: u64| u64::from(word >> bit & 1) * protection;
    let bits =
        has(features.ebx, 7, SMEP) | has(features.ebx, 20, SMAP) | has(features.ecx, 2, UMIP);
    // SAFETY: the kernel neither executes nor touches pages of programs; it uses the direct map.
    unsafe {
        asm!(
            "mov {old}, cr4",
            "or {old}, {bits}",
            "mov cr4, {old}",
            old = out(reg) _,
            bits = in(reg) bits,
        );
    }
}

/// Lets programs and the kernel use AVX (Intel SDM volume 1, 13.5).
///
/// # Panics
/// If the processor has none.
fn enable_avx() {
    const XSAVE: u32 = 1 << 26;
    const AVX: u32 = 1 << 28;
    const OSXSAVE: u64 = 1 << 18;
    let has = core::arch::x86_64::__cpuid(1).ecx;
    assert!(has & (XSAVE | AVX) == XSAVE | AVX, "the processor has no AVX, which the kernel needs");
    // SAFETY: the processor has both; the parts are those that entering and leaving ring 3 save.
    unsafe {
        asm!(
            "mov rax, cr4",
            "or rax, {osxsave}",
            "mov cr4, rax",
            "mov eax, {parts}",
            "xor edx, edx",
            "xor ecx, ecx",
            "xsetbv",
            osxsave = const OSXSAVE,
            parts = const super::user::Fx::PARTS,
            out("rax") _,
            out("rcx") _,
            out("rdx") _,
        );
    }
}

/// The number of this processor, from 0.
#[inline]
pub(crate) fn id() -> u32 {
    let id: u32;
    // SAFETY: `gs` points to this processor's `Cpu` whenever the kernel runs.
    unsafe {
        asm!(
            "mov {id:e}, gs:[{at}]",
            id = out(reg) id,
            at = const offset_of!(Cpu, id),
            options(nostack, preserves_flags, pure, readonly)
        );
    }
    id
}

impl Cpu {
    /// Its number, from 0.
    pub(super) const fn id(&self) -> u32 {
        self.id
    }
}

/// The magazines of this processor, for the heap, which gives them up before it asks again: it
/// allocates nothing while it has them.
#[inline(always)]
pub(super) fn magazines() -> &'static mut Magazines {
    let magazines: *mut Magazines;
    // SAFETY: as for `id`.
    unsafe {
        asm!(
            "mov {magazines}, gs:[{at}]",
            magazines = out(reg) magazines,
            at = const offset_of!(Cpu, magazines),
            options(nostack, preserves_flags, readonly)
        );
    }
    // SAFETY: they live for ever, and are nobody's else: another processor has its own, and nothing
    // interrupts this one. A trap ends the kernel.
    unsafe { &mut *magazines }
}

/// Waits for an interrupt, whose acknowledgement is all that happens to it. Returns at once if one
/// is pending. An interrupt that is not followed by another may have been taken already, so whoever
/// waits for something looks for it first.
pub(crate) fn idle() {
    // SAFETY: `sti` takes effect after `hlt` has begun, so no interrupt is lost in between, and the
    // interrupt's way keeps all registers. Without `nostack` nothing is kept below the stack's end.
    unsafe { asm!("sti", "hlt", "cli") };
}

/// Stops this processor.
pub(super) fn halt() -> ! {
    loop {
        // SAFETY: stopping with interrupts off touches nothing.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Ticks of this processor's time-stamp counter. Under QEMU's `-icount` it counts instructions.
#[inline]
pub(crate) fn counter() -> u64 {
    // SAFETY: every processor that gets here has the counter, and the kernel may read it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Nanoseconds since the counter started, by a clock that boot compared with the interval timer.
#[inline]
pub(crate) fn nanos() -> u64 {
    ((u128::from(counter()) * u128::from(NANOS_BY_TICKS.load(Relaxed))) >> 32) as u64
}

/// Says how long 2^32 ticks take.
pub(super) fn set_clock(nanos_by_ticks: u64) {
    NANOS_BY_TICKS.store(nanos_by_ticks, Relaxed);
}

/// Remembers the local APIC of this processor.
pub(super) fn remember_apic(id: u32) {
    APIC_IDS[id as usize].store(apic::id(), Relaxed);
}

/// The local APIC of processor `cpu`, once it has started.
pub(super) fn apic_of(cpu: u32) -> u32 {
    APIC_IDS[cpu as usize].load(Relaxed)
}

/// Reads a model-specific register.
///
/// # Safety
/// The processor must have it.
#[inline]
pub(super) unsafe fn read_msr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller says that it exists; reading changes nothing.
    unsafe {
        asm!(
            "rdmsr",
            in("ecx") register, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags)
        );
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
/// The processor must have it, take the value, and keep Rust's promises with it.
#[inline]
pub(super) unsafe fn write_msr(register: u32, value: u64) {
    // SAFETY: the caller answers for register and value.
    unsafe {
        asm!(
            "wrmsr",
            in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags)
        );
    }
}
