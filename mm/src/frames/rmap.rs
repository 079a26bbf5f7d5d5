//! The reverse map: which page-table entries map a frame.
//!
//! A mapping is recorded as the place of its entry, so that eviction reaches the entry without walking
//! any table; the table's own descriptor tells the space and the page. A frame mapped once, the usual
//! case, keeps the place in its own descriptor. So does one that `fork` has shared: the child's entry
//! has the same index in another table, and two tables and an index fit in a word. Further mappings are
//! nodes of a list whose tail is one of these:
//!
//! ```text
//!     one mapping      rmap ── at(entry A)
//!     after a fork     rmap ── pair(entries B and A)
//!     four mappings    rmap ── node[entry D] ── node[entry C] ── pair(entries B and A)
//! ```
//!
//! Only `fork` makes a pair ([`share`]), of a frame that is mapped once. So a frame whose list has none, and which
//! another entry of the same address space maps, never gets one: what [`unpair`] has done lasts.
//!
//! Nodes (`nodes.rs`) live in frames, so the map needs no heap.
//!
//! Invariant: changed only under the lock of the mapped frame. Adding may need a frame; it never
//! reclaims one, since the caller holds a lock.
//!
//! Cost: adding is one store or one node; removing searches the list, newest first, which is where a
//! child that exits before its parent stands. A pair needs tables below 256 GiB of RAM; above it a
//! fork makes nodes.

use core::sync::atomic::Ordering::Relaxed;

use super::nodes::Node;
use super::table::{Locked, MAPPED_MAX};
use super::{Frames, NoMemory};
use crate::addr::{Frame, TABLE_ENTRIES};
use crate::machine::{At, Machine, Memory};

/// The place of a page-table entry: the frame of its table, and the index in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryAt(u64);

impl EntryAt {
    /// Entry `index` of the table in frame `table`.
    ///
    /// # Panics
    /// If a table has no such entry.
    pub const fn new(table: Frame, index: usize) -> EntryAt {
        assert!(index < TABLE_ENTRIES, "a table has 512 entries");
        EntryAt((table.0 as u64) << 9 | index as u64)
    }

    /// The frame of the table.
    pub const fn table(self) -> Frame {
        Frame((self.0 >> 9) as u32)
    }

    /// The index in the table.
    pub const fn index(self) -> usize {
        (self.0 & 0x1ff) as usize
    }
}

/// A link of the list: nothing, an entry or two in place, or a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Link {
    End,
    At(EntryAt),
    Pair(Pair),
    Node(Node),
}

/// Two entries with one index: 9 bits of it, 26 of the newer table, 26 of the older.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Pair(u64);

/// Bits of a place that fits in a pair.
const PLACE_BITS: u32 = 35;
const INDEX_MASK: u64 = TABLE_ENTRIES as u64 - 1;

impl Pair {
    /// The pair of two entries with one index, if they fit.
    const fn of(newer: EntryAt, older: EntryAt) -> Option<Pair> {
        if newer.index() == older.index() && (newer.0 | older.0) >> PLACE_BITS == 0 {
            Some(Pair(newer.0 | older.0 >> 9 << PLACE_BITS))
        } else {
            None
        }
    }

    const fn newer(self) -> EntryAt {
        EntryAt(self.0 & ((1 << PLACE_BITS) - 1))
    }

    const fn older(self) -> EntryAt {
        EntryAt((self.0 >> PLACE_BITS) << 9 | self.0 & INDEX_MASK)
    }

    /// The entry that is left without `gone`, if that is one of them.
    fn without(self, gone: EntryAt) -> Option<EntryAt> {
        if self.newer() == gone {
            Some(self.older())
        } else {
            (self.older() == gone).then(|| self.newer())
        }
    }
}

/// The lowest bits of a link tell its kind.
const KIND_BITS: u32 = 2;
const KIND_MASK: u64 = (1 << KIND_BITS) - 1;
// Zero: the end of a list.
const AT: u64 = 1;
const NODE: u64 = 2;
const PAIR: u64 = 3;

