//! The memory that the plugin and the collector share: a header, and a slot for each thread.
//!
//! ```text
//!     header  magic, filter, the ticket counter                               4 KiB
//!     slot 0  control 4 KiB | ring 256 KiB | filter 32 bytes a page
//!     slot 1  control       | ring         | filter            …
//! ```
//!
//! A thread of the recorded program owns one slot. It writes the ring at `head`, the collector
//! reads it at `tail`; both only ever grow. Everything that must survive the thread lies here
//! rather than in its own memory, its counters too: a program killed by a signal runs no last
//! words.
//!
//! Invariant: a slot goes `FREE → ACTIVE` by the plugin alone, `ACTIVE → DONE` by either side, and
//! `DONE → FREE` by the collector alone, after it has read the ring to its end. A slot freed
//! earlier would mix the events of two threads.
//!
//! Invariant: `busy` is set before a ticket is taken and cleared after its event is in the ring. So
//! a ticket that nobody holds and no ring contains died with its thread; see
//! [`merge`](crate::collect::merge).
//!
//! Everything is an atomic, so a store of the recorded program that goes astray yields wrong
//! numbers, never undefined behaviour on our side.

use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Says that both sides were built alike: changes with everything that they must agree on.
pub(crate) const MAGIC: u64 = {
    const FILES: [&[u8]; 3] =
        [include_bytes!("shared.rs"), include_bytes!("wire.rs"), include_bytes!("filter.rs")];
    // FNV-1a, by words; a half word at a file's end is of no importance.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut file = 0;
    while file < FILES.len() {
        let mut words = FILES[file];
        while let Some((word, rest)) = words.split_first_chunk::<8>() {
            hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0x0100_0000_01b3);
            words = rest;
        }
        file += 1;
    }
    hash
};

/// Words of a ring; a power of two. 256 KiB stay in a processor's second-level cache.
pub(crate) const RING_WORDS: u64 = 1 << 15;
/// The longest record, so that half a ring always suffices for it.
pub(crate) const RECORD_WORDS_MAX: u64 = RING_WORDS / 2;
/// Bytes of the header and of the control block of a slot.
const CONTROL_BYTES: usize = 4096;
const RING_BYTES: usize = RING_WORDS as usize * 8;
/// Filter entries of one page: load, store, fetch, and one for alignment.
pub(crate) const ENTRIES: usize = 4;

/// Nobody owns the slot.
pub(crate) const FREE: u32 = 0;
/// A thread owns the slot.
pub(crate) const ACTIVE: u32 = 1;
/// Its thread is gone; the collector has yet to read the rest.
pub(crate) const DONE: u32 = 2;

/// The start of the file.
#[repr(C, align(128))]
pub(crate) struct Header {
    pub(crate) magic: AtomicU64,
    pub(crate) slots: AtomicU64,
    pub(crate) filter_pages: AtomicU64,
    pub(crate) filter_events: AtomicU64,
    pub(crate) filter_blocks: AtomicU64,
    /// The recorder; threads that wait for it look whether it still lives.
    pub(crate) collector: AtomicU64,
    /// Set when nobody reads any more: threads stop recording and run on.
    pub(crate) closed: AtomicU64,
    /// Threads that found no free slot in time.
    pub(crate) unrecorded: AtomicU64,
    /// Shared anonymous mappings, numbered.
    pub(crate) objects: AtomicU64,
    /// Images that began, so that the collector can tell a plugin that never started.
    pub(crate) images: AtomicU64,
    /// Slots that were ever taken, so that the collector looks for new ones only when there are.
    pub(crate) claims: AtomicU64,
    /// Set before the first thread or process beyond the first is made. Until then nobody else
    /// takes tickets, and the first thread needs no atomic addition for each event.
    pub(crate) company: AtomicU64,
    /// The next ticket, alone on its cache lines: every recorded event of every thread takes one.
    pub(crate) ticket: Line<AtomicU64>,
}

