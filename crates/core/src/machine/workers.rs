//! Events and alarms of workers that concern jobs or clients too: failed spawns, kills, violations, stops, health of pools.
//!
//! The rest of an event is done by `Workers`, which returns a `FollowUp` or a pool that has changed its health.

use bulkhead_proto::death::{KillReason, Violation};
use bulkhead_proto::ids::{PoolId, Seq, WorkerId};

use crate::machine::Core;
use crate::turn::{Counter, WorkerAlarm};
use crate::worker::{FollowUp, Kill, NowDegraded, NowHealthy};

impl Core {
    /// An alarm of a worker went off.
    pub(super) fn ring_worker(&mut self, alarm: WorkerAlarm, id: WorkerId) {
        let turn = &mut self.turn;
        match alarm {
            WorkerAlarm::Overdue => {
                let need = self.workers.overdue(turn, id);
                self.follow_up(id, need);
            }
            WorkerAlarm::Limit => self.limit_met(id),
            WorkerAlarm::Watch => self.workers.watch_due(turn, id),
            WorkerAlarm::Stopped => {
                let need = self.workers.stopped_too_long(id);
                self.follow_up(id, need);
            }
            WorkerAlarm::StopsTold => self.workers.stops_due(turn, id),
            WorkerAlarm::ProgramStop => self.workers.program_stop_due(turn, id),
            WorkerAlarm::EndOrder => self.workers.order_over(turn, id),
            WorkerAlarm::Stack => {
                let need = self.workers.stack_time_over(id);
                self.follow_up(id, need);
            }
            WorkerAlarm::Resume => self.workers.resume(turn, id),
            WorkerAlarm::Survival => {
                let healthy = self.workers.survived(turn, id);
                self.tell_healthy(healthy);
            }
        }
    }

    /// Does what the room of workers returned as to be done about a worker.
    pub(super) fn follow_up(&mut self, id: WorkerId, need: FollowUp) {
        match need {
            FollowUp::Nothing => {}
            FollowUp::Kill(kill) => self.kill(id, kill),
            FollowUp::Bootstrap(error) => self.bootstrap_failed(id, error),
        }
    }

    /// Kills a worker, unless that was done before; some workers write their stack first. The job ends now.
    pub(super) fn kill(&mut self, id: WorkerId, kill: impl Into<Kill>) {
        let kill = kill.into();
        if self.workers.may_be_killed(id) {
            self.end_timed_out(id);
            if !self.workers.waits_for_stack(&mut self.turn, id, kill) {
                self.workers.kill(&mut self.turn, id, kill);
            }
        }
    }

    /// A worker broke a rule of the protocol: it is killed.
    pub(super) fn violated(&mut self, id: WorkerId, violation: Violation) {
        if self.workers.get(id).is_some() {
            self.turn.count(Counter::Violations, 1);
            self.kill(id, KillReason::Violation { violation });
        }
    }

    /// A signal stopped a worker.
    pub(super) fn stopped(&mut self, id: WorkerId, signal: i32) {
        self.workers.stopped(&mut self.turn, id, signal);
    }

    /// A signal stopped the program of a task.
    pub(super) fn program_stopped(&mut self, id: WorkerId, seq: Seq, (pid, signal): (u32, i32)) {
        self.workers.program_stopped(&mut self.turn, id, seq, (pid, signal));
        // The task has begun, so no alarm is needed for a worker that does not begin it.
        if self.workers.note_claimed(id, seq).is_some() {
            self.watch_head(id);
        }
    }

    /// A stopped program goes on.
    pub(super) fn program_continued(&mut self, id: WorkerId, seq: Seq) {
        self.workers.program_continued(&mut self.turn, id, seq);
    }

    /// A worker did not come up: its process may live.
    pub(super) fn bootstrap_failed(&mut self, id: WorkerId, error: String) {
        let Some(pool) = self.workers.pool_of_starting(id) else { return };
        self.spawn_fault((id, pool), error);
        self.kill(id, Kill::FAILED_SPAWN);
    }

    /// No process could be spawned.
    pub(super) fn spawn_failed(&mut self, id: WorkerId, error: String) {
        if let Some(pool) = self.workers.spawn_failed(&mut self.turn, id) {
            self.spawn_fault((id, pool), error);
        }
    }

    /// A worker could not be brought up.
    pub(super) fn spawn_fault(&mut self, worker: (WorkerId, PoolId), error: String) {
        let (_, pool) = worker;
        let degraded = self.workers.spawn_fault(&mut self.turn, worker, error);
        if degraded.is_some() || self.workers.pool(pool).stands_empty().is_some() {
            self.notify_waiting(pool);
        }
    }

    /// A worker died and no job is charged.
    pub(super) fn fault(&mut self, pool: PoolId, what: &str) {
        let degraded = self.workers.fault(&mut self.turn, pool, what);
        self.tell_degraded(degraded);
    }

    /// Sends notices about a pool that has just degraded.
    pub(super) fn tell_degraded(&mut self, degraded: Option<NowDegraded>) {
        if let Some(NowDegraded(pool)) = degraded {
            self.notify_waiting(pool);
        }
    }

    /// Sends notices about a pool that is healthy again.
    pub(super) fn tell_healthy(&mut self, healthy: Option<NowHealthy>) {
        if let Some(NowHealthy(pool)) = healthy {
            self.notify_recovered(pool);
        }
    }
}
