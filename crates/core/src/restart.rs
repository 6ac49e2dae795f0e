//! Restart intensity: what happens when workers keep dying and no job is to blame.
//!
//! As with an OTP supervisor, two numbers: more than `restart_intensity` such faults within `restart_period_ms`
//! and the pool is degraded. Where OTP gives up, we go on with exponential backoff and jitter, and say so; the
//! daemon never exits because of its workers. A pool is degraded, too, when as many workers in a row did not come up as
//! it has places. A worker that came up since and ends a task, or lives for a period, makes it healthy again.

use std::collections::VecDeque;

use bulkhead_proto::ids::WorkerId;
use bulkhead_proto::record::What;

use crate::action::Action;
use crate::machine::{Core, ms};
use crate::rng::doubled;
use crate::timers::Alarm;

/// A pool in trouble.
#[derive(Debug)]
pub(crate) struct Degraded {
    /// What was seen when it degraded, in words.
    seen: String,
    /// The last fault.
    last: String,
    pub(crate) since_ns: u64,
    /// Faults since then.
    level: u32,
}

impl Degraded {
    /// Why, in words, as it stands now.
    pub(crate) fn reason(&self) -> String {
        let Self { seen, last, level, .. } = self;
        let more = if *level > 0 { format!(", {level} more since") } else { String::new() };
        format!("{seen}{more}; the last one: {last}")
    }
}

/// What is remembered of faults.
#[derive(Debug, Default)]
pub(crate) struct Restart {
    faults: VecDeque<u64>,
    /// Workers that did not come up since one did.
    stillborn: usize,
    pub(crate) degraded: Option<Degraded>,
    /// Whether whoever waits for the start was told to go on.
    pub(crate) ready_said: bool,
    /// Whether a worker was ever ready.
    pub(crate) came_up: bool,
}

impl Core {
    /// A worker died, or did not come up, and no job is to blame.
    pub(crate) fn fault(&mut self, what: &str) {
        let now_ns = self.now.mono_ns;
        let period_ns = ms(self.config.restart_period_ms);
        let faults = &mut self.restart.faults;
        faults.push_back(now_ns);
        while faults.front().is_some_and(|&at_ns| at_ns.saturating_add(period_ns) < now_ns) {
            faults.pop_front();
        }
        let count = faults.len();
        if let Some(degraded) = &mut self.restart.degraded {
            degraded.level += 1;
            degraded.last = what.to_owned();
            faults.clear();
        } else if count > self.config.restart_intensity as usize {
            let period_ms = self.config.restart_period_ms;
            self.degrade(format!("{count} workers ended within {period_ms} ms and no job is to blame"), what);
        } else if self.nobody_comes_up() {
            let count = self.restart.stillborn;
            self.degrade(format!("{count} workers in a row did not come up"), what);
        }
        let pause_ns = self.spawn_pause_ns();
        self.pool.next_spawn_ns = self.pool.next_spawn_ns.max(now_ns + pause_ns);
    }

    /// Whether a whole pool of workers was tried and not one came up: slow failures, such as a worker that hangs
    /// before it is up, never exceed the intensity.
    fn nobody_comes_up(&self) -> bool {
        self.restart.stillborn >= usize::from(self.config.slots) + usize::from(self.config.spares)
    }

    fn degrade(&mut self, seen: String, last: &str) {
        self.restart.faults.clear();
        let degraded = Degraded { seen, last: last.to_owned(), since_ns: self.now.mono_ns, level: 0 };
        let reason = degraded.reason();
        self.restart.degraded = Some(degraded);
        self.record(What::Degraded { reason: reason.clone() }, None);
        self.say_ready(format!("degraded: {reason}"));
        self.notify_waiting();
    }

    /// A worker could not be brought up: the next one waits at least the least backoff.
    pub(crate) fn spawn_fault(&mut self, id: WorkerId, error: String) {
        self.restart.stillborn += 1;
        self.fault(&error);
        let least_ns = ms(self.config.backoff_min_ms);
        let now_ns = self.now.mono_ns;
        self.pool.next_spawn_ns = self.pool.next_spawn_ns.max(now_ns + least_ns);
        let retry_after_ms = (self.pool.next_spawn_ns - now_ns).div_ceil(1_000_000);
        self.record(What::SpawnFailed { worker: id, error, retry_after_ms }, None);
    }

    /// The pause between two spawns, in nanoseconds.
    pub(crate) fn spawn_pause_ns(&mut self) -> u64 {
        match &self.restart.degraded {
            None => ms(self.config.respawn_delay_ms),
            Some(degraded) => {
                let span = doubled(self.config.backoff_min_ms, degraded.level, self.config.backoff_max_ms);
                ms(self.rng.jitter(span).max(self.config.respawn_delay_ms))
            }
        }
    }

    /// Looks again at a worker that came up in a degraded pool, a period from now.
    pub(crate) fn watch_survival(&mut self, id: WorkerId) {
        self.restart.came_up = true;
        self.restart.stillborn = 0;
        let Some(worker) = self.pool.workers.get_mut(&id) else { return };
        if self.restart.degraded.is_some() {
            let at_ns = self.now.mono_ns.saturating_add(ms(self.config.restart_period_ms));
            worker.survival_alarm = Some(at_ns);
            self.timers.set(at_ns, Alarm::Survived(id));
        }
    }

    /// A worker lived on, or ended a task: if it came up since the pool degraded, all is well again.
    pub(crate) fn worker_works(&mut self, id: WorkerId) {
        let Some(degraded) = &self.restart.degraded else { return };
        let Some(worker) = self.pool.workers.get(&id) else { return };
        if worker.ready_ns >= degraded.since_ns && worker.duty.cause().is_none() {
            self.restart.degraded = None;
            self.restart.faults.clear();
            self.pool.next_spawn_ns = self.now.mono_ns;
            self.record(What::Recovered, None);
            self.notify_recovered();
        }
    }

    /// Tells whoever waits for the start, once.
    pub(crate) fn say_ready(&mut self, status: String) {
        if !std::mem::replace(&mut self.restart.ready_said, true) {
            self.act(Action::Ready { status });
        }
    }
}
