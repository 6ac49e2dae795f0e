//! Restart intensity: what happens when workers keep dying and no job is to blame.
//!
//! As with an OTP supervisor, two numbers: more than `restart_intensity` such faults within `restart_period_ms`
//! and the pool is degraded. Where OTP gives up, we go on with exponential backoff and jitter, and say so; the
//! daemon never exits because of its workers. A pool of which no worker ever came up is degraded, too. A worker that came up since and ends a task, or lives for a
//! period, makes the pool healthy again.

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
    pub(crate) reason: String,
    pub(crate) since_ns: u64,
    /// Faults since then.
    level: u32,
}

/// What is remembered of faults.
#[derive(Debug, Default)]
pub(crate) struct Restart {
    faults: VecDeque<u64>,
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
        if let Some(degraded) = &mut self.restart.degraded {
            degraded.level += 1;
            faults.truncate(0);
        } else if faults.len() > self.config.restart_intensity as usize || self.never_came_up() {
            self.degrade(what);
        }
        let pause_ns = self.spawn_pause_ns();
        self.pool.next_spawn_ns = self.pool.next_spawn_ns.max(now_ns + pause_ns);
    }

    /// Whether a whole pool of workers was tried and not one came up: whoever waits for the start need not wait for
    /// the intensity to be exceeded, which slow failures never do.
    fn never_came_up(&self) -> bool {
        let pool = usize::from(self.config.slots) + usize::from(self.config.spares);
        !self.restart.came_up && self.restart.faults.len() >= pool
    }

    fn degrade(&mut self, what: &str) {
        let reason = format!(
            "{} workers ended within {} ms and no job is to blame; the last one: {what}",
            self.restart.faults.len(),
            self.config.restart_period_ms
        );
        self.restart.faults.clear();
        self.record(What::Degraded { reason: reason.clone() }, None);
        self.say_ready(format!("degraded: {reason}"));
        self.restart.degraded = Some(Degraded { reason, since_ns: self.now.mono_ns, level: 0 });
    }

    /// A worker could not be brought up: the next one waits at least the least backoff.
    pub(crate) fn spawn_fault(&mut self, id: WorkerId, error: String) {
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
        }
    }

    /// Tells whoever waits for the start, once.
    pub(crate) fn say_ready(&mut self, status: String) {
        if !std::mem::replace(&mut self.restart.ready_said, true) {
            self.act(Action::Ready { status });
        }
    }
}
