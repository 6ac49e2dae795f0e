//! The end of a job: one outcome, and what becomes of it until it is forgotten or run again.
//!
//! The table of states lets nothing end twice. What a worker still holds of an ended job is settled later and counts no
//! more. Who is told of an end, and in which order, is `machine/end.rs`'s.

use bulkhead_proto::client::outcome::{Ended, Outcome, Output};
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::why::{Canceller, Part};
use bulkhead_proto::ids::{ClientId, Fence, JobId, OutputId, Tag};
use bulkhead_proto::job::Payload;

use crate::action::Action;
use crate::event::Leftover;
use crate::job::batch::Batch;
use crate::job::entry::Job;
use crate::job::list::Key;
use crate::job::run::Run;
use crate::job::state::{End, Phase, Retention, State, TaskKind};
use crate::job::{BatchGone, EndNotice, Jobs, Released, Untold};
use crate::turn::{Alarm, Turn, count_down};

/// How a job ends, and by whom, if not by itself.
pub(crate) enum EndedBy {
    /// Itself, or the daemon.
    Itself,
    /// One of its parts.
    Part(Part),
    /// Somebody who took it back.
    Canceller(Canceller),
}

impl Jobs {
    /// Ends a job that has not ended and has no parts any more. An offer of it that is still with a worker stays there
    /// until it is settled; nothing that it brings counts any more. [`Jobs::announced`] is next.
    ///
    /// # Panics
    /// If it is a part, has parts, or has ended.
    pub(crate) fn end(
        &mut self,
        turn: &mut Turn,
        run: Run,
        outcome: Outcome,
        left: Leftover,
        ended_by: EndedBy,
    ) -> EndNotice {
        let key = self.table.open(run);
        assert!(
            !run.is_part() && self.table[key].part_set().is_none(),
            "job {} ends after its parts",
            run.first()
        );
        self.leave_list(turn, key);
        self.end_progress(turn, run.first());
        turn.count_end(&outcome, 1);
        self.record_end(turn, key, &outcome);
        let (part, by) = match ended_by {
            EndedBy::Itself => (None, None),
            EndedBy::Part(part) => (Some(part), None),
            EndedBy::Canceller(by) => (None, Some(by)),
        };
        let job = &mut self.table[key];
        // It will not run again, as only `done` jobs cannot be retried: the input is not kept any longer.
        if outcome == Outcome::Done {
            job.input = Payload::default();
        }
        // Who runs it is noted, not stopped: a timeout or cancel kills, a result has ended it already.
        let holder = match job.state {
            State::Running { worker, seq, .. } => Some((worker, seq)),
            State::Queued | State::Waiting { .. } | State::Solo | State::Parted | State::Ended(_) => None,
        };
        let (at_us, at_ns) = (turn.wall_us(), turn.now_ns());
        let end = End {
            outcome,
            left,
            at_us,
            at_ns,
            holder,
            part,
            by,
            untold: 0,
            retention: Retention::Unannounced,
        };
        self.table.enter(key, State::Ended(Box::new(end)));
        let job = &mut self.table[key];
        let attachments = job.attachments();
        let waiters = job.rare.as_mut().map(|rare| std::mem::take(&mut rare.waiters)).unwrap_or_default();
        self.release(turn, attachments);
        let batch = self.table.batch(key);
        EndNotice { waiters, attached: batch.attached.then_some((batch.client, batch.tag)) }
    }

    /// So many clients are to be told of an end that was just given. An attached end is its client's, and is never
    /// dropped for others': gives what it weighs. Any other competes for the retention.
    ///
    /// # Panics
    /// If it has not ended, was announced, or is attached and nobody is to be told.
    pub(crate) fn announced(&mut self, run: Run, clients: u32) -> Option<Untold> {
        let key = self.table.open(run);
        let end = self.table[key].end_mut().expect("what is announced has ended");
        assert_eq!(end.retention, Retention::Unannounced, "job {} is announced once", run.first());
        end.untold = clients;
        if !self.table.batch(key).attached {
            self.keep_ended(key);
            return None;
        }
        assert!(clients > 0, "the client of attached job {} is to be told of its end", run.first());
        self.mark_untold(key);
        let untold = self.weigh_untold(key);
        self.kept.add_untold(untold.bytes);
        Some(untold)
    }

    fn mark_untold(&mut self, key: Key) {
        if let Some(end) = self.table[key].end_mut() {
            end.retention = Retention::Untold;
        }
    }

