//! Disks: how long a request waits and takes.
//!
//! ```text
//!   submit ──> a place in the queue ──> latency ──────> transfer ──> done
//!              (queue_depth at once)    in parallel     one after another, at the bandwidth
//! ```
//!
//! So a disk delivers the lesser of its bandwidth and of what the queue allows: `queue_depth`
//! requests in each latency (Little's law, J. D. C. Little, "A Proof for the Queuing Formula L =
//! λW", Operations Research 9, 1961). Requests of one direction complete in the order they were
//! submitted. The kinds differ in kind, not only in numbers: zram never waits but costs processor
//! time; flash knows no distance and, on PCI Express, reads while it writes; a rotating disk serves
//! one request at a time and moves its head.
//!
//! A disk is a calculation, not a process: it answers at once when a request *will* be done, and
//! the world puts that into its event queue. Hence requests are served in the order of submission;
//! nothing overtakes, so the elevator of a rotating disk is not modelled.
//!
//! Knows nothing of: files, slots, who waits.

use std::collections::{BTreeMap, VecDeque};
use std::str::FromStr;

use thiserror::Error;
use vellum_mm::addr::{Nanos, PAGE_BYTES};

use crate::profile::{DiskProfiles, FlashProfile, HddProfile, ZramProfile};

/// Which way the bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// From the disk to memory.
    Read,
    /// From memory to the disk.
    Write,
}

/// What is asked of a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Which way.
    pub direction: Direction,
    /// Where on the disk, in bytes; only a rotating disk cares.
    pub position: u64,
    /// How much.
    pub bytes: u64,
}

/// What a disk answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Service {
    /// When the request is complete.
    pub done: Nanos,
    /// Processor time that whoever submits it must spend besides.
    pub cpu_ns: Nanos,
}

/// The kinds of disks that a profile describes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DiskKind {
    /// Compressed memory.
    Zram,
    /// Flash on PCI Express.
    Nvme,
    /// Flash on SATA.
    Ssd,
    /// A rotating disk.
    Hdd,
}

/// The name of no kind of disk.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("no disk is called `{0}`; there are zram, nvme, ssd and hdd")]
pub struct UnknownDisk(pub String);

impl FromStr for DiskKind {
    type Err = UnknownDisk;

    fn from_str(name: &str) -> Result<DiskKind, UnknownDisk> {
        match name {
            "zram" => Ok(DiskKind::Zram),
            "nvme" => Ok(DiskKind::Nvme),
            "ssd" => Ok(DiskKind::Ssd),
            "hdd" => Ok(DiskKind::Hdd),
            _ => Err(UnknownDisk(name.to_owned())),
        }
    }
}

/// What a disk has done.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DiskCounts {
    /// Read requests.
    pub reads: u64,
    /// Write requests.
    pub writes: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Time during which at least one request was being served.
    pub busy_ns: u64,
    /// Time that requests waited for a place in the queue or for the transfers before theirs, in
    /// sum.
    pub wait_ns: u64,
    /// Processor time spent, in sum.
    pub cpu_ns: u64,
}

/// A disk, and the requests that it is working on.
#[derive(Clone, Debug)]
pub struct Disk {
    model: Model,
    /// When each place taken so far is free again, by direction: in order, as transfers are.
    places: [VecDeque<Nanos>; 2],
    queue_depth: usize,
    lanes_free: [Nanos; 2], // when the transfers of each direction are done
    busy_until: Nanos,
    counts: DiskCounts,
}

#[derive(Clone, Debug)]
enum Model {
    Zram(ZramProfile),
    Flash(FlashProfile),
    Hdd(HddProfile, u64), // and the position of the head
}

impl Disk {
    /// An idle disk of `kind`, as `profiles` describes it.
    pub fn new(kind: DiskKind, profiles: &DiskProfiles) -> Disk {
        match kind {
            DiskKind::Zram => Disk::zram(&profiles.zram),
            DiskKind::Nvme => Disk::flash(&profiles.nvme),
            DiskKind::Ssd => Disk::flash(&profiles.ssd),
            DiskKind::Hdd => Disk::hdd(&profiles.hdd),
        }
    }

