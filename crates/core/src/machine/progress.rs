//! Progress of jobs for clients that subscribed: examines the worker when it is time, and sends what has changed.
//!
//! Progress of a job with parts is counted by the core; of another job it is its worker's word.

use bulkhead_proto::client::evidence::TaskProgress;
use bulkhead_proto::client::message::Reply;
use bulkhead_proto::ids::{Fence, JobId, WorkerId};

use crate::action::Action;
use crate::job::{ProgressLook, TaskRun};
use crate::machine::Core;

/// The size of one reply, in bytes, about.
const TELL_BYTES: u64 = 32;

impl Core {
    /// The alarm of a progress subscription went off.
    pub(super) fn progress_due(&mut self, job: JobId) {
        match self.jobs.progress_due(&mut self.turn, job) {
            ProgressLook::Over | ProgressLook::Unknown => {}
            ProgressLook::Parts(run, fence, progress) => self.tell_progress(run, fence, progress),
            // A worker reports progress of the task that it has claimed, which is this one if it has no other.
            ProgressLook::Worker(worker) if self.workers.has_one_offer(worker) => {
                self.turn.act(Action::Examine { worker });
            }
            ProgressLook::Worker(_) => {}
        }
    }

    /// A worker was examined: its progress is sent, if the job in its ring has a subscription.
    pub(super) fn note_progress(&mut self, id: WorkerId, progress: Option<TaskProgress>) {
        if !self.jobs.has_subscriptions() || !self.workers.has_one_offer(id) {
            return;
        }
        let head = self.workers.head(id);
        let (Some(progress), Some(offer)) = (progress, head) else { return };
        if let Some(run) = self.current(id, &offer)
            && self.jobs.is_whole(run)
        {
            self.tell_progress(run, offer.fence(), progress);
        }
    }

    /// Sends a client the progress of a job, if it is further than what was sent for this attempt.
    fn tell_progress(&mut self, run: TaskRun, fence: Fence, progress: TaskProgress) {
        let Some((client, tag, progress)) = self.jobs.progress_news(run, fence, progress) else { return };
        if !self.clients.has_credit(client) {
            return;
        }
        self.jobs.progress_told(run, fence, progress);
        let TaskProgress { done, total } = progress;
        self.reply(client, tag, Reply::Progress { job: run.first(), done, total }, TELL_BYTES);
    }
}
