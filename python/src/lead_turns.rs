//! When the session's own thread reads: not while threads of the program lead, nor for a moment after one has led.
//!
//! A program that makes one call at a time leads again at once. If the own thread took the lead between two calls, each of them would
//! cost two more changes of threads.
//!
//! | the own thread | until |
//! |---|---|
//! | is parked | no thread of the program leads; it is notified |
//! | rests | [`REST`] has passed since one led; then it reads |
//! | reads | a thread of the program wants the lead (`SessionTurn::Wanted`) |
//!
//! Driven by `wait.rs` (threads of the program) and `connection.rs` (the own thread).

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long after a lead another one is likely.
const REST: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
struct TurnState {
    /// Threads of the program that lead or wait to.
    leaders: usize,
    /// When the last of them left.
    left: Option<Instant>,
    is_parked: bool,
    is_closed: bool,
}

/// Whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct LeadTurns {
    state: Mutex<TurnState>,
    changed: Condvar,
}

/// A thread of the program leads, or waits to, until this is dropped.
#[derive(Debug)]
pub(crate) struct LeadWish<'a>(&'a LeadTurns);

impl LeadTurns {
    fn locked(&self) -> MutexGuard<'_, TurnState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread of the program wants to lead.
    pub(crate) fn wish(&self) -> LeadWish<'_> {
        self.locked().leaders += 1;
        LeadWish(self)
    }

    /// Waits until the own thread may read; `false`: the session is closed.
    pub(crate) fn await_own_turn(&self) -> bool {
        let mut state = self.locked();
        loop {
            if state.is_closed {
                return false;
            }
            if state.leaders > 0 {
                state.is_parked = true;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.is_parked = false;
                continue;
            }
            let rest = state.left.map_or(Duration::ZERO, |left| REST.saturating_sub(left.elapsed()));
            if rest.is_zero() {
                return true;
            }
            state = self.changed.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The session is closed: the own thread ends.
    pub(crate) fn close(&self) {
        self.locked().is_closed = true;
        self.changed.notify_all();
    }
}

impl Drop for LeadWish<'_> {
    fn drop(&mut self) {
        let mut state = self.0.locked();
        state.leaders -= 1;
        state.left = Some(Instant::now());
        let is_wanted = state.leaders == 0 && state.is_parked;
        drop(state);
        if is_wanted {
            self.0.changed.notify_all();
        }
    }
}
