//! What a command names: finds the ELF file behind a word, through `PATH` and `#!` lines.
//!
//! QEMU runs ELF files and nothing else; scripts are the kernel's doing. So both the collector, for
//! the first program, and the plugin, at each `execve`, walk `#!` lines as the kernel does: the
//! line's interpreter is run with its one optional argument, then the script's path, then the
//! arguments.

use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::sys;

/// Bytes of a file that decide what it is: those that the kernel reads too.
const HEAD_BYTES: usize = 256;
/// Scripts whose interpreter is a script, and so on; the kernel's limit.
const SCRIPTS_MAX: usize = 5;

/// What can be said about a file that somebody wants to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Program {
    /// An x86-64 ELF file, with the arguments that `#!` lines put before the program's own.
    Runnable(Runnable),
    /// A program that QEMU cannot run: its reason in a few words.
    Foreign(&'static str),
    /// Not a program, or not for us: `execve` will say why.
    Refused,
}

/// An x86-64 ELF file to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Runnable {
    /// The ELF file.
    pub(crate) path: PathBuf,
    /// Its arguments, the zeroth included.
    pub(crate) arguments: Vec<Vec<u8>>,
}

/// What running `path` with `arguments` (the zeroth included) comes to.
pub(crate) fn resolve(path: &Path, arguments: Vec<Vec<u8>>) -> Program {
    let mut path = path.to_path_buf();
    let mut arguments = arguments;
    for _ in 0..=SCRIPTS_MAX {
        let Some(head) = executable_head(&path) else { return Program::Refused };
        if let Some((interpreter, option)) = parse_script(&head) {
            let script = std::mem::replace(&mut path, PathBuf::from(bytes(interpreter.clone())));
            // The kernel drops the zeroth argument and puts the script's path where it knows it.
            let own = arguments.into_iter().skip(1);
            arguments = std::iter::once(interpreter)
                .chain(option)
                .chain(std::iter::once(script.into_os_string().into_vec()))
                .chain(own)
                .collect();
            continue;
        }
        return match foreign(&head) {
            None => Program::Refused,
            Some(Some(reason)) => Program::Foreign(reason),
            Some(None) => Program::Runnable(Runnable { path, arguments }),
        };
    }
    Program::Refused
}

fn bytes(bytes: Vec<u8>) -> std::ffi::OsString {
    std::ffi::OsString::from_vec(bytes)
}

/// The first bytes of `path`, if it is a regular file that may be executed.
fn executable_head(path: &Path) -> Option<Vec<u8>> {
    if !path.metadata().ok()?.is_file() || !sys::is_executable(path) {
        return None;
    }
    // A program may be executable without being readable. Then QEMU cannot load it either.
    let mut head = Vec::with_capacity(HEAD_BYTES);
    File::open(path).ok()?.take(HEAD_BYTES as u64).read_to_end(&mut head).ok()?;
    Some(head)
}

/// The interpreter and the optional argument of a `#!` line.
fn parse_script(head: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let line = head.strip_prefix(b"#!")?;
    let end = line.iter().position(|&byte| byte == b'\n').unwrap_or(line.len());
    let line = line[..end].trim_ascii();
    let split = line.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
    let (interpreter, option) = line.split_at(split);
    // Everything after the interpreter is one argument, spaces included.
    let option = option.trim_ascii_start();
    let option = (!option.is_empty()).then(|| option.to_vec());
    (!interpreter.is_empty()).then(|| (interpreter.to_vec(), option))
}

/// For an ELF file, why QEMU cannot run it, if it cannot; `None` if the file is no ELF file.
#[allow(clippy::option_option)] // two questions: is it a program, and is it one of ours
fn foreign(head: &[u8]) -> Option<Option<&'static str>> {
    const CLASS_64: u8 = 2;
    const LITTLE_ENDIAN: u8 = 1;
    const MACHINE_X86_64: u16 = 62;
    const TYPES: [u16; 2] = [2, 3]; // at a fixed place, or position-independent
    let half = |at: usize| Some(u16::from_le_bytes([*head.get(at)?, *head.get(at + 1)?]));
    head.strip_prefix(b"\x7fELF")?;
    let (class, order) = (*head.get(4)?, *head.get(5)?);
    let (kind, machine) = (half(16)?, half(18)?);
    Some(if class != CLASS_64 {
        Some("a 32-bit program")
    } else if order != LITTLE_ENDIAN || machine != MACHINE_X86_64 {
        Some("a program for another processor than x86-64")
    } else if !TYPES.contains(&kind) {
        return None;
    } else {
        None
    })
}

