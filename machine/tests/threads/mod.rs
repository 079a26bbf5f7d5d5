//! A machine whose processors are threads, and its disk.
//!
//! A [`Sim`] with real TLBs, and frames whose contents are stamps. An access holds its processor's
//! *gate*, and an invalidation holds all gates, as the interrupt of a shootdown stops processors
//! between two instructions. The disk's requests are performed by whoever has nothing better to do.
//!
//! It panics if two requests race for the same place on the disk or the same frame.

use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use vellum_machine::profile::Profile;
use vellum_machine::ram::Ram;
use vellum_machine::sim::Sim;
use vellum_mm::addr::{FileRef, Frame, PAGE_BYTES, Page, Pages};
use vellum_mm::event::{Event, Target};
use vellum_mm::fault::{Attempt, Cause, Outcome};
use vellum_mm::machine::{Access, At, Machine, Memory, Operation, SpaceId, Table, Tlb};
use vellum_mm::objects::file::{Medium, Warmth};
use vellum_mm::objects::io::{Direction, IoOutcome, Request};
use vellum_mm::spaces::AddressSpace;
use vellum_mm::vm::Vm;
use vellum_mm::{Config, replace::Replacement};

/// Processors with gates around a simulated machine.
pub(crate) struct Processors {
    sim: Sim,
    gates: Box<[Mutex<()>]>,
}

thread_local! {
    static TURNS: Cell<u64> = const { Cell::new(0) };
}

/// Now and then lets another thread run in the middle of what this one does, so that rare
/// interleavings become common.
fn jostle() {
    let turn = TURNS.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    TURNS.set(turn);
    if turn >> 59 == 0 {
        std::thread::yield_now();
    }
}

impl Memory for Processors {
    fn table(&self, frame: Frame) -> &Table {
        self.sim.table(frame)
    }

    fn zero(&self, frame: Frame) {
        jostle();
        self.sim.zero(frame);
    }

    fn copy(&self, from: Frame, to: Frame) {
        jostle();
        self.sim.copy(from, to);
    }
}

impl Tlb for Processors {
    fn invalidate(&self, space: SpaceId, pages: Pages) {
        jostle();
        let gates: Vec<_> = self.gates.iter().map(|gate| gate.lock().expect("healthy")).collect();
        self.sim.invalidate(space, pages);
        drop(gates);
    }

    fn invalidate_space(&self, space: SpaceId) {
        let gates: Vec<_> = self.gates.iter().map(|gate| gate.lock().expect("healthy")).collect();
        self.sim.invalidate_space(space);
        drop(gates);
    }
}

impl Machine for Processors {
    fn happened(&self, _event: Event) {
        jostle();
    }

    fn permits(&self, _operation: Operation) -> bool {
        jostle();
        true
    }
}

/// A file, and what the disk holds of it.
pub(crate) struct File {
    pub(crate) file: FileRef,
    pages: Box<[AtomicU64]>,
}

/// How often an access is tried again that finds no memory, before its program is killed.
const PATIENCE: u32 = 1000;

/// A request that the disk has; `false` until somebody performs it.
type AtDisk = (Request, bool);

/// The machine, its memory manager and its disk.
pub(crate) struct World {
    pub(crate) machine: Processors,
    pub(crate) vm: Vm,
    pub(crate) files: Vec<File>,
    slots: Box<[AtomicU64]>,
    at_disk: Mutex<Vec<AtDisk>>,
    /// One request in so many fails; 0 for none.
    fails: u32,
    is_observed: bool,
}

impl World {
    /// A machine with so many processors, and files of so many pages on these media.
    pub(crate) fn new(config: &Config, files: &[(u64, Medium)], fails: u32) -> World {
        let ram = Ram::with_contents(config.frames).expect("a small machine fits");
        let sim = Sim::new(&Profile::default(), config.cpus, ram);
        let gates = (0..config.cpus).map(|_| Mutex::new(())).collect();
        let machine = Processors { sim, gates };
        let vm = Vm::new(config, &machine).expect("the configuration is sound");
        let add = |&(pages, medium)| File {
            file: vm.add_file(pages * PAGE_BYTES, medium, Warmth::Cold).expect("few files"),
            pages: (0..pages).map(|_| AtomicU64::new(0)).collect(),
        };
        let files = files.iter().map(add).collect();
        let is_observed = matches!(*vm.store().order.lock(), Replacement::Observed(_));
        let slots = (0..config.swap.slots).map(|_| AtomicU64::new(0)).collect();
        World { machine, vm, files, slots, at_disk: Mutex::default(), fails, is_observed }
    }

    /// Processor `cpu`, at no particular time.
    pub(crate) fn at(cpu: u32) -> At {
        At { now: 0, cpu }
    }

