//! The end of a job: its one outcome, and its removal from the table.
//!
//! [`Jobs::end`] enters the state `ended` once; the table in `state.rs` has no second way. An offer of the job that
//! is still with a worker stays there until it is settled, and what it brings is dropped. `machine/end.rs` drives
//! this file; `announce.rs`, `kept.rs` and `retry.rs` say what follows an end.

use bulkhead_proto::client::outcome::{JobEnded, JobOutput, Outcome};
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::why::{Canceller, Part};
use bulkhead_proto::ids::OutputId;
use bulkhead_proto::job::Payload;

use crate::event::Leftover;
use crate::job::batches::batch_gone;
use crate::job::entry::{Job, RareFields};
use crate::job::list::Key;
use crate::job::run::TaskRun;
use crate::job::state::{EntryState, Phase};
use crate::job::table::RemovedJob;
use crate::job::{EndNotice, Jobs, Released, Untold};
use crate::turn::{Alarm, Owner, Turn};

/// What ended a job, other than its own task.
pub(crate) enum EndedBy {
    /// Its own task, or the daemon.
    Itself,
    /// One of its parts.
    Part(Part),
    /// A user who cancelled it, or a client that vanished.
    Canceller(Canceller),
    /// The end of the daemon, after which the journal has the job unfinished: no end is counted, recorded or stored.
    PutOff,
}

impl Jobs {
    /// Ends a job that has not ended and has no parts any more; returns the clients to be told. [`Jobs::announced`]
    /// must follow in the same call.
    ///
    /// # Panics
    /// If it is a part, has parts, or has ended.
    pub(crate) fn end(
        &mut self,
        turn: &mut Turn,
        run: TaskRun,
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
        let is_put_off = matches!(ended_by, EndedBy::PutOff);
        let (part, by) = match ended_by {
            EndedBy::Itself | EndedBy::PutOff => (None, None),
            EndedBy::Part(part) => (Some(part), None),
            EndedBy::Canceller(by) => (None, Some(by)),
        };
        if !is_put_off {
            turn.count_end(&outcome, 1);
            self.record_end(turn, key, &outcome, by);
            self.end_fact(turn, key, (&outcome, &left), by);
        }
        let job = &mut self.table[key];
        // A done job is never run again, so its input is not kept.
        if outcome == Outcome::Done {
            job.input = Payload::default();
        }
        // The machine recalls or kills the offer; here it is only noted.
        let holder = match job.state {
            EntryState::Running { worker, seq, .. } => Some((worker, seq)),
            EntryState::Queued
            | EntryState::Waiting { .. }
            | EntryState::Solo
            | EntryState::Parted
            | EntryState::Ended(_) => None,
        };
        let (at_us, at_ns) = (turn.wall_us(), turn.now_ns());
        let mut end = self.spare_ends.take();
        (end.outcome, end.left) = (outcome, left);
        (end.at_us, end.at_ns, end.holder) = (at_us, at_ns, holder);
        (end.part, end.by) = (part, by);
        let attachments = job.attachments();
        end.frees_block = is_reported(&end.outcome) && self.attachments.note_told_by_end(attachments);
        self.table.enter(key, EntryState::Ended(end));
        let job = &mut self.table[key];
        let take = |rare: &mut Box<RareFields>| {
            (std::mem::take(&mut rare.waiters), std::mem::take(&mut rare.followers))
        };
        let (waiters, followers) = job.rare.as_mut().map(take).unwrap_or_default();
        self.release(turn, attachments);
        let batch = self.table.batch(key);
        EndNotice { waiters, attached: batch.attached.then_some((batch.client, batch.tag)), followers }
    }

    /// Removes an ended job, and drops its held output and its log.
    ///
    /// # Panics
    /// If it has not ended.
    pub(crate) fn forget(&mut self, turn: &mut Turn, run: TaskRun) -> Released {
        let key = self.table.open(run);
        let untold = self.stop_keeping(key);
        let job = &self.table[key];
        let (output, id) = (job.held(), job.id);
        if job.end().is_some_and(|end| end.frees_block) {
            let client = self.table.batch(key).client;
            self.note_reported_untold(client, id);
        }
        let released = self.leave_table(turn, key, untold);
        if let Some(output) = output {
            self.drop_output(turn, output);
        }
        released
    }

