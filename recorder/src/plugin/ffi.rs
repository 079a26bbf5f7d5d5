//! QEMU's plugin interface, declared by hand, and the functions that QEMU calls.
//!
//! The interface is found by name at run time, never linked: the crate is also part of the `vellum`
//! command, which has no QEMU in it, and versions of QEMU differ in what they export. Three things
//! were learnt the hard way, and hold for QEMU 7.2 to 10.0:
//!
//! - 7.2 accepts interface versions 0 and 1, and 10.0 accepts 2 to 4. All we use is alike in both,
//!   so the version is chosen when the library is loaded, by what the QEMU around it exports.
//! - Loads and stores must be asked for together. In 7.2 a callback for loads alone gets stores as
//!   well, and one for stores alone gets loads.
//! - One translation callback comes after the loader and before the first instruction: that is when
//!   the initial layout is there to be read.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_void};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64};

use super::{BIRTH, Plugin, STORE, calls, guest, layout, registry, update};

/// A block of translated instructions; QEMU's.
#[repr(C)]
struct Block {
    opaque: [u8; 0],
}

/// An instruction of a block; QEMU's.
#[repr(C)]
struct Instruction {
    opaque: [u8; 0],
}

type Id = u64;
type OnProcessor = extern "C" fn(Id, c_uint);
type OnTranslation = extern "C" fn(Id, *mut Block);
type OnExecution = extern "C" fn(c_uint, *mut c_void);
type OnMemory = extern "C" fn(c_uint, u32, u64, *mut c_void);
type OnCall = extern "C" fn(Id, c_uint, i64, u64, u64, u64, u64, u64, u64, u64, u64);
type OnReturn = extern "C" fn(Id, c_uint, i64, i64);
type OnArea = extern "C" fn(*mut c_void, c_ulong, c_ulong, c_ulong) -> c_int;

/// Loads and stores.
const READ_WRITE: c_int = 3;
/// The callbacks read no registers.
const NO_REGISTERS: c_int = 0;
/// Where an access's description says that it is a store, in every version so far.
const STORE_BIT: u32 = 17;

/// Declares the table of QEMU's functions and the code that fills it.
macro_rules! symbols {
    (required { $($name:ident: $type:ty = $symbol:literal,)* }
     optional { $($maybe:ident: $maybe_type:ty = $maybe_symbol:literal,)* }) => {
        /// What QEMU exports.
        pub(crate) struct Symbols {
            $($name: $type,)*
            $($maybe: Option<$maybe_type>,)*
        }

        impl Symbols {
            /// Finds every function.
            ///
            /// # Errors
            /// The name of a function that this QEMU lacks.
            fn load() -> Result<Self, &'static CStr> {
                Ok(Self {
                    $($name: {
                        let symbol = find($symbol).ok_or($symbol)?;
                        // SAFETY: QEMU's documentation declares the function with this type.
                        unsafe { std::mem::transmute::<*mut c_void, $type>(symbol) }
                    },)*
                    $($maybe: find($maybe_symbol).map(|symbol| {
                        // SAFETY: QEMU's source declares the symbol with this type.
                        unsafe { std::mem::transmute::<*mut c_void, $maybe_type>(symbol) }
                    }),)*
                })
            }
        }
    };
}

