//! Limits the memory that partial frames of all clients take up.
//!
//! A client can send half of a long frame and then nothing. Beyond [`UNFINISHED_MAX_BYTES`] in all, the user who
//! holds the most memory loses the connection that holds the most. So a user who fills up the memory loses only
//! connections of their own. Driven by `client_table.rs`.

use std::collections::BTreeMap;

use bulkhead_proto::ids::ClientId;
use bulkhead_proto::limits::UNFINISHED_MAX_BYTES;

/// What each connection may hold without being counted.
const ALLOWANCE_BYTES: usize = 64 << 10;

/// Bytes of each connection beyond the allowance.
#[derive(Debug, Default)]
pub(crate) struct PartialFrames {
    of: BTreeMap<ClientId, (u32, usize)>,
    total: usize,
}

impl PartialFrames {
    /// Notes how many bytes a client of this user holds now; 0 if it has left.
    pub(crate) fn note(&mut self, client: ClientId, uid: u32, bytes: usize) {
        let beyond = bytes.saturating_sub(ALLOWANCE_BYTES);
        let old = if beyond > 0 { self.of.insert(client, (uid, beyond)) } else { self.of.remove(&client) };
        self.total = self.total - old.map_or(0, |(_, bytes)| bytes) + beyond;
    }

    /// The client to disconnect, if the limit is exceeded.
    pub(crate) fn client_to_drop(&self) -> Option<ClientId> {
        if self.total <= UNFINISHED_MAX_BYTES {
            return None;
        }
        let mut users = BTreeMap::new();
        for (uid, bytes) in self.of.values() {
            *users.entry(*uid).or_insert(0_usize) += bytes;
        }
        let (worst, _) = users.into_iter().max_by_key(|(_, bytes)| *bytes)?;
        let own = self.of.iter().filter(|(_, (uid, _))| *uid == worst);
        own.max_by_key(|(_, (_, bytes))| *bytes).map(|(client, _)| *client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn the_greatest_of_the_greediest_user_gives_way_and_room_comes_back() {
        let mut frames = PartialFrames::default();
        let each = ALLOWANCE_BYTES + MIB;
        let fits = (UNFINISHED_MAX_BYTES / MIB) as u64;
        frames.note(ClientId(1), 7, ALLOWANCE_BYTES + 2 * MIB);
        for client in 2..fits {
            frames.note(ClientId(client), 8, each);
        }
        assert_eq!(frames.client_to_drop(), None, "{}", frames.total);
        frames.note(ClientId(500), 8, ALLOWANCE_BYTES + 2);
        frames.note(ClientId(600), 8, each + 1);
        assert_eq!(frames.client_to_drop(), Some(ClientId(600)), "not the single one of the other user");
        frames.note(ClientId(600), 8, 0);
        frames.note(ClientId(500), 8, ALLOWANCE_BYTES);
        assert_eq!(frames.client_to_drop(), None);
        for client in 1..=600 {
            frames.note(ClientId(client), 8, 0);
        }
        assert_eq!((frames.total, frames.of.len()), (0, 0));
    }
}
