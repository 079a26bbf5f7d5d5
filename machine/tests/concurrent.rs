//! Several processors at work in one memory manager: what each program reads is what it wrote.
//!
//! Every thread is a processor with programs of its own, forked from each other's, that share pages
//! copy-on-write, in swap slots, in files and in shared memory. Memory is small, so that each thread
//! evicts what the others are using. Contents are exact: a private page shows what its program
//! wrote; each page of shared memory has one thread that writes it, and the others never see it go
//! back. At the end all records must agree, and all frames and slots be free again.

mod threads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use threads::World;
use vellum_mm::Config;
use vellum_mm::addr::{PAGE_BYTES, Page, Pages};
use vellum_mm::check::check_invariants;
use vellum_mm::fault::{Cause, Violation};
use vellum_mm::frames::NoMemory;
use vellum_mm::objects::file::Medium;
use vellum_mm::objects::groups::GroupId;
use vellum_mm::objects::swap::SwapConfig;
use vellum_mm::replace::Choice;
use vellum_mm::spaces::AddressSpace;
use vellum_mm::spaces::advise::Advise;
use vellum_mm::spaces::layout::Layout;
use vellum_mm::spaces::map::{Map, Place};
use vellum_mm::spaces::remap::Move;
use vellum_mm::spaces::vma::{Backing, Rights, Sharing};

/// Processors, each a thread.
const CPUS: u32 = 3;
/// What each processor does in one run.
const STEPS: u32 = 500;
/// Groups, where replacement is local, and the frames that each may hold.
const GROUPS: u16 = 2;
const ALLOTMENT: usize = 16;
/// Programs that may exist at once.
const PROGRAMS_MAX: usize = 9;

/// The files: shared memory, one on disk that is written through mappings, one that is only read
/// and mapped privately, and one that is truncated and extended while it is mapped.
const FILES: [(u64, Medium); 4] =
    [(24, Medium::Memory), (32, Medium::Disk), (16, Medium::Disk), (8, Medium::Memory)];
const PRIVATE: usize = 2;
const SHRINKING: usize = 3;

/// Where private memory is, and where it moves to and from; both fit into one page table.
const ANON: [Pages; 2] = [
    Pages { start: Page(0x1000), end: Page(0x1040) },
    Pages { start: Page(0x1040), end: Page(0x1080) },
];

/// Where a file is mapped.
const fn mapped_at(file: usize) -> Page {
    Page(0x1080 + 0x40 * file as u64)
}

/// What a program wrote to its private pages; 0 if nothing.
#[derive(Clone, Default)]
struct Private {
    stamps: BTreeMap<u64, u64>,
    /// Given up: they may show zero as well, until written.
    lazy: BTreeSet<u64>,
}

struct Program {
    space: AddressSpace,
    private: Private,
}

/// What all threads have.
struct Shared {
    world: World,
    /// Programs on their way to a thread.
    arrivals: Vec<Mutex<Vec<Program>>>,
    programs: Mutex<usize>,
}

/// One processor, and what it knows.
struct Processor<'a> {
    shared: &'a Shared,
    cpu: u32,
    random: Pcg64Mcg,
    programs: Vec<Program>,
    written: u64,
    /// The last stamp seen of each page of a shared file.
    seen: BTreeMap<(usize, u64), u64>,
}

