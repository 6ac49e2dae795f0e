//! Workers that a signal stopped, and those that go on: told to the core, which decides how long that may last.
//!
//! SIGCHLD wakes the loop for these as for deaths, and the kernel is asked then and at no other time. No status of a
//! dead child is taken here. Driven by the loop.

use bulkhead_core::event::Event;
use bulkhead_sys::stops::{Stop, next_stop};

use super::WorkerTable;

/// Changes heard in one turn; whoever makes more of them waits for the next one, like everybody else.
const CHANGES_PER_TURN: usize = 64;

impl WorkerTable {
    /// Tells of the workers that were stopped or continued since the last SIGCHLD. What else is stopped here, a
    /// stray for one, is nobody's concern: it is as easily killed.
    pub(crate) fn collect_stops(&mut self, events: &mut Vec<Event>) {
        if !self.may_have_stops {
            return;
        }
        for _ in 0..CHANGES_PER_TURN {
            let stop = match next_stop() {
                Ok(Some(stop)) => stop,
                Ok(None) => {
                    self.may_have_stops = false;
                    return;
                }
                Err(error) => {
                    self.may_have_stops = false;
                    log::error!("cannot ask for stopped workers error={error}");
                    return;
                }
            };
            let (Stop::Stopped { pid, .. } | Stop::Continued { pid }) = stop;
            let Some(worker) = self.workers.values().find(|worker| worker.leads(pid)) else {
                continue;
            };
            let worker = worker.id;
            events.push(match stop {
                Stop::Stopped { signal, .. } => Event::Suspended { worker, signal },
                Stop::Continued { .. } => Event::Resumed { worker },
            });
        }
    }
}
