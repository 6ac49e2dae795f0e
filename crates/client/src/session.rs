//! A session: many threads submit attached jobs on one connection, and one thread at a time reads their ends.
//!
//! The blocking client pulls jobs from an iterator in one thread. Here jobs are pushed, and nobody waits for the thread that
//! reads. Both stand on the halves of `frame_halves.rs`.
//!
//! | lock | guards | held |
//! |---|---|---|
//! | `outbox` | queued jobs, requests without an answer, unsent bytes (`session/outbox.rs`) | to encode and to send what the socket takes; never while a thread waits |
//! | `lead` | the receiving half, or that a thread has it; who waits for it (`session/lead.rs`) | to take and to give back the half; `is_done` of a follower is called under it |
//!
//! No thread holds both, and no event is returned under either: a caller may hold locks of its own while it submits.

mod events;
mod lead;
mod number_map;
mod outbox;

use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bulkhead_proto::ids::JobId;
use bulkhead_sys::bell::Bell;

use crate::arena::Arena;
use crate::batch::{JobInput, Spec};
use crate::chunk::ItemStore;
use crate::client::{DaemonClient, REPLY_TIMEOUT};
use crate::error::Error;
use crate::new_context::{ContextNumber, NewContext};
pub use events::{
    NotSubmitted, SessionAnswer, SessionEnd, SessionEvent, SessionQuestion, SessionTurn, SubmitFault,
};
pub use lead::{LeadWait, SessionLeader};

use lead::LeadState;
use outbox::{CancelScope, NewJobs, SessionOutbox};

/// The bounds of a session.
#[derive(Clone, Copy, Debug)]
pub struct SessionOptions {
    /// Most jobs whose events were not returned. A submit beyond it is refused.
    pub jobs_max: usize,
    /// Most bytes of inputs of jobs that the daemon has not accepted. A submit beyond it is refused, unless there is no other.
    pub bytes_max: usize,
    /// Whether jobs that a busy daemon refused are sent again after the time that it gave, instead of being refused.
    pub wait_when_busy: bool,
    /// Whether the daemon keeps each result until [`Session::received`] reports it, within the bounds of kept results. Otherwise a
    /// result that was sent is forgotten.
    pub held: bool,
    /// Whether the daemon is asked for [`SessionEvent::Progress`].
    pub progress: bool,
    /// How long the daemon may send nothing while a submit or a cancel has no answer (30 s by default). Then the session ends as
    /// by [`Error::NoReply`]. How long jobs take does not matter.
    pub reply_timeout: Duration,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            jobs_max: 64 << 10,
            bytes_max: 64 << 20,
            wait_when_busy: true,
            held: false,
            progress: false,
            reply_timeout: REPLY_TIMEOUT,
        }
    }
}

/// Wakes the leader of a session: its turn returns [`SessionTurn::Woken`]. If nobody leads, the next turn does.
#[derive(Clone, Debug)]
pub struct SessionWaker(Arc<SessionBell>);

/// The bell, and what it is rung for.
#[derive(Debug)]
struct SessionBell {
    bell: Bell,
    /// Rung for queued work since a leader heard it.
    is_rung: AtomicBool,
    is_woken: AtomicBool,
}

impl SessionWaker {
    /// Wakes it. Any number of calls before the turn returns are one.
    pub fn wake(&self) {
        self.0.is_woken.store(true, Ordering::Release);
        self.0.bell.ring();
    }
}

