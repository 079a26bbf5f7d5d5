//! The arguments, and the help that teaches them.

mod boot;
mod explain;

pub(crate) use boot::BootArgs;
pub(crate) use explain::ExplainArgs;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use vellum_lab::curve::Sampling;
use vellum_lab::size::Size;
use vellum_lab::sizes::{Frames, Sizes};
use vellum_machine::disk::DiskKind;
use vellum_trace::import::Format as ImportFormat;

/// Records real programs, and replays them on a simulated machine with another memory.
///
/// A recording holds every page that a program touched, in order, and every system call that changed
/// its address space. A replay runs it through a complete memory manager (page tables, faults,
/// copy-on-write, page cache, swap, reclaim) on a machine of your choice.
#[derive(Parser, Debug)]
#[command(name = "vellum", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "Examples:
  vellum record -o sort.vtrace -- sort big.txt           watch a real program; no root needed
  vellum info sort.vtrace                                what is in the recording
  vellum replay sort.vtrace --memory 16M --policy clock  the same program with 16 MiB
  vellum replay sort.vtrace --memory 25% --swap zram --format json
  vellum explain --policy lru --refs 7,0,1,2,0,3,0,4      a policy step by step, as in textbooks
  vellum curve sort.vtrace --policy lru,opt,clock        faults against memory, drawn
  vellum advise sort.vtrace --slowdown 5%                the smallest memory that is good enough
  vellum boot -- /bin/forktest                           real page faults, under QEMU

Exit codes: 0 done, 1 the work could not be done, 2 wrong usage; `record` and `boot` pass the program's on.";

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Record(RecordArgs),
    Info(InfoArgs),
    Replay(ReplayArgs),
    Run(RunArgs),
    Curve(CurveArgs),
    Advise(AdviseArgs),
    Import(ImportArgs),
    Generate(GenerateArgs),
    Export(ExportArgs),
    Policies(PoliciesArgs),
    // Described at its arguments: a word here would hide the rest of what is said there.
    Explain(ExplainArgs),
    Boot(BootArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write manual pages into a directory
    Man {
        /// Where to
        directory: PathBuf,
    },
}

/// Watch a real program and write its trace
///
/// Runs CMD under QEMU's user-mode emulation with Vellum's plugin, and follows all processes and
/// threads that it starts. The program is not changed and needs no rights.
///
/// References to pages that a small filter holds are dropped, which keeps recordings small; replays
/// then hold for memories of at least 2 MiB, and say so if asked for less. With --exact nothing is
/// dropped.
///
/// Needs qemu-x86_64 with plugin support: on Debian 12, `apt install qemu-user`. The static builds of
/// Debian 13 lack it: build QEMU's x86_64-linux-user target with plugins, and set `VELLUM_QEMU`.
#[derive(ClapArgs, Debug)]
pub(crate) struct RecordArgs {
    /// Where to write the trace [default: the program's name with .vtrace]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Record every reference, not only those that pass the filter
    #[arg(long)]
    pub(crate) exact: bool,
    /// Empty the filter after N recorded events of a thread: replays hold from 4 N frames up, and a
    /// recording costs more the smaller N is
    #[arg(long, value_name = "N", default_value_t = 128, conflicts_with = "exact")]
    pub(crate) filter_events: u32,
    /// The QEMU to use
    #[arg(long, env = "VELLUM_QEMU", value_name = "PATH")]
    pub(crate) qemu: Option<PathBuf>,
    /// Vellum's plugin for QEMU, if it is not beside the executable
    #[arg(long, env = "VELLUM_PLUGIN", value_name = "PATH")]
    pub(crate) plugin: Option<PathBuf>,
    /// An option for QEMU, such as --qemu-option=-cpu --qemu-option=max
    #[arg(long = "qemu-option", value_name = "OPTION", allow_hyphen_values = true)]
    pub(crate) qemu_options: Vec<OsString>,
    /// The program and its arguments, after `--`
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

/// How to print.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// For people
    Text,
    /// One JSON object
    Json,
    /// A header line and rows
    Csv,
}

