//! Clients that come, take what was sent, and go.

use bulkhead_proto::ids::ClientId;

use crate::machine::Core;

impl Core {
    /// A client took all that was sent.
    pub(super) fn client_flushed(&mut self, id: ClientId) {
        self.clients.flushed(&self.turn, id);
        self.notify_flushed(id);
    }

    /// A connection is over: its jobs live on for a while, as if they were not attached.
    pub(super) fn client_gone(&mut self, id: ClientId) {
        let Some(gone) = self.clients.hang_up(id) else { return };
        for (first, count) in gone.batches {
            self.jobs.detach(first, count);
        }
        // Nobody will read these, so what they tell of is told: results that waited for this client alone are shelved now.
        for letter in gone.letters {
            self.told(id, letter);
        }
        // It was held back for what it had not read; nothing waits for it any more.
        self.jobs.park(gone.uid, id, false);
        self.clients.vanish(&mut self.turn, id);
    }
}
