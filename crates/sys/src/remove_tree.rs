//! Removes a folder with all that is in it, whatever number, depth and permissions.
//!
//! It removes symbolic links, never what they point to. All but the first step goes by descriptors, so it never leaves
//! the folder, whatever takes the place of a path. Used by the supervisor for boot folders and by the worker for
//! the folders of programs.

use std::ffi::CStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::dir::{Dir, Entry, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmod, fchmodat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::clock;
use crate::held_folder::HeldFolder;

/// Nested folders that are emptied in place: as many descriptors are open at once.
const LEVELS: usize = 12;

/// Removes a folder with its content. Folders deeper than twelve levels are moved up first, so that stack and open
/// descriptors are bounded at any depth. No process may be using it. A missing folder is no error. If another folder
/// takes the place of this one meanwhile, that one stays.
///
/// # Errors
/// Something in it cannot be removed.
pub fn remove_tree(folder: &Path) -> io::Result<()> {
    // An empty folder needs no descriptor.
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        result => return result,
    }
    match HeldFolder::open(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        opened => opened?.remove(folder).map(|_| ()),
    }
}

/// Removes all that is in an open folder, whose mode becomes 0700. No process may be using it.
///
/// # Errors
/// Something in it cannot be removed.
pub fn empty(folder: BorrowedFd<'_>) -> io::Result<()> {
    // A program may have taken the rights away. If the folder is another user's, the removal tells what is wrong.
    let _ = fchmod(folder, Mode::S_IRWXU);
    let dir =
        Dir::openat(folder, c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let mut removal = Removal { folder, stamp: clock::monotonic_ns(), moved: 0 };
    Ok(removal.empty(dir?, 1)?)
}

/// A folder that is being emptied.
struct Removal<'a> {
    folder: BorrowedFd<'a>,
    /// Makes the names of moved folders unpredictable, together with the count.
    stamp: u64,
    moved: u64,
}

impl Removal<'_> {
    /// Entries that appear meanwhile, as those that are moved up, are found by a further pass.
    fn empty(&mut self, mut dir: Dir, level: usize) -> nix::Result<()> {
        loop {
            let mut seen = 0;
            let parent = dir.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)?;
            for entry in dir.iter() {
                let entry = entry?;
                let name = entry.file_name();
                if name != c"." && name != c".." {
                    seen += 1;
                    gone_is_fine(self.remove(parent.as_fd(), &entry, level))?;
                }
            }
            if seen == 0 {
                return Ok(());
            }
        }
    }

    fn remove(&mut self, parent: BorrowedFd<'_>, entry: &Entry, level: usize) -> nix::Result<()> {
        let name = entry.file_name();
        if !is_folder(parent, entry)? {
            return unlinkat(parent, name, UnlinkatFlags::NoRemoveDir);
        }
        if level == LEVELS {
            return self.move_up(parent, name);
        }
        match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
            result => return result,
        }
        self.empty(open_folder(parent, name)?, level + 1)?;
        unlinkat(parent, name, UnlinkatFlags::RemoveDir)
    }

    fn move_up(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
        open_up(parent, name)?;
        self.moved += 1;
        renameat(parent, name, self.folder, format!("moved-{}-{}", self.stamp, self.moved).as_str())
    }
}

/// Some file systems do not report the type of an entry.
fn is_folder(parent: BorrowedFd<'_>, entry: &Entry) -> nix::Result<bool> {
    if let Some(kind) = entry.file_type() {
        return Ok(kind == Type::Directory);
    }
    let found = fstatat(parent, entry.file_name(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR)
}

fn open_folder(parent: BorrowedFd<'_>, name: &CStr) -> nix::Result<Dir> {
    open_up(parent, name)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Dir::openat(parent, name, flags, Mode::empty())
}

/// Restores the permissions of a folder, which its user may have removed.
fn open_up(parent: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
    fchmodat(parent, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)
}

fn gone_is_fine(result: nix::Result<()>) -> nix::Result<()> {
    result.or_else(|error| if error == Errno::ENOENT { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

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
            for top in [0o755, 0o555, 0o000] {
                fs::create_dir_all(folder.join("mod/cache")).unwrap();
                fs::write(folder.join("mod/cache/file"), "x").unwrap();
                for (closed, mode) in [("mod/cache", 0o555), ("mod", 0o000), ("", top)] {
                    fs::set_permissions(folder.join(closed), Permissions::from_mode(mode)).unwrap();
                }
                assert!(fs::remove_dir_all(&folder).is_err(), "this shows nothing");
                remove_tree(&folder).unwrap();
                assert!(!folder.exists());
            }
        });
    }
}
