//! Who runs what, in each pool by itself: idle workers first, each one task; then, for short tasks, a little work ahead.
//!
//! Jobs that have to run alone come before all others whenever a worker that has run nothing is to be had. Work
//! ahead never delays a job whose turn it is: if that job needs an idle worker, busy ones are not refilled.

use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::{Fence, PoolId, WorkerId};
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::worker::stage::Stage;

use crate::action::{Action, Task};
use crate::job::backlog::{Ageing, Verdict};
use crate::job::entry::{State, Step};
use crate::job::list::Key;
use crate::job::table::Jobs;
use crate::machine::Core;
use crate::machine::parts::plan_waits;
use crate::turn::{Tally, ms};
use crate::worker::entry::{Duty, Worker};
use crate::worker::prefetch::{ALONE_NS, Pace};
use crate::worker::recycle::is_due;
use crate::worker::watch::is_watched;

impl Core {
    /// Hands out whatever can be handed out.
    pub(crate) fn dispatch(&mut self) {
        if self.drain.is_leaving() {
            return;
        }
        for pool in self.pools.ids() {
            self.dispatch_solo(pool);
            let refilled = if self.queues.length_in(pool) > 0 { self.fill_idle(pool) } else { Vec::new() };
            if self.queues.length_in(pool) > 0 {
                self.deepen(pool, &refilled);
            }
            self.balance(pool);
        }
    }

    /// Offers jobs that have to run alone to workers that have run nothing.
    fn dispatch_solo(&mut self, pool: PoolId) {
        while let Some(key) = self.pools[pool].solo.head() {
            if self.shortage.is_on() && self.jobs.needs_descriptor(key) {
                return;
            }
            let Some(worker) = self.fresh_worker(pool) else { return };
            self.pools[pool].solo.unlink(&mut self.jobs.slab, key);
            self.offer(worker, key, ALONE_NS);
        }
    }

    /// A worker in a slot that has run nothing; if need be an idle one leaves and a spare takes its place.
    fn fresh_worker(&mut self, pool: PoolId) -> Option<WorkerId> {
        let mut used = None;
        for slot in self.pools[pool].places.clone() {
            match self.pools.in_slot(slot) {
                Some((id, worker)) if worker.is_idle() && worker.is_fresh() => return Some(id),
                Some((id, worker)) if worker.is_idle() => used = used.or(Some((slot, id))),
                _ => {}
            }
        }
        let spare = *self.pools[pool].spares.front()?;
        let (slot, old) = used?;
        self.retire(old);
        self.place(spare, slot);
        Some(spare)
    }

    /// Gives each idle worker one job; names those that got one.
    fn fill_idle(&mut self, pool: PoolId) -> Vec<WorkerId> {
        let mut filled = Vec::new();
        for slot in self.pools[pool].places.clone() {
            let Some((id, worker)) = self.pools.in_slot(slot) else { continue };
            if !worker.is_idle() {
                continue;
            }
            let at = ageing(self.turn.now_ns(), self.turn.config());
            let (fans, slots, short) = (&self.fans, self.pools[pool].size(), self.shortage.is_on());
            let found = self.queues.take(pool, &mut self.jobs, at, &mut |jobs, key| {
                let batch = jobs.batch(key);
                let waits = short && jobs.needs_descriptor(key)
                    || jobs[key].step == Step::Plan && plan_waits(fans, slots, batch);
                if waits { Verdict::Skip } else { Verdict::Take }
            });
            let Some(key) = found else { break };
            let cost_ns = cost_ns(&self.jobs, &self.paces, key);
            self.offer(id, key, cost_ns);
            filled.push(id);
        }
        filled
    }

    /// Gives busy workers short tasks ahead, those with the fewest offers first.
    fn deepen(&mut self, pool: PoolId, refilled: &[WorkerId]) {
        if self.paces.iter().all(|pace| pace.depth() == 1) {
            return;
        }
        // A worker of its own waits for a job that has to run alone: let somebody become idle.
        let reserved = !self.pools[pool].solo.is_empty() && !self.pools[pool].spares.is_empty();
        let mut open: Vec<WorkerId> = self
            .pools
            .in_slots(pool)
            .filter(|(_, worker)| worker.duty == Duty::Busy && worker.is_open())
            .filter(|(_, worker)| !worker.claims.is_overdue(self.turn.now_ns()))
            .map(|(id, _)| id)
            .filter(|id| !reserved || refilled.contains(id))
            .collect();
        while let Some(least) = open.iter().filter_map(|id| self.ring_length(*id)).min() {
            open.retain(|&id| {
                self.ring_length(id) != Some(least) || self.offer_ahead(id, refilled.contains(&id))
            });
        }
    }

    fn ring_length(&self, id: WorkerId) -> Option<usize> {
        self.pools.workers.get(&id).map(|worker| worker.claims.len())
    }

