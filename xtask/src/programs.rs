//! The programs whose faults are compared, and their inputs, which are the same on every machine.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// A program to compare.
pub(crate) struct Program {
    /// What it is called on the command line and in the table.
    pub(crate) name: &'static str,
    /// The largest difference allowed, in thousandths of the native count.
    pub(crate) goal_permille: u32,
    /// Makes inputs in the directory and says what to run there; `None` if a tool is missing.
    pub(crate) prepare: fn(&Path) -> Result<Option<Vec<String>>>,
    /// A file that the program makes, removed before each run.
    pub(crate) makes: Option<&'static str>,
}

/// All of them.
///
/// What is mostly anonymous memory is exact on Linux, hence the narrow goal. Faults on files depend
/// on how the kernel laid the page cache out in folios and on the alignment of mappings.
pub(crate) const PROGRAMS: [Program; 7] = [
    Program { name: "sort", goal_permille: 1, prepare: sort, makes: Some("sorted.txt") },
    Program { name: "python", goal_permille: 1, prepare: python, makes: None },
    Program { name: "gcc", goal_permille: 30, prepare: gcc, makes: Some("words.o") },
    Program { name: "java", goal_permille: 30, prepare: java, makes: None },
    Program { name: "git", goal_permille: 30, prepare: git, makes: None },
    Program { name: "bash", goal_permille: 30, prepare: bash, makes: None },
    Program { name: "sqlite", goal_permille: 30, prepare: sqlite, makes: Some("rows.db") },
];

/// Where the executable of this name is, if anywhere on the path.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

/// The words of a command line.
fn words<const N: usize>(command: [&str; N]) -> Vec<String> {
    command.map(str::to_owned).to_vec()
}

/// Numbers that look random and are the same everywhere: a linear congruential generator with
/// Knuth's MMIX constants.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}

fn sort(directory: &Path) -> Result<Option<Vec<String>>> {
    const BYTES: usize = 50 << 20;
    let mut numbers = Numbers(1);
    let mut text = String::with_capacity(BYTES + 64);
    while text.len() < BYTES {
        writeln!(text, "{:08x} {:06} line", numbers.next(), numbers.next() % 1_000_000)?;
    }
    fs::write(directory.join("lines.txt"), text)?;
    Ok(find("sort").map(|_| words(["sort", "-o", "sorted.txt", "lines.txt"])))
}

fn python(_: &Path) -> Result<Option<Vec<String>>> {
    // What the path holds may be a script that chooses an interpreter: ask the interpreter itself.
    let Ok(output) =
        Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output()
    else {
        return Ok(None);
    };
    let interpreter = String::from_utf8(output.stdout).context("python3 has an odd path")?;
    let interpreter = interpreter.trim();
    if !output.status.success() || interpreter.is_empty() {
        return Ok(None);
    }
    Ok(Some(words([interpreter, "-c", "print(len([i for i in range(10_000_000)]))"])))
}

fn gcc(directory: &Path) -> Result<Option<Vec<String>>> {
    let mut source = String::from("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n");
    for function in 0..12 {
        write!(
            source,
            "
struct table{function} {{ unsigned keys[256]; double values[256]; size_t count; }};

double look_up{function}(const struct table{function} *table, unsigned key) {{
    size_t low = 0, high = table->count;
    while (low < high) {{
        size_t middle = low + (high - low) / 2;
        if (table->keys[middle] < key) low = middle + 1; else high = middle;
    }}
    return low < table->count && table->keys[low] == key ? table->values[low] : -{function}.0;
}}
"
        )?;
    }
    fs::write(directory.join("words.c"), source)?;
    Ok(find("gcc").map(|_| words(["gcc", "-O2", "-c", "words.c", "-o", "words.o"])))
}

#[allow(clippy::unnecessary_wraps)] // all preparations have one type
fn java(_: &Path) -> Result<Option<Vec<String>>> {
    Ok(find("java").map(|_| words(["java", "-version"])))
}

fn git(directory: &Path) -> Result<Option<Vec<String>>> {
    if find("git").is_none() {
        return Ok(None);
    }
    let run = |arguments: &[&str]| -> Result<()> {
        let mut git = Command::new("git");
        git.current_dir(directory).args(arguments).env("HOME", directory);
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), "Vellum");
            git.env(format!("GIT_{who}_EMAIL"), "vellum@example.org");
            git.env(format!("GIT_{who}_DATE"), "2026-01-01T00:00:00Z");
        }
        let output = git.output().context("git could not be started")?;
        if !output.status.success() {
            bail!("git {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    };
    run(&["init", "--quiet"])?;
    for commit in 0..20 {
        for file in 0..5 {
            let text = format!("file {file} of commit {commit}\n").repeat(50);
            fs::write(directory.join(format!("file{file}.txt")), text)?;
        }
        run(&["add", "."])?;
        run(&["commit", "--quiet", "--message", &format!("Commit {commit}")])?;
    }
    Ok(Some(words(["git", "--no-pager", "log", "--stat"])))
}

fn bash(directory: &Path) -> Result<Option<Vec<String>>> {
    let script = "for i in {1..8}; do ls -l . | wc -l; done\n";
    fs::write(directory.join("children.sh"), script)?;
    Ok(find("bash").map(|_| words(["bash", "children.sh"])))
}

fn sqlite(directory: &Path) -> Result<Option<Vec<String>>> {
    let mut script =
        String::from("create table rows(id integer primary key, name text, value);\nbegin;\n");
    let mut numbers = Numbers(2);
    for id in 0..20_000 {
        let (name, value) = (numbers.next(), numbers.next() % 1000);
        writeln!(script, "insert into rows values({id}, 'name {name}', {value});")?;
    }
    script.push_str("commit;\ncreate index by_value on rows(value, name);\n");
    script.push_str("select value, count(*) from rows group by value order by 2 desc limit 5;\n");
    fs::write(directory.join("rows.sql"), script)?;
    Ok(find("sqlite3")
        .map(|_| words(["sqlite3", "-init", "rows.sql", "rows.db", "select count(*) from rows"])))
}

/// Removes what an earlier run made.
pub(crate) fn clean(program: &Program, directory: &Path) -> Result<()> {
    let Some(file) = program.makes else { return Ok(()) };
    match fs::remove_file(directory.join(file)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {file}"))
        }
        _ => Ok(()),
    }
}

/// Checks that names of programs are names of ours.
pub(crate) fn check_names(names: &[String]) -> Result<()> {
    for name in names {
        let known = PROGRAMS.iter().any(|program| program.name == name);
        let all: Vec<_> = PROGRAMS.iter().map(|program| program.name).collect();
        ensure!(known, "no program is called `{name}`; there are {}", all.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_the_same_every_time() {
        let first: Vec<u64> = std::iter::repeat_with({
            let mut numbers = Numbers(1);
            move || numbers.next()
        })
        .take(3)
        .collect();
        let mut again = Numbers(1);
        assert_eq!(first, [again.next(), again.next(), again.next()]);
        assert_ne!(first[0], first[1]);
    }

    #[test]
    fn a_name_that_is_nobodys_is_refused_with_those_that_are_known() {
        assert!(check_names(&["sort".to_owned()]).is_ok());
        let error = check_names(&["sorte".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("`sorte`") && error.contains("sqlite"), "{error}");
    }
}
