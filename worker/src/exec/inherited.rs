//! A setting of this process that changes for a time: its umask while a program runs, which inherits it.
//!
//! It is set back when the guard is dropped. It holds for the whole process, which has one thread. Driven by `exec.rs`.

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
