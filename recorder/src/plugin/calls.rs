//! What system calls do to memory, files, threads and processes.
//!
//! QEMU tells of a call twice: before it, with its arguments, and after it, with its result. Calls
//! that change the address space hold a lock in between; otherwise one thread's `munmap` and
//! another's `mmap` of the same addresses could be reported in the wrong order. Those that take
//! pages away, and `fork`, take their place in the order of events before they act, the others
//! after.
//!
//! Arguments beyond a call's own number of them are whatever the registers hold.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use libc::c_long;

use super::exec::Request;
use super::lock::{Guard, Lock};
use super::outbox::Outbox;
use super::{EXITING, PID, Plugin, effects, files, registry};
use crate::program::Program;
use crate::sys;
use crate::wire::Record;

/// What is known of the address space, and the right to change it.
pub(crate) struct Space {
    /// The end of the heap.
    pub(crate) brk: u64,
    /// Attached System V segments: their bytes by address.
    segments: BTreeMap<u64, u64>,
    /// New threads that have not run yet: where a zero goes when they end, by tid.
    pub(crate) clear_tids: BTreeMap<u32, u64>,
}

static SPACE: Lock<Space> =
    Lock::new(Space { brk: 0, segments: BTreeMap::new(), clear_tids: BTreeMap::new() });

/// Waits until no other thread changes the address space.
pub(crate) fn space() -> Guard<'static, Space> {
    SPACE.lock()
}

const CLONE_VM: u64 = 0x100;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_CHILD_CLEARTID: u64 = 0x20_0000;

/// What a call makes, if it makes something that runs.
enum Birth {
    Thread,
    Process(u64),
}

/// What `fork`, `vfork` or `clone` makes; `None` for other calls.
fn birth(number: i64, arguments: &[u64; 6]) -> Option<Birth> {
    const SIGCHLD: u64 = 17;
    match c_long::from(number) {
        libc::SYS_fork => Some(Birth::Process(SIGCHLD)),
        libc::SYS_vfork => Some(Birth::Process(SIGCHLD | CLONE_VM | CLONE_VFORK)),
        libc::SYS_clone if arguments[0] & (CLONE_VM | CLONE_VFORK) == CLONE_VM => {
            Some(Birth::Thread)
        }
        libc::SYS_clone => Some(Birth::Process(arguments[0])),
        _ => None,
    }
}

/// Whether the call changes the address space, or must keep in order with calls that do.
fn is_of_space(number: i64) -> bool {
    matches!(
        c_long::from(number),
        libc::SYS_mmap
            | libc::SYS_mprotect
            | libc::SYS_munmap
            | libc::SYS_brk
            | libc::SYS_mremap
            | libc::SYS_madvise
            | libc::SYS_shmat
            | libc::SYS_shmdt
            | libc::SYS_mlock
            | libc::SYS_mlock2
            | libc::SYS_munlock
            | libc::SYS_mlockall
            | libc::SYS_munlockall
            | libc::SYS_msync
    )
}

/// Whether the call takes pages away, so that later touches fault again.
fn is_removal(number: i64) -> bool {
    matches!(c_long::from(number), libc::SYS_munmap | libc::SYS_madvise | libc::SYS_shmdt)
}

/// A system call begins.
pub(crate) fn enter(plugin: &'static Plugin, vcpu: u32, number: i64, arguments: [u64; 6]) {
    let Some(slot) = Plugin::slot(vcpu) else { return };
    let outbox = plugin.outbox(slot);
    match c_long::from(number) {
        libc::SYS_execve | libc::SYS_execveat => return execute(plugin, outbox, number, arguments),
        libc::SYS_exit => {
            let clear_tid = registry::with(vcpu, |thread| thread.clear_tid).unwrap_or(0);
            effects::touch(outbox, clear_tid, if clear_tid == 0 { 0 } else { 4 }, true);
            outbox.tick();
            outbox.call(&Record::ThreadExit { code: arguments[0] });
            return Plugin::part(vcpu, slot);
        }
        libc::SYS_exit_group => {
            EXITING.store(true, Relaxed);
            outbox.tick();
            outbox.call(&Record::Exit { code: arguments[0] });
            return Plugin::part(vcpu, slot);
        }
        _ => {}
    }
    registry::with(vcpu, |thread| {
        thread.number = number;
        thread.arguments = arguments;
        let birth = birth(number, &arguments);
        // QEMU refuses `clone3` today; a later one that does not must find us prepared.
        if birth.is_some() || c_long::from(number) == libc::SYS_clone3 {
            outbox.expect_company();
        }
        if birth.is_some() || is_of_space(number) {
            SPACE.lock().keep();
            thread.holds_space = true;
        }
        if matches!(birth, Some(Birth::Process(_))) {
            files::known().keep();
            thread.holds_files = true;
        }
        if birth.is_some() || is_removal(number) {
            thread.ticket = (!outbox.is_muted()).then(|| outbox.reserve());
            registry::expire_filters();
        }
        thread.found = effects::doomed(number, &arguments);
    });
}

