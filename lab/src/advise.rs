//! Advice: how much memory a program needs, and what less would cost.
//!
//! Three answers to one question. The *curve* of exact LRU over the flattened trace says in one pass
//! where faults begin and where the knee is. The *full system*, replayed at a few sizes that the curve
//! suggests, says what the faults cost: page tables, reclaim in the background, read-ahead and the
//! disk's queue are in it, so the recommended limit is one that was tried, not one that was computed.
//! And the *working set* over time says whether the need is steady or a moment's.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use vellum_machine::disk::{Direction, Disk, DiskKind, Request};
use vellum_machine::profile::DiskProfiles;
use vellum_mm::addr::PAGE_BYTES;

use crate::experiment::{Experiment, LabError, Memory, Progress, disk_name, shown};
use crate::report::Report;
use crate::size::Human;
use crate::string::{Flat, Holds, Item, RefString, distances, flatten};

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// The most that the run may take longer than with unlimited memory: 0.05 is 5 %.
    pub slowdown: f64,
    /// The machine; its memory is what is looked for.
    pub machine: Experiment,
    /// Part of the limit to be added as a reserve: 0.1 is 10 %.
    pub headroom: f64,
}

/// Stretches of the run for which the working set is measured.
const WINDOWS: usize = 100;
/// The recommended limit is found to one part in so many.
const PRECISION: u32 = 64;

/// The advice.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Advice {
    /// Version of Vellum.
    pub vellum: String,
    /// The trace's file name.
    pub trace: String,
    /// The command that was recorded.
    pub command: String,
    /// What was allowed: longer by this part.
    pub slowdown_allowed: f64,
    /// The smallest memory that was found to hold it, and what happens there.
    pub limit: Tried,
    /// The limit with the reserve.
    pub with_headroom_bytes: u64,
    /// The part that was added.
    pub headroom: f64,
    /// The run in unlimited memory.
    pub unlimited: Tried,
    /// The knee of the curve of exact LRU.
    pub knee: Knee,
    /// The working set over time.
    pub working_set: WorkingSet,
    /// What is in memory when there is most, if nothing is evicted.
    pub peak: Composition,
    /// Every memory that was tried on the full system, in ascending order.
    pub tried: Vec<Tried>,
    /// What the costs are.
    pub costs: Costs,
    /// What makes the answer doubtful.
    pub warnings: Vec<String>,
}

/// One replay of the full system.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Tried {
    /// Memory of the machine.
    pub memory_bytes: u64,
    /// Virtual time from start to end.
    pub virtual_ns: u64,
    /// Against unlimited memory: 0.05 is 5 % longer.
    pub slowdown: f64,
    /// Faults without I/O.
    pub minor: u64,
    /// Faults that waited for a disk.
    pub major: u64,
    /// Whether a process was killed because memory was out.
    pub killed: bool,
}

/// Where a curve bends most.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Knee {
    /// Memory there, of pages alone.
    pub memory_bytes: u64,
    /// Faults there.
    pub faults: u64,
    /// Of those, first uses.
    pub cold: u64,
}

/// Sizes of the working set, in bytes.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct WorkingSet {
    /// The window: references of the string, a hundredth of all.
    pub window_references: u64,
    /// Over all windows.
    pub mean_bytes: u64,
    /// The smallest.
    pub p0_bytes: u64,
    /// A quarter of the windows need at most this.
    pub p25_bytes: u64,
    /// Half.
    pub p50_bytes: u64,
    /// Three quarters.
    pub p75_bytes: u64,
    /// Nineteen of twenty.
    pub p95_bytes: u64,
    /// All.
    pub p100_bytes: u64,
}

/// What memory holds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct Composition {
    /// Anonymous pages that were written: they cost a write to evict.
    pub anonymous_bytes: u64,
    /// Anonymous pages that were only read.
    pub anonymous_clean_bytes: u64,
    /// Pages of files that were written.
    pub file_dirty_bytes: u64,
    /// Pages of files that were only read: they cost nothing to evict.
    pub file_clean_bytes: u64,
    /// Page tables, at their own peak.
    pub page_table_bytes: u64,
}

/// The cost model's numbers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Costs {
    /// The machine profile, which names the source of each number.
    pub profile: String,
    /// The replacement policy.
    pub policy: String,
    /// The swap device.
    pub swap: String,
    /// A minor fault that fills a page with zeros.
    pub zero_fill_ns: u64,
    /// The kernel's work to bring a page back, without the disk.
    pub swap_in_ns: u64,
    /// Of a read of one page from the swap device.
    pub read_ns: u64,
}

