//! The programs that ship with the kernel: C, compiled here, linked statically.
//!
//! A program is compiled once: its source is kept beside what came of it, and only another source
//! is compiled anew. Both musl and glibc will do; programs are twenty times smaller with musl, and
//! the archive is memory of the machine, so musl is taken where it is installed.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thiserror::Error;

/// What the sources include.
const HEADER: &str = include_str!("../../kernel/user/program.h");

macro_rules! programs {
    ($($name:literal $arguments:expr),* $(,)?) => {
        /// All programs that ship.
        pub const PROGRAMS: &[Program] = &[$(Program {
            name: $name,
            source: include_str!(concat!("../../kernel/user/", $name, ".c")),
            arguments: $arguments,
            expected: include_str!(concat!("../../kernel/user/expected/", $name, ".txt")),
        }),*];
    };
}

programs! {
    "hello" &["one", "two"],
    "forktest" &[],
    "memory" &[],
    "churn" &["8M", "2", "7"],
    "threads" &[],
    "files" &[],
    "signals" &[],
    "pipes" &[],
    "oom" &[],
    "stress" &["200", "1", "3", "12M"],
}

/// A program that ships.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its name in `/bin`.
    pub name: &'static str,
    /// Its source.
    pub source: &'static str,
    /// Arguments for a short run.
    pub arguments: &'static [&'static str],
    /// What it prints then, on Linux and here.
    pub expected: &'static str,
}

/// A program that was built.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Built {
    /// Its name in `/bin`.
    pub name: &'static str,
    /// Where it is.
    pub path: PathBuf,
}

/// Why the programs could not be built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no C compiler.
    #[error(
        "no C compiler for the programs in /bin; install one (Debian: `apt install musl-tools`, or \
         `gcc libc6-dev`), or name one that links statically with VELLUM_CC"
    )]
    CompilerMissing,
    /// The compiler cannot be run.
    #[error("cannot run {}: {source}", .compiler.display())]
    CompilerBroken {
        /// The compiler.
        compiler: OsString,
        /// Why it did not start.
        source: io::Error,
    },
    /// The compiler did not accept a program.
    #[error("{} refuses {program}.c: {said}", .compiler.display())]
    Refused {
        /// The compiler.
        compiler: OsString,
        /// The program.
        program: &'static str,
        /// What the compiler said.
        said: String,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A C compiler.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compiler(OsString);

impl Compiler {
    /// The compiler that `VELLUM_CC` names, or else the first that is installed.
    pub fn find() -> Result<Compiler, BuildError> {
        match std::env::var_os("VELLUM_CC").filter(|name| !name.is_empty()) {
            Some(named) => Ok(Compiler(named)),
            None => Compiler::installed().into_iter().next().ok_or(BuildError::CompilerMissing),
        }
    }

    /// All that are installed, best first.
    pub fn installed() -> Vec<Compiler> {
        let all = ["musl-gcc", "gcc"].map(|name| Compiler(name.into()));
        all.into_iter().filter(Compiler::runs).collect()
    }

    /// What it is called.
    pub fn name(&self) -> String {
        Path::new(&self.0).file_name().unwrap_or(&self.0).to_string_lossy().into_owned()
    }

    fn runs(&self) -> bool {
        let mut version = Command::new(&self.0);
        version.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        version.status().is_ok_and(|status| status.success())
    }

    /// Builds all programs in a folder of `directory` for this compiler; what is there already and
    /// comes of the same source is taken as it is.
    pub fn build(&self, directory: &Path) -> Result<Vec<Built>, BuildError> {
        let directory = directory.join(self.name());
        fs::create_dir_all(&directory).map_err(|source| unwritable(&directory, source))?;
        PROGRAMS.iter().map(|program| self.build_one(program, &directory)).collect()
    }

    fn build_one(&self, program: &Program, directory: &Path) -> Result<Built, BuildError> {
        let path = directory.join(program.name);
        let kept = directory.join(format!("{}.source", program.name));
        let text = format!("{HEADER}{}", program.source);
        let built = Built { name: program.name, path };
        if built.path.is_file() && fs::read_to_string(&kept).is_ok_and(|old| old == text) {
            return Ok(built);
        }
        // Others may build at the same time: all files get their names when they are complete, and
        // the program first, because the other one says that it is there.
        let scratch = tempfile::tempdir_in(directory).map_err(|e| unwritable(directory, e))?;
        let written = |name: &str, text: &str| {
            let path = scratch.path().join(name);
            fs::write(&path, text).map_err(|error| unwritable(&path, error)).map(|()| path)
        };
        written("program.h", HEADER)?;
        let source = written(&format!("{}.c", program.name), program.source)?;
        let output = scratch.path().join(program.name);
        self.compile(program, &source, &output)?;
        fs::rename(&output, &built.path).map_err(|error| unwritable(&built.path, error))?;
        let all = written("all", &text)?;
        fs::rename(all, &kept).map_err(|error| unwritable(&kept, error))?;
        Ok(built)
    }

    fn compile(&self, program: &Program, source: &Path, output: &Path) -> Result<(), BuildError> {
        let compiler = || self.0.clone();
        let ran = Command::new(&self.0)
            .args(["-static", "-s", "-O2", "-pthread", "-Wall", "-Wextra", "-Werror", "-o"])
            .args([output, source])
            .stdin(Stdio::null())
            .output()
            .map_err(|source| BuildError::CompilerBroken { compiler: compiler(), source })?;
        if ran.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&ran.stderr);
        let said = said.lines().find(|line| line.contains("error")).or(said.lines().next());
        Err(BuildError::Refused {
            compiler: compiler(),
            program: program.name,
            said: said.unwrap_or("it does not say why").to_owned(),
        })
    }
}

fn unwritable(path: &Path, source: io::Error) -> BuildError {
    BuildError::Unwritable { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_says_what_it_shows_and_has_its_output() {
        for program in PROGRAMS {
            assert!(program.source.starts_with("/* "), "{}.c has no header", program.name);
            assert!(program.expected.ends_with('\n'), "{} has no output", program.name);
        }
    }

    #[test]
    fn a_program_is_compiled_once_for_each_source() {
        let Some(compiler) = Compiler::installed().pop() else {
            eprintln!("SKIP: no gcc");
            return;
        };
        let directory = tempfile::tempdir().unwrap();
        let hello = Program { name: "hello", ..PROGRAMS[0] };
        let built = compiler.build_one(&hello, directory.path()).unwrap();
        // What is there is taken: a mark in it is still there.
        fs::write(&built.path, "mark").unwrap();
        compiler.build_one(&hello, directory.path()).unwrap();
        assert_eq!(fs::read(&built.path).unwrap(), b"mark");
        let other = Program { source: "int main(void) { return 3; }\n", ..hello };
        compiler.build_one(&other, directory.path()).unwrap();
        assert_eq!(Command::new(&built.path).status().unwrap().code(), Some(3));
    }

    #[test]
    fn an_error_of_the_compiler_is_passed_on() {
        let Some(compiler) = Compiler::installed().pop() else {
            eprintln!("SKIP: no gcc");
            return;
        };
        let directory = tempfile::tempdir().unwrap();
        let wrong = Program { name: "wrong", source: "int main(void) { return }\n", ..PROGRAMS[0] };
        let error = compiler.build_one(&wrong, directory.path()).unwrap_err().to_string();
        assert!(error.contains("refuses wrong.c") && error.contains("error"), "{error}");
        let missing = Compiler("no-such-compiler".into());
        let error = missing.build(directory.path()).unwrap_err().to_string();
        assert!(error.contains("cannot run no-such-compiler"), "{error}");
    }
}