/// One connection on which any thread submits, cancels and reads.
///
/// A job is known by a token that the caller chooses; each token has exactly one [`SessionEvent::Job`]. The jobs are attached:
/// some time after the session is dropped, or its process has died, the daemon cancels them.
///
/// | what happens | what becomes of it |
/// |---|---|
/// | nothing is queued, asked, accepted or unsent | the thread that submits sends the frame itself |
/// | else | the job is queued, and the bell is rung, once until the leader hears it; the next turn sends all that has gathered |
/// | the socket takes a part of a frame | the leader sends the rest when it is writable; the files went with the first byte |
/// | the daemon does not read | unsent bytes stay below two frames, further jobs stay queued, up to `jobs_max` and `bytes_max`; then a submit is refused: it never waits |
/// | the daemon sends nothing for `reply_timeout`, and a request has no answer | the session ends as if the daemon had died |
/// | the daemon dies | the leader's turn returns `Lost` for each token and the error; a submit is refused from then on |
/// | nobody leads | what is queued stays queued; the bell keeps the first turn of the next leader from waiting |
/// | a leader leaves, is interrupted or panics | its drop gives the half back, and a follower takes it |
///
/// ```no_run
/// use std::sync::Arc;
/// use bulkhead_client::{JobInput, Session, SessionEvent, SessionOptions, Spec, discovery};
///
/// let session = Session::over(discovery::find(None)?, SessionOptions::default())?;
/// let spec = Arc::new(Spec::new("factorial"));
/// std::thread::scope(|scope| {
///     for thread in 0..4_u64 {
///         let (session, spec) = (&session, &spec);
///         scope.spawn(move || {
///             for number in 0..100_u64 {
///                 let input = JobInput::from(number.to_string().into_bytes());
///                 session.submit(thread * 100 + number, spec, input).expect("it has room");
///             }
///         });
///     }
///     let (mut leader, mut events, mut ends) = (session.lead(), Vec::new(), 0);
///     while ends < 400 {
///         leader.turn(None, None, &mut events).expect("the daemon lives");
///         for event in events.drain(..) {
///             if let SessionEvent::Job { token, end } = event {
///                 println!("{token}: {end:?}");
///                 ends += 1;
///             }
///         }
///     }
/// });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Session {
    socket: UnixStream,
    outbox: Mutex<SessionOutbox>,
    /// Notified when jobs have left the outbox and a thread waits for room.
    room: Condvar,
    lead: Mutex<LeadState>,
    /// Notified when the half was given back, and when events were returned while a thread waits.
    lead_changed: Condvar,
    wake: Arc<SessionBell>,
}

