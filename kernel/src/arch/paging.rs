//! The kernel's half of every address space.
//!
//! ```text
//!   [256]   0xffff_8000_0000_0000   the direct map: all of RAM, not executable, and writable but for
//!                                   the image's code and constants
//!   [509]   0xffff_fe80_0000_0000   a page of code that programs may execute, if one is lent
//!   [510]   0xffff_ff00_0000_0000   devices, where they are physically, uncached
//!   [511]   0xffff_ff80_0000_0000   stacks, each above a page that is not there
//!           0xffff_ffff_8000_0000   the image: code, constants, variables, each as it must be
//! ```
//!
//! Boot builds a root with all of it. The memory manager then makes roots of its own; [`share`] enters
//! the kernel's half in them, whose tables all roots have in common, so that what is mapped there
//! later is seen everywhere. The lower half is the programs'.
//!
//! Invariant: no frame can be written at one address and executed by the kernel at another. Otherwise
//! a stray write through the direct map would change the code.

use core::alloc::Layout;
use core::arch::asm;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use spin::Mutex;
use vellum_mm::addr::{Frame, PAGE_BYTES, TABLE_ENTRIES, VirtAddr};
use vellum_mm::machine::{Memory, Table};
use vellum_mm::translate::x86_64::{
    ACCESSED, FRAME_MASK, KERNEL_HALF, LARGE, NO_EXECUTE, PRESENT, USER, WRITE,
};

use super::{PhysicalMemory, boot};

/// Where physical address 0 is.
pub(super) const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;
/// Where devices begin: a device at physical address `a` is at `DEVICES + a`.
pub(super) const DEVICES: u64 = 0xffff_ff00_0000_0000;
const STACKS: u64 = 0xffff_ff80_0000_0000;
/// The image runs so far above its physical addresses.
pub(super) const IMAGE_BASE: u64 = 0xffff_ffff_8000_0000;
/// The largest physical address that has a place in every part, and the first beyond.
pub(super) const PHYSICAL_END: u64 = 1 << 39;
/// Bytes of a page.
pub(super) const PAGE: u64 = PAGE_BYTES;

const GIB: u64 = 1 << 30;
const TWO_MIB: u64 = 2 << 20;
/// The tables of the firmware are below.
const FIRMWARE_END: u64 = 4 * GIB;
/// Where the page of [`lend`] is.
pub(super) const LENT: u64 = 0xffff_fe80_0000_0000;
/// Index in a root of that page.
const LENT_INDEX: usize = 509;
/// Index in a root of the devices.
const DEVICES_INDEX: usize = 510;
/// Index in a root of stacks and image.
const IMAGE_INDEX: usize = 511;
/// What all roots have in common.
const SHARED: [usize; 4] = [KERNEL_HALF, LENT_INDEX, DEVICES_INDEX, IMAGE_INDEX];
/// Neither cached nor written through: what device registers want.
const UNCACHED: u64 = 1 << 4 | 1 << 3;

/// Physical address of the kernel's root; 0 before there is one.
static ROOT: AtomicU64 = AtomicU64::new(0);
/// Held by who changes the tables below it.
static CHANGE: Mutex<()> = Mutex::new(());

/// A stack of a processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stack {
    /// The one that the kernel runs on.
    Kernel,
    /// For double faults: another stack has overflowed.
    DoubleFault,
    /// For non-maskable interrupts.
    Nmi,
    /// For machine checks.
    MachineCheck,
}

impl Stack {
    const ALL: [Stack; 4] = [Stack::Kernel, Stack::DoubleFault, Stack::Nmi, Stack::MachineCheck];
    /// Addresses from one stack to the next. What is not mapped at the lower end is the guard.
    const SPAN: u64 = 64 << 10;

    /// Bytes of it.
    const fn bytes(self) -> u64 {
        match self {
            Stack::Kernel => Stack::SPAN - PAGE,
            _ => 4 * PAGE,
        }
    }
}

/// The parts of the image, by address.
pub(super) struct Image {
    /// Code.
    pub(super) text: Range<u64>,
    /// Constants.
    pub(super) rodata: Range<u64>,
    /// Variables.
    pub(super) data: Range<u64>,
}

unsafe extern "C" {
    static image_text: u8;
    static image_rodata: u8;
    static image_data: u8;
    static image_end: u8;
}

/// Where the image is.
pub(super) fn image() -> Image {
    let [text, rodata, data, end] = [
        &raw const image_text,
        &raw const image_rodata,
        &raw const image_data,
        &raw const image_end,
    ]
    .map(|symbol| symbol as u64);
    Image { text: text..rodata, rodata: rodata..data, data: data..end }
}

/// The address of physical address `physical` in the direct map.
pub(super) fn direct(physical: u64) -> *mut u8 {
    debug_assert!(physical < PHYSICAL_END);
    core::ptr::with_exposed_provenance_mut((DIRECT_MAP + physical) as usize)
}

