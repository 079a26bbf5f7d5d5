//! The façade: a memory manager for one machine.
//!
//! A [`Vm`] is shared: all its methods take `&self`. An [`AddressSpace`] is owned by whoever runs in
//! it. The machine and the moment are arguments.
//!
//! ```text
//!     world                                     core
//!     ─────                                     ────
//!     MMU refuses an access ── fault ─────────▶ Done, Wait(request) or Kill
//!     performs requests ◀────── next_request ── queued by faults and reclaim
//!     disk is done ─────────── completed ─────▶ frames usable, or free
//!     free < low ───────────── background ────▶ evicts
//! ```

use crate::addr::{FileRef, Frame, PAGE_BYTES, Pages, VirtAddr};
use crate::config::{BootError, Config, FRAMES_MIN};
use crate::event::Counts;
use crate::fault::{self, Attempt, Cause, Outcome, Violation};
use crate::frames::census::Census;
use crate::frames::table::{Flags, Kind};
use crate::frames::zone::{Reserve, Watermarks};
use crate::frames::{Frames, NoMemory};
use crate::machine::{Access, At, Machine};
use crate::objects::Store;
use crate::objects::complete;
use crate::objects::file::{FILE_PAGES_MAX, FileError, Medium, Warmth};
use crate::objects::groups::Groups;
use crate::objects::io::{IoOutcome, Request, RequestId, Requests};
use crate::objects::page_cache::{self, Find};
use crate::objects::readahead::Asked;
use crate::objects::swap::Swap;
use crate::objects::writeback::{self, Written};
use crate::reclaim::working_set::Used;
use crate::reclaim::{self, Background, Room};
use crate::replace::{Parameters, Replacement};
use crate::spaces::advise::{self, Advise};
use crate::spaces::layout::Layout;
use crate::spaces::map::{self, Map, Refused};
use crate::spaces::remap::{self, Move};
use crate::spaces::vma::Rights;
use crate::spaces::{AddressSpace, fork, lock, protect, unmap};
use crate::translate::x86_64 as x86;

/// A memory manager.
pub struct Vm {
    store: Store,
    kernel: Frame,
}

impl Vm {
    /// A memory manager for `machine`, all of whose frames are free.
    pub fn new<M: Machine>(config: &Config, machine: &M) -> Result<Vm, BootError> {
        let memory = config.usable().ok_or(BootError::BadHoles)?;
        let count = memory.iter().map(|range| range.end.index() - range.start.index()).sum();
        if count < FRAMES_MIN as usize {
            return Err(BootError::TooSmall);
        }
        if config.cpus == 0 || config.requests == 0 {
            return Err(BootError::NoCpus);
        }
        let watermarks = config.watermarks.unwrap_or_else(|| Watermarks::for_frames(count));
        if !watermarks.fit(count) {
            return Err(BootError::BadWatermarks);
        }
        let frames = Frames::new(&memory, config.cpus, watermarks);
        let at = At::default();
        let out = |NoMemory| BootError::TooSmall;
        let zero = frames.alloc(at, machine, Reserve::Dip).map_err(out)?;
        frames.table.lock(zero).begin(Kind::Reserved);
        machine.zero(zero);
        let kernel = x86::new_kernel_root(&frames, at, machine, config.frames).map_err(out)?;
        // What a policy derives from the size of memory must not count what is beyond it.
        let span = frames.zone().span();
        let parameters = Parameters {
            first: span.start,
            seed: config.seed,
            ..Parameters::new(span.end.index() - span.start.index())
        };
        let order = config.policy.make(&parameters);
        if matches!(order, Replacement::Foreseen(_) | Replacement::Sizing(_)) {
            return Err(BootError::NeedsString);
        }
        let swap = Swap::new(config.swap);
        let requests = Requests::new(config.requests);
        let mut store = Store::new(frames, order, swap, requests, config.tunables, zero);
        if config.groups > 0 {
            let orders = (0..config.groups).map(|_| config.policy.make(&parameters));
            store.groups = Some(Groups::new(config.frames as usize, orders));
        }
        Ok(Vm { store, kernel })
    }

