//! The folders in which workers are brought up, and how they go when their workers are dead.
//!
//! A worker may leave whatever it likes in its folder, in any number and at any depth. An empty folder goes at once;
//! what a worker left is cleared away by a thread of its own, so that the loop never waits for it. Driven by
//! `spawn.rs` (which makes them) and by the drop of a worker.

use std::fs::{self, DirBuilder, DirEntry, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bulkhead_sys::clock;

/// Folders within each other that are emptied in place. A path through so many names of full length is short
/// enough for the kernel.
const LEVELS: usize = 12;

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
            result => warn_of(&self.0, found(result)),
        }
        if !left.is_empty() {
            clear_aside(&mut left);
        }
    }
}

/// Folders that wait to be cleared: those of this moment, and those for which there was no thread to be had.
static UNCLEARED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// If there is no thread to be had, what is left goes with the next folder.
fn clear_aside(left: &mut Vec<PathBuf>) {
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

/// Removes a folder with all that is in it, however deep that is: what lies deeper than [`LEVELS`] is moved up first,
/// so that neither the stack, nor the open descriptors, nor the length of a path grow with the depth. Nobody may be
/// at work in it. One that is gone already is fine.
///
/// # Errors
/// Something in it cannot be removed.
pub(crate) fn remove_tree(folder: &Path) -> io::Result<()> {
    let mut removal = Removal { folder, stamp: clock::monotonic_ns(), moved: 0 };
    loop {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => removal.empty(folder, 1)?,
            result => return found(result),
        }
    }
}

/// A folder that is being removed.
struct Removal<'a> {
    folder: &'a Path,
    /// With the count it makes names that nobody could foresee.
    stamp: u64,
    moved: u64,
}

impl Removal<'_> {
    fn empty(&mut self, folder: &Path, level: usize) -> io::Result<()> {
        for_each_entry(folder, |entry| {
            let path = entry.path();
            if !entry.file_type()?.is_dir() {
                fs::remove_file(path)
            } else if level == LEVELS {
                self.move_up(&path)
            } else {
                self.empty(&path, level + 1)?;
                fs::remove_dir(path)
            }
        })
    }

    fn move_up(&mut self, path: &Path) -> io::Result<()> {
        open_up(path)?;
        self.moved += 1;
        fs::rename(path, self.folder.join(format!("moved-{}-{}", self.stamp, self.moved)))
    }
}

/// Does `work` with each entry; one that somebody else removed meanwhile is passed over.
fn for_each_entry(folder: &Path, mut work: impl FnMut(&DirEntry) -> io::Result<()>) -> io::Result<()> {
    if let Err(error) = open_up(folder) {
        return found(Err(error));
    }
    for entry in fs::read_dir(folder)? {
        found(work(&entry?))?;
    }
    Ok(())
}

/// A worker may have taken its folders' permissions away; they are ours all the same.
fn open_up(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))
}

fn found(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Folders in folders, by names that fit a path only because each is moved into the next.
    fn nest(folder: &Path, depth: usize) {
        fs::create_dir(folder.join("nest")).unwrap();
        for _ in 1..depth {
            fs::create_dir(folder.join("outer")).unwrap();
            fs::rename(folder.join("nest"), folder.join("outer/nest")).unwrap();
            fs::rename(folder.join("outer"), folder.join("nest")).unwrap();
        }
    }

    #[test]
    fn whatever_a_worker_left_goes_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("precious"), "data").unwrap();
        let folder = place.path().join("w1");
        fs::create_dir_all(folder.join("a/b/c")).unwrap();
        fs::write(folder.join("a/b/file"), "x").unwrap();
        symlink(place.path(), folder.join("a/link")).unwrap();
        symlink("nowhere", folder.join("dangling")).unwrap();
        fs::set_permissions(folder.join("a/b/c"), Permissions::from_mode(0o000)).unwrap();
        nest(&folder, 1_000);
        remove_tree(&folder).unwrap();
        assert!(!folder.exists());
        assert_eq!(fs::read_to_string(place.path().join("precious")).unwrap(), "data");
        remove_tree(&folder).unwrap();
    }

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
