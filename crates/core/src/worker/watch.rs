//! Limits that are met by what a task does: no progress, processor time, memory. (Wall time is `answer.rs`'s.)
//!
//! A task with any of these has its worker's ring for itself, so that what is measured is its own. The worker is
//! examined right before the offer, which gives what the task starts from, and then only as often as its limits
//! need; without such a task nobody is examined. A limit is met by what was examined, but enforced only after a look
//! into the ring that shows the task still running: whatever is done by then is done.
//!
//! | limit | examined next | met when |
//! |---|---|---|
//! | no progress | its last progress, or its offer, plus the limit | nothing moved since then |
//! | processor time | when all cores together could have used up the rest, see [`cpu_pause_ns`] | used >= limit |
//! | memory | the sooner the nearer it is to its limit, see [`memory_pause_ns`] | grown by >= limit |

use bulkhead_proto::client::evidence::Seen;
use bulkhead_proto::client::outcome::{Outcome, TimeLimit};
use bulkhead_proto::ids::{Seq, WorkerId};

use crate::action::Action;
use crate::event::Leftover;
use crate::job::Run;
use crate::machine::{Core, Offer};
use crate::turn::{TaskLimits, WorkerAlarm, ms};
use crate::worker::entry::Cause;

/// A task with a limit of processor time is examined at most so often, as a part of that limit and within these
/// milliseconds: it may use so much more than its limit, on each core.
const CPU_PART: u64 = 20;
const CPU_PAUSE_MS: (u64, u64) = (20, 1000);
/// Pauses between two looks at the memory of a task, in milliseconds: at its limit, and far from it.
const MEMORY_PAUSE_MS: (u64, u64) = (10, 250);

/// What is watched of the task in a worker's ring.
#[derive(Debug)]
pub(crate) struct Watch {
    seq: Seq,
    limits: TaskLimits,
    /// Since when it has had to make progress, CLOCK_MONOTONIC nanoseconds.
    since_ns: u64,
    /// What its worker had used before it.
    before: Option<Before>,
    /// The limit that it met, if the next look shows that it still runs.
    met: Option<Cause>,
}

#[derive(Clone, Copy, Debug)]
struct Before {
    cpu_us: u64,
    resident_bytes: u64,
}

/// Until the rest of a limit can be used up at the earliest, if all cores work on it; at least a twentieth of the
/// limit, within 20 ms and 1 s, so that a task that hardly works is hardly looked at.
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

impl Watch {
    /// Which limit is met now; else when to examine next.
    fn judge(
        &mut self,
        limits: &TaskLimits,
        seen: Option<&Seen>,
        progress_ns: Option<u64>,
        (now_ns, cores): (u64, u32),
    ) -> Result<u64, Cause> {
        self.since_ns = self.since_ns.max(progress_ns.unwrap_or(0).min(now_ns));
        let mut next_ns = u64::MAX;
        if let Some(limit_ms) = limits.no_progress_ms {
            next_ns = self.since_ns.saturating_add(ms(limit_ms));
            if next_ns <= now_ns {
                return Err(Cause::NoProgress);
            }
        }
        let Some(seen) = seen else {
            let pause_ns = if limits.are_measured() { ms(MEMORY_PAUSE_MS.1) } else { u64::MAX };
            return Ok(next_ns.min(now_ns.saturating_add(pause_ns)));
        };
        // What it starts counts like itself: a program that it runs, and all that this runs.
        let cpu_us = seen.cpu_us.saturating_add(seen.below_us);
        let start = Before { cpu_us, resident_bytes: seen.resident_bytes };
        let before = *self.before.get_or_insert(start);
        if let Some(limit_ms) = limits.cpu_ms {
            let used_us = cpu_us.saturating_sub(before.cpu_us);
            if used_us >= limit_ms.saturating_mul(1000) {
                return Err(Cause::CpuTime);
            }
            next_ns = next_ns.min(now_ns.saturating_add(cpu_pause_ns(limit_ms, used_us, cores)));
        }
        if let Some(limit_bytes) = limits.memory_bytes {
            let used_bytes = seen.resident_bytes.saturating_sub(before.resident_bytes);
            if used_bytes >= limit_bytes {
                return Err(Cause::Memory { limit_bytes });
            }
            next_ns = next_ns.min(now_ns.saturating_add(memory_pause_ns(limit_bytes, used_bytes)));
        }
        Ok(next_ns)
    }
}