    /// The top-level table whose upper half all spaces share. A world that runs in that half adds its
    /// own entries before it makes the first space.
    pub fn kernel_root(&self) -> Frame {
        self.kernel
    }

    /// The physical side, for its numbers.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What has happened so far, on all processors.
    pub fn counts(&self) -> Counts {
        self.store.frames.counts()
    }

    /// A new address space without areas.
    pub fn new_space<M: Machine>(
        &self,
        at: At,
        machine: &M,
        layout: Layout,
    ) -> Result<AddressSpace, NoMemory> {
        self.reclaiming(at, machine, || {
            AddressSpace::new(&self.store, at, machine, layout, self.kernel)
        })
    }

    /// Ends an address space.
    pub fn destroy<M: Machine>(&self, at: At, machine: &M, space: AddressSpace) {
        unmap::destroy(&self.store, at, machine, space);
    }

    /// `mmap`. What is to be populated or locked at once, the caller touches.
    pub fn map<M: Machine>(
        &self,
        at: At,
        machine: &M,
        space: &mut AddressSpace,
        request: Map,
    ) -> Result<Pages, Refused> {
        map::map(&self.store, at, machine, space, request)
    }

    /// `munmap`.
    pub fn unmap<M: Machine>(
        &self,
        at: At,
        machine: &M,
        space: &mut AddressSpace,
        pages: Pages,
    ) -> Result<(), Refused> {
        Ok(unmap::unmap(&self.store, at, machine, space, pages)?)
    }

    /// `mremap`.
    pub fn remap<M: Machine>(
        &self,
        at: At,
        machine: &M,
        space: &mut AddressSpace,
        old: Pages,
        count: u64,
        place: Move,
    ) -> Result<Pages, Refused> {
        remap::remap(&self.store, at, machine, space, old, count, place)
    }

    /// `mprotect`.
    pub fn protect<M: Machine>(
        &self,
        at: At,
        machine: &M,
        space: &mut AddressSpace,
        pages: Pages,
        rights: Rights,
    ) -> Result<(), Refused> {
        protect::protect(&self.store, at, machine, space, pages, rights)
    }

    /// `brk`.
    pub fn brk<M: Machine>(
        &self,
        at: At,
        machine: &M,
        space: &mut AddressSpace,
        end: VirtAddr,
    ) -> Result<(), Refused> {
        map::brk(&self.store, at, machine, space, end)
    }

    /// `madvise`, except `PAGEOUT` ([`page_out`](Self::page_out)) and the `POPULATE`s, which touch.
    pub fn advise<M: Machine>(
        &self,
        at: At,
        machine: &M,
        space: &mut AddressSpace,
        pages: Pages,
        advise: Advise,
    ) -> Result<(), Refused> {
        advise::advise(&self.store, at, machine, space, pages, advise)
    }

    /// `madvise(MADV_PAGEOUT)`: evicts now. Returns how many pages left or are leaving.
    pub fn page_out<M: Machine>(
        &self,
        at: At,
        machine: &M,
        space: &AddressSpace,
        pages: Pages,
    ) -> Result<u64, Refused> {
        reclaim::page_out(&self.store, at, machine, space, pages)
    }

    /// `mlock`. The caller then touches the pages.
    pub fn lock<M: Machine>(
        &self,
        machine: &M,
        space: &mut AddressSpace,
        pages: Pages,
    ) -> Result<(), Refused> {
        lock::lock(&self.store, machine, space, pages)
    }

    /// `munlock`.
    pub fn unlock<M: Machine>(
        &self,
        machine: &M,
        space: &mut AddressSpace,
        pages: Pages,
    ) -> Result<(), Refused> {
        lock::unlock(&self.store, machine, space, pages)
    }

    /// `fork`.
    pub fn fork<M: Machine>(
        &self,
        at: At,
        machine: &M,
        parent: &mut AddressSpace,
    ) -> Result<AddressSpace, NoMemory> {
        self.reclaiming(at, machine, || fork::fork(&self.store, at, machine, parent, self.kernel))
    }

