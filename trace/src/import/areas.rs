//! Infers areas of an address space from the pages that were touched.
//!
//! Pages whose gap is small belong together: an allocator or a linker put them there, and what lies
//! between was not needed. Code (pages that were fetched from) and data are kept apart, since no
//! one maps them by one call. All areas are anonymous; which file a page came from, no trace tells.
//!
//! ```text
//!     touched    x x.x     xxxxx  F F                                  xx
//!     areas     [r----]   [rw---][r-x]                              [stack]
//! ```

use rustc_hash::FxHashMap;

use crate::event::{Area, Kind, Role};

/// Fewest untouched pages that part two areas: 256 KiB.
const GAP_PAGES: u64 = 64;

const READ: u32 = 1;
const WRITE: u32 = 2;
const EXEC: u32 = 4;

/// Which pages were touched, and how.
#[derive(Default)]
pub(crate) struct Touched {
    prots: FxHashMap<u64, u32>,
}

impl Touched {
    /// Notes an access of this kind.
    pub(crate) fn insert(&mut self, page: u64, kind: Kind) {
        *self.prots.entry(page).or_default() |= match kind {
            Kind::Load => READ,
            Kind::Store => READ | WRITE,
            Kind::Fetch => READ | EXEC,
        };
    }

    /// The areas, upwards.
    pub(crate) fn areas(&self) -> Vec<Area> {
        let mut pages: Vec<_> = self.prots.iter().map(|(page, prot)| (*page, *prot)).collect();
        pages.sort_unstable();
        let mut areas: Vec<Area> = Vec::new();
        for (page, prot) in pages {
            if let Some(area) = areas.last_mut()
                && page - (area.page + area.pages) < GAP_PAGES
                && area.prot & EXEC == prot & EXEC
            {
                area.pages = page + 1 - area.page;
                area.prot |= prot;
                continue;
            }
            let role = Role::Other;
            areas.push(Area { page, pages: 1, prot, shared: false, file: None, role });
        }
        // The lowest code is the program's; the highest area that is written is the stack, for the
        // kernel puts nothing writable above it.
        if let Some(program) = areas.iter_mut().find(|area| area.prot & EXEC != 0) {
            program.role = Role::Program;
        }
        let stack = areas.iter_mut().rev().find(|area| area.prot & (WRITE | EXEC) == WRITE);
        if let Some(stack) = stack {
            stack.role = Role::Stack;
        }
        areas
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn areas(touched: &[(u64, Kind)]) -> Vec<(u64, u64, u32, Role)> {
        let mut set = Touched::default();
        for (page, kind) in touched {
            set.insert(*page, *kind);
        }
        set.areas().iter().map(|area| (area.page, area.pages, area.prot, area.role)).collect()
    }

    #[test]
    fn a_small_gap_is_bridged_and_a_large_one_parts() {
        use Kind::{Load, Store};
        let found = areas(&[(10, Load), (10 + GAP_PAGES, Load), (500, Store), (400, Store)]);
        let (low, high) = (10, 10 + GAP_PAGES + GAP_PAGES + 1);
        assert_eq!(found[0], (low, GAP_PAGES + 1, READ, Role::Other));
        assert_eq!(found[1], (400, 1, READ | WRITE, Role::Other));
        assert_eq!(found[2], (500, 1, READ | WRITE, Role::Stack));
        assert_eq!(areas(&[(low, Load), (high, Load)]).len(), 2);
    }

    #[test]
    fn code_and_data_side_by_side_are_two_areas() {
        use Kind::{Fetch, Load, Store};
        let found = areas(&[(7, Fetch), (8, Load), (9, Store)]);
        let code = (7, 1, READ | EXEC, Role::Program);
        assert_eq!(found, [code, (8, 2, READ | WRITE, Role::Stack)]);
    }
}
