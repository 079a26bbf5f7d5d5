//! The arguments of `vellum boot`.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use clap::builder::RangedI64ValueParser;
use vellum_lab::size::{Human, Size};

use super::Format;

/// Boot a machine whose kernel is Vellum, and run a program on it
///
/// Starts QEMU with a kernel that does nothing but manage memory and run programs: the code that
/// `replay` simulates with handles real page faults. Programs are static Linux binaries; no disk
/// image and no root are needed.
///
/// What the program prints goes to standard output as it comes. The report (faults, reclaim,
/// memory, processes, as of `replay`) follows on standard error, so that output can be piped; with
/// --format json or csv it is the other way round. Standard input is read when the program wants
/// it: from a file, a pipe, or line by line from a terminal, where /bin/sh -i is a shell with a
/// prompt.
///
/// Programs in /bin: hello, forktest (copy-on-write), memory (what each call costs in faults),
/// churn (more memory than there is), threads, files, signals, pipes, oom, stress; and sh, sort,
/// sha256sum and more if a static busybox is installed. The exit code is the program's, or 128 and
/// the number of the signal that killed it.
///
/// Needs qemu-system-x86_64 (Debian: `apt install qemu-system-x86`; `VELLUM_QEMU_SYSTEM` names
/// another) and a C compiler (`musl-tools` or `gcc`; `VELLUM_CC` names another).
#[derive(ClapArgs, Debug)]
#[command(after_help = BOOT_EXAMPLES)]
pub(crate) struct BootArgs {
    /// Memory for programs and the page cache, from 8M
    #[arg(short, long, value_name = "SIZE", default_value = "256M", value_parser = memory)]
    pub(crate) memory: u64,
    /// Processors
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = range(1..=16))]
    pub(crate) cpus: u32,
    /// NUMA nodes; memory and processors are divided among them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = range(1..=8))]
    pub(crate) nodes: u32,
    /// Replacement policy; see `vellum policies`
    #[arg(short, long, value_name = "NAME[:SETTING=N]", default_value = "clock")]
    pub(crate) policy: String,
    /// Size of the swap device, or none
    #[arg(short, long, value_name = "SIZE|none", default_value = "1G", value_parser = swap)]
    pub(crate) swap: u64,
    /// An ext2, ext3 or ext4 image to mount at /mnt, read-only
    #[arg(long, value_name = "FILE")]
    pub(crate) disk: Option<PathBuf>,
    /// What chance starts from
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Count time in instructions: without swap, the same run gives the same numbers
    #[arg(long)]
    pub(crate) icount: bool,
    /// A static program of your own, for /bin; may be given again
    #[arg(long, value_name = "FILE")]
    pub(crate) add: Vec<PathBuf>,
    /// How to print the report
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
    /// Where to print the report
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// The program and its arguments, after `--` [default: /bin/hello]
    #[arg(trailing_var_arg = true, value_name = "PROGRAM")]
    pub(crate) program: Vec<String>,
}

const BOOT_EXAMPLES: &str = "Examples:
  vellum boot -- /bin/forktest                                  copy-on-write, fault by fault
  vellum boot --memory 32M -- /bin/churn 64M                    twice the memory that there is
  vellum boot --memory 32M --swap none -- /bin/oom              until the kernel kills it
  vellum boot --cpus 4 --memory 48M -- /bin/stress 1000 7       chance, with every byte checked
  vellum boot -- /bin/sh -c 'sort /etc/lines.txt | sha256sum'   with busybox-static installed
  vellum boot -- /bin/sort < words                              standard input is the program's
  vellum boot -- /bin/sh -i                                     a shell; Ctrl-D ends it
  vellum boot --add a.out -- /bin/a.out                         a program of yours
  vellum boot --disk root.ext4 -- /bin/ls /mnt                  a file system of yours, read-only";

fn range(bounds: RangeInclusive<i64>) -> RangedI64ValueParser<u32> {
    RangedI64ValueParser::new().range(bounds)
}

/// A size in bytes, within bounds.
fn bytes(text: &str, least: u64, most: u64) -> Result<u64, String> {
    match text.parse::<Size>().map_err(|error| error.to_string())? {
        Size::Percent(_) => Err("a size in bytes is needed, such as 256M".to_owned()),
        Size::Bytes(bytes) if (least..=most).contains(&bytes) => Ok(bytes),
        Size::Bytes(_) => Err(format!("from {} to {}", Human(least), Human(most))),
    }
}

fn memory(text: &str) -> Result<u64, String> {
    bytes(text, 8 << 20, 1 << 40)
}

/// 0 for none.
fn swap(text: &str) -> Result<u64, String> {
    if text == "none" { Ok(0) } else { bytes(text, 1 << 20, 16 << 40) }
}
