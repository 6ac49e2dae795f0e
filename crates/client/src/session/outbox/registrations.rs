//! What a session registers and drops: arenas and contexts.
//!
//! A registration is sent at once: behind the jobs that are encoded, before those that are queued. Its answer is told only if it
//! is a refusal. Called as `outbox.rs`, under its lock.

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
        self.registering.insert(tag, number);
        Ok(())
    }

    /// Queues the drop of a registration. The jobs that are queued behind it must not name it; those that are encoded may.
    pub(in crate::session) fn drop_registration(&mut self, number: u32) {
        if !self.is_closed
            && let Err(fault) = self.encode(Request::DropRegistration { number })
        {
            self.fail(fault);
        }
    }

    /// The daemon does not take a registration; its number.
    pub(super) fn refused_registration(&mut self, tag: Tag) -> u32 {
        let number = self.registering.remove(&tag).unwrap_or_default();
        self.not_registered.push(number);
        number
    }

    /// Whether the daemon has taken a registration; `None`: it has not answered.
    pub(in crate::session) fn has_registered(&self, number: u32) -> Option<bool> {
        let is_open = self.registering.values().any(|one| *one == number);
        (!is_open).then(|| !self.not_registered.contains(&number))
    }
}
