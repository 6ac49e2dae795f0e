//! The drain: how the daemon stops, stage by stage.
//!
//! A client or the first SIGTERM begins it; `begin_drain`, `grace_over`, `stop` and `tend_drain`, which every turn calls,
//! go through the stages. Anything else than the table says is an assertion.
//!
//! | stage | new jobs | jobs | workers | leaves to |
//! |---|---|---|---|---|
//! | open | taken | run | kept | draining (drain), leaving (stop) |
//! | draining | refused | run until none is left | kept | leaving (none left, grace over, stop) |
//! | leaving | refused | all have ended | asked to leave; tasks told to end; killed | over (none alive, letters read or farewell over) |
//! | over | refused | - | - | |
//!
//! Durable jobs end with no daemon: those that wait are put off when the drain begins, those that run when it is over, for the next run.
//! Tasks that still run in `leaving` have the grace that their job asked for, else that of their kind; workers of tasks
//! without one are killed. A stop in that stage, as a further signal asks for it, kills all workers at once.

use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::{ClientId, Tag, WorkerId};

use crate::action::Action;
use crate::event::{Leftover, Peer};
use crate::job::Doing;
use crate::machine::Core;
use crate::turn::{Alarm, AlarmSlot, Owner, ms};
use crate::view::DrainState;

/// How long the end waits for clients that do not read their last results, in milliseconds.
const FAREWELL_MS: u64 = 2000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum DrainStage {
    #[default]
    Open,
    Draining,
    Leaving,
    Over,
}

impl DrainStage {
    /// The stages that this one may be left for: the table at the top of this file.
    fn leads_to(self) -> &'static [DrainStage] {
        match self {
            DrainStage::Open => &[DrainStage::Draining, DrainStage::Leaving],
            DrainStage::Draining => &[DrainStage::Leaving],
            DrainStage::Leaving => &[DrainStage::Over],
            DrainStage::Over => &[],
        }
    }
}

/// How far the drain is.
#[derive(Debug, Default)]
pub(super) struct Drain {
    stage: DrainStage,
    /// When the grace or the wait for clients is over.
    alarm: AlarmSlot,
    /// Whether [`FAREWELL_MS`] have passed since every worker ended.
    farewell_over: bool,
    /// Clients that asked for the drain: each gets [`Reply::Drained`] at its end.
    asked: Vec<(ClientId, Tag)>,
    /// Jobs that ended as lost because of the drain.
    lost: u64,
}

impl Drain {
    /// Whether new jobs are taken.
    pub(super) fn is_open(&self) -> bool {
        self.stage == DrainStage::Open
    }

    /// As views show it.
    pub(super) fn seen(&self) -> DrainState {
        DrainState { is_open: self.is_open(), is_leaving: self.is_leaving(), until_ns: self.alarm.at_ns() }
    }

    /// Whether every job has ended and workers are on their way out.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.stage, DrainStage::Leaving | DrainStage::Over)
    }

    /// Whether the daemon was told to exit.
    pub(super) fn is_over(&self) -> bool {
        self.stage == DrainStage::Over
    }

    /// The one way from stage to stage.
    ///
    /// # Panics
    /// If the table of stages does not have it.
    fn enter(&mut self, stage: DrainStage) {
        let from = self.stage;
        assert!(from.leads_to().contains(&stage), "the drain went from {from:?} to {stage:?}");
        self.stage = stage;
    }
}

impl Core {
    /// A client asks for the drain. Only root and administrators may.
    pub(super) fn asked_to_drain(&mut self, id: ClientId, tag: Tag, peer: Peer, grace_ms: Option<u64>) {
        if !peer.admin {
            let needed = "only root and administrators drain the daemon".to_owned();
            return self.refuse(id, tag, Refusal::Denied { needed });
        }
        self.begin_drain(grace_ms);
        let left = self.jobs.unended();
        self.reply(id, tag, Reply::Draining { left }, 16);
        // One entry for each connected client, so the list is no longer than that of clients.
        let clients = &self.clients;
        self.drain.asked.retain(|(other, _)| *other != id && clients.is_connected(*other));
        self.drain.asked.push((id, tag));
    }

    /// Takes no new jobs and ends what was accepted; a second one can only shorten the grace.
    pub(super) fn begin_drain(&mut self, grace_ms: Option<u64>) {
        if self.drain.is_leaving() {
            return;
        }
        if self.drain.is_open() {
            self.drain.enter(DrainStage::Draining);
            let left = self.jobs.unended();
            self.turn.record(What::Draining { left, grace_ms }, Owner::Service);
            self.put_off(|doing| matches!(doing, Doing::Queued | Doing::Backoff { .. } | Doing::Alone));
        }
        let Some(grace_ms) = grace_ms else { return };
        let until_ns = self.turn.now_ns().saturating_add(ms(grace_ms));
        // A later drain with a longer grace changes nothing: another client relies on the earlier end.
        if self.drain.alarm.at_ns().is_none_or(|old_ns| until_ns < old_ns) {
            self.turn.set(&mut self.drain.alarm, Alarm::Grace, until_ns);
        }
    }