symbols! {
    required {
        on_processor_start: extern "C" fn(Id, OnProcessor) = c"qemu_plugin_register_vcpu_init_cb",
        on_processor_end: extern "C" fn(Id, OnProcessor) = c"qemu_plugin_register_vcpu_exit_cb",
        on_translation: extern "C" fn(Id, OnTranslation)
            = c"qemu_plugin_register_vcpu_tb_trans_cb",
        on_call: extern "C" fn(Id, OnCall) = c"qemu_plugin_register_vcpu_syscall_cb",
        on_return: extern "C" fn(Id, OnReturn) = c"qemu_plugin_register_vcpu_syscall_ret_cb",
        on_block: extern "C" fn(*mut Block, OnExecution, c_int, *mut c_void)
            = c"qemu_plugin_register_vcpu_tb_exec_cb",
        on_instruction: extern "C" fn(*mut Instruction, OnExecution, c_int, *mut c_void)
            = c"qemu_plugin_register_vcpu_insn_exec_cb",
        on_memory: extern "C" fn(*mut Instruction, OnMemory, c_int, c_int, *mut c_void)
            = c"qemu_plugin_register_vcpu_mem_cb",
        block_length: extern "C" fn(*const Block) -> usize = c"qemu_plugin_tb_n_insns",
        block_instruction: extern "C" fn(*const Block, usize) -> *mut Instruction
            = c"qemu_plugin_tb_get_insn",
        instruction_address: extern "C" fn(*const Instruction) -> u64 = c"qemu_plugin_insn_vaddr",
        instruction_bytes: extern "C" fn(*const Instruction) -> usize = c"qemu_plugin_insn_size",
        memory_is_store: extern "C" fn(u32) -> bool = c"qemu_plugin_mem_is_store",
        memory_size_shift: extern "C" fn(u32) -> c_uint = c"qemu_plugin_mem_size_shift",
    }
    optional {
        walk_areas: extern "C" fn(*mut c_void, OnArea) -> c_int = c"walk_memory_regions",
            }
}

fn find(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name ends in NUL; looking a symbol up runs no code of its library.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!symbol.is_null()).then_some(symbol)
}

/// The interface version that this library asks for; QEMU reads it right after loading.
#[unsafe(no_mangle)]
#[used]
#[allow(non_upper_case_globals)] // QEMU's name
pub static qemu_plugin_version: AtomicI32 = AtomicI32::new(1);

#[used]
// SAFETY: the loader calls what this section holds, with arguments that the function may ignore.
#[unsafe(link_section = ".init_array")]
static CHOOSE_VERSION: extern "C" fn() = choose_version;

/// Runs when the library is loaded. Versions above 2 brought scoreboards; 3 is accepted by all that
/// do.
extern "C" fn choose_version() {
    if find(c"qemu_plugin_scoreboard_new").is_some() {
        qemu_plugin_version.store(3, Relaxed);
    }
}

impl Symbols {
    /// What QEMU adds to an address of the program to get one of its own.
    pub(crate) fn guest_base() -> u64 {
        find(c"guest_base").map_or(0, |symbol| {
            // SAFETY: where QEMU exports this symbol, it is a variable of 64 bits, never unloaded.
            let base = unsafe { symbol.cast::<AtomicU64>().as_ref() };
            base.map_or(0, |base| base.load(Relaxed))
        })
    }

    /// The program's areas as `(start, end, rights)`, if this QEMU tells.
    pub(crate) fn areas(&self) -> Option<Vec<(u64, u64, u64)>> {
        extern "C" fn on_area(list: *mut c_void, start: u64, end: u64, flags: u64) -> c_int {
            // SAFETY: `areas` passes a vector that nobody else uses during the walk.
            let list = unsafe { &mut *list.cast::<Vec<(u64, u64, u64)>>() };
            list.push((start, end, flags));
            0
        }
        let mut list: Vec<(u64, u64, u64)> = Vec::new();
        (self.walk_areas?)((&raw mut list).cast(), on_area);
        Some(list)
    }

    fn store_bit_is_where_expected(&self) -> bool {
        // Every size and endianness, and each way an access is described.
        (0..64).all(|low| {
            [(0, false), (1, false), (2, true), (3, true)]
                .iter()
                .all(|&(direction, store)| (self.memory_is_store)(low | direction << 16) == store)
        })
    }
}

