//! From the first line of Rust to `start`.
//!
//! The order is that of needs: a console to complain on, the map of RAM, from it a heap, from that
//! tables and a stack of its own; then, on that stack, everything else.

use core::arch::asm;
use core::ops::Range;

use super::loader::Loaded;
use super::{Hardware, apic, boot, console, cpu, heap, memory, paging, timer};

/// What boot hands from its own stack to the kernel's.
struct Found {
    loaded: Loaded,
    heap: Range<u64>,
}

/// The first Rust code, on boot's tables and stack. `info` is what the loader passed.
pub(super) extern "sysv64" fn boot(info: u64) -> ! {
    console::init();
    // SAFETY: `boot_high` passes on what the loader passed; the direct map is boot's.
    let loaded = unsafe { Loaded::read(info) };
    let heap = place_heap(&loaded);
    let bytes = (heap.end - heap.start) as usize;
    // SAFETY: the range is RAM, in the direct map, and taken out of what others get.
    unsafe { heap::init(paging::direct(heap.start), bytes) };
    paging::init(loaded.ram_end);
    cpu::init(cpu::new(0));
    heap::use_own_magazines();
    let found = alloc::boxed::Box::leak(alloc::boxed::Box::new(Found { loaded, heap }));
    // SAFETY: the stack is mapped and unused; nothing of boot's is needed any more.
    unsafe {
        asm!(
            "mov rsp, {stack}",
            "xor ebp, ebp",
            "call {go_on}",
            "ud2",
            stack = in(reg) paging::stack_end(0, paging::Stack::Kernel),
            go_on = sym go_on,
            in("rdi") &raw const *found,
            options(noreturn)
        );
    }
}

/// Where the heap goes: the upper end of the longest range of RAM.
fn place_heap(loaded: &Loaded) -> Range<u64> {
    let [swap, arguments] = [b"swap=".as_slice(), b"arguments="].map(|name| loaded.number(name));
    let bytes = heap::bytes_for(loaded.ram_bytes, swap, arguments);
    let longest = loaded.ram.as_slice().iter().max_by_key(|range| range.end - range.start);
    let end = longest.filter(|range| range.end - range.start > bytes).map(|range| range.end);
    let end = end.expect("the machine has too little RAM for a heap");
    end - bytes..end
}

/// Goes on with a heap, tables and a stack.
extern "sysv64" fn go_on(found: &'static Found) -> ! {
    assert!(boot::stack_was_enough(), "boot's stack is too small");
    apic::init_machine();
    apic::init();
    cpu::remember_apic(0);
    timer::calibrate();
    let mut ram = found.loaded.ram.clone();
    ram.remove(&found.heap);
    memory::init(ram.as_slice());
    let heap_bytes = found.heap.end - found.heap.start;
    crate::start(Hardware::find(&found.loaded, ram.as_slice(), heap_bytes))
}
