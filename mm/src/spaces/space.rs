//! One address space: its areas, its page tables, and what is counted of it.
//!
//! An [`AddressSpace`] is owned: whoever has `&mut` to it is the only one who maps, unmaps and faults
//! in it. Eviction alone changes its entries without asking, through the reverse map.

use super::areas::Areas;
use super::layout::Layout;
use crate::addr::{Frame, Page, Pages, VirtAddr};
use crate::frames::NoMemory;
use crate::machine::{At, Machine, SpaceId};
use crate::objects::Store;
use crate::objects::store::Resident;
use crate::translate::x86_64 as x86;

/// Areas that one address space can have (`vm.max_map_count`).
pub const AREAS_MAX: usize = 65_530;

/// A virtual address space.
pub struct AddressSpace {
    id: SpaceId,
    root: Frame,
    /// Where its parts go.
    pub(super) layout: Layout,
    /// What each range of pages promises.
    pub(super) areas: Areas,
    /// The end of the heap, in bytes.
    pub(super) brk: VirtAddr,
    /// Page tables, the root included.
    pub(super) tables: u64,
    tables_peak: u64,
    resident_peak: u64,
    /// The leaf table found last, and the number of its 2 MiB region.
    recent_leaf: Option<(u64, Frame)>,
}

/// Pages below one leaf table, as a shift.
const REGION_SHIFT: u32 = 9;

impl AddressSpace {
    /// A space without areas, under `kernel`'s half.
    ///
    /// # Errors
    /// If no frame is free for its root, or 65,536 spaces exist.
    pub fn new<M: Machine>(
        store: &Store,
        at: At,
        machine: &M,
        layout: Layout,
        kernel: Frame,
    ) -> Result<AddressSpace, NoMemory> {
        let id = store.new_space_id().ok_or(NoMemory)?;
        let Ok(root) = x86::new_root(&store.frames, at, machine, Some(kernel)) else {
            store.end_space_id(id);
            return Err(NoMemory);
        };
        Ok(AddressSpace {
            id,
            root,
            layout,
            areas: Areas::new(layout.stack_guard_pages, AREAS_MAX),
            brk: layout.brk_start,
            tables: 1,
            tables_peak: 1,
            resident_peak: 0,
            recent_leaf: None,
        })
    }

    /// Its number, as TLBs and the reverse map know it.
    pub const fn id(&self) -> SpaceId {
        self.id
    }

    /// The frame of its root table.
    pub const fn root(&self) -> Frame {
        self.root
    }

    /// Where its parts go.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Its areas.
    pub const fn areas(&self) -> &Areas {
        &self.areas
    }

    /// Its areas, for a fault, which remembers the last one and may grow a stack.
    pub(crate) fn areas_mut(&mut self) -> &mut Areas {
        &mut self.areas
    }

    /// The end of the heap, in bytes.
    pub const fn brk(&self) -> VirtAddr {
        self.brk
    }

    /// Page tables now, the root included.
    pub const fn tables(&self) -> u64 {
        self.tables
    }

    /// The most page tables it ever had.
    pub const fn tables_peak(&self) -> u64 {
        self.tables_peak
    }

    /// The most pages that were ever resident.
    pub const fn resident_peak(&self) -> u64 {
        self.resident_peak
    }

    /// What is resident now.
    pub fn resident(&self, store: &Store) -> Resident {
        store.resident(self.id)
    }

    /// The leaf table of `page`, if there is one.
    #[inline]
    pub(crate) fn leaf<M: Machine>(&mut self, machine: &M, page: Page) -> Option<Frame> {
        let region = page.0 >> REGION_SHIFT;
        match self.recent_leaf {
            Some((recent, leaf)) if recent == region => Some(leaf),
            _ => {
                let leaf = x86::find_leaf(machine, self.root, page)?;
                self.recent_leaf = Some((region, leaf));
                Some(leaf)
            }
        }
    }

    /// The leaf table of `page`, made if it is missing.
    #[inline]
    pub(crate) fn make_leaf<M: Machine>(
        &mut self,
        store: &Store,
        at: At,
        machine: &M,
        page: Page,
    ) -> Result<Frame, NoMemory> {
        let region = page.0 >> REGION_SHIFT;
        if let Some((recent, leaf)) = self.recent_leaf
            && recent == region
        {
            return Ok(leaf);
        }
        let (id, root) = (self.id, self.root);
        let made = &mut self.tables;
        let leaf = x86::make_leaf(&store.frames, at, machine, id, root, page, made);
        self.tables_peak = self.tables_peak.max(self.tables);
        let leaf = leaf?;
        self.recent_leaf = Some((region, leaf));
        Ok(leaf)
    }

    /// Tables were freed: the leaf found last may be one of them.
    pub(super) fn tables_freed(&mut self, count: u64) {
        self.tables -= count;
        if count > 0 {
            self.recent_leaf = None;
        }
    }

    /// Takes note of how many pages are resident, for the peak.
    #[inline]
    pub(crate) fn note_resident(&mut self, store: &Store) {
        self.resident_peak = self.resident_peak.max(store.resident(self.id).pages());
    }

    /// The widest range around `pages` in which no area is left.
    pub(super) fn hole_around(&self, pages: Pages) -> Pages {
        let start = self.areas.below(pages.start).map_or(Page(0), |vma| vma.pages.end);
        // The end of the lower half, not of what may be mapped: the tables of the last page span both.
        let half_end = super::layout::HOLE_START.page();
        let end = self.areas.at_or_above(pages.start).map_or(half_end, |vma| vma.pages.start);
        Pages::new(start.min(pages.start), end.max(pages.end))
    }

    /// Ends the space: its last areas must have been unmapped.
    pub(super) fn end<M: Machine>(self, store: &Store, at: At, machine: &M) {
        debug_assert!(self.areas.is_empty() && self.tables == 1, "a space ends with tables");
        machine.invalidate_space(self.id);
        store.frames.table.lock(self.root).end();
        store.frames.free(at, machine, self.root);
        store.end_space_id(self.id);
    }
}
