//! The TLBs against an obvious model, and what they must do as facts.

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use common::{Builder, DATA, HUGE, NX, OPEN, PRESENT, USER, WRITE, naive, sim};
use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64;
use vellum_machine::profile::{Geometry, Profile};
use vellum_machine::ram::Ram;
use vellum_machine::sim::{Level, Sim, Translation};
use vellum_mm::addr::{Frame, Page, Pages};
use vellum_mm::machine::{Access, Memory, SpaceId, Tlb};

const ACCESSES: [Access; 3] = [Access::Read, Access::Write, Access::Execute];

/// A world of a few spaces whose tables change, and what may be cached of them.
struct World {
    sim: Sim,
    builder: Builder,
    roots: Vec<Frame>,
    /// By space and page: what is mapped there, with its level. The obvious map.
    mapped: BTreeMap<(u32, u64), (u32, u64)>,
}

/// Few pages in few tables, so that they meet again: 2 x 2 MiB ranges in each of two gigabytes.
fn some_page(random: &mut impl Rng) -> Page {
    let gigabyte = random.random_range(0..2_u64) << 18;
    let range = random.random_range(0..2_u64) << 9;
    Page(0x7_0000_0000 + gigabyte + range + random.random_range(0..24_u64))
}

impl World {
    fn new(profile: &Profile, cpus: u32, spaces: u32) -> World {
        let sim = Sim::new(profile, cpus, Ram::new(1 << 18).expect("1 GiB fits"));
        let mut builder = Builder::new(0);
        let roots = (0..spaces).map(|_| builder.table(&sim)).collect();
        World { sim, builder, roots, mapped: BTreeMap::new() }
    }

    fn invalidate(&self, space: u32, pages: Pages) {
        self.sim.invalidate(SpaceId(space), pages);
    }

    /// Maps a page with random rights, or takes it away; then invalidates it.
    fn change(&mut self, random: &mut impl Rng) {
        let space = random.random_range(0..self.roots.len() as u32);
        let page = some_page(random);
        let huge = Page(page.0 & !511);
        let root = self.roots[space as usize];
        let is_huge = self.mapped.get(&(space, huge.0)).is_some_and(|(level, _)| *level == 2);
        let frame = random.random_range(1 << 17..1 << 18_u64);
        match random.random_range(0..40) {
            0 => {
                // The whole range becomes one huge page, or a huge page goes.
                self.mapped.retain(|&(s, p), _| s != space || p & !511 != huge.0);
                let entry = if is_huge { 0 } else { (frame & !511) << 12 | DATA | HUGE };
                self.builder.map(&self.sim, root, huge, 2, entry);
                if !is_huge {
                    self.mapped.insert((space, huge.0), (2, entry));
                }
                self.invalidate(space, Pages::at(huge, 512));
            }
            _ if is_huge => {}
            1..=10 => {
                self.builder.map(&self.sim, root, page, 1, 0);
                self.mapped.remove(&(space, page.0));
                self.invalidate(space, Pages::at(page, 1));
            }
            choice => {
                let withheld = if choice % 4 == 0 { random.random() } else { 0 };
                let entry = frame << 12 | (OPEN ^ withheld & (WRITE | USER | NX));
                self.builder.map(&self.sim, root, page, 1, entry);
                self.mapped.insert((space, page.0), (1, entry));
                self.invalidate(space, Pages::at(page, 1));
            }
        }
    }

    /// What the obvious map says.
    fn expected(&self, space: u32, page: Page, access: Access) -> Option<Frame> {
        let huge = self.mapped.get(&(space, page.0 & !511)).filter(|(level, _)| *level == 2);
        let (level, entry) = huge.or_else(|| self.mapped.get(&(space, page.0)))?;
        let is_permitted = match access {
            Access::Read => true,
            Access::Write => entry & WRITE != 0,
            Access::Execute => entry & NX == 0,
        };
        let offset = if *level == 2 { page.0 % 512 } else { 0 };
        let frame = Frame((entry >> 12 & 0xffff_ffff) as u32 + offset as u32);
        (entry & PRESENT != 0 && entry & USER != 0 && is_permitted).then_some(frame)
    }
}

fn tiny(spaces: u32) -> Profile {
    let text = include_str!("../../machines/x86-64-server.toml");
    let mut profile = Profile::parse(&text.replace("spaces = 6 ", &format!("spaces = {spaces} ")))
        .expect("valid");
    let geometry = |entries, ways| Geometry::new(entries, ways).expect("valid");
    profile.tlb.l1_data = geometry(8, 2);
    profile.tlb.l1_data_2m = geometry(2, 1);
    profile.tlb.l1_code = geometry(4, 4);
    profile.tlb.l1_code_2m = geometry(1, 1);
    profile.tlb.l2 = geometry(24, 3);
    profile.tlb.structures = geometry(4, 2);
    profile
}

