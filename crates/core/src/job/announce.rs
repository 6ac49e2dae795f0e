//! Who is still to be told of an end: clients that wait for it, and the client that the job is attached to.
//!
//! [`Jobs::end`] gives the clients that wait, `machine/end.rs` writes them letters and says here how many there were,
//! and each letter that is read comes back as [`Jobs::told`]. Letters themselves are the room of clients'.

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::{ClientId, JobId, Tag};

use crate::event::Leftover;
use crate::job::list::Key;
use crate::job::run::Run;
use crate::job::state::{End, Retention};
use crate::job::{Jobs, Released, Untold};
use crate::turn::{Turn, count_down};

impl Jobs {
    /// So many clients are to be told of an end that was just given. An attached end is its client's, and is never
    /// dropped for others': gives what it weighs. Any other competes for the retention.
    ///
    /// # Panics
    /// If it has not ended, was announced, or is attached and nobody is to be told.
    pub(crate) fn announced(&mut self, run: Run, clients: u32) -> Option<Untold> {
        let key = self.table.open(run);
        let end = self.table[key].end_mut().expect("what is announced has ended");
        assert_eq!(end.retention, Retention::Unannounced, "job {} is announced once", run.first());
        end.untold = clients;
        if !self.table.batch(key).attached {
            self.keep_ended(key);
            return None;
        }
        assert!(clients > 0, "the client of attached job {} is to be told of its end", run.first());
        self.mark_untold(key);
        let untold = self.weigh_untold(key);
        self.kept.add_untold(untold.bytes);
        Some(untold)
    }

    fn mark_untold(&mut self, key: Key) {
        if let Some(end) = self.table[key].end_mut() {
            end.retention = Retention::Untold;
        }
    }

    /// What the end of a job weighs that its client was not told.
    pub(super) fn weigh_untold(&self, key: Key) -> Untold {
        let job = &self.table[key];
        let is_held = job.end().is_some_and(|end| matches!(end.left, Leftover::Held { .. }));
        Untold { client: self.table.batch(key).client, bytes: job.kept_bytes(), outputs: u64::from(is_held) }
    }

    /// One more client is to be told of an end.
    ///
    /// # Panics
    /// If the job has not ended, or its end was not announced.
    pub(crate) fn tell_one_more(&mut self, run: Run) {
        let key = self.table.open(run);
        let end = self.table[key].end_mut().expect("its end is there to be told");
        assert_ne!(
            end.retention,
            Retention::Unannounced,
            "the end of job {} is announced first",
            run.first()
        );
        end.untold += 1;
    }

    /// A client waits for the end of a job that has not ended. `is_there` says which clients still are: others are
    /// dropped from the list now and then, so that it stays as long as its living.
    ///
    /// # Panics
    /// If the job has ended, or is a part.
    pub(crate) fn add_waiter(
        &mut self,
        run: Run,
        waiter: (ClientId, Tag),
        is_there: impl Fn(ClientId) -> bool,
    ) {
        let key = self.table.open(run);
        self.assert_may_be_waited_for(key);
        let waiters = &mut self.table[key].rare_mut().waiters;
        waiters.push(waiter);
        if waiters.len() >= 8 && waiters.len().is_power_of_two() {
            waiters.retain(|(waiter, _)| is_there(*waiter));
        }
    }

    /// A client that was to be told of an end waits for the next one: the job was asked to run again meanwhile.
    ///
    /// # Panics
    /// If the job has ended, or is a part.
    pub(crate) fn wait_again(&mut self, run: Run, waiter: (ClientId, Tag)) {
        let key = self.table.open(run);
        self.assert_may_be_waited_for(key);
        self.table[key].rare_mut().waiters.push(waiter);
    }

    fn assert_may_be_waited_for(&self, key: Key) {
        let job = &self.table[key];
        assert!(job.end().is_none() && !job.is_part(), "job {} is a job that has not ended", job.id);
    }

    /// A client was told of the end of this job, or is gone: when all were, a done one that was attached is forgotten and
    /// any other is kept.
    ///
    /// # Panics
    /// If an attached end is told more often than it was announced.
    pub(crate) fn told(&mut self, turn: &mut Turn, number: JobId) -> Released {
        let Some(key) = self.table.find(number) else { return Released::default() };
        let Some(end) = self.table[key].end_mut() else { return Released::default() };
        if end.retention != Retention::Untold {
            // Letters of an earlier end are counted too, if the job was asked to run again before they were read.
            end.untold = end.untold.saturating_sub(1);
            return Released::default();
        }
        count_down(&mut end.untold, 1, "clients to be told of an end");
        if end.untold > 0 {
            return Released::default();
        }
        let is_done = end.outcome == Outcome::Done;
        if is_done && self.table.batch(key).attached {
            self.forget(turn, self.table.run(key))
        } else {
            let untold = self.stop_keeping(key);
            self.keep_ended(key);
            Released { untold, batch: None }
        }
    }

    /// Whether nobody will ask for this job again once this client, which submitted it attached, has its end.
    pub(crate) fn is_last_word(&self, run: Run, client: ClientId) -> bool {
        let batch = self.batch(run);
        let is_last =
            |end: &End| end.untold == 1 && end.retention == Retention::Untold && end.outcome == Outcome::Done;
        batch.attached && batch.client == client && self.job(run).end().is_some_and(is_last)
    }
}
