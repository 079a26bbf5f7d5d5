//! The half of the recorder that runs inside QEMU, and so inside the recorded program.
//!
//! QEMU calls it for each block of instructions and each load and store ([`ffi`]), and at the entry
//! and return of each system call ([`calls`]). A reference costs a look at the thread's filter;
//! what passes goes into the thread's ring ([`outbox`]). Nothing else runs here: no thread, which
//! would not survive `fork`, and no open file, which the program could close or mistake for its
//! own.
//!
//! Invariant: no callback panics or blocks for good. It would take the program with it.

mod calls;
mod effects;
mod exec;
pub(crate) mod ffi;
mod files;
mod guest;
mod layout;
mod lock;
mod outbox;
mod registry;
mod table;
mod update;

use std::ffi::CString;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

use crate::filter;
use crate::shared::{ACTIVE, DONE, FREE, Mapping, RING_WORDS, Slot};
use crate::sys;
use crate::wire::Record;
pub(crate) use exec::command_line as exec_command_line;
use lock::Lock;
use outbox::Outbox;
use registry::Thread;

/// A slot between `FREE` and `ACTIVE`: taken, but not described yet.
const CLAIMED: u32 = 3;
/// Half milliseconds that a thread waits for a slot before it runs unrecorded: the first such
/// thread of all, and those after it.
const WAITS: [u32; 2] = [4_000, 10];

/// What an image keeps from its install to its end.
pub(crate) struct Plugin {
    mapping: Mapping,
    /// Where threads that cannot be recorded count.
    muted: Mapping,
    /// How to start QEMU again for a program that this one executes.
    prefix: Vec<CString>,
    symbols: ffi::Symbols,
}

static PLUGIN: OnceLock<Plugin> = OnceLock::new();
/// The process that installed the plugin, or that was forked since.
static PID: AtomicU32 = AtomicU32::new(0);
/// Whether `exit_group` was entered: threads that still run have nobody to tell.
static EXITING: AtomicBool = AtomicBool::new(false);
/// The events of the image's birth, until its first thread reports them.
static BIRTH: Lock<Vec<Record>> = Lock::new(Vec::new());

/// Opens the shared file and registers this image; `None`, with the reason on stderr, if it cannot.
fn install(path: &str, symbols: ffi::Symbols) -> Option<&'static Plugin> {
    let complain = |what: &str| eprintln!("vellum: cannot record: {path}: {what}");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path);
    let opened = file.and_then(|file| {
        let bytes = file.metadata()?.len() as usize;
        Mapping::of(&file, bytes)
    });
    let mapping = match opened {
        Ok(mapping) => mapping,
        Err(error) => {
            complain(&error.to_string());
            return None;
        }
    };
    let header = mapping.header();
    if header.magic.load(Acquire) != crate::shared::MAGIC {
        complain("made by another version of vellum than this plugin; rebuild both");
        return None;
    }
    let pages = header.filter_pages.load(Relaxed);
    let muted = Mapping::private(1, pages).ok()?;
    prepare(muted.slot(0), header.filter_blocks.load(Relaxed), pages);
    let control = muted.slot(0).control();
    control.cold.0.muted.store(1, Relaxed);
    // Full from the start: nothing ever fits, so nothing takes a ticket.
    control.outbox.0.head.store(RING_WORDS, Relaxed);
    let pid = std::process::id();
    PID.store(pid, Relaxed);
    // The threads of the image that this one replaced are dead, though their process is not.
    for index in 0..mapping.slots() {
        let control = mapping.slot(index).control();
        if control.pid.load(Relaxed) == pid {
            let _ = control.state.compare_exchange(ACTIVE, DONE, Release, Relaxed);
        }
    }
    header.images.fetch_add(1, Relaxed);
    let prefix = exec::prefix();
    Some(PLUGIN.get_or_init(|| Plugin { mapping, muted, prefix, symbols }))
}