#[test]
fn no_translation_survives_its_invalidation_and_none_is_made_up() {
    for (seed, profile, cpus, spaces) in [
        (1, Profile::default(), 1, 1),
        (2, Profile::default(), 3, 10),
        (3, tiny(1), 2, 3),
        (4, tiny(2), 2, 3),
        (5, tiny(16), 1, 20),
    ] {
        let mut random = Pcg64::seed_from_u64(seed);
        let mut world = World::new(&profile, cpus, spaces);
        let mut found = [0_u32; 4];
        for step in 0..60_000 {
            if random.random_range(0..8) == 0 {
                world.change(&mut random);
            }
            if random.random_range(0..1000) == 0 {
                world.sim.invalidate_space(SpaceId(random.random_range(0..spaces)));
            }
            let (cpu, space) = (random.random_range(0..cpus), random.random_range(0..spaces));
            let (page, access) = (some_page(&mut random), ACCESSES[random.random_range(0..3)]);
            let root = world.roots[space as usize];
            let got = world.sim.access(cpu, SpaceId(space), root, page, access);
            let expected = world.expected(space, page, access);
            assert_eq!(
                got.frame(),
                expected,
                "seed {seed} step {step}: {got:?} {page:?} {access:?}"
            );
            assert_eq!(naive(&world.sim, root, 4, page, access), expected, "the test's own tables");
            found[match got {
                Translation::Hit { level: Level::L1, .. } => 0,
                Translation::Hit { level: Level::L2, .. } => 1,
                Translation::Walked { .. } => 2,
                Translation::Fault => 3,
            }] += 1;
        }
        assert!(found.iter().all(|&count| count > 50), "seed {seed}: {found:?} is one-sided");
    }
}

#[test]
fn a_whole_walk_agrees_with_a_naive_one_on_random_tables() {
    let mut random = Pcg64::seed_from_u64(6);
    let mut permitted = 0;
    for round in 0..200 {
        let (sim, mut builder) = (sim(1, 1 << 16), Builder::new(0));
        let root = builder.table(&sim);
        let pages: Vec<_> = (0..8).map(|_| some_page(&mut random)).collect();
        for &page in &pages {
            let frame = random.random_range(0..1 << 16_u64);
            builder.map(&sim, root, page, 1, frame << 12 | OPEN);
        }
        // Take rights from some at random places, levels above included, which others share.
        for &page in &pages[..3] {
            let level = random.random_range(1..=4);
            let Some(entry) = common::entry(&sim, root, page, level) else { continue };
            let lost = [0, WRITE, USER, PRESENT][random.random_range(0..4)];
            let nx = if random.random_range(0..4) == 0 { NX } else { 0 };
            builder.map(&sim, root, page, level, entry & !lost | nx);
        }
        for &page in &pages {
            let access = ACCESSES[random.random_range(0..3)];
            let expected = naive(&sim, root, 4, page, access);
            permitted += u32::from(expected.is_some());
            sim.invalidate_space(SpaceId(0));
            let got = sim.access(0, SpaceId(0), root, page, access);
            assert_eq!(got.frame(), expected, "round {round}: {page:?} {access:?}");
        }
    }
    assert!((200..1400).contains(&permitted), "{permitted} of 1600 is one-sided");
}

/// A machine with `pages` pages from 0 up mapped in each of `spaces` spaces, and their roots.
fn mapped(profile: &Profile, spaces: u32, pages: u64) -> (Sim, Vec<Frame>) {
    let sim = Sim::new(profile, 1, Ram::new(1 << 18).expect("1 GiB fits"));
    let mut builder = Builder::new(0);
    let roots: Vec<_> = (0..spaces).map(|_| builder.table(&sim)).collect();
    for (space, &root) in roots.iter().enumerate() {
        for page in 0..pages {
            let frame = (1 << 17) + space as u64 * pages + page;
            builder.map(&sim, root, Page(page), 1, frame << 12 | DATA);
        }
    }
    (sim, roots)
}

fn read(sim: &Sim, roots: &[Frame], space: u32, page: u64) -> Translation {
    sim.access(0, SpaceId(space), roots[space as usize], Page(page), Access::Read)
}

#[test]
fn as_many_pages_as_the_first_level_holds_hit_there() {
    let (sim, roots) = mapped(&Profile::default(), 1, 64);
    (0..64).for_each(|page| drop_translation(read(&sim, &roots, 0, page)));
    let is_hit =
        |page| matches!(read(&sim, &roots, 0, page), Translation::Hit { level: Level::L1, .. });
    assert!((0..64).all(is_hit));
}