impl Processor<'_> {
    fn below(&mut self, end: u64) -> u64 {
        self.random.random_range(0..end)
    }

    fn stamp(&mut self) -> u64 {
        self.written += 1;
        self.written << 8 | u64::from(self.cpu)
    }

    fn access(&mut self, program: usize, page: Page, write: Option<u64>) -> u64 {
        let space = &mut self.programs[program].space;
        let found = self.shared.world.access(self.cpu, &mut self.random, space, page, write);
        found.unwrap_or_else(|cause| panic!("{page:?}: {cause:?}"))
    }

    fn some_anon(&mut self) -> Page {
        let part = ANON[self.below(2) as usize];
        part.start.up(self.below(part.count()))
    }

    fn use_private(&mut self, program: usize, page: Page) {
        let private = &self.programs[program].private;
        let Some(&old) = private.stamps.get(&page.0) else { return };
        let lazy = private.lazy.contains(&page.0);
        let write = (self.below(2) == 0).then(|| self.stamp());
        let found = self.access(program, page, write);
        let private = &mut self.programs[program].private;
        if let Some(stamp) = write {
            private.stamps.insert(page.0, stamp);
            private.lazy.remove(&page.0);
        } else {
            assert!(found == old || lazy && found == 0, "{page:?} shows {found}, not {old}");
            if found != old {
                private.stamps.insert(page.0, 0);
            }
        }
    }

    /// A page of a file that is mapped shared: one thread writes it.
    fn use_shared(&mut self, program: usize, file: usize) {
        let index = self.below(FILES[file].0);
        let mine = index % u64::from(CPUS) == u64::from(self.cpu);
        let last = self.seen.get(&(file, index)).copied().unwrap_or(0);
        let write = (mine && self.below(2) == 0).then(|| self.stamp());
        let page = mapped_at(file).up(index);
        let found = self.access(program, page, write);
        if write.is_none() {
            let back = if mine { found != last } else { found < last };
            assert!(!back, "page {index} of file {file} shows {found} after {last}");
        }
        self.seen.insert((file, index), found);
    }

    /// A page that may be beyond the end of its file.
    fn use_shrinking(&mut self, program: usize) {
        let index = self.below(FILES[SHRINKING].0);
        let write = (self.below(2) == 0).then_some(index + 1);
        let page = mapped_at(SHRINKING).up(index);
        let space = &mut self.programs[program].space;
        match self.shared.world.access(self.cpu, &mut self.random, space, page, write) {
            Ok(found) => assert!(found == 0 || found == index + 1, "{page:?} shows {found}"),
            Err(Cause::Violation(Violation::BeyondFile)) => {}
            Err(other) => panic!("{page:?}: {other:?}"),
        }
    }

    fn map(&mut self, program: usize) {
        let (start, count) = (self.some_anon(), 1 + self.below(12));
        let request = Map::anonymous(Place::Fixed(start), count.min(ANON[1].end.0 - start.0));
        let Program { space, private } = &mut self.programs[program];
        let world = &self.shared.world;
        let mapped = world.vm.map(World::at(self.cpu), &world.machine, space, request);
        for page in mapped.expect("there is room").iter() {
            private.stamps.insert(page.0, 0);
            private.lazy.remove(&page.0);
        }
    }

    fn unmap(&mut self, program: usize) {
        let pages = Pages::at(self.some_anon(), 1 + self.below(6));
        let pages = pages.intersect(Pages::new(ANON[0].start, ANON[1].end));
        let Program { space, private } = &mut self.programs[program];
        let world = &self.shared.world;
        let unmapped = world.vm.unmap(World::at(self.cpu), &world.machine, space, pages);
        unmapped.expect("few areas");
        private.stamps.retain(|&page, _| !pages.contains(Page(page)));
        private.lazy.retain(|&page| !pages.contains(Page(page)));
    }

    fn remap(&mut self, program: usize) {
        let count = 1 + self.below(6);
        let (from, to) = (self.below(ANON[0].count() - count), self.below(64 - count));
        let turned = self.below(2) as usize;
        let old = Pages::at(ANON[turned].start.up(from), count);
        let new = Pages::at(ANON[1 - turned].start.up(to), count);
        let Program { space, private } = &mut self.programs[program];
        if !old.iter().all(|page| private.stamps.contains_key(&page.0)) {
            return;
        }
        let (world, at) = (&self.shared.world, World::at(self.cpu));
        let place = Move::To(new.start);
        let moved = world.vm.remap(at, &world.machine, space, old, count, place);
        if moved.is_err() {
            // Of several areas, or for want of a table.
            return private.stamps.retain(|&page, _| space.areas().find(Page(page)).is_some());
        }
        private.lazy.retain(|&page| !new.contains(Page(page)));
        for (from, to) in old.iter().zip(new.iter()) {
            let stamp = private.stamps.remove(&from.0).expect("all are mapped");
            private.stamps.insert(to.0, stamp);
            if private.lazy.remove(&from.0) {
                private.lazy.insert(to.0);
            }
        }
    }

    fn advise(&mut self, program: usize) {
        let page = self.some_anon();
        let which = self.below(3);
        let (advise, count) = match which {
            0 => (Advise::DontNeed, 1),
            1 => (Advise::Free, 1),
            _ => (Advise::WillNeed, 20),
        };
        let Program { space, private } = &mut self.programs[program];
        let (world, at) = (&self.shared.world, World::at(self.cpu));
        let pages = Pages::at(page, count);
        let advised = world.vm.advise(at, &world.machine, space, pages, advise);
        if advised.is_err() || !private.stamps.contains_key(&page.0) {
            return;
        }
        match advise {
            Advise::DontNeed => {
                private.stamps.insert(page.0, 0);
                private.lazy.remove(&page.0);
            }
            Advise::Free => {
                private.lazy.insert(page.0);
            }
            _ => {}
        }
    }

    /// Locks and unlocks, or forbids and permits, some pages.
    fn lock_or_protect(&mut self, program: usize) {
        let pages = Pages::at(self.some_anon(), 1 + self.below(4));
        let which = self.below(4);
        let space = &mut self.programs[program].space;
        let (world, at) = (&self.shared.world, World::at(self.cpu));
        let (vm, machine) = (&world.vm, &world.machine);
        // What is in no area is refused; then nothing was done, or all below it.
        let _ = match which {
            0 => vm.lock(machine, space, pages),
            1 | 2 => vm.unlock(machine, space, pages),
            _ => {
                let _ = vm.protect(at, machine, space, pages, Rights::READ);
                vm.protect(at, machine, space, pages, Rights::READ | Rights::WRITE)
            }
        };
    }

    /// Forks, and gives the child to a processor of chance's choice.
    fn fork(&mut self, program: usize) {
        let shared = self.shared;
        let mut programs = shared.programs.lock().expect("healthy");
        if *programs == PROGRAMS_MAX {
            return;
        }
        *programs += 1;
        drop(programs);
        let (world, at) = (&shared.world, World::at(self.cpu));
        let parent = &mut self.programs[program];
        match world.vm.fork(at, &world.machine, &mut parent.space) {
            Ok(space) => {
                if let Some(groups) = &world.vm.store().groups {
                    groups.set_space(space.id(), GroupId(self.random.random_range(0..=GROUPS)));
                }
                let child = Program { space, private: parent.private.clone() };
                let to = self.below(CPUS.into()) as usize;
                shared.arrivals[to].lock().expect("healthy").push(child);
            }
            // It may have to wait for a write first: a program would ask again.
            Err(NoMemory) => *shared.programs.lock().expect("healthy") -= 1,
        }
    }

    fn exit(&mut self, program: usize) {
        if self.programs.len() > 1 {
            let dead = self.programs.swap_remove(program);
            let world = &self.shared.world;
            world.vm.destroy(World::at(self.cpu), &world.machine, dead.space);
            *self.shared.programs.lock().expect("healthy") -= 1;
        }
    }

    fn reclaim(&mut self, program: usize) {
        let pages = Pages::at(self.some_anon(), 1 + self.below(20));
        let which = self.below(8);
        let bytes = self.below((FILES[SHRINKING].0 - 1) * PAGE_BYTES) + PAGE_BYTES;
        let (world, at) = (&self.shared.world, World::at(self.cpu));
        let (vm, machine) = (&world.vm, &world.machine);
        match which {
            0 => drop(vm.background(at, machine)),
            1 => drop(vm.reclaim(at, machine, 8)),
            2 => vm.beat(at, machine),
            3 | 4 => {
                let file = world.files[1].file;
                let _ = vm.write_back(at, machine, file, 0..u64::MAX, 8);
            }
            5 => {
                let file = world.files[SHRINKING].file;
                let spaces = self.programs.iter_mut().map(|program| &mut program.space);
                vm.truncate(at, machine, file, bytes, spaces).expect("a small file");
            }
            // Refused where an area is locked, or none is.
            _ => drop(vm.page_out(at, machine, &self.programs[program].space, pages)),
        }
    }

    fn step(&mut self) {
        let arrived = self.shared.arrivals[self.cpu as usize].lock().expect("healthy").pop();
        self.programs.extend(arrived);
        if self.programs.is_empty() {
            return std::thread::yield_now();
        }
        let program = self.below(self.programs.len() as u64) as usize;
        match self.below(100) {
            0..4 => self.map(program),
            4..6 => self.unmap(program),
            6..9 => self.remap(program),
            9..13 => self.advise(program),
            13..16 => self.lock_or_protect(program),
            16..20 => self.fork(program),
            20..23 => self.exit(program),
            23..29 => self.reclaim(program),
            29..40 => {
                self.shared.world.finish_one(self.cpu, &mut self.random);
            }
            40..60 => {
                let file = self.below(2) as usize;
                self.use_shared(program, file);
            }
            60..64 => self.use_shrinking(program),
            64..68 => {
                let index = self.below(FILES[PRIVATE].0);
                self.use_private(program, mapped_at(PRIVATE).up(index));
            }
            _ => {
                // Neighbours are used together, as in most programs.
                let page = self.some_anon();
                for page in Pages::at(page, 4).iter() {
                    self.use_private(program, page);
                }
            }
        }
    }
}