/// Makes a slot fit for a new owner.
fn prepare(slot: Slot<'_>, blocks: u64, pages: u64) {
    let control = slot.control();
    let (hot, cold) = (&control.hot.0, &control.cold.0);
    for count in &hot.references {
        count.store(0, Relaxed);
    }
    hot.instructions.store(0, Relaxed);
    hot.expiry.store(blocks, Relaxed);
    hot.mask.store(pages - 1, Relaxed);
    cold.references_told.store(0, Relaxed);
    cold.instructions_told.store(0, Relaxed);
    cold.events_left.store(0, Relaxed);
    // No ticket: the first event says which one it has.
    cold.ticket_next.store(u64::MAX, Relaxed);
    cold.tail_seen.store(control.tail.0.load(Acquire), Relaxed);
    control.outbox.0.busy.store(0, Relaxed);
    // Whatever the previous owner left in the filter is of an older generation now.
    filter::expire(slot);
}

impl Plugin {
    /// The plugin of this image, once it is installed.
    pub(crate) fn get() -> Option<&'static Self> {
        PLUGIN.get()
    }

    /// The way to the collector from `slot`.
    pub(crate) fn outbox(&self, slot: Slot<'static>) -> Outbox<'_> {
        Outbox { slot, header: self.mapping.header() }
    }

    /// A slot for the calling thread; the muted one if none becomes free in time.
    fn claim(&'static self) -> Slot<'static> {
        let header = self.mapping.header();
        // Once one has waited in vain, the others have little to hope for.
        let waits = WAITS[usize::from(header.unrecorded.load(Relaxed) > 0)];
        for _ in 0..waits {
            if EXITING.load(Relaxed) || header.closed.load(Relaxed) != 0 {
                return self.muted.slot(0);
            }
            let free =
                (0..self.mapping.slots()).map(|index| self.mapping.slot(index)).find(|slot| {
                    let state = &slot.control().state;
                    state.load(Relaxed) == FREE
                        && state.compare_exchange(FREE, CLAIMED, Acquire, Relaxed).is_ok()
                });
            if let Some(slot) = free {
                let pages = header.filter_pages.load(Relaxed);
                prepare(slot, header.filter_blocks.load(Relaxed), pages);
                let control = slot.control();
                control.pid.store(PID.load(Relaxed), Relaxed);
                control.tid.store(sys::thread_id(), Relaxed);
                control.born.store(sys::boot_ticks(), Relaxed);
                control.state.store(ACTIVE, Release);
                header.claims.fetch_add(1, Release);
                return slot;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        header.unrecorded.fetch_add(1, Relaxed);
        self.muted.slot(0)
    }

    /// Gives the calling thread, on virtual processor `vcpu`, a slot, and reports what is due
    /// first.
    fn join(&'static self, vcpu: u32) -> Slot<'static> {
        // A new thread waits here until its creator has reported it.
        let mut space = calls::space();
        let tid = sys::thread_id();
        let clear_tid = space.clear_tids.remove(&tid).unwrap_or(0);
        let birth = std::mem::take(&mut *BIRTH.lock());
        if let Some(Record::Exec { brk, .. }) = birth.last() {
            space.brk = *brk;
        }
        drop(space);
        let slot = self.claim();
        let thread = Thread {
            slot,
            tid,
            number: -1,
            arguments: [0; 6],
            ticket: None,
            holds_space: false,
            holds_files: false,
            found: None,
            clear_tid,
        };
        if !registry::join(vcpu, thread) {
            self.mapping.header().unrecorded.fetch_add(1, Relaxed);
            slot.control().state.store(DONE, Release);
            return self.muted.slot(0);
        }
        for record in &birth {
            self.outbox(slot).call(record);
        }
        slot
    }

    /// Lets go of `slot`, whose thread's virtual processor is `vcpu`.
    fn part(vcpu: u32, slot: Slot<'static>) {
        registry::leave(vcpu);
        slot.control().state.store(DONE, Release);
    }

    /// The slot of virtual processor `vcpu`, taken now if need be.
    pub(crate) fn slot(vcpu: u32) -> Option<Slot<'static>> {
        if let Some(slot) = registry::slot(vcpu) {
            return Some(slot);
        }
        let plugin = Self::get()?;
        if EXITING.load(Relaxed) {
            return Some(plugin.muted.slot(0));
        }
        Some(plugin.join(vcpu))
    }
}

/// The kind of references that write.
pub(crate) const STORE: usize = 1;

/// The longest access of an instruction of x86-64, or longer.
const ACCESS_BYTES_MAX: u64 = 64;

/// The last offset in a page at which any access ends in the page.
const OFFSET_MAX: u64 = 4096 - ACCESS_BYTES_MAX;

/// Counts a reference of `kind` to `address`; whether that was all, because the filter holds its
/// page and it surely ends there.
#[inline(always)]
pub(crate) fn is_done(slot: Slot<'static>, kind: usize, address: u64) -> bool {
    let count = &slot.control().hot.0.references[kind];
    count.store(count.load(Relaxed) + 1, Relaxed);
    filter::offset(slot, kind, address) <= OFFSET_MAX
}

/// As [`is_done`], of a reference of `kind` by an instruction that writes what it reads: whatever
/// `kind` says, its page is needed for a store.
#[inline(always)]
pub(crate) fn is_update_done(slot: Slot<'static>, kind: usize, address: u64) -> bool {
    let count = &slot.control().hot.0.references[kind];
    count.store(count.load(Relaxed) + 1, Relaxed);
    filter::offset(slot, STORE, address) <= OFFSET_MAX
}

/// Whether an access to `address` surely ends in the page in which it begins.
#[inline(always)]
pub(crate) fn ends_in_its_page(address: u64) -> bool {
    address & 4095 <= OFFSET_MAX
}

/// Reports a reference of `bytes` bytes, which was counted, unless the filter holds its page; and
/// the page after it, if it ends there.
pub(crate) fn report(slot: Slot<'static>, kind: usize, address: u64, bytes: u64) {
    let Some(plugin) = Plugin::get() else { return };
    let (page, last) = (address >> 12, (address + bytes.clamp(1, ACCESS_BYTES_MAX) - 1) >> 12);
    if !filter::holds(slot, kind, page) {
        plugin.outbox(slot).access(kind, page);
    }
    if last != page && !is_done(slot, kind, last << 12) {
        plugin.outbox(slot).access(kind, last);
    }
}

/// Counts a block, given as its page's address plus its number of instructions; whether that was
/// all.
#[inline(always)]
pub(crate) fn is_block_done(slot: Slot<'static>, packed: u64) -> bool {
    const FETCH: usize = 2;
    let hot = &slot.control().hot.0;
    hot.instructions.store(hot.instructions.load(Relaxed) + (packed & 4095), Relaxed);
    let fetches = hot.references[FETCH].load(Relaxed) + 1;
    hot.references[FETCH].store(fetches, Relaxed);
    fetches < hot.expiry.load(Relaxed) && filter::offset(slot, FETCH, packed) < 4096
}

/// Reports a block, which was counted, unless the filter holds its page or has just expired.
pub(crate) fn report_block(slot: Slot<'static>, page: u64) {
    const FETCH: usize = 2;
    let Some(plugin) = Plugin::get() else { return };
    let hot = &slot.control().hot.0;
    let fetches = hot.references[FETCH].load(Relaxed);
    if fetches >= hot.expiry.load(Relaxed) {
        let blocks = plugin.mapping.header().filter_blocks.load(Relaxed);
        hot.expiry.store(fetches.saturating_add(blocks), Relaxed);
        filter::expire(slot);
    }
    report(slot, FETCH, page << 12, 1);
}
