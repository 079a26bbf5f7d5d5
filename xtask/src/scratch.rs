//! A directory of our own that is gone at the end.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A fresh directory; dropping it removes it with all that is in it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes it below the system's directory for temporary files.
    pub(crate) fn new(name: &str) -> Result<Scratch> {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Scratch(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("xtask: {} remains: {error}", self.0.display());
        }
    }
}
