//! The kernel's own tests, on machines of several kinds.
//!
//! Each test boots the image under QEMU and reads what it says. Without QEMU a line that starts
//! with `SKIP` says so.

mod machine;

use std::fs::{self, File};
use std::path::PathBuf;

use machine::{FAILED, PASSED, machine, run};
use tempfile::TempDir;
use vellum_emulator::qemu::{DiskFile, Exit};

/// What the kernel leaves with after a panic.
const PANICKED: Exit = Exit::Code(0x21);

/// Everything that the kernel tests on every machine.
const TESTS: [&str; 10] = [
    "protection",
    "memory",
    "nodes",
    "registers",
    "page faults",
    "exceptions",
    "costs",
    "timer",
    "disks",
    "processors",
];

fn assert_all_passed(output: &str) {
    for test in TESTS {
        let line = format!("@{{\"event\":\"pass\",\"name\":\"{test}\"}}");
        assert!(output.lines().any(|other| other == line), "no `{line}` in:\n{output}");
    }
}

/// A number that a line of `output` has: the line that contains `line`, after `name`.
fn number(output: &str, line: &str, name: &str) -> u64 {
    let found = output.lines().find(|other| other.contains(line)).expect("the line is there");
    let after = found.split(&format!("\"{name}\":")).nth(1).expect("the name is in the line");
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number follows")
}

/// A disk of zeros.
fn disk(folder: &TempDir, name: &str) -> DiskFile {
    let path: PathBuf = folder.path().join(name);
    let file = File::create(&path).expect("the folder is writable");
    file.set_len(64 << 20).expect("the file can be long");
    DiskFile::new(path)
}

#[test]
fn a_small_machine_passes_all_tests() {
    let Some(qemu) = machine("selftest") else { return };
    let output = run(&qemu, PASSED);
    assert_all_passed(&output);
    assert_eq!(number(&output, "\"event\":\"machine\"", "cpus"), 1);
    assert_eq!(number(&output, "\"event\":\"machine\"", "disks"), 0);
}

#[test]
fn a_large_machine_passes_all_tests() {
    let Some(mut qemu) = machine("selftest") else { return };
    let folder = tempfile::tempdir().expect("there is room for disks");
    // RAM above 4 GiB, and on two nodes.
    qemu.memory_bytes = 6 << 30;
    (qemu.cpus, qemu.nodes) = (4, 2);
    qemu.disks = vec![disk(&folder, "first"), disk(&folder, "second, with a comma")];
    let archive = folder.path().join("archive");
    fs::write(&archive, [b'x'; 5000]).expect("the folder is writable");
    qemu.archive = Some(archive);
    let output = run(&qemu, PASSED);
    assert_all_passed(&output);
    let machine = |name| number(&output, "\"event\":\"machine\"", name);
    assert_eq!([machine("cpus"), machine("nodes"), machine("disks")], [4, 2, 2]);
    assert_eq!(machine("archive"), 5000);
    assert_eq!(number(&output, "\"name\":\"processors\"", "count"), 4);
    for node in ["\"event\":\"node\",\"id\":0", "\"event\":\"node\",\"id\":1"] {
        let bytes = number(&output, node, "memory");
        assert!(bytes > 2 << 30, "a node has {bytes} bytes of 3 GiB");
    }
    let written = fs::read(&qemu.disks[1].path).expect("the disk is a file");
    assert_eq!(written[8..11], [0, 0, 0x5a], "what was written is on the disk");
}

#[test]
fn a_trap_costs_the_same_in_every_run() {
    let Some(mut qemu) = machine("selftest") else { return };
    qemu.icount = true;
    let costs = || {
        let output = run(&qemu, PASSED);
        ["null syscall", "page fault"]
            .map(|name| number(&output, &format!("\"name\":\"{name}\""), "ticks"))
    };
    let [call, fault] = costs();
    assert_eq!(costs(), [call, fault], "another run");
    // From ring 3 to the caller of `run`, and back.
    assert!(call <= 110, "{call} instructions");
    assert!(fault <= 130, "{fault} instructions");
}

#[test]
fn a_stack_overflow_is_told() {
    let Some(qemu) = machine("selftest overflow") else { return };
    let output = run(&qemu, PANICKED);
    assert!(output.contains("panic: kernel stack overflow on processor 0"), "{output}");
}

#[test]
fn a_disk_that_fails_is_told() {
    let Some(mut qemu) = machine("selftest") else { return };
    let folder = tempfile::tempdir().expect("there is room for disks");
    let faults = folder.path().join("faults");
    let text = "[inject-error]\nevent = \"none\"\niotype = \"read\"\nerrno = \"5\"\n";
    fs::write(&faults, text).expect("the folder is writable");
    qemu.disks = vec![DiskFile { faults: Some(faults), ..disk(&folder, "disk") }];
    let output = run(&qemu, FAILED);
    let line = output.lines().find(|line| line.contains("\"event\":\"fail\"")).unwrap_or_default();
    assert!(line.contains("\"disks\"") && line.contains("failed"), "{output}");
}
