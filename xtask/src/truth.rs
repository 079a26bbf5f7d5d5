//! `truth`: page faults of replays against those that the Linux kernel of this machine counts.
//!
//! Each program is recorded once and replayed with unlimited memory; natively it runs several
//! times under `perf stat`, after one run that fills the page cache. Compared is the sum of minor
//! and major faults, the replay's with the median of Linux. Nothing is calibrated: the replay knows
//! no count.
//!
//! Two things that QEMU's user mode does not have are switched off natively, with the means that
//! Linux and glibc have for it: random addresses (`setarch -R`; they decide which 64 KiB window a
//! page of a file falls into), and restartable sequences (`glibc.pthread.rseq=0`; the kernel writes
//! to their area after each `fork`). The last columns are Linux with both, as users have it.
//!
//! What else cannot agree: `perf` does not count what `exec` itself touches (the replay does, some
//! five pages an image), frames of signal handlers are not recorded, and QEMU offers programs an
//! older processor, so that they take other variants of library functions.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::build::{self, Built};
use crate::programs::{self, PROGRAMS, Program};
use crate::scratch::Scratch;

/// What to do.
#[derive(Debug)]
pub(crate) struct Options {
    /// Native runs that are counted.
    runs: usize,
    /// Names of programs; all if empty.
    names: Vec<String>,
    /// The command to test, instead of building it.
    vellum: Option<PathBuf>,
}

impl Options {
    /// Reads the arguments after `truth`.
    ///
    /// # Errors
    /// If they are not as the usage says.
    pub(crate) fn parse(arguments: &[String]) -> Result<Options> {
        let mut options = Options { runs: 5, names: Vec::new(), vellum: None };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--runs" => {
                    let count = rest.next().context("--runs needs a number")?;
                    options.runs = count.parse().ok().filter(|&n| n > 0).with_context(|| {
                        format!("--runs needs a number of at least 1, not `{count}`")
                    })?;
                }
                "--vellum" => {
                    let file = rest.next().context("--vellum needs a file")?;
                    let file = fs::canonicalize(file).with_context(|| format!("no {file}"))?;
                    options.vellum = Some(file);
                }
                name if name.starts_with('-') => bail!("no option is called `{name}`"),
                name => options.names.push(name.to_owned()),
            }
        }
        programs::check_names(&options.names)?;
        Ok(options)
    }
}

/// One line of the table.
struct Comparison {
    name: &'static str,
    /// Sums of minor and major faults under the conditions of a recording, sorted.
    native: Vec<u64>,
    /// The same under the conditions of every day.
    usual: Vec<u64>,
    replay: u64,
    goal_permille: u32,
}

impl Comparison {
    fn median(&self) -> u64 {
        median(&self.native)
    }

    /// The replay's excess over Linux, as a share of Linux.
    fn difference(&self) -> f64 {
        let median = self.median() as f64;
        (self.replay as f64 - median) / median
    }

    /// Whether the difference is within the goal. In whole numbers: no rounding decides.
    fn is_met(&self) -> bool {
        let apart = self.replay.abs_diff(self.median());
        apart * 1000 <= self.median() * u64::from(self.goal_permille)
    }
}

/// The middle one of sorted numbers.
fn median(sorted: &[u64]) -> u64 {
    sorted[sorted.len() / 2]
}

const HEADER: &str = "\
| program | Linux: min..max | median | replay | difference | goal | | usual: min..max | median |
|---|---|---|---|---|---|---|---|---|";

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends = |sorted: &[u64]| format!("{}..{}", sorted[0], sorted[sorted.len() - 1]);
        write!(
            f,
            "| {} | {} | {} | {} | {:+.2} % | {} % | {} | {} | {} |",
            self.name,
            ends(&self.native),
            self.median(),
            self.replay,
            self.difference() * 100.0,
            f64::from(self.goal_permille) / 10.0,
            if self.is_met() { "ok" } else { "NO" },
            ends(&self.usual),
            median(&self.usual),
        )
    }
}

