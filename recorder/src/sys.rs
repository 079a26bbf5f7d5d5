//! The system calls that `std` does not offer, each with a safe face.
//!
//! Used by both sides: by the plugin inside the recorded program, where nothing may be kept open
//! (programs close and reuse every descriptor) and nothing may disturb the program, and by the
//! collector.

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::AtomicU32;

use crate::wire::{DEVICE_SYSV, FileKey};

/// What `statx` says about a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileStat {
    pub(crate) key: FileKey,
    pub(crate) bytes: u64,
    pub(crate) links: u32,
    pub(crate) mode: u32,
}

impl FileStat {
    /// Whether it is a regular file: one with contents that are cached in pages.
    pub(crate) fn is_regular(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFREG
    }
}

/// The calling thread's id.
pub(crate) fn thread_id() -> u32 {
    // SAFETY: takes no argument and cannot fail.
    unsafe { libc::gettid() }.cast_unsigned()
}

/// Whether a process with this pid exists, as far as this one may see.
pub(crate) fn exists(pid: u32) -> bool {
    send_signal(pid, 0) || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// Sends `signal` to process `pid`; whether that worked. Refuses pids that mean "many processes".
pub(crate) fn send_signal(pid: u32, signal: c_int) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    // SAFETY: takes numbers only.
    pid > 0 && unsafe { libc::kill(pid, signal) } == 0
}

/// Copies from this process's own memory, which need not be mapped; how many bytes were there.
///
/// The kernel does the copying, so a wild pointer of the recorded program ends the copy where a
/// load would have ended the program.
pub(crate) fn read_memory(address: u64, buffer: &mut [u8]) -> usize {
    let length = buffer.len();
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: length };
    let remote = libc::iovec { iov_base: address as *mut _, iov_len: length };
    let pid = std::process::id().cast_signed();
    // SAFETY:
    // 1. `local` is the whole of `buffer`, which is borrowed mutably.
    // 2. The remote range is checked by the kernel.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    match usize::try_from(read) {
        Ok(read) => read,
        // Some sandboxes forbid the call even on oneself; they leave this door open.
        Err(_) if io::Error::last_os_error().raw_os_error() != Some(libc::EFAULT) => {
            use std::os::unix::fs::FileExt;
            let file = std::fs::File::open("/proc/self/mem");
            file.and_then(|file| file.read_at(buffer, address)).unwrap_or(0)
        }
        Err(_) => 0,
    }
}

/// What file descriptor `fd` refers to.
pub(crate) fn stat_fd(fd: c_int) -> Option<FileStat> {
    statx(fd, c"", libc::AT_EMPTY_PATH)
}

/// What `path`, relative to directory `directory`, refers to; a symbolic link is not followed.
pub(crate) fn stat_path(directory: c_int, path: &[u8]) -> Option<FileStat> {
    let path = CString::new(path).ok()?;
    statx(directory, &path, libc::AT_SYMLINK_NOFOLLOW)
}

fn statx(directory: c_int, path: &CStr, flags: c_int) -> Option<FileStat> {
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
    // SAFETY: the path ends in NUL, and `found` has room for the structure.
    let code = unsafe { libc::statx(directory, path.as_ptr(), flags, mask, found.as_mut_ptr()) };
    if code != 0 {
        return None;
    }
    // SAFETY: the kernel filled the structure; it was zeroed, so every field is initialised anyway.
    let found = unsafe { found.assume_init() };
    let device = u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor);
    let birth = found.stx_btime.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000)
        + u64::from(found.stx_btime.tv_nsec);
    Some(FileStat {
        key: [device, found.stx_ino, birth],
        bytes: found.stx_size,
        links: found.stx_nlink,
        mode: u32::from(found.stx_mode),
    })
}

/// Whether the file lives in memory only: POSIX shared memory, a memfd, or any file of a tmpfs.
pub(crate) fn is_memory(fd: c_int) -> bool {
    const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    let mut found = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: `found` has room for the structure.
    let code = unsafe { libc::fstatfs(fd, found.as_mut_ptr()) };
    if code != 0 {
        return false;
    }
    // SAFETY: the kernel filled the structure; it was zeroed, so every field is initialised anyway.
    let found = unsafe { found.assume_init() };
    matches!(found.f_type.cast_unsigned(), TMPFS_MAGIC | HUGETLBFS_MAGIC)
}

/// The file position of `fd`, if it has one.
pub(crate) fn position(fd: c_int) -> Option<u64> {
    // SAFETY: takes numbers only, and moves nothing.
    let position = unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) };
    u64::try_from(position).ok()
}

