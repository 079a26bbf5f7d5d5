//! How the events of a block become bytes, and back. The bytes are documented in
//! [`format`](crate::format).
//!
//! Decoding an access takes no branch that depends on the data but the one that tells accesses from
//! the rest: the tag gives widths and masks, and each field is a load of fixed width under a mask.
//! Both candidates for the page (from the table of recent pages, from the last page) are computed
//! and one is selected. This is why a decoder pads its input: the loads may reach beyond the end.
//!
//! Invariant: encoder and decoder change [`State`] in the same way after the same event. Otherwise
//! every later page of the block would be wrong, which only the events' meaning could tell.

use rustc_hash::FxHashMap;

use crate::bytes::{Cursor, Malformed, array, put_varint, unzigzag, zigzag};
use crate::calls;
use crate::event::{Access, Event, Kind, ThreadId};

/// Tags below this are accesses.
const TAG_CALL: u8 = 192;
/// The thread of the next accesses, by its number in the trace.
const TAG_THREAD: u8 = 193;
/// This and above: the thread of the next accesses, by its number in the block.
const TAG_THREAD_KNOWN: u8 = 194;
/// Threads that a tag can name.
const THREADS_KNOWN: usize = (u8::MAX - TAG_THREAD_KNOWN) as usize + 1;

/// Bytes of the page field by its code: slot, and differences of three widths.
const PAGE_BYTES: [usize; 4] = [1, 1, 3, 8];
const PAGE_MASKS: [u64; 4] = [0xff, 0xff, 0xff_ffff, u64::MAX];
/// Bytes of the fields `count - 1` and `instructions` by their codes.
const NUMBER_BYTES: [usize; 4] = [0, 1, 2, 4];
const NUMBER_MASKS: [u32; 4] = [0, 0xff, 0xffff, u32::MAX];

/// Most bytes that an access takes: tag, two numbers, page.
const ACCESS_BYTES_MAX: usize = 17;
/// Zero bytes that a decoder needs after its input.
pub(crate) const PADDING: usize = 32;
const _: () = assert!(PADDING > ACCESS_BYTES_MAX);

/// Slots of the table of recent pages, one table for each kind.
const SLOTS: usize = 256;

/// What encoder and decoder remember between the events of one block.
struct State {
    recent: Box<[[u64; SLOTS]; 3]>,
    last: [u64; 3], // of the current thread, by kind
    current: usize,
    threads: Vec<(ThreadId, [u64; 3])>, // in order of appearance; `last` of those not current
    indices: FxHashMap<ThreadId, usize>, // into `threads`
}

impl State {
    fn new() -> State {
        State {
            recent: Box::new([[0; SLOTS]; 3]),
            last: [0; 3],
            current: usize::MAX,
            threads: Vec::new(),
            indices: FxHashMap::default(),
        }
    }

    /// Back to the start of a block.
    fn reset(&mut self) {
        *self.recent = [[0; SLOTS]; 3];
        self.last = [0; 3];
        self.current = usize::MAX;
        self.threads.clear();
        self.indices.clear();
    }

    /// Makes the thread `index` of the block the current one.
    fn switch(&mut self, index: usize) {
        if let Some((_, last)) = self.threads.get_mut(self.current) {
            *last = self.last;
        }
        self.last = self.threads[index].1;
        self.current = index;
    }

    /// The number in the block of `thread`, which it gets at its first appearance.
    fn index(&mut self, thread: ThreadId) -> (usize, bool) {
        let next = self.threads.len();
        let index = *self.indices.entry(thread).or_insert(next);
        if index == next {
            self.threads.push((thread, [0; 3]));
        }
        (index, index == next)
    }
}

