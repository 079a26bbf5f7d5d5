//! Where things are in an address space: the 64-bit layout of Linux on x86-64.
//!
//! An address has 64 bits, but four levels of page tables translate only 48. Bit 47 is copied into
//! the bits above it, which leaves two halves with a hole between them: the low half is the
//! program's, the high half is the kernel's and the same in every address space.
//!
//! ```text
//! ffff_ffff_ffff_ffff ┌────────────────────┐
//!                     │ kernel             │
//! ffff_8000_0000_0000 ├────────────────────┤ KERNEL_START
//!                     │ not canonical: no  │
//!                     │ pointer may name it│
//! 0000_8000_0000_0000 ├────────────────────┤
//!                     │ one unusable page  │
//! 0000_7fff_ffff_f000 ├────────────────────┤ USER_END = stack_top
//!                     │ stack            ↓ │ at most stack_bytes_max
//!                     │ guard gap          │ stack_guard_pages
//!                     │   (to 128 MiB)     │
//! 0000_7fff_f7ff_f000 ├────────────────────┤ mmap_base
//!                     │ mappings         ↓ │ new ones go to the highest gap that fits
//!                     │                    │
//!                     │ heap             ↑ │ brk
//!                     ├────────────────────┤ brk_start
//!                     │ zero data (bss)    │
//!                     │ data               │
//!                     │ text               │
//! 0000_5555_5555_4000 ├────────────────────┤ PROGRAM_START, for a program that may be anywhere
//!                     │                    │
//! 0000_0000_0001_0000 ├────────────────────┤ mmap_min
//!                     │ never mapped       │ so that a null pointer faults
//! 0000_0000_0000_0000 └────────────────────┘
//! ```
//!
//! The layout is the one Linux gives to a process that asked for no randomisation
//! (`setarch -R`), so equal runs have equal addresses. Heap and mappings grow towards each other
//! and share what is between them.
//!
//! Invariant: at least a guard gap lies between the longest stack and `mmap_base`. Otherwise a
//! stack that overflows would run into a mapping and corrupt it silently.

use crate::addr::{PAGE_BYTES, Page, Pages, VirtAddr};

/// First address beyond what a program may map (Linux: `TASK_SIZE`).
///
/// The last page of the low half is left out. A `syscall` instruction at its end would return to a
/// non-canonical address, on which some processors fault in kernel mode.
pub const USER_END: VirtAddr = VirtAddr(0x7fff_ffff_f000);

/// First address of the hole: bit 47 is set and the bits above it are not.
pub const HOLE_START: VirtAddr = VirtAddr(0x8000_0000_0000);

/// First address of the kernel's half, where the hole ends.
pub const KERNEL_START: VirtAddr = VirtAddr(0xffff_8000_0000_0000);

/// Where a position-independent program is loaded: two thirds up the program's half.
pub const PROGRAM_START: VirtAddr = VirtAddr(USER_END.0 / 3 * 2 / PAGE_BYTES * PAGE_BYTES);

/// The least distance from the top of the stack down to `mmap_base`, in bytes.
///
/// Room for a limit that is raised while the program runs.
const STACK_ROOM_BYTES_MIN: u64 = 128 << 20;

/// The greatest such distance, in bytes: even without a limit the stack leaves a sixth to mappings.
const STACK_ROOM_BYTES_MAX: u64 = USER_END.0 / 6 * 5;

/// Whether a pointer may hold `address`: bits 48 to 63 are copies of bit 47.
///
/// Intel SDM, volume 1, section 3.3.7.1.
pub const fn is_canonical(address: VirtAddr) -> bool {
    address.0 < HOLE_START.0 || address.0 >= KERNEL_START.0
}

/// Whether a program may have something mapped at `address`.
pub const fn is_user(address: VirtAddr) -> bool {
    address.0 < USER_END.0
}

/// The places and limits of one address space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// New mappings go below this address.
    pub mmap_base: VirtAddr,
    /// First address beyond the stack.
    pub stack_top: VirtAddr,
    /// How long the stack may become, in bytes (Linux: `RLIMIT_STACK`).
    pub stack_bytes_max: u64,
    /// Pages that stay free below a growing stack (Linux: `stack_guard_gap`).
    pub stack_guard_pages: u64,
    /// Where the heap begins; the end of the program's zero data. Need not begin a page.
    pub brk_start: VirtAddr,
    /// First address that may be mapped (Linux: `vm.mmap_min_addr`).
    pub mmap_min: VirtAddr,
}

