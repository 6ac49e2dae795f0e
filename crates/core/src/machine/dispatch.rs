//! Dispatch of queued jobs to workers, in each pool by itself: one task for each idle worker, then short tasks ahead.
//!
//! Jobs that have to run alone come first when a worker that has run nothing is available, but for users who wait in the queue
//! and hold fewer workers: see `job/solo_queue.rs`. Tasks ahead never delay the first job of the queue: if that job needs an
//! idle worker, busy workers are not refilled.
//!
//! The queue hears at once who holds how many workers. A search that is longer than one take leaves a worker idle and goes
//! on in the next turn, which begins at once: `is_searching`.

use bulkhead_proto::ids::{ClientId, PoolId, WorkerId};
use bulkhead_proto::job::OutputMode;

use crate::action::Action;
use crate::job::{Candidate, NamedRegistrations, Search, StartedAttempt, TakeChoice, TaskRun};
use crate::machine::Core;
use crate::machine::outputs::has_room;
use crate::worker::{ALONE_NS, Fit, NewOffer};

/// Whether a job that has to run alone is offered before those of users whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overtaking {
    Never,
    Allowed,
}

/// A task that was taken for a worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    run: TaskRun,
    /// What it adds to the work ahead of the worker, in nanoseconds.
    cost_ns: u64,
    needs_descriptor: bool,
}

impl Core {
    /// Offers queued jobs of all pools.
    pub(super) fn dispatch(&mut self) {
        self.is_searching = false;
        if self.drain.is_leaving() {
            return self.workers.end_lending(&mut self.turn);
        }
        self.post_charges();
        for pool in self.workers.pool_ids() {
            // No worker gets stuck in a dispatch, so this holds for all of it.
            self.jobs.note_held_max(pool, self.workers.held_max(pool));
            self.tell_held(pool);
            self.dispatch_alone(pool, Overtaking::Never);
            let (mut refilled, mut is_searching) = (Vec::new(), false);
            if self.jobs.queued_in(pool) > 0 {
                (refilled, is_searching) = self.fill_idle(pool);
            }
            self.is_searching |= is_searching;
            if !is_searching {
                // What is idle now is of no use to the queue.
                self.dispatch_alone(pool, Overtaking::Allowed);
            }
            // A search of another purpose would begin anew.
            if self.jobs.queued_in(pool) > 0 && !is_searching {
                self.deepen(pool, &refilled);
            }
            self.workers.balance(&mut self.turn, pool);
            self.lend(pool);
        }
    }

    /// Offers jobs that have to run alone to workers that have run nothing.
    fn dispatch_alone(&mut self, pool: PoolId, overtaking: Overtaking) {
        while let Some(candidate) = self.first_alone(pool) {
            let uid = candidate.uid();
            let held = self.workers.held_by(pool, uid);
            if overtaking == Overtaking::Never && !self.jobs.alone_goes_first(pool, uid, held) {
                return;
            }
            let Some(worker) = self.workers.fresh(&mut self.turn, pool, uid) else { return };
            let Some(run) = self.jobs.take_alone(pool, uid) else { return };
            self.offer_alone(worker, run);
        }
    }

    /// Tells the queue how many workers of a pool each user holds, where that has changed.
    fn tell_held(&mut self, pool: PoolId) {
        while let Some((uid, held)) = self.workers.next_held_change(pool) {
            self.jobs.note_held(pool, uid, held);
        }
    }