/// The slot of `page`: the top bits of a Fibonacci hash, so that arrays side by side do not
/// collide.
#[inline(always)]
fn slot(page: u64) -> usize {
    (page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize
}

/// The code of the narrowest field that holds `value`.
#[inline(always)]
fn number_code(value: u32) -> usize {
    usize::from(value != 0) + usize::from(value > 0xff) + usize::from(value > 0xffff)
}

/// Encodes the events of one block after another.
pub(crate) struct Encoder {
    state: State,
    thread: Option<ThreadId>, // the current one, to see a switch without a look-up
    sole: bool,               // whether all accesses of the block are of one thread's process
}

impl Encoder {
    pub(crate) fn new() -> Encoder {
        Encoder { state: State::new(), thread: None, sole: false }
    }

    /// Forgets everything: the next event begins a block.
    pub(crate) fn reset(&mut self) {
        self.state.reset();
        self.thread = None;
        self.sole = false;
    }

    /// Notes that a thread may belong to another process from here on.
    pub(crate) fn doubt(&mut self) {
        self.sole = false;
    }

    /// Appends `access` to `out`; whether its process is known to have touched its page before.
    #[inline(always)]
    pub(crate) fn access(&mut self, access: &Access, out: &mut Vec<u8>) -> bool {
        if self.thread != Some(access.thread) {
            self.switch(access.thread, out);
        }
        let kind = access.kind as usize;
        let state = &mut self.state;
        let slot = slot(access.page);
        let difference = zigzag(access.page.wrapping_sub(state.last[kind]));
        let held = state.recent[kind][slot] == access.page;
        let (page_code, page) = if held {
            (0, slot as u64)
        } else if difference <= PAGE_MASKS[1] {
            (1, difference)
        } else if difference <= PAGE_MASKS[2] {
            (2, difference)
        } else {
            (3, difference)
        };
        state.recent[kind][slot] = access.page;
        state.last[kind] = access.page;

        // A count of 0 does not exist, but it comes back as what it was.
        let count = access.count.wrapping_sub(1);
        let (count_code, instructions_code) =
            (number_code(count), number_code(access.instructions));
        // The longest there is, cut to size after: one check of capacity instead of four, and no
        // copy of a length that the compiler does not know. The numbers are one store: neither has
        // bits beyond its bytes.
        let start = out.len();
        out.extend_from_slice(&[0; ACCESS_BYTES_MAX]);
        let piece = &mut out[start..];
        piece[0] = (kind << 6 | page_code << 4 | count_code << 2 | instructions_code) as u8;
        let count_bytes = NUMBER_BYTES[count_code];
        let numbers = u64::from(count) | u64::from(access.instructions) << (8 * count_bytes);
        piece[1..9].copy_from_slice(&numbers.to_le_bytes());
        let at = 1 + count_bytes + NUMBER_BYTES[instructions_code];
        piece[at..at + 8].copy_from_slice(&page.to_le_bytes());
        out.truncate(start + at + PAGE_BYTES[page_code]);
        // Slots are full of page 0 at first.
        held && self.sole && access.page != 0
    }

    /// Appends what says that the next accesses are those of `thread`.
    fn switch(&mut self, thread: ThreadId, out: &mut Vec<u8>) {
        let (index, new) = self.state.index(thread);
        if new || index >= THREADS_KNOWN {
            out.push(TAG_THREAD);
            put_varint(out, u64::from(thread));
        } else {
            out.push(TAG_THREAD_KNOWN + index as u8);
        }
        // A call in between may have moved the threads: `doubt` holds until the block ends.
        self.sole = self.thread.is_none() && self.state.threads.len() == 1;
        self.state.switch(index);
        self.thread = Some(thread);
    }
}

/// Appends a call that [`calls::put`] has encoded already.
pub(crate) fn put_call(call: &[u8], out: &mut Vec<u8>) {
    out.push(TAG_CALL);
    out.extend_from_slice(call);
}

/// Decodes blocks, each on its own.
pub(crate) struct Decoder {
    state: State,
}

impl Decoder {
    pub(crate) fn new() -> Decoder {
        Decoder { state: State::new() }
    }

    /// Appends the `count` events of a block to `events`.
    ///
    /// `bytes` is the block's payload followed by [`PADDING`] zero bytes.
    pub(crate) fn block(
        &mut self,
        bytes: &[u8],
        count: usize,
        events: &mut Vec<Event>,
    ) -> Result<(), Malformed> {
        self.state.reset();
        let end = bytes.len() - PADDING;
        let goal = events.len() + count;
        let mut at = 0;
        while events.len() < goal {
            at = self.accesses(bytes, at, goal, events)?;
            if events.len() == goal {
                break;
            }
            // Every turn takes at least one byte, and bytes end: so does the loop.
            at = self.rest(&bytes[..end], at, events)?;
        }
        if at == end { Ok(()) } else { Err(Malformed("a block and its events differ in length")) }
    }

    /// Decodes accesses until `goal` or until a tag that is none; returns where that is.
    fn accesses(
        &mut self,
        bytes: &[u8],
        mut at: usize,
        goal: usize,
        events: &mut Vec<Event>,
    ) -> Result<usize, Malformed> {
        let State { recent, last, current, threads, .. } = &mut self.state;
        let thread = threads.get(*current).map(|(thread, _)| *thread);
        while events.len() < goal {
            let Some(piece) = bytes.get(at..at + ACCESS_BYTES_MAX) else {
                return Err(Malformed("an event is cut short"));
            };
            let tag = piece[0];
            let kind = match tag >> 6 {
                0 => Kind::Load,
                1 => Kind::Store,
                2 => Kind::Fetch,
                _ => return Ok(at),
            };
            let Some(thread) = thread else {
                return Err(Malformed("an access comes before its thread"));
            };
            let (count_code, instructions_code) = (usize::from(tag >> 2 & 3), usize::from(tag & 3));
            let page_code = usize::from(tag >> 4 & 3);
            let instructions_at = 1 + NUMBER_BYTES[count_code];
            let page_at = instructions_at + NUMBER_BYTES[instructions_code];
            let count = u32::from_le_bytes(array(piece, 1)) & NUMBER_MASKS[count_code];
            let instructions =
                u32::from_le_bytes(array(piece, instructions_at)) & NUMBER_MASKS[instructions_code];
            let field = u64::from_le_bytes(array(piece, page_at)) & PAGE_MASKS[page_code];
            at += page_at + PAGE_BYTES[page_code];

            let recent = &mut recent[kind as usize];
            let last = &mut last[kind as usize];
            let held = recent[usize::from(field as u8)];
            let moved = last.wrapping_add(unzigzag(field));
            let page = if page_code == 0 { held } else { moved };
            recent[slot(page)] = page;
            *last = page;
            events.push(Event::Access(Access {
                page,
                thread,
                count: count.wrapping_add(1),
                instructions,
                kind,
            }));
        }
        Ok(at)
    }

    /// Decodes one thing that is no access: a call or a switch of threads.
    fn rest(
        &mut self,
        bytes: &[u8],
        at: usize,
        events: &mut Vec<Event>,
    ) -> Result<usize, Malformed> {
        let mut cursor = Cursor::new(bytes, at);
        match cursor.byte()? {
            TAG_CALL => events.push(Event::Call(Box::new(calls::get(&mut cursor)?))),
            TAG_THREAD => {
                let thread = cursor.varint32()?;
                let (index, _) = self.state.index(thread);
                self.state.switch(index);
            }
            tag => {
                let index = usize::from(tag - TAG_THREAD_KNOWN);
                if index >= self.state.threads.len() {
                    return Err(Malformed("a thread is named before its number"));
                }
                self.state.switch(index);
            }
        }
        Ok(cursor.at())
    }
}
