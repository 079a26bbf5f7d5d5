//! Disks and the other processors.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vellum_mm::addr::{Frame, PAGE_BYTES};

use super::space::{Frames, Space};
use super::{Verdict, ensure};
use crate::arch::disk::{Disk, DiskError, FRAMES_MAX, Transfer};
use crate::arch::samples::Sample;
use crate::arch::user::{Interrupt, Trap, run};
use crate::arch::{Hardware, PhysicalMemory, cpu, ipi, paging, smp, timer};

/// How long anything may take, on a busy host too.
const PATIENCE_NANOS: u64 = 60_000_000_000;

/// What is written is read back, by requests of all lengths, many under way at once.
pub(super) fn disks(hardware: &mut Hardware, frames: &mut Frames) -> Verdict {
    for disk in &mut hardware.disks {
        if disk.read_only() {
            continue;
        }
        let bytes = disk.capacity_bytes();
        ensure!(bytes >= 4 << 20, "a disk of {bytes} bytes is too small for the test");
        round_trip(disk, frames)?;
        let frame = frames.take();
        submit(disk, 7, true, bytes, &[frame])?;
        let (id, outcome) = wait(disk)?;
        ensure!((id, outcome) == (7, Err(DiskError)), "{id}: {outcome:?} beyond the end");
    }
    Ok(())
}

/// Starts moving whole frames.
fn submit(disk: &mut Disk, id: u64, write: bool, first_byte: u64, frames: &[Frame]) -> Verdict {
    let span = 0..frames.len() as u64 * PAGE_BYTES;
    let transfer = Transfer { id, write, first_byte, frames: frames.to_vec(), span };
    disk.submit(transfer).map_err(|full| alloc::format!("no room for {full:?}"))
}

/// Writes lists of frames and reads them into others.
fn round_trip(disk: &mut Disk, frames: &mut Frames) -> Verdict {
    const REQUESTS: u64 = 32;
    let lengths = |id: u64| if id == 0 { FRAMES_MAX } else { 1 + id as usize % 5 };
    // Only the first request is longer than the room of 8 frames.
    let place = |id: u64| if id == 0 { 0 } else { (FRAMES_MAX as u64 + id * 8) * PAGE_BYTES };
    for write in [true, false] {
        let mut lists = alloc::vec::Vec::new();
        for id in 0..REQUESTS {
            let mut list: alloc::vec::Vec<Frame> =
                (0..lengths(id)).map(|_| frames.take()).collect();
            // Neither adjacent nor in order.
            list.reverse();
            for (part, frame) in list.iter().enumerate() {
                if write {
                    PhysicalMemory.write(*frame, 8, &[id as u8, part as u8, 0x5a]);
                }
            }
            submit(disk, id, write, place(id), &list)?;
            lists.push(list);
        }
        let mut left = REQUESTS;
        while left > 0 {
            let (id, outcome) = wait(disk)?;
            ensure!(outcome.is_ok(), "request {id} failed");
            left -= 1;
            for (part, frame) in lists[id as usize].iter().enumerate() {
                let mut bytes = [0; 3];
                PhysicalMemory.read(*frame, 8, &mut bytes);
                let expected = [id as u8, part as u8, 0x5a];
                ensure!(bytes == expected, "frame {part} of request {id} holds {bytes:?}");
            }
        }
    }
    Ok(())
}

/// Waits for the next request that is done; by interrupt if the disk has one.
fn wait(disk: &mut Disk) -> Result<(u64, Result<(), DiskError>), alloc::string::String> {
    if !disk.interrupts() {
        timer::every(1_000_000);
    }
    let end = cpu::nanos() + PATIENCE_NANOS;
    let done = loop {
        if let Some(done) = disk.poll() {
            break done;
        }
        ensure!(cpu::nanos() < end, "the disk does not answer");
        cpu::idle();
    };
    timer::stop();
    Ok(done)
}

/// Root of the space that other processors run a program in; 0 while they shall rest.
static ROOT: AtomicU32 = AtomicU32::new(0);
/// Processors about to run it.
static RUNNING: AtomicU32 = AtomicU32::new(0);
/// Processors that were interrupted in it as they should.
static INTERRUPTED: AtomicU32 = AtomicU32::new(0);
/// One was stopped by something else.
static WRONG: AtomicBool = AtomicBool::new(false);

/// All processors start, are woken by a shootdown, and are interrupted by one in ring 3.
pub(super) fn processors(hardware: &Hardware, frames: &mut Frames) -> Verdict {
    let space = Space::new(frames);
    let count = smp::start_all(hardware);
    ensure!(count as usize == hardware.cpus.len(), "{count} processors run");
    ROOT.store(space.root.0, Ordering::Release);
    for cpu in 1..count {
        ipi::shootdown(cpu);
        until(&RUNNING, cpu, "woken")?;
        ipi::shootdown(cpu);
        until(&INTERRUPTED, cpu, "interrupted")?;
    }
    ensure!(!WRONG.load(Ordering::Acquire), "a processor was stopped by something else");
    println!("@{{\"event\":\"measure\",\"name\":\"processors\",\"count\":{count}}}");
    Ok(())
}

/// Waits until `counter` is `value`.
fn until(counter: &AtomicU32, value: u32, what: &str) -> Verdict {
    let end = cpu::nanos() + PATIENCE_NANOS;
    while counter.load(Ordering::Acquire) < value {
        ensure!(cpu::nanos() < end, "processor {value} is not {what}");
        core::hint::spin_loop();
    }
    Ok(())
}

/// What the other processors do: rest, run the program once they are told where, rest.
pub(crate) fn secondary(cpu: u32) -> ! {
    assert_eq!(cpu, cpu::id());
    // Ends: an interrupt wakes each processor after the root is known.
    while ROOT.load(Ordering::Acquire) == 0 || RUNNING.load(Ordering::Acquire) + 1 < cpu {
        cpu::idle();
    }
    paging::activate(Frame(ROOT.load(Ordering::Acquire)));
    RUNNING.fetch_add(1, Ordering::AcqRel);
    let trap = run(&mut Space::program(Sample::Spin));
    if trap != Trap::Interrupt(Interrupt::Shootdown) {
        WRONG.store(true, Ordering::Release);
    }
    INTERRUPTED.fetch_add(1, Ordering::AcqRel);
    loop {
        cpu::idle();
    }
}
