//! What the processor reads and writes in page tables: rights, accessed and dirty bits, huge pages.

mod common;

use std::sync::atomic::Ordering::Relaxed;

use common::{ACCESSED, Builder, DATA, DIRTY, HUGE, NX, OPEN, PRESENT, USER, WRITE, entry, sim};
use vellum_machine::sim::{Level, Sim, Translation};
use vellum_mm::addr::{Frame, Page, Pages};
use vellum_mm::machine::{Access, Machine, Memory, SpaceId, Tlb};

/// Takes a right from an entry.
type Restrict = fn(u64) -> u64;

const SPACE: SpaceId = SpaceId(1);
const PAGE: Page = Page(0x1_2345_6789);
const FRAME: Frame = Frame(900);

/// One processor with `PAGE` mapped to `FRAME` by `bits` at level 1.
fn mapped(bits: u64) -> (Sim, Frame) {
    let (sim, mut builder) = (sim(1, 1024), Builder::new(0));
    let root = builder.table(&sim);
    builder.map(&sim, root, PAGE, 1, u64::from(FRAME.0) << 12 | bits);
    (sim, root)
}

/// Lets the processor access `PAGE`.
fn access(sim: &Sim, root: Frame, access: Access) -> Translation {
    sim.access(0, SPACE, root, PAGE, access)
}

fn bits(sim: &Sim, root: Frame, level: u32) -> u64 {
    entry(sim, root, PAGE, level).expect("the tables reach that far") & (ACCESSED | DIRTY)
}

/// Changes the entry of `PAGE` at `level`.
fn change(sim: &Sim, root: Frame, level: u32, to: impl Fn(u64) -> u64) {
    let mut table = root;
    for above in (level + 1..=4).rev() {
        table = Frame((sim.table(table)[common::index(PAGE, above)].load(Relaxed) >> 12) as u32);
    }
    let slot = &sim.table(table)[common::index(PAGE, level)];
    slot.store(to(slot.load(Relaxed)), Relaxed);
}

const WALKED: Translation = Translation::Walked { frame: FRAME, entries_read: 4 };

#[test]
fn a_read_marks_every_level_accessed_and_none_dirty() {
    let (sim, root) = mapped(DATA);
    assert_eq!(access(&sim, root, Access::Read), WALKED);
    assert!((1..=4).all(|level| bits(&sim, root, level) == ACCESSED));
}

#[test]
fn a_write_marks_only_the_last_level_dirty() {
    let (sim, root) = mapped(DATA);
    assert_eq!(access(&sim, root, Access::Write), WALKED);
    assert_eq!(bits(&sim, root, 1), ACCESSED | DIRTY);
    assert!((2..=4).all(|level| bits(&sim, root, level) == ACCESSED));
}

#[test]
fn a_refused_access_marks_nothing() {
    for (bits_given, refused) in [
        (PRESENT | USER | NX, Access::Write),
        (DATA, Access::Execute),
        (PRESENT | WRITE, Access::Read), // the kernel's own
        (WRITE | USER, Access::Read),    // not present
    ] {
        let (sim, root) = mapped(bits_given);
        assert_eq!(access(&sim, root, refused), Translation::Fault);
        assert!((1..=4).all(|level| bits(&sim, root, level) == 0), "{bits_given:#x}");
        assert_eq!(sim.counts(0).faults, 1);
    }
}

#[test]
fn a_cached_translation_does_not_set_the_accessed_bit_again() {
    let (sim, root) = mapped(DATA);
    access(&sim, root, Access::Read);
    change(&sim, root, 1, |entry| entry & !ACCESSED);
    let hit = Translation::Hit { frame: FRAME, level: Level::L1 };
    assert_eq!(access(&sim, root, Access::Read), hit);
    assert_eq!(bits(&sim, root, 1), 0, "whoever clears the bit must invalidate to see it set");
    sim.invalidate(SPACE, Pages::at(PAGE, 1));
    access(&sim, root, Access::Read);
    assert_eq!(bits(&sim, root, 1), ACCESSED);
}

