//! The smallest machine on which the tests beside the code can run: RAM, and a note of what was
//! invalidated. The world of `tests/`, with MMU, TLB and disk, is the thorough one.

use std::boxed::Box;
use std::cell::RefCell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::vec::Vec;

use crate::Config;
use crate::addr::{FileRef, Frame, PAGE_BYTES, Page, Pages, TABLE_ENTRIES};
use crate::event::Event;
use crate::fault::{Attempt, Cause, Outcome, Resolved};
use crate::frames::table::State;
use crate::machine::{Access, At, Machine, Memory, Operation, SpaceId, Table, Tlb};
use crate::objects::file::{Medium, Warmth};
use crate::objects::io::{IoOutcome, Request};
use crate::objects::swap::SwapConfig;
use crate::spaces::AddressSpace;
use crate::spaces::layout::Layout;
use crate::spaces::map::{Map, Place};
use crate::spaces::vma::{Backing, Sharing};
use crate::translate::x86_64::{self as x86, Entry};
use crate::vm::Vm;

/// RAM whose frames hold one number besides tables.
pub(crate) struct Ram {
    tables: Vec<OnceLock<Box<Table>>>,
    pub(crate) stamps: Vec<AtomicU64>,
    pub(crate) invalidated: RefCell<Vec<(SpaceId, Pages)>>,
    pub(crate) events: RefCell<Vec<Event>>,
}

impl Ram {
    pub(crate) fn new(frames: u32) -> Ram {
        Ram {
            tables: (0..frames).map(|_| OnceLock::new()).collect(),
            stamps: (0..frames).map(|_| AtomicU64::new(0)).collect(),
            invalidated: RefCell::default(),
            events: RefCell::default(),
        }
    }
}

impl Memory for Ram {
    fn table(&self, frame: Frame) -> &Table {
        let zeros = || Box::new([const { AtomicU64::new(0) }; TABLE_ENTRIES]);
        self.tables[frame.index()].get_or_init(zeros)
    }

    fn zero(&self, frame: Frame) {
        self.table(frame).iter().for_each(|word| word.store(0, Relaxed));
        self.stamps[frame.index()].store(0, Relaxed);
    }

    fn copy(&self, from: Frame, to: Frame) {
        self.stamps[to.index()].store(self.stamps[from.index()].load(Relaxed), Relaxed);
    }
}

impl Tlb for Ram {
    fn invalidate(&self, space: SpaceId, pages: Pages) {
        self.invalidated.borrow_mut().push((space, pages));
    }

    fn invalidate_space(&self, _space: SpaceId) {}
}

impl Machine for Ram {
    fn happened(&self, event: Event) {
        self.events.borrow_mut().push(event);
    }
}

/// A moment at which other processors may act in the middle of what one does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    /// The machine is asked for something.
    Asked(Operation),
    /// Translations were invalidated.
    Invalidated,
}

/// A machine on which others act at such moments.
pub(crate) struct Meddled<'a> {
    pub(crate) ram: &'a Ram,
    pub(crate) meddle: &'a dyn Fn(Moment),
}

impl Memory for Meddled<'_> {
    fn table(&self, frame: Frame) -> &Table {
        self.ram.table(frame)
    }

    fn zero(&self, frame: Frame) {
        self.ram.zero(frame);
    }

    fn copy(&self, from: Frame, to: Frame) {
        self.ram.copy(from, to);
    }
}

impl Tlb for Meddled<'_> {
    fn invalidate(&self, space: SpaceId, pages: Pages) {
        self.ram.invalidate(space, pages);
        (self.meddle)(Moment::Invalidated);
    }

    fn invalidate_space(&self, space: SpaceId) {
        self.ram.invalidate_space(space);
    }
}

impl Machine for Meddled<'_> {
    fn permits(&self, operation: Operation) -> bool {
        (self.meddle)(Moment::Asked(operation));
        true
    }
}

/// A machine with its memory manager.
pub(crate) struct Bench {
    pub(crate) ram: Ram,
    pub(crate) vm: Vm,
}

pub(crate) const AT: At = At { now: 0, cpu: 0 };

impl Bench {
    /// So many frames, and swap slots without read-ahead.
    pub(crate) fn new(frames: u32, slots: u32) -> Bench {
        let mut config = Config::new(frames);
        config.swap = SwapConfig { slots, page_cluster: 0, in_ram: false };
        Bench::with(&config)
    }

    pub(crate) fn with(config: &Config) -> Bench {
        let ram = Ram::new(config.frames);
        let vm = Vm::new(config, &ram).expect("the configuration is sound");
        Bench { ram, vm }
    }

    pub(crate) fn space(&self) -> AddressSpace {
        self.vm.new_space(AT, &self.ram, Layout::default()).expect("memory is free")
    }

    pub(crate) fn file(&self, pages: u64, medium: Medium) -> FileRef {
        let file = self.vm.add_file(pages * PAGE_BYTES, medium, Warmth::Cold);
        file.expect("few files")
    }

    pub(crate) fn map(&self, space: &mut AddressSpace, start: Page, pages: u64) -> Pages {
        let request = Map::anonymous(Place::FixedFree(start), pages);
        self.vm.map(AT, &self.ram, space, request).expect("nothing is there")
    }

    pub(crate) fn map_file(
        &self,
        space: &mut AddressSpace,
        start: Page,
        (file, pages): (FileRef, u64),
        sharing: Sharing,
    ) -> Pages {
        let mut request = Map::anonymous(Place::FixedFree(start), pages);
        request.backing = Backing::File { file, offset: 0 };
        request.sharing = sharing;
        self.vm.map(AT, &self.ram, space, request).expect("nothing is there")
    }

    pub(crate) fn fault(&self, space: &mut AddressSpace, page: Page, access: Access) -> Outcome {
        self.vm.fault(AT, &self.ram, space, page.address(), access, Attempt::First)
    }

    /// Faults, and lets the disk work, until the access can be restarted.
    pub(crate) fn touch(
        &self,
        space: &mut AddressSpace,
        page: Page,
        access: Access,
    ) -> Result<Resolved, Cause> {
        loop {
            match self.fault(space, page, access) {
                Outcome::Done(resolved) => return Ok(resolved),
                Outcome::Kill(cause) => return Err(cause),
                Outcome::Wait { .. } => assert!(!self.settle().is_empty(), "a wait for nothing"),
            }
        }
    }

    /// Lets the disk do all it was asked for.
    pub(crate) fn settle(&self) -> Vec<Request> {
        let mut done = Vec::new();
        while let Some(request) = self.vm.next_request() {
            done.push(self.vm.completed(AT, &self.ram, request.id, IoOutcome::Done));
        }
        done
    }

    pub(crate) fn fork(&self, parent: &mut AddressSpace) -> AddressSpace {
        self.vm.fork(AT, &self.ram, parent).expect("memory is free")
    }

    pub(crate) fn page_out(&self, space: &AddressSpace, pages: Pages) -> u64 {
        self.vm.page_out(AT, &self.ram, space, pages).expect("mapped, and not locked")
    }

    /// The entry of a page; empty if it has no table.
    pub(crate) fn entry(&self, space: &AddressSpace, page: Page) -> Entry {
        x86::find_leaf(&self.ram, space.root(), page)
            .map_or(Entry(0), |leaf| x86::load(x86::word(&self.ram, leaf, page)))
    }

    pub(crate) fn state(&self, frame: Frame) -> State {
        self.vm.store().frames.table.peek(frame)
    }

    pub(crate) fn check(&self, spaces: &[&AddressSpace]) {
        crate::check::check_invariants(&self.vm, &self.ram, spaces);
    }
}
