//! Importers: traces of other tools become events.
//!
//! Each importer reads a stream and fills a [`Sink`]; what it had to skip or guess it returns as
//! warnings. The formats know no system calls, so the address space is made up: of the pages that
//! were touched ([`Layout::Inferred`]) or as one anonymous area ([`Layout::OneArea`]). Either is
//! known only at the end, but must come first: events wait in a temporary file meanwhile, and
//! memory holds no more than the set of pages.
//!
//! An input that ends in the middle of a record is imported up to there, with a warning. One that
//! is not of its format is an error that names the place.

mod areas;
pub mod champsim;
pub mod lackey;
pub mod oracle_general;
pub mod pages;
pub(crate) mod spool;
mod text;

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::str::FromStr;

use crate::error::TraceError;
use crate::event::{Meta, Summary};
use crate::sink::Sink;
use crate::tally::Notes;
use crate::writer::Writer;

pub use spool::Layout;

/// A format that can be imported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// The text of `valgrind --tool=lackey --trace-mem=yes`.
    Lackey,
    /// Requests to a cache, as libCacheSim packs them.
    OracleGeneral,
    /// Instructions, as `ChampSim` packs them.
    ChampSim,
    /// Page numbers as text.
    Pages,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 4] =
        [Format::Lackey, Format::OracleGeneral, Format::ChampSim, Format::Pages];

    /// The name that [`FromStr`] reads.
    pub fn name(self) -> &'static str {
        match self {
            Format::Lackey => "lackey",
            Format::OracleGeneral => "oracle-general",
            Format::ChampSim => "champsim",
            Format::Pages => "pages",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = TraceError;

    fn from_str(name: &str) -> Result<Format, TraceError> {
        Format::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            TraceError::Parameter {
                name: "the format",
                expected: Format::ALL.map(Format::name).join(", "),
                found: name.to_owned(),
            }
        })
    }
}

/// How to import.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// What messages call the input.
    pub name: String,
    /// Whether fetches become events. Without, instructions are still counted (lackey, `ChampSim`).
    pub fetches: bool,
    /// Whether `ChampSim` records are those of `CloudSuite`, of 96 bytes.
    pub cloudsuite: bool,
    /// The page that page 0 of the input, or its first object, becomes (pages, oracleGeneral).
    /// Linux keeps the lowest pages of every process unmapped.
    pub page_base: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            name: "the input".to_owned(),
            fetches: true,
            cloudsuite: false,
            page_base: 0x10000,
        }
    }
}

/// What an importer has to say when it is done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Imported {
    /// Records, or lines, that were used.
    pub records: u64,
    /// What was skipped, guessed or cut.
    pub warnings: Vec<String>,
}

/// Imports `reader`, which is not compressed, into `sink`.
///
/// # Errors
/// If the input is not of this format or cannot be read, or if `sink` refuses.
pub fn import(
    format: Format,
    reader: impl BufRead,
    options: &Options,
    sink: &mut impl Sink,
) -> Result<Imported, TraceError> {
    match format {
        Format::Lackey => lackey::import(reader, options, sink),
        Format::OracleGeneral => oracle_general::import(reader, options, sink),
        Format::ChampSim => champsim::import(reader, options, sink),
        Format::Pages => pages::import(reader, options, sink),
    }
}

/// The metadata of what [`import`] makes.
pub fn meta(format: Format, options: &Options) -> Meta {
    let mut meta = Meta::new(&format!("import {format}"));
    meta.command = vec![options.name.clone()];
    let mut parameter = |name: &str, value: String| meta.parameters.push((name.to_owned(), value));
    match format {
        Format::Lackey => parameter("fetches", options.fetches.to_string()),
        Format::ChampSim => {
            parameter("fetches", options.fetches.to_string());
            parameter("cloudsuite", options.cloudsuite.to_string());
        }
        Format::OracleGeneral | Format::Pages => {
            parameter("page-base", options.page_base.to_string());
        }
    }
    meta
}

