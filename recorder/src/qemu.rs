//! Finds QEMU and the plugin's library.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::RecordError;
use crate::program;

/// A QEMU that takes plugins.
pub(crate) struct Qemu {
    pub(crate) path: PathBuf,
    /// Its name and version, as in `qemu-user 7.2.22`.
    pub(crate) name: String,
}

impl Qemu {
    /// Finds QEMU at `wanted` or as `qemu-x86_64` on the path.
    ///
    /// # Errors
    /// If there is none, if it does not start, or if it takes no plugins.
    pub(crate) fn find(wanted: Option<&Path>) -> Result<Self, RecordError> {
        let word = wanted.unwrap_or(Path::new("qemu-x86_64"));
        let search = std::env::var_os("PATH");
        let Some(path) = program::find(word, search.as_deref()) else {
            return Err(RecordError::QemuMissing { qemu: word.to_owned() });
        };
        let ask = |option: &str| {
            let output = Command::new(&path).arg(option).stdin(Stdio::null()).output();
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let broken = |source: io::Error| RecordError::QemuBroken { qemu: path.clone(), source };
        if !ask("-h").map_err(broken)?.contains("-plugin") {
            return Err(RecordError::QemuWithoutPlugins { qemu: path });
        }
        let version = ask("--version").map_err(broken)?;
        let name = format!("qemu-user {}", parse_version(&version).unwrap_or("unknown"));
        Ok(Self { path, name })
    }
}

/// The number in `qemu-x86_64 version 7.2.22 (Debian …)`.
fn parse_version(text: &str) -> Option<&str> {
    let mut words = text.split_ascii_whitespace();
    words.find(|word| *word == "version")?;
    words.next()
}

/// The plugin's library: `wanted`, or what the variable `VELLUM_PLUGIN` names, or the one that was
/// installed or built with this executable.
///
/// # Errors
/// If there is none.
pub(crate) fn find_plugin(wanted: Option<&Path>) -> Result<PathBuf, RecordError> {
    let executable = std::env::current_exe().unwrap_or_default();
    let named =
        wanted.map(Path::to_owned).or_else(|| std::env::var_os("VELLUM_PLUGIN").map(Into::into));
    if let Some(path) = named {
        let found = path.is_file();
        return if found { Ok(path) } else { Err(RecordError::PluginMissing { executable: path }) };
    }
    // The youngest: cargo refreshes the one beside a command only when it builds this crate by
    // name.
    let age = |path: &PathBuf| path.metadata().and_then(|file| file.modified()).ok();
    let found = candidates(&executable).into_iter().filter(|path| path.is_file()).max_by_key(age);
    found.ok_or(RecordError::PluginMissing { executable })
}

/// Where the library may be: cargo leaves it beside a command or in `deps/`, tests and examples are
/// one directory deeper, and packages put libraries into `lib`.
fn candidates(executable: &Path) -> Vec<PathBuf> {
    const NAME: &str = "libvellum_recorder.so";
    let Some(directory) = executable.parent() else { return Vec::new() };
    let mut list = vec![directory.join(NAME), directory.join("deps").join(NAME)];
    if let Some(parent) = directory.parent() {
        list.extend(["", "deps", "lib", "lib/vellum"].map(|place| parent.join(place).join(NAME)));
    }
    list
}

/// The value of QEMU's `-plugin` option: QEMU splits it at commas, and takes two for one.
pub(crate) fn plugin_option(plugin: &Path, shared: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let doubled = |path: &Path| -> Vec<u8> {
        let bytes = path.as_os_str().as_bytes().iter();
        bytes
            .flat_map(|&byte| std::iter::repeat_n(byte, if byte == b',' { 2 } else { 1 }))
            .collect()
    };
    OsString::from_vec([&doubled(plugin)[..], b",shm=", &doubled(shared)].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_what_qemu_says() {
        let text = "qemu-x86_64 version 7.2.22 (Debian 1:7.2+dfsg)\nCopyright (c) 2003-2022";
        assert_eq!(parse_version(text), Some("7.2.22"));
        assert_eq!(parse_version("nonsense"), None);
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        let option = plugin_option(Path::new("/a,b.so"), Path::new("/dev/shm/x"));
        assert_eq!(option, "/a,,b.so,shm=/dev/shm/x");
    }

    #[test]
    fn a_qemu_that_is_not_there_is_named() {
        let error = Qemu::find(Some(Path::new("/nowhere/qemu"))).err().expect("there is none");
        assert!(error.to_string().starts_with("/nowhere/qemu: not found; install qemu-user"));
    }

    #[test]
    fn a_program_without_the_option_takes_no_plugins() {
        // Any program will do that does not mention the option.
        let result = Qemu::find(Some(Path::new("/bin/echo")));
        assert!(matches!(result, Err(RecordError::QemuWithoutPlugins { .. })));
    }
}