/// The file that a shell would run for `word`; `None` if there is none.
pub(crate) fn find(word: &Path, search: Option<&std::ffi::OsStr>) -> Option<PathBuf> {
    if word.as_os_str().is_empty() {
        return None;
    }
    if word.as_os_str().as_bytes().contains(&b'/') {
        return word.exists().then(|| word.to_path_buf());
    }
    let candidates = std::env::split_paths(search?).map(|directory| directory.join(word));
    let files: Vec<_> = candidates.filter(|path| path.is_file()).collect();
    // A file without the right to run hides no later one that has it, but is the better complaint.
    files.iter().find(|path| sys::is_executable(path)).or(files.first()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(directory: &Path, name: &str, contents: &[u8], mode: u32) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, contents).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        path
    }

    fn elf(class: u8, machine: u8) -> Vec<u8> {
        let mut head = vec![0; 64];
        head[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1]);
        head[16] = 3;
        head[18] = machine;
        head
    }

    #[test]
    fn everything_after_the_interpreter_is_one_argument() {
        let parse = |line: &str| parse_script(line.as_bytes());
        let sh = || b"/bin/sh".to_vec();
        assert_eq!(parse("#!/bin/sh\necho"), Some((sh(), None)));
        assert_eq!(parse("#! /bin/sh \t\n"), Some((sh(), None)));
        assert_eq!(parse("#!/bin/sh -e -x \n"), Some((sh(), Some(b"-e -x".to_vec()))));
        assert_eq!(parse("#!/bin/sh"), Some((sh(), None)));
        assert_eq!(parse("#!\n/bin/sh"), None);
        assert_eq!(parse("# !/bin/sh\n"), None);
    }

    #[test]
    fn a_script_becomes_its_interpreter_with_the_scripts_path() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let inner = file(directory.path(), "inner", &elf(2, 62), 0o755);
        let line = format!("#!{} -x\n", inner.display());
        let outer = file(directory.path(), "outer", line.as_bytes(), 0o755);
        let line = format!("#!{}\n", outer.display());
        let script = file(directory.path(), "script", line.as_bytes(), 0o755);
        let Program::Runnable(found) = resolve(&script, vec![b"zero".to_vec(), b"one".to_vec()])
        else {
            panic!("not runnable")
        };
        assert_eq!(found.path, inner);
        let of = |path: &Path| path.as_os_str().as_bytes().to_vec();
        let expected = [of(&inner), b"-x".to_vec(), of(&outer), of(&script), b"one".to_vec()];
        assert_eq!(found.arguments, expected);
    }

    #[test]
    fn a_script_that_interprets_itself_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("loop");
        file(directory.path(), "loop", format!("#!{}\n", path.display()).as_bytes(), 0o755);
        assert_eq!(resolve(&path, vec![]), Program::Refused);
    }

    #[test]
    fn foreign_programs_are_told_from_files_that_are_none() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let is = |name: &str, contents: &[u8], mode| {
            resolve(&file(directory.path(), name, contents, mode), vec![])
        };
        assert!(matches!(is("a", &elf(2, 62), 0o755), Program::Runnable(_)));
        assert!(matches!(is("b", &elf(1, 3), 0o755), Program::Foreign(_)));
        assert!(matches!(is("c", &elf(2, 183), 0o755), Program::Foreign(_)));
        assert_eq!(is("d", &elf(2, 62), 0o644), Program::Refused);
        assert_eq!(is("e", b"text", 0o755), Program::Refused);
        assert_eq!(is("f", b"\x7fELF", 0o755), Program::Refused);
        assert_eq!(resolve(directory.path(), vec![]), Program::Refused);
    }

    #[test]
    fn a_command_is_searched_for_as_a_shell_does() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [one, two] = ["one", "two"].map(|name| directory.path().join(name));
        for path in [&one, &two] {
            std::fs::create_dir(path).expect("made");
        }
        let plain = file(&one, "tool", b"x", 0o644);
        let search = std::env::join_paths([&one, &two]).expect("no colon in it");
        assert_eq!(find(Path::new("tool"), Some(&search)), Some(plain));
        let tool = file(&two, "tool", b"x", 0o755);
        assert_eq!(find(Path::new("tool"), Some(&search)), Some(tool.clone()));
        assert_eq!(find(&tool, None), Some(tool));
        assert_eq!(find(Path::new("missing"), Some(&search)), None);
        assert_eq!(find(Path::new(""), Some(&search)), None);
    }
}
