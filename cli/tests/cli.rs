//! The command as its users run it.

use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

fn vellum(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::cargo_bin("vellum").expect("the command is built");
    command.current_dir(directory).args(arguments).output().expect("the command starts")
}

fn ok(directory: &Path, arguments: &[&str]) -> String {
    let output = vellum(directory, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).expect("output is text")
}

/// Runs what must fail with `code` and one line that has all of `words`.
fn refused(directory: &Path, arguments: &[&str], code: i32, words: &[&str]) {
    let output = vellum(directory, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?} printed something before it failed");
    assert!(!stderr.contains("panicked"), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{arguments:?}: no `{word}` in: {stderr}");
    }
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../traces").join(name)
}

#[test]
fn a_generated_trace_is_described_replayed_and_exported() {
    let directory = TempDir::new().expect("there is a temporary directory");
    let at = directory.path();
    let generate = ["generate", "uniform", "-o", "u.vtrace", "--pages", "500"];
    ok(at, &[&generate[..], &["--references", "20000"]].concat());
    let info: Value = serde_json::from_str(&ok(at, &["info", "u.vtrace", "--format", "json"]))
        .expect("info prints JSON");
    assert_eq!(info["summary"]["references"], 20_000);
    let arguments = ["replay", "u.vtrace", "--frames", "200", "--format", "json"];
    let report: Value = serde_json::from_str(&ok(at, &arguments)).expect("replay prints JSON");
    assert_eq!(report["machine"]["frames"], 200);
    assert_eq!(report["trace"]["pages"], 500);
    assert!(report["faults"]["major"].as_u64() > Some(1000), "500 pages do not fit 200 frames");
    assert_eq!(ok(at, &arguments), ok(at, &arguments), "the same input gives the same bytes");
    let csv = ok(at, &["export", "u.vtrace", "-o", "-"]);
    assert_eq!(csv.lines().count(), 1 + 20_000 + 4, "a header, the accesses, and four calls");
    if cfg!(feature = "parquet") {
        ok(at, &["export", "u.vtrace", "-o", "u.parquet"]);
        assert!(at.join("u.parquet").metadata().expect("it was written").len() > 1000);
    } else {
        refused(at, &["export", "u.vtrace", "-o", "u.parquet"], 1, &["without Parquet"]);
    }
}

#[test]
fn a_list_of_pages_is_imported() {
    let directory = TempDir::new().expect("there is a temporary directory");
    let at = directory.path();
    std::fs::write(at.join("list"), "# textbook\n7\n0x0 w\n1 r\n2\n0\n").expect("room");
    ok(at, &["import", "--from", "pages", "list", "-o", "list.vtrace"]);
    let report: Value =
        serde_json::from_str(&ok(at, &["replay", "list.vtrace", "--format", "json"]))
            .expect("replay prints JSON");
    // Three pages are only read and share the zero frame; one is written.
    assert_eq!(report["faults"]["by_kind"]["zero_page"], 3);
    assert_eq!(report["faults"]["by_kind"]["zero_fill"], 1);
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let directory = TempDir::new().expect("there is a temporary directory");
    let at = directory.path();
    std::fs::write(at.join("noise"), "this is no trace at all, only text\n").expect("room");
    std::fs::write(at.join("list"), "1\nseven\n").expect("room");
    ok(at, &["generate", "sequential", "-o", "s.vtrace", "--pages", "10", "--references", "20"]);
    refused(at, &["replay", "missing.vtrace"], 1, &["missing.vtrace"]);
    refused(at, &["replay", "noise"], 1, &["noise"]);
    refused(at, &["info", "noise"], 1, &["noise"]);
    refused(at, &["import", "--from", "pages", "list", "-o", "l"], 1, &["list", "line 2"]);
    refused(at, &["replay", "s.vtrace", "--policy", "best"], 2, &["best", "clock", "lru"]);
    refused(at, &["replay", "s.vtrace", "--memory", "1k"], 1, &["too little"]);
    refused(at, &["replay", "s.vtrace", "--memory", "2T"], 1, &["1 TiB"]);
    refused(at, &["replay", "s.vtrace", "--machine", "abacus"], 1, &["abacus", "x86-64-server"]);
    refused(at, &["replay", "s.vtrace", "--memory", "lots"], 2, &["lots"]);
    refused(at, &["replay", "s.vtrace", "--swap", "tape"], 2, &["tape", "nvme"]);
    refused(at, &["export", "s.vtrace", "-o", "s.xlsx"], 1, &["s.xlsx", ".parquet"]);
    refused(at, &["replay", "s.vtrace", "-o", "no/where"], 1, &["cannot write in no"]);
    refused(at, &["record", "--bogus", "--", "true"], 2, &["--bogus"]);
    refused(at, &["dance"], 2, &["dance"]);
    assert!(!at.join("l").exists(), "a refused import leaves nothing behind");
}

