//! Chooses where the daemon listens, and takes the lock there.
//!
//! A socket that is named is used or is an error. Without a name the places of this user are tried in the order in which
//! clients try them (`proto/src/client/places.rs`); the daemon takes the first that it can have and logs the others with
//! the reason:
//!
//! | at a place | then |
//! |---|---|
//! | the folder, or `XDG_RUNTIME_DIR`, is another user's or open to all, or cannot be made | the next place |
//! | the lock file cannot be made or locked, the path is too long | the next place |
//! | another daemon has the lock | an error: it serves this user |
//! | a file that is no socket | an error |
//!
//! So a folder `/tmp/bulkhead-UID` that another user made shuts nobody out. It creates folders and lock files, and never
//! removes one. Driven by `setup.rs`, and by `config_check.rs`, which only looks.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bulkhead_proto::client::places::{self, OwnPlace, PlaceSource};
use bulkhead_proto::limits::SOCKET_PATH_MAX_BYTES;
use bulkhead_sys::lock::{InstanceLock, LockError};
use bulkhead_sys::socket::own_uid;
use bulkhead_sys::user_namespace::name_of;
use bulkhead_sys::{dial, shortage, socket};

/// Where a daemon is to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SocketPlace {
    /// At this path and no other.
    Named(PathBuf),
    /// At the first of these that it can have.
    FirstOf(Vec<OwnPlace>),
}

impl SocketPlace {
    /// Takes the lock of the first socket that this daemon can have. Returns the socket's path.
    ///
    /// # Errors
    /// The named place, or each of the usual ones, cannot be had, or another daemon serves the place.
    pub(crate) fn claim(&self) -> Result<(PathBuf, InstanceLock)> {
        match self {
            Self::Named(path) => {
                make_named_folder(path)?;
                Ok((path.clone(), take_lock(path)?.map_err(|why| anyhow!(why))?))
            }
            Self::FirstOf(own) => claim_first(own),
        }
    }

    /// A text for each usual place that a daemon would pass over as things are. Makes nothing.
    pub(crate) fn faults(&self) -> Vec<String> {
        match self {
            Self::Named(_) => Vec::new(),
            Self::FirstOf(own) => {
                let fault = |place| look(place).err().map(|why| passed_over(place, &why));
                own.iter().filter_map(fault).collect()
            }
        }
    }
}

fn claim_first(own: &[OwnPlace]) -> Result<(PathBuf, InstanceLock)> {
    let mut passed = Vec::new();
    for place in own {
        let lock = match look(place).and_then(|()| make(place)) {
            Ok(()) => take_lock(&place.socket)?,
            Err(why) => Err(why),
        };
        match lock {
            Ok(lock) => {
                warn_of_others(own, place);
                return Ok((place.socket.clone(), lock));
            }
            Err(why) => {
                let text = passed_over(place, &why);
                log::warn!("{text}");
                passed.push(text);
            }
        }
    }
    bail!("there is no place for the socket: {}; give --socket", passed.join("; "))
}

fn passed_over(place: &OwnPlace, why: &str) -> String {
    format!("passed over {}: {why}", place.socket.display())
}

/// Why a place cannot be had, as far as a look tells.
fn look(place: &OwnPlace) -> Result<(), String> {
    let length = place.socket.as_os_str().len();
    if length > SOCKET_PATH_MAX_BYTES {
        return Err(format!("the path is {length} bytes long, the limit is {SOCKET_PATH_MAX_BYTES}"));
    }
    if let Some(runtime) = place.folder().parent().filter(|_| place.source == PlaceSource::RuntimeDir) {
        let shown = runtime.display();
        let found = runtime.metadata().map_err(|error| format!("XDG_RUNTIME_DIR is {shown}: {error}"))?;
        if found.uid() != own_uid() {
            return Err(format!(
                "XDG_RUNTIME_DIR is {shown}, which belongs to {}, not to user {} (su and sudo may keep it)",
                name_of(found.uid()),
                own_uid()
            ));
        }
    }
    match place.folder().symlink_metadata() {
        Ok(found) => judge_folder(place.folder(), &found),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("{}: {error}", place.folder().display())),
    }
}

/// The folder of a usual place must be a folder of this user in which no other user can replace the socket.
fn judge_folder(folder: &Path, found: &std::fs::Metadata) -> Result<(), String> {
    const ALL_MAY_WRITE: u32 = 0o002;
    let folder = folder.display();
    if found.uid() != own_uid() {
        let owner = name_of(found.uid());
        Err(format!("{folder} belongs to {owner}, not to user {}: remove it or have it removed", own_uid()))
    } else if !found.is_dir() {
        Err(format!("{folder} is not a folder: remove it"))
    } else if found.mode() & ALL_MAY_WRITE != 0 {
        Err(format!("all users may write to {folder}: give it mode 0700"))
    } else {
        Ok(())
    }
}

/// Makes the folder of a usual place, and looks at it again: another user may have been faster.
fn make(place: &OwnPlace) -> Result<(), String> {
    let folder = place.folder();
    let failed = |error| format!("cannot make {}: {}", folder.display(), shortage::explain(&error));
    let mut builder = DirBuilder::new();
    // Only the state folder may lie in folders that are missing.
    match builder.mode(0o700).recursive(place.source == PlaceSource::StateFolder).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    judge_folder(folder, &folder.symlink_metadata().map_err(failed)?)
}

