//! Output: to standard output, or to a file that appears whole or not at all.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use tempfile::NamedTempFile;

/// Writes what `write` produces to `path`, or to standard output if that is `None` or `-`.
///
/// A file gets a temporary name first and is renamed when it is complete.
pub(crate) fn to(
    path: Option<&Path>,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    match path {
        None => to_stdout(write),
        Some(path) if path == Path::new("-") => to_stdout(write),
        Some(path) => {
            let mut file = temporary(path)?;
            {
                let mut buffered = io::BufWriter::new(file.as_file_mut());
                write(&mut buffered)?;
                buffered.flush().with_context(|| format!("cannot write {}", path.display()))?;
            }
            keep(file, path)
        }
    }
}

/// Checks that [`to`] can write to `path`, before there is anything to write.
pub(crate) fn check(path: Option<&Path>) -> Result<()> {
    match path {
        Some(path) if path != Path::new("-") => temporary(path).map(drop),
        _ => Ok(()),
    }
}

fn to_stdout(write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    write(&mut out)?;
    Ok(out.flush()?)
}

/// A temporary file beside `path`.
///
/// # Errors
/// If it cannot be made, or if something other than a regular file is at `path`: renaming would replace
/// it, be it a device or a link.
pub(crate) fn temporary(path: &Path) -> Result<NamedTempFile> {
    if path.symlink_metadata().is_ok_and(|there| !there.is_file()) {
        bail!("cannot replace {}: it is not a regular file; name one, or `-`", path.display());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    NamedTempFile::new_in(directory)
        .with_context(|| format!("cannot write in {}", directory.display()))
}

/// Gives a complete temporary file its name.
pub(crate) fn keep(file: NamedTempFile, path: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Temporary files are private; a result is as public as any other file.
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    file.persist(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}
