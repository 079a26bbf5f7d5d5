//! The audit of everything: do page tables, reverse map, page cache, swap and frame table agree?
//!
//! The same fact is recorded in several places, because each place answers another question quickly:
//! an entry says which frame a page is in, the reverse map which pages a frame is in, the descriptor
//! how many. [`check_invariants`] recounts all of it from the page tables and the file indexes up.
//! It is O(all of memory), for tests, for `--check` and for a census at shutdown.
//!
//! Knows nothing of: contents. Whether a page holds the right bytes only its program can tell.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use crate::addr::{FileRef, Frame, Slot, TABLE_ENTRIES};
use crate::event::Target;
use crate::frames::NODES_PER_FRAME;
use crate::frames::rmap::{self, EntryAt};
use crate::frames::table::{Flags, Kind, Locked};
use crate::machine::Machine;
use crate::objects::Store;
use crate::objects::file::{Medium, owner_of, owner_word};
use crate::objects::groups::GroupId;
use crate::objects::index::Cached;
use crate::objects::io::{Direction, Request};
use crate::objects::store::Resident;
use crate::spaces::AddressSpace;
use crate::spaces::vma::{Rights, Sharing, Vma, VmaFlags};
use crate::translate::x86_64::{self as x86, Entry, Holds, KERNEL_HALF, LEVELS, USER, WRITE};
use crate::vm::Vm;

/// Checks that all records of memory agree, with `spaces` being every address space that there is.
///
/// # Panics
/// If they do not, or another processor is at work meanwhile.
pub fn check_invariants<M: Machine>(vm: &Vm, machine: &M, spaces: &[&AddressSpace]) {
    let store = vm.store();
    let frames = store.frames.table.count();
    let mut found = Found {
        store,
        machine,
        maps: vec![Vec::new(); frames],
        pins: vec![0; frames],
        cached: vec![false; frames],
        uses: vec![0; store.swap.config().slots as usize],
        tables: 0,
        nodes: 0,
    };
    for space in spaces {
        found.space(space);
    }
    let doomed = doomed(store);
    for file in store.files.all() {
        found.file(file, doomed.get(&file).copied().unwrap_or(0));
    }
    let requests: Vec<Request> = store.requests.lock().under_way().copied().collect();
    found.requests(&requests);
    found.swap();
    found.frames(&requests);
}

/// Frames that have left the index of their file and wait for a disk or a TLB.
fn doomed(store: &Store) -> BTreeMap<FileRef, u64> {
    let mut doomed = BTreeMap::new();
    let table = &store.frames.table;
    for frame in (0..table.count() as u32).map(Frame) {
        let state = table.peek(frame);
        if state.kind() == Kind::File && state.has(Flags::DOOMED) {
            *doomed.entry(owner_of(table.peek_owner(frame)).0).or_default() += 1;
        }
    }
    doomed
}

/// What page tables, indexes and requests say, to be compared with what descriptors say.
struct Found<'a, M> {
    store: &'a Store,
    machine: &'a M,
    /// The entries that map each frame.
    maps: Vec<Vec<EntryAt>>,
    /// How many of them are in locked areas.
    pins: Vec<u32>,
    /// Whether the index of a file names the frame.
    cached: Vec<bool>,
    /// The entries and indexes that name each slot.
    uses: Vec<u32>,
    /// Page tables of programs.
    tables: u64,
    /// Nodes of indexes.
    nodes: u64,
}