/// Compares, and prints a table in Markdown; false if a goal is missed.
///
/// # Errors
/// If Vellum cannot be built, or a program fails.
pub(crate) fn run(options: &Options) -> Result<bool> {
    for tool in ["perf", "setarch", "qemu-x86_64"] {
        let given = tool == "qemu-x86_64" && std::env::var_os("VELLUM_QEMU").is_some();
        if !given && programs::find(tool).is_none() {
            println!("SKIP: {tool} is not installed");
            return Ok(true);
        }
    }
    let scratch = Scratch::new("vellum-truth")?;
    if let Err(error) = count_native(&["true".to_owned()], scratch.path(), Conditions::Recording) {
        println!("SKIP: perf cannot count page faults here: {error:#}");
        return Ok(true);
    }
    let built = match &options.vellum {
        Some(vellum) => Built { vellum: vellum.clone(), plugin: None },
        None => build::vellum()?,
    };
    if let Err(error) = record(&built, &["true".to_owned()], scratch.path()) {
        println!("SKIP: nothing can be recorded here: {error:#}");
        return Ok(true);
    }
    println!("{}", host());
    println!("{HEADER}");
    let mut met = true;
    for program in &PROGRAMS {
        if !options.names.is_empty() && !options.names.iter().any(|name| name == program.name) {
            continue;
        }
        let directory = scratch.path().join(program.name);
        fs::create_dir(&directory)?;
        let compared = compare(program, &built, &directory, options.runs)
            .with_context(|| format!("{} could not be compared", program.name))?;
        match compared {
            None => println!("SKIP: {} is not installed", program.name),
            Some(comparison) => {
                println!("{comparison}");
                met &= comparison.is_met();
            }
        }
        fs::remove_dir_all(&directory)?;
    }
    Ok(met)
}

/// What the counts depend on besides the programs.
fn host() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let huge = read("/sys/kernel/mm/transparent_hugepage/enabled");
    let chosen = huge.split(['[', ']']).nth(1).unwrap_or("not available").to_owned();
    let warning = match chosen.as_str() {
        "always" => ": Linux will count huge pages as one fault, expect differences",
        _ => "",
    };
    format!(
        "Linux {}, transparent huge pages: {chosen}{warning}\n",
        read("/proc/sys/kernel/osrelease")
    )
}

fn compare(
    program: &Program,
    built: &Built,
    directory: &Path,
    runs: usize,
) -> Result<Option<Comparison>> {
    let Some(command) = (program.prepare)(directory)? else { return Ok(None) };
    let count = |conditions| -> Result<Vec<u64>> {
        let mut counts = Vec::with_capacity(runs);
        // The first run fills the page cache and is not counted.
        for run in 0..=runs {
            programs::clean(program, directory)?;
            let faults = count_native(&command, directory, conditions)?;
            if run > 0 {
                counts.push(faults);
            }
        }
        counts.sort_unstable();
        Ok(counts)
    };
    let (native, usual) = (count(Conditions::Recording)?, count(Conditions::Usual)?);
    programs::clean(program, directory)?;
    let trace = record(built, &command, directory)?;
    let replay = replay(built, &trace)?;
    fs::remove_file(trace)?;
    let goal_permille = program.goal_permille;
    Ok(Some(Comparison { name: program.name, native, usual, replay, goal_permille }))
}

/// How a program runs natively.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Conditions {
    /// Without what a recording does not have either; see the head of this file.
    Recording,
    /// As Linux runs programs.
    Usual,
}

/// Makes glibc do without restartable sequences.
const NO_RSEQ: (&str, &str) = ("GLIBC_TUNABLES", "glibc.pthread.rseq=0");

