//! The attempts of a task: from [`Jobs::start`], which offers it, to the method that ends the attempt.
//!
//! | method | from | to | list |
//! |---|---|---|---|
//! | `start` | queued, solo (taken out of their lists) | running | none |
//! | `requeue` | running | queued, solo (in front), running (has expired: `end` is next) | queue, solo |
//! | `back_off` | running | waiting | none, an alarm |
//! | `backoff_over` | waiting | queued, solo (charged before) | queue, solo |
//! | `charge` | running | solo, running (charged too often: `end` is next) | solo |
//!
//! Two budgets: `retries_max` failures that the job's own code reported, with backoff, and `crashes_max` deaths. An
//! attempt that is given back uncharged costs neither, and its task goes to the front of its list.

use bulkhead_facts::fact::AttemptEnd;
use bulkhead_proto::client::outcome::{Outcome, Survivor};
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::why::Part;
use bulkhead_proto::ids::{Fence, JobId, Seq, WorkerId};
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::limits::TEXT_MAX_BYTES;
use bulkhead_proto::worker::message::OutputRoom;
use bulkhead_proto::worker::stage::Stage;

use crate::action::Task;
use crate::event::Leftover;
use crate::job::list::Key;
use crate::job::run::{OutputDemand, TaskRun, Ticket};
use crate::job::state::{EntryState, Phase, TaskKind};
use crate::job::{Jobs, OfferRef, OutputGrant, ProvenDeath, StartedAttempt};
use crate::turn::{Alarm, AlarmSlot, Counter, Owner, TaskLimits, Turn, count_down, doubled};

impl Jobs {
    /// Begins an attempt: the task is offered to this worker as `seq`, with this room in memory if it needs some.
    /// [`Jobs::begin_log`] makes its log.
    ///
    /// # Panics
    /// If [`Jobs::take`] or [`Jobs::take_alone`] did not take it out of its list, or it runs already.
    pub(crate) fn start(
        &mut self,
        turn: &mut Turn,
        run: TaskRun,
        (worker, seq): (WorkerId, Seq),
        grant: Option<&OutputGrant>,
    ) -> StartedAttempt {
        let key = self.table.open(run);
        let now_ns = turn.now_ns();
        let (own, part) = self.task_of(key);
        let stage = self.stage_of(key);
        let input = self.table[own].input.clone();
        let shown = self.table[own].id;
        let job = &mut self.table[key];
        assert!(job.links.are_loose(), "job {} is taken before it is offered", job.id);
        job.fence = Fence(job.fence.0 + 1);
        job.attempts += 1;
        let (fence, attempt, alone, lost_ns) = (job.fence, job.attempts, job.alone, job.lost_ns());
        self.table.enter(key, EntryState::Running { worker, seq, since_ns: now_ns });
        let batch = self.table.batch(key);
        let (kind, uid, client, output) = (batch.kind, batch.uid, batch.client, batch.policy.output);
        let (pool, account) = (batch.pool, batch.account);
        let limits = TaskLimits::of(&batch.policy);
        let grace_ms = batch.policy.grace_ms.unwrap_or(0);
        if let Some(lost_ns) = lost_ns {
            turn.count(Counter::Retries, 1);
            let after_us = (now_ns - lost_ns) / 1000;
            turn.record(
                What::Retried { job: shown, part, attempt, worker, after_us, alone },
                Owner::User(uid),
            );
        }
        self.note_turn(key, now_ns);
        if let Some(grant) = grant {
            self.take_room(account, grant);
        }
        let (attachments, files, room) = self.attach(own, stage, grant);
        let room = (room != OutputRoom::NONE).then(|| Box::new(room));
        let task = Task {
            job: shown,
            fence,
            kind,
            memory_bytes: limits.memory_bytes,
            grace_ms,
            output: output_of(stage, output),
            room,
            stage,
            files,
            input,
        };
        let (granted, has_log) = grant.map_or((0, false), |grant| (grant.offer_bytes, grant.has_log));
        let demand = match task.output {
            OutputMode::Auto | OutputMode::Arena => OutputDemand::Open,
            OutputMode::Inline | OutputMode::Descriptor | OutputMode::File => OutputDemand::Never,
        };
        let ticket = Ticket { handle: run.handle, attachments, account, granted, has_log, demand };
        StartedAttempt { task, ticket, limits, uid, client, pool }
    }

