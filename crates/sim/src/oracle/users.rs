//! `users`: only administrators see or change jobs of other users, or see what their tasks left in a worker.
//!
//! It judges replies by the user of the client, the owners of the jobs that they name, and the users whose tasks each worker
//! was offered. Who may see a record is noted when the record is made, because the worker may be offered tasks of others
//! before a client reads it. Logs are descriptors, not replies, and have an oracle of their own. It never asks the core for
//! an owner.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::action::Action;
use bulkhead_core::event::{Event, LeftProcess, Peer, Remains};
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::record::{Record, What};
use bulkhead_proto::client::view::{SurvivorRow, WorkerRow};
use bulkhead_proto::client::why::{Why, WhyNow};
use bulkhead_proto::ids::{JobId, Seq, WorkerId};

use crate::oracle::ledger::JobOracle;
use crate::report::{Verdict, broken};

/// Who may see a record of a worker, besides administrators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seers {
    Everybody,
    One(u32),
    Nobody,
}

impl Seers {
    /// Those of a worker that was offered tasks of these users.
    fn of(users: &BTreeSet<u32>) -> Self {
        match users.first() {
            None => Self::Everybody,
            Some(uid) if users.len() == 1 => Self::One(*uid),
            Some(_) => Self::Nobody,
        }
    }

    fn have(self, uid: u32) -> bool {
        self == Self::Everybody || self == Self::One(uid)
    }
}

/// Whose tasks each worker was offered, and who may see what was recorded of it.
#[derive(Debug, Default)]
pub struct UserOracle {
    /// The users of all tasks that a worker was offered.
    offered: BTreeMap<WorkerId, BTreeSet<u32>>,
    /// The users of offers that are not settled.
    held: BTreeMap<(WorkerId, Seq), u32>,
    /// The user whose task left processes in a worker, as the worker reported it.
    left_by: BTreeMap<WorkerId, u32>,
    /// Who may see a process that a dead worker left, by its process id.
    strays: BTreeMap<u32, Seers>,
    /// Who may see a death that is to be recorded in this turn.
    deaths: BTreeMap<WorkerId, Seers>,
    /// By the index of a record of a worker: who may see it.
    records: BTreeMap<u64, Vec<Seers>>,
}

impl UserOracle {
    /// Follows an event.
    pub fn told(&mut self, event: &Event) {
        match event {
            Event::LiveOn { left } => self.live_on(left),
            Event::Finished { worker, seq, report } if !report.survivors.is_empty() => {
                let uid = self.held.remove(&(*worker, *seq));
                self.left_by.extend(uid.map(|uid| (*worker, uid)));
            }
            Event::TookBack { worker, seq, won: true }
            | Event::OfferFailed { worker, seq, taken: true, .. }
            | Event::Finished { worker, seq, .. } => drop(self.held.remove(&(*worker, *seq))),
            Event::Died { worker, remains, .. } => self.died(*worker, remains),
            _ => {}
        }
    }

    /// What a dead worker left is of the user whose task it reported to have left it, else of all that the worker was offered.
    fn live_on(&mut self, left: &[LeftProcess]) {
        for LeftProcess { survivor, worker } in left {
            let all = |worker: &WorkerId| Seers::of(self.offered.get(worker).unwrap_or(&BTreeSet::new()));
            let seers = match worker {
                None => Seers::Nobody,
                Some(worker) => self.left_by.get(worker).map_or_else(|| all(worker), |uid| Seers::One(*uid)),
            };
            self.strays.entry(survivor.pid).or_insert(seers);
        }
    }

    /// The death is of the first claimed task; without one, of all that the worker was offered.
    fn died(&mut self, worker: WorkerId, remains: &[Remains]) {
        let is_claimed = |seq: Seq| remains.iter().any(|left| left.seq == seq && left.claimed);
        let mut held = self.held.range((worker, Seq(0))..=(worker, Seq(u64::MAX)));
        let first = held.find(|((_, seq), _)| is_claimed(*seq)).map(|(_, uid)| Seers::One(*uid));
        let all = Seers::of(self.offered.get(&worker).unwrap_or(&BTreeSet::new()));
        self.deaths.insert(worker, first.unwrap_or(all));
        self.held.retain(|(of, _), _| *of != worker);
    }

    /// Notes who may see a record, before the offers of its turn are noted.
    pub fn made(&mut self, record: &Record) {
        let death = |worker: &WorkerId| self.deaths.get(worker).copied().into_iter().collect();
        let users = |worker: &WorkerId| -> Vec<Seers> {
            let users = self.offered.get(worker).cloned().unwrap_or_default();
            // The user of the first task in its ring is one of them.
            if users.is_empty() {
                vec![Seers::Everybody]
            } else {
                users.into_iter().map(Seers::One).collect()
            }
        };
        let seers = match &record.what {
            What::Died { worker, .. } | What::NobodyBlamed { worker } | What::Requeued { worker, .. } => {
                death(worker)
            }
            What::Killing { worker, job: None, .. }
            | What::Suspended { worker, job: None, .. }
            | What::Resumed { worker }
            | What::SuspendedOften { worker, .. }
            | What::Stuck { worker, .. }
            | What::Recycled { worker, .. } => users(worker),
            What::LivesOn { survivor, .. } => self.strays.get(&survivor.pid).copied().into_iter().collect(),
            What::Spawned { .. } | What::Ready { .. } => Vec::new(),
            _ => return,
        };
        self.records.insert(record.index, seers);
    }

    /// Follows an action.
    pub fn decided(&mut self, action: &Action, ledger: &JobOracle) {
        if let Action::Offer { worker, seq, task } = action
            && let Some(job) = ledger.jobs.get(&task.job)
        {
            self.offered.entry(*worker).or_default().insert(job.uid);
            self.held.insert((*worker, *seq), job.uid);
        }
    }

