//! Why a program could not be recorded.

use std::io;
use std::path::PathBuf;

use vellum_trace::TraceError;

/// Why a program could not be recorded. Each message is one line that ends with what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// There is no QEMU.
    #[error(
        "{}: not found; install qemu-user (Debian 12: `apt install qemu-user`), \
         or name a qemu-x86_64 with VELLUM_QEMU",
        .qemu.display()
    )]
    QemuMissing {
        /// Where it was looked for.
        qemu: PathBuf,
    },
    /// QEMU is there but cannot be run.
    #[error("cannot run {}: {source}", .qemu.display())]
    QemuBroken {
        /// The QEMU.
        qemu: PathBuf,
        /// Why it did not start.
        source: io::Error,
    },
    /// QEMU is one that takes no plugins.
    #[error(
        "{} takes no plugins: static builds, such as those of Debian 13, cannot; build QEMU 7.2 or \
         later with `./configure --target-list=x86_64-linux-user --enable-plugins` and name its \
         qemu-x86_64 with VELLUM_QEMU",
        .qemu.display()
    )]
    QemuWithoutPlugins {
        /// The QEMU.
        qemu: PathBuf,
    },
    /// The plugin's library was not found.
    #[error(
        "libvellum_recorder.so: not found at or beside {}; build it with \
         `cargo build --release -p vellum-recorder`, or name it with VELLUM_PLUGIN",
        .executable.display()
    )]
    PluginMissing {
        /// Where it was looked for.
        executable: PathBuf,
    },
    /// QEMU did not take the plugin; it has told on stderr why.
    #[error(
        "{} did not load {}; it should have said why above; rebuild both parts of vellum alike",
        .qemu.display(), .plugin.display()
    )]
    PluginRefused {
        /// The QEMU.
        qemu: PathBuf,
        /// The library.
        plugin: PathBuf,
    },
    /// No command was given.
    #[error("no command given: say what to record after `--`")]
    CommandEmpty,
    /// There is no such command.
    #[error("{command}: command not found")]
    CommandMissing {
        /// Its name.
        command: String,
    },
    /// The command is no program, or may not be run.
    #[error("{}: cannot be run: {reason}", .path.display())]
    CommandRefused {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The filter's parameters are out of range.
    #[error(
        "the filter takes a power of two of pages up to 65536 and at least one event and block"
    )]
    Filter,
    /// The shared memory could not be made.
    #[error("cannot create shared memory in {}: {source}", .directory.display())]
    Shared {
        /// Where.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is too little room for the shared memory.
    #[error(
        "{} bytes of shared memory are needed, and neither {} has them; \
         free some, or enlarge /dev/shm (docker: --shm-size)",
        .bytes, .directories
    )]
    SharedFull {
        /// The least that is needed.
        bytes: u64,
        /// Where it was looked for.
        directories: String,
    },
    /// The trace could not be written.
    #[error("cannot write the trace: {0}")]
    Trace(#[from] TraceError),
}
