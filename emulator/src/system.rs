//! What the kernel finds in its file tree: programs, and files for them to work on.
//!
//! ```text
//!     /bin/hello …          the programs of Vellum
//!     /bin/busybox          if a static one is installed; sh, sort, tar, … are links to it
//!     /usr/bin/env          the same, where scripts look for it
//!     /etc/passwd …         what programs look for
//!     /etc/lines.txt        text to sort, the same everywhere
//!     /tmp                  empty
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg32;
use thiserror::Error;

use crate::archive::{Archive, TooLarge};
use crate::programs::Built;

/// Lines of `/etc/lines.txt`, about 40 bytes each.
const LINES: u32 = 8192;

/// Why there is no archive.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SystemError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Busybox does not say which programs it is.
    #[error("{} --list fails: {said}", .path.display())]
    Unlisted {
        /// Where it is.
        path: PathBuf,
        /// What it says instead.
        said: String,
    },
    /// A program needs a dynamic linker, which the kernel does not have.
    #[error(
        "{}: not a static x86-64 program; link it with -static (gcc or musl-gcc)",
        .path.display()
    )]
    NotStatic {
        /// The program.
        path: PathBuf,
    },
    /// A program has the name of another.
    #[error("{}: there is a /bin/{name} already; give it another name", .path.display())]
    Twice {
        /// The program.
        path: PathBuf,
        /// Its name.
        name: String,
    },
    /// A file is too large for an archive.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// The file tree as an archive: `programs`, `busybox` if there is one, and `added` programs, which
/// go to `/bin` under their own names.
pub fn archive(
    programs: &[Built],
    busybox: Option<&Path>,
    added: &[PathBuf],
) -> Result<Vec<u8>, SystemError> {
    let mut archive = Archive::default();
    let own = programs.iter().map(|program| program.name.to_owned());
    let mut names: BTreeSet<String> = own.chain(["busybox".to_owned()]).collect();
    for path in added {
        let name = name_of(path);
        if !names.insert(name.clone()) {
            return Err(SystemError::Twice { path: path.clone(), name });
        }
    }
    for directory in ["bin", "dev", "etc", "tmp", "usr", "usr/bin"] {
        archive.directory(directory);
    }
    for program in programs {
        archive.program(&format!("bin/{}", program.name), &read(&program.path)?)?;
    }
    if let Some(path) = busybox {
        archive.program("bin/busybox", &static_program(path)?)?;
        archive.link("usr/bin/env", "/bin/busybox");
        for applet in applets(path)?.iter().filter(|&applet| !names.contains(applet)) {
            archive.link(&format!("bin/{applet}"), "busybox");
        }
    }
    for path in added {
        let contents = static_program(path)?;
        archive.program(&format!("bin/{}", name_of(path)), &contents)?;
    }
    archive.file("etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")?;
    archive.file("etc/group", b"root:x:0:\n")?;
    archive.file("etc/lines.txt", lines().as_bytes())?;
    Ok(archive.finish())
}

/// A static busybox: the one that `VELLUM_BUSYBOX` names, or else one on the path.
pub fn busybox() -> Option<PathBuf> {
    let named = std::env::var_os("VELLUM_BUSYBOX").map(PathBuf::from);
    let search = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&search).map(|folder| folder.join("busybox"));
    named.or_else(|| found.find(|path| static_program(path).is_ok()))
}

