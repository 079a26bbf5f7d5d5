//! Rules of the repository, as a test: layers, unsafe code, sizes, words.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The crates of the product.
const CRATES: [&str; 9] =
    ["mm", "scenario", "machine", "trace", "recorder", "lab", "cli", "kernel", "emulator"];

/// All Rust sources below `folder`, with their text.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = fs::read_to_string(&path).expect("the file can be read");
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no sources");
    found
}

/// The part of a file before its tests.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

/// The layers of `mm`: a module uses only lower numbers, or its own.
const LAYERS: [(&str, u32); 19] = [
    ("addr", 0),
    ("event", 0),
    ("machine", 0),
    ("ring", 0),
    ("frames", 1),
    ("slab", 2),
    ("translate", 2),
    ("replace", 2),
    ("account", 2),
    ("objects", 3),
    ("spaces", 4),
    ("reclaim", 5),
    ("fault", 6),
    ("config", 7),
    ("vm", 7),
    ("check", 8),
    ("testing", 8),
    ("Vm", 7),
    ("Config", 7),
];

fn layer(module: &str) -> u32 {
    let found = LAYERS.iter().find(|(name, _)| *name == module);
    found.unwrap_or_else(|| panic!("`{module}` has no layer")).1
}

#[test]
fn a_module_of_the_core_uses_only_lower_layers() {
    let base = root().join("mm/src");
    let mut upward = Vec::new();
    for (path, text) in sources("mm/src") {
        let inside = path.strip_prefix(&base).expect("it is below");
        let module = inside.iter().next().and_then(|first| first.to_str()).expect("it has a name");
        let module = module.trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        for line in without_tests(&text).lines().filter(|line| !line.trim().starts_with("//")) {
            for part in line.split("crate::").skip(1) {
                let end = part.find(|c: char| !c.is_alphanumeric() && c != '_');
                let used = &part[..end.unwrap_or(part.len())];
                if !used.is_empty() && layer(used) > layer(module) {
                    upward.push(format!("{}: {}", inside.display(), line.trim()));
                }
            }
        }
    }
    assert!(upward.is_empty(), "uses of a higher layer:\n{}", upward.join("\n"));
}

#[test]
fn the_core_has_no_cfg_and_no_unsafe_code() {
    for (path, text) in sources("mm/src") {
        for line in without_tests(&text).lines() {
            let line = line.trim();
            let configured = line.starts_with("#[cfg(") && line != "#[cfg(test)]";
            assert!(!configured, "{}: {line}", path.display());
        }
    }
    for name in ["mm", "scenario", "machine", "trace", "lab", "emulator"] {
        let text = fs::read_to_string(root().join(name).join("src/lib.rs")).expect("it is there");
        assert!(text.contains("#![forbid(unsafe_code)]"), "{name} does not forbid unsafe code");
    }
}

/// Places with unsafe code, where there may be any. The numbers may only fall.
const UNSAFE_MAX: [(&str, usize); 2] = [("recorder/src", 52), ("kernel/src/arch", 80)];

#[test]
fn unsafe_code_does_not_grow() {
    for (folder, max) in UNSAFE_MAX {
        let count: usize = sources(folder)
            .iter()
            .flat_map(|(_, text)| text.lines())
            .filter(|line| !line.trim().starts_with("//"))
            .map(|line| line.matches("unsafe {").count() + line.matches("unsafe impl").count())
            .sum();
        assert!(count <= max, "{folder} has {count} unsafe blocks, more than {max}");
    }
}

#[test]
fn of_the_kernel_only_the_machine_has_unsafe_code() {
    let main = fs::read_to_string(root().join("kernel/src/main.rs")).expect("it is there");
    assert!(main.contains("#![deny(unsafe_code)]"));
    let allowed: Vec<_> = sources("kernel/src")
        .into_iter()
        .filter(|(_, text)| text.contains(concat!("allow(unsafe", "_code)")))
        .map(|(path, _)| path)
        .collect();
    let [allowed] = &allowed[..] else { panic!("unsafe code is allowed in {allowed:?}") };
    assert!(allowed.ends_with("kernel/src/arch/mod.rs"), "{}", allowed.display());
}

/// Lines of code without tests that a file may have. Long files are seldom one story.
const LINES_MAX: usize = 530;

#[test]
fn files_tell_one_story_each() {
    for folder in CRATES {
        for (path, text) in sources(&format!("{folder}/src")) {
            let lines = without_tests(&text).lines().count();
            assert!(lines <= LINES_MAX, "{} has {lines} lines", path.display());
            assert!(text.starts_with("//!"), "{} has no header", path.display());
        }
    }
}

#[test]
fn nothing_is_left_unfinished() {
    let (todo, unimplemented) = (concat!("todo", "!("), concat!("unimplemented", "!("));
    for folder in CRATES.into_iter().chain(["xtask"]) {
        for (path, text) in sources(folder) {
            assert!(!text.contains(todo) && !text.contains(unimplemented), "{}", path.display());
        }
    }
}

#[test]
fn every_word_of_the_glossary_is_in_the_code() {
    let glossary = fs::read_to_string(root().join("GLOSSARY.md")).expect("it is there");
    let mut code = String::new();
    for folder in ["mm/src", "scenario/src", "machine/src", "trace/src", "lab/src"] {
        for (path, text) in sources(folder) {
            code.push_str(&path.display().to_string());
            code.push_str(&text);
        }
    }
    for row in glossary.lines().filter(|line| line.starts_with("| **")) {
        let place = row.split('|').nth(3).expect("a row has four columns");
        for name in place.split('`').skip(1).step_by(2) {
            let name = name.rsplit("::").next().expect("a name has an end").trim_end_matches('/');
            assert!(code.contains(name), "GLOSSARY.md names `{name}`, which is nowhere");
        }
    }
}
