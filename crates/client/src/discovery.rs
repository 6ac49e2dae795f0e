//! Finds the daemon that a command talks to.
//!
//! The order: the socket that the caller names; the socket in `BULKHEAD_SOCKET` (an error if no process listens there:
//! no other daemon takes its place); the places of the user's own daemon; the system's daemon. The paths stand in
//! [`bulkhead_proto::client::places`], which the daemon uses too. The environment is an argument of [`choose`], so that
//! the order can be tested.
//!
//! | at a usual place | then |
//! |---|---|
//! | nothing, or no process listens | the next place |
//! | a folder or a listener of another user | the next place, and the caller is told ([`SkippedPlace`]) |
//! | connect(2) fails for another reason in a folder of the user's | an error |
//! | the right user listens | that daemon, and no other, whatever its hello says |

use std::ffi::OsString;
use std::fmt;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bulkhead_proto::client::places::{
    OwnPlace, PlaceContext, PlaceSource, SOCKET_VARIABLE, SYSTEM_SOCKET, own_places,
};
use bulkhead_proto::limits::SOCKET_PATH_MAX_BYTES;

use crate::client::DaemonClient;
use crate::connect::{self, HELLO_TIMEOUT, connect_within};
use crate::error::ConnectFailure;
use crate::listener_trust::ListenerTrust;

/// The values on which the choice of a daemon depends.
#[derive(Clone, Debug, Default)]
pub struct DiscoveryContext {
    /// The socket that the caller names (`--socket`).
    pub named: Option<PathBuf>,
    /// `BULKHEAD_SOCKET`; an empty value counts as unset.
    pub variable: Option<OsString>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<OsString>,
    /// `XDG_STATE_HOME`.
    pub state_home: Option<OsString>,
    /// `HOME`.
    pub home: Option<OsString>,
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
            state_home: std::env::var_os("XDG_STATE_HOME"),
            home: std::env::var_os("HOME"),
            uid: bulkhead_sys::socket::own_uid(),
        }
    }
}

/// The sockets to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketChoice {
    /// This socket alone, whoever listens there.
    Only(PathBuf),
    /// The places of the user's own daemon in this order, then [`SYSTEM_SOCKET`].
    Usual(Vec<OwnPlace>),
}

/// The sockets to try, for these values.
pub fn choose(context: &DiscoveryContext) -> SocketChoice {
    if let Some(path) = &context.named {
        return SocketChoice::Only(path.clone());
    }
    match &context.variable {
        Some(path) if !path.is_empty() => SocketChoice::Only(path.into()),
        _ => SocketChoice::Usual(own_places(&PlaceContext {
            runtime_dir: context.runtime_dir.as_deref(),
            state_home: context.state_home.as_deref(),
            home: context.home.as_deref(),
            uid: context.uid,
        })),
    }
}

/// A usual place that was passed over because something of another user is there.
#[derive(Debug)]
pub struct SkippedPlace {
    /// The path of the socket.
    pub path: PathBuf,
    /// What is there.
    pub why: Box<ConnectFailure>,
}

impl fmt::Display for SkippedPlace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "passed over {}: {}", self.path.display(), self.why)
    }
}

/// Where a daemon was found, to connect there once more: what a command has begun at one daemon goes on at no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonPlace {
    /// The path of the socket.
    pub path: PathBuf,
    /// Who may listen there.
    pub trust: ListenerTrust,
}

impl DaemonPlace {
    /// Connects to this place and to no other.
    ///
    /// # Errors
    /// As [`crate::connect::connect_within`].
    pub fn connect_within(&self, timeout: Duration) -> Result<DaemonClient, ConnectFailure> {
        connect_within(&self.path, self.trust, timeout)
    }
}

/// A daemon that was found, and how.
#[derive(Debug)]
pub struct FoundDaemon {
    /// The connection to it.
    pub client: DaemonClient,
    /// Where it listens.
    pub place: DaemonPlace,
    /// The places before it that were passed over; users should be told.
    pub skipped: Vec<SkippedPlace>,
}

/// Connects to the daemon that this process should talk to. If `named` is given, only that socket is tried.
///
/// # Errors
/// [`ConnectFailure::NoDaemon`] if no socket was named and no process listens on any; otherwise as
/// [`crate::connect::connect`].
pub fn find(named: Option<&Path>) -> Result<DaemonClient, ConnectFailure> {
    find_within(named, HELLO_TIMEOUT).map(|found| found.client)
}

/// As [`find`], with another deadline for the daemon's hello. Returns the places too that were passed over.
///
/// # Errors
/// As [`find`].
pub fn find_within(named: Option<&Path>, timeout: Duration) -> Result<FoundDaemon, ConnectFailure> {
    let context = DiscoveryContext::current(named);
    match choose(&context) {
        SocketChoice::Only(path) => {
            let place = DaemonPlace { path, trust: ListenerTrust::Anybody };
            let client = place.connect_within(timeout)?;
            Ok(FoundDaemon { client, place, skipped: Vec::new() })
        }
        SocketChoice::Usual(own) => first_of(&own, context.uid, timeout),
    }
}

