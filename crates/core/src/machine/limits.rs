//! Limits that a task meets, and the looks into its worker's ring that enforce them.
//!
//! An alarm or an examination shows that a limit is met. It is enforced only after a look that shows the task still
//! running; a task that is done by then is done. A limit of time ends the job at once: its worker is killed, and the job
//! does not wait for the proof of death.

use bulkhead_proto::client::evidence::{ProcessSeen, TaskProgress};
use bulkhead_proto::client::outcome::{Outcome, TimeLimit};
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::WorkerId;

use crate::event::{Head, Leftover};
use crate::job::TaskRun;
use crate::machine::{Core, JobOffer};
use crate::turn::TaskLimits;
use crate::worker::HeadCheck;

impl Core {
    /// The first task of a ring has changed: sets the alarm for its limit of wall time.
    pub(super) fn watch_head(&mut self, id: WorkerId) {
        let is_job_known = self.is_head_known(id);
        self.workers.watch_head(&mut self.turn, id, is_job_known);
    }

    /// Whether the task at the head of a ring is still in the table of jobs.
    fn is_head_known(&self, id: WorkerId) -> bool {
        let head = self.workers.get(id).and_then(|worker| worker.ring().head());
        head.is_some_and(|head| self.run_in_table(head).is_some())
    }

    /// The alarm for the first task of a ring went off.
    pub(super) fn limit_met(&mut self, id: WorkerId) {
        let is_job_known = self.is_head_known(id);
        match self.workers.head_limit_met(&mut self.turn, id, is_job_known) {
            HeadCheck::Watch => self.watch_head(id),
            HeadCheck::TimedOut { limit_ms } => {
                if let Some(run) = self.workers.head(id).and_then(|head| self.current(id, &head)) {
                    self.time_out(run, TimeLimit::Wall, limit_ms);
                }
            }
            HeadCheck::Nothing | HeadCheck::TimeOut { .. } | HeadCheck::Unresponsive => {}
        }
    }

    /// A look shows the first unfinished entry of a ring. Finished entries came as `Event::Finished` before this.
    pub(super) fn looked(&mut self, id: WorkerId, head: Option<Head>) {
        let Some(Head { seq, claimed }) = head else { return };
        // A claim is remembered: a worker that takes one back in its box would be looked at again and again.
        let offer = match claimed {
            true => self.workers.note_claimed(id, seq),
            false => self.workers.offer(id, seq).copied(),
        };
        let Some(offer) = offer else { return };
        match self.current(id, &offer) {
            Some(run) => self.judge_running(id, run, &offer),
            None if offer.is_claimed() => {
                let need = self.workers.end_unwanted(&mut self.turn, id, &offer);
                self.follow_up(id, need);
            }
            None => self.workers.recall_or_look(&mut self.turn, id, seq),
        }
    }

    fn judge_running(&mut self, id: WorkerId, run: TaskRun, offer: &JobOffer) {
        if let Some(cause) = self.workers.watched_met(&mut self.turn, id, offer) {
            return self.enforce(id, run, cause);
        }
        match self.workers.judge_head(&mut self.turn, id, offer.timeout_ms(), offer.is_claimed()) {
            HeadCheck::Nothing | HeadCheck::TimedOut { .. } => {}
            HeadCheck::Watch => self.watch_head(id),
            HeadCheck::TimeOut { limit_ms } => {
                self.time_out(run, TimeLimit::Wall, limit_ms);
                self.kill(id, KillReason::Timeout);
            }
            HeadCheck::Unresponsive => self.kill(id, KillReason::Unresponsive),
        }
    }

    /// A worker was examined, for progress, for a limit, or because the proof of its death is late.
    pub(super) fn examined(
        &mut self,
        id: WorkerId,
        seen: Option<ProcessSeen>,
        progress_ns: Option<u64>,
        progress: Option<TaskProgress>,
    ) {
        self.note_progress(id, progress);
        self.workers.note_seen(&mut self.turn, id, seen.as_ref());
        let run = self.workers.watched(id).and_then(|offer| self.current(id, &offer));
        let met = self.workers.judge_watched(&mut self.turn, id, run.is_some(), seen.as_ref(), progress_ns);
        if let (Some(run), Some(cause)) = (run, met) {
            self.enforce(id, run, cause);
        }
    }

    /// A task met a limit: its job ends at once if it was a limit of time, and its worker is killed.
    fn enforce(&mut self, id: WorkerId, run: TaskRun, why: KillReason) {
        let limits = TaskLimits::of(self.jobs.batch(run).policy());
        let limit = match why {
            KillReason::NoProgress => limits.no_progress_ms.map(|limit_ms| (TimeLimit::NoProgress, limit_ms)),
            KillReason::CpuTime => limits.cpu_ms.map(|limit_ms| (TimeLimit::Cpu, limit_ms)),
            KillReason::Timeout
            | KillReason::Memory { .. }
            | KillReason::Cancel
            | KillReason::Stop
            | KillReason::Violation { .. }
            | KillReason::Unresponsive
            | KillReason::Stopped => None,
        };
        if let Some((limit, limit_ms)) = limit {
            self.time_out(run, limit, limit_ms);
        }
        self.kill(id, why);
    }

    fn time_out(&mut self, run: TaskRun, limit: TimeLimit, limit_ms: u64) {
        self.end_task(run, Outcome::TimedOut { limit, limit_ms, part: None }, Leftover::Nothing);
    }
}
