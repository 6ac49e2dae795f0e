//! Workers that a signal stopped: such a worker is offered nothing, its offers that may not have begun are taken back, and
//! it is killed if it is not continued within `stopped_ms`. Programs of tasks that a signal stopped are in `program_stop.rs`.
//!
//! Limits go on counting meanwhile; the first limit that is met gives the reason of the kill. A killed or retiring worker
//! has a deadline already.

use bulkhead_proto::client::record::What;
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::WorkerId;

use crate::turn::{Turn, WorkerAlarm};
use crate::worker::state::WorkerDuty;
use crate::worker::{FollowUp, Workers};

impl<T: Copy> Workers<T> {
    /// A signal stopped a worker.
    pub(crate) fn stopped(&mut self, turn: &mut Turn, id: WorkerId, signal: i32) {
        let Some(worker) = self.table.get_mut(&id) else { return };
        if worker.stopped_until_ns.is_some() || worker.is_killed() {
            return;
        }
        let until_ns = turn.after_ms(turn.config().stopped_ms);
        worker.stopped_until_ns = Some(until_ns);
        worker.set(turn, id, WorkerAlarm::Stopped, until_ns);
        let (pid, pool, owner) = (worker.pid().unwrap_or(0), worker.pool, worker.owner());
        let job = worker.ring.head().map(|offer| offer.shown());
        self.pool_mut(pool).unspare(id);
        turn.record(What::Suspended { worker: id, pid, job, signal }, owner);
        self.recall_all(turn, id);
    }

    /// A stopped worker goes on.
    pub(crate) fn continued(&mut self, turn: &mut Turn, id: WorkerId) {
        let Some(worker) = self.table.get_mut(&id) else { return };
        if worker.stopped_until_ns.take().is_none() {
            return;
        }
        worker.cancel(turn, id, WorkerAlarm::Stopped);
        let (is_spare, pool) = (worker.state == WorkerDuty::Spare && !worker.is_hung_up(), worker.pool);
        turn.record(What::Resumed { worker: id }, worker.owner());
        if is_spare {
            self.pool_mut(pool).add_spare(id);
        }
    }

    /// A stopped worker was not continued in time.
    ///
    /// # Panics
    /// If its alarm was not set.
    pub(crate) fn stopped_too_long(&mut self, id: WorkerId) -> FollowUp {
        let Some(worker) = self.table.get_mut(&id) else { return FollowUp::Nothing };
        worker.rang(WorkerAlarm::Stopped);
        // It stays stopped until it dies.
        worker.stopped_until_ns = Some(u64::MAX);
        match worker.state {
            WorkerDuty::Starting => FollowUp::Bootstrap("a signal stopped it before it was up".to_owned()),
            WorkerDuty::Spare | WorkerDuty::Idle { .. } | WorkerDuty::Busy { .. } => {
                FollowUp::Kill(KillReason::Stopped.into())
            }
            WorkerDuty::Retiring | WorkerDuty::Killed { .. } | WorkerDuty::Stuck { .. } => FollowUp::Nothing,
        }
    }
}
