//! Connects to the ipc-channel server of a worker, at the path that its hello names.
//!
//! The worker's hello is checked first: the path must lie in its boot folder without links, and be a socket of our
//! user; and the kernel must report (SO_PEERCRED) that the worker's own process listens there. Then our end of the
//! connection is found by the server's name and made non-blocking (ipc-channel does not expose its socket), and an
//! empty message is sent. Runs in a bootstrap thread of the supervisor.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path};
use std::sync::{Mutex, PoisonError};

use bulkhead_proto::worker::message::Tasks;
use bulkhead_sys::descriptors::{find_connection, set_nonblocking};
use bulkhead_sys::shortage;
use bulkhead_sys::socket::own_uid;

use super::sender::{SendError, Sender};
use crate::ipc_connect::{ipc_connect, while_sharing};

/// Longest path of a Unix socket, in bytes (unix(7), without its final zero).
const PATH_MAX_BYTES: usize = 107;

/// Why there is no channel to a worker.
#[derive(Debug)]
pub enum ConnectError {
    /// The path does not fit a socket address, or holds a zero byte.
    BadPath {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The path is not in the worker's folder, or contains a link.
    Outside,
    /// There is no socket at the path.
    NotASocket,
    /// The socket belongs to another user.
    NotOurs {
        /// The user who owns it.
        uid: u32,
    },
    /// Another process than the worker listens there.
    NotTheWorker,
    /// A system call failed.
    NotConnected(io::Error),
    /// The first message was not sent.
    NotSent(SendError),
}

impl ConnectError {
    /// Whether this is a violation of the protocol, which no honest worker causes.
    pub fn is_violation(&self) -> bool {
        match self {
            Self::BadPath { .. }
            | Self::Outside
            | Self::NotASocket
            | Self::NotOurs { .. }
            | Self::NotTheWorker => true,
            Self::NotConnected(_) | Self::NotSent(_) => false,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadPath { bytes } => {
                write!(out, "connect to a path of {bytes} bytes (limit {PATH_MAX_BYTES}, no zero byte)")
            }
            Self::Outside => out.write_str("connect to a path outside the worker's folder"),
            Self::NotASocket => out.write_str("connect to a path where there is no socket"),
            Self::NotOurs { uid } => write!(out, "connect to a socket of user {uid}"),
            Self::NotTheWorker => out.write_str("connect to a socket where another process listens"),
            Self::NotConnected(error) => write!(out, "connect: {}", shortage::explain(error)),
            Self::NotSent(error) => write!(out, "send the first message: {error}"),
        }
    }
}

impl std::error::Error for ConnectError {}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::NotConnected(error)
    }
}

/// Connects to the server of worker `pid` at `path`, which must be in `folder`. Blocks while the worker's queue of
/// connections is full; killing the worker ends that. Later only the close of the connection can block, if the worker
/// left descriptors in it: here after an error, otherwise in the drop of the [`Sender`].
///
/// # Errors
/// [`ConnectError`]; no descriptor leaks.
pub fn connect(path: &str, folder: &Path, pid: u32) -> Result<Sender, ConnectError> {
    check(path, folder)?;
    let connected = ipc_connect(path)?;
    let socket = while_sharing(|| unblock(path, pid))?;
    let sender = Sender::new(connected, socket);
    sender.send(&Tasks::default()).map_err(ConnectError::NotSent)?;
    Ok(sender)
}

/// Held during a search of this process's sockets: the socket that is found has a second descriptor for a moment,
/// which another search would count as a second connection.
static LOOKING: Mutex<()> = Mutex::new(());

/// Finds our end of the only connection to `path` and makes it non-blocking, if process `pid` listens there.
fn unblock(path: &str, pid: u32) -> Result<OwnedFd, ConnectError> {
    let _looking = LOOKING.lock().unwrap_or_else(PoisonError::into_inner);
    let ours = find_connection(&|names| names.peer.as_deref() == Some(Path::new(path)))?;
    // The kernel reports which process listens. With two connections it would be unclear which one is ours.
    match ours.filter(|ours| ours.peer.pid == pid) {
        Some(ours) => {
            set_nonblocking(ours.socket.as_fd())?;
            Ok(ours.socket)
        }
        None => Err(ConnectError::NotTheWorker),
    }
}

