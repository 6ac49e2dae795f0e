//! The oracles: what must hold after every step. The table at [`Oracles`] has the names that a failure prints.
//!
//! They see the events, the output of each turn, and the boxes. They never ask the core.

pub mod accounts;
pub mod arenas;
pub mod backoff;
pub mod credit;
pub mod depth;
pub mod durable;
pub mod exclusive;
pub mod expiry;
pub mod fairness;
pub mod files;
pub mod first;
pub mod job;
pub mod kept;
pub mod ledger;
pub mod lending;
pub mod limits;
pub mod logs;
pub mod memory;
pub mod on_demand;
pub mod one_user;
pub mod outputs;
pub mod overdue;
pub mod parts;
pub mod pauses;
pub mod pool;
pub mod programs;
pub mod promise;
pub mod quiet;
pub mod receipts;
pub mod records;
pub mod registrations;
pub mod replies;
pub mod stacks;
pub mod stuck_share;
pub mod turns;
pub mod unclosed;
pub mod unwanted;
pub mod users;
pub mod verdicts;
pub mod waiting;

use std::collections::BTreeMap;

use bulkhead_core::action::{Action, Output};
use bulkhead_core::event::{Event, Now};
use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::JobRow;
use bulkhead_proto::ids::{ClientId, JobId, OutputId, Tag, WorkerId};

use crate::report::Verdict;
use crate::scenario::{Profile, Scenario};
use crate::task::TaskId;
use crate::worker::FakeWorker;

/// All oracles.
///
/// | oracle | what must hold after every step |
/// |---|---|
/// | `lost` | an accepted job is known until it was forgotten, evicted or delivered |
/// | `outcome` | true, given once |
/// | `exclusive` | no job runs twice at once, by the truth of the boxes |
/// | `blame` | a death is charged to the first claimed job of a worker that we did not end, and to no other |
/// | `budget` | charges and retries stay within the policy; after a charge a job runs alone in a fresh worker |
/// | `limits` | a kill for a limit is true, and what met a limit is ended; a timed-out job met its limit, without the time in which nothing ran (`pauses`) |
/// | `unwanted` | a task whose kind gives it time is asked to end before its worker is killed for a cancel |
/// | `stacks` | a worker that writes its stack is asked for it before a kill for a limit of time or a cancel, and killed in time |
/// | `waiting` | a request to end what waits ends each job that no worker runs, and no task that has begun |
/// | `programs` | a task whose program a signal stopped is ended at its limit and not before, and few stops are recorded |
/// | `backoff` | a failed attempt, and a pool that cannot spawn, wait for the time that they tell |
/// | `kept` | ended jobs are kept for their time and within their bounds, and the right ones go first |
/// | `expiry` | jobs that expire, and jobs of clients that left, end at their time |
/// | `depth` | a worker holds no more tasks ahead than the time of their flavours allows, and up to a whole ring of the shortest |
/// | `pool` | a slot is not free while a spare is ready; a task runs only in the pool of its kind; nothing goes to a stopped worker, or past `recycle_tasks` while a spare is ready or recycling is strict; slots, seqs and rings are kept |
/// | `fairness` | a flood does not delay a neighbour |
/// | `lending` | who holds no worker waits no longer behind others than until a slot may be lent |
/// | `unclosed` | a worker with too many files of clients to close is offered nothing, and gives its slot to a spare while few workers are leaving |
/// | `first` | with `one_first`, the other workers of a pool wait for the first one, or for a second |
/// | `one user` | no worker of a pool that serves one user each is offered tasks of two |
/// | `stuck` | a user whose tasks make workers stuck is given no further worker beyond half of the slots, less those |
/// | `fewest`, `levels` | an idle worker goes to the user who holds the fewest, and runs the most urgent job of any of the user's connections |
/// | `replies` | each request gets what it was promised, in order, within its client's credit |
/// | `users` | only administrators see or change jobs of others, or see what their tasks left in a worker |
/// | `receipts` | a held result is kept until its receipt and not beyond |
/// | `parts` | each counts once, the merge comes after all, with what they left |
/// | `progress` | true, and never backwards |
/// | `memory` | no user has more memory in outputs and logs than a share |
/// | `accounts` | nobody who holds little is refused for others, no user gets more than a share |
/// | `on demand` | a task gets an output while it runs only if it asked, once, and may; each question has one answer at once |
/// | `files`, `outputs` | each is dropped exactly once, not while a worker has it |
/// | `registrations` | a worker keeps what an offer names that it holds; a block is said to be free once, when no worker has it |
/// | `logs` | each is shown to its owner and administrators alone, and goes once, with its job or attempt or as the oldest of the user who has most |
/// | `records` | they count up without a gap |
/// | `facts` | what the core knows of durable jobs is what its facts add up to, and each fact fits (`disk.rs`) |
/// | `stored` | no durable job is run, accepted or told of before the fact is stored |
/// | `ends` | once faults stop everything ends, a pool whose workers cannot start holding up no other |
/// | `quiet` | no turn after turn without cause |
/// | `panic` | no assertion |
pub struct Oracles {
    /// `lost`, `outcome`, `blame`, `budget`.
    pub ledger: ledger::JobOracle,
    /// `exclusive`.
    pub exclusive: exclusive::ExclusiveOracle,
    /// `pool`.
    pub pool: pool::PoolOracle,
    /// `replies`.
    pub replies: replies::ReplyOracle,
    /// `records`.
    pub records: records::RecordOracle,
    /// `quiet`.
    pub quiet: quiet::QuietOracle,
    /// `outputs`.
    pub outputs: outputs::OutputOracle,
    /// `fairness`.
    pub fairness: fairness::FairnessOracle,
    /// `levels`, `fewest`.
    pub turns: turns::TurnOracle,
    /// `programs`.
    pub programs: programs::ProgramOracle,
    /// `backoff`.
    pub backoff: backoff::BackoffOracle,
    /// `kept`.
    pub kept: kept::KeptOracle,
    /// `depth`.
    pub depth: depth::DepthOracle,
    /// `expiry`.
    pub expiry: expiry::ExpiryOracle,
    /// `limits`: who is killed for one has met it.
    pub limits: limits::LimitOracle,
    /// `limits`: what met one is ended.
    pub overdue: overdue::OverdueOracle,
    /// `unwanted`.
    pub unwanted: unwanted::UnwantedOracle,
    /// `stacks`.
    pub stacks: stacks::StackOracle,
    /// `files`.
    pub files: files::FileOracle,
    /// `logs`.
    pub logs: logs::LogOracle,
    /// `memory`.
    pub memory: memory::MemoryOracle,
    /// `users`.
    pub users: users::UserOracle,
    /// `accounts`.
    pub accounts: accounts::AccountOracle,
    /// `lending`.
    pub lending: lending::LendingOracle,
    /// `unclosed`.
    pub unclosed: unclosed::UnclosedOracle,
    /// `first`.
    pub first: first::FirstOracle,
    /// `one user`.
    pub one_user: one_user::OneUserOracle,
    /// `stuck`.
    pub stuck: stuck_share::StuckOracle,
    /// `registrations`.
    pub registrations: registrations::RegistrationOracle,
    /// `on demand`.
    pub on_demand: on_demand::OnDemandOracle,
    /// `arenas`.
    pub arenas: arenas::ArenaOracle,
    /// Durable submits.
    pub durable: durable::DurableSubmits,
}

