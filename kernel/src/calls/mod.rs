//! System calls: a subset of Linux's, by its numbers, so that one binary runs on both.
//!
//! A call that must wait ends in [`Halt::Wait`] and is made again from its start when the wait is over;
//! its arguments are still in the registers. What it has done by then it must not do twice: it either
//! changes nothing before its last chance to wait, or keeps in the thread's `progress` how far it is.

mod attributes;
mod descriptors;
mod exit;
mod file;
mod futex;
mod memory;
mod parts;
mod paths;
mod process;
mod robust;
mod room;
mod select;
mod shm;
mod signal;
mod streams;
mod system;
mod time;
mod transfer;

use linux_raw_sys::general as nr;
use vellum_mm::fault::Cause;
use vellum_mm::spaces::map::Refused;

use self::transfer::Way;
use crate::arch::user::Context;
use crate::kernel::Kernel;
use crate::tasks::{Tid, Wait};

/// Why a call fails, as Linux numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Errno(pub(crate) u32);

macro_rules! errnos {
    ($($name:ident),* $(,)?) => {
        #[allow(missing_docs)] // errno(3) tells
        impl Errno {
            $(pub(crate) const $name: Errno = Errno(linux_raw_sys::errno::$name);)*
        }
    };
}
errnos!(
    E2BIG,
    EACCES,
    EAGAIN,
    EBADF,
    EBUSY,
    ECHILD,
    EEXIST,
    EFAULT,
    EINTR,
    EINVAL,
    EIO,
    EISDIR,
    ELOOP,
    EMFILE,
    ENFILE,
    ENAMETOOLONG,
    ENODEV,
    ENOENT,
    ENOEXEC,
    ENOMEM,
    ENOSPC,
    ENOSYS,
    ENOTDIR,
    ENOTEMPTY,
    ENOTTY,
    ENXIO,
    EOPNOTSUPP,
    EPERM,
    EPIPE,
    ERANGE,
    EROFS,
    ESPIPE,
    ESRCH,
    ETIMEDOUT,
    EXDEV,
    EFBIG,
    EOVERFLOW,
);

/// Why a call has no result yet, or never will.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Halt {
    /// It fails.
    Errno(Errno),
    /// It must wait for this, until so many nanoseconds at most, and then be made again.
    Wait(Wait, u64),
    /// It must be made again later: memory is about to be freed.
    Again,
    /// A program did at an address what it may not do.
    Bad(Cause),
    /// A signal comes before its wait begins.
    Interrupted,
    /// The thread is no more, or runs another program.
    Dead,
    /// The registers hold what the thread goes on with: no result is to be stored.
    Replaced,
}

impl From<Errno> for Halt {
    fn from(errno: Errno) -> Halt {
        Halt::Errno(errno)
    }
}

impl Halt {
    /// What a call makes of an access that is refused.
    pub(crate) fn in_call(self) -> Halt {
        match self {
            Halt::Bad(_) => Halt::Errno(Errno::EFAULT),
            other => other,
        }
    }
}

impl From<Refused> for Errno {
    fn from(refused: Refused) -> Errno {
        match refused {
            Refused::Invalid => Errno::EINVAL,
            Refused::Occupied(_) => Errno::EEXIST,
            Refused::Denied => Errno::EACCES,
            Refused::NoRoom | Refused::TooMany | Refused::NoMemory | Refused::Hole(_) => {
                Errno::ENOMEM
            }
        }
    }
}

impl From<Refused> for Halt {
    fn from(refused: Refused) -> Halt {
        Halt::Errno(refused.into())
    }
}

/// What a call answers.
pub(crate) type Answer = Result<u64, Halt>;

/// The arguments of a call, in order.
pub(crate) type Arguments = [u64; 6];

impl Kernel {
    /// Makes the call that the registers of thread `tid` ask for.
    ///
    /// # Errors
    /// Whatever is not a result.
    #[inline]
    pub(crate) fn call(&mut self, tid: Tid, context: &mut Context) -> Answer {
        let number = context.rax as u32;
        let a = [context.rdi, context.rsi, context.rdx, context.r10, context.r8, context.r9];
        if let Some(errno) = without_heap(number)
            && !crate::arch::heap_has_room(HEAP_RESERVE)
        {
            return Err(errno.into());
        }
        self.call_memory(tid, number, &a)
            .or_else(|| self.call_file(tid, number, &a))
            .or_else(|| self.call_process(tid, number, &a, context))
            .or_else(|| self.call_system(tid, number, &a))
            .unwrap_or_else(|| Err(self.unknown(number)))
    }

    #[cold]
    fn unknown(&mut self, number: u32) -> Halt {
        if self.unknown_calls.insert(number) {
            println!("system call {number} is not supported: ENOSYS");
        }
        Errno::ENOSYS.into()
    }

