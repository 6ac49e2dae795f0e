//! The connection of a session: what all threads share, and the thread of its own.
//!
//! | lock | guards |
//! |---|---|
//! | `places` | inputs under way and calls that wait for room (`input_places.rs`); taken before those of the client's session, and before `untold` |
//! | `rules` | rules and contexts (`call_rules.rs`); taken before those of the client's session |
//! | `untold`, `certificates`, `answers`, `waiters` | one table each; nothing else is taken under them |
//!
//! Threads of the program take them with the GIL held, so no thread that holds one asks for the GIL. Parts: `deliver.rs` passes
//! events on, `wait.rs` waits for one.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_client::{DaemonClient, Error, ListenerTrust};
use bulkhead_client::{
    LeadWait, Session, SessionAnswer, SessionLeader, SessionOptions, SessionTurn, SessionWaker, Spec, connect,
};
use pyo3::prelude::*;

use crate::call_rules::CallRules;
use crate::certificates::Certificates;
use crate::chunk_places::ChunkPlaces;
use crate::input_places::{CallInput, InputPlaces, gone};
use crate::lead_turns::LeadTurns;
use crate::told::Told;
use crate::wait::Waiters;

/// What a session is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionOptions {
    pub(crate) progress: bool,
    pub(crate) certify_cancelled: bool,
    pub(crate) arena_bytes: usize,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct CallConnection {
    pub(crate) session: Session,
    pub(crate) waker: SessionWaker,
    pub(crate) certify_cancelled: bool,
    pub(crate) rules: Mutex<CallRules>,
    pub(crate) places: Mutex<InputPlaces>,
    pub(crate) chunks: ChunkPlaces,
    /// How many calls wait for room, and how many hold a block or a file: to be read without the lock.
    pub(crate) waiting: AtomicUsize,
    pub(crate) held: AtomicUsize,
    /// What other threads than the leader have found out, and is not told.
    pub(crate) untold: Mutex<Vec<(u64, Told)>>,
    /// Ends that wait for their certificates.
    pub(crate) certificates: Certificates,
    /// Answers that a thread waits for; `None`: not there yet.
    pub(crate) answers: Mutex<HashMap<u64, Option<SessionAnswer>>>,
    pub(crate) waiters: Waiters,
    pub(crate) turns: LeadTurns,
    /// The number of the last question.
    pub(crate) questions: AtomicU64,
    pub(crate) is_closing: AtomicBool,
    /// The connection has ended, and the leader ends each open call as lost.
    pub(crate) is_over: AtomicBool,
    /// What events are passed to; `None` once it is closed.
    pub(crate) on_events: Mutex<Option<Py<PyAny>>>,
}

/// A lock whose holder panicked is taken all the same: each change under it is whole.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connects to the daemon at this path.
///
/// # Errors
/// What the client says: nobody listens there, or another version.
pub(crate) fn greet(path: &std::path::Path) -> Result<DaemonClient, bulkhead_client::ConnectFailure> {
    connect::connect_within(path, ListenerTrust::Anybody, connect::HELLO_TIMEOUT)
}

impl CallConnection {
    /// Makes a client's connection one for calls.
    ///
    /// # Errors
    /// As [`Session::over`].
    pub(crate) fn over(
        client: DaemonClient,
        options: ConnectionOptions,
        on_events: Py<PyAny>,
    ) -> Result<Self, Error> {
        // Calls wait in this process as long as they like: an executor takes any number of them.
        let unbounded = usize::MAX >> 1;
        let session = Session::over(
            client,
            SessionOptions {
                jobs_max: unbounded,
                bytes_max: unbounded,
                progress: options.progress,
                ..SessionOptions::default()
            },
        )?;
        Ok(Self {
            waker: session.waker(),
            session,
            certify_cancelled: options.certify_cancelled,
            rules: Mutex::default(),
            places: Mutex::new(InputPlaces::new(options.arena_bytes)),
            chunks: ChunkPlaces::default(),
            waiting: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            untold: Mutex::default(),
            certificates: Certificates::default(),
            answers: Mutex::default(),
            waiters: Waiters::default(),
            turns: LeadTurns::default(),
            questions: AtomicU64::new(0),
            is_closing: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            on_events: Mutex::new(Some(on_events)),
        })
    }

