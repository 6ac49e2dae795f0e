//! The logs of jobs: what a job writes, in a file that the shell makes for each attempt and that only its worker and its
//! readers touch.
//!
//! A job has the log of its latest attempt, from that offer on until the job is dropped. How many are kept has a limit:
//! beyond it the oldest goes, of a job that does not run. Who may have one is who may see the job. A reader that follows
//! is given each attempt's as it begins; the end of the job it learns by waiting for it, like everybody else.

use std::collections::BTreeMap;

use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::{ClientId, LogId, Tag};

use crate::action::{Action, TaskFile};
use crate::job::Jobs;
use crate::job::list::Key;
use crate::job::run::Run;
use crate::job::state::Phase;
use crate::job::table::JobTable;
use crate::turn::Turn;

/// Shortest time between two records that say that logs were dropped, in milliseconds.
const SAY_EVERY_MS: u64 = 10_000;

/// All logs that the shell holds, the oldest first, and whose they are.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    of: BTreeMap<LogId, Key>,
    last: u64,
    /// Dropped and not said yet.
    unsaid: u32,
    say_from_ns: u64,
}

impl Logs {
    /// A log is wanted no more.
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
    /// A new log for an attempt that is about to be offered, in place of the one before; `None` if its kind keeps none.
    ///
    /// # Panics
    /// If the task is with no worker: [`Jobs::start`] is first.
    pub(crate) fn begin_log(&mut self, turn: &mut Turn, run: Run) -> Option<TaskFile> {
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

    /// The log of a job is wanted no more.
    pub(super) fn drop_log(&mut self, turn: &mut Turn, key: Key) {
        if let Some(log) = self.table[key].rare.as_mut().and_then(|rare| rare.log.take()) {
            self.logs.forget(turn, log);
        }
    }

    /// Drops the oldest logs beyond the limit. Those of jobs that run stay: they are as few as the workers.
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

    /// Why there is nothing to read, and never will be if nobody follows.
    pub(crate) fn why_no_log(&self, turn: &Turn, run: Run, follow: bool) -> Option<String> {
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

    /// A client is given the log of each attempt of a job as it begins, if the job has not ended. `is_there` says which
    /// clients still are: the list stays as long as those, with one place for each.
    pub(crate) fn follow_log(
        &mut self,
        run: Run,
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

    /// Who is given the log of each attempt of a job as it begins.
    pub(crate) fn log_followers(&self, run: Run) -> Vec<(ClientId, Tag)> {
        self.job(run).rare.as_ref().map(|rare| rare.followers.clone()).unwrap_or_default()
    }
}

impl Logs {
    /// Recorded now and then and not each time: where there are many, each new one drops an older one.
    fn note_evicted(&mut self, turn: &mut Turn, count: u32) {
        self.unsaid += count;
        if turn.now_ns() < self.say_from_ns {
            return;
        }
        self.say_from_ns = turn.after_ms(SAY_EVERY_MS);
        let count = std::mem::take(&mut self.unsaid);
        turn.record(What::Evicted { count, limit: "kept logs".to_owned() }, None);
    }
}
