//! Limits that a task meets, and the looks into its worker's ring that enforce them.
//!
//! An alarm or an examination shows that a limit is met. It is enforced only after a look that shows the task still
//! running; a task that is done by then is done.
//!
//! A limit of time decides the outcome. A task with a grace is told to end, and its job ends with it, so that
//! what it wrote is kept; a cancel, a stop, the kill or the death of the worker ends the job earlier. A part is told to end
//! as well, but its job ends at the limit, as no output of a part is shown. Without grace the job ends at the limit and the
//! worker is killed. A memory limit kills at once, in the grace too. No job waits for the proof of a death.

use bulkhead_proto::client::evidence::{ProcessSeen, TaskProgress};
use bulkhead_proto::client::outcome::TimeLimit;
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::WorkerId;

use crate::event::{Head, Leftover};
use crate::job::{Doing, TaskRun};
use crate::machine::{Core, JobOffer};
use crate::turn::TaskLimits;
use crate::worker::{FollowUp, HeadCheck, MetLimit};

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
                    self.time_out(run, MetLimit { limit: TimeLimit::Wall, limit_ms });
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
                let met = self.workers.watched_met(&mut self.turn, id, &offer);
                if let Some(memory @ KillReason::Memory { .. }) = met {
                    return self.kill(id, memory);
                }
                let why = if self.drain.is_leaving() { KillReason::Stop } else { KillReason::Cancel };
                let need = self.workers.end_unwanted(&mut self.turn, id, &offer, why);
                self.follow_up(id, need);
            }
            None => self.workers.recall_or_look(&mut self.turn, id, seq),
        }
    }

    fn judge_running(&mut self, id: WorkerId, run: TaskRun, offer: &JobOffer) {
        if let Some(cause) = self.workers.watched_met(&mut self.turn, id, offer) {
            return self.enforce(id, run, offer, cause);
        }
        if let Some(need) = self.workers.ordered(&self.turn, id, offer) {
            return self.follow_up(id, need);
        }
        if let Some(met) = self.workers.program_stop_met(&self.turn, id, offer) {
            return self.meet(id, run, offer, met);
        }
        match self.workers.judge_head(&mut self.turn, id, offer.timeout_ms(), offer.is_claimed()) {
            HeadCheck::Nothing | HeadCheck::TimedOut { .. } => {}
            HeadCheck::Watch => self.watch_head(id),
            HeadCheck::TimeOut { limit_ms } => {
                self.meet(id, run, offer, MetLimit { limit: TimeLimit::Wall, limit_ms });
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
        let degraded = self.workers.note_seen(&mut self.turn, id, seen.as_ref());
        self.tell_degraded(degraded);
        let watched = self.workers.watched(id).and_then(|offer| Some((self.current(id, &offer)?, offer)));
        let is_wanted = watched.is_some();
        let met = self.workers.judge_watched(&mut self.turn, id, is_wanted, seen.as_ref(), progress_ns);
        if let (Some((run, offer)), Some(cause)) = (watched, met) {
            self.enforce(id, run, &offer, cause);
        }
    }

    /// A task met a limit.
    fn enforce(&mut self, id: WorkerId, run: TaskRun, offer: &JobOffer, why: KillReason) {
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
            | KillReason::Stopped
            | KillReason::ProgramStopped => None,
        };
        match limit {
            Some((limit, limit_ms)) => self.meet(id, run, offer, MetLimit { limit, limit_ms }),
            None => self.kill(id, why),
        }
    }

    /// A task met a limit of time: it is told to end, or its worker is killed.
    fn meet(&mut self, id: WorkerId, run: TaskRun, offer: &JobOffer, met: MetLimit) {
        if !self.workers.may_be_killed(id) {
            return self.time_out(run, met);
        }
        if run.is_part() {
            self.time_out(run, met);
            let need = self.workers.end_unwanted(&mut self.turn, id, offer, met.kill_reason());
            return self.follow_up(id, need);
        }
        match self.workers.end_for_limit(&mut self.turn, id, offer, met) {
            FollowUp::Nothing => {}
            need @ (FollowUp::Kill(_) | FollowUp::Bootstrap(_)) => {
                self.time_out(run, met);
                self.follow_up(id, need);
            }
        }
    }

    fn time_out(&mut self, run: TaskRun, met: MetLimit) {
        self.end_task(run, met.outcome(), Leftover::Nothing);
    }

    /// The limit of time that a task met, if its job waits for the end of the task.
    pub(super) fn met_limit(&self, run: TaskRun) -> Option<MetLimit> {
        let Doing::Running { worker, seq, .. } = self.jobs.job(run).doing() else { return None };
        let (of, met) = self.workers.get(worker)?.met_limit()?;
        (of == seq).then_some(met)
    }

    /// A worker is killed or has died: if its task met a limit of time before, the job ends now.
    pub(super) fn end_timed_out(&mut self, id: WorkerId) {
        let Some((seq, met)) = self.workers.get(id).and_then(|worker| worker.met_limit()) else { return };
        let offer = self.workers.offer(id, seq).copied();
        if let Some(run) = offer.and_then(|offer| self.current(id, &offer)) {
            self.time_out(run, met);
        }
    }
}
