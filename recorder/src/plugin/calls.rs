//! What system calls do to memory, files, threads and processes.
//!
//! QEMU tells of a call twice: before it, with its arguments, and after it, with its result. Calls that
//! change the address space hold a lock in between; otherwise one thread's `munmap` and another's
//! `mmap` of the same addresses could be reported in the wrong order. Those that take pages away, and
//! `fork`, take their place in the order of events before they act, the others after.
//!
//! Arguments beyond a call's own number of them are whatever the registers hold.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use libc::c_long;

use super::exec::Request;
use super::lock::{Guard, Lock};
use super::outbox::Outbox;
use super::registry::Thread;
use super::{EXITING, PID, Plugin, files, guest, registry, table};
use crate::filter;
use crate::program::Program;
use crate::sys;
use crate::wire::{FileKey, Record};

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
            touch(outbox, clear_tid, if clear_tid == 0 { 0 } else { 4 }, true);
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
        if birth.is_some() || is_of_space(number) {
            SPACE.lock().keep();
            thread.holds_space = true;
        }
        if matches!(birth, Some(Birth::Process(_))) {
            files::known().keep();
            thread.holds_files = true;
        }
        if birth.is_some() || is_removal(number) {
            thread.ticket = Some(outbox.reserve());
            registry::expire_filters();
        }
        thread.found = doomed(number, &arguments);
    });
}