/// The programs that this busybox is.
fn applets(path: &Path) -> Result<Vec<String>, SystemError> {
    let unlisted = |said| SystemError::Unlisted { path: path.to_owned(), said };
    let ran = Command::new(path).arg("--list").stdin(Stdio::null()).output();
    let ran = ran.map_err(|error| unlisted(error.to_string()))?;
    if !ran.status.success() {
        return Err(unlisted(String::from_utf8_lossy(&ran.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&ran.stdout).lines().map(str::to_owned).collect())
}

/// The name of an added program in `/bin`.
fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn read(path: &Path) -> Result<Vec<u8>, SystemError> {
    fs::read(path).map_err(|source| SystemError::Unreadable { path: path.to_owned(), source })
}

fn static_program(path: &Path) -> Result<Vec<u8>, SystemError> {
    let contents = read(path)?;
    match is_static(&contents) {
        Some(true) => Ok(contents),
        _ => Err(SystemError::NotStatic { path: path.to_owned() }),
    }
}

/// Whether an ELF file for x86-64 asks for no interpreter; `None` if it is no such file.
///
/// System V ABI, "Object Files": the header has the place of the program headers at 32, their size
/// at 54 and their number at 56.
fn is_static(file: &[u8]) -> Option<bool> {
    const INTERPRETER: u64 = 3;
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let field = file.get(at..at.checked_add(bytes)?)?;
        Some(field.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    };
    let (class_and_order, machine) = (number(4, 2)?, number(18, 2)?);
    if !file.starts_with(b"\x7fELF") || class_and_order != 0x0102 || machine != 62 {
        return None;
    }
    let (start, bytes, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for header in 0..count {
        let at = start.checked_add(header * bytes)?;
        if number(usize::try_from(at).ok()?, 4)? == INTERPRETER {
            return Some(false);
        }
    }
    Some(true)
}

/// `/etc/lines.txt`, text that sorting has something to do with: a number, two words, and a number
/// that repeats.
pub fn lines() -> String {
    const WORDS: [&str; 12] = [
        "frame", "page", "area", "order", "slot", "zone", "node", "fault", "policy", "victim",
        "table", "entry",
    ];
    let mut chance = Pcg32::seed_from_u64(1);
    let mut word = || (chance.random::<u32>(), WORDS[chance.random_range(0..WORDS.len())]);
    let mut line = || {
        let ((key, first), (other, second)) = (word(), word());
        format!("{key:08x} {first} and {second} number {}\n", other % 1000)
    };
    (0..LINES).map(|_| line()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The start of an ELF file whose only program header is of `kind`.
    fn elf(kind: u8) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[18] = 62;
        file[32] = 64;
        file[54] = 56;
        file[56] = 1;
        file[64] = kind;
        file
    }

    #[test]
    fn a_program_that_asks_for_an_interpreter_is_not_static() {
        assert_eq!(is_static(&elf(1)), Some(true));
        assert_eq!(is_static(&elf(3)), Some(false));
    }

    #[test]
    fn what_is_cut_off_or_something_else_is_no_program() {
        let whole = elf(1);
        for end in 0..68 {
            assert_eq!(is_static(&whole[..end]), None, "{end} bytes");
        }
        let mut other = elf(1);
        other[18] = 40;
        assert_eq!(is_static(&other), None, "for another machine");
        let mut far = elf(1);
        far[32..40].fill(0xff);
        assert_eq!(is_static(&far), None, "headers at the end of all addresses");
    }

    #[test]
    fn an_added_script_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("script");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        let error = archive(&[], None, &[script]).unwrap_err().to_string();
        assert!(error.contains("script: not a static"), "{error}");
        let nothing = directory.path().join("nothing");
        let error = archive(&[], None, &[nothing]).unwrap_err().to_string();
        assert!(error.contains("cannot read"), "{error}");
    }

    #[test]
    fn two_programs_of_one_name_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("program");
        fs::write(&program, elf(1)).unwrap();
        let error = archive(&[], None, &[program.clone(), program]).unwrap_err().to_string();
        assert!(error.ends_with("program: there is a /bin/program already; give it another name"));
    }

    #[test]
    fn busybox_is_all_that_it_says_but_what_there_is_already() {
        let Some(busybox) = busybox() else {
            eprintln!("SKIP: no static busybox");
            return;
        };
        let directory = tempfile::tempdir().unwrap();
        let sort = directory.path().join("sort");
        fs::copy(&busybox, &sort).unwrap();
        let archive = archive(&[], Some(&busybox), &[sort]).unwrap();
        let count = |path: &[u8]| archive.windows(path.len()).filter(|&at| at == path).count();
        assert_eq!(count(b"bin/tar\0"), 1);
        assert_eq!(count(b"bin/gzip\0"), 1);
        assert_eq!(count(b"bin/sort\0"), 1, "the one that was added");
    }

    #[test]
    fn the_tree_has_text_to_sort_that_is_the_same_everywhere() {
        let text = lines();
        assert_eq!(text, lines());
        assert_eq!(text.lines().count(), LINES as usize);
        assert!((200_000..400_000).contains(&text.len()), "{}", text.len());
        assert!(!text.lines().is_sorted());
        let archive = archive(&[], None, &[]).unwrap();
        let found = archive.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(found, "it is in the archive");
    }
}
