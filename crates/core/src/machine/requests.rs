//! Requests of clients: `asked` calls the method for each, and the rest of this file has those about existing jobs.
//!
//! Every field of a request is hostile. A client that is no administrator is answered as if jobs of other users did not
//! exist.

use std::collections::BTreeSet;

use bulkhead_facts::fact::Fact;
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::refusal::{Refusal, RefusedJobs, UnknownJobs};
use bulkhead_proto::client::why::Canceller;
use bulkhead_proto::ids::{ClientId, JobId, Tag};
use bulkhead_proto::limits::BATCH_MAX;

use crate::action::Action;
use crate::client::{Client, Letter, LetterReason, LookUp, LookUpVerb};
use crate::event::{Attached, Peer};
use crate::job::TaskRun;
use crate::machine::Core;
use crate::turn::Resource;
use crate::view::{View, ViewReply};

/// When a client that may wait for no more jobs, or read no more records, should try again.
pub(super) const WAIT_RETRY_MS: u64 = 1000;
/// Most bytes of a number in a reply.
pub(super) const UNKNOWN_BYTES: u64 = 9;

impl Core {
    /// Why a job is not run again.
    pub(super) const IS_DONE: &str = "it is done: submit it anew to run it again";
    /// Why it is not run again yet.
    pub(super) const IS_BEING_ENDED: &str = "its last attempt is still being ended: try again in a moment";

    /// A client sent a request. A client that is gone is not answered: its requests may be in the same batch as the end of
    /// its connection.
    pub(super) fn asked(&mut self, id: ClientId, tag: Tag, request: Request, mut files: Vec<Attached>) {
        let Some(peer) = self.clients.see(id).map(|client| client.peer()) else {
            return self.turn_away(files);
        };
        if !matches!(request, Request::Submit(_) | Request::Register(_)) {
            // No other request takes files.
            self.turn_away(std::mem::take(&mut files));
        }
        match request {
            Request::Submit(submit) => self.submit(id, tag, submit, files),
            Request::Register(register) => self.register(id, tag, register, files),
            Request::DropRegistration { number } => self.drop_registration(id, tag, number),
            Request::Wait { jobs } => self.wait(id, tag, peer, &jobs),
            Request::Result { job } => self.ask_about_one((id, tag), peer, job, LookUpVerb::Result),
            Request::Logs { job, follow } => {
                self.ask_about_one((id, tag), peer, job, LookUpVerb::Log { follow })
            }
            Request::Cancel { jobs } => self.change(id, tag, peer, &jobs, LookUpVerb::Cancel),
            Request::CancelWaiting { jobs } => self.cancel_waiting(id, tag, peer, &jobs),
            Request::Retry { jobs } => self.change(id, tag, peer, &jobs, LookUpVerb::Retry),
            Request::Forget { jobs } => self.change(id, tag, peer, &jobs, LookUpVerb::Forget),
            Request::Events { after, follow } => self.read_records(id, tag, after, follow),
            Request::Received { through } => self.received(id, tag, through),
            // The shell knows who reads which block; the core hears of it when nobody does.
            Request::Freed { .. } => {}
            Request::Drain { grace_ms } => self.asked_to_drain(id, tag, peer, grace_ms),
            Request::Jobs { state, walk, limit } => {
                self.show(id, tag, |view| Ok(view.jobs(peer, state, walk, limit)))
            }
            Request::Job { job } => self.ask_about_one((id, tag), peer, job, LookUpVerb::Job),
            Request::Why { job } => self.ask_about_one((id, tag), peer, job, LookUpVerb::Why),
            Request::Deaths { limit } => self.show(id, tag, |view| Ok(view.deaths(peer, limit))),
            Request::Workers => self.show(id, tag, |view| Ok(view.workers(peer))),
            Request::Status => self.show(id, tag, |view| Ok(view.status(peer))),
            Request::Kinds => self.show(id, tag, |view| Ok(view.kinds())),
            Request::Ping => self.show(id, tag, |view| Ok(view.pong())),
        }
    }

    /// Answers a request about one job, from the table or from the journal.
    fn ask_about_one(&mut self, (id, tag): (ClientId, Tag), peer: Peer, job: JobId, verb: LookUpVerb) {
        match self.jobs.find_visible(peer, job) {
            Some(_) => self.asked_about_one((id, tag), peer, job, verb),
            None => self.look_up_one((id, tag), peer, job, verb),
        }
    }

