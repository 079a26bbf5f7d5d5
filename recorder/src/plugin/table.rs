//! Which buffers of the program the kernel reads and writes in each system call.
//!
//! These touches fault like the program's own, and Linux counts them so. The table holds the calls
//! that real programs make in numbers; of the rest only the effects on memory and files are seen.
//! What a call reports is taken at its return, when its length is known.

use libc::c_long;

/// How many bytes of a buffer are touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Length {
    /// Always these.
    Fixed(u64),
    /// As many as this argument says, times a unit.
    Argument(usize, u64),
    /// As many as the call returned, times a unit.
    Result(u64),
    /// A 32-bit number at the address that this argument holds.
    Stored(usize),
    /// Up to the NUL.
    Text,
    /// An array of `iovec`, as many as this argument says, up to the bytes that the call returned.
    Vectors(usize),
    /// A `msghdr`, up to the bytes that the call returned.
    Message,
}

/// A buffer of a system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Buffer {
    /// The argument that points to it.
    pub(crate) argument: usize,
    pub(crate) length: Length,
    /// Whether the kernel writes it.
    pub(crate) write: bool,
}

impl Buffer {
    /// Whether the kernel touches it even if the call fails: it reads names before it can refuse
    /// them.
    pub(crate) fn survives_failure(self) -> bool {
        !self.write && matches!(self.length, Length::Fixed(_) | Length::Text)
    }
}

const fn input(argument: usize, length: Length) -> Buffer {
    Buffer { argument, length, write: false }
}

const fn output(argument: usize, length: Length) -> Buffer {
    Buffer { argument, length, write: true }
}

use Length::{Argument, Fixed, Message, Result, Stored, Text, Vectors};