    /// Which task of its job this is, in the terms of the worker protocol.
    fn stage_of(&self, key: Key) -> Stage {
        match self.table[key].task_kind {
            TaskKind::Whole => Stage::Whole,
            TaskKind::Plan => Stage::Plan,
            TaskKind::Run => match self.task_of(key).1 {
                Some(Part { number, parts }) => Stage::Run { part: number - 1, parts },
                None => Stage::Whole,
            },
            TaskKind::Merge => {
                Stage::Merge { parts: self.part_set_of(key).map_or(0, |part_set| part_set.parts) }
            }
        }
    }

    /// The run of an offer, if the offer is the run's current one: the run has not ended and was not offered again.
    pub(crate) fn current(&self, offer: &OfferRef) -> Option<TaskRun> {
        let run = self.there(offer.ticket, offer.number, offer.count)?;
        let job = self.job(run);
        let is_with_it = matches!(job.state, EntryState::Running { worker, seq, .. } if worker == offer.worker && seq == offer.seq);
        (job.fence == offer.fence && is_with_it).then_some(run)
    }

    /// Puts a run whose offer came back uncharged at the front of its list. If it had begun, the attempt counts as
    /// lost; if not, it does not count as an attempt. `false`: it has expired meanwhile, and the caller ends it so.
    ///
    /// # Panics
    /// If it does not run.
    pub(crate) fn requeue(&mut self, turn: &mut Turn, run: TaskRun, begun: bool) -> bool {
        let key = self.table.open(run);
        let now_ns = turn.now_ns();
        let expires_ns = self.table.batch(key).expiry.at_ns();
        let job = &mut self.table[key];
        assert_eq!(job.state.phase(), Phase::Running, "job {} is given back by a worker", job.id);
        self.give_back_plan_room(turn, key);
        let job = &mut self.table[key];
        if begun {
            let rare = job.rare_mut();
            rare.lost_ns = Some(now_ns);
            rare.lost += 1;
            self.attempt_fact(turn, key, AttemptEnd::Lost, None);
        } else {
            // `start` counted the offer as an attempt; nothing of it ran.
            count_down(&mut job.attempts, 1, "attempts of a job");
            self.drop_log(turn, key);
        }
        let job = &self.table[key];
        // Its expiry alarm skips jobs that run, and does not go off again.
        if job.never_began() && expires_ns.is_some_and(|expires_ns| expires_ns <= now_ns) {
            return false;
        }
        if job.alone {
            self.table.enter(key, EntryState::Solo);
            self.queues.push_front_solo(&mut self.table, key);
        } else {
            self.table.enter(key, EntryState::Queued);
            // To the front: it had its turn, and lost it through no fault of its own.
            self.queues.push_front(&mut self.table, key);
        }
        true
    }

    /// Whether the policy of a run allows one more retry after a failure that its own code reported. An attempt whose
    /// processes live on is not repeated beside them.
    pub(crate) fn may_retry(&self, run: TaskRun) -> bool {
        let (own, _) = self.task_of(self.table.open(run));
        let is_over = self.table[own].survivors().is_empty();
        is_over && self.job(run).retries < self.batch(run).policy.retry_budget()
    }

    /// Keeps the processes of an attempt that could not be ended with its job, unless the job runs again already. `shown` is
    /// the job that clients know.
    pub(crate) fn keep_survivors(&mut self, offer: &OfferRef, shown: JobId, survivors: Vec<Survivor>) {
        let Some(run) = self.there(offer.ticket, offer.number, offer.count) else { return };
        let key = self.table.open(run);
        if self.table[key].fence == offer.fence
            && let Some(own) = self.table.find(shown)
        {
            self.table[own].rare_mut().survivors = survivors;
        }
    }

