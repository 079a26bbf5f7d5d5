//! Every script in `scenarios/` gives the log that it states.
//!
//! `VELLUM_BLESS=1 cargo test -p vellum-lab --test scenarios` writes the logs found into the
//! scripts. The difference is then for a reader to judge: a log that nobody has derived proves
//! nothing.

mod chance;

use std::fs;
use std::path::{Path, PathBuf};

use chance::any_script;
use vellum_lab::scenario::{bless, run};
use vellum_scenario::Script;

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let entries = fs::read_dir(&folder).expect("the folder of scenarios is there");
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("the folder can be listed").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "scn"));
    paths.sort();
    paths
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("scenarios have plain names")
}

/// Runs one script; what is wrong with it otherwise.
fn check(path: &Path) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let first = text.lines().next().unwrap_or_default();
    let title = format!("# {}: ", name(path));
    if !first.starts_with(&title) {
        return Err(format!("{}:1: the first line should say `{title}` and a fact", name(path)));
    }
    let script = Script::parse(name(path), &text).map_err(|error| error.to_string())?;
    if std::env::var_os("VELLUM_BLESS").is_some_and(|value| value == "1") {
        let blessed = bless(&script).map_err(|mismatch| mismatch.to_string())?;
        return fs::write(path, blessed).map_err(|error| error.to_string());
    }
    run(&script).map_err(|mismatch| mismatch.to_string())
}

#[test]
fn every_scenario_gives_its_log() {
    let paths = scripts();
    assert!(paths.len() >= 20, "only {} scenarios were found", paths.len());
    let wrong: Vec<String> = paths.iter().filter_map(|path| check(path).err()).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), paths.len(), wrong.join("\n"));
}

#[test]
fn every_item_of_the_log_is_shown_by_a_scenario() {
    let mut shown: Vec<String> = Vec::new();
    for path in scripts() {
        let text = fs::read_to_string(&path).expect("a scenario can be read");
        let script = Script::parse(name(&path), &text).expect("a scenario is well-formed");
        let logs = script.steps.iter().flat_map(|step| &step.expected);
        shown.extend(logs.map(|item| format!(" {item} ")));
    }
    // Not `spurious`: it takes two processors, or one that remembers a translation.
    let items = [
        "zero-page",
        "zero-fill",
        "file-map",
        "around",
        "swap-in",
        "copy",
        "reuse",
        "make-dirty",
        "stack-grown",
        "major",
        "read",
        "write",
        "swap",
        "file",
        "nowhere",
        "free",
        "wait",
        "done",
        "failed",
        "SIGSEGV unmapped",
        "SIGSEGV forbidden",
        "SIGBUS beyond-file",
        "SIGBUS io",
        "out-of-memory",
        "refused invalid",
        "refused occupied",
        "refused no-room",
        "refused no-memory",
        "refused hole",
        "at",
        "exhausted",
    ];
    let is_missing = |item: &&&str| {
        let words = format!(" {item} ");
        !shown.iter().any(|log| log.contains(&words))
    };
    let missing: Vec<_> = items.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "no scenario shows {missing:?}");
}

/// What runs say of `text`.
fn outcome(text: &str) -> String {
    let script = Script::parse("t.scn", text).expect("the script is well-formed");
    run(&script).map_or_else(|mismatch| mismatch.to_string(), |()| "as stated".to_owned())
}

#[test]
fn a_wrong_expectation_fails_at_its_line() {
    let good =
        "a: mmap 0x10000 1 rw private\n\na: write 0x10000 => zero-fill f0\na: exit => free f0";
    assert_eq!(outcome(good), "as stated");
    let other = good.replace("zero-fill f0", "zero-fill f1");
    let report = "t.scn:3: a: write 0x10000\n  expected: zero-fill f1\n     found: zero-fill f0";
    assert_eq!(outcome(&other), report);
    let silent = good.replace(" => zero-fill f0", "");
    assert!(outcome(&silent).contains("expected: nothing\n     found: zero-fill f0"));
    let more = good.replace("zero-fill f0", "zero-fill f0, spurious");
    assert!(outcome(&more).starts_with("t.scn:3: "));
    let empty = good.replace("private\n", "private => zero-page\n");
    assert!(outcome(&empty).contains("found: nothing"), "what is stated must happen");
}

#[test]
fn checks_fail_and_cannot_be_blessed() {
    let text = "a: mmap 0x10000 1 rw private\na: write 0x10000 => zero-fill f0\ncheck resident a 2";
    assert!(outcome(text).ends_with("expected: nothing\n     found: 1 resident pages"));
    let script = Script::parse("t.scn", text).expect("the script is well-formed");
    assert_eq!(bless(&script).expect_err("a check fails").line, 3);
}

#[test]
fn a_process_that_waits_can_do_nothing_else() {
    let text = "read-ahead 1\nfile data 1\na: mmap 0x10000 1 r shared file data 0\nhold\n\
                a: read 0x10000 => read data 0 f0 r0, wait r0\na: exit";
    assert!(outcome(text).ends_with("found: `a` waits for a disk"));
    let text = "hold\ncomplete r3";
    assert!(outcome(text).ends_with("found: r3 is not under way"));
}

