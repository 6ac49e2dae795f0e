//! Workers that a signal stopped: such a worker is offered nothing, its offers that may not have begun are taken back, and
//! it is killed if it is not continued within `stopped_ms`. Programs of tasks that a signal stopped are in `program_stop.rs`.
//!
//! Limits go on counting meanwhile; the first limit that is met gives the reason of the kill. A killed or retiring worker
//! has a deadline already.
//!
//! A task may stop and continue its worker as often as it likes, so not every stop is a record:
//!
//! | records of the worker | a signal stops it | it goes on | the alarm `StopsTold` goes off, or the worker is removed |
//! |---|---|---|---|
//! | no stop in the last [`RECORD_PAUSE_MS`] | recorded: quiet | - | - |
//! | quiet | counted, alarm set for the end of the pause | recorded if its stop was | counted stops are recorded in one |

use bulkhead_proto::client::record::What;
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::WorkerId;

use crate::turn::{Owner, Turn, WorkerAlarm};
use crate::worker::program_stop::RECORD_PAUSE_MS;
use crate::worker::state::WorkerDuty;
use crate::worker::{FollowUp, Worker, Workers};

/// Which stops of one worker are records of their own, and how many are not.
#[derive(Debug, Default)]
pub(super) struct StopTally {
    /// No stop before then is recorded by itself, nanoseconds on the clock of the turns.
    quiet_until_ns: u64,
    /// Whether the last stop was recorded by itself.
    is_recorded: bool,
    /// Stops that were not, since the last record about them.
    untold: u64,
    /// Who may see a record about them: the user of all tasks that were stopped.
    owner: Owner,
}

impl<T: Copy> Worker<T> {
    /// Counts a stop. `true`: it is to be recorded by itself.
    fn note_stop(&mut self, turn: &mut Turn, id: WorkerId) -> bool {
        self.stops.is_recorded = turn.now_ns() >= self.stops.quiet_until_ns;
        if self.stops.is_recorded {
            self.tell_stops(turn, id);
            self.stops.quiet_until_ns = turn.after_ms(RECORD_PAUSE_MS);
        } else {
            self.stops.untold += 1;
            self.stops.owner = self.stops.owner.or(self.owner());
            self.set(turn, id, WorkerAlarm::StopsTold, self.stops.quiet_until_ns);
        }
        self.stops.is_recorded
    }

    /// Records the stops that were only counted, if there are any.
    pub(super) fn tell_stops(&mut self, turn: &mut Turn, id: WorkerId) {
        self.cancel(turn, id, WorkerAlarm::StopsTold);
        let (count, owner) = (std::mem::take(&mut self.stops.untold), std::mem::take(&mut self.stops.owner));
        if count > 0 {
            turn.record(What::SuspendedOften { worker: id, count }, owner);
        }
    }
}

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
        if worker.note_stop(turn, id) {
            turn.record(What::Suspended { worker: id, pid, job, signal }, owner);
        }
        self.pool_mut(pool).unspare(id);
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
        if worker.stops.is_recorded {
            turn.record(What::Resumed { worker: id }, worker.owner());
        }
        if is_spare {
            self.pool_mut(pool).add_spare(id);
        }
    }

    /// The stops of a worker that were no records are told.
    ///
    /// # Panics
    /// If its alarm was not set.
    pub(crate) fn stops_due(&mut self, turn: &mut Turn, id: WorkerId) {
        let Some(worker) = self.table.get_mut(&id) else { return };
        worker.rang(WorkerAlarm::StopsTold);
        worker.tell_stops(turn, id);
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