/// The environment of a program, the same natively and recorded.
fn prepared(executable: &Path, directory: &Path) -> Command {
    let mut command = Command::new(executable);
    command
        .current_dir(directory)
        .env_clear()
        .env("HOME", directory)
        .env("LC_ALL", "C")
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Runs the program natively; gives minor and major faults of it and its descendants.
fn count_native(command: &[String], directory: &Path, conditions: Conditions) -> Result<u64> {
    let counts = directory.join("perf.csv");
    // Not between `perf` and the program: its own faults would count.
    let mut counting = match conditions {
        Conditions::Recording => {
            let mut setarch = prepared(Path::new("setarch"), directory);
            setarch.args(["-R", "perf"]).env(NO_RSEQ.0, NO_RSEQ.1);
            setarch
        }
        Conditions::Usual => prepared(Path::new("perf"), directory),
    };
    let output = counting
        .args(["stat", "-x,", "-e", "minor-faults,major-faults", "-o"])
        .arg(&counts)
        .arg("--")
        .args(command)
        .output()
        .context("perf could not be started")?;
    ensure!(output.status.success(), "{}", said(&output.stderr));
    let text = fs::read_to_string(&counts)?;
    fs::remove_file(&counts)?;
    sum_of_faults(&text)
}

/// The sum of the two counts in what `perf stat -x,` writes.
fn sum_of_faults(text: &str) -> Result<u64> {
    let mut sum = 0;
    for event in ["minor-faults", "major-faults"] {
        let line = text
            .lines()
            .find(|line| line.split(',').any(|field| field.trim_end_matches(":u") == event))
            .with_context(|| format!("perf did not count {event}"))?;
        let count = line.split(',').next().unwrap_or_default();
        sum += count.parse::<u64>().with_context(|| format!("perf counts {event} as `{count}`"))?;
    }
    Ok(sum)
}

/// Records the program; gives the trace.
fn record(built: &Built, command: &[String], directory: &Path) -> Result<PathBuf> {
    let trace = directory.join("program.vtrace");
    let mut recording = prepared(&built.vellum, directory);
    recording.env(NO_RSEQ.0, NO_RSEQ.1);
    if let Some(qemu) = std::env::var_os("VELLUM_QEMU") {
        // It may be given relative to where we are.
        recording.env("VELLUM_QEMU", fs::canonicalize(&qemu).unwrap_or_else(|_| qemu.into()));
    }
    if let Some(plugin) = &built.plugin {
        recording.env("VELLUM_PLUGIN", plugin);
    }
    let output = recording
        .arg("record")
        .arg("--output")
        .arg(&trace)
        .arg("--")
        .args(command)
        .output()
        .context("vellum could not be started")?;
    ensure!(output.status.success(), "{}", said(&output.stderr));
    Ok(trace)
}

/// Replays with unlimited memory; gives minor and major faults.
fn replay(built: &Built, trace: &Path) -> Result<u64> {
    let output = Command::new(&built.vellum)
        .args(["replay", "--format", "json"])
        .arg(trace)
        .output()
        .context("vellum could not be started")?;
    ensure!(output.status.success(), "{}", said(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).context("the report is no JSON")?;
    let faults = &report["faults"];
    ensure!(
        faults["by_kind"]["violation"] == 0,
        "the replay met {} accesses that no area allows",
        faults["by_kind"]["violation"]
    );
    let count = |kind: &str| {
        faults[kind].as_u64().with_context(|| format!("the report has no faults.{kind}"))
    };
    Ok(count("minor")? + count("major")?)
}

/// What a failed program said, on one line.
fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "it failed and said nothing".to_owned() } else { lines.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(native: &[u64], replay: u64, goal_permille: u32) -> Comparison {
        let (native, usual) = (native.to_vec(), vec![7, 8, 9]);
        Comparison { name: "p", native, usual, replay, goal_permille }
    }

    #[test]
    fn the_goal_is_a_bound_on_either_side_of_the_median() {
        for (replay, met) in [(969, false), (970, true), (1000, true), (1030, true), (1031, false)]
        {
            assert_eq!(comparison(&[900, 1000, 2000], replay, 30).is_met(), met, "{replay}");
        }
    }

    #[test]
    fn a_line_shows_what_was_counted_and_whether_it_is_enough() {
        let line = comparison(&[990, 1000, 1010], 1031, 30).to_string();
        assert_eq!(line, "| p | 990..1010 | 1000 | 1031 | +3.10 % | 3 % | NO | 7..9 | 8 |");
    }

    #[test]
    fn counts_are_found_among_the_lines_of_perf() {
        let text = "# started on Thu\n\n209,,minor-faults,2400089,100.00,,\n\
                    1,,major-faults:u,9,100.00,,\n";
        assert_eq!(sum_of_faults(text).unwrap(), 210);
        assert!(sum_of_faults("209,,minor-faults,2400089,100.00,,\n").is_err());
        let refused = "<not supported>,,minor-faults,0,,,\n0,,major-faults,0,,,\n";
        assert!(sum_of_faults(refused).is_err());
    }

    #[test]
    fn arguments_are_names_and_runs() {
        let parse = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            Options::parse(&words)
        };
        let options = parse("--runs 3 sort git").unwrap();
        assert_eq!((options.runs, options.names.len()), (3, 2));
        for wrong in ["--runs", "--runs 0", "--runs x", "--vellum", "--fast", "sorte"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
