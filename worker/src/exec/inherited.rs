//! Settings of this process that change for a time: its umask while a program runs, which inherits it, and the longest
//! file that it may write while it copies files.
//!
//! Both are set back when the guard is dropped. They hold for the whole process, which has one thread. Driven by
//! `exec.rs` and `placed_files.rs`.

use std::io;

use bulkhead_sys::process;

/// The umask of a client, until it is dropped.
#[derive(Debug)]
pub(super) struct ClientUmask(Option<u32>);

impl ClientUmask {
    /// Sets it, if the client told it.
    pub(super) fn set(umask: Option<u32>) -> Self {
        Self(umask.map(process::set_umask))
    }
}

impl Drop for ClientUmask {
    fn drop(&mut self) {
        self.0.map(process::set_umask);
    }
}

/// The limit of file size is lifted until this is dropped.
#[derive(Debug)]
pub(super) struct FileSizeLimit(u64);

impl FileSizeLimit {
    /// Raises it to the highest that this process may have.
    pub(super) fn lift() -> io::Result<Self> {
        let before = process::file_size_limit()?;
        process::limit_file_size(None)?;
        Ok(Self(before))
    }

    /// The limit that holds now.
    pub(super) fn now() -> u64 {
        process::file_size_limit().unwrap_or(u64::MAX)
    }
}

impl Drop for FileSizeLimit {
    fn drop(&mut self) {
        // Setting back a soft limit within the hard one does not fail.
        drop(process::limit_file_size(Some(self.0)));
    }
}
