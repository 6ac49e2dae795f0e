//! Limits that need examinations of the worker: no progress, processor time, memory. (`head.rs` has wall time.)
//!
//! A task with such a limit has its worker's ring for itself, so that all that is measured is its own. The worker is
//! examined right before the offer, for the values that the task starts from, and then only as often as the limits need;
//! a worker without such a task is not examined. An examination shows that a limit is met; it is enforced after a look
//! into the ring that shows the task still running. A task that is done by then is done.
//!
//! | limit | examined next | met when |
//! |---|---|---|
//! | no progress | its last progress, or its offer, plus the limit | nothing moved since then, but while a signal had stopped its program |
//! | processor time | when all cores together could have used up the rest, see [`cpu_pause_ns`] | used >= limit |
//! | memory | the sooner the nearer it is to its limit, see [`memory_pause_ns`] | grown by >= limit |

use bulkhead_proto::client::evidence::ProcessSeen;
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::{Seq, WorkerId};

use crate::action::Action;
use crate::turn::{TaskLimits, Turn, WorkerAlarm, ms};
use crate::worker::end_order::limits_in_grace;
use crate::worker::{NowDegraded, Offer, Workers};

/// The least time between two examinations of processor time: this part of the limit, within [`CPU_PAUSE_MS`]. A task may
/// use that much more than its limit, on each core.
const CPU_PART: u64 = 20;
const CPU_PAUSE_MS: (u64, u64) = (20, 1000);
/// Pauses between two examinations of a task's memory, in milliseconds: at its limit, and far from it.
const MEMORY_PAUSE_MS: (u64, u64) = (10, 250);

/// The watched limits of the task in a worker's ring.
#[derive(Debug)]
pub(super) struct TaskWatch {
    seq: Seq,
    limits: TaskLimits,
    /// Since when it has had to make progress, nanoseconds on the clock of the turns.
    since_ns: u64,
    /// What its worker had used before the task.
    before: Option<Usage>,
    /// The limit that it met, if the next look shows that it still runs.
    met: Option<KillReason>,
}

#[derive(Clone, Copy, Debug)]
struct Usage {
    cpu_us: u64,
    resident_bytes: u64,
}

/// The shortest time in which all cores can use up the rest of a limit; at least a twentieth of the
/// limit, within 20 ms and 1 s, so that a task that uses little processor time is examined rarely.
fn cpu_pause_ns(limit_ms: u64, used_us: u64, cores: u32) -> u64 {
    let least_ms = (limit_ms / CPU_PART).clamp(CPU_PAUSE_MS.0, CPU_PAUSE_MS.1);
    let left_ns = ms(limit_ms).saturating_sub(used_us.saturating_mul(1000));
    (left_ns / u64::from(cores)).max(ms(least_ms))
}

/// From 250 ms when nothing of the limit is used to 10 ms when all is, evenly.
fn memory_pause_ns(limit_bytes: u64, used_bytes: u64) -> u64 {
    let (near, far) = MEMORY_PAUSE_MS;
    let free = u128::from(limit_bytes.saturating_sub(used_bytes));
    let share = u128::from(ms(far - near)) * free / u128::from(limit_bytes.max(1));
    ms(near) + u64::try_from(share).unwrap_or(0)
}

