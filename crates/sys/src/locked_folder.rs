//! A folder of mode 0700 that is locked (flock) as long as somebody uses it, for files that outlive neither their job nor
//! their command. (`held_folder.rs` has folders that are found by their names, such as that of the daemon's socket.)
//!
//! A lock lasts until all holders of the open folder have closed it, however they end. So a folder whose lock is free
//! belongs to nobody that lives, and any process of its user may remove it. Nothing else is ever removed here: before a
//! removal the folder under the path is compared with the open one. Used by `client` for the outputs of programs, by the
//! worker for its copies of files, and by the supervisor, which removes those of dead workers.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::held_folder::FileIdentity;
use crate::open_flags::open_folder;
use crate::remove_tree::remove_tree;
use crate::socket::own_uid;

/// The permissions of a folder.
const MODE: u32 = 0o700;
/// Those of one that stays.
const LEFT_MODE: u32 = 0o500;

/// A locked folder. Dropping it removes it with its content; the lock stays with other holders of the open folder.
#[derive(Debug)]
pub struct LockedFolder {
    path: PathBuf,
    folder: Arc<File>,
    /// Whether it stays when this is dropped.
    stays: bool,
}

impl LockedFolder {
    /// Makes a folder at `path`. `None`: the name is taken, or another process took the new folder for an abandoned one.
    ///
    /// # Errors
    /// As mkdir(2). EMFILE, EACCES (a umask that closes it to its owner): the new folder cannot be opened, and is removed.
    pub fn make_at(path: &Path) -> io::Result<Option<Self>> {
        match DirBuilder::new().mode(MODE).create(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
            made => made?,
        }
        let folder = match open_folder(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                drop(fs::remove_dir(path));
                return Err(error);
            }
            Ok(folder) => folder,
        };
        // Where the file system has no such locks, no process can take the folder for an abandoned one.
        let is_taken = matches!(folder.try_lock(), Err(fs::TryLockError::WouldBlock));
        let is_ours = !is_taken && is_at(&folder, path);
        Ok(is_ours.then(|| Self { path: path.to_owned(), folder: Arc::new(folder), stays: false }))
    }

    /// Makes a folder in `place` under the first free name, which is `prefix` and a number.
    ///
    /// # Errors
    /// As [`Self::make_at`].
    pub fn make_in(place: &Path, prefix: &str) -> io::Result<Self> {
        for number in 0_u32.. {
            let path = place.join(format!("{prefix}{number}"));
            if let Some(made) = Self::make_at(&path)? {
                return Ok(made);
            }
        }
        Err(ErrorKind::AlreadyExists.into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder, open for reading.
    pub fn folder(&self) -> &Arc<File> {
        &self.folder
    }

    /// Where it is now: it may have been moved with a folder above it. `None`: no path leads to it.
    pub fn current_path(&self) -> Option<PathBuf> {
        let by_descriptor = || fs::read_link(format!("/proc/self/fd/{}", self.folder.as_raw_fd())).ok();
        let path = Some(self.path.clone()).filter(|path| is_at(&self.folder, path)).or_else(by_descriptor);
        path.filter(|path| is_at(&self.folder, path))
    }

    /// Lets it stay for good, because a file in it could not be brought elsewhere: no process takes it for an abandoned
    /// one.
    pub fn leave(&mut self) {
        self.stays = true;
        // Where even this fails, another process cannot remove anything in it either.
        drop(self.folder.set_permissions(Permissions::from_mode(LEFT_MODE)));
    }
}

impl Drop for LockedFolder {
    fn drop(&mut self) {
        // Only the folder that is held: somebody may have moved it away and put another in its place.
        if let Some(path) = self.current_path().filter(|_| !self.stays) {
            drop(remove_tree(&path));
        }
    }
}

/// Removes the folder at `path` if it is of our user and nobody has locked it. Says whether it did.
pub fn remove_abandoned(path: &Path) -> bool {
    let Ok(folder) = open_folder(path) else { return false };
    let is_left = |mode: u32| mode & 0o777 == LEFT_MODE;
    let is_own = folder.metadata().is_ok_and(|found| found.uid() == own_uid() && !is_left(found.mode()));
    is_own && folder.try_lock().is_ok() && is_at(&folder, path) && remove_tree(path).is_ok()
}

/// Removes those folders in `place` that are of our user, have a name of `prefix` and a number, and are locked by
/// nobody. Returns how many.
///
/// # Errors
/// `place` cannot be listed. A missing one is no error.
pub fn remove_all_abandoned(place: &Path, prefix: &str) -> io::Result<usize> {
    let entries = match fs::read_dir(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut removed = 0;
    for entry in entries {
        let entry = entry?;
        let is_one = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix(prefix))
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
        removed += usize::from(is_one && remove_abandoned(&entry.path()));
    }
    Ok(removed)
}

/// Removes an open folder that is empty, by way of its own `..`: its path may lead elsewhere in this mount namespace.
///
/// # Errors
/// ENOTEMPTY. ENOENT: it is removed already. EACCES: this user may not enter or write the folder above it.
pub fn remove_open(folder: BorrowedFd<'_>) -> io::Result<()> {
    let link = fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd()))?;
    let name = link.file_name().ok_or(ErrorKind::NotFound)?;
    let above = openat(folder, "..", OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let found = fstatat(above.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if id(&found) != id(&fstat(folder)?) {
        return Err(Errno::ENOENT.into());
    }
    // Should another folder take its place now, that one goes only if it is empty.
    Ok(unlinkat(above, name, UnlinkatFlags::RemoveDir)?)
}

fn id(of: &FileStat) -> (u64, u64) {
    (of.st_dev, of.st_ino)
}

/// Whether this open folder is the one under the path.
fn is_at(folder: &File, path: &Path) -> bool {
    matches!((FileIdentity::of(folder), FileIdentity::at(path)), (Ok(own), Ok(found)) if own == found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_child, nobody_spawns};

    fn names(folder: &Path) -> Vec<String> {
        let all = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = all.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn folders_of_the_dead_are_removed_and_those_of_the_living_stay() {
        let _quiet = nobody_spawns();
        let place = tempfile::tempdir().unwrap();
        let living = LockedFolder::make_in(place.path(), "x-").unwrap();
        fs::create_dir_all(place.path().join("x-1/deep")).unwrap();
        for other in ["x-", "x-a", "y-1", "x-1a"] {
            fs::create_dir(place.path().join(other)).unwrap();
        }
        fs::write(place.path().join("x-7"), "a file").unwrap();
        std::os::unix::fs::symlink("y-1", place.path().join("x-8")).unwrap();
        let next = LockedFolder::make_in(place.path(), "x-").unwrap();
        assert!(next.path().ends_with("x-2"), "a taken name is passed over");
        assert_eq!(remove_all_abandoned(place.path(), "x-").unwrap(), 1);
        assert_eq!(names(place.path()), ["x-", "x-0", "x-1a", "x-2", "x-7", "x-8", "x-a", "y-1"]);
        fs::write(living.path().join("file"), "x").unwrap();
        let held = Arc::clone(next.folder());
        drop((living, next));
        assert_eq!(names(place.path()), ["x-", "x-1a", "x-7", "x-8", "x-a", "y-1"]);
        drop(held);
        assert_eq!(remove_all_abandoned(&place.path().join("missing"), "x-").unwrap(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_opened_is_an_error_and_does_not_stay() {
        in_child(
            "locked_folder::tests::a_folder_that_cannot_be_opened_is_an_error_and_does_not_stay",
            || {
                use nix::sys::resource::{Resource, getrlimit, setrlimit};
                let place = tempfile::tempdir().unwrap();
                let free = u64::try_from(File::open("/dev/null").unwrap().as_raw_fd()).unwrap();
                let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
                setrlimit(Resource::RLIMIT_NOFILE, free, hard).unwrap();
                let error = LockedFolder::make_in(place.path(), "x-").unwrap_err();
                setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
                assert_eq!(error.raw_os_error(), Some(Errno::EMFILE as i32));
                assert!(names(place.path()).is_empty(), "{:?}", names(place.path()));
            },
        );
    }

    #[test]
    fn an_open_folder_is_removed_where_it_is_and_what_took_its_place_stays() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("own");
        fs::create_dir(&path).unwrap();
        let folder = open_folder(&path).unwrap();
        fs::write(path.join("file"), "x").unwrap();
        assert_eq!(remove_open(folder.as_fd()).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
        fs::remove_file(path.join("file")).unwrap();
        fs::rename(&path, place.path().join("moved")).unwrap();
        fs::create_dir(&path).unwrap();
        remove_open(folder.as_fd()).unwrap();
        assert_eq!(names(place.path()), ["own"]);
        assert!(remove_open(folder.as_fd()).is_err());
        assert_eq!(names(place.path()), ["own"]);
    }
}
