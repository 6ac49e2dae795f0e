//! The states of a client's connection, and which may follow which.
//!
//! | state | bytes in | leaves to |
//! |---|---|---|
//! | greeting | collects the 16 bytes of a hello | open (welcome), closing (another verdict) |
//! | open | frames become events, descriptors wait for their frame | faulty (a rule broken, no room), closing (ended by the core) |
//! | faulty | nothing is read; earlier requests are answered | closing (goodbye, one turn later) |
//! | closing | nothing is read | - |
//!
//! Any other step is an assertion. `connection.rs` alone changes the state.

use bulkhead_proto::client::frame::Frames;
use bulkhead_proto::client::refusal::Refusal;

/// What a connection is doing.
#[derive(Debug)]
pub(crate) enum ConnectionState {
    /// The bytes of its hello that have come.
    Greeting(Vec<u8>),
    /// The bytes of its frames that have come.
    Open(Frames),
    /// Why the connection will end.
    Faulty(Refusal),
    /// Nothing but its outbox is left.
    Closing,
}

/// A state without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionPhase {
    Greeting,
    Open,
    Faulty,
    Closing,
}

impl ConnectionPhase {
    /// The states that may follow: the table at the top of this file.
    pub(crate) fn leads_to(self) -> &'static [ConnectionPhase] {
        match self {
            Self::Greeting => &[Self::Open, Self::Closing],
            Self::Open => &[Self::Faulty, Self::Closing],
            Self::Faulty => &[Self::Closing],
            Self::Closing => &[],
        }
    }
}

impl ConnectionState {
    /// This state without its data.
    pub(crate) fn phase(&self) -> ConnectionPhase {
        match self {
            Self::Greeting(_) => ConnectionPhase::Greeting,
            Self::Open(_) => ConnectionPhase::Open,
            Self::Faulty(_) => ConnectionPhase::Faulty,
            Self::Closing => ConnectionPhase::Closing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_states_is_the_code() {
        let code = crate::every_state!(ConnectionPhase: Greeting, Open, Faulty, Closing).map(|state| {
            let to = state.leads_to().iter().map(|to| format!("{to:?}")).collect();
            (format!("{state:?}"), to)
        });
        crate::state_tables::assert_told(include_str!("connection_state.rs"), code);
    }
}
