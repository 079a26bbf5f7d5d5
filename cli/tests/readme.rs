//! The examples of README.md print what README.md says.
//!
//! A block that begins with `$ vellum …` is run from the root of the repository. Its lines must be in the
//! output, in order; `…` alone on a line stands for any lines. One that boots is skipped, with a line
//! that says so, where it cannot.

mod support;

use assert_cmd::Command;

fn examples() -> Vec<(String, Vec<String>)> {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))
        .expect("it is there");
    let mut blocks = Vec::new();
    let mut lines = readme.lines();
    while let Some(line) = lines.next() {
        if line == "```text" {
            let block: Vec<String> =
                lines.by_ref().take_while(|line| *line != "```").map(str::to_owned).collect();
            if let Some(command) = block[0].strip_prefix("$ vellum ") {
                blocks.push((command.to_owned(), block[1..].to_vec()));
            }
        }
    }
    blocks
}

#[test]
fn examples_print_what_is_shown() {
    let examples = examples();
    assert!(examples.len() >= 3, "README.md has lost its examples");
    for (command, shown) in examples {
        if command.starts_with("boot") && !support::can_boot() {
            continue;
        }
        let mut vellum = Command::cargo_bin("vellum").expect("it is built");
        vellum.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let output = vellum.args(command.split_whitespace()).assert().success();
        let output = String::from_utf8(output.get_output().stdout.clone()).expect("text");
        let mut printed = output.lines().map(str::trim_end);
        let mut skips = false;
        for line in &shown {
            if line == "…" {
                skips = true;
                continue;
            }
            let found = if skips {
                printed.by_ref().any(|printed| printed == line.trim_end())
            } else {
                printed.next() == Some(line.trim_end())
            };
            assert!(found, "`vellum {command}` does not print this here:\n{line}\nbut:\n{output}");
            skips = false;
        }
    }
}
