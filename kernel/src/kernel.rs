//! The kernel's state, under one lock: whoever traps takes it, and gives it back before ring 3.
//!
//! Interrupts are off whenever it is held. The memory manager below has locks of its own and would
//! bear more; one lock is what keeps tasks, files and signals simple.

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::{Rng, SeedableRng};
use spin::Mutex;
use vellum_mm::account::crawl::Crawl;
use vellum_mm::addr::{Frame, PAGE_BYTES};
use vellum_mm::frames::census::Census;
use vellum_mm::machine::At;
use vellum_mm::objects::io::RequestId;
use vellum_mm::spaces::AddressSpace;
use vellum_mm::{Config, Vm};

use crate::arch::{Hardware, PhysicalMemory, cpu};
use crate::disks::Disks;
use crate::files::Files;
use crate::input::Input;
use crate::options::Options;
use crate::pc::Pc;
use crate::report::ProcessReport;
use crate::tasks::{Process, State, Tasks, Tid, Wait};

/// Everything that processors share.
pub(crate) struct Kernel {
    /// The machine.
    pub(crate) pc: &'static Pc,
    /// The memory manager.
    pub(crate) vm: Vm,
    /// Threads, processes, address spaces.
    pub(crate) tasks: Tasks,
    /// The file tree, open files, pipes.
    pub(crate) files: Files,
    /// Where requests go.
    pub(crate) disks: Disks,
    /// Threads that can run, in order.
    pub(crate) ready: VecDeque<Tid>,
    /// Threads with a deadline: it, and who.
    pub(crate) sleepers: BTreeSet<(u64, Tid)>,
    /// By request: who waits for it.
    pub(crate) waiters: Vec<Vec<Tid>>,
    /// By request: whether it is under way.
    pub(crate) under_way: Vec<bool>,
    /// Frames that programs had given back when background reclaim last found nothing to evict.
    pub(crate) exhausted_at: Option<u64>,
    /// Whether reclaim gains anybody anything.
    pub(crate) crawl: Crawl,
    /// Processors that halt until something is ready.
    pub(crate) idle: u64,
    /// The first process: the machine stops when it ends.
    pub(crate) first: Tid,
    /// Processes that are gone, for the report.
    pub(crate) gone: Vec<ProcessReport>,
    /// How many ended after it had no more room.
    pub(crate) unreported: u64,
    /// What was asked for on the command line.
    pub(crate) options: Options,
    /// Calls that were answered with `ENOSYS`, each said once.
    pub(crate) unknown_calls: BTreeSet<u32>,
    /// When the machine had started.
    pub(crate) started: u64,
    /// When counters were last printed.
    pub(crate) shown: u64,
    /// When the policy next looks at accessed bits; `u64::MAX` if it never does.
    next_beat: u64,
    /// The most that was ever in use: pages of programs and the page cache, of page tables, slots.
    pub(crate) peaks: Peaks,
    /// What was in use before the first process.
    pub(crate) boot: Census,
    /// What programs read from the console.
    pub(crate) input: Input,
    /// What chance is drawn from.
    chance: Pcg64Mcg,
    /// Set once the machine is to stop, with its exit code.
    pub(crate) stopping: Option<u8>,
}

/// The most that was ever in use.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Peaks {
    /// Frames in use.
    pub(crate) frames: u64,
    /// Page tables of one space.
    pub(crate) tables: u64,
    /// Slots in use.
    pub(crate) slots: u64,
}

/// How often a policy that asks for it looks at accessed bits: what textbooks take for a clock tick.
const BEAT_NANOS: u64 = 20_000_000;

/// The one kernel.
static KERNEL: spin::Once<Mutex<Kernel>> = spin::Once::new();

/// The lock around the kernel.
///
/// # Panics
/// Before [`install`].
pub(crate) fn get() -> &'static Mutex<Kernel> {
    KERNEL.get().expect("the kernel is installed before other processors start")
}

/// Whether there is one.
pub(crate) fn is_installed() -> bool {
    KERNEL.is_completed()
}

/// Makes `kernel` the one that all processors use.
pub(crate) fn install(kernel: Kernel) {
    KERNEL.call_once(|| Mutex::new(kernel));
}

/// This processor, now.
#[inline]
pub(crate) fn now() -> At {
    At { now: cpu::nanos(), cpu: cpu::id() }
}