fn execute(plugin: &Plugin, outbox: Outbox<'_>, number: i64, arguments: [u64; 6]) {
    let request = if c_long::from(number) == libc::SYS_execve {
        Request::execve(arguments[0], arguments[1], arguments[2])
    } else {
        Request::execveat(arguments)
    };
    let Some(request) = request else { return };
    match request.resolve() {
        Program::Runnable(program) => {
            outbox.tick();
            outbox.call(&Record::Execing {});
            request.perform(plugin, &program);
        }
        Program::Foreign(reason) => {
            let path = format!("{} ({reason})", request.path().display()).into_bytes();
            outbox.call(&Record::Unrecorded { path });
        }
        Program::Refused => {}
    }
}

/// A system call is over.
pub(crate) fn leave(plugin: &'static Plugin, vcpu: u32, number: i64, result: i64) {
    let Some(slot) = registry::slot(vcpu) else { return };
    let entered = registry::with(vcpu, |thread| (thread.number, thread.arguments));
    let Some((entered, arguments)) = entered else { return };
    // The return of a call whose entry was not seen, such as the one that `execve` failed in.
    if entered != number {
        return;
    }
    if let (0, Some(Birth::Process(flags))) = (result, birth(number, &arguments)) {
        return born(plugin, vcpu, flags, &arguments);
    }
    let outbox = plugin.outbox(slot);
    registry::with(vcpu, |thread| {
        thread.number = -1;
        let reserved = thread.ticket.take();
        if thread.holds_files {
            thread.holds_files = false;
            // SAFETY: `enter` kept the guard on this thread when it set the flag.
            unsafe { files::release_known() };
        }
        if thread.holds_space {
            thread.holds_space = false;
            // SAFETY: `enter` kept the guard on this thread when it set the flag.
            let mut space = unsafe { SPACE.resume() };
            change(outbox, &mut space, number, &arguments, result, reserved);
            registry::expire_filters();
        } else {
            effects::touches(outbox, number, &arguments, result);
            effects::effects(outbox, thread, number, &arguments, result);
        }
    });
}

/// The first callback of a forked child.
fn born(plugin: &'static Plugin, vcpu: u32, flags: u64, arguments: &[u64; 6]) {
    let parent_pid = u64::from(PID.swap(std::process::id(), Relaxed));
    let parent_tid = registry::with(vcpu, |thread| thread.tid).map_or(0, u64::from);
    registry::leave_all();
    // SAFETY: the parent's thread kept the guard at the entry of this call, and this is its copy.
    unsafe { files::release_known() };
    // SAFETY: as above.
    drop(unsafe { SPACE.resume() });
    let slot = plugin.join(vcpu);
    let outbox = plugin.outbox(slot);
    outbox.call(&Record::Child { parent_pid, parent_tid, flags });
    if flags & CLONE_CHILD_CLEARTID != 0 {
        registry::with(vcpu, |thread| thread.clear_tid = arguments[3]);
    }
}

/// The errno that a result stands for, if it is one. QEMU's own codes above it mean "again", or
/// that there is no result.
pub(super) fn errno(result: i64) -> Option<u64> {
    const ERRNO_MAX: i64 = 4095;
    (-ERRNO_MAX..0).contains(&result).then_some(result.unsigned_abs())
}

