//! From the events of the client's session to the callable of Python.
//!
//! The thread that leads does it, in two steps: without the GIL it gives back the room of ended calls, submits those that waited for it, and
//! asks for certificates; then it attaches once and passes all that there is as one list. Meanwhile the lead is lent to this thread, so that
//! what is called may wait for other calls, or close the session. What ended without a result keeps its event until its certificate is
//! there.

use std::sync::Once;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bulkhead_client::proto::client::outcome::Outcome;
use bulkhead_client::{
    JobEnd, SessionAnswer, SessionEnd, SessionEvent, SessionLeader, SessionQuestion, SessionTurn,
};
use bulkhead_sys::heap;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::connection::{CallConnection, locked};
use crate::input_places::KEPT_BLOCK_BYTES;
use crate::told::{Told, event_list};
use crate::wait::WaitedFor;

/// How often a list is passed on that the callable did not take. A signal's handler may have raised in its midst: it takes it then the next time.
const TRIES: usize = 3;

/// The first long results: their values come and go as blocks of the heap.
static LONG_RESULTS: Once = Once::new();

impl CallConnection {
    /// One turn of a leader, and all that follows from it. `None`: the connection has ended.
    ///
    /// # Errors
    /// What the callable raised, if it is no `Exception`.
    pub(crate) fn turn(
        &self,
        leader: &mut SessionLeader<'_>,
        until: Option<Instant>,
    ) -> PyResult<Option<SessionTurn>> {
        let mut events = Vec::new();
        let due = self.certificates.due();
        let turn = leader.turn(until.into_iter().chain(due).min(), None, &mut events);
        if due.is_some() {
            self.ask_again();
        }
        let mut told = self.take(events);
        if let Err(error) = &turn
            && !self.is_over()
        {
            self.lose(&mut told, &error.to_string());
        }
        if matches!(turn, Ok(SessionTurn::Woken)) {
            told.append(&mut locked(&self.untold));
        }
        if !told.is_empty() {
            let mut read = Vec::new();
            let raised = leader.lend(|| self.tell(told, &mut read));
            leader.reuse(read);
            raised?;
        }
        Ok(turn.ok())
    }

    /// Asks for the certificates that are due.
    fn ask_again(&self) {
        for (question, job) in self.certificates.take_due(Instant::now()) {
            // A connection that has ended says so in its next turn.
            let _ = self.session.ask(question, SessionQuestion::Job(job));
        }
    }

    /// The step without the GIL: what is to be told.
    fn take(&self, events: Vec<SessionEvent>) -> Vec<(u64, Told)> {
        let mut told = Vec::with_capacity(events.len());
        let mut ended = Vec::new();
        let has_places = self.held.load(Ordering::Acquire) > 0 || self.waiting.load(Ordering::Acquire) > 0;
        for event in events {
            match event {
                SessionEvent::Job { token, end } => {
                    if has_places {
                        ended.push(token);
                    }
                    told.extend(self.ended(token, end).map(|what| (token, what)));
                }
                SessionEvent::RunsOn { token } => told.push((token, Told::RunsOn)),
                SessionEvent::Progress { token, done, total, .. } => {
                    told.push((token, Told::Progress(done, total)));
                }
                SessionEvent::Notice(text) => told.push((0, Told::Notice(text))),
                SessionEvent::NotRegistered { refusal, .. } => {
                    told.push((0, Told::Notice(refusal.to_string())));
                }
                SessionEvent::Answer { question, answer } => told.extend(self.answered(question, answer)),
                // Results are not held.
                SessionEvent::Held { .. } => {}
            }
        }
        if has_places {
            let mut places = locked(&self.places);
            ended.iter().for_each(|token| places.ended(*token));
            let failed = places.submit_waiting(&self.session);
            told.extend(failed.into_iter().map(|(token, why)| (token, Told::refused(why))));
            self.note_places(&places);
        }
        told
    }

    /// The end of a call; `None`: it is told when its certificate is there.
    fn ended(&self, token: u64, end: SessionEnd) -> Option<Told> {
        let items = self.chunks.read(token, &end);
        let end = match end {
            SessionEnd::Refused(why) => return Some(Told::refused(why).with_items(items)),
            SessionEnd::Withdrawn => return Some(Told::withdrawn().with_items(items)),
            SessionEnd::Lost => return Some(Told::lost().with_items(items)),
            SessionEnd::Ended(end) => end,
        };
        let job = end.job;
        let wants_certificate = self.wants_certificate(&end);
        let told = Told::end(end).with_items(items);
        if !wants_certificate {
            return Some(told);
        }
        let question = self.next_question();
        self.certificates.await_one(question, token, job, told);
        let asked = self.session.ask(question, SessionQuestion::Job(job));
        asked.err().and_then(|_| self.certificates.answered(question, None)).map(|(_, told)| told)
    }

