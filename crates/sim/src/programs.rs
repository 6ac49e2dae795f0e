//! Scenarios in which signals stop the programs of tasks: whether a limit ends such a task, when a program is stopped, and
//! when it goes on.
//!
//! Drawn apart from everything else, so that a seed without such stops means what it always did. While a program is stopped
//! its task uses nothing and makes no progress; its worker lives on and hears. A hostile worker also tells of stops that
//! are none.

#![deny(clippy::wildcard_enum_match_arm)]

use bulkhead_core::config::Config;
use bulkhead_core::event::Event;
use bulkhead_proto::ids::{Seq, WorkerId};

use crate::agenda::Move;
use crate::clock::{MS, S};
use crate::rng::SimRng;
use crate::scenario::Profile;
use crate::worker::Life;
use crate::world::{NewsSource, World};

/// What the draws of this file begin with. Chosen so that no seed of `tests/regressions.rs` has such stops.
const SALT: u64 = 0x0570_9fcf;
/// The number of SIGSTOP.
const SIGSTOP: i32 = 19;

/// Has programs stopped in some seeds, and draws the limit.
pub(crate) fn stop(seed: u64, profile: Profile, config: &mut Config) -> bool {
    let mut rng = SimRng::new(seed ^ SALT);
    if matches!(profile, Profile::Quiet | Profile::Flood) || !rng.chance(400) {
        return false;
    }
    config.program_stopped_ms = *rng.pick(&[None, Some(50), Some(3000)]);
    true
}

impl World {
    /// The program of the task that a worker has begun may be stopped.
    pub(crate) fn plan_program_stop(&mut self, id: WorkerId) {
        if self.scenario.programs && self.rng.chance(150) {
            let after = self.rng.span(10 * MS);
            self.plan(after, Move::StopProgram(id));
        }
    }

    pub(crate) fn stop_program(&mut self, id: WorkerId) {
        let (now_ns, calm) = (self.clock.ns(), self.calm);
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.life == Life::Up && !calm) else {
            return;
        };
        let Some(seq) = worker.run.as_ref().map(|run| run.seq) else { return };
        if worker.vitals.is_still() {
            return;
        }
        worker.vitals.program_stopped_ns = Some(now_ns);
        let stopped = |seq| Event::ProgramStopped { worker: id, seq, pid: 77, signal: SIGSTOP };
        worker.tells.stops.push(stopped(seq));
        if worker.hostile {
            worker.tells.stops.push(stopped(Seq(self.rng.below(seq.0 + 3))));
            worker
                .tells
                .stops
                .push(Event::ProgramContinued { worker: id, seq: Seq(self.rng.below(seq.0 + 3)) });
        }
        self.report.programs += 1;
        self.news.insert(NewsSource::Worker(id));
        if self.rng.chance(600) {
            let most = *self.rng.pick(&[30 * MS, 15 * S]);
            let after = self.rng.span(most);
            self.plan(after, Move::ContinueProgram(id));
        }
    }

    pub(crate) fn continue_program(&mut self, id: WorkerId) {
        let now_ns = self.clock.ns();
        let Some(worker) = self.workers.get_mut(&id).filter(|worker| worker.life == Life::Up) else { return };
        if worker.vitals.program_stopped_ns.is_none() {
            return;
        }
        worker.vitals.resume(now_ns);
        if let Some(run) = &worker.run {
            worker.tells.stops.push(Event::ProgramContinued { worker: id, seq: run.seq });
        }
        self.news.insert(NewsSource::Worker(id));
        self.plan_work(id, MS);
        self.plan_program_stop(id);
    }
}
