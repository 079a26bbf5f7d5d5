//! Machines larger than the host.

mod common;

use common::{Builder, DATA};
use vellum_machine::profile::Profile;
use vellum_machine::sim::{Sim, Translation};
use vellum_mm::addr::{Frame, Page};
use vellum_mm::machine::{Access, Memory, SpaceId};

#[test]
fn a_terabyte_costs_the_host_only_its_tables() {
    let frames = 1 << 28;
    let sim = Sim::with_frames(&Profile::default(), frames).expect("1 TiB is an index of 1 GiB");
    let mut builder = Builder::new(0);
    let root = builder.table(&sim);
    // A page in every 64 MiB of the whole machine, and one dense gigabyte.
    let sparse = (0..1 << 14).map(|i| (Page(i << 14), (i << 14) as u32));
    let dense = (0..1 << 18).map(|i| (Page(0x4_0000_0000 + i), frames - 1 - i as u32));
    for (page, frame) in sparse.chain(dense) {
        sim.zero(Frame(frame));
        builder.map(&sim, root, page, 1, u64::from(frame) << 12 | DATA);
        let got = sim.access(0, SpaceId(0), root, page, Access::Write);
        assert_eq!(got.frame(), Some(Frame(frame)), "{page:?}");
    }
    // By level from 1: those of the sparse pages, those of the dense ones; and the root.
    let tables = sim.ram().tables_max();
    assert_eq!(tables, (16_384 + 1024 + 2) + (512 + 1 + 1) + 1);
    assert!(u64::from(tables) * 4096 < 100 << 20, "{tables} tables are more than 100 MiB");
    assert!(matches!(
        sim.access(0, SpaceId(0), root, Page(0x4_0003_ffff), Access::Read),
        Translation::Hit { .. }
    ));
}

#[test]
fn processors_in_threads_of_their_own_see_the_same_tables() {
    let sim = common::sim(4, 1 << 16);
    let mut builder = Builder::new(0);
    let root = builder.table(&sim);
    for page in 0..8192 {
        builder.map(&sim, root, Page(page), 1, (0x8000 + page) << 12 | DATA);
    }
    std::thread::scope(|scope| {
        for cpu in 0..4 {
            let sim = &sim;
            scope.spawn(move || {
                for page in (0..8192).chain(0..8192) {
                    let got = sim.access(cpu, SpaceId(0), root, Page(page), Access::Write);
                    assert_eq!(got.frame(), Some(Frame(0x8000 + page as u32)));
                }
            });
        }
    });
    let all_dirty = (0..8192).all(|page| {
        common::entry(&sim, root, Page(page), 1).is_some_and(|entry| entry & common::DIRTY != 0)
    });
    assert!(all_dirty, "a bit was lost");
    assert_eq!(sim.counts_total().lookups, 4 * 2 * 8192);
}
