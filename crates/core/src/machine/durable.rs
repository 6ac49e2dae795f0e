//! Durable jobs: their submits, and what the journal tells.
//!
//! | the submit | its jobs |
//! |---|---|
//! | is checked, and its fact is made | have numbers and count as queued; they are in no table, and nobody knows of them |
//! | is stored | are queued; the client is answered |
//! | is not stored, or its key names other jobs | never were; the client is refused |
//! | repeats one that is stored | never were; the client is answered with those of that one |
//!
//! The core makes the facts, in order, and holds back what must not be told before they are stored (`held_back.rs`). Numbers of jobs
//! come from a block that the journal has reserved: the next one is asked for when half of it is left.

use bulkhead_facts::fact::{AcceptedJobs, Fact, FactNo};
use bulkhead_facts::submit_key::{SubmitDigest, SubmitKey};
use bulkhead_proto::client::message::{Reply, Submit};
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::refusal::{BoundPart, MetBound, Refusal};
use bulkhead_proto::ids::{ClientId, JobId, KindId, Tag};
use bulkhead_proto::job::OutputMode;

use crate::action::Action;
use crate::config::JournalUse;
use crate::job::Admission;
use crate::machine::Core;
use crate::machine::held_back::{HeldBack, HeldReply, charges_of};
use crate::turn::{Counter, Owner, Resource};

/// When a submit that was refused because of the journal may be tried again.
const RETRY_MS: u64 = 100;

/// What the core has of the journal.
#[derive(Debug, Default)]
pub(super) struct JournalState {
    /// Why it stores nothing now.
    pub(super) failed: Option<String>,
    /// The first number of a job that is not reserved; `None`: no numbers are reserved, and all may be given out.
    reserved: Option<JobId>,
    /// How many numbers were reserved at a time, and up to which more were asked for.
    block: u64,
    asked: Option<JobId>,
    /// Jobs of earlier runs that are queued again, and those whose kind nobody runs.
    pub(super) reloaded: u64,
    pub(super) kindless: u64,
}

impl JournalState {
    /// What a configuration says.
    pub(super) fn new(journal: &JournalUse) -> Self {
        match journal {
            JournalUse::None(_) => Self::default(),
            JournalUse::Open(open) => Self {
                reserved: Some(open.jobs.1),
                block: open.jobs.1.0.saturating_sub(open.jobs.0.0),
                ..Self::default()
            },
        }
    }
}

/// What a durable submit names, beside its jobs.
pub(super) struct DurableName {
    key: Option<SubmitKey>,
    digest: SubmitDigest,
}

impl Core {
    /// Whether jobs may be durable now, and these too. `submit` is as the client sent it.
    ///
    /// # Errors
    /// A refusal that says why not.
    pub(super) fn check_durable(
        &self,
        submit: &Submit,
        kind: KindId,
    ) -> Result<Option<DurableName>, Refusal> {
        let Some(durable) = &submit.durable else { return Ok(None) };
        let not_now = |why: String| Err(Refusal::NotDurable { why });
        if let JournalUse::None(why) = &self.turn.config().journal {
            return not_now(why.clone());
        }
        if let Some(why) = &self.journal.failed {
            return not_now(format!("the journal stores nothing now: {why}"));
        }
        let kind = &self.turn.config().kinds[usize::from(kind.0)];
        let unfit = [
            (!submit.files.is_empty(), "files"),
            (submit.registered.is_some(), "what its connection registered"),
            (kind.plans, "parts"),
            (submit.attached, "a connection that it is attached to"),
        ];
        if let Some((_, what)) = unfit.into_iter().find(|(is_so, _)| *is_so) {
            return not_now(format!("a job with {what} is not kept over an end of the daemon yet"));
        }
        match submit.policy.output {
            OutputMode::Inline | OutputMode::Auto => {}
            OutputMode::Arena | OutputMode::Descriptor | OutputMode::File => {
                return not_now("only inline results are kept over an end of the daemon yet".to_owned());
            }
        }
        let key = durable.key.as_deref().map(SubmitKey::new).transpose();
        let key = key.map_err(|error| Refusal::Invalid { why: error.to_string() })?;
        let digest = SubmitDigest::of(&submit.kind, submit.flavour, &submit.policy, &submit.inputs);
        Ok(Some(DurableName { key, digest }))
    }

