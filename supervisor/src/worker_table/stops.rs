//! Reports workers that a signal stopped or continued; the core decides how long a worker may stay stopped.
//!
//! SIGCHLD wakes the loop, then waitid(2) is called until it has nothing to report. It is called at no other time and
//! takes no status of a dead child. Driven by `turn.rs`.

use bulkhead_core::event::Event;
use bulkhead_sys::stops::{Stop, next_stop};

use super::WorkerTable;

/// Changes handled in one turn. More of them wait for the next turn.
const CHANGES_PER_TURN: usize = 64;

impl WorkerTable {
    /// Reports the workers that were stopped or continued since the last SIGCHLD. Other stopped children are ignored:
    /// a stopped stray can be killed like any other.
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
                    log::error!("waitid for stopped workers failed error={error}");
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