/// Reports a call that held the lock of the address space.
fn change(
    outbox: Outbox<'_>,
    space: &mut Space,
    number: i64,
    arguments: &[u64; 6],
    result: i64,
    reserved: Option<u64>,
) {
    const ERESTART: u64 = 512;
    let record = match errno(result) {
        Some(errno) if errno >= ERESTART => Some(Record::Cancelled {}),
        Some(errno) => Some(Record::Failed { call: number.cast_unsigned(), errno }),
        None => changed(outbox, space, number, arguments, result.cast_unsigned()),
    };
    match (reserved, record) {
        (Some(ticket), record) => {
            outbox.call_at(ticket, &record.unwrap_or(Record::Cancelled {}));
        }
        (None, Some(record)) => outbox.call(&record),
        (None, None) => {}
    }
}

/// What a successful call of the address space did.
fn changed(
    outbox: Outbox<'_>,
    space: &mut Space,
    number: i64,
    arguments: &[u64; 6],
    result: u64,
) -> Option<Record> {
    let [start, bytes, a3, a4, ..] = *arguments;
    Some(match c_long::from(number) {
        libc::SYS_mmap => mapped(outbox, arguments, result),
        libc::SYS_munmap => Record::Unmap { start, bytes },
        libc::SYS_mremap => {
            Record::Remap { start, bytes, new_start: result, new_bytes: a3, flags: a4 }
        }
        libc::SYS_mprotect => Record::Protect { start, bytes, prot: a3 },
        libc::SYS_madvise => Record::Advise { start, bytes, advice: a3 },
        libc::SYS_brk => {
            const ENOMEM: u64 = 12;
            if result == space.brk {
                // Asking for the present end is no failure, asking for more is.
                let failed = start > result;
                return failed.then_some(Record::Failed { call: 12, errno: ENOMEM });
            }
            space.brk = result;
            Record::Brk { end: result }
        }
        libc::SYS_shmat => {
            const SHM_RDONLY: u64 = 0x1000;
            const SHM_EXEC: u64 = 0x8000;
            let (file, bytes) = files::segment(outbox, start as i32)?;
            space.segments.insert(result, bytes);
            let write = if a3 & SHM_RDONLY == 0 { 2 } else { 0 };
            let execute = if a3 & SHM_EXEC == 0 { 0 } else { 4 };
            let prot = 1 | write | execute;
            let flags = libc::MAP_SHARED as u64;
            Record::Map { start: result, bytes, prot, flags, file: Some(file), offset: 0 }
        }
        libc::SYS_shmdt => Record::Unmap { start, bytes: space.segments.remove(&start)? },
        libc::SYS_mlock | libc::SYS_mlock2 => Record::Lock { start, bytes, all: false },
        libc::SYS_munlock => Record::Unlock { start, bytes, all: false },
        libc::SYS_mlockall => Record::Lock { start: 0, bytes: 0, all: true },
        libc::SYS_munlockall => Record::Unlock { start: 0, bytes: 0, all: true },
        libc::SYS_msync => Record::Sync { start, bytes, flags: a3 },
        _ => match birth(number, arguments)? {
            Birth::Process(flags) => Record::Fork { pid: result, flags },
            Birth::Thread => {
                if start & CLONE_CHILD_CLEARTID != 0 {
                    space.clear_tids.insert(result as u32, a4);
                }
                Record::Thread { tid: result }
            }
        },
    })
}

fn mapped(outbox: Outbox<'_>, arguments: &[u64; 6], start: u64) -> Record {
    let [_, bytes, prot, flags, fd, offset] = *arguments;
    let has = |flag: i32| flags & u64::from(flag.cast_unsigned()) != 0;
    let shared = has(libc::MAP_SHARED);
    let anonymous = has(libc::MAP_ANONYMOUS);
    let file = if anonymous {
        shared.then(|| files::anonymous(outbox, bytes))
    } else {
        let stat = sys::stat_fd(fd as i32);
        // A private mapping of /dev/zero is the old way to ask for anonymous memory.
        let device = stat.is_some_and(|stat| stat.mode & libc::S_IFMT == libc::S_IFCHR);
        let file = if device && !shared { None } else { files::identify(outbox, fd as i32) };
        file.map(|(key, _)| key)
    };
    let offset = if anonymous { 0 } else { offset };
    Record::Map { start, bytes, prot, flags, file, offset }
}
