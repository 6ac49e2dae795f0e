//! What the poll reports about a client's socket, and what it is asked to report.
//!
//! | event | of interest |
//! |---|---|
//! | both sides have ended | always |
//! | readable, or its client sends no more | unless several came while the socket was known to be readable, and until it was read empty |
//! | writable | while something is to be sent, or descriptors lie unread |
//!
//! So an idle client wakes nobody, and one that writes on and on before its turn costs a few events, not one for each
//! write: with thousands of such connections, the events of others would come turns later. One that sends urgent bytes
//! (MSG_OOB) has an event for each of them all the same. Used by `client_table.rs` and
//! `turn.rs`.

use bulkhead_proto::ids::ClientId;
use bulkhead_sys::clock;
use mio::event::Event as Ready;
use mio::{Interest, Registry};

use crate::connection::Connection;
use crate::poll_source::PollSource;
use crate::rate_limit::{self, LineAbout};

/// What the poll reports about a client's socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketReadiness {
    pub(crate) readable: bool,
    /// The client has closed its sending side.
    pub(crate) ending: bool,
    /// The client has closed both sides: it reads no reply.
    pub(crate) is_over: bool,
}

impl SocketReadiness {
    /// Of this event.
    pub(crate) fn of(event: &Ready) -> Self {
        Self {
            readable: event.is_readable(),
            ending: event.is_read_closed() || event.is_error(),
            is_over: event.is_write_closed(),
        }
    }
}

/// Events that are of interest beside the end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketInterest {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl SocketInterest {
    /// That of a new connection.
    pub(crate) const NEW: Self = Self { read: true, write: false };

    /// As the poll takes it. The end of a connection is reported whatever is asked for.
    fn of_poll(self) -> Interest {
        match (self.read, self.write) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (true, false) => Interest::READABLE,
            (false, true) => Interest::WRITABLE,
            // The poll takes no empty interest. Urgent bytes are read as all others.
            (false, false) => Interest::PRIORITY,
        }
    }
}

/// Registers a client's socket for what is of interest now, if that has changed; descriptors may lie `unread`. Returns `false`
/// if that failed.
pub(crate) fn watch(
    registry: &Registry,
    client: ClientId,
    connection: &mut Connection,
    unread: bool,
) -> bool {
    let Some(interest) = connection.interest_change(unread) else { return true };
    let token = PollSource::Client(client).token();
    let watched = registry.reregister(connection.socket(), token, interest.of_poll());
    if watched.is_ok() {
        connection.note_interest(interest);
    }
    if let Err(error) = &watched
        && rate_limit::may_log(LineAbout::Client(connection.uid()), clock::monotonic_ns())
    {
        log::error!("cannot register a client's socket with the poll client={client} error={error}");
    }
    watched.is_ok()
}
