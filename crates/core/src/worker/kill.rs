//! Ends workers that must not live on, and waits for the proof.
//!
//! A hint of death or a kill settles nothing: what the worker may not have begun is taken back, the rest waits
//! for proof. Without proof in time the worker is stuck: its slot goes to another, its task to nobody.

use bulkhead_proto::client::evidence::Seen;
use bulkhead_proto::client::record::What;
use bulkhead_proto::death::Lie;
use bulkhead_proto::ids::{PoolId, WorkerId};

use crate::action::Action;
use crate::machine::{Core, Worker};
use crate::turn::Tally;
use crate::worker::entry::{Cause, Duty};

/// How long a worker whose lane hung up may take to die of itself, in milliseconds. A dying process closes its
/// lane a moment before its death can be seen; killing it in between would hide what it died of.
const HANG_UP_PATIENCE_MS: u64 = 250;

impl Core {
    /// Kills a worker, unless that was done before.
    pub(crate) fn kill(&mut self, id: WorkerId, cause: Cause) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        if worker.duty.cause().is_some() {
            return;
        }
        let job = worker.claims.head().map(|offer| offer.shown);
        let owner = job.and_then(|job| self.jobs.owner_of(job));
        self.recall_all(id);
        self.pools.enter(id, Duty::Killed(cause));
        self.turn.record(What::Killing { worker: id, job, why: cause.reason() }, owner);
        self.set_duty_alarm(id, Some(self.turn.config().stuck_after_ms));
        self.turn.act(Action::Kill { worker: id, why: cause.reason() });
    }

    /// Takes back whatever a worker may not have begun.
    pub(crate) fn recall_all(&mut self, id: WorkerId) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        for seq in worker.claims.recall_all() {
            self.turn.act(Action::TakeBack { worker: id, seq });
        }
    }

    /// A lane hung up: most likely the worker is dead, and the proof is on its way.
    pub(crate) fn hung_up(&mut self, id: WorkerId) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        if worker.hung_up || worker.duty.cause().is_some() || worker.duty == Duty::Retiring {
            return;
        }
        worker.hung_up = true;
        let pool = worker.pool;
        self.pools.unspare(pool, id);
        self.recall_all(id);
        self.set_duty_alarm(id, Some(HANG_UP_PATIENCE_MS));
    }

    /// A worker broke a rule: it gets no second chance.
    pub(crate) fn lied(&mut self, id: WorkerId, lie: Lie) {
        if self.pools.workers.contains_key(&id) {
            self.turn.count(Tally::Lies, 1);
            self.kill(id, Cause::Lie(lie));
        }
    }

    /// A worker did not come up: its process may live.
    pub(crate) fn bootstrap_failed(&mut self, id: WorkerId, error: String) {
        let Some(pool) = self.pool_of_starting(id) else { return };
        self.spawn_fault((id, pool), error);
        self.kill(id, Cause::Bootstrap);
    }

    /// The pool of a worker that is coming up.
    fn pool_of_starting(&self, id: WorkerId) -> Option<PoolId> {
        let worker = self.pools.workers.get(&id).filter(|worker| worker.duty == Duty::Starting)?;
        Some(worker.pool)
    }

    /// No process came into being: there is nothing to kill, and no proof to wait for if that was decided before.
    pub(crate) fn spawn_failed(&mut self, id: WorkerId, error: String) {
        let Some(worker) = self.pools.workers.get(&id) else { return };
        let (pool, duty) = (worker.pool, worker.duty);
        if !matches!(duty, Duty::Starting | Duty::Killed(_)) || worker.pid.is_some() {
            return;
        }
        self.cancel_alarms(id);
        self.pools.remove(id, self.turn.now_ns());
        if duty == Duty::Starting {
            self.spawn_fault((id, pool), error);
        }
    }

    /// The proof of a death did not come in time: where the worker waits is of interest.
    pub(crate) fn proof_is_late(&mut self, id: WorkerId) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        worker.proof_is_late = true;
        self.turn.act(Action::Examine { worker: id });
    }

    /// A worker was examined: if that was asked because the proof of its death is late, it is stuck now.
    pub(crate) fn note_stuck(&mut self, id: WorkerId, seen: Option<&Seen>) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        if let Duty::Killed(cause) = worker.duty
            && worker.proof_is_late
        {
            worker.seen = seen.cloned();
            self.stuck(id, cause);
        }
    }

    /// There is no proof of a death, and what is to be seen was seen. At most as many of these are replaced as the pool has slots.
    fn stuck(&mut self, id: WorkerId, cause: Cause) {
        self.pools.enter(id, Duty::Stuck(cause));
        let Some(worker) = self.pools.workers.get(&id) else { return };
        let (pid, seen) = (worker.pid.unwrap_or(0), worker.seen.clone());
        self.replace_stuck(worker.pool);
        self.turn.record(What::Stuck { worker: id, pid, seen }, None);
    }

    /// Gives the slots of stuck workers of a pool away, the oldest worker's first, as far as they may be.
    pub(crate) fn replace_stuck(&mut self, pool: PoolId) {
        while self.pools[pool].stuck_replaced < self.pools[pool].size() {
            let is_stuck = |worker: &Worker| worker.pool == pool && matches!(worker.duty, Duty::Stuck(_));
            let holds_slot = |worker: &Worker| is_stuck(worker) && worker.slot.is_some();
            let mut workers = self.pools.workers.iter_mut();
            let Some((&id, worker)) = workers.find(|(_, worker)| holds_slot(worker)) else { return };
            worker.replaced = true;
            self.pools[pool].stuck_replaced += 1;
            self.pools.vacate(id, self.turn.now_ns());
        }
    }
}
