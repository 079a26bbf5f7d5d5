//! What the machine says of itself: lines of JSON that begin with `@`, apart from what programs
//! print.

use alloc::string::String;

use vellum_mm::account::oom::Candidate;
use vellum_mm::addr::PAGE_BYTES;
use vellum_mm::spaces::AddressSpace;

use crate::arch::{console, cpu};
use crate::kernel::Kernel;
use crate::tasks::{End, Process, Tid};

/// A process that has ended.
pub(crate) struct ProcessReport {
    pid: Tid,
    name: String,
    minor: u64,
    major: u64,
    peak_resident: u64,
    end: End,
    out_of_memory: bool,
}

impl ProcessReport {
    /// Of a process whose threads are gone.
    pub(crate) fn of(pid: Tid, process: &Process) -> ProcessReport {
        ProcessReport {
            pid,
            name: process.name.clone(),
            minor: process.minor,
            major: process.major,
            peak_resident: process.peak_resident,
            end: process.ended.unwrap_or(End::Exit(0)),
            out_of_memory: process.out_of_memory,
        }
    }
}

/// Text within quotes of JSON.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl core::fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        use core::fmt::Write as _;
        f.write_char('"')?;
        for char in self.0.chars() {
            match char {
                '"' | '\\' => write!(f, "\\{char}")?,
                '\0'..='\x1f' => write!(f, "\\u{:04x}", u32::from(char))?,
                _ => f.write_char(char)?,
            }
        }
        f.write_char('"')
    }
}

/// Says whom the lack of memory killed.
pub(crate) fn out_of_memory(pid: Tid, name: &str, size: &Candidate) {
    let Candidate { resident, swapped, tables, .. } = *size;
    println!(
        "@{{\"event\":\"out_of_memory\",\"pid\":{pid},\"command\":{},\"resident_bytes\":{},\
         \"swap_bytes\":{},\"table_bytes\":{}}}",
        Quoted(name),
        resident * PAGE_BYTES,
        swapped * PAGE_BYTES,
        tables * PAGE_BYTES
    );
}

/// Says why nothing can be run, and ends the machine.
pub(crate) fn refuse(why: &str) -> ! {
    println!("@{{\"event\":\"refused\",\"why\":{}}}", Quoted(why));
    console::exit(EXIT_REFUSED)
}

/// Says why the program that was asked for cannot be run, and ends the machine.
pub(crate) fn refuse_program(why: &str) -> ! {
    println!("@{{\"event\":\"no_program\",\"why\":{}}}", Quoted(why));
    console::exit(EXIT_REFUSED)
}

/// What the machine exits with after it has run to its end.
const EXIT_DONE: u8 = 0x10;
/// What it exits with if it could not do what was asked.
const EXIT_REFUSED: u8 = 0x12;

/// Processes that the report names; of later ones it tells how many there were.
const REPORTED_MAX: usize = 1000;

impl Kernel {
    /// Notes for the report what became of a process.
    pub(crate) fn note_end(&mut self, process: Tid) {
        if self.gone.len() < REPORTED_MAX || process == self.first {
            self.gone.push(ProcessReport::of(process, &self.tasks.processes[process]));
        } else {
            self.unreported += 1;
        }
    }

    /// Notes how large the page tables of a space were.
    pub(crate) fn note_tables(&mut self, space: &AddressSpace) {
        self.peaks.tables = self.peaks.tables.max(space.tables_peak());
    }

    /// Prints a line of counters if it is time for one.
    pub(crate) fn show_counters(&mut self) {
        let now = cpu::nanos();
        let period = self.options.counters_nanos;
        if period == 0 || now < self.shown + period {
            return;
        }
        self.shown = now;
        self.note_peaks();
        let counts = self.vm.counts();
        let zone = self.vm.store().frames.zone();
        println!(
            "@{{\"event\":\"counters\",\"ns\":{},\"minor\":{},\"major\":{},\"evicted\":{},\
             \"swapped_out\":{},\"swapped_in\":{},\"free_bytes\":{}}}",
            now - self.started,
            counts.minor,
            counts.major,
            counts.evicted,
            counts.swapped_out,
            counts.swapped_in,
            zone.free_frames() as u64 * PAGE_BYTES
        );
    }

    /// Ends the machine, on which nothing runs any more, and tells what came of it all.
    pub(crate) fn stop(&mut self) -> ! {
        let code = self.stopping.unwrap_or(0);
        let leaks = self.leaks();
        self.note_peaks();
        println!("{}", Report { kernel: self, leaks });
        println!("@{{\"event\":\"exit\",\"code\":{code}}}");
        console::exit(EXIT_DONE)
    }

