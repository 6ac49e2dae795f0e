//! The paths, groups and environment variables that the daemon and its clients must agree on.
//!
//! The supervisor and the client library call these functions. They never read the environment or the file system: the
//! values of the variables and the user id are arguments.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The socket of the daemon in system mode.
pub const SYSTEM_SOCKET: &str = "/run/bulkhead/bulkhead.sock";
/// The environment variable with the path of the socket to use.
pub const SOCKET_VARIABLE: &str = "BULKHEAD_SOCKET";
/// The group whose members may use the daemon in system mode.
pub const GROUP: &str = "bulkhead";
/// The group whose members are administrators: they may see and end the jobs of all users.
pub const ADMIN_GROUP: &str = "bulkhead-admin";

/// The variables and the user that decide where a daemon in user mode listens.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlaceContext<'a> {
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<&'a OsStr>,
    /// `XDG_STATE_HOME`.
    pub state_home: Option<&'a OsStr>,
    /// `HOME`.
    pub home: Option<&'a OsStr>,
    /// The user.
    pub uid: u32,
}

/// Why a place is one of a user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceSource {
    /// It lies in `XDG_RUNTIME_DIR`.
    RuntimeDir,
    /// It is the folder in `/tmp` with the user's number, which any other user can make first.
    Tmp,
    /// It is the user's state folder.
    StateFolder,
}

/// A place where a daemon in user mode may listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPlace {
    /// The path of the socket.
    pub socket: PathBuf,
    /// Why it is the user's.
    pub source: PlaceSource,
}

impl OwnPlace {
    /// The folder of the socket, which must belong to the user.
    pub fn folder(&self) -> &Path {
        self.socket.parent().unwrap_or(&self.socket)
    }
}

/// The places of a user's own daemon. It listens in the first that it can have, and its clients try them in this order:
/// `$XDG_RUNTIME_DIR/bulkhead`, `/tmp/bulkhead-UID`, and the state folder. Variables that are no absolute path do not
/// count.
pub fn own_places(context: &PlaceContext<'_>) -> Vec<OwnPlace> {
    let place = |folder: PathBuf, source| OwnPlace { socket: folder.join("bulkhead.sock"), source };
    let runtime = absolute(context.runtime_dir).map(|folder| folder.join("bulkhead"));
    let tmp = PathBuf::from(format!("/tmp/bulkhead-{}", context.uid));
    let state = user_state(context.state_home, context.home);
    runtime
        .map(|folder| place(folder, PlaceSource::RuntimeDir))
        .into_iter()
        .chain([place(tmp, PlaceSource::Tmp)])
        .chain(state.map(|folder| place(folder, PlaceSource::StateFolder)))
        .collect()
}

/// The folder of a user's daemon for what must outlive it: `$XDG_STATE_HOME/bulkhead` or `$HOME/.local/state/bulkhead`.
pub fn user_state(state_home: Option<&OsStr>, home: Option<&OsStr>) -> Option<PathBuf> {
    match absolute(state_home) {
        Some(state) => Some(state.join("bulkhead")),
        None => absolute(home).map(|home| home.join(".local/state/bulkhead")),
    }
}

/// A variable is ignored unless it is an absolute path, as the XDG base directory specification says.
fn absolute(variable: Option<&OsStr>) -> Option<&Path> {
    variable.map(Path::new).filter(|path| path.is_absolute())
}

/// The file that the daemon of this socket keeps locked while it runs.
pub fn lock_file(socket: &Path) -> PathBuf {
    beside(socket, ".lock")
}

/// The folder (mode 0700) beside a socket that holds the boot folders of workers.
pub fn boot_folder(socket: &Path) -> PathBuf {
    beside(socket, ".boot")
}

fn beside(socket: &Path, suffix: &str) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(runtime: Option<&str>, state: Option<&str>, home: Option<&str>) -> Vec<String> {
        let [runtime_dir, state_home, home] = [runtime, state, home].map(|value| value.map(OsStr::new));
        let places = own_places(&PlaceContext { runtime_dir, state_home, home, uid: 7 });
        places.iter().map(|place| place.socket.display().to_string()).collect()
    }

    #[test]
    fn a_user_has_up_to_three_places_in_one_order() {
        let [runtime, tmp] = ["/run/user/7/bulkhead/bulkhead.sock", "/tmp/bulkhead-7/bulkhead.sock"];
        let state = "/h/.local/state/bulkhead/bulkhead.sock";
        assert_eq!(sockets(Some("/run/user/7"), None, Some("/h")), [runtime, tmp, state]);
        assert_eq!(sockets(None, Some("/s"), Some("/h")), [tmp, "/s/bulkhead/bulkhead.sock"]);
        for none in [None, Some(""), Some("relative")] {
            assert_eq!(sockets(none, none, Some("/h")), [tmp, state]);
            assert_eq!(sockets(none, none, none), [tmp]);
        }
    }

    #[test]
    fn lock_and_boot_folder_lie_beside_the_socket() {
        assert_eq!(lock_file(Path::new("/r/s")), Path::new("/r/s.lock"));
        assert_eq!(boot_folder(Path::new("/r/s")), Path::new("/r/s.boot"));
    }
}