impl TaskWatch {
    /// Which limit is met now; else when to examine next.
    fn judge(
        &mut self,
        limits: &TaskLimits,
        seen: Option<&ProcessSeen>,
        progress_ns: Option<u64>,
        (now_ns, cores): (u64, u32),
    ) -> Result<u64, KillReason> {
        self.since_ns = self.since_ns.max(progress_ns.unwrap_or(0).min(now_ns));
        let mut next_ns = u64::MAX;
        if let Some(limit_ms) = limits.no_progress_ms {
            next_ns = self.since_ns.saturating_add(ms(limit_ms));
            if next_ns <= now_ns {
                return Err(KillReason::NoProgress);
            }
        }
        let Some(seen) = seen else {
            let pause_ns = if limits.are_measured() { ms(MEMORY_PAUSE_MS.1) } else { u64::MAX };
            return Ok(next_ns.min(now_ns.saturating_add(pause_ns)));
        };
        // Processor time of child processes counts too: a program that the task runs, and all that this runs.
        let cpu_us = seen.cpu_us.saturating_add(seen.below_us);
        let start = Usage { cpu_us, resident_bytes: seen.resident_bytes };
        let before = *self.before.get_or_insert(start);
        if let Some(limit_ms) = limits.cpu_ms {
            let used_us = cpu_us.saturating_sub(before.cpu_us);
            if used_us >= limit_ms.saturating_mul(1000) {
                return Err(KillReason::CpuTime);
            }
            next_ns = next_ns.min(now_ns.saturating_add(cpu_pause_ns(limit_ms, used_us, cores)));
        }
        if let Some(limit_bytes) = limits.memory_bytes {
            let used_bytes = seen.resident_bytes.saturating_sub(before.resident_bytes);
            if used_bytes >= limit_bytes {
                return Err(KillReason::Memory { limit_bytes });
            }
            next_ns = next_ns.min(now_ns.saturating_add(memory_pause_ns(limit_bytes, used_bytes)));
        }
        Ok(next_ns)
    }
}

impl<T: Copy> Workers<T> {
    /// Begins to watch a task that is about to be offered, if its limits need it.
    pub(super) fn watch(&mut self, turn: &mut Turn, id: WorkerId, seq: Seq, limits: TaskLimits) {
        if !limits.are_watched() {
            return;
        }
        let now_ns = turn.now_ns();
        let Some(worker) = self.table.get_mut(&id) else { return };
        worker.watch = Some(TaskWatch { seq, limits, since_ns: now_ns, before: None, met: None });
        if limits.are_measured() {
            turn.act(Action::Examine { worker: id });
        } else if let Some(limit_ms) = limits.no_progress_ms {
            worker.set(turn, id, WorkerAlarm::Watch, turn.after_ms(limit_ms));
        }
    }

    /// The watched task is settled, or its job has ended. `seq` limits this to one offer.
    pub(super) fn unwatch(&mut self, turn: &mut Turn, id: WorkerId, seq: Option<Seq>) {
        let Some(worker) = self.table.get_mut(&id) else { return };
        if worker.watch.as_ref().is_none_or(|watch| seq.is_some_and(|seq| watch.seq != seq)) {
            return;
        }
        worker.watch = None;
        worker.cancel(turn, id, WorkerAlarm::Watch);
    }

    /// A watched task was told to end: from now on only its memory limit counts.
    pub(super) fn watch_memory_alone(&mut self, turn: &mut Turn, id: WorkerId) {
        let Some(worker) = self.table.get_mut(&id) else { return };
        let Some(watch) = worker.watch.as_mut() else { return };
        watch.limits = limits_in_grace(&watch.limits);
        watch.met = None;
        if watch.limits.are_watched() {
            worker.set(turn, id, WorkerAlarm::Watch, turn.after_ms(MEMORY_PAUSE_MS.0));
        } else {
            self.unwatch(turn, id, None);
        }
    }

    /// A watched task may have met a limit by now.
    ///
    /// # Panics
    /// If its alarm was not set.
    pub(crate) fn watch_due(&mut self, turn: &mut Turn, id: WorkerId) {
        let Some(worker) = self.table.get_mut(&id).filter(|worker| worker.watch.is_some()) else { return };
        worker.rang(WorkerAlarm::Watch);
        turn.act(Action::Examine { worker: id });
    }

    /// The offer that is watched in a worker's ring.
    pub(crate) fn watched(&self, id: WorkerId) -> Option<Offer<T>> {
        let worker = self.table.get(&id)?;
        let seq = worker.watch.as_ref()?.seq;
        worker.ring.head().filter(|head| head.seq() == seq).copied()
    }

