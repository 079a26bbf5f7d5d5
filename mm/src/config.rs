//! What a memory manager is made for: how much memory and where, processors, swap, policy.

use alloc::vec::Vec;
use core::ops::Range;

use crate::addr::Frame;
use crate::frames::zone::Watermarks;
use crate::objects::store::Tunables;
use crate::objects::swap::SwapConfig;
use crate::replace::Choice;

/// What a [`Vm`](crate::Vm) is made for.
#[derive(Clone, Debug)]
pub struct Config {
    /// Frames of physical memory, numbered from 0, holes included.
    pub frames: u32,
    /// Ranges of them that are no memory, or not the manager's to give: devices, the kernel's image.
    pub holes: Vec<Range<Frame>>,
    /// Processors, which are numbered from 0.
    pub cpus: u32,
    /// Watermarks; those of Linux if `None`.
    pub watermarks: Option<Watermarks>,
    /// The swap device.
    pub swap: SwapConfig,
    /// The replacement policy, with its settings.
    pub policy: Choice,
    /// What chance starts from, in policies that play.
    pub seed: u64,
    /// Fault-around and read-ahead.
    pub tunables: Tunables,
    /// I/O requests that can be under way at once.
    pub requests: u32,
    /// Groups of frames with an order of eviction each; 0 is global replacement.
    pub groups: u16,
}

impl Config {
    /// A machine of `frames` frames with one processor, no swap, and Clock.
    pub fn new(frames: u32) -> Config {
        Config {
            frames,
            holes: Vec::new(),
            cpus: 1,
            watermarks: None,
            swap: SwapConfig::NONE,
            policy: Choice::of("clock"),
            seed: 0,
            tunables: Tunables::default(),
            requests: 1024,
            groups: 0,
        }
    }

    /// What is left of the frames between the holes; `None` if those overlap or lie outside.
    pub(crate) fn usable(&self) -> Option<Vec<Range<Frame>>> {
        let mut holes: Vec<_> = self.holes.iter().filter(|hole| hole.start < hole.end).collect();
        holes.sort_by_key(|hole| hole.start);
        let mut memory = Vec::with_capacity(holes.len() + 1);
        let mut next = Frame(0);
        for hole in holes {
            if hole.start < next || hole.end > Frame(self.frames) {
                return None;
            }
            memory.push(next..hole.start);
            next = hole.end;
        }
        memory.push(next..Frame(self.frames));
        memory.retain(|range| range.start < range.end);
        Some(memory)
    }
}

/// Why no memory manager can be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BootError {
    /// Too few frames for the kernel's own tables.
    TooSmall,
    /// The policy needs to know the future, or decides how many frames a process gets: it can be run
    /// on a recorded string of references only.
    NeedsString,
    /// The watermarks are out of order or beyond the number of frames.
    BadWatermarks,
    /// Holes overlap, or lie outside memory.
    BadHoles,
    /// No processor, or no room for a single request.
    NoCpus,
}

/// The least frames that a [`Vm`](crate::Vm) can manage: its own tables and one address space's.
pub const FRAMES_MIN: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check_invariants;
    use crate::machine::Memory as _;
    use crate::testing::{AT, Ram};
    use crate::translate::x86_64::{Entry, KERNEL_HALF, PRESENT};
    use crate::vm::Vm;
    use alloc::vec;
    use core::sync::atomic::Ordering::Relaxed;

    #[test]
    fn holes_are_never_given_out() {
        let holes = vec![Frame(100)..Frame(200), Frame(0)..Frame(50), Frame(60)..Frame(60)];
        let config = Config { holes, ..Config::new(256) };
        assert_eq!(config.usable(), Some(vec![Frame(50)..Frame(100), Frame(200)..Frame(256)]));
        let ram = Ram::new(256);
        let vm = Vm::new(&config, &ram).unwrap();
        let census = vm.census();
        assert_eq!(census.free + census.used(), 106);
        let taken = || vm.store().frames.alloc_words(AT, &ram);
        let frames: Vec<u32> = core::iter::from_fn(|| taken().ok().map(|frame| frame.0)).collect();
        assert_eq!(frames.len() as u64, census.free);
        assert!(frames.iter().all(|frame| (50..100).contains(frame) || (200..256).contains(frame)));
    }

    #[test]
    fn a_window_of_memory_is_like_a_machine_of_its_size() {
        let holes = vec![Frame(0)..Frame(128), Frame(192)..Frame(256)];
        let config = Config { holes, ..Config::new(256) };
        let ram = Ram::new(256);
        let window = Vm::new(&config, &ram).unwrap();
        check_invariants(&window, &ram, &[]);
        let whole = Vm::new(&Config::new(64), &Ram::new(64)).unwrap();
        assert_eq!(window.census(), whole.census());
        let watermarks = |vm: &Vm| vm.store().frames.zone().watermarks();
        assert_eq!(watermarks(&window), watermarks(&whole));
        assert_eq!(window.store().frames.zone().span(), Frame(128)..Frame(192));
    }

    #[test]
    fn the_direct_map_reaches_beyond_the_last_usable_frame() {
        let gib = 1 << 18;
        let holes = vec![Frame(64)..Frame(gib + 1)];
        let config = Config { holes, ..Config::new(gib + 1) };
        let ram = Ram::new(64);
        let vm = Vm::new(&config, &ram).unwrap();
        let entry = |table: Frame, index: usize| Entry(ram.table(table)[index].load(Relaxed));
        let gibs = entry(vm.kernel_root(), KERNEL_HALF).frame();
        assert!(entry(gibs, 1).has(PRESENT) && !entry(gibs, 2).has(PRESENT));
    }

    #[test]
    fn holes_that_overlap_or_lie_outside_are_refused() {
        let holes = |holes| Config { holes, ..Config::new(256) }.usable();
        assert_eq!(holes(vec![Frame(0)..Frame(50), Frame(49)..Frame(60)]), None);
        assert_eq!(holes(vec![Frame(250)..Frame(257)]), None);
        let refused = Config { holes: vec![Frame(0)..Frame(250)], ..Config::new(256) };
        let refused = Vm::new(&refused, &Ram::new(256)).err();
        assert_eq!(refused, Some(BootError::TooSmall), "six frames are left");
    }
}
