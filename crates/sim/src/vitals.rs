//! The vitals of a fake worker as the kernel would show them: processor time, resident memory, progress, stops by a signal.
//!
//! They are plain functions of time, so that the truth at any instant is known. The values last shown to the core are kept
//! for the oracles. The world moves them; they decide nothing.

use bulkhead_core::event::Event;
use bulkhead_proto::client::evidence::{ProcessSeen, RunState, TaskProgress};
use bulkhead_proto::death::Death;
use bulkhead_proto::ids::WorkerId;

use crate::agenda::Move;
use crate::clock::{MS, S};
use crate::rng::SimRng;
use crate::sabotage::Sabotage;
use crate::worker::{FakeRun, Life};
use crate::world::{NewsSource, World};

/// The number of SIGSTOP.
const SIGSTOP: i32 = 19;

/// What a worker uses at an instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceUse {
    /// Processor time of its life and of what it has started, in microseconds.
    pub cpu_us: u64,
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// When its task last made progress; 0: never.
    pub progress_ns: u64,
}

/// How a task behaves.
#[derive(Clone, Copy, Debug, Default)]
struct Manner {
    since_ns: u64,
    /// Cores that it keeps busy, in thousandths.
    cores: u64,
    bytes_per_ms: u64,
    /// Between two steps forward; 0: it makes none.
    progress_every_ns: u64,
}

/// The vitals of one worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vitals {
    /// When nothing runs.
    rest: ResourceUse,
    runs: Option<Manner>,
    /// Since when it is stopped.
    pub stopped_ns: Option<u64>,
    /// Since when the program of its task is stopped; never together with the field above.
    pub program_stopped_ns: Option<u64>,
    /// What it had used when it was last offered a task while it had none.
    pub offered: ResourceUse,
    /// What was last shown of it.
    pub shown: ResourceUse,
}

impl Vitals {
    /// The truth at this instant.
    pub fn at(&self, now_ns: u64) -> ResourceUse {
        let Some(manner) = self.runs else { return self.rest };
        let now_ns = self.still_ns().unwrap_or(now_ns);
        let ran_ns = now_ns.saturating_sub(manner.since_ns);
        let steps = ran_ns.checked_div(manner.progress_every_ns).unwrap_or(0);
        let progress_ns = manner.since_ns + steps * manner.progress_every_ns;
        ResourceUse {
            cpu_us: self.rest.cpu_us + ran_ns / 1000 * manner.cores / 1000,
            resident_bytes: self.rest.resident_bytes + ran_ns / MS * manner.bytes_per_ms,
            progress_ns: if steps > 0 { progress_ns } else { 0 },
        }
    }

    /// How far the task says it is: its steps forward, of some number that it knows or not.
    fn steps(&self, now_ns: u64) -> Option<TaskProgress> {
        let manner = self.runs?;
        let ran_ns = self.still_ns().unwrap_or(now_ns).saturating_sub(manner.since_ns);
        let done = ran_ns.checked_div(manner.progress_every_ns)?;
        Some(TaskProgress { done, total: if manner.cores == 0 { 0 } else { 7 } })
    }

    /// A task begins, and may use so many cores.
    pub fn begin(&mut self, now_ns: u64, cores: u32, rng: &mut SimRng) {
        let most = u64::from(cores) * 1000;
        self.runs = Some(Manner {
            since_ns: now_ns,
            cores: *rng.pick(&[0, 300, 1000, most]),
            bytes_per_ms: *rng.pick(&[0, 0, 10 << 10, 1 << 20]),
            progress_every_ns: *rng.pick(&[0, 5 * MS, 300 * MS, 4 * S]),
        });
    }

    /// A task has ended; a part of its memory stays.
    pub fn end(&mut self, now_ns: u64) {
        let used = self.at(now_ns);
        let grown = used.resident_bytes - self.rest.resident_bytes;
        self.rest =
            ResourceUse { resident_bytes: self.rest.resident_bytes + grown / 4, progress_ns: 0, ..used };
        self.runs = None;
    }

    /// Since when nothing of it runs.
    fn still_ns(&self) -> Option<u64> {
        self.stopped_ns.or(self.program_stopped_ns)
    }

