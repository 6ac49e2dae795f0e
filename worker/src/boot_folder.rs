//! The worker's own folder, which holds the socket of its task channel and the folders of programs. It is not `TMPDIR`, which
//! is that of the daemon: files of a job must not lie where the supervisor removes them.
//!
//! The supervisor makes it. A cleaner of temporary files may remove it while the worker is idle, also with the folder of
//! all workers above it; then it is made again at the same path, where the supervisor removes it after the worker's
//! death. It is never made where another user put a folder. The folder above is locked by some process, so that
//! systemd-tmpfiles leaves it alone and no second daemon takes it. The process that made it may have locked one that was
//! removed since. So each worker that makes its folder again locks the one above unless that is locked: until this worker
//! ends, whose replacement is a spawn, and a spawn locks it too (`supervisor/src/boot_folder.rs`). Called by `bootstrap.rs`
//! and `exec.rs`.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bulkhead_link::worker::{Channel, Server};
use bulkhead_proto::worker::message::BOOT_FOLDER_VARIABLE;
use bulkhead_sys::held_folder::{HeldFolder, make_in};
use bulkhead_sys::variables;

/// The folder of all workers, if this one locked it.
static LOCKED: Mutex<Option<HeldFolder>> = Mutex::new(None);

/// The folder's path.
///
/// # Errors
/// `NotFound`: the environment does not name it, so the supervisor did not start this process.
pub(crate) fn path() -> io::Result<PathBuf> {
    let unnamed = || io::Error::new(ErrorKind::NotFound, format!("{BOOT_FOLDER_VARIABLE} is not set"));
    std::path::absolute(std::env::var_os(BOOT_FOLDER_VARIABLE).ok_or_else(unnamed)?)
}

/// Opens the server of the task channel in the folder. `TMPDIR` names the folder meanwhile, because ipc-channel makes its
/// socket there.
///
/// # Errors
/// As [`Channel::listen`]; or the folder cannot be made.
pub(crate) fn listen() -> io::Result<(Server, String)> {
    let folder = path()?;
    with(|| variables::while_set("TMPDIR", &folder, Channel::listen))
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
        lock(root);
    }
    work()
}

/// A lock that cannot be taken is another process's, or this one's of an earlier time, which protects the folder as well.
fn lock(root: &Path) {
    let found = HeldFolder::open(root).ok().filter(|found| found.lock().is_ok());
    if found.is_some() {
        *LOCKED.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}