/// Answers the question for the trace in `path`. `say` is told what is being done.
///
/// # Errors
/// If the trace cannot be replayed, or the machine is no machine.
pub fn advise(
    path: &Path,
    question: &Question,
    mut say: impl FnMut(&str, Progress),
) -> Result<Advice, LabError> {
    let flat = flatten(path, |progress| say("flattening", progress))?;
    let curve = distances::lru(&flat.string);
    let mut search = Search { path, question, tried: Vec::new(), unlimited: None };
    let unlimited = search.try_memory(None, &mut |progress| say("unlimited", progress))?;
    let limit = search.least(&flat, &curve, &mut |progress| say("trying", progress))?;
    let mut tried = search.tried;
    tried.sort_by_key(|tried| tried.memory_bytes);
    let peak = composition(&flat.string, &flat.report);
    let knee = knee(&curve);
    #[allow(clippy::cast_sign_loss)] // a size
    let with_headroom = (limit.memory_bytes as f64 * (1.0 + question.headroom)) as u64;
    Ok(Advice {
        vellum: env!("CARGO_PKG_VERSION").to_owned(),
        trace: shown(path),
        command: flat.report.trace.command.clone(),
        slowdown_allowed: question.slowdown,
        limit,
        with_headroom_bytes: with_headroom.div_ceil(PAGE_BYTES) * PAGE_BYTES,
        headroom: question.headroom,
        unlimited,
        knee,
        working_set: working_set(&flat.string),
        peak,
        tried,
        costs: costs(&question.machine),
        warnings: doubts(&flat, limit),
    })
}

fn doubts(flat: &Flat, limit: Tried) -> Vec<String> {
    let mut warnings = flat.report.warnings.clone();
    if let Some(filter) = flat.meta.filter
        && limit.memory_bytes < filter.frames_min * PAGE_BYTES
    {
        warnings.push(format!(
            "the recording is filtered and holds for memories of at least {}: the limit may be too \
             low; record again with --exact",
            Human(filter.frames_min * PAGE_BYTES),
        ));
    }
    warnings
}

/// The search for the smallest memory.
struct Search<'a> {
    path: &'a Path,
    question: &'a Question,
    tried: Vec<Tried>,
    unlimited: Option<Tried>,
}

impl Search<'_> {
    /// Replays in so many frames; in as many as the program can use if that is not said.
    fn try_memory(
        &mut self,
        frames: Option<u32>,
        say: &mut dyn FnMut(Progress),
    ) -> Result<Tried, LabError> {
        let memory = frames.map_or(Memory::Unlimited, Memory::Frames);
        let experiment = Experiment { memory, ..self.question.machine.clone() };
        let report = experiment.run(self.path, say)?;
        let base = self.unlimited.map_or(report.time.virtual_ns, |tried| tried.virtual_ns);
        let tried = Tried {
            memory_bytes: match frames {
                Some(frames) => u64::from(frames) * PAGE_BYTES,
                None => report.memory.peak_resident_bytes + report.memory.peak_page_table_bytes,
            },
            virtual_ns: report.time.virtual_ns,
            slowdown: report.time.virtual_ns as f64 / base.max(1) as f64 - 1.0,
            minor: report.faults.minor,
            major: report.faults.major,
            killed: !report.oom_kills.is_empty(),
        };
        match frames {
            Some(_) => self.tried.push(tried),
            None => self.unlimited = Some(tried),
        }
        Ok(tried)
    }

    fn holds(&self, tried: &Tried) -> bool {
        !tried.killed && tried.slowdown <= self.question.slowdown
    }

    /// The smallest memory that holds the slowdown, between one that does and one that does not.
    fn least(
        &mut self,
        flat: &Flat,
        curve: &distances::LruCurve,
        say: &mut dyn FnMut(Progress),
    ) -> Result<Tried, LabError> {
        let base = self.unlimited.expect("tried first");
        let mut low = vellum_mm::config::FRAMES_MIN - 1; // never holds: it cannot be tried
        let mut high = (base.memory_bytes / PAGE_BYTES) as u32 * 9 / 8 + 64;
        let mut best = self.try_memory(Some(high), say)?;
        // Ends: each doubling is nearer to the memory in which nothing is ever evicted.
        while !self.holds(&best) {
            (low, high) = (high, high.saturating_mul(2));
            best = self.try_memory(Some(high), say)?;
        }
        // The curve's guess: the faults that fit into the time allowed, tables added.
        let read_ns = costs(&self.question.machine).read_ns.max(1);
        #[allow(clippy::cast_sign_loss)] // a time
        let spare = (base.virtual_ns as f64 * self.question.slowdown) as u64 / read_ns;
        let allowed = u64::from(flat.string.pages()) + spare;
        let tables = flat.report.memory.peak_page_table_bytes / PAGE_BYTES;
        let guess = curve.frames_with(allowed).saturating_add(tables as u32);
        let mut next = guess;
        // Ends: the gap shrinks by a quarter at least with every replay.
        while high - low > (high / PRECISION).max(1) {
            let quarter = (high - low) / 4;
            let at = next.clamp(low + quarter.max(1), (high - quarter).max(low + 1)).min(high - 1);
            if at <= low {
                break;
            }
            let tried = self.try_memory(Some(at), say)?;
            if self.holds(&tried) {
                (high, best) = (at, tried);
            } else {
                low = at;
            }
            next = low + (high - low) / 2;
        }
        Ok(best)
    }
}

