//! Adds the user to an error of kind `PermissionDenied`.
//!
//! The kernel's "Permission denied" does not say whose permission was missing, which is the first question: a command
//! may run under `sudo`, or as the user of a service. The caller adds the path. Used by `input_file.rs` and
//! `atomic_file.rs`, and by the command line.

use std::io::{self, ErrorKind};

use bulkhead_sys::socket;

/// Returns `error` unchanged, or, if the kernel denied permission, with the number of this process's user in its text.
pub fn name_user(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::PermissionDenied if error.raw_os_error().is_some() => {
            io::Error::new(error.kind(), format!("permission denied for user {}", socket::own_uid()))
        }
        _ => error,
    }
}
