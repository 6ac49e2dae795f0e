//! How a descriptor was opened.
//!
//! Reads the flags of the open file (F_GETFL), never the file itself, so it cannot block. Used by the worker's
//! `task_files/checked_file.rs`.

use std::io;
use std::os::fd::BorrowedFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

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
    fn a_file_that_is_open_for_appending_is_known() {
        let null = |append| File::options().write(true).append(append).open("/dev/null").unwrap();
        assert!(is_appending(null(true).as_fd()).unwrap());
        assert!(!is_appending(null(false).as_fd()).unwrap());
    }
}
