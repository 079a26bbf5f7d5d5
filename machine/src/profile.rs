//! Machine profiles: how large the TLBs are and how long everything takes.
//!
//! A profile is a TOML file; three are built in, and any other can be given by path. Every number
//! in the files of `machines/` says where it comes from: measured, a public document, or assumed.
//! All times are whole numbers, in picoseconds (`_ps`) where a nanosecond is too coarse, else in
//! nanoseconds (`_ns`), so that a simulation adds the same numbers on every host.
//!
//! A key that is missing, unknown or out of range is refused with its line: a misspelt latency that
//! silently kept its default would falsify an experiment.

use std::num::{NonZeroU32, NonZeroU64};

use serde::Deserialize;
use thiserror::Error;

use crate::sim::Translation;

/// The default profile.
const SERVER: &str = include_str!("../../machines/x86-64-server.toml");
/// The built-in profiles by name.
const BUILT_IN: [(&str, &str); 3] = [
    ("x86-64-server", SERVER),
    ("laptop", include_str!("../../machines/laptop.toml")),
    ("small-vm", include_str!("../../machines/small-vm.toml")),
];

/// Why a profile is refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("line {line}: `{field}`: {message}")]
pub struct ProfileError {
    /// The line, from 1.
    pub line: usize,
    /// The key on that line, the name of the table that starts there, or "the profile".
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// A machine.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name, for reports.
    pub name: String,
    /// What it stands for, in a sentence.
    pub description: String,
    /// The processors.
    pub cpu: CpuProfile,
    /// The TLBs of each processor, and walks.
    pub tlb: TlbProfile,
    /// What the kernel spends on a page fault, by its kind.
    pub fault: FaultProfile,
    /// What the kernel spends on a system call.
    pub call: CallProfile,
    /// What the kernel spends on reclaim.
    pub reclaim: ReclaimProfile,
    /// The disks that an experiment can swap to or read files from.
    pub disk: DiskProfiles,
}

/// Processors.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuProfile {
    /// How many, unless an experiment says otherwise.
    pub count: NonZeroU32,
    /// An average instruction, first-level hits of caches and TLB included.
    pub instruction_ps: NonZeroU64,
    /// A switch to another process, the reloading of caches not included.
    pub context_switch_ns: u64,
    /// How long a process runs while another waits for its processor.
    pub quantum_ns: NonZeroU64,
}

/// A set-associative array: entries and ways.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "RawGeometry")]
pub struct Geometry {
    entries: u32,
    ways: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGeometry {
    entries: u32,
    ways: u32,
}

impl TryFrom<RawGeometry> for Geometry {
    type Error = GeometryError;

    fn try_from(raw: RawGeometry) -> Result<Geometry, GeometryError> {
        Geometry::new(raw.entries, raw.ways)
    }
}

/// Why an array of that shape cannot be built.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum GeometryError {
    /// No ways, or more than a set can have.
    #[error("{0} ways: must be 1 to 32")]
    Ways(u32),
    /// The entries do not fill whole sets.
    #[error("{entries} entries cannot be divided into sets of {ways} ways")]
    Uneven {
        /// Entries asked for.
        entries: u32,
        /// Ways asked for.
        ways: u32,
    },
    /// Low bits of the page number could not pick a set.
    #[error("{0} sets: must be a power of two")]
    Sets(u32),
    /// More entries than any processor has; the host would have to hold them.
    #[error("{0} entries: must be at most 1048576")]
    Entries(u32),
}

impl Geometry {
    /// `entries` in sets of `ways`.
    pub const fn new(entries: u32, ways: u32) -> Result<Geometry, GeometryError> {
        if ways == 0 || ways > u32::BITS {
            return Err(GeometryError::Ways(ways));
        }
        if entries > 1 << 20 {
            return Err(GeometryError::Entries(entries));
        }
        if entries == 0 || !entries.is_multiple_of(ways) {
            return Err(GeometryError::Uneven { entries, ways });
        }
        if !(entries / ways).is_power_of_two() {
            return Err(GeometryError::Sets(entries / ways));
        }
        Ok(Geometry { entries, ways })
    }

    /// Entries in all.
    pub const fn entries(self) -> u32 {
        self.entries
    }

    /// Entries of a set, at most 32.
    pub const fn ways(self) -> u32 {
        self.ways
    }

    /// Sets, a power of two.
    pub const fn sets(self) -> u32 {
        self.entries / self.ways
    }
}

/// How many address spaces the tags of a TLB tell apart: 1 to 16.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "u32")]
pub struct Spaces(u32);

