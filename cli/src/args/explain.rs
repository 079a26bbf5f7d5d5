//! The arguments of `vellum explain`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::Format;

/// Show a policy step by step on a short reference string, as textbooks draw it
///
/// A row a reference: hit or fault, the frames with their bits, who goes, the policy's own lists,
/// and why.
///
/// References are numbers or names, separated by commas or spaces; a w behind one makes it a write.
/// Policies are those of `vellum policies`, with settings such as lru-k:k=3.
///
/// The flags of the OSTEP homework's paging-policy.py mean here what they mean there: -a, -f and -n
/// ask the question and -c tells the answers, seeds give the same strings, and the names in
/// capitals are its policies: FIFO, LRU, MRU and OPT are ours, UNOPT, RAND and CLOCK with -b its
/// own. Its CLOCK looks at pages drawn by chance and counts uses; the textbooks' clock with its
/// hand is `clock`.
#[derive(ClapArgs, Debug)]
#[command(after_help = EXPLAIN_EXAMPLES)]
#[allow(clippy::struct_excessive_bools)] // switches that are independent of each other
pub(crate) struct ExplainArgs {
    /// Replacement policy; see `vellum policies`
    #[arg(short, long, value_name = "NAME[:SETTING=N]", default_value = "fifo")]
    pub(crate) policy: String,
    /// Frames of memory
    #[arg(short = 'C', long, visible_alias = "cachesize", value_name = "N", default_value_t = 3)]
    pub(crate) frames: u64,
    /// The references: 7,0,1w,2 or "A B Cw A"
    #[arg(long, value_name = "LIST", group = "string", allow_hyphen_values = true)]
    pub(crate) refs: Option<String>,
    /// A file of references; `-` is standard input
    #[arg(long, value_name = "FILE", group = "string")]
    pub(crate) refs_file: Option<PathBuf>,
    /// Ask for each reference, without the answers
    #[arg(long, conflicts_with_all = ["grade", "step", "anomaly"])]
    pub(crate) quiz: bool,
    /// Judge a file of answers: a line a reference, `hit` or `miss`, then the page that goes, if
    /// any
    #[arg(long, value_name = "FILE", conflicts_with_all = ["step", "anomaly"])]
    pub(crate) grade: Option<PathBuf>,
    /// One reference at a time: Enter goes on
    #[arg(long, conflicts_with_all = ["anomaly", "across"])]
    pub(crate) step: bool,
    /// Find a number of frames, or without references a string too, where one frame more costs more
    /// faults
    #[arg(long)]
    pub(crate) anomaly: bool,
    /// A column a reference, as books print it, instead of a row
    #[arg(long)]
    pub(crate) across: bool,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
    /// What chance starts from, in policies and random references [default: 0]
    #[arg(short, long)]
    pub(crate) seed: Option<u64>,
    /// As --refs, but asks for the answers unless -c is given; -1 is random references
    #[arg(
        short,
        long,
        value_name = "LIST",
        group = "string",
        allow_hyphen_values = true,
        help_heading = "OSTEP homework"
    )]
    pub(crate) addresses: Option<String>,
    /// As --refs-file, but asks
    #[arg(
        short = 'f',
        long = "addressfile",
        value_name = "FILE",
        group = "string",
        help_heading = "OSTEP homework"
    )]
    pub(crate) address_file: Option<PathBuf>,
    /// Random references: how many [default: 10]
    #[arg(short = 'n', long = "numaddrs", value_name = "N", help_heading = "OSTEP homework")]
    pub(crate) count: Option<u64>,
    /// Random references: to pages below N [default: 10]
    #[arg(short = 'm', long = "maxpage", value_name = "N", help_heading = "OSTEP homework")]
    pub(crate) max_page: Option<u64>,
    /// Largest use count of -p CLOCK [default: 2]
    #[arg(short = 'b', long = "clockbits", value_name = "N", help_heading = "OSTEP homework")]
    pub(crate) clock_bits: Option<u64>,
    /// Tell the answers
    #[arg(short, long, help_heading = "OSTEP homework")]
    pub(crate) compute: bool,
    /// Only what it comes to, no steps
    #[arg(short = 'N', long = "notrace", help_heading = "OSTEP homework")]
    pub(crate) no_trace: bool,
}

const EXPLAIN_EXAMPLES: &str = "Examples:
  vellum explain -p lru --refs 7,0,1,2,0,3,0,4,2,3,0,3,2,1,2,0,1,7,0,1
  vellum explain -p clock --refs \"1 2w 3 1 4 2\" --step       one at a time, with bits and hand
  vellum explain -p opt --across --refs 1,2,3,4,1,2,5         as books print it
  vellum explain -p fifo --anomaly                            a string on which memory hurts
  vellum explain -p lru -n 10 -s 7 --quiz > sheet             a question; fill it in, then
  vellum explain -p lru -n 10 -s 7 --grade sheet              have it judged: exit code 0 if right
  vellum explain -p FIFO -s 0 -n 10 -c                        as paging-policy.py";
