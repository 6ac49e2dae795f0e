//! A folder that is held open: its descriptor names it, whatever becomes of its path.
//!
//! Device and inode tell whether the path still leads to it. While the descriptor is open, the kernel gives the inode to
//! no other file. Its content is removed relative to the descriptor, never by the path, so a folder that took its place
//! is not touched. flock(2) on it says that a living process uses it; systemd-tmpfiles skips a locked folder with all
//! that is in it. Used for boot folders, for the folder of a private daemon, and by `remove_tree.rs`.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::libc;

use crate::lock::{self, LockError};
use crate::remove_tree::empty;
use crate::socket::own_uid;

/// Device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity(u64, u64);

impl FileIdentity {
    /// The identity of the file at a path; of a symbolic link, its own.
    ///
    /// # Errors
    /// As lstat(2).
    pub fn at(path: &Path) -> io::Result<Self> {
        std::fs::symlink_metadata(path).map(|found| Self(found.dev(), found.ino()))
    }

    /// The identity of an open file.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn of(file: &File) -> io::Result<Self> {
        file.metadata().map(|found| Self(found.dev(), found.ino()))
    }
}

/// A file that is held by its inode alone (O_PATH): it is neither read nor written, and may be a socket.
#[derive(Debug)]
pub struct HeldFile(File);

impl HeldFile {
    /// Holds the file at a path.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = libc::O_PATH | libc::O_NOFOLLOW;
        OpenOptions::new().read(true).custom_flags(flags).open(path).map(Self)
    }

    /// Whether the path still leads to this file.
    pub fn is_at(&self, path: &Path) -> bool {
        matches!((FileIdentity::of(&self.0), FileIdentity::at(path)), (Ok(own), Ok(found)) if own == found)
    }
}

/// A folder that is held open.
#[derive(Debug)]
pub struct HeldFolder(File);

impl HeldFolder {
    /// Opens a folder. It may be closed to its owner (mode 0000); then its mode becomes 0700.
    ///
    /// # Errors
    /// As open(2). ENOTDIR or ELOOP: it is no folder.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW);
        let opened = options.open(path).or_else(|error| {
            let is_own_folder = |path| {
                std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir() && found.uid() == own_uid())
            };
            if error.kind() != ErrorKind::PermissionDenied || !is_own_folder(path) {
                return Err(error);
            }
            std::fs::set_permissions(path, Permissions::from_mode(0o700))?;
            options.open(path)
        });
        opened.map(Self)
    }

    /// Whether the path still leads to this folder.
    pub fn is_at(&self, path: &Path) -> bool {
        matches!((FileIdentity::of(&self.0), FileIdentity::at(path)), (Ok(own), Ok(found)) if own == found)
    }

    /// Whether both lie on one device. What somebody mounted over a folder lies on another one.
    pub fn shares_device_with(&self, other: &Self) -> bool {
        matches!((FileIdentity::of(&self.0), FileIdentity::of(&other.0)), (Ok(own), Ok(found)) if own.0 == found.0)
    }

    /// Locks the folder until this value is dropped.
    ///
    /// # Errors
    /// [`LockError::Held`]: another process has locked it.
    pub fn lock(&self) -> Result<(), LockError> {
        lock::lock_file(&self.0)
    }

    /// Whether its user is ours.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn is_own(&self) -> io::Result<bool> {
        Ok(self.0.metadata()?.uid() == own_uid())
    }

    /// Whether its user is ours and its mode is 0700, as those that we make.
    ///
    /// # Errors
    /// As fstat(2).
    pub fn is_private(&self) -> io::Result<bool> {
        let found = self.0.metadata()?;
        Ok(found.uid() == own_uid() && found.mode() & 0o777 == 0o700)
    }

    /// Sets the mode of the folder to 0700, whatever the umask was.
    ///
    /// # Errors
    /// As fchmod(2).
    pub fn make_private(&self) -> io::Result<()> {
        self.0.set_permissions(Permissions::from_mode(0o700))
    }

    /// Removes all that is in the folder. No process may be using it.
    ///
    /// # Errors
    /// Something in it cannot be removed.
    pub fn empty(&self) -> io::Result<()> {
        empty(self.as_fd())
    }

    /// Removes the folder with its content if `path` still leads to it, and says whether it did. If another folder
    /// takes its place between the last look at the path and rmdir(2), that one goes only if it is empty.
    ///
    /// # Errors
    /// Something in it cannot be removed.
    pub fn remove(&self, path: &Path) -> io::Result<bool> {
        loop {
            if !self.is_at(path) {
                return Ok(false);
            }
            match std::fs::remove_dir(path) {
                Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => self.empty()?,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                result => return result.map(|()| true),
            }
        }
    }
}

impl AsFd for HeldFolder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes the folder `name` with mode 0700 in `root`, and `root` and those above it if a cleaner of temporary files
/// removed them. `root` must be ours.
///
/// # Errors
/// `AlreadyExists`: the folder is there. `PermissionDenied`: `root`, or the folder above it, was put there by another
/// user, whom the text names: that user could replace what is in it. Otherwise as mkdir(2).
pub fn make_in(root: &Path, name: &str) -> io::Result<()> {
    let make = || {
        make_root(root)?;
        DirBuilder::new().mode(0o700).create(root.join(name))
    };
    match make() {
        // It was removed between the two steps.
        Err(error) if error.kind() == ErrorKind::NotFound => make(),
        result => result,
    }
}