    /// What the end of a job weighs that its client was not told.
    pub(super) fn weigh_untold(&self, key: Key) -> Untold {
        let job = &self.table[key];
        let is_held = job.end().is_some_and(|end| matches!(end.left, Leftover::Held { .. }));
        Untold { client: self.table.batch(key).client, bytes: job.kept_bytes(), outputs: u64::from(is_held) }
    }

    /// One more client is to be told of an end.
    ///
    /// # Panics
    /// If the job has not ended, or its end was not announced.
    pub(crate) fn tell_one_more(&mut self, run: Run) {
        let key = self.table.open(run);
        let end = self.table[key].end_mut().expect("its end is there to be told");
        assert_ne!(
            end.retention,
            Retention::Unannounced,
            "the end of job {} is announced first",
            run.first()
        );
        end.untold += 1;
    }

    /// A client waits for the end of a job that has not ended. `is_there` says which clients still are: others are
    /// dropped from the list now and then, so that it stays as long as its living.
    ///
    /// # Panics
    /// If the job has ended, or is a part.
    pub(crate) fn add_waiter(
        &mut self,
        run: Run,
        waiter: (ClientId, Tag),
        is_there: impl Fn(ClientId) -> bool,
    ) {
        let key = self.table.open(run);
        self.assert_may_be_waited_for(key);
        let waiters = &mut self.table[key].rare_mut().waiters;
        waiters.push(waiter);
        if waiters.len() >= 8 && waiters.len().is_power_of_two() {
            waiters.retain(|(waiter, _)| is_there(*waiter));
        }
    }

    /// A client that was to be told of an end waits for the next one: the job was asked to run again meanwhile.
    ///
    /// # Panics
    /// If the job has ended, or is a part.
    pub(crate) fn wait_again(&mut self, run: Run, waiter: (ClientId, Tag)) {
        let key = self.table.open(run);
        self.assert_may_be_waited_for(key);
        self.table[key].rare_mut().waiters.push(waiter);
    }

    fn assert_may_be_waited_for(&self, key: Key) {
        let job = &self.table[key];
        assert!(job.end().is_none() && !job.is_part(), "job {} is a job that has not ended", job.id);
    }

    /// A client was told of the end of this job, or is gone: when all were, a done one that was attached is forgotten and
    /// any other is kept.
    ///
    /// # Panics
    /// If an attached end is told more often than it was announced.
    pub(crate) fn told(&mut self, turn: &mut Turn, number: JobId) -> Released {
        let Some(key) = self.table.find(number) else { return Released::default() };
        let Some(end) = self.table[key].end_mut() else { return Released::default() };
        if end.retention != Retention::Untold {
            // Letters of an earlier end are counted too, if the job was asked to run again before they were read.
            end.untold = end.untold.saturating_sub(1);
            return Released::default();
        }
        count_down(&mut end.untold, 1, "clients to be told of an end");
        if end.untold > 0 {
            return Released::default();
        }
        let is_done = end.outcome == Outcome::Done;
        if is_done && self.table.batch(key).attached {
            self.forget(turn, self.table.run(key))
        } else {
            let untold = self.stop_keeping(key);
            self.keep_ended(key);
            Released { untold, batch: None }
        }
    }

    /// Whether nobody will ask for this job again once this client, which submitted it attached, has its end.
    pub(crate) fn is_last_word(&self, run: Run, client: ClientId) -> bool {
        let batch = self.batch(run);
        let is_last =
            |end: &End| end.untold == 1 && end.retention == Retention::Untold && end.outcome == Outcome::Done;
        batch.attached && batch.client == client && self.job(run).end().is_some_and(is_last)
    }

    /// Removes an ended job from everywhere.
    ///
    /// # Panics
    /// If it has not ended.
    pub(crate) fn forget(&mut self, turn: &mut Turn, run: Run) -> Released {
        let (job, released) = self.leave_table(turn, run);
        if let Some(output) = job.held() {
            turn.act(Action::DropOutput { output });
        }
        if let Some(log) = job.log() {
            self.logs.forget(turn, log);
        }
        released
    }

