//! Notices to clients without a request: that their jobs wait because a pool is degraded or a descriptor is short, why, and
//! that it is over.
//!
//! Only clients that wait for ends get notices, once for each time that a pool degrades, and once more when its last worker has
//! gone and none comes up; a client without credit gets its notice when it has read. A notice changes nothing: the jobs stay where they are.

use bulkhead_proto::client::message::Reply;
use bulkhead_proto::ids::{ClientId, PoolId, Tag};

use crate::client::Client;
use crate::machine::Core;
use crate::worker::Pool;

/// The size of a notice beside its text, in bytes, about.
const NOTICE_BYTES: u64 = 32;

impl Core {
    /// A pool has degraded: clients that wait for jobs of it get a notice.
    pub(super) fn notify_waiting(&mut self, pool: PoolId) {
        for id in self.clients.waiting() {
            self.notify_degraded(id, pool);
        }
    }

    /// A client begins to wait, or has credit again: it gets a notice for each degraded pool that its jobs wait in.
    pub(super) fn notify_waiter(&mut self, id: ClientId) {
        for pool in self.workers.pool_ids() {
            self.notify_degraded(id, pool);
        }
    }

    fn notify_degraded(&mut self, id: ClientId, pool: PoolId) {
        let Some(text) = self.degraded_text(pool) else { return };
        let stands_empty = self.workers.pool(pool).stands_empty().is_some();
        let is_told = self.clients.see(id).is_none_or(|client| client.was_told_degraded(pool, stands_empty));
        if is_told || !self.waits_in(id, pool) || !self.notify(id, text) {
            return;
        }
        self.clients.note_told_degraded(id, pool, stands_empty);
    }

    /// Whether a client has attached jobs in a pool. One that waits for single jobs may wait for any.
    fn waits_in(&self, id: ClientId, pool: PoolId) -> bool {
        let has_some =
            |client: &Client| client.asked_waits() > 0 || client.attached().any(|batch| batch.pool() == pool);
        self.clients.see(id).is_some_and(has_some)
    }

    fn degraded_text(&self, id: PoolId) -> Option<String> {
        let pool = self.workers.pool(id);
        let (reason, slots, place) = (pool.degraded()?, pool.size(), self.in_pool(pool));
        if let Some(reason) = pool.stands_empty() {
            return Some(format!("nothing runs{place}, no worker comes up: {reason}"));
        }
        Some(match pool.filled() {
            0 => format!("nothing runs{place}, no worker comes up: {reason}"),
            _ if self.workers.is_jammed(id) => format!("nothing runs{place}: {reason}"),
            up => format!("jobs may wait{place}, {up} of {slots} workers are up: {reason}"),
        })
    }

    /// The words for a pool, where there are several.
    fn in_pool(&self, pool: &Pool) -> String {
        let several = self.workers.pools().count() > 1;
        if several { format!(" in pool {}", pool.name()) } else { String::new() }
    }

    /// A pool is healthy again: clients that had a notice of it get another.
    pub(super) fn notify_recovered(&mut self, pool: PoolId) {
        let place = self.in_pool(self.workers.pool(pool));
        for id in self.clients.forget_told_degraded(pool) {
            self.notify(id, format!("workers come up again{place}, jobs go on"));
        }
    }

    /// A descriptor could not be made; `what` says why. Clients whose attached jobs need one get a notice now and then.
    pub(super) fn fall_short(&mut self, what: &str) {
        if !self.workers.fall_short(&mut self.turn, what) {
            return;
        }
        for id in self.clients.waiting() {
            if self.attached_needs_descriptor(id) {
                self.notify(id, format!("jobs with large results wait: {what}"));
            }
        }
    }

    fn attached_needs_descriptor(&self, id: ClientId) -> bool {
        self.clients.see(id).is_some_and(|client| client.attached().any(|batch| batch.needs_descriptor()))
    }

    /// A client has its whole credit again: it gets the notices that it had no credit for.
    pub(super) fn notify_flushed(&mut self, id: ClientId) {
        if self.clients.see(id).is_some_and(Client::waits) {
            self.notify_waiter(id);
        }
    }

    /// Sends a notice to one client, if it has credit. `false`: it has none, or is gone.
    pub(super) fn notify(&mut self, id: ClientId, text: String) -> bool {
        let has_credit = self.clients.has_credit(id);
        if has_credit {
            let bytes = NOTICE_BYTES + text.len() as u64;
            self.reply(id, Tag(0), Reply::Notice(text), bytes);
        }
        has_credit
    }
}
