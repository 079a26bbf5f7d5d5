//! Generators: reference strings with known properties, for tests, teaching and comparisons.
//!
//! ```text
//!     sequential  0 1 2 3 0 1 2 3 …          a loop: the worst case of LRU
//!     zigzag      0 1 2 3 2 1 0 1 2 …        to and fro: LRU is OPT
//!     uniform     any page, at any time      no policy beats another
//!     zipf        page of rank r with weight r^-exponent
//!     phases      uniform in a window of pages, which moves now and then
//!     hot-scan    a hot set, and a scan through the rest that should not push it out
//! ```
//! The same [`Spec`] gives the same trace, event by event, in every release: the random numbers are
//! those of PCG-64 (M. E. O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good
//! Algorithms for Random Number Generation", 2014), and a change of this module that changes them
//! fails a test.
//!
//! One process, one thread, one anonymous area; every reference is an event of one instruction, unless
//! a [`Stream`] is told otherwise.

use std::fmt;
use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};
use rand_pcg::Pcg64;

use crate::error::TraceError;
use crate::event::{Access, Call, Event, Exit, Kind, Meta, Summary};
use crate::import::spool::{Program, begin};
use crate::sink::Sink;
use crate::tally::Notes;
use crate::writer::Writer;

/// The first page of the area.
pub const PAGE_FIRST: u64 = 0x10000;
/// Most pages of a generated trace: 4 TiB.
pub const PAGES_MAX: u64 = 1 << 30;

/// Which page comes next.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Pattern {
    /// Every page in turn, again and again.
    Sequential,
    /// Up and down.
    Zigzag,
    /// Each page as likely as any other.
    Uniform,
    /// The page of rank r, from 1 to the number of pages, with a weight of r^-`exponent`.
    Zipf {
        /// 0 is uniform; the web and databases are near 1.
        exponent: f64,
        /// Whether ranks are spread over the area. Otherwise the hottest pages come first, so that
        /// a huge page holds all of them.
        scattered: bool,
    },
    /// Uniform within a window, which moves to another place from time to time.
    Phases {
        /// Pages of the window.
        window: u64,
        /// References of a phase.
        references: u64,
    },
    /// A hot set at the start of the area, and a scan through the rest.
    HotScan {
        /// Pages of the hot set.
        hot: u64,
        /// How many of the references go to the hot set, from 0 to 1.
        hot_share: f64,
    },
}

impl Pattern {
    /// Its name, as in the table above.
    pub fn name(&self) -> &'static str {
        match self {
            Pattern::Sequential => "sequential",
            Pattern::Zigzag => "zigzag",
            Pattern::Uniform => "uniform",
            Pattern::Zipf { .. } => "zipf",
            Pattern::Phases { .. } => "phases",
            Pattern::HotScan { .. } => "hot-scan",
        }
    }

    fn parameters(&self) -> Vec<(String, String)> {
        let named = |name: &str, value: &dyn fmt::Display| (name.to_owned(), value.to_string());
        match self {
            Pattern::Sequential | Pattern::Zigzag | Pattern::Uniform => Vec::new(),
            Pattern::Zipf { exponent, scattered } => {
                vec![named("exponent", exponent), named("scattered", scattered)]
            }
            Pattern::Phases { window, references } => {
                vec![named("window", window), named("phase-references", references)]
            }
            Pattern::HotScan { hot, hot_share } => {
                vec![named("hot", hot), named("hot-share", hot_share)]
            }
        }
    }
}

/// What to generate.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spec {
    /// Which page comes next.
    pub pattern: Pattern,
    /// Pages of the area.
    pub pages: u64,
    /// References.
    pub references: u64,
    /// How many of them are stores, from 0 to 1.
    pub write_share: f64,
    /// The seed of all chance.
    pub seed: u64,
}

impl Spec {
    /// The metadata of the trace, which records every parameter.
    pub fn meta(&self) -> Meta {
        let mut meta = Meta::new(&format!("generate {}", self.pattern.name()));
        meta.command = vec!["generate".to_owned(), self.pattern.name().to_owned()];
        meta.parameters = vec![
            ("pages".to_owned(), self.pages.to_string()),
            ("references".to_owned(), self.references.to_string()),
            ("write-share".to_owned(), self.write_share.to_string()),
            ("seed".to_owned(), self.seed.to_string()),
        ];
        meta.parameters.extend(self.pattern.parameters());
        meta
    }

    /// Hands the events over.
    ///
    /// # Errors
    /// [`TraceError::Parameter`] if a parameter is out of its range, and whatever `sink` returns.
    pub fn generate(&self, sink: &mut impl Sink) -> Result<(), TraceError> {
        let mut stream = self.stream()?;
        for event in stream.opening() {
            sink.event(event)?;
        }
        for _ in 0..self.references {
            sink.access(stream.access())?;
        }
        sink.event(closing())
    }