/// Why a [`Layout`] is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LayoutError {
    /// This address must begin a page.
    Unaligned(VirtAddr),
    /// This address is beyond [`USER_END`].
    BeyondUser(VirtAddr),
    /// The longest stack and its guard gap reach below `mmap_base`.
    StackMeetsMappings,
    /// The heap would begin below `mmap_min`, or where the stack or its guard gap may be.
    HeapOutside,
}

impl Layout {
    /// The default layout for a program whose zero data ends at `brk_start`.
    #[must_use]
    pub fn with_heap_at(brk_start: VirtAddr) -> Layout {
        Layout { brk_start, ..Layout::default() }
    }

    /// The same layout for another limit of the stack: `mmap_base` moves to leave room for it.
    ///
    /// The room is the stack with its guard gap, but at least 128 MiB and at most five sixths of
    /// the program's half; a limit that the room cannot hold is lowered to what it can.
    #[must_use]
    pub fn with_stack(self, bytes_max: u64) -> Layout {
        let guard_bytes = self.stack_guard_pages.saturating_mul(PAGE_BYTES);
        let room_max = STACK_ROOM_BYTES_MAX.min(self.stack_top.0);
        let room = bytes_max.saturating_add(guard_bytes).max(STACK_ROOM_BYTES_MIN).min(room_max);
        let mmap_base = VirtAddr((self.stack_top.0 - room) / PAGE_BYTES * PAGE_BYTES);
        let stack_bytes_max = bytes_max.min(room.saturating_sub(guard_bytes));
        Layout { mmap_base, stack_bytes_max, ..self }
    }

    /// The layout, if an address space can be built on it.
    pub fn checked(self) -> Result<Layout, LayoutError> {
        for edge in [self.mmap_base, self.stack_top, self.mmap_min] {
            if edge.offset() != 0 {
                return Err(LayoutError::Unaligned(edge));
            }
        }
        for address in [self.stack_top, self.mmap_base, self.brk_start, self.mmap_min] {
            if address > USER_END {
                return Err(LayoutError::BeyondUser(address));
            }
        }
        let guard_bytes = self.stack_guard_pages.saturating_mul(PAGE_BYTES);
        let room = self.stack_bytes_max.saturating_add(guard_bytes);
        let lowest = self.stack_top.0.saturating_sub(room);
        if room > self.stack_top.0 || lowest < self.mmap_base.0 {
            return Err(LayoutError::StackMeetsMappings);
        }
        if self.brk_start < self.mmap_min || self.brk_start.0 > lowest {
            return Err(LayoutError::HeapOutside);
        }
        Ok(self)
    }

    /// The pages that a program may map at all.
    pub fn mappable(&self) -> Pages {
        Pages::new(self.mmap_min.page_up().min(USER_END.page()), USER_END.page())
    }

    /// The longest stack in whole pages.
    pub const fn stack_pages_max(&self) -> u64 {
        self.stack_bytes_max / PAGE_BYTES
    }

    /// The first page of a heap: the first that begins at or above `brk_start`.
    pub const fn heap_start(&self) -> Page {
        self.brk_start.page_up()
    }
}

