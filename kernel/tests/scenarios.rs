//! Every script in `scenarios/` gives the log that it states, on real page tables too.
//!
//! The lab's test of the same name runs them on its simulated machine: so both worlds give one log.
//! Without QEMU a line that starts with `SKIP` says so.

#[path = "../../lab/tests/chance/mod.rs"]
mod chance;
mod machine;

use std::fs;
use std::path::Path;

use chance::any_script;
use machine::{FAILED, PASSED, machine, run};
use vellum_emulator::archive::Archive;
use vellum_emulator::qemu::Exit;
use vellum_lab::scenario::bless;
use vellum_scenario::Script;

/// What the kernel leaves with if there is nothing to run.
const REFUSED: Exit = Exit::Code(0x12);

/// Runs scripts, by name and text, in one machine; `None` without QEMU.
fn play(scripts: &[(String, String)], expected: Exit) -> Option<String> {
    let mut qemu = machine("scenario")?;
    let mut archive = Archive::default();
    if !scripts.is_empty() {
        archive.directory("scenarios");
    }
    for (name, text) in scripts {
        archive.file(&format!("scenarios/{name}"), text.as_bytes()).expect("scripts are short");
    }
    let folder = tempfile::tempdir().expect("there is room for an archive");
    let path = folder.path().join("archive");
    fs::write(&path, archive.finish()).expect("the folder is writable");
    qemu.archive = Some(path);
    Some(run(&qemu, expected))
}

/// All that are shipped.
fn shipped() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let entries = fs::read_dir(&folder).expect("the folder of scenarios is there");
    let paths = entries.map(|entry| entry.expect("the folder can be listed").path());
    let scripts = paths.filter(|path| path.extension().is_some_and(|ending| ending == "scn"));
    scripts
        .map(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).expect("names are plain");
            (name.to_owned(), fs::read_to_string(&path).expect("a script can be read"))
        })
        .collect()
}

fn assert_all_passed(scripts: &[(String, String)], output: &str) {
    for (name, _) in scripts {
        let line = format!("@{{\"event\":\"pass\",\"name\":\"{name}\"}}");
        assert!(output.lines().any(|other| other == line), "no `{line}` in:\n{output}");
    }
}

fn script(name: &str, lines: &[&str]) -> (String, String) {
    (name.to_owned(), lines.join("\n"))
}

#[test]
fn every_scenario_gives_its_log_on_real_page_tables() {
    let scripts = shipped();
    assert!(scripts.len() >= 20, "only {} scenarios were found", scripts.len());
    let Some(output) = play(&scripts, PASSED) else { return };
    assert_all_passed(&scripts, &output);
}

/// How many scripts are made by chance, though not all come to an end; `VELLUM_SCRIPTS` says how many
/// instead.
const SCRIPTS: u64 = 100;

#[test]
fn scripts_by_chance_give_the_logs_of_the_simulated_machine() {
    let simulated = |seed| {
        let name = format!("{seed}.scn");
        let script = Script::parse(&name, &any_script(seed)).expect("it is in the language");
        bless(&script).ok().map(|text| (name, text))
    };
    let count = std::env::var("VELLUM_SCRIPTS")
        .map_or(SCRIPTS, |count| count.parse().expect("VELLUM_SCRIPTS is a number"));
    let scripts: Vec<_> = (0..count).filter_map(simulated).collect();
    assert!(scripts.len() as u64 * 4 > count, "only {} came to their end", scripts.len());
    let Some(output) = play(&scripts, PASSED) else { return };
    assert_all_passed(&scripts, &output);
}

#[test]
fn a_wrong_expectation_fails_and_the_others_go_on() {
    let scripts = [
        script("a.scn", &["a: mmap 0x10000 1 rw private", "a: write 0x10000 => zero-fill f1"]),
        script("b.scn", &["a: mmap 0x10000 1 r private", "a: write 0x10000 => zero-fill f0"]),
        script("c.scn", &["a: mmap 0x10000 1 rw private", "a: write 0x10000 => zero-fill f0"]),
        script("d.scn", &["a: jump"]),
        script("e.scn", &["frames 1000000", "a: exit"]),
    ];
    let Some(output) = play(&scripts, FAILED) else { return };
    for line in [
        "\"fail\",\"name\":\"a.scn\",\"why\":\"a.scn:2: a: write 0x10000\\u000a  \
         expected: zero-fill f1\\u000a     found: zero-fill f0\"}",
        "     found: SIGSEGV forbidden\"}",
        "\"pass\",\"name\":\"c.scn\"}",
        "\"why\":\"d.scn:1: expected what the process does, found `jump`\"}",
        "     found: no window of 1000000 frames\"}",
    ] {
        assert!(output.contains(line), "no `{line}` in:\n{output}");
    }
    assert!(!output.contains("\"done\""), "{output}");
}

#[test]
fn an_archive_without_scripts_is_refused() {
    let Some(output) = play(&[], REFUSED) else { return };
    assert!(output.contains("\"why\":\"the archive has no folder `scenarios`\""), "{output}");
}