    /// Runs `attempt`, which needs frames, again as long as reclaim finds some at once. Who can wait
    /// asks [`make_room`](Self::make_room) what for.
    fn reclaiming<M: Machine, T>(
        &self,
        at: At,
        machine: &M,
        mut attempt: impl FnMut() -> Result<T, NoMemory>,
    ) -> Result<T, NoMemory> {
        loop {
            match attempt() {
                Err(NoMemory) if self.make_room(at, machine) == Room::Made => {}
                result => return result,
            }
        }
    }

    /// A page fault: `access` at `address` was refused.
    #[inline]
    pub fn fault<M: Machine>(
        &self,
        at: At,
        machine: &M,
        space: &mut AddressSpace,
        address: VirtAddr,
        access: Access,
        attempt: Attempt,
    ) -> Outcome {
        fault::fault(&self.store, at, machine, space, address, access, attempt)
    }

    /// The next request that a disk should perform.
    #[inline]
    pub fn next_request(&self) -> Option<Request> {
        self.store.next_request()
    }

    /// A disk has performed a request, or failed to. Returns it: whoever waits for it tries again, and
    /// learns what became of its page.
    ///
    /// # Panics
    /// If it is not under way.
    pub fn completed<M: Machine>(
        &self,
        at: At,
        machine: &M,
        id: RequestId,
        outcome: IoOutcome,
    ) -> Request {
        complete::completed(&self.store, at, machine, id, outcome)
    }

    /// Whether [`background`](Self::background) reclaim should run.
    #[inline]
    pub fn wants_background(&self) -> bool {
        reclaim::background::wanted(&self.store)
    }

    /// Evicts until the high watermark is reached.
    pub fn background<M: Machine>(&self, at: At, machine: &M) -> Background {
        reclaim::background(&self.store, at, machine)
    }

    /// Evicts some pages for who must have a frame now.
    pub fn make_room<M: Machine>(&self, at: At, machine: &M) -> Room {
        reclaim::make_room(&self.store, at, machine)
    }

    /// Evicts up to `count` pages in the policy's order, as a write to `memory.reclaim` does. Returns
    /// how many left or are leaving.
    pub fn reclaim<M: Machine>(&self, at: At, machine: &M, count: usize) -> usize {
        reclaim::reclaim(&self.store, at, machine, count)
    }

    /// Measures the working set of a space: pages used since this was last asked.
    pub fn take_used<M: Machine>(&self, machine: &M, space: &AddressSpace) -> Used {
        reclaim::take_used(&self.store, machine, space)
    }

    /// Makes a file of `bytes` bytes known.
    pub fn add_file(
        &self,
        bytes: u64,
        medium: Medium,
        warmth: Warmth,
    ) -> Result<FileRef, FileError> {
        self.store.files.add(bytes, medium, warmth)
    }

    /// `read`: brings page `index` of `file` into the page cache and notes its use. A page beyond the
    /// end is done at once: there is nothing to read.
    pub fn read_page<M: Machine>(
        &self,
        at: At,
        machine: &M,
        file: FileRef,
        index: u64,
    ) -> FileOutcome {
        self.with_room(at, machine, || {
            page_cache::find(&self.store, at, machine, file, index, Asked::Read)
        })
    }

    /// `write` to bytes `from..to` of page `index` of `file`, which grows to hold them when the answer
    /// is `Done`. A page that no file can have is a violation, `BeyondFile`.
    ///
    /// # Panics
    /// If the bytes are not within one page.
    pub fn write_page<M: Machine>(
        &self,
        at: At,
        machine: &M,
        file: FileRef,
        index: u64,
        from: u64,
        to: u64,
    ) -> FileOutcome {
        assert!(from < to && to <= PAGE_BYTES, "{from}..{to} is not within a page");
        if index >= FILE_PAGES_MAX {
            return FileOutcome::Failed(Cause::Violation(Violation::BeyondFile));
        }
        let bytes = index * PAGE_BYTES + from..index * PAGE_BYTES + to;
        self.with_room(at, machine, || {
            page_cache::find_to_write(&self.store, at, machine, file, bytes.clone())
        })
    }

