//! Working sets, measured: which pages a program has used lately.
//!
//! Denning's W(t, τ) is the set of pages that a process has used in the last τ of *its own* time. Its
//! own, since a program that waits for the disk most of the time uses few pages a second however many
//! it needs; measured by the clock on the wall, working sets shrink just when they should tell that
//! memory is too small. So the world asks at the end of each window of the program's processor time.
//!
//! What hardware tells is an accessed bit in each entry. It is shared with the replacement policy, and
//! neither may blind the other: what is taken here the policy finds as `REFERENCED`, what the policy
//! takes is found here as `SEEN`. A page that was used and then evicted counts too, otherwise a program
//! whose pages are stolen would seem to need few. One that was evicted twice in a window counts twice:
//! who asks bounds the sum by the pages that the program has at all.
//!
//! The alternative, counting faults and references, needs either every reference, which hardware does
//! not tell, or a model of how faults depend on memory.
//!
//! Cost: a look at every resident page of the space, and the TLBs forget the space, since a cached
//! translation would hide later uses.

use crate::frames::table::{Flags, Kind};
use crate::machine::Machine;
use crate::objects::Store;
use crate::spaces::AddressSpace;
use crate::translate::x86_64::{self as x86, ACCESSED, Holds, NO_RECENCY};

/// Pages used in a window.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Used {
    /// Of those that are resident.
    pub resident: u64,
    /// Those that were evicted since, counted once an eviction.
    pub gone: u64,
    /// Resident pages that were looked at, for who accounts time.
    pub scanned: u64,
}

impl Used {
    /// All of them.
    pub const fn pages(self) -> u64 {
        self.resident + self.gone
    }
}

/// Counts the pages of `space` that were used since the last call, and begins a new window.
pub fn take_used<M: Machine>(store: &Store, machine: &M, space: &AddressSpace) -> Used {
    let mut used = Used { gone: store.take_gone(space.id()), ..Used::default() };
    for area in space.areas().iter() {
        x86::for_leaves(machine, space.root(), area.pages, |leaf, part| {
            for page in part.iter() {
                let word = x86::word(machine, leaf, page);
                let Holds::Frame(frame) = x86::load(word).holds() else { continue };
                if frame == store.zero {
                    continue;
                }
                let mut locked = store.frames.table.lock(frame);
                let entry = x86::load(word);
                let kind = locked.state().kind();
                if entry.holds() != Holds::Frame(frame) || !matches!(kind, Kind::Anon | Kind::File)
                {
                    continue;
                }
                used.scanned += 1;
                let mut seen = locked.take(Flags::SEEN);
                if entry.has(ACCESSED) && !entry.has(NO_RECENCY) {
                    x86::change(word, ACCESSED, 0);
                    locked.set(Flags::REFERENCED);
                    seen = true;
                }
                used.resident += u64::from(seen);
            }
        });
    }
    machine.invalidate_space(space.id());
    used
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Page;
    use crate::machine::Access;
    use crate::testing::{AT, Bench};

    /// What the processor does with the entry of a page that is used.
    fn use_page(bench: &Bench, space: &AddressSpace, page: Page) {
        let leaf = x86::find_leaf(&bench.ram, space.root(), page).expect("the page is mapped");
        x86::change(x86::word(&bench.ram, leaf, page), 0, ACCESSED);
    }

    #[test]
    fn a_window_counts_what_was_used_in_it() {
        let bench = Bench::new(256, 256);
        let mut space = bench.space();
        let pages = bench.map(&mut space, Page(0x1000), 20);
        for page in pages.iter() {
            bench.touch(&mut space, page, Access::Write).unwrap();
        }
        let used = bench.vm.take_used(&bench.ram, &space);
        assert_eq!((used.resident, used.gone, used.scanned), (20, 0, 20));
        assert_eq!(bench.vm.take_used(&bench.ram, &space).pages(), 0);
        for page in pages.iter().take(3) {
            use_page(&bench, &space, page);
        }
        assert_eq!(bench.vm.take_used(&bench.ram, &space).pages(), 3);
        bench.check(&[&space]);
    }

    #[test]
    fn policy_and_measurement_do_not_blind_each_other() {
        let bench = Bench::new(256, 256);
        let mut space = bench.space();
        let pages = bench.map(&mut space, Page(0x1000), 20);
        for page in pages.iter() {
            bench.touch(&mut space, page, Access::Write).unwrap();
        }
        // Clock takes all bits on its first round and evicts one page.
        assert_eq!(bench.vm.reclaim(AT, &bench.ram, 1), 1);
        let used = bench.vm.take_used(&bench.ram, &space);
        assert_eq!((used.resident, used.gone), (19, 1), "the policy took the bits, not the news");
        bench.settle();
        for page in pages.iter().skip(1) {
            use_page(&bench, &space, page);
        }
        bench.vm.take_used(&bench.ram, &space);
        let word = |page| bench.entry(&space, page);
        assert!(pages.iter().skip(1).all(|page| !word(page).has(ACCESSED)));
        let frame = word(Page(0x1005)).frame();
        assert!(bench.vm.store().frames.table.peek(frame).has(Flags::REFERENCED));
        bench.check(&[&space]);
    }
}