/// The physical address of memory in the direct map, which the heap is part of.
pub(super) fn physical(pointer: *const u8) -> u64 {
    let address = pointer.expose_provenance() as u64;
    let physical = address.wrapping_sub(DIRECT_MAP);
    assert!(physical < PHYSICAL_END, "{address:#x} is not in the direct map");
    physical
}

/// Builds the kernel's root for RAM that ends below `end`, with the image and the first processor's
/// stacks, and activates it.
pub(super) fn init(end: u64) {
    let root = new_page();
    ROOT.store(root, Relaxed);
    let direct = direct_map(end.max(FIRMWARE_END), &constant());
    table_at(root)[KERNEL_HALF].store(direct | PRESENT | WRITE, Relaxed);
    // Made now, because other roots copy these entries.
    for index in [DEVICES_INDEX, IMAGE_INDEX] {
        table_at(root)[index].store(new_page() | PRESENT | WRITE, Relaxed);
    }
    let image = image();
    for (part, bits) in
        [(image.text, 0), (image.rodata, NO_EXECUTE), (image.data, WRITE | NO_EXECUTE)]
    {
        for address in part.step_by(PAGE as usize) {
            map(address, address - IMAGE_BASE, bits);
        }
    }
    map_stacks(0);
    activate_own();
}

/// The physical addresses of what of the image never changes: all before its variables.
pub(super) fn constant() -> Range<u64> {
    boot::IMAGE_START..image().data.start - IMAGE_BASE
}

/// A table of the direct map up to `end`, in which `constant`, in the first GiB, is read-only. As large
/// as they can be: pages of 1 GiB, of 2 MiB in the first, of 4 KiB around what is read-only.
fn direct_map(end: u64, constant: &Range<u64>) -> u64 {
    const PARTS: u64 = TABLE_ENTRIES as u64;
    const READ: u64 = PRESENT | NO_EXECUTE;
    let table = |start: u64, step: u64, count: u64, bits: &dyn Fn(u64) -> u64| {
        let table = new_page();
        for (word, part) in table_at(table).iter().zip(0..count) {
            let address = start + part * step;
            word.store(address | bits(address), Relaxed);
        }
        table
    };
    let gibs = table(0, GIB, end.div_ceil(GIB), &|_| READ | WRITE | LARGE);
    let first = table(0, TWO_MIB, PARTS, &|_| READ | WRITE | LARGE);
    table_at(gibs)[0].store(first | PRESENT | WRITE, Relaxed);
    for part in constant.start / TWO_MIB..constant.end.div_ceil(TWO_MIB) {
        let write = |page| if constant.contains(&page) { READ } else { READ | WRITE };
        let pages = table(part * TWO_MIB, PAGE, PARTS, &write);
        table_at(first)[part as usize].store(pages | PRESENT | WRITE, Relaxed);
    }
    gibs
}

/// Makes the kernel's own root that of this processor: no program is there.
pub(crate) fn activate_own() {
    // SAFETY: it maps the image, the heap, all stacks, and boot's, which is in the image.
    unsafe { load_root(root()) };
}

/// The physical address of the kernel's root.
pub(super) fn root() -> u64 {
    ROOT.load(Relaxed)
}

/// A page of zeros in the heap, for ever: a table or a part of a stack. Its physical address.
fn new_page() -> u64 {
    // Never on a stack first: boot's is small.
    let layout = Layout::from_size_align(PAGE as usize, PAGE as usize).expect("a page is a page");
    // SAFETY: the layout has bytes.
    let table = unsafe { alloc::alloc::alloc_zeroed(layout) };
    assert!(!table.is_null(), "the heap has no room for the kernel's own tables");
    physical(table)
}

/// A table that [`new_page`] made.
fn table_at(physical: u64) -> &'static Table {
    let table = direct(physical).cast::<Table>();
    // SAFETY: only addresses of `new_page` get here (those in its own entries, masked), its tables
    // are never freed, and all their words are atomic.
    unsafe { &*table }
}

/// Maps one page of the kernel's half.
fn map(address: u64, physical: u64, bits: u64) {
    let _change = CHANGE.lock();
    let index = |level: u32| (address >> (12 + 9 * (level - 1))) as usize % TABLE_ENTRIES;
    let mut table = root();
    for level in (2..=4).rev() {
        let word = &table_at(table)[index(level)];
        if word.load(Relaxed) & PRESENT == 0 {
            word.store(new_page() | PRESENT | WRITE | bits & USER, Relaxed);
        }
        table = word.load(Relaxed) & FRAME_MASK;
    }
    table_at(table)[index(1)].store(physical | bits | PRESENT, Relaxed);
}

/// Maps the stacks of processor `cpu`.
pub(super) fn map_stacks(cpu: u32) {
    for stack in Stack::ALL {
        let end = stack_end(cpu, stack);
        for address in (end - stack.bytes()..end).step_by(PAGE as usize) {
            map(address, new_page(), WRITE | NO_EXECUTE);
        }
    }
}