#[test]
fn the_first_write_through_a_clean_entry_walks_and_the_second_does_not() {
    let (sim, root) = mapped(DATA);
    access(&sim, root, Access::Read);
    let assisted = Translation::Walked { frame: FRAME, entries_read: 1 };
    assert_eq!(access(&sim, root, Access::Write), assisted);
    assert_eq!(bits(&sim, root, 1), ACCESSED | DIRTY);
    let hit = Translation::Hit { frame: FRAME, level: Level::L1 };
    assert_eq!(access(&sim, root, Access::Write), hit);
    assert_eq!((sim.counts(0).assists, sim.counts(0).walks), (1, 2));
}

#[test]
fn an_entry_that_is_dirty_already_needs_no_assist() {
    let (sim, root) = mapped(DATA | DIRTY);
    access(&sim, root, Access::Read);
    let hit = Translation::Hit { frame: FRAME, level: Level::L1 };
    assert_eq!(access(&sim, root, Access::Write), hit);
}

#[test]
fn a_dirty_bit_cleared_with_an_invalidation_is_set_by_the_next_write() {
    let (sim, root) = mapped(DATA);
    access(&sim, root, Access::Write);
    change(&sim, root, 1, |entry| entry & !DIRTY);
    sim.invalidate(SPACE, Pages::at(PAGE, 1));
    access(&sim, root, Access::Write);
    assert_eq!(bits(&sim, root, 1), ACCESSED | DIRTY);
}

#[test]
fn every_level_can_withhold_every_right() {
    for level in 1..=4 {
        let cases: [(Access, Restrict); 4] = [
            (Access::Write, |entry| entry & !WRITE),
            (Access::Execute, |entry| entry | NX),
            (Access::Read, |entry| entry & !USER),
            (Access::Read, |entry| entry & !PRESENT),
        ];
        for (refused, restrict) in cases {
            let (sim, root) = mapped(OPEN);
            assert_eq!(access(&sim, root, refused), WALKED);
            change(&sim, root, level, restrict);
            sim.invalidate(SPACE, Pages::at(PAGE, 1));
            assert_eq!(access(&sim, root, refused), Translation::Fault, "{refused:?} {level}");
        }
    }
}

#[test]
fn rights_withheld_above_are_remembered_with_the_cached_structures() {
    let (sim, root) = mapped(OPEN);
    let mut builder = Builder::new(100);
    builder.map(&sim, root, PAGE.up(1), 1, u64::from(FRAME.0) << 12 | OPEN);
    change(&sim, root, 3, |entry| entry & !WRITE | NX);
    access(&sim, root, Access::Read);
    for refused in [Access::Write, Access::Execute] {
        // The neighbour is not in the TLB; the levels above it are cached.
        let neighbour = sim.access(0, SPACE, root, PAGE.up(1), refused);
        assert_eq!(neighbour, Translation::Fault, "{refused:?}");
    }
}

#[test]
fn a_right_added_without_an_invalidation_costs_one_spurious_fault() {
    let (sim, root) = mapped(PRESENT | USER | NX);
    access(&sim, root, Access::Read);
    change(&sim, root, 1, |entry| entry | WRITE);
    assert_eq!(access(&sim, root, Access::Write), Translation::Fault);
    assert!(matches!(access(&sim, root, Access::Write), Translation::Walked { .. }));
}

#[test]
fn a_right_added_above_without_an_invalidation_costs_one_spurious_fault() {
    let (sim, root) = mapped(OPEN);
    let mut builder = Builder::new(100);
    builder.map(&sim, root, PAGE.up(1), 1, u64::from(FRAME.0) << 12 | OPEN);
    change(&sim, root, 3, |entry| entry & !WRITE);
    access(&sim, root, Access::Read);
    change(&sim, root, 3, |entry| entry | WRITE);
    // The cached path to the last table still forbids it; the fault drops that path.
    let write = || sim.access(0, SPACE, root, PAGE.up(1), Access::Write);
    assert_eq!((write(), write()), (Translation::Fault, WALKED));
}