    /// Lets a run whose own code reported a failure wait for its backoff; the output of the failed attempt is
    /// dropped.
    ///
    /// # Panics
    /// If it has no retry left, or does not run.
    pub(crate) fn back_off(&mut self, turn: &mut Turn, run: TaskRun, message: String, left: Leftover) {
        assert!(self.may_retry(run), "job {} has no retry left", run.first());
        let key = self.table.open(run);
        self.give_back_plan_room(turn, key);
        if let Leftover::Held { output, .. } = left {
            self.drop_output(turn, output);
        }
        self.attempt_fact(turn, key, AttemptEnd::Failed, Some(&message));
        // Jitter keeps jobs that failed together from coming back together.
        let (first_ms, most_ms) = (turn.config().backoff_min_ms, turn.config().backoff_max_ms);
        let span = doubled(first_ms, u32::from(self.table[key].retries), most_ms);
        let retry_after_ms = turn.jitter(span);
        let mut alarm = AlarmSlot::default();
        turn.set(&mut alarm, Alarm::Backoff(run.first()), turn.after_ms(retry_after_ms));
        self.table.enter(key, EntryState::Waiting { alarm });
        let job = &mut self.table[key];
        job.retries += 1;
        job.rare_mut().lost_ns = Some(turn.now_ns());
        let attempt = job.attempts;
        let uid = self.table.batch(key).uid;
        let (own, part) = self.task_of(key);
        let job = self.table[own].id;
        turn.record(What::Backoff { job, part, attempt, message, retry_after_ms }, Owner::User(uid));
    }

    /// The alarm of a backoff went off. The task may have been cancelled or forgotten earlier in this turn.
    pub(crate) fn backoff_over(&mut self, number: JobId) {
        let Some(key) = self.table.find(number) else { return };
        if self.table[key].state.phase() != Phase::Waiting {
            return;
        }
        self.wait_behind(key);
    }

    /// Queues a task at the back: of the solo list if a death was charged to it, else of its pool's queue.
    pub(super) fn wait_behind(&mut self, key: Key) {
        if self.table[key].alone {
            self.table.enter(key, EntryState::Solo);
            self.queues.push_back_solo(&mut self.table, key);
        } else {
            self.table.enter(key, EntryState::Queued);
            self.queues.push_back(&mut self.table, key);
        }
    }

    /// Charges a death to the run whose attempt it ended. From now on the run is tried alone in fresh workers. If its
    /// budget of crashes is used up, it stays in its state and its outcome is returned: the caller ends it.
    ///
    /// # Panics
    /// If it does not run, or its budget was used up before.
    pub(crate) fn charge(
        &mut self,
        turn: &mut Turn,
        run: TaskRun,
        dead: &ProvenDeath<'_>,
    ) -> Option<Outcome> {
        let key = self.table.open(run);
        self.give_back_plan_room(turn, key);
        let batch = self.table.batch(key);
        let (crashes_max, uid) = (batch.policy.crash_budget(), batch.uid);
        let job = &mut self.table[key];
        assert_eq!(job.state.phase(), Phase::Running, "job {} was with the dead worker", job.id);
        assert!(job.crashes < crashes_max.max(1), "job {} has a crash left to be charged", job.id);
        job.crashes += 1;
        job.alone = true;
        let (attempt, crashes) = (job.attempts, job.crashes);
        job.rare_mut().lost_ns = Some(turn.now_ns());
        let (own, part) = self.task_of(key);
        self.keep_death(turn, (own, part, attempt), dead, true);
        self.attempt_fact(turn, key, AttemptEnd::Charged, None);
        let job = self.table[own].id;
        turn.record(
            What::Blamed { job, part, attempt, worker: dead.worker, crashes, crashes_max },
            Owner::User(uid),
        );
        if crashes >= crashes_max {
            return Some(Outcome::Crashed { crashes, last: dead.death.to_string() });
        }
        self.wait_behind(key);
        None
    }
}

/// Where the output of a task goes: a plan into a descriptor, the result of a part inline to the merge.
fn output_of(stage: Stage, wanted: OutputMode) -> OutputMode {
    match stage {
        Stage::Whole => wanted,
        Stage::Merge { .. } if wanted == OutputMode::Arena => OutputMode::Auto,
        Stage::Merge { .. } => wanted,
        Stage::Plan => OutputMode::Descriptor,
        Stage::Run { .. } => OutputMode::Inline,
    }
}

/// Cuts a text of a worker to `TEXT_MAX_BYTES`, between two characters.
pub(crate) fn truncate(text: &mut String) {
    let mut end = text.len().min(TEXT_MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}