    /// Removes an ended job and moves its end out of it. A held output stays with the caller, who drops it once it was
    /// sent.
    ///
    /// # Panics
    /// If it has not ended.
    pub(crate) fn take_end(&mut self, turn: &mut Turn, run: Run) -> (Ended, Option<OutputId>, Released) {
        let (job, released) = self.leave_table(turn, run);
        if let Some(log) = job.log() {
            self.logs.forget(turn, log);
        }
        let output = job.held();
        (ended_of(job), output, released)
    }

    fn leave_table(&mut self, turn: &mut Turn, run: Run) -> (Job, Released) {
        let key = self.table.open(run);
        // From its shelf first, while it still can be asked what it holds there.
        let untold = self.stop_keeping(key);
        let (job, gone) = self.table.remove(key);
        let batch = batch_gone(turn, gone);
        (job, Released { untold, batch })
    }

    /// The end of a job that stays, copied, and the output that is held for it.
    pub(crate) fn copy_end(&self, run: Run) -> (Ended, Option<OutputId>) {
        let job = self.job(run);
        let (outcome, output) = match job.end() {
            None => (Outcome::Lost { reason: String::new() }, Output::None),
            Some(end) => {
                let output = match &end.left {
                    Leftover::Nothing => Output::None,
                    Leftover::Inline(payload) => Output::Inline(payload.clone()),
                    Leftover::Held { bytes, .. } => Output::Descriptor { bytes: *bytes },
                };
                (end.outcome.clone(), output)
            }
        };
        (Ended { job: job.id, outcome, output, attempts: job.attempts }, job.held())
    }

    /// Puts an ended job back into the queue, with fresh budgets and detached from the client that submitted it.
    ///
    /// # Panics
    /// If it has not ended, is done, has files of a client, which were let go at its end, or if a worker still holds an
    /// offer of it that carries attachments.
    pub(crate) fn retry(&mut self, turn: &mut Turn, run: Run) -> Released {
        let key = self.table.open(run);
        let (uid, job) = (self.table.batch(key).uid, &self.table[key]);
        let outcome = job.end().map(|end| end.outcome.clone()).expect("only an ended job is run again");
        assert!(outcome != Outcome::Done && !job.has_files(), "job {} can be run again", job.id);
        assert!(!self.are_attachments_held(run), "the attachments of job {} were let go", run.first());
        turn.record(What::RetryAsked { job: job.id }, Some(uid));
        // Each accepted job counts once, by the outcome that it has in the end.
        turn.uncount_end(&outcome, 1);
        let untold = self.stop_keeping(key);
        if let Some(output) = self.table[key].held() {
            turn.act(Action::DropOutput { output });
        }
        // `alone` stays: what killed its workers before may do so again, whatever its budget says now.
        let batch = self.rebatch_for_retry(turn, key);
        let job = &mut self.table[key];
        job.crashes = 0;
        job.retries = 0;
        if job.task_kind == TaskKind::Merge {
            job.task_kind = TaskKind::Plan;
        }
        // Its attempts are those of whichever of its tasks took most, and each is an offer.
        job.fence = Fence(job.fence.0.max(job.attempts));
        let rare = job.rare_mut();
        rare.asked += 1;
        rare.attachments = None;
        self.wait_behind(key);
        Released { untold, batch }
    }

    /// Gives a job that is to run again a batch of its own: not attached, and as old as this moment.
    fn rebatch_for_retry(&mut self, turn: &mut Turn, key: Key) -> Option<BatchGone> {
        let (first, attempts) = (self.table[key].id, self.table[key].attempts);
        // The old batch's client is owed one end of it and no second one; ageing counts from now on.
        let mut batch = self.table.batch(key).copy();
        batch.first = first;
        batch.count = 1;
        batch.refs = 0;
        batch.attached = false;
        batch.watched = false;
        batch.since_ns = turn.now_ns();
        let expires_ms = batch.policy.expires_ms.filter(|_| attempts == 0);
        let place = self.table.open_batch(batch);
        let gone = self.table.rebatch(key, place);
        let gone = batch_gone(turn, gone);
        // Only now: the old batch may have set an equal alarm, for this very moment, which goes with it.
        if let Some(limit_ms) = expires_ms {
            let at_ns = turn.after_ms(limit_ms);
            let expiry = &mut self.table.batches[place as usize].expiry;
            turn.set(expiry, Alarm::Expiry(first, 1), at_ns);
        }
        gone
    }

