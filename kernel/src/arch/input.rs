//! The line to whoever has the machine's input: a virtio console.
//!
//! Virtio 1.2, 5.3, without ports of its own. It carries bytes both ways and knows neither a request
//! nor an end; those are [`input`](crate::input)'s. Up to a page of bytes is there at once, and the
//! host keeps the rest until those are taken.

use alloc::boxed::Box;

use virtio_drivers::device::console::VirtIOConsole;
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::pci::PciTransport;

use super::virtio::{self, Dma};
use super::{pci, trap};

/// The queue of what comes.
const RECEIVED: u16 = 0;

/// The line.
pub(crate) struct Line {
    console: VirtIOConsole<Dma, PciTransport>,
    /// What is sent. It is in the heap, because devices reach nothing else.
    sent: Box<[u8; 1]>,
}

/// The first console of the machine, if it has one. Once, at boot.
///
/// It interrupts the first processor ([`Interrupt::Device`](super::user::Interrupt::Device)) when
/// bytes have come.
pub(super) fn find() -> Option<Line> {
    let mut root = pci::root();
    let device = virtio::find(&mut root, DeviceType::Console).into_iter().next()?;
    let console = virtio::transport(&mut root, device).and_then(VirtIOConsole::new);
    match console {
        Ok(console) => {
            // A device without messages is looked at whenever a timer fires.
            virtio::use_message(&mut root, device, RECEIVED, trap::DEVICE_LAST);
            Some(Line { console, sent: Box::new([0]) })
        }
        Err(error) => {
            println!("the console at PCI {device} cannot be used: {error}");
            None
        }
    }
}

impl Line {
    /// Sends a byte, and waits for the device to take it, which it does at once.
    pub(crate) fn send(&mut self, byte: u8) {
        self.sent[0] = byte;
        self.console.send_bytes(&self.sent[..]).expect("the queue is empty: nothing else sends");
    }

    /// The next byte that has come, if there is one.
    pub(crate) fn receive(&mut self) -> Option<u8> {
        self.console.recv(true).expect("there is one buffer, and the device returns it")
    }
}
