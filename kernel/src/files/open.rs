//! Open files: what descriptors refer to, shared by those that were duplicated or inherited.

use alloc::vec::Vec;

use vellum_mm::addr::FileRef;

use super::tree::NodeId;
use crate::calls::Errno;

/// Identifies an open file.
pub(crate) type OpenId = usize;

/// What is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Object {
    /// Something with a name, or that had one.
    Node(NodeId),
    /// Memory that never had one (`memfd_create`).
    Nameless(FileRef),
    /// The end of a pipe that is read.
    PipeOut(usize),
    /// The end of a pipe that is written.
    PipeIn(usize),
}

/// A lock of a whole file (`flock`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lock {
    /// Others may have such a one.
    Shared,
    /// Nobody else has any.
    Exclusive,
}

/// An open file.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of open(2)")]
pub(crate) struct Open {
    /// What it is.
    pub(crate) object: Object,
    /// Where the next read or write begins; in a directory, how many names were listed.
    pub(crate) offset: u64,
    /// Of a directory: the offset after the last listing, and the name that it ended with.
    pub(crate) listed: (u64, Vec<u8>),
    /// The lock that it holds.
    pub(crate) lock: Option<Lock>,
    /// Opened to be read.
    pub(crate) readable: bool,
    /// Opened to be written.
    pub(crate) writable: bool,
    /// Every write goes to the end.
    pub(crate) append: bool,
    /// Calls fail rather than wait.
    pub(crate) nonblocking: bool,
    /// Descriptors and waiting calls that refer to it.
    pub(crate) references: u32,
}

impl Open {
    /// An open file that one descriptor refers to.
    pub(crate) fn new(object: Object, readable: bool, writable: bool) -> Open {
        Open {
            object,
            offset: 0,
            listed: (0, Vec::new()),
            lock: None,
            readable,
            writable,
            append: false,
            nonblocking: false,
            references: 1,
        }
    }
}

/// All open files.
#[derive(Default)]
pub(crate) struct Opens(Vec<Option<Open>>);

impl Opens {
    /// Makes sure that `more` can be added.
    ///
    /// # Errors
    /// `ENFILE` if the heap has no room for them.
    pub(crate) fn make_room(&mut self, more: usize) -> Result<(), Errno> {
        self.0.try_reserve(more).map_err(|_| Errno::ENFILE)
    }

    /// Adds one.
    pub(crate) fn add(&mut self, open: Open) -> OpenId {
        if let Some(free) = self.0.iter().position(Option::is_none) {
            self.0[free] = Some(open);
            return free;
        }
        self.0.push(Some(open));
        self.0.len() - 1
    }

    /// Whether another open file holds a lock of the same file that goes not with `wanted`.
    pub(crate) fn contends(&self, id: OpenId, wanted: Lock) -> bool {
        let same = |open: &Open| open.object == self[id].object;
        let others = self.0.iter().enumerate().filter(|&(other, _)| other != id);
        let mut locks =
            others.filter_map(|(_, open)| open.as_ref().filter(|&open| same(open))?.lock);
        locks.any(|lock| lock == Lock::Exclusive || wanted == Lock::Exclusive)
    }

    /// One descriptor less; the file if it was the last.
    pub(crate) fn release(&mut self, id: OpenId) -> Option<Open> {
        self[id].references -= 1;
        if self[id].references == 0 { self.0[id].take() } else { None }
    }
}

impl core::ops::Index<OpenId> for Opens {
    type Output = Open;

    /// # Panics
    /// If it is not open.
    fn index(&self, id: OpenId) -> &Open {
        self.0[id].as_ref().expect("an open file")
    }
}

impl core::ops::IndexMut<OpenId> for Opens {
    /// # Panics
    /// If it is not open.
    fn index_mut(&mut self, id: OpenId) -> &mut Open {
        self.0[id].as_mut().expect("an open file")
    }
}
