//! Boot folders: the directories in which workers create the socket of their ipc-channel server.
//!
//! All lie in one folder beside the daemon's socket, the [`BootRoot`], which is locked (flock(2)) while the daemon lives:
//! a second daemon is refused then, and systemd-tmpfiles leaves a locked folder alone with all that is in it. If another
//! cleaner removes it, it is made and locked again by the next spawn, or by a worker that needs its folder
//! (`worker/src/boot_folder.rs`); that worker's lock holds until the worker ends, and its replacement is a spawn.
//!
//! Nothing is removed by its name alone. The root is compared by device and inode with the descriptor that is held. A
//! worker's folder must belong to this user, and its name has the daemon's tag, which no other daemon chooses: a
//! successor may share the root.
//!
//! A worker can leave any number of files and folders in its own, at any depth. The drop removes an empty folder with
//! rmdir(2); a folder that is not empty is removed by a thread, so that the loop never waits for the disk. One that cannot be
//! opened, because descriptors or memory are short, is removed with the next spawn. The root is
//! claimed by `setup.rs` and by `config_check.rs`; `spawn.rs` makes the folders, which are dropped with the workers.

use std::cell::RefCell;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, anyhow, bail, ensure};
use bulkhead_sys::held_folder::{HeldFolder, make_in, make_root};
use bulkhead_sys::lock::LockError;
use bulkhead_sys::shortage;

/// The folder of all boot folders of one daemon. Dropping it removes it with its content.
#[derive(Debug)]
pub(crate) struct BootRoot {
    path: PathBuf,
    /// A part of each name in it, the daemon's own.
    tag: String,
    /// The folder at `path`, locked; if it is locked by another process, the last one that was ours.
    held: RefCell<HeldFolder>,
}

impl BootRoot {
    /// Creates an empty folder and locks it. Removes one that a killed daemon left.
    ///
    /// # Errors
    /// The folder there has another owner or mode; a living process has locked it, so the socket and the lock file of
    /// a daemon were removed; it cannot be created.
    pub(crate) fn claim(path: PathBuf, seed: u64) -> Result<Self> {
        let failed = |what: &str, error: &io::Error| {
            anyhow!("cannot {what} boot folder {}: {}", path.display(), shortage::explain(error))
        };
        match HeldFolder::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed("open", &error)),
            Ok(found) => {
                ensure!(
                    found.is_private().map_err(|error| failed("look at", &error))?,
                    "{} exists and is not the boot folder of a daemon: remove it or choose another --socket",
                    path.display()
                );
                lock(&found, &path)?;
                found.remove(&path).map_err(|error| failed("clear", &error))?;
            }
        }
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| failed("make", &error))?;
        let made = HeldFolder::open(&path).map_err(|error| failed("open", &error))?;
        made.make_private().map_err(|error| failed("make", &error))?;
        lock(&made, &path)?;
        // Six digits: the path of a socket in a worker's folder must stay short.
        Ok(Self { path, tag: format!("{:06x}", seed & 0xff_ffff), held: RefCell::new(made) })
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the folder of one worker with mode 0700, and the folders above it if a cleaner of temporary files removed
    /// them.
    ///
    /// # Errors
    /// The folder above it cannot be created, is full or read-only, or belongs to another user.
    pub(crate) fn make(&self, worker: impl std::fmt::Display) -> io::Result<BootFolder> {
        remove_uncleared();
        make_root(&self.path)?;
        if self.hold_again() {
            log::warn!("the boot folder was removed and is made again path={}", self.path.display());
        }
        let name = format!("w{worker}-{}", self.tag);
        make_in(&self.path, &name).map(|()| BootFolder(self.path.join(name)))
    }

    /// Locks the folder that took the place of ours, and says whether it did. If another process has locked it, that is
    /// a worker of ours, until its end, or a successor. One that is mounted over ours is left alone: it would be busy.
    fn hold_again(&self) -> bool {
        let mut held = self.held.borrow_mut();
        if held.is_at(&self.path) {
            return false;
        }
        let found = open_unused(&self.path).ok().filter(|found| found.shares_device_with(&held));
        found.map(|found| *held = found).is_some()
    }
}

impl Drop for BootRoot {
    fn drop(&mut self) {
        self.hold_again();
        if let Err(error) = self.held.get_mut().remove(&self.path) {
            log::warn!("cannot remove the boot folder path={} error={error}", self.path.display());
        }
    }
}

/// Opens and locks a folder that is made as boot folders are and that no living process has locked.
fn open_unused(path: &Path) -> Result<HeldFolder> {
    let found = HeldFolder::open(path)?;
    ensure!(found.is_private()?, "it is not the boot folder of a daemon");
    found.lock()?;
    Ok(found)
}

fn lock(folder: &HeldFolder, path: &Path) -> Result<()> {
    match folder.lock() {
        Ok(()) => Ok(()),
        Err(LockError::Held { pid }) => {
            let pid = pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
            bail!(
                "another process (pid {pid}) uses the boot folder {}: if it is a daemon, its socket and lock file were \
                 removed; stop it, or choose another --socket",
                path.display()
            )
        }
        Err(LockError::Io(error)) => bail!("cannot lock boot folder {}: {error}", path.display()),
    }
}

