//! Several programs on one machine: the cliff, and what keeps a machine from falling off it.
//!
//! The same at full size: `vellum run runs/thrash.toml --degree 1..16`.

use std::path::{Path, PathBuf};

use vellum_lab::run::degrees::{Degrees, Remedy, degrees};
use vellum_lab::run::{Plan, RunReport};

fn runs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../runs").join(name)
}

/// Programs of 2 MiB on a machine with 8 MiB: a small `runs/thrash.toml`.
const SMALL: &str = r#"
duration = "2500ms"
[machine]
memory = "8M"
cpus = 2
policy = "fifo"
swap = "nvme"
page_cluster = 0
seed = 1
[control]
window = "10ms"
period = "10ms"
residence = "500ms"
settle = "100ms"
sustain = "100ms"
[[process]]
pattern = "uniform"
size = "2M"
compute = "1us"
"#;

fn plan(text: &str) -> Plan {
    match Plan::parse(text, Path::new("small.toml")) {
        Ok(plan) => plan,
        Err(error) => panic!("{error}"),
    }
}

fn sweep(plan: &Plan, list: &[u32], remedies: &[Remedy]) -> Degrees {
    match degrees(plan, list, remedies, || ()) {
        Ok(result) => result,
        Err(error) => panic!("{error}"),
    }
}

fn run(plan: &Plan) -> RunReport {
    match plan.run(|_| ()) {
        Ok(report) => report,
        Err(error) => panic!("{}: {error}", plan.path.display()),
    }
}

#[test]
fn work_falls_off_a_cliff_where_working_sets_pass_memory_and_load_control_prevents_it() {
    // It takes some tenths of a second to fall.
    let long = plan(&SMALL.replace("2500ms", "5s"));
    let list = [2, 3, 4, 5, 8];
    let result = sweep(&long, &list, &[Remedy::None, Remedy::WorkingSet]);
    let peak = result.peak("none");
    let work = |control: &str, degree: u32| {
        let point = result.of(control).find(|point| point.degree == degree);
        point.expect("it has been run").references_per_second / peak
    };
    // Four sets of 2 MiB are 8 MiB, of which the kernel keeps some: the cliff is at 4, give or take 1.
    assert!(work("none", 2) > 0.95 && work("none", 3) > 0.95);
    for degree in [5, 8] {
        assert!(work("none", degree) < 0.2, "{degree}: {}", work("none", degree));
        let controlled = work("working-set", degree);
        assert!(controlled > 0.8, "{degree} under control: {controlled}");
    }
    for point in result.of("none") {
        assert_eq!(point.thrashing > 0.5, point.degree >= 5, "{point:?}");
        assert_eq!(point.suspensions, 0);
    }
    for point in result.of("working-set") {
        assert!(point.thrashing < 0.2, "{point:?}");
        assert_eq!(point.suspensions > 0, point.degree >= 4, "{point:?}");
        assert!(point.slowest_per_second > 0.0, "somebody starves: {point:?}");
    }
}

#[test]
fn every_remedy_does_more_work_than_none_or_says_why_not() {
    let all = [Remedy::None, Remedy::FaultFrequency, Remedy::Admission, Remedy::Local, Remedy::Ram];
    let result = sweep(&plan(SMALL), &[6], &all);
    let work = |control: &str| result.peak(control);
    assert!(work("pff") > 3.0 * work("none"), "{result}");
    assert!(work("admission") > 3.0 * work("none"), "{result}");
    assert!(work("ram") > 3.0 * work("none"), "{result}");
    // All need more than their part: each evicts its own pages, and nobody is better off.
    assert!((0.3..1.5).contains(&(work("local") / work("none"))), "{result}");
    let slowest = |control: &str| result.of(control).next().map(|p| p.slowest_per_second);
    assert_eq!(slowest("admission"), Some(0.0), "who is not let in waits");
    assert!(result.of("admission").all(|point| point.major_per_second < 1.0), "{result}");
}

