//! Curves in one pass against simulations size by size, and what theory says of them.

use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use vellum_lab::string::simulate::{Run, simulate};
use vellum_lab::string::{RefString, Sample, distances, flatten, intervals, loads};
use vellum_mm::replace::{Choice, POLICIES};

/// References, writes, and pages that are freed now and then (a page that is used after it was freed
/// is another page).
fn random_string(seed: u64, length: usize) -> RefString {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let addresses = rng.random_range(1..60_usize);
    let frees = [0.0, 0.02, 0.2][rng.random_range(0..3)];
    let writes = [0.0, 0.3][rng.random_range(0..2)];
    let skewed = rng.random_bool(0.5);
    let mut page_at = vec![None; addresses];
    let mut string = RefString::new();
    for _ in 0..length {
        let any = rng.random_range(0..addresses);
        let address = if skewed { any * rng.random_range(0..addresses) / addresses } else { any };
        if rng.random_bool(frees) {
            if let Some(page) = page_at[address].take() {
                string.push_free(page);
            }
        } else {
            let page = *page_at[address].get_or_insert(string.pages());
            string.push(page, rng.random_bool(writes));
        }
    }
    string
}

fn run(string: &RefString, policy: &str, frames: u32) -> Run {
    simulate(string, &Choice::parse(policy).expect("a policy"), frames, 7)
}

#[test]
fn one_pass_of_lru_is_a_simulation_of_every_size() {
    for seed in 0..400 {
        let string = random_string(seed, 400);
        let curve = distances::lru(&string);
        for frames in 1..=string.pages().min(70) + 2 {
            let expected = run(&string, "lru", frames).counts;
            assert_eq!(curve.at(frames), expected, "seed {seed}, {frames} frames");
        }
        let enough = curve.frames_enough();
        assert_eq!(curve.at(enough).faults, u64::from(string.pages()), "seed {seed}");
        assert!(enough == 1 || curve.at(enough - 1).faults > u64::from(string.pages()));
    }
}

#[test]
fn one_pass_of_lru_survives_many_moves_of_its_slots() {
    // More references than slots many times over, most pages freed and used again.
    let string = random_string(3, 300_000);
    let curve = distances::lru(&string);
    for frames in [1, 2, 5, 13, 40] {
        assert_eq!(curve.at(frames), run(&string, "lru", frames).counts, "{frames} frames");
    }
}

#[test]
fn counting_intervals_is_opt() {
    for seed in 0..400 {
        let string = random_string(seed, 300);
        for frames in 1..=string.pages().min(40) + 1 {
            let expected = run(&string, "opt", frames).counts.faults;
            assert_eq!(intervals::opt(&string, frames).faults, expected, "seed {seed}, {frames}");
        }
    }
}

#[test]
fn counting_loads_is_fifo() {
    for seed in 0..400 {
        let string = random_string(seed, 400);
        for frames in 1..=string.pages().min(70) + 2 {
            let expected = run(&string, "fifo", frames).counts;
            assert_eq!(loads::fifo(&string, frames), expected, "seed {seed}, {frames} frames");
        }
    }
}

#[test]
fn no_policy_faults_less_than_opt_or_more_than_once_a_reference() {
    for seed in 0..60 {
        let string = random_string(seed, 500);
        for frames in [1, 2, 3, 7, 20] {
            let least = intervals::opt(&string, frames).faults;
            for entry in POLICIES {
                let name = entry.about.name;
                let Run { counts, mean_frames } = run(&string, name, frames);
                assert!(counts.faults >= least, "{name}, seed {seed}, {frames} frames");
                assert!(counts.faults <= string.len() as u64, "{name}, seed {seed}");
                assert!(mean_frames <= f64::from(frames) + 1e-9, "{name}: {mean_frames}");
                assert!(string.has_writes() || counts.writebacks == 0, "{name}, seed {seed}");
            }
        }
    }
}

