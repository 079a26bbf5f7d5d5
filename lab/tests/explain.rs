//! Explanations: the textbooks' tables, the homework's answers, and the same counts as simulations.
//!
//! The tables in `tests/explain/` are what `vellum explain` prints. If one is meant to change,
//! `VELLUM_BLESS=1 cargo test -p vellum-lab --test explain` writes them again, and the difference
//! is reviewed with the change.

use std::fs;
use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde_json::Value;
use vellum_lab::explain::anomaly::{Bounds, Search, all_in, is_stack, search};
use vellum_lab::explain::{
    FRAMES_MAX, Lesson, LessonError, Outcome, Refs, Step, Style, Subject, Table, quiz,
    write_counts, write_title,
};
use vellum_lab::string::simulate::simulate;
use vellum_mm::replace::{Choice, POLICIES};

const TEXTBOOK: &str = "7,0,1,2,0,3,0,4,2,3,0,3,2,1,2,0,1,7,0,1";
const BELADY: &str = "1,2,3,4,1,2,5,1,2,3,4,5";

fn subject(policy: &str) -> Subject {
    Subject::parse(policy, 2).expect("a policy")
}

fn lesson(policy: &str, frames: u64, refs: &str) -> Lesson {
    let refs = Refs::parse(refs).expect("a reference string");
    Lesson::new(refs, frames, subject(policy), 0).expect("a lesson")
}

/// A random string with writes, some pages hotter than others.
fn random_refs(seed: u64, length: usize) -> String {
    let mut rng = Pcg64Mcg::seed_from_u64(seed);
    let pages = rng.random_range(1..20_u32);
    let word = |_| {
        let page = rng.random_range(0..pages) * rng.random_range(1..=pages) / pages;
        format!("{page}{}", if rng.random_bool(0.3) { "w" } else { "" })
    };
    (0..length).map(word).collect::<Vec<String>>().join(" ")
}

/// Frames as a book prints them: `2 0 1`, and nothing under a hit.
fn columns(lesson: &Lesson) -> Vec<String> {
    let column = |step: Step| match step.outcome {
        Outcome::Hit => String::new(),
        Outcome::Fault => {
            let pages = step.frames.iter().flatten().map(|held| held.page.as_str());
            pages.collect::<Vec<&str>>().join(" ")
        }
    };
    lesson.steps().map(column).collect()
}

#[test]
fn the_tables_of_the_textbook_come_out() {
    // A. Silberschatz, P. B. Galvin, G. Gagne, "Operating System Concepts", section on page
    // replacement: the figures of FIFO, OPT and LRU.
    let fifo = [
        "7", "7 0", "7 0 1", "2 0 1", "", "2 3 1", "2 3 0", "4 3 0", "4 2 0", "4 2 3", "0 2 3", "",
        "", "0 1 3", "0 1 2", "", "", "7 1 2", "7 0 2", "7 0 1",
    ];
    let opt = [
        "7", "7 0", "7 0 1", "2 0 1", "", "2 0 3", "", "2 4 3", "", "", "2 0 3", "", "", "2 0 1",
        "", "", "", "7 0 1", "", "",
    ];
    let lru = [
        "7", "7 0", "7 0 1", "2 0 1", "", "2 0 3", "", "4 0 3", "4 0 2", "4 3 2", "0 3 2", "", "",
        "1 3 2", "", "1 0 2", "", "1 0 7", "", "",
    ];
    for (policy, faults, expected) in [("fifo", 15, fifo), ("opt", 9, opt), ("lru", 12, lru)] {
        let lesson = lesson(policy, 3, TEXTBOOK);
        assert_eq!(columns(&lesson), expected, "{policy}");
        assert_eq!(lesson.counts().faults, faults, "{policy}");
    }
}

#[test]
fn steps_and_simulations_count_the_same_under_every_policy() {
    for seed in 0..60 {
        let text = random_refs(seed, 250);
        for entry in POLICIES {
            let name = entry.about.name;
            for frames in [1, 2, 3, 5, 9] {
                let refs = Refs::parse(&text).expect("a string");
                let choice = Choice::of(name);
                let run = simulate(&refs.string(), &choice, frames, seed);
                let lesson = Lesson::new(refs, frames.into(), Subject::Vellum(choice), seed);
                let lesson = lesson.expect("a lesson");
                let context = format!("{name} on {frames} frames, seed {seed}: {text}");
                let counts = lesson.counts();
                assert_eq!(counts.faults, run.counts.faults, "{context}");
                assert_eq!(counts.writebacks, run.counts.writebacks, "{context}");
                let faults = lesson.steps().filter(|step| step.outcome == Outcome::Fault).count();
                assert_eq!(faults as u64, counts.faults, "{context}");
            }
        }
    }
}

