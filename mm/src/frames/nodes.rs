//! Nodes of the reverse map: two words each, in frames of kind `Words`.
//!
//! 16 bytes a node, 256 nodes a frame. Frames with room are in a ring, whose links and counts are in
//! their descriptors; a frame without is in none, and comes back with the first node that is given back.
//! A frame of nodes goes back to its zone with its last node.
//!
//! Knows nothing of: what the two words of a node are while it is in use.

use core::sync::atomic::Ordering::Relaxed;

use spin::Mutex;

use super::table::{FrameTable, Locked};
use super::{Frames, NoMemory};
use crate::addr::{Frame, TABLE_ENTRIES};
use crate::machine::{At, Machine};

/// Number of a node: 256 times its frame, plus its place there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Node(pub(super) u64);

/// Links that one frame holds.
pub const NODES_PER_FRAME: u64 = TABLE_ENTRIES as u64 / 2;

impl Node {
    pub(super) const fn frame(self) -> Frame {
        Frame((self.0 / NODES_PER_FRAME) as u32)
    }

    pub(super) const fn word(self) -> usize {
        (self.0 % NODES_PER_FRAME) as usize * 2
    }
}

/// The nodes of all reverse maps: frames of 256, those with a free node in a ring.
pub(super) struct Nodes {
    /// A frame with a free node, if there is one. The ring's links are the `rmap` words of its frames
    /// (previous and next, plus one); the owner word holds the count of used nodes and the first free.
    partial: Mutex<Option<Frame>>,
}

const USED_ONE: u64 = 1 << 32;

impl Nodes {
    pub(super) const fn new() -> Nodes {
        Nodes { partial: Mutex::new(None) }
    }

    pub(super) fn alloc<M: Machine>(
        &self,
        frames: &Frames,
        at: At,
        machine: &M,
    ) -> Result<Node, NoMemory> {
        let mut partial = self.partial.lock();
        let frame = match *partial {
            Some(frame) => frame,
            None => Nodes::grow(frames, at, machine, &mut partial)?,
        };
        let mut locked = frames.table.lock(frame);
        let owner = locked.owner();
        let place = (owner & 0xffff) - 1;
        let node = Node(u64::from(frame.0) * NODES_PER_FRAME + place);
        let next_free = machine.table(frame)[node.word()].load(Relaxed);
        locked.set_owner(((owner & !0xffff) + USED_ONE) | next_free);
        if next_free == 0 {
            unlink(&frames.table, &mut partial, &mut locked);
        }
        Ok(node)
    }

    /// Walks the ring. See [`Frames::check_links`].
    pub(super) fn check_invariants<M: Machine>(&self, table: &FrameTable, machine: &M) -> Partial {
        let mut found = Partial::default();
        let Some(head) = *self.partial.lock() else { return found };
        let mut frame = head;
        loop {
            let locked = table.lock(frame);
            let (used, mut free) = (locked.owner() / USED_ONE, locked.owner() & 0xffff);
            assert!(used > 0 && free > 0, "{frame:?} has {used} links and room for {free}");
            let mut room = 0;
            while free != 0 {
                room += 1;
                free = machine.table(frame)[(free - 1) as usize * 2].load(Relaxed);
            }
            assert_eq!(used + room, NODES_PER_FRAME, "links and room of {frame:?}");
            found = Partial { frames: found.frames + 1, links: found.links + used };
            let (_, next) = ring_of(locked.rmap());
            drop(locked);
            assert_eq!(ring_of(table.lock(next).rmap()).0, frame, "{next:?} in the ring");
            frame = next;
            if frame == head {
                return found;
            }
        }
    }

    fn grow<M: Machine>(
        frames: &Frames,
        at: At,
        machine: &M,
        partial: &mut Option<Frame>,
    ) -> Result<Frame, NoMemory> {
        let frame = frames.alloc_words(at, machine)?;
        let table = machine.table(frame);
        // Each free node names the next, plus one; the last keeps the zero.
        for place in 0..NODES_PER_FRAME - 1 {
            table[place as usize * 2].store(place + 2, Relaxed);
        }
        let mut locked = frames.table.lock(frame);
        locked.set_owner(1);
        link(&frames.table, partial, &mut locked);
        Ok(frame)
    }

    pub(super) fn free<M: Machine>(&self, frames: &Frames, at: At, machine: &M, node: Node) {
        let mut partial = self.partial.lock();
        let frame = node.frame();
        let mut locked = frames.table.lock(frame);
        let owner = locked.owner();
        let first_free = owner & 0xffff;
        machine.table(frame)[node.word()].store(first_free, Relaxed);
        let place = node.0 % NODES_PER_FRAME;
        let owner = ((owner & !0xffff) - USED_ONE) | (place + 1);
        locked.set_owner(owner);
        if first_free == 0 {
            link(&frames.table, &mut partial, &mut locked);
        }
        if owner < USED_ONE {
            unlink(&frames.table, &mut partial, &mut locked);
            locked.end();
            drop(locked);
            frames.free(at, machine, frame);
        }
    }
}

/// The frames that hold links and have room for more, and the links in them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Partial {
    /// Number of frames.
    pub frames: u64,
    /// Number of links.
    pub links: u64,
}

/// The ring's neighbours of `frame`: (previous, next).
const fn ring_of(word: u64) -> (Frame, Frame) {
    (Frame(word as u32), Frame((word >> 32) as u32))
}

const fn ring_word(previous: Frame, next: Frame) -> u64 {
    previous.0 as u64 | (next.0 as u64) << 32
}

fn link(table: &FrameTable, head: &mut Option<Frame>, frame: &mut Locked<'_>) {
    let me = frame.frame();
    match *head {
        None => frame.set_rmap(ring_word(me, me)),
        Some(first) => {
            let mut first_locked = table.lock(first);
            let (last, next) = ring_of(first_locked.rmap());
            frame.set_rmap(ring_word(last, first));
            if last == first {
                first_locked.set_rmap(ring_word(me, me));
            } else {
                first_locked.set_rmap(ring_word(me, next));
                drop(first_locked);
                let mut last_locked = table.lock(last);
                let (before, _) = ring_of(last_locked.rmap());
                last_locked.set_rmap(ring_word(before, me));
            }
        }
    }
    *head = Some(me);
}

fn unlink(table: &FrameTable, head: &mut Option<Frame>, frame: &mut Locked<'_>) {
    let me = frame.frame();
    let (previous, next) = ring_of(frame.rmap());
    frame.set_rmap(0);
    if next == me {
        *head = None;
        return;
    }
    {
        let mut locked = table.lock(previous);
        let (before, _) = ring_of(locked.rmap());
        locked.set_rmap(ring_word(if before == me { previous } else { before }, next));
    }
    {
        let mut locked = table.lock(next);
        let (_, after) = ring_of(locked.rmap());
        locked.set_rmap(ring_word(previous, if after == me { next } else { after }));
    }
    if *head == Some(me) {
        *head = Some(next);
    }
}
