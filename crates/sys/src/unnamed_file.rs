//! Files without a name (O_TMPFILE), which get one when they are complete.
//!
//! The kernel deletes such a file with its last descriptor, so a killed process leaves nothing behind. To replace an
//! older file the `client` crate links it under a free name and renames that. Driven by `client`, for its inputs and
//! outputs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FallocateFlags, fallocate};
use nix::libc;
use nix::unistd::linkat;
use rustix::fs::{CWD, RenameFlags};

use crate::memfd;

/// Creates an empty file without a name in `folder`, for reading and writing, with `mode` as the umask allows.
///
/// # Errors
/// EOPNOTSUPP, EISDIR, ENOENT: the file system lacks such files (see [`is_unknown`]). ENOENT, ENOTDIR, EACCES, EROFS:
/// the folder. ENOSPC, EMFILE: a resource is exhausted.
pub fn create(folder: &Path, mode: u32) -> io::Result<File> {
    let flags = libc::O_TMPFILE | libc::O_CLOEXEC;
    OpenOptions::new().read(true).write(true).mode(mode).custom_flags(flags).open(folder)
}

/// Whether [`create`] failed because the file system lacks such files.
pub fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR))
}

/// Creates an empty file in memory, for cases in which no folder can hold one.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM: a resource is exhausted.
pub fn in_memory(name: &str) -> io::Result<File> {
    memfd::create(name).map(File::from)
}

/// Whether [`link`] can find the file: not where no `/proc` is mounted.
pub fn can_be_linked(file: &File) -> bool {
    own_path(file).exists()
}

fn own_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))
}

/// Links a file of [`create`] under a name on its own file system.
///
/// # Errors
/// EEXIST: the name is taken. ENOENT: the file was not created without a name, or the folder is gone. EXDEV: another
/// file system.
pub fn link(file: &File, path: &Path) -> io::Result<()> {
    Ok(linkat(AT_FDCWD, &own_path(file), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW)?)
}

/// Reserves the blocks for the first `bytes` of an open file, without changing its length or content. A file system
/// that cannot do that is no error.
///
/// # Errors
/// ENOSPC, EDQUOT, EFBIG: so much does not fit.
pub fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    let Some(bytes) = libc::off_t::try_from(bytes).ok().filter(|bytes| *bytes > 0) else { return Ok(()) };
    match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, bytes) {
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => Ok(()),
        other => Ok(other?),
    }
}

/// Renames `from` to `to`, which must not be there. Where the file system cannot do that in one step, `from` gets a
/// second name and loses the first.
///
/// # Errors
/// EEXIST: it is there. Else as rename(2).
pub fn rename_to_free_name(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        renamed => Ok(renamed?),
    }
}

/// Opens a file for reading with O_NONBLOCK: a FIFO without a writer opens at once and can be polled.
///
/// # Errors
/// As `open(2)`. ENXIO: it is a socket.
pub fn open_at_once(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_has_no_name_until_it_is_linked() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = create(folder.path(), 0o600).unwrap();
        file.write_all(b"whole").unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(can_be_linked(&file));
        let path = folder.path().join("name");
        link(&file, &path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let other = create(folder.path(), 0o600).unwrap();
        assert_eq!(link(&other, &path).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn blocks_are_reserved_and_no_name_is_taken_twice() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("name"), folder.path().join("other"));
        std::fs::write(&path, "whole").unwrap();
        reserve(&OpenOptions::new().write(true).open(&path).unwrap(), 1 << 20).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        std::fs::write(&other, "mine").unwrap();
        assert_eq!(rename_to_free_name(&path, &other).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&other).unwrap(), b"mine");
        rename_to_free_name(&path, &folder.path().join("free")).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_cannot_be_had_is_told_apart() {
        let unknown = create(Path::new("/proc/self/task"), 0o600).unwrap_err();
        assert!(is_unknown(&unknown), "{unknown}");
        let missing = create(Path::new("/nowhere/at/all"), 0o600).unwrap_err();
        assert!(!is_unknown(&missing), "{missing}");
        in_memory("intake").unwrap().write_all(b"x").unwrap();
    }

    #[test]
    fn a_fifo_without_a_writer_opens_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut reader = open_at_once(&path).unwrap();
        assert!(!crate::poll::wait_readable(reader.as_fd(), std::time::Duration::ZERO).unwrap());
        std::fs::write(&path, "said").unwrap();
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(said, "said");
    }
}
