//! Questions: a lesson without its answers, and answers judged.
//!
//! An answer sheet has one line a reference: `hit`, or `miss` (or `fault`) with the page that goes,
//! if one does: `miss 7`. What stands before a question mark is the question, so that a printed
//! question is a form to fill in; `#` begins a comment, and empty lines count for nothing.
//!
//! Where several answers are right, all are accepted: under OPT, any of the pages that are never
//! used again may go. So OPT is judged by the memory that the student's own choices make.

use std::io::{self, Write};

use serde::Serialize;

use super::{Lesson, Outcome, Refs, Step, Subject};

/// A line of an answer sheet that is wrong.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct Wrong {
    /// The reference, from 1; one more than there are for an answer too many.
    pub time: u64,
    /// The line of the sheet, from 1; none if the sheet ends before.
    pub line: Option<usize>,
    /// What is wrong with it, and what is right.
    pub says: String,
}

/// A judged answer sheet.
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
pub struct Grade {
    /// References answered rightly.
    pub right: u64,
    /// References.
    pub of: u64,
    /// The others.
    pub wrong: Vec<Wrong>,
}

impl Grade {
    /// Whether nothing is wrong.
    pub fn is_perfect(&self) -> bool {
        self.wrong.is_empty()
    }
}

/// Prints the question: the references, with room for an answer behind each.
///
/// # Errors
/// If `out` cannot be written.
pub fn ask(lesson: &Lesson, out: &mut dyn Write) -> io::Result<()> {
    let (name, frames) = (lesson.subject().spec(), lesson.frames());
    let frames = if frames == 1 { "1 frame".to_owned() } else { format!("{frames} frames") };
    writeln!(
        out,
        "# {name} on {frames}, empty at first: which references hit, which miss, and who"
    )?;
    writeln!(out, "# goes to make room? Answer behind each: hit, or miss, or miss and the page.")?;
    let width = lesson.refs().width();
    for (at, reference) in lesson.refs().iter().enumerate() {
        let word = lesson.refs().word(reference);
        writeln!(out, "{:>5}  {word:<width$}  hit or miss, who goes?", at + 1)?;
    }
    Ok(())
}

/// Judges an answer sheet.
pub fn grade(lesson: &Lesson, sheet: &str) -> Grade {
    let stripped = sheet.lines().map(|line| line.split('#').next().unwrap_or("").trim());
    let mut answers = (1..).zip(stripped).filter(|(_, text): &(usize, &str)| !text.is_empty());
    let mut grade = Grade { right: 0, of: lesson.refs().len() as u64, wrong: Vec::new() };
    let mut key = Key::new(lesson);
    for step in lesson.steps() {
        let answer = answers.next();
        let truth = key.truth(&step);
        let said = answer.ok_or_else(|| "no answer".to_owned());
        let judged = said.and_then(|(_, text)| {
            let answer = Answer::parse(text)?;
            if truth.allows(&answer) { Ok(answer) } else { Err(format!("you say {answer}")) }
        });
        key.follow(&step, judged.as_ref().ok(), &truth);
        match judged {
            Ok(_) => grade.right += 1,
            Err(mistake) => grade.wrong.push(Wrong {
                time: step.time,
                line: answer.map(|(line, _)| line),
                says: format!("page {}: {mistake}; {truth}", step.page),
            }),
        }
    }
    if let Some((line, _)) = answers.next() {
        let says = format!("there are only {} references", grade.of);
        grade.wrong.push(Wrong { time: grade.of + 1, line: Some(line), says });
    }
    grade
}

/// What a line says.
struct Answer<'a> {
    outcome: Outcome,
    gone: Vec<&'a str>,
}

impl<'a> Answer<'a> {
    fn parse(line: &'a str) -> Result<Answer<'a>, String> {
        let text = line.rsplit('?').next().unwrap_or(line).trim();
        let mut words = text.split(|c: char| c == ',' || c.is_whitespace());
        let outcome = match words.next().unwrap_or("").to_ascii_lowercase().as_str() {
            "" => return Err("no answer".to_owned()),
            "hit" | "h" => Outcome::Hit,
            "miss" | "fault" | "m" | "f" => Outcome::Fault,
            _ => {
                let start: String = text.chars().take(40).collect();
                return Err(format!("`{start}` is neither hit nor miss"));
            }
        };
        let gone = words.filter(|word| !word.is_empty() && *word != "-").collect();
        Ok(Answer { outcome, gone })
    }
}

impl std::fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let outcome = if self.outcome == Outcome::Hit { "hit" } else { "miss" };
        write!(f, "{outcome}")?;
        self.gone.iter().try_for_each(|page| write!(f, " {page}"))
    }
}

/// What is right.
struct Truth {
    outcome: Outcome,
    gone: Vec<String>,
    /// Whether one of `gone` goes, whichever; else all go.
    one_of: bool,
}

impl Truth {
    fn allows(&self, answer: &Answer<'_>) -> bool {
        let known = answer.gone.iter().all(|page| self.gone.iter().any(|gone| gone == page));
        let count = if self.one_of { 1 } else { self.gone.len() };
        answer.outcome == self.outcome && known && answer.gone.len() == count
    }
}

impl std::fmt::Display for Truth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.outcome == Outcome::Hit { "it hits" } else { "it misses" })?;
        if self.gone.is_empty() {
            return f.write_str(if self.outcome == Outcome::Hit {
                ""
            } else {
                ", and no page goes"
            });
        }
        let all = self.gone.join(if self.one_of { " or " } else { " and " });
        let verb = if self.one_of || self.gone.len() == 1 { "goes" } else { "go" };
        write!(f, ", and {all} {verb}")
    }
}