impl<M: Machine> Found<'_, M> {
    fn space(&mut self, space: &AddressSpace) {
        space.areas().check_invariants();
        let mut sum = Sum { tables: 1, resident: Resident::default() };
        self.table(space, space.root(), LEVELS, 0, &mut sum);
        assert_eq!(sum.tables, space.tables(), "tables of {:?}", space.id());
        assert_eq!(sum.resident, self.store.resident(space.id()), "{:?} resident", space.id());
        self.tables += sum.tables;
    }

    fn table(&mut self, space: &AddressSpace, table: Frame, level: u32, base: u64, sum: &mut Sum) {
        let state = self.store.frames.table.peek(table);
        assert_eq!(state.kind(), Kind::Table, "{table:?} is linked as a table");
        let entries = if level == LEVELS { KERNEL_HALF } else { TABLE_ENTRIES };
        for i in 0..entries {
            let entry = x86::load(&self.machine.table(table)[i]);
            let page = base << 9 | i as u64;
            if level > 1 && entry.0 != 0 {
                sum.tables += 1;
                self.table(space, entry.frame(), level - 1, page, sum);
            } else if entry.0 != 0 {
                let page = crate::addr::Page(page);
                let area = space.areas().find(page);
                let area = area.unwrap_or_else(|| panic!("{page:?} is mapped in no area"));
                let place = EntryAt::new(table, i);
                let named = x86::page_of(&self.store.frames, place);
                assert_eq!(named, (space.id(), page), "the leaf {table:?} knows its pages");
                self.entry(area, entry, place, sum);
            }
        }
    }

    fn entry(&mut self, area: &Vma, entry: Entry, place: EntryAt, sum: &mut Sum) {
        let frame = match entry.holds() {
            Holds::Empty => return,
            Holds::Swapped(slot) => {
                sum.resident.swapped += 1;
                self.uses[slot.0 as usize] += 1;
                return;
            }
            Holds::Frame(frame) => frame,
        };
        assert_eq!(entry.has(USER), !area.rights.is_empty(), "{entry:?} in {area:?}");
        let writable = entry.has(WRITE);
        assert!(!writable || area.rights.contains(Rights::WRITE), "{entry:?} in {area:?}");
        if frame == self.store.zero {
            assert!(!writable, "the zero frame is writable in {area:?}");
            return;
        }
        let state = self.store.frames.table.peek(frame);
        match state.kind() {
            Kind::Anon => {
                sum.resident.anon += 1;
                assert!(!writable || state.mapped() == 1, "{frame:?} is shared and writable");
                assert_eq!(area.sharing, Sharing::Private, "{frame:?} in {area:?}");
            }
            Kind::File => {
                sum.resident.file += 1;
                let shared = area.sharing == Sharing::Shared;
                assert!(!writable || shared, "{frame:?} of a file is written privately");
            }
            kind => panic!("{frame:?}, which is {kind:?}, is mapped"),
        }
        self.maps[frame.index()].push(place);
        self.pins[frame.index()] += u32::from(area.flags.contains(VmaFlags::LOCKED));
    }

    /// A file, of which so many frames have left the index and wait to be freed.
    fn file(&mut self, file: FileRef, doomed: u64) {
        let object = self.store.files.get(file);
        let object = object.lock();
        let (mut cached, table) = (0, &self.store.frames.table);
        object.index.for_each(self.machine, 0, u64::MAX, |index, entry| {
            assert!(index < object.pages(), "page {index} of {file:?} is beyond its end");
            match entry {
                Cached::Nothing => {}
                Cached::Frame(frame) => {
                    cached += 1;
                    assert_eq!(table.peek(frame).kind(), Kind::File, "{frame:?} of {file:?}");
                    assert_eq!(table.peek_owner(frame), owner_word(file, index), "{frame:?}");
                    self.cached[frame.index()] = true;
                }
                Cached::Swapped(slot) => {
                    assert_eq!(object.medium, Medium::Memory, "{file:?} has {slot:?}");
                    self.uses[slot.0 as usize] += 1;
                }
                Cached::Failed(_) => {
                    assert_eq!(object.medium, Medium::Disk, "page {index} of {file:?}");
                }
            }
            true
        });
        assert_eq!(cached, object.cached, "frames of {file:?}");
        let holds = self.store.files.holds(file);
        assert!(holds == doomed || holds == doomed + 1, "{file:?}: {holds} holds, {doomed} frames");
        self.nodes += object.index.nodes(self.machine);
    }

    /// A slot that shared memory is moving to or from has a use while its index names the frame.
    fn requests(&mut self, requests: &[Request]) {
        for request in requests {
            let Target::Swap(first) = request.target else { continue };
            for (slot, &frame) in (first.0..).zip(request.frames()) {
                if self.store.frames.table.peek(frame).kind() == Kind::File {
                    self.uses[slot as usize] += 1;
                }
            }
        }
    }

    fn swap(&self) {
        let slots = self.store.swap.slots.lock();
        slots.check_invariants();
        for (number, &uses) in (0..).zip(&self.uses) {
            let slot = Slot(number);
            assert_eq!(slots.count(slot), uses, "uses of {slot:?}");
            if let Some(frame) = slots.cached(slot) {
                let state = self.store.frames.table.peek(frame);
                assert!(state.has(Flags::IN_SWAP), "{slot:?} is cached in {frame:?}: {state:?}");
                assert_eq!(self.store.frames.table.peek_owner(frame), u64::from(number));
            }
        }
    }

    fn frames(&self, requests: &[Request]) {
        self.store.frames.zone().check_invariants();
        let (mut free, mut listed, mut tables, mut words, mut nodes) = (0, 0, 0, 0, 0);
        for number in 0..self.store.frames.table.count() as u32 {
            let frame = Frame(number);
            let locked = self.store.frames.table.try_lock(frame);
            let locked = locked.unwrap_or_else(|| panic!("{frame:?} is locked"));
            listed += usize::from(locked.state().has(Flags::LISTED));
            match locked.state().kind() {
                Kind::Free => free += 1,
                Kind::Table => tables += 1,
                Kind::Words => words += 1,
                Kind::Anon | Kind::File => {
                    if !locked.state().has(Flags::READING) {
                        nodes += rmap::nodes(self.machine, &locked);
                    }
                    self.frame(&locked, requests);
                }
                Kind::Reserved => {}
            }
        }
        let zone = self.store.frames.zone();
        let holes = self.store.frames.table.count() - zone.frames_total();
        assert_eq!(free, zone.free_frames() + holes, "free frames and holes");
        assert_eq!(listed, self.store.evictable(), "evictable frames");
        self.groups();
        assert!(tables > self.tables, "{tables} tables, {} of them of programs", self.tables);
        let partial = self.store.frames.check_links(self.machine);
        let full = words - self.nodes - partial.frames;
        let links = partial.links + full * NODES_PER_FRAME;
        assert_eq!(links, nodes, "links of the reverse map");
    }

    /// Each evictable frame is in the order of the group that it belongs to.
    fn groups(&self) {
        let Some(groups) = &self.store.groups else { return };
        let mut held = vec![0; groups.orders().count() + 1];
        for number in 0..self.store.frames.table.count() as u32 {
            let frame = Frame(number);
            let owner = groups.owner(frame);
            let state = self.store.frames.table.peek(frame);
            held[usize::from(owner.0)] += usize::from(state.has(Flags::LISTED));
        }
        for (number, &held) in (0..).zip(&held).skip(1) {
            assert_eq!(groups.held(GroupId(number)), held, "frames of group {number}");
        }
    }

    fn frame(&self, locked: &Locked<'_>, requests: &[Request]) {
        let (frame, state) = (locked.frame(), locked.state());
        let doing = |direction: Direction| {
            let mut all = requests.iter().filter(|request| request.direction == direction);
            all.find(|request| request.frames().contains(&frame)).map(|request| request.id)
        };
        let (reading, writing) = (doing(Direction::Read), doing(Direction::Write));
        assert_eq!(state.has(Flags::READING), reading.is_some(), "{frame:?}: {state:?}");
        assert_eq!(state.has(Flags::WRITING), writing.is_some(), "{frame:?}: {state:?}");
        if let Some(request) = reading {
            assert!(self.maps[frame.index()].is_empty(), "{frame:?} is mapped and being read");
            assert_eq!(locked.rmap(), u64::from(request.0), "the request that reads {frame:?}");
        } else {
            let mut recorded: Vec<u64> = rmap::entries(self.machine, locked).map(key).collect();
            let mut mapping: Vec<u64> =
                self.maps[frame.index()].iter().map(|&place| key(place)).collect();
            recorded.sort_unstable();
            mapping.sort_unstable();
            assert_eq!(recorded, mapping, "the reverse map of {frame:?}");
        }
        assert_eq!(state.mapped() as usize, self.maps[frame.index()].len(), "{frame:?} mapped");
        assert_eq!(state.pins(), self.pins[frame.index()].min(255), "pins of {frame:?}");
        let busy = state.has_any(Flags::READING | Flags::WRITING);
        assert!(busy || !state.has(Flags::DOOMED), "{frame:?} waits for nothing: {state:?}");
        self.evictable(locked, busy);
        self.owner(locked);
    }

    /// What can be evicted must be known to the policy, or it would stay for ever; and nothing else.
    fn evictable(&self, locked: &Locked<'_>, busy: bool) {
        let (frame, state) = (locked.frame(), locked.state());
        let listed = state.has(Flags::LISTED);
        if state.pins() > 0 || state.has_any(Flags::KEPT | Flags::READING | Flags::DOOMED) {
            assert!(!listed, "{frame:?} may not be evicted: {state:?}");
        } else if !busy {
            let anon = state.kind() == Kind::Anon;
            let can = !anon || self.store.swap.exists();
            // Without swap, a page that was given up and written again is found out by its eviction.
            assert!(listed || !can, "{frame:?} is lost to eviction: {state:?}");
        }
    }

    fn owner(&self, locked: &Locked<'_>) {
        let (frame, state) = (locked.frame(), locked.state());
        if state.kind() == Kind::File {
            let gone = state.has(Flags::DOOMED);
            assert_eq!(self.cached[frame.index()], !gone, "{frame:?} in its index: {state:?}");
            return;
        }
        if state.has(Flags::IN_SWAP) {
            let slot = Slot(locked.owner() as u32);
            assert_eq!(self.store.swap.cached(slot), Some(frame), "the copy of {slot:?}");
        }
        let wanted = state.has(Flags::IN_SWAP) && self.uses[locked.owner() as usize] > 0;
        let gone = state.has(Flags::DOOMED);
        assert!(state.mapped() > 0 || wanted || gone, "{frame:?} is nobody's: {state:?}");
    }
}

struct Sum {
    tables: u64,
    resident: Resident,
}

fn key(place: EntryAt) -> u64 {
    (place.table().index() * TABLE_ENTRIES + place.index()) as u64
}