    /// Makes the fact of a submit that was checked and has room, and lets it wait.
    pub(super) fn hold_submit(&mut self, mut admission: Admission, name: DurableName) {
        let (id, tag) = (admission.client, admission.tag);
        // A longer result would go another way, which ends with the daemon.
        admission.submit.policy.output = OutputMode::Inline;
        if let Some(refusal) = self.no_room_to_store(&admission) {
            self.turn.count(Counter::Refused, u64::from(admission.count));
            return self.refuse(id, tag, refusal);
        }
        let first = self.jobs.reserve(admission.count);
        let wall_us = self.turn.wall_us();
        admission.accepted = Some((first, wall_us));
        let submit = &admission.submit;
        let kind = &self.turn.config().kinds[usize::from(admission.kind.0)];
        let accepted = AcceptedJobs {
            first,
            uid: admission.uid,
            key: name.key,
            digest: name.digest,
            kind: kind.name.clone(),
            pool: kind.pool.clone(),
            flavour: submit.flavour,
            policy: submit.policy.clone(),
            accepted_us: wall_us,
            expires_us: submit
                .policy
                .expires_ms
                .map(|limit_ms| wall_us.saturating_add(limit_ms.saturating_mul(1000))),
            inputs: submit.inputs.clone(),
        };
        let fact = self.turn.fact(Fact::Accepted(Box::new(accepted)));
        for (account, resource, count) in charges_of(&admission) {
            self.turn.charge(account, resource, count);
        }
        self.held_back.push(fact, HeldBack::Submit(Box::new(admission)));
    }

    /// Why a submit has to wait: its user, or all users together, have too much that is not stored. One that is longer than the bound
    /// has room while nothing else waits.
    fn no_room_to_store(&mut self, admission: &Admission) -> Option<Refusal> {
        for (account, resource, wanted) in charges_of(admission) {
            if matches!(resource, Resource::Submits | Resource::SubmitBytes) {
                let room = self.room(account, resource);
                if wanted > room.left() && self.ledger.held(account, resource) > 0 {
                    return Some(room.refusal(resource, RETRY_MS));
                }
            }
        }
        self.no_room_for_facts(
            admission.submit.inputs.iter().map(|input| 128 + input.as_bytes().len() as u64).sum(),
        )
    }

    /// Why no request may make facts of so many bytes now.
    fn no_room_for_facts(&self, bytes: u64) -> Option<Refusal> {
        if self.turn.facts().has_room_for_submit(bytes) {
            return None;
        }
        let ((limit, _), what) = (self.turn.facts().bounds(), "facts that are not stored".to_owned());
        let key = Some("journal_queue_max".to_owned());
        Some(MetBound { what, limit, part: BoundPart::All, key }.busy(RETRY_MS))
    }

    /// All facts up to this one are stored: what waited for them goes on.
    pub(super) fn facts_stored(&mut self, up_to: FactNo) {
        self.turn.facts_stored(up_to);
        while let Some(held) = self.held_back.take(up_to) {
            match held {
                HeldBack::Submit(admission) => self.take_in_stored(*admission),
                HeldBack::Letter(client, letter) => {
                    if !self.clients.post(client, letter) {
                        self.told(client, letter);
                    }
                }
                HeldBack::Reply(held) => {
                    let (account, resource, count) = held.charge();
                    self.turn.release(account, resource, count);
                    let HeldReply { to: (id, tag), reply, bytes, .. } = *held;
                    self.reply(id, tag, reply, bytes);
                }
            }
        }
        self.look_ups_go_on();
    }

    /// A submit is stored. Its client may be gone.
    fn take_in_stored(&mut self, admission: Admission) {
        self.release_held(&admission);
        if !self.drain.is_open() {
            // The next run begins with them.
            self.turn.count(Counter::Accepted, u64::from(admission.count));
            let first = admission.accepted.map_or(JobId(0), |(first, _)| first);
            let count = admission.count;
            return self.reply(
                admission.client,
                admission.tag,
                Reply::Accepted { first, count, refused: None },
                48,
            );
        }
        self.take_in(admission, None);
    }

