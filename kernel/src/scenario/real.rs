//! The machine that a script runs on: real frames, real page tables, ring 3, and a disk in the heap.
//!
//! Contents are followed on the way. What a disk delivers and what a program writes is a new stamp
//! each time; zeroing and copying make and move stamps, and a free frame is poisoned. So what a program
//! finds must be what went into the frame to which the page tables lead: zeroing or copying that was
//! forgotten ends the machine.
//!
//! ```text
//!   page   0        8              16            24          4096
//!          │ zeros  │ of a program │ of the disk │ zeros         │     zeros trap when fetched
//! ```
//!
//! A program's write leaves the disk's stamp alone, as a write of a few bytes does.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::ops::Range;

use vellum_mm::addr::{FileRef, Frame, Page, Pages};
use vellum_mm::event::{Event, Target};
use vellum_mm::machine::{Access, Machine, Memory, SpaceId, Table, Tlb};
use vellum_mm::objects::io::{Direction, Request};
use vellum_mm::translate::x86_64::{self as x86, Holds};
use vellum_scenario::Hardware;

use crate::arch::{paging, reach, user};
use crate::pc::Pc;

/// The only processor.
const CPU: u32 = 0;
/// Where in a page its stamps are, both as one number: the program's is the lower half.
const STAMPS_AT: u64 = 8;
/// What free frames hold: breakpoints, should they be executed.
static POISON: [u8; 4096] = [0xcc; 4096];

/// RAM and the processor, with a record of what becomes of contents.
pub(super) struct Real {
    pc: Pc,
    /// The root to go back to before that of a space is gone.
    kernel_root: Cell<Option<Frame>>,
    events: RefCell<Vec<Event>>,
    /// The stamps in frames, where they are known: not in those of a file that is cached from the
    /// start, which nobody has filled.
    stamps: RefCell<BTreeMap<Frame, u128>>,
    /// By page of a file, or slot of swap: the stamps on the disk.
    disk: RefCell<BTreeMap<(Option<FileRef>, u64), u128>>,
    last_stamp: Cell<u64>,
}

impl Real {
    /// A machine that has these frames, on which nothing has happened.
    pub(super) fn new(window: Range<Frame>) -> Real {
        let pc = Pc::new(1);
        (window.start.0..window.end.0).for_each(|frame| pc.memory.write(Frame(frame), 0, &POISON));
        Real {
            pc,
            kernel_root: Cell::new(None),
            events: RefCell::default(),
            stamps: RefCell::default(),
            disk: RefCell::default(),
            last_stamp: Cell::new(0),
        }
    }

    fn new_stamp(&self) -> u64 {
        self.last_stamp.set(self.last_stamp.get() + 1);
        self.last_stamp.get()
    }

    /// The stamps in `frame`, which must be those that are known.
    fn stamps_in(&self, frame: Frame) -> u128 {
        let mut bytes = [0; 16];
        self.pc.memory.read(frame, STAMPS_AT, &mut bytes);
        let stamps = u128::from_le_bytes(bytes);
        let known = *self.stamps.borrow_mut().entry(frame).or_insert(stamps);
        assert!(stamps == known, "{frame:?} holds {stamps:#x} instead of {known:#x}");
        stamps
    }

    /// The frame to which the page tables lead, as software reads them.
    fn walk(&self, root: Frame, page: Page) -> Option<Frame> {
        let leaf = x86::find_leaf(&self.pc, root, page)?;
        match x86::load(x86::word(&self.pc, leaf, page)).holds() {
            Holds::Frame(frame) => Some(frame),
            Holds::Empty | Holds::Swapped(_) => None,
        }
    }
}

impl Hardware for Real {
    type Machine = Real;

    fn machine(&self) -> &Real {
        self
    }

    fn booted(&self, root: Frame) {
        paging::share(self.pc.table(root));
        self.kernel_root.set(Some(root));
    }

    fn take_events(&self) -> Vec<Event> {
        self.events.take()
    }

    fn access(&self, space: SpaceId, root: Frame, page: Page, access: Access) -> Option<Frame> {
        // The code that makes the access is no memory of a program's.
        if page == reach::page() || !is_canonical(page) {
            return None;
        }
        self.pc.load(CPU, Some(space), root);
        let address = page.address().0 + if access == Access::Execute { 0 } else { STAMPS_AT };
        let stamp = self.new_stamp();
        let mut program = reach::program(access, address, stamp);
        // Ends: nothing but an interrupt says nothing, and no device has anything to say.
        let is_permitted = loop {
            let trap = user::run(&mut program);
            if let Some(is_permitted) = reach::outcome(access, address, trap) {
                break is_permitted;
            }
            assert!(matches!(trap, user::Trap::Interrupt(_)), "{trap:?} for {access:?} {page:?}");
        };
        if !is_permitted {
            return None;
        }
        let frame = self.walk(root, page);
        let frame = frame.unwrap_or_else(|| panic!("{access:?} of {page:?}, which is nowhere"));
        if access == Access::Write {
            let mut all = self.stamps.borrow_mut();
            all.entry(frame).and_modify(|known| *known = *known >> 64 << 64 | u128::from(stamp));
        }
        let found = if access == Access::Read { program.rax } else { stamp };
        let held = self.stamps_in(frame) as u64;
        assert!(access == Access::Execute || found == held, "{page:?} is not in {frame:?}");
        Some(frame)
    }

    fn perform(&self, request: &Request) {
        let (file, first) = match request.target {
            Target::Swap(slot) => (None, u64::from(slot.0)),
            Target::File(file, first) => (Some(file), first),
        };
        for (index, &frame) in (first..).zip(request.frames()) {
            let place = (file, index);
            if request.direction == Direction::Write {
                self.disk.borrow_mut().insert(place, self.stamps_in(frame));
            } else {
                let new = || u128::from(self.new_stamp()) << 64;
                let stamps = *self.disk.borrow_mut().entry(place).or_insert_with(new);
                self.pc.zero(frame);
                self.pc.memory.write(frame, STAMPS_AT, &stamps.to_le_bytes());
                self.stamps.borrow_mut().insert(frame, stamps);
            }
        }
    }
}

impl Memory for Real {
    fn table(&self, frame: Frame) -> &Table {
        self.pc.table(frame)
    }

    fn zero(&self, frame: Frame) {
        self.pc.zero(frame);
        self.stamps.borrow_mut().insert(frame, 0);
    }

    fn copy(&self, from: Frame, to: Frame) {
        self.pc.copy(from, to);
        let stamps = self.stamps_in(from);
        self.stamps.borrow_mut().insert(to, stamps);
    }
}

impl Tlb for Real {
    fn invalidate(&self, space: SpaceId, pages: Pages) {
        self.pc.invalidate(space, pages);
    }

    fn invalidate_space(&self, _space: SpaceId) {
        // Its root may be gone next. To load another one forgets everything as well.
        if let Some(root) = self.kernel_root.get() {
            self.pc.load(CPU, None, root);
        }
    }
}

impl Machine for Real {
    fn happened(&self, event: Event) {
        if let Event::Free { frame } = event {
            self.pc.memory.write(frame, 0, &POISON);
            self.stamps.borrow_mut().remove(&frame);
        }
        self.events.borrow_mut().push(event);
    }
}

/// Whether a processor takes the addresses of `page` for addresses.
fn is_canonical(page: Page) -> bool {
    let address = page.address().0.cast_signed();
    address << 16 >> 16 == address
}
