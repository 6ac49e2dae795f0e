//! Decides which users may connect, with which rights, and how many connections each may have: its share of `clients_max`.
//!
//! It trusts only the credentials that the kernel recorded at connect(2) (SO_PEERCRED, SO_PEERGROUPS). Later changes
//! of the peer's user do not matter. Called by `client_table.rs` for each new connection.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use bulkhead_core::account::Resource;
use bulkhead_core::event::Peer;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_sys::socket;
use mio::net::UnixStream;

use crate::settings::{Mode, Settings};
use crate::shell_ledger::{HeldShare, ShellLedger};

/// When a client that was turned away may try again.
const RETRY_MS: u64 = 1000;

/// Why a connection is turned away.
#[derive(Debug)]
pub(crate) enum TurnedAway {
    /// The user may not use the daemon.
    Denied,
    /// The bound that its connections meet.
    Busy(Refusal),
}

impl fmt::Display for TurnedAway {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied => out.write_str("denied"),
            Self::Busy(Refusal::Busy { limit, .. }) => write!(out, "busy limit={limit}"),
            Self::Busy(_) => out.write_str("busy"),
        }
    }
}

/// The rules of this daemon, and the ledger that counts connections.
#[derive(Debug)]
pub(crate) struct AccessControl {
    mode: Mode,
    own_uid: u32,
    admin_group: Option<u32>,
    ledger: ShellLedger,
}

impl AccessControl {
    /// Access rules from the settings.
    ///
    /// # Errors
    /// The group database cannot be read.
    pub(crate) fn new(settings: &Settings, ledger: ShellLedger) -> io::Result<Self> {
        Ok(Self {
            mode: settings.mode,
            own_uid: socket::own_uid(),
            admin_group: socket::group_id(&settings.admin_group)?,
            ledger,
        })
    }

    /// Identifies the peer. Returns the connection's share of its user's account, and why it is turned away, if it is;
    /// such a one counts until it is closed, for it has a descriptor until then.
    ///
    /// # Errors
    /// The kernel does not report the peer's credentials.
    pub(crate) fn check(&mut self, stream: &UnixStream) -> io::Result<(Peer, HeldShare, Option<TurnedAway>)> {
        let uid = socket::peer_cred(stream.as_fd())?.uid;
        let own = uid == self.own_uid;
        let (admin, let_in) = match self.mode {
            Mode::User => (true, own || uid == 0),
            Mode::System => (uid == 0 || self.is_admin(stream)?, !own || uid == 0),
        };
        let (held, room) = self.ledger.hold_first(uid, Resource::Connections, 1);
        let full = room.left() == 0;
        let away = match (let_in, full) {
            (false, _) => Some(TurnedAway::Denied),
            (true, true) => Some(TurnedAway::Busy(room.refusal(Resource::Connections, RETRY_MS))),
            (true, false) => None,
        };
        Ok((Peer { uid, admin: admin && let_in }, held, away))
    }

    fn is_admin(&self, stream: &UnixStream) -> io::Result<bool> {
        let Some(group) = self.admin_group else { return Ok(false) };
        let own = socket::peer_cred(stream.as_fd())?.gid;
        Ok(own == group || socket::peer_groups(stream.as_fd())?.contains(&group))
    }
}