/// A value on cache lines of its own. Two lines: processors fetch them in pairs.
#[repr(C, align(128))]
pub(crate) struct Line<T>(pub(crate) T);

/// The start of a slot.
#[repr(C, align(128))]
pub(crate) struct Control {
    /// Owned by whoever the state says.
    pub(crate) state: AtomicU32,
    pub(crate) pid: AtomicU32,
    pub(crate) tid: AtomicU32,
    /// When the thread took the slot, in clock ticks since boot: a process that is younger has
    /// merely been given the same pid.
    pub(crate) born: AtomicU64,
    /// Words the collector has read.
    pub(crate) tail: Line<AtomicU64>,
    /// Written by the owner, read by the collector.
    pub(crate) outbox: Line<Outbox>,
    /// What the callbacks touch on every reference.
    pub(crate) hot: Line<Hot>,
    /// Private to the owner.
    pub(crate) cold: Line<Cold>,
}

/// What the collector looks at to find new events.
#[repr(C)]
pub(crate) struct Outbox {
    /// Words written.
    pub(crate) head: AtomicU64,
    /// Whether the owner holds a ticket that is not in the ring yet.
    pub(crate) busy: AtomicU64,
}

/// One cache line: everything that a reference reads or writes apart from its filter entry.
#[repr(C)]
pub(crate) struct Hot {
    /// References so far: loads, stores, fetches.
    pub(crate) references: [AtomicU64; 3],
    pub(crate) instructions: AtomicU64,
    /// The filter's present generation, in the high bits; entries of older ones count as empty.
    pub(crate) generation: AtomicU64,
    /// The number of fetches at which the filter expires.
    pub(crate) expiry: AtomicU64,
    /// Filter pages minus one; the pages are a power of two.
    pub(crate) mask: AtomicU64,
}

/// What only recorded events touch.
#[repr(C)]
pub(crate) struct Cold {
    /// References and instructions that events have reported.
    pub(crate) references_told: AtomicU64,
    pub(crate) instructions_told: AtomicU64,
    /// The owner's last look at `tail`.
    pub(crate) tail_seen: AtomicU64,
    /// Events until the filter expires.
    pub(crate) events_left: AtomicU64,
    /// The ticket after that of the last event in the ring; an event that has it need not say so.
    pub(crate) ticket_next: AtomicU64,
    /// Whether this is nobody's slot, whose events go nowhere.
    pub(crate) muted: AtomicU64,
}

/// Bytes from one slot to the next.
pub(crate) fn slot_bytes(filter_pages: u64) -> usize {
    let filter = filter_pages as usize * ENTRIES * 8;
    (CONTROL_BYTES + RING_BYTES + filter).next_multiple_of(4096)
}

/// Bytes of the whole file.
pub(crate) fn file_bytes(slots: u64, filter_pages: u64) -> usize {
    CONTROL_BYTES + slots as usize * slot_bytes(filter_pages)
}

/// One slot of a mapping that lives for `'a`.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'a> {
    base: NonNull<u8>,
    mapping: PhantomData<&'a Mapping>,
}

impl<'a> Slot<'a> {
    /// The slot at an address that [`address`](Self::address) returned.
    ///
    /// # Safety
    /// `base` must be the address of a slot whose memory stays mapped for `'a`.
    pub(crate) unsafe fn from_address(base: NonNull<u8>) -> Self {
        Self { base, mapping: PhantomData }
    }

    /// Its address in this process.
    pub(crate) fn address(self) -> NonNull<u8> {
        self.base
    }

