//! Who runs what, in each pool by itself: idle workers first, each one task; then, for short tasks, a little work ahead.
//!
//! Jobs that have to run alone come before all others whenever a worker that has run nothing is to be had. Work
//! ahead never delays a job whose turn it is: if that job needs an idle worker, busy ones are not refilled.

use bulkhead_proto::ids::{ClientId, PoolId, WorkerId};

use crate::action::Action;
use crate::job::{Begun, Candidate, Run, Verdict};
use crate::machine::{Core, Offer, Worker};
use crate::worker::entry::Duty;
use crate::worker::prefetch::{ALONE_NS, Pace};
use crate::worker::recycle::is_due;

impl Core {
    /// Hands out whatever can be handed out.
    pub(crate) fn dispatch(&mut self) {
        if self.drain.is_leaving() {
            return;
        }
        for pool in self.pools.ids() {
            self.dispatch_solo(pool);
            let refilled = if self.jobs.queued_in(pool) > 0 { self.fill_idle(pool) } else { Vec::new() };
            if self.jobs.queued_in(pool) > 0 {
                self.deepen(pool, &refilled);
            }
            self.balance(pool);
        }
    }

    /// Offers jobs that have to run alone to workers that have run nothing.
    fn dispatch_solo(&mut self, pool: PoolId) {
        while let Some(candidate) = self.jobs.first_alone(pool) {
            if self.shortage.is_on() && candidate.needs_descriptor() {
                return;
            }
            let Some(worker) = self.fresh_worker(pool) else { return };
            let Some(run) = self.jobs.take_alone(pool) else { return };
            self.offer(worker, run, ALONE_NS);
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
            let (slots, short) = (self.pools[pool].size(), self.shortage.is_on());
            let found = self.jobs.take(&self.turn, pool, 1, |candidate| {
                let waits = short && candidate.needs_descriptor() || candidate.plan_waits(slots);
                if waits { Verdict::Skip } else { Verdict::Take }
            });
            let Some(run) = found else { break };
            self.offer(id, run, self.cost_ns(run));
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
        let reserved = self.jobs.first_alone(pool).is_some() && !self.pools[pool].spares.is_empty();
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
        let found = self.jobs.take(&self.turn, worker.pool, 1, |candidate| {
            if short && candidate.needs_descriptor() {
                return Verdict::Skip;
            }
            match fits_ahead(worker, paces, candidate) {
                Fit::Now => Verdict::Take,
                Fit::NeverAhead if !may_overtake => Verdict::Stop,
                Fit::NeverAhead | Fit::NoRoom => Verdict::Skip,
            }
        });
        let Some(run) = found else { return false };
        self.offer(id, run, self.cost_ns(run));
        true
    }

    /// A client that has just this one job, while others wait, is not to wait behind much.
    fn note_company(&mut self, pool: PoolId, uid: u32, client: ClientId) {
        if self.pools[pool].company.changes(client)
            && self.jobs.queued_in(pool) > 0
            && !self.jobs.has_queued(pool, uid, client)
        {
            self.pools[pool].company.note(self.turn.now_ns());
        }
    }

    /// Hands one task to a worker.
    fn offer(&mut self, id: WorkerId, run: Run, cost_ns: u64) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        let (seq, pool) = (worker.claims.next_seq(), worker.pool);
        let Begun { mut task, ticket, limits, uid, client } = self.jobs.start(&mut self.turn, run, id, seq);
        let offer = Offer {
            seq,
            ticket,
            number: run.first(),
            count: run.count(),
            shown: task.job,
            fence: task.fence,
            cost_ns,
            timeout_ms: limits.timeout_ms,
            recalled: false,
            claimed: false,
            grace_ms: self.turn.kind(task.kind).map_or(0, |kind| kind.cancel_grace_ms),
        };
        worker.claims.push(offer, self.turn.now_ns());
        if worker.claims.len() == 1 {
            self.pools.enter(id, Duty::Busy);
            self.watch_head(id);
            self.jobs.begin_progress(&mut self.turn, run);
        }
        self.watch(id, seq, limits);
        self.note_company(pool, uid, client);
        task.files.extend(self.jobs.begin_log(&mut self.turn, run));
        self.turn.act(Action::Offer { worker: id, seq, task });
        self.show_log(run);
    }

    /// What a run adds to the work ahead of the worker that gets it.
    fn cost_ns(&self, run: Run) -> u64 {
        let kind = self.jobs.batch(run).kind();
        if self.jobs.is_for_itself(run) { ALONE_NS } else { self.paces[usize::from(kind.0)].cost_ns() }
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

fn fits_ahead(worker: &Worker, paces: &[Pace], candidate: &Candidate<'_>) -> Fit {
    let pace = &paces[usize::from(candidate.kind().0)];
    if pace.depth() == 1 || candidate.is_for_itself() {
        Fit::NeverAhead
    } else if worker.claims.len() < pace.depth() && worker.claims.has_room(pace.cost_ns()) {
        Fit::Now
    } else {
        Fit::NoRoom
    }
}
