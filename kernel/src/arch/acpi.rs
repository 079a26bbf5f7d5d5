//! What the firmware says of processors and NUMA nodes.
//!
//! ACPI 6.5, chapter 5.2: a root table lists the others, which are a header of 36 bytes and, in
//! those read here, records that begin with their type and length. Tables are input: what does not
//! fit is as if it were not there.
//!
//! ```text
//!   MADT   each processor's local APIC
//!   SRAT   which processors and which memory belong to which node
//!   SLIT   how far nodes are from each other, 10 being near
//! ```

use alloc::vec::Vec;
use core::ops::Range;

use super::paging;

const HEADER: usize = 36;
/// No table of a real machine is longer.
const TABLE_BYTES_MAX: usize = 1 << 20;

/// What SRAT says.
#[derive(Default)]
pub(super) struct Affinity {
    /// Node and local APIC of each processor.
    pub(super) cpus: Vec<(u32, u32)>,
    /// Node and bytes of each range of memory.
    pub(super) memory: Vec<(u32, Range<u64>)>,
}

/// The tables of the machine whose root pointer is at physical address `rsdp`.
pub(super) struct Tables(Vec<&'static [u8]>);

impl Tables {
    /// Reads the list of tables; there are none if `rsdp` is 0.
    pub(super) fn new(rsdp: u64) -> Tables {
        Tables(list(rsdp).unwrap_or_default())
    }

    fn find(&self, signature: [u8; 4]) -> Option<&'static [u8]> {
        self.0.iter().find(|table| table.starts_with(&signature)).copied()
    }

    /// The local APICs of processors that can be started, in the firmware's order.
    pub(super) fn apics(&self) -> Vec<u32> {
        const LOCAL_APIC: u8 = 0;
        const ENABLED: u32 = 1;
        let Some(table) = self.find(*b"APIC") else { return Vec::new() };
        records(table, HEADER + 8)
            .filter(|record| {
                record[0] == LOCAL_APIC && u32_at(record, 4).unwrap_or(0) & ENABLED != 0
            })
            .map(|record| u32::from(record[3]))
            .collect()
    }

    /// Which node everything belongs to; empty if the machine has no nodes.
    pub(super) fn affinity(&self) -> Affinity {
        const CPU: u8 = 0;
        const MEMORY: u8 = 1;
        let mut affinity = Affinity::default();
        let Some(table) = self.find(*b"SRAT") else { return affinity };
        for record in records(table, HEADER + 12) {
            match record[0] {
                CPU => affinity.cpus.extend(cpu_affinity(record)),
                MEMORY => affinity.memory.extend(memory_affinity(record)),
                _ => {}
            }
        }
        affinity
    }

    /// The distance from node to node, by row.
    pub(super) fn distances(&self) -> Option<Vec<Vec<u8>>> {
        let table = self.find(*b"SLIT")?;
        let count = usize::try_from(u64_at(table, HEADER)?).ok()?;
        let matrix = table.get(HEADER + 8..)?;
        let rows: Vec<Vec<u8>> = matrix.chunks_exact(count.max(1)).map(<[u8]>::to_vec).collect();
        (rows.len() == count).then_some(rows)
    }
}

fn cpu_affinity(record: &[u8]) -> Option<(u32, u32)> {
    const ENABLED: u32 = 1;
    let high = record.get(9..12)?;
    let node = u32::from_le_bytes([record[2], high[0], high[1], high[2]]);
    (u32_at(record, 4)? & ENABLED != 0).then_some((node, u32::from(record[3])))
}

fn memory_affinity(record: &[u8]) -> Option<(u32, Range<u64>)> {
    const ENABLED: u32 = 1;
    let (start, bytes) = (u64_at(record, 8)?, u64_at(record, 16)?);
    let enabled = u32_at(record, 28)? & ENABLED != 0;
    (enabled && bytes > 0).then_some((u32_at(record, 2)?, start..start.checked_add(bytes)?))
}

/// The tables that the root names, by way of the pointer at `rsdp`.
fn list(rsdp: u64) -> Option<Vec<&'static [u8]>> {
    const REVISION: usize = 15;
    if rsdp == 0 {
        return None;
    }
    let pointer = bytes(rsdp, 20)?;
    if !pointer.starts_with(b"RSD PTR ") {
        return None;
    }
    // The newer root has addresses of 64 bits.
    if pointer[REVISION] >= 2
        && let Some(root) = table(u64_at(bytes(rsdp, 36)?, 24)?)
    {
        let entries = root[HEADER..].chunks_exact(8);
        return Some(entries.filter_map(|entry| table(u64_at(entry, 0)?)).collect());
    }
    let root = table(u64::from(u32_at(pointer, 16)?))?;
    let entries = root[HEADER..].chunks_exact(4);
    Some(entries.filter_map(|entry| table(u64::from(u32_at(entry, 0)?))).collect())
}

/// The table at a physical address; at least its header.
fn table(address: u64) -> Option<&'static [u8]> {
    let length = u32_at(bytes(address, HEADER)?, 4)? as usize;
    (HEADER..=TABLE_BYTES_MAX).contains(&length).then(|| bytes(address, length))?
}

/// Bytes at a physical address; none beyond what the direct map has.
fn bytes(address: u64, count: usize) -> Option<&'static [u8]> {
    let end = address.checked_add(count as u64)?;
    if end > paging::PHYSICAL_END {
        return None;
    }
    // SAFETY: boot's direct map has all physical addresses below its end. The firmware keeps its
    // tables out of usable memory, so that nobody writes them.
    Some(unsafe { core::slice::from_raw_parts(paging::direct(address), count) })
}

/// The records of `table` from `start` up; each at least 4 bytes. Ends at one that does not fit.
fn records(table: &[u8], start: usize) -> impl Iterator<Item = &[u8]> {
    let mut rest = table.get(start..).unwrap_or_default();
    core::iter::from_fn(move || {
        let length = usize::from(*rest.get(1)?);
        if length < 4 {
            return None;
        }
        let (record, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(record)
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
