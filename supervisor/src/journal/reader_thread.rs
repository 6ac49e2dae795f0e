//! The thread `journal-reader`: it reads the journal for the loop, on a connection of its own, so that no query holds up a commit.
//!
//! It loads unfinished jobs of earlier runs chunk by chunk, each when the loop asks for it. A chunk that cannot be read is tried again
//! every second, and the reason is logged once. Questions about jobs (`look_ups.rs`) are answered between two chunks, and one that cannot
//! be answered is answered with the reason. The thread writes nothing and decides nothing; it ends when the loop drops its end of
//! the channel, and tells the loop if it panics. Started by `journal.rs`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use bulkhead_core::action::LookUpNo;
use bulkhead_core::event::LookUpAnswer;
use bulkhead_journal::loading::Loading;
use bulkhead_journal::reader::JournalReader;
use bulkhead_journal::reloading::ChunkToRun;
use bulkhead_proto::ids::{ClientId, JobId};

use crate::journal::look_ups::{self, LookUpQuestion, LookUpTurns};
use crate::journal::news::{JournalNews, NewsQueue};

/// How long it waits after a chunk that could not be read.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the loop asks for.
#[derive(Debug)]
pub(crate) enum ReaderRequest {
    /// The next chunk of unfinished jobs: [`ReaderAnswer::Loaded`] follows, once it can be read.
    LoadMore,
    /// What there is of some jobs: [`ReaderAnswer::LookedUp`] follows.
    LookUp(LookUpQuestion),
}

/// What the thread answers.
#[derive(Debug)]
pub(crate) enum ReaderAnswer {
    /// A chunk of unfinished jobs.
    Loaded(ChunkToRun),
    /// What there is of the jobs of a question.
    LookedUp {
        /// Which question.
        number: LookUpNo,
        /// For whom.
        client: ClientId,
        /// What there is of each job, or why nothing could be read.
        found: Result<Vec<LookUpAnswer>, String>,
    },
    /// The thread has panicked, the last answer: it takes nothing more from the channel.
    Panicked,
}

/// Starts the thread. `end`: job numbers of this run begin here.
///
/// # Errors
/// No thread can be started.
pub(crate) fn start(folder: PathBuf, end: JobId, news: Arc<NewsQueue>) -> io::Result<Sender<ReaderRequest>> {
    let thread = ReaderThread {
        folder,
        end,
        news: Arc::clone(&news),
        reader: None,
        loading: None,
        load_due: None,
        logged: None,
        questions: LookUpTurns::default(),
    };
    spawn(news, |requests| thread.run(requests))
}

/// Starts a thread that takes requests, and tells the loop if it panics.
pub(super) fn spawn(
    news: Arc<NewsQueue>,
    take: impl FnOnce(&Receiver<ReaderRequest>) + Send + 'static,
) -> io::Result<Sender<ReaderRequest>> {
    let (ask, requests) = channel();
    Builder::new().name("journal-reader".to_owned()).spawn(move || {
        let _guard = PanicGuard(news);
        // Dropped before the guard: once the loop hears of the panic, every later request fails at once.
        let requests = requests;
        take(&requests);
    })?;
    Ok(ask)
}

/// Tells the loop that the thread has panicked.
struct PanicGuard(Arc<NewsQueue>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.put(JournalNews::Reader(ReaderAnswer::Panicked));
        }
    }
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
    questions: LookUpTurns,
}

impl ReaderThread {
    fn run(mut self, requests: &Receiver<ReaderRequest>) {
        loop {
            match self.next(requests) {
                Ok(request) => self.take(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // All that have come, so that users take turns.
            requests.try_iter().for_each(|request| self.take(request));
            if let Some(question) = self.questions.next() {
                self.answer(question);
            }
            if self.load_due.is_some_and(|due| due <= Instant::now()) {
                self.load_more();
            }
        }
    }

    fn take(&mut self, request: ReaderRequest) {
        match request {
            ReaderRequest::LoadMore => self.load_due = Some(Instant::now()),
            ReaderRequest::LookUp(question) => self.questions.add(question),
        }
    }

    /// The next request, or the end of the wait for a chunk that is due. With questions left it does not wait.
    fn next(&self, requests: &Receiver<ReaderRequest>) -> Result<ReaderRequest, RecvTimeoutError> {
        if !self.questions.is_empty() {
            return requests.recv_timeout(Duration::ZERO);
        }
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
                // One damaged submit may have thousands of jobs.
                for alike in chunk.damaged.chunk_by(|one, next| one.1 == next.1) {
                    let ((job, why), jobs) = (&alike[0], alike.len());
                    log::error!(
                        "jobs of an earlier run cannot run, they stay in the journal first={job} jobs={jobs} error={why:?}"
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

    fn answer(&mut self, question: LookUpQuestion) {
        let LookUpQuestion { number, client, jobs, .. } = question;
        let found = open(&mut self.reader, &self.folder).and_then(|reader| look_ups::read(reader, &jobs));
        self.news.put(JournalNews::Reader(ReaderAnswer::LookedUp { number, client, found }));
    }

    fn load(&mut self) -> Result<ChunkToRun, String> {
        let in_words = |error: &dyn std::fmt::Display| error.to_string();
        let reader = open(&mut self.reader, &self.folder)?;
        let loading = match &mut self.loading {
            Some(loading) => loading,
            None => self.loading.insert(reader.loading(self.end).map_err(|error| in_words(&error))?),
        };
        reader.load_to_run(loading).map_err(|error| in_words(&error))
    }
}

/// The connection, which is opened at its first use.
fn open<'a>(reader: &'a mut Option<JournalReader>, folder: &Path) -> Result<&'a JournalReader, String> {
    Ok(match reader {
        Some(reader) => reader,
        none => none.insert(JournalReader::open(folder).map_err(|error| error.to_string())?),
    })
}