    /// Removes an ended job and returns its end. The caller sends the held output and then drops it.
    ///
    /// # Panics
    /// If it has not ended.
    pub(crate) fn take_end(
        &mut self,
        turn: &mut Turn,
        run: TaskRun,
    ) -> (JobEnded, Option<OutputId>, Released) {
        let key = self.table.open(run);
        let untold = self.stop_keeping(key);
        let output = self.table[key].held();
        let ended = take_out_end(&mut self.table[key]);
        (ended, output, self.leave_table(turn, key, untold))
    }

    /// Removes a job that has left its retention, which is counted by what the job still holds.
    fn leave_table(&mut self, turn: &mut Turn, key: Key, untold: Option<Untold>) -> Released {
        self.drop_log(turn, key);
        if self.table.batch(key).durable {
            self.left_early.note(turn, self.table[key].id);
        }
        let RemovedJob { job, holder, gone } = self.table.remove(key);
        if let EntryState::Ended(end) = job.state {
            self.spare_ends.give_back(end);
        }
        Released { untold, batch: batch_gone(turn, gone), held_by: holder }
    }

    /// A copy of the end of a job that stays, and its held output.
    pub(crate) fn copy_end(&self, run: TaskRun) -> (JobEnded, Option<OutputId>) {
        let job = self.job(run);
        let (outcome, output) = match job.end() {
            None => (Outcome::Lost { reason: String::new() }, JobOutput::None),
            Some(end) => {
                let output = match &end.left {
                    Leftover::Nothing => end.gone.map_or(JobOutput::None, JobOutput::Gone),
                    Leftover::Inline(payload) => JobOutput::Inline(payload.clone()),
                    Leftover::Held { bytes, .. } => JobOutput::Descriptor { bytes: *bytes },
                };
                (end.outcome.clone(), output)
            }
        };
        let survivors = job.survivors().to_vec();
        (JobEnded { job: job.id, outcome, output, attempts: job.attempts, survivors }, job.held())
    }

    /// Records an end that somebody may look for. Jobs that are done without trouble leave no record, and jobs that never
    /// began are recorded together (`unbegun.rs`): a flood of them would push the others out of the ring.
    fn record_end(&mut self, turn: &mut Turn, key: Key, outcome: &Outcome, by: Option<Canceller>) {
        let job = &self.table[key];
        let died = job.rare.as_ref().is_some_and(|rare| !rare.deaths.is_empty());
        let troubled = job.alone || job.retries > 0 || job.lost_ns().is_some() || died;
        if !troubled && (*outcome == Outcome::Done || job.attempts == 0) {
            return self.unbegun.note(self.table.batch(key).uid, job.id, outcome, by);
        }
        let after_us = match job.state {
            EntryState::Running { since_ns, .. } => (turn.now_ns() - since_ns) / 1000,
            EntryState::Queued
            | EntryState::Waiting { .. }
            | EntryState::Solo
            | EntryState::Parted
            | EntryState::Ended(_) => 0,
        };
        let what = What::Ended { job: job.id, outcome: outcome.clone(), attempts: job.attempts, after_us };
        turn.record(what, Owner::User(self.table.batch(key).uid));
    }

    /// Takes a task out of its list, or cancels its backoff, before it ends or is removed.
    pub(super) fn leave_list(&mut self, turn: &mut Turn, key: Key) {
        let id = self.table[key].id;
        match self.table[key].state.phase() {
            Phase::Queued => self.queues.unlink(&mut self.table, key),
            Phase::Solo => self.queues.unlink_solo(&mut self.table, key),
            Phase::Waiting => {
                if let EntryState::Waiting { alarm } = &mut self.table[key].state {
                    turn.cancel(alarm, Alarm::Backoff(id));
                }
            }
            Phase::Running | Phase::Parted | Phase::Ended => {}
        }
    }
}

/// Whether this is the end of a task that its worker has reported: no worker can read its input any more.
fn is_reported(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done | Outcome::Failed { .. })
}

/// Takes the end out of a job that is removed from the table next.
fn take_out_end(job: &mut Job) -> JobEnded {
    let survivors = job.rare.as_mut().map(|rare| std::mem::take(&mut rare.survivors)).unwrap_or_default();
    let (id, attempts) = (job.id, job.attempts);
    let end = job.end_mut().expect("only ended jobs leave the table");
    let output = match std::mem::replace(&mut end.left, Leftover::Nothing) {
        Leftover::Nothing => end.gone.map_or(JobOutput::None, JobOutput::Gone),
        Leftover::Inline(payload) => JobOutput::Inline(payload),
        Leftover::Held { bytes, .. } => JobOutput::Descriptor { bytes },
    };
    let outcome = std::mem::replace(&mut end.outcome, Outcome::Done);
    JobEnded { job: id, outcome, output, attempts, survivors }
}
