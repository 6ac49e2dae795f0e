//! Closes what clients gave to this worker and whose close(2) or drop can hang: one thread, only while there is something to close.
//!
//! The last close of a client's file can block for hours (a TCP connection with SO_LINGER), each close of a file on FUSE can, and what a
//! loader made of a context is code of others. The worker must not wait for either, and one thread for each would have no bound. A drop
//! that hangs delays only further drops of this worker. How many descriptors wait is in the box: the supervisor offers a worker
//! nothing more that has too many, and another takes its place (`crates/core/src/worker/recycle.rs`). Used by `registrations.rs` and
//! `early_files.rs`.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Is called with the number of descriptors that are to be closed, after each change.
type Tell = Box<dyn Fn(u64) + Send>;

/// The queue of the thread. It is empty and has no thread at first.
#[derive(Default)]
pub(crate) struct Closer(Arc<Mutex<ClosingQueue>>);

#[derive(Default)]
struct ClosingQueue {
    /// What is to be dropped, and how many descriptors it has.
    things: VecDeque<(Box<dyn Send>, u64)>,
    /// The thread runs.
    closing: bool,
    /// Descriptors in the queue, and those of the drop that goes on.
    unclosed: u64,
    tell: Option<Tell>,
}

impl Closer {
    /// A closer that passes the number of its descriptors on.
    pub(crate) fn telling(tell: impl Fn(u64) + Send + 'static) -> Self {
        let queue = ClosingQueue { tell: Some(Box::new(tell)), ..ClosingQueue::default() };
        Self(Arc::new(Mutex::new(queue)))
    }

    /// Drops `thing`, which has so many descriptors, in the thread. Never blocks. If no thread can be started, it waits for the next
    /// call.
    pub(crate) fn close(&self, thing: impl Send + 'static, descriptors: usize) {
        // What has none takes memory, and a place in the queue.
        let count = descriptors.max(1) as u64;
        let mut queue = lock(&self.0);
        queue.things.push_back((Box::new(thing), count));
        let unclosed = queue.unclosed + count;
        queue.count(unclosed);
        if !queue.closing {
            let shared = Arc::clone(&self.0);
            let started = thread::Builder::new().name("closer".to_owned()).spawn(move || close_all(&shared));
            queue.closing = started
                .inspect_err(|error| log::warn!("cannot start a thread that closes files error={error}"))
                .is_ok();
        }
    }
}

impl ClosingQueue {
    fn count(&mut self, unclosed: u64) {
        self.unclosed = unclosed;
        if let Some(tell) = &self.tell {
            tell(unclosed);
        }
    }
}

impl fmt::Debug for Closer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = lock(&self.0);
        out.debug_struct("Closer").field("unclosed", &queue.unclosed).finish_non_exhaustive()
    }
}

fn close_all(shared: &Mutex<ClosingQueue>) {
    let mut closed = 0;
    loop {
        let next = {
            let mut queue = lock(shared);
            if closed > 0 {
                let unclosed = queue.unclosed - closed;
                queue.count(unclosed);
            }
            let next = queue.things.pop_front();
            queue.closing = next.is_some();
            next
        };
        // Only this drop can hang, or panic in code of others: it has not the lock.
        let Some((thing, count)) = next else { return };
        let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(thing)));
        closed = count;
    }
}

/// No code panics while it holds this lock.
fn lock(queue: &Mutex<ClosingQueue>) -> MutexGuard<'_, ClosingQueue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

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
        let thread = dropped.recv_timeout(PATIENCE).unwrap();
        assert_ne!(thread, thread::current().id());
        closer.close(second, 1);
        assert!(dropped.try_recv().is_err(), "the first one hangs, and there is no second thread");
        assert_eq!(lock(&closer.0).things.len(), 1);
        drop(go_first);
        assert_eq!(dropped.recv_timeout(PATIENCE), Ok(thread));
        drop(go_second);
        for _ in 0..50 {
            closer.close(slow().0, 1);
            assert!(dropped.recv_timeout(PATIENCE).is_ok());
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
        assert!(dropped.recv_timeout(PATIENCE).is_ok());
    }

    #[test]
    fn descriptors_count_until_their_drop_has_ended() {
        let (counts, counted) = channel();
        let closer = Closer::telling(move |unclosed| counts.send(unclosed).unwrap());
        let (told, dropped) = channel();
        let (go, waits) = channel();
        closer.close(HangingDrop(told, waits), 3);
        dropped.recv_timeout(PATIENCE).unwrap();
        closer.close((), 4);
        closer.close((), 0);
        assert_eq!(counted.try_iter().collect::<Vec<_>>(), [3, 7, 8], "the drop that hangs counts too");
        drop(go);
        let later: Vec<_> = (0..3).map(|_| counted.recv_timeout(PATIENCE).unwrap()).collect();
        assert_eq!(later, [5, 1, 0]);
    }
}
