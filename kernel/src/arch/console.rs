//! Two serial lines, the way out, and panics.
//!
//! What programs print goes to COM1, byte for byte and nothing else. What the kernel says goes to
//! COM2, line by line, so that no program can speak for it: a line that starts with `@` goes on
//! with one JSON object for whoever runs the machine, all others are for people. Before the first
//! there is one with `@` alone. On a machine without a second line both share the first.
//!
//! Both are 16550s, used without interrupts; nothing comes from there.
//!
//! A panic prints one line and leaves. It must print even if this very processor holds the lock: it
//! tries for a while and then goes on without, and a mixed line is better than none.

use core::fmt::{self, Write};
use core::panic::PanicInfo;

use spin::{Mutex, MutexGuard};

use super::port;

/// First port of the first serial line.
const COM1: u16 = 0x3f8;
/// First port of the second.
const COM2: u16 = 0x2f8;
/// The line status, from a line's first port on.
const STATUS: u16 = 5;
/// Bit of the line status: the transmitter takes another byte.
const TRANSMITTER_EMPTY: u8 = 1 << 5;
/// Bit of the line status: the last byte has left.
const ALL_SENT: u8 = 1 << 6;
/// How often a panic tries to get the lock.
const TRIES: u32 = 1_000_000;

/// The port of QEMU's `isa-debug-exit`.
pub(super) const EXIT_PORT: u16 = 0xf4;
/// What a panic leaves with. QEMU's exit status is then 67.
pub(super) const PANICKED: u8 = 0x21;

/// A serial line; who holds it may use its ports.
struct Serial {
    port: u16,
    /// Whether nothing has been sent since the last line of text ended.
    at_line_start: bool,
}

/// Where programs print.
static PROGRAMS: Mutex<Serial> = Mutex::new(Serial { port: COM1, at_line_start: true });
/// Where the kernel speaks.
static KERNEL: Mutex<Serial> = Mutex::new(Serial { port: COM2, at_line_start: true });

impl Serial {
    /// The line status. It reads as ones where there is no line.
    fn status(&self) -> u8 {
        // SAFETY: reading the line status has no effect.
        unsafe { port::read_u8(self.port + STATUS) }
    }

    fn is_there(&self) -> bool {
        self.status() != 0xff
    }

    /// Makes the line ready: 115,200 baud, 8 bits, no interrupts, with queues.
    fn init(&self) {
        const SETUP: [(u16, u8); 7] =
            [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 0x03), (2, 0xc7), (4, 0x03)];
        for (register, value) in SETUP {
            // SAFETY: these are the registers of a serial line, which knows no memory.
            unsafe { port::write_u8(self.port + register, value) };
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last() {
            self.at_line_start = *last == b'\n';
        }
        for byte in bytes {
            // Ends: the transmitter sends on its own. A line without a device reads as ones.
            while self.status() & TRANSMITTER_EMPTY == 0 {}
            // SAFETY: a serial line sends the byte and knows no memory.
            unsafe { port::write_u8(self.port, *byte) };
        }
    }
}

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.send(text.as_bytes());
        Ok(())
    }
}

/// The line on which the kernel speaks, unless it must share the other one.
fn kernel_line() -> &'static Mutex<Serial> {
    let is_there = KERNEL.try_lock().is_none_or(|line| line.is_there());
    if is_there { &KERNEL } else { &PROGRAMS }
}

/// Makes the lines ready, and says that from here on it is the kernel that speaks.
pub(super) fn init() {
    PROGRAMS.lock().init();
    KERNEL.lock().init();
    print_line(format_args!("@"));
}

/// Writes what a program prints as it is, whole: no other processor writes in between.
pub(crate) fn write(bytes: &[u8]) {
    PROGRAMS.lock().send(bytes);
}

/// Writes a line, whole, and not behind what a program has left unfinished. `println!` ends here.
pub(crate) fn print_line(text: fmt::Arguments<'_>) {
    write_line(&mut kernel_line().lock(), text);
}

fn write_line(line: &mut Serial, text: fmt::Arguments<'_>) {
    if !line.at_line_start {
        line.send(b"\n");
    }
    // A serial line accepts everything, so only a `Display` that fails could make this an error.
    let _ = line.write_fmt(text);
    line.send(b"\n");
}

/// Writes a line of the kernel.
macro_rules! println {
    ($($part:tt)*) => { $crate::arch::console::print_line(format_args!($($part)*)) };
}

/// Ends the machine, after whoever reads the lines has got all of them. QEMU's exit status becomes
/// `code * 2 + 1`; without QEMU the processor halts.
pub(crate) fn exit(code: u8) -> ! {
    for port in [COM1, COM2] {
        let line = Serial { port, at_line_start: true };
        // Ends: the transmitter sends on its own, once there is room for a byte where it goes.
        while line.status() & ALL_SENT == 0 {}
    }
    // SAFETY: the port is QEMU's `isa-debug-exit` or nothing at all.
    unsafe { port::write_u8(EXIT_PORT, code) };
    super::cpu::halt()
}

#[panic_handler]
fn panic(panic: &PanicInfo<'_>) -> ! {
    let line = kernel_line();
    let mut held: Option<MutexGuard<'_, Serial>> = None;
    for _ in 0..TRIES {
        held = line.try_lock();
        if held.is_some() {
            break;
        }
    }
    let mut own = Serial { port: COM2, at_line_start: true };
    let line = held.as_deref_mut().unwrap_or(&mut own);
    write_line(line, format_args!("panic: {}", OneLine(panic)));
    exit(PANICKED)
}

/// Shows a panic without line breaks, so that whoever reads the console knows where it ends.
struct OneLine<'a>(&'a PanicInfo<'a>);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Joined<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl Write for Joined<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for (i, part) in text.split('\n').enumerate() {
                    if i > 0 {
                        self.0.write_str("; ")?;
                    }
                    self.0.write_str(part)?;
                }
                Ok(())
            }
        }
        let mut joined = Joined(f);
        write!(joined, "{}", self.0.message())?;
        match self.0.location() {
            Some(place) => write!(joined, " at {}:{}", place.file(), place.line()),
            None => Ok(()),
        }
    }
}
