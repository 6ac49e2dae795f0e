//! What clients ask about jobs that exist: wait, result, cancel, retry, forget.
//!
//! Every field of a request is hostile. A job of another user does not exist for who is no administrator.

use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::client::why::Canceller;
use bulkhead_proto::ids::{ClientId, Fence, JobId, Tag};
use bulkhead_proto::limits::BATCH_MAX;

use crate::action::Action;
use crate::client::connections::Letter;
use crate::event::{Attached, Peer};
use crate::job::entry::{Left, State, Step};
use crate::job::fan::FIRST_PART;
use crate::job::list::Key;
use crate::machine::Core;

/// A change of one job: done, or why not.
type Change = fn(&mut Core, Key, Peer) -> Result<(), Refusal>;

impl Core {
    /// A client asked something. One that has gone since is not answered: its requests may stand in the same batch as its
    /// end.
    pub(crate) fn asked(&mut self, id: ClientId, tag: Tag, request: Request, files: Vec<Attached>) {
        let Some(peer) = self.clients.connected(id).map(|client| client.peer) else {
            return self.turn_away(files);
        };
        let files = match request {
            Request::Submit(_) => files,
            // Nothing else takes any.
            _ => {
                self.turn_away(files);
                Vec::new()
            }
        };
        match request {
            Request::Submit(submit) => self.submit(id, tag, submit, files),
            Request::Wait { jobs } => self.wait(id, tag, peer, &jobs),
            Request::Result { job } => self.result(id, tag, peer, job),
            Request::Logs { job, follow } => self.read_log(id, tag, peer, job, follow),
            Request::Cancel { jobs } => self.change(id, tag, peer, &jobs, Core::try_cancel),
            Request::Retry { jobs } => self.change(id, tag, peer, &jobs, Core::try_retry),
            Request::Forget { jobs } => self.change(id, tag, peer, &jobs, Core::try_forget),
            Request::Jobs { state, walk, limit } => self.show_jobs(id, tag, state, walk, limit),
            Request::Job { job } => self.show_job(id, tag, peer, job),
            Request::Why { job } => self.show_why(id, tag, peer, job),
            Request::Deaths { limit } => self.show_deaths(id, tag, peer, limit),
            Request::Workers => self.show_workers(id, tag, peer),
            Request::Status => self.show_status(id, tag, peer),
            Request::Kinds => self.show_kinds(id, tag),
            Request::Events { after, follow } => self.read_records(id, tag, after, follow),
            Request::Drain { grace_ms } => self.asked_to_drain(id, tag, peer, grace_ms),
            Request::Ping => self.reply(id, tag, Reply::Pong { pid: self.turn.config().pid }, 16),
        }
    }

    /// The job of this number, if this client may know of it. One that is not there and one that is somebody else's are
    /// refused in the same words, so that nobody learns from a refusal who has which jobs.
    pub(crate) fn visible(&self, peer: Peer, job: JobId) -> Result<Key, Refusal> {
        match self.jobs.find(job).filter(|_| job < FIRST_PART) {
            Some(key) if peer.admin || self.jobs.batch(key).uid == peer.uid => Ok(key),
            _ => Err(self.absent(job, !peer.admin)),
        }
    }

    /// Why there is no such job. Whoever may not see all jobs is not told which of the numbers are those of `others`.
    pub(crate) fn absent(&self, job: JobId, others: bool) -> Refusal {
        let last = self.jobs.last_id();
        if job > last || job == JobId(0) {
            Refusal::NeverWas { job, last }
        } else {
            Refusal::Gone { job, others }
        }
    }

    fn too_many(jobs: &[JobId]) -> Option<Refusal> {
        let why = format!("{} ids in one request, at most {BATCH_MAX} fit", jobs.len());
        (jobs.len() > BATCH_MAX).then_some(Refusal::Invalid { why })
    }

    fn wait(&mut self, id: ClientId, tag: Tag, peer: Peer, jobs: &[JobId]) {
        if let Some(refusal) = Self::too_many(jobs) {
            return self.refuse(id, tag, refusal);
        }
        // Every wait costs memory until its job ends, so their number is bounded as that of jobs is; one whole batch
        // always fits, or a client could never get on.
        let limit = self.turn.config().queue_max.max(BATCH_MAX as u64);
        let Some(client) = self.clients.connected(id) else { return };
        if client.waits + jobs.len() as u64 > limit {
            let what = "your list of jobs to wait for".to_owned();
            return self.refuse(id, tag, Refusal::Busy { what, limit, retry_after_ms: 1000 });
        }
        for &job in jobs {
            match self.visible(peer, job) {
                Ok(key) => self.wait_for(id, tag, key),
                Err(refusal) => self.refuse(id, tag, refusal),
            }
        }
        if self.clients.see(id).is_some_and(|client| client.waits > 0) {
            self.notify_waiter(id);
        }
    }

    fn wait_for(&mut self, id: ClientId, tag: Tag, key: Key) {
        if let Some(client) = self.clients.connected(id) {
            client.waits += 1;
        }
        let job = &mut self.jobs[key];
        let number = job.id;
        // An end is a letter like any other, also one that is there already: it waits for credit behind the others.
        if let Some(end) = job.end_mut() {
            end.untold += 1;
            self.clients.post(id, Letter { tag, own: false, job: number });
            return;
        }
        let waiters = &mut job.aside_mut().waiters;
        waiters.push((id, tag));
        // Whoever is gone is dropped now and then, so that the list stays as long as its living.
        if waiters.len() >= 8 && waiters.len().is_power_of_two() {
            let clients = &mut self.clients;
            waiters.retain(|(waiter, _)| clients.connected(*waiter).is_some());
        }
    }

