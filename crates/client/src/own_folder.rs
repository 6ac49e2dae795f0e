//! A folder that this process made for itself and removes: that of a private daemon.
//!
//! It is held open and locked (flock(2)), so systemd-tmpfiles leaves it alone while the process lives. What took the
//! place of its path is never removed: device and inode are compared first, and its content goes by the descriptor. Used by
//! the command line.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bulkhead_sys::held_folder::HeldFolder;
use bulkhead_sys::lock::LockError;
use bulkhead_sys::socket::own_uid;

/// A folder of this process. Dropping it removes it with its content, if its path still leads to it.
#[derive(Debug)]
pub struct OwnFolder {
    path: PathBuf,
    held: HeldFolder,
}

impl OwnFolder {
    /// Takes over a folder that the caller has just made.
    ///
    /// # Errors
    /// It cannot be opened or locked, or it is another user's.
    pub fn take(path: &Path) -> io::Result<Self> {
        let held = HeldFolder::open(path)?;
        if !held.is_private()? {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another folder took its place"));
        }
        held.lock().map_err(|error| match error {
            LockError::Io(error) => error,
            held @ LockError::Held { .. } => io::Error::other(held.to_string()),
        })?;
        Ok(Self { path: path.to_owned(), held })
    }

    /// Whether a folder is this user's, as one must be that is not shared by all users.
    pub fn may_be_in(folder: &Path) -> bool {
        folder.metadata().is_ok_and(|found| found.is_dir() && found.uid() == own_uid())
    }

    /// Its user.
    pub fn owner(&self) -> u32 {
        own_uid()
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for OwnFolder {
    fn drop(&mut self) {
        // It was for the time of this process alone: nothing can be done about what cannot be removed.
        drop(self.held.remove(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_goes_with_its_content_and_what_took_its_place_stays() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("own");
        let make = || {
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
            std::fs::write(path.join("file"), "x").unwrap();
        };
        make();
        let own = OwnFolder::take(&path).unwrap();
        assert!(OwnFolder::take(&path).is_err(), "it is locked");
        drop(own);
        assert!(!path.exists());
        make();
        let own = OwnFolder::take(&path).unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        make();
        drop(own);
        assert!(path.join("file").exists());
    }
}