    /// Whether the connection is closed, or has ended by itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.is_over() || self.is_closing.load(Ordering::Acquire)
    }

    /// Whether a leader has passed on the end of each call, or is doing so.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// The loop of the own thread.
    pub(crate) fn read_in_background(&self) {
        while self.turns.await_own_turn() {
            let LeadWait::Leads(mut leader) = self.session.follow(None, true, || self.has_ended()) else {
                return;
            };
            while !self.has_ended() {
                if self.one_turn(&mut leader) == Some(SessionTurn::Wanted) {
                    break;
                }
            }
        }
    }

    /// A turn of the own thread, in which nobody is there to catch an exception.
    fn one_turn(&self, leader: &mut SessionLeader<'_>) -> Option<SessionTurn> {
        self.turn(leader, None).unwrap_or_else(|error| {
            Python::try_attach(|py| error.write_unraisable(py, None));
            None
        })
    }

    /// Submits one call with a long input, or while others wait for room.
    ///
    /// # Errors
    /// As [`InputPlaces::submit`].
    pub(crate) fn submit_placed(&self, token: u64, spec: &Arc<Spec>, input: CallInput) -> io::Result<()> {
        self.with_places(|places| places.submit(&self.session, token, spec, input))
    }

    /// The same of an input in two parts.
    ///
    /// # Errors
    /// As [`InputPlaces::submit`].
    pub(crate) fn submit_parts(&self, token: u64, spec: &Arc<Spec>, parts: [&[u8]; 2]) -> io::Result<()> {
        self.with_places(|places| places.submit_parts(&self.session, token, spec, parts))
    }

    fn with_places(&self, submit: impl FnOnce(&mut InputPlaces) -> io::Result<()>) -> io::Result<()> {
        let mut places = locked(&self.places);
        if self.has_ended() {
            return Err(gone());
        }
        let submitted = submit(&mut places);
        self.note_places(&places);
        submitted
    }

    /// The same of many: what cannot be submitted is told as refused.
    ///
    /// # Errors
    /// The connection has ended.
    pub(crate) fn submit_all_placed(
        &self,
        spec: &Arc<Spec>,
        calls: impl Iterator<Item = (u64, Vec<u8>)>,
    ) -> io::Result<()> {
        let mut places = locked(&self.places);
        if self.has_ended() {
            return Err(gone());
        }
        calls.for_each(|(token, bytes)| places.wait(token, spec, CallInput::Bytes(bytes)));
        let failed = places.submit_waiting(&self.session);
        self.note_places(&places);
        self.tell_later(failed.into_iter().map(|(token, why)| (token, Told::refused(why))).collect());
        Ok(())
    }

    /// Takes back calls that wait for room; the leader tells so.
    pub(crate) fn withdraw(&self, tokens: &[u64]) {
        if self.waiting.load(Ordering::Acquire) > 0 {
            let mut places = locked(&self.places);
            let taken = places.withdraw(tokens);
            self.note_places(&places);
            self.tell_later(taken.into_iter().map(|token| (token, Told::withdrawn())).collect());
        }
    }

    /// Queues events, which the leader passes on in its next turn. The caller holds the lock of `places`: `lose` empties this queue under
    /// it when the connection has ended, so nothing is added later.
    fn tell_later(&self, mut told: Vec<(u64, Told)>) {
        if !told.is_empty() {
            locked(&self.untold).append(&mut told);
            self.waker.wake();
        }
    }

    /// Notes how many calls wait for room, and how many have it.
    pub(crate) fn note_places(&self, places: &InputPlaces) {
        self.waiting.store(places.waiting(), Ordering::Release);
        self.held.store(places.held(), Ordering::Release);
    }

    /// How many calls have a last event to come.
    pub(crate) fn open(&self) -> usize {
        let here = locked(&self.places).waiting() + locked(&self.untold).len() + self.certificates.len();
        self.session.jobs() + here
    }

    /// Whether the last event of this call is to come, as far as can be seen: one that is just being told is not open.
    pub(crate) fn is_open(&self, token: u64) -> bool {
        self.session.is_open(token)
            || locked(&self.places).is_waiting(token)
            || locked(&self.untold).iter().any(|(one, _)| *one == token)
            || self.certificates.has(token)
    }

    /// The number of a new question.
    pub(crate) fn next_question(&self) -> u64 {
        self.questions.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Ends the connection, and has the own thread end.
    pub(crate) fn stop(&self) {
        self.is_closing.store(true, Ordering::Release);
        self.session.close();
        self.turns.close();
        self.waker.wake();
    }

    /// After [`Self::stop`]: tells the end of each call that has none. It waits for a leader in another thread first.
    ///
    /// # Errors
    /// As [`Self::turn`]; it has passed on all ends then too.
    pub(crate) fn tell_the_rest(&self) -> PyResult<()> {
        let mut leader = self.session.lead();
        let mut raised = Ok(());
        loop {
            match self.turn(&mut leader, None) {
                Ok(None) => return raised,
                Ok(Some(_)) => {}
                Err(error) => raised = raised.and(Err(error)),
            }
        }
    }
}
