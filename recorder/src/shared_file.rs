//! Makes the file of shared memory, and sees that it goes away again.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use crate::error::RecordError;
use crate::shared::{Mapping, file_bytes};
use crate::sys;

/// The shared file; it goes with this value.
pub(crate) struct Shared {
    pub(crate) path: PathBuf,
    pub(crate) mapping: Mapping,
}

impl Shared {
    /// Makes the file where there is room, with as many slots as there is room for.
    pub(crate) fn create(filter_pages: u64) -> Result<Self, RecordError> {
        const SLOTS: u64 = 512;
        const SLOTS_MIN: u64 = 16;
        let directories = [PathBuf::from("/dev/shm"), std::env::temp_dir()];
        let least = file_bytes(SLOTS_MIN, filter_pages) as u64;
        for directory in &directories {
            let room = sys::bytes_free(directory).unwrap_or(0);
            let fits = |slots: &u64| file_bytes(*slots, filter_pages) as u64 <= room;
            let halves = std::iter::successors(Some(SLOTS), |slots| Some(slots / 2));
            let slots = halves.take_while(|&slots| slots >= SLOTS_MIN).find(fits);
            if let Some(slots) = slots {
                remove_stale(directory);
                return Self::create_in(directory, slots, filter_pages).map_err(|source| {
                    RecordError::Shared { directory: directory.clone(), source }
                });
            }
        }
        let [first, second] = directories.map(|directory| directory.display().to_string());
        let directories = format!("{first} nor {second}");
        Err(RecordError::SharedFull { bytes: least, directories })
    }

    fn create_in(directory: &Path, slots: u64, filter_pages: u64) -> std::io::Result<Self> {
        /// Tells recordings of one process apart.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Relaxed);
        let path = directory.join(format!("{PREFIX}{}.{count}", std::process::id()));
        let open =
            || OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        // A leftover of an earlier process of the same number would be in the way.
        let file = open().or_else(|_| std::fs::remove_file(&path).and_then(|()| open()))?;
        let bytes = file_bytes(slots, filter_pages);
        let mapped = file.set_len(bytes as u64).and_then(|()| Mapping::of(&file, bytes));
        let mapping = mapped.inspect_err(|_| drop(std::fs::remove_file(&path)))?;
        let header = mapping.header();
        header.slots.store(slots, Relaxed);
        header.filter_pages.store(filter_pages, Relaxed);
        header.collector.store(u64::from(std::process::id()), Relaxed);
        Ok(Self { path, mapping })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Whoever still has it mapped keeps it until then, and is told that nobody reads.
        self.mapping.header().closed.store(1, Relaxed);
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The shared file's name, before the pid.
const PREFIX: &str = "vellum-record.";

/// Removes files that killed recorders have left behind.
fn remove_stale(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('.').next());
        if let Some(Ok(pid)) = pid.map(str::parse)
            && !sys::exists(pid)
        {
            // If it is another user's, it stays.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