impl Core {
    /// Begins to watch a task that is about to be offered, if its policy says so.
    pub(crate) fn watch(&mut self, id: WorkerId, seq: Seq, limits: TaskLimits) {
        let now_ns = self.turn.now_ns();
        let Some(worker) = self.pools.workers.get_mut(&id).filter(|_| limits.are_watched()) else { return };
        worker.watch = Some(Watch { seq, limits, since_ns: now_ns, before: None, met: None });
        if limits.are_measured() {
            self.turn.act(Action::Examine { worker: id });
        } else if let Some(limit_ms) = limits.no_progress_ms {
            self.set_watch_alarm(id, now_ns.saturating_add(ms(limit_ms)));
        }
    }

    /// The task that was watched is settled, or its worker is gone: `None` stands for whichever it was.
    pub(crate) fn unwatch(&mut self, id: WorkerId, seq: Option<Seq>) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        if worker.watch.as_ref().is_none_or(|watch| seq.is_some_and(|seq| watch.seq != seq)) {
            return;
        }
        worker.watch = None;
        worker.cancel(&mut self.turn, id, WorkerAlarm::Watch);
    }

    fn set_watch_alarm(&mut self, id: WorkerId, at_ns: u64) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        worker.set(&mut self.turn, id, WorkerAlarm::Watch, at_ns);
    }

    /// A watched task may have met a limit by now.
    pub(crate) fn watch_due(&mut self, id: WorkerId) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        if worker.watch.is_none() {
            return;
        }
        worker.rang(WorkerAlarm::Watch);
        self.turn.act(Action::Examine { worker: id });
    }

    /// What was seen of a worker.
    pub(crate) fn examined(&mut self, id: WorkerId, seen: Option<Seen>, progress_ns: Option<u64>) {
        self.note_size(id, seen.as_ref());
        self.note_stuck(id, seen.as_ref());
        let Some(run) = self.watched_offer(id) else { return self.unwatch(id, None) };
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        let is_killed = worker.duty.cause().is_some();
        let Some(watch) = &mut worker.watch else { return };
        // Of a worker that is killed already, only time is worth waiting for.
        let limits = match is_killed {
            true => TaskLimits { cpu_ms: None, memory_bytes: None, ..watch.limits },
            false => watch.limits,
        };
        match watch.judge(&limits, seen.as_ref(), progress_ns, (self.turn.now_ns(), self.turn.config().cores))
        {
            Ok(u64::MAX) => {}
            Ok(next_ns) => self.set_watch_alarm(id, next_ns),
            // Nothing of it is to be seen any more, and its job is not kept waiting for the proof.
            Err(cause) if is_killed => self.enforce(id, run, cause),
            Err(cause) => {
                watch.met = Some(cause);
                self.turn.act(Action::Look { worker: id });
            }
        }
    }

    /// The run that is watched in a worker's ring, while it is current.
    fn watched_offer(&self, id: WorkerId) -> Option<Run> {
        let worker = self.pools.workers.get(&id)?;
        let seq = worker.watch.as_ref()?.seq;
        let offer = *worker.claims.head().filter(|head| head.seq == seq)?;
        self.current(id, &offer)
    }

    /// A look found a current offer at the head of a ring: ends what met a limit. `true`: it is being ended.
    pub(crate) fn enforce_met(&mut self, id: WorkerId, run: Run, offer: &Offer) -> bool {
        let now_ns = self.turn.now_ns();
        let Some(watch) = self.pools.workers.get_mut(&id).and_then(|worker| worker.watch.as_mut()) else {
            return false;
        };
        let Some(cause) = watch.met.take().filter(|_| watch.seq == offer.seq) else { return false };
        if offer.claimed {
            self.enforce(id, run, cause);
            return true;
        }
        // It has not begun: its time starts now. Whether it begins at all is `watch_head`'s to ask.
        watch.since_ns = now_ns;
        watch.before = None;
        self.set_watch_alarm(id, now_ns.saturating_add(ms(MEMORY_PAUSE_MS.1)));
        false
    }

    /// A task met a limit: its job ends at once if that was a limit of time, and its worker is killed.
    fn enforce(&mut self, id: WorkerId, run: Run, cause: Cause) {
        let limits = TaskLimits::of(self.jobs.batch(run).policy());
        let limit = match cause {
            Cause::NoProgress => limits.no_progress_ms.map(|limit_ms| (TimeLimit::NoProgress, limit_ms)),
            Cause::CpuTime => limits.cpu_ms.map(|limit_ms| (TimeLimit::Cpu, limit_ms)),
            _ => None,
        };
        if let Some((limit, limit_ms)) = limit {
            self.end_task(run, Outcome::TimedOut { limit, limit_ms, part: None }, Leftover::Nothing);
        }
        self.kill(id, cause);
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
