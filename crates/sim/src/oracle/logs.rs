//! `logs`: each attempt has a log, which only the job's owner and administrators get, and which is dropped with its job.
//!
//! It follows offers, requests for logs and drops, and counts attempts by itself. It judges: no log is shown to another
//! user, under another job or attempt, or after it was dropped; each is dropped exactly once, with its job or attempt, or
//! when there are too many of jobs that do not run, as the oldest of a user who has most of them; a follower gets each log. It never asks the core to
//! whom a log belongs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use bulkhead_core::action::{Action, Task, TaskFile};
use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, Now, Peer};
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::client::view::JobRow;
use bulkhead_proto::ids::{ClientId, JobId, LogId, Seq, Tag, WorkerId};

use crate::oracle::ledger::JobOracle;
use crate::report::{Verdict, broken};

/// A log that is held.
#[derive(Clone, Debug)]
struct HeldLog {
    job: JobId,
    /// The attempts that it may be of.
    attempts: RangeInclusive<u32>,
    /// The turn in which it was made.
    turn: u64,
}

/// A log that was dropped with no cause seen yet: its job must be gone, or there were too many.
#[derive(Clone, Debug)]
struct Unexplained {
    log: LogId,
    job: JobId,
    turn: u64,
    /// More were held of jobs that did not run than may be.
    too_many: bool,
    /// An older one of the same user that did not run either.
    older: Option<LogId>,
    /// A user who had more of them.
    greater: Option<u32>,
    /// A task had been given an output, which may take a whole share of the memory of outputs and logs.
    has_given: bool,
}

/// Attempts of a job, counted by its offers.
#[derive(Clone, Copy, Debug, Default)]
struct Attempts {
    offered: u32,
    /// Offers that came back before they began: those that surely were no attempt, and all.
    unbegun: (u32, u32),
}

/// A question for a log that was not answered yet.
#[derive(Clone, Copy, Debug)]
struct Question {
    job: JobId,
    follow: bool,
}

/// A client that is given the log of each attempt of a job as it begins.
#[derive(Clone, Debug, Default)]
struct Follower {
    /// Its questions, one of which is the one that counts.
    tags: BTreeSet<Tag>,
    /// Whether the job surely had not ended when it asked, so that one does count.
    sure: bool,
    /// In which life of the job it asked: it follows until the job ends.
    life: u32,
}

/// Every log, and the clients that ask for it.
#[derive(Debug, Default)]
pub struct LogOracle {
    /// Whether each kind keeps logs.
    keeps: Vec<bool>,
    max: usize,
    /// Whether logs also go because there is little memory: `memory` judges how much is held.
    little_memory: bool,
    turn: u64,
    last: LogId,
    held: BTreeMap<LogId, HeldLog>,
    /// The log of each job's latest attempt.
    latest: BTreeMap<JobId, LogId>,
    attempts: BTreeMap<JobId, Attempts>,
    /// Offers that are not resolved, with the life of their job.
    offers: BTreeMap<(WorkerId, Seq), (JobId, u32)>,
    /// Tasks that were given an output while they ran.
    outputs: BTreeSet<(WorkerId, Seq)>,
    /// Offers that came back in this turn, and whether they surely had not begun.
    back: Vec<(JobId, u32, bool)>,
    peers: BTreeMap<ClientId, Peer>,
    /// Clients that are gone, or leave in this turn.
    gone: BTreeSet<ClientId>,
    asked: BTreeMap<(ClientId, Tag), Question>,
    followers: BTreeMap<JobId, BTreeMap<ClientId, Follower>>,
    /// Logs that followers have to get in this turn.
    owed: BTreeSet<(ClientId, LogId)>,
    given: BTreeSet<(ClientId, Tag, LogId)>,
    unexplained: Vec<Unexplained>,
}

impl LogOracle {
    /// No log yet.
    pub fn new(config: &Config) -> Self {
        let keeps = config.kinds.iter().map(|kind| kind.logs && !kind.plans).collect();
        let little_memory = config.outputs_bytes_max < Config::default().outputs_bytes_max;
        let max = usize::try_from(config.keep_logs_max).unwrap_or(usize::MAX);
        Self { keeps, max, little_memory, ..Self::default() }
    }

