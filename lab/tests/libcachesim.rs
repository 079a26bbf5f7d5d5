//! Misses equal to libCacheSim's, request by request of the same trace.
//!
//! The numbers are those of libCacheSim 0.3.5 (`pip install libcachesim`), printed by
//! `lab/tests/libcachesim_misses.py`, which makes the same requests.

use std::io::Write;

use vellum_lab::string::simulate::simulate;
use vellum_lab::string::{RefString, flatten, intervals};
use vellum_mm::replace::Choice;

const REQUESTS: u64 = 300_000;
const OBJECTS: u64 = 20_000;
const SIZES: [u32; 3] = [200, 2000, 8000];

/// Our name, libCacheSim's, and its misses at each size.
const MISSES: [(&str, &str, [u64; 3]); 10] = [
    ("fifo", "FIFO", [295_095, 254_745, 151_949]),
    ("lru", "LRU", [295_100, 252_967, 141_744]),
    ("clock:r=0", "Clock", [295_073, 251_642, 137_907]),
    ("sieve", "Sieve", [291_843, 235_750, 117_337]),
    ("s3-fifo", "S3FIFO", [290_339, 232_501, 127_161]),
    ("arc", "ARC", [291_530, 236_777, 134_459]),
    ("lfu", "LFU", [292_665, 236_372, 117_303]),
    ("2q", "TwoQ", [291_986, 238_899, 136_053]),
    ("lru-k:retain=0", "LRUK", [292_549, 236_317, 117_301]),
    ("opt", "Belady", [250_055, 157_102, 66_534]),
];

/// `SplitMix64` from 42: half a skewed choice of objects, with a scan through all of them in every
/// second stretch of 40,000 requests.
fn requests() -> Vec<u64> {
    let mut state = 42_u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % OBJECTS
    };
    (0..REQUESTS)
        .map(|at| {
            let (a, b) = (next(), next());
            let scans = at % 4 == 0 && (at / 40_000) % 2 == 1;
            if scans { at / 4 % OBJECTS } else { a * b / OBJECTS }
        })
        .collect()
}

#[test]
fn ten_policies_miss_as_often_as_in_libcachesim() {
    let string = RefString::of_reads(requests());
    for (ours, theirs, misses) in MISSES {
        let choice = Choice::parse(ours).expect("a policy");
        let counted = SIZES.map(|size| simulate(&string, &choice, size, 0).counts.faults);
        assert_eq!(counted, misses, "{ours}, there {theirs}");
    }
    assert_eq!(SIZES.map(|size| intervals::opt(&string, size).faults), MISSES[9].2);
}

#[test]
fn an_imported_trace_is_the_same_string() {
    let folder = tempfile::tempdir().expect("a folder");
    let (raw, trace) = (folder.path().join("t.bin"), folder.path().join("t.vtrace"));
    let mut file = std::fs::File::create(&raw).expect("a file");
    let mut bytes = Vec::new();
    for object in requests() {
        bytes.extend_from_slice(&0_u32.to_le_bytes());
        bytes.extend_from_slice(&(object + 1).to_le_bytes());
        bytes.extend_from_slice(&1_u32.to_le_bytes());
        bytes.extend_from_slice(&(-1_i64).to_le_bytes());
    }
    file.write_all(&bytes).expect("room on the disk");
    let options = vellum_trace::import::Options::default();
    let format = vellum_trace::import::Format::OracleGeneral;
    vellum_trace::import::file(format, &raw, &options, &trace).expect("a trace");
    let flat = flatten(&trace, |_| ()).expect("a string");
    let direct = RefString::of_reads(requests());
    assert!(flat.string.iter().eq(direct.iter()), "the same pages in the same order");
}