impl Link {
    const fn decode(word: u64) -> Link {
        let rest = word >> KIND_BITS;
        match word & KIND_MASK {
            AT => Link::At(EntryAt(rest)),
            NODE => Link::Node(Node(rest)),
            PAIR => Link::Pair(Pair(rest)),
            _ => Link::End,
        }
    }

    const fn encode(self) -> u64 {
        match self {
            Link::End => 0,
            Link::At(entry) => entry.0 << KIND_BITS | AT,
            Link::Node(node) => node.0 << KIND_BITS | NODE,
            Link::Pair(pair) => pair.0 << KIND_BITS | PAIR,
        }
    }
}

impl Node {
    fn entry(self, memory: &impl Memory) -> EntryAt {
        EntryAt(memory.table(self.frame())[self.word()].load(Relaxed))
    }

    fn next(self, memory: &impl Memory) -> Link {
        Link::decode(memory.table(self.frame())[self.word() + 1].load(Relaxed))
    }

    fn set(self, memory: &impl Memory, entry: EntryAt, next: Link) {
        let table = memory.table(self.frame());
        table[self.word()].store(entry.0, Relaxed);
        table[self.word() + 1].store(next.encode(), Relaxed);
    }
}

/// Records that `entry` maps the locked frame.
///
/// # Errors
/// If a node is needed and no frame is free for it, or there are 2^24 mappings; nothing has changed
/// then.
#[inline]
pub fn add<M: Machine>(
    frames: &Frames,
    at: At,
    machine: &M,
    frame: &mut Locked<'_>,
    entry: EntryAt,
) -> Result<(), NoMemory> {
    if frame.state().mapped() == MAPPED_MAX {
        return Err(NoMemory);
    }
    let link = match Link::decode(frame.rmap()) {
        Link::End => Link::At(entry),
        rest => {
            let node = frames.nodes.alloc(frames, at, machine)?;
            node.set(machine, entry, rest);
            Link::Node(node)
        }
    };
    frame.set_rmap(link.encode());
    frame.mapped_up();
    Ok(())
}

/// As [`add`], for the first entry that maps the frame, which needs no node.
///
/// # Panics
/// If the frame is mapped.
#[inline]
pub fn add_first(frame: &mut Locked<'_>, entry: EntryAt) {
    assert!(frame.state().mapped() == 0, "{:?} is mapped", frame.frame());
    frame.set_rmap(Link::At(entry).encode());
    frame.mapped_up();
}

/// Two entries with one index: a parent's, and that of the child which a fork makes of it.
#[derive(Clone, Copy)]
pub struct Twins {
    /// The word of the reverse map of a frame that only the parent maps.
    before: u64,
    /// Its word when the child maps it too.
    after: u64,
}

impl Twins {
    /// The word of no frame, nor is any that follows it in a table.
    const NONE: u64 = 1 << 63;

    /// Entries `index` of the tables in frames `parent` and `child`.
    ///
    /// # Panics
    /// If a table has no such entry.
    pub const fn new(parent: Frame, child: Frame, index: usize) -> Twins {
        let (older, newer) = (EntryAt::new(parent, index), EntryAt::new(child, index));
        match Pair::of(newer, older) {
            Some(pair) => {
                Twins { before: Link::At(older).encode(), after: Link::Pair(pair).encode() }
            }
            None => Twins { before: Twins::NONE, after: Link::At(newer).encode() },
        }
    }

    /// The entries `count` indices after these, which must be in the tables: but for their kinds, the
    /// index is the lowest bits of both words.
    #[must_use]
    pub const fn up(self, count: usize) -> Twins {
        let above = (count as u64) << KIND_BITS;
        Twins { before: self.before + above, after: self.after + above }
    }

    /// The child's.
    ///
    /// # Panics
    /// Never.
    pub fn child(self) -> EntryAt {
        match Link::decode(self.after) {
            Link::At(only) => only,
            Link::Pair(pair) => pair.newer(),
            Link::End | Link::Node(_) => unreachable!("made as one of the others"),
        }
    }
}