/// Knows what is right.
enum Key<'a> {
    /// Whatever the policy did.
    Steps,
    /// Any optimal choice: the pages in memory by the student's choices.
    Optimal { refs: &'a Refs, next: Vec<u64>, held: Vec<(u32, u64)>, frames: usize },
}

impl<'a> Key<'a> {
    fn new(lesson: &'a Lesson) -> Key<'a> {
        match lesson.subject() {
            Subject::Vellum(choice) if choice.entry.about.name == "opt" => Key::Optimal {
                refs: lesson.refs(),
                next: lesson.refs().next_uses(),
                held: Vec::new(), // page, and when it is used next
                frames: lesson.frames() as usize,
            },
            _ => Key::Steps,
        }
    }

    fn truth(&self, step: &Step) -> Truth {
        let Key::Optimal { refs, held, frames, .. } = self else {
            let gone = step.victim.iter().chain(&step.released).map(|gone| gone.page.clone());
            return Truth { outcome: step.outcome, gone: gone.collect(), one_of: false };
        };
        let hit = held.iter().any(|&(page, _)| refs.name(page) == step.page);
        let outcome = if hit { Outcome::Hit } else { Outcome::Fault };
        if hit || held.len() < *frames {
            return Truth { outcome, gone: Vec::new(), one_of: false };
        }
        let farthest = held.iter().map(|&(_, next)| next).max();
        let idle = held.iter().filter(|&&(_, next)| Some(next) == farthest);
        let gone = idle.map(|&(page, _)| refs.name(page).to_owned()).collect();
        Truth { outcome, gone, one_of: true }
    }

    /// Goes on with the student's choice, or with a right one if that was none.
    fn follow(&mut self, step: &Step, answer: Option<&Answer<'_>>, truth: &Truth) {
        let Key::Optimal { refs, next, held, .. } = self else { return };
        let chosen = answer.and_then(|answer| answer.gone.first().copied());
        if let Some(gone) = chosen.or(truth.gone.first().map(String::as_str)) {
            held.retain(|&(page, _)| refs.name(page) != gone);
        }
        let at = step.time as usize - 1;
        if let (Some(reference), Some(&next)) = (refs.get(at), next.get(at)) {
            held.retain(|&(page, _)| page != reference.page);
            held.push((reference.page, next));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lesson(policy: &str, frames: u64, refs: &str) -> Lesson {
        let subject = Subject::parse(policy, 2).expect("a policy");
        Lesson::new(Refs::parse(refs).expect("a string"), frames, subject, 0).expect("a lesson")
    }

    #[test]
    fn a_question_is_a_form_to_fill_in() {
        let lesson = lesson("fifo", 1, "1w,2,2");
        let mut form = Vec::new();
        ask(&lesson, &mut form).expect("a vector takes it");
        let form = String::from_utf8(form).expect("text");
        assert!(form.contains("    1  1w  hit or miss, who goes?\n"), "{form}");
        assert_eq!(grade(&lesson, &form).right, 0, "nothing is answered");
        let mut answers = ["", "", " miss", " Fault, 1", " h -"].into_iter();
        let filled: Vec<String> =
            form.lines().map(|line| format!("{line}{}", answers.next().expect("five"))).collect();
        assert!(grade(&lesson, &filled.join("\n")).is_perfect());
    }

    #[test]
    fn each_mistake_is_said_with_what_is_right() {
        let lesson = lesson("lru", 2, "1 2 1 3 1 2");
        let sheet = "miss\nmiss\n\nmiss 2 # no\nmiss 1\nmaybe\nmiss 3\nhit\n";
        let grade = grade(&lesson, sheet);
        let says: Vec<(u64, Option<usize>, &str)> =
            grade.wrong.iter().map(|wrong| (wrong.time, wrong.line, wrong.says.as_str())).collect();
        assert_eq!((grade.right, grade.of), (3, 6));
        assert_eq!(
            says,
            [
                (3, Some(4), "page 1: you say miss 2; it hits"),
                (4, Some(5), "page 3: you say miss 1; it misses, and 2 goes"),
                (5, Some(6), "page 1: `maybe` is neither hit nor miss; it hits"),
                (7, Some(8), "there are only 6 references"),
            ]
        );
        let short = super::grade(&lesson, "miss");
        assert_eq!(short.wrong[0].says, "page 2: no answer; it misses, and no page goes");
        assert_eq!(short.wrong[0].line, None);
    }

    #[test]
    fn any_optimal_choice_is_right_and_the_next_ones_follow_from_it() {
        // 1 and 2 are never used again: either may go, and whoever stays may go next.
        let lesson = lesson("opt", 2, "1 2 3 4 3");
        for sheet in ["miss\nmiss\nmiss 1\nmiss 2\nhit", "miss\nmiss\nmiss 2\nmiss 1\nhit"] {
            assert!(grade(&lesson, sheet).is_perfect(), "{sheet}");
        }
        let wrong = grade(&lesson, "miss\nmiss\nmiss 1\nmiss 3\nmiss 4").wrong;
        let says: Vec<&str> = wrong.iter().map(|wrong| wrong.says.as_str()).collect();
        assert_eq!(
            says,
            ["page 4: you say miss 3; it misses, and 2 goes", "page 3: you say miss 4; it hits"]
        );
        let wrong = grade(&lesson, "miss\nmiss\nmiss 9\nmiss 2\nhit").wrong;
        assert_eq!(wrong[0].says, "page 3: you say miss 9; it misses, and 1 or 2 goes");
    }
}
