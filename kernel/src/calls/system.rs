//! Calls about the system, its limits, and what a process used.

use linux_raw_sys::general as nr;
use vellum_mm::addr::{PAGE_BYTES, VirtAddr};

use super::{Answer, Arguments, Errno, Halt};
use crate::arch::user::Context;
use crate::kernel::Kernel;
use crate::tasks::{Thread, Tid};
use crate::words::Words;

const ARCH_SET_GS: u32 = 0x1001;
const ARCH_SET_FS: u32 = 0x1002;
const ARCH_GET_FS: u32 = 0x1003;
const ARCH_GET_GS: u32 = 0x1004;
const PR_SET_NAME: u32 = 15;
const PR_GET_NAME: u32 = 16;

impl Kernel {
    pub(crate) fn call_system(&mut self, tid: Tid, number: u32, a: &Arguments) -> Option<Answer> {
        Some(match number {
            nr::__NR_nanosleep => self.sleep(tid, a[0], a[1], false),
            nr::__NR_clock_nanosleep => {
                if !matches!(
                    a[0] as u32,
                    nr::CLOCK_REALTIME | nr::CLOCK_MONOTONIC | nr::CLOCK_BOOTTIME | nr::CLOCK_TAI
                ) {
                    return Some(Err(Errno::EINVAL.into()));
                }
                let absolute = a[1] & u64::from(nr::TIMER_ABSTIME) != 0;
                self.sleep(tid, a[2], a[3], absolute)
            }
            nr::__NR_clock_gettime => self.clock(tid, a[0], a[1]),
            nr::__NR_clock_getres => self.clock_resolution(tid, a[0], a[1]),
            nr::__NR_gettimeofday => self.time_of_day(tid, a[0]),
            nr::__NR_time => self.seconds(tid, a[0]),
            nr::__NR_times => self.ticks(tid, a[0]),
            nr::__NR_getpriority => self.priority(tid, a[0], a[1]),
            nr::__NR_setpriority => self.set_priority(tid, a[0], a[1], a[2]),
            // It can do nothing.
            nr::__NR_membarrier if a[0] as u32 | a[1] as u32 == 0 => Ok(0),
            nr::__NR_membarrier => Err(Errno::EINVAL.into()),
            nr::__NR_alarm => Ok(self.alarm(tid, a[0])),
            nr::__NR_setitimer => self.set_timer(tid, a[0], a[1], a[2]),
            nr::__NR_getitimer => self.timer(tid, a[0], a[1]),
            nr::__NR_getrusage => self.usage(tid, a[0] as i32, a[1]),
            nr::__NR_getrandom => self.get_random(tid, a[0], a[1], a[2]),
            nr::__NR_uname => self.names(tid, a[0]),
            nr::__NR_sysinfo => self.information(tid, a[0]),
            nr::__NR_getrlimit => self.limit(tid, 0, a[0], 0, a[1]),
            nr::__NR_prlimit64 => self.limit(tid, a[0], a[1], a[2], a[3]),
            nr::__NR_sched_getaffinity => self.affinity(tid, a[1], a[2]),
            nr::__NR_getcpu => {
                let cpu = crate::arch::cpu::id();
                if a[0] == 0 {
                    Ok(0)
                } else {
                    self.copy_out(tid, a[0], &cpu.to_le_bytes()).map(|()| 0)
                }
            }
            // Everybody is root; limits are as they are; files live in memory, and there is no disk to
            // write them to; advice is taken by doing nothing.
            nr::__NR_sync
            | nr::__NR_sched_setaffinity
            | nr::__NR_getuid
            | nr::__NR_geteuid
            | nr::__NR_getgid
            | nr::__NR_getegid
            | nr::__NR_setuid
            | nr::__NR_setgid
            | nr::__NR_fadvise64
            | nr::__NR_setrlimit => Ok(0),
            // Programs ask for these and manage without.
            nr::__NR_rseq | nr::__NR_clone3 | nr::__NR_statx => Err(Errno::ENOSYS.into()),
            _ => return None,
        })
    }

    /// `arch_prctl`: the bases of the two segment registers that thread-local memory goes by.
    pub(crate) fn segment_base(
        &mut self,
        tid: Tid,
        context: &mut Context,
        code: u64,
        address: u64,
    ) -> Answer {
        let is_address = vellum_mm::spaces::layout::is_user(VirtAddr(address));
        match code as u32 {
            ARCH_SET_GS | ARCH_SET_FS if !is_address => return Err(Errno::EPERM.into()),
            ARCH_SET_GS => context.gs_base = address,
            ARCH_SET_FS => context.fs_base = address,
            ARCH_GET_FS => self.copy_out(tid, address, &context.fs_base.to_le_bytes())?,
            ARCH_GET_GS => self.copy_out(tid, address, &context.gs_base.to_le_bytes())?,
            _ => return Err(Errno::EINVAL.into()),
        }
        Ok(0)
    }

    /// `prctl`: a thread's name.
    pub(crate) fn process_control(&mut self, tid: Tid, option: u64, address: u64) -> Answer {
        match option as u32 {
            PR_SET_NAME => {
                let mut name = [0; Thread::NAME_BYTES];
                for at in 0..Thread::NAME_BYTES - 1 {
                    self.copy_in(tid, address.wrapping_add(at as u64), &mut name[at..=at])?;
                    if name[at] == 0 {
                        break;
                    }
                }
                self.tasks.threads[tid].name = name;
            }
            PR_GET_NAME => {
                let name = self.tasks.threads[tid].name;
                self.copy_out(tid, address, &name)?;
            }
            _ => return Err(Errno::EINVAL.into()),
        }
        Ok(0)
    }

