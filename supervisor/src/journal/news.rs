//! What the journal's threads tell the loop: a queue that wakes the loop's poll.
//!
//! The threads put in and never wait for the loop; the loop takes all that is there, and pays one look at a flag when there is
//! nothing. Filled by the writer's door (`journal.rs`) and by `reader_thread.rs`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_journal::answer::JournalAnswer;
use mio::Waker;

use crate::journal::reader_thread::ReaderAnswer;

/// One thing that a thread tells.
#[derive(Debug)]
pub(crate) enum JournalNews {
    /// The thread that writes.
    Writer(JournalAnswer),
    /// The thread that reads.
    Reader(ReaderAnswer),
}

/// The queue.
#[derive(Debug)]
pub(crate) struct NewsQueue {
    waiting: Mutex<VecDeque<JournalNews>>,
    /// Set while something waits.
    is_filled: AtomicBool,
    waker: Arc<Waker>,
}

impl NewsQueue {
    pub(crate) fn new(waker: Arc<Waker>) -> Self {
        Self { waiting: Mutex::default(), is_filled: AtomicBool::new(false), waker }
    }

    /// Adds news. Never waits for the loop.
    pub(crate) fn put(&self, news: JournalNews) {
        let was_filled = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.push_back(news);
            self.is_filled.swap(true, Ordering::AcqRel)
        };
        // While the flag is set, the loop was woken and has not taken what is there.
        if !was_filled && let Err(error) = self.waker.wake() {
            log::error!("the journal cannot wake the loop error={error}");
        }
    }

    /// Takes all that waits, in its order.
    pub(crate) fn take(&self) -> VecDeque<JournalNews> {
        if !self.is_filled.load(Ordering::Acquire) {
            return VecDeque::new();
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_filled.store(false, Ordering::Release);
        std::mem::take(&mut waiting)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;
    use crate::poll_source::PollSource;

    #[test]
    fn news_wakes_the_poll_and_is_taken_in_its_order() {
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), PollSource::Threads.token()).unwrap());
        let queue = Arc::new(NewsQueue::new(waker));
        assert!(queue.take().is_empty());
        let other = Arc::clone(&queue);
        let thread = std::thread::spawn(move || {
            other.put(JournalNews::Writer(JournalAnswer::ClockJumped));
            other.put(JournalNews::Writer(JournalAnswer::Recovered));
        });
        let mut events = Events::with_capacity(4);
        poll.poll(&mut events, Some(Duration::from_secs(60))).unwrap();
        assert_eq!(events.iter().count(), 1);
        thread.join().unwrap();
        let told: Vec<String> = queue.take().iter().map(|news| format!("{news:?}")).collect();
        assert_eq!(told, ["Writer(ClockJumped)", "Writer(Recovered)"]);
        // The flag is down again: what comes next wakes the poll anew.
        queue.put(JournalNews::Writer(JournalAnswer::ClockJumped));
        poll.poll(&mut events, Some(Duration::from_secs(60))).unwrap();
        assert_eq!((events.iter().count(), queue.take().len()), (1, 1));
    }
}
