//! Clients: the only writer of connections, their credit, their mail and their readers of records.
//!
//! A client that vanished is remembered while it has attached jobs, which are cancelled after a while. Nothing here
//! knows more of a job than its number: the machine asks the room of jobs for the contents of a reply.
//!
//! | file | what it is about |
//! |---|---|
//! | `connection` | one client, from its connection until it is forgotten |
//! | `credit` | how many bytes of replies may be on their way |
//! | `mail` | ends that wait as letters, and the replies that carry them |
//! | `receipts` | ends that were sent and that their client may report as received |
//! | `followers` | readers of records |
//! | `sight`, `log_readers` | who sees what of another user's; the jobs whose logs clients follow |
//! | `registrations` | what connections registered, and which workers have it |
//! | `waits`, `look_ups` | the jobs whose ends clients asked for; requests about jobs that only the journal may have |

mod connection;
mod credit;
mod followers;
mod log_readers;
mod look_ups;
mod mail;
mod receipts;
mod registrations;
mod sight;
#[cfg(test)]
mod tests;
mod values;
mod waits;

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_facts::fact::FactNo;
use bulkhead_proto::ids::{ClientId, PoolId};

use crate::turn::{AccountId, Resource};

pub(crate) use connection::{AttachedBatch, Client};
pub(crate) use look_ups::{LookUp, LookUpVerb, NextLookUp};
pub(crate) use mail::{ENTRY_BYTES, Envelopes, Letter, LetterReason, bytes_of};
pub(crate) use values::HungUp;

use crate::client::registrations::RegistrationTable;
use crate::turn::UserTurns;

/// All clients.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    map: BTreeMap<ClientId, Client>,
    /// Clients with new letters or new credit, in the order of their turns.
    ready: UserTurns,
    /// Clients with readers of records.
    readers: BTreeSet<ClientId>,
    /// Those whose readers have records to be sent, in the order of their turns.
    reading: UserTurns,
    /// The number after the last record of which all readers were told to be sent.
    followed: u64,
    registrations: RegistrationTable,
    /// Clients whose look-ups go on once a fact is stored.
    after_facts: BTreeSet<(FactNo, ClientId)>,
}

impl Clients {
    fn connected(&mut self, id: ClientId) -> Option<&mut Client> {
        self.map.get_mut(&id).filter(|client| client.is_connected())
    }

    /// A client, if it is connected.
    pub(crate) fn see(&self, id: ClientId) -> Option<&Client> {
        self.map.get(&id).filter(|client| client.is_connected())
    }

    /// Whether a client is connected.
    pub(crate) fn is_connected(&self, id: ClientId) -> bool {
        self.see(id).is_some()
    }

    /// When the attached jobs of a client are cancelled, if it vanished.
    pub(crate) fn vanishes_ns(&self, id: ClientId) -> Option<u64> {
        self.map.get(&id)?.vanishes_ns()
    }

    /// The number of connected clients.
    pub(crate) fn count(&self) -> usize {
        self.map.values().filter(|client| client.is_connected()).count()
    }

    /// What accounts hold here, in any number of rows. Vanished clients count as connections.
    pub(crate) fn holdings(&self) -> impl Iterator<Item = (AccountId, Resource, u64)> + '_ {
        let of_clients = self.map.values().flat_map(|client| {
            let waits = (client.account(), Resource::Waits, client.asked_waits());
            let readers = (client.account(), Resource::Readers, client.readers.len() as u64);
            let logs = (client.account(), Resource::Readers, client.logs.len() as u64);
            let look_ups = (client.account(), Resource::LookUps, client.look_ups());
            [(client.account(), Resource::Connections, 1), waits, look_ups, readers, logs]
        });
        of_clients.chain(self.registrations.holdings())
    }

    /// Connected clients that wait for the end of any job.
    pub(crate) fn waiting(&self) -> Vec<ClientId> {
        let waiting = self.map.iter().filter(|(_, client)| client.is_connected() && client.waits());
        waiting.map(|(id, _)| *id).collect()
    }

    /// Notes that a client was told that a pool is degraded, and whether also that it stands empty.
    ///
    /// # Panics
    /// If it was told so before.
    pub(crate) fn note_told_degraded(&mut self, id: ClientId, pool: PoolId, stands_empty: bool) {
        if let Some(client) = self.connected(id) {
            assert!(
                !client.was_told_degraded(pool, stands_empty),
                "client {id} is told once that pool {} is degraded",
                pool.0
            );
            client.told_degraded.retain(|(told, _)| *told != pool);
            client.told_degraded.push((pool, stands_empty));
        }
    }

    /// The clients that were told that a pool is degraded; the notes are removed.
    pub(crate) fn forget_told_degraded(&mut self, pool: PoolId) -> Vec<ClientId> {
        let told = self.map.iter_mut().filter(|(_, client)| client.was_told_degraded(pool, false));
        told.map(|(id, client)| {
            client.told_degraded.retain(|(told, _)| *told != pool);
            *id
        })
        .collect()
    }
}