#[test]
fn local_replacement_protects_who_needs_little_from_who_needs_too_much() {
    let text = format!(
        "{SMALL}name = \"small\"\n[[process]]\nname = \"large\"\npattern = \"sequential\"\n\
         size = \"12M\"\ncompute = \"1us\"\n"
    );
    let global = run(&plan(&text));
    let local = run(&plan(&text.replace("[control]", "[control]\nscope = \"local\"")));
    let work = |report: &RunReport, job: usize| report.jobs[job].references_per_second;
    let alone = work(&run(&plan(SMALL)), 0);
    assert!(work(&global, 0) < 0.8 * alone && global.jobs[0].major > 1000, "{global}");
    assert!(work(&local, 0) > 0.99 * alone && local.jobs[0].major == 0, "{local}");
}

#[test]
fn the_same_scenario_gives_the_same_bytes() {
    let plan = plan(&SMALL.replace("compute", "copies = 6\ncompute"));
    let json = |plan: &Plan| serde_json::to_string(&run(plan)).expect("a report is plain data");
    assert_eq!(json(&plan), json(&plan));
    let list = [2, 5];
    let remedies = [Remedy::None, Remedy::FaultFrequency];
    let (first, second) = (sweep(&plan, &list, &remedies), sweep(&plan, &list, &remedies));
    assert_eq!(first, second, "runs side by side do not mix");
    let order: Vec<_> = first.points.iter().map(|p| (p.control.as_str(), p.degree)).collect();
    assert_eq!(order, [("none", 2), ("none", 5), ("pff", 2), ("pff", 5)]);
}

#[test]
fn programs_arrive_end_and_begin_again() {
    let text = SMALL.replace(
        "compute",
        "copies = 3\nstart = \"100ms\"\nstagger = \"200ms\"\nreferences = 20000\ncompute",
    );
    let once = run(&plan(&text));
    for job in &once.jobs {
        assert_eq!((job.state.as_str(), job.runs, job.references), ("ended", 1, 20_000));
    }
    let again = run(&plan(&text.replace("stagger", "repeat = true\nstagger")));
    let runs: Vec<u64> = again.jobs.iter().map(|job| job.runs).collect();
    assert!(runs[0] > runs[1] && runs[1] > runs[2] && runs[2] > 10, "{runs:?}");
    let first = once.timeline.iter().find(|s| s.references_per_second > 0.0);
    assert!(first.is_some_and(|s| s.at_ns > 100_000_000), "nobody runs before the first arrives");
}

#[test]
fn pressure_is_what_the_stalls_of_all_tasks_come_to() {
    let calm = run(&plan(SMALL));
    assert_eq!((calm.pressure.some.total_ns, calm.pressure.full.total_ns), (0, 0));
    let report = run(&plan(&SMALL.replace("compute", "copies = 8\ncompute")));
    let (some, full) = (report.pressure.some, report.pressure.full);
    assert!(some.total_ns > full.total_ns && full.total_ns > report.elapsed_ns / 4, "{report}");
    assert!(some.total_ns <= report.elapsed_ns, "{report}");
    assert!(some.avg10 > some.avg60 && some.avg60 > some.avg300, "{report}");
}

#[test]
fn the_scenarios_in_runs_can_be_run() {
    let mut thrash = Plan::open(&runs("thrash.toml")).expect("it is a scenario");
    thrash.controls.until_ns = Some(200_000_000);
    let report = run(&thrash);
    assert_eq!(report.jobs.len(), 8);
    assert!(report.cpu.useful < 0.5 && report.faults.major > 1000, "{report}");
    let mut recorded = Plan::open(&runs("recorded.toml")).expect("it is a scenario");
    recorded.controls.until_ns = Some(300_000_000);
    let report = run(&recorded);
    assert!(report.jobs.iter().all(|job| job.references > 0), "{report}");
    assert!(report.oom_kills.is_empty(), "{report}");
}
