//! Logs: what the code of a job writes, in a file that the shell makes for each attempt. Only the worker and the
//! readers of a log touch its bytes.
//!
//! A job has the log of its latest attempt, from the offer of that attempt until the job is forgotten. Beyond
//! `keep_logs_max` the oldest log of a job that does not run is dropped. A client that may see a job may read its
//! log. A client that follows is sent the log of each attempt as it begins; it learns of the end by waiting for the
//! job.

use std::collections::BTreeMap;

use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::{ClientId, LogId, Tag};

use crate::action::{Action, TaskFile};
use crate::job::Jobs;
use crate::job::list::Key;
use crate::job::run::TaskRun;
use crate::job::state::Phase;
use crate::job::table::JobTable;
use crate::turn::{Owner, Turn};

/// Shortest time between two records about dropped logs, in milliseconds.
const SAY_EVERY_MS: u64 = 10_000;

/// All logs that the shell holds, the oldest first, each with its job.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    of: BTreeMap<LogId, Key>,
    last: u64,
    /// Logs dropped since the last record about them.
    unsaid: u32,
    say_from_ns: u64,
}

impl Logs {
    /// Drops a log.
    ///
    /// # Panics
    /// If it is not held.
    pub(super) fn forget(&mut self, turn: &mut Turn, log: LogId) {
        let was_held = self.of.remove(&log).is_some();
        assert!(was_held, "log {log} of a job is held");
        turn.act(Action::DropLog { log });
    }

    /// Checks what must always hold.
    pub(super) fn audit(&self, table: &JobTable) {
        for (log, key) in &self.of {
            let rare = table[*key].rare.as_ref();
            assert_eq!(rare.and_then(|rare| rare.log), Some(*log), "a log is its job's");
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
        self.logs.of.insert(log, key);
        let rare = self.table[key].rare_mut();
        rare.log = Some(log);
        rare.log_dropped = false;
        Some(TaskFile::Log { log })
    }

    /// Drops the log of a job, if it has one.
    pub(super) fn drop_log(&mut self, turn: &mut Turn, key: Key) {
        if let Some(log) = self.table[key].rare.as_mut().and_then(|rare| rare.log.take()) {
            self.logs.forget(turn, log);
        }
    }

    /// Drops the oldest logs beyond `keep_logs_max`. Logs of running jobs stay: there are at most as many as workers.
    pub(crate) fn evict_logs(&mut self, turn: &mut Turn) {
        let mut count = 0;
        while self.logs.of.len() as u64 > turn.config().keep_logs_max {
            let idle = |key: &&Key| self.table[**key].state.phase() != Phase::Running;
            let Some(key) = self.logs.of.values().find(idle).copied() else { break };
            self.drop_log(turn, key);
            self.table[key].rare_mut().log_dropped = true;
            count += 1;
        }
        if count > 0 {
            self.logs.note_evicted(turn, count);
        }
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
                format!("its log went to make room, at most {} are kept", turn.config().keep_logs_max)
            }
            Some(_) => "it never ran".to_owned(),
            None => "it has not run yet: --follow waits for it".to_owned(),
        })
    }

    /// Adds a client that is sent the log of each attempt of a job as it begins, unless the job has ended. Clients
    /// that are not connected by `is_there` are dropped from the list, and each client is in it once.
    pub(crate) fn follow_log(
        &mut self,
        run: TaskRun,
        reader: (ClientId, Tag),
        is_there: impl Fn(ClientId) -> bool,
    ) {
        let key = self.table.open(run);
        if self.table[key].end().is_some() {
            return;
        }
        let followers = &mut self.table[key].rare_mut().followers;
        followers.retain(|(follower, _)| *follower != reader.0 && is_there(*follower));
        followers.push(reader);
    }

    /// Clients that are sent the log of each attempt of a job as it begins.
    pub(crate) fn log_followers(&self, run: TaskRun) -> Vec<(ClientId, Tag)> {
        self.job(run).rare.as_ref().map(|rare| rare.followers.clone()).unwrap_or_default()
    }
}

impl Logs {
    /// Counts dropped logs. At most one record in `SAY_EVERY_MS`: with many jobs each new log drops an older one.
    fn note_evicted(&mut self, turn: &mut Turn, count: u32) {
        self.unsaid += count;
        if turn.now_ns() < self.say_from_ns {
            return;
        }
        self.say_from_ns = turn.after_ms(SAY_EVERY_MS);
        let count = std::mem::take(&mut self.unsaid);
        turn.record(What::Evicted { count, limit: "kept logs".to_owned() }, Owner::Service);
    }
}
