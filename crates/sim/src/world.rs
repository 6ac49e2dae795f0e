//! The world: the core, a fake shell around it, fake workers and clients, and the loop that drives them.
//!
//! Each round takes a random due move of the outside world or a turn of the supervisor, or lets time pass until the next of
//! either. The world never decides what the daemon should do, and asks the oracles after every step.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::Core;
use bulkhead_core::action::{Action, Output};
use bulkhead_core::event::{Event, LeftProcess, Now};
use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::outcome::{Outcome, TimeLimit};
use bulkhead_proto::client::record::What;
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::{ClientId, FileId, LogId, OutputId, PoolId, ScratchId, WorkerId};
use bulkhead_proto::worker::stage::Stage;

use crate::agenda::{Agenda, Move};
use crate::client::FakeClient;
use crate::clock::{Clock, MS, S, US};
use crate::disk::FakeDisk;
use crate::oracle::Oracles;
use crate::report::{BrokenRule, RunReport, Verdict};
use crate::rng::SimRng;
use crate::sabotage::{self, Sabotage};
use crate::scenario::Scenario;
use crate::trace::Trace;
use crate::worker::FakeWorker;

/// Where the supervisor may find something to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NewsSource {
    Worker(WorkerId),
    Client(usize),
}

/// Everything.
pub struct World {
    pub(crate) core: Core,
    pub(crate) scenario: Scenario,
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) rng: SimRng,
    pub(crate) clock: Clock,
    pub(crate) agenda: Agenda,
    pub(crate) workers: BTreeMap<WorkerId, FakeWorker>,
    pub(crate) clients: Vec<FakeClient>,
    pub(crate) clients_made: u64,
    /// Executions of each task so far, by its input and part: what a job that fails n times counts by.
    pub(crate) executions: BTreeMap<Vec<u8>, u32>,
    /// Events that performing made, for the next turn.
    pub(crate) told_back: Vec<Event>,
    /// Clients that have read all, and for which the core does not wait.
    pub(crate) late_flushes: Vec<ClientId>,
    /// The sources that have news.
    pub(crate) news: BTreeSet<NewsSource>,
    /// Descriptors that the fake shell holds.
    pub(crate) held: BTreeSet<OutputId>,
    pub(crate) outputs_made: u64,
    /// Files of clients, and shared outputs, that it holds.
    pub(crate) files: BTreeSet<FileId>,
    pub(crate) files_made: u64,
    pub(crate) scratches: BTreeSet<ScratchId>,
    /// Logs that it holds.
    pub(crate) logs: BTreeSet<LogId>,
    /// What the inspector was answered last.
    pub(crate) answers: Vec<Reply>,
    /// Processes of dead workers that live on, and how many there ever were.
    pub(crate) strays: Vec<LeftProcess>,
    pub(crate) strays_made: u32,
    pub(crate) inspector: ClientId,
    pub(crate) inspections: u32,
    pub(crate) out: Output,
    /// Both clocks as the step that is being performed saw them.
    pub(crate) decided_at: Now,
    pub(crate) exited: bool,
    /// Until when no descriptor can be made.
    pub(crate) short_until_ns: u64,
    /// The journal and its disk.
    pub(crate) disk: FakeDisk,
    /// The pool that cannot start a worker now.
    pub(crate) down: Option<PoolId>,
    pub(crate) calm: bool,
    /// The oracles.
    pub oracles: Oracles,
    /// The trace.
    pub trace: Trace,
    /// Counts for the report.
    pub report: RunReport,
}

