//! Imports the instruction traces of `ChampSim`.
//!
//! ```text
//!      0  8  instruction pointer     12  4  source registers
//!      8  1  is a branch: 0 or 1     16 16  two addresses written
//!      9  1  was taken: 0 or 1       32 32  four addresses read
//!     10  2  destination registers
//! ```
//! Records of 64 bytes, little-endian, no header; address 0 is an unused slot. Those of
//! `CloudSuite` have 96 bytes: four destination registers, the addresses written (four) at 24,
//! those read (four) at 56. An instruction is a fetch, then its reads, then its writes. Sizes are
//! not told, so no reference crosses the end of a page.

use std::io::BufRead;

use crate::bytes::array;
use crate::error::{Place, TraceError};
use crate::event::Kind;
use crate::import::spool::{Layout, Program, Spool};
use crate::import::{Imported, Options, Records};
use crate::sink::Sink;

/// Where a kind of record has its fields.
struct Fields {
    bytes: usize,
    written: (usize, usize), // offset and number of addresses
    read: (usize, usize),
}

const PLAIN: Fields = Fields { bytes: 64, written: (16, 2), read: (32, 4) };
const CLOUDSUITE: Fields = Fields { bytes: 96, written: (24, 4), read: (56, 4) };

/// Imports `ChampSim` records.
///
/// # Errors
/// [`TraceError::Import`] with the offset of a record whose flags are neither 0 nor 1: it is of the
/// other kind, or no `ChampSim` at all. Also if `reader` or `sink` fails.
pub fn import(
    reader: impl BufRead,
    options: &Options,
    sink: &mut impl Sink,
) -> Result<Imported, TraceError> {
    let fields = if options.cloudsuite { CLOUDSUITE } else { PLAIN };
    let mut records = Records::new(reader, &options.name);
    let mut spool = Spool::new(Layout::Inferred)?;
    let mut imported = Imported::default();
    let mut record = [0; CLOUDSUITE.bytes];
    let record = &mut record[..fields.bytes];
    while records.read(record)? {
        if record[8] > 1 || record[9] > 1 {
            let other = if options.cloudsuite { "a plain" } else { "a CloudSuite" };
            return Err(TraceError::Import {
                name: options.name.clone(),
                place: Place::Byte(records.at - fields.bytes as u64 + 8),
                expected: format!(
                    "a branch flag, 0 or 1 (is this {other} trace, or still compressed?)"
                ),
                found: format!("{} and {}", record[8], record[9]),
            });
        }
        imported.records += 1;
        instruction(&mut spool, record, &fields, options.fetches)?;
    }
    records.warn(&mut imported.warnings);
    spool.finish(&Program::default(), sink, &mut imported.warnings)?;
    Ok(imported)
}

fn instruction(
    spool: &mut Spool,
    record: &[u8],
    fields: &Fields,
    fetches: bool,
) -> Result<(), TraceError> {
    spool.instruction();
    if fetches {
        spool.reference(u64::from_le_bytes(array(record, 0)) >> 12, Kind::Fetch)?;
    }
    for ((at, count), kind) in [(fields.read, Kind::Load), (fields.written, Kind::Store)] {
        for slot in 0..count {
            let address = u64::from_le_bytes(array(record, at + slot * 8));
            if address != 0 {
                spool.reference(address >> 12, kind)?;
            }
        }
    }
    Ok(())
}
