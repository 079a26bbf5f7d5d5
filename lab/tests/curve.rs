//! Curves and advice on the shipped recordings, and the fields that scripts read.

use std::path::{Path, PathBuf};

use vellum_lab::advise::{Question, advise};
use vellum_lab::curve::{Curve, Request, Sampling, curve};
use vellum_lab::string::sizing::Scope;
use vellum_lab::string::{Flat, flatten};
use vellum_lab::{Experiment, LabError, Memory};

fn trace(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces").join(name)
}

fn flat(name: &str) -> Flat {
    flatten(&trace(name), |_| ()).expect("a shipped trace")
}

fn request(policies: &[&str]) -> Request {
    Request {
        policies: policies.iter().map(|&policy| policy.to_owned()).collect(),
        sizes: None,
        points: 8,
        sample: None,
        scope: Scope::Local,
        seed: 0,
    }
}

fn of(flat: &Flat, request: &Request) -> Curve {
    curve(Path::new("some.vtrace"), flat, request, |_| ()).expect("a curve")
}

fn faults(curve: &Curve, policy: &str) -> Vec<u64> {
    curve.points.iter().filter(|point| point.policy == policy).map(|point| point.faults).collect()
}

#[test]
fn json_has_exactly_the_documented_fields() {
    let curve = of(&flat("ls-exact.vtrace"), &request(&["lru", "opt"]));
    let json = serde_json::to_value(&curve).expect("plain data");
    let keys = |value: &serde_json::Value| {
        let mut keys: Vec<String> = value.as_object().expect("an object").keys().cloned().collect();
        keys.sort_unstable();
        keys.join(" ")
    };
    assert_eq!(keys(&json), "pages points references seed trace vellum warnings");
    assert_eq!(
        keys(&json["points"][0]),
        "cold faults frames memory_bytes miss_ratio policy writebacks"
    );
    assert_eq!(json["points"].as_array().map(Vec::len), Some(16));
}

#[test]
fn on_real_programs_opt_is_least_and_stack_algorithms_never_lose_by_memory() {
    for name in ["sort.vtrace", "gcc.vtrace", "shell.vtrace"] {
        let curve = of(&flat(name), &request(&["opt", "lru", "clock", "fifo"]));
        let opt = faults(&curve, "opt");
        for policy in ["lru", "clock", "fifo"] {
            let pairs = faults(&curve, policy);
            assert!(pairs.iter().zip(&opt).all(|(faults, least)| faults >= least), "{name}");
        }
        for policy in ["opt", "lru"] {
            assert!(faults(&curve, policy).is_sorted_by(|a, b| a >= b), "{name} {policy}");
        }
        let enough = curve.points.iter().rfind(|point| point.policy == "lru").expect("points");
        assert_eq!((enough.faults, enough.cold), (curve.pages, curve.pages), "{name}");
    }
}

#[test]
fn a_string_has_as_many_pages_as_the_full_system_fills() {
    // Pages that hold something, against frames filled in unlimited memory: a page is in the string when
    // it is used, so what was read around faults and never used is missing, and nothing else.
    for name in ["sort.vtrace", "gcc.vtrace", "shell.vtrace", "python.vtrace"] {
        let Flat { string, report, .. } = flat(name);
        let kinds = report.faults.by_kind;
        let private = kinds.zero_fill + kinds.copy_on_write;
        assert!(u64::from(string.pages()) >= private, "{name}: {} {private}", string.pages());
        assert_eq!(string.references(), report.trace.references, "{name}");
        assert_eq!(report.faults.major, 0, "{name}: warm files, no swap used");
    }
}

#[test]
fn a_sample_is_near_and_says_how_near() {
    let flat = flat("python.vtrace");
    let sizes = Some("4M..32M*2".parse().expect("sizes"));
    let whole = Request { sizes, ..request(&["lru"]) };
    let sampled = of(&flat, &Request { sample: Some(Sampling::Rate(0.3)), ..whole.clone() });
    let whole = of(&flat, &whole);
    assert!(whole.sample.is_none() && sampled.sample.is_some());
    for (whole, sampled) in whole.points.iter().zip(&sampled.points) {
        let error = sampled.error.expect("a sample has an error");
        let off = (whole.miss_ratio - sampled.miss_ratio).abs();
        assert!(off < 5.0 * error.max(whole.miss_ratio / 50.0), "{off} of {error}: {whole:?}");
    }
}

#[test]
fn what_does_not_exist_is_refused_by_name() {
    let flat = flat("ls-exact.vtrace");
    for (policy, says) in
        [("best", "policy `best`"), ("clock:r=2", "r is a whole number from 0 to 1")]
    {
        let error = curve(Path::new("x"), &flat, &request(&[policy]), |_| ()).expect_err(policy);
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn the_advised_limit_holds_when_it_is_tried() -> Result<(), LabError> {
    let path = trace("gcc.vtrace");
    let machine = Experiment::default();
    let question = Question { slowdown: 0.05, machine: machine.clone(), headroom: 0.1 };
    let advice = advise(&path, &question, |_, _| ())?;
    let run = |memory| Experiment { memory, ..machine.clone() }.run(&path, |_| ());
    let unlimited = run(Memory::Unlimited)?;
    let frames = u32::try_from(advice.limit.memory_bytes / 4096).expect("a small machine");
    let limited = run(Memory::Frames(frames))?;
    assert_eq!(limited.time.virtual_ns, advice.limit.virtual_ns);
    assert!(limited.time.virtual_ns as f64 <= 1.05 * unlimited.time.virtual_ns as f64);
    // It is the smallest that was found to hold: what was tried below it did not.
    let below = advice.tried.iter().filter(|tried| tried.memory_bytes < advice.limit.memory_bytes);
    assert!(below.clone().count() > 0 && below.clone().all(|tried| tried.slowdown > 0.05));
    assert!(advice.with_headroom_bytes >= advice.limit.memory_bytes);
    let sets = &advice.working_set;
    assert!(sets.p0_bytes <= sets.p50_bytes && sets.p50_bytes <= sets.p100_bytes);
    let peak = &advice.peak;
    let held = peak.anonymous_bytes + peak.anonymous_clean_bytes + peak.file_clean_bytes;
    assert!(
        held + peak.file_dirty_bytes >= sets.p100_bytes,
        "a window holds no more than the peak"
    );
    Ok(())
}
