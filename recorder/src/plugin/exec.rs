//! Follows a program into the next one.
//!
//! Left alone, QEMU's `execve` is the host's: the new program would run natively, unrecorded. So
//! the entry of the call starts QEMU again, with the same plugin, in its place. If the program is
//! none that QEMU could run, nothing is done, and QEMU's own attempt yields the right `errno`.

use std::ffi::CString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::{Plugin, guest};
use crate::program::{self, Program};
use crate::sys;

/// Variables that the dynamic linker obeys: meant for the program, they would reach QEMU as well.
const LINKER: &[u8] = b"LD_";

/// This QEMU's command line up to and including the plugin's option.
pub(crate) fn prefix() -> Vec<CString> {
    let own = std::fs::read("/proc/self/cmdline").unwrap_or_default();
    let mut words: Vec<CString> =
        own.split(|&byte| byte == 0).filter_map(|word| CString::new(word).ok()).collect();
    let plugin = words.iter().position(|word| word.as_bytes() == b"-plugin");
    words.truncate(plugin.map_or(0, |index| index + 2));
    if let (Some(first), Ok(path)) = (words.first_mut(), std::fs::read_link("/proc/self/exe"))
        && let Ok(path) = CString::new(path.into_os_string().into_vec())
    {
        *first = path;
    }
    words
}

/// The program's file and its arguments, as the command line of this QEMU names them.
pub(crate) fn own_program() -> (Vec<u8>, Vec<Vec<u8>>) {
    let own = std::fs::read("/proc/self/cmdline").unwrap_or_default();
    let own = own.strip_suffix(b"\0").unwrap_or(&own);
    let words = own.split(|&byte| byte == 0);
    // `-plugin X [-E NAME=VALUE]… -0 ARGUMENT PATH ARGUMENTS…`, see `prefix` and `command_line`.
    let mut words = words.skip_while(|word| *word != b"-plugin").skip(2).map(<[u8]>::to_vec);
    let mut next = words.next();
    while next.as_deref() == Some(b"-E") {
        words.next();
        next = words.next();
    }
    let zeroth = words.next().unwrap_or_default();
    let path = words.next().unwrap_or_default();
    (path, std::iter::once(zeroth).chain(words).collect())
}

/// The words that follow the plugin's option for running `path` with `arguments`, and the
/// environment that QEMU itself gets.
pub(crate) fn command_line(
    path: &Path,
    arguments: &[Vec<u8>],
    environment: Vec<Vec<u8>>,
) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut words = Vec::new();
    let (linker, environment): (Vec<_>, Vec<_>) = environment.into_iter().partition(|variable| {
        // QEMU splits `-E` at commas, so a value with one must take the other way.
        variable.starts_with(LINKER) && !variable.contains(&b',')
    });
    for variable in linker {
        words.extend([b"-E".to_vec(), variable]);
    }
    let path = path.as_os_str().as_bytes();
    // A relative path that begins with a dash would be an option.
    let path = if path.starts_with(b"-") { [b"./", path].concat() } else { path.to_vec() };
    words.push(b"-0".to_vec());
    words.push(arguments.first().unwrap_or(&path).clone());
    words.push(path);
    words.extend(arguments.iter().skip(1).cloned());
    (words, environment)
}

/// What the program asked for: its file, arguments and environment; `None` if a pointer is bad.
pub(crate) struct Request {
    path: PathBuf,
    arguments: Vec<Vec<u8>>,
    environment: Vec<Vec<u8>>,
}

impl Request {
    /// Reads the arguments of `execve`.
    pub(crate) fn execve(path: u64, arguments: u64, environment: u64) -> Option<Self> {
        let path = guest::path(path)?;
        Self::read(PathBuf::from(std::ffi::OsString::from_vec(path)), arguments, environment)
    }

    /// Reads the arguments of `execveat`.
    pub(crate) fn execveat(arguments: [u64; 6]) -> Option<Self> {
        let [directory, path, list, environment, ..] = arguments;
        let path = PathBuf::from(std::ffi::OsString::from_vec(guest::path(path)?));
        let directory = directory as i32;
        let path = if path.is_absolute() || directory == libc::AT_FDCWD {
            path
        } else {
            // The descriptor may be closed by the exec, the file behind it stays where it is.
            let opened = std::fs::read_link(format!("/proc/self/fd/{directory}")).ok()?;
            if path.as_os_str().is_empty() { opened } else { opened.join(path) }
        };
        Self::read(path, list, environment)
    }

    fn read(path: PathBuf, arguments: u64, environment: u64) -> Option<Self> {
        // `/proc/self/exe` is QEMU here; the program means itself.
        let path = if path == Path::new("/proc/self/exe") {
            let (own, _) = own_program();
            PathBuf::from(std::ffi::OsString::from_vec(own))
        } else {
            path
        };
        let arguments = guest::strings(arguments)?;
        let environment = guest::strings(environment)?;
        Some(Self { path, arguments, environment })
    }

    /// What QEMU would have to do for it.
    pub(crate) fn resolve(&self) -> Program {
        program::resolve(&self.path, self.arguments.clone())
    }

    /// The path as the program wrote it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces this process by a QEMU that runs `program`; returns only if that fails.
    pub(crate) fn perform(self, plugin: &Plugin, program: &program::Runnable) {
        let (words, environment) =
            command_line(&program.path, &program.arguments, self.environment);
        let convert = |words: Vec<Vec<u8>>| -> Vec<CString> {
            words.into_iter().filter_map(|word| CString::new(word).ok()).collect()
        };
        let mut line = plugin.prefix.clone();
        line.extend(convert(words));
        if let Some(qemu) = plugin.prefix.first() {
            let _failed = sys::execute(qemu, &line, &convert(environment));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<Vec<u8>> {
        list.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn variables_of_the_linker_reach_the_program_and_not_qemu() {
        let environment = words(&["LD_PRELOAD=x.so", "HOME=/", "LD_AUDIT=a,b"]);
        let (line, kept) = command_line(Path::new("/bin/ls"), &words(&["ls", "-l"]), environment);
        let expected = words(&["-E", "LD_PRELOAD=x.so", "-0", "ls", "/bin/ls", "-l"]);
        assert_eq!(line, expected);
        assert_eq!(kept, words(&["HOME=/", "LD_AUDIT=a,b"]));
    }

    #[test]
    fn a_file_named_like_an_option_is_no_option() {
        let (line, _) = command_line(Path::new("-version"), &[], Vec::new());
        assert_eq!(line, words(&["-0", "./-version", "./-version"]));
    }
}
