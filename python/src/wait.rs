//! Threads of the program that wait: for the last event of a call, or for an answer. They lead meanwhile, if no other thread does.
//!
//! A waiter is marked once what it waits for was passed on to Python. An event that was on its way to Python when the wait began marks
//! nobody; so the wait also looks, after each list that was passed on, whether the call is still open.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bulkhead_client::{LeadWait, SessionAnswer, SessionLeader, SessionQuestion, SessionTurn};
use pyo3::exceptions::{PyConnectionError, PyRuntimeError};
use pyo3::prelude::*;

use crate::connection::{CallConnection, locked};
use crate::input_places::gone;

/// How long a leader waits until it looks for signals that came right before its wait.
const LEADER_LOOKS: Duration = Duration::from_millis(500);
/// The same of a thread that waits for another leader: no signal ends its wait.
const FOLLOWER_LOOKS: Duration = Duration::from_millis(50);

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum WaitedFor {
    /// The last event of a call, or any other of it.
    Token(u64),
    /// An answer.
    Answer(u64),
}

/// Threads that wait.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    count: AtomicUsize,
    marks: Mutex<HashMap<WaitedFor, Vec<Arc<AtomicBool>>>>,
    /// How many lists were passed on.
    lists: AtomicU64,
}

impl Waiters {
    /// Whether any thread waits.
    pub(crate) fn are_there(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Marks those who wait for one of these.
    pub(crate) fn mark(&self, what: &[WaitedFor]) {
        if what.is_empty() {
            return;
        }
        let marks = locked(&self.marks);
        for mark in what.iter().filter_map(|one| marks.get(one)).flatten() {
            mark.store(true, Ordering::Release);
        }
    }

    /// A list was passed on.
    pub(crate) fn passed(&self) {
        self.lists.fetch_add(1, Ordering::AcqRel);
    }

    fn lists(&self) -> u64 {
        self.lists.load(Ordering::Acquire)
    }

    fn enter(&self, what: WaitedFor) -> Waiter<'_> {
        let mark = Arc::new(AtomicBool::new(false));
        locked(&self.marks).entry(what).or_default().push(Arc::clone(&mark));
        self.count.fetch_add(1, Ordering::AcqRel);
        Waiter { all: self, what, mark }
    }
}

/// A thread that waits, until it is dropped.
#[derive(Debug)]
struct Waiter<'a> {
    all: &'a Waiters,
    what: WaitedFor,
    mark: Arc<AtomicBool>,
}

impl Waiter<'_> {
    fn is_marked(&self) -> bool {
        self.mark.load(Ordering::Acquire)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.all.count.fetch_sub(1, Ordering::AcqRel);
        let mut marks = locked(&self.all.marks);
        if let Some(same) = marks.get_mut(&self.what) {
            same.retain(|mark| !Arc::ptr_eq(mark, &self.mark));
            if same.is_empty() {
                marks.remove(&self.what);
            }
        }
    }
}

/// How one step of a wait ended.
enum WaitStep {
    /// What it waits for may be there.
    Look,
    /// Signals are to be looked for.
    Signals,
}

impl CallConnection {
    /// Waits for the last event of a call; `false`: the moment has passed, or the connection has ended.
    ///
    /// # Errors
    /// What `is_done` or a signal's handler raises; this thread passes events on.
    pub(crate) fn await_end(
        &self,
        py: Python<'_>,
        token: u64,
        is_done: &Bound<'_, PyAny>,
        until: Option<Instant>,
    ) -> PyResult<bool> {
        let waiter = self.waiters.enter(WaitedFor::Token(token));
        loop {
            let lists = self.waiters.lists();
            if is_done.call0()?.is_truthy()? {
                return Ok(true);
            }
            if self.is_over() || until.is_some_and(|until| until <= Instant::now()) {
                return Ok(false);
            }
            // What is on its way to Python marks nobody, and counts as a list.
            let is_open = self.is_open(token);
            let has_come = || waiter.is_marked() || (!is_open && self.waiters.lists() != lists);
            self.await_step(py, &has_come, until)?;
            if waiter.is_marked() {
                waiter.mark.store(false, Ordering::Release);
            }
        }
    }

    /// Asks the daemon, and waits for the answer.
    ///
    /// # Errors
    /// As [`Self::await_end`]; the daemon is gone or refuses.
    pub(crate) fn ask(&self, py: Python<'_>, about: SessionQuestion) -> PyResult<SessionAnswer> {
        let question = self.next_question();
        let waiter = self.waiters.enter(WaitedFor::Answer(question));
        locked(&self.answers).insert(question, None);
        let asked = self.session.ask(question, about);
        let mut waited = asked.map_err(|error| PyConnectionError::new_err(error.to_string()));
        while waited.is_ok() && !waiter.is_marked() && !self.is_over() {
            waited = self.await_step(py, &|| waiter.is_marked(), None);
        }
        let answer = locked(&self.answers).remove(&question).flatten();
        waited?;
        match answer {
            None | Some(SessionAnswer::Lost) => Err(PyConnectionError::new_err(gone().to_string())),
            Some(SessionAnswer::Refused(why)) => Err(PyRuntimeError::new_err(why.to_string())),
            Some(answer) => Ok(answer),
        }
    }

    /// Waits for a while, in the lead if it is free, and looks for signals.
    fn await_step(
        &self,
        py: Python<'_>,
        has_come: &(impl Fn() -> bool + Sync),
        until: Option<Instant>,
    ) -> PyResult<()> {
        let step = py.detach(|| {
            // Not for longer: what Python runs between two steps, a signal's handler too, may wait for what the own thread reads.
            let _wish = self.turns.wish();
            let looks = Instant::now() + FOLLOWER_LOOKS;
            let moment = until.map_or(looks, |until| until.min(looks));
            match self.session.follow(Some(moment), false, || has_come() || self.is_over()) {
                LeadWait::Leads(mut leader) => self.lead(&mut leader, has_come, until),
                LeadWait::Done => Ok(WaitStep::Look),
                LeadWait::TimedOut => Ok(WaitStep::Signals),
            }
        })?;
        match step {
            WaitStep::Look => Ok(()),
            WaitStep::Signals => py.check_signals(),
        }
    }

    fn lead(
        &self,
        leader: &mut SessionLeader<'_>,
        has_come: &impl Fn() -> bool,
        until: Option<Instant>,
    ) -> PyResult<WaitStep> {
        leader.stop_for_signals();
        let looks = Instant::now() + LEADER_LOOKS;
        let moment = until.map_or(looks, |until| until.min(looks));
        while !has_come() && !self.is_over() {
            match self.turn(leader, Some(moment))? {
                Some(SessionTurn::TimedOut | SessionTurn::Interrupted) => return Ok(WaitStep::Signals),
                Some(SessionTurn::Heard | SessionTurn::Woken | SessionTurn::Wanted) | None => {}
            }
        }
        Ok(WaitStep::Look)
    }
}
