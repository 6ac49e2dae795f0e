//! What stands against the removal of a name: the flags of an inode that statx(2) tells, and a mount on the name.
//!
//! Nothing here decides what is done about them. A kernel that does not know a flag (`MOUNT_ROOT` before 5.8), and a
//! file system without such flags, are told as "not set"; the rename then fails with the same errors as without a look.
//! Driven by `client`, for its outputs.

use std::io;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};
use rustix::fs::{CWD, StatxAttributes, StatxFlags, statx};

/// The flags of one name, which is not followed if it is a symbolic link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InodeFlags {
    /// Something is mounted on it: rename(2) onto it fails with EBUSY.
    pub is_mounted_on: bool,
    /// `chattr +a`: a file cannot be removed and is only appended to; a folder gets new names and loses none.
    pub is_append_only: bool,
    /// `chattr +i`: a file cannot be changed or removed; a folder neither gets nor loses a name.
    pub is_immutable: bool,
}

/// Reads the flags of `path`.
///
/// # Errors
/// As statx(2). ENOSYS, EPERM: the kernel or its filter has no statx.
pub fn look(path: &Path) -> io::Result<InodeFlags> {
    let no_follow = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    let found = statx(CWD, path, no_follow, StatxFlags::empty())?.stx_attributes;
    Ok(InodeFlags {
        is_mounted_on: found.contains(StatxAttributes::MOUNT_ROOT),
        is_append_only: found.contains(StatxAttributes::APPEND),
        is_immutable: found.contains(StatxAttributes::IMMUTABLE),
    })
}

/// Whether this process may make and remove names in `folder`, as far as its permissions tell.
pub fn takes_names(folder: &Path) -> bool {
    faccessat(AT_FDCWD, folder, AccessFlags::W_OK | AccessFlags::X_OK, AtFlags::AT_EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_file_has_no_flags_and_a_mount_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plain");
        std::fs::write(&path, "").unwrap();
        assert_eq!(look(&path).unwrap(), InodeFlags::default());
        assert!(look(Path::new("/proc")).unwrap().is_mounted_on);
        assert_eq!(look(&folder.path().join("no")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_folder_of_ones_own_takes_names_and_proc_does_not() {
        assert!(takes_names(tempfile::tempdir().unwrap().path()));
        assert!(!takes_names(Path::new("/nowhere")));
    }
}
