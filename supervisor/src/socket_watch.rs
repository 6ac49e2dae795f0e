//! What the poll reports about a client's socket, and what it is asked to report.
//!
//! Readable events are always of interest; writable ones only while something is to be sent, or descriptors lie unread,
//! so that an idle client wakes nobody. Used by `client_table.rs` and `turn.rs`.

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
}

impl SocketReadiness {
    /// Of this event.
    pub(crate) fn of(event: &Ready) -> Self {
        Self { readable: event.is_readable(), ending: event.is_read_closed() || event.is_error() }
    }
}

/// Registers for writable events exactly while replies are queued or descriptors lie `unread`. Returns `false` if that
/// failed.
pub(crate) fn watch(
    registry: &Registry,
    client: ClientId,
    connection: &mut Connection,
    unread: bool,
) -> bool {
    let Some(writable) = connection.take_interest_change(unread) else { return true };
    let interest = if writable { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
    let watched = registry.reregister(connection.socket(), PollSource::Client(client).token(), interest);
    if let Err(error) = &watched
        && rate_limit::may_log(LineAbout::Client(connection.uid()), clock::monotonic_ns())
    {
        log::error!("cannot register a client's socket with the poll client={client} error={error}");
    }
    watched.is_ok()
}
