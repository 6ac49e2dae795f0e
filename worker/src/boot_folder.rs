//! The worker's own folder (`TMPDIR`), which holds the socket of its task channel and the folders of programs.
//!
//! The supervisor makes it. A cleaner of temporary files may remove it while the worker is idle, also with the folders
//! above it; then it is made again at the same path, where the supervisor removes it after the worker's death. It is
//! never made where another user put a folder. Called by `bootstrap.rs` and `exec.rs`.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use bulkhead_sys::held_folder::make_in;

/// The folder's path.
///
/// # Errors
/// The current folder is gone, and `TMPDIR` is relative.
pub(crate) fn path() -> io::Result<PathBuf> {
    std::path::absolute(std::env::temp_dir())
}

/// Does `work` in the folder; if the folder is gone, makes it again and does the work once more.
///
/// # Errors
/// As `work`; or the folder cannot be made.
pub(crate) fn with<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    match work() {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        result => return result,
    }
    let folder = path()?;
    if let (Some(root), Some(name)) = (folder.parent(), folder.file_name().and_then(|name| name.to_str())) {
        match make_in(root, name) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => log::info!("made the worker's folder again path={}", folder.display()),
        }
    }
    work()
}