/// As [`make_in`], for `root` itself. Says whether it was missing.
///
/// # Errors
/// As [`make_in`], but for `AlreadyExists`.
pub fn make_root(root: &Path) -> io::Result<bool> {
    let is_missing = match std::fs::symlink_metadata(root) {
        Ok(found) if found.is_dir() && found.uid() == own_uid() => return Ok(false),
        Ok(found) => return Err(foreign(root, found.uid())),
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    let above = root.parent().filter(|above| is_missing && !above.as_os_str().is_empty());
    if let Some(above) = above {
        DirBuilder::new().mode(0o700).recursive(true).create(above)?;
        if let Some(uid) = planted_by(above)? {
            return Err(foreign(above, uid));
        }
    }
    match DirBuilder::new().mode(0o700).create(root) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        result => result.map(|()| true),
    }
}

/// The user who put a folder where any user can make one, as in `/tmp`, unless that is root or this process's.
///
/// # Errors
/// As lstat(2).
pub fn planted_by(folder: &Path) -> io::Result<Option<u32>> {
    const ALL_MAY_WRITE: u32 = 0o002;
    let found = std::fs::symlink_metadata(folder)?;
    let above = folder.parent().unwrap_or(folder);
    let is_open = std::fs::metadata(above)?.mode() & ALL_MAY_WRITE != 0;
    Ok(Some(found.uid()).filter(|uid| is_open && *uid != 0 && *uid != own_uid()))
}

fn foreign(folder: &Path, uid: u32) -> io::Error {
    let text = if uid == own_uid() {
        format!("{} is not a folder", folder.display())
    } else {
        format!("{} belongs to user {uid}", folder.display())
    };
    io::Error::new(ErrorKind::PermissionDenied, text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("boot");
        fs::create_dir_all(path.join("w1")).unwrap();
        (place, path)
    }

    /// The swap between the two steps: what took the folder's place is not touched, nor is its content.
    #[test]
    fn what_took_the_place_of_a_folder_is_left_alone() {
        let (_place, path) = place();
        let held = HeldFolder::open(&path).unwrap();
        fs::remove_dir_all(&path).unwrap();
        assert!(!held.is_at(&path) && !held.remove(&path).unwrap());
        // Where the kernel would give a freed inode to the next file, the open descriptor keeps it.
        for _ in 0..100 {
            fs::create_dir(&path).unwrap();
            fs::write(path.join("precious"), "data").unwrap();
            held.empty().unwrap();
            assert!(!held.remove(&path).unwrap());
            assert!(path.join("precious").exists());
            fs::remove_dir_all(&path).unwrap();
        }
    }

    #[test]
    fn a_folder_goes_with_its_content_wherever_it_was_moved() {
        let (place, path) = place();
        let held = HeldFolder::open(&path).unwrap();
        let moved = place.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        fs::create_dir_all(path.join("precious")).unwrap();
        held.empty().unwrap();
        assert_eq!(fs::read_dir(&moved).unwrap().count(), 0);
        assert!(held.remove(&moved).unwrap() && !moved.exists());
        assert!(path.join("precious").exists());
    }

    #[test]
    fn a_socket_that_took_the_place_of_a_socket_is_told_apart() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let held = HeldFile::open(&path).unwrap();
        assert!(held.is_at(&path));
        for _ in 0..100 {
            fs::remove_file(&path).unwrap();
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            assert!(!held.is_at(&path));
        }
    }

    #[test]
    fn a_locked_folder_is_locked_for_others_until_it_is_dropped() {
        let _quiet = crate::testing::nobody_spawns();
        let (_place, path) = place();
        let first = HeldFolder::open(&path).unwrap();
        first.lock().unwrap();
        let second = HeldFolder::open(&path).unwrap();
        match second.lock() {
            Err(LockError::Held { pid }) => assert_eq!(pid, Some(std::process::id())),
            other => panic!("{other:?}"),
        }
        drop(first);
        second.lock().unwrap();
    }

    #[test]
    fn a_folder_that_another_user_put_there_is_not_used() {
        let place = tempfile::tempdir().unwrap();
        let (above, root) = (place.path().join("run"), place.path().join("run/boot"));
        make_in(&root, "w1").unwrap();
        assert_eq!(make_in(&root, "w1").unwrap_err().kind(), ErrorKind::AlreadyExists);
        fs::remove_dir_all(&above).unwrap();
        make_in(&root, "w1").unwrap();
        assert_eq!(fs::metadata(&above).unwrap().mode() & 0o777, 0o700);
        if own_uid() != 0 {
            skip!("only root can make a folder of another user");
        }
        fs::set_permissions(place.path(), Permissions::from_mode(0o1777)).unwrap();
        let chown = |path: &Path| std::os::unix::fs::chown(path, Some(65534), None).unwrap();
        for planted in [&root, &above] {
            chown(planted);
            let error = make_in(&root, "w2").unwrap_err();
            assert!(
                error.to_string().ends_with(&format!("{} belongs to user 65534", planted.display())),
                "{error}"
            );
            fs::remove_dir_all(&root).unwrap_or_default();
        }
    }
}