    fn with_room<'a, M: Machine>(
        &self,
        at: At,
        machine: &M,
        mut find: impl FnMut() -> Find<'a>,
    ) -> FileOutcome {
        loop {
            match find() {
                Find::Ready(mut locked) => {
                    locked.set(Flags::REFERENCED);
                    return FileOutcome::Done(Some(locked.frame()));
                }
                Find::Beyond => return FileOutcome::Done(None),
                Find::Wait { request, .. } => return FileOutcome::Wait(request),
                Find::Failed => return FileOutcome::Failed(Cause::Io),
                Find::NoMemory => match self.make_room(at, machine) {
                    Room::Made => {}
                    Room::After(request) => return FileOutcome::Wait(request),
                    Room::None => return FileOutcome::Failed(Cause::OutOfMemory),
                },
            }
        }
    }

    /// `ftruncate`. A write of a page that is gone may still be under way: who owns the disk must not
    /// let it land in what the file is extended by later.
    ///
    /// `spaces` are those that may map the file privately: what they have copied of pages beyond the new
    /// end goes as well.
    pub fn truncate<'a, M: Machine>(
        &self,
        at: At,
        machine: &M,
        file: FileRef,
        bytes: u64,
        spaces: impl IntoIterator<Item = &'a mut AddressSpace>,
    ) -> Result<(), FileError> {
        page_cache::truncate(&self.store, at, machine, file, bytes)?;
        for space in spaces {
            unmap::clear_beyond(&self.store, at, machine, space, file);
        }
        Ok(())
    }

    /// The last name and the last mapping of `file` are gone: none of its contents need to be kept.
    pub fn forget<M: Machine>(&self, at: At, machine: &M, file: FileRef) {
        page_cache::forget(&self.store, at, machine, file);
    }

    /// As [`forget`](Self::forget), of a file that nobody has open either: its number will be another's.
    ///
    /// # Panics
    /// If there is no such file; and later, if it is used again.
    pub fn remove_file<M: Machine>(&self, at: At, machine: &M, file: FileRef) {
        page_cache::remove_file(&self.store, at, machine, file);
    }

    /// `fsync`, `msync`, and periodic write-back: starts to write dirty pages of `file`.
    pub fn write_back<M: Machine>(
        &self,
        at: At,
        machine: &M,
        file: FileRef,
        pages: core::ops::Range<u64>,
        pages_max: u64,
    ) -> Written {
        writeback::write_back(&self.store, at, machine, file, pages, pages_max)
    }

    /// Notes a reference for policies that need every one, as exact LRU; others ignore it.
    ///
    /// Only a world that sees all references can drive such a policy.
    #[inline]
    pub fn touch(&self, frame: Frame) {
        if let Replacement::Observed(policy) = &mut *self.store.order_of(frame).lock() {
            policy.touch(frame);
        }
    }

    /// Whether the policy needs [`touch`](Self::touch).
    pub fn is_observed(&self) -> bool {
        matches!(&*self.store.order.lock(), Replacement::Observed(_))
    }

    /// Whether the policy wants [`beat`](Self::beat)s.
    pub fn has_beats(&self) -> bool {
        self.store.order.lock().as_policy().period() > 0
    }

    /// A beat of the timer: policies such as NRU and aging look at the accessed bits of all frames. How
    /// often is the world's choice; teaching texts take 20 ms, and each costs a look at every frame.
    pub fn beat<M: Machine>(&self, at: At, machine: &M) {
        reclaim::beat(&self.store, at, machine);
    }

    /// Counts what every frame is used for.
    pub fn census(&self) -> Census {
        Census::of(&self.store.frames)
    }
}

/// The answer to reading or writing a page of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum FileOutcome {
    /// The page is in the page cache, in this frame; in none if it is beyond the end.
    Done(Option<Frame>),
    /// Try again when this request has ended.
    Wait(RequestId),
    /// It cannot be had.
    Failed(Cause),
}