    /// The alarm went off: the grace of the drain, or the wait for clients, is over.
    pub(super) fn grace_over(&mut self) {
        self.drain.alarm.clear();
        if self.drain.is_leaving() {
            self.drain.farewell_over = true;
        } else {
            self.stop();
        }
    }

    /// Ends every job that has not ended as lost, and has `tend_drain` end its workers; a second stop kills them.
    pub(super) fn stop(&mut self) {
        if self.drain.is_open() {
            let left = self.jobs.unended();
            self.turn.record(What::Draining { left, grace_ms: Some(0) }, Owner::Service);
        }
        if self.drain.is_leaving() {
            for id in self.workers.ids() {
                self.kill(id, KillReason::Stop);
            }
            return;
        }
        self.leave();
        self.put_off(|_| true);
        for run in self.jobs.all_unended() {
            let outcome = match self.met_limit(run) {
                Some(met) => met.outcome(),
                None => Outcome::Lost { reason: "the service stopped".to_owned() },
            };
            self.drain.lost += u64::from(matches!(outcome, Outcome::Lost { .. }));
            self.end_task(run, outcome, Leftover::Nothing);
        }
        // All at once, but tasks that have a grace: no result of theirs is waited for any more.
        for id in self.workers.ids() {
            if !self.workers.gives_grace(id) {
                self.kill(id, KillReason::Stop);
            }
        }
    }

    /// Removes durable jobs that have not ended from the table. The journal keeps them unfinished for the next run, and no client hears of
    /// an end.
    fn put_off(&mut self, is_wanted: impl Fn(Doing) -> bool) {
        for run in self.jobs.all_unended() {
            if self.jobs.batch(run).is_durable() && is_wanted(self.jobs.job(run).doing()) {
                let released = self.jobs.put_off(&mut self.turn, run);
                self.relieve(released);
            }
        }
    }

    fn leave(&mut self) {
        self.drain.enter(DrainStage::Leaving);
        self.turn.cancel(&mut self.drain.alarm, Alarm::Grace);
    }

    /// Moves the drain on, at the end of each turn: workers leave once no job is left.
    pub(super) fn tend_drain(&mut self) {
        if self.drain.stage == DrainStage::Draining && self.jobs.unended() == 0 {
            self.leave();
        }
        if self.drain.stage != DrainStage::Leaving {
            return;
        }
        // Every job has ended, so the offers that workers still hold are of ended jobs.
        let workers: Vec<(WorkerId, WorkerState)> =
            self.workers.iter().map(|(id, worker)| (id, worker.shown())).collect();
        for (id, state) in workers {
            match state {
                WorkerState::Spare | WorkerState::Idle => self.workers.retire(&mut self.turn, id),
                WorkerState::Starting => self.kill(id, KillReason::Stop),
                WorkerState::Busy => {
                    let need = self.workers.end_for_stop(&mut self.turn, id);
                    self.follow_up(id, need);
                }
                WorkerState::Retiring | WorkerState::Killed | WorkerState::Stuck => {}
            }
        }
        // A stuck worker does not hold the daemon.
        if self.workers.len() == self.workers.count(WorkerState::Stuck) {
            self.say_farewell();
        }
    }

    /// Waits at most [`FAREWELL_MS`] for clients to read their last results, then tells the shell to exit.
    fn say_farewell(&mut self) {
        if (self.clients.have_letters() || !self.held_back.is_empty()) && !self.drain.farewell_over {
            if self.drain.alarm.at_ns().is_none() {
                self.turn.set(&mut self.drain.alarm, Alarm::Grace, self.turn.after_ms(FAREWELL_MS));
            }
            return;
        }
        self.drain.enter(DrainStage::Over);
        self.turn.cancel(&mut self.drain.alarm, Alarm::Grace);
        let lost = self.drain.lost;
        for (id, tag) in std::mem::take(&mut self.drain.asked) {
            self.reply(id, tag, Reply::Drained { lost }, 16);
        }
        self.turn.record(What::Stopped, Owner::Service);
        self.turn.act(Action::Exit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_stages_is_the_code() {
        let names = |stages: &[DrainStage]| stages.iter().map(|stage| format!("{stage:?}")).collect();
        let code = crate::every_state!(DrainStage: Open, Draining, Leaving, Over)
            .map(|stage| (format!("{stage:?}"), names(stage.leads_to())));
        crate::state_tables::assert_told(include_str!("drain.rs"), code);
    }

    #[test]
    #[should_panic(expected = "the drain went from Leaving to Draining")]
    fn the_drain_never_goes_back() {
        let mut drain = Drain::default();
        drain.enter(DrainStage::Leaving);
        drain.enter(DrainStage::Draining);
    }
}
