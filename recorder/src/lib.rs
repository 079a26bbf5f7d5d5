//! Watches a real program: a QEMU user-mode plugin, and the collector that writes its trace.

mod collect;
mod error;
mod filter;
mod host;
mod plugin;
mod program;
mod qemu;
mod record;
mod shared;
mod sys;
mod wire;

pub use collect::Counters;
pub use error::RecordError;
pub use plugin::ffi::{qemu_plugin_install, qemu_plugin_version};
pub use record::{Options, Outcome, Progress, Recorded, record, record_into};