/// Records that the child's entry maps the locked frame too, if the parent's is the only one that
/// does, and both fit in a word. Otherwise false, and it is up to [`add`].
#[inline(always)] // a fork does little else
pub fn share(frame: &mut Locked<'_>, twins: Twins) -> bool {
    let is_only = frame.rmap() == twins.before;
    if is_only {
        frame.set_rmap(twins.after);
        frame.mapped_up();
    }
    is_only
}

/// Makes nodes of a pair, so that [`replace`] can move either of its entries.
///
/// # Errors
/// If no frame is free for a node; nothing has changed then.
pub fn unpair<M: Machine>(
    frames: &Frames,
    at: At,
    machine: &M,
    frame: &mut Locked<'_>,
) -> Result<(), NoMemory> {
    let mut before: Option<Node> = None;
    let mut link = Link::decode(frame.rmap());
    while let Link::Node(node) = link {
        before = Some(node);
        link = node.next(machine);
    }
    if let Link::Pair(pair) = link {
        let node = frames.nodes.alloc(frames, at, machine)?;
        node.set(machine, pair.newer(), Link::At(pair.older()));
        set_next(machine, frame, before, Link::Node(node));
    }
    Ok(())
}

/// Sets what follows `before`; if that is none, the start of the list.
fn set_next(machine: &impl Memory, frame: &mut Locked<'_>, before: Option<Node>, link: Link) {
    match before {
        Some(before) => before.set(machine, before.entry(machine), link),
        None => frame.set_rmap(link.encode()),
    }
}

/// Forgets that `entry` maps the locked frame.
///
/// # Panics
/// If it was not recorded: an entry would outlive its record, and eviction would miss it.
#[inline(always)] // the rest is a call of its own
pub fn remove<M: Machine>(
    frames: &Frames,
    at: At,
    machine: &M,
    frame: &mut Locked<'_>,
    entry: EntryAt,
) {
    let first = frame.rmap();
    if first == Link::At(entry).encode() {
        frame.set_rmap(0);
    } else if first & KIND_MASK == PAIR
        && let Some(other) = Pair(first >> KIND_BITS).without(entry)
    {
        frame.set_rmap(Link::At(other).encode());
    } else {
        remove_from_list(frames, at, machine, frame, Link::decode(first), entry);
    }
    frame.mapped_down();
}

#[inline(never)]
fn remove_from_list<M: Machine>(
    frames: &Frames,
    at: At,
    machine: &M,
    frame: &mut Locked<'_>,
    first: Link,
    entry: EntryAt,
) {
    let mut before: Option<Node> = None;
    let mut link = first;
    // Ends at the list's end: the list is as long as the mapped count.
    loop {
        let node = match link {
            Link::Node(node) => node,
            Link::Pair(pair) if let Some(other) = pair.without(entry) => {
                set_next(machine, frame, before, Link::At(other));
                return;
            }
            _ => panic!("{entry:?} is not in the reverse map of {:?}", frame.frame()),
        };
        let next = node.next(machine);
        // The node goes if it holds the entry, or if the inline tail behind it does: its own entry
        // then becomes the tail.
        let rest = if node.entry(machine) == entry {
            next
        } else if next == Link::At(entry) {
            Link::At(node.entry(machine))
        } else {
            before = Some(node);
            link = next;
            continue;
        };
        set_next(machine, frame, before, rest);
        frames.nodes.free(frames, at, machine, node);
        return;
    }
}

/// Records that the mapping at `old` has moved to `new`.
///
/// # Panics
/// If `old` was not recorded, or is one of a pair: see [`unpair`].
pub fn replace<M: Machine>(machine: &M, frame: &mut Locked<'_>, old: EntryAt, new: EntryAt) {
    let mut before: Option<Node> = None;
    let mut link = Link::decode(frame.rmap());
    loop {
        match link {
            Link::End | Link::Pair(_) => {
                panic!("{old:?} is not in the reverse map of {:?}", frame.frame())
            }
            Link::At(only) => {
                assert!(only == old, "{old:?} is not in the reverse map of {:?}", frame.frame());
                set_next(machine, frame, before, Link::At(new));
                return;
            }
            Link::Node(node) if node.entry(machine) == old => {
                node.set(machine, new, node.next(machine));
                return;
            }
            Link::Node(node) => {
                before = Some(node);
                link = node.next(machine);
            }
        }
    }
}