    /// The control block.
    #[inline(always)]
    pub(crate) fn control(self) -> &'a Control {
        // SAFETY:
        // 1. A slot starts with `CONTROL_BYTES` mapped bytes, page-aligned (`slot_bytes`), and
        //    `Control` is smaller (asserted below).
        // 2. All its fields are atomics, for which every bit pattern is valid.
        // 3. The memory stays mapped for `'a` (`from_address`, `Mapping::slot`).
        unsafe { self.base.cast::<Control>().as_ref() }
    }

    /// Word `index` of the ring, counted around it.
    #[inline(always)]
    pub(crate) fn ring(self, index: u64) -> &'a AtomicU64 {
        let offset = CONTROL_BYTES + (index % RING_WORDS) as usize * 8;
        self.word(offset)
    }

    /// Filter entry `index`, which must be below four times the filter's pages.
    #[inline(always)]
    pub(crate) fn entry(self, index: usize) -> &'a AtomicU64 {
        self.word(CONTROL_BYTES + RING_BYTES + index * 8)
    }

    #[inline(always)]
    fn word(self, offset: usize) -> &'a AtomicU64 {
        // SAFETY: `ring` and `entry` compute offsets below `slot_bytes`, whose bytes are one
        // mapping.
        let word = unsafe { self.base.add(offset) };
        // SAFETY:
        // 1. The offset is a multiple of 8 and the slot is page-aligned.
        // 2. The memory stays mapped for `'a` and is only ever used as atomics.
        unsafe { word.cast::<AtomicU64>().as_ref() }
    }
}

const _: () = assert!(size_of::<Control>() <= CONTROL_BYTES);
const _: () = assert!(size_of::<Header>() <= CONTROL_BYTES);
const _: () = assert!(size_of::<Hot>() <= 64);

/// The file, mapped.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is memory of atomics that belongs to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`; every access to it is an atomic operation.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `file`, which has `bytes` bytes and may be closed afterwards.
    ///
    /// # Errors
    /// Those of `mmap`.
    pub(crate) fn of(file: &std::fs::File, bytes: usize) -> io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let fd = file.as_raw_fd();
        // SAFETY: a new shared mapping at an address of the kernel's choice aliases nothing of
        // ours.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, prot, libc::MAP_SHARED, fd, 0) };
        Self::checked(base, bytes)
    }

    /// Maps private memory with room for `slots` slots that no collector reads.
    ///
    /// # Errors
    /// Those of `mmap`.
    pub(crate) fn private(slots: u64, filter_pages: u64) -> io::Result<Self> {
        let bytes = file_bytes(slots, filter_pages);
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new private mapping at an address of the kernel's choice aliases nothing of
        // ours.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, prot, flags, -1, 0) };
        let mapping = Self::checked(base, bytes)?;
        let header = mapping.header();
        header.slots.store(slots, Ordering::Relaxed);
        header.filter_pages.store(filter_pages, Ordering::Relaxed);
        Ok(mapping)
    }

    fn checked(base: *mut libc::c_void, bytes: usize) -> io::Result<Self> {
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, bytes })
    }

    /// The header.
    pub(crate) fn header(&self) -> &Header {
        // SAFETY:
        // 1. The mapping starts with `CONTROL_BYTES` bytes, page-aligned, and `Header` is smaller.
        // 2. All its fields are atomics, and the memory stays mapped while `self` lives.
        unsafe { self.base.cast::<Header>().as_ref() }
    }

    /// Number of slots.
    pub(crate) fn slots(&self) -> usize {
        self.header().slots.load(Ordering::Relaxed) as usize
    }

    /// Slot `index`.
    ///
    /// # Panics
    /// If the file ends before the end of that slot.
    pub(crate) fn slot(&self, index: usize) -> Slot<'_> {
        let stride = slot_bytes(self.header().filter_pages.load(Ordering::Relaxed));
        let offset = CONTROL_BYTES + index * stride;
        assert!(offset + stride <= self.bytes, "slot {index} is beyond the file");
        // SAFETY: the assertion above keeps the sum within the mapping.
        let base = unsafe { self.base.add(offset) };
        // SAFETY: a whole slot lies there (asserted) and stays mapped while `self` is borrowed.
        unsafe { Slot::from_address(base) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `of` or `private` mapped exactly this range, and slots borrow `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