    /// Whether nothing of it runs.
    pub fn is_still(&self) -> bool {
        self.still_ns().is_some()
    }

    pub(crate) fn resume(&mut self, now_ns: u64) {
        let Some(stopped_ns) = self.still_ns() else { return };
        (self.stopped_ns, self.program_stopped_ns) = (None, None);
        if let Some(manner) = &mut self.runs {
            manner.since_ns += now_ns - stopped_ns;
        }
    }
}

impl World {
    /// Shows a worker to the core.
    pub(crate) fn examine(&mut self, id: WorkerId) {
        let now_ns = self.clock.ns();
        let factor = if self.sabotage == Some(Sabotage::Exaggerate) { 4 } else { 1 };
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let used = worker.vitals.at(now_ns);
        worker.vitals.shown = used;
        // A third of it by what it has started.
        let below_us = used.cpu_us / 3 * factor;
        let seen = ProcessSeen {
            state: if worker.vitals.stopped_ns.is_some() { RunState::Stopped } else { RunState::Running },
            cpu_us: used.cpu_us * factor - below_us,
            below_us,
            resident_bytes: used.resident_bytes * factor,
            ..ProcessSeen::default()
        };
        let progress = worker.vitals.steps(now_ns).filter(|_| worker.run.is_some());
        let progress_ns = (used.progress_ns > 0 && factor == 1).then_some(used.progress_ns);
        let seen = worker.lives().then_some(seen);
        self.told_back.push(Event::Examined { worker: id, seen, progress_ns, progress });
    }

    /// A signal may stop a worker while it runs, and it may be continued.
    pub(crate) fn plan_stop(&mut self, id: WorkerId) {
        if self.rng.chance(self.scenario.faults.stop) {
            let after = self.rng.span(20 * MS);
            self.plan(after, Move::Stop(id));
        }
    }

    pub(crate) fn stop(&mut self, id: WorkerId) {
        let (now_ns, goes_on) = (self.clock.ns(), self.rng.chance(600));
        let after = self.rng.span(15 * S);
        let is_over = self.calm && self.scenario.spare_stops;
        let Some(worker) = self.workers.get_mut(&id).filter(|_| !is_over) else { return };
        if worker.life != Life::Up || worker.vitals.is_still() {
            return;
        }
        worker.vitals.stopped_ns = Some(now_ns);
        worker.tells.stops.push(Event::Suspended { worker: id, signal: SIGSTOP });
        self.report.stopped += 1;
        self.news.insert(NewsSource::Worker(id));
        if goes_on {
            self.plan(after, Move::Continue(id));
        }
    }

    pub(crate) fn go_on(&mut self, id: WorkerId) {
        let now_ns = self.clock.ns();
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.life != Life::Up || worker.vitals.stopped_ns.is_none() {
            return;
        }
        worker.vitals.resume(now_ns);
        worker.tells.stops.push(Event::Resumed { worker: id });
        self.news.insert(NewsSource::Worker(id));
        self.plan_work(id, MS);
    }

    /// The task of a worker begins.
    pub(crate) fn begin_run(&mut self, id: WorkerId, run: FakeRun) {
        let (now_ns, cores) = (self.clock.ns(), self.scenario.config.cores);
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.run = Some(run);
            worker.vitals.begin(now_ns, cores, &mut self.rng);
        }
        self.plan_stop(id);
        self.plan_program_stop(id);
    }

    /// One of the ways in which a worker can die by itself.
    pub(crate) fn own_death(&mut self) -> Death {
        let (core, signal) = (self.rng.chance(500), 11);
        match self.rng.below(7) {
            0 => Death::Fault { signal, core, address: 0 },
            1 => Death::StackOverflow { signal, core, address: 0x7ff8 },
            2 => Death::AllocationFailed { signal: 6, core, bytes: 1 << 40 },
            3 => Death::Sent { signal: 15, core, sender_pid: 77 },
            4 => Death::Exited { code: 0 },
            5 => Death::Exited { code: 3 },
            _ => Death::Signalled { signal, core },
        }
    }
}