    fn call_memory(&mut self, tid: Tid, number: u32, a: &Arguments) -> Option<Answer> {
        Some(match number {
            nr::__NR_mmap => self.mmap(tid, a),
            nr::__NR_munmap => self.munmap(tid, a[0], a[1]),
            nr::__NR_mremap => self.mremap(tid, a),
            nr::__NR_mprotect => self.mprotect(tid, a[0], a[1], a[2]),
            nr::__NR_madvise => self.madvise(tid, a[0], a[1], a[2]),
            nr::__NR_brk => self.brk(tid, a[0]),
            nr::__NR_mincore => self.mincore(tid, a[0], a[1], a[2]),
            nr::__NR_msync => self.msync(tid, a[0], a[1], a[2]),
            nr::__NR_mlock => self.mlock(tid, a[0], a[1]),
            nr::__NR_mlock2 if a[2] == 0 => self.mlock(tid, a[0], a[1]),
            nr::__NR_mlock2 => Err(Errno::EINVAL.into()), // MLOCK_ONFAULT is not supported
            nr::__NR_munlock => self.munlock(tid, a[0], a[1]),
            nr::__NR_mlockall => self.mlockall(tid, a[0]),
            nr::__NR_munlockall => self.munlockall(tid),
            nr::__NR_shmget => self.shmget(a[0], a[1], a[2]),
            nr::__NR_shmat => self.shmat(tid, a[0], a[1], a[2]),
            nr::__NR_shmdt => self.shmdt(tid, a[0]),
            nr::__NR_shmctl => self.shmctl(tid, a[0], a[1], a[2]),
            _ => return None,
        })
    }

    fn call_file(&mut self, tid: Tid, number: u32, a: &Arguments) -> Option<Answer> {
        Some(match number {
            nr::__NR_read => self.read(tid, a[0], a[1], a[2]),
            nr::__NR_write => self.write(tid, a[0], a[1], a[2]),
            nr::__NR_pread64 => self.at_place(tid, a, Way::ToProgram),
            nr::__NR_pwrite64 => self.at_place(tid, a, Way::FromProgram),
            nr::__NR_readv => self.vectored(tid, a, Way::ToProgram),
            nr::__NR_writev => self.vectored(tid, a, Way::FromProgram),
            nr::__NR_preadv => self.vectored_at_place(tid, a, Way::ToProgram),
            nr::__NR_pwritev => self.vectored_at_place(tid, a, Way::FromProgram),
            nr::__NR_preadv2 => self.vectored_with_flags(tid, a, Way::ToProgram),
            nr::__NR_pwritev2 => self.vectored_with_flags(tid, a, Way::FromProgram),
            nr::__NR_open => self.open_at(tid, AT_FDCWD, a[0], a[1], a[2]),
            nr::__NR_openat => self.open_at(tid, a[0], a[1], a[2], a[3]),
            nr::__NR_creat => {
                let flags = nr::O_CREAT | nr::O_WRONLY | nr::O_TRUNC;
                self.open_at(tid, AT_FDCWD, a[0], flags.into(), a[1])
            }
            nr::__NR_close => self.close(tid, a[0]),
            nr::__NR_lseek => self.seek(tid, a[0], a[1].cast_signed(), a[2]),
            nr::__NR_ftruncate => self.ftruncate(tid, a[0], a[1]),
            nr::__NR_truncate => self.truncate(tid, a[0], a[1]),
            nr::__NR_fsync | nr::__NR_fdatasync | nr::__NR_syncfs => self.sync(tid, a[0]),
            nr::__NR_dup => self.duplicate(tid, a[0], 0, false),
            nr::__NR_dup2 => self.duplicate_to(tid, a[0], a[1], 0, true),
            nr::__NR_dup3 => self.duplicate_to(tid, a[0], a[1], a[2], false),
            nr::__NR_fcntl => self.control(tid, a[0], a[1], a[2]),
            nr::__NR_ioctl => self.device_control(tid, a[0], a[1], a[2]),
            nr::__NR_flock => self.lock_file(tid, a[0], a[1]),
            nr::__NR_fallocate => self.allocate(tid, a[0], a[1], a[2], a[3]),
            nr::__NR_pipe => self.pipe(tid, a[0], 0),
            nr::__NR_pipe2 => self.pipe(tid, a[0], a[1]),
            nr::__NR_poll => self.poll(tid, a[0], a[1], a[2].cast_signed()),
            nr::__NR_ppoll => self.poll_masked(tid, a),
            nr::__NR_select => self.select(tid, a),
            nr::__NR_pselect6 => self.select_masked(tid, a),
            nr::__NR_getdents64 => self.entries(tid, a[0], a[1], a[2]),
            nr::__NR_memfd_create => self.memory_file(tid, a[0], a[1]),
            nr::__NR_sendfile => Err(Errno::EINVAL.into()), // callers then read and write
            _ => return self.call_path(tid, number, a),
        })
    }