/// Opens a file that may be compressed by zstd, gzip or xz, which its first bytes tell.
///
/// # Errors
/// If it cannot be read.
pub fn open(path: &Path) -> Result<Box<dyn BufRead>, TraceError> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(TraceError::io("open", &name))?;
    let file = BufReader::with_capacity(1 << 18, file);
    decompress(file).map_err(TraceError::io("read", &name))
}

/// Wraps `reader` in the decompressor that its first bytes ask for, if any.
fn decompress(mut reader: impl BufRead + 'static) -> io::Result<Box<dyn BufRead>> {
    let start = reader.fill_buf()?;
    let buffered = |reader: Box<dyn Read>| Box::new(BufReader::with_capacity(1 << 18, reader));
    Ok(if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        buffered(Box::new(zstd::stream::read::Decoder::with_buffer(reader)?))
    } else if start.starts_with(&[0x1f, 0x8b]) {
        buffered(Box::new(flate2::bufread::MultiGzDecoder::new(reader)))
    } else if start.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        buffered(Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(reader)))
    } else {
        Box::new(reader)
    })
}

/// Imports the file at `path`, compressed or not, into a trace at `out`.
///
/// # Errors
/// As [`import`]; the unfinished trace is removed.
pub fn file(
    format: Format,
    path: &Path,
    options: &Options,
    out: &Path,
) -> Result<Summary, TraceError> {
    let options = Options { name: path.display().to_string(), ..options.clone() };
    let reader = open(path)?;
    let mut writer = Writer::create(out, &meta(format, &options))?;
    match import(format, reader, &options, &mut writer) {
        Ok(imported) => writer.finish(Notes { warnings: imported.warnings, ..Notes::default() }),
        Err(error) => {
            writer.abandon();
            Err(error)
        }
    }
}

/// Guesses the format of `path` from its name, or else from its first bytes (after decompression).
///
/// Of the binary formats only the name tells: `oracleGeneral` or `champsim` anywhere in it.
///
/// # Errors
/// If it cannot be read.
pub fn detect(path: &Path) -> Result<Option<Format>, TraceError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    if name.contains("oraclegeneral") {
        return Ok(Some(Format::OracleGeneral));
    }
    if name.contains("champsim") {
        return Ok(Some(Format::ChampSim));
    }
    let mut start = Vec::new();
    open(path)?
        .take(4096)
        .read_to_end(&mut start)
        .map_err(TraceError::io("read", &path.display().to_string()))?;
    if start.starts_with(b"==") || lackey::is_record(first_line(&start)) {
        return Ok(Some(Format::Lackey));
    }
    let text = start.iter().all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..0x7f));
    Ok((text && !start.is_empty()).then_some(Format::Pages))
}

fn first_line(start: &[u8]) -> &[u8] {
    start.split(|byte| *byte == b'\n').next().unwrap_or_default()
}

/// Reads records of fixed length from a stream that may be cut.
struct Records<'a, R> {
    reader: R,
    name: &'a str,
    at: u64,     // offset of the next record
    left: usize, // bytes of the record that is cut
    cut: bool,   // whether the compressed stream ends too early
}

impl<'a, R: Read> Records<'a, R> {
    fn new(reader: R, name: &'a str) -> Records<'a, R> {
        Records { reader, name, at: 0, left: 0, cut: false }
    }

    /// Fills `record` with the next; `false` at the end of the input.
    fn read(&mut self, record: &mut [u8]) -> Result<bool, TraceError> {
        let mut bytes = 0;
        while bytes < record.len() {
            match self.reader.read(&mut record[bytes..]) {
                Ok(0) => break,
                Ok(more) => bytes += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.cut = true;
                    break;
                }
                Err(error) => return Err(TraceError::io("read", self.name)(error)),
            }
        }
        if bytes < record.len() {
            self.left = bytes;
            return Ok(false);
        }
        self.at += bytes as u64;
        Ok(true)
    }

    /// Adds what was wrong with the end of the input.
    fn warn(&self, warnings: &mut Vec<String>) {
        if self.cut {
            warnings.push("the compressed input is cut; what comes before is used".to_owned());
        }
        if self.left > 0 {
            warnings.push(format!("the record at byte {} is cut and was left out", self.at));
        }
    }
}