#[test]
fn what_steps_show_holds_together() {
    for entry in POLICIES {
        let lesson = lesson(entry.about.name, 4, &random_refs(5, 300));
        let mut held: Vec<String> = Vec::new();
        for step in lesson.steps() {
            let context = format!("{}: {step:?}", entry.about.name);
            assert_eq!(step.outcome == Outcome::Hit, held.contains(&step.page), "{context}");
            for gone in step.victim.iter().chain(&step.released) {
                assert!(held.contains(&gone.page), "{context}");
            }
            held = step.frames.iter().flatten().map(|held| held.page.clone()).collect();
            assert!(held.contains(&step.page), "{context}");
            assert!(step.outcome == Outcome::Hit || !step.why.is_empty(), "{context}");
            assert!(!step.lists.is_empty(), "{context}");
            for entry in step.lists.iter().flat_map(|list| &list.members) {
                // A list of frames names what they hold; a ghost is not among them.
                match entry.frame {
                    Some(frame) => {
                        let held = step.frames[frame as usize].as_ref().expect("a page");
                        assert_eq!(held.page, entry.page, "{context}");
                    }
                    None => assert!(!held.contains(&entry.page), "{context}"),
                }
            }
        }
    }
}

/// The homework's algorithms on a list, in order of loading or of use, as its text tells them.
fn homework(policy: &str, size: usize, pages: &[u64]) -> Vec<(bool, Option<u64>)> {
    let mut memory: Vec<u64> = Vec::new();
    let mut answers = Vec::new();
    for (at, &page) in pages.iter().enumerate() {
        if let Some(place) = memory.iter().position(|&held| held == page) {
            if policy == "LRU" || policy == "MRU" {
                memory.remove(place);
                memory.push(page);
            }
            answers.push((true, None));
            continue;
        }
        let coming = &pages[at + 1..];
        let next = |held: &u64| coming.iter().position(|page| page == held).unwrap_or(usize::MAX);
        let place = (memory.len() == size).then(|| match policy {
            "FIFO" | "LRU" => 0,
            "MRU" => size - 1,
            "UNOPT" => (0..size).min_by_key(|&place| next(&memory[place])).expect("full"),
            // Of several the one loaded last.
            "OPT" => (0..size).max_by_key(|&place| next(&memory[place])).expect("full"),
            _ => unreachable!(),
        });
        answers.push((false, place.map(|place| memory.remove(place))));
        memory.push(page);
    }
    answers
}

#[test]
fn the_homework_gets_its_answers() {
    for seed in 0..300 {
        for policy in ["FIFO", "LRU", "MRU", "OPT", "UNOPT"] {
            let (count, pages, frames) = (10 + seed % 40, 5 + seed % 9, 1 + seed % 6);
            let lesson = Lesson::drawn(count, pages, frames, subject(policy), seed).expect("fits");
            let string: Vec<u64> =
                lesson.steps().map(|step| step.page.parse().expect("a number")).collect();
            let expected = homework(policy, frames as usize, &string);
            for (step, (hit, victim)) in lesson.steps().zip(expected) {
                let context = format!("{policy}, seed {seed}, {frames} frames: {string:?}");
                assert_eq!(step.outcome == Outcome::Hit, hit, "{context}");
                // OPT's victims differ among pages that are never used again.
                if policy != "OPT" {
                    let gone = step.victim.map(|gone| gone.page.parse().expect("a number"));
                    assert_eq!(gone, victim, "{context}");
                }
            }
        }
    }
}