/// QEMU's way in.
///
/// # Safety
/// QEMU passes `count` pointers to strings in `arguments`, alive during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: Id,
    _info: *const c_void,
    count: c_int,
    arguments: *const *const c_char,
) -> c_int {
    let symbols = match Symbols::load() {
        Ok(symbols) => symbols,
        Err(name) => {
            eprintln!("vellum: cannot record: this QEMU has no {}", name.to_string_lossy());
            return 1;
        }
    };
    let count = usize::try_from(count).unwrap_or(0);
    let path = (0..count).find_map(|index| {
        // SAFETY: `arguments` has `count` elements (caller), and `index` is smaller.
        let argument = unsafe { arguments.add(index) };
        // SAFETY: as above.
        let argument = unsafe { *argument };
        // SAFETY: each element is a string (caller).
        let argument = unsafe { CStr::from_ptr(argument) };
        argument.to_str().ok()?.strip_prefix("shm=")
    });
    let Some(path) = path else {
        eprintln!("vellum: cannot record: the plugin needs shm=FILE; use `vellum record`");
        return 1;
    };
    if !symbols.store_bit_is_where_expected() {
        eprintln!("vellum: cannot record: this QEMU describes stores in a way not known here");
        return 1;
    }
    let Some(plugin) = super::install(path, symbols) else { return 1 };
    let symbols = &plugin.symbols;
    (symbols.on_processor_start)(id, on_processor_start);
    (symbols.on_processor_end)(id, on_processor_end);
    (symbols.on_translation)(id, on_translation);
    (symbols.on_call)(id, on_call);
    (symbols.on_return)(id, on_return);
    0
}

/// A number may come back with another thread behind it.
extern "C" fn on_processor_start(_id: Id, vcpu: c_uint) {
    registry::leave(vcpu);
}

extern "C" fn on_processor_end(_id: Id, vcpu: c_uint) {
    if let Some(slot) = registry::slot(vcpu) {
        Plugin::part(vcpu, slot);
    }
}

extern "C" fn on_translation(_id: Id, block: *mut Block) {
    static BORN: AtomicBool = AtomicBool::new(false);
    let Some(plugin) = Plugin::get() else { return };
    if !BORN.load(Relaxed) && !BORN.swap(true, Relaxed) {
        *BIRTH.lock() = layout::birth(&plugin.symbols);
    }
    let symbols = &plugin.symbols;
    let count = (symbols.block_length)(block);
    let mut page = None;
    let code = code_of(symbols, block, count);
    for index in 0..count {
        let instruction = (symbols.block_instruction)(block, index);
        let address = (symbols.instruction_address)(instruction);
        let last = address + (symbols.instruction_bytes)(instruction).max(1) as u64 - 1;
        match page {
            None => {
                // Both numbers travel in the pointer: a block has at most 512 instructions.
                let packed = address >> 12 << 12 | (count as u64).min(4095);
                (symbols.on_block)(block, on_block, NO_REGISTERS, packed as *mut c_void);
                page = Some(address >> 12);
            }
            Some(previous) if previous != address >> 12 => {
                let start = address as *mut c_void;
                (symbols.on_instruction)(instruction, on_page, NO_REGISTERS, start);
                page = Some(address >> 12);
            }
            Some(_) => {}
        }
        if last >> 12 != address >> 12 {
            let start = last as *mut c_void;
            (symbols.on_instruction)(instruction, on_page, NO_REGISTERS, start);
            page = Some(last >> 12);
        }
        let nothing = std::ptr::null_mut();
        let offset = address.saturating_sub(code.0) as usize;
        let is_update = code.1.get(offset..).is_some_and(update::is_update);
        let callback: OnMemory = if is_update { on_update } else { on_memory };
        (symbols.on_memory)(instruction, callback, NO_REGISTERS, READ_WRITE, nothing);
    }
}

/// Where a block of `count` instructions begins, and its bytes: they lie one after another.
fn code_of(symbols: &Symbols, block: *mut Block, count: usize) -> (u64, Vec<u8>) {
    let Some(last) = count.checked_sub(1) else { return (0, Vec::new()) };
    let first = (symbols.block_instruction)(block, 0);
    let last = (symbols.block_instruction)(block, last);
    let start = (symbols.instruction_address)(first);
    let end = (symbols.instruction_address)(last) + (symbols.instruction_bytes)(last) as u64;
    // A block lies in two pages at most.
    (start, guest::bytes(start, end.saturating_sub(start).min(2 << 12) as usize))
}

// The three callbacks of the fast path do nothing beyond looking. What remains is a call in tail
// position with the same arguments, so they save no register and have no frame: half the cost of
// each reference was that.

