//! `vellum curve` and `vellum advise` as users run them.

use assert_cmd::Command;
use serde_json::Value;

fn vellum(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("vellum").expect("it is built");
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).args(arguments);
    command
}

fn stdout(arguments: &[&str]) -> String {
    let output = vellum(arguments).assert().success().get_output().stdout.clone();
    String::from_utf8(output).expect("text")
}

fn refused(arguments: &[&str], says: &str) {
    let output = vellum(arguments).assert().failure().get_output().clone();
    let error = String::from_utf8(output.stderr).expect("text");
    assert!(error.contains(says), "{arguments:?}: {error}");
    assert!(output.stdout.is_empty(), "{arguments:?} printed a result");
}

const LS: &str = "traces/ls-exact.vtrace";

#[test]
fn a_curve_is_a_plot_and_a_table_or_json_or_csv() {
    let text = stdout(&["curve", LS, "--policy", "lru,opt", "--points", "6"]);
    assert!(text.contains("a lru  b opt") && text.contains("references to"), "{text}");
    assert!(!text.contains('\x1b'), "no colours but on a terminal");
    let json: Value =
        serde_json::from_str(&stdout(&["curve", LS, "--frames", "20,40", "--format", "json"]))
            .expect("one object");
    let points = json["points"].as_array().expect("a list");
    assert_eq!(points.len(), 6, "three policies by default");
    assert_eq!((&points[0]["policy"], &points[0]["frames"]), (&"lru".into(), &20.into()));
    let csv =
        stdout(&["curve", LS, "--policy", "fifo", "--memory", "10%..50%+10%", "--format", "csv"]);
    assert_eq!(csv.lines().count(), 6, "{csv}");
    assert!(csv.starts_with("trace,policy,setting,frames,memory_bytes,faults,cold,"), "{csv}");
}

#[test]
fn the_same_question_has_the_same_answer() {
    let ask = [
        "curve",
        LS,
        "--policy",
        "random,lru",
        "--seed",
        "3",
        "--sample",
        "50%",
        "--format",
        "json",
    ];
    assert_eq!(stdout(&ask), stdout(&ask));
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    refused(&["curve", LS, "--policy", "lru,best"], "policy `best`: no policy has this name");
    refused(&["curve", LS, "--policy", "lru-k:k=99"], "k is a whole number from 1 to 8");
    refused(&["curve", LS, "--memory", "1M..2M"], "needs a step");
    refused(&["curve", LS, "--memory", "2%,x"], "`x` is not a size");
    refused(&["curve", LS, "--sample", "0"], "a rate is above 0");
    refused(&["curve", "nowhere.vtrace"], "nowhere.vtrace");
    refused(&["advise", LS, "--slowdown", "fast"], "write 5% or 0.05");
    refused(&["advise", LS, "--format", "csv"], "text or json");
    refused(&["replay", LS, "--policy", "opt"], "vellum curve");
}

#[test]
fn advice_is_a_few_lines_or_json() {
    let text = stdout(&["advise", LS]);
    for word in ["Limit", "Knee", "Working set", "At its peak", "slowdown"] {
        assert!(text.contains(word), "{text}");
    }
    let json: Value =
        serde_json::from_str(&stdout(&["advise", LS, "--slowdown", "20%", "--format", "json"]))
            .expect("one object");
    let slowdown = json["limit"]["slowdown"].as_f64().expect("a number");
    assert!(slowdown <= 0.2, "{slowdown}");
}

#[test]
fn every_policy_is_listed_with_its_settings() {
    let text = stdout(&["policies"]);
    for name in ["fifo", "opt", "lru-k", "clock-pro", "linux", "mglru", "ws", "pff", ":k=2"] {
        assert!(text.contains(name), "{name} is missing:\n{text}");
    }
}