/// The buffers of system call `number`.
#[rustfmt::skip] // a table
#[allow(clippy::too_many_lines, clippy::match_same_arms)] // a table, and nothing but
pub(crate) fn buffers(number: i64) -> &'static [Buffer] {
    const STAT: Length = Fixed(144);
    const TIME: Length = Fixed(16);
    const RUSAGE: Length = Fixed(144);
    match c_long::from(number) {
        libc::SYS_read | libc::SYS_pread64 | libc::SYS_getdents | libc::SYS_getdents64
            => const { &[output(1, Result(1))] },
        libc::SYS_write | libc::SYS_pwrite64 => const { &[input(1, Result(1))] },
        libc::SYS_readv | libc::SYS_preadv | libc::SYS_preadv2
            => const { &[output(1, Vectors(2))] },
        libc::SYS_writev | libc::SYS_pwritev | libc::SYS_pwritev2
            => const { &[input(1, Vectors(2))] },
        libc::SYS_getcwd | libc::SYS_getrandom => const { &[output(0, Result(1))] },
        libc::SYS_readlink => const { &[input(0, Text), output(1, Result(1))] },
        libc::SYS_readlinkat => const { &[input(1, Text), output(2, Result(1))] },
        libc::SYS_open | libc::SYS_creat | libc::SYS_access | libc::SYS_chdir | libc::SYS_mkdir
        | libc::SYS_rmdir | libc::SYS_unlink | libc::SYS_chmod | libc::SYS_chown
        | libc::SYS_lchown | libc::SYS_truncate | libc::SYS_mknod | libc::SYS_chroot
        | libc::SYS_memfd_create | libc::SYS_execve => const { &[input(0, Text)] },
        libc::SYS_openat | libc::SYS_openat2 | libc::SYS_mkdirat | libc::SYS_unlinkat
        | libc::SYS_fchmodat | libc::SYS_fchownat | libc::SYS_faccessat | libc::SYS_faccessat2
        | libc::SYS_execveat => const { &[input(1, Text)] },
        libc::SYS_rename | libc::SYS_link | libc::SYS_symlink
            => const { &[input(0, Text), input(1, Text)] },
        libc::SYS_renameat | libc::SYS_renameat2 | libc::SYS_linkat
            => const { &[input(1, Text), input(3, Text)] },
        libc::SYS_symlinkat => const { &[input(0, Text), input(2, Text)] },
        libc::SYS_stat | libc::SYS_lstat => const { &[input(0, Text), output(1, STAT)] },
        libc::SYS_fstat => const { &[output(1, STAT)] },
        libc::SYS_newfstatat => const { &[input(1, Text), output(2, STAT)] },
        libc::SYS_statx => const { &[input(1, Text), output(4, Fixed(256))] },
        libc::SYS_statfs => const { &[input(0, Text), output(1, Fixed(120))] },
        libc::SYS_fstatfs => const { &[output(1, Fixed(120))] },
        libc::SYS_getxattr | libc::SYS_lgetxattr
            => const { &[input(0, Text), input(1, Text), output(2, Result(1))] },
        libc::SYS_fgetxattr => const { &[input(1, Text), output(2, Result(1))] },
        libc::SYS_utimensat => const { &[input(1, Text), input(2, Fixed(32))] },
        libc::SYS_poll | libc::SYS_ppoll => const { &[output(0, Argument(1, 8))] },
        libc::SYS_epoll_ctl => const { &[input(3, Fixed(12))] },
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait => const { &[output(1, Result(12))] },
        libc::SYS_pipe | libc::SYS_pipe2 => const { &[output(0, Fixed(8))] },
        libc::SYS_socketpair => const { &[output(3, Fixed(8))] },
        libc::SYS_connect | libc::SYS_bind => const { &[input(1, Argument(2, 1))] },
        libc::SYS_accept | libc::SYS_accept4 | libc::SYS_getsockname | libc::SYS_getpeername
            => const { &[output(1, Stored(2)), output(2, Fixed(4))] },
        libc::SYS_sendto => const { &[input(1, Result(1)), input(4, Argument(5, 1))] },
        libc::SYS_recvfrom => const { &[output(1, Result(1)), output(4, Stored(5))] },
        libc::SYS_sendmsg => const { &[input(1, Message)] },
        libc::SYS_recvmsg => const { &[output(1, Message)] },
        libc::SYS_setsockopt => const { &[input(3, Argument(4, 1))] },
        libc::SYS_getsockopt => const { &[output(3, Stored(4)), output(4, Fixed(4))] },
        libc::SYS_rt_sigaction => const { &[input(1, Fixed(32)), output(2, Fixed(32))] },
        libc::SYS_rt_sigprocmask => const { &[input(1, Fixed(8)), output(2, Fixed(8))] },
        libc::SYS_sigaltstack => const { &[input(0, Fixed(24)), output(1, Fixed(24))] },
        libc::SYS_nanosleep => const { &[input(0, TIME)] },
        libc::SYS_clock_nanosleep => const { &[input(2, TIME)] },
        libc::SYS_gettimeofday => const { &[output(0, TIME), output(1, Fixed(8))] },
        libc::SYS_time => const { &[output(0, Fixed(8))] },
        libc::SYS_clock_gettime | libc::SYS_clock_getres => const { &[output(1, TIME)] },
        libc::SYS_getitimer => const { &[output(1, Fixed(32))] },
        libc::SYS_setitimer => const { &[input(1, Fixed(32)), output(2, Fixed(32))] },
        libc::SYS_timer_settime | libc::SYS_timerfd_settime
            => const { &[input(2, Fixed(32)), output(3, Fixed(32))] },
        libc::SYS_uname => const { &[output(0, Fixed(390))] },
        libc::SYS_sysinfo => const { &[output(0, Fixed(112))] },
        libc::SYS_times => const { &[output(0, Fixed(32))] },
        libc::SYS_getrusage => const { &[output(1, RUSAGE)] },
        libc::SYS_getrlimit => const { &[output(1, TIME)] },
        libc::SYS_setrlimit => const { &[input(1, TIME)] },
        libc::SYS_prlimit64 => const { &[input(2, TIME), output(3, TIME)] },
        libc::SYS_wait4 => const { &[output(1, Fixed(4)), output(3, RUSAGE)] },
        libc::SYS_waitid => const { &[output(2, Fixed(128)), output(4, RUSAGE)] },
        libc::SYS_sched_getaffinity => const { &[output(2, Result(1))] },
        libc::SYS_getgroups => const { &[output(1, Result(4))] },
        libc::SYS_futex => const { &[input(0, Fixed(4))] },
        libc::SYS_sendfile => const { &[output(2, Fixed(8))] },
        libc::SYS_copy_file_range => const { &[output(1, Fixed(8)), output(3, Fixed(8))] },
        _ => &[],
    }
}

