//! `CancelWaiting`: ends those jobs of a request that no worker runs, and says in one reply what became of each.
//!
//! | a job of the request | becomes |
//! |---|---|
//! | waits in the queue, for its backoff, or to run alone | ended, at once |
//! | is offered, and nothing shows that the worker has begun it | a wish, until the take-back of the offer is answered |
//! | a wish whose offer was taken back, or whose worker died before it began it | ended; refused if it has ended meanwhile |
//! | has begun: a worker runs it, its offer was not taken back, or its plan is done | running; refused if it has ended meanwhile |
//! | has ended, or is none that the client may see | refused |
//!
//! Each take-back is answered in the next turn, or the worker's death is heard, so no wish is older than that: the wishes are
//! bounded by the requests that a turn reads. A begun task is never ended by a wish. A question is answered when it has no
//! wish left; the client may be gone by then. `settle.rs` and `death.rs` report the offers.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::refusal::{Refusal, RefusedJobs};
use bulkhead_proto::ids::{ClientId, JobId, Seq, Tag, WorkerId};

use crate::event::Peer;
use crate::job::{Doing, TaskRun};
use crate::machine::requests::UNKNOWN_BYTES;
use crate::machine::{Core, JobOffer};
use crate::turn::count_down;

/// About the bytes of a reply, beside its jobs.
const REPLY_BYTES: u64 = 16;
/// About the bytes of a refusal in a reply, beside its jobs.
const REFUSAL_BYTES: u64 = 80;

/// A request whose reply is not complete.
#[derive(Debug)]
struct WaitingQuestion {
    client: ClientId,
    tag: Tag,
    peer: Peer,
    /// How many wishes of it are open.
    open: usize,
    ended: BTreeSet<JobId>,
    running: BTreeSet<JobId>,
    refused: BTreeMap<JobId, Refusal>,
}

/// A job that a question wants ended if its offer comes back.
#[derive(Clone, Copy, Debug)]
struct Wish {
    question: u64,
    job: JobId,
}

/// The questions that wait for take-backs, and their wishes by offer.
#[derive(Debug, Default)]
pub(super) struct WaitingCancels {
    questions: BTreeMap<u64, WaitingQuestion>,
    wishes: BTreeMap<(WorkerId, Seq), Vec<Wish>>,
    last: u64,
}

impl WaitingQuestion {
    fn new(client: ClientId, tag: Tag, peer: Peer) -> Self {
        let (ended, running, refused) = Default::default();
        Self { client, tag, peer, open: 0, ended, running, refused }
    }
}

impl WaitingCancels {
    /// Takes the wishes about an offer.
    fn take(&mut self, worker: WorkerId, seq: Seq) -> Vec<Wish> {
        // Nearly every offer has none.
        if self.wishes.is_empty() {
            Vec::new()
        } else {
            self.wishes.remove(&(worker, seq)).unwrap_or_default()
        }
    }

    /// Takes the wishes about all offers of a worker.
    fn take_all(&mut self, worker: WorkerId) -> Vec<Wish> {
        let seqs: Vec<Seq> =
            self.wishes.range((worker, Seq(0))..=(worker, Seq(u64::MAX))).map(|(offer, _)| offer.1).collect();
        seqs.into_iter().flat_map(|seq| self.take(worker, seq)).collect()
    }
}

/// What a job does, as far as a question is concerned.
enum Found {
    Waits,
    MayBegin { worker: WorkerId, seq: Seq },
    Runs,
    Ended,
}

impl Core {
    /// A client asked to end those of these jobs that no worker runs.
    pub(super) fn cancel_waiting(&mut self, id: ClientId, tag: Tag, peer: Peer, jobs: &[JobId]) {
        if let Some(refusal) = Self::too_many(jobs) {
            return self.refuse(id, tag, refusal);
        }
        self.waiting_cancels.last += 1;
        let number = self.waiting_cancels.last;
        let mut question = WaitingQuestion::new(id, tag, peer);
        for job in jobs.iter().copied().collect::<BTreeSet<JobId>>() {
            match self.jobs.visible(peer, job) {
                Ok(run) => self.ask_about(number, &mut question, run),
                Err(why) => drop(question.refused.insert(job, why)),
            }
        }
        if question.open == 0 {
            return self.answer_question(question);
        }
        self.waiting_cancels.questions.insert(number, question);
    }

    fn ask_about(&mut self, number: u64, question: &mut WaitingQuestion, run: TaskRun) {
        let job = run.first();
        match self.found(run) {
            Found::Ended => drop(question.refused.insert(job, Self::has_ended(job))),
            Found::Waits => {
                self.cancel_for(run, question.peer);
                question.ended.insert(job);
            }
            Found::MayBegin { worker, seq } if self.workers.ask_back(&mut self.turn, worker, seq) => {
                let wishes = self.waiting_cancels.wishes.entry((worker, seq)).or_default();
                wishes.push(Wish { question: number, job });
                question.open += 1;
            }
            Found::MayBegin { .. } | Found::Runs => drop(question.running.insert(job)),
        }
    }

