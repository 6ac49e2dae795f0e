//! Durable jobs: which answers wait for which fact, and which facts the core makes.
//!
//! After each turn the rig compares what the core knows of its durable jobs with what the facts add up to.

use bulkhead_core::config::{Config, JournalTerms, JournalUse};
use bulkhead_core::event::Event;
use bulkhead_facts::fact::{AttemptEnd, Fact, FactNo};
use bulkhead_proto::client::message::{DurableSubmit, Reply, Request, Submit};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::job::{OutputMode, Payload, Policy};
use bulkhead_proto::limits::KEY_MAX_BYTES;

use crate::rig::{ADMIN, ALICE, BOB, Rig, SEGV, config};

pub(crate) fn journal(first: u64, facts_max: u64) -> JournalUse {
    let jobs = (JobId(first), JobId(first + 1000));
    JournalUse::Open(JournalTerms { jobs, facts_max, fact_bytes_max: 1 << 20, was_unclean: false })
}

pub(crate) fn durable_config(slots: u16) -> Config {
    Config { journal: journal(1, 1000), ..config(slots) }
}

/// A daemon with a journal that stores nothing until the test says so.
pub(crate) fn stalled(slots: u16) -> Rig {
    let mut rig = Rig::with(durable_config(slots));
    rig.stores = false;
    rig
}

pub(crate) fn submit(key: Option<&str>, inputs: &[&str]) -> Submit {
    Submit {
        kind: "quick".to_owned(),
        inputs: inputs.iter().map(|input| Payload::from(input.as_bytes().to_vec())).collect(),
        durable: Some(Box::new(DurableSubmit { key: key.map(|key| key.as_bytes().to_vec()) })),
        ..Submit::default()
    }
}

impl Rig {
    pub(crate) fn replies_to(&self, tag: Tag) -> Vec<Reply> {
        self.replies.iter().filter(|reply| reply.1 == tag).map(|reply| reply.2.clone()).collect()
    }

    pub(crate) fn store(&mut self) {
        let stored = self.stored();
        self.tell(stored);
    }

    /// A durable job of Alice, stored.
    pub(crate) fn durable(&mut self, policy: Policy) -> JobId {
        let tag = self.ask(ALICE, Request::Submit(Submit { policy, ..submit(None, &["7"]) }));
        self.store();
        match self.replies_to(tag).as_slice() {
            [Reply::Accepted { first, count: 1, refused: None }] => *first,
            other => panic!("not accepted: {other:?}"),
        }
    }

    pub(crate) fn last_facts(&self, count: usize) -> &[Fact] {
        &self.facts[self.facts.len() - count..]
    }

    fn turned_down(&mut self, submit: Submit) -> Refusal {
        match self.answer(ALICE, Request::Submit(submit)) {
            Reply::Refused(refusal) => refusal,
            other => panic!("not refused: {other:?}"),
        }
    }
}

#[test]
fn a_submit_is_answered_and_run_once_it_is_stored() {
    let mut rig = stalled(2);
    let tag = rig.ask(ALICE, Request::Submit(submit(None, &["7", "8"])));
    assert_eq!(rig.replies_to(tag), []);
    assert!(rig.holder(JobId(1)).is_none(), "nothing runs that is not stored");
    assert!(
        matches!(&rig.facts[..], [Fact::Accepted(all)] if all.first == JobId(1) && all.inputs.len() == 2)
    );
    rig.store();
    assert_eq!(rig.replies_to(tag), [Reply::Accepted { first: JobId(1), count: 2, refused: None }]);
    assert!(rig.holder(JobId(1)).is_some() && rig.holder(JobId(2)).is_some());
}

#[test]
fn volatile_jobs_overtake_what_waits_for_the_disk() {
    let mut rig = stalled(2);
    let durable = rig.durable(Policy::default());
    rig.finish(durable);
    let held = rig.ask(ALICE, Request::Submit(submit(None, &["9"])));
    let job = rig.submit(1);
    rig.finish(job);
    let wait = rig.ask(ALICE, Request::Wait { jobs: vec![job] });
    assert_eq!(rig.told(ALICE, Some(wait)).len(), 1);
    assert_eq!(rig.replies_to(held), []);
}

