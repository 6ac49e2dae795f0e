//! Progress subscriptions: attached jobs whose client asked to be told how far they are.
//!
//! While such a job runs, an alarm looks at it every [`EVERY_MS`], and its client is sent a reply if it has moved and
//! the client has credit. A job in parts counts the parts that are done; any other is as far as its worker says. The
//! figure never falls within an attempt. A job without a subscription costs no alarm and no look.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bulkhead_proto::client::evidence::TaskProgress;
use bulkhead_proto::ids::{ClientId, Fence, JobId, Tag, WorkerId};

use crate::job::Jobs;
use crate::job::run::TaskRun;
use crate::job::state::{EntryState, Phase, TaskKind};
use crate::turn::{Alarm, AlarmSlot, Turn};

/// Time between two looks at a job, and so the shortest between two replies about it, in milliseconds.
const EVERY_MS: u64 = 200;

/// The subscription of one running job.
#[derive(Debug)]
struct Subscription {
    alarm: AlarmSlot,
    /// The figure that was sent last, and the fence of its attempt.
    told: Option<(Fence, TaskProgress)>,
}

/// The subscriptions of all running jobs.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    map: BTreeMap<JobId, Subscription>,
}

/// How the progress of a job is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProgressLook {
    /// Not at all: it does not run, or it is not attached any more.
    Over,
    /// By its parts.
    Parts(TaskRun, Fence, TaskProgress),
    /// By examining the worker that runs it, if it has no other offer.
    Worker(WorkerId),
    /// Not by a worker: it is one task of several.
    Unknown,
}

impl Jobs {
    /// Subscribes to a job that begins to run, or whose parts do, if its client asked for progress.
    ///
    /// # Panics
    /// If it does not run.
    pub(crate) fn begin_progress(&mut self, turn: &mut Turn, run: TaskRun) {
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

    /// Ends the subscription of a job that has ended.
    pub(super) fn end_progress(&mut self, turn: &mut Turn, job: JobId) {
        if let Some(mut subscription) = self.progress.map.remove(&job) {
            turn.cancel(&mut subscription.alarm, Alarm::Progress(job));
        }
    }

    /// The alarm of a subscription went off: returns how to look at the job, and sets the alarm again while the job
    /// runs.
    ///
    /// # Panics
    /// If the job has no subscription: its alarm is cancelled with it.
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
            let progress = TaskProgress { done: parts.done.into(), total: parts.total.into() };
            return ProgressLook::Parts(run, entry.fence, progress);
        }
        match entry.state {
            EntryState::Running { worker, .. } if entry.task_kind == TaskKind::Whole => {
                ProgressLook::Worker(worker)
            }
            EntryState::Running { .. } => ProgressLook::Unknown,
            EntryState::Queued
            | EntryState::Waiting { .. }
            | EntryState::Solo
            | EntryState::Parted
            | EntryState::Ended(_) => ProgressLook::Over,
        }
    }

    /// Whether any job has a subscription.
    pub(crate) fn has_subscriptions(&self) -> bool {
        !self.progress.map.is_empty()
    }

    /// Whether the figure of the worker that runs this task is the progress of its job.
    pub(crate) fn is_whole(&self, run: TaskRun) -> bool {
        self.job(run).task_kind == TaskKind::Whole
    }

    /// The client to be told, and the figure, if it is news: more than was sent of this attempt.
    pub(crate) fn progress_news(
        &self,
        run: TaskRun,
        fence: Fence,
        TaskProgress { done, total }: TaskProgress,
    ) -> Option<(ClientId, Tag, TaskProgress)> {
        let subscription = self.progress.map.get(&run.first())?;
        let done = if total == 0 { done } else { done.min(total) };
        let progress = TaskProgress { done, total };
        let told = subscription.told.filter(|(of, _)| *of == fence).map(|(_, told)| told);
        let is_news = told.is_none_or(|told| done >= told.done && progress != told);
        let batch = self.batch(run);
        is_news.then_some((batch.client, batch.tag, progress))
    }

    /// Notes that a figure was sent.
    ///
    /// # Panics
    /// If the job has no subscription, or the figure falls within an attempt or is of an earlier one.
    pub(crate) fn progress_told(&mut self, run: TaskRun, fence: Fence, progress: TaskProgress) {
        let job = run.first();
        let subscription = self.progress.map.get_mut(&job);
        let told = &mut subscription.expect("a job whose progress is told has a subscription").told;
        let goes_on = told.is_none_or(|(of, told)| of < fence || of == fence && told.done <= progress.done);
        assert!(goes_on, "the progress of job {job} does not go back within an attempt");
        *told = Some((fence, progress));
    }

    /// When the alarm of a subscription goes off, for the audit.
    pub(super) fn progress_alarm_ns(&self, job: JobId) -> Option<u64> {
        self.progress.map.get(&job).and_then(|subscription| subscription.alarm.at_ns())
    }
}
