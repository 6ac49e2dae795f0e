//! Scenarios in which workers leave processes that the daemon may not end, and spares are stopped by a signal: both are seen only
//! by who the daemon shows what, and by spares that come back.
//!
//! Drawn apart from everything else, so that a seed without them means what it always did. A worker that reported such
//! processes leaves these; others leave one now and then, and sometimes nothing shows which worker it was. They end by
//! themselves, some after the faults.

#![deny(clippy::wildcard_enum_match_arm)]

use bulkhead_core::event::{Event, LeftProcess};
use bulkhead_proto::client::outcome::Survivor;
use bulkhead_proto::ids::WorkerId;
use bulkhead_proto::limits::SURVIVORS_SHOWN;

use crate::agenda::Move;
use crate::clock::S;
use crate::report::Verdict;
use crate::rng::SimRng;
use crate::world::World;

/// What the draws of this file begin with. Chosen so that no seed of `tests/regressions.rs` has any of it.
const STRAY_SALT: u64 = 0x8ff4_b63e;
const SPARE_SALT: u64 = 0xc0cf_b6e7;

/// Whether workers of this seed leave processes.
pub(crate) fn leave(seed: u64) -> bool {
    SimRng::new(seed ^ STRAY_SALT).chance(400)
}

/// Whether spares of this seed are stopped.
pub(crate) fn stop_spares(seed: u64) -> bool {
    SimRng::new(seed ^ SPARE_SALT).chance(400)
}

impl World {
    /// The process id of a process that a task leaves. Without strays nobody looks at it.
    pub(crate) fn name_survivor(&mut self, id: WorkerId) -> u32 {
        if !self.scenario.strays {
            return 7;
        }
        self.strays_made += 1;
        let pid = 20_000 + self.strays_made;
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.left.push(pid);
        }
        pid
    }

    /// A worker is gone: what lives on of its tasks is told before its death.
    pub(crate) fn leave_strays(&mut self, id: WorkerId, batch: &mut Vec<Event>) {
        if !self.scenario.strays || self.strays.len() > SURVIVORS_SHOWN / 2 {
            return;
        }
        if !self.calm && self.rng.chance(150) {
            self.name_survivor(id);
        }
        let pids = self.workers.get_mut(&id).map(|worker| std::mem::take(&mut worker.left));
        let pids = pids.unwrap_or_default();
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            let survivor = Survivor { pid, uid: Some(0), name: "sudo".to_owned() };
            let worker = (!self.rng.chance(200)).then_some(id);
            self.strays.push(LeftProcess { survivor, worker });
            let after = self.rng.span(60 * S);
            self.plan(after, Move::StrayEnds(pid));
        }
        self.report.strays += 1;
        batch.push(Event::LiveOn { left: self.strays.clone() });
    }

    /// Such a process has ended.
    pub(crate) fn end_stray(&mut self, pid: u32) {
        self.strays.retain(|left| left.survivor.pid != pid);
        self.told_back.push(Event::LiveOn { left: self.strays.clone() });
    }

    /// A signal may stop a worker that has just come up.
    pub(crate) fn plan_spare_stop(&mut self, id: WorkerId) {
        if self.scenario.spare_stops && !self.calm && self.rng.chance(250) {
            let after = self.rng.span(5 * S);
            self.plan(after, Move::Stop(id));
        }
    }

    /// Faults are over: each worker dies once more, and every spare is a spare again.
    pub(crate) fn replace_all(&mut self) -> Verdict {
        if !self.scenario.spare_stops {
            return Ok(());
        }
        let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
        for id in ids {
            let after = self.rng.span(S);
            self.plan(after, Move::Die(id));
        }
        self.rest()
    }
}