#[test]
fn with_memory_for_all_pages_only_first_uses_fault() {
    for seed in 0..60 {
        let string = random_string(seed, 300);
        for entry in POLICIES {
            let name = entry.about.name;
            // Policies that size processes give frames up even so.
            let is_sizing = matches!(name, "ws" | "pff");
            let counts = run(&string, name, string.pages().max(1)).counts;
            assert!(is_sizing || counts.faults == counts.cold, "{name}, seed {seed}");
            assert!(is_sizing || counts.writebacks == 0 || name != "lru", "{name}, seed {seed}");
        }
    }
}

/// The stack algorithms of R. L. Mattson et al., "Evaluation techniques for storage hierarchies", IBM
/// Systems Journal 9(2), 1970: what they hold in a small memory, they hold in a larger one. That they
/// hold the same pages is tested beside each; here what follows, on longer strings and real ones.
const STACK: [&str; 4] = ["lru", "opt", "mru", "lfu:keep=1"];

#[test]
fn stack_algorithms_never_fault_more_with_more_frames() {
    for seed in 0..60 {
        let string = random_string(seed, 600);
        for policy in STACK {
            let sizes = 1..=string.pages().min(70) + 2;
            let faults: Vec<u64> =
                sizes.map(|frames| run(&string, policy, frames).counts.faults).collect();
            let grow = faults.windows(2).position(|pair| pair[0] < pair[1]);
            assert_eq!(grow, None, "{policy}, seed {seed}: {faults:?}");
        }
    }
    let traces = Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces");
    for name in ["ls-exact", "shell"] {
        let trace = traces.join(format!("{name}.vtrace"));
        let string = flatten(&trace, |_| ()).expect("a shipped trace").string;
        for policy in STACK {
            let faults: Vec<u64> = (1..=8)
                .map(|part| run(&string, policy, string.pages() * part / 8).counts.faults)
                .collect();
            assert!(faults.is_sorted_by(|small, large| small >= large), "{policy}: {faults:?}");
            assert!(faults[0] > faults[7], "{policy} on {name}: {faults:?}");
        }
    }
}

#[test]
fn beladys_string_faults_more_under_fifo_with_more_frames() {
    let string = RefString::of_reads([1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5]);
    assert_eq!(run(&string, "fifo", 3).counts.faults, 9);
    assert_eq!(run(&string, "fifo", 4).counts.faults, 10);
    let curve = distances::lru(&string);
    assert_eq!([3, 4, 5].map(|frames| curve.at(frames).faults), [10, 8, 5]);
    assert_eq!([3, 4, 5].map(|frames| intervals::opt(&string, frames).faults), [7, 6, 5]);
}

#[test]
fn frames_in_use_are_averaged_over_references() {
    // One page for half of the time, two for the rest; then one of them is freed.
    let mut string = RefString::new();
    for page in [0, 0, 1, 0] {
        string.push(page, false);
    }
    let both = run(&string, "lru", 5).mean_frames;
    assert!((both - 1.5).abs() < 1e-9, "{both}");
    string.push_free(1);
    for page in [0, 0] {
        string.push(page, false);
    }
    let freed = run(&string, "lru", 5).mean_frames;
    assert!((freed - 8.0 / 6.0).abs() < 1e-9, "{freed}");
}

#[test]
fn a_sample_keeps_all_references_of_some_pages() {
    let mut rng = Pcg64Mcg::seed_from_u64(5);
    let string = RefString::of_reads((0..40_000).map(|_| rng.random_range(0..4000)));
    let sample = Sample::new(&string, 0.25, 0, None);
    let pages = f64::from(sample.string.pages());
    assert!((800.0..1200.0).contains(&pages), "{pages} of 4000 pages");
    let mean = sample.string.len() as f64 / pages;
    assert!((mean - 10.0).abs() < 0.5, "each with its 10 references, not {mean}");
    let parts: u32 = (0..vellum_lab::string::PARTS)
        .map(|part| Sample::new(&string, 0.25, 0, Some(part)).string.pages())
        .sum();
    assert_eq!(parts, sample.string.pages(), "the parts make up the sample");
}
