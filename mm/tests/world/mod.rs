//! A machine for tests: it notices every broken promise between the memory manager and hardware.
//!
//! A frame's contents are one number, its *stamp*. The MMU walks the tables that the core builds, as
//! x86-64 does, and remembers translations in a TLB of unlimited size, so a missing invalidation is
//! never masked by a lucky replacement. The disk finishes requests in any order.
//!
//! It panics if a stale translation is used, a frame is freed while a TLB maps it or a disk has it,
//! two requests race for the same place on a disk, or a fault is answered for ever without progress.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of the world")]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use vellum_mm::Config;
use vellum_mm::addr::{FileRef, Frame, Page, Pages, TABLE_ENTRIES};
use vellum_mm::check::check_invariants;
use vellum_mm::event::{Event, Target};
use vellum_mm::fault::{Attempt, Cause, Outcome};
use vellum_mm::machine::{Access, At, Machine, Memory, Operation, SpaceId, Table, Tlb};
use vellum_mm::objects::index::Cached;
use vellum_mm::objects::io::{Direction, IoOutcome, Request, RequestId};
use vellum_mm::spaces::AddressSpace;
use vellum_mm::translate::x86_64::{
    ACCESSED, DIRTY, Entry, LARGE, NO_EXECUTE, PRESENT, USER, WRITE,
};
use vellum_mm::vm::{FileOutcome, Vm};

/// What a freed frame holds: never the stamp of a page.
const POISON: u64 = 0xdead_dead_dead_dead;

/// A cached translation.
#[derive(Clone, Copy, Debug)]
struct Translation {
    frame: Frame,
    writable: bool,
    executable: bool,
    dirty: bool,
}

/// The hardware.
pub struct Hardware {
    tables: Vec<OnceLock<Box<Table>>>,
    stamps: Vec<Cell<u64>>,
    tlb: RefCell<HashMap<SpaceId, BTreeMap<Page, Translation>>>,
    /// Translations in the TLB, by frame.
    held: Vec<Cell<u32>>,
    /// Frames that a disk has.
    at_disk: Vec<Cell<bool>>,
    /// The operation that fails, and how many of its kind are permitted before.
    pub fuse: Cell<Option<(Operation, u64)>>,
    /// Whether the fuse has blown.
    pub blown: Cell<bool>,
    /// What happened, if anybody wants to know.
    pub log: RefCell<Option<Vec<Event>>>,
}

impl Hardware {
    fn new(frames: u32) -> Hardware {
        let count = frames as usize;
        Hardware {
            tables: (0..count).map(|_| OnceLock::new()).collect(),
            stamps: vec![Cell::new(POISON); count],
            tlb: RefCell::default(),
            held: vec![Cell::new(0); count],
            at_disk: vec![Cell::new(false); count],
            fuse: Cell::new(None),
            blown: Cell::new(false),
            log: RefCell::new(None),
        }
    }

    fn fill(&self, frame: Frame, value: u64) {
        if let Some(table) = self.tables[frame.index()].get() {
            table.iter().for_each(|word| word.store(value, Relaxed));
        }
    }

    fn let_go(&self, old: Translation) {
        let held = &self.held[old.frame.index()];
        held.set(held.get() - 1);
    }

    pub fn stamp(&self, frame: Frame) -> u64 {
        self.stamps[frame.index()].get()
    }

    pub fn set_stamp(&self, frame: Frame, stamp: u64) {
        self.stamps[frame.index()].set(stamp);
    }
}

impl Memory for Hardware {
    fn table(&self, frame: Frame) -> &Table {
        self.tables[frame.index()]
            .get_or_init(|| Box::new([const { AtomicU64::new(0) }; TABLE_ENTRIES]))
    }

    fn zero(&self, frame: Frame) {
        self.stamps[frame.index()].set(0);
        self.fill(frame, 0);
    }

    fn copy(&self, from: Frame, to: Frame) {
        assert_ne!(self.stamp(from), POISON, "{from:?} is copied after it was freed");
        self.stamps[to.index()].set(self.stamp(from));
    }
}

