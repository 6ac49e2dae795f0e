//! Closes what clients gave to this worker and whose close(2) or drop can hang: one thread, only while there is something to close.
//!
//! The last close of a client's file can block for hours (a TCP connection with SO_LINGER, a file on FUSE), and what a loader made
//! of a context is code of others. The worker must not wait for either, and one thread for each would have no bound. A drop that
//! hangs delays only further drops of this worker. What waits keeps its descriptors: a worker in which more than [`WAITING_MAX`] of
//! them wait for longer than [`PATIENCE`] exits between two tasks (`runtime.rs`), which closes them all, and another one takes its
//! place. Used by `registrations.rs` and `early_files.rs`.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Most descriptors that may wait for long. Registrations that a worker keeps have up to 512 more.
const WAITING_MAX: usize = 128;
/// How long more may wait: drops that do not hang take less.
const PATIENCE: Duration = Duration::from_secs(1);

/// The queue of the thread. It is empty and has no thread at first.
#[derive(Default)]
pub(crate) struct Closer(Arc<ClosingShared>);

#[derive(Default)]
struct ClosingShared {
    queue: Mutex<ClosingQueue>,
    /// Descriptors in the queue, and things without one.
    waiting: AtomicUsize,
    /// Notified when something was taken from the queue.
    taken: Condvar,
}

#[derive(Default)]
struct ClosingQueue {
    /// What is to be dropped, and how many descriptors it has.
    things: VecDeque<(Box<dyn Send>, usize)>,
    /// The thread runs.
    closing: bool,
}

impl Closer {
    /// Drops `thing`, which has so many descriptors, in the thread. Never blocks. If no thread can be started, it waits for the next
    /// call.
    pub(crate) fn close(&self, thing: impl Send + 'static, descriptors: usize) {
        // What has none takes memory.
        let count = descriptors.max(1);
        let mut queue = self.0.lock();
        queue.things.push_back((Box::new(thing), count));
        self.0.waiting.fetch_add(count, Ordering::Relaxed);
        if !queue.closing {
            let shared = Arc::clone(&self.0);
            let started = thread::Builder::new().name("closer".to_owned()).spawn(move || shared.close_all());
            queue.closing = started
                .inspect_err(|error| log::warn!("cannot start a thread that closes files error={error}"))
                .is_ok();
        }
    }

    /// Whether too many descriptors wait behind a drop that hangs. It waits for [`PATIENCE`] to find out, only if many wait.
    pub(crate) fn is_stuck(&self) -> bool {
        self.0.is_too_long() && self.0.stays_too_long(PATIENCE)
    }
}

impl ClosingShared {
    fn is_too_long(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > WAITING_MAX
    }

    fn stays_too_long(&self, patience: Duration) -> bool {
        let waits = self.taken.wait_timeout_while(self.lock(), patience, |_| self.is_too_long());
        waits.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn close_all(&self) {
        loop {
            let next = {
                let mut queue = self.lock();
                let next = queue.things.pop_front();
                queue.closing = next.is_some();
                self.waiting.fetch_sub(next.as_ref().map_or(0, |(_, count)| *count), Ordering::Relaxed);
                next
            };
            self.taken.notify_all();
            // Only this drop can hang, or panic in code of others: it has not the lock.
            let Some((closed, _)) = next else { return };
            let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(closed)));
        }
    }

    /// No code panics while it holds this lock.
    fn lock(&self) -> MutexGuard<'_, ClosingQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Closer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.0.waiting.load(Ordering::Relaxed);
        out.debug_struct("Closer").field("waiting", &waiting).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Against a thread that hangs; no test comes near it.
    const DEADLINE: Duration = Duration::from_secs(60);

    /// Its drop sends the thread that runs it, then waits until it is released.
    struct HangingDrop(Sender<thread::ThreadId>, Receiver<()>);

    impl Drop for HangingDrop {
        fn drop(&mut self) {
            self.0.send(thread::current().id()).unwrap();
            let _gone = self.1.recv();
        }
    }

    #[test]
    fn one_thread_drops_all_in_turn_and_a_new_one_what_comes_later() {
        let closer = Closer::default();
        let (told, dropped) = channel();
        let slow = || {
            let (go, waits) = channel();
            (HangingDrop(told.clone(), waits), go)
        };
        let ((first, go_first), (second, go_second)) = (slow(), slow());
        closer.close(first, 1);
        let thread = dropped.recv_timeout(DEADLINE).unwrap();
        assert_ne!(thread, thread::current().id());
        closer.close(second, 1);
        assert!(dropped.try_recv().is_err(), "the first one hangs, and there is no second thread");
        assert_eq!(closer.0.lock().things.len(), 1);
        drop(go_first);
        assert_eq!(dropped.recv_timeout(DEADLINE), Ok(thread));
        drop(go_second);
        for _ in 0..50 {
            closer.close(slow().0, 1);
            assert!(dropped.recv_timeout(DEADLINE).is_ok());
        }
    }

    #[test]
    fn a_drop_that_panics_ends_neither_the_thread_nor_the_queue() {
        struct Panics;
        impl Drop for Panics {
            fn drop(&mut self) {
                panic!("a loader's own code");
            }
        }
        let closer = Closer::default();
        let (told, dropped) = channel();
        let (go, waits) = channel();
        closer.close(Panics, 1);
        closer.close(HangingDrop(told, waits), 1);
        drop(go);
        assert!(dropped.recv_timeout(DEADLINE).is_ok());
    }

    #[test]
    fn many_descriptors_behind_a_drop_that_hangs_are_too_many_and_many_that_go_are_not() {
        let closer = Closer::default();
        let (told, dropped) = channel();
        let (go, waits) = channel();
        closer.close(HangingDrop(told, waits), 1);
        dropped.recv_timeout(DEADLINE).unwrap();
        closer.close((), WAITING_MAX);
        assert!(!closer.is_stuck(), "as many as may wait");
        closer.close((), 1);
        assert!(closer.is_stuck());
        let shared = Arc::clone(&closer.0);
        // It waits until the drop goes on, and that is soon enough.
        let waits = thread::spawn(move || shared.stays_too_long(DEADLINE));
        drop(go);
        assert!(!waits.join().unwrap());
        assert!(!closer.is_stuck() && closer.0.waiting.load(Ordering::Relaxed) == 0);
    }
}