    /// Gives a busy worker one more short task. `false`: none fits it now.
    ///
    /// A worker that was idle in this turn may take what fits, past a job that needs an idle worker: its turn is
    /// worth a millisecond of work. Others must not overtake such a job.
    fn offer_ahead(&mut self, id: WorkerId, may_overtake: bool) -> bool {
        let deepest = self.paces.iter().map(Pace::depth).max().unwrap_or(1);
        let allowed = |worker: &Worker| self.pools[worker.pool].company.depth(self.turn.now_ns());
        // A worker that is due to be recycled comes to its end while a spare stands ready for its slot.
        let stays = |worker: &Worker| {
            self.pools[worker.pool].spares.is_empty()
                || !is_due(worker, self.turn.config(), self.turn.now_ns())
        };
        let has_room = |worker: &&Worker| {
            !worker.claims.is_full() && worker.claims.len() < deepest.min(allowed(worker)) && stays(worker)
        };
        let Some(worker) = self.pools.workers.get(&id).filter(has_room) else { return false };
        let (paces, short) = (&self.paces, self.shortage.is_on());
        let at = ageing(self.turn.now_ns(), self.turn.config());
        let found = self.queues.take(worker.pool, &mut self.jobs, at, &mut |jobs, key| {
            if short && jobs.needs_descriptor(key) {
                return Verdict::Skip;
            }
            match fits_ahead(worker, jobs, paces, key) {
                Fit::Now => Verdict::Take,
                Fit::NeverAhead if !may_overtake => Verdict::Stop,
                Fit::NeverAhead | Fit::NoRoom => Verdict::Skip,
            }
        });
        let Some(key) = found else { return false };
        let cost_ns = cost_ns(&self.jobs, &self.paces, key);
        self.offer(id, key, cost_ns);
        true
    }

    /// Whoever has just this one job, while others wait, does not want to wait behind much.
    fn note_company(&mut self, pool: PoolId, key: Key) {
        let (uid, client) = (self.jobs.batch(key).uid, self.jobs.batch(key).client);
        if self.pools[pool].company.changes(client)
            && self.queues.length_in(pool) > 0
            && !self.queues.has_jobs_of(pool, uid, client)
        {
            self.pools[pool].company.note(self.turn.now_ns());
        }
    }

    /// Hands one task to a worker.
    pub(crate) fn offer(&mut self, id: WorkerId, key: Key, cost_ns: u64) {
        let now_ns = self.turn.now_ns();
        let (own, shown, part) = self.job_of(key);
        let input = self.jobs[own].input.clone();
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        let job = &mut self.jobs[key];
        job.fence = Fence(job.fence.0 + 1);
        job.attempts += 1;
        let (number, fence, lost_ns) = (job.id, job.fence, job.lost_ns());
        let (attempt, alone) = (job.attempts, job.alone);
        let seq = worker.claims.push(key, number, fence, cost_ns, now_ns);
        let (first, pool) = (worker.claims.len() == 1, worker.pool);
        self.jobs.enter(key, State::Running { worker: id, seq, since_ns: now_ns });
        let batch = self.jobs.batch(key);
        let (kind, uid, policy) = (batch.kind, batch.uid, batch.policy.clone());
        worker.claims.allow(self.turn.config().kinds[usize::from(kind.0)].cancel_grace_ms);
        if first {
            self.pools.enter(id, Duty::Busy);
            self.watch_head(id);
            self.begin_telling(key);
        }
        if let Some(lost_ns) = lost_ns {
            self.turn.count(Tally::Retries, 1);
            let (job, after_us) = (shown, (now_ns - lost_ns) / 1000);
            self.turn.record(What::Retried { job, part, attempt, worker: id, after_us, alone }, Some(uid));
        }
        self.watch(id, seq, &policy);
        self.note_turn(key);
        self.note_company(pool, key);
        let stage = self.stage_of(key);
        let (output, memory_bytes) = (output_of(stage, policy.output), policy.memory_bytes);
        let mut files = self.send_along(id, own, shown, stage);
        files.extend(self.begin_log(key));
        let task = Task { job: shown, fence, kind, memory_bytes, output, stage, files, input };
        self.turn.act(Action::Offer { worker: id, seq, task });
        self.show_log(key);
    }
}

/// Whether a job may wait in a busy worker's ring.
enum Fit {
    Now,
    /// There is no room at the moment.
    NoRoom,
    /// Jobs of its kind need an idle worker.
    NeverAhead,
}

fn fits_ahead(worker: &Worker, jobs: &Jobs, paces: &[Pace], key: Key) -> Fit {
    let batch = jobs.batch(key);
    let pace = &paces[usize::from(batch.kind.0)];
    if pace.depth() == 1 || is_for_itself(jobs, key) {
        Fit::NeverAhead
    } else if worker.claims.len() < pace.depth() && worker.claims.has_room(pace.cost_ns()) {
        Fit::Now
    } else {
        Fit::NoRoom
    }
}

/// What a job adds to the work ahead of the worker that gets it.
fn cost_ns(jobs: &Jobs, paces: &[Pace], key: Key) -> u64 {
    let kind = jobs.batch(key).kind;
    if is_for_itself(jobs, key) { ALONE_NS } else { paces[usize::from(kind.0)].cost_ns() }
}

/// Where the output of a task goes. A plan is a file of its own; what a part leaves goes to the merge.
fn output_of(stage: Stage, wanted: OutputMode) -> OutputMode {
    match stage {
        Stage::Whole | Stage::Merge { .. } => wanted,
        Stage::Plan => OutputMode::Descriptor,
        Stage::Run { .. } => OutputMode::Inline,
    }
}

/// Whether nothing may share a ring with it: what is watched is measured by itself, and files that wait behind another
/// task would be held by a worker that does not use them.
fn is_for_itself(jobs: &Jobs, key: Key) -> bool {
    is_watched(&jobs.batch(key).policy) || jobs[key].freight().is_some() || jobs[key].step != Step::Whole
}

fn ageing(now_ns: u64, config: &crate::config::Config) -> Ageing {
    Ageing { now_ns, step_ns: ms(config.ageing_ms) }
}
