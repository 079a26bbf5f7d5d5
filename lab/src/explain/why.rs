//! Reasons: why this page went, in one short sentence.
//!
//! Where a policy's rule is one line, the sentence is that line with the numbers filled in: *7 was
//! used least recently, at 1*. Elsewhere it is read off what can be seen: the accessed bits that
//! the policy looked at on its way to the victim, and where victim and page stood in its lists. So
//! a policy that this file has never heard of is explained too, in the words of its lists.

use super::memory::{Event, Gone, Look, Resident};
use super::{Entry, List, Reference, Refs};

/// More pages than this are counted, not named.
const NAMED_MAX: usize = 5;

/// A reference, and everything around it.
pub(super) struct Scene<'a> {
    pub(super) refs: &'a Refs,
    pub(super) subject: &'a str,
    pub(super) reads_bits: bool,
    pub(super) reference: Reference,
    pub(super) event: &'a Event,
    /// When the page last left memory; 0 if it never did.
    pub(super) left_at: u64,
    /// What the frames held before.
    pub(super) frames: &'a [Option<Resident>],
    /// By reference: the next to the same page.
    pub(super) next: &'a [u64],
    pub(super) lists_before: &'a [List],
    pub(super) lists_after: &'a [List],
}

impl Scene<'_> {
    /// The reason, or nothing where none is needed.
    pub(super) fn sentence(&self) -> String {
        let mut parts = Vec::new();
        match (&self.event.victim, self.event.fault) {
            (Some(victim), _) => {
                parts.extend(self.remembered());
                parts.push(self.choice(victim));
            }
            (None, true) => {
                parts.extend(self.remembered());
                parts.push(self.arrival());
            }
            (None, false) => parts.extend(self.hit()),
        }
        for gone in &self.event.released {
            let used = gone.resident.used;
            parts.push(format!("{} is given up: last used at {used}", self.name(gone.page)));
        }
        if self.event.tick {
            let cleared = cleared(&self.event.swept);
            parts.push(if cleared.is_empty() {
                "the timer beats".to_owned()
            } else {
                format!("the timer beats: R of {} noted and cleared", self.names(&cleared))
            });
        }
        if !self.event.laundered.is_empty() {
            parts.push(format!("{} written back on the way", self.names(&self.event.laundered)));
        }
        parts.join("; ")
    }

    fn arrival(&self) -> String {
        let frame = self.event.frame;
        match self.left_at {
            0 => format!("first use; f{frame} is free"),
            at => format!("evicted at {at}; f{frame} is free"),
        }
    }

    /// Why this victim.
    fn choice(&self, victim: &Gone) -> String {
        let name = self.name(victim.page);
        let Resident { loaded, used, uses, .. } = victim.resident;
        match self.subject {
            "fifo" => format!("{name} was loaded first, at {loaded}"),
            "lru" | "ws" => format!("{name} was used least recently, at {used}"),
            "mru" => format!("{name} was used last, at {used}"),
            "lfu" => format!("{name} was used least, {}", times(uses)),
            "lru-k" => self.kth(victim),
            "opt" => self.farthest(victim),
            "UNOPT" => match self.next_use(&victim.resident) {
                u64::MAX => format!("{name}, as every other, is never used again"),
                next => format!("{name} is needed soonest, at {next}"),
            },
            "random" | "RAND" => "drawn by chance".to_owned(),
            "CLOCK" => format!("{name} was drawn with a count of 0"),
            "clock-sweep" => format!("{name} is the first with no uses left from the hand on"),
            "aging" => match self.entry(victim).and_then(|(_, entry)| entry.count) {
                Some(counter) => format!("{name} has the lowest counter, {counter:08b}"),
                None => self.place(victim),
            },
            "nru" => self.drawn(victim),
            "enhanced-clock" => self.class(victim),
            _ if !self.event.looks.is_empty() => self.walk(victim),
            _ => self.place(victim),
        }
    }

    /// LRU-K: whether the victim has a K-th last use at all.
    fn kth(&self, victim: &Gone) -> String {
        let name = self.name(victim.page);
        match self.entry(victim).and_then(|(_, entry)| entry.count) {
            Some(kth) => format!("the K-th last use of {name}, at {kth}, is longest ago"),
            None => format!("{name} was used less than K times, and is the first of those"),
        }
    }

    /// NRU: the class from which the victim was drawn.
    fn drawn(&self, victim: &Gone) -> String {
        let noted = self.entry(victim).and_then(|(_, entry)| entry.label);
        let noted = noted.is_some_and(|label| label.starts_with("(1"));
        let seen = |look: &Look| look.page == victim.page && look.was_set;
        let used = u8::from(noted || self.event.looks.iter().any(seen));
        let dirty = u8::from(victim.resident.dirty);
        format!("drawn from class ({used},{dirty}), the lowest there is")
    }

    /// Enhanced clock: the class that the victim was in, before or after all R were cleared.
    fn class(&self, victim: &Gone) -> String {
        let name = self.name(victim.page);
        let class = self.entry(victim).and_then(|(_, entry)| entry.label).unwrap_or("(0,0)");
        match class.strip_prefix("(1") {
            None => format!("{name} is the first {class} from the hand on"),
            Some(dirty) => {
                format!("no R was 0: every R is cleared, and {name} is the first (0{dirty}")
            }
        }
    }

    /// OPT: who is used farthest in the future, and what happens among equals.
    fn farthest(&self, victim: &Gone) -> String {
        let name = self.name(victim.page);
        let never = |held: &&Resident| self.next_use(held) == u64::MAX;
        let idle: Vec<u32> =
            self.frames.iter().flatten().filter(never).map(|held| held.page).collect();
        match (self.next_use(&victim.resident), idle.len()) {
            (u64::MAX, 2..) => {
                let all = self.names(&idle);
                format!("{all} are never used again; of them {name} came last in the string")
            }
            (u64::MAX, _) => format!("{name} is never used again"),
            (next, _) => format!("{name} is used again last, at {next}"),
        }
    }

    /// When the page in a frame is used next.
    fn next_use(&self, held: &Resident) -> u64 {
        let at = usize::try_from(held.used - 1).unwrap_or(usize::MAX);
        self.next.get(at).copied().unwrap_or(u64::MAX)
    }

    /// What the policy saw on its way to the victim.
    fn walk(&self, victim: &Gone) -> String {
        let name = self.name(victim.page);
        let cleared = cleared(&self.event.looks);
        let all = self.names(&cleared);
        let last = self.event.looks.last();
        let unused = last.is_some_and(|look| look.page == victim.page && !look.was_set);
        match (cleared.is_empty(), unused) {
            (true, _) if self.lists_before.len() == 1 => format!("{name} has R=0"),
            (true, _) => format!("{}, with R=0", self.place(victim)),
            (false, true) if self.lists_before.len() == 1 => {
                format!("R of {all} cleared; {name} has R=0")
            }
            (false, false) if cleared.contains(&victim.page) && self.lists_before.len() == 1 => {
                format!("every R was set: R of {all} cleared, and {name} is next")
            }
            _ => format!("R of {all} cleared; {}", self.place(victim)),
        }
    }

    /// The victim's entry in the policy's lists, and the list.
    fn entry(&self, victim: &Gone) -> Option<(&List, &Entry)> {
        let (list, at) = find(self.lists_before, |entry| entry.frame == Some(victim.frame))?;
        Some((list, &list.members[at]))
    }

    /// Where the victim stood in the policy's lists.
    fn place(&self, victim: &Gone) -> String {
        let name = self.name(victim.page);
        let fits = |entry: &Entry| entry.frame == Some(victim.frame);
        // Of the lists that it stands in, the one that it is first of says most.
        let first = |list: &&List| list.members.first().is_some_and(fits);
        let found = match self.lists_before.iter().find(first) {
            Some(list) => Some((list, 0)),
            None => find(self.lists_before, fits),
        };
        let Some((list, at)) = found else { return format!("the policy chose {name}") };
        let state = list.members[at].label.map_or(String::new(), |label| format!(" ({label})"));
        match (list.members.len(), at) {
            (1, _) => format!("{name}{state} was alone in {}", list.name),
            (_, 0) => format!("{name}{state} was first in {}", list.name),
            (all, at) if at + 1 == all => format!("{name}{state} was last in {}", list.name),
            (_, at) => format!("{name}{state} was {} in {}", ordinal(at + 1), list.name),
        }
    }

    /// Whether the policy remembered the page that comes, or what else is known of it.
    fn remembered(&self) -> Option<String> {
        let name = self.refs.name(self.reference.page);
        let ghost = |entry: &Entry| entry.frame.is_none() && entry.page == name;
        let (list, _) = find(self.lists_before, ghost)?;
        Some(format!("{name} was remembered in {}", list.name))
    }

    /// What a hit changed.
    fn hit(&self) -> Option<String> {
        let frame = self.event.frame;
        let held = self.frames[frame as usize].as_ref()?;
        let name = self.refs.name(self.reference.page);
        let here = |entry: &Entry| entry.frame == Some(frame);
        let before = find(self.lists_before, here);
        let after = find(self.lists_after, here);
        if let (Some((from, at)), Some((to, place))) = (before, after) {
            let (last, end) = (from.members.len() - 1, to.members.len() - 1);
            let of = |list: &List| match self.lists_after.len() {
                1 => String::new(),
                _ => format!(" of {}", list.name),
            };
            if let Some(moves) = self.moves(frame, name) {
                return Some(moves);
            }
            let (old, new) = (from.members[at].count, to.members[place].count);
            let counts = matches!(self.subject, "clock-sweep" | "lfu" | "s3-fifo" | "CLOCK");
            if let Some(uses) = new.filter(|_| counts && old != new) {
                return Some(format!(
                    "{name} has {uses} use{} now",
                    if uses == 1 { "" } else { "s" }
                ));
            }
            if at != place && place == end && at != last {
                return Some(format!("{name} moves to the end{}", of(to)));
            }
            if at != place && place == 0 {
                return Some(format!("{name} moves to the front{}", of(to)));
            }
        }
        let sets_d = self.reference.write && !held.dirty;
        let sets_r = self.reads_bits && !held.accessed;
        match (sets_r, sets_d) {
            (true, true) => Some("R and D set".to_owned()),
            (true, false) => Some("R set".to_owned()),
            (false, true) => Some("D set".to_owned()),
            (false, false) => None,
        }
    }

    /// Which lists the page of a frame left and entered, and what it is called there now.
    fn moves(&self, frame: u32, name: &str) -> Option<String> {
        let entry =
            |list: &List| list.members.iter().find(|entry| entry.frame == Some(frame)).cloned();
        let (mut left, mut entered, mut state) = (Vec::new(), Vec::new(), None);
        for (before, after) in self.lists_before.iter().zip(self.lists_after) {
            match (entry(before), entry(after)) {
                (Some(_), None) => left.push(after.name),
                (None, Some(_)) => entered.push(after.name),
                (Some(old), Some(new)) if old.label != new.label && self.subject == "lirs" => {
                    state = new.label;
                }
                _ => {}
            }
        }
        let moves = match (left.is_empty(), entered.is_empty()) {
            (false, false) => {
                format!("{name} moves from {} to {}", left.join(", "), entered.join(", "))
            }
            (false, true) => format!("{name} leaves {}", left.join(", ")),
            (true, false) => format!("{name} enters {}", entered.join(", ")),
            (true, true) => String::new(),
        };
        match (moves.is_empty(), state) {
            (true, None) => None,
            (false, None) => Some(moves),
            (true, Some(state)) => Some(format!("{name} is {state} now")),
            (false, Some(state)) => Some(format!("{moves}: it is {state} now")),
        }
    }

    fn name(&self, page: u32) -> &str {
        self.refs.name(page)
    }

    /// Some pages, by name.
    fn names(&self, pages: &[u32]) -> String {
        let names: Vec<&str> = pages.iter().map(|&page| self.name(page)).collect();
        match names.as_slice() {
            [] => String::new(),
            [one] => (*one).to_owned(),
            [first @ .., last] if names.len() <= NAMED_MAX => {
                format!("{} and {last}", first.join(", "))
            }
            _ => {
                let named = names[..NAMED_MAX - 1].join(", ");
                format!("{named} and {} more", names.len() - (NAMED_MAX - 1))
            }
        }
    }
}

/// The pages that lost their accessed bit, each once.
fn cleared(looks: &[Look]) -> Vec<u32> {
    let mut pages = Vec::new();
    for look in looks.iter().filter(|look| look.was_set) {
        if !pages.contains(&look.page) {
            pages.push(look.page);
        }
    }
    pages
}

/// The first entry that fits, and where it is.
fn find(lists: &[List], fits: impl Fn(&Entry) -> bool) -> Option<(&List, usize)> {
    lists.iter().find_map(|list| Some((list, list.members.iter().position(&fits)?)))
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        count => format!("{count} times"),
    }
}

/// 2nd, 3rd, 11th, 21st.
fn ordinal(number: usize) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}
