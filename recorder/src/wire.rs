//! The words that plugin and collector exchange through a ring.
//!
//! ```text
//!     access   instructions << 51 | count << 39 | page << 4 | wide << 3 | ticketed << 2 | kind
//!              the ticket, if ticketed
//!              instructions << 32 | count, if wide
//!     call     length << 18 | code << 2 | 3
//!              the ticket
//!              length words of payload
//! ```
//!
//! A ticket is the event's place in the one order of all threads and processes. An access without
//! one comes right after the ring's event before. So nearly all accesses of a thread that runs
//! alone are one word, which matters: there are millions of them, and each cache line of the ring
//! must travel from one processor to another. Calls are rare and may be long. The two ends are the
//! same build of the same crate (the file says so, see [`shared`](crate::shared)), so nothing here
//! is versioned. Decoding still trusts nothing: the ring lies in the recorded program's address
//! space, and a wild store there must not bring the recorder down.

/// Most words of an access.
pub(crate) const ACCESS_WORDS_MAX: u64 = 3;
/// Says that the access's ticket is the word after the first.
const TICKETED: u64 = 1 << 2;
/// Says that the last word of the access has its counts.
const WIDE: u64 = 1 << 3;
const PAGE_SHIFT: u32 = 4;
const COUNT_SHIFT: u32 = 39;
const INSTRUCTIONS_SHIFT: u32 = 51;
const PAGE_MASK: u64 = (1 << (COUNT_SHIFT - PAGE_SHIFT)) - 1;
const COUNT_MASK: u64 = (1 << (INSTRUCTIONS_SHIFT - COUNT_SHIFT)) - 1;
const INSTRUCTIONS_MASK: u64 = u64::MAX >> INSTRUCTIONS_SHIFT;
const _: () = assert!(PAGE_MASK == crate::filter::PAGE_END - 1);

/// Words before the payload of a call.
pub(crate) const CALL_WORDS: u64 = 2;
/// The two low bits of a first word that say "call"; smaller values are kinds of access.
pub(crate) const CALL: u64 = 3;

/// A reference as it lies in a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RawAccess {
    /// 0 load, 1 store, 2 fetch.
    pub(crate) kind: u64,
    pub(crate) page: u64,
    pub(crate) count: u32,
    pub(crate) instructions: u32,
}

impl RawAccess {
    /// Its words, of which the first so many count; `ticket` is `None` if it follows the event
    /// before.
    #[inline(always)]
    pub(crate) fn encode(self, ticket: Option<u64>) -> ([u64; 3], u64) {
        let (count, instructions) = (u64::from(self.count), u64::from(self.instructions));
        let first = self.kind | self.page << PAGE_SHIFT;
        let narrow = first | count << COUNT_SHIFT | instructions << INSTRUCTIONS_SHIFT;
        let counts = instructions << 32 | count;
        match (count <= COUNT_MASK && instructions <= INSTRUCTIONS_MASK, ticket) {
            (true, None) => ([narrow, 0, 0], 1),
            (true, Some(ticket)) => ([narrow | TICKETED, ticket, 0], 2),
            (false, None) => ([first | WIDE, counts, 0], 2),
            (false, Some(ticket)) => ([first | WIDE | TICKETED, ticket, counts], 3),
        }
    }

    /// The access that `first` begins, and how many words it has; `None` if that is a call. `word`
    /// yields those after the first by their number, from 1.
    #[inline(always)]
    pub(crate) fn decode(first: u64, word: impl FnOnce(u64) -> u64) -> Option<(Self, u64)> {
        let kind = first & 3;
        if kind == CALL {
            return None;
        }
        let page = first >> PAGE_SHIFT & PAGE_MASK;
        let words = 1 + u64::from(first & TICKETED != 0);
        if first & WIDE == 0 {
            let count = (first >> COUNT_SHIFT & COUNT_MASK) as u32;
            let instructions = (first >> INSTRUCTIONS_SHIFT) as u32;
            Some((Self { kind, page, count, instructions }, words))
        } else {
            let counts = word(words);
            let (count, instructions) = (counts as u32, (counts >> 32) as u32);
            Some((Self { kind, page, count, instructions }, words + 1))
        }
    }
}

/// Whether the word after `first`, an event's first word, is its ticket.
#[inline(always)]
pub(crate) fn has_ticket(first: u64) -> bool {
    first & CALL == CALL || first & TICKETED != 0
}

/// What tells one file from every other: device, inode, time of birth.
///
/// The birth is there because an inode number is used again as soon as its file is deleted, which
/// programs with temporary files do all the time.
pub(crate) type FileKey = [u64; 3];

/// The "device" of System V shared memory; its "inode" is the segment's number.
pub(crate) const DEVICE_SYSV: u64 = u64::MAX;
/// The "device" of shared anonymous memory; its "inode" is counted in the shared file.
pub(crate) const DEVICE_ANONYMOUS: u64 = u64::MAX - 1;