    /// A compressed disk in memory.
    pub fn zram(profile: &ZramProfile) -> Disk {
        Disk::with_model(Model::Zram(profile.clone()), 1)
    }

    /// A flash disk.
    pub fn flash(profile: &FlashProfile) -> Disk {
        Disk::with_model(Model::Flash(profile.clone()), profile.queue_depth.get() as usize)
    }

    /// A rotating disk, its head at position 0.
    pub fn hdd(profile: &HddProfile) -> Disk {
        Disk::with_model(Model::Hdd(profile.clone(), 0), 1)
    }

    fn with_model(model: Model, queue_depth: usize) -> Disk {
        Disk {
            model,
            places: [VecDeque::new(), VecDeque::new()],
            queue_depth,
            lanes_free: [0; 2],
            busy_until: 0,
            counts: DiskCounts::default(),
        }
    }

    /// Hands a request to the disk at `now`, behind all those submitted before.
    pub fn submit(&mut self, now: Nanos, request: Request) -> Service {
        self.count(request);
        let (latency, transfer, lane) = match &mut self.model {
            Model::Zram(profile) => {
                let page_ns = match request.direction {
                    Direction::Read => profile.decompress_ns,
                    Direction::Write => profile.compress_ns,
                };
                let cpu_ns = page_ns * request.bytes.div_ceil(PAGE_BYTES);
                self.counts.cpu_ns += cpu_ns;
                return Service { done: now, cpu_ns };
            }
            Model::Flash(profile) => flash_times(profile, request),
            Model::Hdd(profile, head) => {
                let latency = positioning_ns(profile, *head, request.position);
                *head = request.position.saturating_add(request.bytes);
                (latency, transfer_ns(request.bytes, profile.bandwidth.get()), 0)
            }
        };
        let start = self.take_place(now);
        let ready = start + latency;
        let begins = ready.max(self.lanes_free[lane]);
        let done = begins + transfer;
        self.lanes_free[lane] = done;
        self.places[lane].push_back(done);
        self.counts.wait_ns += (start - now) + (begins - ready);
        self.counts.busy_ns += done.saturating_sub(start.max(self.busy_until));
        self.busy_until = self.busy_until.max(done);
        Service { done, cpu_ns: 0 }
    }

    /// When a request submitted at `now` is taken up.
    fn take_place(&mut self, now: Nanos) -> Nanos {
        let [reads, writes] = &mut self.places;
        if reads.len() + writes.len() < self.queue_depth {
            return now;
        }
        let (read, write) = (reads.front(), writes.front());
        let first = if write.is_none_or(|&write| read.is_some_and(|&read| read <= write)) {
            reads.pop_front()
        } else {
            writes.pop_front()
        };
        first.map_or(now, |free| free.max(now))
    }

    fn count(&mut self, request: Request) {
        match request.direction {
            Direction::Read => {
                self.counts.reads += 1;
                self.counts.read_bytes += request.bytes;
            }
            Direction::Write => {
                self.counts.writes += 1;
                self.counts.written_bytes += request.bytes;
            }
        }
    }

    /// What it has done so far; requests not complete yet are counted as a whole.
    pub fn counts(&self) -> DiskCounts {
        self.counts
    }
}

/// Latency, transfer time and lane of a request to a flash disk.
fn flash_times(profile: &FlashProfile, request: Request) -> (Nanos, Nanos, usize) {
    let (latency, bandwidth, lane) = match request.direction {
        Direction::Read => (profile.read_latency_ns, profile.read_bandwidth, 0),
        Direction::Write => (profile.write_latency_ns, profile.write_bandwidth, 1),
    };
    let lane = if profile.full_duplex { lane } else { 0 };
    (latency, transfer_ns(request.bytes, bandwidth.get()), lane)
}

