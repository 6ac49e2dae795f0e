//! What each token of the poll stands for.
//!
//! A token holds the number of a client or worker. These are never reused, so a late wake-up for one that is gone
//! finds nothing instead of another one. Used by `turn.rs` and by all that register descriptors.

use bulkhead_proto::ids::{ClientId, WorkerId};
use mio::Token;

/// What a token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PollSource {
    /// The listening socket.
    Listener,
    /// The socket to which the signal handlers write.
    Signals,
    /// The waker of the bootstrap threads and of the journal's.
    Threads,
    /// Standard input: the pipe of a private parent.
    Parent,
    /// The pidfd of the outer process.
    Outer,
    /// A client's connection.
    Client(ClientId),
    /// A worker's lane.
    Lane(WorkerId),
    /// A worker's pidfd.
    Death(WorkerId),
    /// A worker's doorbell.
    Doorbell(WorkerId),
}

impl PollSource {
    /// The token: the kind of source in the low bits, the number above.
    pub(crate) fn token(self) -> Token {
        let (kind, number) = match self {
            Self::Listener => (0, 0),
            Self::Signals => (0, 1),
            Self::Threads => (0, 2),
            Self::Parent => (0, 3),
            Self::Outer => (0, 4),
            Self::Client(client) => (1, client.0),
            Self::Lane(worker) => (2, worker.0),
            Self::Death(worker) => (3, worker.0),
            Self::Doorbell(worker) => (4, worker.0),
        };
        // Numbers count up from 1, one for each connection or process: 61 bits outlast any daemon.
        Token((number << 3 | kind) as usize)
    }

    /// The source of a token; `None` for one that was never used.
    pub(crate) fn of(token: Token) -> Option<Self> {
        let number = (token.0 >> 3) as u64;
        match (token.0 & 7, number) {
            (0, 0) => Some(Self::Listener),
            (0, 1) => Some(Self::Signals),
            (0, 2) => Some(Self::Threads),
            (0, 3) => Some(Self::Parent),
            (0, 4) => Some(Self::Outer),
            (1, _) => Some(Self::Client(ClientId(number))),
            (2, _) => Some(Self::Lane(WorkerId(number))),
            (3, _) => Some(Self::Death(WorkerId(number))),
            (4, _) => Some(Self::Doorbell(WorkerId(number))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_found_by_its_token() {
        for source in [
            PollSource::Listener,
            PollSource::Signals,
            PollSource::Threads,
            PollSource::Parent,
            PollSource::Outer,
            PollSource::Client(ClientId(1)),
            PollSource::Lane(WorkerId(77)),
            PollSource::Death(WorkerId(78)),
            PollSource::Doorbell(WorkerId(u64::MAX >> 3)),
        ] {
            assert_eq!(PollSource::of(source.token()), Some(source));
        }
    }
}