/// The point of the curve farthest from the straight line between its ends, both axes from 0 to 1. (V.
/// Satopää et al., "Finding a 'Kneedle' in a Haystack", ICDCS Workshops 2011.)
fn knee(curve: &distances::LruCurve) -> Knee {
    let (first, last) = (curve.at(1).faults as f64, curve.frames_enough());
    let cold = curve.at(last).faults as f64;
    let height = (first - cold).max(1.0);
    let best = (1..=last)
        .map(|frames| {
            let x = f64::from(frames) / f64::from(last);
            let y = (curve.at(frames).faults as f64 - cold) / height;
            (frames, 1.0 - x - y)
        })
        .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
    let frames = best.map_or(1, |(frames, _)| frames);
    let counts = curve.at(frames);
    Knee { memory_bytes: u64::from(frames) * PAGE_BYTES, faults: counts.faults, cold: counts.cold }
}

/// Distinct pages used in each of [`WINDOWS`] stretches of the run. (P. J. Denning, "The Working Set
/// Model for Program Behavior", Communications of the ACM 11(5), 1968.)
fn working_set(string: &RefString) -> WorkingSet {
    let window = string.len().div_ceil(WINDOWS).max(1);
    let mut last = vec![usize::MAX; string.pages() as usize];
    let mut sizes = vec![0_u64; string.len().div_ceil(window)];
    for (at, (page, _)) in string.iter().enumerate() {
        let last = &mut last[page as usize];
        if *last != at / window {
            *last = at / window;
            sizes[at / window] += PAGE_BYTES;
        }
    }
    sizes.sort_unstable();
    let part = |percent: usize| {
        sizes.get((sizes.len().saturating_sub(1) * percent).div_ceil(100)).copied().unwrap_or(0)
    };
    WorkingSet {
        window_references: window as u64,
        mean_bytes: sizes.iter().sum::<u64>() / sizes.len().max(1) as u64,
        p0_bytes: part(0),
        p25_bytes: part(25),
        p50_bytes: part(50),
        p75_bytes: part(75),
        p95_bytes: part(95),
        p100_bytes: part(100),
    }
}

/// What is in memory when there is most of it.
fn composition(string: &RefString, report: &Report) -> Composition {
    const ABSENT: u8 = 2;
    let mut dirty = vec![ABSENT; string.pages() as usize];
    let (mut now, mut peak) = (Composition::default(), Composition::default());
    let total = |c: &Composition| {
        c.anonymous_bytes + c.anonymous_clean_bytes + c.file_dirty_bytes + c.file_clean_bytes
    };
    let mut most = 0;
    string.for_each(|item| {
        let (page, state) = match item {
            Item::Reference(page, write) => {
                let was = dirty[page as usize];
                (page, u8::from(was == 1 || write))
            }
            Item::Free(page) => (page, ABSENT),
        };
        let was = std::mem::replace(&mut dirty[page as usize], state);
        if was == state {
            return;
        }
        let holds = string.holds(page);
        if was != ABSENT {
            *part(&mut now, holds, was == 1) -= PAGE_BYTES;
        }
        if state != ABSENT {
            *part(&mut now, holds, state == 1) += PAGE_BYTES;
        }
        if total(&now) >= most {
            (most, peak) = (total(&now), now);
        }
    });
    peak.page_table_bytes = report.memory.peak_page_table_bytes;
    peak
}