    /// The first job of a pool that has to run alone and has the descriptors and the memory that it needs, of users who may
    /// hold one more worker.
    pub(super) fn first_alone(&self, pool: PoolId) -> Option<Candidate<'_>> {
        if self.jobs.has_none_alone(pool) {
            return None;
        }
        let (workers, short) = (&self.workers, self.workers.is_short());
        self.jobs.first_alone(
            pool,
            |uid| workers.may_hold_more(pool, uid).then(|| workers.held_by(pool, uid)),
            |first| !(short && first.needs_any_descriptor()) && has_room(&self.ledger, &self.turn, first),
        )
    }

    /// Offers each idle worker one job. Gives the workers that got one, and whether the search goes on in the next turn.
    fn fill_idle(&mut self, pool: PoolId) -> (Vec<WorkerId>, bool) {
        let mut filled = Vec::new();
        for slot in self.workers.places(pool) {
            // Where workers serve one user each, another worker may get the job that was found for this one.
            while self.jobs.queued_in(pool) > 0
                && let Some((idle, _)) = self.workers.in_slot(slot).filter(|(_, worker)| worker.is_idle())
            {
                let Some((taken, uid)) = self.take_for_idle(pool) else {
                    return (filled, self.jobs.is_search_open(pool));
                };
                let chosen = self.workers.serves_one(pool).then_some(uid);
                let chosen = chosen.and_then(|uid| self.workers.idle_for(&mut self.turn, pool, uid));
                let id = chosen.unwrap_or(idle);
                self.offer(id, taken);
                filled.push(id);
            }
        }
        (filled, false)
    }

    /// Takes the first job of a pool that an idle worker can be offered now; gives it and its user.
    fn take_for_idle(&mut self, pool: PoolId) -> Option<(Taken, u32)> {
        let (slots, short) = (self.workers.pool(pool).size(), self.workers.is_short());
        let (workers, ledger, turn) = (&self.workers, &self.ledger, &self.turn);
        let serves_one = workers.serves_one(pool);
        let (mut uid, mut cost_ns, mut needs_descriptor) = (0, 0, false);
        let run = self.jobs.take(turn, (pool, Search::Idle), 1, |candidate| {
            if short && candidate.needs_any_descriptor()
                || candidate.plan_waits(slots)
                || candidate.has_expired(turn)
                || !has_room(ledger, turn, candidate)
                || serves_one && !workers.can_serve(pool, candidate.uid())
            {
                return TakeChoice::Skip;
            }
            uid = candidate.uid();
            needs_descriptor = candidate.needs_descriptor();
            cost_ns = workers.cost_ns(candidate.flavour(), candidate.is_for_itself());
            TakeChoice::Take
        })?;
        Some((Taken { run, cost_ns, needs_descriptor }, uid))
    }

    /// Offers busy workers short tasks ahead, those with the fewest offers first.
    fn deepen(&mut self, pool: PoolId, refilled: &[WorkerId]) {
        if self.workers.deepest() == 1 {
            return;
        }
        // A spare is ready for a job that has to run alone: do not refill, so that a worker becomes idle for it.
        let reserved = self.first_alone(pool).is_some() && self.workers.pool(pool).has_spare();
        let mut open = self.workers.open_ahead(&self.turn, pool);
        open.retain(|id| !reserved || refilled.contains(id));
        while let Some(least) = open.iter().filter_map(|id| self.ring_length(*id)).min() {
            open.retain(|&id| {
                self.ring_length(id) != Some(least) || self.offer_ahead(id, pool, refilled.contains(&id))
            });
        }
    }

    fn ring_length(&self, id: WorkerId) -> Option<usize> {
        self.workers.get(id).map(|worker| worker.ring().len())
    }

    /// Offers a busy worker one more short task. `false`: no queued task fits it now.
    ///
    /// A worker that was idle in this turn may take a task from behind a job that needs an idle worker, up to the
    /// millisecond of work ahead. Other workers must not overtake such a job.
    fn offer_ahead(&mut self, id: WorkerId, pool: PoolId, may_overtake: bool) -> bool {
        if !self.workers.has_room_ahead(&self.turn, id) {
            return false;
        }
        let (workers, short) = (&self.workers, self.workers.is_short());
        let (ledger, turn, clients) = (&self.ledger, &self.turn, &self.clients);
        let Some(worker) = workers.get(id) else { return false };
        let (mut cost_ns, mut needs_descriptor) = (0, false);
        let found = self.jobs.take(turn, (pool, Search::Ahead), 1, |candidate| {
            // A task behind one of another user would be one worker more for its own user, once it is the first.
            let uid = candidate.uid();
            let is_one_more = workers.is_bounded(pool, uid) && !worker.ring().is_all_of(uid);
            let is_short = short && candidate.needs_any_descriptor() || !has_room(ledger, turn, candidate);
            // A busy worker would leave descriptors in its lane, where they count for nobody.
            let has_all =
                |named: &NamedRegistrations| clients.has_lent(id, named.all.iter().map(|(one, _)| *one));
            let is_unsent = candidate.named().is_some_and(|named| !has_all(named));
            if is_one_more || is_short || is_unsent || candidate.has_expired(turn) {
                return TakeChoice::Skip;
            }
            if !workers.may_serve(worker, uid) {
                // A spare is ready for it, and takes the place of the first worker that becomes idle.
                let waits = workers.pool(pool).has_spare() && !may_overtake;
                return if waits { TakeChoice::Stop } else { TakeChoice::Skip };
            }
            let (flavour, is_for_itself) = (candidate.flavour(), candidate.is_for_itself());
            match workers.fits_ahead(worker, flavour, is_for_itself) {
                Fit::Now => {
                    needs_descriptor = candidate.needs_descriptor();
                    cost_ns = workers.cost_ns(flavour, is_for_itself);
                    TakeChoice::Take
                }
                Fit::NeverAhead if !may_overtake => TakeChoice::Stop,
                Fit::NeverAhead | Fit::NoRoom => TakeChoice::Skip,
            }
        });
        let Some(run) = found else { return false };
        self.offer(id, Taken { run, cost_ns, needs_descriptor });
        true
    }

    /// Lowers the prefetch depth of a pool for a while if this client's only job there was offered while others wait.
    fn cap_depth(&mut self, pool: PoolId, uid: u32, client: ClientId) {
        if self.workers.client_changes(pool, client)
            && self.jobs.queued_in(pool) > 0
            && !self.jobs.has_queued(pool, uid, client)
        {
            self.workers.cap_depth(&self.turn, pool);
        }
    }

    /// Offers a task to a worker that gets no other one beside it.
    pub(super) fn offer_alone(&mut self, id: WorkerId, run: TaskRun) {
        let needs_descriptor = self.jobs.needs_descriptor(run);
        self.offer(id, Taken { run, cost_ns: ALONE_NS, needs_descriptor });
    }

    /// Offers one task to a worker.
    fn offer(&mut self, id: WorkerId, Taken { run, cost_ns, needs_descriptor }: Taken) {
        let seq = self.workers.next_seq(id).expect("a task is handed to a worker that is there");
        // Most tasks need none.
        let grant = needs_descriptor.then(|| self.grant_for(run));
        let grant = grant.map(|grant| grant.expect("a task was taken that has room"));
        let begun = self.jobs.start(&mut self.turn, run, (id, seq), grant.as_ref());
        let StartedAttempt { mut task, mut ticket, limits, uid, client, pool } = begun;
        let grace_ms = task.grace_ms;
        if !task.files.is_empty()
            && let Some(named) = self.jobs.named_by(ticket)
        {
            self.clients.lend_registrations(id, named.all.iter().map(|(registration, _)| *registration));
        }
        if task.output == OutputMode::Arena && !self.takes_arenas(ticket.account()) {
            task.output = OutputMode::Auto;
        }
        if grant.is_none() {
            ticket = self.reserve_output(run, ticket, &mut task);
        }
        let offer = NewOffer {
            ticket,
            number: run.first(),
            count: run.count(),
            shown: task.job,
            uid,
            fence: task.fence,
            cost_ns,
            timeout_ms: limits.timeout_ms,
            grace_ms,
        };
        if self.workers.offer_to(&mut self.turn, id, offer, limits) {
            self.watch_head(id);
            self.tell_held(pool);
            self.jobs.begin_progress(&mut self.turn, run);
        }
        self.cap_depth(pool, uid, client);
        let has_log = grant.is_some_and(|grant| grant.has_log());
        if has_log {
            task.files.extend(self.jobs.begin_log(&mut self.turn, run));
        }
        if grant.is_some() {
            // The next candidate is judged by what is left.
            self.post_charges();
        }
        self.turn.act(Action::Offer { worker: id, seq, task });
        if has_log {
            self.show_log(run);
        }
    }
}