#[test]
fn an_end_is_told_once_it_is_stored() {
    let mut rig = stalled(1);
    let job = rig.durable(Policy::default());
    let waits = rig.ask(BOB, Request::Wait { jobs: vec![job] });
    assert!(rig.told(BOB, Some(waits)).is_empty(), "it is Alice's");
    let wait = rig.ask(ALICE, Request::Wait { jobs: vec![job] });
    rig.finish(job);
    let [result, late] =
        [Request::Result { job }, Request::Wait { jobs: vec![job] }].map(|request| rig.ask(ALICE, request));
    for tag in [wait, result, late] {
        assert_eq!(rig.replies_to(tag), [], "nothing that a crash could take back is told");
    }
    rig.store();
    for tag in [result, late] {
        let [ended] = &rig.told(ALICE, Some(tag))[..] else { panic!("told once") };
        assert_eq!((ended.job, &ended.outcome), (job, &Outcome::Done));
    }
}

#[test]
fn a_client_that_is_gone_has_its_jobs_nevertheless() {
    let mut rig = stalled(1);
    rig.ask(ALICE, Request::Submit(submit(None, &["7"])));
    rig.tell(Event::ClientGone { client: ALICE });
    rig.store();
    rig.finish(JobId(1));
    rig.store();
    assert_eq!(rig.outcome(JobId(1)), Some(Outcome::Done));
}

#[test]
fn a_client_that_leaves_before_an_end_is_stored_is_told_of_nothing() {
    let mut rig = stalled(1);
    let job = rig.durable(Policy::default());
    rig.ask(ALICE, Request::Wait { jobs: vec![job] });
    rig.finish(job);
    rig.tell(Event::ClientGone { client: ALICE });
    rig.store();
    assert_eq!(rig.outcome(job), Some(Outcome::Done));
}

#[test]
fn what_could_not_be_stored_is_refused_and_never_runs() {
    let mut rig = stalled(1);
    let lost = rig.ask(ALICE, Request::Submit(submit(None, &["7", "8"])));
    let stays = rig.ask(ALICE, Request::Submit(submit(None, &["9"])));
    let (from, to) = (FactNo(1), FactNo(1));
    rig.tell(Event::NotStored { from, to, why: "the disk is full".to_owned() });
    let [Reply::Refused(Refusal::NotDurable { why })] = &rig.replies_to(lost)[..] else { panic!("refused") };
    assert!(why.contains("the disk is full"));
    rig.tell(Event::JournalFailed { why: "the disk is full".to_owned() });
    let refusal = rig.turned_down(submit(None, &["7"])).to_string();
    assert!(refusal.contains("the disk is full") && refusal.contains("--volatile"), "{refusal}");
    rig.tell(Event::JournalRecovered);
    rig.durable.submits.clear();
    rig.store();
    assert_eq!(rig.replies_to(stays), [Reply::Accepted { first: JobId(3), count: 1, refused: None }]);
    assert!(rig.holder(JobId(3)).is_some() && rig.holder(JobId(1)).is_none());
    let failed = |what: &What| matches!(what, What::JournalFailed { .. } | What::JournalRecovered);
    assert_eq!(rig.recorded(failed), 2);
}

#[test]
fn a_key_that_is_known_names_the_jobs_that_have_it() {
    for (is_same, refused) in [(true, false), (false, true)] {
        let mut rig = stalled(1);
        let tag = rig.ask(ALICE, Request::Submit(submit(Some("k"), &["7", "8"])));
        rig.tell(Event::KeyKnown { fact: FactNo(1), first: JobId(400), count: 2, is_same });
        let answer = &rig.replies_to(tag)[..];
        match answer {
            [Reply::Accepted { first: JobId(400), count: 2, refused: None }] => assert!(!refused),
            [Reply::Refused(Refusal::KeyTaken { first: JobId(400), count: 2 })] => assert!(refused),
            other => panic!("{other:?}"),
        }
        rig.store();
        assert!(rig.holder(JobId(1)).is_none(), "they never were");
    }
}

