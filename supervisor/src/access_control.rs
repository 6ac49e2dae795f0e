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
use bulkhead_sys::user_namespace::name_of;
use mio::net::UnixStream;

use crate::settings::{Mode, Settings};
use crate::shell_ledger::{HeldShare, ShellLedger};

/// When a client that was turned away may try again.
const RETRY_MS: u64 = 1000;

/// Why a connection is turned away.
#[derive(Debug)]
pub(crate) enum TurnedAway {
    /// The user may not use the daemon: whom it serves.
    Denied(Refusal),
    /// The bound that its connections meet.
    Busy(Refusal),
}

impl fmt::Display for TurnedAway {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(_) => out.write_str("denied"),
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
    /// Whom the daemon serves, for those whom it does not.
    serves: String,
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
            serves: served_by(settings.mode, socket::own_uid(), [&settings.group, &settings.admin_group]),
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
            (false, _) => Some(TurnedAway::Denied(Refusal::Denied { needed: self.serves.clone() })),
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

/// Whom a daemon of user `own` serves, in words; `groups` are those of its users and administrators.
fn served_by(mode: Mode, own: u32, groups: [&str; 2]) -> String {
    let [users, admins] = groups;
    match (mode, own) {
        (Mode::User, 0) => "it serves root alone".to_owned(),
        (Mode::User, own) => format!("it is the daemon of {}, and serves that user and root", name_of(own)),
        (Mode::System, own) => format!(
            "it serves root and the members of group {users} (who is in group {admins} too is an administrator), but not {}, as \
             whom jobs run",
            name_of(own)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_a_daemon_serves_is_told_with_the_groups_of_its_configuration() {
        let told = |mode, own| served_by(mode, own, ["render", "wheel"]);
        let system = told(Mode::System, 1042);
        for words in ["members of group render", "in group wheel too is an administrator", "not user 1042"] {
            assert!(system.contains(words), "{system}");
        }
        assert_eq!(told(Mode::User, 0), "it serves root alone");
        assert!(told(Mode::User, 1042).starts_with("it is the daemon of user 1042, "));
    }
}