impl Spaces {
    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Spaces {
    type Error = String;

    fn try_from(count: u32) -> Result<Spaces, String> {
        let max = crate::tlb::SLOTS_MAX;
        match count {
            0 => Err(format!("0 spaces: must be 1 to {max}")),
            _ if count > max => Err(format!("{count} spaces: must be 1 to {max}")),
            _ => Ok(Spaces(count)),
        }
    }
}

/// The TLBs of one processor.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlbProfile {
    /// Address spaces whose entries survive a switch.
    pub spaces: Spaces,
    /// The largest range, in pages, that is invalidated page by page.
    pub flush_ceiling_pages: u64,
    /// A hit in the second level, beyond one in the first.
    pub l2_hit_ps: u64,
    /// One entry that a walk reads.
    pub walk_entry_ps: u64,
    /// What the initiator of a shootdown waits for each other processor that must take part.
    pub shootdown_ns: u64,
    /// First level, data, 4 KiB.
    pub l1_data: Geometry,
    /// First level, data, 2 MiB.
    pub l1_data_2m: Geometry,
    /// First level, instructions, 4 KiB.
    pub l1_code: Geometry,
    /// First level, instructions, 2 MiB.
    pub l1_code_2m: Geometry,
    /// Second level, data and instructions of both sizes.
    pub l2: Geometry,
    /// The paging-structure cache: entries of level 2.
    pub structures: Geometry,
}

/// Processor time of a page fault from trap to return, by its kind, without waiting for a disk.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultProfile {
    /// A first write to anonymous memory: a frame, zeroed.
    pub zero_fill_ns: u64,
    /// A first read of anonymous memory: the shared zero frame.
    pub zero_page_ns: u64,
    /// A write to a shared frame: a frame, copied.
    pub copy_ns: u64,
    /// A write to a frame that nobody else maps any more.
    pub reuse_ns: u64,
    /// A file page that is in memory.
    pub file_map_ns: u64,
    /// Each neighbour that fault-around maps besides.
    pub file_around_ns: u64,
    /// The first write to a clean page of a shared file.
    pub make_dirty_ns: u64,
    /// A fault that finds its entry right.
    pub spurious_ns: u64,
    /// A page found in the swap cache, or swapped in: the processor's share.
    pub swap_in_ns: u64,
    /// A file page that had to be read: the processor's share.
    pub file_fill_ns: u64,
    /// A first write that gets a whole 2 MiB.
    pub huge_fill_ns: u64,
}

/// Processor time of system calls.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallProfile {
    /// Entering the kernel and leaving it.
    pub enter_ns: u64,
    /// `mmap`, besides entering.
    pub map_ns: u64,
    /// `munmap` of a range without pages, besides entering.
    pub unmap_ns: u64,
    /// Each anonymous page unmapped.
    pub unmap_page_ns: u64,
    /// Each file page unmapped.
    pub unmap_file_page_ns: u64,
    /// Each page whose rights `mprotect` changes.
    pub protect_page_ns: u64,
    /// Each page dropped by `madvise`.
    pub discard_page_ns: u64,
    /// `fork` of a process without pages.
    pub fork_ns: u64,
    /// Each page whose entry `fork` copies.
    pub fork_page_ns: u64,
}

/// Processor time of reclaim.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReclaimProfile {
    /// Each frame looked at.
    pub scan_ns: u64,
    /// Each page evicted, beside any writing.
    pub evict_ns: u64,
}

/// The disks of a machine.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskProfiles {
    /// Memory that holds compressed pages.
    pub zram: ZramProfile,
    /// Flash on PCI Express, or what a cloud presents as such.
    pub nvme: FlashProfile,
    /// Flash on SATA.
    pub ssd: FlashProfile,
    /// A rotating disk.
    pub hdd: HddProfile,
}

/// A compressed disk in memory: costs processor time, never makes anyone wait.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZramProfile {
    /// Compressing 4 KiB.
    pub compress_ns: u64,
    /// Decompressing 4 KiB.
    pub decompress_ns: u64,
    /// What a stored page occupies in memory, in percent of its size.
    pub stored_percent: NonZeroU32,
}

/// A flash disk.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlashProfile {
    /// From request to the start of the transfer, for a read.
    pub read_latency_ns: u64,
    /// The same for a write, which ends in the disk's own buffer.
    pub write_latency_ns: u64,
    /// Bytes a second that are read at most.
    pub read_bandwidth: NonZeroU64,
    /// Bytes a second that are written at most.
    pub write_bandwidth: NonZeroU64,
    /// Requests that the disk works on at once.
    pub queue_depth: NonZeroU32,
    /// Whether data can flow both ways at once.
    pub full_duplex: bool,
}

/// A rotating disk.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HddProfile {
    /// A seek to the next track.
    pub seek_min_ns: u64,
    /// A seek across the whole disk.
    pub seek_max_ns: u64,
    /// Turns a minute.
    pub turns_per_minute: NonZeroU32,
    /// Bytes a second once the head is there.
    pub bandwidth: NonZeroU64,
    /// Bytes of the disk, for the length of seeks.
    pub bytes: NonZeroU64,
}