    /// The same events, to be taken block by block: a trace that nobody has to store.
    ///
    /// # Errors
    /// [`TraceError::Parameter`] if a parameter is out of its range.
    pub fn stream(&self) -> Result<Stream, TraceError> {
        Ok(Stream {
            spec: *self,
            instructions: 1,
            pages: Pages::new(self)?,
            writes: Pcg64::new(u128::from(self.seed), WRITE_STREAM),
            begun: false,
            made: 0,
            ended: false,
        })
    }

    /// Writes the trace to a file.
    ///
    /// # Errors
    /// As [`generate`](Spec::generate) and [`Writer::create`]; the unfinished file is removed.
    pub fn write(&self, path: &Path) -> Result<Summary, TraceError> {
        let mut writer = Writer::create(path, &self.meta())?;
        match self.generate(&mut writer) {
            Ok(()) => writer.finish(Notes::default()),
            Err(error) => {
                writer.abandon();
                Err(error)
            }
        }
    }
}

/// References of a block of a [`Stream`].
const BLOCK: u64 = 4096;

/// The events of a [`Spec`], made when they are wanted. With `u64::MAX` references it never ends.
pub struct Stream {
    spec: Spec,
    instructions: u32,
    pages: Pages,
    // Chance of its own for stores: the pages stay the same whatever the share of writes.
    writes: Pcg64,
    begun: bool,
    made: u64,
    ended: bool,
}

impl Stream {
    /// Lets every reference stand for so many instructions, so that computing takes time.
    #[must_use]
    pub fn with_instructions(self, instructions: u32) -> Stream {
        Stream { instructions, ..self }
    }

    /// Puts the next events into `events`, in place of what is there; false at the end.
    pub fn next_block(&mut self, events: &mut Vec<Event>) -> bool {
        events.clear();
        if self.ended {
            return false;
        }
        if !self.begun {
            self.begun = true;
            events.extend(self.opening());
        }
        let count = BLOCK.min(self.spec.references - self.made);
        events.extend((0..count).map(|_| Event::Access(self.access())));
        self.made += count;
        if self.made == self.spec.references {
            self.ended = true;
            events.push(closing());
        }
        true
    }

    /// Begins again, with other chance than before.
    pub fn rewind(&mut self) {
        (self.begun, self.made, self.ended) = (false, 0, false);
    }

    fn opening(&self) -> impl Iterator<Item = Event> + use<> {
        let program = Program { pid: 1, arguments: self.spec.meta().command };
        let calls = begin(&program, Vec::new(), Some((PAGE_FIRST, self.spec.pages)));
        calls.into_iter().map(|call| Event::Call(Box::new(call)))
    }

    fn access(&mut self) -> Access {
        let store = self.writes.random_bool(self.spec.write_share);
        let kind = if store { Kind::Store } else { Kind::Load };
        let page = PAGE_FIRST + self.pages.next();
        Access { page, thread: 0, count: 1, instructions: self.instructions, kind }
    }
}

fn closing() -> Event {
    Event::Call(Box::new(Call::Exit { thread: 0, process: 0, exit: Exit::Code(0) }))
}

/// The stream of the generator of stores; that of pages follows from the seed.
const WRITE_STREAM: u128 = 0x5851_f42d;

/// The state of a pattern.
struct Pages {
    pattern: Pattern,
    pages: u64,
    random: Pcg64,
    step: u64,  // references so far
    start: u64, // of the window
    zipf: Option<Zipf<f64>>,
    stride: u64, // ranks are spread by this, which shares no factor with `pages`
}

impl Pages {
    fn new(spec: &Spec) -> Result<Pages, TraceError> {
        let Spec { pattern, pages, .. } = *spec;
        within("pages", pages, 1, PAGES_MAX)?;
        share("the share of writes", spec.write_share)?;
        let mut zipf = None;
        match pattern {
            Pattern::Zipf { exponent, .. } => {
                let made = Zipf::new(pages as f64, exponent).ok();
                zipf = made.filter(|_| exponent.is_finite());
                if zipf.is_none() {
                    return Err(parameter("the exponent", "0 or more", &exponent));
                }
            }
            Pattern::Phases { window, references } => {
                within("the pages of the window", window, 1, pages)?;
                within("the references of a phase", references, 1, u64::MAX)?;
            }
            Pattern::HotScan { hot, hot_share } => {
                within("the pages of the hot set", hot, 1, pages)?;
                share("the share of the hot set", hot_share)?;
            }
            _ => {}
        }
        let random = Pcg64::seed_from_u64(spec.seed);
        let stride = stride(pages);
        Ok(Pages { pattern, pages, random, step: 0, start: 0, zipf, stride })
    }