#[test]
fn what_cannot_be_durable_is_refused_in_words() {
    let mut rig = Rig::with(durable_config(1));
    let policy = Policy { output: OutputMode::Descriptor, ..Policy::default() };
    let refusal = rig.turned_down(Submit { policy, ..submit(None, &["7"]) }).to_string();
    assert!(refusal.contains("inline results"), "{refusal}");
    let refusal = rig.turned_down(Submit { kind: "fan".to_owned(), ..submit(None, &["7"]) }).to_string();
    assert!(refusal.contains("a job with parts"), "{refusal}");
    let refusal = rig.turned_down(Submit { attached: true, ..submit(None, &["7"]) }).to_string();
    assert!(refusal.contains("a connection that it is attached to"), "{refusal}");
    for length in [0, KEY_MAX_BYTES + 1] {
        let refusal = rig.turned_down(submit(Some(&"k".repeat(length)), &["7"]));
        let words = format!("a key of {length} bytes");
        assert!(matches!(refusal, Refusal::Invalid { ref why } if why.contains(&words)), "{refusal}");
    }
    let refusal = Rig::new(1).turned_down(submit(None, &["7"])).to_string();
    assert!(refusal.contains("no state folder") && refusal.contains("--volatile"), "{refusal}");
    assert_eq!(rig.facts, []);
}

#[test]
fn a_submit_is_durable_as_a_whole() {
    let mut rig = Rig::with(Config { queue_max: 4, ..durable_config(1) });
    let refusal = rig.turned_down(submit(None, &["1", "2", "3", "4", "5"]));
    assert!(matches!(refusal, Refusal::Busy { .. }), "{refusal}");
    let mut rig = stalled(1);
    rig.core = bulkhead_core::Core::new(Config { queue_max: 4, ..durable_config(1) }, rig.now);
    rig.start();
    rig.ask(ALICE, Request::Submit(submit(None, &["1", "2"])));
    let refusal = rig.turned_down(submit(None, &["3", "4"]));
    assert!(matches!(refusal, Refusal::Busy { .. }), "what waits for the disk counts as queued: {refusal}");
}

#[test]
fn each_end_of_an_attempt_is_one_fact() {
    let mut rig = Rig::with(durable_config(1));
    let policy = Policy { retries_max: Some(1), crashes_max: Some(2), ..Policy::default() };
    let job = rig.durable(policy);
    rig.fail(job);
    assert!(
        matches!(rig.last_facts(1), [Fact::AttemptEnded(end)] if end.how == AttemptEnd::Failed && end.number == 1)
    );
    rig.sleep(1000);
    rig.die_unresponsive(job);
    let [Fact::AttemptEnded(end)] = rig.last_facts(1) else { panic!("{:?}", rig.last_facts(1)) };
    assert_eq!((end.how, end.death.is_some()), (AttemptEnd::Lost, true));
    rig.sleep(1000);
    let worker = rig.claim(job);
    rig.die(worker, SEGV);
    let [Fact::AttemptEnded(end)] = rig.last_facts(1) else { panic!("{:?}", rig.last_facts(1)) };
    assert_eq!((end.how, end.number), (AttemptEnd::Charged, 3));
    assert!(end.death.as_ref().is_some_and(|death| death.charged && death.death == SEGV));
    rig.sleep(1000);
    rig.crash(job);
    let [Fact::AttemptEnded(charged), Fact::Ended(end)] = rig.last_facts(2) else {
        panic!("{:?}", rig.last_facts(2))
    };
    assert_eq!((charged.how, charged.fence), (AttemptEnd::Charged, end.fence.expect("an attempt ended it")));
    assert!(matches!(end.outcome, Outcome::Crashed { crashes: 2, .. }));
    let stored = &rig.durable.jobs[&job];
    assert_eq!((stored.durable.attempts, stored.durable.crashes, stored.durable.lost), (4, 2, 1));
}