fn check(path: &str, folder: &Path) -> Result<(), ConnectError> {
    if path.len() > PATH_MAX_BYTES || path.contains('\0') {
        return Err(ConnectError::BadPath { bytes: path.len() });
    }
    let inside = Path::new(path).strip_prefix(folder).map_err(|_| ConnectError::Outside)?;
    if !inside.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(ConnectError::Outside);
    }
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => found,
        Ok(_) => return Err(ConnectError::NotASocket),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ConnectError::NotASocket),
        Err(error) => return Err(error.into()),
    };
    if std::fs::canonicalize(path)? != std::fs::canonicalize(folder)?.join(inside) {
        return Err(ConnectError::Outside);
    }
    if found.uid() == own_uid() { Ok(()) } else { Err(ConnectError::NotOurs { uid: found.uid() }) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use super::*;
    use crate::worker::Channel;

    fn folder_of(path: &str) -> PathBuf {
        Path::new(path).parent().unwrap().parent().unwrap().to_owned()
    }

    #[test]
    fn a_channel_carries_tasks_and_ends() {
        let (server, path) = Channel::listen().unwrap();
        let sender = connect(&path, &folder_of(&path), std::process::id()).unwrap();
        let channel = server.accept().unwrap();
        sender.send(&Tasks::default()).unwrap();
        assert_eq!(channel.recv().unwrap(), Some(Tasks::default()));
        drop(sender);
        assert_eq!(channel.recv().unwrap(), None);
        assert!(!Path::new(&path).exists(), "the server's folder is left behind");
    }

    #[test]
    fn workers_that_come_up_together_do_not_disturb_each_other() {
        let connect_once = || {
            let (server, path) = Channel::listen().unwrap();
            let sender = connect(&path, &folder_of(&path), std::process::id()).unwrap();
            drop((server.accept().unwrap(), sender));
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..50).for_each(|_| connect_once()));
            }
        });
    }

    #[test]
    fn another_process_at_the_path_is_refused() {
        let (_server, path) = Channel::listen().unwrap();
        let refused = connect(&path, &folder_of(&path), 1);
        assert!(matches!(refused, Err(ConnectError::NotTheWorker)), "{refused:?}");
    }

    #[test]
    fn bad_paths_are_refused_each_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let (inner, elsewhere) = (folder.path(), outside.path().join("socket"));
        let _listener = UnixListener::bind(&elsewhere).unwrap();
        std::fs::write(inner.join("file"), "").unwrap();
        symlink(&elsewhere, inner.join("link")).unwrap();
        symlink(outside.path(), inner.join("folder")).unwrap();
        drop(UnixListener::bind(inner.join("dead")).unwrap());
        let reason = |path: PathBuf| connect(path.to_str().unwrap(), inner, std::process::id()).unwrap_err();
        assert!(matches!(reason(inner.join("x".repeat(200))), ConnectError::BadPath { .. }));
        assert!(matches!(reason(inner.join("zero\0byte")), ConnectError::BadPath { .. }));
        assert!(matches!(reason(elsewhere), ConnectError::Outside));
        assert!(matches!(reason(inner.join("../etc")), ConnectError::Outside));
        assert!(matches!(reason(inner.join("folder/socket")), ConnectError::Outside));
        assert!(matches!(reason(inner.join("link")), ConnectError::NotASocket));
        assert!(matches!(reason(inner.join("file")), ConnectError::NotASocket));
        assert!(matches!(reason(inner.join("missing")), ConnectError::NotASocket));
        assert!(matches!(reason(inner.join("dead")), ConnectError::NotConnected(_)));
        // The system cannot say what is there, which is no fault of the worker's.
        assert!(matches!(reason(inner.join("file/socket")), ConnectError::NotConnected(_)));
    }

    #[test]
    fn a_path_that_just_fits_a_socket_address_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let name = "x".repeat(PATH_MAX_BYTES - folder.path().as_os_str().len() - 1);
        let refused = |name: String| {
            let path = folder.path().join(name);
            connect(path.to_str().unwrap(), folder.path(), std::process::id()).unwrap_err()
        };
        assert!(matches!(refused(name.clone()), ConnectError::NotASocket));
        assert!(
            matches!(refused(name + "x"), ConnectError::BadPath { bytes } if bytes == PATH_MAX_BYTES + 1)
        );
    }

    #[test]
    fn what_no_honest_worker_causes_is_a_violation_and_each_error_says_what_happened() {
        for (error, is_violation, text) in [
            (ConnectError::BadPath { bytes: 200 }, true, "a path of 200 bytes (limit 107, no zero byte)"),
            (ConnectError::Outside, true, "outside the worker's folder"),
            (ConnectError::NotASocket, true, "no socket"),
            (ConnectError::NotOurs { uid: 1001 }, true, "user 1001"),
            (ConnectError::NotTheWorker, true, "another process"),
            (io::Error::other("out of luck").into(), false, "out of luck"),
            (ConnectError::NotSent(SendError::Full), false, "first message: the worker's channel is full"),
        ] {
            assert_eq!(error.is_violation(), is_violation, "{error}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