#[test]
fn running_out_of_memory_is_a_report_and_not_a_failure() {
    let directory = TempDir::new().expect("there is a temporary directory");
    let at = directory.path();
    let generate = ["generate", "sequential", "-o", "s.vtrace", "--pages", "500"];
    ok(at, &[&generate[..], &["--references", "1000", "--write-share", "1"]].concat());
    let arguments = ["replay", "s.vtrace", "--frames", "100", "--swap", "none", "--format", "json"];
    let report: Value = serde_json::from_str(&ok(at, &arguments)).expect("replay prints JSON");
    assert_eq!(report["oom_kills"].as_array().map(Vec::len), Some(1));
    assert_eq!(report["processes"][0]["exit"], "out of memory");
}

#[test]
fn a_filtered_recording_warns_below_the_memory_it_holds_for() {
    let directory = TempDir::new().expect("there is a temporary directory");
    let trace = shipped("sort.vtrace");
    let trace = trace.to_str().expect("the path is text");
    let output = vellum(directory.path(), &["replay", trace, "--frames", "128"]);
    assert!(output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("256 frames") && stderr.contains("--exact"), "{stderr}");
}

#[test]
fn help_completions_and_manual_pages_are_made() {
    let directory = TempDir::new().expect("there is a temporary directory");
    let at = directory.path();
    assert!(ok(at, &["--help"]).contains("vellum record -o sort.vtrace"));
    for command in ["record", "info", "replay", "import", "generate", "export", "policies"] {
        assert!(ok(at, &[command, "--help"]).contains("Usage"), "{command}");
    }
    assert!(ok(at, &["completions", "bash"]).contains("_vellum"));
    ok(at, &["man", "man1"]);
    assert!(at.join("man1/vellum-replay.1").exists());
    assert!(ok(at, &["policies"]).contains("Corbat"));
}

/// Two programs of 1 MiB on 1.5 MiB.
const SCENARIO: &str = "duration = \"200ms\"\n[machine]\nmemory = \"1536k\"\ncpus = 1\n[control]\n\
                        window = \"5ms\"\nperiod = \"10ms\"\n[[process]]\npattern = \"uniform\"\n\
                        size = \"1M\"\ncompute = \"1us\"\ncopies = 2\n";

#[test]
fn several_programs_are_run_and_their_degree_is_varied() {
    let directory = TempDir::new().expect("there is a temporary directory");
    let at = directory.path();
    std::fs::write(at.join("two.toml"), SCENARIO).expect("the directory can be written");
    let text = ok(at, &["run", "two.toml"]);
    assert!(text.contains("2 programs") && text.contains("pressure some avg10="), "{text}");
    let json = ok(at, &["run", "two.toml", "--control", "working-set", "--format", "json"]);
    let report: Value = serde_json::from_str(&json).expect("run prints JSON");
    assert_eq!(report["control"]["load"], "working-set");
    assert_eq!(report["jobs"].as_array().map(Vec::len), Some(2));
    let csv = ok(at, &["run", "two.toml", "--format", "csv"]);
    assert!(csv.starts_with("at_ns,cpu,useful,") && csv.lines().count() > 10, "{csv}");
    let both = ["run", "two.toml", "--degree", "1..3", "--control", "none,ram"];
    let plot = ok(at, &both);
    assert!(plot.contains("degree of multiprogramming") && plot.contains("control ram"), "{plot}");
    let csv = ok(at, &[&both[..], &["--format", "csv"]].concat());
    assert_eq!(csv.lines().count(), 1 + 2 * 3, "{csv}");
    assert_eq!(csv, ok(at, &[&both[..], &["--format", "csv"]].concat()));
}