    /// Whether a job waits. One whose plan is done has begun, also while its parts or its merge wait.
    fn found(&self, run: TaskRun) -> Found {
        let job = self.jobs.job(run);
        let is_planned = job.part_set().is_some();
        match job.doing() {
            Doing::Ended => Found::Ended,
            _ if is_planned => Found::Runs,
            Doing::Queued | Doing::Backoff { .. } | Doing::Alone => Found::Waits,
            Doing::Running { worker, seq, .. } => Found::MayBegin { worker, seq },
            Doing::Parted => Found::Runs,
        }
    }

    /// An offer never began, and its task was queued again: if a client wishes so, its job ends.
    pub(super) fn offer_never_began(&mut self, id: WorkerId, offer: &JobOffer) {
        // All wishes about one offer are about one job: the first ends it for all.
        let mut is_ended = false;
        for Wish { question, job } in self.waiting_cancels.take(id, offer.seq()) {
            if let Some(peer) = self.waiting_cancels.questions.get(&question).map(|asked| asked.peer)
                && let Some(run) = self.jobs.find_visible(peer, job)
                && matches!(self.found(run), Found::Waits)
            {
                self.cancel_for(run, peer);
                is_ended = true;
            }
            self.decide(question, job, is_ended);
        }
    }

    /// An offer had begun when its take-back was tried: its job goes on.
    pub(super) fn offer_had_begun(&mut self, id: WorkerId, seq: Seq) {
        for Wish { question, job } in self.waiting_cancels.take(id, seq) {
            self.decide(question, job, false);
        }
    }

    /// A worker is dead, and each offer of it that never began was reported: the others had begun.
    pub(super) fn offers_are_gone(&mut self, id: WorkerId) {
        for Wish { question, job } in self.waiting_cancels.take_all(id) {
            self.decide(question, job, false);
        }
    }

    /// A wish is decided: its job was ended by it, or not. The last one of a question answers it.
    fn decide(&mut self, number: u64, job: JobId, is_ended: bool) {
        let Some(question) = self.waiting_cancels.questions.get_mut(&number) else { return };
        match self.jobs.visible(question.peer, job) {
            _ if is_ended => drop(question.ended.insert(job)),
            Ok(run) if self.jobs.job(run).end().is_none() => drop(question.running.insert(job)),
            Ok(_) => drop(question.refused.insert(job, Self::has_ended(job))),
            Err(why) => drop(question.refused.insert(job, why)),
        }
        count_down(&mut question.open, 1, "wishes of a question");
        if question.open == 0
            && let Some(question) = self.waiting_cancels.questions.remove(&number)
        {
            self.answer_question(question);
        }
    }

    fn answer_question(&mut self, question: WaitingQuestion) {
        let WaitingQuestion { client, tag, ended, running, refused: reasons, .. } = question;
        let mut refused = Vec::new();
        let jobs = (ended.len() + running.len() + reasons.len()) as u64;
        reasons.into_iter().for_each(|(job, why)| RefusedJobs::add(&mut refused, job, why));
        let bytes = REPLY_BYTES + REFUSAL_BYTES * refused.len() as u64 + UNKNOWN_BYTES * jobs;
        let is_of_journal =
            |job: &JobId| self.jobs.find(*job).is_some_and(|run| self.jobs.batch(run).is_durable());
        let is_durable = ended.iter().any(is_of_journal);
        let (ended, running) = (ended.into_iter().collect(), running.into_iter().collect());
        // If one of them is durable, the answer waits until its end is stored.
        self.reply_of(is_durable, (client, tag), Reply::CancelledWaiting { ended, running, refused }, bytes);
    }

    /// Each question waits for its wishes, and each wish for an offer whose take-back was asked for.
    pub(super) fn audit_waiting_cancels(&self) {
        let WaitingCancels { questions, wishes, .. } = &self.waiting_cancels;
        let mut open = BTreeMap::<u64, usize>::new();
        for (&(id, seq), all) in wishes {
            assert!(!all.is_empty(), "offer {seq} of worker {id} has wishes");
            all.iter().for_each(|wish| *open.entry(wish.question).or_default() += 1);
            // One that has ended is settled before its take-back is answered.
            let offer = self.workers.offer(id, seq);
            assert!(offer.is_none_or(JobOffer::is_recalled), "offer {seq} of worker {id} is asked back");
        }
        let asked = questions.iter().map(|(number, question)| (*number, question.open));
        assert_eq!(asked.collect::<BTreeMap<_, _>>(), open, "a question waits for its wishes");
    }
}