    /// A worker was examined: notes its size, and that it is stuck if the proof of its death is late. Gives its
    /// pool if this degrades it.
    pub(crate) fn note_seen(
        &mut self,
        turn: &mut Turn,
        id: WorkerId,
        seen: Option<&ProcessSeen>,
    ) -> Option<NowDegraded> {
        self.note_size(id, seen);
        self.note_stuck(turn, id, seen)
    }

    /// Compares an examination with the limits of the watched task; `is_wanted` while its job has not ended: after that only
    /// its memory counts. Asks for a look if a limit is met. Gives the limit if the worker is killed already, because a look
    /// shows nothing then.
    pub(crate) fn judge_watched(
        &mut self,
        turn: &mut Turn,
        id: WorkerId,
        is_wanted: bool,
        seen: Option<&ProcessSeen>,
        progress_ns: Option<u64>,
    ) -> Option<KillReason> {
        let worker = self.table.get_mut(&id)?;
        let is_killed = worker.is_killed();
        let watch = worker.watch.as_mut()?;
        // Of a killed worker only the limit of progress counts: its task uses nothing any more.
        let limits = match (is_wanted, is_killed) {
            (true, true) => TaskLimits { cpu_ms: None, memory_bytes: None, ..watch.limits },
            (true, false) => watch.limits,
            (false, true) => TaskLimits::default(),
            (false, false) => limits_in_grace(&watch.limits),
        };
        if !is_wanted && !limits.are_watched() {
            self.unwatch(turn, id, None);
            return None;
        }
        // A stopped program makes no progress, whatever is read of what it or others wrote.
        let progress_ns = match &worker.program_stop {
            Some(stop) => progress_ns.map(|at_ns| at_ns.min(stop.since_ns())),
            None => progress_ns,
        };
        match watch.judge(&limits, seen, progress_ns, (turn.now_ns(), turn.config().cores)) {
            Ok(u64::MAX) => None,
            Ok(next_ns) => {
                worker.set(turn, id, WorkerAlarm::Watch, next_ns);
                None
            }
            Err(cause) if is_killed => Some(cause),
            Err(cause) => {
                watch.met = Some(cause);
                turn.act(Action::Look { worker: id });
                None
            }
        }
    }

    /// A look found the watched offer at the head of a ring: gives the limit that it met, if it has begun.
    pub(crate) fn watched_met(
        &mut self,
        turn: &mut Turn,
        id: WorkerId,
        offer: &Offer<T>,
    ) -> Option<KillReason> {
        let worker = self.table.get_mut(&id)?;
        let watch = worker.watch.as_mut()?;
        let cause = watch.met.take().filter(|_| watch.seq == offer.seq())?;
        if offer.is_claimed() {
            return Some(cause);
        }
        // It has not begun: its time starts now. `watch_head` deals with a worker that never begins it.
        watch.since_ns = turn.now_ns();
        watch.before = None;
        let pause_ms = MEMORY_PAUSE_MS.1.min(watch.limits.no_progress_ms.unwrap_or(u64::MAX));
        worker.set(turn, id, WorkerAlarm::Watch, turn.after_ms(pause_ms));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_task_is_looked_at_a_few_times_before_its_limit() {
        for (limit_ms, cores) in [(100, 2), (10_000, 8), (3_600_000, 64)] {
            let (mut used_us, mut looks) = (0, 0);
            while used_us < limit_ms * 1000 {
                used_us += cpu_pause_ns(limit_ms, used_us, cores) / 1000;
                looks += 1;
            }
            assert!(looks <= 1000 && used_us <= limit_ms * 1050 + 20_000, "{limit_ms} {looks} {used_us}");
        }
    }

    #[test]
    fn memory_is_looked_at_sooner_near_its_limit() {
        assert_eq!(memory_pause_ns(1 << 30, 0), ms(250));
        assert_eq!(memory_pause_ns(1 << 30, 1 << 30), ms(10));
        assert!(memory_pause_ns(100, 90) < memory_pause_ns(100, 50));
    }
}