#[test]
fn the_homeworks_seeds_give_its_strings_and_published_hit_rates() {
    // Question 1 of the chapter: ten references, seeds 0 to 2, three pages of cache.
    let refs = |seed| {
        let lesson = Lesson::drawn(10, 10, 3, subject("FIFO"), seed).expect("ten references");
        lesson.steps().map(|step| step.page).collect::<Vec<String>>().join(",")
    };
    assert_eq!(refs(0), "8,7,4,2,5,4,7,3,4,5");
    assert_eq!(refs(1), "1,8,7,2,4,4,6,7,0,0");
    for (policy, rates) in [("FIFO", [1, 2, 4]), ("LRU", [2, 2, 4]), ("OPT", [4, 3, 4])] {
        for (seed, hits) in (0..).zip(rates) {
            let lesson = Lesson::drawn(10, 10, 3, subject(policy), seed).expect("ten references");
            assert_eq!(lesson.counts().hits(), hits, "{policy}, seed {seed}");
        }
    }
}

fn table(lesson: &Lesson, across: bool) -> String {
    let mut out = Vec::new();
    let table = Table::new(lesson, Style::Plain);
    write_title(lesson, &mut out).expect("a vector takes all");
    if across {
        table.write_across(&mut out).expect("a vector takes all");
    } else {
        table.write_head(&mut out).expect("a vector takes all");
        for step in lesson.steps() {
            table.write_row(&step, &mut out).expect("a vector takes all");
        }
    }
    table.write_legend(&mut out).expect("a vector takes all");
    write_counts(&lesson.counts(), &mut out).expect("a vector takes all");
    String::from_utf8(out).expect("tables are text")
}

#[test]
fn tables_are_as_they_were_looked_at() {
    let writes = "7w,0,1,2,0,3w,0,4,2,3,0,3w,2,1,2,0";
    let mut moved = Vec::new();
    let mut check = |name: &str, text: String| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/explain").join(name);
        if std::env::var_os("VELLUM_BLESS").is_some() {
            fs::write(&path, &text).expect("the folder is writable");
        } else if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            moved.push(format!("{name} is now\n{text}"));
        }
    };
    for policy in ["fifo", "lru", "opt"] {
        check(&format!("{policy}-textbook.txt"), table(&lesson(policy, 3, TEXTBOOK), false));
    }
    check("fifo-belady-3.txt", table(&lesson("fifo", 3, BELADY), true));
    check("fifo-belady-4.txt", table(&lesson("fifo", 4, BELADY), true));
    for entry in POLICIES {
        // Short windows and periods, or nothing would happen on a short string.
        let (name, spec) = match entry.about.name {
            "ws" => ("ws", "ws:delta=3"),
            "wsclock" => ("wsclock", "wsclock:delta=3"),
            "pff" => ("pff", "pff:threshold=2"),
            name => (name, name),
        };
        check(&format!("{name}-writes.txt"), table(&lesson(spec, 4, writes), false));
    }
    check("clock-across.txt", table(&lesson("clock", 3, writes), true));
    assert!(moved.is_empty(), "{}", moved.join("\n"));
}

#[test]
fn lines_are_as_wide_as_their_columns() {
    for entry in POLICIES {
        let text = table(&lesson(entry.about.name, 5, &random_refs(3, 120)), false);
        let mut lines = text.lines().skip(2);
        let head = lines.next().expect("a head");
        let why = head.find("  why").expect("the last column");
        for line in lines.take(120) {
            // Whatever stands in a column, the reason begins below its head.
            let reason = line.get(why..why + 3).unwrap_or("  ");
            assert!(reason.starts_with("  "), "{}:\n{head}\n{line}", entry.about.name);
            assert!(reason.len() < 3 || !reason.ends_with(' '), "{head}\n{line}");
        }
    }
}

#[test]
fn json_has_every_step_and_the_counts() {
    let text = serde_json::to_string(&lesson("lru-k:k=3", 3, "a,b,cw,d,a")).expect("plain data");
    let value: Value = serde_json::from_str(&text).expect("valid JSON");
    assert_eq!(value["policy"], "lru-k");
    assert_eq!(value["settings"]["k"], 3);
    assert_eq!(value["steps"].as_array().map(Vec::len), Some(5));
    assert_eq!(value["steps"][2]["write"], true);
    assert_eq!(value["steps"][3]["victim"]["page"], "a");
    assert_eq!(value["steps"][3]["frames"][0]["page"], "d");
    assert_eq!(value["counts"]["faults"], 5);
}

#[test]
fn the_anomaly_is_found_where_it_is_and_nowhere_else() {
    let found = all_in(&lesson("fifo", 1, BELADY));
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].fewer.frames(), found[0].faults), (3, (9, 10)));
    for policy in ["lru", "opt", "mru", "UNOPT"] {
        assert!(is_stack(&subject(policy)));
        for seed in 0..200 {
            let lesson = lesson(policy, 1, &random_refs(seed, 60));
            assert!(all_in(&lesson).is_empty(), "{policy}, seed {seed}");
        }
    }
}

