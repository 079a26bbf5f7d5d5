//! What several tests ask.

use std::io::{self, Write as _};

use vellum_emulator::programs::Compiler;
use vellum_emulator::qemu;

/// Whether a machine can be booted here; a line that says what is missing, if not.
pub(crate) fn can_boot() -> bool {
    let missing = match (qemu::find(), Compiler::find()) {
        (Err(error), _) => error.to_string(),
        (_, Err(error)) => error.to_string(),
        (Ok(_), Ok(_)) => return true,
    };
    // Not `eprintln`, which the test harness keeps to itself.
    writeln!(io::stderr(), "SKIP: {missing}").expect("stderr can be written to");
    false
}
