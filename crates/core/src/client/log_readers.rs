//! Readers of logs: the jobs of which a client is sent the log of each attempt as it begins, each once.
//!
//! | the client asks to follow the log of a job | then |
//! |---|---|
//! | that it does not follow | it follows, and that counts against its user as a reader of records does (`Resource::Readers`) |
//! | that it follows already | the later request is the one that is answered; nothing is added |
//!
//! It follows until the job ends, or it is gone. Jobs hold the client alone: the request stands here, as that of a wait
//! does (`waits.rs`).

use bulkhead_proto::ids::{ClientId, JobId, Tag};

use crate::client::Clients;
use crate::turn::{Resource, Turn};

impl Clients {
    /// A client follows the log of a job by this request. `true`: it did not follow it before.
    pub(crate) fn follow_log(&mut self, turn: &mut Turn, (id, tag): (ClientId, Tag), job: JobId) -> bool {
        let Some(client) = self.connected(id) else { return false };
        let is_new = client.logs.insert(job, tag).is_none();
        if is_new {
            turn.charge(client.account, Resource::Readers, 1);
        }
        is_new
    }

    /// The request by which a client follows the log of a job, if it does.
    pub(crate) fn log_request(&self, id: ClientId, job: JobId) -> Option<Tag> {
        self.see(id)?.logs.get(&job).copied()
    }

    /// A job has ended: a client follows its log no more.
    pub(crate) fn log_is_over(&mut self, turn: &mut Turn, id: ClientId, job: JobId) {
        let Some(client) = self.connected(id) else { return };
        if client.logs.remove(&job).is_some() {
            turn.release(client.account, Resource::Readers, 1);
        }
    }
}
