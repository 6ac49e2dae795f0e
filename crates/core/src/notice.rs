//! What clients are told without having asked: that their jobs wait for something that is no job's fault, why, and
//! that it is over.
//!
//! Only who waits for ends is told, and once for each time that the pool degrades. A notice promises nothing and
//! changes nothing: the jobs stay where they are.

use bulkhead_proto::client::Reply;
use bulkhead_proto::ids::{ClientId, Tag};

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
        let Some(client) = self.clients.connected(id) else { return };
        if !std::mem::replace(&mut client.noticed, true) {
            self.notify(id, text);
        }
    }

    /// The pool is healthy again: who was told otherwise is told.
    pub(crate) fn notify_recovered(&mut self) {
        for id in self.clients.unnotice() {
            self.notify(id, "workers come up again, jobs go on".to_owned());
        }
    }

    /// Tells one client.
    pub(crate) fn notify(&mut self, id: ClientId, text: String) {
        let bytes = NOTICE_BYTES + text.len() as u64;
        self.reply(id, Tag(0), Reply::Notice(text), bytes);
    }
}