/// Say what is in a trace
#[derive(ClapArgs, Debug)]
pub(crate) struct InfoArgs {
    /// The trace
    pub(crate) trace: PathBuf,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

/// Replay a trace on a simulated machine and report its faults
///
/// Replays every event of TRACE on a machine with the memory, policy and swap that you choose, and
/// reports page faults by kind, evictions, I/O, TLB misses and virtual time.
///
/// Sizes count by 1024: 512k, 16M, 1.5G. A percentage is of the footprint, the pages that the program
/// touches at all (see `vellum info`).
#[derive(ClapArgs, Debug)]
pub(crate) struct ReplayArgs {
    /// The trace
    pub(crate) trace: PathBuf,
    /// Memory of the machine: 16M, 1.5G, 25% [default: more than the program can use]
    #[arg(short, long, value_name = "SIZE")]
    pub(crate) memory: Option<Size>,
    /// Memory of the machine in frames of 4 KiB
    #[arg(long, value_name = "N", conflicts_with = "memory")]
    pub(crate) frames: Option<u32>,
    /// Replacement policy; see `vellum policies`
    #[arg(short, long, default_value = "clock")]
    pub(crate) policy: String,
    /// Swap device and its size: none, zram, nvme, ssd, hdd, nvme:2G
    #[arg(short, long, value_name = "KIND[:SIZE]", default_value = "nvme")]
    pub(crate) swap: vellum_lab::SwapChoice,
    /// The disk that files are on: nvme, ssd, hdd
    #[arg(long, value_name = "KIND", default_value = "nvme", value_parser = file_disk)]
    pub(crate) disk: DiskKind,
    /// Whether files are in the page cache before the program starts
    #[arg(long, value_enum, default_value = "warm")]
    pub(crate) page_cache: PageCache,
    /// log2 of the pages read at once from swap (vm.page-cluster)
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=5))]
    pub(crate) page_cluster: u8,
    /// Largest read-ahead window of files (`read_ahead_kb`), at most 128k
    #[arg(long, value_name = "SIZE", default_value = "128k")]
    pub(crate) read_ahead: Size,
    /// Pages mapped around a fault on a file (`fault_around_bytes`), a power of two of pages
    #[arg(long, value_name = "SIZE", default_value = "64k")]
    pub(crate) fault_around: Size,
    /// Processors [default: those of the machine profile]
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<u32>,
    /// What chance starts from
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Machine profile: a built-in name, or a TOML file as in machines/
    #[arg(long, value_name = "NAME|FILE", default_value = "x86-64-server")]
    pub(crate) machine: String,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
    /// Where to print, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// What the page cache holds at the start.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PageCache {
    /// Every file, as after an earlier run
    Warm,
    /// Nothing: first uses read the disk
    Cold,
}

/// Plot and list faults against memory, for any policies
///
/// Flattens TRACE to the pages that it uses, in order, and runs policies over that: faults against
/// memory. LRU is exact for all sizes in one pass, OPT is the bound that no policy passes; the others are
/// simulated for each size.
///
/// First uses of pages count as faults, page tables take no memory and reclaim goes page by page: see
/// `vellum replay` for the full system. A policy that sizes processes (ws, pff) has its parameter varied
/// instead, and each point lies at the memory that it held on average.
#[derive(ClapArgs, Debug)]
pub(crate) struct CurveArgs {
    /// The trace
    pub(crate) trace: PathBuf,
    /// Policies, with settings if any: lru,opt,lru-k:k=3; see `vellum policies`
    #[arg(short, long, value_delimiter = ',', default_value = "lru,opt,clock")]
    pub(crate) policy: Vec<String>,
    /// Memories: 64M,128M or 16M..1G*2 or 10%..100%+10% [default: spread over the range that matters]
    #[arg(short, long, value_name = "SIZES")]
    pub(crate) memory: Option<Sizes>,
    /// Memories in frames of 4 KiB: 100,200 or 16..4096*2
    #[arg(long, value_name = "N", conflicts_with = "memory")]
    pub(crate) frames: Option<Frames>,
    /// How many memories, if they are not given
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=10000))]
    pub(crate) points: u16,
    /// Look only at this share of the pages (SHARDS): 0.01, 1%; or at about this many: 8192p
    #[arg(long, value_name = "RATE", value_parser = sampling)]
    pub(crate) sample: Option<Sampling>,
    /// ws, pff: whether each process is sized by itself, by its own time, or all as one
    #[arg(long, value_enum, default_value = "local")]
    pub(crate) scope: ScopeName,
    /// What chance starts from, in samples and policies
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// How to print; text is a plot and a table
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
    /// Where to print, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Say how much memory a program needs, and what less would cost