impl Tlb for Hardware {
    fn invalidate(&self, space: SpaceId, pages: Pages) {
        if let Some(tlb) = self.tlb.borrow_mut().get_mut(&space) {
            let gone: Vec<Page> =
                tlb.range(pages.start..pages.end).map(|(&page, _)| page).collect();
            for page in gone {
                self.let_go(tlb.remove(&page).expect("it was listed"));
            }
        }
    }

    fn invalidate_space(&self, space: SpaceId) {
        for old in self.tlb.borrow_mut().remove(&space).unwrap_or_default().into_values() {
            self.let_go(old);
        }
    }
}

impl Machine for Hardware {
    fn happened(&self, event: Event) {
        if let Event::Free { frame } = event {
            assert_eq!(self.held[frame.index()].get(), 0, "{frame:?} is freed while a TLB maps it");
            assert!(!self.at_disk[frame.index()].get(), "{frame:?} is freed while a disk has it");
            self.stamps[frame.index()].set(POISON);
            self.fill(frame, POISON);
        }
        if let Some(log) = &mut *self.log.borrow_mut() {
            log.push(event);
        }
    }

    fn permits(&self, operation: Operation) -> bool {
        match self.fuse.get() {
            Some((fails, 0)) if fails == operation => {
                self.fuse.set(None);
                self.blown.set(true);
                false
            }
            Some((fails, after)) if fails == operation => {
                self.fuse.set(Some((fails, after - 1)));
                true
            }
            _ => true,
        }
    }
}

/// A request at the disk.
struct AtDisk {
    request: Request,
    /// Pages of its file from here on were truncated away since: nobody is to see them again.
    void_from: u64,
}

/// A whole machine with its disk.
pub struct World {
    pub hardware: Hardware,
    pub vm: Vm,
    pub random: RefCell<Pcg64Mcg>,
    at_disk: RefCell<Vec<AtDisk>>,
    slots: RefCell<HashMap<u32, u64>>,
    files: RefCell<HashMap<(FileRef, u64), u64>>,
    cpus: u32,
    /// Requests that succeed before one fails.
    pub disk_fuse: Cell<Option<u64>>,
    pub disk_blown: Cell<bool>,
}

impl World {
    pub fn new(config: &Config, seed: u64) -> World {
        let hardware = Hardware::new(config.frames);
        let vm = Vm::new(config, &hardware).expect("the machine is large enough");
        World {
            hardware,
            vm,
            random: RefCell::new(Pcg64Mcg::seed_from_u64(seed)),
            at_disk: RefCell::default(),
            slots: RefCell::default(),
            files: RefCell::default(),
            cpus: config.cpus,
            disk_fuse: Cell::new(None),
            disk_blown: Cell::new(false),
        }
    }

    pub fn below(&self, end: u64) -> u64 {
        self.random.borrow_mut().random_range(0..end)
    }

    pub fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn at(&self) -> At {
        At { now: Default::default(), cpu: self.below(u64::from(self.cpus)) as u32 }
    }

    pub fn check(&self, spaces: &[&AddressSpace]) {
        check_invariants(&self.vm, &self.hardware, spaces);
        for space in spaces {
            self.check_tlb(space);
        }
        let census = self.vm.census();
        assert_eq!(census.free + census.used(), self.hardware.stamps.len() as u64, "{census:?}");
    }

    /// Whatever a TLB still maps, the tables map as well.
    fn check_tlb(&self, space: &AddressSpace) {
        let tlb = self.hardware.tlb.borrow();
        for (&page, found) in tlb.get(&space.id()).into_iter().flatten() {
            let walked = self.walk(space, page).map(|(entry, _)| entry.frame());
            assert_eq!(walked, Some(found.frame), "a TLB has a stale translation of {page:?}");
        }
    }