impl Profile {
    /// Reads a profile.
    pub fn parse(text: &str) -> Result<Profile, ProfileError> {
        toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start).min(text.len());
            let before = text.bytes().take(offset).filter(|&b| b == b'\n').count();
            let source = text.lines().nth(before).unwrap_or("").trim();
            let field = match source.split_once('=') {
                _ if source.is_empty() || source.starts_with('#') => "the profile",
                Some((key, _)) => key.trim(),
                None => source.trim_matches(['[', ']']),
            };
            ProfileError {
                line: before + 1,
                field: field.to_owned(),
                message: error.message().to_owned(),
            }
        })
    }

    /// The profile built in under `name`.
    ///
    /// # Panics
    /// Never: a test reads them all.
    pub fn built_in(name: &str) -> Option<Profile> {
        let (_, text) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name)?;
        Some(Profile::parse(text).expect("the built-in profiles are valid"))
    }

    /// The names of the built-in profiles, the default first.
    pub fn built_in_names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// The time that a translation takes beyond the access itself.
    #[inline]
    pub fn translation_ps(&self, translation: Translation) -> u64 {
        use crate::sim::Level;
        match translation {
            // A fault's own cost, which is hundreds of times higher, includes the walk.
            Translation::Hit { level: Level::L1, .. } | Translation::Fault => 0,
            Translation::Hit { level: Level::L2, .. } => self.tlb.l2_hit_ps,
            Translation::Walked { entries_read, .. } => {
                self.tlb.l2_hit_ps + u64::from(entries_read) * self.tlb.walk_entry_ps
            }
        }
    }
}

impl Default for Profile {
    fn default() -> Profile {
        Profile::parse(SERVER).expect("the built-in profiles are valid")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The default profile with one piece of text replaced.
    fn altered(from: &str, to: &str) -> Result<Profile, ProfileError> {
        assert_eq!(SERVER.matches(from).count(), 1, "`{from}` must name one place");
        Profile::parse(&SERVER.replace(from, to))
    }

    #[test]
    fn every_built_in_profile_is_valid_and_knows_its_name() {
        for name in Profile::built_in_names() {
            assert_eq!(Profile::built_in(name).expect("exists").name, name);
        }
        assert_eq!(Profile::built_in("abacus"), None);
        assert_eq!(Some(Profile::default()), Profile::built_in("x86-64-server"));
    }

    #[test]
    fn every_number_of_a_built_in_profile_has_a_source() {
        for (name, text) in BUILT_IN {
            let mut commented = false;
            for line in text.lines().map(str::trim) {
                commented = match line {
                    "" => false,
                    _ if line.starts_with('#') => true,
                    _ => commented,
                };
                let is_number = line.contains('=') && !line.contains('"');
                let sourced = commented || line.contains('#');
                assert!(!is_number || sourced, "{name}: `{line}` has no comment");
            }
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let line = SERVER.lines().position(|l| l.starts_with("zero_fill_ns")).expect("is there");
        let error = altered("zero_fill_ns", "zero_fil_ns").expect_err("a misspelt key");
        assert_eq!((error.line, error.field.as_str()), (line + 1, "zero_fil_ns"));
        assert!(error.message.contains("unknown field"), "{error}");
    }

    #[test]
    fn a_missing_key_is_refused_with_its_table() {
        let error = altered("fork_page_ns = 39", "").expect_err("a missing key");
        assert_eq!(error.field, "call");
        assert!(error.message.contains("fork_page_ns"), "{error}");
    }

    #[test]
    fn impossible_tlbs_are_refused_with_the_reason() {
        let good = "l2 = { entries = 1536, ways = 12 }";
        for (bad, reason) in [
            ("entries = 1536, ways = 0", "must be 1 to 32"),
            ("entries = 1536, ways = 64", "must be 1 to 32"),
            ("entries = 1537, ways = 12", "cannot be divided"),
            ("entries = 0, ways = 12", "cannot be divided"),
            ("entries = 1536, ways = 8", "power of two"),
            ("entries = 4294967295, ways = 1", "at most"),
        ] {
            let error = altered(good, &format!("l2 = {{ {bad} }}")).expect_err(bad);
            assert_eq!(error.field, "l2", "{bad}");
            assert!(error.message.contains(reason), "{bad}: {error}");
        }
    }

    #[test]
    fn zeros_that_would_stop_time_are_refused() {
        for key in ["quantum_ns", "instruction_ps", "spaces"] {
            let line = SERVER.lines().find(|l| l.starts_with(key)).expect("is there");
            let error = altered(line, &format!("{key} = 0")).expect_err(key);
            assert_eq!(error.field, key, "{error}");
        }
    }

    #[test]
    fn text_that_is_no_toml_is_refused_with_its_line() {
        let error = Profile::parse("name = \"x\"\n= 5\n").expect_err("not TOML");
        assert_eq!(error.line, 2, "{error}");
        let error = Profile::parse("# nothing = 1\n").expect_err("empty");
        assert_eq!((error.line, error.field.as_str()), (1, "the profile"), "{error}");
    }
}
