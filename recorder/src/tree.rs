//! The processes of a recording: collects until the last has ended, and ends them if it must.

use std::process::Child;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use vellum_trace::{Sink, TraceError};

use crate::collect::{self, Collector, Counting};
use crate::shared_file::Shared;
use crate::sys;

/// The recorded processes.
pub(crate) struct Tree<'a> {
    child: Child,
    shared: &'a Shared,
    pub(crate) collector: Collector<'a>,
    /// The command's exit code, once it has one.
    pub(crate) exit: Option<i32>,
    /// When the user wanted it to end, and how many signals were sent since.
    interrupted: Option<(Instant, usize)>,
}

impl<'a> Tree<'a> {
    /// The tree that grows from `child`.
    pub(crate) fn new(child: Child, shared: &'a Shared) -> Self {
        let collector = Collector::new(&shared.mapping);
        Self { child, shared, collector, exit: None, interrupted: None }
    }

    /// Whether the user wanted the recording to end.
    pub(crate) fn was_interrupted(&self) -> bool {
        self.interrupted.is_some()
    }

    /// Collects until every process has ended; calls `tell` now and then.
    ///
    /// # Errors
    /// Those of `sink`.
    pub(crate) fn collect<S: Sink>(
        &mut self,
        interrupted: &AtomicBool,
        sink: &mut Counting<'_, S>,
        mut tell: impl FnMut(&Counting<'_, S>),
    ) -> Result<(), TraceError> {
        /// A thread that reports as much as any was seen to fills a third of its ring meanwhile.
        const NAP_MIN: Duration = Duration::from_micros(500);
        const NAP_MAX: Duration = Duration::from_millis(2);
        const LOOK: Duration = Duration::from_millis(100);
        /// Events that are worth another look at once: a good part of a ring. Looking for fewer
        /// would only take the ring's cache lines away from the thread that fills it.
        const CROWD: u64 = 4096;
        let mut nap = NAP_MIN;
        let mut looked = Instant::now();
        loop {
            let moved = self.collector.pump(sink)?;
            if moved == 0 {
                let ended = self.look_at_child();
                let thorough = ended || looked.elapsed() >= LOOK;
                self.collector.tidy(thorough, sink)?;
                if thorough {
                    let running = self.running(ended);
                    if running.is_empty() && self.exit.is_some() && self.collector.is_idle() {
                        tell(sink);
                        return Ok(());
                    }
                }
            }
            if moved < CROWD {
                nap = if moved == 0 { (nap * 2).min(NAP_MAX) } else { NAP_MIN };
                std::thread::sleep(nap);
            }
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                tell(sink);
                let running = self.running(false);
                self.interrupt(interrupted, &running);
            }
        }
    }

    /// The processes that still run; `last` asks for those too that nobody has told of.
    fn running(&mut self, last: bool) -> Vec<u32> {
        let mut running = self.collector.reap_orphans();
        if last && running.is_empty() {
            running = collect::children_that_map(&self.shared.path.to_string_lossy());
        }
        running
    }

    /// Whether the command has ended; notes how.
    fn look_at_child(&mut self) -> bool {
        use std::os::unix::process::ExitStatusExt;
        if self.exit.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            self.collector.reaped(self.child.id(), status.into_raw());
            let signal = status.signal().map_or(0, |signal| 128 + signal);
            self.exit = Some(status.code().unwrap_or(signal));
        }
        self.exit.is_some()
    }

    /// Once the user wants an end, sends what is due.
    fn interrupt(&mut self, interrupted: &AtomicBool, running: &[u32]) {
        // Ctrl-C has reached the programs already: the first signal is for those that were not
        // asked.
        const SCHEDULE: [(u64, i32); 3] =
            [(500, libc::SIGINT), (3_000, libc::SIGTERM), (4_000, libc::SIGKILL)];
        if self.interrupted.is_none() && interrupted.load(Relaxed) {
            self.interrupted = Some((Instant::now(), 0));
        }
        let Some((since, sent)) = &mut self.interrupted else { return };
        let Some(&(after, signal)) = SCHEDULE.get(*sent) else { return };
        if since.elapsed() >= Duration::from_millis(after) {
            *sent += 1;
            if self.exit.is_none() {
                sys::send_signal(self.child.id(), signal);
            }
            for &pid in running.iter().filter(|&&pid| pid != self.child.id()) {
                sys::send_signal(pid, signal);
            }
        }
    }

    /// Ends every process: nobody wants to know what they do.
    pub(crate) fn kill(&mut self) {
        let mut running = self.collector.reap_orphans();
        running.retain(|&pid| pid != self.child.id());
        for pid in running {
            sys::send_signal(pid, libc::SIGKILL);
        }
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