/// The boot folder of one worker. Dropping it removes it with its content.
#[derive(Debug)]
pub(crate) struct BootFolder(PathBuf);

impl BootFolder {
    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Removes what is in it.
    ///
    /// # Errors
    /// Something in it cannot be removed.
    pub(crate) fn clear(&self) -> io::Result<()> {
        open_own(&self.0)?.map_or(Ok(()), |own| own.empty())
    }
}

impl Drop for BootFolder {
    fn drop(&mut self) {
        if let Err(error) = remove_empty(&self.0) {
            match may_go_later(&error) {
                true => lock_uncleared().push(self.0.clone()),
                false => warn_of(&self.0, &error),
            }
        }
        remove_uncleared();
    }
}

/// Folders that wait to be removed: new ones, and those for which no thread could be started, or that could not be opened
/// for want of descriptors or memory.
static UNCLEARED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn lock_uncleared() -> MutexGuard<'static, Vec<PathBuf>> {
    UNCLEARED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a folder that could not be removed is removed in a thread, now or with the next spawn.
fn may_go_later(error: &io::Error) -> bool {
    error.kind() == ErrorKind::DirectoryNotEmpty || shortage::is_short(error)
}

/// Removes the folders that wait, in a thread. If none can be started, they wait for the next drop or spawn.
fn remove_uncleared() {
    let mut left = lock_uncleared();
    if left.is_empty() {
        return;
    }
    let folders = left.clone();
    let clear = move || {
        for folder in folders {
            match remove_full(&folder) {
                Err(error) if shortage::is_short(&error) => lock_uncleared().push(folder),
                Err(error) => warn_of(&folder, &error),
                Ok(()) => {}
            }
        }
    };
    match std::thread::Builder::new().name("clear-folder".to_owned()).spawn(clear) {
        Ok(_) => left.clear(),
        Err(error) => log::warn!(
            "cannot start a thread that removes boot folders, will retry count={} error={error}",
            left.len()
        ),
    }
}

/// A missing folder is no error.
fn remove_empty(path: &Path) -> io::Result<()> {
    let Some(own) = open_own(path)? else { return Ok(()) };
    if own.is_at(path) { fs::remove_dir(path) } else { Ok(()) }
}

fn remove_full(path: &Path) -> io::Result<()> {
    let Some(own) = open_own(path)? else { return Ok(()) };
    own.remove(path).map(|_| ())
}

/// The folder at the path of a worker's folder. The worker may have made it again, so that its inode is not that of the
/// spawn.
fn open_own(path: &Path) -> io::Result<Option<HeldFolder>> {
    match HeldFolder::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Ok(found) if !found.is_own()? => {
            Err(io::Error::new(ErrorKind::PermissionDenied, "it belongs to another user"))
        }
        found => found.map(Some),
    }
}

fn warn_of(path: &Path, error: &io::Error) {
    log::warn!("cannot remove a boot folder path={} error={error}", path.display());
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn root() -> (tempfile::TempDir, BootRoot) {
        let place = tempfile::tempdir().unwrap();
        let root = BootRoot::claim(place.path().join("s.boot"), 7).unwrap();
        (place, root)
    }

    #[test]
    fn an_empty_folder_is_gone_with_its_worker() {
        let (_place, root) = root();
        let folder = root.make(1).unwrap();
        let path = folder.path().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(folder);
        assert!(!path.exists());
        let path = root.path().to_owned();
        drop(root);
        assert!(!path.exists());
    }

    /// What another process has locked at the root's path is neither taken nor removed; once the lock is gone, it is.
    #[test]
    fn the_root_that_took_the_place_of_ours_is_taken_only_if_nobody_uses_it() {
        let (_place, root) = root();
        let path = root.path().to_owned();
        fs::remove_dir(&path).unwrap();
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        let other = open_unused(&path).unwrap();
        drop(root.make(1).unwrap());
        assert!(!root.held.borrow().is_at(&path));
        drop(other);
        drop(root.make(2).unwrap());
        assert!(root.held.borrow().is_at(&path));
        assert!(open_unused(&path).is_err(), "it is locked");
        // Another mode: it is no folder of a daemon.
        fs::remove_dir(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        drop(root);
        assert!(path.exists());
    }

    /// A symbolic link, or a folder of another user, at the path of a worker's folder stays.
    #[test]
    fn what_took_the_place_of_a_workers_folder_is_left_alone() {
        let (place, root) = root();
        let precious = place.path().join("precious");
        fs::create_dir(&precious).unwrap();
        let folder = root.make(1).unwrap();
        let path = folder.path().to_owned();
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        drop(folder);
        assert!(fs::symlink_metadata(&path).is_ok() && precious.exists());
        fs::remove_file(&path).unwrap();
        if bulkhead_sys::socket::own_uid() != 0 {
            skip!("only root can make a folder of another user");
        }
        let folder = root.make(1).unwrap();
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        drop(folder);
        assert!(path.exists());
    }
}
