//! Progress subscriptions: how far attached jobs are, for clients that asked to be told.
//!
//! While such a job runs it is looked at every [`EVERY_MS`], and its client is told when it has moved and has credit: a
//! job in parts counts the parts that are done, any other is as far as its worker says. Within an attempt it never goes
//! back. Nobody is looked at and no alarm is set for jobs that nobody asked about.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bulkhead_proto::client::evidence::Progress;
use bulkhead_proto::ids::{ClientId, Fence, JobId, Tag, WorkerId};

use crate::job::Jobs;
use crate::job::run::Run;
use crate::job::state::{Phase, State, TaskKind};
use crate::turn::{Alarm, AlarmSlot, Turn};

/// How often a job is looked at, and so told of at most, in milliseconds.
const EVERY_MS: u64 = 200;

/// One job that its client wants to be told of, and that runs.
#[derive(Debug)]
struct Subscription {
    alarm: AlarmSlot,
    /// What was told last, and of which attempt.
    told: Option<(Fence, Progress)>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    map: BTreeMap<JobId, Subscription>,
}

/// How far a job is can be found out so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProgressLook {
    /// It does not run now, or nobody is there to be told.
    Over,
    /// By its parts.
    Parts(Run, Fence, Progress),
    /// By examining the worker that runs it, if it has no other offer.
    Worker(WorkerId),
    /// Not by itself: it is one task of several.
    Unknown,
}

impl Jobs {
    /// A job begins to run, or its parts do: it is looked at from now on, if its client asked for that.
    ///
    /// # Panics
    /// If it does not run.
    pub(crate) fn begin_progress(&mut self, turn: &mut Turn, run: Run) {
        let batch = self.batch(run);
        if !(batch.progress && batch.attached) {
            return;
        }
        let job = run.first();
        let phase = self.job(run).state.phase();
        assert!(matches!(phase, Phase::Running | Phase::Parted), "job {job} runs when its progress begins");
        if let Entry::Vacant(place) = self.progress.map.entry(job) {
            let mut alarm = AlarmSlot::default();
            turn.set(&mut alarm, Alarm::Progress(job), turn.after_ms(EVERY_MS));
            place.insert(Subscription { alarm, told: None });
        }
    }

    /// A job has ended.
    pub(super) fn end_progress(&mut self, turn: &mut Turn, job: JobId) {
        if let Some(mut subscription) = self.progress.map.remove(&job) {
            turn.cancel(&mut subscription.alarm, Alarm::Progress(job));
        }
    }

    /// It is time to look at a job: gives how. While it runs and its client is there, it is time again in a while.
    ///
    /// # Panics
    /// If no client subscribed to it: its alarm goes with the subscription.
    pub(crate) fn progress_due(&mut self, turn: &mut Turn, job: JobId) -> ProgressLook {
        let look = self.progress_look(job);
        let Entry::Occupied(mut subscription) = self.progress.map.entry(job) else {
            panic!("job {job} has a progress subscription when it is looked at");
        };
        if look == ProgressLook::Over {
            subscription.remove();
        } else {
            let alarm = &mut subscription.get_mut().alarm;
            turn.set(alarm, Alarm::Progress(job), turn.after_ms(EVERY_MS));
        }
        look
    }

    fn progress_look(&self, job: JobId) -> ProgressLook {
        let Some(run) = self.find(job).filter(|run| self.batch(*run).attached) else {
            return ProgressLook::Over;
        };
        let entry = self.job(run);
        if let Some(parts) = self.parts_of(run) {
            let progress = Progress { done: parts.done.into(), total: parts.total.into() };
            return ProgressLook::Parts(run, entry.fence, progress);
        }
        match entry.state {
            State::Running { worker, .. } if entry.task_kind == TaskKind::Whole => {
                ProgressLook::Worker(worker)
            }
            State::Running { .. } => ProgressLook::Unknown,
            State::Queued | State::Waiting { .. } | State::Solo | State::Parted | State::Ended(_) => {
                ProgressLook::Over
            }
        }
    }

    /// Whether any client wants to be told of a job that runs.
    pub(crate) fn has_subscriptions(&self) -> bool {
        !self.progress.map.is_empty()
    }

    /// Whether what a worker says of a task is how far its job is.
    pub(crate) fn is_whole(&self, run: Run) -> bool {
        self.job(run).task_kind == TaskKind::Whole
    }

    /// Who is to be told that a job is so far, and in which words, if that is further than what was told of this attempt.
    pub(crate) fn progress_news(
        &self,
        run: Run,
        fence: Fence,
        Progress { done, total }: Progress,
    ) -> Option<(ClientId, Tag, Progress)> {
        let subscription = self.progress.map.get(&run.first())?;
        let done = if total == 0 { done } else { done.min(total) };
        let progress = Progress { done, total };
        let told = subscription.told.filter(|(of, _)| *of == fence).map(|(_, told)| told);
        let is_news = told.is_none_or(|told| done >= told.done && progress != told);
        let batch = self.batch(run);
        is_news.then_some((batch.client, batch.tag, progress))
    }

    /// A client was told so.
    ///
    /// # Panics
    /// If no client subscribed to the job, or was told of a later attempt, or of more of this one.
    pub(crate) fn progress_told(&mut self, run: Run, fence: Fence, progress: Progress) {
        let job = run.first();
        let subscription = self.progress.map.get_mut(&job);
        let told = &mut subscription.expect("a job whose progress is told has a subscription").told;
        let goes_on = told.is_none_or(|(of, told)| of < fence || of == fence && told.done <= progress.done);
        assert!(goes_on, "the progress of job {job} does not go back within an attempt");
        *told = Some((fence, progress));
    }

    /// When this job is looked at next, for the audit.
    pub(super) fn progress_alarm_ns(&self, job: JobId) -> Option<u64> {
        self.progress.map.get(&job).and_then(|subscription| subscription.alarm.at_ns())
    }
}
