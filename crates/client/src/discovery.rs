//! Finds the daemon that a command talks to.
//!
//! The order: the socket that the caller names; the socket in `BULKHEAD_SOCKET` (an error if no process listens there:
//! no other daemon takes its place); the user's own daemon; the system's daemon. The paths stand in
//! [`bulkhead_proto::client::places`], which the daemon uses too. The environment is an argument of [`choose`], so that
//! the order can be tested.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_proto::client::places::{SOCKET_VARIABLE, SYSTEM_SOCKET, user_socket};

use crate::client::DaemonClient;
use crate::connect::{HELLO_TIMEOUT, connect_within};
use crate::error::ConnectFailure;

/// The values on which the choice of a daemon depends.
#[derive(Clone, Debug, Default)]
pub struct DiscoveryContext {
    /// The socket that the caller names (`--socket`).
    pub named: Option<PathBuf>,
    /// `BULKHEAD_SOCKET`; an empty value counts as unset.
    pub variable: Option<OsString>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<OsString>,
    /// The user's uid.
    pub uid: u32,
}

impl DiscoveryContext {
    /// The values of this process, with the socket that the caller names.
    pub fn current(named: Option<&Path>) -> Self {
        Self {
            named: named.map(Path::to_owned),
            variable: std::env::var_os(SOCKET_VARIABLE),
            runtime_dir: std::env::var_os("XDG_RUNTIME_DIR"),
            uid: bulkhead_sys::socket::own_uid(),
        }
    }
}

/// The sockets to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketChoice {
    /// This socket alone.
    Only(PathBuf),
    /// These sockets in this order, the next one if no process listens.
    FirstOf(Vec<PathBuf>),
}

/// The sockets to try, for these values.
pub fn choose(context: &DiscoveryContext) -> SocketChoice {
    if let Some(path) = &context.named {
        return SocketChoice::Only(path.clone());
    }
    match &context.variable {
        Some(path) if !path.is_empty() => SocketChoice::Only(path.into()),
        _ => SocketChoice::FirstOf(vec![
            user_socket(context.runtime_dir.as_deref(), context.uid),
            PathBuf::from(SYSTEM_SOCKET),
        ]),
    }
}

/// Connects to the daemon that this process should talk to. If `named` is given, only that socket is tried.
///
/// # Errors
/// [`ConnectFailure::NoDaemon`] if no socket was named and no process listens on any; otherwise as
/// [`crate::connect::connect`].
pub fn find(named: Option<&Path>) -> Result<DaemonClient, ConnectFailure> {
    find_within(named, HELLO_TIMEOUT)
}

/// As [`find`], with another deadline for the daemon's hello.
///
/// # Errors
/// As [`find`].
pub fn find_within(named: Option<&Path>, timeout: Duration) -> Result<DaemonClient, ConnectFailure> {
    let context = DiscoveryContext::current(named);
    match choose(&context) {
        SocketChoice::Only(path) => connect_within(&path, timeout),
        SocketChoice::FirstOf(paths) => first_of(paths, context.uid, timeout),
    }
}

fn first_of(paths: Vec<PathBuf>, uid: u32, timeout: Duration) -> Result<DaemonClient, ConnectFailure> {
    for path in &paths {
        check_folder(path, uid)?;
        match connect_within(path, timeout) {
            Err(ConnectFailure::Nobody { .. }) => {}
            other => return other,
        }
    }
    Err(ConnectFailure::NoDaemon { tried: paths })
}

/// Refuses a folder in `/tmp` that another user owns: any user can make the folder with our uid in its name and listen
/// there.
fn check_folder(path: &Path, uid: u32) -> Result<(), ConnectFailure> {
    let Some(folder) = path.parent().filter(|folder| folder.starts_with("/tmp")) else { return Ok(()) };
    match std::fs::symlink_metadata(folder) {
        Ok(found) if found.uid() != uid => {
            Err(ConnectFailure::ForeignFolder { folder: folder.to_owned(), owner: found.uid() })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(named: Option<&str>, variable: Option<&str>) -> DiscoveryContext {
        DiscoveryContext {
            named: named.map(PathBuf::from),
            variable: variable.map(OsString::from),
            runtime_dir: Some("/run/user/7".into()),
            uid: 7,
        }
    }

    #[test]
    fn what_is_named_comes_first_and_is_never_replaced() {
        assert_eq!(choose(&around(Some("/a"), Some("/b"))), SocketChoice::Only("/a".into()));
        assert_eq!(choose(&around(None, Some("/b"))), SocketChoice::Only("/b".into()));
    }

    #[test]
    fn without_a_name_the_user_comes_before_the_system() {
        let expected =
            SocketChoice::FirstOf(vec!["/run/user/7/bulkhead/bulkhead.sock".into(), SYSTEM_SOCKET.into()]);
        assert_eq!(choose(&around(None, None)), expected);
        assert_eq!(choose(&around(None, Some(""))), expected);
    }

    #[test]
    fn a_folder_of_somebody_else_is_not_trusted() {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let own = bulkhead_sys::socket::own_uid();
        let path = folder.path().join("bulkhead.sock");
        assert!(check_folder(&path, own).is_ok());
        let foreign = check_folder(&path, own + 1);
        assert!(matches!(foreign, Err(ConnectFailure::ForeignFolder { owner, .. }) if owner == own));
    }
}