#[test]
fn an_end_by_a_limit_is_told_before_the_death_of_its_worker_is_a_fact() {
    let mut rig = Rig::with(durable_config(1));
    let policy = Policy { timeout_ms: Some(50), ..Policy::default() };
    let job = rig.durable(policy);
    let worker = rig.claim(job);
    rig.sleep(200);
    let why = rig.killed.remove(&worker).expect("it met its limit");
    rig.die(worker, bulkhead_proto::death::Death::Killed { why });
    let ends: Vec<&Fact> = rig.facts.iter().filter(|fact| !matches!(fact, Fact::Accepted(_))).collect();
    let [Fact::Ended(end), Fact::AttemptEnded(late)] = &ends[..] else { panic!("{ends:?}") };
    assert!(matches!(end.outcome, Outcome::TimedOut { .. }));
    assert_eq!((late.how, Some(late.fence)), (AttemptEnd::Uncharged, end.fence));
}

#[test]
fn retry_and_forget_are_facts_and_answered_after_them() {
    let mut rig = stalled(1);
    let job = rig.durable(Policy::default());
    rig.fail(job);
    rig.store();
    let retry = rig.ask(ALICE, Request::Retry { jobs: vec![job] });
    assert_eq!(rig.replies_to(retry), []);
    assert!(matches!(rig.last_facts(1), [Fact::Retried { .. }]));
    rig.store();
    assert_eq!(rig.replies_to(retry).len(), 1);
    rig.finish(job);
    rig.store();
    let forget = rig.ask(ALICE, Request::Forget { jobs: vec![job] });
    assert_eq!(rig.replies_to(forget), []);
    rig.store();
    assert_eq!(rig.replies_to(forget).len(), 1);
    assert!(rig.durable.jobs.is_empty());
}

#[test]
fn facts_that_are_not_stored_have_a_bound() {
    let mut rig = Rig::with(Config { journal: journal(1, 8), ..config(4) });
    rig.stores = false;
    for _ in 0..5 {
        rig.ask(ALICE, Request::Submit(submit(None, &["7"])));
    }
    let refusal = rig.turned_down(submit(None, &["7"])).to_string();
    assert!(refusal.contains("your share of the durable submits that are not stored"), "{refusal}");
    assert!(refusal.contains("journal_queue_max"), "{refusal}");
    rig.ask(BOB, Request::Submit(submit(None, &["7"])));
    rig.store();
    // Four run, and each end is a fact; the other two are not begun before there is room for what becomes of them.
    for job in [1, 2, 3, 4].map(JobId) {
        rig.finish(job);
    }
    assert!(rig.holder(JobId(5)).is_some() && rig.holder(JobId(6)).is_some());
    let (waits, volatile) = (rig.facts.len(), rig.submit(1));
    rig.finish(JobId(5));
    rig.finish(JobId(6));
    rig.finish(volatile);
    for _ in 0..3 {
        let tag = rig.ask(ALICE, Request::Submit(submit(None, &["7"])));
        assert!(matches!(&rig.replies_to(tag)[..], [Reply::Refused(Refusal::Busy { .. })]));
    }
    assert_eq!(rig.facts.len(), waits + 2);
}

#[test]
fn what_the_journal_has_removed_is_gone_here_too() {
    let mut rig = Rig::with(durable_config(1));
    let job = rig.durable(Policy::default());
    rig.tell(Event::JournalEvicted { jobs: vec![job, JobId(77)] });
    assert!(rig.holder(job).is_some(), "it has not ended");
    rig.finish(job);
    rig.durable.add(&Fact::Evicted { jobs: Box::new([job]) }).expect("it has ended");
    rig.tell(Event::JournalEvicted { jobs: vec![job] });
    assert!(matches!(rig.answer(ADMIN, Request::Job { job }), Reply::Refused(Refusal::Gone { .. })));
}