    fn take_requests(&self) {
        while let Some(request) = self.vm.next_request() {
            let mut at_disk = self.at_disk.borrow_mut();
            for other in at_disk.iter() {
                let both_read = other.request.direction == Direction::Read
                    && request.direction == Direction::Read;
                let race = overlap(other, &request);
                assert!(both_read || !race, "{:?} races with {request:?}", other.request);
            }
            for &frame in request.frames() {
                let busy = self.hardware.at_disk[frame.index()].replace(true);
                assert!(!busy, "{frame:?} is in two requests");
            }
            at_disk.push(AtDisk { request, void_from: u64::MAX });
        }
    }

    /// Lets the disk finish a request of its choice; `None` if there is none.
    pub fn finish_one(&self) -> Option<RequestId> {
        self.take_requests();
        let count = self.at_disk.borrow().len() as u64;
        if count == 0 {
            return None;
        }
        let chosen = self.below(count) as usize;
        let AtDisk { request, void_from } = self.at_disk.borrow_mut().swap_remove(chosen);
        let outcome = match self.disk_fuse.get() {
            Some(0) => {
                self.disk_fuse.set(None);
                self.disk_blown.set(true);
                IoOutcome::Failed
            }
            more => {
                self.disk_fuse.set(more.map(|more| more - 1));
                IoOutcome::Done
            }
        };
        for (i, &frame) in request.frames().iter().enumerate() {
            self.hardware.at_disk[frame.index()].set(false);
            let void = page_at(&request, i as u64) >= void_from;
            if outcome == IoOutcome::Done && !void {
                self.transfer(&request, i as u64, frame);
            }
        }
        let ended = self.vm.completed(self.at(), &self.hardware, request.id, outcome);
        assert_eq!(ended, request);
        Some(request.id)
    }

    fn transfer(&self, request: &Request, place: u64, frame: Frame) {
        let (mut slots, mut files) = (self.slots.borrow_mut(), self.files.borrow_mut());
        let on_disk = match request.target {
            Target::Swap(first) => slots.entry(first.0 + place as u32).or_insert(POISON),
            Target::File(file, first) => files.entry((file, first + place)).or_insert(0),
        };
        match request.direction {
            Direction::Read => self.hardware.set_stamp(frame, *on_disk),
            Direction::Write => {
                assert_ne!(self.hardware.stamp(frame), POISON, "{request:?} writes a freed frame");
                *on_disk = self.hardware.stamp(frame);
            }
        }
    }

    /// Lets the disk finish everything.
    pub fn settle(&self) {
        while self.finish_one().is_some() {}
    }

    /// Waits until `request` has ended.
    fn wait(&self, request: RequestId) {
        while self.finish_one().expect("it is under way") != request {}
    }

    /// One access by a program to `page`. A write leaves `stamp`. Returns what is there.
    pub fn access(
        &self,
        space: &mut AddressSpace,
        page: Page,
        access: Access,
        stamp: u64,
    ) -> Result<u64, Cause> {
        let mut attempt = Attempt::First;
        for _ in 0..10_000 {
            if let Some(found) = self.mmu(space, page, access, stamp) {
                return Ok(found);
            }
            let address = page.address();
            let vm = &self.vm;
            let outcome = vm.fault(self.at(), &self.hardware, space, address, access, attempt);
            self.check_tlb(space);
            match outcome {
                Outcome::Done(_) => attempt = Attempt::First,
                Outcome::Kill(cause) => return Err(cause),
                Outcome::Wait { request, own } => {
                    self.wait(request);
                    let own = own || attempt == (Attempt::Again { own: true });
                    attempt = Attempt::Again { own };
                    if self.one_in(4) {
                        self.settle();
                    }
                }
            }
        }
        panic!("{access:?} of {page:?} makes no progress");
    }

    pub fn read(&self, space: &mut AddressSpace, page: Page) -> Result<u64, Cause> {
        self.access(space, page, Access::Read, 0)
    }

    pub fn write(&self, space: &mut AddressSpace, page: Page, stamp: u64) -> Result<u64, Cause> {
        self.access(space, page, Access::Write, stamp)
    }

