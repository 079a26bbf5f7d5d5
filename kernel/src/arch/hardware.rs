//! What machine this is.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use vellum_mm::addr::PAGE_BYTES;

use super::acpi::Tables;
use super::disk::Disk;
use super::input::Line;
use super::loader::Loaded;
use super::{apic, cpu, disk, heap, input};

/// The machine, as the kernel finds it.
pub(crate) struct Hardware {
    /// Usable RAM in bytes, by whole pages, upwards. The image, the heap, the archive and what boot
    /// needs are taken out.
    pub(crate) memory: Vec<Range<u64>>,
    /// Frames from physical address 0 to the end of RAM, holes and what boot keeps included: as far
    /// as a direct map must reach.
    pub(crate) frames: u32,
    /// What the loader brought along (QEMU's `-initrd`); empty if nothing.
    pub(crate) archive: &'static [u8],
    /// What the loader was told (QEMU's `-append`). Bytes that are no text are replaced.
    pub(crate) command_line: &'static str,
    /// Local APICs of the processors; a processor's number is its place. The one running comes
    /// first.
    pub(crate) cpus: Vec<u32>,
    /// NUMA nodes; a machine without has one with everything.
    pub(crate) nodes: Vec<Node>,
    /// How far node is from node, by row, if the machine says; 10 is near.
    pub(crate) distances: Option<Vec<Vec<u8>>>,
    /// The disks, in the order of their places on the bus.
    pub(crate) disks: Vec<Disk>,
    /// The most swap that the kernel's heap has room for.
    swap_bytes_max: u64,
    /// Where input comes from, if it comes at all.
    pub(crate) input: Option<Line>,
}

/// Processors and memory that are near each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Node {
    /// The firmware's number of it; also its row in [`Hardware::distances`].
    pub(crate) id: u32,
    /// Its part of [`Hardware::memory`].
    pub(crate) ranges: Vec<Range<u64>>,
    /// Its processors, by number.
    pub(crate) cpus: Vec<u32>,
}

impl Hardware {
    /// Looks at the machine.
    pub(super) fn find(loaded: &Loaded, memory: &[Range<u64>], heap_bytes: u64) -> Hardware {
        let tables = Tables::new(loaded.rsdp);
        let cpus = order(tables.apics(), apic::id());
        Hardware {
            memory: memory.to_vec(),
            frames: loaded.ram_end.div_ceil(PAGE_BYTES) as u32,
            archive: loaded.archive(),
            command_line: Box::leak(
                String::from_utf8_lossy(loaded.command_line()).into_owned().into_boxed_str(),
            ),
            nodes: nodes(&tables, memory, &cpus),
            distances: tables.distances(),
            disks: disk::find(),
            swap_bytes_max: heap::swap_bytes_max(heap_bytes, loaded.ram_bytes),
            input: input::find(),
            cpus,
        }
    }

    /// Checks that the kernel has room for what it keeps about the swap disk.
    ///
    /// # Errors
    /// How much swap there could be, in a line.
    pub(crate) fn check_swap(&self) -> Result<(), String> {
        let swap = self.disks.iter().find(|disk| !disk.read_only());
        let bytes = swap.map_or(0, Disk::capacity_bytes);
        if bytes > self.swap_bytes_max {
            let most = self.swap_bytes_max >> 20;
            return Err(format!("this memory can have at most {most} MiB of swap"));
        }
        Ok(())
    }
}

/// Puts the processor that runs first, and leaves those out that cannot be numbered.
fn order(mut apics: Vec<u32>, first: u32) -> Vec<u32> {
    apics.retain(|apic| *apic != first);
    apics.insert(0, first);
    apics.truncate(cpu::CPUS_MAX);
    apics
}

fn nodes(tables: &Tables, memory: &[Range<u64>], cpus: &[u32]) -> Vec<Node> {
    let affinity = tables.affinity();
    let mut ids: Vec<u32> = affinity.memory.iter().map(|(node, _)| *node).collect();
    ids.extend(affinity.cpus.iter().map(|(node, _)| *node));
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        let cpus = (0..cpus.len() as u32).collect();
        return vec![Node { id: 0, ranges: memory.to_vec(), cpus }];
    }
    let node = |id: u32| {
        let mut ranges = Vec::new();
        for (_, part) in affinity.memory.iter().filter(|(node, _)| *node == id) {
            let inside =
                |usable: &Range<u64>| usable.start.max(part.start)..usable.end.min(part.end);
            ranges.extend(memory.iter().map(inside).filter(|range| !range.is_empty()));
        }
        let here = |apic: u32| affinity.cpus.contains(&(id, apic));
        let cpus = (0..).zip(cpus).filter(|(_, apic)| here(**apic)).map(|(cpu, _)| cpu).collect();
        Node { id, ranges, cpus }
    };
    ids.into_iter().map(node).collect()
}