/// The time that `bytes` take at `bandwidth` bytes a second, rounded up.
fn transfer_ns(bytes: u64, bandwidth: u64) -> Nanos {
    (u128::from(bytes) * 1_000_000_000).div_ceil(u128::from(bandwidth)) as Nanos
}

/// Seek and rotation from `head` to `position`: none if it is where the last request ended.
///
/// The seek grows with the root of the distance (the arm accelerates half of the way), the rotation
/// is half a turn; C. Ruemmler and J. Wilkes, "An Introduction to Disk Drive Modeling", IEEE
/// Computer 27(3), 1994.
fn positioning_ns(profile: &HddProfile, head: u64, position: u64) -> Nanos {
    if head == position {
        return 0;
    }
    let distance = head.abs_diff(position).min(profile.bytes.get());
    // The root in 1/2^20, from a fraction in 1/2^40: whole numbers, alike on every host.
    let fraction = (u128::from(distance) << 40) / u128::from(profile.bytes.get());
    let root = fraction.isqrt();
    let span = u128::from(profile.seek_max_ns.saturating_sub(profile.seek_min_ns));
    let seek = profile.seek_min_ns + ((span * root) >> 20) as u64;
    let half_turn = 30_000_000_000 / u64::from(profile.turns_per_minute.get());
    seek + half_turn
}

/// Stamps in place of the contents of a disk's blocks, for tests; see
/// [`Ram::with_contents`](crate::ram::Ram::with_contents).
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Contents {
    stamps: BTreeMap<u64, u64>,
}

impl Contents {
    /// The stamp of `block`; 0 if it was never written.
    pub fn read(&self, block: u64) -> u64 {
        self.stamps.get(&block).copied().unwrap_or(0)
    }