    fn call_path(&mut self, tid: Tid, number: u32, a: &Arguments) -> Option<Answer> {
        Some(match number {
            nr::__NR_access => self.access_at(tid, AT_FDCWD, a[0], a[1], 0),
            nr::__NR_faccessat => self.access_at(tid, a[0], a[1], a[2], 0),
            nr::__NR_faccessat2 => self.access_at(tid, a[0], a[1], a[2], a[3]),
            nr::__NR_readlink => self.read_link(tid, AT_FDCWD, a[0], a[1], a[2]),
            nr::__NR_readlinkat => self.read_link(tid, a[0], a[1], a[2], a[3]),
            nr::__NR_unlink => self.unlink_at(tid, AT_FDCWD, a[0], 0),
            nr::__NR_rmdir => self.unlink_at(tid, AT_FDCWD, a[0], nr::AT_REMOVEDIR.into()),
            nr::__NR_unlinkat => self.unlink_at(tid, a[0], a[1], a[2]),
            nr::__NR_mkdir => self.make_directory(tid, AT_FDCWD, a[0], a[1]),
            nr::__NR_mkdirat => self.make_directory(tid, a[0], a[1], a[2]),
            nr::__NR_rename => self.rename(tid, (AT_FDCWD, a[0]), (AT_FDCWD, a[1]), 0),
            nr::__NR_renameat => self.rename(tid, (a[0], a[1]), (a[2], a[3]), 0),
            nr::__NR_renameat2 => self.rename(tid, (a[0], a[1]), (a[2], a[3]), a[4]),
            nr::__NR_link => self.link(tid, (AT_FDCWD, a[0]), (AT_FDCWD, a[1]), 0),
            nr::__NR_linkat => self.link(tid, (a[0], a[1]), (a[2], a[3]), a[4]),
            nr::__NR_symlink => self.make_link(tid, a[0], AT_FDCWD, a[1]),
            nr::__NR_symlinkat => self.make_link(tid, a[0], a[1], a[2]),
            nr::__NR_chdir => self.change_directory(tid, a[0]),
            nr::__NR_fchdir => self.change_directory_to(tid, a[0]),
            nr::__NR_getcwd => self.working_directory(tid, a[0], a[1]),
            nr::__NR_umask => {
                let process = self.process(tid);
                Ok(core::mem::replace(&mut process.umask, a[0] as u32 & 0o777).into())
            }
            _ => return self.call_attributes(tid, number, a),
        })
    }

    fn call_attributes(&mut self, tid: Tid, number: u32, a: &Arguments) -> Option<Answer> {
        let no_follow = u64::from(nr::AT_SYMLINK_NOFOLLOW);
        Some(match number {
            nr::__NR_fstat => self.stat_open(tid, a[0], a[1]),
            nr::__NR_stat => self.stat_at(tid, AT_FDCWD, a[0], a[1], 0),
            nr::__NR_lstat => self.stat_at(tid, AT_FDCWD, a[0], a[1], no_follow),
            nr::__NR_newfstatat => self.stat_at(tid, a[0], a[1], a[2], a[3]),
            nr::__NR_statfs => self.file_system_at(tid, a[0], a[1]),
            nr::__NR_fstatfs => self.file_system_open(tid, a[0], a[1]),
            nr::__NR_chmod => self.set_mode_at(tid, AT_FDCWD, a[0], a[1], 0),
            nr::__NR_fchmod => self.set_mode_open(tid, a[0], a[1]),
            nr::__NR_fchmodat => self.set_mode_at(tid, a[0], a[1], a[2], 0),
            nr::__NR_fchmodat2 => self.set_mode_at(tid, a[0], a[1], a[2], a[3]),
            nr::__NR_chown => self.set_owner_at(tid, AT_FDCWD, a[0], (a[1], a[2]), 0),
            nr::__NR_lchown => self.set_owner_at(tid, AT_FDCWD, a[0], (a[1], a[2]), no_follow),
            nr::__NR_fchown => self.set_owner_open(tid, a[0], (a[1], a[2])),
            nr::__NR_fchownat => self.set_owner_at(tid, a[0], a[1], (a[2], a[3]), a[4]),
            nr::__NR_utimensat => self.set_times_at(tid, a[0], a[1], a[3]),
            nr::__NR_futimesat => self.set_times_at(tid, a[0], a[1], 0),
            nr::__NR_utime | nr::__NR_utimes => self.set_times_at(tid, AT_FDCWD, a[0], 0),
            _ => return None,
        })
    }

