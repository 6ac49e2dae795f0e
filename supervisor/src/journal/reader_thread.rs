//! The thread `journal-reader`: it reads the journal for the loop, on a connection of its own, so that no query holds up a commit.
//!
//! It loads unfinished jobs of earlier runs chunk by chunk, each when the loop asks for it. A chunk that cannot be read is tried again
//! every second, and the reason is logged once. The thread writes nothing and decides nothing; it ends when the loop drops its end of
//! the channel. Started by `journal.rs`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use bulkhead_journal::loading::Loading;
use bulkhead_journal::reader::JournalReader;
use bulkhead_journal::reloading::ChunkToRun;
use bulkhead_proto::ids::JobId;

use crate::journal::news::{JournalNews, NewsQueue};

/// How long it waits after a chunk that could not be read.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the loop asks for.
#[derive(Debug)]
pub(crate) enum ReaderRequest {
    /// The next chunk of unfinished jobs: [`ReaderAnswer::Loaded`] follows, once it can be read.
    LoadMore,
}

/// What the thread answers.
#[derive(Debug)]
pub(crate) enum ReaderAnswer {
    /// A chunk of unfinished jobs.
    Loaded(ChunkToRun),
}

/// Starts the thread. `end`: job numbers of this run begin here.
///
/// # Errors
/// No thread can be started.
pub(crate) fn start(folder: PathBuf, end: JobId, news: Arc<NewsQueue>) -> io::Result<Sender<ReaderRequest>> {
    let (ask, requests) = channel();
    let thread =
        ReaderThread { folder, end, news, reader: None, loading: None, load_due: None, logged: None };
    Builder::new().name("journal-reader".to_owned()).spawn(move || thread.run(&requests))?;
    Ok(ask)
}

struct ReaderThread {
    folder: PathBuf,
    end: JobId,
    news: Arc<NewsQueue>,
    /// The connection, once it could be opened.
    reader: Option<JournalReader>,
    /// How far the loading has come, once it has begun.
    loading: Option<Loading>,
    /// When to read the chunk that the loop has asked for.
    load_due: Option<Instant>,
    /// Why a chunk cannot be read, as it was logged.
    logged: Option<String>,
}

impl ReaderThread {
    fn run(mut self, requests: &Receiver<ReaderRequest>) {
        loop {
            match self.next(requests) {
                Ok(ReaderRequest::LoadMore) => self.load_due = Some(Instant::now()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.load_due.is_some_and(|due| due <= Instant::now()) {
                self.load_more();
            }
        }
    }

    /// The next request, or the end of the wait for a chunk that is due.
    fn next(&self, requests: &Receiver<ReaderRequest>) -> Result<ReaderRequest, RecvTimeoutError> {
        match self.load_due {
            None => requests.recv().map_err(RecvTimeoutError::from),
            Some(due) => requests.recv_timeout(due.saturating_duration_since(Instant::now())),
        }
    }

    fn load_more(&mut self) {
        match self.load() {
            Ok(chunk) => {
                self.load_due = None;
                if self.logged.take().is_some() {
                    log::info!("unfinished jobs can be read again");
                }
                for (job, why) in &chunk.damaged {
                    log::error!(
                        "a job of an earlier run cannot run, it stays in the journal job={job} error={why:?}"
                    );
                }
                self.news.put(JournalNews::Reader(ReaderAnswer::Loaded(chunk)));
            }
            Err(why) => {
                self.load_due = Some(Instant::now() + RETRY_AFTER);
                if self.logged.as_ref() != Some(&why) {
                    log::error!("unfinished jobs cannot be read, will retry every second error={why:?}");
                    self.logged = Some(why);
                }
            }
        }
    }

    fn load(&mut self) -> Result<ChunkToRun, String> {
        let in_words = |error: &dyn std::fmt::Display| error.to_string();
        let reader = match &self.reader {
            Some(reader) => reader,
            None => self.reader.insert(JournalReader::open(&self.folder).map_err(|error| in_words(&error))?),
        };
        let loading = match &mut self.loading {
            Some(loading) => loading,
            None => self.loading.insert(reader.loading(self.end).map_err(|error| in_words(&error))?),
        };
        reader.load_to_run(loading).map_err(|error| in_words(&error))
    }
}