    /// Follows an event.
    pub fn told(&mut self, event: &Event) {
        match event {
            Event::ClientConnected { client, peer } => drop(self.peers.insert(*client, *peer)),
            Event::ClientGone { client } => drop(self.gone.insert(*client)),
            Event::ClientSaid { client, tag, request: Request::Logs { job, follow }, .. } => {
                self.asked.insert((*client, *tag), Question { job: *job, follow: *follow });
            }
            Event::TookBack { worker, seq, won: true }
            | Event::OfferFailed { worker, seq, taken: true, .. } => self.came_back(*worker, *seq, true),
            Event::Finished { worker, seq, .. } => {
                self.offers.remove(&(*worker, *seq));
                self.outputs.remove(&(*worker, *seq));
            }
            Event::Died { worker, remains, .. } => {
                for left in remains.iter().filter(|left| !left.claimed) {
                    self.came_back(*worker, left.seq, false);
                }
                self.offers.retain(|(of, _), _| of != worker);
                self.outputs.retain(|(of, _)| of != worker);
            }
            _ => {}
        }
    }

    fn came_back(&mut self, worker: WorkerId, seq: Seq, sure: bool) {
        if let Some((job, life)) = self.offers.remove(&(worker, seq)) {
            self.back.push((job, life, sure));
        }
    }

    /// Follows an action.
    ///
    /// # Errors
    /// A log is made, shown or dropped as it must not be, or a request for one is answered wrongly.
    pub fn decided(&mut self, now: Now, action: &Action, ledger: &JobOracle) -> Verdict {
        match action {
            Action::Offer { worker, seq, task } => self.offered(now, (*worker, *seq), task, ledger),
            Action::ShowLog { client, tag, reply, log } => {
                self.may_be_shown((*client, *tag), reply, *log, ledger)?;
                self.shown(now, (*client, *tag), reply, *log, ledger)
            }
            Action::DropLog { log } => self.dropped(*log, ledger),
            Action::GiveOutput { worker, seq, .. } => {
                self.outputs.insert((*worker, *seq));
                Ok(())
            }
            Action::Reply { client, tag, reply: Reply::Refused(refusal), .. } => {
                self.refused(now, (*client, *tag), refusal, ledger)
            }
            _ => Ok(()),
        }
    }

