//! The paths, groups and environment variables that the daemon and its clients must agree on.
//!
//! The supervisor and the client library call these functions. They never read the environment or the file system: the
//! value of `XDG_RUNTIME_DIR` and the user id are arguments.

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

/// The socket of a daemon in user mode: in `$XDG_RUNTIME_DIR/bulkhead`, or in `/tmp/bulkhead-UID` if the variable is not
/// set to an absolute path.
pub fn user_socket(runtime_dir: Option<&OsStr>, uid: u32) -> PathBuf {
    user_folder(runtime_dir, uid).join("bulkhead.sock")
}

fn user_folder(runtime_dir: Option<&OsStr>, uid: u32) -> PathBuf {
    match runtime_dir.map(Path::new) {
        Some(folder) if folder.is_absolute() => folder.join("bulkhead"),
        _ => PathBuf::from(format!("/tmp/bulkhead-{uid}")),
    }
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