    /// A client gets this reply to this request.
    ///
    /// # Errors
    /// It is about a job that is not its own, or about a worker that never had a task of its user.
    pub fn got(&self, peer: Peer, request: Option<&Request>, reply: &Reply, ledger: &JobOracle) -> Verdict {
        if peer.admin {
            return Ok(());
        }
        let is_strange = |job: &JobId| ledger.jobs.get(job).is_none_or(|job| job.uid != peer.uid);
        if let Some(job) = shown(request, reply).into_iter().find(is_strange) {
            let what = format!("user {} asks {request:?}, and gets {reply:?} of job {job}", peer.uid);
            return broken("users", what);
        }
        match reply {
            Reply::Events { records, .. } => {
                records.iter().try_for_each(|record| self.record_shown(peer.uid, record))
            }
            Reply::Workers(rows) => self.rows_shown(peer.uid, rows),
            Reply::Status(status) => {
                if let Some(account) = status.accounts.iter().find(|one| one.uid != Some(peer.uid)) {
                    return broken("users", format!("user {} is shown {account:?}", peer.uid));
                }
                self.rows_shown(peer.uid, &status.stuck)?;
                self.strays_shown(peer.uid, &status.survivors)
            }
            _ => Ok(()),
        }
    }

    fn record_shown(&self, uid: u32, record: &Record) -> Verdict {
        let may_see = self.records.get(&record.index).is_none_or(|all| all.iter().any(|one| one.have(uid)));
        let is_cut = matches!(record.what, What::WorkerGone { .. });
        match may_see != is_cut {
            true => Ok(()),
            false => broken("users", format!("user {uid} is shown {record:?}, and may see it: {may_see}")),
        }
    }

    fn strays_shown(&self, uid: u32, rows: &[SurvivorRow]) -> Verdict {
        let is_own =
            |row: &&SurvivorRow| self.strays.get(&row.survivor.pid).is_some_and(|seers| seers.have(uid));
        match rows.iter().find(|row| !is_own(row)) {
            Some(row) => broken("users", format!("user {uid} is shown {row:?}")),
            None => Ok(()),
        }
    }

    fn rows_shown(&self, uid: u32, rows: &[WorkerRow]) -> Verdict {
        let tells = |row: &&WorkerRow| {
            row.pid.is_some() || row.seen.is_some() || row.program.is_some() || row.offers > 0
        };
        let is_own = |row: &WorkerRow| self.offered.get(&row.worker).is_some_and(|all| all.contains(&uid));
        match rows.iter().filter(tells).find(|row| !is_own(row)) {
            Some(row) => {
                broken("users", format!("user {uid} had no task in the worker, and is shown {row:?}"))
            }
            None => Ok(()),
        }
    }
}

/// The jobs that a reply shows or that were changed with it.
fn shown(request: Option<&Request>, reply: &Reply) -> Vec<JobId> {
    match (reply, request) {
        (Reply::Ended(all) | Reply::Held { ended: all, .. }, _) => {
            all.iter().map(|ended| ended.job).collect()
        }
        (Reply::Progress { job, .. } | Reply::Logs { job, .. }, _) => vec![*job],
        (Reply::Jobs { rows, .. }, _) => rows.iter().map(|row| row.job).collect(),
        (Reply::CancelledWaiting { ended, running, .. }, _) => [&ended[..], running].concat(),
        (Reply::Job(detail), _) => vec![detail.row.job],
        (Reply::Why(why), _) => of_why(why),
        (Reply::Deaths(rows), _) => rows.iter().map(|row| row.job).collect(),
        (Reply::Workers(rows), _) => rows.iter().filter_map(|row| row.job).collect(),
        (Reply::Status(status), _) => {
            let stuck = status.stuck.iter().filter_map(|row| row.job);
            stuck.chain(status.survivors.iter().filter_map(|row| row.job)).collect()
        }
        (Reply::Events { records, .. }, _) => {
            records.iter().filter_map(|record| subject(&record.what)).collect()
        }
        (
            Reply::Changed { refused, .. },
            Some(Request::Cancel { jobs } | Request::Retry { jobs } | Request::Forget { jobs }),
        ) => {
            let is_changed = |job: &&JobId| !refused.iter().any(|same| same.jobs().contains(*job));
            jobs.iter().filter(is_changed).copied().collect()
        }
        _ => Vec::new(),
    }
}

/// The jobs that an answer to `why` names.
fn of_why(why: &Why) -> Vec<JobId> {
    let longest = match &why.now {
        WhyNow::Queued { pool, .. } | WhyNow::Alone { pool, .. } | WhyNow::Parted { pool, .. } => {
            pool.longest
        }
        WhyNow::Backoff { .. } | WhyNow::Running(_) | WhyNow::Ended(_) => None,
    };
    longest.and_then(|longest| longest.job).into_iter().chain([why.job]).collect()
}

/// The job that a record is about.
fn subject(what: &What) -> Option<JobId> {
    match what {
        What::Accepted { first: job, .. }
        | What::Blamed { job, .. }
        | What::Retried { job, .. }
        | What::Backoff { job, .. }
        | What::Ended { job, .. }
        | What::RetryAsked { job }
        | What::ProgramStopped { job, .. }
        | What::ProgramContinued { job, .. }
        | What::Killing { job: Some(job), .. }
        | What::Suspended { job: Some(job), .. }
        | What::LivesOn { job: Some(job), .. } => Some(*job),
        // All are jobs of one user: see `JobOracle::queued_ended`.
        What::EndedQueued { jobs, .. } => jobs.first().map(|range| range.first),
        _ => None,
    }
}
