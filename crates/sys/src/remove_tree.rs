//! Removes a folder with all that is in it, whatever number, depth and permissions.
//!
//! It removes symbolic links, never what they point to. Used by the supervisor for boot folders and by the worker for
//! the folders of programs.

use std::fs::{self, DirEntry, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::clock;

/// Nested folders that are emptied in place. A path through this many names of full length is short enough for the
/// kernel.
const LEVELS: usize = 12;

/// Removes a folder with its content. Folders deeper than twelve levels are moved up first, so that stack, open
/// descriptors and path length are bounded at any depth. No process may be using it. A missing folder is no error.
///
/// # Errors
/// Something in it cannot be removed.
pub fn remove_tree(folder: &Path) -> io::Result<()> {
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
    /// Makes the names of moved folders unpredictable, together with the count.
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

/// Calls `work` for each entry; an entry that is gone meanwhile is skipped.
fn for_each_entry(folder: &Path, mut work: impl FnMut(&DirEntry) -> io::Result<()>) -> io::Result<()> {
    if let Err(error) = open_up(folder) {
        return found(Err(error));
    }
    for entry in fs::read_dir(folder)? {
        found(work(&entry?))?;
    }
    Ok(())
}

/// Restores the permissions of a folder, which its user may have removed.
fn open_up(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))
}

fn found(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use nix::unistd::{Uid, geteuid, seteuid};

    use super::*;
    use crate::testing::in_child;

    /// Nested folders, deeper than a path could name, because each is moved into the next.
    fn nest(folder: &Path, depth: usize) {
        fs::create_dir(folder.join("nest")).unwrap();
        for _ in 1..depth {
            fs::create_dir(folder.join("outer")).unwrap();
            fs::rename(folder.join("nest"), folder.join("outer/nest")).unwrap();
            fs::rename(folder.join("outer"), folder.join("nest")).unwrap();
        }
    }

    #[test]
    fn whatever_was_left_goes_and_nothing_else() {
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

    /// Root ignores permissions, so another user runs this.
    #[test]
    fn folders_that_were_closed_go_too() {
        in_child("remove_tree::tests::folders_that_were_closed_go_too", || {
            let place = tempfile::tempdir().unwrap();
            if geteuid().is_root() {
                chown(place.path(), Some(65534), Some(65534)).unwrap();
                seteuid(Uid::from_raw(65534)).unwrap();
            }
            let folder = place.path().join("go");
            fs::create_dir_all(folder.join("mod/cache")).unwrap();
            fs::write(folder.join("mod/cache/file"), "x").unwrap();
            for (closed, mode) in [("mod/cache", 0o555), ("mod", 0o000)] {
                fs::set_permissions(folder.join(closed), Permissions::from_mode(mode)).unwrap();
            }
            assert!(fs::remove_dir_all(&folder).is_err(), "this shows nothing");
            remove_tree(&folder).unwrap();
            assert!(!folder.exists());
        });
    }
}
