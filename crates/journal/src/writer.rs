//! The thread that writes: it takes facts from the queue, stores what is there in one transaction, and answers.
//!
//! Nothing is answered as stored before it is durable. After a commit that failed, nothing counts as synced because a later sync
//! succeeds: the connection is closed and opened again, submits that cannot be in the database are refused, and all else is written
//! anew. Driven by the daemon
//! through [`JournalWriter`]; answers leave through the door that the daemon gave.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use bulkhead_facts::fact::{Fact, FactNo};

use crate::answer::JournalAnswer;
use crate::answer_door::AnswerDoor;
use crate::fact_queue::{FactQueue, NotQueued};
use crate::numbers::{NextNumbers, NumberKind};
use crate::opening::OpenJournal;
use crate::writer_thread::WriterThread;

/// The daemon's end of the writer. Dropping it leaves the thread alone, which then waits for ever.
pub struct JournalWriter {
    queue: Arc<FactQueue>,
    thread: JoinHandle<()>,
}

impl fmt::Debug for JournalWriter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("JournalWriter")
            .field("unanswered", &self.queue.unanswered())
            .finish_non_exhaustive()
    }
}

impl JournalWriter {
    /// Starts the thread. It calls `door` with each answer, the last time with [`JournalAnswer::Closed`] also if the thread panics; the call must not block, because no commit begins before it returns.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(journal: OpenJournal, door: impl FnMut(JournalAnswer) + Send + 'static) -> io::Result<Self> {
        let OpenJournal { settings, .. } = &journal;
        let queue = Arc::new(FactQueue::new(settings.queue_facts_max, settings.queue_bytes_max));
        let taken = Arc::clone(&queue);
        let thread = Builder::new().name("journal".to_owned()).spawn(move || {
            let (writer, connection) = WriterThread::new(journal, taken, AnswerDoor::new(door));
            writer.run(connection);
        })?;
        Ok(Self { queue, thread })
    }

    /// Hands over a fact. Never waits.
    ///
    /// # Errors
    /// [`NotQueued`]: what waits for the disk has met its bound, or [`Self::close`] was called. The number is free for the next fact.
    ///
    /// # Panics
    /// If the number does not follow that of the fact before.
    pub fn push(&self, number: FactNo, fact: Fact) -> Result<(), NotQueued> {
        self.queue.push(number, fact)
    }

    /// Asks for numbers below this one; the answer is [`JournalAnswer::Reserved`]. Never waits.
    pub fn reserve(&self, kind: NumberKind, next: u64) {
        self.queue.reserve(kind, next);
    }

    /// Asks for the end of the run after all that waits; the last answer is [`JournalAnswer::Closed`]. `unused` has the first
    /// number of each kind that was not given out: the next run begins there, but not below the first number of this run, nor above
    /// what is reserved. Facts are refused from now on. Never waits.
    pub fn close(&self, unused: NextNumbers) {
        self.queue.close(unused);
    }

    /// How many facts have no answer yet, and about how many bytes they take.
    pub fn unanswered(&self) -> (usize, usize) {
        self.queue.unanswered()
    }

    /// Waits for the end of the thread, after [`Self::close`].
    ///
    /// # Panics
    /// If the thread has panicked.
    pub fn join(self) {
        self.thread.join().expect("the writer of the journal has panicked");
    }
}
