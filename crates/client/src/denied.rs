//! What is said when a file may not be read or written: by whom.
//!
//! The kernel's "Permission denied" leaves open who was denied, which is the first thing that one looks for: a command may
//! run under `sudo`, or as a service's own user. The path is for the caller to add. Used by `intake.rs` and `draft.rs`.

use std::io::{self, ErrorKind};

use bulkhead_sys::socket;

/// The same error; one that is a want of permission names the user who has none.
pub fn name_user(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::PermissionDenied if error.raw_os_error().is_some() => {
            io::Error::new(error.kind(), format!("permission denied for user {}", socket::own_uid()))
        }
        _ => error,
    }
}
