//! Limits the memory that clients make the daemon hold: by frames that they do not finish, and by replies that they do
//! not read.
//!
//! | of | in all | beyond it |
//! |---|---|---|
//! | unfinished frames | [`UNFINISHED_MAX_BYTES`] | the connection below is told so in a goodbye, and ends |
//! | unread replies | [`UNREAD_MAX_BYTES`] | the connection below ends: a goodbye would have to wait behind what is unread |
//!
//! It is the connection that holds most, of the user whose connections hold most together: a user who fills up the memory
//! loses only connections of their own. A user who holds more than half of a share is not read where replies wait, so
//! that only results that were under way can pass the bound. The bytes are in the ledger of the shell. Driven by
//! `client_table.rs`.
//!
//! [`UNFINISHED_MAX_BYTES`]: bulkhead_proto::limits::UNFINISHED_MAX_BYTES
//! [`UNREAD_MAX_BYTES`]: bulkhead_proto::limits::UNREAD_MAX_BYTES

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::account::{AccountId, Resource};
use bulkhead_proto::ids::ClientId;

use crate::shell_ledger::{HeldShare, ShellLedger};

/// Bytes of each connection, of one of the two.
#[derive(Debug)]
pub(crate) struct ClientBytes {
    ledger: ShellLedger,
    resource: Resource,
    of: BTreeMap<ClientId, HeldShare>,
    /// The same by account, from the connection that holds least to the one that holds most.
    order: BTreeSet<(AccountId, u64, ClientId)>,
}

impl ClientBytes {
    /// Counts as this resource in this ledger.
    pub(crate) fn new(ledger: ShellLedger, resource: Resource) -> Self {
        Self { ledger, resource, of: BTreeMap::new(), order: BTreeSet::new() }
    }

    /// Notes how many bytes a client of this account holds now; 0 if it has left.
    pub(crate) fn note(&mut self, client: ClientId, account: AccountId, bytes: usize) {
        let bytes = bytes as u64;
        let before = self.of.get(&client).map_or(0, HeldShare::count);
        if before == bytes {
            return;
        }
        self.order.remove(&(account, before, client));
        if bytes == 0 {
            self.of.remove(&client);
            return;
        }
        self.order.insert((account, bytes, client));
        let (ledger, resource) = (&self.ledger, self.resource);
        let held = self.of.entry(client).or_insert_with(|| ledger.hold(account, resource, 0));
        held.set(ledger, bytes);
    }

    /// Whether a user holds more than half of what one may hold.
    pub(crate) fn is_half_full(&self, account: AccountId) -> bool {
        self.ledger.is_half_full(account, self.resource)
    }

    /// The client to disconnect, if the limit is exceeded.
    pub(crate) fn client_to_drop(&self) -> Option<ClientId> {
        let most = self.ledger.excess(self.resource)?;
        let own = (most, 0, ClientId(0))..=(most, u64::MAX, ClientId(u64::MAX));
        self.order.range(own).next_back().map(|(_, _, client)| *client)
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_core::account::{Ledger, LoweredBounds, Users};

    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn the_greatest_of_the_greediest_user_gives_way_and_room_comes_back() {
        let bounds = [(Resource::PartialBytes, 64 * MIB as u64)];
        let ledger = ShellLedger::new(Ledger::new(Users::Several, &bounds, LoweredBounds::default()));
        let (alice, mallory) = (ledger.open(7), ledger.open(8));
        let connected = [alice, mallory].map(|account| ledger.hold(account, Resource::Connections, 1));
        let mut frames = ClientBytes::new(ledger.clone(), Resource::PartialBytes);
        frames.note(ClientId(1), alice, 2 * MIB);
        for client in 2..64 {
            frames.note(ClientId(client), mallory, MIB);
        }
        assert_eq!(frames.client_to_drop(), None, "{frames:?}");
        assert!(frames.is_half_full(mallory) && !frames.is_half_full(alice));
        frames.note(ClientId(500), mallory, 2);
        frames.note(ClientId(600), mallory, MIB + 1);
        assert_eq!(frames.client_to_drop(), Some(ClientId(600)), "not the single one of the other user");
        frames.note(ClientId(600), mallory, 0);
        assert_eq!(frames.client_to_drop(), Some(ClientId(63)), "two small ones are too much as well");
        frames.note(ClientId(500), mallory, 0);
        assert_eq!(frames.client_to_drop(), None);
        for client in 1..64 {
            let account = if client == 1 { alice } else { mallory };
            frames.note(ClientId(client), account, 0);
        }
        drop(connected);
        assert_eq!((frames.of.len(), frames.order.len()), (0, 0));
        ledger.read(Ledger::audit);
        assert_eq!(ledger.read(|ledger| ledger.held_by_all(Resource::PartialBytes)), 0);
    }
}
