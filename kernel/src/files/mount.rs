//! The file system of a disk, as part of the tree: `/mnt`.
//!
//! Once, at boot, the disk is asked and waited for. From then on a file of it is one of the memory
//! manager's, as a file of the archive is, and its requests go where its map says ([`File::runs`]).
//!
//! [`File::runs`]: super::ext::File::runs

use alloc::collections::BTreeMap;
use alloc::vec;

use vellum_mm::addr::{Frame, PAGE_BYTES};

use super::Stored;
use super::ext::{self, Device, EntryKind, ExtError};
use super::tree::{Kind, NodeId, Tree};
use crate::arch::PhysicalMemory;
use crate::arch::disk::{Disk, Transfer};

/// Where the disk is mounted.
const PLACE: &[u8] = b"mnt";

/// A disk that is waited for.
struct Polled<'a> {
    disk: &'a mut Disk,
    memory: PhysicalMemory,
    /// A frame that is nobody's yet.
    frame: Frame,
    /// The page of the disk that is in it: the next inode is often in the same.
    held: Option<u64>,
}

impl Polled<'_> {
    fn hold(&mut self, page: u64) -> Result<(), ExtError> {
        if self.held == Some(page) {
            return Ok(());
        }
        self.held = None;
        let first_byte = page * PAGE_BYTES;
        let end = (self.disk.capacity_bytes() - first_byte).min(PAGE_BYTES);
        let transfer =
            Transfer { id: 0, write: false, first_byte, frames: vec![self.frame], span: 0..end };
        let unreadable = ExtError::Unreadable(first_byte);
        self.disk.submit(transfer).map_err(|_| unreadable)?;
        // Ends: QEMU answers every request, if only to say that it failed.
        let (_, result) = loop {
            if let Some(done) = self.disk.poll() {
                break done;
            }
            core::hint::spin_loop();
        };
        result.map_err(|_| unreadable)?;
        self.held = Some(page);
        Ok(())
    }
}

impl Device for Polled<'_> {
    fn bytes(&self) -> u64 {
        self.disk.capacity_bytes()
    }

    fn read(&mut self, from: u64, to: &mut [u8]) -> Result<(), ExtError> {
        let mut done = 0;
        while done < to.len() {
            let at = from + done as u64;
            let offset = at % PAGE_BYTES;
            let count = (to.len() - done).min((PAGE_BYTES - offset) as usize);
            self.hold(at / PAGE_BYTES)?;
            self.memory.read(self.frame, offset, &mut to[done..done + count]);
            done += count;
        }
        Ok(())
    }
}

/// Enters the files of `disk` into `tree`. `frame` must be nobody's; it is not used any more after.
///
/// # Errors
/// Why the disk is refused; then the tree is as it was.
pub(crate) fn mount(
    tree: &mut Tree,
    disk: &mut Disk,
    memory: PhysicalMemory,
    frame: Frame,
) -> Result<(), ExtError> {
    let entries = ext::read_tree(&mut Polled { disk, memory, frame, held: None })?;
    // Nothing of the archive is in the way of a directory of this name, or the disk is not wanted.
    let Ok(top) = super::archive::directory(tree, PLACE) else { return Ok(()) };
    let mut nodes: BTreeMap<u32, NodeId> = BTreeMap::from([(ext::ROOT_INODE, top)]);
    for entry in entries {
        let Some(&above) = nodes.get(&entry.above) else { continue };
        if let Some(&node) = nodes.get(&entry.inode) {
            // The first of two equal names stays, as on Linux.
            let _ = tree.link(above, &entry.name, node);
            continue;
        }
        let added = match entry.kind {
            EntryKind::Directory => tree.add_directory(above, &entry.name, entry.permissions),
            EntryKind::File(file) => {
                let kind = Kind::Stored(Stored::Disk(file));
                tree.add(above, &entry.name, kind, entry.permissions)
            }
            EntryKind::Link(to) => tree.add(above, &entry.name, Kind::Link(to), entry.permissions),
        };
        if let Ok(node) = added {
            nodes.insert(entry.inode, node);
        }
    }
    for &node in nodes.values() {
        tree[node].sealed = true;
    }
    Ok(())
}