impl World {
    /// A world at its beginning.
    pub fn new(scenario: Scenario, sabotage: Option<Sabotage>, trace: Trace) -> Self {
        let clock = Clock::new();
        let down = scenario.down.filter(|down| down.early).map(|down| down.pool);
        let mut world = Self {
            core: Core::new(sabotage::told(&scenario.config, sabotage), clock.now()),
            rng: SimRng::new(scenario.seed),
            oracles: Oracles::new(&scenario),
            report: RunReport { seed: scenario.seed, ..RunReport::default() },
            scenario,
            sabotage,
            clock,
            agenda: Agenda::default(),
            workers: BTreeMap::new(),
            clients: Vec::new(),
            clients_made: 0,
            executions: BTreeMap::new(),
            told_back: Vec::new(),
            late_flushes: Vec::new(),
            news: BTreeSet::new(),
            held: BTreeSet::new(),
            outputs_made: 0,
            files: BTreeSet::new(),
            files_made: 0,
            scratches: BTreeSet::new(),
            logs: BTreeSet::new(),
            answers: Vec::new(),
            strays: Vec::new(),
            strays_made: 0,
            inspector: ClientId(u64::MAX),
            inspections: 0,
            out: Output::default(),
            decided_at: Now::default(),
            exited: false,
            short_until_ns: 0,
            disk: FakeDisk::default(),
            down,
            calm: false,
            trace,
        };
        world.populate();
        world
    }

    /// Does one step. `false`: nothing is left to happen.
    ///
    /// # Errors
    /// A broken promise.
    pub(crate) fn tick(&mut self) -> Result<bool, BrokenRule> {
        let now = self.clock.ns();
        let due = self.agenda.next_ns().is_some_and(|at| at <= now);
        let can_turn = self.can_turn();
        if due && (!can_turn || self.rng.chance(self.scenario.faults.slow_turn)) {
            self.move_on()?;
        } else if can_turn {
            self.turn()?;
        } else {
            return Ok(self.let_time_pass(self.core.deadline()));
        }
        Ok(true)
    }

    fn can_turn(&self) -> bool {
        let wanted = self.core.deadline().is_some_and(|at| at <= self.clock.ns());
        !self.exited && (wanted || !self.told_back.is_empty() || !self.news.is_empty())
    }

    fn let_time_pass(&mut self, deadline: Option<u64>) -> bool {
        let deadline = deadline.filter(|_| !self.exited);
        let Some(next) = [self.agenda.next_ns(), deadline].into_iter().flatten().min() else { return false };
        let mut until = next;
        if self.rng.chance(self.scenario.faults.oversleep) {
            until += if self.rng.chance(20) { self.rng.span(60 * S) } else { self.rng.span(20 * MS) };
        }
        self.clock.advance_to(until);
        true
    }

    /// The next due move of the outside world.
    pub(crate) fn move_on(&mut self) -> Verdict {
        match self.agenda.take_due(self.clock.ns()) {
            Some(what) => self.perform_move(what),
            None => Ok(()),
        }
    }

    /// Between any two steps of the supervisor, something else may happen.
    pub(crate) fn interleave(&mut self) -> Verdict {
        while self.rng.chance(self.scenario.faults.interleave) {
            self.clock.advance_to(self.clock.ns() + self.rng.below(20 * US));
            self.move_on()?;
        }
        Ok(())
    }

    /// One turn: hear, decide, perform.
    fn turn(&mut self) -> Verdict {
        let mut batch = std::mem::take(&mut self.told_back);
        self.hear(&mut batch);
        if batch.is_empty() && self.core.deadline().is_none_or(|at| at > self.clock.ns()) {
            return Ok(());
        }
        self.hear_late_flushes(&mut batch);
        self.step(batch)?;
        if self.report.steps.is_multiple_of(self.scenario.look_every) && !self.exited {
            self.inspect()?;
        }
        Ok(())
    }