/// The ranges `(address, bytes)` behind `buffer`, given the arguments and the result of the call.
///
/// `word` and `text` read the program's memory: a 64-bit number, and the length of a string with
/// its NUL. A null pointer is how programs say that they do not want an answer.
pub(crate) fn ranges(
    buffer: Buffer,
    arguments: &[u64; 6],
    result: u64,
    word: &dyn Fn(u64) -> Option<u64>,
    text: &dyn Fn(u64) -> Option<u64>,
) -> Vec<(u64, u64)> {
    const MESSAGE_BYTES: u64 = 56;
    let start = arguments[buffer.argument];
    if start == 0 {
        return Vec::new();
    }
    let bytes = match buffer.length {
        Fixed(bytes) => bytes,
        Argument(index, unit) => arguments[index].saturating_mul(unit),
        Result(unit) => result.saturating_mul(unit),
        Stored(index) => word(arguments[index]).unwrap_or(0) & u64::from(u32::MAX),
        Text => text(start).unwrap_or(0),
        Vectors(index) => return vectors(start, arguments[index], result, word),
        Message => {
            let mut list = vec![(start, MESSAGE_BYTES)];
            if let (Some(array), Some(count)) = (word(start + 16), word(start + 24)) {
                list.extend(vectors(array, count, result, word));
            }
            return list;
        }
    };
    vec![(start, bytes)]
}

/// The array of `count` vectors at `start`, and the buffers that hold the first `bytes` bytes.
fn vectors(
    start: u64,
    count: u64,
    bytes: u64,
    word: &dyn Fn(u64) -> Option<u64>,
) -> Vec<(u64, u64)> {
    const VECTORS_MAX: u64 = 1024; // Linux's limit
    const VECTOR_BYTES: u64 = 16;
    let count = count.min(VECTORS_MAX);
    let mut list = vec![(start, count * VECTOR_BYTES)];
    let mut left = bytes;
    for index in 0..count {
        let at = start.wrapping_add(index * VECTOR_BYTES);
        let (Some(base), Some(length)) = (word(at), word(at.wrapping_add(8))) else { break };
        let length = length.min(left);
        if length > 0 {
            list.push((base, length));
        }
        left -= length;
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(number: c_long, arguments: [u64; 6], result: u64) -> Vec<(u64, u64, bool)> {
        // Memory in which the word at an address is the address plus one, and texts have nine
        // bytes.
        let word = |address| Some(address + 1);
        let text = |_| Some(9);
        let list = buffers(number).iter().flat_map(|&buffer| {
            let ranges = ranges(buffer, &arguments, result, &word, &text);
            ranges.into_iter().map(move |(start, bytes)| (start, bytes, buffer.write))
        });
        list.collect()
    }

    #[test]
    fn a_read_writes_as_many_bytes_as_it_returns() {
        assert_eq!(all(libc::SYS_read, [3, 0x1000, 500, 0, 0, 0], 20), [(0x1000, 20, true)]);
        assert_eq!(all(libc::SYS_write, [3, 0x1000, 500, 0, 0, 0], 20), [(0x1000, 20, false)]);
    }

    #[test]
    fn names_are_read_and_answers_are_written() {
        let found = all(libc::SYS_newfstatat, [9, 0x1000, 0x2000, 0, 0, 0], 0);
        assert_eq!(found, [(0x1000, 9, false), (0x2000, 144, true)]);
        assert_eq!(all(libc::SYS_wait4, [9, 0, 0, 0, 0, 0], 7), [], "nobody asked for the status");
    }

    #[test]
    fn vectors_end_where_the_bytes_end() {
        let memory = |address: u64| match address {
            0x1000 => Some(0xa000),
            0x1010 => Some(0xb000),
            0x1008 | 0x1018 => Some(100),
            _ => None,
        };
        let expected = [(0x1000, 32), (0xa000, 100), (0xb000, 50)];
        assert_eq!(vectors(0x1000, 2, 150, &memory), expected);
        assert_eq!(vectors(0x1000, 2, 40, &memory), [(0x1000, 32), (0xa000, 40)]);
        assert_eq!(vectors(0x1000, 3, 400, &memory).len(), 3, "the third vector is not there");
    }

    #[test]
    fn a_failed_call_has_read_its_names_only() {
        let of = |number| -> Vec<bool> {
            buffers(number).iter().map(|buffer| buffer.survives_failure()).collect()
        };
        assert_eq!(of(libc::SYS_newfstatat), [true, false]);
        assert_eq!(of(libc::SYS_write), [false]);
    }

    #[test]
    fn every_buffer_names_arguments_that_exist() {
        for number in 0..512 {
            for buffer in buffers(number) {
                assert!(buffer.argument < 6, "call {number}");
                if let Argument(index, _) | Stored(index) | Vectors(index) = buffer.length {
                    assert!(index < 6, "call {number}");
                }
            }
        }
    }
}
