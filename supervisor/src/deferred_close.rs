//! A lane or a channel to a worker, closed where waiting does no harm.
//!
//! The worker may have left a descriptor in it whose last close waits for an hour. So it is hung up first and looked
//! through, and what is not empty then goes to the disposal. It never reads what has a descriptor attached. Owned by
//! `worker_process.rs`, wherever that lets go of it.

use std::ops::Deref;

use bulkhead_link::supervisor::Sender;
use bulkhead_sys::lane::Lane;

use crate::background_closer::{BackgroundCloser, CloseOwner};

/// What can be ended before it is closed.
pub(crate) trait HangUp: Send + 'static {
    /// Ends it in both directions. `true`: nothing is left in it that a close could wait for.
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

/// One of them.
pub(crate) struct DeferredClose<T: HangUp> {
    inner: Option<T>,
    closer: BackgroundCloser,
}

impl<T: HangUp> DeferredClose<T> {
    /// Takes it over: whatever happens from here on, it is closed as it should be.
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
