//! Clients that have received all replies, and clients whose connection is over.
//!
//! `Core::hear` calls the methods here. The room of clients does the rest; this file moves what concerns jobs.

use bulkhead_proto::ids::ClientId;

use crate::event::Peer;
use crate::machine::Core;

impl Core {
    /// A user connected: the connection keeps the place of the user's account.
    pub(super) fn client_connected(&mut self, id: ClientId, peer: Peer) {
        self.post_charges();
        let account = self.ledger.open(peer.uid);
        self.clients.connect(&mut self.turn, id, peer, account);
    }

    /// Whether [`crate::event::Event::ClientFlushed`] of this client needs a turn of its own. Else it may come with the next batch.
    pub fn awaits_flush(&self, id: ClientId) -> bool {
        self.clients.awaits_flush(&self.turn, id)
    }

    /// All replies to a client have left: it has its whole credit again.
    pub(super) fn client_flushed(&mut self, id: ClientId) {
        self.clients.flushed(&self.turn, id);
        self.notify_flushed(id);
        self.look_up_next(id);
    }

    /// A connection is over. Its attached jobs live on until the alarm `Vanished`.
    pub(super) fn client_gone(&mut self, id: ClientId) {
        self.drop_look_ups(id);
        let Some(gone) = self.clients.hang_up(&mut self.turn, id) else { return };
        for (first, count) in gone.batches {
            self.jobs.detach(first, count);
        }
        // These letters will never be sent: results that waited for this client alone are kept from now on.
        for letter in gone.letters {
            self.told(id, letter);
        }
        self.drop_held(id);
        // Its jobs rested for its unread replies, which are gone.
        self.jobs.park(gone.uid, id, false);
        self.parked.change();
        self.clients.vanish(&mut self.turn, id);
    }
}