#[test]
fn a_scenario_with_a_mistake_is_refused_in_one_line() {
    let directory = TempDir::new().expect("there is a temporary directory");
    let at = directory.path();
    std::fs::write(at.join("bad.toml"), SCENARIO.replace("cpus", "cpu")).expect("as above");
    refused(at, &["run", "bad.toml"], 1, &["bad.toml:4: ", "unknown field `cpu`"]);
    refused(at, &["run", "missing.toml"], 1, &["missing.toml"]);
    std::fs::write(at.join("two.toml"), SCENARIO).expect("as above");
    refused(at, &["run", "two.toml", "--degree", "5..2"], 2, &["5..2"]);
    refused(at, &["run", "two.toml", "--control", "prayer"], 2, &["prayer", "working-set"]);
    refused(at, &["run", "two.toml", "--control", "none,ram"], 1, &["--degree"]);
    let two = format!("{SCENARIO}[[process]]\ntrace = \"no.vtrace\"\n");
    std::fs::write(at.join("more.toml"), two).expect("as above");
    refused(at, &["run", "more.toml"], 1, &["no.vtrace"]);
    refused(at, &["run", "more.toml", "--degree", "2"], 1, &["one [[process]]"]);
}

#[test]
fn a_policy_is_explained_as_a_table_json_and_csv() {
    let directory = TempDir::new().expect("there is a temporary directory");
    let at = directory.path();
    let refs = ["explain", "--policy", "fifo", "--frames", "3", "--refs"];
    let string = "7,0,1,2,0,3,0,4,2,3,0,3,2,1,2,0,1,7,0,1";
    let text = ok(at, &[&refs[..], &[string]].concat());
    assert!(text.contains("faults      15 of 20 (75.00%), 6 of them first uses"), "{text}");
    assert!(text.contains("7 was loaded first, at 1"), "{text}");
    assert!(!text.contains('\x1b'), "no colour but on a terminal");
    let across = ok(at, &[&refs[..], &[string, "--across", "-N"]].concat());
    assert!(!across.contains("f0"), "only what it comes to: {across}");
    let json: Value =
        serde_json::from_str(&ok(at, &[&refs[..], &["7 0w 1 2 0", "--format", "json"]].concat()))
            .expect("explain prints JSON");
    assert_eq!(json["steps"][3]["victim"]["page"], "7");
    assert_eq!(json["counts"]["faults"], 4);
    let csv = ok(at, &[&refs[..], &["7 0w 1 2 0", "--format", "csv"]].concat());
    assert_eq!(
        csv.lines().nth(4).map(|line| line.starts_with("4,2,false,fault,7,0,2 0 1,")),
        Some(true)
    );
    std::fs::write(at.join("refs"), "7 0w # two\n1\n").expect("room");
    assert!(ok(at, &["explain", "--refs-file", "refs"]).contains("3 references to 3 pages"));
}

#[test]
fn a_step_waits_for_a_line() {
    let directory = TempDir::new().expect("there is a temporary directory");
    let step = |input: &str| {
        let mut command = Command::cargo_bin("vellum").expect("the command is built");
        command.current_dir(directory.path()).args(["explain", "--refs", "a,b,c,d", "--step"]);
        let output = command.write_stdin(input).output().expect("the command starts");
        assert!(output.status.success());
        String::from_utf8(output.stdout).expect("output is text")
    };
    let some = step("\n\n");
    assert!(some.contains("\n    3  c") && !some.contains("\n    4  d"), "{some}");
    assert!(!some.contains("faults   "), "not all was shown: {some}");
    assert!(step("\n\n\n").contains("faults      4 of 4"));
}