#[test]
fn an_entry_that_becomes_present_needs_no_invalidation() {
    let (sim, root) = mapped(0);
    assert_eq!(access(&sim, root, Access::Read), Translation::Fault);
    change(&sim, root, 1, |_| u64::from(FRAME.0) << 12 | DATA);
    assert_eq!(access(&sim, root, Access::Read), WALKED);
}

#[test]
fn a_huge_entry_maps_512_pages_with_one_walk() {
    let (sim, mut builder) = (sim(1, 4096), Builder::new(0));
    let root = builder.table(&sim);
    let start = Page(PAGE.0 & !511);
    builder.map(&sim, root, start, 2, 1024 << 12 | DATA | HUGE);
    let first = sim.access(0, SPACE, root, start.up(7), Access::Write);
    assert_eq!(first, Translation::Walked { frame: Frame(1031), entries_read: 3 });
    for i in 0..512 {
        let frame = Frame(1024 + i);
        let hit = Translation::Hit { frame, level: Level::L1 };
        assert_eq!(sim.access(0, SPACE, root, start.up(u64::from(i)), Access::Write), hit);
    }
    assert_eq!(
        entry(&sim, root, start, 2).expect("level 2") & (ACCESSED | DIRTY),
        ACCESSED | DIRTY
    );
    sim.invalidate(SPACE, Pages::at(start.up(300), 1));
    let again = sim.access(0, SPACE, root, start, Access::Read);
    assert!(matches!(again, Translation::Walked { .. }), "any page of it invalidates all of it");
}

#[test]
fn a_gigabyte_entry_is_cached_in_pieces_of_2_mib() {
    let (sim, mut builder) = (sim(1, 1 << 19), Builder::new(0));
    let root = builder.table(&sim);
    let start = Page(PAGE.0 & !0x3_ffff);
    builder.map(&sim, root, start, 3, 0x4_0000 << 12 | DATA | HUGE);
    for (page, expected) in [(0, Some(2)), (511, None), (512, Some(2)), (0x3_ffff, Some(2))] {
        let got = sim.access(0, SPACE, root, start.up(page), Access::Read);
        let frame = Frame(0x4_0000 + page as u32);
        let hit = Translation::Hit { frame, level: Level::L1 };
        let walked = |entries_read| Translation::Walked { frame, entries_read };
        assert_eq!(got, expected.map_or(hit, walked), "{page}");
    }
}

#[test]
fn corrupt_entries_fault() {
    for (level, bad) in [
        (1, 1 << 45),           // a physical address bit that the processor does not have
        (2, HUGE | 0x1f << 13), // a huge page that is not aligned
        (4, HUGE),              // no page is that large
    ] {
        let (sim, root) = mapped(OPEN);
        change(&sim, root, level, |entry| entry | bad);
        assert_eq!(access(&sim, root, Access::Read), Translation::Fault, "level {level}");
    }
}

#[test]
fn addresses_in_the_middle_fault_and_those_above_are_told_apart_from_those_below() {
    let (sim, root) = mapped(DATA);
    access(&sim, root, Access::Read);
    for hole in [Page(1 << 35), Page(PAGE.0 | 1 << 36), Page(PAGE.0 | 1 << 51), Page(u64::MAX)] {
        let got = sim.access(0, SPACE, root, hole, Access::Read);
        assert_eq!(got, Translation::Fault, "{hole:?}");
    }
    let high = Page(0xf_fff8_0000_0000 | PAGE.0);
    let mut builder = Builder::new(100);
    builder.map(&sim, root, high, 1, 901 << 12 | DATA);
    assert_eq!(sim.access(0, SPACE, root, high, Access::Read).frame(), Some(Frame(901)));
    assert_eq!(access(&sim, root, Access::Read).frame(), Some(FRAME));
}

#[test]
fn a_simulated_machine_permits_everything() {
    let sim = sim(1, 16);
    assert!(sim.permits(vellum_mm::machine::Operation::AllocFrame));
}
