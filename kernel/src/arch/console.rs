//! The serial console, the way out, and panics.
//!
//! Everything the kernel says goes to COM1 (a 16550, without interrupts); nothing comes from there. Lines for programs start
//! with `@` and go on with one JSON object; all others are for people.
//!
//! A panic prints one line and leaves. It must print even if this very processor holds the lock: it
//! tries for a while and then goes on without, and a mixed line is better than none.

use core::fmt::{self, Write};
use core::panic::PanicInfo;

use spin::Mutex;

use super::port;

/// First port of the first serial line.
const COM1: u16 = 0x3f8;
/// Bit of the line status: the transmitter takes another byte.
const TRANSMITTER_EMPTY: u8 = 1 << 5;
/// How often a panic tries to get the lock.
const TRIES: u32 = 1_000_000;

/// The port of QEMU's `isa-debug-exit`.
pub(super) const EXIT_PORT: u16 = 0xf4;
/// What a panic leaves with. QEMU's exit status is then 67.
pub(super) const PANICKED: u8 = 0x21;

/// The serial line; who holds it may use its ports.
struct Serial {
    /// Whether nothing has been sent since the last line ended.
    at_line_start: bool,
}

static SERIAL: Mutex<Serial> = Mutex::new(Serial { at_line_start: true });

impl Serial {
    fn send(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last() {
            self.at_line_start = *last == b'\n';
        }
        for byte in bytes {
            // Ends: the transmitter sends on its own. A line without a device reads as ones.
            // SAFETY: reading the line status has no effect.
            while unsafe { port::read_u8(COM1 + 5) } & TRANSMITTER_EMPTY == 0 {}
            // SAFETY: a serial line sends the byte and knows no memory.
            unsafe { port::write_u8(COM1, *byte) };
        }
    }
}

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.send(text.as_bytes());
        Ok(())
    }
}

/// Makes the line ready: 115,200 baud, 8 bits, no interrupts, with queues.
pub(super) fn init() {
    const SETUP: [(u16, u8); 7] =
        [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 0x03), (2, 0xc7), (4, 0x03)];
    let _line = SERIAL.lock();
    for (register, value) in SETUP {
        // SAFETY: these are the registers of a serial line, which knows no memory.
        unsafe { port::write_u8(COM1 + register, value) };
    }
}

/// Writes bytes as they are, whole: no other processor writes in between.
pub(crate) fn write(bytes: &[u8]) {
    SERIAL.lock().send(bytes);
}

/// Whether the last line has ended, so that another one would not break it.
pub(crate) fn is_at_line_start() -> bool {
    SERIAL.lock().at_line_start
}

/// Writes a line, whole, and not behind what a program has left unfinished. `println!` ends here.
pub(crate) fn print_line(text: fmt::Arguments<'_>) {
    let mut line = SERIAL.lock();
    if !line.at_line_start {
        line.send(b"\n");
    }
    // A serial line accepts everything, so only a `Display` that fails could make this an error.
    let _ = line.write_fmt(text);
    line.send(b"\n");
}

/// Writes a line to the console.
macro_rules! println {
    ($($part:tt)*) => { $crate::arch::console::print_line(format_args!($($part)*)) };
}

/// Ends the machine. QEMU's exit status becomes `code * 2 + 1`; without QEMU the processor halts.
pub(crate) fn exit(code: u8) -> ! {
    // SAFETY: the port is QEMU's `isa-debug-exit` or nothing at all.
    unsafe { port::write_u8(EXIT_PORT, code) };
    super::cpu::halt()
}

#[panic_handler]
fn panic(panic: &PanicInfo<'_>) -> ! {
    let mut held = None;
    for _ in 0..TRIES {
        held = SERIAL.try_lock();
        if held.is_some() {
            break;
        }
    }
    let mut line = Serial { at_line_start: true };
    let line = held.as_deref_mut().unwrap_or(&mut line);
    let _ = writeln!(line, "panic: {}", OneLine(panic));
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