    /// The next page, from 0.
    fn next(&mut self) -> u64 {
        let step = self.step;
        self.step += 1;
        match self.pattern {
            Pattern::Sequential => step % self.pages,
            Pattern::Zigzag => {
                let turn = (self.pages - 1).max(1);
                let at = step % (2 * turn);
                at.min(2 * turn - at).min(self.pages - 1)
            }
            Pattern::Uniform => self.random.random_range(0..self.pages),
            Pattern::Zipf { scattered, .. } => {
                let zipf = self.zipf.as_ref().expect("a zipf pattern has its distribution");
                // A rank is at least 1: there is no sign to lose.
                #[expect(clippy::cast_sign_loss)]
                let rank = (zipf.sample(&mut self.random) as u64).clamp(1, self.pages) - 1;
                if scattered { rank * self.stride % self.pages } else { rank }
            }
            Pattern::Phases { window, references } => {
                if step.is_multiple_of(references) {
                    self.start = self.random.random_range(0..=self.pages - window);
                }
                self.start + self.random.random_range(0..window)
            }
            Pattern::HotScan { hot, hot_share } => {
                let cold = self.pages - hot;
                if cold == 0 || self.random.random_bool(hot_share) {
                    return self.random.random_range(0..hot);
                }
                let page = hot + self.start % cold;
                self.start += 1;
                page
            }
        }
    }
}

/// A step that visits all of `pages` pages before it repeats: near the golden section, where
/// neighbours in rank end up far apart, and without a common factor.
fn stride(pages: u64) -> u64 {
    let near = pages * 618 / 1000;
    // Ends at the latest with 1, which is coprime to everything.
    (1..=near.max(1)).rev().find(|step| coprime(*step, pages)).unwrap_or(1)
}

fn coprime(mut a: u64, mut b: u64) -> bool {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a == 1
}

fn within(name: &'static str, value: u64, low: u64, high: u64) -> Result<(), TraceError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(parameter(name, &format!("from {low} to {high}"), &value))
}

fn share(name: &'static str, value: f64) -> Result<(), TraceError> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(parameter(name, "from 0 to 1", &value))
}