    /// The jobs of a batch that have waited for their first attempt for too long.
    pub(crate) fn expired(&self, turn: &Turn, first: JobId, count: u32) -> Vec<Run> {
        let of_batch =
            (first.0..first.0 + u64::from(count)).filter_map(|number| self.table.find(JobId(number)));
        let is_over = |key: &Key| {
            let at_ns = self.table.batch(*key).expiry.at_ns();
            let job = &self.table[*key];
            at_ns.is_some_and(|at_ns| at_ns <= turn.now_ns())
                && job.never_began()
                && job.state.phase() == Phase::Queued
        };
        of_batch.filter(is_over).map(|key| self.table.run(key)).collect()
    }

    /// The client of an attached batch is gone: its jobs live on for a while, as if they were not attached.
    ///
    /// # Panics
    /// If no client keeps a note of such a batch, or if it was detached before.
    pub(crate) fn detach(&mut self, first: JobId, count: u32) {
        let key = self.watched_jobs(first, count).next();
        let key = key.expect("a batch that its client keeps a note of has a job");
        let batch = self.table[key].batch;
        let was_attached = std::mem::replace(&mut self.table.batches[batch as usize].attached, false);
        assert!(was_attached, "the batch of job {first} is detached once");
    }

    /// The jobs of a batch that a client kept a note of, and that have not ended. A job that somebody asked to run again
    /// since is not that client's any more: it has a batch of its own.
    pub(crate) fn of_watched_batch(&self, first: JobId, count: u32) -> Vec<Run> {
        let unended = self.watched_jobs(first, count).filter(|key| self.table[*key].end().is_none());
        unended.map(|key| self.table.run(key)).collect()
    }

    fn watched_jobs(&self, first: JobId, count: u32) -> impl Iterator<Item = Key> + '_ {
        let numbers = first.0..first.0 + u64::from(count);
        numbers.filter_map(|number| self.table.find(JobId(number))).filter(move |key| {
            let batch = self.table.batch(*key);
            batch.watched && batch.first == first
        })
    }

    /// Ordinary ends leave no record, nor do jobs that never began: a flood of them must not wash away what
    /// somebody looks for.
    fn record_end(&self, turn: &mut Turn, key: Key, outcome: &Outcome) {
        let job = &self.table[key];
        let died = job.rare.as_ref().is_some_and(|rare| !rare.deaths.is_empty());
        let troubled = job.alone || job.retries > 0 || job.lost_ns().is_some() || died;
        if !troubled && (*outcome == Outcome::Done || job.attempts == 0) {
            return;
        }
        let after_us = match job.state {
            State::Running { since_ns, .. } => (turn.now_ns() - since_ns) / 1000,
            State::Queued | State::Waiting { .. } | State::Solo | State::Parted | State::Ended(_) => 0,
        };
        let what = What::Ended { job: job.id, outcome: outcome.clone(), attempts: job.attempts, after_us };
        turn.record(what, Some(self.table.batch(key).uid));
    }

    /// Takes a task out of whatever it waits in, before it ends or goes.
    pub(super) fn leave_list(&mut self, turn: &mut Turn, key: Key) {
        let id = self.table[key].id;
        match self.table[key].state.phase() {
            Phase::Queued => self.queues.unlink(&mut self.table, key),
            Phase::Solo => self.queues.unlink_solo(&mut self.table, key),
            Phase::Waiting => {
                if let State::Waiting { alarm } = &mut self.table[key].state {
                    turn.cancel(alarm, Alarm::Backoff(id));
                }
            }
            Phase::Running | Phase::Parted | Phase::Ended => {}
        }
    }
}

/// The last job of a batch is gone, or left it: its expiry is over. Gives it if its client keeps a note of it.
fn batch_gone(turn: &mut Turn, gone: Option<Batch>) -> Option<BatchGone> {
    let mut batch = gone?;
    turn.cancel(&mut batch.expiry, Alarm::Expiry(batch.first, batch.count));
    batch.watched.then_some(BatchGone { client: batch.client, first: batch.first })
}

/// The end of a job that has left the table.
fn ended_of(job: Job) -> Ended {
    let State::Ended(end) = job.state else { unreachable!("only ended jobs leave the table") };
    let output = match end.left {
        Leftover::Nothing => Output::None,
        Leftover::Inline(payload) => Output::Inline(payload),
        Leftover::Held { bytes, .. } => Output::Descriptor { bytes },
    };
    Ended { job: job.id, outcome: end.outcome, output, attempts: job.attempts }
}
