//! Where things go whose close may wait: to a thread of the one who made them so.
//!
//! A socket, a lane or a file of a client may keep whoever closes it for an hour. So the loop closes none that it cannot
//! vouch for, nor what is large. Each user, the workers that are gone, and the large outputs have a thread of their own for
//! as long as there is something to close: whoever makes it wait makes only itself wait, and that not for long where a signal can end it, which a timer
//! sends. What is here is still counted wherever it was counted before (its seat, its budget; of workers, before the next
//! is spawned), which bounds the queues. Used by `client_socket.rs`, `client_files.rs`, `output_store.rs` and `deferred_close.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use bulkhead_sys::interrupt_timer::InterruptTimer;

/// On whose account something is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CloseOwner {
    /// A user's, who sent it or is at the other end.
    User(u32),
    /// Those workers' that are gone: what they leave is all of one owner, the daemon's administrator.
    Workers,
    /// Nobody's but ours: outputs whose memory takes long to give back.
    Outputs,
}

/// Something to be dropped.
type PendingClose = Box<dyn Send>;

/// What is still to be closed, by whose it is. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct BackgroundCloser(Arc<Mutex<PendingCloses>>);

#[derive(Default)]
struct PendingCloses {
    queues: BTreeMap<CloseOwner, CloseQueue>,
    /// No thread could be had for some of them.
    needs_retry: bool,
}

#[derive(Default)]
struct CloseQueue {
    waiting: VecDeque<PendingClose>,
    /// A thread is at it.
    closing: bool,
}

impl BackgroundCloser {
    /// Has something dropped. Never waits.
    pub(crate) fn close(&self, whose: CloseOwner, thing: impl Send + 'static) {
        let mut pending = lock(&self.0);
        let queue = pending.queues.entry(whose).or_default();
        queue.waiting.push_back(Box::new(thing));
        if !queue.closing {
            self.start(whose, &mut pending);
        }
    }

    /// How much is still to be closed of somebody's, what is being closed just now left out.
    pub(crate) fn waiting(&self, whose: CloseOwner) -> usize {
        lock(&self.0).queues.get(&whose).map_or(0, |queue| queue.waiting.len())
    }

    /// Whether something waits for a thread that could not be had. Nobody tells when one can: see [`Self::retry`].
    pub(crate) fn needs_retry(&self) -> bool {
        lock(&self.0).needs_retry
    }

    /// Tries again to get the threads that could not be had.
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
            log::error!("cannot close for now what somebody left: no thread error={error}");
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

/// Drops one after the other. None takes long, as far as the kernel lets itself be interrupted.
fn close_all(pending: &Mutex<PendingCloses>, whose: CloseOwner) {
    let timer = InterruptTimer::start();
    if let Err(error) = &timer {
        log::warn!("what lingers may take long to close: no timer error={error}");
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
        // Here it waits, and nobody else's things with it.
        let Some(closed) = next else { return };
        drop(closed);
    }
}

/// Nobody panics with it held.
fn lock(pending: &Mutex<PendingCloses>) -> MutexGuard<'_, PendingCloses> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Its drop tells its number, then waits until it is let go.
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
        // What comes after the threads have left is closed as well.
        for number in 4..50 {
            closer.close(CloseOwner::User(1), slow(number).0);
            assert_eq!(dropped.recv_timeout(PATIENCE), Ok(number));
        }
    }
}