fn part(composition: &mut Composition, holds: Holds, is_dirty: bool) -> &mut u64 {
    match (holds, is_dirty) {
        (Holds::Anonymous, true) => &mut composition.anonymous_bytes,
        (Holds::Anonymous, false) => &mut composition.anonymous_clean_bytes,
        (Holds::File, true) => &mut composition.file_dirty_bytes,
        (Holds::File, false) => &mut composition.file_clean_bytes,
    }
}

fn costs(machine: &Experiment) -> Costs {
    let profile = &machine.profile;
    Costs {
        profile: profile.name.clone(),
        policy: machine.policy.clone(),
        swap: machine.swap.disk.map_or("none", disk_name).to_owned(),
        zero_fill_ns: profile.fault.zero_fill_ns,
        swap_in_ns: profile.fault.swap_in_ns,
        read_ns: machine.swap.disk.map_or(0, |kind| read_ns(kind, &profile.disk)),
    }
}

/// A read of one page that finds the disk idle and, if that rotates, its head elsewhere.
fn read_ns(kind: DiskKind, profiles: &DiskProfiles) -> u64 {
    let request = Request { direction: Direction::Read, position: 1 << 30, bytes: PAGE_BYTES };
    let service = Disk::new(kind, profiles).submit(0, request);
    service.done + service.cpu_ns
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Advice { limit, unlimited, knee, working_set: ws, peak, costs, .. } = self;
        let percent = |part: f64| format!("{:.1} %", part * 100.0);
        writeln!(f, "{}", self.command)?;
        writeln!(f)?;
        writeln!(
            f,
            "  Limit        {} holds a slowdown of {}: {} longer, {} major faults.",
            Human(limit.memory_bytes),
            percent(self.slowdown_allowed),
            percent(limit.slowdown),
            limit.major,
        )?;
        writeln!(
            f,
            "               With {} headroom: {}.",
            percent(self.headroom),
            Human(self.with_headroom_bytes)
        )?;
        writeln!(
            f,
            "  Unlimited    uses {}, tables included, and takes {:.3} s.",
            Human(unlimited.memory_bytes),
            unlimited.virtual_ns as f64 / 1e9
        )?;
        writeln!(
            f,
            "  Knee         {}: exact LRU faults {} times there, {} of them first uses.",
            Human(knee.memory_bytes),
            knee.faults,
            knee.cold
        )?;
        writeln!(
            f,
            "  Working set  mean {}; 0/25/50/75/95/100 % of the time at most {}, {}, {}, {}, {}, {}.",
            Human(ws.mean_bytes),
            Human(ws.p0_bytes),
            Human(ws.p25_bytes),
            Human(ws.p50_bytes),
            Human(ws.p75_bytes),
            Human(ws.p95_bytes),
            Human(ws.p100_bytes),
        )?;
        writeln!(
            f,
            "  At its peak  {} anonymous ({} never written), {} clean and {} dirty file pages, {} \
             page tables.",
            Human(peak.anonymous_bytes + peak.anonymous_clean_bytes),
            Human(peak.anonymous_clean_bytes),
            Human(peak.file_clean_bytes),
            Human(peak.file_dirty_bytes),
            Human(peak.page_table_bytes),
        )?;
        writeln!(f)?;
        writeln!(f, "  {:>12} {:>10} {:>10} {:>10}", "memory", "slowdown", "major", "minor")?;
        for tried in &self.tried {
            writeln!(
                f,
                "  {:>12} {:>10} {:>10} {:>10}{}",
                Human(tried.memory_bytes),
                percent(tried.slowdown),
                tried.major,
                tried.minor,
                if tried.killed { "  out of memory" } else { "" }
            )?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "  Each line is a replay of the full system under {}, swap on {}; costs of profile {}: a \
             zero-filled page {:.2} us, a page read from swap {:.1} + {:.2} us. `machines/` names the \
             source of each.",
            costs.policy,
            costs.swap,
            costs.profile,
            costs.zero_fill_ns as f64 / 1e3,
            costs.read_ns as f64 / 1e3,
            costs.swap_in_ns as f64 / 1e3,
        )
    }
}