    fn call_process(
        &mut self,
        tid: Tid,
        number: u32,
        a: &Arguments,
        context: &mut Context,
    ) -> Option<Answer> {
        Some(match number {
            nr::__NR_clone => self.clone_task(tid, context, a),
            nr::__NR_fork => self.clone_task(tid, context, &[SIGCHLD, 0, 0, 0, 0, 0]),
            nr::__NR_vfork => {
                let flags = u64::from(nr::CLONE_VM | nr::CLONE_VFORK) | SIGCHLD;
                self.clone_task(tid, context, &[flags, 0, 0, 0, 0, 0])
            }
            nr::__NR_execve => self.execute(tid, context, a[0], a[1], a[2]),
            nr::__NR_exit => self.exit_thread(tid, a[0] as u8),
            nr::__NR_exit_group => self.exit_process(tid, a[0] as u8),
            nr::__NR_wait4 => self.wait_for_child(tid, a),
            nr::__NR_waitid => self.wait_for_child_info(tid, a),
            nr::__NR_getppid => Ok(self.parent(tid).into()),
            nr::__NR_set_tid_address => {
                self.tasks.threads[tid].clear_tid = a[0];
                Ok(tid.into())
            }
            nr::__NR_arch_prctl => self.segment_base(tid, context, a[0], a[1]),
            nr::__NR_prctl => self.process_control(tid, a[0], a[1]),
            nr::__NR_sched_yield => self.yield_now(tid),
            nr::__NR_getpgrp => Ok(self.process(tid).group.into()),
            nr::__NR_getpgid => self.process_group(tid, a[0] as Tid),
            nr::__NR_setpgid => self.set_process_group(tid, a[0] as Tid, a[1] as Tid),
            nr::__NR_setsid => self.start_session(tid),
            nr::__NR_getsid => self.session(tid, a[0] as Tid),
            nr::__NR_futex => self.futex(tid, a),
            nr::__NR_get_robust_list => self.robust_list(tid, a[0] as Tid, a[1], a[2]),
            nr::__NR_set_robust_list => self.set_robust_list(tid, a[0], a[1]),
            nr::__NR_rt_sigaction => self.signal_action(tid, a),
            nr::__NR_rt_sigprocmask => self.signal_mask(tid, a),
            nr::__NR_rt_sigpending => self.signals_pending(tid, a[0]),
            nr::__NR_rt_sigreturn => self.signal_return(tid, context),
            nr::__NR_rt_sigsuspend => self.signal_suspend(tid, a[0]),
            nr::__NR_pause => self.signal_wait(tid),
            nr::__NR_sigaltstack => self.signal_stack(tid, context.rsp, a[0], a[1]),
            nr::__NR_rt_sigtimedwait => self.signal_wait_for(tid, a),
            nr::__NR_rt_sigqueueinfo => self.queue_signal(tid, None, a[0], a[1], a[2]),
            nr::__NR_rt_tgsigqueueinfo => {
                self.queue_signal(tid, Some(a[1] as Tid), a[0], a[2], a[3])
            }
            nr::__NR_kill => self.kill(tid, a[0] as i32, a[1]),
            nr::__NR_tkill => self.kill_thread(tid, None, a[0] as Tid, a[1]),
            nr::__NR_tgkill => self.kill_thread(tid, Some(a[0] as Tid), a[1] as Tid, a[2]),
            _ => return None,
        })
    }
}

/// What is kept of the kernel's heap, in one piece: for calls that give back, for faults and for disks.
const HEAP_RESERVE: usize = 256 << 10;

/// How a call is refused that makes something for the kernel to remember, when its heap is used up.
const fn without_heap(number: u32) -> Option<Errno> {
    Some(match number {
        nr::__NR_clone | nr::__NR_fork | nr::__NR_vfork => Errno::EAGAIN,
        nr::__NR_mmap
        | nr::__NR_mremap
        | nr::__NR_mprotect
        | nr::__NR_madvise
        | nr::__NR_mlock
        | nr::__NR_munlock
        | nr::__NR_shmat
        | nr::__NR_execve => Errno::ENOMEM,
        nr::__NR_open
        | nr::__NR_openat
        | nr::__NR_creat
        | nr::__NR_pipe
        | nr::__NR_pipe2
        | nr::__NR_memfd_create => Errno::ENFILE,
        nr::__NR_mkdir
        | nr::__NR_mkdirat
        | nr::__NR_symlink
        | nr::__NR_symlinkat
        | nr::__NR_shmget => Errno::ENOSPC,
        _ => return None,
    })
}

/// The directory that a process is in.
const AT_FDCWD: u64 = i64::cast_unsigned(nr::AT_FDCWD as i64);
const SIGCHLD: u64 = nr::SIGCHLD as u64;
