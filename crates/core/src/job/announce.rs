//! Announcing an end: clients that wait for it, and the client that the job is attached to.
//!
//! [`Jobs::end`] returns the waiting clients, `machine/end.rs` posts a letter to each and calls [`Jobs::announced`]
//! with their number, and [`Jobs::told`] is called for each letter that is read. The room of clients owns the
//! letters.
//!
//! | the result of a done, attached job | is forgotten |
//! |---|---|
//! | not held | when its last letter is read |
//! | held, not received | never for having been sent: it is kept within the bounds of `kept.rs` |
//! | held, received | at once, or when the last letter to another client is read |

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::{ClientId, JobId, Tag};

use crate::event::Leftover;
use crate::job::list::Key;
use crate::job::run::TaskRun;
use crate::job::state::{End, Retention};
use crate::job::{Jobs, Released, Untold};
use crate::turn::{Resource, Turn, count_down};

impl Jobs {
    /// Records that an end was announced to so many clients. The end of an attached job is kept until its client has
    /// read it, and its weight is returned; any other end is kept within the bounds of `kept.rs`.
    ///
    /// # Panics
    /// If the job has not ended, was announced before, or is attached and no client was posted a letter.
    pub(crate) fn announced(&mut self, run: TaskRun, clients: u32) -> Option<Untold> {
        let key = self.table.open(run);
        let batch = self.table.batch(key);
        let (is_attached, account) = (batch.attached, batch.account);
        let end = self.table[key].end_mut().expect("what is announced has ended");
        assert_eq!(end.retention, Retention::Unannounced, "job {} is announced once", run.first());
        end.untold = clients;
        if !is_attached {
            self.keep_ended(key);
            return None;
        }
        assert!(clients > 0, "the client of attached job {} is to be told of its end", run.first());
        end.retention = Retention::Untold;
        let untold = self.weigh_untold(key);
        self.kept.add_untold(untold.bytes);
        let bytes = untold.bytes + self.output_bytes_of(key);
        self.table.charges.charge(account, Resource::UnreadResults, bytes);
        Some(untold)
    }

    /// The weight of an end that its attached client has not read.
    pub(super) fn weigh_untold(&self, key: Key) -> Untold {
        let job = &self.table[key];
        let is_held = job.end().is_some_and(|end| matches!(end.left, Leftover::Held { .. }));
        Untold { client: self.table.batch(key).client, bytes: job.kept_bytes(), outputs: u64::from(is_held) }
    }

    /// One more client was posted a letter about an end.
    ///
    /// # Panics
    /// If the job has not ended, or its end was not announced.
    pub(crate) fn tell_one_more(&mut self, run: TaskRun) {
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

    /// Adds a client that asked for the end of a job and did not wait for it before. `is_there` says whether a client is connected: each time the
    /// list has doubled, clients that are not connected are dropped from it.
    ///
    /// # Panics
    /// If the job has ended, or is a part.
    pub(crate) fn add_waiter(&mut self, run: TaskRun, waiter: ClientId, is_there: impl Fn(ClientId) -> bool) {
        let key = self.table.open(run);
        self.assert_may_be_waited_for(key);
        let waiters = &mut self.table[key].rare_mut().waiters;
        waiters.push((waiter, None));
        if waiters.len() >= 8 && waiters.len().is_power_of_two() {
            waiters.retain(|(waiter, _)| is_there(*waiter));
        }
    }

    /// Adds a client whose letter is about an end that a retry has taken back: it waits for the next end. With a
    /// request: that submitted the job.
    ///
    /// # Panics
    /// If the job has ended, or is a part.
    pub(crate) fn wait_again(&mut self, run: TaskRun, waiter: (ClientId, Option<Tag>)) {
        let key = self.table.open(run);
        self.assert_may_be_waited_for(key);
        self.table[key].rare_mut().waiters.push(waiter);
    }

    fn assert_may_be_waited_for(&self, key: Key) {
        let job = &self.table[key];
        assert!(job.end().is_none() && !job.is_part(), "job {} is a job that has not ended", job.id);
    }

    /// A letter about the end of this job was read, or its client is gone; `is_own`: that client submitted the job. After the
    /// last letter, an attached job that is done and not held, or received, is forgotten and any other is kept.
    ///
    /// # Panics
    /// If the end of an attached job is told more often than it was announced.
    pub(crate) fn told(&mut self, turn: &mut Turn, number: JobId, is_own: bool) -> Released {
        let Some(key) = self.table.find(number) else { return Released::default() };
        let Some(end) = self.table[key].end_mut() else { return Released::default() };
        end.frees_block &= !is_own;
        if end.retention != Retention::Untold {
            // After a retry, unread letters about the earlier end are counted here too.
            end.untold = end.untold.saturating_sub(1);
            let is_over = end.received && end.untold == 0;
            return if is_over { self.forget(turn, self.table.run(key)) } else { Released::default() };
        }
        count_down(&mut end.untold, 1, "clients to be told of an end");
        if end.untold > 0 {
            return Released::default();
        }
        let (is_done, received) = (end.outcome == Outcome::Done, end.received);
        let batch = self.table.batch(key);
        if is_done && batch.attached && (received || !batch.held) {
            self.forget(turn, self.table.run(key))
        } else {
            let untold = self.stop_keeping(key);
            self.keep_ended(key);
            Released { untold, ..Released::default() }
        }
    }

    /// A client has a result that was sent to it: the job is forgotten if it is done, of a held batch of that client,
    /// and no letter about it waits to be read. `None`: it stays. The number may be of a job that was forgotten or
    /// evicted meanwhile.
    pub(crate) fn received(&mut self, turn: &mut Turn, number: JobId, client: ClientId) -> Option<Released> {
        let key = self.table.find(number)?;
        let batch = self.table.batch(key);
        if !batch.held || batch.client != client {
            return None;
        }
        let end = self.table[key].end_mut().filter(|end| end.outcome == Outcome::Done)?;
        end.received = true;
        let is_over = end.untold == 0;
        is_over.then(|| self.forget(turn, self.table.run(key)))
    }

    /// Whether the job of this number is in the table and held for a receipt.
    pub(crate) fn is_held(&self, number: JobId) -> bool {
        self.table.find(number).is_some_and(|key| self.table.batch(key).held)
    }

    /// Whether this job can be forgotten as soon as this client, which submitted it attached, is sent its end.
    pub(crate) fn is_last_word(&self, run: TaskRun, client: ClientId) -> bool {
        let batch = self.batch(run);
        let is_last =
            |end: &End| end.untold == 1 && end.retention == Retention::Untold && end.outcome == Outcome::Done;
        batch.attached && !batch.held && batch.client == client && self.job(run).end().is_some_and(is_last)
    }
}