/// A program that has everything mapped, with all of its private memory written.
fn first_program(processor: &mut Processor) {
    let world = &processor.shared.world;
    let at = World::at(0);
    let mut space = world.vm.new_space(at, &world.machine, Layout::default()).expect("room");
    let mut map = |request| {
        world.vm.map(at, &world.machine, &mut space, request).expect("nothing is there");
    };
    map(Map::anonymous(Place::Fixed(ANON[0].start), ANON[0].count()));
    for (number, (pages, _)) in FILES.iter().enumerate() {
        let mut request = Map::anonymous(Place::Fixed(mapped_at(number)), *pages);
        request.backing = Backing::File { file: world.files[number].file, offset: 0 };
        let private = number == PRIVATE;
        request.sharing = if private { Sharing::Private } else { Sharing::Shared };
        map(request);
    }
    let mut private = Private::default();
    let file = Pages::at(mapped_at(PRIVATE), FILES[PRIVATE].0);
    private.stamps.extend(ANON[0].iter().chain(file.iter()).map(|page| (page.0, 0)));
    processor.programs.push(Program { space, private });
    for page in ANON[0].iter() {
        let stamp = processor.stamp();
        processor.access(0, page, Some(stamp));
        processor.programs[0].private.stamps.insert(page.0, stamp);
    }
}