    /// What the MMU does: `None` is a page fault.
    fn mmu(&self, space: &AddressSpace, page: Page, access: Access, stamp: u64) -> Option<u64> {
        let id = space.id();
        let cached = self.hardware.tlb.borrow().get(&id).and_then(|tlb| tlb.get(&page).copied());
        let translation = match cached {
            Some(found) if permits(found, access) && (found.dirty || access != Access::Write) => {
                let (entry, writable) = self.walk(space, page).expect("a TLB maps only what is");
                assert_eq!(entry.frame(), found.frame, "a stale translation of {page:?} is used");
                let stale = access == Access::Write && !writable;
                assert!(!stale, "a stale right to write {page:?} is used");
                found
            }
            _ => self.fill_tlb(space, page, access)?,
        };
        let frame = translation.frame;
        assert!(!self.reads(frame), "{frame:?} is used before it is read");
        if self.vm.is_observed() {
            self.vm.touch(frame);
        }
        if access == Access::Write {
            self.hardware.set_stamp(frame, stamp);
        }
        let found = self.hardware.stamp(frame);
        assert_ne!(found, POISON, "{page:?} shows a freed frame, {frame:?}");
        Some(found)
    }

    fn reads(&self, frame: Frame) -> bool {
        let at_disk = self.at_disk.borrow();
        self.hardware.at_disk[frame.index()].get()
            && at_disk.iter().any(|other| {
                other.request.direction == Direction::Read
                    && other.request.frames().contains(&frame)
            })
    }

    /// Walks the tables; sets accessed and dirty; remembers the translation.
    fn fill_tlb(&self, space: &AddressSpace, page: Page, access: Access) -> Option<Translation> {
        let (entry, writable) = self.walk(space, page)?;
        let mut found = Translation {
            frame: entry.frame(),
            writable,
            executable: !entry.has(NO_EXECUTE),
            dirty: entry.has(DIRTY),
        };
        let mut tlb = self.hardware.tlb.borrow_mut();
        let tlb = tlb.entry(space.id()).or_default();
        if !permits(found, access) {
            // A processor forgets the translation that faulted; others that run the same program,
            // for which this TLB stands as well, do not.
            return None;
        }
        found.dirty |= access == Access::Write;
        let bits = if access == Access::Write { ACCESSED | DIRTY } else { ACCESSED };
        self.leaf_word(space, page).expect("it was walked").fetch_or(bits, Relaxed);
        let held = &self.hardware.held[found.frame.index()];
        held.set(held.get() + 1);
        if let Some(old) = tlb.insert(page, found) {
            self.hardware.let_go(old);
        }
        Some(found)
    }

    fn leaf_word(&self, space: &AddressSpace, page: Page) -> Option<&AtomicU64> {
        let mut table = space.root();
        for level in (1..4).rev() {
            let entry = Entry(self.hardware.table(table)[index(page, level)].load(Relaxed));
            if !entry.has(PRESENT | USER | WRITE) {
                return None;
            }
            assert!(!entry.has(LARGE), "programs have no large pages");
            table = entry.frame();
        }
        Some(&self.hardware.table(table)[index(page, 0)])
    }

    /// The entry of a page that a program may use, and whether it may be written.
    fn walk(&self, space: &AddressSpace, page: Page) -> Option<(Entry, bool)> {
        let entry = Entry(self.leaf_word(space, page)?.load(Relaxed));
        entry.has(PRESENT | USER).then(|| (entry, entry.has(WRITE)))
    }

    /// `write` of `from..to` to a page of a file: leaves `stamp(old)`. Waits as needed.
    pub fn write_file(
        &self,
        file: FileRef,
        index: u64,
        bytes: (u64, u64),
        stamp: impl Fn(u64) -> u64,
    ) -> Result<(), Cause> {
        for _ in 0..10_000 {
            let (from, to) = bytes;
            match self.vm.write_page(self.at(), &self.hardware, file, index, from, to) {
                FileOutcome::Done(_) => {
                    let frame = self.cached(file, index).expect("a page just written is cached");
                    self.hardware.set_stamp(frame, stamp(self.hardware.stamp(frame)));
                    return Ok(());
                }
                FileOutcome::Wait(request) => self.wait(request),
                FileOutcome::Failed(cause) => return Err(cause),
            }
        }
        panic!("writing page {index} of {file:?} makes no progress");
    }