fn first_of(own: &[OwnPlace], uid: u32, timeout: Duration) -> Result<FoundDaemon, ConnectFailure> {
    let system = Path::new(SYSTEM_SOCKET);
    let own = own.iter().map(|place| (place.socket.as_path(), Some(place)));
    let (mut tried, mut skipped) = (Vec::new(), Vec::new());
    for (path, place) in own.chain([(system, None)]) {
        let (dialed, trust) = match place {
            Some(place) => (dial_own(place, uid), ListenerTrust::User(uid)),
            None => (connect::dial(path, ListenerTrust::System), ListenerTrust::System),
        };
        match dialed {
            Ok(socket) => {
                let client = connect::greet(socket, path, timeout)?;
                let place = DaemonPlace { path: path.to_owned(), trust };
                return Ok(FoundDaemon { client, place, skipped });
            }
            Err(ConnectFailure::Nobody { path }) => tried.push(path),
            Err(why) if why.is_foreign() => {
                skipped.push(SkippedPlace { path: path.to_owned(), why: Box::new(why) });
            }
            Err(error) => return Err(error),
        }
    }
    Err(ConnectFailure::NoDaemon { tried, skipped })
}

/// Connects to a place of the user's own. The looks at the folder only explain; what decides is the listener's user.
fn dial_own(place: &OwnPlace, uid: u32) -> Result<UnixStream, ConnectFailure> {
    if place.socket.as_os_str().len() > SOCKET_PATH_MAX_BYTES {
        return Err(ConnectFailure::Nobody { path: place.socket.clone() });
    }
    look_at_folder(place, uid)?;
    connect::dial(&place.socket, ListenerTrust::User(uid)).map_err(|error| match error {
        error if error.is_foreign() => error,
        // Another user may have made the folder meanwhile, or removed it again.
        error => look_at_folder(place, uid).err().unwrap_or(error),
    })
}

/// Says whose the folder of a place is, unless it is the user's.
fn look_at_folder(place: &OwnPlace, uid: u32) -> Result<(), ConnectFailure> {
    let runtime = place.folder().parent().filter(|_| place.source == PlaceSource::RuntimeDir);
    if let Some(folder) = runtime
        && let Ok(found) = folder.metadata()
        && found.uid() != uid
    {
        let (folder, owner) = (folder.to_owned(), found.uid());
        return Err(ConnectFailure::ForeignRuntimeFolder { folder, owner, uid });
    }
    let is_state = place.source == PlaceSource::StateFolder;
    let nobody = || Err(ConnectFailure::Nobody { path: place.socket.clone() });
    match place.folder().symlink_metadata() {
        // HOME is another user's, as su and sudo may leave it: no place of this user, and no harm meant.
        Ok(found) if found.uid() != uid && is_state => nobody(),
        Err(error) if error.kind() == ErrorKind::PermissionDenied && is_state => nobody(),
        Ok(found) if found.uid() != uid => {
            Err(ConnectFailure::ForeignFolder { folder: place.folder().to_owned(), owner: found.uid(), uid })
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => nobody(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn around(named: Option<&str>, variable: Option<&str>) -> DiscoveryContext {
        DiscoveryContext {
            named: named.map(PathBuf::from),
            variable: variable.map(OsString::from),
            runtime_dir: Some("/run/user/7".into()),
            uid: 7,
            ..DiscoveryContext::default()
        }
    }

    #[test]
    fn what_is_named_comes_first_and_is_never_replaced() {
        assert_eq!(choose(&around(Some("/a"), Some("/b"))), SocketChoice::Only("/a".into()));
        assert_eq!(choose(&around(None, Some("/b"))), SocketChoice::Only("/b".into()));
    }

    #[test]
    fn without_a_name_the_users_places_are_tried() {
        for unnamed in [around(None, None), around(None, Some(""))] {
            let SocketChoice::Usual(places) = choose(&unnamed) else { panic!("nothing was named") };
            let paths: Vec<_> = places.iter().map(|place| place.socket.to_str().unwrap()).collect();
            assert_eq!(paths, ["/run/user/7/bulkhead/bulkhead.sock", "/tmp/bulkhead-7/bulkhead.sock"]);
        }
    }

    /// A listener of this process stands for another user's: the client takes itself for the user after it.
    #[test]
    fn what_somebody_else_put_there_is_passed_over() {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let own = bulkhead_sys::socket::own_uid();
        let socket = folder.path().join("bulkhead.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        let at = |source| OwnPlace { socket: socket.clone(), source };
        assert!(dial_own(&at(PlaceSource::Tmp), own).is_ok());
        let foreign = dial_own(&at(PlaceSource::Tmp), own + 1);
        assert!(matches!(foreign, Err(ConnectFailure::ForeignFolder { owner, .. }) if owner == own));
        let foreign = connect::dial(&socket, ListenerTrust::User(own + 1));
        assert!(matches!(foreign, Err(ConnectFailure::ForeignListener { uid, .. }) if uid == own));
        let within = folder.path().join("bulkhead");
        std::fs::create_dir(&within).unwrap();
        let place = OwnPlace { socket: within.join("s"), source: PlaceSource::RuntimeDir };
        assert!(matches!(dial_own(&place, own), Err(ConnectFailure::Nobody { .. })));
        let foreign = dial_own(&place, own + 1);
        assert!(matches!(foreign, Err(ConnectFailure::ForeignRuntimeFolder { owner, .. }) if owner == own));
    }
}