    fn release_held(&mut self, admission: &Admission) {
        for (account, resource, count) in charges_of(admission) {
            self.turn.release(account, resource, count);
        }
    }

    /// The submits among these facts are not stored.
    pub(super) fn submits_not_stored(&mut self, (from, to): (FactNo, FactNo), why: &str) {
        for fact in self.held_back.submits_in(from, to) {
            let refusal = Refusal::NotDurable { why: format!("the journal could not store them: {why}") };
            self.end_submit(fact, Reply::Refused(refusal));
        }
    }

    /// The key of a submit names one that is stored.
    pub(super) fn key_known(&mut self, fact: FactNo, (first, count): (JobId, u32), is_same: bool) {
        let reply = if is_same {
            Reply::Accepted { first, count, refused: None }
        } else {
            Reply::Refused(Refusal::KeyTaken { first, count })
        };
        self.end_submit(fact, reply);
    }

    /// The jobs of a submit that waits never were.
    fn end_submit(&mut self, fact: FactNo, reply: Reply) {
        let Some(admission) = self.held_back.take_submit(fact) else { return };
        self.turn.fact_refused(fact);
        self.release_held(&admission);
        if matches!(reply, Reply::Refused(_)) {
            self.turn.count(Counter::Refused, u64::from(admission.count));
        }
        self.reply(admission.client, admission.tag, reply, 128);
    }

    /// Nothing can be stored for now.
    pub(super) fn journal_failed(&mut self, why: String) {
        self.turn.record(What::JournalFailed { why: why.clone() }, Owner::Service);
        self.journal.failed = Some(why);
        self.fail_look_ups();
    }

    /// New facts are stored again.
    pub(super) fn journal_recovered(&mut self) {
        if self.journal.failed.take().is_some() {
            self.turn.record(What::JournalRecovered, Owner::Service);
        }
    }

    /// The journal has removed ended jobs: they are not in the table any longer than there.
    pub(super) fn journal_evicted(&mut self, jobs: &[JobId]) {
        for job in jobs {
            self.look_ups.changed(*job);
            if let Some(run) = self.jobs.find(*job)
                && self.jobs.batch(run).is_durable()
                && self.jobs.job(run).end().is_some()
            {
                self.forget(run);
            }
        }
    }

    /// Numbers of jobs below this one may be given out.
    pub(super) fn jobs_reserved(&mut self, end: JobId) {
        self.journal.reserved = self.journal.reserved.map(|reserved| reserved.max(end));
        self.journal.asked = None;
    }

    /// Whether so many numbers of jobs may be given out; asks for more when half of a block is left.
    ///
    /// # Errors
    /// All that are reserved were given out.
    pub(super) fn check_numbers(&mut self, count: u64) -> Result<(), Refusal> {
        let Some(reserved) = self.journal.reserved else { return Ok(()) };
        let left = reserved.0.saturating_sub(self.jobs.last_id().0 + 1);
        if left < self.journal.block / 2 + count && self.journal.asked.is_none() {
            let end = JobId(reserved.0 + self.journal.block);
            self.journal.asked = Some(end);
            self.turn.act(Action::ReserveJobs { end });
        }
        if left >= count {
            return Ok(());
        }
        let what = "numbers of jobs, which the journal reserves".to_owned();
        Err(MetBound { what, limit: self.journal.block, part: BoundPart::All, key: None }.busy(RETRY_MS))
    }

    /// Why no client may change an ended durable job now.
    pub(super) fn why_unchanged(&self, job: JobId) -> Option<Refusal> {
        match &self.journal.failed {
            Some(why) => {
                let needed = format!("the journal stores nothing now: {why}");
                Some(Refusal::WrongState { job, needed })
            }
            None => self.no_room_for_facts(0),
        }
    }

    /// Sends a reply that speaks of this job, once what it says is stored.
    pub(super) fn reply_of(
        &mut self,
        is_durable: bool,
        (id, tag): (ClientId, Tag),
        reply: Reply,
        bytes: u64,
    ) {
        if is_durable {
            self.reply_stored(id, tag, reply, bytes);
        } else {
            self.reply(id, tag, reply, bytes);
        }
    }
}