impl Kernel {
    /// A kernel without processes.
    ///
    /// # Errors
    /// Why there can be none, in a line.
    pub(crate) fn new(hardware: &mut Hardware, options: Options) -> Result<Kernel, String> {
        let cpus = hardware.cpus.len() as u32;
        let memory =
            crate::memory_map::usable(&hardware.memory, hardware.frames, options.memory_bytes);
        let pc: &'static Pc = Box::leak(Box::new(Pc::new(cpus)));
        let mut disks = Disks::new(core::mem::take(&mut hardware.disks));
        let mut files = Files::new(hardware.archive)?;
        // No frame is anybody's before there is a memory manager.
        let frame = hardware.memory.first().map(|range| range.start.div_ceil(PAGE_BYTES));
        if let Some(frame) = frame {
            disks.mount(&mut files.tree, PhysicalMemory, Frame(frame as u32));
        }
        let config = Config {
            holes: memory.holes,
            cpus,
            swap: disks.swap_config(options.page_cluster),
            policy: options.policy,
            seed: options.seed,
            ..Config::new(memory.frames)
        };
        let vm = Vm::new(&config, pc).map_err(|error| {
            alloc::format!("no memory manager for {} frames: {error:?}", memory.frames)
        })?;
        crate::arch::paging::share(vellum_mm::machine::Memory::table(pc, vm.kernel_root()));
        let chance = Pcg64Mcg::seed_from_u64(options.seed);
        Ok(Kernel {
            pc,
            tasks: Tasks::default(),
            files,
            disks,
            ready: VecDeque::new(),
            sleepers: BTreeSet::new(),
            waiters: Vec::new(),
            under_way: Vec::new(),
            exhausted_at: None,
            crawl: Crawl::default(),
            idle: 0,
            first: 0,
            gone: Vec::new(),
            unreported: 0,
            options,
            unknown_calls: BTreeSet::new(),
            started: cpu::nanos(),
            shown: 0,
            next_beat: if vm.has_beats() { 0 } else { u64::MAX },
            peaks: Peaks::default(),
            boot: vm.census(),
            input: Input::new(hardware.input.take()),
            chance,
            stopping: None,
            vm,
        })
    }

    /// The process of a thread.
    ///
    /// # Panics
    /// If there is no such thread.
    pub(crate) fn process(&mut self, tid: Tid) -> &mut Process {
        &mut self.tasks.processes[self.tasks.threads[tid].process]
    }

    /// The address space of a thread.
    ///
    /// # Panics
    /// If there is no such thread.
    pub(crate) fn space(&self, tid: Tid) -> &AddressSpace {
        let process = &self.tasks.processes[self.tasks.threads[tid].process];
        &self.tasks.spaces[process.space].as_ref().expect("a thread has a space").space
    }

    /// Puts a thread that waited into the queue.
    pub(crate) fn wake(&mut self, tid: Tid) {
        let Some(thread) = self.tasks.threads.get_mut(tid) else { return };
        let State::Waiting(wait) = thread.state else { return };
        thread.state = State::Ready;
        let deadline = core::mem::replace(&mut thread.deadline, u64::MAX);
        if deadline != u64::MAX {
            self.sleepers.remove(&(deadline, tid));
        }
        if let Wait::Request(request) = wait {
            self.forget_waiter(request, tid);
        }
        self.make_ready(tid);
    }

    /// Queues a thread, and gets a processor that idles to look.
    pub(crate) fn make_ready(&mut self, tid: Tid) {
        self.ready.push_back(tid);
        if self.idle != 0 {
            let cpu = self.idle.trailing_zeros();
            self.idle &= !(1 << cpu);
            crate::arch::ipi::shootdown(cpu);
        }
    }

    /// Wakes every thread that waits for what `matches` says.
    pub(crate) fn wake_all(&mut self, matches: impl Fn(Wait) -> bool) {
        let waits = |state| matches!(state, State::Waiting(wait) if matches(wait));
        let threads = self.tasks.threads.iter().filter(|(_, thread)| waits(thread.state));
        let woken: Vec<Tid> = threads.map(|(tid, _)| tid).collect();
        for tid in woken {
            self.wake(tid);
        }
    }

    fn forget_waiter(&mut self, request: RequestId, tid: Tid) {
        if let Some(waiters) = self.waiters.get_mut(request.0 as usize) {
            waiters.retain(|&waiter| waiter != tid);
        }
    }

    /// Lets a thread wait.
    pub(crate) fn wait(&mut self, tid: Tid, wait: Wait, deadline: u64) {
        let thread = &mut self.tasks.threads[tid];
        thread.state = State::Waiting(wait);
        thread.deadline = deadline;
        if deadline != u64::MAX {
            self.sleepers.insert((deadline, tid));
        }
        if let Wait::Request(request) = wait {
            self.waiters[request.0 as usize].push(tid);
        }
    }

    /// Wakes all whose deadline has passed.
    pub(crate) fn wake_sleepers(&mut self, now: u64) {
        while let Some(&(deadline, tid)) = self.sleepers.first()
            && deadline <= now
        {
            self.sleepers.pop_first();
            self.tasks.threads[tid].deadline = u64::MAX;
            self.tasks.threads[tid].timed_out = true;
            self.wake(tid);
        }
    }

    /// Lets the policy look at accessed bits if it is time.
    #[inline]
    pub(crate) fn beat_if_due(&mut self, now: u64) {
        if now >= self.next_beat {
            self.next_beat = now + BEAT_NANOS;
            self.vm.beat(At { now, cpu: cpu::id() }, self.pc);
        }
    }

    /// Numbers drawn from the seed.
    pub(crate) fn random(&mut self, bytes: &mut [u8]) {
        self.chance.fill_bytes(bytes);
    }

    /// Takes what has come of the machine's input.
    #[inline]
    pub(crate) fn poll_input(&mut self) {
        if self.input.poll() {
            self.wake_all(|wait| matches!(wait, Wait::Console | Wait::Poll));
        }
    }

    /// Forgets that a thread, which is about to go, waits for anything.
    pub(crate) fn forget_wait(&mut self, tid: Tid) {
        let thread = &self.tasks.threads[tid];
        self.sleepers.remove(&(thread.deadline, tid));
        if let State::Waiting(Wait::Request(request)) = thread.state {
            self.forget_waiter(request, tid);
        }
    }
}