/// A lock whose holder panicked is taken all the same: each change under it is whole before anything can panic.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Session {
    /// Makes the connection of a client a session. Replies to requests of the client that were not answered are dropped.
    ///
    /// # Errors
    /// No descriptor is left for the bell; [`Error::Closed`] if the client met the end of the connection.
    pub fn over(client: DaemonClient, options: SessionOptions) -> Result<Self, Error> {
        let (socket, sender, receiver, last) = client.into_halves()?;
        let bell = SessionBell {
            bell: Bell::new()?,
            is_rung: AtomicBool::new(false),
            is_woken: AtomicBool::new(false),
        };
        Ok(Self {
            socket,
            outbox: Mutex::new(SessionOutbox::new(sender, last, options)),
            room: Condvar::new(),
            lead: Mutex::new(LeadState::new(receiver)),
            lead_changed: Condvar::new(),
            wake: Arc::new(bell),
        })
    }

    /// Submits one job and waits for nothing. Jobs that follow each other with clones of one [`Arc`] as their spec, equal output
    /// modes and no files share a request. A token may be used again after its event was returned.
    ///
    /// # Errors
    /// [`NotSubmitted`], with the job: nothing was done. [`Session::wait_for_room`] waits after [`SubmitFault::Full`].
    pub fn submit(&self, token: u64, spec: &Arc<Spec>, input: JobInput) -> Result<(), NotSubmitted> {
        self.push([(token, input)], spec)
    }

    /// Submits several jobs at once, all or none of them: else as [`Session::submit`].
    ///
    /// # Errors
    /// [`NotSubmitted`], with all jobs, for the first of them that cannot be submitted.
    pub fn submit_all(&self, spec: &Arc<Spec>, jobs: Vec<(u64, JobInput)>) -> Result<(), NotSubmitted> {
        self.push(jobs, spec)
    }

    fn push(&self, jobs: impl NewJobs, spec: &Arc<Spec>) -> Result<(), NotSubmitted> {
        let mut outbox = locked(&self.outbox);
        let is_direct = outbox.is_idle();
        outbox.push(spec, jobs)?;
        if is_direct {
            outbox.flush(self.socket.as_fd(), Instant::now());
        }
        let needs_leader = outbox.needs_leader();
        drop(outbox);
        if needs_leader {
            self.ring();
        }
        Ok(())
    }

    /// Changes the outbox, sends what the socket takes, and has the leader look at it.
    fn change<T>(&self, change: impl FnOnce(&mut SessionOutbox) -> T) -> T {
        let mut outbox = locked(&self.outbox);
        let changed = change(&mut outbox);
        outbox.flush(self.socket.as_fd(), Instant::now());
        drop(outbox);
        self.ring();
        changed
    }

    /// The daemon's number of a job that it has accepted and whose event was not returned: `bulkhead job` shows it under this number.
    pub fn job_of(&self, token: u64) -> Option<JobId> {
        locked(&self.outbox).job_of(token)
    }

    /// Whether the [`SessionEvent::Job`] of this token is to come: no turn has returned it.
    pub fn is_open(&self, token: u64) -> bool {
        locked(&self.outbox).is_open(token)
    }

    /// Asks the daemon something. It waits for nothing: the answer is a [`SessionEvent::Answer`] with this number, which the
    /// caller chooses.
    ///
    /// # Errors
    /// [`Error::Closed`]: the connection has ended.
    pub fn ask(&self, question: u64, about: SessionQuestion) -> Result<(), Error> {
        self.change(|outbox| outbox.ask(question, about))
    }

    /// Has the daemon drop these ended jobs, which it keeps with their evidence: those that did not end `done`. It waits for nothing.
    pub fn forget(&self, jobs: &[JobId]) {
        self.change(|outbox| outbox.forget(jobs));
    }

    /// Ends these jobs, also those that run. Each still has its event: what was not sent is [`SessionEnd::Withdrawn`], what the
    /// daemon cancels ends `cancelled`, and one that ended before is told as it ended. Unknown tokens are ignored.
    pub fn cancel(&self, tokens: &[u64]) {
        self.cancel_within(tokens, CancelScope::All);
    }

    /// Ends those of these jobs that no worker runs; what has begun goes on to its end, and [`SessionEvent::RunsOn`] says so. Else
    /// as [`Session::cancel`].
    pub fn cancel_waiting(&self, tokens: &[u64]) {
        self.cancel_within(tokens, CancelScope::Waiting);
    }

    /// Reports that the results up to this number, of a [`SessionEvent::Held`], are where the caller wants them: the daemon need not
    /// keep them. It waits for nothing. A number that was not told is ignored, and a lower one than before changes nothing.
    pub fn received(&self, through: u64) {
        let mut outbox = locked(&self.outbox);
        outbox.received(through);
        let has_unsent = outbox.flush(self.socket.as_fd(), Instant::now());
        drop(outbox);
        if has_unsent {
            self.ring();
        }
    }

    fn cancel_within(&self, tokens: &[u64], scope: CancelScope) {
        self.change(|outbox| outbox.cancel(tokens, scope));
    }

    /// Waits until a submit of one job would not be [`SubmitFault::Full`]. Some thread has to lead meanwhile. `false`: the
    /// moment has passed.
    pub fn wait_for_room(&self, until: Option<Instant>) -> bool {
        let mut outbox = locked(&self.outbox);
        outbox.room_waiters += 1;
        while outbox.is_full() {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            outbox = match left {
                None => self.room.wait(outbox).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => break,
                Some(left) => self.room.wait_timeout(outbox, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        outbox.room_waiters -= 1;
        !outbox.is_full()
    }

    /// Makes an arena of at least so many bytes for inputs of this session's jobs, and registers it. It waits for no answer: a
    /// refusal is a [`SessionEvent::NotRegistered`], and jobs that name it are refused. Only a daemon of one user takes one.
    ///
    /// ```no_run
    /// # use std::sync::Arc;
    /// # use bulkhead_client::{JobInput, Session, SessionOptions, Spec, discovery};
    /// # let session = Session::over(discovery::find(None)?, SessionOptions::default())?;
    /// # let (spec, token) = (Arc::new(Spec::new("noop")), 7);
    /// let arena = session.register_arena(64 << 20)?;
    /// let input = vec![7; 64 << 10];
    /// // A full arena: send the input in a file, or wait for ends.
    /// let block = arena.block(&input).expect("it has room");
    /// session.submit(token, &spec, JobInput::from(block))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// | a job whose input is in a block | the session frees the block |
    /// |---|---|
    /// | is withdrawn, or not accepted | with its event |
    /// | is done or has failed | with its end |
    /// | ended otherwise: cancelled, timed out, crashed | when the daemon says that no worker can read it any more |
    /// | was forgotten before its end was told, or is lost | with the session, or in the case before when the daemon says so |
    ///
    /// # Errors
    /// No memory or descriptor for it; [`Error::Closed`]: the daemon is gone.
    pub fn register_arena(&self, bytes: usize) -> Result<Arena, Error> {
        let number = SessionOutbox::next_registration();
        let (arena, file) = Arena::create(number, bytes)?;
        self.register(number, NewContext::arena(file))?;
        Ok(arena)
    }

    /// Registers a context for jobs of this session, as [`Session::register_arena`] does an arena. Name it in
    /// [`Spec::contexts`].
    ///
    /// # Errors
    /// [`Error::Closed`]: the daemon is gone. [`Error::TooLong`]: it does not fit a frame.
    pub fn register_context(&self, context: NewContext) -> Result<ContextNumber, Error> {
        let number = SessionOutbox::next_registration();
        self.register(number, context)?;
        Ok(ContextNumber(number))
    }

    /// Makes a store of at least so many bytes for the results of chunks, whose items are in this arena, and registers it as
    /// [`Session::register_arena`] does an arena: only a daemon of one user takes both. A chunk is one job with many items. Its
    /// worker stores the result of each before the next begins, so a crash takes one item with it: what has a result is delivered,
    /// and what never began can be submitted again.
    ///
    /// ```no_run
    /// # use std::sync::Arc;
    /// # use bulkhead_client::{ChunkStop, ItemResult, JobInput, Session, SessionEnd, SessionOptions, Spec, discovery};
    /// # let session = Session::over(discovery::find(None)?, SessionOptions::default())?;
    /// # let (token, end) = (7, SessionEnd::Lost);
    /// let arena = session.register_arena(16 << 20)?;
    /// let store = session.register_item_store(&arena, 16 << 20)?;
    /// let spec = Arc::new(store.spec(Spec::new("squares")));
    /// let (input, chunk) = store.chunk(b"", &["1", "2", "3"], 100)?;
    /// session.submit(token, &spec, input)?;
    /// // When the event of the token has come:
    /// let outcome = chunk.read(&end);
    /// for result in outcome.delivered() {
    ///     let ItemResult::Done(bytes) = result else { continue };
    ///     println!("{}", String::from_utf8_lossy(bytes));
    /// }
    /// if outcome.stop() == ChunkStop::Begun {
    ///     println!("item {} fails with {end:?}", outcome.delivered().len());
    /// }
    /// println!("to be submitted again: {:?}", outcome.rest());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Session::register_arena`].
    pub fn register_item_store(&self, arena: &Arena, bytes: usize) -> Result<ItemStore, Error> {
        let number = SessionOutbox::next_registration();
        let (store, context) = ItemStore::create(number, arena, bytes)?;
        self.register(number, context)?;
        Ok(store)
    }

    /// Drops a store, as [`Session::drop_arena`] does an arena.
    pub fn drop_item_store(&self, store: &ItemStore) {
        self.drop_context(store.context());
    }

    fn register(&self, number: u32, context: NewContext) -> Result<(), Error> {
        self.change(|outbox| outbox.register(number, context))
    }

    /// Whether the daemon has taken this arena: jobs that name one that it refuses are refused. `None`: it has not answered. An arena
    /// that was dropped, or is of another session, is not taken; nor is one that had no answer when the connection ended.
    pub fn has_arena(&self, arena: &Arena) -> Option<bool> {
        locked(&self.outbox).has_registered(arena.number())
    }

    /// The same of an item store.
    pub fn has_item_store(&self, store: &ItemStore) -> Option<bool> {
        locked(&self.outbox).has_registered(store.context().0)
    }

    /// Drops a context. Jobs that the daemon has accepted keep it; those that are still queued here are refused.
    pub fn drop_context(&self, context: ContextNumber) {
        self.drop_registration(context.0);
    }

    /// Drops an arena, for which no job may be queued here any more. The daemon keeps it for the jobs that it has accepted, and this
    /// process until the last clone and the last block are dropped.
    pub fn drop_arena(&self, arena: &Arena) {
        self.drop_registration(arena.number());
    }

    fn drop_registration(&self, number: u32) {
        self.change(|outbox| outbox.drop_registration(number));
    }

    /// Ends the connection at once: the next turn of a leader says of each job that it is lost, and the daemon cancels them.
    pub fn close(&self) {
        // One that has ended already cannot be ended again.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Jobs whose events were not returned.
    pub fn jobs(&self) -> usize {
        locked(&self.outbox).jobs()
    }

    /// Wakes the leader from any thread.
    pub fn waker(&self) -> SessionWaker {
        SessionWaker(Arc::clone(&self.wake))
    }

    /// Rings for queued work, once until a leader hears it.
    fn ring(&self) {
        // A leader that has heard the bell since then looks at the outbox after that, under the lock that was held to queue the work:
        // so what is loaded here is not older.
        let is_rung = &self.wake.is_rung;
        if !is_rung.load(Ordering::Acquire) && !is_rung.swap(true, Ordering::AcqRel) {
            self.wake.bell.ring();
        }
    }
}

impl AsFd for Session {
    /// The socket: readable when a turn may have events.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsFd for SessionWaker {
    /// Readable from a wake, or from queued work, until a turn hears it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.bell.as_fd()
    }
}