    fn result(&mut self, id: ClientId, tag: Tag, peer: Peer, job: JobId) {
        match self.visible(peer, job) {
            Err(refusal) => self.refuse(id, tag, refusal),
            Ok(key) if self.jobs[key].end().is_some() => self.give_result(id, tag, key),
            Ok(key) => {
                let state = self.jobs[key].shown();
                self.refuse(id, tag, Refusal::NotEnded { job, state });
            }
        }
    }

    fn change(&mut self, id: ClientId, tag: Tag, peer: Peer, jobs: &[JobId], change: Change) {
        if let Some(refusal) = Self::too_many(jobs) {
            return self.refuse(id, tag, refusal);
        }
        // Each job for itself: one that cannot be changed does not keep the others from it.
        let (mut count, mut refused) = (0, Vec::new());
        for &job in jobs {
            match self.visible(peer, job).and_then(|key| change(self, key, peer)) {
                Ok(()) => count += 1,
                Err(refusal) => refused.push(refusal),
            }
        }
        let bytes = 16 + 80 * refused.len() as u64;
        self.reply(id, tag, Reply::Changed { count, refused }, bytes);
    }

    fn wrong_state(&self, key: Key, needed: &str) -> Result<(), Refusal> {
        Err(Refusal::WrongState { job: self.jobs[key].id, needed: needed.to_owned() })
    }

    fn try_cancel(&mut self, key: Key, peer: Peer) -> Result<(), Refusal> {
        if self.jobs[key].end().is_some() {
            return self.wrong_state(key, "it has ended already");
        }
        let uid = peer.uid;
        let is_owner = uid == self.jobs.batch(key).uid;
        self.cancel_job(
            key,
            if is_owner { Canceller::Owner { uid } } else { Canceller::Administrator { uid } },
        );
        Ok(())
    }

    fn try_forget(&mut self, key: Key, _: Peer) -> Result<(), Refusal> {
        if self.jobs[key].end().is_none() {
            return self.wrong_state(key, "it has not ended: cancel it first");
        }
        self.forget(key);
        Ok(())
    }

    fn try_retry(&mut self, key: Key, _: Peer) -> Result<(), Refusal> {
        let Some(end) = self.jobs[key].end() else {
            return self.wrong_state(key, "it has not ended yet");
        };
        if end.outcome == Outcome::Done {
            return self.wrong_state(key, "it is done: submit it anew to run it again");
        }
        if !self.drain.is_open() {
            return Err(Refusal::Draining);
        }
        // Never twice at once: as long as a worker holds the last offer, that attempt may still run.
        let held = end.holder.is_some_and(|(worker, seq)| {
            self.pools.workers.get(&worker).is_some_and(|worker| worker.claims.holds(seq))
        });
        let parts_held = self.jobs[key].freight().is_some_and(|freight| self.files.holds(freight));
        if held || parts_held {
            return self.wrong_state(key, "its last attempt is still being ended: try again in a moment");
        }
        if self.jobs[key].aside.as_ref().is_some_and(|aside| aside.has_files) {
            return self
                .wrong_state(key, "the files that came with it were let go at its end: submit it anew");
        }
        self.retry_job(key);
        Ok(())
    }

    /// Puts an ended job back into the queue, with fresh budgets and detached from whoever submitted it.
    fn retry_job(&mut self, key: Key) {
        let uid = self.jobs.batch(key).uid;
        self.turn.record(What::RetryAsked { job: self.jobs[key].id }, Some(uid));
        // Each accepted job counts once, by the outcome that it has in the end.
        if let Some(outcome) = self.jobs[key].end().map(|end| end.outcome.clone()) {
            self.turn.uncount_end(&outcome, 1);
        }
        self.unshelve(key);
        if let Some(output) = self.jobs[key].held() {
            self.turn.act(Action::DropOutput { output });
        }
        // `alone` stays: what killed its workers before may do so again, whatever its budget says now.
        self.detach_for_retry(key);
        let job = &mut self.jobs[key];
        job.crashes = 0;
        job.retries = 0;
        if job.step == Step::Merge {
            job.step = Step::Plan;
        }
        // Its attempts are those of whichever of its tasks took most, and each is an offer.
        job.fence = Fence(job.fence.0.max(job.attempts));
        let aside = job.aside_mut();
        aside.asked += 1;
        aside.freight = None;
        if job.alone {
            self.jobs.enter(key, State::Solo);
            let pool = self.jobs.batch(key).pool;
            self.pools[pool].solo.push_back(&mut self.jobs.slab, key);
        } else {
            self.jobs.enter(key, State::Queued);
            self.queues.push_back(&mut self.jobs, key);
        }
    }

    /// Ends a job that nobody wants. What runs is killed, unless it can be taken back before it begins.
    pub(crate) fn cancel_job(&mut self, key: Key, by: Canceller) {
        let running = match self.jobs[key].state {
            State::Running { worker, seq, .. } => Some((worker, seq)),
            _ => None,
        };
        // Its outcome comes first: whoever cancelled it does not wait for the proof of its worker's death.
        self.end_job(key, Outcome::Cancelled, Left::Nothing);
        if let Some(end) = self.jobs[key].end_mut() {
            end.by = Some(by);
        }
        if let Some((worker, seq)) = running {
            self.recall_or_look(worker, seq);
        }
    }
}
