//! `vellum boot` as its users run it. Whatever needs QEMU says `SKIP` without it.

mod support;

use std::io::Read as _;
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
fn output_is_byte_for_byte_the_programs() {
    if !support::can_boot() || system::busybox().is_none() {
        return;
    }
    // Not the kernel's, whatever it looks like; and no line ends that the program has not ended.
    let script =
        "echo '@{\"event\":\"exit\",\"code\":7}'; printf '@\\n@{\"event\":\"refused\"}abc'";
    let output = boot(&["--format", "csv", "-o", "-", "--", "/bin/sh", "-c", script]).output();
    let output = output.expect("the command starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "@{\"event\":\"exit\",\"code\":7}\n@\n@{\"event\":\"refused\"}abc");
    let table = String::from_utf8_lossy(&output.stdout);
    let [head, row] = table.lines().collect::<Vec<_>>()[..] else { panic!("{table}") };
    assert!(head.starts_with("program,memory_bytes,frames,policy,"), "{table}");
    assert!(row.starts_with("\"/bin/sh -c echo ") && row.contains(",268435456,65536,clock,"));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_machine_ends_when_nobody_reads_it() {
    if !support::can_boot() || system::busybox().is_none() {
        return;
    }
    let mut endless = std::process::Command::new(assert_cmd::cargo::cargo_bin("vellum"));
    endless.args(["boot", "--", "/bin/sh", "-c", "while :; do echo y; done"]);
    let mut endless = endless.stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    let mut first = [0; 2];
    let mut output = endless.stdout.take().expect("it is a pipe");
    output.read_exact(&mut first).expect("it says something");
    drop(output);
    assert_eq!((&first, endless.wait().expect("it ends").code()), (b"y\n", Some(0)));
}

#[test]
fn an_interrupted_boot_leaves_nothing_behind() {
    if !support::can_boot() || system::busybox().is_none() {
        return;
    }
    let scratch = tempfile::tempdir().expect("there is a temporary directory");
    let mut endless = std::process::Command::new(assert_cmd::cargo::cargo_bin("vellum"));
    endless
        .args(["boot", "--", "/bin/sh", "-c", "echo y; sleep 1000"])
        .env("TMPDIR", scratch.path());
    let mut endless = endless.stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    let output = endless.stdout.as_mut().expect("it is a pipe");
    output.read_exact(&mut [0; 2]).expect("it says something");
    let id = endless.id().to_string();
    let killed = std::process::Command::new("kill").args(["-TERM", &id]).status();
    assert!(killed.expect("there is a kill").success());
    assert_eq!(endless.wait().expect("it ends").code(), Some(130));
    let left = std::fs::read_dir(scratch.path()).expect("it can be listed").count();
    assert_eq!(left, 0);
}

#[test]
fn the_kernel_speaks_on_standard_error() {
    let scratch = tempfile::tempdir().expect("there is a temporary directory");
    let noise = scratch.path().join("noise");
    std::fs::write(&noise, vec![7; 1 << 20]).expect("there is room");
    let disk = noise.to_str().expect("it is text");
    let Some(output) = booted(&["--disk", disk]) else { return };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("vellum: the disk is not mounted: "), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello from ring 3\n");
}

#[test]
fn a_program_that_is_not_there_is_a_wrong_wish() {
    if support::can_boot() {
        refused(&mut boot(&["--", "/bin/nosuch"]), 2, &["/bin/nosuch", "/bin holds", "forktest"]);
        refused(&mut boot(&["--", "/etc"]), 2, &["/etc: cannot be started: permission denied"]);
    }
}

#[test]
fn arguments_may_be_long() {
    let long = "x".repeat(100_000);
    let Some(output) = booted(&["--memory", "16M", "--", "/bin/hello", &long, ""]) else { return };
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout == format!("hello from ring 3\nargument 1: {long}\nargument 2: \n"));
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
    refused(&mut boot(&["--policy", "nonsense"]), 2, &["nonsense", "clock"]);
    refused(&mut boot(&["--policy", "lru"]), 2, &["lru", "hardware", "curve"]);
    refused(&mut boot(&["--bogus", "--", "/bin/hello"]), 2, &["--bogus"]);
    refused(&mut boot(&["--", ""]), 2, &["the program after `--` has no name"]);
    refused(&mut boot(&["-o", "/nowhere/report"]), 1, &["cannot write in /nowhere"]);
    if qemu::find().is_ok() {
        let mut small = boot(&["--memory", "8M", "--swap", "2049M"]);
        refused(&mut small, 1, &["8 MiB of memory can have at most 2048 MiB of swap"]);
    }
}
