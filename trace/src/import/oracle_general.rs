//! Imports oracleGeneral: requests to a cache, as libCacheSim packs them.
//!
//! ```text
//!      0  4  time in seconds      12  4  bytes of the object
//!      4  8  object              16  8  number of the object's next request, or -1
//! ```
//! Records of 24 bytes, little-endian, no header. Objects become pages of one anonymous area,
//! numbered by their first request; a page is a page, whatever the size of its object. The format
//! does not tell reads from writes: every request is a load. Requests of size 0 are left out, as by
//! libCacheSim.

use std::io::BufRead;

use rustc_hash::FxHashMap;

use crate::bytes::array;
use crate::error::TraceError;
use crate::event::Kind;
use crate::import::spool::{Layout, Program, Spool};
use crate::import::{Imported, Options, Records, pages};
use crate::sink::Sink;

const RECORD_BYTES: usize = 24;

/// Imports oracleGeneral records.
///
/// # Errors
/// If `reader` or `sink` fails, or if there are more objects than pages: any bytes are records.
pub fn import(
    reader: impl BufRead,
    options: &Options,
    sink: &mut impl Sink,
) -> Result<Imported, TraceError> {
    let mut records = Records::new(reader, &options.name);
    let mut spool = Spool::new(Layout::OneArea)?;
    let mut imported = Imported::default();
    let mut pages: FxHashMap<u64, u64> = FxHashMap::default();
    let mut empty = 0u64;
    let mut record = [0; RECORD_BYTES];
    while records.read(&mut record)? {
        if u32::from_le_bytes(array(&record, 12)) == 0 {
            empty += 1;
            continue;
        }
        imported.records += 1;
        let next = pages.len() as u64;
        let page = *pages.entry(u64::from_le_bytes(array(&record, 4))).or_insert(next);
        spool.reference(pages::place(page, options)?, Kind::Load)?;
    }
    records.warn(&mut imported.warnings);
    imported.warnings.push(format!(
        "{} objects became pages: their sizes were ignored, and every request is a load",
        pages.len()
    ));
    if empty > 0 {
        imported.warnings.push(format!("{empty} requests of size 0 were left out"));
    }
    spool.finish(&Program::default(), sink, &mut imported.warnings)?;
    Ok(imported)
}