/// Where a stack ends, which is where its use begins.
pub(super) fn stack_end(cpu: u32, stack: Stack) -> u64 {
    STACKS + (u64::from(cpu) * Stack::ALL.len() as u64 + stack as u64 + 1) * Stack::SPAN
}

/// The guard page of the kernel's stack of processor `cpu`.
pub(super) fn stack_guard(cpu: u32) -> u64 {
    stack_end(cpu, Stack::Kernel) - Stack::SPAN
}

/// The processor below whose stack `address` is, if it is below one.
pub(super) fn guard_of(address: u64) -> Option<u32> {
    let stacks = Stack::ALL.len() as u64 * Stack::SPAN;
    let cpu = address.checked_sub(STACKS)? / stacks;
    let cpu = u32::try_from(cpu).ok().filter(|cpu| (*cpu as usize) < super::cpu::CPUS_MAX)?;
    let guarded = |stack: &Stack| {
        let end = stack_end(cpu, *stack);
        (end - Stack::SPAN..end - stack.bytes()).contains(&address)
    };
    Stack::ALL.iter().any(guarded).then_some(cpu)
}

/// Maps the registers of a device, `bytes` from physical address `physical`, and tells where.
/// Mapping them again gives the same address.
///
/// # Panics
/// If they are beyond 512 GiB.
pub(super) fn map_device(physical: u64, bytes: u64) -> *mut u8 {
    let end = physical + bytes;
    assert!(end <= PHYSICAL_END, "a device at {physical:#x} is out of reach");
    for page in (physical & !(PAGE - 1)..end).step_by(PAGE as usize) {
        map(DEVICES + page, page, WRITE | NO_EXECUTE | UNCACHED);
    }
    core::ptr::with_exposed_provenance_mut((DEVICES + physical) as usize)
}

/// Lets programs execute the page at `address` in the image, at [`LENT`], under every root that is
/// [shared](share) later.
pub(super) fn lend(address: u64) {
    // Processors mark the entries that they use. Marked already, it stays equal to its copies.
    let entry = new_page() | PRESENT | USER | ACCESSED;
    table_at(root())[LENT_INDEX].store(entry, Relaxed);
    map(LENT, address - IMAGE_BASE, USER);
}

/// Copies the code at which processors start to its page, and maps nothing for it: processors that
/// start do so on the boot's tables.
pub(super) fn install_trampoline() {
    let code = boot::trampoline_code();
    assert!(code.len() <= PAGE as usize);
    // SAFETY: the page is RAM that boot kept out of `Hardware::memory`; it is used for this alone.
    unsafe {
        direct(boot::TRAMPOLINE_ADDRESS).copy_from_nonoverlapping(code.as_ptr(), code.len());
    }
}

/// Enters the kernel's half in a root, in place of a direct map that the memory manager made without
/// knowing of the image.
pub(crate) fn share(root: &Table) {
    for index in SHARED {
        root[index].store(shared(index), Relaxed);
    }
}

fn shared(index: usize) -> u64 {
    table_at(root())[index].load(Relaxed)
}

/// Makes `frame` the root of this processor; nothing happens if it is already.
///
/// # Panics
/// If it is no root with the kernel's half ([`share`]), or no frame of RAM.
#[inline]
pub(crate) fn activate(frame: Frame) {
    if current_root() != frame.address().0 {
        switch(frame);
    }
}

fn switch(frame: Frame) {
    let table = PhysicalMemory.table(frame);
    let kernels = SHARED.iter().all(|&index| table[index].load(Relaxed) == shared(index));
    assert!(kernels, "{frame} is not a root with the kernel in it");
    // SAFETY: the image, the stacks and the direct map are where they were, and the lower half is
    // nothing that the kernel uses.
    unsafe { load_root(frame.address().0) };
}

/// The physical address of this processor's root.
#[inline]
fn current_root() -> u64 {
    let root: u64;
    // SAFETY: reading the register has no effect.
    unsafe { asm!("mov {}, cr3", out(reg) root, options(nomem, nostack, preserves_flags)) };
    root
}

/// Loads a root, which forgets all translations of this processor.
///
/// # Safety
/// It must map the kernel's half as the present one does.
unsafe fn load_root(root: u64) {
    // SAFETY: the caller's promise.
    unsafe { asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) };
}

/// Makes this processor forget the translation of one page of the active root.
#[inline]
pub(crate) fn invalidate(address: VirtAddr) {
    // SAFETY: forgetting a translation changes no memory.
    unsafe { asm!("invlpg [{}]", in(reg) address.0, options(nostack, preserves_flags)) };
}

/// Makes this processor forget every translation.
#[inline]
pub(crate) fn invalidate_all() {
    // SAFETY: it is the root that is loaded.
    unsafe { load_root(current_root()) };
}