    /// Replaces the stamp of `block`.
    pub fn write(&mut self, block: u64, stamp: u64) {
        self.stamps.insert(block, stamp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    fn page(direction: Direction, position: u64) -> Request {
        Request { direction, position, bytes: 4096 }
    }

    fn flash(latency: u64, bandwidth: u64, depth: u32) -> Disk {
        let mut profile = Profile::default().disk.nvme;
        profile.read_latency_ns = latency;
        profile.read_bandwidth = bandwidth.try_into().expect("not zero");
        profile.queue_depth = depth.try_into().expect("not zero");
        Disk::flash(&profile)
    }

    /// Requests of 4 KiB a second that complete if `count` are submitted at once.
    fn throughput(disk: &mut Disk, count: u64) -> f64 {
        let last = (0..count).map(|_| disk.submit(0, page(Direction::Read, 0)).done).last();
        count as f64 * 1e9 / last.expect("at least one") as f64
    }

    #[test]
    fn throughput_is_the_lesser_of_bandwidth_and_queue_over_latency() {
        let mut seen = [false; 2];
        for latency in [10_000, 100_000, 1_000_000] {
            for depth in [1, 4, 32, 256] {
                for bandwidth in [100_000_000, 4_096_000_000] {
                    let transfer = 4096.0 * 1e9 / bandwidth as f64;
                    let by_queue = f64::from(depth) * 1e9 / (latency as f64 + transfer);
                    let by_bandwidth = 1e9 / transfer;
                    let got = throughput(&mut flash(latency, bandwidth, depth), 100_000);
                    let want = by_queue.min(by_bandwidth);
                    seen[usize::from(by_queue < by_bandwidth)] = true;
                    assert!((got / want - 1.0).abs() < 0.02, "{latency} {depth}: {got} {want}");
                }
            }
        }
        assert_eq!(seen, [true, true], "both limits must have been tried");
    }

    #[test]
    fn requests_of_one_direction_complete_in_order() {
        let mut disk = flash(80_000, 1_000_000_000, 7);
        let done: Vec<_> =
            (0..1000).map(|i| disk.submit(i * 500, page(Direction::Read, 0)).done).collect();
        assert!(done.is_sorted());
        assert_eq!(done[0], 80_000 + 4096);
    }

    #[test]
    fn an_idle_disk_makes_nobody_wait() {
        let mut disk = flash(80_000, 1_000_000_000, 1);
        for i in 0..10 {
            let now = i * 1_000_000;
            assert_eq!(disk.submit(now, page(Direction::Read, 0)).done, now + 84_096);
        }
        assert_eq!((disk.counts().wait_ns, disk.counts().busy_ns), (0, 840_960));
    }

    #[test]
    fn a_busy_disk_counts_its_time_once_and_its_waits_each() {
        let mut disk = flash(90_000, 1_000_000_000, 1);
        let request = Request { bytes: 10_000, ..page(Direction::Read, 0) };
        for _ in 0..3 {
            disk.submit(0, request);
        }
        assert_eq!(disk.counts().busy_ns, 300_000);
        assert_eq!(disk.counts().wait_ns, 100_000 + 200_000);
    }

    #[test]
    fn pci_express_reads_while_it_writes_and_sata_does_not() {
        let profiles = Profile::default().disk;
        let read_behind_writes = |kind| {
            let mut disk = Disk::new(kind, &profiles);
            let alone = disk.clone().submit(0, page(Direction::Read, 0)).done;
            let big = Request { direction: Direction::Write, position: 0, bytes: 1 << 30 };
            disk.submit(0, big);
            disk.submit(0, page(Direction::Read, 0)).done - alone
        };
        assert_eq!(read_behind_writes(DiskKind::Nvme), 0);
        assert!(read_behind_writes(DiskKind::Ssd) > 1_000_000_000);
    }

    #[test]
    fn zram_costs_processor_time_and_no_wait() {
        let profiles = Profile::default().disk;
        let mut disk = Disk::new(DiskKind::Zram, &profiles);
        let request = Request { direction: Direction::Write, position: 0, bytes: 8192 };
        let service = disk.submit(5, request);
        assert_eq!(service, Service { done: 5, cpu_ns: 2 * profiles.zram.compress_ns });
        let service = disk.submit(5, page(Direction::Read, 0));
        assert_eq!(service.cpu_ns, profiles.zram.decompress_ns);
    }

    #[test]
    fn a_rotating_disk_seeks_unless_it_goes_on_where_it_was() {
        let profile = Profile::default().disk.hdd;
        let mut disk = Disk::hdd(&profile);
        let transfer = 4096 * 4; // at 250 MB/s
        let first = disk.submit(0, page(Direction::Read, 0)).done;
        assert_eq!(first, transfer);
        let second = disk.submit(first, page(Direction::Read, 4096)).done;
        assert_eq!(second - first, transfer);
        let far = disk.submit(second, page(Direction::Read, profile.bytes.get())).done;
        let half_turn = 4_166_666;
        let error = (far - second).abs_diff(profile.seek_max_ns + half_turn + transfer);
        assert!(error < 1_000, "{error} ns");
    }

    #[test]
    fn random_seeks_take_the_average_of_the_data_sheet() {
        let profile = Profile::default().disk.hdd;
        // All pairs of 64 places: 0.5 ms + 15 ms x 8/15, plus half a turn.
        let places = (0..64).map(|i| i * (profile.bytes.get() / 64));
        let pairs = places.clone().flat_map(|a| places.clone().map(move |b| (a, b)));
        let times = pairs.filter(|(a, b)| a != b).map(|(a, b)| positioning_ns(&profile, a, b));
        let average = times.sum::<u64>() / (64 * 63);
        assert!(average.abs_diff(8_500_000 + 4_166_666) < 200_000, "{average}");
    }

    #[test]
    fn kinds_are_found_by_name() {
        assert_eq!("nvme".parse(), Ok(DiskKind::Nvme));
        assert_eq!("tape".parse::<DiskKind>(), Err(UnknownDisk("tape".to_owned())));
    }

    #[test]
    fn a_block_keeps_its_last_stamp() {
        let mut contents = Contents::default();
        contents.write(7, 1);
        contents.write(7, 2);
        assert_eq!((contents.read(7), contents.read(8)), (2, 0));
    }
}
