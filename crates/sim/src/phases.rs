//! The course of a run: faults, then calm, then the end.
//!
//! Once faults stop, everything has to come to rest by itself, within the bounds here. They are simulated time and counted
//! steps, never the host's clock.

use bulkhead_core::event::Event;
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::JobState;

use crate::agenda::Move;
use crate::client::Pace;
use crate::clock::{MS, S};
use crate::oracle::fairness::SINGLE_UID;
use crate::report::{BrokenRule, RunReport, Verdict, broken};
use crate::scenario::Faults;
use crate::truth::Truth;
use crate::world::World;

/// The longest time of faults, in simulated nanoseconds.
const TROUBLE_NS: u64 = 300 * S;
/// How long everything may take to come to rest: the longest backoffs, proofs and limits, several times over.
const REST_NS: u64 = 2 * 3600 * S;
/// Things that may happen meanwhile.
const TICKS_MAX: u64 = 300_000;

impl World {
    /// A whole run.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn run(&mut self) -> Result<RunReport, BrokenRule> {
        self.trouble()?;
        self.calm_down();
        let asked = |event: &Event| matches!(event, Event::Drain { .. } | Event::Stop);
        let stopping = self.oracles.ledger.stopping || self.told_back.iter().any(asked);
        if !self.exited && !stopping {
            self.rest_beside_a_dead_pool()?;
            self.rest()?;
            self.replace_all()?;
            self.fill_rings()?;
            self.settle_accounts()?;
            self.told_back.push(Event::Drain { grace_ms: None });
        }
        self.leave()?;
        let mut report = std::mem::take(&mut self.report);
        report.seed = self.scenario.seed;
        report.hash = self.trace.hash();
        report.jobs = self.oracles.ledger.accepted_count();
        report.charges = self.oracles.records.charges;
        report.stuck = self.oracles.records.stuck;
        report.lent = self.oracles.lending.lent;
        report.jammed = self.oracles.unclosed.replaced;
        report.deepest = self.oracles.depth.deepest as u64;
        report.passed_over = self.oracles.fairness.most;
        Ok(report)
    }

    /// Clients ask and faults happen until all clients have sent all their requests, and a while longer.
    fn trouble(&mut self) -> Verdict {
        let least = self.clock.ns() + self.scenario.trouble_ns;
        let end = self.clock.ns() + TROUBLE_NS;
        for _ in 0..TICKS_MAX {
            let asking = self.clients.iter().any(|client| client.acts_left > 0);
            let now = self.clock.ns();
            if self.exited || !asking && now > least || now > end {
                break;
            }
            if !self.tick()? {
                break;
            }
        }
        Ok(())
    }

    /// Faults stop: clients send nothing more and read all replies, and hung workers go on.
    fn calm_down(&mut self) {
        self.calm = true;
        let timing = self.scenario.faults;
        self.scenario.faults = Faults {
            slow_turn: timing.slow_turn,
            interleave: timing.interleave,
            overlook: timing.overlook,
            ..Faults::default()
        };
        self.agenda.keep(|what| !matches!(what, Move::Act(_) | Move::SetWall | Move::Shutdown));
        for place in 0..self.clients.len() {
            self.clients[place].acts_left = 0;
            self.clients[place].written.retain(|(_, request)| !matches!(request, Request::Drain { .. }));
            self.clients[place].pace = Pace::Prompt;
            self.clients[place].reading = false;
            self.plan_reading(place);
        }
        let ids: Vec<_> = self.workers.keys().copied().collect();
        for id in ids {
            self.thaw(id);
        }
    }

    /// A hostile worker keeps to the rules from now on, and a hung worker dies. A task that never ends goes on.
    fn thaw(&mut self, id: bulkhead_proto::ids::WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let (broken_rules, stopped) = (worker.hostile, worker.vitals.stopped_ns.is_some());
        let has_stopped_program = worker.vitals.program_stopped_ns.is_some();
        worker.hostile = false;
        let loops = worker.run.as_ref().is_some_and(|run| run.loops);
        let is_doomed = broken_rules || worker.hung && !loops;
        if stopped {
            let after = self.rng.span(S);
            self.plan(after, Move::Continue(id));
        }
        if has_stopped_program {
            let after = self.rng.span(S);
            self.plan(after, Move::ContinueProgram(id));
        }
        if is_doomed {
            let after = self.rng.span(S);
            self.plan(after, Move::Die(id));
        }
    }

    /// Until every job has ended, and the pools are whole again; but for a pool that is down.
    pub(crate) fn rest(&mut self) -> Verdict {
        let end = self.clock.ns() + REST_NS;
        let mut next_look = self.clock.ns();
        let mut idle = 0;
        for _ in 0..TICKS_MAX {
            if self.clock.ns() >= next_look {
                if self.is_at_rest()? {
                    return Ok(());
                }
                next_look = self.clock.ns() + 500 * MS;
            }
            if self.clock.ns() > end {
                break;
            }
            if !self.tick()? {
                // No move is left: a look may find a task that never ends, which is cancelled, and then has to find rest.
                idle += 1;
                next_look = self.clock.ns();
                if idle > 10 {
                    break;
                }
            }
            if self.exited {
                return broken("ends", "the daemon left without being asked to");
            }
        }
        self.oracles.pool.is_whole_but(self.down)?;
        let mut live = self.list_all()?;
        live.retain(|row| row.state != JobState::Ended && !self.is_down(&row.kind));
        broken("ends", format!("after {} s of calm there are still {live:?}", REST_NS / S))
    }

    fn is_at_rest(&mut self) -> Result<bool, BrokenRule> {
        let mut live = self.list_all()?;
        live.retain(|row| row.state != JobState::Ended);
        self.end_loops(&live.iter().map(|row| row.job).collect::<Vec<_>>())?;
        live.retain(|row| !self.is_down(&row.kind));
        let unheard = !self.news.is_empty() || self.clients.iter().any(|client| client.unread_bytes > 0);
        let unheard = unheard || self.core.unstored() > 0;
        let settled = self.down.is_some() || self.oracles.ledger.offers.is_empty();
        Ok(live.is_empty() && !unheard && settled && self.oracles.pool.is_whole_but(self.down).is_ok())
    }

    /// A task that never ends is cancelled.
    fn end_loops(&mut self, live: &[JobId]) -> Verdict {
        let loops = |job: &JobId| self.oracles.ledger.input(*job).is_some_and(Truth::loops);
        let jobs: Vec<JobId> = live.iter().copied().filter(loops).collect();
        if !jobs.is_empty() {
            self.ask_as_inspector(vec![Request::Cancel { jobs }])?;
        }
        Ok(())
    }

    /// Every job has ended: each has one outcome, every waiting client got it, and forgetting leaves nothing behind.
    fn settle_accounts(&mut self) -> Verdict {
        self.inspect()?;
        self.await_look_ups()?;
        self.oracles.replies.finish(|_| true)?;
        let rows = self.list_all()?;
        self.oracles.ledger.kept(&rows)?;
        let kept: Vec<JobId> = rows.iter().map(|row| row.job).collect();
        for job in kept.iter().take(100) {
            let answer = self.ask_as_inspector(vec![Request::Result { job: *job }])?;
            let told = matches!(answer.as_slice(), [Reply::Ended(all)] if all.len() == 1);
            // Retention may end between the list and the question.
            let gone = matches!(answer.as_slice(), [Reply::Refused(Refusal::Gone { .. })])
                && self.oracles.ledger.may_be_old(*job, self.clock.now());
            if !told && !gone {
                return broken("lost", format!("job {job} has ended, and its result is {answer:?}"));
            }
            if self.scenario.logs {
                let job = *job;
                let logs = Request::Logs { job, follow: false };
                self.ask_as_inspector(vec![logs, Request::Why { job }, Request::Job { job }])?;
            }
        }
        if !self.scenario.forget {
            self.wait_for_retention()?;
        }
        self.forget_all()?;
        let left = self.list_all()?;
        if !left.is_empty() {
            return broken("lost", format!("all was forgotten, and {left:?} are listed"));
        }
        self.drop_registrations()?;
        self.oracles.outputs.finish(self.held.len())?;
        self.oracles.files.finish(self.files.len() + self.scratches.len())?;
        self.oracles.logs.finish(self.logs.len())?;
        self.oracles.memory.finish()?;
        self.wait_for_silence()
    }

    /// Forgets all jobs: durable ones as fast as the journal takes the facts of it.
    fn forget_all(&mut self) -> Verdict {
        for _ in 0..1000 {
            let kept: Vec<JobId> = self.list_all()?.iter().map(|row| row.job).collect();
            for jobs in kept.chunks(1000) {
                self.ask_as_inspector(vec![Request::Forget { jobs: jobs.to_vec() }])?;
            }
            if self.core.unstored() == 0 {
                break;
            }
            for _ in 0..TICKS_MAX {
                if self.core.unstored() == 0 || !self.tick()? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// What was asked about jobs that the journal alone has is answered turns later, and with the inspector's credit.
    fn await_look_ups(&mut self) -> Verdict {
        let rounds = if self.scenario.disk.is_some() { 50 } else { 0 };
        for _ in 0..rounds {
            self.ask_as_inspector(vec![Request::Ping])?;
            for _ in 0..10 {
                if self.told_back.is_empty() || !self.tick()? {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Lets time pass until the retention of all jobs is over.
    fn wait_for_retention(&mut self) -> Verdict {
        let end = self.clock.ns() + self.scenario.config.keep_ms * 9 / 8 * MS + 60 * S;
        for _ in 0..TICKS_MAX {
            if self.clock.ns() > end || !self.tick()? {
                break;
            }
        }
        self.clock.advance_to(end);
        while self.core.deadline().is_some_and(|at| at <= end) {
            self.step(Vec::new())?;
        }
        let kept = self.list_all()?;
        match kept.iter().find(|row| row.outcome.as_deref() != Some("crashed")) {
            Some(row) => {
                broken("lost", format!("{row:?} is kept beyond {} ms", self.scenario.config.keep_ms))
            }
            None => Ok(()),
        }
    }

    /// Nothing is left to do: the core wants to be woken a few times at most, and then never.
    fn wait_for_silence(&mut self) -> Verdict {
        for _ in 0..1000 {
            if self.told_back.is_empty() && self.news.is_empty() && self.core.deadline().is_none() {
                return Ok(());
            }
            if !self.tick()? {
                break;
            }
        }
        match self.core.deadline() {
            Some(at) => {
                broken("quiet", format!("nothing is left to do, and the core wants to be woken at {at}"))
            }
            None => Ok(()),
        }
    }

    /// The daemon was told to stop: it exits, with no worker alive, and every connected client got its ends.
    fn leave(&mut self) -> Verdict {
        // A job that waits for a pool that is down rightly holds up a drain without a grace.
        self.down = None;
        let end = self.clock.ns() + REST_NS;
        let mut cancelled = 0;
        for count in 0..TICKS_MAX {
            if self.exited {
                return Ok(());
            }
            if self.clock.ns() > end || !self.tick()? {
                break;
            }
            if count % 500 == 499 && cancelled < 50 && !self.exited {
                cancelled += 1;
                self.end_left_loops()?;
            }
        }
        if !self.exited {
            self.end_left_loops()?;
            for _ in 0..TICKS_MAX {
                if self.exited || !self.tick()? {
                    break;
                }
            }
        }
        if self.exited { Ok(()) } else { broken("ends", "the daemon was asked to stop, and does not leave") }
    }

    /// A drain without a grace waits for a task that never ends, until it is cancelled.
    fn end_left_loops(&mut self) -> Verdict {
        let live = self.list_all()?.into_iter().filter(|row| row.state != JobState::Ended);
        let live: Vec<JobId> = live.map(|row| row.job).collect();
        if self.exited { Ok(()) } else { self.end_loops(&live) }
    }
}
const _: () = assert!(SINGLE_UID == 1100, "the uid of the second client of the flood profile");