impl Default for Layout {
    /// Linux without randomisation: a stack of 8 MiB, a guard gap of 1 MiB, an empty program.
    fn default() -> Layout {
        Layout {
            mmap_base: USER_END,
            stack_top: USER_END,
            stack_bytes_max: 0,
            stack_guard_pages: 256,
            brk_start: PROGRAM_START,
            mmap_min: VirtAddr(65536),
        }
        .with_stack(8 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hole_begins_where_bit_47_would_have_to_be_copied() {
        assert!(is_canonical(VirtAddr(0)));
        assert!(is_canonical(VirtAddr(0x7fff_ffff_ffff)));
        assert!(!is_canonical(VirtAddr(0x8000_0000_0000)));
        assert!(!is_canonical(VirtAddr(0xffff_7fff_ffff_ffff)));
        assert!(is_canonical(VirtAddr(0xffff_8000_0000_0000)));
        assert!(is_canonical(VirtAddr(u64::MAX)));
        // The definition itself, bit by bit: sign-extending 48 bits changes nothing.
        for bit in 0..64 {
            for address in [1_u64 << bit, !(1_u64 << bit), (1_u64 << bit) - 1] {
                let extended = (address.cast_signed() << 16 >> 16).cast_unsigned();
                assert_eq!(is_canonical(VirtAddr(address)), extended == address, "{address:#x}");
            }
        }
    }

    #[test]
    fn the_last_page_of_the_low_half_is_nobodys() {
        assert!(is_user(VirtAddr(0x7fff_ffff_efff)));
        assert!(!is_user(VirtAddr(0x7fff_ffff_f000)));
        assert!(is_canonical(VirtAddr(0x7fff_ffff_f000)));
        assert!(!is_user(KERNEL_START));
    }

    #[test]
    fn the_default_is_what_linux_shows_without_randomisation() {
        let layout = Layout::default();
        assert_eq!(layout.checked(), Ok(layout));
        assert_eq!(layout.mmap_base, VirtAddr(0x7fff_f7ff_f000));
        assert_eq!(layout.stack_top, VirtAddr(0x7fff_ffff_f000));
        assert_eq!(layout.brk_start, VirtAddr(0x5555_5555_4000));
        assert_eq!(layout.stack_pages_max(), 2048);
        assert_eq!(layout.mappable(), Pages::new(Page(16), Page(0x7_ffff_ffff)));
        let loaded = Layout::with_heap_at(VirtAddr(0x5555_5555_8f01));
        assert_eq!(loaded.heap_start(), Page(0x5_5555_5559));
    }

    #[test]
    fn a_longer_stack_moves_the_mappings_down() {
        let layout = Layout::default();
        assert_eq!(layout.with_stack(64 << 20).mmap_base, layout.mmap_base, "128 MiB is the least");
        let long = layout.with_stack(1 << 30);
        assert_eq!(long.mmap_base, VirtAddr(USER_END.0 - (1 << 30) - (1 << 20)));
        assert_eq!(long.checked(), Ok(long));
        // Without a limit a sixth remains for heap and mappings, and a program at two thirds would
        // be in the stack's way.
        let boundless = layout.with_stack(u64::MAX);
        assert_eq!(boundless.mmap_base.page(), VirtAddr(USER_END.0 / 6).page());
        assert_eq!(boundless.checked(), Err(LayoutError::HeapOutside));
        let low = Layout { brk_start: VirtAddr(0x40_0000), ..boundless };
        assert_eq!(low.checked(), Ok(low));
    }

    #[test]
    fn a_layout_that_cannot_work_is_refused() {
        let good = Layout::default();
        let stack = Layout { stack_bytes_max: 128 << 20, ..good };
        assert_eq!(stack.checked(), Err(LayoutError::StackMeetsMappings));
        let guard = Layout { stack_guard_pages: u64::MAX, ..good };
        assert_eq!(guard.checked(), Err(LayoutError::StackMeetsMappings));
        let nothing = VirtAddr(0);
        let all = Layout { mmap_base: nothing, brk_start: nothing, mmap_min: nothing, ..guard };
        assert_eq!(all.checked(), Err(LayoutError::StackMeetsMappings), "more than there is");
        let odd = Layout { mmap_base: VirtAddr(good.mmap_base.0 + 1), ..good };
        assert_eq!(odd.checked(), Err(LayoutError::Unaligned(odd.mmap_base)));
        let high = Layout { stack_top: VirtAddr(USER_END.0 + PAGE_BYTES), ..good };
        assert_eq!(high.checked(), Err(LayoutError::BeyondUser(high.stack_top)));
        let heap = Layout { brk_start: VirtAddr(4096), ..good };
        assert_eq!(heap.checked(), Err(LayoutError::HeapOutside));
        let between = Layout { brk_start: VirtAddr(good.mmap_base.0 + PAGE_BYTES), ..good };
        assert_eq!(between.checked(), Ok(between), "a heap above the mappings is odd, but works");
    }
}