    /// `read` of a page of a file; 0 beyond its end.
    pub fn read_file(&self, file: FileRef, index: u64) -> Result<u64, Cause> {
        for _ in 0..10_000 {
            match self.vm.read_page(self.at(), &self.hardware, file, index) {
                FileOutcome::Done(_) => {
                    return Ok(self.cached(file, index).map_or(0, |f| self.hardware.stamp(f)));
                }
                FileOutcome::Wait(request) => self.wait(request),
                FileOutcome::Failed(cause) => return Err(cause),
            }
        }
        panic!("reading page {index} of {file:?} makes no progress");
    }

    /// `fsync`: writes what is dirty and waits for it.
    pub fn write_back(&self, file: FileRef) {
        loop {
            let (at, hardware) = (self.at(), &self.hardware);
            let written = self.vm.write_back(at, hardware, file, 0..u64::MAX, u64::MAX);
            self.settle();
            if !written.more {
                return;
            }
        }
    }

    /// What is on the disk, whatever is in memory.
    pub fn on_disk(&self, file: FileRef, index: u64) -> u64 {
        self.files.borrow().get(&(file, index)).copied().unwrap_or(0)
    }

    fn cached(&self, file: FileRef, index: u64) -> Option<Frame> {
        let object = self.vm.store().files.get(file);
        let object = object.lock();
        match object.index.get(&self.hardware, index) {
            Cached::Frame(frame) => Some(frame),
            _ => None,
        }
    }

    /// `ftruncate`; the disk forgets what is beyond the end.
    pub fn truncate<'a>(
        &self,
        file: FileRef,
        bytes: u64,
        spaces: impl IntoIterator<Item = &'a mut AddressSpace>,
    ) {
        self.take_requests();
        let (at, hardware) = (self.at(), &self.hardware);
        self.vm.truncate(at, hardware, file, bytes, spaces).expect("a small file");
        let keep = bytes.div_ceil(vellum_mm::addr::PAGE_BYTES);
        for under_way in self.at_disk.borrow_mut().iter_mut() {
            if matches!(under_way.request.target, Target::File(other, _) if other == file) {
                under_way.void_from = under_way.void_from.min(keep);
            }
        }
        self.files.borrow_mut().retain(|&(other, index), _| other != file || index < keep);
    }

    pub fn destroy(&self, space: AddressSpace) {
        let id = space.id();
        self.vm.destroy(self.at(), &self.hardware, space);
        assert!(!self.hardware.tlb.borrow().contains_key(&id), "a TLB maps a dead space");
    }
}

fn permits(translation: Translation, access: Access) -> bool {
    match access {
        Access::Read => true,
        Access::Write => translation.writable,
        Access::Execute => translation.executable,
    }
}

/// The page of the file, or the slot, in place `i` of a request.
fn page_at(request: &Request, i: u64) -> u64 {
    match request.target {
        Target::Swap(first) => u64::from(first.0) + i,
        Target::File(_, first) => first + i,
    }
}

fn overlap(a: &AtDisk, b: &Request) -> bool {
    let same = match (a.request.target, b.target) {
        (Target::Swap(_), Target::Swap(_)) => true,
        (Target::File(a, _), Target::File(b, _)) => a == b,
        _ => false,
    };
    let (start, end) = (page_at(b, 0), page_at(b, b.frames().len() as u64));
    let other_end = page_at(&a.request, a.request.frames().len() as u64).min(a.void_from);
    same && page_at(&a.request, 0) < end && start < other_end
}

fn index(page: Page, level: u32) -> usize {
    (page.0 >> (9 * level)) as usize % TABLE_ENTRIES
}
