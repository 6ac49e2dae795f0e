//! Which file or folder keeps this user from a socket, and whom it lets in.
//!
//! The group is the one that the file system has, so it is right whatever group the daemon was configured with. It looks,
//! and never opens or changes anything. Called by `connect.rs` after connect(2) failed with EACCES.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bulkhead_proto::client::places::SYSTEM_SOCKET;
use bulkhead_sys::socket::group_name;
use bulkhead_sys::user_namespace::name_of;

/// Write permission of the group: needed to connect to a socket.
const GROUP_WRITES: u32 = 0o020;
/// Search permission of the group: needed to reach what is in a folder.
const GROUP_SEARCHES: u32 = 0o010;

/// A socket, or a folder on the way to it, whose permissions shut this user out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedGate {
    path: PathBuf,
    owner: u32,
    /// The name of the group whose members it lets in, if it does.
    group: Option<String>,
    /// Whether joining that group is all that is missing.
    is_last: bool,
}

impl ClosedGate {
    /// What shuts this user out of `socket`: the socket itself, or the innermost folder whose own permissions can be
    /// read. `None`: none can be.
    pub(crate) fn of(socket: &Path) -> Option<Self> {
        // A file can be looked at if all folders on the way to it may be searched.
        let (path, found) =
            socket.ancestors().find_map(|path| Some((path, std::fs::metadata(path).ok()?)))?;
        let is_socket = path == socket;
        let needed = if is_socket { GROUP_WRITES } else { GROUP_SEARCHES };
        let group = (found.mode() & needed != 0).then(|| group_name(found.gid()));
        // The folder of the system's socket is the daemon's too; other folders may be of anything.
        let is_last = is_socket || socket == Path::new(SYSTEM_SOCKET);
        Some(Self { path: path.to_owned(), owner: found.uid(), group, is_last })
    }
}

impl fmt::Display for ClosedGate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, owner, group, is_last } = self;
        write!(out, "{} is for {}", path.display(), name_of(*owner))?;
        match group {
            Some(group) if *is_last => write!(
                out,
                " and the members of group {group} (join it with `sudo usermod -aG {group} $USER`, then log in again)"
            ),
            Some(group) => write!(out, " and the members of group {group}"),
            None => out.write_str(" alone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// What is said of a socket whose mode and group are these.
    fn said(mode: u32, group: Option<u32>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        chown(&path, None, group).unwrap();
        ClosedGate::of(&path).unwrap().to_string()
    }

    #[test]
    fn the_group_of_the_socket_is_named() {
        let own = nix_gid();
        let name = group_name(own);
        let told = said(0o660, None);
        assert!(
            told.contains(&format!("members of group {name} (join it with `sudo usermod -aG {name} ")),
            "{told}"
        );
        assert!(said(0o600, None).ends_with(" alone"), "{}", said(0o600, None));
        if bulkhead_sys::socket::own_uid() == 0 {
            let told = said(0o660, Some(54_321));
            assert!(told.contains("group 54321 ("), "it has no name: {told}");
        }
    }

    fn nix_gid() -> u32 {
        let folder = tempfile::tempdir().unwrap();
        folder.path().metadata().unwrap().gid()
    }

    /// The text never tells a user to join the group of a folder on the way to the socket.
    #[test]
    fn a_socket_that_cannot_be_seen_is_shut_off_by_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o750)).unwrap();
        let told = ClosedGate::of(&folder.path().join("deep/s")).unwrap().to_string();
        assert!(told.starts_with(&format!("{} is for ", folder.path().display())), "{told}");
        assert!(told.contains("members of group ") && !told.contains("usermod"), "{told}");
    }
}
