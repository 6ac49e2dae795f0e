//! Logs: what the code of a job writes, in a file that the shell makes for each attempt. Only the worker and the
//! readers of a log touch its bytes.
//!
//! A job has the log of its latest attempt, from the offer of that attempt until the job is forgotten. Logs of running jobs
//! stay: there are at most as many as workers. Of the others, beyond `keep_logs_max`, the account that holds most drops
//! its oldest (`machine/evict.rs`), and so it does where there is too little memory (`machine/outputs.rs`); so a log is charged to its account while its job does not run. A client that may see a job may read its
//! log. A client that follows is sent the log of each attempt as it begins, until the job ends, which it learns by waiting for
//! the job (`client/log_readers.rs`).

use std::collections::BTreeMap;

use bulkhead_proto::ids::{ClientId, LogId};
use bulkhead_proto::limits::OUTPUTS_KEY;

use crate::action::TaskFile;
use crate::job::Jobs;
use crate::job::list::Key;
use crate::job::run::TaskRun;
use crate::job::state::Phase;
use crate::job::table::JobTable;
use crate::turn::{AccountId, Resource, Turn};

/// All logs that the shell holds, by account and the oldest first, each with its job.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    of: BTreeMap<(AccountId, LogId), Key>,
    last: u64,
}

impl Logs {
    /// No logs; numbers begin at `first`, at 1 if that is 0.
    pub(super) fn new(first: u64) -> Self {
        Self { last: first.saturating_sub(1), ..Self::default() }
    }

    /// The number that the next log gets.
    pub(super) fn next(&self) -> u64 {
        self.last + 1
    }

    /// Forgets a log.
    ///
    /// # Panics
    /// If it is not held.
    pub(super) fn forget(&mut self, account: AccountId, log: LogId) {
        let was_held = self.of.remove(&(account, log)).is_some();
        assert!(was_held, "log {log} of a job is held");
    }

    /// Checks what must always hold.
    pub(super) fn audit(&self, table: &JobTable) {
        for ((account, log), key) in &self.of {
            let rare = table[*key].rare.as_ref();
            assert_eq!(rare.and_then(|rare| rare.log), Some(*log), "a log is its job's");
            assert_eq!(table.batch(*key).account, *account, "a log is of the account of its job");
        }
        let with_log = table.slab.iter().filter(|(_, job)| job.log().is_some()).count();
        assert_eq!(with_log, self.of.len(), "every log of a job is held");
    }
}

impl Jobs {
    /// Makes a new log for an attempt that has started, in place of the one before; `None` if the kind keeps no logs.
    ///
    /// # Panics
    /// If the task does not run: [`Jobs::start`] comes first.
    pub(crate) fn begin_log(&mut self, turn: &mut Turn, run: TaskRun) -> Option<TaskFile> {
        let key = self.table.open(run);
        if !turn.kind(self.table.batch(key).kind).is_some_and(|kind| kind.logs && !kind.plans) {
            return None;
        }
        let phase = self.table[key].state.phase();
        assert_eq!(phase, Phase::Running, "job {} has started before its log begins", run.first());
        self.drop_log(turn, key);
        self.logs.last += 1;
        let log = LogId(self.logs.last);
        let account = self.table.batch(key).account;
        self.logs.of.insert((account, log), key);
        self.outputs.add_log(&mut self.table.charges, account, log);
        let rare = self.table[key].rare_mut();
        rare.log = Some(log);
        rare.log_dropped = false;
        Some(TaskFile::Log { log })
    }

    /// Drops the log of a job, if it has one.
    pub(super) fn drop_log(&mut self, turn: &mut Turn, key: Key) {
        let Some(log) = self.table[key].rare.as_mut().and_then(|rare| rare.log.take()) else { return };
        let account = self.table.batch(key).account;
        if self.table[key].state.phase() != Phase::Running {
            self.table.charges.release(account, Resource::Logs, 1);
        }
        self.logs.forget(account, log);
        self.outputs.drop_log(turn, log);
    }

    /// Drops the oldest log of an account whose job does not run; returns the account's user.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn evict_log(&mut self, turn: &mut Turn, account: AccountId) -> u32 {
        let key = self.oldest_idle_log(account).expect("an account that holds logs has an idle one");
        self.evict_log_of(turn, key);
        self.table.batch(key).uid
    }

    /// The job of the oldest log of an account that does not run.
    pub(super) fn oldest_idle_log(&self, account: AccountId) -> Option<Key> {
        let mut held = self.logs.of.range((account, LogId(0))..=(account, LogId(u64::MAX)));
        let idle = held.find(|(_, key)| self.table[**key].state.phase() != Phase::Running);
        idle.map(|(_, key)| *key)
    }

    /// Drops the log of a job to make room.
    pub(super) fn evict_log_of(&mut self, turn: &mut Turn, key: Key) {
        self.drop_log(turn, key);
        self.table[key].rare_mut().log_dropped = true;
    }

    /// The logs of jobs that do not run, each with its account.
    pub(super) fn idle_logs(&self) -> impl Iterator<Item = (AccountId, Resource, u64)> + '_ {
        let is_idle = |key: &Key| self.table[*key].state.phase() != Phase::Running;
        let idle = self.logs.of.iter().filter(move |(_, key)| is_idle(key));
        idle.map(|((account, _), _)| (*account, Resource::Logs, 1))
    }

    /// Why a job has no log to read, for its client; `None` if it has one, or will have one while the client follows.
    pub(crate) fn why_no_log(&self, turn: &Turn, run: TaskRun, follow: bool) -> Option<String> {
        let kind = turn.kind(self.batch(run).kind)?;
        let job = self.job(run);
        if !kind.logs {
            return Some(format!("jobs of kind {} keep no log", kind.name));
        }
        if job.log().is_some() || (follow && job.end().is_none()) {
            return None;
        }
        let was_dropped = job.rare.as_ref().is_some_and(|rare| rare.log_dropped);
        Some(match job.end() {
            _ if was_dropped => {
                let (logs, bytes) = (turn.config().keep_logs_max, turn.config().outputs_bytes_max);
                format!(
                    "its log went to make room: {logs} logs are kept, and {bytes} bytes of logs and outputs ({OUTPUTS_KEY})"
                )
            }
            Some(_) => "it never ran".to_owned(),
            None => "it has not run yet: --follow waits for it".to_owned(),
        })
    }

    /// Adds a client that is sent the log of each attempt of a job as it begins, and is not among them. `is_there` says whether
    /// a client is connected: each time the list has doubled, clients that are not connected are dropped from it.
    ///
    /// # Panics
    /// If the job has ended.
    pub(crate) fn add_follower(
        &mut self,
        run: TaskRun,
        follower: ClientId,
        is_there: impl Fn(ClientId) -> bool,
    ) {
        let key = self.table.open(run);
        assert!(self.table[key].end().is_none(), "job {} has no further attempt", run.first());
        let followers = &mut self.table[key].rare_mut().followers;
        followers.push(follower);
        if followers.len() >= 8 && followers.len().is_power_of_two() {
            followers.retain(|follower| is_there(*follower));
        }
    }

    /// Clients that are sent the log of each attempt of a job as it begins.
    pub(crate) fn log_followers(&self, run: TaskRun) -> Vec<ClientId> {
        self.job(run).rare.as_ref().map(|rare| rare.followers.clone()).unwrap_or_default()
    }
}