/// Identity and bytes of a System V shared memory segment.
pub(crate) fn stat_segment(id: c_int) -> Option<(FileKey, u64)> {
    let mut found = MaybeUninit::<libc::shmid_ds>::zeroed();
    // SAFETY: `found` has room for the structure.
    let code = unsafe { libc::shmctl(id, libc::IPC_STAT, found.as_mut_ptr()) };
    if code != 0 {
        return None;
    }
    // SAFETY: the kernel filled the structure; it was zeroed, so every field is initialised anyway.
    let found = unsafe { found.assume_init() };
    let birth = found.shm_ctime.cast_unsigned();
    Some(([DEVICE_SYSV, u64::from(id.cast_unsigned()), birth], found.shm_segsz as u64))
}

/// Replaces this process; returns only on failure.
pub(crate) fn execute(path: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    fn pointers(strings: &[CString]) -> Vec<*const c_char> {
        let pointers = strings.iter().map(|string| string.as_ptr());
        pointers.chain(std::iter::once(std::ptr::null())).collect()
    }
    let arguments = pointers(arguments);
    let environment = pointers(environment);
    // SAFETY: both arrays end in null, and their strings and `path` outlive the call.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Whether this process may execute `path`.
pub(crate) fn is_executable(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    // SAFETY: the path ends in NUL and outlives the call.
    unsafe { libc::access(path.as_ptr(), libc::X_OK) == 0 }
}

/// Clock ticks since boot, the unit of start times in `/proc`.
pub(crate) fn boot_ticks() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` has room for the result; the clock exists since Linux 2.6.39.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    // SAFETY: takes a number only.
    let hertz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1).cast_unsigned();
    now.tv_sec.cast_unsigned() * hertz + now.tv_nsec.cast_unsigned() * hertz / 1_000_000_000
}

/// Waits until `word` is no longer `value`, roughly: may return early.
pub(crate) fn futex_wait(word: &AtomicU32, value: u32) {
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    let timeout = std::ptr::null::<libc::timespec>();
    // SAFETY: `word` is a live, aligned 32-bit word; a null timeout means none.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, timeout) };
}

/// Wakes one thread that waits for `word`.
pub(crate) fn futex_wake(word: &AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: `word` is a live, aligned 32-bit word.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, 1) };
}

/// Makes orphans among this process's descendants its children, so that their ends are seen.
pub(crate) fn adopt_orphans() {
    // SAFETY: takes numbers only. Kernels without it (before 3.4) refuse, and orphans end unseen.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// How `pid`, a child of this process, ended, as `wait4` encodes it; `None` if it has not, or is
/// none.
pub(crate) fn reap(pid: u32) -> Option<c_int> {
    let mut status = 0;
    let pid = libc::pid_t::try_from(pid).ok().filter(|&pid| pid > 0)?;
    // SAFETY: `status` has room for the result.
    let reaped = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
    (reaped == pid).then_some(status)
}

/// Bytes that unprivileged files in `directory` may still take.
pub(crate) fn bytes_free(directory: &Path) -> Option<u64> {
    let directory = CString::new(directory.as_os_str().as_bytes()).ok()?;
    let mut found = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path ends in NUL, and `found` has room for the structure.
    let code = unsafe { libc::statvfs(directory.as_ptr(), found.as_mut_ptr()) };
    if code != 0 {
        return None;
    }
    // SAFETY: the kernel filled the structure; it was zeroed, so every field is initialised anyway.
    let found = unsafe { found.assume_init() };
    Some(found.f_bavail * found.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unmapped_memory_reads_as_nothing() {
        let text = *b"here";
        let mut buffer = [0; 4];
        assert_eq!(read_memory(text.as_ptr() as u64, &mut buffer), 4);
        assert_eq!(&buffer, b"here");
        assert_eq!(read_memory(8, &mut buffer), 0);
    }

    #[test]
    fn signals_to_everybody_are_refused() {
        assert!(!send_signal(0, 0));
        assert!(!send_signal(u32::MAX, 0));
        assert!(exists(std::process::id()));
    }

    #[test]
    fn a_file_is_told_from_another_of_the_same_size() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [one, two] = ["one", "two"].map(|name| directory.path().join(name));
        std::fs::write(&one, "x").expect("written");
        std::fs::write(&two, "x").expect("written");
        let stat = |path: &Path| stat_path(libc::AT_FDCWD, path.as_os_str().as_bytes());
        let [one, two] = [stat(&one).expect("exists"), stat(&two).expect("exists")];
        assert!(one.is_regular() && one.bytes == 1 && one.links == 1);
        assert_ne!(one.key, two.key);
        assert!(stat(&directory.path().join("three")).is_none());
    }
}
