//! How fast policies run over a flattened string: `cargo bench -p vellum-lab --bench policies`.
//!
//! 50 M reads of 1 M pages, Zipf 0.9, in memories of 1 % and 10 % of the pages, on one core; CPU time,
//! the best of three runs. Arguments: names of policies to run, all if none.

use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_distr::{Distribution, Zipf};
use vellum_lab::string::{RefString, distances, intervals, loads, simulate};
use vellum_mm::replace::{Choice, POLICIES};

const REFERENCES: usize = 50_000_000;
const PAGES: u32 = 1_000_000;

fn zipf() -> RefString {
    let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(1);
    let zipf = Zipf::new(f64::from(PAGES), 0.9).expect("valid parameters");
    #[allow(clippy::cast_sign_loss)] // ranks begin at 1
    RefString::of_reads((0..REFERENCES).map(|_| zipf.sample(&mut rng) as u64))
}

/// Processor time of this thread, from Linux; elsewhere the time of the clock.
fn now(start: Instant) -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = stat.and_then(|text| text.split(' ').next()?.parse().ok());
    nanoseconds.map_or_else(|| start.elapsed(), Duration::from_nanos)
}

fn best(mut run: impl FnMut() -> u64) -> (u64, Duration) {
    let start = Instant::now();
    let times = (0..3).map(|_| {
        let begin = now(start);
        let faults = run();
        (faults, now(start).saturating_sub(begin))
    });
    times.min_by_key(|&(_, time)| time).expect("three runs")
}

fn main() {
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    let string = zipf();
    println!("{} references, {} pages", string.len(), string.pages());
    println!("string: {:.2} bytes a reference", string.host_bytes() as f64 / string.len() as f64);
    println!("{:<16} {:>10} {:>10} {:>12}", "policy", "frames", "M refs/s", "faults");
    let mut names: Vec<&str> = POLICIES.iter().map(|entry| entry.about.name).collect();
    names.push("clock:r=0");
    for frames in [PAGES / 100, PAGES / 10] {
        let print = |name: &str, (faults, time): (u64, Duration)| {
            let rate = REFERENCES as f64 / time.as_secs_f64() / 1e6;
            println!("{name:<16} {frames:>10} {rate:>10.1} {faults:>12}");
        };
        for name in names.iter().filter(|name| is_wanted(name)) {
            let choice = Choice::parse(name).expect("a registered policy");
            if matches!(
                choice.make(&vellum_mm::replace::Parameters::new(1)),
                vellum_mm::replace::Replacement::Foreseen(_)
            ) {
                continue;
            }
            print(name, best(|| simulate::simulate(&string, &choice, frames, 0).counts.faults));
        }
        if is_wanted("fifo") {
            print("fifo, counted", best(|| loads::fifo(&string, frames).faults));
        }
        if is_wanted("opt") {
            print("opt", best(|| intervals::opt(&string, frames).faults));
        }
    }
    if is_wanted("curve") {
        let mut curve = None;
        let (_, time) = best(|| {
            curve = Some(distances::lru(&string));
            0
        });
        let rate = REFERENCES as f64 / time.as_secs_f64() / 1e6;
        println!("{:<16} {:>10} {rate:>10.1}", "lru, all sizes", "all");
        for frames in [PAGES / 100, PAGES / 10] {
            let faults = curve.as_ref().expect("three runs").at(frames).faults;
            println!("{:<16} {frames:>10} {:>10} {faults:>12}", "", "");
        }
    }
}