extern "C" fn on_block(vcpu: c_uint, packed: *mut c_void) {
    match registry::slot(vcpu) {
        Some(slot) if super::is_block_done(slot, packed as u64) => {}
        _ => finish_block(vcpu, packed),
    }
}

#[cold]
#[inline(never)]
extern "C" fn finish_block(vcpu: c_uint, packed: *mut c_void) {
    let page = packed as u64 >> 12;
    if let Some(slot) = registry::slot(vcpu) {
        super::report_block(slot, page);
    } else if let Some(slot) = Plugin::slot(vcpu) {
        // The first block of a thread: it was not even counted.
        let _new = super::is_block_done(slot, packed as u64);
        super::report_block(slot, page);
    }
}

/// A block goes on in another page.
extern "C" fn on_page(vcpu: c_uint, address: *mut c_void) {
    const FETCH: usize = 2;
    // The address's page is all that counts: its offset would say that the fetch crosses.
    let address = address as u64 >> 12 << 12;
    if let Some(slot) = Plugin::slot(vcpu)
        && !super::is_done(slot, FETCH, address)
    {
        super::report(slot, FETCH, address, 1);
    }
}

extern "C" fn on_memory(vcpu: c_uint, description: u32, address: u64, nothing: *mut c_void) {
    let kind = (description >> STORE_BIT & 1) as usize;
    match registry::slot(vcpu) {
        Some(slot) if super::is_done(slot, kind, address) => {}
        _ => finish_memory(vcpu, description, address, nothing),
    }
}

#[cold]
#[inline(never)]
extern "C" fn finish_memory(vcpu: c_uint, description: u32, address: u64, _: *mut c_void) {
    let kind = (description >> STORE_BIT & 1) as usize;
    if let Some(slot) = registry::slot(vcpu) {
        super::report(slot, kind, address, bytes_of(description, address));
    } else if let Some(slot) = Plugin::slot(vcpu)
        && !super::is_done(slot, kind, address)
    {
        super::report(slot, kind, address, bytes_of(description, address));
    }
}

/// A reference of an instruction that writes what it reads; see [`update`].
extern "C" fn on_update(vcpu: c_uint, description: u32, address: u64, nothing: *mut c_void) {
    let kind = (description >> STORE_BIT & 1) as usize;
    match registry::slot(vcpu) {
        Some(slot) if super::is_update_done(slot, kind, address) => {}
        _ => finish_update(vcpu, description, address, nothing),
    }
}

#[cold]
#[inline(never)]
extern "C" fn finish_update(vcpu: c_uint, description: u32, address: u64, _: *mut c_void) {
    let kind = (description >> STORE_BIT & 1) as usize;
    if let Some(slot) = registry::slot(vcpu) {
        super::report(slot, STORE, address, bytes_of(description, address));
    } else if let Some(slot) = Plugin::slot(vcpu)
        && !super::is_update_done(slot, kind, address)
    {
        super::report(slot, STORE, address, bytes_of(description, address));
    }
}

/// How many bytes a reference is long; 1 if it surely ends in its page.
fn bytes_of(description: u32, address: u64) -> u64 {
    if super::ends_in_its_page(address) {
        return 1;
    }
    let shift = |plugin: &Plugin| (plugin.symbols.memory_size_shift)(description);
    1 << Plugin::get().map_or(0, shift).min(6)
}

extern "C" fn on_call(
    _id: Id,
    vcpu: c_uint,
    number: i64,
    a1: u64,
    a2: u64,
    a3: u64,
    a4: u64,
    a5: u64,
    a6: u64,
    _a7: u64,
    _a8: u64,
) {
    if let Some(plugin) = Plugin::get() {
        calls::enter(plugin, vcpu, number, [a1, a2, a3, a4, a5, a6]);
    }
}

extern "C" fn on_return(_id: Id, vcpu: c_uint, number: i64, result: i64) {
    if let Some(plugin) = Plugin::get() {
        calls::leave(plugin, vcpu, number, result);
    }
}