    /// Performs a request of the disk's; whether there was one.
    pub(crate) fn finish_one(&self, cpu: u32, random: &mut Pcg64Mcg) -> bool {
        let Some(request) = self.take_one(random) else { return false };
        let fails = self.fails > 0 && random.random_ratio(1, self.fails);
        if !fails {
            for (place, &frame) in request.frames().iter().enumerate() {
                self.transfer(&request, place as u64, frame);
            }
        }
        let mut at_disk = self.at_disk.lock().expect("healthy");
        at_disk.retain(|(other, _)| other.id != request.id);
        drop(at_disk);
        let outcome = if fails { IoOutcome::Failed } else { IoOutcome::Done };
        self.vm.completed(World::at(cpu), &self.machine, request.id, outcome);
        true
    }

    fn take_one(&self, random: &mut Pcg64Mcg) -> Option<Request> {
        let mut at_disk = self.at_disk.lock().expect("healthy");
        while let Some(request) = self.vm.next_request() {
            for (other, _) in at_disk.iter() {
                let reads = [other, &request].iter().all(|one| one.direction == Direction::Read);
                assert!(reads || !overlap(other, &request), "{other:?} races with {request:?}");
                let same = request.frames().iter().find(|frame| other.frames().contains(frame));
                assert_eq!(same, None, "in {other:?} and in {request:?}");
            }
            at_disk.push((request, false));
        }
        let idle: Vec<usize> = (0..at_disk.len()).filter(|&i| !at_disk[i].1).collect();
        if idle.is_empty() {
            return None;
        }
        let chosen = &mut at_disk[idle[random.random_range(0..idle.len())]];
        chosen.1 = true;
        Some(chosen.0)
    }

    fn transfer(&self, request: &Request, place: u64, frame: Frame) {
        let on_disk = match request.target {
            Target::Swap(first) => &self.slots[(u64::from(first.0) + place) as usize],
            Target::File(file, first) => {
                &self.files[file.0 as usize].pages[(first + place) as usize]
            }
        };
        match request.direction {
            Direction::Read => self.machine.sim.ram().fill(frame, on_disk.load(Relaxed)),
            Direction::Write => on_disk.store(self.machine.sim.ram().stamp(frame), Relaxed),
        }
    }

    /// Lets the disk finish everything.
    pub(crate) fn settle(&self, random: &mut Pcg64Mcg) {
        while self.finish_one(0, random) {}
    }

    /// One access by a program that runs on `cpu`; a write leaves `stamp`. Returns what is there
    /// then.
    pub(crate) fn access(
        &self,
        cpu: u32,
        random: &mut Pcg64Mcg,
        space: &mut AddressSpace,
        page: Page,
        write: Option<u64>,
    ) -> Result<u64, Cause> {
        let mut patience = PATIENCE;
        let access = if write.is_some() { Access::Write } else { Access::Read };
        let mut attempt = Attempt::First;
        for _ in 0..1_000_000 {
            if let Some(found) = self.use_memory(cpu, space, page, access, write) {
                return Ok(found);
            }
            let at = World::at(cpu);
            match self.vm.fault(at, &self.machine, space, page.address(), access, attempt) {
                Outcome::Done(_) => attempt = Attempt::First,
                // Other processors may have the last frames in hand, and make them evictable soon.
                Outcome::Kill(Cause::OutOfMemory) if patience > 0 => {
                    patience -= 1;
                    std::thread::yield_now();
                }
                // The disk does not fail for ever.
                Outcome::Kill(Cause::Io) if self.fails > 0 => attempt = Attempt::First,
                Outcome::Kill(cause) => return Err(cause),
                Outcome::Wait { own, .. } => {
                    attempt = Attempt::Again { own };
                    if !self.finish_one(cpu, random) {
                        std::thread::yield_now();
                    }
                }
            }
        }
        panic!("{access:?} of {page:?} makes no progress");
    }

    /// What the processor does: `None` is a page fault.
    fn use_memory(
        &self,
        cpu: u32,
        space: &AddressSpace,
        page: Page,
        access: Access,
        write: Option<u64>,
    ) -> Option<u64> {
        let _gate = self.machine.gates[cpu as usize].lock().expect("healthy");
        let sim = &self.machine.sim;
        let frame = sim.access(cpu, space.id(), space.root(), page, access).frame()?;
        if self.is_observed {
            self.vm.touch(frame);
        }
        if let Some(stamp) = write {
            sim.ram().set_stamp(frame, stamp);
        }
        Some(sim.ram().stamp(frame))
    }
}

/// Whether two requests move the same place of the disk.
fn overlap(a: &Request, b: &Request) -> bool {
    let (a_first, b_first) = match (a.target, b.target) {
        (Target::Swap(a), Target::Swap(b)) => (u64::from(a.0), u64::from(b.0)),
        (Target::File(a, first), Target::File(b, second)) if a == b => (first, second),
        _ => return false,
    };
    let end = |first, request: &Request| first + request.frames().len() as u64;
    a_first < end(b_first, b) && b_first < end(a_first, a)
}
