//! The machine under test: `selftest` on the command line runs this instead of programs.
//!
//! Each test prints one line, `@{"event":"pass","name":…}`, or says why not and ends the machine.
//! What is tested is what the rest of the kernel relies on and no host can show: that ring 3 comes
//! back with every register, that protections protect, that interrupts interrupt and disks answer.

mod devices;
mod programs;
mod space;

use alloc::string::String;

use crate::arch::console;
use crate::arch::{Hardware, PhysicalMemory, probe};
use space::Frames;
use vellum_mm::addr::PAGE_BYTES;
use vellum_mm::machine::Memory;

pub(crate) use devices::secondary;

/// What QEMU's exit status 33 comes from.
pub(crate) const PASSED: u8 = 0x10;
/// What its exit status 35 comes from.
pub(crate) const FAILED: u8 = 0x11;

/// Why a test failed.
type Verdict = Result<(), String>;

/// Fails a test unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($why:tt)*) => {
        if !$condition {
            return Err(alloc::format!($($why)*));
        }
    };
}
use ensure;

/// Whether `word` is on the command line, before the program that it may name.
pub(crate) fn asked(hardware: &Hardware, word: &str) -> bool {
    let words = hardware.command_line.split_whitespace();
    words.take_while(|&other| other != "--").any(|other| other == word)
}

/// Runs all tests and ends the machine.
pub(crate) fn run(mut hardware: Hardware) -> ! {
    if asked(&hardware, "overflow") {
        println!("{}", overflow(0));
    }
    println!("{}", describe(&hardware));
    let mut frames = Frames::new(&hardware.memory);
    report("protection", protection());
    report("memory", memory(&hardware));
    report("nodes", nodes(&hardware));
    report("registers", programs::registers(&mut frames));
    report("page faults", programs::page_faults(&mut frames));
    report("exceptions", programs::exceptions(&mut frames));
    report("costs", programs::costs(&mut frames));
    report("timer", programs::timer(&mut frames));
    report("disks", devices::disks(&mut hardware, &mut frames));
    report("processors", devices::processors(&hardware, &mut frames));
    println!("@{{\"event\":\"done\"}}");
    console::exit(PASSED)
}

/// Prints how a test went; a failure ends the machine.
fn report(name: &str, verdict: Verdict) {
    match verdict {
        Ok(()) => println!("@{{\"event\":\"pass\",\"name\":\"{name}\"}}"),
        Err(why) => {
            println!("@{{\"event\":\"fail\",\"name\":\"{name}\",\"why\":{why:?}}}");
            console::exit(FAILED)
        }
    }
}

/// The machine as one line.
fn describe(hardware: &Hardware) -> String {
    let bytes: u64 = hardware.memory.iter().map(|range| range.end - range.start).sum();
    alloc::format!(
        "@{{\"event\":\"machine\",\"memory\":{bytes},\"archive\":{},\"cpus\":{},\
         \"nodes\":{},\"disks\":{}}}",
        hardware.archive.len(),
        hardware.cpus.len(),
        hardware.nodes.len(),
        hardware.disks.len(),
    )
}

/// Runs into the guard page.
#[allow(unconditional_recursion, reason = "the end of the stack is what is looked for")]
fn overflow(depth: u64) -> u64 {
    let room = core::hint::black_box([depth; 64]);
    overflow(depth + 1) + room[depth as usize % 64]
}

/// What the kernel may not do to itself.
fn protection() -> Verdict {
    for access in probe::ALL {
        ensure!(probe::faults(access), "{access:?} is not refused");
    }
    Ok(())
}

/// Frames at both ends of every range hold what is put in them.
fn memory(hardware: &Hardware) -> Verdict {
    let ram = PhysicalMemory;
    let end = hardware.memory.last().map_or(0, |range| range.end);
    let frames = hardware.frames;
    ensure!(u64::from(frames) * PAGE_BYTES >= end, "RAM goes on after frame {frames}");
    for range in &hardware.memory {
        let first = vellum_mm::addr::PhysAddr(range.start).frame();
        let last = vellum_mm::addr::PhysAddr(range.end - 1).frame();
        let mut bytes = [0; 5];
        ram.zero(first);
        ram.write(first, 4091, b"frame");
        ram.copy(first, last);
        ram.read(last, 4091, &mut bytes);
        ensure!(&bytes == b"frame", "{last} holds {bytes:?}");
        ram.zero(last);
        ram.read(last, 4091, &mut bytes);
        ensure!(bytes == [0; 5], "{last} holds {bytes:?} after zeroing");
        let words = ram.table(last).iter();
        let sum: u64 = words.map(|word| word.load(core::sync::atomic::Ordering::Relaxed)).sum();
        ensure!(sum == 0, "{last} has words that are not zero");
    }
    Ok(())
}

/// Each processor and every byte of RAM belongs to one node.
fn nodes(hardware: &Hardware) -> Verdict {
    let bytes = |ranges: &[core::ops::Range<u64>]| -> u64 {
        ranges.iter().map(|range| range.end - range.start).sum()
    };
    let all = bytes(&hardware.memory);
    let sum: u64 = hardware.nodes.iter().map(|node| bytes(&node.ranges)).sum();
    ensure!(sum == all, "nodes have {sum} bytes of {all}");
    for cpu in 0..hardware.cpus.len() as u32 {
        let nodes = hardware.nodes.iter().filter(|node| node.cpus.contains(&cpu)).count();
        ensure!(nodes == 1, "processor {cpu} is in {nodes} nodes");
    }
    for node in &hardware.nodes {
        let near = hardware.distances.as_ref().map(|rows| rows[node.id as usize][node.id as usize]);
        ensure!(near.is_none_or(|near| near == 10), "node {} is {near:?} from itself", node.id);
        println!(
            "@{{\"event\":\"node\",\"id\":{},\"memory\":{},\"cpus\":{:?}}}",
            node.id,
            bytes(&node.ranges),
            node.cpus
        );
    }
    Ok(())
}