///
/// Finds the smallest memory with which TRACE takes no longer than allowed, by replays of the full
/// system that the exact curve of LRU guides; says where the knee of that curve is, how large the
/// working set was over time, and what memory holds.
#[derive(ClapArgs, Debug)]
pub(crate) struct AdviseArgs {
    /// The trace
    pub(crate) trace: PathBuf,
    /// How much longer than with unlimited memory the program may take
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent)]
    pub(crate) slowdown: f64,
    /// What to add to the limit as a reserve
    #[arg(long, value_name = "PERCENT", default_value = "10%", value_parser = percent)]
    pub(crate) headroom: f64,
    /// Swap device and its size: none, zram, nvme, ssd, hdd, nvme:2G
    #[arg(short, long, value_name = "KIND[:SIZE]", default_value = "nvme")]
    pub(crate) swap: vellum_lab::SwapChoice,
    /// Replacement policy of the machine
    #[arg(short, long, default_value = "clock")]
    pub(crate) policy: String,
    /// What chance starts from
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Machine profile: a built-in name, or a TOML file as in machines/
    #[arg(long, value_name = "NAME|FILE", default_value = "x86-64-server")]
    pub(crate) machine: String,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
    /// Where to print, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Whose references a policy that sizes processes sees.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ScopeName {
    /// Those of each process by itself
    Local,
    /// All together
    Global,
}

/// `5%` or `0.05`, as 0.05.
fn percent(text: &str) -> Result<f64, String> {
    let refuse = || format!("`{text}` is no share: write 5% or 0.05");
    let (number, factor) = match text.strip_suffix('%') {
        Some(number) => (number, 0.01),
        None => (text, 1.0),
    };
    let number: f64 = number.trim().parse().map_err(|_| refuse())?;
    if number.is_finite() && number >= 0.0 { Ok(number * factor) } else { Err(refuse()) }
}

/// `0.01`, `1%`, or a number of pages, `8192p`.
fn sampling(text: &str) -> Result<Sampling, String> {
    if let Some(pages) = text.strip_suffix('p') {
        let pages = pages.parse().map_err(|_| format!("`{text}` is no number of pages"))?;
        return if pages > 0 { Ok(Sampling::Pages(pages)) } else { Err("0 pages".to_owned()) };
    }
    match percent(text)? {
        rate if rate > 0.0 && rate <= 1.0 => Ok(Sampling::Rate(rate)),
        _ => Err("a rate is above 0 and at most 1".to_owned()),
    }
}

/// Make a trace from another tool's
///
/// Reads another tool's trace of memory references.
///
/// lackey: text of `valgrind --tool=lackey --trace-mem=yes`. oracle-general: libCacheSim's binary
/// format, also .zst. champsim: instruction traces, also .xz and .gz. pages: text with one page number
/// a line, decimal or 0x, then `r` or `w`; `#` begins a comment.
#[derive(ClapArgs, Debug)]
pub(crate) struct ImportArgs {
    /// The input; `-` is standard input
    pub(crate) input: PathBuf,
    /// Its format [default: guessed from the file]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) from: Option<ImportFormat>,
    /// The trace to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Leave instruction fetches out (lackey, champsim)
    #[arg(long)]
    pub(crate) no_fetches: bool,
    /// The `ChampSim` records are those of `CloudSuite`
    #[arg(long)]
    pub(crate) cloudsuite: bool,
}

/// The patterns of `generate`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PatternName {
    /// Every page in turn, again and again
    Sequential,
    /// Up and down
    Zigzag,
    /// Each page as likely as any other
    Uniform,
    /// The page of rank r with a weight of r^-exponent
    Zipf,
    /// Uniform within a window that moves from time to time
    Phases,
    /// A hot set, and a scan through the rest
    HotScan,
}