    fn offered(&mut self, now: Now, offer: (WorkerId, Seq), task: &Task, ledger: &JobOracle) -> Verdict {
        let (job, keeps) = (task.job, self.keeps.get(usize::from(task.kind.0)).copied().unwrap_or(false));
        let logs: Vec<LogId> = task.files.iter().filter_map(log_of).collect();
        if !keeps && logs.is_empty() {
            return Ok(());
        }
        let (true, [log]) = (keeps, logs.as_slice()) else {
            return broken("logs", format!("job {job} is offered with the logs {logs:?}"));
        };
        if *log <= self.last {
            return broken("logs", format!("log {log} is made after log {}", self.last));
        }
        if let Some(before) = self.latest.get(&job).filter(|before| self.held.contains_key(before)) {
            return broken("logs", format!("log {log} of job {job} is made, and log {before} is held"));
        }
        self.count_unbegun(job, ledger);
        let attempts = self.attempts.entry(job).or_default();
        attempts.offered += 1;
        let (sure, all) = attempts.unbegun;
        let attempts = attempts.offered - all..=attempts.offered - sure;
        self.last = *log;
        self.held.insert(*log, HeldLog { job, attempts, turn: self.turn });
        self.latest.insert(job, *log);
        self.offers.insert(offer, (job, ledger.lives(job)));
        // The one before went for this one.
        let turn = self.turn;
        self.unexplained.retain(|dropped| dropped.job != job || dropped.turn != turn);
        // A client that asked before in this turn, and was not refused, waits for it.
        let asked = self.asked.iter().filter(|(_, asked)| asked.follow && asked.job == job);
        for (client, tag) in asked.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.follow(now, client, tag, job, ledger);
        }
        let life = ledger.lives(job);
        let is_owed = |follower: &Follower| follower.sure && follower.life == life;
        let sure = self.followers.get(&job).into_iter().flatten().filter(|(_, follower)| is_owed(follower));
        self.owed.extend(sure.map(|(client, _)| (*client, *log)));
        Ok(())
    }

    /// A client has asked to follow a job, and was not refused.
    fn follow(&mut self, now: Now, client: ClientId, tag: Tag, job: JobId, ledger: &JobOracle) {
        let life = ledger.lives(job);
        let follower = self.followers.entry(job).or_default().entry(client).or_default();
        if follower.life != life {
            *follower = Follower { life, ..Follower::default() };
        }
        // In the turn of the job's end or retry the request may have come while it had ended: then the client does not follow.
        if ledger.jobs.get(&job).is_some_and(|job| job.end.is_none() && job.changed_ns != now.mono_ns) {
            *follower = Follower { tags: BTreeSet::new(), sure: true, life };
        }
        follower.tags.insert(tag);
    }

    /// An offer that came back was no attempt, unless its job had ended before.
    fn count_unbegun(&mut self, job: JobId, ledger: &JobOracle) {
        let attempts = self.attempts.entry(job).or_default();
        for (_, life, sure) in self.back.iter().filter(|back| back.0 == job) {
            let goes_on = ledger.jobs.get(&job).is_some_and(|job| job.end.is_none() && job.life == *life);
            attempts.unbegun.0 += u32::from(*sure && goes_on);
            attempts.unbegun.1 += 1;
        }
        self.back.retain(|back| back.0 != job);
    }

    fn may_read(&self, client: ClientId, job: JobId, ledger: &JobOracle) -> bool {
        let owner = ledger.jobs.get(&job).map(|job| job.uid);
        self.peers.get(&client).is_some_and(|peer| peer.admin || Some(peer.uid) == owner)
    }

    fn may_be_shown(
        &self,
        (client, tag): (ClientId, Tag),
        reply: &Reply,
        log: LogId,
        ledger: &JobOracle,
    ) -> Verdict {
        let Reply::Logs { job, attempt, is_there: true } = reply else {
            return broken("logs", format!("log {log} is shown to client {client} with {reply:?}"));
        };
        let Some(held) = self.held.get(&log) else {
            return broken("logs", format!("log {log} is shown to client {client}, and is not held"));
        };
        if held.job != *job || !held.attempts.contains(attempt) {
            return broken("logs", format!("log {log} is {held:?}, and is shown as {reply:?}"));
        }
        if !self.may_read(client, *job, ledger) {
            let peer = self.peers.get(&client);
            return broken("logs", format!("log {log} of job {job} is shown to client {client}, {peer:?}"));
        }
        let answers = self.asked.get(&(client, tag)).is_some_and(|asked| asked.job == *job);
        let follower = self.followers.get(job).and_then(|all| all.get(&client));
        let is_owed = |follower: &Follower| !follower.sure || self.owed.contains(&(client, log));
        let follows = held.turn == self.turn
            && follower.is_some_and(|follower| follower.tags.contains(&tag) && is_owed(follower));
        if !answers && !follows || self.given.contains(&(client, tag, log)) {
            return broken(
                "logs",
                format!("log {log} is shown to client {client}, who does not wait for it"),
            );
        }
        Ok(())
    }

    fn shown(
        &mut self,
        now: Now,
        (client, tag): (ClientId, Tag),
        reply: &Reply,
        log: LogId,
        ledger: &JobOracle,
    ) -> Verdict {
        let Reply::Logs { job, attempt, .. } = reply else { return Ok(()) };
        // What was said once of an attempt stays so.
        if let Some(held) = self.held.get_mut(&log) {
            held.attempts = *attempt..=*attempt;
        }
        self.given.insert((client, tag, log));
        self.owed.remove(&(client, log));
        if self.asked.remove(&(client, tag)).is_some_and(|asked| asked.follow) {
            self.follow(now, client, tag, *job, ledger);
        }
        Ok(())
    }

    fn refused(
        &mut self,
        now: Now,
        (client, tag): (ClientId, Tag),
        refusal: &Refusal,
        ledger: &JobOracle,
    ) -> Verdict {
        let Some(Question { job, .. }) = self.asked.remove(&(client, tag)) else { return Ok(()) };
        let is_there = self.latest.get(&job).is_some_and(|log| self.held.contains_key(log));
        let fits = match refusal {
            Refusal::NoLog { job: named, .. } => {
                *named == job && !is_there && self.may_read(client, job, ledger)
            }
            // A refusal does not tell whether a job of another user exists.
            Refusal::Gone { job: named, others } => {
                let admin = self.peers.get(&client).is_some_and(|peer| peer.admin);
                let hidden = *others && !self.may_read(client, job, ledger);
                *named == job && *others != admin && (hidden || !is_there)
            }
            // A job may have been accepted later in the same turn.
            Refusal::NeverWas { job: named, .. } => {
                *named == job && ledger.jobs.get(&job).is_none_or(|job| job.accepted_ns == now.mono_ns)
            }
            _ => false,
        };
        if fits {
            return Ok(());
        }
        broken("logs", format!("client {client} asks for the log of job {job}, and is refused: {refusal:?}"))
    }

    fn dropped(&mut self, log: LogId, ledger: &JobOracle) -> Verdict {
        let idle = self.idle_by_user(ledger);
        let too_many = idle.values().sum::<usize>() > self.max;
        let Some(HeldLog { job, .. }) = self.held.remove(&log) else {
            return broken("logs", format!("log {log} is let go, and is not held"));
        };
        if self.back.iter().any(|back| back.0 == job) {
            return Ok(());
        }
        let uid = ledger.jobs.get(&job).map(|job| job.uid);
        let of_user = |held: &HeldLog| ledger.jobs.get(&held.job).map(|job| job.uid) == uid;
        let mut older = self.held.range(..log).filter(|(_, held)| !runs(held.job, ledger) && of_user(held));
        let older = older.next().map(|(older, _)| *older);
        let own = uid.and_then(|uid| idle.get(&uid)).copied().unwrap_or(0);
        let greater = idle.into_iter().find(|(_, count)| *count > own).map(|(uid, _)| uid);
        let (turn, has_given) = (self.turn, !self.outputs.is_empty());
        self.unexplained.push(Unexplained { log, job, turn, too_many, older, greater, has_given });
        Ok(())
    }

    /// How many logs of jobs that do not run each user has.
    fn idle_by_user(&self, ledger: &JobOracle) -> BTreeMap<u32, usize> {
        let mut counts = BTreeMap::new();
        for held in self.held.values().filter(|held| !runs(held.job, ledger)) {
            if let Some(job) = ledger.jobs.get(&held.job) {
                *counts.entry(job.uid).or_default() += 1;
            }
        }
        counts
    }

    /// The end of a turn, after all its actions were judged.
    ///
    /// # Errors
    /// A question is not answered, a follower was not given a log, or more are held than may be.
    pub fn turn_over(&mut self, now: Now, ledger: &JobOracle) -> Verdict {
        let back: BTreeSet<JobId> = self.back.iter().map(|back| back.0).collect();
        back.into_iter().for_each(|job| self.count_unbegun(job, ledger));
        self.turn += 1;
        let gone = &self.gone;
        if let Some((client, log)) =
            self.owed.iter().find(|(client, _)| !gone.contains(client) && !ledger.has_journal)
        {
            return broken("logs", format!("client {client} follows, and is not given log {log}"));
        }
        self.owed.clear();
        for ((client, tag), asked) in std::mem::take(&mut self.asked) {
            if self.gone.contains(&client) {
                continue;
            }
            // The job may be looked up first.
            if !asked.follow && ledger.has_journal {
                self.asked.insert((client, tag), asked);
                continue;
            }
            if !asked.follow {
                return broken("logs", format!("client {client} is not answered ({tag}): {asked:?}"));
            }
            self.follow(now, client, tag, asked.job, ledger);
        }
        for all in self.followers.values_mut() {
            all.retain(|client, _| !self.gone.contains(client));
        }
        let idle: usize = self.idle_by_user(ledger).values().sum();
        // A daemon that stops ends jobs after the logs were counted.
        if idle > self.max && !ledger.stopping {
            let max = self.max;
            return broken(
                "logs",
                format!("{idle} logs of jobs that do not run are held, and at most {max} may be"),
            );
        }
        Ok(())
    }

    /// All jobs are listed, in a turn that has just been judged.
    ///
    /// # Errors
    /// A log is held for a job that is gone, or one was dropped that had to stay.
    pub fn listed(&mut self, rows: &[JobRow]) -> Verdict {
        let there: BTreeSet<JobId> = rows.iter().map(|row| row.job).collect();
        if let Some((log, held)) = self.held.iter().find(|(_, held)| !there.contains(&held.job)) {
            return broken("logs", format!("log {log} is held, and its job is gone: {held:?}"));
        }
        // The list was made before the end of its turn.
        let before = self.turn.saturating_sub(1);
        for dropped in self.unexplained.extract_if(.., |dropped| dropped.turn < before) {
            let wrong = !dropped.too_many || dropped.older.is_some() || dropped.greater.is_some();
            let wrong = wrong && !self.little_memory && !dropped.has_given;
            if there.contains(&dropped.job) && wrong {
                let log = dropped.log;
                return broken("logs", format!("log {log} is let go, and its job is there: {dropped:?}"));
            }
        }
        Ok(())
    }

    /// All jobs are forgotten: nothing may be held any more.
    ///
    /// # Errors
    /// Something is.
    pub fn finish(&self, in_shell: usize) -> Verdict {
        if self.held.len() + in_shell > 0 {
            return broken("logs", format!("{:?} are held, {in_shell} in the shell, no job left", self.held));
        }
        Ok(())
    }
}

/// Whether a job is with a worker, as far as that still counts.
fn runs(job: JobId, ledger: &JobOracle) -> bool {
    let job = ledger.jobs.get(&job);
    job.is_some_and(|job| job.offer.is_some() && job.offer_life == job.life && job.end.is_none())
}

fn log_of(file: &TaskFile) -> Option<LogId> {
    if let TaskFile::Log { log } = file { Some(*log) } else { None }
}