/// Creates the folder of a named socket if it is missing. A folder in `/tmp` must be owned by us or root, because any
/// user could have created it and could replace what is in it.
fn make_named_folder(socket: &Path) -> Result<()> {
    let folder =
        socket.parent().with_context(|| format!("socket path {} has no folder", socket.display()))?;
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => bail!("cannot make the socket's folder {}: {error}", folder.display()),
    }
    let found = std::fs::symlink_metadata(folder)
        .with_context(|| format!("cannot look at the socket's folder {}", folder.display()))?;
    if folder.parent() == Some(Path::new("/tmp")) {
        ensure!(
            found.is_dir() && (found.uid() == own_uid() || found.uid() == 0),
            "the socket's folder {} belongs to {}: remove it or choose another --socket",
            folder.display(),
            name_of(found.uid())
        );
    }
    Ok(())
}

/// Takes the lock of a socket. The inner error says why there can be none at this place.
///
/// # Errors
/// A daemon holds it, or the socket's path leads to something else.
fn take_lock(path: &Path) -> Result<Result<InstanceLock, String>> {
    // Checked before the lock file is created, because a name like `/etc/passwd.lock` has a meaning to other
    // programs.
    if std::fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        bail!("{} is there and is not a socket: choose another --socket", path.display());
    }
    match InstanceLock::take(&places::lock_file(path)) {
        Ok(lock) => Ok(Ok(lock)),
        Err(LockError::Held { pid }) => {
            let pid = pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
            bail!("another daemon (pid {pid}) serves {}: stop it, or choose another --socket", path.display())
        }
        Err(LockError::Io(error)) => {
            let file = places::lock_file(path);
            Ok(Err(format!("cannot lock {}: {}", file.display(), shortage::explain(&error))))
        }
    }
}

/// Clients talk to the first place where a daemon of their user listens.
fn warn_of_others(own: &[OwnPlace], taken: &OwnPlace) {
    for place in own.iter().filter(|place| *place != taken && look(place).is_ok()) {
        let peer = dial::dial(&place.socket).and_then(|stream| socket::peer_cred(stream.as_fd()));
        if let Ok(peer) = peer
            && peer.uid == own_uid()
        {
            log::warn!(
                "another daemon of this user listens elsewhere, commands without --socket talk to the first of both \
                 pid={} socket={} own={}",
                peer.pid,
                place.socket.display(),
                taken.socket.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    /// Two places in one folder; the second can be had.
    fn two_places() -> (tempfile::TempDir, [OwnPlace; 2]) {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let place = |name: &str, source| OwnPlace { socket: folder.path().join(name).join("s"), source };
        let places = [place("one", PlaceSource::Tmp), place("deep/two", PlaceSource::StateFolder)];
        (folder, places)
    }

    #[test]
    fn the_first_place_that_can_be_had_is_taken() {
        let (_folder, places) = two_places();
        let [first, second] = places.clone();
        let usual = SocketPlace::FirstOf(places.to_vec());
        assert!(usual.faults().is_empty() && !first.folder().exists(), "a look makes nothing");
        let (socket, lock) = usual.claim().unwrap();
        assert_eq!(socket, first.socket);
        // A second daemon is refused, and is not sent to the next place.
        let error = usual.claim().unwrap_err().to_string();
        assert!(error.contains("another daemon") && !second.folder().exists(), "{error}");
        drop(lock);
        std::fs::set_permissions(first.folder(), Permissions::from_mode(0o777)).unwrap();
        let (socket, _lock) = usual.claim().unwrap();
        assert_eq!(socket, second.socket);
        assert!(usual.faults()[0].contains("all users may write"), "{:?}", usual.faults());
    }

    #[test]
    fn what_another_user_made_first_is_passed_over() {
        if own_uid() != 0 {
            skip!("only root can make a folder of somebody else");
        }
        let (folder, places) = two_places();
        let [first, second] = places.clone();
        let usual = SocketPlace::FirstOf(places.to_vec());
        for make in [
            |path: &Path| std::fs::create_dir(path),
            |path: &Path| std::fs::write(path, ""),
            |path: &Path| symlink("/tmp", path),
        ] {
            make(first.folder()).unwrap();
            std::os::unix::fs::lchown(first.folder(), Some(65534), None).unwrap();
            assert_eq!(usual.claim().unwrap().0, second.socket);
            let [said] = usual.faults().try_into().unwrap();
            assert!(said.contains("belongs to user 65534, not to user 0"), "{said}");
            drop(std::fs::remove_dir(first.folder()).or_else(|_| std::fs::remove_file(first.folder())));
        }
        // The folder that XDG_RUNTIME_DIR names.
        let foreign = folder.path().join("foreign");
        std::fs::create_dir(&foreign).unwrap();
        chown(&foreign, Some(65534), None).unwrap();
        let runtime = OwnPlace { socket: foreign.join("bulkhead/s"), source: PlaceSource::RuntimeDir };
        let error = SocketPlace::FirstOf(vec![runtime]).claim().unwrap_err().to_string();
        assert!(error.contains("XDG_RUNTIME_DIR") && error.contains("belongs to user 65534"), "{error}");
        assert!(error.contains("give --socket") && !foreign.join("bulkhead").exists(), "{error}");
    }

    #[test]
    fn a_named_folder_that_somebody_else_put_into_tmp_is_refused() {
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let socket = folder.path().join("s");
        make_named_folder(&socket).unwrap();
        if own_uid() != 0 {
            skip!("only root can make a folder of somebody else");
        }
        chown(folder.path(), Some(65534), None).unwrap();
        for mode in [0o777, 0o1777] {
            std::fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            let error = make_named_folder(&socket).unwrap_err().to_string();
            assert!(error.contains("belongs to user 65534"), "{error}");
        }
    }
}