/// Runs programs on all processors; one request of the disk's in `fails` fails, none if 0.
fn run(seed: u64, config: &Config, fails: u32) {
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    let world = World::new(config, &FILES, fails);
    let boot = world.vm.census();
    if let Some(groups) = &world.vm.store().groups {
        (1..=GROUPS).for_each(|group| groups.set_allotment(GroupId(group), ALLOTMENT));
    }
    let arrivals = (0..CPUS).map(|_| Mutex::default()).collect();
    let shared = Shared { world, arrivals, programs: Mutex::new(1) };
    let processor = |cpu: u32| Processor {
        shared: &shared,
        cpu,
        random: Pcg64Mcg::seed_from_u64(seed << 8 | u64::from(cpu)),
        programs: Vec::new(),
        written: 0,
        seen: BTreeMap::new(),
    };
    let mut processors: Vec<Processor> = (0..CPUS).map(processor).collect();
    first_program(&mut processors[0]);
    for _ in 0..CPUS {
        processors[0].fork(0);
    }
    std::thread::scope(|scope| {
        for processor in &mut processors {
            scope.spawn(|| (0..STEPS).for_each(|_| processor.step()));
        }
    });
    let world = &shared.world;
    let mut programs: Vec<Program> =
        processors.iter_mut().flat_map(|processor| processor.programs.drain(..)).collect();
    for arrivals in &shared.arrivals {
        programs.append(&mut arrivals.lock().expect("healthy"));
    }
    let check = |programs: &[Program]| {
        let spaces: Vec<&AddressSpace> = programs.iter().map(|program| &program.space).collect();
        check_invariants(&world.vm, &world.machine, &spaces);
    };
    check(&programs);
    world.settle(&mut random);
    check(&programs);
    for program in programs {
        world.vm.destroy(World::at(0), &world.machine, program.space);
    }
    for file in &world.files {
        world.vm.remove_file(World::at(0), &world.machine, file.file);
    }
    world.settle(&mut random);
    check(&[]);
    assert_eq!(world.vm.census(), boot, "frames lost");
    assert_eq!(world.vm.store().swap.used(), 0, "slots lost");
}

/// A machine that is too small for its programs.
fn small(policy: &str, frames: u32, requests: u32, page_cluster: u8) -> Config {
    let mut config = Config::new(frames);
    config.cpus = CPUS;
    config.policy = Choice::of(policy);
    config.requests = requests;
    config.swap = SwapConfig { slots: 4096, page_cluster, in_ram: false };
    config
}

#[test]
fn processors_that_fault_at_once_see_what_they_wrote() {
    let runs = std::env::var("VELLUM_RUNS").map_or(1, |runs| runs.parse().expect("a number"));
    let policies = ["clock", "lru", "linux", "random", "fifo", "arc"];
    for (seed, policy) in (0..runs).flat_map(|run| (run * 100..).zip(policies)) {
        for (frames, requests, page_cluster, fails) in
            [(80, 64, 3, 0), (120, 2, 3, 20), (300, 1, 0, 0)]
        {
            let mut config = small(policy, frames, requests, page_cluster);
            config.groups = if frames == 120 { GROUPS } else { 0 };
            run(seed, &config, fails);
        }
    }
}
