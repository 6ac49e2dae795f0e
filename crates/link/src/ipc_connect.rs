//! Calls `IpcSender::connect` without its descriptor leak.
//!
//! The library does not close its socket when connect(2) fails. The leaked socket is the only SOCK_SEQPACKET socket
//! of this process that is neither connected nor listening, except while another thread is between its socket(2) and
//! its connect(2) or listen(2). So threads that make sockets, or search the sockets of this process, hold a lock
//! shared, and leaked sockets are closed while it is held exclusively. That lock is only tried, because a connect
//! that hangs on a hostile worker must not block other threads; a socket that cannot be closed now is closed after a
//! later connect. Used by both halves.

use std::io;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use bulkhead_sys::descriptors::close_orphans;
use ipc_channel::ipc::IpcSender;

use crate::wire::Wire;

static MAKING: RwLock<()> = RwLock::new(());
static FORGOTTEN: AtomicBool = AtomicBool::new(false);

/// Connects to the server at `path`, which must fit a socket address and hold no zero byte. Blocks while the server's
/// queue is full; the death of the server ends that.
///
/// # Errors
/// ECONNREFUSED, ENOENT: no process listens there. EMFILE, ENFILE: no descriptor is free.
pub(crate) fn ipc_connect(path: &str) -> io::Result<IpcSender<Wire>> {
    let connected = while_sharing(|| IpcSender::connect(path.to_owned()));
    if connected.is_err() {
        FORGOTTEN.store(true, Ordering::Relaxed);
    }
    if FORGOTTEN.load(Ordering::Relaxed) {
        close_forgotten();
    }
    connected
}

/// Runs `work`, which makes a socket through the library or searches the sockets of this process, while no leaked
/// socket is being closed.
pub(crate) fn while_sharing<T>(work: impl FnOnce() -> T) -> T {
    // No code panics while it holds the lock exclusively, so poisoning can be ignored.
    let _shared = MAKING.read();
    work()
}

fn close_forgotten() {
    let Ok(_alone) = MAKING.try_write() else { return };
    if close_orphans().is_ok() {
        FORGOTTEN.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_connects_leave_no_descriptor() {
        let folder = tempfile::tempdir().unwrap();
        let nobody = folder.path().join("nobody");
        for _ in 0..64 {
            assert!(ipc_connect(nobody.to_str().unwrap()).is_err());
        }
        // Another test may have been connecting at the last attempt.
        let _alone = MAKING.write();
        assert!(close_orphans().unwrap() < 32, "they were not closed as they came");
        assert_eq!(close_orphans().unwrap(), 0);
    }
}
