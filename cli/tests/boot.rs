//! `vellum boot` as its users run it. Whatever needs QEMU says `SKIP` without it.

mod support;

use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;
use vellum_emulator::{qemu, system};

fn boot(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("vellum").expect("the command is built");
    command.arg("boot").args(arguments);
    command
}

/// Boots; `None` if that cannot be done here.
fn booted(arguments: &[&str]) -> Option<Output> {
    support::can_boot().then(|| boot(arguments).output().expect("the command starts"))
}

/// Runs what must fail with one line that has all of `words`.
fn refused(command: &mut Command, code: i32, words: &[&str]) {
    let output = command.output().expect("the command starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty() && !stderr.contains("panicked"), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "no `{word}` in: {stderr}");
    }
}

#[test]
fn a_programs_output_and_the_report_do_not_mix() {
    let Some(output) = booted(&["--", "/bin/hello", "a word"]) else { return };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(stdout, "hello from ring 3\nargument 1: a word\n");
    for part in ["machine: 256.0 MiB", "faults ", "reclaim", "memory ", "exit 0         hello"] {
        assert!(stderr.contains(part), "no `{part}` in: {stderr}");
    }
    assert!(!stderr.contains("leaked"), "{stderr}");
}

#[test]
fn standard_input_is_the_programs() {
    if !support::can_boot() || system::busybox().is_none() {
        return;
    }
    let output = boot(&["--", "/bin/busybox", "sort"]).write_stdin("b\nc\na\n").output();
    let output = output.expect("the command starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a\nb\nc\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn json_is_alone_on_standard_output() {
    let arguments = ["--format", "json", "--cpus", "2", "--swap", "none", "--memory", "64M"];
    let Some(output) = booted(&[&arguments[..], &["--", "/bin/forktest"]].concat()) else { return };
    let report: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(report["machine"]["memory_bytes"], 64 << 20);
    assert_eq!(report["machine"]["swap_bytes"], 0);
    assert_eq!(report["machine"]["cpus"], 2);
    assert_eq!(report["program"][0], "/bin/forktest");
    assert_eq!(report["exit"], 0);
    assert!(report["faults"]["by_kind"]["copy_on_write"].as_u64() > Some(500), "{report}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("forktest: done"));
}

#[test]
fn the_report_may_go_to_a_file() {
    let directory = tempfile::tempdir().expect("there is a temporary directory");
    let path = directory.path().join("report.json");
    let name = path.to_str().expect("it is text");
    let Some(output) = booted(&["--format", "json", "-o", name]) else { return };
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello from ring 3\n");
    let report = std::fs::read(&path).expect("it was written");
    let report: Value = serde_json::from_slice(&report).expect("it is JSON");
    assert_eq!(report["processes"][0]["command"], "hello");
}

#[test]
fn what_is_missing_is_named_with_what_to_do() {
    let mut without_qemu = boot(&[]);
    without_qemu.env("VELLUM_QEMU_SYSTEM", "/nowhere/qemu");
    refused(&mut without_qemu, 1, &["/nowhere/qemu", "apt install qemu-system-x86"]);
    if qemu::find().is_ok() {
        let mut without_kernel = boot(&[]);
        without_kernel.env("VELLUM_KERNEL", "/nowhere/kernel");
        refused(&mut without_kernel, 1, &["/nowhere/kernel", "VELLUM_KERNEL"]);
        let mut with_script = boot(&["--add", file!()]);
        // Looked for from the directory of the crate.
        with_script.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        refused(&mut with_script, 1, &["boot.rs", "-static"]);
    }
}

#[test]
fn wrong_wishes_are_refused_before_anything_is_built() {
    refused(&mut boot(&["--memory", "25%"]), 2, &["25%", "256M"]);
    refused(&mut boot(&["--memory", "1M"]), 2, &["8.0 MiB"]);
    refused(&mut boot(&["--swap", "lots"]), 2, &["lots"]);
    refused(&mut boot(&["--cpus", "0"]), 2, &["--cpus"]);
    refused(&mut boot(&["--policy", "nonsense"]), 1, &["nonsense", "clock"]);
    refused(&mut boot(&["--policy", "lru"]), 1, &["lru", "hardware", "curve"]);
    refused(&mut boot(&["--format", "csv"]), 1, &["JSON"]);
}
