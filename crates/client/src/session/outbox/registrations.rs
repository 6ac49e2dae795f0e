//! What a session registers and drops: arenas and contexts.
//!
//! A registration is sent at once: behind the jobs that are encoded, before those that are queued.
//!
//! | a registration, by its number, is | leaves that |
//! |---|---|
//! | asked | when the daemon answers (the session reports only a refusal); when it is dropped; when the connection ends |
//! | taken | when it is dropped |
//! | refused | when it is dropped; when the connection ends |
//!
//! Called as `outbox.rs`, under its lock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use bulkhead_proto::client::message::{Request, RequestFrame};
use bulkhead_proto::ids::Tag;

use super::SessionOutbox;
use crate::error::Error;
use crate::new_context::NewContext;

/// Registrations of the client that became the session have lower numbers.
const FIRST_REGISTRATION: u32 = 1 << 31;
/// The last number that a session of this process has used. None is used twice, so that an arena of one session is not taken
/// for that of another: the daemon knows no such number there.
static LAST_REGISTRATION: AtomicU32 = AtomicU32::new(FIRST_REGISTRATION);

/// What became of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RegistrationState {
    Asked,
    Taken,
    Refused,
}

/// The registrations of a session that it has not dropped, and the requests for them.
#[derive(Debug, Default)]
pub(super) struct SessionRegistrations {
    states: HashMap<u32, RegistrationState>,
    /// The numbers of those requests that have no answer, also of registrations that were dropped meanwhile.
    unanswered: HashMap<Tag, u32>,
}

impl SessionRegistrations {
    fn ask(&mut self, tag: Tag, number: u32) {
        self.unanswered.insert(tag, number);
        self.states.insert(number, RegistrationState::Asked);
    }

    /// Whether this is the request for a registration, and has no answer.
    pub(super) fn is_asked(&self, tag: Tag) -> bool {
        self.unanswered.contains_key(&tag)
    }

    /// How many requests have no answer.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// The daemon takes a registration; its number.
    pub(super) fn taken(&mut self, tag: Tag) -> Option<u32> {
        self.answered(tag, RegistrationState::Taken)
    }

    /// The daemon does not take a registration; its number.
    pub(super) fn refused(&mut self, tag: Tag) -> Option<u32> {
        self.answered(tag, RegistrationState::Refused)
    }

    fn answered(&mut self, tag: Tag, state: RegistrationState) -> Option<u32> {
        let number = self.unanswered.remove(&tag)?;
        // It may have been dropped meanwhile.
        if let Some(asked) = self.states.get_mut(&number) {
            *asked = state;
        }
        Some(number)
    }

    /// The connection has ended: nothing is answered any more.
    pub(super) fn lose_answers(&mut self) {
        self.unanswered.clear();
        self.states.retain(|_, state| *state == RegistrationState::Taken);
    }
}

impl SessionOutbox {
    /// The number of the next registration.
    pub(in crate::session) fn next_registration() -> u32 {
        LAST_REGISTRATION.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Queues a registration, behind the jobs that are encoded and before those that are not.
    pub(in crate::session) fn register(&mut self, number: u32, context: NewContext) -> Result<(), Error> {
        if self.is_closed {
            return Err(Error::Closed { in_a_frame: false });
        }
        let (request, files) = context.into_request(number);
        let tag = self.next_tag();
        self.sender.queue(&RequestFrame { tag, request }, &files)?;
        self.asks(Instant::now());
        self.registrations.ask(tag, number);
        Ok(())
    }

    /// Queues the drop of a registration. The jobs that are queued behind it must not name it; those that are encoded may.
    pub(in crate::session) fn drop_registration(&mut self, number: u32) {
        self.registrations.states.remove(&number);
        if !self.is_closed
            && let Err(fault) = self.encode(Request::DropRegistration { number })
        {
            self.fail(fault);
        }
    }

    /// Whether the daemon has taken a registration; `None`: it has not answered.
    pub(in crate::session) fn has_registered(&self, number: u32) -> Option<bool> {
        match self.registrations.states.get(&number) {
            Some(RegistrationState::Asked) => None,
            Some(RegistrationState::Taken) => Some(true),
            Some(RegistrationState::Refused) | None => Some(false),
        }
    }
}