    /// Ends what still lives, and lets disks finish. Threads that other processors run go when
    /// these trap.
    pub(crate) fn end_all(&mut self) {
        // Ends: a turn ends a process. It may take others with it, which have ended and are
        // nobody's now.
        loop {
            let alive = |(pid, process): (Tid, &Process)| process.ending.is_none().then_some(pid);
            let Some(pid) = self.tasks.processes.iter().find_map(alive) else { break };
            self.end_process(pid, End::Signal(9));
        }
        while self.disks.under_way() > 0 {
            self.poll_disks();
        }
    }

    /// Whether no thread is left and no space.
    pub(crate) fn is_deserted(&self) -> bool {
        self.tasks.spaces.iter().all(Option::is_none)
    }

    /// What is still in use although nobody is left, apart from what files keep cached.
    fn leaks(&mut self) -> Option<String> {
        self.forget_unmapped();
        let (census, boot) = (self.vm.census(), self.boot);
        let total = census.free + census.used();
        let anonymous = census.anon - boot.anon;
        let tables = census.tables - boot.tables;
        let lost = boot.free + boot.used() - total;
        (anonymous + tables + lost > 0).then(|| {
            alloc::format!("{anonymous} anonymous frames, {tables} tables, {lost} frames lost")
        })
    }
}

/// The last line but one: all that was counted. It may be long, and the heap full: it is put together
/// nowhere.
struct Report<'a> {
    kernel: &'a Kernel,
    /// What is still in use, if anything is.
    leaks: Option<String>,
}

impl core::fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let kernel = self.kernel;
        let c = kernel.vm.counts();
        let zone = kernel.vm.store().frames.zone();
        write!(
            f,
            "@{{\"event\":\"report\",\"machine\":{{\"memory_bytes\":{},\"frames\":{},\"cpus\":{},\
             \"swap_bytes\":{}}},",
            zone.frames_total() as u64 * PAGE_BYTES,
            zone.frames_total(),
            kernel.pc.cpus(),
            u64::from(kernel.vm.store().swap.config().slots) * PAGE_BYTES
        )?;
        write!(
            f,
            "\"faults\":{{\"minor\":{},\"major\":{},\"by_kind\":{{\"zero_page\":{},\"zero_fill\":{},\
             \"file_map\":{},\"file_fill\":{},\"swap_in\":{},\"copy_on_write\":{},\"reuse\":{},\
             \"make_dirty\":{},\"spurious\":{},\"violation\":{}}}}},",
            c.minor,
            c.major,
            c.zero_page,
            c.zero_fill,
            c.file_map,
            c.file_fill,
            c.swap_in + c.swap_cached,
            c.copy_on_write,
            c.reuse,
            c.make_dirty,
            c.spurious,
            c.violation
        )?;
        write!(
            f,
            "\"reclaim\":{{\"scanned\":{},\"evicted\":{},\"written\":{},\"swapped_in\":{},\
             \"swapped_out\":{},\"file_read\":{},\"direct\":{}}},",
            c.scanned,
            c.evicted,
            c.written,
            c.swapped_in,
            c.swapped_out,
            c.file_read,
            c.direct_reclaims
        )?;
        write!(
            f,
            "\"memory\":{{\"peak_used_bytes\":{},\"peak_page_table_bytes\":{},\"peak_swap_bytes\":{}}},",
            kernel.peaks.frames * PAGE_BYTES,
            kernel.peaks.tables * PAGE_BYTES,
            kernel.peaks.slots * PAGE_BYTES
        )?;
        write!(f, "\"time\":{{\"virtual_ns\":{}}},\"processes\":[", cpu::nanos() - kernel.started)?;
        for (number, process) in kernel.gone.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            let (kind, value) = match process.end {
                End::Exit(code) => ("exit", u32::from(code)),
                End::Signal(signal) => ("signal", signal),
            };
            let end = if process.out_of_memory {
                String::from("out of memory")
            } else {
                alloc::format!("{kind} {value}")
            };
            write!(
                f,
                "{comma}{{\"pid\":{},\"command\":{},\"minor\":{},\"major\":{},\
                 \"peak_resident_bytes\":{},\"exit\":{}}}",
                process.pid,
                Quoted(&process.name),
                process.minor,
                process.major,
                process.peak_resident * PAGE_BYTES,
                Quoted(&end)
            )?;
        }
        write!(f, "],\"unreported\":{},\"leaked\":", kernel.unreported)?;
        match &self.leaks {
            None => write!(f, "null}}"),
            Some(what) => write!(f, "{}}}", Quoted(what)),
        }
    }
}
