//! How a descriptor was opened, and opens that follow no symbolic link.
//!
//! Reads the flags of the open file (F_GETFL), never the file itself, so that cannot block. Used by the worker's
//! `task_files/checked_file.rs` and by `client` for its outputs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;

/// Opens a folder for reading (O_DIRECTORY), and no symbolic link.
///
/// # Errors
/// ENOTDIR: it is no folder, or a link. ENOENT, EACCES, EMFILE.
pub fn open_folder(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path)
}

/// Opens a file that is there for writing, and no symbolic link. It is neither created nor emptied.
///
/// # Errors
/// ELOOP: it is a link. ENOENT, EACCES, EPERM, EROFS, ETXTBSY, EMFILE.
pub fn open_to_write(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// Opens a regular file for reading, and no symbolic link. A FIFO or device is not waited for, and not kept open.
///
/// # Errors
/// ELOOP: it is a symbolic link. `InvalidInput`: it is no regular file. ENOENT, EACCES, EMFILE.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    Ok(file)
}

/// Whether it was opened with O_APPEND, so that each write goes to the end of the file.
///
/// # Errors
/// None for an open descriptor.
pub fn is_appending(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?).contains(OFlag::O_APPEND))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_link_is_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&path, "whole").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        open_to_write(&path).unwrap();
        open_to_write(&link).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }

    #[test]
    fn a_file_that_is_open_for_appending_is_known() {
        let null = |append| File::options().write(true).append(append).open("/dev/null").unwrap();
        assert!(is_appending(null(true).as_fd()).unwrap());
        assert!(!is_appending(null(false).as_fd()).unwrap());
    }
}
