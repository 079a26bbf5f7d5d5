//! Counts what goes into a trace.

use vellum_trace::event::{Access, Call, Event};
use vellum_trace::{Sink, TraceError};

/// A sink that counts what it passes on.
pub(crate) struct Counting<'s, S> {
    pub(crate) sink: &'s mut S,
    pub(crate) events: u64,
    pub(crate) references: u64,
}

impl<S: Sink> Sink for Counting<'_, S> {
    fn event(&mut self, event: Event) -> Result<(), TraceError> {
        self.events += 1;
        if let Event::Call(call) = &event
            && let Call::Tick { count, .. } = **call
        {
            self.references += count;
        }
        self.sink.event(event)
    }

    #[inline]
    fn access(&mut self, access: Access) -> Result<(), TraceError> {
        self.events += 1;
        self.references += u64::from(access.count);
        self.sink.access(access)
    }
}