impl Oracles {
    /// Before the first step.
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            ledger: ledger::JobOracle::new(&scenario.config),
            exclusive: exclusive::ExclusiveOracle::default(),
            pool: pool::PoolOracle::new(&scenario.config),
            replies: replies::ReplyOracle::new(scenario.config.client_credit_bytes),
            records: records::RecordOracle::new(scenario.config.records_max),
            quiet: quiet::QuietOracle::default(),
            outputs: outputs::OutputOracle::default(),
            fairness: fairness::FairnessOracle::new(scenario.profile, scenario.config.slots),
            turns: turns::TurnOracle::new(scenario),
            programs: programs::ProgramOracle::new(&scenario.config),
            backoff: backoff::BackoffOracle::new(&scenario.config),
            kept: kept::KeptOracle::new(&scenario.config),
            depth: depth::DepthOracle::default(),
            expiry: expiry::ExpiryOracle::new(&scenario.config),
            limits: limits::LimitOracle::default(),
            overdue: overdue::OverdueOracle::new(&scenario.config),
            unwanted: unwanted::UnwantedOracle::default(),
            stacks: stacks::StackOracle::default(),
            files: files::FileOracle::new(&scenario.config),
            logs: logs::LogOracle::new(&scenario.config),
            memory: memory::MemoryOracle::new(&scenario.config),
            users: users::UserOracle::default(),
            accounts: accounts::AccountOracle::new(&scenario.config),
            lending: lending::LendingOracle::new(
                &scenario.config,
                is_sure_of_waits(scenario),
                scenario.profile != Profile::Hostile,
            ),
            unclosed: unclosed::UnclosedOracle::default(),
            first: first::FirstOracle::new(&scenario.config),
            one_user: one_user::OneUserOracle::new(&scenario.config),
            stuck: stuck_share::StuckOracle::new(&scenario.config, scenario.profile != Profile::Hostile),
            registrations: registrations::RegistrationOracle::default(),
            on_demand: on_demand::OnDemandOracle::default(),
            arenas: arenas::ArenaOracle::new(&scenario.config),
            durable: durable::DurableSubmits::default(),
        }
    }

    /// The core is about to get this event.
    ///
    /// # Errors
    /// A broken promise.
    pub fn told(&mut self, now: Now, event: &Event) -> Verdict {
        self.depth.told(event, &self.ledger, &self.pool);
        self.pool.told(event);
        self.replies.told(event)?;
        self.ledger.received(self.replies.take_received());
        self.outputs.told(event);
        self.files.told(event);
        self.logs.told(event);
        self.memory.told(event);
        self.on_demand.told(event);
        self.registrations.told(event);
        self.arenas.told(event);
        self.durable.told(event);
        self.users.told(event);
        self.accounts.told(event);
        self.fairness.told(event);
        self.lending.told(event);
        self.unclosed.told(event);
        self.first.told(event);
        self.turns.told(event);
        self.unwanted.told(event);
        self.stacks.told(event);
        self.overdue.told(now, event);
        self.expiry.told(now, event);
        self.programs.told(now, event, &self.ledger);
        self.ledger.told(now, event, &self.pool);
        Ok(())
    }

    /// The core has decided this, and nothing of it is performed yet.
    ///
    /// # Errors
    /// A broken promise.
    pub fn decided(&mut self, now: Now, out: &Output, workers: &BTreeMap<WorkerId, FakeWorker>) -> Verdict {
        out.facts.iter().for_each(|fact| self.durable.made(fact));
        for record in &out.records {
            self.accepted_untold(now, &record.what, &out.actions)?;
        }
        for action in &out.actions {
            self.accepted(now, action)?;
            let submit =
                |client, tag| self.replies.submit(client, tag).map(|(uid, submit)| (uid, submit.clone()));
            self.accounts.decided(action, submit, (&self.ledger, &self.durable))?;
        }
        for record in &out.records {
            self.records.made(record)?;
            self.users.made(record);
            self.pool.recorded(record)?;
            self.turns.recorded(&record.what);
            self.ledger.recorded(now, &record.what)?;
            self.backoff.recorded(now, &record.what)?;
            if let What::RetryAsked { job } = &record.what
                && let Some(known) = self.ledger.jobs.get(job)
            {
                self.expiry.begins(now, *job, known);
            }
        }
        for action in &out.actions {
            self.ledger.waiting_decided(now, action, workers)?;
            self.pool.decided(action)?;
            self.depth.decided(action, &self.ledger, &self.pool)?;
            let target = target(action).and_then(|worker| workers.get(&worker));
            self.unwanted.decided(now, action, &self.pool, target)?;
            self.stacks.decided(now, action, &self.pool, target)?;
            self.files.decided(action)?;
            self.on_demand.decided(action)?;
            self.registrations.decided(action)?;
            self.arenas.decided(action, &self.ledger)?;
            self.overdue.decided(now, action);
            if let Action::Kill { worker, why } = action {
                self.ledger.killed(*worker, *why);
            }
            if let Some(truth) = target {
                self.limits.decided(now, action, truth, &self.ledger)?;
            }
            if let Action::Offer { worker, seq, task } = action {
                self.ledger.offered(now, *worker, *seq, task, workers.get(worker))?;
                self.fairness.offered(task.job)?;
                self.turns.offered(now, (*worker, *seq), task, &self.ledger, &self.pool)?;
                self.backoff.offered(now, TaskId::of(task), &self.ledger)?;
            }
            if let Action::Spawn { worker, pool } = action {
                self.backoff.spawned(now, *worker, *pool, &self.ledger)?;
            }
            if let Action::DropOutput { output } = action {
                self.outputs.dropped(*output)?;
            }
            self.logs.decided(now, action, &self.ledger)?;
            self.memory.decided(action, |task| {
                let known = self.ledger.task(TaskId::own(task.job));
                known.map_or(0, |job| job.uid)
            })?;
            self.users.decided(action, &self.ledger);
        }
        self.programs.decided(now, out, &self.ledger)?;
        self.lending.decided(now, out, &self.pool, &self.ledger)?;
        self.unclosed.decided(out, &self.pool)?;
        self.first.decided(now, out, &self.ledger.pauses)?;
        self.one_user.decided(out, &self.pool, &self.ledger)?;
        self.stuck.decided(out, &self.pool, &self.ledger)?;
        self.turn_over(now, workers)
    }

    /// If the core accepts jobs by this, the oracles know them from now on.
    fn accepted(&mut self, now: Now, action: &Action) -> Verdict {
        if let Action::Reply { client, tag, reply: Reply::Accepted { first, count, .. }, .. } = action
            && let Some((uid, submit)) = self.replies.submit(*client, *tag)
            // A durable submit that is repeated names jobs that are known.
            && !(submit.durable.is_some() && self.ledger.jobs.contains_key(first))
        {
            self.durable.take(*first);
            self.ledger.accepted(now, *client, uid, submit, *first, *count)?;
            self.fairness.accepted(uid, *first, *count);
            for (id, job) in self.ledger.jobs.range(*first..) {
                self.expiry.begins(now, *id, job);
            }
            self.turns.accepted(*client, submit, *first, *count);
            self.registrations.accepted((*client, *tag), submit, *first, *count);
        }
        Ok(())
    }

    /// A durable submit was accepted, and its client is gone: it gets no reply.
    fn accepted_untold(&mut self, now: Now, what: &What, actions: &[Action]) -> Verdict {
        let is_told = |job: JobId| {
            let is_it = |action: &Action| matches!(action, Action::Reply { reply: Reply::Accepted { first, .. }, .. } if *first == job);
            actions.iter().any(is_it)
        };
        if let What::Accepted { first, count, .. } = what
            && !is_told(*first)
            && let Some(made) = self.durable.take(*first)
        {
            let (client, uid, submit) = (made.client, made.uid, &made.submit);
            self.ledger.accepted(now, client, uid, submit, *first, *count)?;
            self.fairness.accepted(uid, *first, *count);
            for (id, job) in self.ledger.jobs.range(*first..) {
                self.expiry.begins(now, *id, job);
            }
            self.turns.accepted(client, submit, *first, *count);
        }
        Ok(())
    }

    /// Everything that one turn decided was heard.
    fn turn_over(&mut self, now: Now, workers: &BTreeMap<WorkerId, FakeWorker>) -> Verdict {
        self.programs.turn_over(now, &self.pool, &self.ledger, workers)?;
        self.logs.turn_over(now, &self.ledger)?;
        self.unwanted.turn_over();
        self.stacks.turn_over(now, &self.pool, &self.ledger.pauses)?;
        self.overdue.turn_over(now, &self.ledger, workers)?;
        self.expiry.turn_over(now, &self.ledger)?;
        self.backoff.turn_over(now);
        self.kept.turn_over(now);
        self.pool.check()?;
        self.files.check()?;
        self.memory.check()?;
        self.on_demand.turn_over()?;
        self.ledger.check()
    }

    /// All jobs were listed in the last step, before it decided anything.
    ///
    /// # Errors
    /// A broken promise.
    pub fn listed(&self, rows: &[JobRow]) -> Verdict {
        self.backoff.listed(rows, &self.ledger)?;
        self.kept.listed(rows, &self.ledger)
    }

    /// A client gets this reply.
    ///
    /// # Errors
    /// A broken promise.
    pub fn got(
        &mut self,
        now: Now,
        client: ClientId,
        tag: Tag,
        reply: &Reply,
        output: Option<OutputId>,
        bytes: u64,
    ) -> Verdict {
        self.replies.got(client, tag, reply, bytes, &self.ledger)?;
        self.outputs.attached(reply, output)?;
        if let Some(peer) = self.replies.peer(client) {
            self.users.got(peer, self.replies.request(client, tag), reply, &self.ledger)?;
        }
        match reply {
            Reply::Ended(all) | Reply::Held { ended: all, .. } => {
                for ended in all {
                    self.ledger.ended(now, ended, output)?;
                }
            }
            Reply::Changed { refused, .. } => {
                if let Some(request) = self.replies.request(client, tag).cloned() {
                    self.ledger.changed(now, &request, refused)?;
                }
            }
            Reply::Progress { job, done, total } => self.ledger.progressed(*job, *done, *total)?,
            Reply::Draining { .. } => self.ledger.stopping = true,
            Reply::Events { records, .. } => self.records.streamed(records)?,
            Reply::Job(detail) => {
                let charged = detail.deaths.iter().filter(|death| death.charged).count();
                self.ledger.shown(now, &detail.row, charged)?;
            }
            Reply::Jobs { rows, .. } => {
                for row in rows {
                    self.ledger.shown(now, row, usize::from(row.crashes))?;
                }
            }
            _ => {}
        }
        self.replies.answered(client, tag, reply);
        Ok(())
    }
}

/// Whether a job that waits does so for a worker alone: no client reads slowly, no descriptor is short, and no bound is tiny.
fn is_sure_of_waits(scenario: &Scenario) -> bool {
    let faults = &scenario.faults;
    faults.slow_reader == 0 && faults.shortage == 0 && scenario.profile != Profile::Starved
}

/// The worker of an action that concerns the oracles `unwanted` and `stacks`.
fn target(action: &Action) -> Option<WorkerId> {
    match action {
        Action::Unwant { worker, .. }
        | Action::AskStack { worker, .. }
        | Action::Kill { worker, .. }
        | Action::Offer { worker, .. } => Some(*worker),
        _ => None,
    }
}
