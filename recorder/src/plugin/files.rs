//! Names files for the collector: each image tells once what it knows of a file, then uses its key.

use std::collections::BTreeSet;
use std::ffi::c_int;
use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::Ordering::Relaxed;

use super::lock::{Guard, Lock};
use super::outbox::Outbox;
use crate::sys::{self, FileStat};
use crate::wire::{DEVICE_ANONYMOUS, FileKey, Record};

/// The files that this image has told the collector about.
static KNOWN: Lock<BTreeSet<FileKey>> = Lock::new(BTreeSet::new());

/// The lock that `fork` holds, so that the child finds the set whole.
pub(crate) fn known() -> Guard<'static, BTreeSet<FileKey>> {
    KNOWN.lock()
}

/// Gives back what [`known`] took and [`Guard::keep`] kept.
///
/// # Safety
/// As for [`Lock::resume`].
pub(crate) unsafe fn release_known() {
    // SAFETY: the caller vouches for it.
    drop(unsafe { KNOWN.resume() });
}

/// The record that introduces the file open as `fd`.
pub(crate) fn introduction(fd: c_int, stat: &FileStat) -> Record {
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    let mut path = path.into_os_string().into_vec();
    if path.starts_with(b"/memfd:") {
        path.remove(0);
        let name = path.strip_suffix(b" (deleted)").unwrap_or(&path).to_vec();
        path = name;
    }
    Record::File { file: stat.key, bytes: stat.bytes, memory: sys::is_memory(fd), path }
}

/// The key of the file open as `fd`, introduced if it is new.
pub(crate) fn identify(outbox: Outbox<'_>, fd: c_int) -> Option<(FileKey, FileStat)> {
    let stat = sys::stat_fd(fd)?;
    if KNOWN.lock().insert(stat.key) {
        outbox.call(&introduction(fd, &stat));
    }
    Some((stat.key, stat))
}

/// The key of the regular file open as `fd`, introduced if it is new; `None` for anything else.
pub(crate) fn regular(outbox: Outbox<'_>, fd: c_int) -> Option<(FileKey, FileStat)> {
    // Pipes and terminals must not be introduced at all.
    if !sys::stat_fd(fd)?.is_regular() {
        return None;
    }
    identify(outbox, fd)
}

/// A new object for a shared anonymous mapping of `bytes`.
pub(crate) fn anonymous(outbox: Outbox<'_>, bytes: u64) -> FileKey {
    let number = outbox.header.objects.fetch_add(1, Relaxed);
    let file = [DEVICE_ANONYMOUS, number, 0];
    let path = format!("shared:{number}").into_bytes();
    outbox.call(&Record::File { file, bytes, memory: true, path });
    file
}

/// The key and the bytes of System V segment `id`, introduced if it is new.
pub(crate) fn segment(outbox: Outbox<'_>, id: c_int) -> Option<(FileKey, u64)> {
    let (file, bytes) = sys::stat_segment(id)?;
    if KNOWN.lock().insert(file) {
        let path = format!("shm:{id}").into_bytes();
        outbox.call(&Record::File { file, bytes, memory: true, path });
    }
    Some((file, bytes))
}
