//! Which descriptor woke the loop: the tokens of its poll, and what they mean.
//!
//! A token holds the number of a client or worker, and these are never reused: a late wake-up for one that is
//! gone finds nobody, instead of somebody else.

use bulkhead_proto::ids::{ClientId, WorkerId};
use mio::Token;

/// What a token stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PollSource {
    /// The listening socket.
    Listener,
    /// The pipe of the signal handlers.
    Signals,
    /// The bootstrap threads have something.
    Bootstrap,
    /// A private parent's pipe.
    Parent,
    /// A client's connection.
    Client(ClientId),
    /// A worker's lane.
    Lane(WorkerId),
    /// A worker's pidfd.
    Death(WorkerId),
}

impl PollSource {
    /// The token: the kind in the low bits, the number above.
    pub(crate) fn token(self) -> Token {
        let (kind, number) = match self {
            Self::Listener => (0, 0),
            Self::Signals => (0, 1),
            Self::Bootstrap => (0, 2),
            Self::Parent => (0, 3),
            Self::Client(client) => (1, client.0),
            Self::Lane(worker) => (2, worker.0),
            Self::Death(worker) => (3, worker.0),
        };
        // Numbers count up from 1, one for each connection or process: 62 bits outlast any daemon.
        Token((number << 2 | kind) as usize)
    }

    /// What a token stands for; `None` for one that was never given out.
    pub(crate) fn of(token: Token) -> Option<Self> {
        let number = (token.0 >> 2) as u64;
        match (token.0 & 3, number) {
            (0, 0) => Some(Self::Listener),
            (0, 1) => Some(Self::Signals),
            (0, 2) => Some(Self::Bootstrap),
            (0, 3) => Some(Self::Parent),
            (1, _) => Some(Self::Client(ClientId(number))),
            (2, _) => Some(Self::Lane(WorkerId(number))),
            (3, _) => Some(Self::Death(WorkerId(number))),
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
            PollSource::Bootstrap,
            PollSource::Parent,
            PollSource::Client(ClientId(1)),
            PollSource::Lane(WorkerId(77)),
            PollSource::Death(WorkerId(u64::MAX >> 2)),
        ] {
            assert_eq!(PollSource::of(source.token()), Some(source));
        }
    }
}