    /// The core decides about a batch, the oracles judge, the shell performs.
    pub(crate) fn step(&mut self, mut batch: Vec<Event>) -> Verdict {
        let now = self.clock.now();
        self.report.steps += 1;
        self.oracles.ledger.pauses.step(now.mono_ns, self.core.deadline());
        let mut outside = false;
        let looks = batch.iter().any(|event| self.is_ours(event));
        for event in &batch {
            self.trace.note(now.mono_ns, "event", event);
            outside |= !is_answer(event);
            self.count_event(event);
            self.oracles.told(now, event)?;
        }
        if !looks {
            self.oracles.quiet.step(now.mono_ns, outside)?;
        }
        sabotage::hide(self.sabotage, &mut batch);
        self.interleave()?;
        let mut out = std::mem::take(&mut self.out);
        self.core.step(now, &mut batch, &mut out);
        self.audit();
        if let Some(sabotage) = self.sabotage {
            sabotage.spoil(&mut out, &mut self.rng);
        }
        for record in &out.records {
            self.trace.note(now.mono_ns, "record", record);
        }
        for action in &out.actions {
            let word = if self.is_look(action) { "look" } else { "action" };
            self.trace.note(now.mono_ns, word, action);
        }
        self.count_actions(&out);
        self.decided_at = now;
        self.disk.decided(&out)?;
        self.oracles.decided(now, &out, &self.workers)?;
        out.records.clear();
        self.add_facts(std::mem::take(&mut out.facts))?;
        self.perform(&mut out.actions)?;
        self.oracles.replies.over();
        self.out = out;
        self.out.actions.clear();
        self.oracles.quiet.wants(now.mono_ns, self.core.deadline())
    }

    /// The core's own invariants: after every step, or every few while it has many jobs to walk through.
    fn audit(&self) {
        let every = 1 + self.oracles.ledger.accepted_count() / 100;
        if self.report.steps.is_multiple_of(every) {
            self.core.audit();
        }
    }

    /// Whether an event is the inspector's: the oracle `quiet` neither asks for its cause nor takes it as one.
    fn is_ours(&self, event: &Event) -> bool {
        match event {
            Event::ClientSaid { client, .. } | Event::ClientFlushed { client } => *client == self.inspector,
            _ => false,
        }
    }

    /// Whether an action is a reply to the inspector.
    fn is_look(&self, action: &Action) -> bool {
        let (Action::Reply { client, .. } | Action::ShowLog { client, .. }) = action else { return false };
        *client == self.inspector
    }

    fn count_event(&mut self, event: &Event) {
        match event {
            Event::Died { .. } => self.report.deaths += 1,
            Event::Violated { .. } => self.report.violations += 1,
            Event::TookBack { won: true, .. } => self.report.taken_back += 1,
            Event::OfferFailed { .. } => self.report.failed_offers += 1,
            _ => {}
        }
    }

    fn count_actions(&mut self, out: &Output) {
        let is_for_stop = |what: &What| match what {
            What::Ended { outcome: Outcome::TimedOut { limit, .. }, .. } => {
                *limit == TimeLimit::ProgramStopped
            }
            _ => false,
        };
        let ended = out.records.iter().filter(|record| is_for_stop(&record.what));
        self.report.programs_ended += ended.count() as u64;
        for action in &out.actions {
            match action {
                Action::Retire { .. } => self.report.retired += 1,
                Action::DropFile { .. } => self.report.files += 1,
                Action::ShowLog { .. } => self.report.logs += 1,
                Action::Reply { reply: Reply::Progress { .. }, .. } => self.report.told += 1,
                Action::Offer { task, .. } => {
                    self.report.parts += u64::from(matches!(task.stage, Stage::Run { .. }));
                    self.report.merges += u64::from(matches!(task.stage, Stage::Merge { .. }));
                }
                Action::Kill {
                    why: KillReason::NoProgress | KillReason::CpuTime | KillReason::Memory { .. },
                    ..
                } => self.report.limits += 1,
                _ => {}
            }
        }
    }

    /// Plans a move after a while.
    pub(crate) fn plan(&mut self, after_ns: u64, what: Move) {
        self.agenda.add(self.clock.ns() + after_ns, what, &mut self.rng);
    }
}

/// Events that only answer what the core asked for: they do not excuse another turn at the same instant.
fn is_answer(event: &Event) -> bool {
    matches!(
        event,
        Event::TookBack { .. }
            | Event::Looked { .. }
            | Event::Examined { .. }
            | Event::OfferFailed { .. }
            | Event::OutputShort { .. }
            | Event::SpawnFailed { .. }
    )
}