fn parameter(name: &'static str, expected: &str, found: &dyn fmt::Display) -> TraceError {
    TraceError::Parameter { name, expected: expected.to_owned(), found: found.to_string() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn spec(pattern: Pattern, pages: u64, references: u64) -> Spec {
        Spec { pattern, pages, references, write_share: 0.25, seed: 1 }
    }

    fn references(spec: &Spec) -> Vec<(u64, Kind)> {
        let mut events = Vec::new();
        spec.generate(&mut events).expect("the parameters are good");
        let accesses = events.iter().filter_map(|event| match event {
            Event::Access(access) => Some((access.page - PAGE_FIRST, access.kind)),
            Event::Call(_) => None,
        });
        accesses.collect()
    }

    fn pages(spec: &Spec) -> Vec<u64> {
        references(spec).into_iter().map(|(page, _)| page).collect()
    }

    #[test]
    fn a_loop_repeats_and_a_zigzag_turns() {
        assert_eq!(pages(&spec(Pattern::Sequential, 3, 7)), [0, 1, 2, 0, 1, 2, 0]);
        assert_eq!(pages(&spec(Pattern::Zigzag, 3, 7)), [0, 1, 2, 1, 0, 1, 2]);
        assert_eq!(pages(&spec(Pattern::Zigzag, 1, 3)), [0, 0, 0]);
        assert_eq!(pages(&spec(Pattern::Zigzag, 2, 4)), [0, 1, 0, 1]);
    }

    #[test]
    fn chance_is_the_same_in_every_release() {
        let uniform = references(&spec(Pattern::Uniform, 1000, 6));
        let zipf = pages(&spec(Pattern::Zipf { exponent: 1.0, scattered: false }, 1000, 12));
        assert_eq!(uniform.iter().map(|(page, _)| *page).collect::<Vec<_>>(), UNIFORM);
        assert_eq!(uniform.iter().filter(|(_, kind)| *kind == Kind::Store).count(), STORES);
        assert_eq!(zipf, ZIPF);
    }

    const UNIFORM: [u64; 6] = [839, 17, 113, 983, 888, 475];
    const STORES: usize = 0;
    const ZIPF: [u64; 12] = [281, 0, 413, 1, 28, 0, 99, 7, 53, 0, 29, 0];

    #[test]
    fn the_share_of_writes_does_not_change_the_pages() {
        let pattern = Pattern::HotScan { hot: 10, hot_share: 0.9 };
        let some = spec(pattern, 100, 1000);
        let none = Spec { write_share: 0.0, ..some };
        let all = Spec { write_share: 1.0, ..some };
        assert_eq!(pages(&some), pages(&none));
        assert!(references(&none).iter().all(|(_, kind)| *kind == Kind::Load));
        assert!(references(&all).iter().all(|(_, kind)| *kind == Kind::Store));
        let stores = references(&some).iter().filter(|(_, kind)| *kind == Kind::Store).count();
        assert!((200..300).contains(&stores), "{stores} stores of 1000");
    }

    #[test]
    fn zipf_of_exponent_one_halves_from_rank_one_to_two() {
        let pattern = |scattered| Pattern::Zipf { exponent: 1.0, scattered };
        let mut counts = BTreeMap::new();
        for page in pages(&spec(pattern(false), 100, 100_000)) {
            *counts.entry(page).or_insert(0u32) += 1;
        }
        // The hundredth harmonic number is 5.187: page 0 has 19.3 % of the references.
        assert!((18_800..19_800).contains(&counts[&0]), "{}", counts[&0]);
        assert!((9_300..10_000).contains(&counts[&1]), "{}", counts[&1]);
        let scattered = pages(&spec(pattern(true), 100, 100_000));
        let mut frequencies: Vec<u32> = counts.values().copied().collect();
        counts.clear();
        for page in scattered {
            *counts.entry(page).or_insert(0) += 1;
        }
        let mut spread: Vec<u32> = counts.values().copied().collect();
        assert!(counts.keys().all(|page| *page < 100));
        frequencies.sort_unstable();
        spread.sort_unstable();
        assert_eq!(frequencies, spread, "scattering is a permutation");
    }

    #[test]
    fn a_phase_stays_in_its_window_and_a_scan_passes_every_cold_page() {
        let phases = pages(&spec(Pattern::Phases { window: 8, references: 100 }, 1000, 1000));
        let windows: Vec<(u64, u64)> = phases
            .chunks(100)
            .map(|phase| (*phase.iter().min().unwrap(), *phase.iter().max().unwrap()))
            .collect();
        assert!(windows.iter().all(|(low, high)| high - low < 8), "{windows:?}");
        assert!(windows.iter().any(|window| window.0.abs_diff(windows[0].0) > 8));
        let scan = pages(&spec(Pattern::HotScan { hot: 4, hot_share: 0.5 }, 10, 1000));
        let cold: Vec<u64> = scan.into_iter().filter(|page| *page >= 4).collect();
        assert!(cold.iter().zip(4u64..10).all(|(page, next)| *page == next), "{cold:?}");
        assert!((400..600).contains(&cold.len()));
    }

    #[test]
    fn a_stream_gives_the_events_of_the_trace_and_can_begin_again() {
        let spec = spec(Pattern::Zipf { exponent: 0.9, scattered: true }, 100, 10_000);
        let mut whole = Vec::new();
        spec.generate(&mut whole).expect("the parameters are in range");
        let mut stream = spec.stream().expect("the parameters are in range").with_instructions(7);
        let (mut all, mut block) = (Vec::new(), Vec::new());
        while stream.next_block(&mut block) {
            for event in &mut block {
                if let Event::Access(access) = event {
                    assert_eq!(std::mem::replace(&mut access.instructions, 1), 7);
                }
            }
            all.append(&mut block);
        }
        assert!(all == whole, "a stream differs from the trace");
        stream.rewind();
        assert!(stream.next_block(&mut block));
        assert_eq!(block[0], whole[0]);
    }

    #[test]
    fn parameters_out_of_range_are_refused() {
        let refused = |spec: Spec| {
            let error = spec.generate(&mut Vec::new()).expect_err("a bad parameter");
            assert!(matches!(error, TraceError::Parameter { .. }), "{error}");
        };
        refused(spec(Pattern::Uniform, 0, 1));
        refused(spec(Pattern::Uniform, PAGES_MAX + 1, 1));
        refused(Spec { write_share: f64::NAN, ..spec(Pattern::Uniform, 1, 1) });
        refused(Spec { write_share: 1.5, ..spec(Pattern::Uniform, 1, 1) });
        for exponent in [-1.0, f64::NAN, f64::INFINITY] {
            refused(spec(Pattern::Zipf { exponent, scattered: false }, 9, 1));
        }
        refused(spec(Pattern::Phases { window: 10, references: 1 }, 9, 1));
        refused(spec(Pattern::Phases { window: 1, references: 0 }, 9, 1));
        refused(spec(Pattern::HotScan { hot: 0, hot_share: 0.5 }, 9, 1));
        refused(spec(Pattern::HotScan { hot: 1, hot_share: -0.5 }, 9, 1));
    }
}