#[test]
fn a_question_is_asked_told_and_graded() {
    let directory = TempDir::new().expect("there is a temporary directory");
    let at = directory.path();
    // As the OSTEP homework is called: without -c the question, with -c the answers.
    let homework = ["explain", "-p", "FIFO", "-s", "0", "-n", "10", "-C", "3"];
    let question = ok(at, &homework);
    assert!(question.contains("    1  8  hit or miss, who goes?"), "{question}");
    assert!(!question.contains("first use"), "{question}");
    let answers = ok(at, &[&homework[..], &["-c"]].concat());
    assert!(answers.contains("hits         1 of 10 (10.00%)"), "{answers}");
    let listed = ok(at, &["explain", "-a", "8,7,4,2,5,4,7,3,4,5", "-c"]);
    assert_eq!(
        listed.lines().skip(1).collect::<Vec<_>>(),
        answers.lines().skip(1).collect::<Vec<_>>()
    );
    let sheet = "miss\nmiss\nmiss\nmiss 8\nmiss 7\nhit\nmiss 4\nmiss 2\nmiss 5\nmiss 7\n";
    std::fs::write(at.join("right"), sheet).expect("room");
    let grade = [&homework[..], &["--grade", "right"]].concat();
    assert_eq!(ok(at, &grade), "10 of 10 right\n");
    std::fs::write(at.join("wrong"), sheet.replace("miss 4", "hit")).expect("room");
    let output = vellum(at, &[&homework[..], &["--grade", "wrong"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let says = String::from_utf8_lossy(&output.stdout);
    assert_eq!(says, "line 7: page 7: you say hit; it misses, and 4 goes\n9 of 10 right\n");
}

#[test]
fn the_anomaly_is_shown_with_both_tables() {
    let directory = TempDir::new().expect("there is a temporary directory");
    let at = directory.path();
    let fifo = ["explain", "-p", "fifo", "--anomaly"];
    let text = ok(at, &fifo);
    assert!(text.contains("\n1,2,3,4,1,2,5,1,2,3,4,5\n9 faults on 3 frames, 10 on 4\n"), "{text}");
    assert!(text.contains("fifo, 3 frames") && text.contains("fifo, 4 frames"), "{text}");
    let given = ok(at, &[&fifo[..], &["--refs", "3 2 1 0 3 2 4 3 2 1 0 4", "-N"]].concat());
    assert!(given.contains("9 faults on 3 frames, 10 on 4"), "{given}");
    let json: Value = serde_json::from_str(&ok(at, &[&fifo[..], &["--format", "json"]].concat()))
        .expect("the anomaly is JSON");
    assert_eq!(json["anomalies"][0]["more"]["counts"]["faults"], 10);
    let lru = ok(at, &["explain", "-p", "lru", "--anomaly", "--refs", "1 2 3 4 1 2 5 1 2 3 4 5"]);
    assert!(lru.contains("stack algorithm") && lru.contains("none in this string"), "{lru}");
}

#[test]
fn what_cannot_be_explained_is_said_in_one_line() {
    let directory = TempDir::new().expect("there is a temporary directory");
    let at = directory.path();
    let cases: [(&[&str], &[&str]); 12] = [
        (&["--refs", ""], &["no references"]),
        (&[], &["no references", "--refs"]),
        (&["--refs", "1,x-2"], &["reference 2", "x-2"]),
        (&["--refs", "-1"], &["reference 1", "-1"]),
        (&["--refs", "99999999999999999999999"], &["reference 1"]),
        (&["--refs", "1", "-C", "0"], &["0 frames", "1 to 1024"]),
        (&["--refs", "1", "-C", "18446744073709551615"], &["1 to 1024"]),
        (&["-n", "99999999999"], &["99999999999 random references"]),
        (&["--refs", "1", "-b", "2"], &["-b", "CLOCK"]),
        (&["--refs-file", "missing"], &["missing"]),
        (&["--refs", "1", "--grade", "missing"], &["missing"]),
        (&["-n", "5", "--quiz", "--format", "json"], &["--format"]),
    ];
    for (arguments, words) in cases {
        refused(at, &[&["explain"][..], arguments].concat(), 1, words);
    }
    let policy = |name| ["explain", "--refs", "1", "-p", name];
    refused(at, &policy("best"), 2, &["best", "fifo"]);
    refused(at, &policy("lru-k:k=0"), 2, &["lru-k:k=0", "1 to 8"]);
    std::fs::write(at.join("binary"), [0xff, 0xfe, 0, 1]).expect("room");
    refused(at, &["explain", "--refs-file", "binary"], 1, &["binary", "no text"]);
    refused(at, &["explain", "--refs", "1", "--refs-file", "x"], 2, &["--refs-file"]);
    refused(
        at,
        &["explain", "--refs", "1", "-C", "99999999999999999999"],
        2,
        &["99999999999999999999"],
    );
}
