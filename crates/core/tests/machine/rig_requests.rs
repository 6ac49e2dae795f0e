//! What tests send to the machine as clients, and what they look up afterwards.
//!
//! Every helper sends a real request, so that tests see what clients see.

use bulkhead_core::event::Event;
use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::outcome::{JobEnded, Outcome};
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::refusal::{Refusal, RefusedJobs};
use bulkhead_proto::client::view::{JobDetail, Status, WorkerRow};
use bulkhead_proto::client::why::Why;
use bulkhead_proto::ids::{ClientId, JobId, Tag};
use bulkhead_proto::job::{Payload, Policy};

use crate::rig::{ADMIN, ALICE, Rig};

impl Rig {
    pub(crate) fn ask(&mut self, client: ClientId, request: Request) -> Tag {
        self.tag += 1;
        let tag = Tag(self.tag);
        self.tell(Event::ClientSaid { client, tag, request, files: Vec::new() });
        tag
    }

    /// Asks and gives the first reply.
    pub(crate) fn answer(&mut self, client: ClientId, request: Request) -> Reply {
        let tag = self.ask(client, request);
        self.replies
            .iter()
            .find(|reply| reply.1 == tag)
            .map(|reply| reply.2.clone())
            .expect("an answer at once")
    }

    pub(crate) fn submit_as(
        &mut self,
        client: ClientId,
        kind: &str,
        count: usize,
        policy: Policy,
        attached: bool,
    ) -> JobId {
        let inputs = (0..count).map(|number| Payload::from(number.to_string().into_bytes())).collect();
        let submit = Submit { kind: kind.to_owned(), policy, attached, inputs, ..Submit::default() };
        match self.answer(client, Request::Submit(submit)) {
            Reply::Accepted { first, .. } => first,
            other => panic!("not accepted: {other:?}"),
        }
    }

    /// Detached quick jobs of Alice.
    pub(crate) fn submit(&mut self, count: usize) -> JobId {
        self.submit_as(ALICE, "quick", count, Policy::default(), false)
    }

    pub(crate) fn detail(&mut self, job: JobId) -> JobDetail {
        match self.answer(ADMIN, Request::Job { job }) {
            Reply::Job(detail) => *detail,
            other => panic!("no such job: {other:?}"),
        }
    }

    /// Why a job is as it is, as this client is told.
    pub(crate) fn why(&mut self, client: ClientId, job: JobId) -> Why {
        match self.answer(client, Request::Why { job }) {
            Reply::Why(why) => *why,
            other => panic!("no reason: {other:?}"),
        }
    }

    pub(crate) fn outcome(&mut self, job: JobId) -> Option<Outcome> {
        self.detail(job).outcome
    }

    pub(crate) fn status(&mut self) -> Status {
        match self.answer(ADMIN, Request::Status) {
            Reply::Status(status) => *status,
            other => panic!("no status: {other:?}"),
        }
    }

    pub(crate) fn rows(&mut self) -> Vec<WorkerRow> {
        match self.answer(ADMIN, Request::Workers) {
            Reply::Workers(rows) => rows,
            other => panic!("no workers: {other:?}"),
        }
    }

    /// How many were changed, and why the others were not.
    pub(crate) fn change(&mut self, client: ClientId, request: Request) -> (u32, Vec<Refusal>) {
        match self.answer(client, request) {
            Reply::Changed { count, refused } => {
                (count, refused.iter().flat_map(RefusedJobs::refusals).collect())
            }
            other => panic!("no change: {other:?}"),
        }
    }

    /// The ends that a client was told under this tag, or under any.
    pub(crate) fn told(&self, client: ClientId, tag: Option<Tag>) -> Vec<JobEnded> {
        let mut all = Vec::new();
        for (to, of, reply, _) in &self.replies {
            if let Reply::Ended(ended) = reply
                && *to == client
                && tag.is_none_or(|tag| tag == *of)
            {
                all.extend(ended.iter().cloned());
            }
        }
        all
    }

    pub(crate) fn recorded(&self, wanted: impl Fn(&What) -> bool) -> usize {
        self.records.iter().filter(|what| wanted(what)).count()
    }
}
