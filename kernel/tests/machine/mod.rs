//! A machine that runs what the kernel has instead of programs: its own tests, or scenarios.

use std::io::{self, Write as _};
use std::time::Duration;

use vellum_emulator::image::image;
use vellum_emulator::qemu::{Exit, Line, Qemu, find};

/// What the kernel leaves with if all went well.
pub(crate) const PASSED: Exit = Exit::Code(0x10);
/// What it leaves with if something went otherwise.
pub(crate) const FAILED: Exit = Exit::Code(0x11);

/// A machine that is told `command_line`; none, and a line about it, if there is no QEMU.
pub(crate) fn machine(command_line: &str) -> Option<Qemu> {
    if let Err(error) = find() {
        // Not `eprintln`, which the test harness keeps to itself.
        writeln!(io::stderr(), "SKIP: {error}").expect("stderr can be written to");
        return None;
    }
    let mut qemu = Qemu::new(image().expect("the image is built"));
    command_line.clone_into(&mut qemu.command_line);
    qemu.time_max = Some(Duration::from_mins(5));
    qemu.output_bytes_max = Some(1 << 20);
    Some(qemu)
}

/// Runs the machine and returns what it said, which is also shown if the end is not the expected
/// one.
pub(crate) fn run(qemu: &Qemu, expected: Exit) -> String {
    let (mut printed, mut output) = (Vec::new(), Vec::new());
    let exit = qemu.run(None, |line, part| match line {
        Line::Programs => printed.extend_from_slice(part),
        Line::Kernel => output.extend_from_slice(part),
    });
    let exit = exit.expect("QEMU runs");
    assert!(printed.is_empty(), "no program runs here: {printed:?}");
    let visible = |c: char| if c == '\n' || !c.is_control() { c } else { '?' };
    let output: String = String::from_utf8_lossy(&output).chars().map(visible).collect();
    assert_eq!(exit, expected, "{qemu:?} said:\n{output}");
    output
}
