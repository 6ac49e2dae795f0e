//! What clients are told without having asked: that their jobs wait for something that is no job's fault, why, and
//! that it is over.
//!
//! Only who waits for ends is told, and once for each time that the pool degrades; who does not read what it was sent is
//! told when it has. A notice promises nothing and changes nothing: the jobs stay where they are.

use bulkhead_proto::client::Reply;
use bulkhead_proto::ids::{ClientId, Tag};

use crate::clients::Client;
use crate::machine::Core;

/// What a notice takes beside its text, in bytes, about.
const NOTICE_BYTES: u64 = 32;

impl Core {
    /// The pool has degraded: everybody who waits is told.
    pub(crate) fn notify_waiting(&mut self) {
        for id in self.clients.waiting() {
            self.notify_degraded(id);
        }
    }

    /// A client waits from now on: it is told if the pool is degraded.
    pub(crate) fn notify_degraded(&mut self, id: ClientId) {
        let Some(degraded) = &self.restart.degraded else { return };
        let up = self.pool.slots.len() - self.pool.vacant;
        let text = match up {
            0 => format!("nothing runs, no worker comes up: {}", degraded.reason()),
            _ => format!(
                "jobs may wait, {up} of {} workers are up: {}",
                self.pool.slots.len(),
                degraded.reason()
            ),
        };
        if self.clients.see(id).is_some_and(|client| client.noticed) || !self.notify(id, text) {
            return;
        }
        if let Some(client) = self.clients.connected(id) {
            client.noticed = true;
        }
    }

    /// The pool is healthy again: who was told otherwise is told.
    pub(crate) fn notify_recovered(&mut self) {
        for id in self.clients.unnotice() {
            self.notify(id, "workers come up again, jobs go on".to_owned());
        }
    }

    /// A client has taken all that it was sent: what it was not told for want of credit it is told now.
    pub(crate) fn notify_flushed(&mut self, id: ClientId) {
        if self.clients.see(id).is_some_and(Client::waits) {
            self.notify_degraded(id);
        }
    }

    /// Tells one client, if it has credit. `false`: it has none, or is gone.
    pub(crate) fn notify(&mut self, id: ClientId, text: String) -> bool {
        let has_credit = self.clients.see(id).is_some_and(|client| client.credit > 0);
        if has_credit {
            let bytes = NOTICE_BYTES + text.len() as u64;
            self.reply(id, Tag(0), Reply::Notice(text), bytes);
        }
        has_credit
    }
}