#[test]
fn pages_beyond_the_first_level_hit_in_the_second() {
    let (sim, roots) = mapped(&Profile::default(), 1, 1536);
    (0..1536).for_each(|page| drop_translation(read(&sim, &roots, 0, page)));
    assert!((0..1536).all(|page| matches!(read(&sim, &roots, 0, page), Translation::Hit { .. })));
    assert_eq!(sim.counts(0).walks, 1536);
}

#[test]
fn one_table_is_walked_to_once() {
    let (sim, roots) = mapped(&Profile::default(), 1, 512);
    (0..512).for_each(|page| drop_translation(read(&sim, &roots, 0, page)));
    assert_eq!(sim.counts(0).entries_read, 4 + 511);
}

#[test]
fn a_switch_back_finds_its_entries_if_the_space_is_remembered() {
    for (spaces, remembered) in [(6, true), (7, false)] {
        let (sim, roots) = mapped(&Profile::default(), spaces, 4);
        for _ in 0..2 {
            (0..spaces).for_each(|space| drop_translation(read(&sim, &roots, space, 1)));
        }
        let walks = sim.counts(0).walks;
        assert_eq!(walks, u64::from(spaces) * if remembered { 1 } else { 2 }, "{spaces} spaces");
    }
}

#[test]
fn a_range_above_the_ceiling_flushes_the_space_and_spares_the_others() {
    let (sim, roots) = mapped(&Profile::default(), 2, 64);
    for space in [1, 0] {
        (0..64).for_each(|page| drop_translation(read(&sim, &roots, space, page)));
    }
    sim.invalidate(SpaceId(0), Pages::at(Page(0), 33));
    assert!(matches!(read(&sim, &roots, 0, 40), Translation::Hit { .. }));
    assert_eq!((sim.counts(0).pages_invalidated, sim.counts(0).flushes), (33, 0));
    sim.invalidate(SpaceId(0), Pages::at(Page(0), 34));
    assert_eq!(sim.counts(0).flushes, 1);
    assert!(matches!(read(&sim, &roots, 0, 40), Translation::Walked { .. }));
    assert!(matches!(read(&sim, &roots, 1, 40), Translation::Hit { .. }));
}

#[test]
fn a_freed_table_is_not_used_after_its_range_was_invalidated() {
    let (sim, roots) = mapped(&Profile::default(), 1, 8);
    read(&sim, &roots, 0, 0);
    let slot = &sim.table(roots[0])[0];
    let entry = slot.swap(0, Relaxed);
    sim.invalidate(SpaceId(0), Pages::at(Page(0), 1));
    // Page 1 was never in the TLB, but the cached path to its table was.
    assert_eq!(read(&sim, &roots, 0, 1), Translation::Fault);
    slot.store(entry, Relaxed);
    assert!(matches!(read(&sim, &roots, 0, 1), Translation::Walked { .. }));
}

#[test]
fn an_empty_range_invalidates_nothing() {
    let (sim, roots) = mapped(&Profile::default(), 1, 4);
    read(&sim, &roots, 0, 0);
    sim.invalidate(SpaceId(0), Pages::at(Page(0), 0));
    assert!(matches!(read(&sim, &roots, 0, 0), Translation::Hit { .. }));
}

#[test]
fn contexts_that_run_out_start_over_without_mixing_spaces() {
    // A context is made by each flush and each invalidation; there are 2^23.
    let (sim, roots) = mapped(&Profile::default(), 2, 4);
    let old = read(&sim, &roots, 1, 0).frame();
    for _ in 0..(1 << 23) + 100 {
        sim.invalidate(SpaceId(1), Pages::at(Page(3), 1));
    }
    assert_eq!(read(&sim, &roots, 1, 0).frame(), old);
    assert_ne!(read(&sim, &roots, 0, 0).frame(), old);
    sim.table(Frame(0)); // the root of space 0 is still a table
    sim.invalidate_space(SpaceId(1));
    assert!(matches!(read(&sim, &roots, 1, 0), Translation::Walked { .. }));
    assert!(matches!(read(&sim, &roots, 0, 0), Translation::Hit { .. }));
}

#[test]
fn a_processor_keeps_its_own_entries() {
    let profile = Profile::default();
    let sim = Sim::new(&profile, 2, Ram::new(1024).expect("fits"));
    let mut builder = Builder::new(0);
    let root = builder.table(&sim);
    builder.map(&sim, root, Page(5), 1, 900 << 12 | DATA);
    for cpu in 0..2 {
        let got = sim.access(cpu, SpaceId(0), root, Page(5), Access::Read);
        assert!(matches!(got, Translation::Walked { .. }));
    }
    sim.invalidate(SpaceId(0), Pages::at(Page(5), 1));
    assert_eq!(sim.counts_total().pages_invalidated, 2, "the shootdown reaches both");
}

/// Reads that are made for what they leave behind.
fn drop_translation(translation: Translation) {
    assert_ne!(translation, Translation::Fault);
}