/// One area of a fresh address space.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct RawArea {
    pub(crate) page: u64,
    pub(crate) pages: u64,
    pub(crate) prot: u64,
    pub(crate) shared: bool,
    pub(crate) file: Option<FileKey>,
    pub(crate) offset_pages: u64,
    pub(crate) role: u64,
}

/// Something that has a form in words.
trait Word: Sized {
    fn put(&self, words: &mut Vec<u64>);
    /// The value at the front of `words`, which then starts after it; `None` if it is cut short.
    fn take(words: &mut &[u64]) -> Option<Self>;
}

impl Word for u64 {
    fn put(&self, words: &mut Vec<u64>) {
        words.push(*self);
    }

    fn take(words: &mut &[u64]) -> Option<Self> {
        let (first, rest) = words.split_first()?;
        *words = rest;
        Some(*first)
    }
}

impl Word for bool {
    fn put(&self, words: &mut Vec<u64>) {
        words.push(u64::from(*self));
    }

    fn take(words: &mut &[u64]) -> Option<Self> {
        Some(u64::take(words)? != 0)
    }
}

impl Word for FileKey {
    fn put(&self, words: &mut Vec<u64>) {
        words.extend_from_slice(self);
    }

    fn take(words: &mut &[u64]) -> Option<Self> {
        Some([u64::take(words)?, u64::take(words)?, u64::take(words)?])
    }
}

impl<T: Word> Word for Option<T> {
    fn put(&self, words: &mut Vec<u64>) {
        self.is_some().put(words);
        if let Some(value) = self {
            value.put(words);
        }
    }

    fn take(words: &mut &[u64]) -> Option<Self> {
        Some(if bool::take(words)? { Some(T::take(words)?) } else { None })
    }
}

/// Bytes that need not be text: paths and arguments are whatever the program says they are.
impl Word for Vec<u8> {
    fn put(&self, words: &mut Vec<u64>) {
        words.push(self.len() as u64);
        for chunk in self.chunks(8) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            words.push(u64::from_le_bytes(bytes));
        }
    }

    fn take(words: &mut &[u64]) -> Option<Self> {
        let length = usize::try_from(u64::take(words)?).ok()?;
        let (text, rest) = words.split_at_checked(length.div_ceil(8))?;
        *words = rest;
        let mut bytes: Vec<u8> = text.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(length);
        Some(bytes)
    }
}

fn put_all<T: Word>(values: &[T], words: &mut Vec<u64>) {
    words.push(values.len() as u64);
    for value in values {
        value.put(words);
    }
}

fn take_all<T: Word>(words: &mut &[u64]) -> Option<Vec<T>> {
    let count = u64::take(words)?;
    // A wild count ends at the first value that is not there, not in a huge reservation.
    (0..count).map(|_| T::take(words)).collect()
}

impl Word for Vec<u64> {
    fn put(&self, words: &mut Vec<u64>) {
        put_all(self, words);
    }

    fn take(words: &mut &[u64]) -> Option<Self> {
        take_all(words)
    }
}

impl Word for Vec<Vec<u8>> {
    fn put(&self, words: &mut Vec<u64>) {
        put_all(self, words);
    }

    fn take(words: &mut &[u64]) -> Option<Self> {
        take_all(words)
    }
}

impl Word for Vec<RawArea> {
    fn put(&self, words: &mut Vec<u64>) {
        put_all(self, words);
    }

    fn take(words: &mut &[u64]) -> Option<Self> {
        take_all(words)
    }
}

impl Word for RawArea {
    fn put(&self, words: &mut Vec<u64>) {
        words.extend([self.page, self.pages, self.prot]);
        self.shared.put(words);
        self.file.put(words);
        words.extend([self.offset_pages, self.role]);
    }

    fn take(words: &mut &[u64]) -> Option<Self> {
        Some(Self {
            page: u64::take(words)?,
            pages: u64::take(words)?,
            prot: u64::take(words)?,
            shared: bool::take(words)?,
            file: Word::take(words)?,
            offset_pages: u64::take(words)?,
            role: u64::take(words)?,
        })
    }
}