#[test]
fn a_machine_too_small_to_boot_is_reported() {
    assert!(outcome("frames 4\na: exit").contains("does not boot: TooSmall"));
    assert!(outcome("frames 8\na: mmap any 1 r private\na: exit").starts_with("t.scn:"));
}

#[test]
fn a_blessed_script_keeps_its_comments_and_gives_its_log() {
    let text = "# t.scn: fact\nframes 64\n\na: mmap 0x10000 40 rw private\n# why\n\
                a: write 0x10000\na: read 0x11000 9 => wrong\na: exit\n# end";
    let script = Script::parse("t.scn", text).expect("the script is well-formed");
    let blessed = bless(&script).expect("every step can be done");
    let zeros = ["zero-page"; 9].join(", ");
    for part in ["# t.scn: fact\nframes 64\n\n", "\n# why\na: write 0x10000", "  => zero-fill f0\n"]
    {
        assert!(blessed.contains(part), "{part:?} in\n{blessed}");
    }
    assert!(blessed.lines().all(|line| line.len() <= 100), "{blessed}");
    assert!(!blessed.contains(&zeros), "a long log is continued on the next line:\n{blessed}");
    let again = Script::parse("t.scn", &blessed).expect("what is blessed can be read");
    assert_eq!(run(&again), Ok(()));
    assert_eq!(bless(&again), Ok(blessed));
}

#[test]
fn an_error_names_file_line_and_what_was_expected() {
    let table = [
        ("frames", "t.scn:1: expected a number of frames (1 to 1048576), found nothing"),
        ("frames many", "t.scn:1: expected a number of frames (1 to 1048576), found `many`"),
        ("frames 64 65", "t.scn:1: expected the end of the statement, found `65`"),
        ("frames 64 => free f0", "t.scn:1: expected no log after a setting, found `=>`"),
        ("fault-around 3", "t.scn:1: expected a power of two, found `3`"),
        ("policy best", "t.scn:1: expected a policy of `vellum policies`, found `best`"),
        ("\n# x\n jump", "t.scn:3: expected a statement, found `jump`"),
        ("hold\nframes 8", "t.scn:2: expected settings before the first step only, found `frames`"),
        ("a: jump", "t.scn:1: expected what the process does, found `jump`"),
        ("A: exit", "t.scn:1: expected a name (lower-case letters, digits, `-`), found `A`"),
        ("a: read 0x10", "t.scn:1: expected an address that is a multiple of 0x1000, found `0x10`"),
        ("a: read 0x+1", "t.scn:1: expected an address that is a multiple of 0x1000, found `0x+1`"),
        (
            "a: mmap any 1 wr private",
            "t.scn:1: expected rights (`none`, or some of `r`, `w`, `x` in \
          this order), found `wr`",
        ),
        ("a: mmap any 1 r owned", "t.scn:1: expected `private` or `shared`, found `owned`"),
        (
            "a: mmap any 1 r private fixed",
            "t.scn:1: expected `file`, `growsdown`, `noreserve`, \
          `locked` or, at an address, `fixed`, found `fixed`",
        ),
        ("a: fork a", "t.scn:1: expected a new name, found `a`"),
        ("a: exit\na: exit", "t.scn:2: expected a process that has not exited, found `a`"),
        ("a: vfork b\na: exit", "t.scn:2: expected `b`, for which its parent waits, found `a`"),
        (
            "fread data 0",
            "t.scn:1: expected a file or memory object that was made before and not \
          forgotten, found `data`",
        ),
        ("memory m 1 warm", "t.scn:1: expected `warm` or `cold`, found `warm`"),
        ("check leaks", "t.scn:1: expected `no-leaks` or `resident`, found `leaks`"),
        ("complete 0", "t.scn:1: expected a request (`r0`, `r1`, …), found `0`"),
        ("a: exit => free f0,, free f1", "t.scn:1: expected an item of the log, found nothing"),
        ("=> free f0", "t.scn:1: expected a statement, found nothing"),
    ];
    for (text, message) in table {
        let error = Script::parse("t.scn", text).expect_err(text);
        assert_eq!(error.to_string(), message, "{text:?}");
    }
}

/// How many scripts by chance are run; `VELLUM_SCRIPTS` says how many instead.
const SCRIPTS: u64 = 300;

#[test]
fn records_agree_after_every_step_of_any_script() {
    let count = std::env::var("VELLUM_SCRIPTS")
        .map_or(SCRIPTS, |count| count.parse().expect("VELLUM_SCRIPTS is a number"));
    let mut ended = 0;
    for seed in 0..count {
        let text = any_script(seed);
        let script = Script::parse("any.scn", &text)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}\n{text}"));
        match bless(&script) {
            Ok(blessed) => {
                ended += 1;
                let again =
                    Script::parse("any.scn", &blessed).expect("what is blessed can be read");
                assert_eq!(run(&again), Ok(()), "seed {seed}: not the same twice");
            }
            // The script asked who could not answer; what came before has been audited.
            Err(end) if end.found.ends_with("waits for a disk") => {}
            Err(end) if end.found.ends_with("whose fork was refused") => {}
            Err(end) if end.found.starts_with("no memory for a new process") => {}
            Err(other) => panic!("seed {seed}: {other}\n{text}"),
        }
    }
    assert!(ended * 4 > count, "only {ended} of {count} scripts came to their end");
}