/// Make a synthetic trace
#[derive(ClapArgs, Debug)]
pub(crate) struct GenerateArgs {
    /// Which page comes next
    #[arg(value_enum)]
    pub(crate) pattern: PatternName,
    /// The trace to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Pages of the area
    #[arg(long, default_value_t = 16384)]
    pub(crate) pages: u64,
    /// References
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) references: u64,
    /// How many of them are writes, from 0 to 1
    #[arg(long, default_value_t = 0.3)]
    pub(crate) write_share: f64,
    /// What chance starts from
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// zipf: the exponent
    #[arg(long, default_value_t = 0.9)]
    pub(crate) exponent: f64,
    /// zipf: put the hottest pages first, instead of spreading ranks over the area
    #[arg(long)]
    pub(crate) packed: bool,
    /// phases: pages of the window [default: an eighth]
    #[arg(long)]
    pub(crate) window: Option<u64>,
    /// phases: references of a phase [default: a tenth]
    #[arg(long)]
    pub(crate) phase_references: Option<u64>,
    /// hot-scan: pages of the hot set [default: an eighth]
    #[arg(long)]
    pub(crate) hot: Option<u64>,
    /// hot-scan: how many of the references go to the hot set, from 0 to 1
    #[arg(long, default_value_t = 0.8)]
    pub(crate) hot_share: f64,
}

/// Write the events of a trace as a table, for `DuckDB`, pandas, Polars
#[derive(ClapArgs, Debug)]
pub(crate) struct ExportArgs {
    /// The trace
    pub(crate) trace: PathBuf,
    /// The table to write; its ending, .parquet or .csv, says how. `-` is CSV on standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

/// List the replacement policies
#[derive(ClapArgs, Debug)]
pub(crate) struct PoliciesArgs {
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

fn file_disk(text: &str) -> Result<DiskKind, String> {
    match text.parse().map_err(|error| format!("{error}"))? {
        DiskKind::Zram => Err("files are on nvme, ssd or hdd; zram is for swap".to_owned()),
        kind => Ok(kind),
    }
}

/// Run several programs on one machine, and see it thrash
///
/// Runs the programs of a scenario together on one machine: recordings, or patterns that need no
/// recording. They share its processors, its memory and its disks.
///
/// When their working sets no longer fit in memory together, each evicts what the others are about to
/// use, and all wait for the disk: the machine thrashes. The report says when, how busy processors and
/// disk were, what each program achieved, and the pressure of memory as /proc/pressure/memory shows it.
///
/// With --degree the scenario's one program is run in so many copies, which shows the cliff, and with
/// --control what helps:
///   none         nothing: the classic curve
///   working-set  suspend programs while the sum of their working sets is more than memory
///   pff          suspend programs that fault too often while no frame is free
///   admission    let programs start only if their working sets fit; the others wait in line
///   local        every program evicts its own pages only: whoever needs too much slows only itself
///   ram          the same with twice the memory, which moves the cliff to twice the degree
///
/// The scenarios in runs/ are examples, and say what can be written in one.
#[derive(ClapArgs, Debug)]
#[command(verbatim_doc_comment, after_help = RUN_EXAMPLES)]
pub(crate) struct RunArgs {
    /// The scenario, in TOML
    pub(crate) scenario: PathBuf,
    /// Run it with so many copies of its program: 8, 1..16, 1,2,4,8
    #[arg(long, value_name = "N[..M]", value_parser = degrees)]
    pub(crate) degree: Option<DegreeList>,
    /// What is done against thrashing, instead of what the scenario says: none, working-set, pff,
    /// admission, local, ram; several with --degree [default with --degree: none,working-set]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub(crate) control: Vec<vellum_lab::run::Remedy>,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
    /// Where to print, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

const RUN_EXAMPLES: &str = "Examples:
  vellum run runs/thrash.toml                                    as the scenario says
  vellum run runs/thrash.toml --degree 1..16                     the cliff, and load control past it
  vellum run runs/thrash.toml --degree 1..12 --control none,pff,admission,local,ram
  vellum run runs/recorded.toml --control working-set --format json";

/// Degrees of multiprogramming.
#[derive(Clone, Debug)]
pub(crate) struct DegreeList(pub(crate) Vec<u32>);

/// `8`, `1..16` with both ends, `1,2,4`.
fn degrees(text: &str) -> Result<DegreeList, String> {
    let number = |text: &str| match text.trim().parse() {
        Ok(degree @ 1..=1024) => Ok(degree),
        _ => Err(format!("`{text}` is no degree: 1 to 1024, as 8, 1..16 or 1,2,4")),
    };
    let mut list = Vec::new();
    for part in text.split(',') {
        match part.split_once("..") {
            None => list.push(number(part)?),
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last.trim_start_matches('='))?);
                if first > last {
                    return Err(format!("`{part}` has no degree in it"));
                }
                list.extend(first..=last);
            }
        }
    }
    Ok(DegreeList(list))
}