/// Declares [`Record`] with its two conversions, which then cannot disagree.
macro_rules! records {
    ($( $(#[$note:meta])* $name:ident = $code:literal { $($field:ident: $type:ty),* } )*) => {
        /// A call as the plugin reports it: who speaks is known from the slot.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub(crate) enum Record {
            $( $(#[$note])* $name { $($field: $type),* }, )*
        }

        impl Record {
            /// Its code and its payload.
            pub(crate) fn encode(&self) -> (u64, Vec<u64>) {
                let mut words = Vec::new();
                let code = match self {
                    $( Self::$name { $($field),* } => {
                        $( $field.put(&mut words); )*
                        $code
                    } )*
                };
                (code, words)
            }

            /// The record with this code and payload; `None` if there is no such record.
            pub(crate) fn decode(code: u64, words: &[u64]) -> Option<Self> {
                let mut words = words;
                let record = match code {
                    $( $code => Self::$name { $($field: Word::take(&mut words)?),* }, )*
                    _ => return None,
                };
                words.is_empty().then_some(record)
            }
        }
    };
}

records! {
    /// The first record of an image: what the loader built.
    Exec = 1 {
        path: Vec<u8>,
        arguments: Vec<Vec<u8>>,
        brk: u64,
        areas: Vec<RawArea>,
        touched: Vec<u64>
    }
    /// This thread is about to replace its image.
    Execing = 2 {}
    /// The first record of a forked child, should its parent die before it can tell.
    Child = 3 { parent_pid: u64, parent_tid: u64, flags: u64 }
    Fork = 4 { pid: u64, flags: u64 }
    Thread = 5 { tid: u64 }
    ThreadExit = 6 { code: u64 }
    Exit = 7 { code: u64 }
    /// `status` is what `wait4` stored, `None` if the program did not ask for it.
    Reap = 8 { pid: u64, status: Option<u64> }
    File = 9 { file: FileKey, bytes: u64, memory: bool, path: Vec<u8> }
    Map = 10 {
        start: u64,
        bytes: u64,
        prot: u64,
        flags: u64,
        file: Option<FileKey>,
        offset: u64
    }
    Unmap = 11 { start: u64, bytes: u64 }
    Remap = 12 { start: u64, bytes: u64, new_start: u64, new_bytes: u64, flags: u64 }
    Protect = 13 { start: u64, bytes: u64, prot: u64 }
    Brk = 14 { end: u64 }
    Advise = 15 { start: u64, bytes: u64, advice: u64 }
    Lock = 16 { start: u64, bytes: u64, all: bool }
    Unlock = 17 { start: u64, bytes: u64, all: bool }
    Sync = 18 { start: u64, bytes: u64, flags: u64 }
    Touch = 19 { page: u64, pages: u64, write: bool }
    Transfer = 20 { file: FileKey, offset: u64, bytes: u64, write: bool }
    FileSync = 21 { file: FileKey }
    Truncate = 22 { file: FileKey, bytes: u64 }
    Unlink = 23 { file: FileKey }
    Failed = 24 { call: u64, errno: u64 }
    Tick = 25 { count: u64, instructions: u64 }
    /// The program now runs something that QEMU cannot: what follows is not in the trace.
    Unrecorded = 26 { path: Vec<u8> }
    /// A ticket that was taken for something that did not happen.
    Cancelled = 27 {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Record> {
        let area = RawArea {
            page: 4,
            pages: 2,
            prot: 5,
            shared: true,
            file: Some([1, 2, 3]),
            offset_pages: 7,
            role: 2,
        };
        vec![
            Record::Exec {
                path: b"/bin/cat".to_vec(),
                arguments: vec![b"cat".to_vec(), b"exactly8".to_vec(), Vec::new()],
                brk: 4096,
                areas: vec![area.clone(), RawArea { file: None, ..area }],
                touched: vec![1, 2],
            },
            Record::Reap { pid: 3, status: None },
            Record::Map { start: 1, bytes: 2, prot: 3, flags: 4, file: Some([5; 3]), offset: 6 },
            Record::Cancelled {},
        ]
    }

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        for record in samples() {
            let (code, words) = record.encode();
            assert_eq!(Record::decode(code, &words), Some(record));
        }
    }

    #[test]
    fn an_access_of_every_form_decodes_to_itself() {
        let page = crate::filter::PAGE_END - 1;
        let mut lengths = Vec::new();
        for (count, instructions) in [(1, 0), (4095, 8191), (4096, 0), (1, 8192), (u32::MAX, 7)] {
            for ticket in [None, Some(u64::MAX)] {
                let access = RawAccess { kind: 2, page, count, instructions };
                let (words, length) = access.encode(ticket);
                assert_eq!(has_ticket(words[0]), ticket.is_some());
                assert!(ticket.is_none_or(|ticket| words[1] == ticket));
                let decoded = RawAccess::decode(words[0], |index| words[index as usize]);
                assert_eq!(decoded, Some((access, length)));
                lengths.push(length);
            }
        }
        assert_eq!(lengths, [1, 2, 1, 2, 2, 3, 2, 3, 2, 3]);
    }

    #[test]
    fn a_record_cut_anywhere_is_refused() {
        for record in samples() {
            let (code, words) = record.encode();
            for length in 0..words.len() {
                assert_eq!(Record::decode(code, &words[..length]), None, "{record:?} at {length}");
            }
        }
    }

    #[test]
    fn nonsense_is_refused_without_a_panic_or_a_huge_allocation() {
        assert_eq!(Record::decode(0, &[]), None);
        assert_eq!(Record::decode(99, &[1]), None);
        for code in 1..28 {
            assert!(Record::decode(code, &[u64::MAX; 3]).is_none_or(|r| r.encode().1.len() == 3));
        }
    }
}
