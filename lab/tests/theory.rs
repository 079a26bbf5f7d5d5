//! What must hold of any replay, whatever its numbers are.

use std::path::{Path, PathBuf};

use vellum_lab::{Experiment, Memory, Report, SwapChoice};
use vellum_machine::disk::DiskKind;
use vellum_machine::ram::Ram;
use vellum_machine::sim::Sim;
use vellum_mm::addr::Frame;
use vellum_mm::check::check_invariants;
use vellum_mm::frames::table::Kind;
use vellum_mm::objects::swap::SwapConfig;
use vellum_mm::replace::Choice;
use vellum_mm::{Config, Vm};
use vellum_trace::Reader;
use vellum_trace::generate::{Pattern, Spec};

const TRACES: [&str; 5] = ["sort", "python", "gcc", "shell", "ls-exact"];

fn trace(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces").join(format!("{name}.vtrace"))
}

fn sized(memory: &str) -> Experiment {
    let size = memory.parse().expect("the sizes here are sizes");
    Experiment { memory: Memory::Size(size), ..Experiment::default() }
}

fn run(experiment: &Experiment, file: &Path) -> Report {
    match experiment.run(file, |_| ()) {
        Ok(report) => report,
        Err(error) => panic!("{}: {error}", file.display()),
    }
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    // Several processes and processors; and chance, which starts from the seed.
    let random = Experiment { policy: "random".to_owned(), seed: 7, ..sized("10%") };
    let json = |experiment: &Experiment| {
        serde_json::to_string(&run(experiment, &trace("shell"))).expect("a report is plain data")
    };
    assert_eq!(json(&random), json(&random));
    let other = Experiment { seed: 8, ..random.clone() };
    assert_ne!(
        json(&random).replace("\"seed\":7", ""),
        json(&other).replace("\"seed\":8", ""),
        "the seed changes what chance decides"
    );
}

#[test]
fn beats_reach_policies_that_live_by_them() {
    // Without beats aging is FIFO: no bit would ever be looked at.
    let of = |policy: &str| {
        let experiment = Experiment { policy: policy.to_owned(), ..sized("8M") };
        run(&experiment, &trace("python")).faults
    };
    assert_ne!(of("aging"), of("fifo"));
}

#[test]
fn every_fault_has_one_kind_and_one_process() {
    for name in TRACES {
        for experiment in [Experiment::default(), sized("25%")] {
            let report = run(&experiment, &trace(name));
            let (faults, kinds) = (report.faults, report.faults.by_kind);
            let sum = kinds.zero_page
                + kinds.zero_fill
                + kinds.file_map
                + kinds.file_fill
                + kinds.swap_in
                + kinds.copy_on_write
                + kinds.reuse
                + kinds.make_dirty
                + kinds.spurious;
            assert_eq!(sum, faults.minor + faults.major, "{name}: {faults:?}");
            let processes = &report.processes;
            assert_eq!(processes.iter().map(|p| p.minor).sum::<u64>(), faults.minor, "{name}");
            assert_eq!(processes.iter().map(|p| p.major).sum::<u64>(), faults.major, "{name}");
        }
    }
}

#[test]
fn no_recorded_access_lies_outside_the_recorded_areas() {
    for name in TRACES {
        let report = run(&Experiment::default(), &trace(name));
        assert_eq!(report.faults.by_kind.violation, 0, "{name}");
        assert_eq!(report.faults.major, 0, "{name}: all files are cached, and memory is ample");
        assert!(report.processes.iter().all(|p| p.exit == "exit 0"), "{name}");
    }
}

#[test]
fn after_the_last_exit_only_the_page_cache_is_left() {
    for (name, share) in [("shell", 10), ("gcc", 25), ("sort", 25)] {
        let file = trace(name);
        let mut reader = Reader::open(&file).expect("the trace is shipped");
        let pages = reader.summary().expect("the recording is complete").pages;
        let frames = u32::try_from(pages * share / 100).expect("shipped traces are small");
        let experiment = Experiment::default();
        let cpus = experiment.profile.cpu.count.get();
        let sim = Sim::new(&experiment.profile, cpus, Ram::new(frames).expect("it is small"));
        let policy = Choice::of("clock");
        let config = Config {
            cpus,
            policy,
            swap: SwapConfig { slots: 16384, page_cluster: 3, in_ram: false },
            ..Config::new(frames)
        };
        let vm = Vm::new(&config, &sim).expect("it is large enough");
        let mut replay = vellum_lab::replay::Replay::new(&experiment, &vm, &sim);
        replay.run(&mut reader, |_| ()).expect("the recording is consistent");

        check_invariants(&vm, &sim, &[]);
        let kinds: Vec<Kind> =
            (0..frames).map(|frame| vm.store().frames.table.peek(Frame(frame)).kind()).collect();
        let count = |kind: Kind| kinds.iter().filter(|&&k| k == kind).count();
        let used =
            count(Kind::File) + count(Kind::Table) + count(Kind::Words) + count(Kind::Reserved);
        assert_eq!(count(Kind::Anon), 0, "{name}: anonymous memory outlived its programs");
        let free = vm.store().frames.zone().free_frames();
        assert_eq!(free + used, frames as usize, "{name}: {kinds:?}");
        assert_eq!(vm.store().swap.used(), 0, "{name}: swap outlived its programs");
        assert!(vm.counts().evicted > 0, "{name}: memory was scarce");
    }
}

/// LRU has the inclusion property (R. L. Mattson et al., "Evaluation techniques for storage
/// hierarchies", IBM Systems Journal 9(2), 1970): what it holds in a small memory, it holds in a
/// larger one. The machine keeps a few frames free, and how many varies by less than the steps
/// here.
#[test]
fn lru_gains_no_faults_from_more_memory() {
    let file = std::env::temp_dir().join(format!("vellum-theory-{}.vtrace", std::process::id()));
    for pattern in [
        Pattern::Zipf { exponent: 0.8, scattered: true },
        Pattern::Uniform,
        Pattern::Sequential,
        Pattern::HotScan { hot: 200, hot_share: 0.7 },
    ] {
        // Stores only: no page is the zero frame, which takes no memory.
        let spec = Spec { pattern, pages: 2000, references: 60_000, write_share: 1.0, seed: 3 };
        spec.write(&file).expect("a temporary trace can be written");
        let faults: Vec<u64> = (2..=14)
            .map(|step| {
                let experiment = Experiment {
                    memory: Memory::Frames(step * 160),
                    policy: "lru".to_owned(),
                    // Reads nothing ahead, and ends every write at once.
                    page_cluster: 0,
                    swap: SwapChoice { disk: Some(DiskKind::Zram), size: None },
                    cpus: Some(1),
                    ..Experiment::default()
                };
                let kinds = run(&experiment, &file).faults.by_kind;
                kinds.swap_in + kinds.zero_fill
            })
            .collect();
        assert!(faults.is_sorted_by(|small, large| small >= large), "{pattern:?}: {faults:?}");
        assert_eq!(faults[faults.len() - 1], 2000, "{pattern:?}: all pages fit: {faults:?}");
        assert!(faults[0] > 2000, "{pattern:?}: {faults:?}");
    }
    std::fs::remove_file(&file).expect("it was just written");
}