    /// Answers a request about one job that is in the table.
    pub(super) fn asked_about_one(
        &mut self,
        (id, tag): (ClientId, Tag),
        peer: Peer,
        job: JobId,
        verb: LookUpVerb,
    ) {
        match verb {
            LookUpVerb::Job => self.show(id, tag, |view| view.job(peer, job)),
            LookUpVerb::Why => {
                let outputs = self.jobs.find_visible(peer, job).and_then(|run| self.output_wait(run));
                self.show(id, tag, |view| view.why(peer, job, outputs));
            }
            LookUpVerb::Log { follow } => self.read_log(id, tag, peer, job, follow),
            LookUpVerb::Result
            | LookUpVerb::Wait
            | LookUpVerb::Cancel
            | LookUpVerb::Retry
            | LookUpVerb::Forget => self.result(id, tag, peer, job),
        }
    }

    /// Answers with the reply of a view, or its refusal.
    fn show(&mut self, id: ClientId, tag: Tag, look: impl FnOnce(&View<'_>) -> Result<ViewReply, Refusal>) {
        self.post_charges();
        let Core { turn, jobs, workers, clients, ledger, drain, .. } = &*self;
        match look(&View::new(turn, jobs, workers, clients, ledger, drain.seen())) {
            Ok(ViewReply { reply, bytes }) => self.reply(id, tag, reply, bytes),
            Err(refusal) => self.refuse(id, tag, refusal),
        }
    }

    fn read_records(&mut self, id: ClientId, tag: Tag, after: u64, follow: bool) {
        let Some(account) = self.clients.see(id).map(Client::account) else { return };
        let room = self.room(account, Resource::Readers);
        if room.left() == 0 {
            return self.refuse(id, tag, room.refusal(Resource::Readers, WAIT_RETRY_MS));
        }
        if let Err(refusal) = self.clients.read_records(&mut self.turn, (id, tag), after, follow) {
            self.refuse(id, tag, refusal);
        }
    }

    pub(super) fn too_many(jobs: &[JobId]) -> Option<Refusal> {
        let why = format!("{} ids in one request, at most {BATCH_MAX} fit", jobs.len());
        (jobs.len() > BATCH_MAX).then_some(Refusal::Invalid { why })
    }

    pub(super) fn wait(&mut self, id: ClientId, tag: Tag, peer: Peer, jobs: &[JobId]) {
        if let Some(refusal) = Self::too_many(jobs) {
            return self.refuse(id, tag, refusal);
        }
        if let Some(refusal) = self.no_room_to_wait(id, jobs) {
            return self.refuse(id, tag, refusal);
        }
        let look_up = self.elsewhere(tag, peer, jobs, LookUpVerb::Wait);
        if let Some(refusal) = look_up.as_ref().and_then(|look_up| self.no_room_to_look_up(id, look_up)) {
            return self.refuse(id, tag, refusal);
        }
        let mut unknown = Vec::new();
        for &job in jobs {
            match self.jobs.find_visible(peer, job) {
                Some(run) => self.wait_for(id, tag, run),
                None if look_up.as_ref().is_some_and(|look_up| look_up.names(job)) => {}
                None => unknown.push(job),
            }
        }
        if !unknown.is_empty() {
            let bytes = UNKNOWN_BYTES * (3 + unknown.len() as u64);
            let (last, others) = (self.jobs.last_id(), !peer.admin);
            let unknown = UnknownJobs { jobs: unknown, last, others, earlier: None };
            self.reply(id, tag, Reply::Unknown(unknown), bytes);
        }
        if let Some(look_up) = look_up {
            self.look_up(id, look_up);
        }
        if self.clients.see(id).is_some_and(|client| client.asked_waits() > 0) {
            self.notify_waiter(id);
        }
    }

    /// Why these jobs are too many to wait for: each wait takes memory until its job ends. One for which the client
    /// waits already takes none.
    pub(super) fn no_room_to_wait(&mut self, id: ClientId, jobs: &[JobId]) -> Option<Refusal> {
        let account = self.clients.see(id)?.account();
        let room = self.room(account, Resource::Waits);
        if jobs.len() as u64 <= room.left() {
            return None;
        }
        let jobs: BTreeSet<JobId> = jobs.iter().copied().collect();
        let client = self.clients.see(id)?;
        let new = jobs.iter().filter(|job| !client.waits_for(**job)).count() as u64;
        (new > room.left()).then(|| room.refusal(Resource::Waits, WAIT_RETRY_MS))
    }

    pub(super) fn wait_for(&mut self, id: ClientId, tag: Tag, run: TaskRun) {
        if !self.clients.wait(&mut self.turn, (id, tag), run.first()) {
            return;
        }
        // A job that has ended already is a letter too: it waits for credit behind the other letters.
        if self.jobs.job(run).end().is_some() {
            self.jobs.tell_one_more(run);
            let letter = Letter::new(LetterReason::Asked, run.first());
            if self.jobs.batch(run).is_durable() {
                self.post_stored(id, letter);
            } else {
                self.clients.post(id, letter);
            }
        } else {
            let clients = &self.clients;
            self.jobs.add_waiter(run, id, |waiter| clients.is_connected(waiter));
        }
    }

    fn result(&mut self, id: ClientId, tag: Tag, peer: Peer, job: JobId) {
        match self.jobs.visible(peer, job) {
            Err(refusal) => self.refuse(id, tag, refusal),
            Ok(run) if self.jobs.job(run).end().is_some() => self.give_result(id, tag, run),
            Ok(run) => {
                let state = self.jobs.job(run).shown();
                self.refuse(id, tag, Refusal::NotEnded { job, state });
            }
        }
    }

    /// Answers `logs`: the log of the latest attempt at once, and when following that of each attempt as it begins.
    fn read_log(&mut self, id: ClientId, tag: Tag, peer: Peer, job: JobId, follow: bool) {
        let run = match self.jobs.visible(peer, job) {
            Ok(run) => run,
            Err(refusal) => return self.refuse(id, tag, refusal),
        };
        if let Some(why) = self.jobs.why_no_log(&self.turn, run, follow) {
            return self.refuse(id, tag, Refusal::NoLog { job, why });
        }
        if follow
            && self.jobs.job(run).end().is_none()
            && let Err(refusal) = self.follow_log(id, tag, run)
        {
            return self.refuse(id, tag, refusal);
        }
        self.give_log(id, tag, run);
    }

    /// A client follows the log of a job that has not ended.
    fn follow_log(&mut self, id: ClientId, tag: Tag, run: TaskRun) -> Result<(), Refusal> {
        let job = run.first();
        if self.clients.log_request(id, job).is_none()
            && let Some(account) = self.clients.see(id).map(Client::account)
        {
            let room = self.room(account, Resource::Readers);
            if room.left() == 0 {
                return Err(room.refusal(Resource::Readers, WAIT_RETRY_MS));
            }
        }
        if self.clients.follow_log(&mut self.turn, (id, tag), job) {
            let clients = &self.clients;
            self.jobs.add_follower(run, id, |follower| clients.is_connected(follower));
        }
        Ok(())
    }

    /// An attempt was offered: clients that follow its job get its log.
    pub(super) fn show_log(&mut self, run: TaskRun) {
        for id in self.jobs.log_followers(run) {
            if let Some(tag) = self.clients.log_request(id, run.first()) {
                self.give_log(id, tag, run);
            }
        }
    }

    fn give_log(&mut self, id: ClientId, tag: Tag, run: TaskRun) {
        let job = self.jobs.job(run);
        let Some(log) = job.log() else { return };
        let reply = Reply::Logs { job: job.id(), attempt: job.attempts(), is_there: true };
        self.clients.show_log(&mut self.turn, (id, tag), reply, log);
    }

    /// Drops files that no job takes.
    pub(super) fn turn_away(&mut self, files: Vec<Attached>) {
        for Attached { file, .. } in files {
            self.turn.act(Action::DropFile { file });
        }
    }

    /// Those of these jobs that are not in the table for this client and that the journal may have, to be looked up.
    fn elsewhere(&self, tag: Tag, peer: Peer, jobs: &[JobId], verb: LookUpVerb) -> Option<LookUp> {
        let is_elsewhere =
            |job: &JobId| self.may_be_in_journal(*job) && self.jobs.find_visible(peer, *job).is_none();
        let look_up = LookUp::new(tag, verb, jobs.iter().copied().filter(is_elsewhere));
        look_up.has_jobs().then_some(look_up)
    }

    fn change(&mut self, id: ClientId, tag: Tag, peer: Peer, jobs: &[JobId], verb: LookUpVerb) {
        if let Some(refusal) = Self::too_many(jobs) {
            return self.refuse(id, tag, refusal);
        }
        if let Some(refusal) = self.no_room_to_hold(id) {
            return self.refuse(id, tag, refusal);
        }
        let look_up = self.elsewhere(tag, peer, jobs, verb);
        if let Some(refusal) = look_up.as_ref().and_then(|look_up| self.no_room_to_look_up(id, look_up)) {
            return self.refuse(id, tag, refusal);
        }
        // One job that cannot be changed does not keep the others from being changed.
        let (mut count, mut refused, mut is_durable) = (0, Vec::new(), false);
        for &job in jobs {
            if look_up.as_ref().is_some_and(|look_up| look_up.names(job)) {
                continue;
            }
            let found = self.jobs.visible(peer, job);
            is_durable |= found.as_ref().is_ok_and(|run| self.jobs.batch(*run).is_durable());
            match found.and_then(|run| self.change_one(verb, run, peer)) {
                Ok(()) => count += 1,
                Err(why) => RefusedJobs::add(&mut refused, job, why),
            }
        }
        match look_up {
            None => {
                let bytes = changed_bytes(&refused);
                self.reply_of(is_durable, (id, tag), Reply::Changed { count, refused }, bytes);
            }
            Some(look_up) => {
                let after = self.turn.facts().awaited().filter(|_| count > 0).unwrap_or_default();
                self.look_up(id, look_up.with_changes(count, refused, after));
            }
        }
    }

    /// Changes one job that is in the table.
    pub(super) fn change_one(&mut self, verb: LookUpVerb, run: TaskRun, peer: Peer) -> Result<(), Refusal> {
        match verb {
            LookUpVerb::Cancel => self.try_cancel(run, peer),
            LookUpVerb::Retry => self.try_retry(run),
            LookUpVerb::Forget => self.try_forget(run),
            LookUpVerb::Result
            | LookUpVerb::Job
            | LookUpVerb::Why
            | LookUpVerb::Log { .. }
            | LookUpVerb::Wait => Ok(()),
        }
    }

    fn wrong_state(run: TaskRun, needed: &str) -> Result<(), Refusal> {
        Err(Refusal::WrongState { job: run.first(), needed: needed.to_owned() })
    }

    /// Why a job that has ended is not cancelled.
    pub(super) fn has_ended(job: JobId) -> Refusal {
        Refusal::WrongState { job, needed: "it has ended already".to_owned() }
    }

    fn try_cancel(&mut self, run: TaskRun, peer: Peer) -> Result<(), Refusal> {
        if self.jobs.job(run).end().is_some() {
            return Err(Self::has_ended(run.first()));
        }
        self.cancel_for(run, peer);
        Ok(())
    }

    /// Cancels a job that has not ended, for a user who may see it.
    pub(super) fn cancel_for(&mut self, run: TaskRun, peer: Peer) {
        let uid = peer.uid;
        let is_owner = uid == self.jobs.batch(run).uid();
        let by = if is_owner { Canceller::Owner { uid } } else { Canceller::Administrator { uid } };
        self.cancel_job(run, by);
    }

    fn try_forget(&mut self, run: TaskRun) -> Result<(), Refusal> {
        if self.jobs.job(run).end().is_none() {
            return Self::wrong_state(run, "it has not ended: cancel it first");
        }
        if self.jobs.batch(run).is_durable() {
            if let Some(refusal) = self.why_unchanged(run.first()) {
                return Err(refusal);
            }
            self.turn.fact(Fact::Forgotten { job: run.first() });
        }
        self.forget(run);
        Ok(())
    }

    /// Puts an ended job back into the queue, with fresh budgets.
    fn try_retry(&mut self, run: TaskRun) -> Result<(), Refusal> {
        let Some(end) = self.jobs.job(run).end() else {
            return Self::wrong_state(run, "it has not ended yet");
        };
        if *end.outcome() == Outcome::Done {
            return Self::wrong_state(run, Self::IS_DONE);
        }
        if !self.drain.is_open() {
            return Err(Refusal::Draining);
        }
        if self.jobs.batch(run).is_durable()
            && let Some(refusal) = self.why_unchanged(run.first())
        {
            return Err(refusal);
        }
        let Some(end) = self.jobs.job(run).end() else {
            return Self::wrong_state(run, "it has not ended yet");
        };
        // No job runs twice at once: while a worker holds the last offer, that attempt may still run.
        let is_held = end.holder().is_some_and(|(worker, seq)| self.workers.holds(worker, seq));
        if is_held || self.jobs.are_attachments_held(run) {
            return Self::wrong_state(run, Self::IS_BEING_ENDED);
        }
        if self.jobs.job(run).has_registered() {
            let needed = "what its connection registered for it was let go at its end: submit it anew";
            return Self::wrong_state(run, needed);
        }
        if self.jobs.job(run).has_files() {
            let needed = "the files that came with it were let go at its end: submit it anew";
            return Self::wrong_state(run, needed);
        }
        // It takes a place of its user in the queue, as a submit of that user does, whoever asks.
        let (account, input) = (self.jobs.batch(run).account(), self.jobs.job(run).input().clone());
        if let (_, Some(refusal)) = self.room_in_queue(account, std::slice::from_ref(&input)) {
            return Err(refusal);
        }
        let released = self.jobs.retry(&mut self.turn, run);
        self.relieve(released);
        Ok(())
    }
}

/// About the bytes of the reply to a request that changes jobs.
pub(super) fn changed_bytes(refused: &[RefusedJobs]) -> u64 {
    let of_jobs: u64 = refused.iter().map(|same| UNKNOWN_BYTES * same.jobs().len() as u64).sum();
    16 + 80 * refused.len() as u64 + of_jobs
}