    fn wants_certificate(&self, end: &JobEnd) -> bool {
        match end.outcome {
            Outcome::Crashed { .. } | Outcome::TimedOut { .. } | Outcome::Failed { .. } => true,
            Outcome::Cancelled => self.certify_cancelled,
            Outcome::Done | Outcome::Expired | Outcome::Lost { .. } => false,
        }
    }

    /// An answer: a certificate, or what a thread waits for.
    fn answered(&self, question: u64, answer: SessionAnswer) -> Option<(u64, Told)> {
        let detail = if let SessionAnswer::Job(detail) = &answer { Some(&**detail) } else { None };
        if let Some(told) = self.certificates.answered(question, detail) {
            self.session.forget(&detail.map(|detail| detail.row.job).into_iter().collect::<Vec<_>>());
            return Some(told);
        }
        if let Some(place) = locked(&self.answers).get_mut(&question) {
            *place = Some(answer);
            self.waiters.mark(&[WaitedFor::Answer(question)]);
        }
        None
    }

    /// The connection has ended: what waits here never runs, and what waits for a certificate gets none.
    fn lose(&self, told: &mut Vec<(u64, Told)>, why: &str) {
        let mut places = locked(&self.places);
        told.extend(places.lose().into_iter().map(|token| (token, Told::lost())));
        self.note_places(&places);
        // A submit looks at it under this lock: nothing is left waiting here.
        self.is_over.store(true, Ordering::Release);
        drop(places);
        told.append(&mut locked(&self.untold));
        told.append(&mut self.certificates.take_all());
        told.push((0, Told::Gone(why.to_owned())));
    }

    /// The step with the GIL. Adds the memory of long results that were passed on to `read`.
    fn tell(&self, told: Vec<(u64, Told)>, read: &mut Vec<Vec<u8>>) -> PyResult<()> {
        let tokens: Vec<WaitedFor> = if self.waiters.are_there() {
            told.iter().map(|(token, _)| WaitedFor::Token(*token)).collect()
        } else {
            Vec::new()
        };
        // At the end of the interpreter nobody is told.
        let raised = Python::try_attach(|py| self.call(py, told, read)).unwrap_or(Ok(()));
        self.waiters.mark(&tokens);
        self.waiters.passed();
        raised
    }

    /// Calls the callable until it has taken all; gives the first exception that interrupted it.
    fn call(&self, py: Python<'_>, told: Vec<(u64, Told)>, read: &mut Vec<Vec<u8>>) -> PyResult<()> {
        let Some(on_events) = locked(&self.on_events).as_ref().map(|one| one.clone_ref(py)) else {
            return Ok(());
        };
        let mut long = Vec::new();
        let events = event_list(py, told, &mut long)?;
        let (mut raised, mut tries) = (Ok(()), 0);
        while let Err(error) = on_events.call1(py, (&events,)) {
            tries += usize::from(error.is_instance_of::<PyException>(py));
            raised = raised.and(Err(error));
            if tries == TRIES {
                self.call_elsewhere(py, &on_events, events.unbind());
                break;
            }
        }
        if !long.is_empty() {
            LONG_RESULTS.call_once(|| heap::keep_freed_blocks(KEPT_BLOCK_BYTES));
        }
        read.extend(long.iter().map(|result| result.get().take()));
        raised
    }

    /// Calls the callable in a thread of its own, with a list for each event: the stack of this one is full, or one of the events is at
    /// fault. It waits for that, and what hears the events may wait for others.
    fn call_elsewhere(&self, py: Python<'_>, on_events: &Py<PyAny>, events: Py<PyList>) {
        let call_singly = || {
            Python::try_attach(|py| {
                for event in events.bind(py) {
                    let called = PyList::new(py, [event]).and_then(|one| on_events.call1(py, (one,)));
                    if let Err(error) = called {
                        error.write_unraisable(py, Some(on_events.bind(py)));
                    }
                }
            });
        };
        // A panic of that thread has been printed.
        py.detach(|| {
            std::thread::scope(|scope| drop(scope.spawn(|| self.session.stand_in(call_singly)).join()))
        });
    }
}
