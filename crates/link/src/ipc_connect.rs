//! `IpcSender::connect`, and the descriptor that it forgets.
//!
//! The library does not close its socket when connect(2) fails. Such a socket can be told from every other
//! one: it is the only kind of this process that is neither connected nor listening - unless another thread
//! stands between its own socket(2) and its connect(2) or listen(2). Whoever makes one therefore shares a
//! lock, as does whoever looks at the sockets of this process, and the forgotten are closed by whoever gets it
//! alone. Nobody waits for that: a connect that hangs on a hostile worker would hold up all the others. What
//! cannot be closed now is closed after a later connect.

use std::io;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};

use bulkhead_sys::descriptors::close_orphans;
use ipc_channel::ipc::IpcSender;

use crate::wire::Wire;

static MAKING: RwLock<()> = RwLock::new(());
static FORGOTTEN: AtomicBool = AtomicBool::new(false);

/// Connects to the server at `path`, which must fit a socket address and hold no zero byte. May block while
/// the server's queue is full; the death of the server ends that.
///
/// # Errors
/// ECONNREFUSED, ENOENT: nobody listens there. EMFILE, ENFILE: no descriptor is to be had.
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

/// Runs `work`, which makes a socket of the library or looks at those there are, while nobody closes forgotten
/// ones.
pub(crate) fn while_sharing<T>(work: impl FnOnce() -> T) -> T {
    // Nobody panics with it held alone, so poison says nothing.
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
        // Another test may have been connecting at the last try.
        let _alone = MAKING.write();
        assert!(close_orphans().unwrap() < 32, "they were not closed as they came");
        assert_eq!(close_orphans().unwrap(), 0);
    }
}