#[test]
fn no_shorter_string_than_beladys_has_the_anomaly_of_fifo() {
    let bounds = Bounds { random: 0, ..Bounds::default() };
    let Search::Shortest(found) = search(subject("fifo"), bounds).expect("a search") else {
        panic!("Bélády's string is within the bounds");
    };
    let refs = found.fewer.refs();
    let words: Vec<String> = refs.iter().map(|reference| refs.word(reference)).collect();
    assert_eq!(words.join(","), BELADY);
    assert_eq!(found.faults, (9, 10));
}

#[test]
fn chance_finds_what_the_search_one_by_one_leaves() {
    let bounds = Bounds { strings: 10, ..Bounds::default() };
    let Search::Some(found) = search(subject("fifo"), bounds).expect("a search") else {
        panic!("one random string in a few has the anomaly");
    };
    let (fewer, more) = (found.fewer.counts().faults, found.more.counts().faults);
    assert_eq!(found.faults, (fewer, more));
    assert!(more > fewer && found.fewer.frames() + 1 == found.more.frames());
    let bounds = Bounds { pages: 3, strings: 2000, random: 500, seed: 1 };
    let none = search(subject("lru"), bounds).expect("a search");
    assert!(matches!(none, Search::None { random: 500, length: 6.. }), "{none:?}");
}

#[test]
fn a_sheet_with_the_right_answers_is_right() {
    for entry in POLICIES {
        let lesson = lesson(entry.about.name, 3, &random_refs(9, 80));
        let answer = |step: Step| {
            let gone = step.victim.iter().chain(&step.released);
            let pages: Vec<&str> = gone.map(|gone| gone.page.as_str()).collect();
            match step.outcome {
                Outcome::Hit => format!("hit {}", pages.join(" ")),
                Outcome::Fault => format!("miss {}", pages.join(" ")),
            }
        };
        let sheet: Vec<String> = lesson.steps().map(answer).collect();
        let grade = quiz::grade(&lesson, &sheet.join("\n"));
        assert!(grade.is_perfect(), "{}: {grade:?}", entry.about.name);
        assert_eq!((grade.right, grade.of), (80, 80));
    }
}

#[test]
fn what_is_no_lesson_is_refused() {
    let refs = || Refs::parse("1 2 3").expect("a string");
    for frames in [0, u64::from(FRAMES_MAX) + 1, u64::MAX] {
        let error = Lesson::new(refs(), frames, subject("fifo"), 0).expect_err("too few or many");
        assert!(matches!(error, LessonError::Frames(_)), "{error}");
    }
    for count in [0, u64::MAX] {
        let error = Lesson::drawn(count, 10, 3, subject("fifo"), 0).expect_err("no string");
        assert!(matches!(error, LessonError::Count(_)), "{error}");
    }
    for name in ["best", "Fifo", "fifo:x=1", "", "CLOCK:bits=1"] {
        let error = Subject::parse(name, 2).expect_err(name).to_string();
        assert!(error.starts_with(&format!("policy `{name}`")), "{error}");
    }
    assert_eq!(
        Lesson::drawn(5, 0, 1, subject("RAND"), u64::MAX).expect("page 0").refs().pages(),
        1
    );
}

#[test]
fn noise_is_answered_and_never_a_panic() {
    let alphabet: Vec<char> = "0179awAW ,,\n\n#-?hitmissé\u{0}".chars().collect();
    let mut rng = Pcg64Mcg::seed_from_u64(3);
    let lesson = lesson("opt", 2, BELADY);
    for _ in 0..3000 {
        let length = rng.random_range(0..40);
        let text: String =
            (0..length).map(|_| alphabet[rng.random_range(0..alphabet.len())]).collect();
        if let Ok(refs) = Refs::parse(&text) {
            assert_eq!(refs.next_uses().len(), refs.len());
            let lesson = Lesson::new(refs, 2, subject("clock"), 0).expect("two frames");
            assert_eq!(lesson.steps().count(), lesson.refs().len());
        }
        let grade = quiz::grade(&lesson, &text);
        assert!(grade.right <= grade.of && !grade.is_perfect());
    }
}
