//! Workers that a signal stopped: nothing is offered to them, what they may not have begun goes to others, and one
//! that nobody lets go on in time is killed and replaced.
//!
//! Limits go on counting meanwhile: whoever meets one first gives the reason. A worker that is to die, or was asked
//! to leave, has its deadline already.

use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::WorkerId;

use crate::machine::Core;
use crate::turn::{WorkerAlarm, ms};
use crate::worker::entry::{Cause, Duty};

impl Core {
    /// A signal stopped a worker.
    pub(crate) fn suspended(&mut self, id: WorkerId, signal: i32) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        if worker.suspended.is_some() || worker.duty.cause().is_some() {
            return;
        }
        let until_ns = self.turn.now_ns().saturating_add(ms(self.turn.config().stopped_ms));
        worker.suspended = Some(until_ns);
        worker.set(&mut self.turn, id, WorkerAlarm::Stopped, until_ns);
        let (pid, pool) = (worker.pid.unwrap_or(0), worker.pool);
        let job = worker.claims.head().map(|offer| offer.shown);
        let owner = job.and_then(|job| self.jobs.owner_of(job));
        self.pools.unspare(pool, id);
        self.turn.record(What::Suspended { worker: id, pid, job, signal }, owner);
        self.recall_all(id);
    }

    /// A stopped worker goes on.
    pub(crate) fn resumed(&mut self, id: WorkerId) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        if worker.suspended.take().is_none() {
            return;
        }
        worker.cancel(&mut self.turn, id, WorkerAlarm::Stopped);
        let (is_spare, pool) = (worker.duty == Duty::Spare && !worker.hung_up, worker.pool);
        self.turn.record(What::Resumed { worker: id }, None);
        if is_spare {
            self.pools[pool].spares.push_back(id);
        }
    }

    /// Nobody let a stopped worker go on.
    pub(crate) fn suspended_too_long(&mut self, id: WorkerId) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        // It stays stopped: the mark goes with the worker.
        worker.rang(WorkerAlarm::Stopped);
        worker.suspended = Some(u64::MAX);
        match worker.duty {
            Duty::Starting => {
                self.bootstrap_failed(id, "a signal stopped it before it was up".to_owned());
            }
            Duty::Spare | Duty::Idle | Duty::Busy => self.kill(id, Cause::Stopped),
            Duty::Retiring | Duty::Killed(_) | Duty::Stuck(_) => {}
        }
    }
}
