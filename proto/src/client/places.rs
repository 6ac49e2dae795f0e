//! Where things are: the paths that daemon and clients must agree on.
//!
//! Pure: what the surroundings say (`XDG_RUNTIME_DIR`, the user's number) is an argument.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The socket of the system's daemon.
pub const SYSTEM_SOCKET: &str = "/run/bulkhead/bulkhead.sock";
/// The environment variable that names a socket.
pub const SOCKET_VARIABLE: &str = "BULKHEAD_SOCKET";
/// The group whose members may use the system's daemon.
pub const GROUP: &str = "bulkhead";
/// The group whose members may see and end everybody's jobs.
pub const ADMIN_GROUP: &str = "bulkhead-admin";

/// The socket of a user's own daemon: in `$XDG_RUNTIME_DIR/bulkhead`, or in `/tmp/bulkhead-UID` without one.
pub fn user_socket(runtime_dir: Option<&OsStr>, uid: u32) -> PathBuf {
    user_folder(runtime_dir, uid).join("bulkhead.sock")
}

fn user_folder(runtime_dir: Option<&OsStr>, uid: u32) -> PathBuf {
    match runtime_dir.map(Path::new) {
        Some(folder) if folder.is_absolute() => folder.join("bulkhead"),
        _ => PathBuf::from(format!("/tmp/bulkhead-{uid}")),
    }
}

/// The file whose lock says that a daemon serves this socket.
pub fn lock_file(socket: &Path) -> PathBuf {
    beside(socket, ".lock")
}

/// The folder (0700) beside a socket in which workers are brought up.
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

    #[test]
    fn a_user_without_a_runtime_folder_still_has_a_socket() {
        let with = user_socket(Some(OsStr::new("/run/user/7")), 7);
        assert_eq!(with, Path::new("/run/user/7/bulkhead/bulkhead.sock"));
        for none in [None, Some(OsStr::new("")), Some(OsStr::new("relative"))] {
            assert_eq!(user_socket(none, 7), Path::new("/tmp/bulkhead-7/bulkhead.sock"));
        }
        assert_eq!(boot_folder(&with), Path::new("/run/user/7/bulkhead/bulkhead.sock.boot"));
    }
}
