//! What one turn of the loop reads from all clients together, and sends to them.
//!
//! A reply leaves at the end of the turn that has read its request, so a turn must be short whatever clients send:
//!
//! | what | of one connection | of all together |
//! |---|---|---|
//! | reads | one share: `request_share.rs` | until [`REQUESTS`], [`BYTES`] or [`CONNECTIONS`] is used up |
//! | sends | [`SENT_BYTES`] | until [`ALL_SENT_BYTES`] or [`CONNECTIONS`] is used up |
//! | accepts | - | `ACCEPTS_PER_TURN`, in the kernel's order; nothing is read from a connection before its user's turn |
//!
//! A connection that is begun gets its whole share, one in a turn. Users take turns, then each user's connections
//! ([`bulkhead_core::UserTurns`]). One that was not reached stays in line, and the loop does not sleep before it is. A
//! request whose reply may be long takes a whole share, so a turn has at most two of them.

use crate::request_share::{REQUESTS_PER_TURN, RequestShare};

/// Short requests of all clients in one turn, or two that take a whole share.
const REQUESTS: usize = 2 * REQUESTS_PER_TURN;
/// Bytes that are read from all clients in one turn.
const BYTES: usize = 1 << 20;
/// Connections that are read in one turn, or that are sent to.
const CONNECTIONS: usize = 128;
/// Bytes that are sent to one client in one turn.
const SENT_BYTES: usize = 256 << 10;
/// Bytes that are sent to all clients in one turn.
const ALL_SENT_BYTES: usize = 2 << 20;

/// What is left of one turn for reading.
#[derive(Debug)]
pub(crate) struct ReadingTurn {
    requests: usize,
    bytes: usize,
    connections: usize,
}

impl ReadingTurn {
    /// A new turn.
    pub(crate) fn whole() -> Self {
        Self { requests: REQUESTS, bytes: BYTES, connections: CONNECTIONS }
    }

    /// Whether no further connection is read in this turn.
    pub(crate) fn is_used(&self) -> bool {
        self.requests == 0 || self.bytes == 0 || self.connections == 0
    }

    /// Counts what a connection took of its share.
    pub(crate) fn take(&mut self, share: &RequestShare) {
        self.requests = self.requests.saturating_sub(share.taken_requests());
        self.bytes = self.bytes.saturating_sub(share.taken_bytes());
        self.connections = self.connections.saturating_sub(1);
    }
}

/// What is left of one turn for sending.
#[derive(Debug)]
pub(crate) struct SendingTurn {
    bytes: usize,
    connections: usize,
}

impl SendingTurn {
    /// A new turn.
    pub(crate) fn whole() -> Self {
        Self { bytes: ALL_SENT_BYTES, connections: CONNECTIONS }
    }

    /// Whether nothing more is sent in this turn.
    pub(crate) fn is_used(&self) -> bool {
        self.bytes == 0 || self.connections == 0
    }

    /// The most bytes that the next connection is sent.
    pub(crate) fn share(&self) -> usize {
        SENT_BYTES
    }

    /// Counts a connection to which all of its share but `left` bytes were sent.
    pub(crate) fn take(&mut self, left: usize) {
        self.bytes = self.bytes.saturating_sub(SENT_BYTES - left);
        self.connections -= 1;
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_core::UserTurns;
    use bulkhead_proto::client::message::{Request, Walk};
    use bulkhead_proto::ids::{ClientId, JobId};

    use super::*;

    const LISTS: Request = Request::Jobs { state: None, walk: Walk::Up(JobId(0)), limit: 4096 };

    /// Reads one turn, from clients that always have a request like this one; who was read, in order.
    fn read_one_turn(line: &mut UserTurns, request: impl Fn(ClientId) -> Request) -> Vec<ClientId> {
        let (mut turn, mut read) = (ReadingTurn::whole(), Vec::new());
        while !turn.is_used() {
            let Some(client) = line.take_next() else { break };
            let mut share = RequestShare::whole();
            while !share.is_used() {
                share.take(&request(client));
            }
            turn.take(&share);
            read.push(client);
        }
        read
    }

    #[test]
    fn two_long_requests_are_a_turn_whoever_sends_them() {
        for users in [1, 2, 800] {
            let mut line = UserTurns::default();
            (0..800).for_each(|client| line.add(1 + client as u32 % users, ClientId(client)));
            assert_eq!(read_one_turn(&mut line, |_| LISTS).len(), 2, "{users} users");
        }
    }

    #[test]
    fn a_neighbour_of_800_connections_is_read_in_the_next_turn() {
        const NEIGHBOUR: ClientId = ClientId(9000);
        let mut line = UserTurns::default();
        (0..800).for_each(|client| line.add(7, ClientId(client)));
        read_one_turn(&mut line, |_| LISTS);
        line.add(8, NEIGHBOUR);
        let of = |client| if client == NEIGHBOUR { Request::Ping } else { LISTS };
        let place = read_one_turn(&mut line, of).iter().position(|client| *client == NEIGHBOUR);
        assert!(place.is_some_and(|place| place <= 1), "{place:?}");
    }

    #[test]
    fn short_requests_bytes_and_connections_are_bounded_in_a_turn() {
        let turns_of = |share: &RequestShare| {
            let (mut turn, mut count) = (ReadingTurn::whole(), 0);
            while !turn.is_used() {
                turn.take(share);
                count += 1;
            }
            count
        };
        let mut pings = RequestShare::whole();
        (0..64).for_each(|_| pings.take(&Request::Ping));
        assert_eq!(turns_of(&pings), 2, "128 short requests");
        let mut bytes = RequestShare::whole();
        bytes.take_bytes(usize::MAX);
        assert_eq!(turns_of(&bytes), 4, "a MiB of unfinished frames");
        assert_eq!(turns_of(&RequestShare::whole()), 128, "connections with nothing to read");
    }

    #[test]
    fn sending_is_bounded_in_a_turn() {
        let turns_of = |left| {
            let (mut turn, mut count) = (SendingTurn::whole(), 0);
            while !turn.is_used() {
                turn.take(left);
                count += 1;
            }
            count
        };
        assert_eq!(turns_of(0), 8, "each takes its whole share");
        assert_eq!(turns_of(SendingTurn::whole().share() - 1), 128, "each takes one byte");
    }
}
