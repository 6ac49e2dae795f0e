//! The task at the head of a ring: its limit of wall time, and whether its worker begins it at all.
//!
//! The machine says whether the job of that task is still in the table of jobs: this room does not know jobs.

use bulkhead_proto::ids::WorkerId;

use crate::action::Action;
use crate::turn::{Turn, WorkerAlarm, ms};
use crate::worker::{HeadCheck, Workers};

impl<T: Copy> Workers<T> {
    /// Sets the alarm for the first task of a ring, if its job is known: for its limit of wall time, and for a worker that
    /// does not begin it. An alarm that is early enough stays, so that most tasks set none.
    pub(crate) fn watch_head(&mut self, turn: &mut Turn, id: WorkerId, is_job_known: bool) {
        let Some(worker) = self.table.get_mut(&id) else { return };
        let (set, head_ns) = (worker.alarm_ns(WorkerAlarm::Limit), worker.ring.head_ns());
        let patience_ns = head_ns.saturating_add(ms(turn.config().bootstrap_ms));
        let wanted_ns =
            worker.ring.head().filter(|_| is_job_known).and_then(|head| match head.timeout_ms() {
                Some(limit_ms) => {
                    let limit_ns = head_ns.saturating_add(ms(limit_ms));
                    Some(if head.is_claimed() { limit_ns } else { limit_ns.min(patience_ns) })
                }
                None => (!head.is_claimed()).then(|| set.unwrap_or(patience_ns).min(patience_ns)),
            });
        if wanted_ns == set {
            return;
        }
        match wanted_ns {
            Some(at_ns) => worker.set(turn, id, WorkerAlarm::Limit, at_ns),
            None => worker.cancel(turn, id, WorkerAlarm::Limit),
        }
    }

    /// The alarm for the first task of a ring went off: asks for a look whether the task runs. If the worker is killed
    /// already there is no look, and a job that met its limit does not wait for the proof of death.
    ///
    /// # Panics
    /// If its alarm was not set.
    pub(crate) fn head_limit_met(&mut self, turn: &mut Turn, id: WorkerId, is_job_known: bool) -> HeadCheck {
        let Some(worker) = self.table.get_mut(&id) else { return HeadCheck::Nothing };
        worker.rang(WorkerAlarm::Limit);
        let (is_killed, head_ns) = (worker.is_killed(), worker.ring.head_ns());
        let Some(head) = worker.ring.head() else { return HeadCheck::Nothing };
        let limit_ms = head.timeout_ms().filter(|_| is_job_known);
        let is_early = |span_ms: u64| turn.now_ns() < head_ns.saturating_add(ms(span_ms));
        match limit_ms {
            Some(limit_ms) if is_killed && is_early(limit_ms) => {
                worker.set(turn, id, WorkerAlarm::Limit, head_ns + ms(limit_ms));
            }
            Some(limit_ms) if is_killed => return HeadCheck::TimedOut { limit_ms },
            None if is_killed => {}
            // The alarm was that of an earlier task.
            None if is_early(turn.config().bootstrap_ms) => return HeadCheck::Watch,
            _ => turn.act(Action::Look { worker: id }),
        }
        HeadCheck::Nothing
    }

    /// A look found the first unfinished task of a ring, whose job has not ended: checks its limit of wall time.
    pub(crate) fn judge_head(
        &mut self,
        turn: &mut Turn,
        id: WorkerId,
        timeout_ms: Option<u64>,
        is_claimed: bool,
    ) -> HeadCheck {
        let Some(worker) = self.table.get_mut(&id) else { return HeadCheck::Nothing };
        let (now_ns, head_ns) = (turn.now_ns(), worker.ring.head_ns());
        if !is_claimed && now_ns >= head_ns.saturating_add(ms(turn.config().bootstrap_ms)) {
            return HeadCheck::Unresponsive;
        }
        let Some(limit_ms) = timeout_ms else { return HeadCheck::Nothing };
        let patience_ns = head_ns.saturating_add(ms(limit_ms.max(turn.config().retire_ms)));
        if now_ns < head_ns.saturating_add(ms(limit_ms)) {
            HeadCheck::Watch
        } else if is_claimed {
            HeadCheck::TimeOut { limit_ms }
        } else if now_ns < patience_ns {
            worker.set(turn, id, WorkerAlarm::Limit, patience_ns);
            HeadCheck::Nothing
        } else {
            HeadCheck::Unresponsive
        }
    }
}
