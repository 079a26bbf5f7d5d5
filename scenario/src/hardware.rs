//! What differs between the worlds that run scripts.

use alloc::vec::Vec;

use vellum_mm::addr::{Frame, Page};
use vellum_mm::event::Event;
use vellum_mm::machine::{Access, Machine, SpaceId};
use vellum_mm::objects::io::Request;

/// A machine with one processor, on which a script can run: simulated, or real.
///
/// It is made for the [`Config`](vellum_mm::Config) of the script, that is for its frames and holes.
pub trait Hardware {
    /// What the memory manager runs on.
    type Machine: Machine;

    /// The machine; always the same one.
    fn machine(&self) -> &Self::Machine;

    /// The memory manager has made `root`, the top-level table whose upper half all spaces will
    /// share. Hardware whose own code runs in that half enters it there.
    fn booted(&self, _root: Frame) {}

    /// Takes what the memory manager has reported since this was last called, in order.
    fn take_events(&self) -> Vec<Event>;

    /// Lets a program that runs in the space with this number and root use `page`. Gives the frame
    /// that it got, or `None` if the translation does not permit the access.
    fn access(&self, space: SpaceId, root: Frame, page: Page, access: Access) -> Option<Frame>;

    /// Moves the contents that `request` is about between its frames and a disk. Hardware without
    /// contents has nothing to move.
    fn perform(&self, _request: &Request) {}
}