/// The file that loses its last name if the call succeeds.
fn doomed(number: i64, arguments: &[u64; 6]) -> Option<FileKey> {
    const AT_REMOVEDIR: u64 = 0x200;
    let [a1, a2, a3, a4, ..] = *arguments;
    let (directory, path) = match c_long::from(number) {
        libc::SYS_unlink => (libc::AT_FDCWD, a1),
        libc::SYS_unlinkat if a3 & AT_REMOVEDIR == 0 => (a1 as i32, a2),
        libc::SYS_rename => (libc::AT_FDCWD, a2),
        libc::SYS_renameat | libc::SYS_renameat2 => (a3 as i32, a4),
        _ => return None,
    };
    let stat = sys::stat_path(directory, &guest::path(path)?)?;
    (stat.is_regular() && stat.links == 1).then_some(stat.key)
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
            touches(outbox, number, &arguments, result);
            effects(outbox, thread, number, &arguments, result);
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

/// The errno that a result stands for, if it is one. QEMU's own codes above it mean "again", or that
/// there is no result.
fn errno(result: i64) -> Option<u64> {
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

/// Reports the buffers that the kernel touched.
fn touches(outbox: Outbox<'_>, number: i64, arguments: &[u64; 6], result: i64) {
    const EFAULT: u64 = 14;
    let failed = errno(result);
    if failed == Some(EFAULT) {
        return;
    }
    let word = |address| guest::word(address);
    let text = |address| guest::path(address).map(|text| text.len() as u64 + 1);
    for &buffer in table::buffers(number) {
        if failed.is_some() && !buffer.survives_failure() {
            continue;
        }
        let result = u64::try_from(result).unwrap_or(0);
        for (start, bytes) in table::ranges(buffer, arguments, result, &word, &text) {
            touch(outbox, start, bytes, buffer.write);
        }
    }
}

/// Reports that the kernel touched a buffer, but for the pages that the filter holds.
fn touch(outbox: Outbox<'_>, start: u64, bytes: u64, write: bool) {
    const BYTES_MAX: u64 = 1 << 40;
    if bytes == 0 || bytes > BYTES_MAX {
        return;
    }
    let kind = usize::from(write);
    let exact = outbox.header.filter_events.load(Relaxed) == 1;
    let (first, end) = (start >> 12, (start.saturating_add(bytes - 1) >> 12) + 1);
    let mut run = first;
    for page in first..=end.min(filter::PAGE_END) {
        let held = page == end || filter::holds(outbox.slot, kind, page);
        if held {
            if run < page {
                outbox.call(&Record::Touch { page: run, pages: page - run, write });
            }
            run = page + 1;
        } else if !exact {
            filter::insert(outbox.slot, kind, page);
        }
    }
}

/// Reports what a call that left the address space alone did to files and processes.
fn effects(
    outbox: Outbox<'_>,
    thread: &mut Thread,
    number: i64,
    arguments: &[u64; 6],
    result: i64,
) {
    let number = c_long::from(number);
    let Ok(result) = u64::try_from(result) else { return };
    let [a1, a2, a3, a4, ..] = *arguments;
    let file = |fd: u64| files::regular(outbox, fd as i32).map(|(key, stat)| (key, stat.bytes));
    match number {
        libc::SYS_read
        | libc::SYS_readv
        | libc::SYS_pread64
        | libc::SYS_preadv
        | libc::SYS_preadv2 => {
            transfer(outbox, a1, explicit_offset(number, arguments), result, false);
        }
        libc::SYS_write
        | libc::SYS_writev
        | libc::SYS_pwrite64
        | libc::SYS_pwritev
        | libc::SYS_pwritev2 => {
            transfer(outbox, a1, explicit_offset(number, arguments), result, true);
        }
        libc::SYS_sendfile => {
            transfer(outbox, a2, stored_offset(a3, result), result, false);
            transfer(outbox, a1, None, result, true);
        }
        libc::SYS_copy_file_range => {
            transfer(outbox, a1, stored_offset(a2, result), result, false);
            transfer(outbox, a3, stored_offset(a4, result), result, true);
        }
        libc::SYS_fsync | libc::SYS_fdatasync => {
            if let Some((file, _)) = file(a1) {
                outbox.call(&Record::FileSync { file });
            }
        }
        libc::SYS_ftruncate | libc::SYS_fallocate => {
            if let Some((file, bytes)) = file(a1) {
                outbox.call(&Record::Truncate { file, bytes });
            }
        }
        libc::SYS_truncate => {
            let stat = guest::path(a1).and_then(|path| sys::stat_path(libc::AT_FDCWD, &path));
            if let Some(stat) = stat {
                outbox.call(&Record::Truncate { file: stat.key, bytes: stat.bytes });
            }
        }
        libc::SYS_open | libc::SYS_openat | libc::SYS_creat => {
            let flags = if number == libc::SYS_openat { a3 } else { a2 };
            let truncates = flags & libc::O_TRUNC as u64 != 0 || number == libc::SYS_creat;
            if truncates && let Some((file, bytes)) = file(result) {
                outbox.call(&Record::Truncate { file, bytes });
            }
        }
        libc::SYS_wait4 | libc::SYS_waitid => reaped(outbox, number, arguments, result),
        libc::SYS_set_tid_address => thread.clear_tid = a1,
        _ => {
            if let Some(file) = thread.found.take() {
                outbox.call(&Record::Unlink { file });
            }
        }
    }
}

/// The offset that the call itself names.
fn explicit_offset(number: c_long, arguments: &[u64; 6]) -> Option<u64> {
    match number {
        libc::SYS_pread64 | libc::SYS_pwrite64 | libc::SYS_preadv | libc::SYS_pwritev => {
            Some(arguments[3])
        }
        // Minus one means the file position.
        libc::SYS_preadv2 | libc::SYS_pwritev2 => {
            Some(arguments[3]).filter(|&offset| offset != u64::MAX)
        }
        _ => None,
    }
}

/// The offset that the call advanced in the program's memory, as it was before.
fn stored_offset(address: u64, bytes: u64) -> Option<u64> {
    if address == 0 { None } else { guest::word(address)?.checked_sub(bytes) }
}

/// Reports that `bytes` of the regular file `fd` were read or written, at `offset` or at its position.
fn transfer(outbox: Outbox<'_>, fd: u64, offset: Option<u64>, bytes: u64, write: bool) {
    if bytes == 0 {
        return;
    }
    let Some((file, _)) = files::regular(outbox, fd as i32) else { return };
    // The position is past the bytes now, wherever they went: O_APPEND is no special case.
    let before = || sys::position(fd as i32)?.checked_sub(bytes);
    if let Some(offset) = offset.or_else(before) {
        outbox.call(&Record::Transfer { file, offset, bytes, write });
    }
}

fn reaped(outbox: Outbox<'_>, number: c_long, arguments: &[u64; 6], result: u64) {
    let [_, a2, a3, a4, ..] = *arguments;
    let has = |options: u64, flag: i32| options & u64::from(flag.cast_unsigned()) != 0;
    if number == libc::SYS_wait4 {
        let status = if a2 == 0 { None } else { guest::half(a2) };
        let stopped = has(a3, libc::WUNTRACED) || has(a3, libc::WCONTINUED);
        let ended = status.map_or(!stopped, |status| {
            let status = status.cast_signed();
            libc::WIFEXITED(status) || libc::WIFSIGNALED(status)
        });
        if result > 0 && ended {
            outbox.call(&Record::Reap { pid: result, status: status.map(u64::from) });
        }
    } else if a3 != 0 && !has(a4, libc::WNOWAIT) {
        // siginfo_t: si_code at 8, si_pid at 12, si_status at 24.
        let field = |offset| guest::half(a3 + offset);
        let (Some(code), Some(pid), Some(status)) = (field(8), field(12), field(24)) else {
            return;
        };
        let status = match code.cast_signed() {
            libc::CLD_EXITED => (status & 0xff) << 8,
            libc::CLD_KILLED | libc::CLD_DUMPED => status & 0x7f,
            _ => return,
        };
        if pid > 0 {
            outbox.call(&Record::Reap { pid: u64::from(pid), status: Some(u64::from(status)) });
        }
    }
}
