//! The folders in which workers are brought up, and how they go when their workers are dead.
//!
//! A worker may leave whatever it likes in its folder, in any number and at any depth. An empty folder goes at once;
//! what a worker left is cleared away by a thread of its own, so that the loop never waits for it. Driven by
//! `spawn.rs` (which makes them) and by the drop of a worker.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bulkhead_sys::remove_tree::remove_tree;

/// A folder for one worker's bootstrap, removed with whatever is left in it.
#[derive(Debug)]
pub(crate) struct BootFolder(pub(crate) PathBuf);

impl BootFolder {
    /// Makes a folder for this user alone, and those above it if a cleaner took them away.
    ///
    /// # Errors
    /// It is there already; the folder above it cannot be made, is full or read-only.
    pub(crate) fn make(path: PathBuf) -> io::Result<Self> {
        let private = || DirBuilder::new().mode(0o700).create(&path);
        match (private(), path.parent()) {
            (Err(error), Some(above)) if error.kind() == ErrorKind::NotFound => {
                DirBuilder::new().mode(0o700).recursive(true).create(above)?;
                private()?;
            }
            (made, _) => made?,
        }
        Ok(Self(path))
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

/// Folders that wait to be cleared: those of this moment, and those for which there was no thread to be had.
static UNCLEARED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// If there is no thread to be had, what is left goes with the next folder.
fn remove_in_thread(left: &mut Vec<PathBuf>) {
    let folders = left.clone();
    let clear = move || folders.iter().for_each(|folder| warn_of(folder, remove_tree(folder)));
    match std::thread::Builder::new().name("clear-folder".to_owned()).spawn(clear) {
        Ok(_) => left.clear(),
        Err(error) => log::warn!("boot folders are removed later count={} error={error}", left.len()),
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
        let folder = BootFolder::make(place.path().join("w1")).unwrap();
        let path = folder.0.clone();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(folder);
        assert!(!path.exists());
    }
}
