//! Closes descriptors whose close(2) can block, in threads of their own.
//!
//! The last close of a client's file, or of a socket with such a file in its queue, can block for hours (a TCP
//! connection with SO_LINGER, a file on FUSE or a dead NFS server); to free 1 GiB of memory takes the kernel 65 ms.
//! The loop must not wait for either, so it hands such descriptors to this file. There is one thread for each user,
//! one for all dead workers and one for large outputs, each only while it has something to close. A blocking close
//! delays only further closes of the same owner, and an interval timer interrupts it where a signal can end it
//! (`sys/interrupt_timer.rs`).
//!
//! A descriptor counts for its user, or against its budget, until it is closed, and new workers wait while too many lanes do
//! (`spawn.rs`); this bounds the queues. Used by `client_socket.rs`, `client_files.rs`, `output_store.rs`,
//! `deferred_close.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use bulkhead_sys::interrupt_timer::InterruptTimer;

/// Whose thread closes a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CloseOwner {
    /// A user who passed the descriptor, or whose process is the other end of the connection.
    User(u32),
    /// Dead workers: all that they leave belongs to one owner, the daemon's administrator.
    Workers,
    /// The daemon's own large outputs.
    Outputs,
}

/// A value whose drop closes a descriptor.
type PendingClose = Box<dyn Send>;

/// The queues of all threads. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct BackgroundCloser(Arc<Mutex<PendingCloses>>);

#[derive(Default)]
struct PendingCloses {
    queues: BTreeMap<CloseOwner, CloseQueue>,
    /// A thread could not be started for at least one queue.
    needs_retry: bool,
}

#[derive(Default)]
struct CloseQueue {
    waiting: VecDeque<PendingClose>,
    /// A thread is closing what stands in this queue.
    closing: bool,
}

impl BackgroundCloser {
    /// Drops `thing` in the thread of its owner. Never blocks.
    pub(crate) fn close(&self, whose: CloseOwner, thing: impl Send + 'static) {
        let mut pending = lock(&self.0);
        let queue = pending.queues.entry(whose).or_default();
        queue.waiting.push_back(Box::new(thing));
        if !queue.closing {
            self.start(whose, &mut pending);
        }
    }

    /// How many values of this owner wait, not counting the one that is being closed now.
    pub(crate) fn waiting(&self, whose: CloseOwner) -> usize {
        lock(&self.0).queues.get(&whose).map_or(0, |queue| queue.waiting.len())
    }

    /// Whether a queue has no thread because none could be started. No event reports when one can be: call
    /// [`Self::retry`].
    pub(crate) fn needs_retry(&self) -> bool {
        lock(&self.0).needs_retry
    }

    /// Tries again to start the missing threads.
    pub(crate) fn retry(&self) {
        let mut pending = lock(&self.0);
        pending.needs_retry = false;
        let idle = pending.queues.iter().filter(|(_, queue)| !queue.closing);
        for whose in idle.map(|(whose, _)| *whose).collect::<Vec<_>>() {
            self.start(whose, &mut pending);
        }
    }

    fn start(&self, whose: CloseOwner, pending: &mut PendingCloses) {
        let shared = Arc::clone(&self.0);
        let started =
            thread::Builder::new().name("closer".to_owned()).spawn(move || close_all(&shared, whose));
        if let Err(error) = &started
            && !pending.needs_retry
        {
            log::error!("cannot start a thread that closes descriptors, will retry error={error}");
            pending.needs_retry = true;
        }
        if let Some(queue) = pending.queues.get_mut(&whose) {
            queue.closing = started.is_ok();
        }
    }
}

impl fmt::Debug for BackgroundCloser {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pending = lock(&self.0);
        out.debug_map()
            .entries(pending.queues.iter().map(|(whose, queue)| (whose, queue.waiting.len())))
            .finish()
    }
}

/// Drops the values of one owner one by one. The timer interrupts each close that a signal can interrupt.
fn close_all(pending: &Mutex<PendingCloses>, whose: CloseOwner) {
    let timer = InterruptTimer::start();
    if let Err(error) = &timer {
        log::warn!("cannot create a timer, a blocking close may take long error={error}");
    }
    loop {
        let next = {
            let mut pending = lock(pending);
            let next = pending.queues.get_mut(&whose).and_then(|queue| queue.waiting.pop_front());
            if next.is_none() {
                pending.queues.remove(&whose);
            }
            next
        };
        // Only this drop can block, without the lock.
        let Some(closed) = next else { return };
        drop(closed);
    }
}

/// No code panics while it holds this lock.
fn lock(pending: &Mutex<PendingCloses>) -> MutexGuard<'_, PendingCloses> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Its drop sends its number, then waits until it is released.
    struct Slow(u32, Sender<u32>, Receiver<()>);

    impl Drop for Slow {
        fn drop(&mut self) {
            self.1.send(self.0).unwrap();
            let _gone = self.2.recv();
        }
    }

    #[test]
    fn who_makes_a_close_wait_waits_alone() {
        let closer = BackgroundCloser::default();
        let (told, dropped) = channel();
        let slow = |number| {
            let (go, waits) = channel();
            (Slow(number, told.clone(), waits), go)
        };
        let ((first, go_first), (second, go_second), (other, go_other)) = (slow(1), slow(2), slow(3));
        closer.close(CloseOwner::User(1), first);
        assert_eq!(dropped.recv_timeout(PATIENCE), Ok(1));
        closer.close(CloseOwner::User(1), second);
        closer.close(CloseOwner::User(2), other);
        assert_eq!(dropped.recv_timeout(PATIENCE), Ok(3), "it waits behind another user's");
        drop(go_first);
        assert_eq!(dropped.recv_timeout(PATIENCE), Ok(2));
        drop((go_second, go_other));
        // Values that arrive after a thread has ended are closed as well.
        for number in 4..50 {
            closer.close(CloseOwner::User(1), slow(number).0);
            assert_eq!(dropped.recv_timeout(PATIENCE), Ok(number));
        }
    }
}
