//! The logs of jobs: what a job writes, in a file that the shell makes for each attempt and that only its worker and its
//! readers touch.
//!
//! A job has the log of its latest attempt, from that offer on until the job is dropped. How many are kept has a limit:
//! beyond it the oldest goes, of a job that does not run. Who may have one is who may see the job. A reader that follows
//! is given each attempt's as it begins; the end of the job it learns by waiting for it, like everybody else.

use std::collections::BTreeMap;

use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::{ClientId, JobId, LogId, Tag};

use crate::action::{Action, TaskFile};
use crate::event::Peer;
use crate::job::entry::Phase;
use crate::job::list::Key;
use crate::job::table::Jobs;
use crate::machine::Core;
use crate::turn::ms;

/// Shortest time between two records that say that logs were dropped, in milliseconds.
const SAY_EVERY_MS: u64 = 10_000;
/// What a reply with a log takes of a client's credit beside its descriptor, in bytes.
const REPLY_BYTES: u64 = 48;

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
    /// Checks what must always hold.
    pub(crate) fn audit(&self, jobs: &Jobs) {
        for (log, key) in &self.of {
            let aside = jobs[*key].aside.as_ref();
            assert_eq!(aside.and_then(|aside| aside.log), Some(*log), "a log is its job's");
        }
        let with_log = jobs.slab.iter().filter(|(_, job)| job.log().is_some()).count();
        assert_eq!(with_log, self.of.len(), "every log of a job is held");
    }
}

impl Core {
    /// A new log for an attempt that is about to be offered, in place of the one before; `None` if its kind keeps none.
    pub(crate) fn begin_log(&mut self, key: Key) -> Option<TaskFile> {
        let kind = usize::from(self.jobs.batch(key).kind.0);
        if !self.turn.config().kinds.get(kind).is_some_and(|kind| kind.logs && !kind.plans) {
            return None;
        }
        self.drop_log(key);
        self.logs.last += 1;
        let log = LogId(self.logs.last);
        self.logs.of.insert(log, key);
        let aside = self.jobs[key].aside_mut();
        aside.log = Some(log);
        aside.log_dropped = false;
        Some(TaskFile::Log { log })
    }

    /// The log of a job is wanted no more.
    pub(crate) fn drop_log(&mut self, key: Key) {
        let log = self.jobs[key].aside.as_mut().and_then(|aside| aside.log.take());
        if let Some(log) = log {
            self.logs.of.remove(&log);
            self.turn.act(Action::DropLog { log });
        }
    }

    /// Drops the oldest logs beyond the limit. Those of jobs that run stay: they are as few as the workers.
    pub(crate) fn evict_logs(&mut self) {
        let mut count = 0;
        while self.logs.of.len() as u64 > self.turn.config().keep_logs_max {
            let idle = |key: &&Key| self.jobs[**key].state.phase() != Phase::Running;
            let Some(key) = self.logs.of.values().find(idle).copied() else { break };
            self.drop_log(key);
            self.jobs[key].aside_mut().log_dropped = true;
            count += 1;
        }
        if count > 0 {
            self.note_evicted(count);
        }
    }

    /// Answers `logs`: the log of the latest attempt at once, and when following that of each attempt as it begins.
    pub(crate) fn read_log(&mut self, id: ClientId, tag: Tag, peer: Peer, job: JobId, follow: bool) {
        let key = match self.visible(peer, job) {
            Ok(key) => key,
            Err(refusal) => return self.refuse(id, tag, refusal),
        };
        if let Some(why) = self.why_no_log(key, follow) {
            return self.refuse(id, tag, Refusal::NoLog { job, why });
        }
        if follow && self.jobs[key].end().is_none() {
            let clients = &mut self.clients;
            let followers = &mut self.jobs[key].aside_mut().followers;
            // One for each client, so that the list stays as long as those who are there.
            followers.retain(|(follower, _)| *follower != id && clients.connected(*follower).is_some());
            followers.push((id, tag));
        }
        self.give_log(id, tag, key);
    }

    /// Why there is nothing to read, and never will be if nobody follows.
    fn why_no_log(&self, key: Key, follow: bool) -> Option<String> {
        let kind = &self.turn.config().kinds[usize::from(self.jobs.batch(key).kind.0)];
        let job = &self.jobs[key];
        if !kind.logs {
            return Some(format!("jobs of kind {} keep no log", kind.name));
        }
        if job.log().is_some() || (follow && job.end().is_none()) {
            return None;
        }
        let was_dropped = job.aside.as_ref().is_some_and(|aside| aside.log_dropped);
        Some(match job.end() {
            _ if was_dropped => {
                format!("its log went to make room, at most {} are kept", self.turn.config().keep_logs_max)
            }
            Some(_) => "it never ran".to_owned(),
            None => "it has not run yet: --follow waits for it".to_owned(),
        })
    }

    /// An attempt was offered: whoever follows is given its log.
    pub(crate) fn show_log(&mut self, key: Key) {
        let Some(aside) = &self.jobs[key].aside else { return };
        for (id, tag) in aside.followers.clone() {
            self.give_log(id, tag, key);
        }
    }

    fn give_log(&mut self, id: ClientId, tag: Tag, key: Key) {
        let job = &self.jobs[key];
        let Some(log) = job.log() else { return };
        let reply = Reply::Logs { job: job.id, attempt: job.attempts, is_there: true };
        let whole = self.turn.config().client_credit_bytes;
        let Some(client) = self.clients.connected(id) else { return };
        client.credit = client.credit.saturating_sub_unsigned(REPLY_BYTES + whole / 64);
        self.turn.act(Action::ShowLog { client: id, tag, reply, log });
    }

    /// Said now and then and not each time: where there are many, each new one drops an older one.
    fn note_evicted(&mut self, count: u32) {
        self.logs.unsaid += count;
        if self.turn.now_ns() < self.logs.say_from_ns {
            return;
        }
        self.logs.say_from_ns = self.turn.now_ns() + ms(SAY_EVERY_MS);
        let count = std::mem::take(&mut self.logs.unsaid);
        self.turn.record(What::Evicted { count, limit: "kept logs".to_owned() }, None);
    }
}