/// The entries that map the locked frame, newest first.
pub fn entries<'a, M: Machine>(
    machine: &'a M,
    frame: &Locked<'_>,
) -> impl Iterator<Item = EntryAt> + use<'a, M> {
    let mut link = Link::decode(frame.rmap());
    core::iter::from_fn(move || match link {
        Link::End => None,
        Link::At(entry) => {
            link = Link::End;
            Some(entry)
        }
        Link::Pair(pair) => {
            link = Link::At(pair.older());
            Some(pair.newer())
        }
        Link::Node(node) => {
            link = node.next(machine);
            Some(node.entry(machine))
        }
    })
}

/// Number of nodes in the list of the locked frame.
pub(crate) fn nodes<M: Machine>(machine: &M, frame: &Locked<'_>) -> u64 {
    let start = Link::decode(frame.rmap());
    let links = core::iter::successors(Some(start), |link| match link {
        Link::Node(node) => Some(node.next(machine)),
        _ => None,
    });
    links.filter(|link| matches!(link, Link::Node(_))).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::Partial;
    use crate::frames::table::Kind;
    use crate::testing::{AT, Bench};
    use rand::{RngExt, SeedableRng};
    use std::vec::Vec;

    const FRAME: Frame = Frame(40);

    const fn place(n: u32) -> EntryAt {
        EntryAt::new(Frame(n / 512), (n % 512) as usize)
    }

    /// A frame of its own, and a way to ask for its mappings.
    fn anon(frames: &Frames) -> Locked<'_> {
        let mut frame = frames.table.lock(FRAME);
        frame.begin(Kind::Anon);
        frame
    }

    #[test]
    fn one_mapping_needs_no_memory_and_three_need_two_links() {
        let bench = Bench::new(64, 0);
        let frames = &bench.vm.store().frames;
        let mut frame = anon(frames);
        for n in 0..3 {
            add(frames, AT, &bench.ram, &mut frame, place(n)).unwrap();
            assert_eq!(frames.check_links(&bench.ram).links, u64::from(n), "{n} links before");
        }
        let found: Vec<_> = entries(&bench.ram, &frame).collect();
        assert_eq!(found, [place(2), place(1), place(0)], "the newest first");
        assert_eq!(frame.state().mapped(), 3);
    }

    #[test]
    fn what_a_fork_shares_needs_no_link_until_it_moves() {
        let bench = Bench::new(64, 0);
        let frames = &bench.vm.store().frames;
        let (parent, child) = (EntryAt::new(Frame(3), 7), EntryAt::new(Frame(9), 7));
        let twins = Twins::new(parent.table(), child.table(), 7);
        let moved = EntryAt::new(Frame(9), 8);
        let found = |frame: &Locked<'_>| entries(&bench.ram, frame).collect::<Vec<_>>();
        let mut frame = anon(frames);
        for gone in [parent, child] {
            add_first(&mut frame, parent);
            assert!(share(&mut frame, twins));
            assert_eq!(nodes(&bench.ram, &frame), 0);
            assert_eq!(found(&frame), [child, parent]);
            remove(frames, AT, &bench.ram, &mut frame, gone);
            let left = if gone == parent { child } else { parent };
            assert_eq!(found(&frame), [left]);
            remove(frames, AT, &bench.ram, &mut frame, left);
        }
        // A third entry takes a node, and so does one of a table that is too far up.
        add_first(&mut frame, parent);
        assert!(share(&mut frame, twins));
        let again = EntryAt::new(Frame(11), 7);
        assert!(!share(&mut frame, Twins::new(Frame(3), again.table(), 7)));
        add(frames, AT, &bench.ram, &mut frame, again).unwrap();
        assert_eq!(nodes(&bench.ram, &frame), 1);
        unpair(frames, AT, &bench.ram, &mut frame).unwrap();
        assert_eq!(nodes(&bench.ram, &frame), 2);
        replace(&bench.ram, &mut frame, child, moved);
        assert_eq!(found(&frame), [again, moved, parent]);
        for entry in [parent, again, moved] {
            remove(frames, AT, &bench.ram, &mut frame, entry);
        }
        add_first(&mut frame, parent);
        let far = Twins::new(Frame(3), Frame(1 << 26), 7);
        assert!(!share(&mut frame, far));
        assert_eq!(far.child(), EntryAt::new(Frame(1 << 26), 7));
        remove(frames, AT, &bench.ram, &mut frame, parent);
        assert_eq!(frames.check_links(&bench.ram), Partial::default());
    }

    #[test]
    #[should_panic(expected = "is not in the reverse map of f40")]
    fn one_of_a_pair_cannot_move() {
        let bench = Bench::new(64, 0);
        let frames = &bench.vm.store().frames;
        let mut frame = anon(frames);
        let (parent, child) = (EntryAt::new(Frame(3), 7), EntryAt::new(Frame(9), 7));
        add_first(&mut frame, parent);
        let twins = Twins::new(parent.table(), child.table(), 7);
        assert!(share(&mut frame, twins));
        replace(&bench.ram, &mut frame, child, EntryAt::new(Frame(9), 8));
    }

    #[test]
    fn when_the_tail_goes_the_entry_before_it_becomes_the_tail() {
        let bench = Bench::new(64, 0);
        let frames = &bench.vm.store().frames;
        let mut frame = anon(frames);
        (0..3).for_each(|n| add(frames, AT, &bench.ram, &mut frame, place(n)).unwrap());
        remove(frames, AT, &bench.ram, &mut frame, place(0));
        assert_eq!(entries(&bench.ram, &frame).collect::<Vec<_>>(), [place(2), place(1)]);
        replace(&bench.ram, &mut frame, place(1), place(9));
        remove(frames, AT, &bench.ram, &mut frame, place(2));
        assert_eq!(entries(&bench.ram, &frame).collect::<Vec<_>>(), [place(9)]);
        assert_eq!(frames.check_links(&bench.ram), Partial::default(), "no link is left");
    }

    #[test]
    fn a_thousand_mappings_come_and_go_in_any_order() {
        let bench = Bench::new(64, 0);
        let frames = &bench.vm.store().frames;
        let boot = bench.vm.census();
        let mut random = rand_pcg::Pcg64Mcg::seed_from_u64(7);
        let mut frame = anon(frames);
        let mut present: Vec<u32> = Vec::new();
        for n in 0..3000 {
            // More come than go at first, so that full frames of links form and empty again.
            if present.is_empty() || n < 1500 && random.random_bool(0.9) {
                add(frames, AT, &bench.ram, &mut frame, place(n)).unwrap();
                present.push(n);
            } else {
                let gone = present.swap_remove(random.random_range(0..present.len()));
                remove(frames, AT, &bench.ram, &mut frame, place(gone));
            }
            assert_eq!(frame.state().mapped() as usize, present.len());
            frames.check_links(&bench.ram);
        }
        let mut found: Vec<_> = entries(&bench.ram, &frame).map(|place| place.0).collect();
        let mut expected: Vec<_> = present.iter().map(|&n| place(n).0).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected);
        for &n in &present {
            remove(frames, AT, &bench.ram, &mut frame, place(n));
        }
        frame.end();
        drop(frame);
        assert_eq!(bench.vm.census(), boot, "frames of links go with their last link");
    }

    #[test]
    #[should_panic(expected = "is not in the reverse map of f40")]
    fn an_entry_that_was_not_recorded_cannot_be_removed() {
        let bench = Bench::new(64, 0);
        let frames = &bench.vm.store().frames;
        let mut frame = anon(frames);
        add(frames, AT, &bench.ram, &mut frame, place(1)).unwrap();
        remove(frames, AT, &bench.ram, &mut frame, place(2));
    }
}
