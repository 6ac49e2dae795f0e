//! Tasks whose program a signal has stopped, as their workers say. Workers that a signal stopped are in `stopped.rs`.
//!
//! Nothing ends such a task but a limit or a client: the worker keeps it, goes on to hear, and is offered nothing more than
//! before. The stop counts as no progress (`task_watch.rs`). With `program_stopped_ms` the task is timed out if it is not
//! continued in time: like any limit of time it is enforced after a look that shows the task still running, and with the
//! grace of the task, in which TERM and CONT reach the program.
//!
//! | program | told that it stopped | told that it goes on | the alarm goes off | its task is settled | its task is told to end |
//! |---|---|---|---|---|---|
//! | runs | stopped, alarm set | - | - | - | - |
//! | stopped | stopped anew, alarm set anew | runs, alarm cancelled | a look | forgotten | alarm cancelled |
//!
//! A worker may say that it stops and goes on as often as it likes: a stop is recorded only [`RECORD_PAUSE_MS`] after the
//! one before, and its end only if it was recorded itself. So it cannot push other records out, and neither does a program
//! that is slowed down by signals on purpose (cpulimit).

use bulkhead_proto::client::outcome::TimeLimit;
use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::{Seq, WorkerId};

use crate::action::Action;
use crate::turn::{Owner, Turn, WorkerAlarm, ms};
use crate::worker::{MetLimit, Offer, Worker, Workers};

/// The least time between two recorded stops of one worker, and between two of programs in it, in milliseconds.
pub(super) const RECORD_PAUSE_MS: u64 = 60_000;

/// A task whose program is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoppedTask {
    seq: Seq,
    pid: u32,
    signal: i32,
    /// On the clock of the turns, nanoseconds.
    since_ns: u64,
    /// Wall time, microseconds since 1970.
    since_us: u64,
    is_recorded: bool,
}

impl StoppedTask {
    /// The program's process id and the signal, on its worker's word.
    pub(crate) fn program(&self) -> (u32, i32) {
        (self.pid, self.signal)
    }

    /// Since when, on the clock of the turns, nanoseconds.
    pub(crate) fn since_ns(&self) -> u64 {
        self.since_ns
    }

    /// Since when, wall time, microseconds since 1970.
    pub(crate) fn since_us(&self) -> u64 {
        self.since_us
    }
}

impl<T: Copy> Worker<T> {
    /// Its task, if a signal has stopped the program of that task.
    pub(crate) fn stopped_task(&self) -> Option<&StoppedTask> {
        self.program_stop.as_ref()
    }

    /// When a task with this offer is timed out because its program is stopped.
    pub(crate) fn program_stop_ends_ns(&self) -> Option<u64> {
        self.alarm_ns(WorkerAlarm::ProgramStop)
    }
}

impl<T: Copy> Workers<T> {
    /// A signal stopped the program of a task: `program` is its process id and the signal.
    pub(crate) fn program_stopped(&mut self, turn: &mut Turn, id: WorkerId, seq: Seq, program: (u32, i32)) {
        let (now_ns, limit_ms) = (turn.now_ns(), turn.config().program_stopped_ms);
        let Some(worker) = self.table.get_mut(&id).filter(|worker| !worker.is_killed()) else { return };
        let Some(&head) = worker.ring.head().filter(|head| head.seq() == seq) else { return };
        let is_recorded = now_ns >= worker.record_stops_from_ns;
        if is_recorded {
            worker.record_stops_from_ns = now_ns.saturating_add(ms(RECORD_PAUSE_MS));
        }
        let (pid, signal) = program;
        worker.program_stop =
            Some(StoppedTask { seq, pid, signal, since_ns: now_ns, since_us: turn.wall_us(), is_recorded });
        if let Some(limit_ms) = limit_ms.filter(|_| !worker.is_ending()) {
            worker.set(turn, id, WorkerAlarm::ProgramStop, turn.after_ms(limit_ms));
        }
        if is_recorded {
            let what = What::ProgramStopped { worker: id, job: head.shown(), program: pid, signal };
            turn.record(what, Owner::User(head.uid()));
        }
    }

    /// A stopped program goes on.
    pub(crate) fn program_continued(&mut self, turn: &mut Turn, id: WorkerId, seq: Seq) {
        let head = self.head(id);
        let Some((stop, head)) = self.forget_program_stop(turn, id, seq).zip(head) else { return };
        if stop.is_recorded {
            let after_us = turn.now_ns().saturating_sub(stop.since_ns) / 1000;
            let what = What::ProgramContinued { worker: id, job: head.shown(), program: stop.pid, after_us };
            turn.record(what, Owner::User(head.uid()));
        }
    }

    /// The program of this task is stopped no more, or the task is settled.
    pub(super) fn forget_program_stop(
        &mut self,
        turn: &mut Turn,
        id: WorkerId,
        seq: Seq,
    ) -> Option<StoppedTask> {
        let worker = self.table.get_mut(&id)?;
        let stop = worker.program_stop.take_if(|stop| stop.seq == seq)?;
        worker.cancel(turn, id, WorkerAlarm::ProgramStop);
        Some(stop)
    }

    /// A stopped program was not continued in time: asks for a look whether its task still runs.
    ///
    /// # Panics
    /// If its alarm was not set.
    pub(crate) fn program_stop_due(&mut self, turn: &mut Turn, id: WorkerId) {
        let Some(worker) = self.table.get_mut(&id) else { return };
        worker.rang(WorkerAlarm::ProgramStop);
        // The program dies with a killed worker.
        if !worker.is_killed() {
            turn.act(Action::Look { worker: id });
        }
    }

    /// A look found a running task: the limit that it met if its program has been stopped for too long.
    pub(crate) fn program_stop_met(&self, turn: &Turn, id: WorkerId, offer: &Offer<T>) -> Option<MetLimit> {
        let limit_ms = turn.config().program_stopped_ms?;
        let stop = self.table.get(&id)?.program_stop.filter(|stop| stop.seq == offer.seq())?;
        let is_met = offer.is_claimed() && turn.now_ns() >= stop.since_ns.saturating_add(ms(limit_ms));
        is_met.then_some(MetLimit { limit: TimeLimit::ProgramStopped, limit_ms })
    }
}
