//! What a TLB entry says: a frame, and what may be done with it without asking the tables again.

use vellum_mm::addr::Frame;
use vellum_mm::machine::Access;

// A value, from bit 0: frame 32, then the rights.
pub(crate) const WRITABLE: u64 = 1 << 32;
pub(crate) const EXECUTABLE: u64 = 1 << 33;
pub(crate) const DIRTY: u64 = 1 << 34;

/// Whether `access` can use an entry of this value without a walk.
#[inline(always)]
pub(crate) const fn permits(value: u64, access: Access) -> bool {
    needs(access) & !value == 0
}

/// The rights that an entry must carry for `access`.
#[inline(always)]
const fn needs(access: Access) -> u64 {
    match access {
        Access::Read => 0,
        Access::Write => WRITABLE | DIRTY,
        Access::Execute => EXECUTABLE,
    }
}

/// What a TLB says to an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// The translation, from the first level or the second.
    Frame(Frame, bool),
    /// The cached rights forbid the access.
    Forbidden,
    /// The page is cached, but its dirty bit is not known to be set.
    Clean,
    /// Nothing is cached.
    Miss,
}

/// The bits of a value for these rights.
#[inline(always)]
pub(crate) fn rights(writable: bool, executable: bool) -> u64 {
    u64::from(writable) << WRITABLE.trailing_zeros()
        | u64::from(executable) << EXECUTABLE.trailing_zeros()
}

/// What an entry of this value, for `frame` of the first level or not, says to `access`.
#[inline(always)]
pub(crate) fn judge(value: u64, access: Access, frame: u32, is_first: bool) -> Answer {
    let lacks = needs(access) & !value;
    if lacks == 0 {
        Answer::Frame(Frame(frame), is_first)
    } else if lacks == DIRTY {
        Answer::Clean
    } else {
        Answer::Forbidden
    }
}
