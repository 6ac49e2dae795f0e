//! The lane or the channel to a worker, closed without blocking the loop.
//!
//! A worker can leave a descriptor in the socket's queue whose last close blocks for an hour. So the drop first shuts
//! the socket down and reads what is queued; if descriptors are left, the background closer closes the socket. It
//! never receives a message with descriptors. Owned by `worker_process.rs`.

use std::ops::Deref;

use bulkhead_link::supervisor::Sender;
use bulkhead_sys::lane::Lane;

use crate::background_closer::{BackgroundCloser, CloseOwner};

/// A connection that can be shut down before it is closed.
pub(crate) trait HangUp: Send + 'static {
    /// Shuts it down in both directions. Returns `true` if its queue is empty, so that a close cannot block.
    fn hang_up(&self) -> bool;
}

impl HangUp for Lane {
    fn hang_up(&self) -> bool {
        Self::hang_up(self)
    }
}

impl HangUp for Sender {
    fn hang_up(&self) -> bool {
        Self::hang_up(self)
    }
}

/// A connection that is shut down and closed when it is dropped.
pub(crate) struct DeferredClose<T: HangUp> {
    inner: Option<T>,
    closer: BackgroundCloser,
}

impl<T: HangUp> DeferredClose<T> {
    /// Takes ownership of the connection.
    pub(crate) fn new(inner: T, closer: BackgroundCloser) -> Self {
        Self { inner: Some(inner), closer }
    }
}

impl<T: HangUp> Deref for DeferredClose<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inner.as_ref().expect("only dropping it takes it out")
    }
}

impl<T: HangUp> Drop for DeferredClose<T> {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take()
            && !inner.hang_up()
        {
            self.closer.close(CloseOwner::Workers, inner);
        }
    }
}
