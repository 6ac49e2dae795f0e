//! Whose process may listen on a socket: the user of a listener is asked of the kernel after the connect and before the
//! first byte.
//!
//! SO_PEERCRED names the user who called listen(2). A look at the path before the connect proves nothing, because another
//! user may put a socket there in between.
//!
//! | the socket | may listen |
//! |---|---|
//! | named by the caller, `--socket` or `BULKHEAD_SOCKET` | anybody |
//! | a place of the user's own daemon | the user |
//! | `/run/bulkhead/bulkhead.sock` | root, and the owner of `/run/bulkhead`, which only root can make |
//!
//! A number that stands for users whom the client's user namespace does not map is nobody's. Called by `connect.rs`.

use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bulkhead_sys::socket::peer_cred;
use bulkhead_sys::user_namespace::is_unmapped;

use crate::error::ConnectFailure;

/// Who may listen on a socket that a client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerTrust {
    /// Any user: the caller named the socket.
    Anybody,
    /// This user alone.
    User(u32),
    /// The user of the system's daemon: root, or the owner of the socket's folder if only root can have made it.
    System,
}

impl ListenerTrust {
    /// Refuses a connection to another user's listener. Nothing was sent on it yet.
    ///
    /// # Errors
    /// [`ConnectFailure::ForeignListener`], [`ConnectFailure::UnmappedListener`].
    pub(crate) fn check(self, socket: BorrowedFd<'_>, path: &Path) -> Result<(), ConnectFailure> {
        if self == Self::Anybody {
            return Ok(());
        }
        let path = path.to_owned();
        let uid = match peer_cred(socket) {
            Ok(peer) => peer.uid,
            Err(error) => return Err(ConnectFailure::Io { path, error }),
        };
        if is_unmapped(uid) {
            return Err(ConnectFailure::UnmappedListener { path, shown_as: uid });
        }
        let is_trusted = match self {
            Self::Anybody => true,
            Self::User(own) => uid == own,
            Self::System => uid == 0 || folder_owner(&path) == Some(uid),
        };
        if is_trusted { Ok(()) } else { Err(ConnectFailure::ForeignListener { path, uid }) }
    }
}

/// The owner of a socket's folder, if the folder above it lets nobody but root make it.
fn folder_owner(socket: &Path) -> Option<u32> {
    const OTHERS_MAY_WRITE: u32 = 0o022;
    let folder = socket.parent()?;
    let (found, above) = (folder.symlink_metadata().ok()?, folder.parent()?.metadata().ok()?);
    let is_roots = above.uid() == 0 && above.mode() & OTHERS_MAY_WRITE == 0;
    (found.is_dir() && is_roots).then_some(found.uid())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn only_whom_the_caller_means_may_listen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        let stream = UnixStream::connect(&path).unwrap();
        let own = bulkhead_sys::socket::own_uid();
        let check = |trust: ListenerTrust| trust.check(stream.as_fd(), &path);
        assert!(check(ListenerTrust::Anybody).is_ok());
        assert!(check(ListenerTrust::User(own)).is_ok());
        let foreign = check(ListenerTrust::User(own + 1));
        assert!(matches!(foreign, Err(ConnectFailure::ForeignListener { uid, .. }) if uid == own));
        assert_eq!(check(ListenerTrust::System).is_ok(), own == 0, "anybody can make a folder in /tmp");
    }
}
