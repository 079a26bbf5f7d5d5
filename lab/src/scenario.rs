//! [Scenarios](vellum_scenario) on a simulated machine with one processor.

use vellum_machine::middleware::Logged;
use vellum_machine::profile::Profile;
use vellum_machine::ram::Ram;
use vellum_machine::sim::Sim;
use vellum_mm::addr::{Frame, Page};
use vellum_mm::event::Event;
use vellum_mm::machine::{Access, SpaceId};
use vellum_scenario::{Hardware, Mismatch, Script};

/// The only processor.
const CPU: u32 = 0;

/// Runs a script on a new simulated machine, up to the first difference.
///
/// # Errors
/// The first step whose log is not the one that the script states.
pub fn run(script: &Script) -> Result<(), Mismatch> {
    vellum_scenario::run(script, &Simulated::new(script)?)
}

/// The script's text with the logs that a new simulated machine gives.
///
/// The new text proves nothing: it must be read, and each difference be what was meant.
///
/// # Errors
/// The first step that cannot be done or whose check fails; logs do not excuse those.
pub fn bless(script: &Script) -> Result<String, Mismatch> {
    vellum_scenario::bless(script, &Simulated::new(script)?)
}

/// A simulated machine without contents.
struct Simulated(Logged<Sim>);

impl Simulated {
    fn new(script: &Script) -> Result<Simulated, Mismatch> {
        let ram = Ram::new(script.config.frames)
            .map_err(|error| Mismatch::no_machine(script, error.to_string()))?;
        Ok(Simulated(Logged::new(Sim::new(&Profile::default(), 1, ram))))
    }
}

impl Hardware for Simulated {
    type Machine = Logged<Sim>;

    fn machine(&self) -> &Logged<Sim> {
        &self.0
    }

    fn take_events(&self) -> Vec<Event> {
        self.0.take_events()
    }

    fn access(&self, space: SpaceId, root: Frame, page: Page, access: Access) -> Option<Frame> {
        self.0.machine().access(CPU, space, root, page, access).frame()
    }
}
