//! Boot folders: the directories in which workers create the socket of their ipc-channel server.
//!
//! A worker can leave any number of files and folders in it, at any depth. The drop removes an empty folder with
//! rmdir(2); a folder that is not empty is removed by a thread, so that the loop never waits for the disk. Created by
//! `spawn.rs`, dropped with the worker. The name holds the daemon's pid: a daemon whose boot folder was removed and made
//! again by its successor shares it, and never takes the successor's names.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bulkhead_sys::held_folder::make_in;
use bulkhead_sys::remove_tree::remove_tree;

/// The boot folder of one worker. Dropping it removes it with its content.
#[derive(Debug)]
pub(crate) struct BootFolder(pub(crate) PathBuf);

impl BootFolder {
    /// Creates a folder with mode 0700, and those above it if a cleaner of temporary files removed them.
    ///
    /// # Errors
    /// It exists already; the folder above it cannot be created, is full or read-only, or belongs to another user.
    pub(crate) fn make(root: &Path, name: &str) -> io::Result<Self> {
        make_in(root, name).map(|()| Self(root.join(name)))
    }
}

impl Drop for BootFolder {
    fn drop(&mut self) {
        let result = fs::remove_dir(&self.0);
        let mut left = UNCLEARED.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => left.push(self.0.clone()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            result => warn_of(&self.0, result),
        }
        if !left.is_empty() {
            remove_in_thread(&mut left);
        }
    }
}

/// Folders that wait to be removed: new ones, and those for which no thread could be started.
static UNCLEARED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// If no thread can be started, the folders are removed together with the next one.
fn remove_in_thread(left: &mut Vec<PathBuf>) {
    let folders = left.clone();
    let clear = move || folders.iter().for_each(|folder| warn_of(folder, remove_tree(folder)));
    match std::thread::Builder::new().name("clear-folder".to_owned()).spawn(clear) {
        Ok(_) => left.clear(),
        Err(error) => log::warn!(
            "cannot start a thread that removes boot folders, will retry count={} error={error}",
            left.len()
        ),
    }
}

fn warn_of(path: &Path, removed: io::Result<()>) {
    if let Err(error) = removed {
        log::warn!("cannot remove a boot folder path={} error={error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_empty_folder_is_gone_with_its_worker() {
        let place = tempfile::tempdir().unwrap();
        let folder = BootFolder::make(place.path(), "w1").unwrap();
        let path = folder.0.clone();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(folder);
        assert!(!path.exists());
    }
}
