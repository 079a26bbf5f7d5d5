//! Scenarios on the real machine: `scenario` on the command line runs those of the archive.
//!
//! Each script gets a memory manager of its own, over a window of real frames that is as large as the
//! script asks, and its processes are real address spaces. What a script calls `read`, `write` or
//! `exec` is an access of ring 3. The log must be the one that the simulated machine gives.
//!
//! ```text
//!   archive      scenarios/cow.scn  scenarios/fifo.scn …
//!   RAM          image │ window: the script's frames │ …        │ heap
//!                      ↑ aligned as the longest run of a buddy: it splits as from frame 0
//! ```
//!
//! One line a script says how it went, as in the [self test](crate::selftest).

mod real;

use alloc::string::{String, ToString as _};
use alloc::vec;
use core::ops::Range;

use vellum_mm::Config;
use vellum_mm::addr::{Frame, PAGE_BYTES};
use vellum_mm::frames::buddy::ORDER_MAX;
use vellum_scenario::{Mismatch, Script};

use self::real::Real;
use crate::arch::{Hardware, console, paging, reach};
use crate::files::Stored;
use crate::files::archive;
use crate::files::tree::{Kind, ROOT};
use crate::report::Quoted;
use crate::selftest::{FAILED, PASSED};

/// Runs all scripts of the archive and ends the machine.
pub(crate) fn run(hardware: &Hardware) -> ! {
    reach::install();
    match run_all(hardware) {
        Ok(true) => {
            println!("@{{\"event\":\"done\"}}");
            console::exit(PASSED)
        }
        Ok(false) => console::exit(FAILED),
        Err(why) => crate::report::refuse(&why),
    }
}

/// Whether all scripts gave their logs.
///
/// # Errors
/// Why there are no scripts, in a line.
fn run_all(hardware: &Hardware) -> Result<bool, String> {
    let tree = archive::unpack(hardware.archive)?;
    let folder = tree.find(ROOT, b"scenarios", true);
    let names = folder.and_then(|folder| tree.names(folder));
    let names = names.map_err(|_| "the archive has no folder `scenarios`".to_string())?;
    let mut passed = true;
    for (name, &node) in names {
        let Kind::Stored(Stored::Archive(bytes)) = &tree[node].kind else { continue };
        let name = String::from_utf8_lossy(name);
        let text = String::from_utf8_lossy(&hardware.archive[bytes.clone()]);
        match run_script(hardware, &name, &text) {
            Ok(()) => println!("@{{\"event\":\"pass\",\"name\":{}}}", Quoted(&name)),
            Err(why) => {
                passed = false;
                let (name, why) = (Quoted(&name), Quoted(&why));
                println!("@{{\"event\":\"fail\",\"name\":{name},\"why\":{why}}}");
            }
        }
    }
    Ok(passed)
}

fn run_script(hardware: &Hardware, name: &str, text: &str) -> Result<(), String> {
    let mut script = Script::parse(name, text).map_err(|error| error.to_string())?;
    let frames = script.config.frames;
    let Some(window) = window(&hardware.memory, frames) else {
        let found = alloc::format!("no window of {frames} frames");
        return Err(Mismatch::no_machine(&script, found).to_string());
    };
    script.config = Config {
        frames: hardware.frames,
        holes: vec![Frame(0)..window.start, window.end..Frame(hardware.frames)],
        ..script.config
    };
    let end = vellum_scenario::run(&script, &Real::new(window));
    // The root that was loaded last is gone with its memory manager.
    paging::activate_own();
    end.map_err(|mismatch| mismatch.to_string())
}

/// So many adjacent frames of `memory` (in bytes), from a frame at which any run can start.
fn window(memory: &[Range<u64>], frames: u32) -> Option<Range<Frame>> {
    let bytes = u64::from(frames) * PAGE_BYTES;
    let mut starts = memory.iter().filter_map(|range| {
        let start = range.start.next_multiple_of(PAGE_BYTES << ORDER_MAX);
        (start + bytes <= range.end).then_some((start / PAGE_BYTES) as u32)
    });
    starts.next().map(|start| Frame(start)..Frame(start + frames))
}
