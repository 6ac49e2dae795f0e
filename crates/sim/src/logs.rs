//! Scenarios whose kinds keep logs: which kinds do, how many logs are kept, which clients ask for them, and how the fake
//! shell holds them.
//!
//! Drawn apart from everything else, so that a seed without logs means what it always did. Logs have no content here: the
//! supervisor reads none either.

#![deny(clippy::wildcard_enum_match_arm)]

use bulkhead_core::config::Config;
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::ids::{ClientId, LogId, Tag};

use crate::clock::MS;
use crate::report::Verdict;
use crate::rng::SimRng;
use crate::sabotage::Sabotage;
use crate::world::World;

/// What the draws of this file begin with. Chosen so that no seed of `tests/regressions.rs` has logs.
const SALT: u64 = 0x0106_691d;

/// Lets the kinds of some seeds keep logs; one that plans never does.
pub(crate) fn keep(seed: u64, config: &mut Config) -> bool {
    let mut rng = SimRng::new(seed ^ SALT);
    if !rng.chance(500) {
        return false;
    }
    let some = 1 + rng.below(7);
    let kinds = config.kinds.iter_mut().filter(|kind| !kind.plans);
    kinds.enumerate().for_each(|(at, kind)| kind.logs = some >> at & 1 == 1);
    config.keep_logs_max = *rng.pick(&[0, 1, 3, 20, 256]);
    true
}

impl World {
    /// A client asks for the log of its own job, of another user's job, or of none.
    pub(crate) fn ask_for_log(&mut self, place: usize) -> Request {
        let place = if self.rng.chance(300) { self.rng.place(self.clients.len()) } else { place };
        Request::Logs { job: self.some_job(place), follow: self.rng.chance(500) }
    }

    /// Whether no descriptor can be made for a task now. Where kinds keep logs that lasts for a while.
    pub(crate) fn is_short(&mut self) -> bool {
        let now_ns = self.clock.ns();
        if !self.calm && now_ns < self.short_until_ns {
            return true;
        }
        let begins = self.rng.chance(self.scenario.faults.shortage);
        if begins && self.scenario.logs {
            self.short_until_ns = now_ns + self.rng.span(300 * MS);
        }
        begins
    }

    /// Sends a log, if it could be made.
    pub(crate) fn show_log(&mut self, client: ClientId, tag: Tag, reply: Reply, log: LogId) -> Verdict {
        let reply = if let Reply::Logs { job, attempt, .. } = reply {
            Reply::Logs { job, attempt, is_there: self.logs.contains(&log) }
        } else {
            reply
        };
        self.deliver(client, tag, reply, None)
    }

    /// Drops a log.
    pub(crate) fn drop_log(&mut self, log: LogId) {
        if self.sabotage != Some(Sabotage::KeepLogs) {
            self.logs.remove(&log);
        }
        self.log_dropped(log);
    }
}
