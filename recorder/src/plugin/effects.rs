//! What system calls do beside changing the address space: buffers, files, ends of processes.

use std::sync::atomic::Ordering::Relaxed;

use libc::c_long;

use super::calls::errno;
use super::outbox::Outbox;
use super::registry::Thread;
use super::{files, guest, table};
use crate::filter;
use crate::sys;
use crate::wire::{FileKey, Record};

/// The file that loses its last name if the call succeeds.
pub(super) fn doomed(number: i64, arguments: &[u64; 6]) -> Option<FileKey> {
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

/// Reports the buffers that the kernel touched.
pub(super) fn touches(outbox: Outbox<'_>, number: i64, arguments: &[u64; 6], result: i64) {
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
pub(super) fn touch(outbox: Outbox<'_>, start: u64, bytes: u64, write: bool) {
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
pub(super) fn effects(
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

/// Reports that `bytes` of the regular file `fd` were read or written, at `offset` or at its
/// position.
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
