//! Waits: the jobs whose ends a client asked for, each once.
//!
//! | the client asks for a job | then |
//! |---|---|
//! | for which it does not wait | it waits, and the wait counts against its user (`Resource::Waits`) |
//! | for which it waits already, in whatever request | the later request is the one that is answered; nothing is added |
//!
//! A wait lasts until its end was sent, or its client is gone. Jobs and letters hold the client alone: the request
//! stands here, so a client that repeats itself costs nothing.

use bulkhead_proto::ids::{ClientId, JobId, Tag};

use crate::client::Clients;
use crate::turn::{Resource, Turn};

impl Clients {
    /// A client waits for the end of a job by this request. `true`: it did not wait for it before.
    pub(crate) fn wait(&mut self, turn: &mut Turn, (id, tag): (ClientId, Tag), job: JobId) -> bool {
        let Some(client) = self.connected(id) else { return false };
        let is_new = client.waits.insert(job, tag).is_none();
        if is_new {
            turn.charge(client.account, Resource::Waits, 1);
        }
        is_new
    }

    /// The request that is answered with the end of a job, of a client that waits for it.
    ///
    /// # Panics
    /// If it is connected and does not wait for it.
    pub(crate) fn wait_of(&self, id: ClientId, job: JobId) -> Option<Tag> {
        let client = self.see(id)?;
        let tag = client.waits.get(&job);
        assert!(tag.is_some(), "client {id} waits for the job {job} that it is told of");
        tag.copied()
    }

    /// An end was told, or will never be.
    ///
    /// # Panics
    /// If the client is connected and does not wait for it.
    pub(super) fn wait_is_over(&mut self, turn: &mut Turn, id: ClientId, job: JobId) {
        let Some(client) = self.connected(id) else { return };
        let tag = client.waits.remove(&job);
        assert!(tag.is_some(), "client {id} waits for the job {job} that it is told of");
        turn.release(client.account, Resource::Waits, 1);
    }
}