    fn usage(&mut self, tid: Tid, who: i32, to: u64) -> Answer {
        let process = self.process(tid);
        let (minor, major, peak) = match who {
            0 | 1 => (process.minor, process.major, process.peak_resident),
            -1 => (process.children_faults.0, process.children_faults.1, 0),
            _ => return Err(Errno::EINVAL.into()),
        };
        let space = self.space(tid);
        let peak = peak.max(space.resident_peak());
        self.copy_out(tid, to, &usage_bytes(peak, minor, major))?;
        Ok(0)
    }

    /// `getpriority`: 20 for the usual one, less for who is nice.
    fn priority(&mut self, tid: Tid, kind: u64, of: u64) -> Answer {
        let process = self.subject_of_priority(tid, kind, of)?;
        Ok((20 - self.tasks.processes[process].nice).cast_unsigned().into())
    }

    /// `setpriority`: it is remembered, though all take turns as before.
    fn set_priority(&mut self, tid: Tid, kind: u64, of: u64, nice: u64) -> Answer {
        let process = self.subject_of_priority(tid, kind, of)?;
        self.tasks.processes[process].nice = (nice as i32).clamp(-20, 19);
        Ok(0)
    }

    fn subject_of_priority(&self, tid: Tid, kind: u64, of: u64) -> Result<Tid, Errno> {
        const PRIO_PROCESS: u32 = 0;
        if kind as u32 != PRIO_PROCESS {
            return Err(Errno::EINVAL);
        }
        let process = if of as Tid == 0 { self.tasks.threads[tid].process } else { of as Tid };
        self.tasks.processes.get(process).ok_or(Errno::ESRCH)?;
        Ok(process)
    }

    fn get_random(&mut self, tid: Tid, to: u64, bytes: u64, flags: u64) -> Answer {
        /// Bytes that Linux gives at once.
        const BYTES_MAX: u64 = (32 << 20) - 1;
        let both = nr::GRND_RANDOM | nr::GRND_INSECURE;
        let flags = flags as u32;
        if flags & !(both | nr::GRND_NONBLOCK) != 0 || flags & both == both {
            return Err(Errno::EINVAL.into());
        }
        let bytes = bytes.min(BYTES_MAX);
        // `progress` counts bytes: who asks for more than fits in memory must not begin again.
        loop {
            let done = self.tasks.threads[tid].progress;
            let mut buffer = [0; 256];
            let count = (bytes - done).min(buffer.len() as u64);
            if count == 0 {
                return Ok(done);
            }
            let chunk = &mut buffer[..count as usize];
            self.random(chunk);
            match self.copy_out(tid, to.wrapping_add(done), chunk) {
                Err(Halt::Errno(_)) if done > 0 => return Ok(done),
                other => other?,
            }
            self.tasks.threads[tid].progress = done + count;
        }
    }

    fn names(&mut self, tid: Tid, to: u64) -> Answer {
        let mut words = Words::default();
        let version = concat!("#1 Vellum ", env!("CARGO_PKG_VERSION"));
        // A release that C libraries accept.
        for name in ["Linux", "vellum", "6.1.0-vellum", version, "x86_64", "(none)"] {
            words.put(name.as_bytes()).zeros(65 - name.len());
        }
        self.copy_out(tid, to, words.bytes())?;
        Ok(0)
    }

    fn information(&mut self, tid: Tid, to: u64) -> Answer {
        let store = self.vm.store();
        let zone = store.frames.zone();
        let swap_slots = u64::from(store.swap.config().slots);
        let free_slots = swap_slots - u64::from(store.swap.used());
        let (total, free) = (zone.frames_total() as u64, zone.free_frames() as u64);
        let seconds = crate::arch::cpu::nanos() / 1_000_000_000;
        let processes = self.tasks.processes.iter().count() as u16;
        let mut words = Words::default();
        words.u64(seconds).zeros(24).u64(total * PAGE_BYTES).u64(free * PAGE_BYTES).zeros(16);
        words.u64(swap_slots * PAGE_BYTES).u64(free_slots * PAGE_BYTES).u16(processes).zeros(6);
        words.zeros(16).u32(1).zeros(4);
        self.copy_out(tid, to, words.bytes())?;
        Ok(0)
    }

    fn limit(&mut self, tid: Tid, process: u64, resource: u64, new: u64, old: u64) -> Answer {
        if process != 0 && process != u64::from(self.tasks.threads[tid].process) {
            return Err(Errno::ESRCH.into());
        }
        if resource > 15 {
            return Err(Errno::EINVAL.into());
        }
        if new != 0 {
            self.word_in(tid, new)?; // limits are as they are: asked for less, nothing changes
        }
        let space = self.space(tid);
        let limit = match resource as u32 {
            nr::RLIMIT_STACK => space.layout().stack_bytes_max,
            nr::RLIMIT_NOFILE => 1024,
            _ => u64::MAX,
        };
        if old != 0 {
            let mut words = Words::default();
            words.u64(limit).u64(limit);
            self.copy_out(tid, old, words.bytes())?;
        }
        Ok(0)
    }

    fn affinity(&mut self, tid: Tid, bytes: u64, to: u64) -> Answer {
        if bytes < 8 {
            return Err(Errno::EINVAL.into());
        }
        let all = u64::MAX >> (64 - self.pc.cpus().min(64));
        self.copy_out(tid, to, &all.to_le_bytes())?;
        Ok(8)
    }
}

/// `struct rusage`: two times, which are not kept; sizes in KiB, of which only the peak is; faults.
pub(crate) fn usage_bytes(peak_pages: u64, minor: u64, major: u64) -> [u8; 144] {
    let mut words = Words::default();
    words.zeros(32).u64(peak_pages * PAGE_BYTES / 1024).zeros(24).u64(minor).u64(major);
    words.zeros(144 - words.bytes().len());
    words.bytes().try_into().expect("144 bytes")
}
